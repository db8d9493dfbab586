// SPDX-License-Identifier: MIT
/* What of a shard outlives it and is read by others: its block in the file node.shm (node_shm.h, which says
 * where it stands; docs/SHARED-MEMORY.md has the offsets).
 *
 * Written by the shard (one writer per member), but for the state when the process is not there; read by
 * supervisor and `tgg status`. It stays when all of them are gone, also after kill -9, so that connection ids
 * go on where they stopped. On a tmpfs it goes with a reboot; then, and when the folder cannot be made, the
 * sequence starts from the clock.
 *
 *   offset  bytes
 *        0     64  number and id sequence    | fixed for NODE_SHM_VERSION, whatever the counters are: what a
 *       64    512  when id blocks were left  | later run takes over
 *      576     64  state: one cache line that the shard writes often
 *      640  8 * n  counters, in the order of counters.def; only valid when counters_layout is ours
 *        -      -  histograms, in the order of histograms.def, likewise
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/counters.h"
#include "common/histograms.h"

/* A connection id is the shard (6 bits) and a sequence (26 bits); 0 is never given out. */
#define CONNECTION_SEQ_BITS 26
#define CONNECTION_SEQ_MASK ((UINT32_C(1) << CONNECTION_SEQ_BITS) - 1)

#define SHARD_ID_BLOCKS 64 /* of 2^20 sequence numbers each */

enum shard_state {
    SHARD_STATE_NONE,     /* nothing has run yet */
    SHARD_STATE_STARTING, /* set by the supervisor before the fork */
    SHARD_STATE_RUNNING,  /* set by the shard: it takes connections */
    SHARD_STATE_DRAINING, /* set by the shard after TERM */
    SHARD_STATE_STOPPED,  /* set by the supervisor: ended as told */
    SHARD_STATE_DEAD,     /* set by the supervisor: died, waits for its restart */
    SHARD_STATE_N
};

struct shard_shm {
    /* Ids: kept from one run to the next. */
    uint32_t shard;
    uint32_t next_seq; /* sequence of the next connection id, 1 to CONNECTION_SEQ_MASK */
    uint32_t reserved_ids[14];
    /* When next_seq last left that block (its upper 6 bits); 0: never. */
    int64_t id_block_left_unix_s[SHARD_ID_BLOCKS];
    /* State. */
    uint32_t state;  /* enum shard_state */
    uint32_t stacks; /* how often its stack was written to the log (SIGQUIT, a crash) */
    uint64_t turns;  /* grows with every turn of the loop: the supervisor sees a stuck shard by it */
    uint64_t turn_longest_ns;
    uint64_t turn_cpu_longest_ns; /* in CPU time; of turns that began with work left over */
    uint64_t cpu_ns;              /* CPU time of the process; once a second */
    uint64_t reserved_state[3];
    /* Counters. */
    struct counters counters;
    struct histograms histograms;
};
static_assert(offsetof(struct shard_shm, next_seq) == 4, "id layout");
static_assert(offsetof(struct shard_shm, id_block_left_unix_s) == 64, "id layout");
static_assert(offsetof(struct shard_shm, state) == 576, "state layout");
static_assert(offsetof(struct shard_shm, counters) == 640, "counters layout");
static_assert(sizeof(struct shard_shm) == 640 + 8 * (size_t)COUNTER_N + sizeof(struct histograms),
              "no padding");

/* A fresh one in place (tests, simulation): everything 0 but the number; the sequence starts at first_seq. */
void shard_shm_init(struct shard_shm *shm, unsigned shard, uint32_t first_seq);

/* The sequence for a start without memory of the last: by the clock, so that it is another part of the range.
 */
uint32_t shard_shm_clock_seq(int64_t unix_s);

static inline void shard_shm_set_state(struct shard_shm *shm, enum shard_state state)
{
    __atomic_store_n(&shm->state, (uint32_t)state, __ATOMIC_RELAXED);
}

static inline enum shard_state shard_shm_state(const struct shard_shm *shm)
{
    uint32_t state = __atomic_load_n(&shm->state, __ATOMIC_RELAXED);
    return state < SHARD_STATE_N ? (enum shard_state)state : SHARD_STATE_NONE;
}

const char *shard_state_name(enum shard_state state);
