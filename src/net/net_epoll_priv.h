// SPDX-License-Identifier: MIT
/* Shared by the files of the epoll back end.
 *
 * net_epoll.c           the table, connections, watches, the turn
 * net_epoll_listener.c  listening sockets: accepting, and connections from and to other processes */
#pragma once

#include <sys/epoll.h>

#include "base/assert.h"
#include "net/late.h"
#include "net/net_epoll.h"
#include "net/net_priv.h"

#define EVENTS_MAX 512

enum kind { KIND_NONE, KIND_CONN, KIND_LISTENER, KIND_WATCH, KIND_WATCH_EDGE };

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
    uint16_t kind;
    uint16_t copied; /* another process has had a descriptor of it, and may have it still */
};

struct net_epoll {
    struct net net;
    int epfd;
    int held_epfd;     /* the watches, while held */
    bool held;         /* net_hold */
    bool held_lacking; /* not all of them could be put there */
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

extern const struct net_ops epoll__ops;

/* Tell epoll of fd and put it into the table. 0 or -errno. */
int epoll__table_add(struct net_epoll *n, int fd, void *owner, enum kind kind, uint32_t events);
/* Events of it that are still in this batch will be dropped. */
void epoll__table_remove(struct net_epoll *n, int fd);
void epoll__linger_none(int fd); /* closing it resets it */
/* A socket for the address, and the address as the kernel has it. The descriptor or -errno. */
int epoll__socket(const struct net_addr *addr, struct sockaddr_storage *ret, socklen_t *ret_len);
/* One more accept, newcomer or leaver in this turn? */
bool epoll__storm_has_time(struct net_epoll *n);

/* ---- net_epoll_listener.c; of net_ops */
int epoll__listen_fd(struct net *net, struct net_listener *l, int fd);
int epoll__listen(struct net *net, struct net_listener *l, const struct net_addr *addr, int backlog);
int epoll__listener_addr(struct net *net, const struct net_listener *l, struct net_addr *ret);
void epoll__listener_close(struct net *net, struct net_listener *l);
void epoll__listener_pause(struct net *net, struct net_listener *l);
void epoll__listener_resume(struct net *net, struct net_listener *l);
/* Of that entry's owner. */
void epoll__listener_event(void *owner, uint32_t generation);
