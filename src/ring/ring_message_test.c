// SPDX-License-Identifier: MIT
#include "ring/ring_util_test.h"

#include <errno.h>

#include "ring/ring_message.h"

#define MESSAGE_MAX 100000

static uint8_t bytes[MESSAGE_MAX + 1];

/* Send it through, reading whenever the ring is full, and find it whole at the other end. */
static void send_through(struct test_ring *t, struct ring_receiver *rv, enum ring_class class, uint32_t type,
                         size_t len)
{
    struct ring_sending s = {.data = bytes, .len = len, .type = type, .class = class};
    struct ring_record got = {0};
    int r, received = 0;
    fill(bytes, type, len);
    while ((r = ring_send(&t->w, &s)) == -EAGAIN) {
        ring_publish(&t->w);
        assert_true(ring_want_room(&t->w, class, ring_send_room(&t->w, &s)));
        assert_int_equal(ring_receive(rv, &got), 0);
        assert_true(ring_release(&t->r));
    }
    assert_int_equal(r, 0);
    ring_publish(&t->w);
    received = ring_receive(rv, &got);
    assert_int_equal(received, 1);
    assert_int_equal(got.len, len);
    assert_int_equal(got.type, type);
    assert_int_equal(got.class, class);
    assert_true(is_filled(got.data, type, len));
    ring_release(&t->r);
}

static void messages_of_every_size_come_whole(void **state)
{
    for (size_t i = 0; i < N_STARTS; i++) {
        struct test_ring t;
        struct ring_receiver rv;
        test_ring_open(&t, 512, 128, starts[i]);
        ring_receiver_init(&rv, &t.r, MESSAGE_MAX);
        for (size_t len = 0; len < 1500; len++)
            send_through(&t, &rv, len % 3 ? RING_BULK : RING_LIFECYCLE, (uint32_t)len, len);
        send_through(&t, &rv, RING_BULK, 7, MESSAGE_MAX);
        assert_int_equal(rv.cut + rv.orphans, 0);
        ring_receiver_fini(&rv);
        test_ring_close(&t);
    }
}

/* Publish as much of it as there is room for. */
static int send_some(struct test_ring *t, struct ring_sending *s)
{
    int r = ring_send(&t->w, s);
    ring_publish(&t->w);
    return r;
}

static void lifecycle_records_go_between_fragments_and_bulk_does_not(void **state)
{
    struct test_ring t;
    struct ring_receiver rv;
    struct ring_record got;
    test_ring_open(&t, 4096, 1024, 0);
    ring_receiver_init(&rv, &t.r, MESSAGE_MAX);
    fill(bytes, 1, 20000);
    struct ring_sending s = {.data = bytes, .len = 20000, .type = 1};
    assert_int_equal(send_some(&t, &s), -EAGAIN);
    assert_int_equal(put(&t.w, RING_BULK, 2, 8), -EBUSY);
    struct ring_sending other = {.data = bytes, .len = 10};
    assert_int_equal(ring_send(&t.w, &other), -EBUSY);
    assert_int_equal(put(&t.w, RING_LIFECYCLE, 3, 600), 0);
    ring_publish(&t.w);
    assert_int_equal(ring_receive(&rv, &got), 1);
    assert_int_equal(got.type, 3);
    for (int r = -EAGAIN; r == -EAGAIN;) {
        assert_int_equal(ring_receive(&rv, &got), 0);
        ring_release(&t.r);
        r = send_some(&t, &s);
    }
    assert_int_equal(put(&t.w, RING_BULK, 2, 8), 0);
    assert_int_equal(ring_receive(&rv, &got), 1);
    assert_int_equal(got.len, 20000);
    assert_true(is_filled(got.data, 1, 20000));
    ring_receiver_fini(&rv);
    test_ring_close(&t);
}

static void a_message_that_was_given_up_is_dropped_and_counted(void **state)
{
    struct test_ring t;
    struct ring_receiver rv;
    struct ring_record got;
    test_ring_open(&t, 4096, 0, 0);
    ring_receiver_init(&rv, &t.r, MESSAGE_MAX);
    for (int i = 0; i < 2; i++) {
        struct ring_sending s = {.data = bytes, .len = 20000, .type = 1};
        assert_int_equal(send_some(&t, &s), -EAGAIN);
        ring_send_give_up(&t.w, &s);
        assert_int_equal(ring_receive(&rv, &got), 0);
        ring_release(&t.r);
    }
    assert_int_equal(rv.cut, 1);
    send_through(&t, &rv, RING_BULK, 5, 50);
    assert_int_equal(rv.cut, 2);
    ring_receiver_fini(&rv);
    test_ring_close(&t);
}

static void a_new_consumer_drops_the_rest_of_a_message(void **state)
{
    struct test_ring t;
    struct ring_receiver rv, successor;
    struct ring_record got;
    test_ring_open(&t, 4096, 0, 0);
    ring_receiver_init(&rv, &t.r, MESSAGE_MAX);
    struct ring_sending s = {.data = bytes, .len = 5000, .type = 1};
    assert_int_equal(send_some(&t, &s), -EAGAIN);
    assert_int_equal(ring_receive(&rv, &got), 0);
    ring_release(&t.r);
    ring_receiver_fini(&rv);
    ring_receiver_init(&successor, &t.r, MESSAGE_MAX);
    assert_int_equal(send_some(&t, &s), 0);
    assert_int_equal(ring_receive(&successor, &got), 0);
    assert_true(successor.orphans > 1);
    assert_int_equal(successor.headless, 1);
    ring_release(&t.r);
    send_through(&t, &successor, RING_BULK, 5, 5000);
    ring_receiver_fini(&successor);
    test_ring_close(&t);
}

static void a_message_is_safe_only_when_one_consumer_has_taken_all_of_it(void **state)
{
    struct test_ring t;
    struct ring_receiver rv, successor;
    struct ring_record got;
    test_ring_open(&t, 4096, 0, UINT64_C(0) - 4096);
    ring_receiver_init(&rv, &t.r, MESSAGE_MAX);
    struct ring_sending s = {.data = bytes, .len = 5000, .type = 1};
    assert_int_equal(send_some(&t, &s), -EAGAIN);
    assert_true(ring_send_is_untouched(&t.w, &s));
    assert_int_equal(ring_receive(&rv, &got), 0);
    assert_true(ring_send_is_untouched(&t.w, &s));
    ring_release(&t.r);
    assert_false(ring_send_is_untouched(&t.w, &s));
    ring_receiver_fini(&rv);
    ring_receiver_init(&successor, &t.r, MESSAGE_MAX);
    assert_int_equal(send_some(&t, &s), 0);
    assert_int_equal(ring_send_state(&t.w, &s), -EAGAIN);
    assert_true(ring_want_empty(&t.w));
    assert_int_equal(ring_receive(&successor, &got), 0);
    assert_true(ring_release(&t.r));
    assert_int_equal(ring_send_state(&t.w, &s), -ESTALE);
    s = (struct ring_sending){.data = bytes, .len = 3000, .type = 1};
    assert_int_equal(send_some(&t, &s), 0);
    assert_int_equal(ring_receive(&successor, &got), 1);
    assert_true(got.continues && got.len == 3000);
    ring_taken(&successor, &got);
    assert_int_equal(ring_send_state(&t.w, &s), -EAGAIN);
    ring_release(&t.r);
    assert_int_equal(ring_send_state(&t.w, &s), 0);
    assert_false(ring_want_empty(&t.w));
    ring_receiver_fini(&successor);
    test_ring_close(&t);
}

static void a_message_above_the_bound_is_refused(void **state)
{
    struct test_ring t;
    struct ring_receiver rv;
    struct ring_record got;
    test_ring_open(&t, 4096, 0, 0);
    ring_receiver_init(&rv, &t.r, 4999);
    struct ring_sending s = {.data = bytes, .len = 5000, .type = 1};
    assert_int_equal(send_some(&t, &s), -EAGAIN);
    assert_int_equal(ring_receive(&rv, &got), -EPROTO);
    assert_int_equal(ring_receive(&rv, &got), -EPROTO);
    assert_int_equal(ring_read(&t.r, &got), -EPROTO);
    ring_receiver_fini(&rv);
    test_ring_close(&t);
}

struct fragment {
    uint32_t flags, type;
    uint64_t total; /* of a first one */
    uint32_t len;   /* of a later one, and of the bytes behind the head of a first one */
};

static int receive_fragments(const struct fragment *f, size_t n)
{
    struct test_ring t;
    struct ring_receiver rv;
    struct ring_record got;
    test_ring_open(&t, 4096, 0, 0);
    ring_receiver_init(&rv, &t.r, MESSAGE_MAX);
    for (size_t i = 0; i < n; i++) {
        uint8_t *p;
        uint32_t head = (f[i].flags & RECORD_CONTINUES) != 0 || f[i].total == 0 ? 0 : 8;
        assert_int_equal(put(&t.w, RING_BULK, f[i].type, f[i].len + head), 0);
        p = t.w.data + t.w.next - (8 + ((f[i].len + head + 7) & ~7u));
        atomic_store((_Atomic uint32_t *)(void *)p, f[i].flags | (f[i].len + head));
        memcpy(p + 8, &f[i].total, head);
    }
    ring_publish(&t.w);
    int r = ring_receive(&rv, &got);
    ring_receiver_fini(&rv);
    test_ring_close(&t);
    return r;
}

static void fragments_that_contradict_each_other_are_refused(void **state)
{
#define M RECORD_MORE
#define C RECORD_CONTINUES
    const struct fragment good[] = {{M, 1, 30, 10}, {M | C, 1, 0, 10}, {C, 1, 0, 10}};
    const struct fragment longer[] = {{M, 1, 30, 10}, {C, 1, 0, 21}};
    const struct fragment shorter[] = {{M, 1, 30, 10}, {C, 1, 0, 19}};
    const struct fragment endless[] = {{M, 1, 30, 10}, {M | C, 1, 0, 20}};
    const struct fragment first_has_all[] = {{M, 1, 10, 10}};
    const struct fragment first_has_more[] = {{M, 1, 10, 11}};
    const struct fragment other_type[] = {{M, 1, 30, 10}, {C, 2, 0, 20}};
    const struct fragment no_head[] = {{M, 1, 0, 7}};
    assert_int_equal(receive_fragments(good, 3), 1);
    assert_int_equal(receive_fragments(longer, 2), -EPROTO);
    assert_int_equal(receive_fragments(shorter, 2), -EPROTO);
    assert_int_equal(receive_fragments(endless, 2), -EPROTO);
    assert_int_equal(receive_fragments(first_has_all, 1), -EPROTO);
    assert_int_equal(receive_fragments(first_has_more, 1), -EPROTO);
    assert_int_equal(receive_fragments(other_type, 2), -EPROTO);
    assert_int_equal(receive_fragments(no_head, 1), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_every_size_come_whole),
        cmocka_unit_test(lifecycle_records_go_between_fragments_and_bulk_does_not),
        cmocka_unit_test(a_message_that_was_given_up_is_dropped_and_counted),
        cmocka_unit_test(a_new_consumer_drops_the_rest_of_a_message),
        cmocka_unit_test(a_message_is_safe_only_when_one_consumer_has_taken_all_of_it),
        cmocka_unit_test(a_message_above_the_bound_is_refused),
        cmocka_unit_test(fragments_that_contradict_each_other_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
