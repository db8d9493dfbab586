// SPDX-License-Identifier: MIT
/* The kernel's sockets by epoll, level-triggered.
 *
 *   table[fd] = {owner, generation, kind}     epoll's data = generation << 32 | fd
 *
 * A descriptor that is closed in a callback may be given out again by accept within the same batch of events:
 * the generation in the event then no longer is that of the table, and the event is dropped.
 *
 * System calls are what costs here. Per message: one recv, one send, and a share of epoll_wait. epoll_ctl:
 * one for accept, none for close (the kernel forgets a closed descriptor by itself), one to arm EPOLLOUT when
 * a write was short and one to disarm it when all is out; pausing reads costs one only if bytes do come while
 * paused.
 *
 * Held (net_hold), connections and listeners are left as they are in epfd, which nobody asks meanwhile;
 * watches are in held_epfd besides, and that is waited for: level-triggered events of connections would not
 * let epoll_wait wait. What epfd collects is there when it is asked again, edges included.
 *
 * An open file of which another process has a descriptor, too, stays in epfd when ours is closed, and can
 * then no longer be taken out: it would be reported, with a generation that nobody has, for as long as the
 * other one lives. So such a connection (`copied`) is taken out before it is closed, and ended by more than
 * by closing. */
#include "net/net_epoll_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loop/loop.h"

/* When thousands of peers come, or hang up, at once (a load balancer dies), each costs a handshake or a
 * close, and their events stand in epoll's queue before those of everybody else. So accepting, newcomers and
 * those who leave get 1/STORM_SHARE of a turn's time. Beyond that their events are switched off (one
 * epoll_ctl each), and they wait in a queue of their own (`late`); while epoll's is long, up to so many
 * batches of it are looked through in a turn for the others. */
#define STORM_SHARE 4
#define BATCHES_MAX 24
/* Events of a storm between two looks at the clock. */
#define STORM_SLICE       16
#define HELD_LACKING_MS   1
#define TABLE_ENTRIES_MIN 64

/* ---- the table ---- */

static bool table_reserve(struct net_epoll *n, int fd)
{
    if ((uint32_t)fd < n->n_entries)
        return true;
    uint32_t count = n->n_entries == 0 ? TABLE_ENTRIES_MIN : n->n_entries;
    while (count <= (uint32_t)fd)
        count *= 2;
    struct entry *table = realloc(n->table, count * sizeof(*table));
    if (table == NULL)
        return false;
    memset(table + n->n_entries, 0, (count - n->n_entries) * sizeof(*table));
    n->table = table;
    n->n_entries = count;
    return true;
}

/* Tell epoll of fd and put it into the table. */
int epoll__table_add(struct net_epoll *n, int fd, void *owner, enum kind kind, uint32_t events)
{
    if (!table_reserve(n, fd))
        return -ENOMEM;
    struct entry *e = &n->table[fd];
    ASSERT(e->kind == KIND_NONE);
    struct epoll_event ev = {.events = events, .data.u64 = (uint64_t)e->generation << 32 | (uint32_t)fd};
    if (epoll_ctl(n->epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
        return -errno;
    e->owner = owner;
    e->kind = (uint16_t)kind;
    e->copied = false;
    return 0;
}

/* Events of it that are still in this batch will be dropped. */
void epoll__table_remove(struct net_epoll *n, int fd)
{
    struct entry *e = &n->table[fd];
    e->owner = NULL;
    e->kind = KIND_NONE;
    e->generation++;
}

static void ctl_mod(struct net_epoll *n, int fd, uint32_t events)
{
    struct epoll_event ev = {.events = events,
                             .data.u64 = (uint64_t)n->table[fd].generation << 32 | (uint32_t)fd};
    int r = epoll_ctl(n->epfd, EPOLL_CTL_MOD, fd, &ev);
    ASSERT(r == 0); /* MOD takes no memory: only a wrong descriptor makes it fail */
}

/* ---- connections ---- */

/* What the flags ask epoll for; *ret_armed: the bits that say so. */
static uint32_t conn_events(const struct net_conn *c, uint16_t *ret_armed)
{
    uint32_t events = 0;

    *ret_armed = 0;
    if (!(c->flags & CONN_PAUSED)) {
        *ret_armed |= CONN_ARMED_IN;
        events |= EPOLLIN | EPOLLRDHUP;
    } else {
        /* EPOLLHUP cannot be masked. Once both sides have sent FIN it is there all the time, and
         * level-triggered it would keep us spinning until the owner reads on; edge-triggered it comes once.
         */
        events |= EPOLLET;
    }
    if (c->flags & (CONN_WANT_WRITE | CONN_CONNECTING)) {
        *ret_armed |= CONN_ARMED_OUT;
        events |= EPOLLOUT;
    }
    return events;
}

/* Make epoll wait for what the flags ask for. */
static void conn_arm(struct net_epoll *n, struct net_conn *c)
{
    uint16_t want;
    uint32_t events = conn_events(c, &want);

    if ((c->flags & (CONN_ARMED_IN | CONN_ARMED_OUT)) == want && !(c->flags & CONN_LATE))
        return;
    c->flags = (uint16_t)((c->flags & ~(CONN_ARMED_IN | CONN_ARMED_OUT | CONN_LATE)) | want);
    ctl_mod(n, fd_of(c), events);
}

static void ctl_del(int epfd, int fd)
{
    int r = epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
    ASSERT(r == 0);
}

/* Closing is not enough while another process has it open, too. (Connected to nothing, a TCP socket is
 * reset; a Unix socket cannot be.) */
static __attribute__((noinline)) void copied_end(struct net_epoll *n, int fd, bool hard)
{
    const struct sockaddr nothing = {.sa_family = AF_UNSPEC};

    ctl_del(n->epfd, fd);
    if (!hard || connect(fd, &nothing, sizeof(nothing)) < 0)
        shutdown(fd, SHUT_RDWR);
}

static void conn_release(struct net_epoll *n, struct net_conn *c)
{
    int fd = fd_of(c);

    epoll__table_remove(n, fd);
    c->handle = 0;
    c->flags = 0;
    n->net.stats.open--;
    close(fd);
}

static void conn_lost(struct net_epoll *n, struct net_conn *c, int err)
{
    if (__builtin_expect(n->table[fd_of(c)].copied, 0))
        copied_end(n, fd_of(c), false);
    conn_release(n, c);
    c->ops->closed(c, err);
}

static int socket_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof(err);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return errno;
    return err;
}

/* recv gave no bytes: the end, an error, or nothing. */
static __attribute__((noinline)) void conn_read_nothing(struct net_epoll *n, struct net_conn *c, int err,
                                                        uint32_t events)
{
    if (err == EAGAIN || err == EINTR) {
        if (!(events & EPOLLERR))
            return;
        err = socket_error(fd_of(c));
        if (err == 0)
            return;
    }
    conn_lost(n, c, err);
}

static inline void conn_read(struct net_epoll *n, struct net_conn *c, uint32_t events)
{
    ssize_t len = recv(fd_of(c), n->read_buf, NET_READ_SIZE, 0);

    if (__builtin_expect(len <= 0, 0)) {
        conn_read_nothing(n, c, len < 0 ? errno : 0, events);
        return;
    }
    n->net.stats.reads++;
    n->net.stats.read_bytes += (size_t)len;
    c->ops->data(c, n->read_buf, (size_t)len);
}

/* What the flags and the event have to say beside a plain read; false when c may be gone. */
static bool conn_event_first(struct net_epoll *n, struct net_conn *c, uint32_t events)
{
    if (c->flags & CONN_CONNECTING) {
        int err = socket_error(fd_of(c));
        if (err == 0 && !(events & EPOLLOUT))
            return false;
        if (err != 0) {
            conn_lost(n, c, err);
            return false;
        }
        c->flags &= (uint16_t)~CONN_CONNECTING;
        conn_arm(n, c);
        if (c->ops->connected != NULL)
            c->ops->connected(c);
        return false; /* what else the event says comes again */
    }
    if (c->flags & CONN_PAUSED) {
        int err = events & EPOLLERR ? socket_error(fd_of(c)) : 0;
        if (err == 0 && (c->flags & CONN_BROKEN))
            err = EPIPE;
        if (err != 0) {
            conn_lost(n, c, err);
            return false;
        }
        if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
            conn_arm(n, c); /* bytes or FIN while paused: from now on do not hear of them */
    }
    return true;
}

static void conn_writable(struct net_epoll *n, struct net_conn *c, uint32_t generation)
{
    int fd = fd_of(c);

    if (c->flags & CONN_WANT_WRITE) {
        c->flags &= (uint16_t)~CONN_WANT_WRITE;
        c->ops->writable(c);
        if (n->table[fd].generation != generation)
            return;
    }
    conn_arm(n, c); /* unless that write was short again */
}

/* Any event of a connection that does not just wait for bytes. */
static __attribute__((noinline)) void conn_event(struct net_epoll *n, struct net_conn *c, int fd,
                                                 uint32_t generation, uint32_t events)
{
    if (!conn_event_first(n, c, events))
        return;
    /* Read first: after a reset it tells of it, where a write would take the error for itself. */
    if (!(c->flags & CONN_PAUSED) && (events & ~(uint32_t)EPOLLOUT)) {
        conn_read(n, c, events);
        if (n->table[fd].generation != generation || n->held)
            return;
    }
    if (events & EPOLLOUT)
        conn_writable(n, c, generation);
}

int epoll__socket(const struct net_addr *addr, struct sockaddr_storage *ret, socklen_t *ret_len)
{
    *ret_len = net_addr_to_sockaddr(addr, ret);
    if (*ret_len == 0)
        return -EAFNOSUPPORT;
    int fd = socket(ret->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

static int epoll_back_connect(struct net *net, struct net_conn *c, const struct net_addr *addr)
{
    struct net_epoll *n = from_net(net);
    struct sockaddr_storage ss;
    socklen_t len;
    int fd = epoll__socket(addr, &ss, &len);
    if (fd < 0)
        return fd;
    tcp_options_set(fd, &net->keepalive);
    int r = connect(fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS ? -errno : 0;
    if (r == 0)
        r = epoll__table_add(n, fd, c, KIND_CONN, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
    if (r < 0) {
        close(fd);
        return r;
    }
    c->handle = fd + 1;
    c->flags = CONN_CONNECTING | CONN_ARMED_IN | CONN_ARMED_OUT;
    n->net.stats.open++;
    return 0;
}

static __attribute__((noinline)) ssize_t send_many(int fd, const struct iovec *iov, int n_iov,
                                                   size_t *ret_asked)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n_iov};
    size_t asked = 0;

    for (int i = 0; i < n_iov; i++)
        asked += iov[i].iov_len;
    *ret_asked = asked;
    return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

/* A write that did not take everything. */
static __attribute__((noinline)) ssize_t write_short(struct net_epoll *n, struct net_conn *c, ssize_t taken)
{
    if (taken < 0) {
        int err = errno;
        bool is_early = err == ENOTCONN && (c->flags & CONN_CONNECTING);
        if (err != EAGAIN && err != EINTR && !is_early) {
            c->flags |= CONN_BROKEN;
            return -err;
        }
        taken = 0;
    }
    n->net.stats.writes++;
    n->net.stats.written_bytes += (size_t)taken;
    c->flags |= CONN_WANT_WRITE;
    if (!(c->flags & CONN_ARMED_OUT))
        conn_arm(n, c);
    return taken;
}

static ssize_t epoll_back_writev(struct net *net, struct net_conn *c, const struct iovec *iov, int n_iov)
{
    struct net_epoll *n = from_net(net);
    size_t asked = iov[0].iov_len;
    ssize_t taken = n_iov == 1 ? send(fd_of(c), iov[0].iov_base, asked, MSG_NOSIGNAL)
                               : send_many(fd_of(c), iov, n_iov, &asked);

    if (__builtin_expect(taken < 0 || (size_t)taken < asked, 0))
        return write_short(n, c, taken);
    n->net.stats.writes++;
    n->net.stats.written_bytes += (size_t)taken;
    return taken;
}

/* Lazy: whether epoll is told is decided by the next event, if one comes before reading goes on. */
static void epoll_back_read_pause(struct net *net, struct net_conn *c)
{
    c->flags |= CONN_PAUSED;
}

static void epoll_back_read_resume(struct net *net, struct net_conn *c)
{
    c->flags &= (uint16_t)~CONN_PAUSED;
    if (!(c->flags & CONN_ARMED_IN))
        conn_arm(from_net(net), c);
}

static void epoll_back_shutdown(struct net *net, struct net_conn *c)
{
    shutdown(fd_of(c), SHUT_WR); /* fails only when there is nobody left to tell */
}

void epoll__linger_none(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void epoll_back_close(struct net *net, struct net_conn *c, bool hard)
{
    struct net_epoll *n = from_net(net);

    if (hard)
        epoll__linger_none(fd_of(c));
    if (__builtin_expect(n->table[fd_of(c)].copied, 0))
        copied_end(n, fd_of(c), hard);
    conn_release(n, c);
}

/* ---- connections that another process takes over ---- */

static int epoll_back_conn_handle(const struct net *net, const struct net_conn *c)
{
    const struct net_epoll *n = (const struct net_epoll *)net;

    ASSERT(n->table[fd_of(c)].kind == KIND_CONN);
    n->table[fd_of(c)].copied = true;
    return fd_of(c);
}

static int epoll_back_take(struct net *net, struct net_conn *c, int fd)
{
    struct net_epoll *n = from_net(net);
    int r = epoll__table_add(n, fd, c, KIND_CONN, EPOLLIN | EPOLLRDHUP);

    if (r < 0) {
        close(fd);
        return r;
    }
    n->table[fd].copied = true;
    c->handle = fd + 1;
    c->flags = CONN_ARMED_IN;
    n->net.stats.open++;
    return 0;
}

static void epoll_back_drop(struct net *net, int fd)
{
    close(fd);
}

static void epoll_back_forget(struct net *net, struct net_conn *c)
{
    ctl_del(from_net(net)->epfd, fd_of(c));
    conn_release(from_net(net), c);
}

/* ---- storms ---- */

#define HANGUP (EPOLLRDHUP | EPOLLHUP | EPOLLERR)

/* One more accept, newcomer or leaver in this turn? */
bool epoll__storm_has_time(struct net_epoll *n)
{
    if (n->storm_events == 0)
        n->storm_end_ns = loop_turn_left_ns(n->net.loop) / STORM_SHARE * (STORM_SHARE - 1);
    if (!n->storm_over && n->storm_events++ % STORM_SLICE == STORM_SLICE - 1)
        n->storm_over = loop_turn_left_ns(n->net.loop) < n->storm_end_ns;
    return !n->storm_over;
}

/* Its turn comes; until then epoll says nothing of it, not even that it was reset. */
static bool put_off(struct net_epoll *n, struct net_conn *c, int fd)
{
    if (!late_push(&n->late, (uint64_t)n->table[fd].generation << 32 | (uint32_t)fd))
        return false;
    c->flags = (uint16_t)((c->flags & ~CONN_ARMED_IN) | CONN_LATE);
    ctl_mod(n, fd, EPOLLONESHOT); /* without a kind of event: none at all */
    return true;
}

/* In the order in which they came. */
static void storm_event(struct net_epoll *n, struct net_conn *c, int fd, uint32_t events)
{
    if ((late_is_empty(&n->late) && epoll__storm_has_time(n)) || !put_off(n, c, fd))
        conn_read(n, c, events);
}

static void run_late(struct net_epoll *n)
{
    while (!late_is_empty(&n->late) && !n->held && epoll__storm_has_time(n)) {
        uint64_t one = late_pop(&n->late);
        const struct entry *e = &n->table[(uint32_t)one];
        struct net_conn *c = e->owner;
        if (e->generation != one >> 32 || !(c->flags & CONN_LATE))
            continue; /* closed meanwhile, or armed for another reason */
        if (!(c->flags & CONN_PAUSED))
            conn_read(n, c, EPOLLERR);
        if (n->table[(uint32_t)one].generation == one >> 32)
            conn_arm(n, c);
    }
}

/* ---- other descriptors ---- */

static uint32_t watch_events(enum kind kind)
{
    return kind == KIND_WATCH_EDGE ? EPOLLIN | EPOLLET : EPOLLIN;
}

static bool is_watch(const struct entry *e)
{
    return e->kind == KIND_WATCH || e->kind == KIND_WATCH_EDGE;
}

/* A watch that is readable already is told of once more: that is what watches must be able to bear. */
static void held_add(struct net_epoll *n, int fd)
{
    const struct entry *e = &n->table[fd];
    struct epoll_event ev = {.events = watch_events(e->kind),
                             .data.u64 = (uint64_t)e->generation << 32 | (uint32_t)fd};

    if (epoll_ctl(n->held_epfd, EPOLL_CTL_ADD, fd, &ev) < 0 && errno != EEXIST)
        n->held_lacking = true; /* no memory: again before the next turn */
}

static void held_add_all(struct net_epoll *n)
{
    n->held_lacking = false;
    for (uint32_t fd = 0; fd < n->n_entries; fd++) {
        if (is_watch(&n->table[fd]))
            held_add(n, (int)fd);
    }
}

static void epoll_back_hold(struct net *net, bool on)
{
    struct net_epoll *n = from_net(net);

    if (on == n->held)
        return;
    n->held = on;
    if (on) {
        held_add_all(n);
        return;
    }
    for (uint32_t fd = 0; fd < n->n_entries; fd++) {
        if (is_watch(&n->table[fd]))
            epoll_ctl(n->held_epfd, EPOLL_CTL_DEL, (int)fd, NULL); /* fails if it was lacking */
    }
}

static int watch_add(struct net *net, struct net_watch *w, int fd, enum kind kind)
{
    ASSERT(net->ops == &epoll__ops && w->handle == 0 && w->readable != NULL);
    struct net_epoll *n = from_net(net);
    int r = epoll__table_add(n, fd, w, kind, watch_events(kind));
    if (r < 0)
        return r;
    w->handle = fd + 1;
    if (n->held)
        held_add(n, fd);
    return 0;
}

int net_epoll_watch_add(struct net *n, struct net_watch *w, int fd)
{
    return watch_add(n, w, fd, KIND_WATCH);
}

int net_epoll_watch_add_edge(struct net *n, struct net_watch *w, int fd)
{
    return watch_add(n, w, fd, KIND_WATCH_EDGE);
}

void net_epoll_watch_remove(struct net *n, struct net_watch *w)
{
    if (w->handle == 0)
        return;
    ctl_del(from_net(n)->epfd, w->handle - 1);
    if (from_net(n)->held)
        epoll_ctl(from_net(n)->held_epfd, EPOLL_CTL_DEL, w->handle - 1, NULL);
    epoll__table_remove(from_net(n), w->handle - 1);
    w->handle = 0;
}

/* ---- the turn ---- */

/* Was taken from epfd before another of the same batch said net_hold. Level-triggered it comes again; an edge
 * has to be asked for once more. */
static __attribute__((noinline)) void put_back(struct net_epoll *n, const struct entry *e, int fd)
{
    const struct net_conn *c = e->owner;

    if (e->kind == KIND_CONN && !(c->flags & (CONN_ARMED_IN | CONN_LATE)))
        ctl_mod(n, fd, EPOLLET | (c->flags & CONN_ARMED_OUT ? EPOLLOUT : 0));
}

static inline void dispatch(struct net_epoll *n, const struct epoll_event *ev)
{
    int fd = (int)(uint32_t)ev->data.u64;
    uint32_t generation = (uint32_t)(ev->data.u64 >> 32);
    struct entry *e = &n->table[fd];

    if (e->generation != generation)
        return;
    if (__builtin_expect(n->held, 0) && !is_watch(e)) {
        put_back(n, e, fd);
        return;
    }
    if (__builtin_expect(e->kind == KIND_CONN, 1)) {
        struct net_conn *c = e->owner;
        bool is_quiet = (c->flags & ~NET_CONN_NEW) == CONN_ARMED_IN; /* nothing but to be read */
        bool of_storm = (ev->events & HANGUP) != 0 || (c->flags & NET_CONN_NEW) != 0;
        if (__builtin_expect(is_quiet && !of_storm, 1))
            conn_read(n, c, ev->events);
        else if (!is_quiet)
            conn_event(n, c, fd, generation, ev->events);
        else
            storm_event(n, c, fd, ev->events);
    } else if (e->kind == KIND_LISTENER) {
        epoll__listener_event(e->owner, generation);
    } else if (is_watch(e)) {
        struct net_watch *w = e->owner;
        w->readable(w);
    }
}

static int timeout_ms(uint64_t timeout_ns)
{
    if (timeout_ns == UINT64_MAX)
        return -1;
    uint64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static int dispatch_all(struct net_epoll *n, int count)
{
    for (int i = 0; i < count; i++)
        dispatch(n, &n->events[i]);
    return count < 0 ? 0 : count;
}

/* Connections and listeners wait; what they have to say stays in epfd. */
static int poll_held(struct net_epoll *n, uint64_t timeout_ns)
{
    if (n->held_lacking)
        held_add_all(n);
    int wait_ms = timeout_ms(timeout_ns);
    if (n->held_lacking && (wait_ms < 0 || wait_ms > HELD_LACKING_MS))
        wait_ms = HELD_LACKING_MS;
    int count = epoll_wait(n->held_epfd, n->events, EVENTS_MAX, wait_ms);

    ASSERT(count >= 0 || errno == EINTR);
    loop_poll_returned(n->net.loop);
    return dispatch_all(n, count);
}

static int epoll_back_poll(void *ctx, uint64_t timeout_ns)
{
    struct net_epoll *n = ctx;

    if (__builtin_expect(n->held, 0))
        return poll_held(n, timeout_ns);
    int wait_ms = late_is_empty(&n->late) ? timeout_ms(timeout_ns) : 0;
    int count = epoll_wait(n->epfd, n->events, EVENTS_MAX, wait_ms);

    ASSERT(count >= 0 || errno == EINTR);
    loop_poll_returned(n->net.loop);
    n->storm_over = false;
    n->storm_events = 0;
    int total = dispatch_all(n, count);
    for (unsigned batch = 1; count == EVENTS_MAX && batch < BATCHES_MAX; batch++) {
        if (!n->storm_over || n->held || loop_turn_left_ns(n->net.loop) == 0)
            break;
        count = epoll_wait(n->epfd, n->events, EVENTS_MAX, 0);
        total += dispatch_all(n, count);
    }
    run_late(n);
    return total;
}

/* ---- life ---- */

static void epoll_back_free(struct net *net)
{
    struct net_epoll *n = from_net(net);

    ASSERT(net->stats.open == 0 && n->n_listeners == 0);
    loop_set_poller(net->loop, NULL);
    close(n->epfd);
    close(n->held_epfd);
    munmap(n->read_buf, NET_READ_SIZE);
    free(n->late.list);
    free(n->table);
    free(n);
}

const struct net_ops epoll__ops = {
    .free = epoll_back_free,
    .listen_fd = epoll__listen_fd,
    .listen = epoll__listen,
    .listener_addr = epoll__listener_addr,
    .listener_close = epoll__listener_close,
    .listener_pause = epoll__listener_pause,
    .listener_resume = epoll__listener_resume,
    .connect = epoll_back_connect,
    .writev = epoll_back_writev,
    .read_pause = epoll_back_read_pause,
    .read_resume = epoll_back_read_resume,
    .shutdown = epoll_back_shutdown,
    .close = epoll_back_close,
    .hold = epoll_back_hold,
    .conn_handle = epoll_back_conn_handle,
    .take = epoll_back_take,
    .drop = epoll_back_drop,
    .forget = epoll_back_forget,
};

static int net_epoll_init(struct net_epoll *n, struct loop *l)
{
    n->net.ops = &epoll__ops;
    n->net.loop = l;
    n->net.keepalive = (struct net_keepalive)NET_KEEPALIVE_DEFAULT;
    /* Mapped, so that what no read ever fills takes no memory. */
    n->read_buf = mmap(NULL, NET_READ_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (n->read_buf == MAP_FAILED)
        return -errno;
    n->epfd = epoll_create1(EPOLL_CLOEXEC);
    n->held_epfd = n->epfd < 0 ? -1 : epoll_create1(EPOLL_CLOEXEC);
    if (n->held_epfd < 0) {
        int err = errno;
        if (n->epfd >= 0)
            close(n->epfd);
        munmap(n->read_buf, NET_READ_SIZE);
        return -err;
    }
    return 0;
}

struct net *net_epoll_new(struct loop *l, int *ret_err)
{
    struct net_epoll *n = calloc(1, sizeof(*n));
    int r = n == NULL ? -ENOMEM : net_epoll_init(n, l);

    if (r < 0) {
        free(n);
        if (ret_err != NULL)
            *ret_err = r;
        return NULL;
    }
    loop_set_poller(l, &(struct loop_poller){.poll = epoll_back_poll, .ctx = n});
    return &n->net;
}
