// SPDX-License-Identifier: MIT
/* Bytes that wait to be written to a link, in chunks. A chunk begins at the beginning of a packet and holds
 * whole packets only, so that after the link's death those that were not written whole can be handed to
 * another worker.
 *
 *   chunks (ring):  [events: packet packet packet] [reply] [events: packet ...]
 *                        ^ written: bytes of the first chunk that are with the kernel
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bytes.h"

struct buf;

enum link_chunk_kind { LINK_CHUNK_EVENTS, LINK_CHUNK_REPLY };

struct link_queue {
    struct buf **ring;
    uint32_t first, count, cap; /* cap: a power of two, or 0 */
    uint32_t written;
    uint64_t bytes; /* not yet written */
};

void link_queue_fini(struct link_queue *q);

/* Room for len contiguous bytes at the end, to be filled by the caller at once; NULL without memory. */
uint8_t *link_queue_reserve(struct link_queue *q, enum link_chunk_kind kind, size_t len);

/* What comes next to be written: number of iov filled (at most max). */
int link_queue_iov(const struct link_queue *q, struct iovec *iov, int max);
/* len bytes were written. */
void link_queue_written(struct link_queue *q, size_t len);

/* Takes one packet that was not written whole off the front; the slice lives until the next call. False: none
 * left. Replies are skipped. Only for a link that is not written to any more. */
bool link_queue_take_packet(struct link_queue *q, struct slice *ret);
