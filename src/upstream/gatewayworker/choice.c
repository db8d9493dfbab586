// SPDX-License-Identifier: MIT
/* Which worker a client gets: by the configured router, and not one that drains unless all do. */
#include "base/hash.h"
#include "upstream/gatewayworker/gatewayworker_priv.h"

/* Draws before one that does not drain is looked for in order. */
#define DRAWS_MAX 8

uint32_t worker_clients(const struct worker *w)
{
    uint32_t n = w->n_clients;
    const uint32_t *by_shard = w->gw->shared->workers[w->number].clients;
    for (unsigned i = 0; i < w->gw->n_shards; i++)
        if (i != w->gw->me)
            n += NODE_LOAD(by_shard[i]);
    return n;
}

static uint64_t next_random(struct gatewayworker *gw)
{
    /* xorshift64*: only has to spread. */
    uint64_t x = gw->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    gw->random = x;
    return (x * UINT64_C(0x2545F4914F6CDD1D)) >> 32;
}

/* Least clients; one that does not read only when all do not. */
static struct worker *choose_least(struct gatewayworker *gw)
{
    struct worker *best = NULL;
    uint32_t best_clients = 0;
    unsigned best_fault = 0;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        uint32_t n = worker_clients(w);
        unsigned fault = 2u * worker_is_draining(w) + w->full;
        if (best == NULL || fault < best_fault || (fault == best_fault && n < best_clients)) {
            best = w;
            best_clients = n;
            best_fault = fault;
        }
    }
    return best;
}

/* Rendezvous hashing: when a worker comes or goes, only its own clients change. */
static struct worker *choose_by_address(struct gatewayworker *gw, const struct upstream_client *c)
{
    uint64_t ip = hash_bytes(c->peer.ip, c->peer.family == AF_INET ? 4 : sizeof c->peer.ip);
    struct worker *best = NULL, *of_all = NULL;
    uint64_t best_weight = 0, weight_of_all = 0;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        uint64_t weight = (ip ^ gw->workers[i]->hash) * UINT64_C(0x9E3779B97F4A7C15);
        weight ^= weight >> 32;
        weight *= UINT64_C(0xD6E8FEB86659FD93);
        if (of_all == NULL || weight > weight_of_all) {
            of_all = gw->workers[i];
            weight_of_all = weight;
        }
        if ((best == NULL || weight > best_weight) && !worker_is_draining(gw->workers[i])) {
            best = gw->workers[i];
            best_weight = weight;
        }
    }
    return best != NULL ? best : of_all;
}

static struct worker *choose_next(struct gatewayworker *gw)
{
    uint32_t first = gw->round_robin;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[gw->round_robin++ % gw->n_workers];
        if (!worker_is_draining(w))
            return w;
    }
    gw->round_robin = first + 1;
    return gw->workers[first % gw->n_workers];
}

static struct worker *choose_any(struct gatewayworker *gw)
{
    uint32_t at = 0;
    for (unsigned i = 0; i < DRAWS_MAX; i++) {
        at = (uint32_t)(next_random(gw) % gw->n_workers);
        if (!worker_is_draining(gw->workers[at]))
            return gw->workers[at];
    }
    for (uint32_t i = 1; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[(at + i) % gw->n_workers];
        if (!worker_is_draining(w))
            return w;
    }
    return gw->workers[at];
}

struct worker *worker_choose(struct gatewayworker *gw, const struct upstream_client *c)
{
    if (gw->n_workers == 0)
        return NULL;
    switch (gw_config(gw)->router) {
    case ROUTER_RANDOM: return choose_any(gw);
    case ROUTER_ROUND_ROBIN: return choose_next(gw);
    case ROUTER_CLIENT_HASH: return choose_by_address(gw, c);
    case ROUTER_LEAST_CONNECTIONS: break;
    }
    return choose_least(gw);
}

void worker_choice_begin(struct gatewayworker *gw)
{
    if (!gw_is_alone(gw))
        node_choice_begin(gw->shared, gw->me);
}

void worker_choice_end(struct gatewayworker *gw)
{
    if (!gw_is_alone(gw))
        node_choice_end(gw->shared, gw->me);
}
