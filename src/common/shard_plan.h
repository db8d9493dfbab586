// SPDX-License-Identifier: MIT
/* Which shards a node has: how many, on which CPU each, and what each does; from [gateway] shards, cpus,
 * edge_shards and link_shards. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/node_shared.h"

#define SHARD_CPU_NONE (-1) /* not pinned */

struct shard_plan {
    unsigned n;      /* 1 to NODE_SHARDS_MAX */
    bool cpus_short; /* fewer CPUs than shards: some have two */
    struct {
        int cpu;         /* or SHARD_CPU_NONE */
        bool edge, link; /* takes clients; takes workers. At least one of both */
    } shards[NODE_SHARDS_MAX];
};

/* All of it. By the supervisor, before it pins anything: `auto` means the CPUs that the caller may run on. 0,
 * or -EINVAL with every problem in err (which config_check had found but for what only this machine knows:
 * the number of shards for `auto`, the CPUs). */
int shard_plan_make(const struct config *cfg, struct shard_plan *ret, struct config_error *err);

/* The parts of it that the configuration alone says, for everybody at any time; cfg has passed config_check.
 */
bool config_shard_is_edge(const struct config *cfg, unsigned shard);
bool config_shard_is_link(const struct config *cfg, unsigned shard);
/* How many there are; `auto`: the CPUs that the caller may run on, so not for a pinned shard (which looks at
 * node->n_shards). */
unsigned config_shards(const struct config *cfg);

/* What of it is wrong whatever the machine (a part of config_check). */
void shard_plan_check(const struct config *cfg, struct config_error *err);
