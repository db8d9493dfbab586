// SPDX-License-Identifier: MIT
/* All rows that the shards have of a list that is not long (workers, tables): the first page of all shards at
 * once, then what is left of each in turn. */
#pragma once

#include "admin/admin_priv.h"

/* timeout_ms is for the first pages, and once more for all others together. `then` answers; shards of which
 * not all is there are in r->missing. */
void collect(struct request *r, enum control_op op, uint64_t timeout_ms, void (*then)(struct request *r));
/* Of a shard: rows with commas between. */
struct slice collected(const struct request *r, unsigned shard);
