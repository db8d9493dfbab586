// SPDX-License-Identifier: MIT
/* Of a shard process: new settings as they come from the supervisor (common/settings.h), and the descriptors
 * of its listening sockets, which come with them. */
#pragma once

#include "common/settings.h"
#include "common/shard_start.h"
#include "loop/loop.h"
#include "net/net_epoll.h"
#include "shard/handoff.h"

struct shard;

struct new_settings {
    struct loop *loop;
    struct net *net;
    struct shard *shard;
    struct handoff *handoff; /* NULL: one shard; set when it is there */
    const struct config *cfg;
    int fd;
    struct net_watch watch;
    struct timer retry;
    struct settings pending; /* not taken over yet */
    bool is_pending;
    bool is_closed; /* it drains: no socket any more */
    struct {
        int fd; /* -1: none */
        uint32_t number;
    } sockets[CONFIG_LISTEN_MAX];                         /* by slot */
    struct handoff_listener listeners[CONFIG_LISTEN_MAX]; /* likewise, for the handoff */
};

/* Zeroed before. Watches for settings. 0 or -errno. */
int new_settings_begin(struct new_settings *n, const struct shard_start *start, struct shard *shard,
                       struct loop *loop, struct net *net);
/* Fine for all zero. */
void new_settings_end(struct new_settings *n);
/* The shard drains and has let go of its listeners: their descriptors are closed, and none is opened again.
 */
void new_settings_close_sockets(struct new_settings *n);
