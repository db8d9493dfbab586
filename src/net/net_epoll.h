// SPDX-License-Identifier: MIT
/* What the epoll back end can do beyond net.h: wait for descriptors that are not connections (signalfd,
 * eventfd, a pipe) together with everything else. Only for the code that starts a process; layers above net.h
 * must not need it. */
#pragma once

#include <stdint.h>

struct net;

/* Embedded in the owner's struct; zeroed is "none". readable is called in every turn in which there is
 * something to read (level-triggered): read it, or remove the watch. */
struct net_watch {
    void (*readable)(struct net_watch *w);
    int32_t handle;
};

/* 0 or -errno. fd stays the caller's, and must be removed here before it is closed. */
int net_epoll_watch_add(struct net *n, struct net_watch *w, int fd);
void net_epoll_watch_remove(struct net *n, struct net_watch *w);
