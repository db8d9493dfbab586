// SPDX-License-Identifier: MIT
/* The gateway node of a world: its shards, what they share, and their supervisor, who buries and replaces
 * those that die.
 *
 *   sim_node ── listening sockets, the same for all shards: any of them may take a connection
 *            ── crew ── memory that outlives shards: node_shared, mesh, an estate and a shm for each
 *                    ── shards[] ── process: loop, net, struct shard
 *
 * An upgrade (sim_upgrade.h) puts another crew in the place of the one that is there.
 *
 * A death is what kill -9 makes of it: nothing of the process runs any more, not even to free its memory (so
 * that nothing is undone in what is shared); the kernel closes its connections. Its memory is only kept where
 * LeakSanitizer finds it. Deaths come between steps, or within a turn (sim_net_node_stop_within). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/node_shared.h"
#include "common/settings.h"
#include "common/shard_shm.h"
#include "estate/estate.h"
#include "loop/loop.h"
#include "net/net_sim.h"

#define SIM_SHARDS_MAX 8

struct shard;
struct world;

/* One process of the simulation: a loop and a net. */
struct sim_host {
    struct loop *loop;
    struct net *net; /* NULL: it does not run */
};

struct sim_shard {
    struct world *w;
    struct sim_crew *crew;
    unsigned index;
    struct sim_host host;
    struct shard *shard;  /* NULL: it does not run */
    bool held;            /* shard_hold */
    struct shard_shm shm; /* outlives the shard */
    bool ended;           /* in order: it is not started again */
    unsigned deaths;
    uint64_t died_ns[ESTATE_PLOTS - 1]; /* its last deaths, the newest first; 0: none */
    uint64_t bury_at_ns, start_at_ns;   /* the supervisor's plan; 0: none */
    uint64_t kill_at_ns;                /* the script's */
    uint64_t lost;                      /* client connections that its deaths ended (of those that were taken
                                         * over, another shard may have counted the beginning) */
};

/* The shards of one supervisor. */
struct sim_crew {
    unsigned n_shards;
    uint64_t edges, links;                   /* roles, a bit each */
    struct sim_shard shards[SIM_SHARDS_MAX]; /* of those from n_shards on, only shm */
    struct node node;                        /* what they get */
};

/* Records that were imported, and what was in them. */
struct sim_carried {
    uint64_t clients, client_out, client_in, ws_decoder, message, paused, parked, closing, young;
    uint64_t links, link_in, link_out, gone_workers, homeless;
};

struct sim_node {
    struct sim_carried carried;
    struct sim_crew *crew;
    struct sim_crew *new_crew;                             /* during an upgrade */
    struct settings_listener listeners[CONFIG_LISTEN_MAX]; /* of all shards, with one descriptor */
    int internal_fd;
    bool bound; /* by the supervisor: else the only shard binds by itself */
    unsigned deaths_left, deaths, deaths_within;
    bool dies_on_start;     /* a crash loop: the next successors die young */
    unsigned upgrades_left; /* sim_upgrade.h */
    bool in_transfer;       /* no turn is taken by the shards, and nobody dies */
    unsigned upgrades, upgrades_given_up, upgrades_unrest;
    bool has_entombed;       /* with what they had in hands */
    struct loop_stats stats; /* of the dead */
};

/* Draws how many shards, and starts them. */
void sim_node_open(struct world *w);
void sim_node_close(struct world *w);

/* More deaths would make it give up what the first one left (as a crash loop does). */
bool sim_node_has_enough(const struct world *w, unsigned shard);
/* kill -9 now. */
void sim_node_kill(struct world *w, unsigned shard);
/* Within its next turns, at that call of something that is seen from outside. */
void sim_node_kill_within(struct world *w, unsigned shard, unsigned calls);
/* No more deaths; all that are dead come back. */
void sim_node_calm(struct world *w);
/* As sim_node_kill, of any crew, without what the supervisor makes of it. */
void sim_shard_vanish(struct sim_shard *s, enum sim_net_death how);
/* In order, at once (shard_free); it does not come back. */
void sim_node_stop(struct world *w, unsigned shard);
void sim_node_stop_all(struct world *w);

/* Between steps: what is due. */
void sim_node_work(struct world *w);
uint64_t sim_node_next_ns(const struct world *w); /* UINT64_MAX: nothing is planned */

/* Over all shards. */
uint32_t sim_node_connections(const struct world *w);
bool sim_node_is_running(const struct world *w); /* any shard */
void sim_node_stats_add(const struct world *w, struct loop_stats *to);
/* The one that a connection id belongs to; NULL: none. */
struct sim_shard *sim_node_shard_of(struct world *w, uint32_t connection_id);

/* Another crew, of which none runs: its homes are those of `before` (NULL: it is the first). */
struct sim_crew *sim_crew_new(struct world *w, unsigned n_shards, const struct sim_crew *before);
void sim_crew_start(struct sim_shard *s, bool takes_over);
/* None runs any more. */
void sim_crew_free(struct sim_crew *crew);

void sim_host_open(struct world *w, struct sim_host *h, uint64_t turn_ns_max);
void sim_host_close(struct sim_host *h);
