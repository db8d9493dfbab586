// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/link_queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "proto/gw/packet.h"

/* Chunks start small (most links have a few replies at a time) and grow while the queue does. */
#define CHUNK_SMALL 4096
#define CHUNK_LARGE 65536

static struct buf *chunk_at(const struct link_queue *q, uint32_t i)
{
    return q->ring[(q->first + i) & (q->cap - 1)];
}

static void drop_first(struct link_queue *q)
{
    buf_unref(chunk_at(q, 0));
    q->first = (q->first + 1) & (q->cap - 1);
    q->count--;
    q->written = 0;
}

void link_queue_fini(struct link_queue *q)
{
    while (q->count > 0)
        drop_first(q);
    free(q->ring);
    *q = (struct link_queue){0};
}

static bool grow_ring(struct link_queue *q)
{
    uint32_t cap = q->cap == 0 ? 8 : q->cap * 2;
    struct buf **ring = malloc(cap * sizeof *ring);
    if (ring == NULL)
        return false;
    for (uint32_t i = 0; i < q->count; i++)
        ring[i] = chunk_at(q, i);
    free(q->ring);
    q->ring = ring;
    q->cap = cap;
    q->first = 0;
    return true;
}

static size_t chunk_cap(const struct link_queue *q, enum link_chunk_kind kind, size_t len)
{
    if (kind == LINK_CHUNK_REPLY)
        return len;
    size_t cap = q->bytes < CHUNK_SMALL ? CHUNK_SMALL : CHUNK_LARGE;
    return len > cap ? len : cap;
}

uint8_t *link_queue_reserve(struct link_queue *q, enum link_chunk_kind kind, size_t len)
{
    if (q->count > 0 && kind == LINK_CHUNK_EVENTS) {
        struct buf *last = chunk_at(q, q->count - 1);
        if (last->flags == LINK_CHUNK_EVENTS && last->cap - last->len >= len) {
            uint8_t *at = last->data + last->len;
            last->len += (uint32_t)len;
            q->bytes += len;
            return at;
        }
    }
    if (q->count == q->cap && !grow_ring(q))
        return NULL;
    struct buf *chunk = buf_new(chunk_cap(q, kind, len));
    if (chunk == NULL)
        return NULL;
    chunk->flags = kind;
    chunk->len = (uint32_t)len;
    q->ring[(q->first + q->count) & (q->cap - 1)] = chunk;
    q->count++;
    q->bytes += len;
    return chunk->data;
}

int link_queue_iov(const struct link_queue *q, struct iovec *iov, int max)
{
    int n = 0;
    for (; n < max && (uint32_t)n < q->count; n++) {
        struct buf *chunk = chunk_at(q, (uint32_t)n);
        uint32_t skip = n == 0 ? q->written : 0;
        iov[n] = (struct iovec){chunk->data + skip, chunk->len - skip};
    }
    return n;
}

void link_queue_written(struct link_queue *q, size_t len)
{
    ASSERT(len <= q->bytes);
    q->bytes -= len;
    while (q->count > 0) {
        size_t left = chunk_at(q, 0)->len - q->written;
        if (len < left) {
            q->written += (uint32_t)len;
            return;
        }
        len -= left;
        drop_first(q);
    }
    ASSERT(len == 0);
}

/* Offset of the first packet of an events chunk whose end is not written. */
static uint32_t first_unwritten(const struct buf *chunk, uint32_t written)
{
    uint32_t at = 0;
    while (at < chunk->len) {
        uint32_t len = gw_get_u32(chunk->data + at);
        if (at + len > written)
            break;
        at += len;
    }
    return at;
}

bool link_queue_take_packet(struct link_queue *q, struct slice *ret)
{
    while (q->count > 0) {
        struct buf *chunk = chunk_at(q, 0);
        uint32_t at = chunk->flags == LINK_CHUNK_EVENTS ? first_unwritten(chunk, q->written) : chunk->len;
        if (at == chunk->len) {
            drop_first(q);
            continue;
        }
        uint32_t len = gw_get_u32(chunk->data + at);
        *ret = (struct slice){chunk->data + at, len};
        q->written =
            at + len; /* a packet of which a part was written counts as not written: it is sent again */
        return true;
    }
    q->bytes = 0;
    return false;
}
