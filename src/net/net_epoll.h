// SPDX-License-Identifier: MIT
/* What the epoll back end can do beyond net.h: wait for descriptors that are not connections (signalfd,
 * eventfd, a pipe) together with everything else, and pass accepted connections between processes. Only for
 * the code that starts a process; layers above net.h must not need it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct net;
struct net_listener;

/* Embedded in the owner's struct; zeroed is "none". readable is called in every turn in which there is
 * something to read (level-triggered): read it, or remove the watch. */
struct net_watch {
    void (*readable)(struct net_watch *w);
    int32_t handle;
};

/* 0 or -errno. fd stays the caller's, and must be removed here before it is closed. */
int net_epoll_watch_add(struct net *n, struct net_watch *w, int fd);
/* For an eventfd that others write to only to wake this loop: edge-triggered, readable is called for each
 * turn before which there was a write, and nobody needs to read it: that saves a system call for each
 * wake-up. Whatever was in it before counts as a write. Its counter grows by 1 with each wake-up and so
 * cannot get full in practice (2^64 - 2); a writer that finds it full all the same has to empty it and write
 * again (ring_wake does), as a write that fails wakes nobody. */
int net_epoll_watch_add_edge(struct net *n, struct net_watch *w, int fd);
void net_epoll_watch_remove(struct net *n, struct net_watch *w);

/* Asked for every descriptor that a listener has accepted, before accepted(). False: it was given to somebody
 * else, and net closes its copy. Must neither keep fd nor close it, nor any listener. NULL: nobody is asked.
 */
void net_epoll_set_keeper(struct net *n, bool (*keep)(void *ctx, struct net_listener *l, int fd), void *ctx);

/* A connection that another process has accepted on the same address: goes the way of those that l accepts
 * (non-blocking, the same options, accepted(), reset when refused), whether l is paused or not; the keeper is
 * not asked. Also when l is closed (it was on its way when that happened), as long as l->ops is set. Takes fd
 * in every case: it is closed if its peer is gone already, reset if l is none at all. Calls accepted(): only
 * from a watch, never from within a connection's callback. Also while held (net_hold): nobody else has it,
 * and its peer believes to be connected; nothing more is heard of it before the hold is over. Whoever holds a
 * net for good must see to it that nobody hands connections over to it any more, and that those on their way
 * have come. */
void net_epoll_adopt(struct net *n, struct net_listener *l, int fd);
