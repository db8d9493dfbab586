// SPDX-License-Identifier: MIT
/* What must hold, whatever happens:
 *
 *   events    each connection: one ON_CONNECT before all, one ON_CLOSE after all; messages whole, in order,
 * once; without gaps on any one link, and without any at all when nothing died hard sends     each client
 * gets what each link sent it in that link's order, once for each time it was meant (two of its groups:
 * twice), and nothing that was not for it answers   sim_query.h counters  everything that was accepted was
 * closed for one reason or is open; what is missing was dropped and counted
 *
 * Failures are told with world_fail. */
#pragma once

#include "proto/gw/packet.h"
#include "sim/world.h"

struct sim_client;
struct sim_link;

/* A worker had heard of it, and it is still in the directory. */
bool checker_is_online(const struct sim_client *c);
struct sim_client *checker_client_by_id(const struct world *w, uint32_t id);

/* So many answers to questions had to do without a shard that was dead or late. */
uint64_t checker_partial_answers(const struct world *w);

/* Another crew follows: what is known by the numbers of shards is kept otherwise. */
void checker_crew_leaves(struct world *w);

/* As it happens. */
void checker_event(struct world *w, struct sim_link *l, const struct gw_packet *p);
void checker_delivered(struct world *w, struct sim_client *c, struct slice message,
                       int opcode); /* -1: no websocket */
void checker_refusal(struct world *w, const struct sim_client *c);
void checker_link_closed(struct world *w, const struct sim_link *l, int err);

/* Between steps. */
void checker_running(struct world *w);
void checker_shard(struct world *w, const struct sim_shard *s);
/* How many clients each worker has, by the link (UINT32_MAX: it is none), as the shards show it. */
struct sim_load {
    uint32_t of[WORLD_LINKS_MAX], least;
    uint64_t sum;
};
void checker_load(const struct world *w, struct sim_load *ret);
/* c has come since, and a worker was told: it was one that had the least. */
void checker_chosen(struct world *w, const struct sim_client *c, const struct sim_load *before);

/* Everybody has read what there was to read: what was sent has come. */
void checker_settled(struct world *w);
/* Every client is gone, a worker is there, the shard still runs: all events have come, the gauges are down.
 */
void checker_ended(struct world *w);
