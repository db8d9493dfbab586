// SPDX-License-Identifier: MIT
/* A counted buffer: written once, then shared by reference, so that a fan-out frames its payload once.
 * From size-class pools of this process (one thread), bounded; with TGG_POOL_MALLOC every one is malloc'ed.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint32_t refs;
    uint32_t cap;   /* bytes that data has room for */
    uint32_t len;   /* bytes in use; set by the writer before it shares */
    uint32_t flags; /* the owner's; 0 when new */
    uint8_t data[];
};

/* One reference, len 0, cap >= cap asked; NULL without memory, or for more than BUF_CAP_MAX. */
struct buf *buf_new(size_t cap);
#define BUF_CAP_MAX ((size_t)1 << 30)

static inline struct buf *buf_ref(struct buf *b)
{
    b->refs++;
    return b;
}

void buf_free(struct buf *b); /* internal to buf_unref */

static inline void buf_unref(struct buf *b)
{
    if (b != NULL && --b->refs == 0)
        buf_free(b);
}

/* Bytes handed out and not returned, bytes kept in the pools, buffers out: for figures and leak checks. */
struct buf_stats {
    uint64_t used_bytes, idle_bytes, used_count;
};
void buf_stats_get(struct buf_stats *ret);

/* Give idle memory of the pools back to the system (called by a timer after bursts). */
void buf_trim(void);
