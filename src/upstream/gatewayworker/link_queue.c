// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/link_queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "estate/estate.h"
#include "net/net.h"
#include "proto/gw/packet.h"

/* Chunks start small (most links have a few packets at a time) and grow while the queue does. */
#define CHUNK_SMALL 4096
#define CHUNK_LARGE 65536

static struct link_chunk *chunk_at(const struct link_queue *q, uint32_t i)
{
    return &q->ring[(q->first + i) & (q->cap - 1)];
}

static size_t chunk_len(const struct link_chunk *c)
{
    return c->events != NULL ? estate_chunk_len(c->events) : c->reply->len;
}

static uint8_t *chunk_data(const struct link_chunk *c)
{
    return c->events != NULL ? estate_chunk_data(c->events) : c->reply->data;
}

/* A small chunk stays with the queue: one that is written as fast as it fills uses the same all the time. */
static void events_free(struct link_queue *q, struct estate_chunk *events)
{
    if (q->spare == NULL && estate_chunk_cap(events) == CHUNK_SMALL) {
        estate_chunk_reset(q->estate, events);
        q->spare = events;
    } else {
        estate_chunk_free(q->estate, events);
    }
}

static void drop_first(struct link_queue *q)
{
    struct link_chunk *c = chunk_at(q, 0);
    if (c->events != NULL)
        events_free(q, c->events);
    else
        buf_unref(c->reply);
    q->first = (q->first + 1) & (q->cap - 1);
    q->written = q->taken = 0;
    if (--q->count == 0)
        q->tail = NULL;
}

void link_queue_init(struct link_queue *q, struct estate *estate)
{
    *q = (struct link_queue){.estate = estate};
}

void link_queue_fini(struct link_queue *q)
{
    while (q->count > 0)
        drop_first(q);
    if (q->spare != NULL)
        estate_chunk_free(q->estate, q->spare);
    free(q->ring);
    link_queue_init(q, q->estate);
}

static bool grow_ring(struct link_queue *q)
{
    uint32_t cap = q->cap == 0 ? 8 : q->cap * 2;
    struct link_chunk *ring = malloc(cap * sizeof *ring);
    if (ring == NULL)
        return false;
    for (uint32_t i = 0; i < q->count; i++)
        ring[i] = *chunk_at(q, i);
    free(q->ring);
    q->ring = ring;
    q->cap = cap;
    q->first = 0;
    return true;
}

static struct estate_chunk *events_new(struct link_queue *q, size_t len)
{
    size_t cap = q->bytes < CHUNK_SMALL ? CHUNK_SMALL : CHUNK_LARGE;
    struct estate_chunk *spare = q->spare;
    if (cap == CHUNK_SMALL && len <= CHUNK_SMALL && spare != NULL) {
        /* It belongs behind what came since it was kept. */
        estate_chunk_reset(q->estate, spare);
        q->spare = NULL;
        return spare;
    }
    return estate_chunk_new(q->estate, len > cap ? len : cap);
}

/* A chunk at the end that has room for len. */
static uint8_t *chunk_new(struct link_queue *q, enum link_chunk_kind kind, size_t len)
{
    struct link_chunk c = {0};
    if (q->count == q->cap && !grow_ring(q))
        return NULL;
    if (kind == LINK_CHUNK_EVENTS)
        c.events = events_new(q, len);
    else
        c.reply = buf_new(len);
    if (c.events == NULL && c.reply == NULL)
        return NULL;
    q->tail = c.events;
    *chunk_at(q, q->count++) = c;
    q->reserved = len;
    return chunk_data(&c);
}

uint8_t *link_queue_reserve(struct link_queue *q, enum link_chunk_kind kind, size_t len)
{
    struct estate_chunk *tail = q->tail;
    if (tail == NULL || kind != LINK_CHUNK_EVENTS || estate_chunk_cap(tail) - estate_chunk_len(tail) < len)
        return chunk_new(q, kind, len);
    q->reserved = len;
    return estate_chunk_data(tail) + estate_chunk_len(tail);
}

void link_queue_commit(struct link_queue *q)
{
    size_t len = q->reserved;
    if (q->tail != NULL)
        estate_chunk_commit(q->tail, len);
    else
        chunk_at(q, q->count - 1)->reply->len += (uint32_t)len;
    q->reserved = 0;
    q->bytes += len;
}

bool link_queue_append(struct link_queue *q, struct slice packet)
{
    uint8_t *at = link_queue_reserve(q, LINK_CHUNK_EVENTS, packet.len);
    if (at == NULL)
        return false;
    memcpy(at, packet.data, packet.len);
    link_queue_commit(q);
    return true;
}

int link_queue_iov(const struct link_queue *q, struct iovec *iov, int max)
{
    int n = 0;
    for (uint32_t i = 0; n < max && i < q->count; i++) {
        const struct link_chunk *c = chunk_at(q, i);
        size_t skip = i == 0 ? q->written : 0, len = chunk_len(c) - skip;
        if (len > 0) /* one that was reserved and not committed is empty */
            iov[n++] = (struct iovec){chunk_data(c) + skip, len};
    }
    return n;
}

void link_queue_expect(struct link_queue *q)
{
    q->expected = q->count < NET_IOV_MAX ? q->count : NET_IOV_MAX;
    for (uint32_t i = 0; i < q->expected; i++) {
        struct estate_chunk *c = chunk_at(q, i)->events;
        if (c != NULL)
            estate_chunk_written(c, estate_chunk_len(c));
    }
}

/* Chunks that were expected to be written and were not, but for the first, which may be in part. */
static void take_back(struct link_queue *q)
{
    for (uint32_t i = 1; i < q->expected && i < q->count; i++) {
        struct estate_chunk *c = chunk_at(q, i)->events;
        if (c != NULL)
            estate_chunk_written(c, 0);
    }
    q->expected = 0;
}

void link_queue_written(struct link_queue *q, size_t len)
{
    ASSERT(len <= q->bytes);
    q->bytes -= len;
    while (q->count > 0) {
        struct link_chunk *c = chunk_at(q, 0);
        size_t left = chunk_len(c) - q->written;
        if (len < left) {
            q->written += (uint32_t)len;
            if (c->events != NULL)
                estate_chunk_written(c->events, q->written);
            take_back(q);
            return;
        }
        len -= left;
        drop_first(q);
        q->expected -= q->expected > 0;
    }
    q->expected = 0;
    ASSERT(len == 0);
}

/* Offset of the first packet of a chunk whose end is not written; one begins at `at`. */
static size_t first_unwritten(const struct estate_chunk *chunk, size_t at, uint32_t written)
{
    const uint8_t *data = estate_chunk_data(chunk);
    while (at < estate_chunk_len(chunk)) {
        uint32_t len = gw_get_u32(data + at);
        if (at + len > written)
            break;
        at += len;
    }
    return at;
}

bool link_queue_take_packet(struct link_queue *q, struct slice *ret)
{
    for (; q->count > 0; drop_first(q)) {
        struct estate_chunk *chunk = chunk_at(q, 0)->events;
        if (chunk == NULL)
            continue;
        estate_chunk_written(chunk, q->written); /* the packet of the last call is elsewhere */
        size_t at = first_unwritten(chunk, q->taken, q->written);
        if (at == estate_chunk_len(chunk))
            continue;
        uint32_t len = gw_get_u32(estate_chunk_data(chunk) + at);
        *ret = (struct slice){estate_chunk_data(chunk) + at, len};
        /* A packet of which a part was written counts as not written: it is sent again. */
        q->written = q->taken = (uint32_t)(at + len);
        return true;
    }
    q->bytes = 0;
    return false;
}

/* ---- to be handed over */

/* Where that chunk begins for whoever gets it. */
static size_t first_left(const struct link_queue *q, uint32_t at)
{
    const struct estate_chunk *events = chunk_at(q, at)->events;
    return at == 0 && events != NULL ? first_unwritten(events, q->taken, q->written) : 0;
}

bool link_queue_part(const struct link_queue *q, uint32_t at, struct link_queue_part *ret)
{
    if (at >= q->count)
        return false;
    const struct link_chunk *c = chunk_at(q, at);
    size_t from = first_left(q, at);
    *ret = (struct link_queue_part){
        .kind = c->events != NULL ? LINK_CHUNK_EVENTS : LINK_CHUNK_REPLY,
        .bytes = {chunk_data(c) + from, chunk_len(c) - from},
        .written = at == 0 ? q->written - from : 0,
    };
    return true;
}

bool link_queue_restore(struct link_queue *q, const struct link_queue_part *part)
{
    ASSERT(part->written < part->bytes.len && (part->written == 0 || q->bytes == 0));
    uint8_t *at = link_queue_reserve(q, part->kind, part->bytes.len);
    if (at == NULL)
        return false;
    memcpy(at, part->bytes.data, part->bytes.len);
    link_queue_commit(q);
    if (part->written > 0)
        link_queue_written(q, part->written);
    return true;
}

bool link_queue_next(const struct link_queue *q, struct link_queue_cursor *c, struct slice *ret)
{
    for (; c->chunk < q->count; c->chunk++, c->at = 0) {
        const struct estate_chunk *chunk = chunk_at(q, c->chunk)->events;
        size_t at = c->at > 0 ? c->at : first_left(q, c->chunk);
        if (chunk == NULL || at >= estate_chunk_len(chunk))
            continue;
        *ret = (struct slice){estate_chunk_data(chunk) + at, gw_get_u32(estate_chunk_data(chunk) + at)};
        c->at = at + ret->len;
        return true;
    }
    return false;
}

/* ---- to be seen */

uint64_t link_queue_sum(const struct link_queue *q)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < q->count; i++)
        sum += chunk_len(chunk_at(q, i));
    return sum - q->written;
}

uint64_t link_queue_memory(const struct link_queue *q)
{
    uint64_t sum = q->cap * sizeof *q->ring + (q->spare != NULL ? estate_chunk_cap(q->spare) : 0);
    for (uint32_t i = 0; i < q->count; i++) {
        const struct link_chunk *c = chunk_at(q, i);
        sum += c->events != NULL ? estate_chunk_cap(c->events) : c->reply->len;
    }
    return sum;
}

const char *link_queue_check(const struct link_queue *q)
{
    if (q->count > q->cap || (q->count > 0 && q->written > chunk_len(chunk_at(q, 0))))
        return "a queue to a worker is written further than it goes";
    if (q->count == 0 ? q->tail != NULL : q->tail != chunk_at(q, q->count - 1)->events)
        return "the end of a queue to a worker is not its last chunk";
    return link_queue_sum(q) == q->bytes ? NULL : "the bytes of a queue to a worker do not add up";
}
