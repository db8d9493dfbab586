// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/link_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base/buf.h"
#include "estate/estate.h"
#include "proto/gw/packet.h"

#define HEAP_BYTES ((size_t)64 << 20)

static struct estate *estate;

static int open_estate(void **state)
{
    int err;
    estate = estate_open(NULL, 0, 1, HEAP_BYTES, &err);
    return estate != NULL ? 0 : -1;
}

/* Asserts that every chunk came back. */
static int close_estate(void **state)
{
    struct buf_stats stats;
    buf_stats_get(&stats);
    estate_close(estate);
    return stats.used_count == 0 ? 0 : -1;
}

/* A packet of len bytes whose connection_id is id. */
static void put(struct link_queue *q, uint32_t id, size_t len)
{
    uint8_t *at = link_queue_reserve(q, LINK_CHUNK_EVENTS, len);
    assert_non_null(at);
    memset(at, (int)id, len);
    gw_put_u32(at, (uint32_t)len);
    gw_put_u32(at + 17, id);
    link_queue_commit(q);
}

static void put_reply(struct link_queue *q, size_t len)
{
    uint8_t *at = link_queue_reserve(q, LINK_CHUNK_REPLY, len);
    assert_non_null(at);
    memset(at, 0xff, len);
    link_queue_commit(q);
}

static uint32_t take(struct link_queue *q)
{
    struct slice p;
    return link_queue_take_packet(q, &p) ? gw_get_u32(p.data + 17) : 0;
}

static void test_empty(void **state)
{
    struct link_queue q;
    link_queue_init(&q, estate);
    struct iovec iov[4];
    assert_int_equal(link_queue_iov(&q, iov, 4), 0);
    assert_int_equal(take(&q), 0);
    link_queue_fini(&q);
}

static void test_bytes_come_out_in_order(void **state)
{
    struct link_queue q;
    link_queue_init(&q, estate);
    size_t total = 0;
    for (uint32_t id = 1; id <= 5000; id++) {
        put(&q, id, 28 + id % 100);
        total += 28 + id % 100;
    }
    assert_int_equal(q.bytes, total);
    /* Collect in writes of odd sizes, then read the packets from the bytes. */
    uint8_t *all = malloc(total);
    size_t got = 0;
    while (q.bytes > 0) {
        struct iovec iov[3];
        int n = link_queue_iov(&q, iov, 3);
        size_t room = 777, wrote = 0;
        for (int i = 0; i < n && room > 0; i++) {
            size_t len = iov[i].iov_len < room ? iov[i].iov_len : room;
            memcpy(all + got, iov[i].iov_base, len);
            got += len;
            room -= len;
            wrote += len;
        }
        link_queue_written(&q, wrote);
    }
    assert_int_equal(got, total);
    size_t at = 0;
    for (uint32_t id = 1; id <= 5000; id++) {
        assert_int_equal(gw_get_u32(all + at + 17), id);
        at += gw_get_u32(all + at);
    }
    free(all);
    link_queue_fini(&q);
}

/* Whatever was written: the packets that come out begin with the one whose last byte was not. */
static void test_unwritten_packets_after_every_written_length(void **state)
{
    enum { N = 12, LEN = 40 };
    for (size_t written = 0; written <= N * LEN; written++) {
        struct link_queue q;
        link_queue_init(&q, estate);
        for (uint32_t id = 1; id <= N; id++)
            put(&q, id, LEN);
        link_queue_written(&q, written);
        uint32_t expected = (uint32_t)(written / LEN) + 1;
        for (; expected <= N; expected++)
            assert_int_equal(take(&q), expected);
        assert_int_equal(take(&q), 0);
        assert_int_equal(q.bytes, 0);
        link_queue_fini(&q);
    }
}

static void test_replies_are_not_taken(void **state)
{
    struct link_queue q;
    link_queue_init(&q, estate);
    put_reply(&q, 100);
    put(&q, 1, 50);
    put_reply(&q, 7);
    put(&q, 2, 100000); /* a chunk of its own */
    put(&q, 3, 50);
    link_queue_written(&q, 30); /* in the middle of the reply */
    assert_int_equal(take(&q), 1);
    assert_int_equal(take(&q), 2);
    assert_int_equal(take(&q), 3);
    assert_int_equal(take(&q), 0);
    link_queue_fini(&q);
}

/* Nothing of it is written, taken or counted; the next reservation gets the place. */
static void test_what_is_not_committed_is_not_there(void **state)
{
    struct link_queue q;
    struct iovec iov[4];
    link_queue_init(&q, estate);
    assert_non_null(link_queue_reserve(&q, LINK_CHUNK_EVENTS, 100));
    assert_int_equal(q.bytes, 0);
    assert_int_equal(link_queue_iov(&q, iov, 4), 0);
    assert_int_equal(take(&q), 0);
    put(&q, 1, 50);
    uint8_t *at = link_queue_reserve(&q, LINK_CHUNK_EVENTS, 60);
    assert_ptr_equal(link_queue_reserve(&q, LINK_CHUNK_EVENTS, 70), at);
    assert_non_null(link_queue_reserve(&q, LINK_CHUNK_EVENTS, 5000)); /* another chunk */
    assert_non_null(link_queue_reserve(&q, LINK_CHUNK_REPLY, 10));
    assert_int_equal(q.bytes, 50);
    assert_int_equal(link_queue_iov(&q, iov, 4), 1);
    assert_int_equal(iov[0].iov_len, 50);
    put(&q, 2, 50);
    link_queue_written(&q, 60);
    assert_int_equal(q.bytes, 40);
    assert_int_equal(take(&q), 2);
    assert_int_equal(take(&q), 0);
    link_queue_fini(&q);
}

static void test_events_without_room_are_refused_replies_are_not(void **state)
{
    struct link_queue q;
    link_queue_init(&q, estate);
    assert_null(link_queue_reserve(&q, LINK_CHUNK_EVENTS, HEAP_BYTES + 1));
    put_reply(&q, 100);
    put(&q, 1, 50);
    assert_null(link_queue_reserve(&q, LINK_CHUNK_EVENTS, HEAP_BYTES));
    assert_int_equal(take(&q), 1);
    link_queue_fini(&q);
}

/* As many as are written at once: no chunk comes or goes. */
static void test_a_small_chunk_is_used_again(void **state)
{
    struct link_queue q;
    struct iovec iov[2];
    link_queue_init(&q, estate);
    put(&q, 1, 100);
    link_queue_iov(&q, iov, 2);
    const void *first = iov[0].iov_base;
    for (uint32_t id = 2; id < 100; id++) {
        link_queue_written(&q, 100);
        put(&q, id, 100);
        assert_int_equal(link_queue_iov(&q, iov, 2), 1);
        assert_ptr_equal(iov[0].iov_base, first);
        assert_int_equal(gw_get_u32((uint8_t *)iov[0].iov_base + 17), id);
        assert_int_equal(estate_chunks(estate), 1);
    }
    link_queue_fini(&q);
    assert_int_equal(estate_chunks(estate), 0);
}

/* What a successor of this process would find, if it were killed now. */
struct heir {
    void *mem;
    size_t bytes;
    struct estate *before;
};

static void heir_begin(struct heir *h)
{
    int err;
    h->bytes = estate_bytes(1, HEAP_BYTES);
    h->mem = mmap(NULL, h->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(h->mem, MAP_FAILED);
    h->before = estate;
    estate = estate_open(h->mem, h->bytes, 1, HEAP_BYTES, &err);
    assert_non_null(estate);
}

static void heir_finds(struct heir *h, const uint32_t *ids, size_t n)
{
    int err;
    struct slice p;
    struct estate *next;
    estate_abandon(estate);
    assert_non_null(next = estate_open(h->mem, h->bytes, 1, HEAP_BYTES, &err));
    struct legacy *l = estate_inherit(h->mem, h->bytes);
    assert_non_null(l);
    for (size_t i = 0; i < n; i++) {
        assert_true(legacy_packet(l, &p));
        assert_int_equal(gw_get_u32(p.data + 17), ids[i]);
    }
    assert_false(legacy_packet(l, &p));
    legacy_free(l);
    estate_close(next);
    munmap(h->mem, h->bytes);
    estate = h->before;
}

/* Of a queue whose estate is gone. */
static void forget(struct link_queue *q)
{
    for (uint32_t i = 0; i < q->count; i++)
        buf_unref(q->ring[(q->first + i) & (q->cap - 1)].reply);
    free(q->ring);
}

static void test_a_successor_finds_what_was_not_written(void **state)
{
    struct heir h;
    struct link_queue q;
    heir_begin(&h);
    link_queue_init(&q, estate);
    put_reply(&q, 30);
    for (uint32_t id = 1; id <= 100; id++)
        put(&q, id, 100); /* 40 to the first chunk */
    put_reply(&q, 30);
    put(&q, 101, 100);
    link_queue_reserve(&q, LINK_CHUNK_EVENTS, 50);
    link_queue_written(&q, 30 + 9710); /* 98 is begun */
    const uint32_t ids[] = {98, 99, 100, 101};
    heir_finds(&h, ids, 4);
    forget(&q);
}

/* A packet that was taken is found until the next call, when it is committed elsewhere. */
static void test_a_successor_finds_taken_packets_in_one_place_at_least(void **state)
{
    struct heir h;
    struct link_queue from, to;
    heir_begin(&h);
    link_queue_init(&from, estate);
    link_queue_init(&to, estate);
    for (uint32_t id = 1; id <= 5; id++)
        put(&from, id, 100);
    for (uint32_t id = 1; id <= 3; id++) {
        assert_int_equal(take(&from), id);
        put(&to, id, 100);
    }
    assert_int_equal(take(&from), 4);
    const uint32_t ids[] = {4, 5, 1, 2, 3}; /* in the order of their chunks */
    heir_finds(&h, ids, 5);
    forget(&from);
    forget(&to);
}

static void test_ring_grows_around_its_end(void **state)
{
    struct link_queue q;
    link_queue_init(&q, estate);
    uint32_t in = 0, out = 0;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 3; i++)
            put(&q, ++in, 70000);
        for (int i = 0; i < 2; i++) {
            struct iovec iov[1];
            link_queue_iov(&q, iov, 1);
            assert_int_equal(gw_get_u32((uint8_t *)iov[0].iov_base + 17), ++out);
            link_queue_written(&q, 70000);
        }
    }
    assert_int_equal(q.bytes, (uint64_t)(in - out) * 70000);
    link_queue_fini(&q);
}

/* ---- handed over */

static size_t all_bytes(const struct link_queue *q, uint8_t *to)
{
    struct iovec iov[64];
    size_t len = 0;
    int n = link_queue_iov(q, iov, 64);
    assert_true(n < 64);
    for (int i = 0; i < n; len += iov[i++].iov_len)
        memcpy(to + len, iov[i].iov_base, iov[i].iov_len);
    return len;
}

static void restore_all(struct link_queue *to, const struct link_queue *from)
{
    struct link_queue_part part;
    for (uint32_t i = 0; link_queue_part(from, i, &part); i++)
        if (part.bytes.len > 0)
            assert_true(link_queue_restore(to, &part));
}

static void mixed(struct link_queue *q)
{
    put(q, 1, 40);
    put(q, 2, 50);
    put_reply(q, 30);
    put_reply(q, 31);
    put(q, 3, 5000); /* in a chunk of its own */
    put(q, 4, 40);
}

/* After every written length: what is left to be written is the same, and so are the packets that a successor
 * finds. */
static void test_a_restored_queue_is_the_same(void **state)
{
    enum { LEN = 40 + 50 + 30 + 31 + 5000 + 40 };
    static uint8_t before[LEN], after[LEN];
    for (size_t written = 0; written<LEN; written += written> 200 && written < LEN - 60 ? 97 : 1) {
        struct link_queue q, r;
        link_queue_init(&q, estate);
        link_queue_init(&r, estate);
        mixed(&q);
        link_queue_written(&q, written);
        restore_all(&r, &q);
        assert_int_equal(r.bytes, q.bytes);
        assert_int_equal(link_queue_sum(&r), q.bytes);
        assert_null(link_queue_check(&r));
        assert_int_equal(all_bytes(&q, before), q.bytes);
        assert_int_equal(all_bytes(&r, after), q.bytes);
        assert_memory_equal(before, after, q.bytes);
        for (uint32_t id = take(&q); id != 0; id = take(&q))
            assert_int_equal(take(&r), id);
        assert_int_equal(take(&r), 0);
        link_queue_fini(&q);
        link_queue_fini(&r);
    }
}

static void test_a_look_at_the_packets_leaves_them(void **state)
{
    struct link_queue q;
    struct slice packet;
    link_queue_init(&q, estate);
    mixed(&q);
    for (uint32_t taken = 0; taken <= 4; taken++) {
        struct link_queue_cursor c = {0};
        for (uint32_t id = taken + 1; id <= 4; id++) {
            assert_true(link_queue_next(&q, &c, &packet));
            assert_int_equal(gw_get_u32(packet.data + 17), id);
        }
        assert_false(link_queue_next(&q, &c, &packet));
        assert_int_equal(take(&q), taken < 4 ? taken + 1 : 0);
    }
    link_queue_fini(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_bytes_come_out_in_order),
        cmocka_unit_test(test_unwritten_packets_after_every_written_length),
        cmocka_unit_test(test_replies_are_not_taken),
        cmocka_unit_test(test_what_is_not_committed_is_not_there),
        cmocka_unit_test(test_events_without_room_are_refused_replies_are_not),
        cmocka_unit_test(test_a_small_chunk_is_used_again),
        cmocka_unit_test(test_a_successor_finds_what_was_not_written),
        cmocka_unit_test(test_a_successor_finds_taken_packets_in_one_place_at_least),
        cmocka_unit_test(test_ring_grows_around_its_end),
        cmocka_unit_test(test_a_restored_queue_is_the_same),
        cmocka_unit_test(test_a_look_at_the_packets_leaves_them),
    };
    return cmocka_run_group_tests(tests, open_estate, close_estate);
}
