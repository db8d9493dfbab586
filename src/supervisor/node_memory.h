// SPDX-License-Identifier: MIT
/* What a node's shards have in common, made before the first of them is forked: rings, estates, figures,
 * counts of addresses, ticket keys, and the descriptors by which they wake each other, pass connections and
 * get new settings. All of it is sparse: address space, not
 * memory. */
#pragma once

#include "common/config.h"
#include "common/node_shared.h"

/* 0, or -errno with the reason in err. */
int node_memory_make(const struct config *cfg, unsigned n_shards, struct node *ret, struct config_error *err);
void node_memory_free(struct node *n); /* fine for all zero with n_shards 0 */

/* In a shard's process: without the estates of the others and their ends to receive connections and settings,
 * without the supervisor's ends; ticket keys can only be read. */
void node_memory_keep(struct node *n, unsigned shard);
