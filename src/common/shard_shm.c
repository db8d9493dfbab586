// SPDX-License-Identifier: MIT
#include "common/shard_shm.h"

#include <string.h>

#include "base/assert.h"

const char *shard_state_name(enum shard_state state)
{
    static const char *const names[SHARD_STATE_N] = {"none",     "starting", "running",
                                                     "draining", "stopped",  "dead"};
    return names[state];
}

uint32_t shard_shm_clock_seq(int64_t unix_s)
{
    /* 1024 ids a second: a node that takes fewer than that on average does not meet an id of before the
     * restart until 2^26 / 1024 seconds, 18 hours, have passed. */
    uint32_t seq = (uint32_t)((uint64_t)unix_s * 1024) & CONNECTION_SEQ_MASK;
    return seq != 0 ? seq : 1;
}

void shard_shm_init(struct shard_shm *shm, unsigned shard, uint32_t first_seq)
{
    ASSERT(first_seq != 0 && first_seq <= CONNECTION_SEQ_MASK);
    memset(shm, 0, sizeof *shm);
    shm->shard = shard;
    shm->next_seq = first_seq;
}
