// SPDX-License-Identifier: MIT
#include "net/net_priv.h"

#include "base/assert.h"

void net_free(struct net *n)
{
    if (n != NULL)
        n->ops->free(n);
}

int net_listen_fd(struct net *n, struct net_listener *l, int fd)
{
    ASSERT(l->ops != NULL && l->handle == 0);
    return n->ops->listen_fd(n, l, fd);
}

int net_listen(struct net *n, struct net_listener *l, const struct net_addr *addr, int backlog)
{
    ASSERT(l->ops != NULL && l->handle == 0);
    return n->ops->listen(n, l, addr, backlog);
}

int net_listener_addr(struct net *n, const struct net_listener *l, struct net_addr *ret)
{
    ASSERT(l->handle != 0);
    return n->ops->listener_addr(n, l, ret);
}

void net_listener_close(struct net *n, struct net_listener *l)
{
    ASSERT(l->handle != 0);
    n->ops->listener_close(n, l);
}

void net_listener_pause(struct net *n, struct net_listener *l)
{
    ASSERT(l->handle != 0);
    n->ops->listener_pause(n, l);
}

void net_listener_resume(struct net *n, struct net_listener *l)
{
    ASSERT(l->handle != 0);
    n->ops->listener_resume(n, l);
}

void net_set_keepalive(struct net *n, const struct net_keepalive *k)
{
    n->keepalive = *k;
}

int net_connect(struct net *n, struct net_conn *c, const struct net_addr *addr)
{
    ASSERT(c->ops != NULL && c->handle == 0);
    return n->ops->connect(n, c, addr);
}

ssize_t net_writev(struct net *n, struct net_conn *c, const struct iovec *iov, int n_iov)
{
    ASSERT(c->handle != 0 && n_iov > 0 && n_iov <= NET_IOV_MAX);
    return n->ops->writev(n, c, iov, n_iov);
}

void net_conn_settled(struct net_conn *c)
{
    ASSERT(c->handle != 0);
    c->flags &= (uint16_t)~NET_CONN_NEW;
}

void net_read_pause(struct net *n, struct net_conn *c)
{
    ASSERT(c->handle != 0);
    n->ops->read_pause(n, c);
}

void net_read_resume(struct net *n, struct net_conn *c)
{
    ASSERT(c->handle != 0);
    n->ops->read_resume(n, c);
}

void net_shutdown(struct net *n, struct net_conn *c)
{
    ASSERT(c->handle != 0);
    n->ops->shutdown(n, c);
}

void net_close(struct net *n, struct net_conn *c, bool hard)
{
    ASSERT(c->handle != 0);
    n->ops->close(n, c, hard);
}

void net_hold(struct net *n, bool on)
{
    n->ops->hold(n, on);
}

int net_conn_handle(const struct net *n, const struct net_conn *c)
{
    ASSERT(c->handle != 0);
    return n->ops->conn_handle(n, c);
}

int net_take(struct net *n, struct net_conn *c, int handle)
{
    ASSERT(c->ops != NULL && c->handle == 0 && handle >= 0);
    return n->ops->take(n, c, handle);
}

void net_drop(struct net *n, int handle)
{
    ASSERT(handle >= 0);
    n->ops->drop(n, handle);
}

void net_forget(struct net *n, struct net_conn *c)
{
    ASSERT(c->handle != 0);
    n->ops->forget(n, c);
}

void net_stats_get(const struct net *n, struct net_stats *ret)
{
    *ret = n->stats;
}
