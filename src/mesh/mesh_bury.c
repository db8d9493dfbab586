// SPDX-License-Identifier: MIT
/* The supervisor's part: what a dead shard has left in the memory of the mesh. */
#include <errno.h>
#include <inttypes.h>

#include "base/assert.h"
#include "base/log.h"
#include "mesh/mesh_priv.h"

size_t mesh_bytes(unsigned n_shards, size_t ring_size)
{
    ASSERT(n_shards >= 1 && n_shards <= MESH_SHARDS_MAX);
    return mesh__rings_offset(n_shards) + (size_t)n_shards * n_shards * mesh__pages(ring_bytes(ring_size));
}

/* One ring of the dead; the number of messages in it that nobody has taken. */
static uint64_t bury_ring(void *mem, unsigned n_shards, size_t size, unsigned from, unsigned to,
                          unsigned dead_side)
{
    struct ring_report report;
    if (!mesh__is_made(mem, from, to))
        return 0;
    int r = ring_repair(mesh__ring(mem, n_shards, size, from, to), ring_bytes(size), dead_side,
                        &mesh__shard(mem, to)->bell, from, &report);
    if (r < 0)
        LOG(LOG_ERROR, "mesh_ring_lost", "from=%u to=%u error=\"%s\"", from, to,
            report.fault != NULL ? report.fault : "not a ring");
    else if (report.fault != NULL)
        LOG(LOG_ERROR, "mesh_ring_mended", "from=%u to=%u cut_bytes=%" PRIu64 " fault=\"%s\"", from, to,
            report.cut_bytes, report.fault);
    return r < 0 ? 0 : report.messages;
}

uint64_t mesh_bury(void *mem, unsigned n_shards, size_t ring_size, unsigned dead, uint64_t *ret_to_it)
{
    uint64_t by_it = 0, to_it = 0, made_to_it = 0;
    ASSERT(dead < n_shards && n_shards <= MESH_SHARDS_MAX);
    /* Acquire: partner is the exchange in mesh_new. */
    uint64_t shape =
        n_shards > 1 ? atomic_load_explicit(&((struct mesh_shm *)mem)->shape, memory_order_acquire) : 0;
    if (shape != 0 && shape != mesh__shape(n_shards, ring_size))
        LOG(LOG_ERROR, "mesh_memory", "error=\"the memory between the shards was written over\"");
    for (unsigned i = 0; i < n_shards && shape == mesh__shape(n_shards, ring_size); i++) {
        if (i == dead)
            continue;
        by_it += bury_ring(mem, n_shards, ring_size, dead, i, RING_DEAD_PRODUCER);
        to_it += bury_ring(mem, n_shards, ring_size, i, dead, RING_DEAD_CONSUMER);
        made_to_it |= (uint64_t)mesh__is_made(mem, i, dead) << i;
    }
    if (shape != 0)
        bell_repair(&mesh__shard(mem, dead)->bell, made_to_it);
    *ret_to_it = to_it;
    return by_it;
}
