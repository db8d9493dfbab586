// SPDX-License-Identifier: MIT
#include "net/net_epoll_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "loop/loop.h"

#define ACCEPTS_MAX 64 /* of one listener in one turn */

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
    epoll__linger_none(fd);
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
    int r = epoll__table_add(n, fd, c, KIND_CONN, EPOLLIN | EPOLLRDHUP);
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

/* The accept that finds nothing is a system call for nothing. So take no more than came last time, and twice
 * as many next time if that was not all. */
void epoll__listener_event(void *owner, uint32_t generation)
{
    struct listener *k = owner;
    struct net_epoll *n = k->n;
    int fd = k->fd;

    if (!k->armed)
        return;
    for (unsigned i = 0; i < k->accepts_max && epoll__storm_has_time(n); i++) {
        bool more = accept_one(k);
        if (n->table[fd].generation != generation || !k->armed || n->held)
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
    int r = epoll__table_add(n, fd, k, KIND_LISTENER, EPOLLIN | EPOLLEXCLUSIVE);
    if (r < 0) {
        free(k);
        return r;
    }
    l->handle = fd + 1;
    n->n_listeners++;
    return 0;
}

int epoll__listen_fd(struct net *net, struct net_listener *l, int fd)
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

int epoll__listen(struct net *net, struct net_listener *l, const struct net_addr *addr, int backlog)
{
    struct sockaddr_storage ss;
    socklen_t len;
    int fd = epoll__socket(addr, &ss, &len);
    if (fd < 0)
        return fd;
    int r = bind_and_listen(fd, &ss, len, backlog);
    if (r == 0)
        r = listener_add(from_net(net), l, fd, true);
    if (r < 0)
        close(fd);
    return r;
}

int epoll__listener_addr(struct net *net, const struct net_listener *l, struct net_addr *ret)
{
    *ret = listener_of(net, l)->addr;
    return 0;
}

void epoll__listener_close(struct net *net, struct net_listener *l)
{
    struct listener *k = listener_of(net, l);

    k->paused = true;
    listener_arm(k); /* the descriptor lives on in other processes, and so would its place in epoll */
    timer_cancel(net->loop, &k->rest);
    epoll__table_remove(k->n, k->fd);
    if (k->owns_fd)
        close(k->fd);
    k->n->n_listeners--;
    free(k);
    l->handle = 0;
}

void epoll__listener_pause(struct net *net, struct net_listener *l)
{
    struct listener *k = listener_of(net, l);
    k->paused = true;
    listener_arm(k);
}

void epoll__listener_resume(struct net *net, struct net_listener *l)
{
    struct listener *k = listener_of(net, l);
    k->paused = false;
    if (listener_arm(k) < 0)
        listener_rest(k);
}

/* ---- connections from and to other processes ---- */

void net_epoll_set_keeper(struct net *n, bool (*keep)(void *ctx, struct net_listener *l, int fd), void *ctx)
{
    ASSERT(n->ops == &epoll__ops);
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

    ASSERT(n->ops == &epoll__ops);
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
