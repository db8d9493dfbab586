// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/link_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/gw/packet.h"

/* A packet of len bytes whose connection_id is id. */
static void put(struct link_queue *q, uint32_t id, size_t len)
{
    uint8_t *at = link_queue_reserve(q, LINK_CHUNK_EVENTS, len);
    assert_non_null(at);
    memset(at, (int)id, len);
    gw_put_u32(at, (uint32_t)len);
    gw_put_u32(at + 17, id);
}

static void put_reply(struct link_queue *q, size_t len)
{
    uint8_t *at = link_queue_reserve(q, LINK_CHUNK_REPLY, len);
    assert_non_null(at);
    memset(at, 0xff, len);
}

static uint32_t take(struct link_queue *q)
{
    struct slice p;
    return link_queue_take_packet(q, &p) ? gw_get_u32(p.data + 17) : 0;
}

static void test_empty(void **state)
{
    struct link_queue q = {0};
    struct iovec iov[4];
    assert_int_equal(link_queue_iov(&q, iov, 4), 0);
    assert_int_equal(take(&q), 0);
    link_queue_fini(&q);
}

static void test_bytes_come_out_in_order(void **state)
{
    struct link_queue q = {0};
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
        struct link_queue q = {0};
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
    struct link_queue q = {0};
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

static void test_ring_grows_around_its_end(void **state)
{
    struct link_queue q = {0};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_bytes_come_out_in_order),
        cmocka_unit_test(test_unwritten_packets_after_every_written_length),
        cmocka_unit_test(test_replies_are_not_taken),
        cmocka_unit_test(test_ring_grows_around_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
