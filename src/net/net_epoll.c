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
 * paused. */
#include "net/net_epoll.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "loop/loop.h"
#include "net/late.h"
#include "net/net_priv.h"

#define EVENTS_MAX 512
/* When thousands of peers come, or hang up, at once (a load balancer dies), each costs a handshake or a
 * close, and their events stand in epoll's queue before those of everybody else. So accepting, newcomers and
 * those who leave get 1/STORM_SHARE of a turn's time. Beyond that their events are switched off (one
 * epoll_ctl each), and they wait in a queue of their own (`late`); while epoll's is long, up to so many
 * batches of it are looked through in a turn for the others. */
#define STORM_SHARE 4
#define BATCHES_MAX 24
/* Events of a storm between two looks at the clock. */
#define STORM_SLICE       16
#define ACCEPTS_MAX       64 /* of one listener in one turn */
#define TABLE_ENTRIES_MIN 64

enum kind { KIND_NONE, KIND_CONN, KIND_LISTENER, KIND_WATCH };

/* net_conn.flags */
enum {
    CONN_CONNECTING = 1,
    CONN_PAUSED = 2,
    CONN_WANT_WRITE = 4, /* a write was short, writable() is owed */
    CONN_ARMED_IN = 8,   /* what epoll has been told */
    CONN_ARMED_OUT = 16,
    CONN_LATE = 64,   /* its events are switched off, it is in the queue */
    CONN_BROKEN = 32, /* a write has taken the socket's error: there is no other sign of it while paused */
};

struct entry {
    void *owner;
    uint32_t generation;
    uint32_t kind;
};

struct listener {
    struct net_listener *l;
    struct net_epoll *n;
    struct timer rest; /* after accept failed */
    struct net_addr addr;
    struct net_keepalive keepalive;
    int fd;
    unsigned accepts_max; /* in the next turn: follows what came lately, see listener_event */
    bool owns_fd;
    bool paused; /* by the owner */
    bool armed;
};

struct net_epoll {
    struct net net;
    int epfd;
    uint32_t n_entries;
    struct entry *table;
    uint8_t *read_buf; /* NET_READ_SIZE */
    uint64_t n_listeners;
    bool (*keep)(void *ctx, struct net_listener *l, int fd); /* NULL: all */
    void *keep_ctx;
    bool storm_over;       /* what it may have of this turn is used up */
    uint64_t storm_end_ns; /* of the turn, as loop_turn_left_ns tells it */
    unsigned storm_events; /* taken in this turn */
    struct late late;      /* generation << 32 | fd */
    struct epoll_event events[EVENTS_MAX];
};

static inline struct net_epoll *from_net(struct net *n)
{
    return (struct net_epoll *)n;
}

static inline int fd_of(const struct net_conn *c)
{
    return c->handle - 1;
}

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
static int table_add(struct net_epoll *n, int fd, void *owner, enum kind kind, uint32_t events)
{
    if (!table_reserve(n, fd))
        return -ENOMEM;
    struct entry *e = &n->table[fd];
    ASSERT(e->kind == KIND_NONE);
    struct epoll_event ev = {.events = events, .data.u64 = (uint64_t)e->generation << 32 | (uint32_t)fd};
    if (epoll_ctl(n->epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
        return -errno;
    e->owner = owner;
    e->kind = kind;
    return 0;
}

/* Events of it that are still in this batch will be dropped. */
static void table_remove(struct net_epoll *n, int fd)
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

static void conn_release(struct net_epoll *n, struct net_conn *c)
{
    int fd = fd_of(c);

    table_remove(n, fd);
    c->handle = 0;
    c->flags = 0;
    n->net.stats.open--;
    close(fd);
}

static void conn_lost(struct net_epoll *n, struct net_conn *c, int err)
{
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
        if (n->table[fd].generation != generation)
            return;
    }
    if (events & EPOLLOUT)
        conn_writable(n, c, generation);
}

static int epoll_back_connect(struct net *net, struct net_conn *c, const struct net_addr *addr)
{
    struct net_epoll *n = from_net(net);
    struct sockaddr_storage ss;
    socklen_t len = net_addr_to_sockaddr(addr, &ss);
    if (len == 0)
        return -EAFNOSUPPORT;
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    tcp_options_set(fd, &net->keepalive);
    int r = connect(fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS ? -errno : 0;
    if (r == 0)
        r = table_add(n, fd, c, KIND_CONN, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
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

static void linger_none(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void epoll_back_close(struct net *net, struct net_conn *c, bool hard)
{
    if (hard)
        linger_none(fd_of(c));
    conn_release(from_net(net), c);
}

/* ---- listeners ---- */

static struct listener *listener_of(struct net *net, const struct net_listener *l)
{
    struct net_epoll *n = from_net(net);
    ASSERT(n->table[l->handle - 1].kind == KIND_LISTENER);
    return n->table[l->handle - 1].owner;
}

/* Several shards may wait for the same socket: EPOLLEXCLUSIVE wakes one, and can only be set by ADD. So a
 * listener that rests is taken out, and put in again. 0 or -errno. */
static int listener_arm(struct listener *k)
{
    struct net_epoll *n = k->n;
    bool want = !k->paused && !timer_is_set(&k->rest);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE,
                             .data.u64 = (uint64_t)n->table[k->fd].generation << 32 | (uint32_t)k->fd};

    if (want == k->armed)
        return 0;
    if (epoll_ctl(n->epfd, want ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, k->fd, &ev) < 0)
        return -errno;
    k->armed = want;
    return 0;
}

static void listener_rest(struct listener *k);

static void listener_rested(struct timer *t)
{
    struct listener *k = (struct listener *)((char *)t - offsetof(struct listener, rest));
    if (listener_arm(k) < 0)
        listener_rest(k);
}

static void listener_rest(struct listener *k)
{
    timer_set(k->n->net.loop, &k->rest, NET_ACCEPT_PAUSE_MS, listener_rested);
    listener_arm(k);
}

/* Errors of one connection that died in the queue, or that the network reports through accept (accept(2)). */
static bool accept_error_passes(int err)
{
    static const int passing[] = {ECONNABORTED, EINTR,      EPROTO,      ENOPROTOOPT, EHOSTDOWN, ENONET,
                                  EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, ENETDOWN,    EPERM,     ETIMEDOUT};
    for (unsigned i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
        if (passing[i] == err)
            return true;
    }
    return false;
}

static void accept_refuse(int fd)
{
    linger_none(fd);
    close(fd);
}

/* A new descriptor to its owner. */
static void accept_to_owner(struct listener *k, int fd, const struct sockaddr_storage *ss)
{
    struct net_epoll *n = k->n;
    struct net_addr peer;

    net_addr_from_sockaddr(ss, &peer);
    n->net.stats.accepts++;
    struct net_conn *c = k->l->ops->accepted(k->l, &peer, &k->addr);
    if (c == NULL) {
        accept_refuse(fd);
        return;
    }
    ASSERT(c->handle == 0 && c->ops != NULL);
    int r = table_add(n, fd, c, KIND_CONN, EPOLLIN | EPOLLRDHUP);
    if (r < 0) {
        accept_refuse(fd);
        c->ops->closed(c, -r);
        return;
    }
    c->handle = fd + 1;
    c->flags = CONN_ARMED_IN | (k->l->newcomers ? NET_CONN_NEW : 0);
    n->net.stats.open++;
}

/* One accept; false when there is no more to take now (then k may be gone, or at rest). */
static bool accept_one(struct listener *k)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);

    ss.ss_family = AF_UNSPEC;
    int fd = accept4(k->fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        if (k->n->keep == NULL || k->n->keep(k->n->keep_ctx, k->l, fd))
            accept_to_owner(k, fd, &ss);
        else
            close(fd);
        return true;
    }
    int err = errno;
    if (accept_error_passes(err))
        return true;
    if (err != EAGAIN) {
        listener_rest(k);
        k->l->ops->accept_failed(k->l, err);
    }
    return false;
}

#define HANGUP (EPOLLRDHUP | EPOLLHUP | EPOLLERR)

/* One more accept, newcomer or leaver in this turn? */
static __attribute__((noinline)) bool storm_has_time(struct net_epoll *n)
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
    if ((late_is_empty(&n->late) && storm_has_time(n)) || !put_off(n, c, fd))
        conn_read(n, c, events);
}

static void run_late(struct net_epoll *n)
{
    while (!late_is_empty(&n->late) && storm_has_time(n)) {
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

/* The accept that finds nothing is a system call for nothing. So take no more than came last time, and twice
 * as many next time if that was not all. */
static void listener_event(struct listener *k, uint32_t generation)
{
    struct net_epoll *n = k->n;
    int fd = k->fd;

    for (unsigned i = 0; i < k->accepts_max && storm_has_time(n); i++) {
        bool more = accept_one(k);
        if (n->table[fd].generation != generation || !k->armed)
            return;
        if (!more) {
            k->accepts_max = i > 0 ? i : 1;
            return;
        }
    }
    k->accepts_max = k->accepts_max * 2 < ACCEPTS_MAX ? k->accepts_max * 2 : ACCEPTS_MAX;
}

static bool set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && ((flags & O_NONBLOCK) != 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
}

static int listener_add(struct net_epoll *n, struct net_listener *l, int fd, bool owns_fd)
{
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);

    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
        return -errno;
    if (!set_nonblocking(fd))
        return -errno;
    /* What is accepted inherits them. Whoever has set them before listen() knows why. */
    if (ss.ss_family != AF_UNIX && !tcp_options_are_set(fd))
        tcp_options_set(fd, &n->net.keepalive);
    struct listener *k = calloc(1, sizeof(*k));
    if (k == NULL)
        return -ENOMEM;
    *k = (struct listener){.l = l,
                           .n = n,
                           .fd = fd,
                           .keepalive = n->net.keepalive,
                           .accepts_max = 1,
                           .owns_fd = owns_fd,
                           .armed = true};
    net_addr_from_sockaddr(&ss, &k->addr);
    int r = table_add(n, fd, k, KIND_LISTENER, EPOLLIN | EPOLLEXCLUSIVE);
    if (r < 0) {
        free(k);
        return r;
    }
    l->handle = fd + 1;
    n->n_listeners++;
    return 0;
}

static int epoll_back_listen_fd(struct net *net, struct net_listener *l, int fd)
{
    return listener_add(from_net(net), l, fd, false);
}

static int bind_and_listen(int fd, const struct sockaddr_storage *ss, socklen_t len, int backlog)
{
    int on = 1, off = 0;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        return -errno;
    if (ss->ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)ss, len) < 0)
        return -errno;
    return listen(fd, backlog) < 0 ? -errno : 0;
}

static int epoll_back_listen(struct net *net, struct net_listener *l, const struct net_addr *addr,
                             int backlog)
{
    struct sockaddr_storage ss;
    socklen_t len = net_addr_to_sockaddr(addr, &ss);
    if (len == 0)
        return -EAFNOSUPPORT;
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int r = bind_and_listen(fd, &ss, len, backlog);
    if (r == 0)
        r = listener_add(from_net(net), l, fd, true);
    if (r < 0)
        close(fd);
    return r;
}

static int epoll_back_listener_addr(struct net *net, const struct net_listener *l, struct net_addr *ret)
{
    *ret = listener_of(net, l)->addr;
    return 0;
}

static void epoll_back_listener_close(struct net *net, struct net_listener *l)
{
    struct listener *k = listener_of(net, l);

    k->paused = true;
    listener_arm(k); /* the descriptor lives on in other processes, and so would its place in epoll */
    timer_cancel(net->loop, &k->rest);
    table_remove(k->n, k->fd);
    if (k->owns_fd)
        close(k->fd);
    k->n->n_listeners--;
    free(k);
    l->handle = 0;
}

static void epoll_back_listener_pause(struct net *net, struct net_listener *l)
{
    struct listener *k = listener_of(net, l);
    k->paused = true;
    listener_arm(k);
}

static void epoll_back_listener_resume(struct net *net, struct net_listener *l)
{
    struct listener *k = listener_of(net, l);
    k->paused = false;
    if (listener_arm(k) < 0)
        listener_rest(k);
}

/* ---- other descriptors ---- */

static const struct net_ops ops;

static int watch_add(struct net *n, struct net_watch *w, int fd, uint32_t events)
{
    ASSERT(n->ops == &ops && w->handle == 0 && w->readable != NULL);
    int r = table_add(from_net(n), fd, w, KIND_WATCH, events);
    if (r == 0)
        w->handle = fd + 1;
    return r;
}

int net_epoll_watch_add(struct net *n, struct net_watch *w, int fd)
{
    return watch_add(n, w, fd, EPOLLIN);
}

int net_epoll_watch_add_edge(struct net *n, struct net_watch *w, int fd)
{
    return watch_add(n, w, fd, EPOLLIN | EPOLLET);
}

void net_epoll_watch_remove(struct net *n, struct net_watch *w)
{
    if (w->handle == 0)
        return;
    int r = epoll_ctl(from_net(n)->epfd, EPOLL_CTL_DEL, w->handle - 1, NULL);
    ASSERT(r == 0);
    table_remove(from_net(n), w->handle - 1);
    w->handle = 0;
}

/* ---- connections from and to other processes ---- */

void net_epoll_set_keeper(struct net *n, bool (*keep)(void *ctx, struct net_listener *l, int fd), void *ctx)
{
    ASSERT(n->ops == &ops);
    from_net(n)->keep = keep;
    from_net(n)->keep_ctx = ctx;
}

/* What is left of it: enough to accept one connection more. */
static struct listener closed_listener(struct net *n, struct net_listener *l, int fd)
{
    struct listener k = {.l = l, .n = from_net(n), .keepalive = n->keepalive, .fd = -1};
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);
    if (l->handle == 0 && getsockname(fd, (struct sockaddr *)&ss, &len) == 0)
        net_addr_from_sockaddr(&ss, &k.addr);
    return k;
}

void net_epoll_adopt(struct net *n, struct net_listener *l, int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);

    ASSERT(n->ops == &ops);
    ss.ss_family = AF_UNSPEC;
    if (l->ops == NULL) {
        accept_refuse(fd);
    } else if (getpeername(fd, (struct sockaddr *)&ss, &len) < 0 || !set_nonblocking(fd)) {
        close(fd); /* reset on the way: nobody has heard of it yet */
    } else {
        struct listener closed = closed_listener(n, l, fd);
        struct listener *k = l->handle != 0 ? listener_of(n, l) : &closed;
        if (ss.ss_family != AF_UNIX && !tcp_options_are_set(fd)) /* mostly it has them from its listener */
            tcp_options_set(fd, &k->keepalive);
        accept_to_owner(k, fd, &ss);
    }
}

/* ---- the turn ---- */

static inline void dispatch(struct net_epoll *n, const struct epoll_event *ev)
{
    int fd = (int)(uint32_t)ev->data.u64;
    uint32_t generation = (uint32_t)(ev->data.u64 >> 32);
    struct entry *e = &n->table[fd];

    if (e->generation != generation)
        return;
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
        struct listener *k = e->owner;
        if (k->armed)
            listener_event(k, generation);
    } else if (e->kind == KIND_WATCH) {
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

static int epoll_back_poll(void *ctx, uint64_t timeout_ns)
{
    struct net_epoll *n = ctx;
    int wait_ms = late_is_empty(&n->late) ? timeout_ms(timeout_ns) : 0;
    int count = epoll_wait(n->epfd, n->events, EVENTS_MAX, wait_ms);

    ASSERT(count >= 0 || errno == EINTR);
    loop_poll_returned(n->net.loop);
    n->storm_over = false;
    n->storm_events = 0;
    int total = dispatch_all(n, count);
    for (unsigned batch = 1; count == EVENTS_MAX && batch < BATCHES_MAX; batch++) {
        if (!n->storm_over || loop_turn_left_ns(n->net.loop) == 0)
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
    munmap(n->read_buf, NET_READ_SIZE);
    free(n->late.list);
    free(n->table);
    free(n);
}

static const struct net_ops ops = {
    .free = epoll_back_free,
    .listen_fd = epoll_back_listen_fd,
    .listen = epoll_back_listen,
    .listener_addr = epoll_back_listener_addr,
    .listener_close = epoll_back_listener_close,
    .listener_pause = epoll_back_listener_pause,
    .listener_resume = epoll_back_listener_resume,
    .connect = epoll_back_connect,
    .writev = epoll_back_writev,
    .read_pause = epoll_back_read_pause,
    .read_resume = epoll_back_read_resume,
    .shutdown = epoll_back_shutdown,
    .close = epoll_back_close,
};

static int net_epoll_init(struct net_epoll *n, struct loop *l)
{
    n->net.ops = &ops;
    n->net.loop = l;
    n->net.keepalive = (struct net_keepalive)NET_KEEPALIVE_DEFAULT;
    /* Mapped, so that what no read ever fills takes no memory. */
    n->read_buf = mmap(NULL, NET_READ_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (n->read_buf == MAP_FAILED)
        return -errno;
    n->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (n->epfd < 0) {
        int err = errno;
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
