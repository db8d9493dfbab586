// SPDX-License-Identifier: MIT
/* Whether the gateway can take a client now; from shared memory, so that a stuck shard stops nobody from
 * hearing of it. */
#include <stdarg.h>
#include <stdio.h>

#include "admin/admin_priv.h"

static const struct node_process *process_of(const struct admin *a, unsigned shard)
{
    return &a->shm->processes[NODE_PROCESS_SHARDS + shard];
}

static uint32_t load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

int32_t ready_shard_pid(const struct admin *a, unsigned shard)
{
    const struct node_process *p = process_of(a, shard);
    enum shard_state state = shard_shm_state(&a->shm->blocks[shard].shm);

    if (load(&p->state) != PROCESS_ALIVE)
        return 0;
    if (state != SHARD_STATE_RUNNING && state != SHARD_STATE_DRAINING)
        return 0;
    return __atomic_load_n(&p->pid, __ATOMIC_RELAXED);
}

static void add(struct ready *ready, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct ready *ready, const char *fmt, ...)
{
    va_list ap;
    if (ready->n >= READY_WHY_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(ready->why[ready->n], sizeof ready->why[0], fmt, ap);
    va_end(ap);
    ready->n++;
}

static void look_at_shard(const struct admin *a, unsigned i, struct ready *ret)
{
    uint32_t phase = NODE_LOAD(a->node->shared->shards[i].phase);
    if (ready_shard_pid(a, i) == 0)
        add(ret, "shard %u does not run (%s, process %s)", i,
            shard_state_name(shard_shm_state(&a->shm->blocks[i].shm)),
            process_state_name(load(&process_of(a, i)->state)));
    else if (phase == NODE_LEAVES || phase == NODE_QUIET ||
             shard_shm_state(&a->shm->blocks[i].shm) == SHARD_STATE_DRAINING)
        add(ret, "shard %u ends", i);
}

static bool all_drained(const struct admin *a, uint64_t edges)
{
    for (unsigned i = 0; i < a->node->n_shards; i++) {
        if ((edges >> i & 1) != 0 && NODE_LOAD(a->node->shared->shards[i].drained) == 0)
            return false;
    }
    return edges != 0;
}

static uint64_t workers(const struct admin *a)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < a->node->n_shards; i++) {
        if (ready_shard_pid(a, i) != 0) /* the figures of a dead one are old */
            n += counter_get(&a->shm->blocks[i].shm.counters, COUNTER_workers);
    }
    return n;
}

void ready_look(const struct admin *a, struct ready *ret)
{
    uint64_t edges = admin_edge_shards(a);

    ret->n = 0;
    if (NODE_LOAD(a->node->shared->draining) != 0)
        add(ret, "the gateway ends");
    else if (all_drained(a, edges))
        add(ret, "the node has been told to drain");
    for (unsigned i = 0; i < a->node->n_shards; i++) {
        if ((edges >> i & 1) != 0)
            look_at_shard(a, i, ret);
    }
    for (unsigned i = 0; i < a->cfg->n_listeners; i++) {
        if ((a->listeners_closed >> i & 1) != 0)
            add(ret, "listener %.64s is not open", a->cfg->listen[i].name);
    }
    if (workers(a) == 0)
        add(ret, "no worker is connected");
}
