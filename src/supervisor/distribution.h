// SPDX-License-Identifier: MIT
/* New settings on their way to the shards and to the admin process (common/settings.h). One that has not read
 * what came before gets them later, and then only the newest. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/node_shared.h"

struct listeners;

#define DISTRIBUTION_RETRY_MS 100

/* Receivers by number: the shards, then the admin process (node->n_shards). */
struct distribution {
    uint64_t generation;               /* of the newest; 0: those of the start */
    int fd;                            /* of it, while somebody waits for it; else -1 */
    const struct listeners *listeners; /* likewise: as they are now */
    bool waits[NODE_SHARDS_MAX + 1];
};

void distribution_init(struct distribution *d);
void distribution_fini(struct distribution *d); /* also in a child, for which it is nothing */
/* For all receivers; takes the descriptor. The listeners are those of the same configuration and stay where
 * they are. */
void distribution_begin(struct distribution *d, const struct node *node, const struct listeners *l, int fd);
/* Tries again. */
void distribution_turn(struct distribution *d, const struct node *node);
bool distribution_waits(const struct distribution *d);
/* Before that receiver is forked: it has the newest from us, and what its predecessor has not read is gone.
 */
void distribution_skip(struct distribution *d, const struct node *node, const struct listeners *l,
                       unsigned receiver);
