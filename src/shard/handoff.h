// SPDX-License-Identifier: MIT
/* Which shard of a node gets which connection.
 *
 *   client:   every edge shard accepts on sockets of its own, among which the kernel chooses by a hash: only
 *             roughly even. A shard that has clearly more clients than the emptiest one gives it what it
 *             accepts.
 *   internal: one socket; the leader, which is the lowest-numbered link shard in phase NODE_UP, accepts on it
 *             and gives each connection to the link shard with the fewest, itself included.
 *
 *     accept ── keep it? ── yes ── accepted()
 *                  │ no: descriptor, in a message to node->hand_fds[to][1]
 *                  └───────────────────> hand_fds[to][0] ── net_epoll_adopt ── accepted()   :shard `to`
 *
 * How full a shard is: what it says itself (struct node_shard, clients and links; the shard keeps both up to
 * date within accepted() and at every close) and what is on its way to it. A connection that cannot be given
 * away stays; once it is in the socket of a shard it stays there until that shard or its successor takes it.
 * A listener that came with a reload is given only to shards that have heard of it; of one that is removed
 * the others still take what was on its way. A shard that drains (phase NODE_LEAVES) gives away all that it
 * accepts or is given, and resets what nobody takes. One that was told to drain (drained) gives its clients
 * away likewise, but keeps those that nobody takes.
 *
 * Only with epoll and more than one shard: without it every shard keeps what it accepts. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/counters.h"
#include "common/node_shared.h"

struct handoff;
struct loop;
struct net;
struct net_listener;

struct handoff_listener {
    struct net_listener *listener; /* NULL: none; closed: takes still, see net_epoll_adopt */
    uint64_t since;                /* as in struct settings_listener */
    uint16_t made;
};

struct handoff_options {
    unsigned me;
    const struct node *node; /* with one shard there is still the supervisor that may give it some */
    uint64_t edges, links;   /* which shards have that role: bit i for shard i */
    struct loop *loop;
    struct net *net; /* epoll */
    struct counters *counters;
    /* Of this shard, by slot (common/settings.h), CONFIG_LISTEN_MAX of them; they may change at any time.
     * NULL: not an edge. */
    const struct handoff_listener *clients;
    struct net_listener *internal; /* NULL: not a link shard */
};

/* Begins to take over what the others give, and becomes the keeper of the net; the internal listener rests
 * until this shard leads. What opt points to stays valid; listeners may be closed at any time. NULL and
 * *ret_err = -errno. */
struct handoff *handoff_new(const struct handoff_options *opt, int *ret_err);
void handoff_free(struct handoff *h);

/* Takes all that the others have given: before a listener goes. Only from a watch. */
void handoff_take(struct handoff *h);

/* Nothing is on its way to this shard. */
bool handoff_is_quiet(const struct handoff *h);

/* Find out at once who leads: after a change of one's own phase, and when a shard has died. (It is looked at
 * every 100 ms anyway.) */
void handoff_look(struct handoff *h);
