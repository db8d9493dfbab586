// SPDX-License-Identifier: MIT
/* What the files of this folder share: the check of one record's head, and reserving with flags. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ring/ring.h"
#include "ring/ring_lock.h"

/* Bytes of a record with so much payload. */
static inline uint64_t record_bytes(uint32_t len)
{
    return sizeof(struct record_shm) + (((uint64_t)len + RECORD_ALIGN - 1) & ~(RECORD_ALIGN - 1));
}

/* The one place that decides whether the head of a record at `pos` can be, given that everything before `end`
 * is published and end - pos <= size. Its bytes, 0: it cannot be. */
static inline uint64_t record_check(uint64_t size, uint64_t pos, uint64_t end, uint32_t flags_len,
                                    uint32_t type)
{
    uint64_t place = pos & (size - 1);
    uint64_t bytes = record_bytes(flags_len & RECORD_LEN_MASK);
    if (bytes > end - pos || bytes > size - place)
        return 0;
    if ((flags_len & RECORD_PADDING) == 0)
        return bytes;
    /* Padding fills the rest of the area, and never all of it: so there are no two in a row. */
    bool fits = bytes == size - place && place != 0 && type == 0;
    return fits && (flags_len & (RECORD_MORE | RECORD_CONTINUES | RECORD_LIFECYCLE)) == 0 ? bytes : 0;
}

/* Identity and positions, without the records. 0, -EAGAIN, -EPROTO; fills size, head and tail of the report.
 */
int ring__check(const struct ring_shm *shm, size_t bytes, struct ring_report *ret);

/* Look where the consumer is, into w->head. False: where it cannot be, w is broken. Within RING_LOCK. */
bool ring__see_head(struct ring_writer *w);

/* ring_reserve without its look at messages under way; flags: RECORD_MORE, RECORD_CONTINUES. */
int ring__reserve(struct ring_writer *w, enum ring_class class, uint32_t flags, uint32_t type, uint32_t len,
                  uint8_t **ret);
