// SPDX-License-Identifier: MIT
/* What the files of this folder share: where things lie in the memory of a mesh, and the backlog. */
#pragma once

#include "mesh/mesh.h"
#include "mesh/mesh_shm.h"
#include "ring/ring.h"

/* ---- places */

static inline size_t mesh__pages(size_t bytes)
{
    return (bytes + MESH_PAGE - 1) & ~(size_t)(MESH_PAGE - 1);
}

static inline uint64_t mesh__shape(unsigned n_shards, size_t ring_bytes)
{
    return (uint64_t)MESH_SHM_VERSION << 56 | (uint64_t)n_shards << 48 | ring_bytes;
}

static inline struct mesh_shard_shm *mesh__shard(void *mem, unsigned i)
{
    return (struct mesh_shard_shm *)((struct mesh_shm *)mem + 1) + i;
}

static inline size_t mesh__rings_offset(unsigned n_shards)
{
    return mesh__pages(sizeof(struct mesh_shm) + n_shards * sizeof(struct mesh_shard_shm));
}

static inline void *mesh__ring(void *mem, unsigned n_shards, size_t size, unsigned from, unsigned to)
{
    size_t index = (size_t)from * n_shards + to;
    return (uint8_t *)mem + mesh__rings_offset(n_shards) + index * mesh__pages(ring_bytes(size));
}

static inline bool mesh__is_made(void *mem, unsigned from, unsigned to)
{
    /* Acquire: the ring's first bytes (partner: the fetch_or of the producer that made it). */
    return (atomic_load_explicit(&mesh__shard(mem, from)->made, memory_order_acquire) >> to & 1) != 0;
}

/* ---- backlog: messages in the order of sending, each in one piece, in chunks of many */

struct mesh_queued {
    struct mesh_note *note; /* NULL: nobody is to be told */
    uint64_t len;
    uint32_t type;
    uint32_t reserved;
    uint8_t data[]; /* aligned to 8 */
};

struct mesh_chunk;

struct mesh_backlog {
    struct mesh_chunk *first, *last;
    uint64_t messages;
    size_t bytes; /* with their heads */
};

/* Chunks that were given back: one, so that a backlog that comes and goes does not allocate. NULL: none. */
struct mesh_spare {
    struct mesh_chunk *chunk;
};

/* len: of all parts. False without memory: nothing was queued. */
bool mesh__backlog_push(struct mesh_backlog *b, struct mesh_spare *spare, uint32_t type,
                        const struct slice *parts, unsigned n_parts, size_t len, struct mesh_note *note);
/* The oldest, NULL: none; stays where it is until it is popped. */
struct mesh_queued *mesh__backlog_head(const struct mesh_backlog *b);
void mesh__backlog_pop(struct mesh_backlog *b, struct mesh_spare *spare);
void mesh__backlog_clear(struct mesh_backlog *b, struct mesh_spare *spare);
void mesh__spare_fini(struct mesh_spare *spare);
/* The parts, one behind the other. */
void mesh__gather(uint8_t *to, const struct slice *parts, unsigned n_parts);
