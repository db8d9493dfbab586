// SPDX-License-Identifier: MIT
/* New settings on their way to the shards (common/settings.h). One that has not read what came before gets
 * them later, and then only the newest. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/node_shared.h"

#define DISTRIBUTION_RETRY_MS 100

struct distribution {
    uint64_t generation; /* of the newest; 0: none yet */
    int fd;              /* of it, while somebody waits for it; else -1 */
    bool waits[NODE_SHARDS_MAX];
};

void distribution_init(struct distribution *d);
void distribution_fini(struct distribution *d); /* also in a child, for which it is nothing */
/* For all shards; takes the descriptor. */
void distribution_begin(struct distribution *d, const struct node *node, int fd);
/* Tries again. */
void distribution_turn(struct distribution *d, const struct node *node);
bool distribution_waits(const struct distribution *d);
/* Before that shard is forked: it has the newest from us, and what its predecessor has not read is gone. */
void distribution_skip(struct distribution *d, const struct node *node, unsigned shard);
