// SPDX-License-Identifier: MIT
/* What a node's shards have in common, made before the first of them is forked: rings, estates, figures,
 * counts of addresses, ticket keys, and the descriptors by which they wake each other, pass connections, get
 * new settings, are led through an upgrade and are asked by the admin process. All of it is sparse: address
 * space, not memory. */
#pragma once

#include "common/config.h"
#include "common/node_shared.h"

/* 0, or -errno with the reason in err. */
int node_memory_make(const struct config *cfg, unsigned n_shards, struct node *ret, struct config_error *err);
/* control_fds stay -1 with [admin] enabled = no. */
void node_memory_free(struct node *n); /* fine for all zero with n_shards 0 */

/* In a shard's process: without the estates of the others and their ends to receive connections, settings and
 * questions, without the ends of supervisor and admin process; ticket keys can only be read. */
void node_memory_keep(struct node *n, unsigned shard);
/* In the admin process: shared and guard, to be read only, and its ends to ask the shards. */
void node_memory_keep_admin(struct node *n);
