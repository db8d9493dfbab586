// SPDX-License-Identifier: MIT
/* A legacy while it is read. Private to src/estate. */
#pragma once

#include "estate/estate_shm.h"

/* A chunk as it was found; its numbers are checked. */
struct left_chunk {
    uint64_t seq;
    struct estate_chunk *record;
    const uint8_t *data;
    uint32_t len, written;
};

struct legacy {
    struct plot_shm *plot;
    uint8_t *at;
    struct plot_shape shape;
    struct estate_client *clients;
    uint32_t n_client_records, next_client, clients_left;
    uint32_t first_client;             /* all before it are done */
    struct estate_client *last_client; /* given last, not done */
    struct left_chunk *chunks;         /* by seq */
    uint32_t n_chunks, chunk;
    uint32_t packet_at;            /* where the next packet of chunks[chunk] begins */
    struct left_chunk *last_chunk; /* of the packet given last, not done */
    uint32_t last_end;
    uint32_t damaged;
};
