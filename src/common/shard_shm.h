// SPDX-License-Identifier: MIT
/* What of a shard outlives it and is read by others: the file <runtime_dir>/shard-<N>.shm, mapped shared.
 *
 * Made and locked by the supervisor, written by the shard (one writer per member), read by `tgg status`. It
 * stays when all of them are gone, also after kill -9, so that connection ids go on where they stopped. On a
 * tmpfs it goes with a reboot; then, and when the folder cannot be made, the sequence starts from the clock.
 *
 *   offset  bytes
 *        0     64  head: identity and the id sequence; fixed for SHARD_SHM_VERSION, whatever the counters are
 *       64     64  state: one cache line that the shard writes often
 *      128  8 * n  counters, in the order of counters.def; only valid when counters_layout is ours
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/counters.h"

#define SHARD_SHM_MAGIC   UINT64_C(0x31304d4853474754) /* "TGGSHM01" in memory */
#define SHARD_SHM_VERSION 1

/* A connection id is the shard (6 bits) and a sequence (26 bits); 0 is never given out. */
#define CONNECTION_SEQ_BITS 26
#define CONNECTION_SEQ_MASK ((UINT32_C(1) << CONNECTION_SEQ_BITS) - 1)

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
    /* Head. */
    uint64_t magic;
    uint32_t version;
    uint32_t size; /* of the struct, by the writer's build */
    uint64_t counters_layout;
    uint32_t counters_n;
    uint32_t shard;
    uint32_t next_seq; /* sequence of the next connection id, 1 to CONNECTION_SEQ_MASK; the shard's */
    uint32_t restarts; /* deaths of this shard since the supervisor started; the supervisor's */
    int64_t supervisor_start_unix_ms;
    int32_t supervisor_pid;
    uint32_t reserved_head[3];
    /* State. */
    int32_t pid;
    uint32_t state; /* enum shard_state */
    int64_t start_unix_ms;
    uint64_t turns; /* grows with every turn of the loop: the later watchdog sees a stuck shard by it */
    uint64_t turn_longest_ns;
    uint64_t reserved_state[4];
    /* Counters. */
    struct counters counters;
};
static_assert(offsetof(struct shard_shm, next_seq) == 32, "head layout");
static_assert(offsetof(struct shard_shm, pid) == 64, "state layout");
static_assert(offsetof(struct shard_shm, counters) == 128, "counters layout");
static_assert(sizeof(struct shard_shm) == 128 + 8 * (size_t)COUNTER_N, "no padding");

/* A fresh one in place (tests, simulation): everything 0 but the head; the sequence starts at first_seq. */
void shard_shm_init(struct shard_shm *shm, unsigned shard, uint32_t first_seq);

/* The sequence for a start without memory of the last: by the clock, so that it is another part of the range.
 */
uint32_t shard_shm_clock_seq(int64_t unix_s);

/* Take the next sequence number. Called by the shard only. */
static inline uint32_t shard_shm_take_seq(struct shard_shm *shm)
{
    uint32_t seq = shm->next_seq;
    uint32_t next = (seq + 1) & CONNECTION_SEQ_MASK;
    /* Relaxed: one writer; a successor reads it after this process is dead. */
    __atomic_store_n(&shm->next_seq, next != 0 ? next : 1, __ATOMIC_RELAXED);
    return seq;
}

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

/* ---- the supervisor's side */
struct shard_shm_file {
    struct shard_shm *shm;
    int fd;         /* holds the lock, for as long as any process has it open; -1: not backed by a file */
    bool continued; /* the sequence goes on from an earlier run */
};

/* Make or take over <dir>/shard-<N>.shm: locked, counters at 0, sequence kept. 0, or -errno: -EBUSY when
 * another gateway runs with it, others when the folder or file cannot be made (then see shard_shm_anonymous).
 */
int shard_shm_create(const char *dir, unsigned shard, struct shard_shm_file *ret);
/* Without a file: shared with children only. 0 or -errno. */
int shard_shm_anonymous(unsigned shard, struct shard_shm_file *ret);
void shard_shm_release(struct shard_shm_file *f);

/* ---- the reader's side */
/* Map read-only. 0; -ENOENT; -EPROTO when it is of another version of tgg; *ret_running: a supervisor or
 * shard has it open. Unmap with shard_shm_unmap. */
int shard_shm_map(const char *dir, unsigned shard, const struct shard_shm **ret, bool *ret_running);
void shard_shm_unmap(const struct shard_shm *shm);
