// SPDX-License-Identifier: MIT
/* A whole deployment in memory, under virtual time: a gateway node of one or several shards, which may be
 * killed, a host of clients and a host of workers. Everything is drawn from one seed.
 *
 *   world ── node: shards[]                 checked against what the two others did and were told (checker.h)
 *         ── client_host: loop, net ── clients[]   (sim_client.h)
 *         ── link_host: loop, net   ── links[]     (sim_link.h: workers and GatewayClients)
 *
 * A run is a script (script.h) of calls on clients and links between steps. What goes wrong is told with
 * world_fail; the first failure stays, and stops the steps. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "common/config.h"
#include "net/net_sim.h"
#include "sim/sim_node.h"

#define WORLD_CLIENTS_MAX 256
#define WORLD_LINKS_MAX   64
#define WORLD_TRACE_LINES 80

#define WORLD_MS UINT64_C(1000000)
#define WORLD_S  (1000 * WORLD_MS)

struct sim_client;
struct sim_link;

/* A set of clients, by their index. */
struct sim_set {
    uint64_t bits[WORLD_CLIENTS_MAX / 64];
};
static inline bool sim_set_has(const struct sim_set *s, unsigned i)
{
    return (s->bits[i / 64] >> (i % 64) & 1) != 0;
}
static inline void sim_set_add(struct sim_set *s, unsigned i)
{
    s->bits[i / 64] |= UINT64_C(1) << (i % 64);
}
static inline void sim_set_remove(struct sim_set *s, unsigned i)
{
    s->bits[i / 64] &= ~(UINT64_C(1) << (i % 64));
}

struct world {
    uint64_t seed;
    struct sim_net *net;
    struct bytes config_text;
    struct config config;
    struct sim_node node;
    struct sim_host client_host, link_host;
    struct sim_client *clients[WORLD_CLIENTS_MAX];
    unsigned n_clients;
    struct sim_link *links[WORLD_LINKS_MAX];
    unsigned n_links;
    /* Nothing that a worker was told may be lost: no link dies hard (but with its shard), the network breaks
     * nothing, and what the kernel has of a dead shard arrives. */
    bool strict;
    bool steers; /* clients are moved from one worker to another: what one worker is told has gaps */
    bool lossy;  /* all the same: the rest of what was written to a worker's link was lost */
    uint64_t told_connect, told_ws_connect, told_message, told_close; /* events, over all links */
    bool draining; /* shard_drain was called: the gateway closes links when all is said */
    bool failed;
    char failure[1024];
    char trace[WORLD_TRACE_LINES][200];
    unsigned n_trace;
    bool verbose; /* trace to stderr as it comes */
};

/* A world with its gateway running, nobody connected. Ends the process when it cannot be set up: it is a
 * test. */
struct world *world_new(uint64_t seed, bool verbose);
void world_free(struct world *w);

/* Steps until ns of virtual time have passed, or something failed. Shards die and come back meanwhile. */
void world_run(struct world *w, uint64_t ns);
/* Steps, at most ns, until done(w) is true; its last answer. */
bool world_run_until(struct world *w, bool (*done)(struct world *w), uint64_t ns);

/* Draws for the script, from the seed. */
uint64_t world_draw(struct world *w, uint64_t n); /* below n; n > 0 */
uint64_t world_between(struct world *w, uint64_t min, uint64_t max);
bool world_chance(struct world *w, unsigned percent);

void world_trace(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
