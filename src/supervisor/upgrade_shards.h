// SPDX-License-Identifier: MIT
/* What the supervisor says to its shards when connections move, and what they answer (common/upgrade.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/upgrade.h"

struct supervisor;

/* All shards of the node, a bit each. */
uint64_t upgrade_shards_all(const struct supervisor *s);
/* To each of `which`. 0; -errno: *ret_shard did not take it, those behind it were not told. */
int upgrade_shards_tell(const struct supervisor *s, uint64_t which, const struct upgrade_message *m,
                        unsigned *ret_shard);
/* To each, whatever becomes of it. */
void upgrade_shards_tell_all(const struct supervisor *s, enum upgrade_op op);
/* Messages heard in one turn: a shard that says more than there is to say does not keep the supervisor. */
#define UPGRADE_SHARDS_HEAR_MAX 256
/* What one of them says; descriptors that come with it are closed. False: nothing more is there now. A shard
 * whose words make no sense has failed. */
bool upgrade_shards_hear(const struct supervisor *s, unsigned *ret_shard, struct upgrade_message *ret);
/* What was said, or handed over, to an end that nobody waited for is gone. */
void upgrade_shards_hush(const struct supervisor *s);
/* Before a shard is started: what was said to its predecessor, and by it, is gone. */
void upgrade_shards_forget(const struct supervisor *s, unsigned shard);
