// SPDX-License-Identifier: MIT
/* Who may connect, and how many: lists, bans, connections per address and subnet, rates, the total. One guard
 * per shard; what counts over all shards stands in shared memory (guard_shm.h).
 *
 *   accept ── guard_check ── guard_enter ... guard_leave
 *
 * A check in dry_run counts (COUNTER_dry_run_NAME) and lets pass; otherwise it counts (COUNTER_refused_NAME)
 * and its verdict is returned; either is a line in the log, "refused" with the name of the check. A shard
 * that has max_clients refuses even in a dry run of `total`: then only the reserve is a matter of dry run.
 * Nothing here is on the way of a message but guard_meter. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/net_addr.h"
#include "common/config.h"
#include "common/counters.h"
#include "common/files.h"

struct guard;
struct guard_shm;

/* X(constant, name as in dry_run and in counters refused_NAME and dry_run_NAME) */
#define GUARD_CHECKS(X)                                                                                      \
    X(GUARD_DENY, deny)                                                                                      \
    X(GUARD_BAN, ban)                                                                                        \
    X(GUARD_PER_ADDRESS, per_address)                                                                        \
    X(GUARD_PER_SUBNET, per_subnet)                                                                          \
    X(GUARD_ACCEPT_RATE, accept_rate)                                                                        \
    X(GUARD_HANDSHAKE_RATE, handshake_rate)                                                                  \
    X(GUARD_TOTAL, total)                                                                                    \
    X(GUARD_MESSAGE_RATE, message_rate)                                                                      \
    X(GUARD_BYTE_RATE, byte_rate)

enum guard_verdict {
    GUARD_PASS,
#define GUARD_CONSTANT(constant, name) constant,
    GUARD_CHECKS(GUARD_CONSTANT)
#undef GUARD_CONSTANT
        GUARD_N
};
const char *guard_check_name(enum guard_verdict v); /* "deny" */

struct guard_options {
    const struct config *config; /* read again at each check: values may change in place */
    const struct files *files;   /* only during guard_new and guard_reload */
    struct guard_shm *shm;       /* of the node; NULL: one shard, counted in private memory */
    unsigned shard, n_shards;
    unsigned n_edges;     /* shards that accept: each has its part of the rates */
    uint32_t max_clients; /* of one shard: size of its table */
    struct counters *counters;
    int64_t now_unix_s; /* bans that ended before are not even loaded; 0: all are, and do nothing */
};
/* Counts in its table of shm from nothing on: there is one guard for a shard, in one process.
 * NULL: *ret_err -ENOMEM, or -EINVAL with why (which entry of which list or file). */
struct guard *guard_new(const struct guard_options *opt, int *ret_err, struct config_error *err);
void guard_free(struct guard *g);
/* New lists, from the changed config and files. -EINVAL or -ENOMEM: the old ones stay. */
int guard_reload(struct guard *g, const struct files *files, struct config_error *err);
/* Only whether the lists (also trusted_proxies), bans and dry_run are right: for the supervisor and
 * `tgg gateway -t`. 0 or -EINVAL (also without memory; err tells). */
int guard_lists_check(const struct config *cfg, const struct files *files, struct config_error *err);

/* Whether any check of guard_check is configured; when not, callers need not ask (but see to max_clients
 * themselves). */
bool guard_is_on(const struct guard *g);
/* A new connection from addr, in the order: deny, ban, total, per_address, per_subnet, accept_rate. clients:
 * of this shard now; max_clients: what it may have. A Unix-socket address passes all but total and
 * accept_rate. */
enum guard_verdict guard_check(struct guard *g, const struct net_addr *addr, uint32_t clients,
                               uint32_t max_clients, uint64_t now_ms, int64_t now_unix_s);
/* Only deny and ban (for clients that are there, after a reload; also when an address becomes known later:
 * then followed by guard_check of the rest). */
enum guard_verdict guard_check_lists(struct guard *g, const struct net_addr *addr, int64_t now_unix_s);
/* A WebSocket handshake: handshake_rate. 0 as its value: every one passes. */
enum guard_verdict guard_check_handshake(struct guard *g, uint64_t now_ms);

/* It is in: counted for its address and subnet until guard_leave with the same address. Without limits
 * configured these cost nothing; limits that come with a reload count from then on (guard_enter says whether
 * it was counted, and only then guard_leave is called). Not counted: a Unix-socket address, and who finds the
 * table full (it has room for max_clients, so only with a wrong one; logged). */
bool guard_enter(struct guard *g, const struct net_addr *addr);
void guard_leave(struct guard *g, const struct net_addr *addr);

/* ---- the rate of one client */

/* What it has used up of one second's worth, since then given back with time. Zeroed: nothing yet. */
struct guard_meter {
    uint32_t last_ms;
    uint32_t messages_ns; /* its messages, as the time that message_rate gives each; stays at the highest */
    uint64_t bytes_milli; /* payload, in 1/1000 bytes */
};
/* Whether message_rate or byte_rate is configured. */
bool guard_meters(const struct guard *g);
/* A message of len bytes came. 0, or GUARD_MESSAGE_RATE, GUARD_BYTE_RATE when that was one too many. Either
 * is counted; in dry run the result is 0 all the same. A message that is too many is counted against the
 * client like the others (it is served, and the client pays by waiting; not in dry run). *ret_wait_ms: how
 * long until it may go on, 0 when it may; of messages not more than 3.3 s. now_ms: any clock, may wrap. */
enum guard_verdict guard_meter(struct guard *g, struct guard_meter *m, uint32_t now_ms, uint64_t len,
                               uint32_t *ret_wait_ms);

/* ---- lists of addresses, also for trusted_proxies */

struct cidr_list;
/* The value of a key (CIDRs and paths); NULL: *err tells, with section, key and line given. An empty value
 * gives a list that matches nothing. */
struct cidr_list *cidr_list_new(const char *value, const struct files *files, const char *section,
                                const char *key, unsigned line, struct config_error *err);
void cidr_list_free(struct cidr_list *l);
bool cidr_list_has(const struct cidr_list *l, const struct net_addr *addr);
