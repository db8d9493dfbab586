// SPDX-License-Identifier: MIT
/* The network of one shard, at the level of connections (accepted, bytes, written, closed), never of
 * readiness. Implementations (net_priv.h): epoll on kernel sockets, sim (in memory, virtual time); later
 * io_uring, F-Stack. One thread. Callbacks come only from inside loop_turn, never from inside a call of
 * net_*. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/net_addr.h"
#include "base/tcp_options.h"

struct loop;
struct net;
struct net_conn;
struct net_listener;

/* What a connection's owner wants to know. Any callback may close the connection or any other one. */
struct net_conn_ops {
    /* Bytes have arrived, in order. data is net's own buffer (at least NET_READ_SIZE large over all),
     * writable by the callback (unmasking in place) and gone after it: keep what is not used up. Not called
     * while paused. */
    void (*data)(struct net_conn *c, uint8_t *data, size_t len);
    /* After net_writev took less than it was given: there is room again. */
    void (*writable)(struct net_conn *c);
    /* The peer is gone: err 0 orderly end of its stream, else a positive errno. The connection has been
     * released before this call: its memory is the owner's; do not call net_close. Comes also while paused if
     * the kernel tells of an error (RST), not for a mere FIN. */
    void (*closed)(struct net_conn *c, int err);
    /* Only for net_connect: established. Failure comes as closed(). May be NULL otherwise. */
    void (*connected)(struct net_conn *c);
};

/* Embedded in the owner's struct; zeroed is "none". Only net writes to it. */
struct net_conn {
    const struct net_conn_ops *ops;
    int32_t handle; /* the back end's: fd + 1, or index + 1; 0 none */
    uint16_t flags; /* the back end's */
    uint16_t pad;
};
static inline bool net_conn_is_open(const struct net_conn *c)
{
    return c->handle != 0;
}

struct net_listener_ops {
    /* A connection was accepted. Return the net_conn (with ops set) to own it, or NULL to refuse it (it is
     * closed with RST, counted by the caller). It is open only once this has returned. local is the
     * listener's own address: the wildcard if it listens on that. */
    struct net_conn *(*accepted)(struct net_listener *l, const struct net_addr *peer,
                                 const struct net_addr *local);
    /* accept failed in a lasting way (err: EMFILE, ENFILE, ENOMEM...): net goes on by itself after a pause.
     */
    void (*accept_failed)(struct net_listener *l, int err);
};
struct net_listener {
    const struct net_listener_ops *ops;
    int32_t handle;
    uint16_t flags;
    bool newcomers; /* what it accepts is new until net_conn_settled: in a storm such connections (and those
                     * that end) wait while settled ones are served */
};

#define NET_READ_SIZE (256 * 1024) /* size of the read buffer that all connections of one net share */

/* The kernel's sockets by epoll. NULL and *ret_err = -errno on failure. */
struct net *net_epoll_new(struct loop *l, int *ret_err);
void net_free(struct net *n); /* every connection and listener must have been closed */

/* Listen on a socket that somebody (the supervisor) bound and put in listening state; the fd stays the
 * caller's. */
int net_listen_fd(struct net *n, struct net_listener *l, int fd);
/* Bind and listen here (simulation; register; tests). 0 or -errno. addr->port 0: any, see net_listener_addr.
 */
int net_listen(struct net *n, struct net_listener *l, const struct net_addr *addr, int backlog);
int net_listener_addr(struct net *n, const struct net_listener *l, struct net_addr *ret);
void net_listener_close(struct net *n, struct net_listener *l);
/* Stop and go on taking connections (limits, drain); the queue in the kernel stays. */
void net_listener_pause(struct net *n, struct net_listener *l);
void net_listener_resume(struct net *n, struct net_listener *l);

/* How peers that are gone are found out: of the connections made from now on (net_connect), and of those that
 * the listeners made from now on accept; a socket for net_listen_fd that has its own already
 * (tcp_options_are_set) keeps them. Without it NET_KEEPALIVE_DEFAULT. Not for Unix sockets, where nobody goes
 * without a word. */
void net_set_keepalive(struct net *n, const struct net_keepalive *k);

/* Connect; ops must be set in c. 0 (connected() or closed() follows) or -errno (what could be known at once,
 * also that nobody listens there; c is not open). What is written before connected() waits: net_writev takes
 * 0. */
int net_connect(struct net *n, struct net_conn *c, const struct net_addr *addr);

/* Write as much as is possible now: bytes taken (less than given: no room, writable() follows once), or
 * -errno (the connection is broken or was shut down: close it; if the owner does not, closed() follows).
 * n_iov up to NET_IOV_MAX. */
#define NET_IOV_MAX 64
ssize_t net_writev(struct net *n, struct net_conn *c, const struct iovec *iov, int n_iov);

/* It is not new any more (net_listener.newcomers). Fine for any open connection, and to repeat. */
void net_conn_settled(struct net_conn *c);

/* Stop reading / read again. Fine to repeat. */
void net_read_pause(struct net *n, struct net_conn *c);
void net_read_resume(struct net *n, struct net_conn *c);

/* Send FIN after what was written; reading goes on (closed(0) follows when the peer ends too). */
void net_shutdown(struct net *n, struct net_conn *c);
/* Release. No callback follows and the memory is the owner's again at once, also within a callback of this or
 * another connection. hard: RST, what is not yet sent is thrown away; else the kernel sends it and FIN.
 * (Bytes of the peer that have arrived and were not read turn that into RST, which may overtake what was
 * sent: whoever wants its last words heard calls net_shutdown, reads until closed() or a deadline, and only
 * then this.) */
void net_close(struct net *n, struct net_conn *c, bool hard);

/* ---- connections that another process takes over */

/* On: nothing is accepted, read, told as writable or closed until it is off again; then what happened
 * meanwhile is. What the owners call works as ever, and watches (net_epoll.h) are told of. For moments: while
 * it is on, a turn may be taken without a reason. */
void net_hold(struct net *n, bool on);
/* What net_take needs to be told of c, which stays as it is: a descriptor, which stays this net's (in a
 * simulation a number of its own). From then on (and for what net_take took) net_close ends the connection
 * for its peer even while another process has it, too. Not for one of which a write has failed, and which is
 * paused: the other net would not be told of the error. */
int net_conn_handle(const struct net *n, const struct net_conn *c);
/* c, with ops set, gets a connection that was another net's. Of a descriptor (non-blocking, its options are
 * set) it becomes the owner, also on failure. It is read (net_read_pause), and writable() is only owed after
 * a short write of this net. 0 or -errno. */
int net_take(struct net *n, struct net_conn *c, int handle);
/* A handle that is not taken after all. */
void net_drop(struct net *n, int handle);
/* Another net has it: as net_close, but that the connection itself stays as it is and nobody is told. (When
 * no other has it after all, the kernel closes it.) */
void net_forget(struct net *n, struct net_conn *c);

/* Bytes read and written, connections open: for figures. */
struct net_stats {
    uint64_t reads, read_bytes, writes, written_bytes, accepts, open;
};
void net_stats_get(const struct net *n, struct net_stats *ret);
