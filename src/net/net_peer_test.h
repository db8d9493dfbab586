// SPDX-License-Identifier: MIT
/* One end of a connection that notes what comes and sends what it is given as soon as there is room. */
#pragma once

#include "base/bytes.h"
#include "net/net.h"

struct peer {
    struct net_conn c; /* first */
    struct net *n;
    struct bytes in, out; /* come; still to be written */
    size_t said;          /* for the test: bytes of a pattern given to net */
    unsigned n_connected, n_data, n_writable, n_closed;
    bool shut; /* for the test: it has sent FIN, and can no longer learn by writing that the other host is
                  dead */
    int err;
    struct net_addr remote; /* of one that was accepted */
    void (*on_data)(struct peer *p);
};

static inline void flush(struct peer *p)
{
    struct iovec iov = {p->out.data, p->out.len};
    if (p->out.len == 0 || !net_conn_is_open(&p->c))
        return;
    ssize_t taken = net_writev(p->n, &p->c, &iov, 1);
    if (taken > 0)
        bytes_consume(&p->out, (size_t)taken);
}

static inline void on_data(struct net_conn *c, uint8_t *data, size_t len)
{
    struct peer *p = (struct peer *)c;
    bytes_append(&p->in, data, len);
    p->n_data++;
    if (p->on_data != NULL)
        p->on_data(p);
}

static inline void on_writable(struct net_conn *c)
{
    ((struct peer *)c)->n_writable++;
    flush((struct peer *)c);
}

static inline void on_closed(struct net_conn *c, int err)
{
    ((struct peer *)c)->n_closed++;
    ((struct peer *)c)->err = err;
}

static inline void on_connected(struct net_conn *c)
{
    ((struct peer *)c)->n_connected++;
}

static const struct net_conn_ops peer_ops = {
    .data = on_data, .writable = on_writable, .closed = on_closed, .connected = on_connected};

static inline void peer_fini(struct peer *p)
{
    if (net_conn_is_open(&p->c))
        net_close(p->n, &p->c, true);
    bytes_fini(&p->in);
    bytes_fini(&p->out);
}
