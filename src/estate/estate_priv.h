// SPDX-License-Identifier: MIT
/* The process's side of its plot. Private to src/estate. */
#pragma once

#include "estate/estate_shm.h"
#include "estate/heap.h"

struct estate {
    struct plot_shm *plot;
    uint8_t *at; /* the plot's memory */
    struct estate_client *clients;
    struct estate_chunk *chunks;
    struct plot_shape shape;
    struct heap heap;
    uint64_t next_seq;
    /* Records that were given back, linked in the records themselves (number + 1; 0: none), while they are
     * not in use: nobody else looks at those. */
    uint32_t clients_free, chunks_free;
    uint32_t n_clients, n_chunks;
    int advice;
    void *own_mem; /* NULL: the memory is somebody else's */
    size_t own_bytes;
};
