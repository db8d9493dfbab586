// SPDX-License-Identifier: MIT
/* The bytes of a mesh: what the shards of a node share to talk to each other.
 *
 *   page 0 ..    struct mesh_shm, then a struct mesh_shard_shm for each shard
 *   page k ..    ring 0→0 (not used), 0→1, 0→2 ... 1→0 ...     ring_shm.h each, on pages of their own
 *
 * Sparse: a ring takes its first page when its producer makes it. Reading a page of shared memory that was
 * never touched takes one too, so nobody looks at a ring that `made` does not name. */
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/ring_shm.h"

#define MESH_SHM_VERSION 1
#define MESH_PAGE        4096

struct mesh_shm {
    _Atomic uint64_t shape; /* version << 56 | shards << 48 | bytes of a ring; 0: nobody was here yet */
    uint64_t reserved[31];
};
static_assert(sizeof(struct mesh_shm) == 256, "layout");

struct mesh_shard_shm {
    struct bell_shm bell; /* bit i: shard i has something for this one, to read or room */
    _Atomic uint64_t
        made; /* bit i: the ring from this shard to shard i exists. By its producer, only grows */
    uint64_t reserved[15];
};
static_assert(offsetof(struct mesh_shard_shm, made) == 128, "layout");
static_assert(sizeof(struct mesh_shard_shm) == 256, "layout");
