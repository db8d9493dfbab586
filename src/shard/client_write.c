// SPDX-License-Identifier: MIT
/* What goes to clients: queues of references, written once per client and turn. */
#include "shard/shard_priv.h"

#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/pool.h"
#include "shard/census.h"
#include "shard/trace.h"
#include "tls/tls.h"

/* Past the limit by so much with control frames alone, a client that does not read is closed whatever the
 * policy. */
#define CONTROL_RESERVE 65536
/* Clients written between two looks at the clock. */
#define SLICE 32
/* Deliveries that a turn always has room for, however slow writes are. */
#define ROOM_MIN 64
/* Clients fetched ahead of the one that is written; the kernel's part of a write throws them out of the
 * cache. */
#define PREFETCH 2

/* ---- the queue */

static void queue_changed(struct client *c, uint64_t added, uint64_t removed)
{
    struct shard *s = client_shard(c);
    c->out_bytes += added - removed;
    s->queued_bytes += added - removed;
}

static void ref_free(struct client *c, struct out_ref *ref)
{
    buf_unref(ref->buf);
    pool_put(client_shard(c)->ref_pool, ref);
}

/* Takes over the caller's reference to b. */
static bool queue_append(struct client *c, struct buf *b)
{
    struct out_ref *ref = pool_get(client_shard(c)->ref_pool);
    if (ref == NULL) {
        buf_unref(b);
        return false;
    }
    ref->buf = b;
    ref->next = NULL;
    if (c->out_last != NULL)
        c->out_last->next = ref;
    else
        c->out_first = ref;
    c->out_last = ref;
    queue_changed(c, b->len, 0);
    return true;
}

bool client_queue_restore(struct client *c, struct buf *b)
{
    return queue_append(c, b);
}

bool client_queue_skip(struct client *c, uint64_t len)
{
    if (c->out_first == NULL || len >= c->out_first->buf->len)
        return false;
    c->out_skip = (uint32_t)len;
    queue_changed(c, 0, len);
    return true;
}

void client_queue_front(struct client *c, struct buf *b)
{
    ASSERT(c->out_skip == 0);
    struct out_ref *ref = b != NULL ? pool_get(client_shard(c)->ref_pool) : NULL;
    if (ref == NULL) {
        buf_unref(b);
        client_close(c, CLOSE_no_memory, WS_CLOSE_INTERNAL, NULL);
        return;
    }
    ref->buf = b;
    ref->next = c->out_first;
    c->out_first = ref;
    if (c->out_last == NULL)
        c->out_last = ref;
    queue_changed(c, b->len, 0);
    client_mark_dirty(c);
}

void client_out_clear(struct client *c)
{
    struct shard *s = client_shard(c);
    queue_changed(c, 0, c->out_bytes);
    while (c->out_first != NULL) {
        struct out_ref *ref = c->out_first;
        c->out_first = ref->next;
        ref_free(c, ref);
    }
    c->out_last = NULL;
    c->out_skip = 0;
    if (c->dirty_position != 0)
        s->dirty[c->dirty_position - 1] = NULL;
    c->dirty_position = 0;
}

/* The oldest message that can still go whole and that nothing depends on: not the one of which a part is
 * written, no control frame. */
static bool drop_oldest(struct client *c)
{
    struct out_ref **at = &c->out_first, *before = NULL;
    for (struct out_ref *ref; (ref = *at) != NULL; before = ref, at = &ref->next) {
        if ((ref == c->out_first && c->out_skip > 0) || (ref->buf->flags & (OUT_CONTROL | OUT_STREAM)) != 0)
            continue;
        *at = ref->next;
        if (c->out_last == ref)
            c->out_last = before;
        queue_changed(c, 0, ref->buf->len);
        ref_free(c, ref);
        counter_drop(client_shard(c)->host.counters, DROP_slow_reader_oldest);
        return true;
    }
    return false;
}

/* ---- writing */

/* len bytes from the front of the queue are with the kernel. */
static void queue_written(struct client *c, size_t len)
{
    queue_changed(c, 0, len);
    while (len > 0) {
        struct out_ref *ref = c->out_first;
        size_t left = ref->buf->len - c->out_skip;
        if (len < left) {
            c->out_skip += (uint32_t)len;
            return;
        }
        len -= left;
        c->out_skip = 0;
        c->out_first = ref->next;
        if (c->out_first == NULL)
            c->out_last = NULL;
        ref_free(c, ref);
    }
}

static int queue_iov(const struct client *c, struct iovec *iov, size_t *ret_len)
{
    int n = 0;
    size_t len = 0;
    for (struct out_ref *ref = c->out_first; ref != NULL && n < NET_IOV_MAX; ref = ref->next) {
        uint32_t skip = n == 0 ? c->out_skip : 0;
        iov[n] = (struct iovec){ref->buf->data + skip, ref->buf->len - skip};
        len += iov[n++].iov_len;
    }
    *ret_len = len;
    return n;
}

/* A write failed: net will not take more. Not ended here, where callers still hold the client. */
static void client_broke(struct client *c)
{
    c->broken = true;
    client_out_clear(c);
    client_arm(c);
}

/* What is queued, up to one TLS record, in one piece: the queue's own memory where that is worth it. */
static size_t next_record(const struct client *c, uint8_t *record, const uint8_t **ret)
{
    size_t len = 0;
    uint32_t skip = c->out_skip;
    const struct buf *first = c->out_first->buf;
    if (c->out_first->next == NULL || first->len - skip >= TLS_RECORD_MAX / 2) {
        *ret = first->data + skip;
        return first->len - skip < TLS_RECORD_MAX ? first->len - skip : TLS_RECORD_MAX;
    }
    for (struct out_ref *ref = c->out_first; ref != NULL && len < TLS_RECORD_MAX; ref = ref->next, skip = 0) {
        size_t n = ref->buf->len - skip;
        if (n > TLS_RECORD_MAX - len)
            n = TLS_RECORD_MAX - len;
        memcpy(record + len, ref->buf->data + skip, n);
        len += n;
    }
    *ret = record;
    return len;
}

/* False: it broke. */
static bool flush_tls(struct client *c)
{
    static uint8_t record[TLS_RECORD_MAX]; /* one thread */
    struct tls_conn *t = c->edge != NULL ? c->edge->tls : NULL;
    while (t != NULL && c->out_first != NULL && !c->write_blocked && net_conn_is_open(&c->conn)) {
        const uint8_t *data;
        size_t len = next_record(c, record, &data);
        ssize_t n = tls_conn_write(t, data, len);
        if (n < 0) {
            client_broke(c);
            return false;
        }
        queue_written(c, (size_t)n);
        c->write_blocked = !tls_conn_is_flushed(t);
    }
    return true;
}

static void client_flush(struct client *c)
{
    struct shard *s = client_shard(c);
    if (__builtin_expect(c->has_tls, 0) && !flush_tls(c))
        return;
    while (!c->has_tls && c->out_first != NULL && !c->write_blocked && net_conn_is_open(&c->conn)) {
        struct iovec iov[NET_IOV_MAX];
        size_t asked;
        int n_iov = queue_iov(c, iov, &asked);
        ssize_t n = net_writev(s->host.net, &c->conn, iov, n_iov);
        if (n < 0) {
            client_broke(c);
            return;
        }
        queue_written(c, (size_t)n);
        c->write_blocked = (size_t)n < asked;
    }
    if (c->out_first == NULL && c->state == CLIENT_CLOSING)
        client_written_out(c);
}

void client_on_writable(struct net_conn *conn)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    if (c->has_tls && c->edge != NULL && c->edge->tls != NULL && !tls_conn_flush(c->edge->tls))
        return; /* short again: this comes again */
    c->write_blocked = false;
    client_flush(c);
}

void client_mark_dirty(struct client *c)
{
    struct shard *s = client_shard(c);
    if (c->dirty_position != 0 || c->write_blocked || c->broken || c->state < CLIENT_OPEN)
        return;
    if (!array_reserve_one(&s->dirty, s->n_dirty, &s->cap_dirty, 256)) {
        client_flush(c); /* without the list there is still the direct way */
        return;
    }
    s->dirty[s->n_dirty++] = c;
    c->dirty_position = s->n_dirty;
}

/* Remembers what was left for the next turn. */
static void keep_from(struct shard *s, uint32_t from)
{
    uint32_t n = 0;
    for (uint32_t i = from; i < s->n_dirty; i++) {
        struct client *c = s->dirty[i];
        if (c == NULL)
            continue;
        s->dirty[n++] = c;
        c->dirty_position = n;
    }
    s->n_dirty = n;
}

static void note_cost(struct shard *s, uint32_t written, uint64_t ns)
{
    if (written > 0)
        s->write_ns += (int64_t)(ns / written - s->write_ns) / 8;
}

static void flush_dirty(struct shard *s)
{
    uint64_t start = s->n_dirty >= 16 ? loop_clock_ns(s->host.loop) : 0;
    uint32_t i = 0;
    while (i < s->n_dirty) {
        if (i + PREFETCH < s->n_dirty)
            __builtin_prefetch(s->dirty[i + PREFETCH]);
        struct client *c = s->dirty[i++];
        if (c != NULL) {
            c->dirty_position = 0;
            client_flush(c);
        }
        if (i % SLICE == 0 && i >= ROOM_MIN && loop_turn_left_ns(s->host.loop) == 0)
            break;
    }
    if (start != 0)
        note_cost(s, i, loop_clock_ns(s->host.loop) - start);
    keep_from(s, i);
}

bool client_flush_all(struct loop_hook *hook)
{
    struct shard *s = CONTAINER_OF(hook, struct shard, flush_hook);
    bool not_yet_ours = s->held && s->import != NULL; /* another process has these connections, too */
    if (s->n_dirty > 0 && !not_yet_ours)
        flush_dirty(s);
    counter_set(s->host.counters, COUNTER_client_queue_bytes, s->queued_bytes);
    counter_set(s->host.counters, COUNTER_client_input_bytes, s->input_bytes);
    return s->n_dirty > 0 && !not_yet_ours;
}

unsigned client_room(struct upstream_host *h, bool to_many)
{
    struct shard *s = CONTAINER_OF(h, struct shard, host);
    uint64_t cap = shard_config(s)->turn_max * 1000000 / 2 / (s->write_ns + 1);
    if (cap < ROOM_MIN)
        cap = ROOM_MIN;
    if (to_many)
        cap -= cap / 4;
    return s->n_dirty >= cap ? 0 : (unsigned)(cap - s->n_dirty);
}

/* ---- what callers queue */

/* The queue is at its limit. True: there is room after all. */
static bool make_room(struct client *c)
{
    struct shard *s = client_shard(c);
    uint64_t limit = shard_config(s)->send_to_client_buffer_size;
    if (!c->write_blocked && c->state == CLIENT_OPEN)
        client_flush(c);
    if (c->broken) {
        counter_drop(s->host.counters, DROP_client_closing);
        return false;
    }
    if (c->out_bytes < limit)
        return true;
    switch (shard_config(s)->slow_reader_policy) {
    case SLOW_READER_DROP_NEWEST: break;
    case SLOW_READER_DROP_OLDEST:
        while (c->out_bytes >= limit && drop_oldest(c)) {
        }
        if (c->out_bytes < limit)
            return true;
        break;
    case SLOW_READER_CLOSE:
        client_close(c, CLOSE_slow_reader, WS_CLOSE_POLICY, "too slow");
        counter_drop(s->host.counters, DROP_client_closing);
        return false;
    }
    counter_drop(s->host.counters, DROP_slow_reader_newest);
    return false;
}

void client_send(struct upstream_client *up, struct upstream_message *m)
{
    struct client *c = client_of(up);
    struct shard *s = client_shard(c);
    if (__builtin_expect(c->state == CLIENT_CLOSING || c->broken, 0)) {
        counter_drop(s->host.counters, DROP_client_closing);
        return;
    }
    if (__builtin_expect(c->out_bytes >= shard_config(s)->send_to_client_buffer_size, 0) && !make_room(c))
        return;
    bool owned = false;
    struct buf *b = __builtin_expect(c->has_deflate, 0) ? client_message_form(c, m, &owned)
                                                        : out_message_form(m, c->listener);
    if (b != NULL && b->len == 0)
        return; /* an empty message of a protocol without frames: no bytes, so no write that could carry it */
    if (b == NULL || !queue_append(c, owned ? b : buf_ref(b))) {
        if (owned)
            c->edge->deflater_fresh = true; /* the peer will not have seen it */
        counter_drop(s->host.counters, DROP_no_memory);
        return;
    }
    shard_count(s, COUNTER_client_messages_out, 1);
    shard_count(s, COUNTER_client_message_bytes_out, b->len);
    if (__builtin_expect(s->census != NULL, 0))
        census_out(s, c, b->len);
    if (__builtin_expect(s->traces != NULL && c->up.traced, 0))
        trace_message(c, "out", NULL, m->payload.data, m->payload.len);
    client_mark_dirty(c);
}

void client_queue_control(struct client *c, struct buf *b)
{
    if (c->broken) {
        buf_unref(b);
        return;
    }
    if (b == NULL || !queue_append(c, b)) {
        client_broke(c);
        return;
    }
    if (c->out_bytes > shard_config(client_shard(c))->send_to_client_buffer_size + CONTROL_RESERVE &&
        c->write_blocked && c->state == CLIENT_OPEN)
        client_close(c, CLOSE_slow_reader, WS_CLOSE_POLICY, "too slow");
    client_mark_dirty(c);
}
