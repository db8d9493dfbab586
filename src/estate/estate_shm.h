// SPDX-License-Identifier: MIT
/* The memory of an estate, as predecessor and successor share it. Private to src/estate.
 *
 *   offset            bytes
 *        0             4096  head: struct estate_shm
 *     4096 + i * plot  plot  plot i, 0 <= i < ESTATE_PLOTS
 *
 *   plot              clients[max_clients]   struct estate_client
 *                     chunks[max_chunks]     struct estate_chunk
 *                     heap[heap_bytes]       each of the three from a page's beginning on
 *
 * The mapping is sparse, and reading a page of it makes that page: a reader goes no further than clients_used
 * and chunks_used, which are raised before a record is first used. */
#pragma once

#include <stdbool.h>

#include "estate/estate.h"

#define ESTATE_MAGIC   UINT64_C(0x3130455453454754) /* "TGESTE01" in memory, or nearly */
#define ESTATE_VERSION 1
#define ESTATE_PAGE    ((size_t)4096)

enum plot_state { PLOT_FREE, PLOT_LIVE, PLOT_LEGACY };

struct plot_shm {
    uint64_t state; /* incarnation << 2 | enum plot_state, one word, so that it changes at once */
    uint32_t clients_used;
    uint32_t chunks_used;
    uint64_t reserved[6];
};

struct estate_shm {
    uint64_t magic; /* written last */
    uint32_t version;
    uint32_t max_clients;
    uint64_t heap_bytes; /* of one plot */
    uint64_t reserved[5];
    struct plot_shm plots[ESTATE_PLOTS];
};
_Static_assert(sizeof(struct plot_shm) == 64 && offsetof(struct estate_shm, plots) == 64, "layout");
_Static_assert(sizeof(struct estate_shm) <= ESTATE_PAGE, "the head is one page");
_Static_assert(sizeof(struct estate_chunk) == 40 && offsetof(struct estate_client, session) == 8, "layout");

/* Where things stand in a plot. */
struct plot_shape {
    uint32_t max_clients, max_chunks;
    size_t chunks_at, heap_at, heap_bytes, bytes;
};
struct plot_shape plot__shape(uint32_t max_clients, size_t heap_bytes);

static inline uint8_t *plot__at(void *mem, const struct plot_shape *shape, unsigned plot)
{
    return (uint8_t *)mem + ESTATE_PAGE + plot * shape->bytes;
}

static inline enum plot_state plot__state(const struct plot_shm *p)
{
    return (enum plot_state)(__atomic_load_n(&p->state, __ATOMIC_ACQUIRE) & 3);
}

static inline uint64_t plot__incarnation(const struct plot_shm *p)
{
    return __atomic_load_n(&p->state, __ATOMIC_ACQUIRE) >> 2;
}

/* Release: all that belongs to the state before this is there (or gone) when the state changes. */
static inline void plot__set_state(struct plot_shm *p, uint64_t incarnation, enum plot_state state)
{
    __atomic_store_n(&p->state, incarnation << 2 | state, __ATOMIC_RELEASE);
}

/* Nothing is in the plot, its memory goes back to the kernel, and it is free. Killed anywhere in this, it is
 * still what it was, but empty. */
void plot__release(struct plot_shm *p, uint8_t *at, const struct plot_shape *shape, int advice);

/* Order of stores where something is taken out: what was stored before comes before what is stored after,
 * such as the first bytes of whoever gets the memory next. */
static inline void estate__fence(void)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
}
