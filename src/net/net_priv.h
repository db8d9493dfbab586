// SPDX-License-Identifier: MIT
/* For implementers of net.h: what a back end provides. Each puts struct net first in a struct of its own.
 * net.c hands every call on; the contract of each function is that of net.h. */
#pragma once

#include <sys/socket.h>

#include "net/net.h"

/* net_conn.flags: this bit is net.c's, for back ends that put new connections off; the others are the back
 * end's. */
#define NET_CONN_NEW 0x8000

struct net_ops {
    void (*free)(struct net *n);
    int (*listen_fd)(struct net *n, struct net_listener *l, int fd);
    int (*listen)(struct net *n, struct net_listener *l, const struct net_addr *addr, int backlog);
    int (*listener_addr)(struct net *n, const struct net_listener *l, struct net_addr *ret);
    void (*listener_close)(struct net *n, struct net_listener *l);
    void (*listener_pause)(struct net *n, struct net_listener *l);
    void (*listener_resume)(struct net *n, struct net_listener *l);
    int (*connect)(struct net *n, struct net_conn *c, const struct net_addr *addr);
    ssize_t (*writev)(struct net *n, struct net_conn *c, const struct iovec *iov, int n_iov);
    void (*read_pause)(struct net *n, struct net_conn *c);
    void (*read_resume)(struct net *n, struct net_conn *c);
    void (*shutdown)(struct net *n, struct net_conn *c);
    void (*close)(struct net *n, struct net_conn *c, bool hard);
    void (*hold)(struct net *n, bool on);
    int (*conn_handle)(const struct net *n, const struct net_conn *c);
    int (*take)(struct net *n, struct net_conn *c, int handle);
    void (*drop)(struct net *n, int handle);
    void (*forget)(struct net *n, struct net_conn *c);
};

struct net {
    const struct net_ops *ops;
    struct loop *loop;
    struct net_stats stats; /* kept by the back end */
    struct net_keepalive keepalive;
};

/* How long a listener rests after accept failed in a lasting way. */
#define NET_ACCEPT_PAUSE_MS 100
