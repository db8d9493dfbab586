// SPDX-License-Identifier: MIT
/* The file <runtime_dir>/node.shm: how the node was started, its processes, and a block for each shard. For
 * `tgg status` and for programs of others: fixed offsets (docs/SHARED-MEMORY.md), host byte order.
 *
 * Made and locked by the supervisor, mapped shared by all of the node's processes. It stays when all of them
 * are gone; a later run takes the ids of every shard over, also of those that it does not have itself.
 *
 *   offset   bytes
 *        0     256  head
 *      256     768  path of the configuration
 *     1024     512  start-up parameters of 64 shards
 *     1536    4288  table of 67 processes
 *     8192    8192  block of the announcer: counters, then the registers
 *    16384  64*8192 a block for each shard: struct shard_shm
 *   540672   16384  names of the counters, each ended by a NUL, in the order in which they stand in the
 * blocks
 *   557056  64*8192 what each shard leaves behind at a crash: struct shard_crash
 *
 * Sparse: blocks of shards that never were are holes. */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "common/counters.h"
#include "common/node_shared.h"
#include "common/shard_crash.h"
#include "common/shard_plan.h"
#include "common/shard_shm.h"

#define NODE_SHM_MAGIC   UINT64_C(0x31304d4853474754) /* "TGGSHM01" in memory */
#define NODE_SHM_VERSION 3                            /* 1 was a file per shard, 2 had no admin process */
#define NODE_SHM_BLOCK   8192
#define NODE_SHM_NAMES   16384

enum process_kind { PROCESS_SUPERVISOR, PROCESS_ANNOUNCER, PROCESS_SHARD, PROCESS_ADMIN, PROCESS_KIND_N };

/* As the supervisor sees it; what a shard does is in its own block. */
enum process_state {
    PROCESS_NONE,  /* was never started */
    PROCESS_ALIVE, /* there */
    PROCESS_STUCK, /* there, but its loop does not turn */
    PROCESS_DEAD,  /* died, waits for its restart */
    PROCESS_ENDED, /* ended as told */
    PROCESS_STATE_N
};

/* Written by the supervisor. */
struct node_process {
    uint32_t kind;   /* enum process_kind */
    uint32_t number; /* of the shard, else 0 */
    int32_t pid;     /* 0: there is none */
    uint32_t state;  /* enum process_state */
    int64_t start_unix_ms;
    uint32_t restarts;        /* deaths since the supervisor started */
    uint32_t deaths_young;    /* in a row: a crash loop */
    int32_t last_wait_status; /* of the last death, as waitpid gives it */
    uint32_t reserved[7];
};

struct node_shm_shard {
    int32_t cpu;    /* -1: not pinned */
    uint32_t roles; /* 1: edge, 2: link */
};
#define NODE_ROLE_EDGE UINT32_C(1)
#define NODE_ROLE_LINK UINT32_C(2)

#define NODE_PROCESS_SUPERVISOR 0
#define NODE_PROCESS_ANNOUNCER  1
#define NODE_PROCESS_SHARDS     2 /* the first of them */
#define NODE_PROCESS_ADMIN      (NODE_PROCESS_SHARDS + NODE_SHARDS_MAX)
#define NODE_PROCESSES_MAX      (NODE_PROCESS_ADMIN + 1)

/* A register that the gateway is announced to; written by the announcer. */
#define NODE_REGISTERS_MAX 16
struct node_register {
    char address[116];     /* host:port as configured, NUL-terminated; "": no such register */
    uint32_t connected;    /* 1: it knows us */
    int64_t since_unix_ms; /* of that state; 0: never was another one */
};

struct node_shm {
    /* Head. */
    uint64_t magic;
    uint32_t version;
    uint32_t size; /* of the file */
    uint64_t counters_layout;
    uint32_t counters_n;
    uint32_t block_bytes;
    int64_t supervisor_start_unix_ms;
    int32_t supervisor_pid;
    uint32_t n_shards;
    uint64_t ring_bytes;
    uint32_t max_clients; /* of one shard */
    uint32_t log_level;   /* of every process, plus 1 (enum log_level); looked at once a second */
    uint32_t reserved_head[48];
    char config_path[768]; /* NUL-terminated, cut off if need be */
    struct node_shm_shard shards[NODE_SHARDS_MAX];
    struct node_process processes[NODE_PROCESSES_MAX];
    uint8_t reserved_table[NODE_SHM_BLOCK - 1536 - 64 * NODE_PROCESSES_MAX];
    /* Blocks. */
    union {
        struct {
            struct counters counters; /* register_*; the others stay 0 */
            struct node_register registers[NODE_REGISTERS_MAX];
        };
        uint8_t block[NODE_SHM_BLOCK];
    } announcer;
    union {
        struct shard_shm shm;
        uint8_t block[NODE_SHM_BLOCK];
    } blocks[NODE_SHARDS_MAX];
    char counter_names[NODE_SHM_NAMES];
    union {
        struct shard_crash crash;
        uint8_t block[NODE_SHM_BLOCK];
    } crashes[NODE_SHARDS_MAX];
};
static_assert(offsetof(struct node_shm, config_path) == 256, "head layout");
static_assert(offsetof(struct node_shm, shards) == 1024, "head layout");
static_assert(offsetof(struct node_shm, processes) == 1536, "head layout");
static_assert(sizeof(struct node_process) == 64, "process layout");
static_assert(offsetof(struct node_shm, announcer) == NODE_SHM_BLOCK, "block layout");
static_assert(offsetof(struct node_shm, blocks) == 2 * NODE_SHM_BLOCK, "block layout");
static_assert(sizeof(struct shard_shm) <= NODE_SHM_BLOCK, "a block has room for a shard");
static_assert(offsetof(struct node_shm, counter_names) == (size_t)(2 + NODE_SHARDS_MAX) * NODE_SHM_BLOCK,
              "names layout");
static_assert(offsetof(struct node_shm, crashes) == offsetof(struct node_shm, counter_names) + NODE_SHM_NAMES,
              "crash layout");
static_assert(sizeof(struct counters) + NODE_REGISTERS_MAX * sizeof(struct node_register) <= NODE_SHM_BLOCK,
              "the announcer's block has room");
static_assert(sizeof(struct shard_crash) <= NODE_SHM_BLOCK, "a block has room for a crash");

static inline struct shard_shm *node_shm_shard(struct node_shm *shm, unsigned shard)
{
    return &shm->blocks[shard].shm;
}

const char *process_kind_name(enum process_kind kind);
/* For what a file says, whatever that is. */
const char *process_state_name(uint32_t state);

/* Once a second, in every process: its log has the level that the file says. */
void node_shm_take_log_level(const struct node_shm *shm);
/* In the supervisor: for all processes, and its own. */
void node_shm_set_log_level(struct node_shm *shm, enum log_level level);

/* Of all shards and the announcer together. */
void node_shm_sum(const struct node_shm *shm, struct counters *ret);

/* ---- the supervisor's side */
struct node_shm_file {
    struct node_shm *shm;
    int fd;         /* holds the lock, for as long as any process has it open; -1: not backed by a file */
    bool continued; /* the ids of all shards go on from an earlier run */
};

/* Make or take over <dir>/node.shm, also that of version 2: locked, everything 0 but identity, plan, process
 * table (kinds and numbers) and ids. 0, or -errno: -EBUSY when another gateway runs with it, others when the
 * folder or file cannot be made (then see node_shm_anonymous). */
int node_shm_create(const char *dir, const struct shard_plan *plan, struct node_shm_file *ret);
/* Beside a file that is in use: <dir>/node.shm.next, with a lock of its own; ids start by the clock, see
 * node_shm_set_ids. 0 or -errno as above. Then either of the two below. */
int node_shm_create_next(const char *dir, const struct shard_plan *plan, struct node_shm_file *ret);
/* It takes the place of <dir>/node.shm. 0 or -errno. */
int node_shm_commit_next(const char *dir);
/* It is not wanted any more; fine when there is none. */
void node_shm_remove_next(const char *dir);
/* Ids of a shard number, which need not be one of this node's. */
struct node_shm_ids {
    uint32_t next_seq;
    int64_t left_unix_s[SHARD_ID_BLOCKS];
};
/* False: there are none, no run had such a shard. */
bool node_shm_get_ids(const struct node_shm_file *f, unsigned shard, struct node_shm_ids *ret);
/* 0; -EINVAL: these are none; other -errno: no memory for them. */
int node_shm_set_ids(const struct node_shm_file *f, unsigned shard, const struct node_shm_ids *ids);
/* Without a file: shared with children only. 0 or -errno. */
int node_shm_anonymous(const struct shard_plan *plan, struct node_shm_file *ret);
void node_shm_release(struct node_shm_file *f);

/* ---- the reader's side */
/* Map read-only. 0; -ENOENT; -EPROTO when it is of another version of tgg; *ret_running: a supervisor or
 * shard has it open. n_shards and the numbers in it have been checked; strings end. Unmap with
 * node_shm_unmap. */
int node_shm_map(const char *dir, const struct node_shm **ret, bool *ret_running);
void node_shm_unmap(const struct node_shm *shm);
