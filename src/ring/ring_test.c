// SPDX-License-Identifier: MIT
#include "ring/ring_util_test.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void making_one_refuses_what_cannot_be(void **state)
{
    static const struct ring_params bad[] = {
        {.size = 0},
        {.size = 256},
        {.size = 1000},
        {.size = 4096 + 8},
        {.size = 4096, .reserve = 4},
        {.size = 4096, .reserve = 2056},
        {.size = 4096, .start = 4},
        {.size = RING_SIZE_MAX * 2},
    };
    uint8_t *mem = aligned_alloc(64, 8192);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(ring_format(mem, 8192, &bad[i]), -EINVAL);
    struct ring_params good = {.size = 4096};
    assert_int_equal(ring_format(mem, ring_bytes(4096) - 1, &good), -EINVAL);
    assert_int_equal(ring_format(mem + 8, 8192 - 8, &good), -EINVAL);
    assert_int_equal(ring_format(mem, 8192, &good), 0);
    free(mem);
}

static void attaching_refuses_what_is_no_ring(void **state)
{
    struct ring_writer w;
    struct ring_reader r;
    struct ring_report report;
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    assert_int_equal(ring_writer_attach(&w, t.mem, t.bytes - 1, NULL, 0), -EPROTO);
    t.shm->size = 8192;
    assert_int_equal(ring_reader_attach(&r, t.mem, t.bytes, true), -EPROTO);
    t.shm->size = 4096;
    t.shm->version++;
    assert_int_equal(ring_reader_attach(&r, t.mem, t.bytes, true), -EPROTO);
    t.shm->version--;
    atomic_store(&t.shm->tail, 4104);
    assert_int_equal(ring_reader_attach(&r, t.mem, t.bytes, true), -EPROTO);
    memset(t.mem, 0, sizeof *t.shm);
    assert_int_equal(ring_writer_attach(&w, t.mem, t.bytes, NULL, 0), -EAGAIN);
    assert_int_equal(ring_reader_attach(&r, t.mem, t.bytes, true), -EAGAIN);
    assert_int_equal(ring_valid(t.mem, t.bytes, &report), -EAGAIN);
    assert_int_equal(ring_repair(t.mem, t.bytes, RING_DEAD_PRODUCER, NULL, 0, &report), -EAGAIN);
    test_ring_close(&t);
}

/* Every length, and with it every position, in a ring that is never empty: 3 records behind. */
static void every_length_goes_through_at_every_start(void **state)
{
    for (size_t i = 0; i < N_STARTS; i++) {
        struct test_ring t;
        test_ring_open(&t, 4096, 512, starts[i]);
        uint32_t n = ring_record_max(&t.w) / 4;
        for (uint32_t len = 0; len < n + 3; len++) {
            if (len < n)
                assert_int_equal(put(&t.w, len % 2 ? RING_LIFECYCLE : RING_BULK, len, len), 0);
            assert_false(ring_publish(&t.w) && len > 0);
            if (len >= 3) {
                expect(&t.r, (len - 3) % 2 ? RING_LIFECYCLE : RING_BULK, len - 3, len - 3);
                assert_false(ring_release(&t.r));
            }
        }
        expect_empty(&t.r);
        test_ring_close(&t);
    }
}

static void the_longest_record_fits_into_an_empty_ring_at_any_position(void **state)
{
    for (uint64_t reserve = 0; reserve <= 256; reserve += 8) {
        for (uint64_t at = 0; at < 512; at += 8) {
            struct test_ring t;
            test_ring_open(&t, 512, reserve, UINT64_C(0) - 512 + at);
            uint32_t max = ring_record_max(&t.w);
            assert_int_equal(put(&t.w, RING_BULK, 1, max + 1), -EMSGSIZE);
            assert_int_equal(put(&t.w, RING_BULK, 1, max), 0);
            ring_publish(&t.w);
            expect(&t.r, RING_BULK, 1, max);
            test_ring_close(&t);
        }
    }
}

static void nothing_is_seen_before_it_is_published(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(put(&t.w, RING_BULK, i, 10 * i), 0);
    expect_empty(&t.r);
    ring_publish(&t.w);
    for (uint32_t i = 0; i < 5; i++)
        expect(&t.r, RING_BULK, i, 10 * i);
    expect_empty(&t.r);
    test_ring_close(&t);
}

static void what_is_cancelled_is_never_seen(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    assert_int_equal(put(&t.w, RING_BULK, 1, 100), 0);
    ring_show(&t.w);
    assert_int_equal(put(&t.w, RING_BULK, 2, 200), 0);
    ring_cancel(&t.w);
    assert_int_equal(put(&t.w, RING_BULK, 3, 30), 0);
    ring_publish(&t.w);
    expect(&t.r, RING_BULK, 1, 100);
    expect(&t.r, RING_BULK, 3, 30);
    expect_empty(&t.r);
    test_ring_close(&t);
}

static unsigned fill_up(struct ring_writer *w, enum ring_class class, uint32_t len)
{
    unsigned n = 0;
    while (put(w, class, n, len) == 0)
        n++;
    return n;
}

static void a_full_ring_refuses_and_counts(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    assert_int_equal(fill_up(&t.w, RING_BULK, 56), 64);
    assert_int_equal(put(&t.w, RING_BULK, 0, 0), -EAGAIN);
    assert_int_equal(put(&t.w, RING_LIFECYCLE, 0, 0), -EAGAIN);
    assert_int_equal(atomic_load(&t.shm->full[RING_BULK]), 2);
    assert_int_equal(atomic_load(&t.shm->full[RING_LIFECYCLE]), 1);
    ring_publish(&t.w);
    expect(&t.r, RING_BULK, 0, 56);
    assert_int_equal(put(&t.w, RING_BULK, 9, 56), -EAGAIN); /* read is not released */
    ring_release(&t.r);
    assert_int_equal(put(&t.w, RING_BULK, 64, 56), 0);
    ring_publish(&t.w);
    for (uint32_t i = 1; i <= 64; i++)
        expect(&t.r, RING_BULK, i, 56);
    test_ring_close(&t);
}

static void lifecycle_records_have_a_reserve_that_bulk_cannot_take(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 1024, 0);
    assert_int_equal(fill_up(&t.w, RING_BULK, 56), 48);
    assert_int_equal(fill_up(&t.w, RING_LIFECYCLE, 56), 16);
    assert_int_equal(put(&t.w, RING_BULK, 0, 0), -EAGAIN);
    ring_publish(&t.w);
    for (uint32_t i = 0; i < 16; i++)
        expect(&t.r, RING_BULK, i, 56);
    ring_release(&t.r);
    assert_int_equal(put(&t.w, RING_BULK, 0, 56), -EAGAIN); /* the reserve is filled up first */
    assert_int_equal(put(&t.w, RING_LIFECYCLE, 0, 56), 0);
    test_ring_close(&t);
}

/* ---- waking */

static void a_consumer_that_runs_is_not_woken(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    for (uint32_t i = 0; i < 20; i++) {
        put(&t.w, RING_BULK, i, 8);
        assert_false(ring_publish(&t.w));
        expect(&t.r, RING_BULK, i, 8);
        ring_release(&t.r);
    }
    test_ring_close(&t);
}

static void a_consumer_that_sleeps_is_woken_once(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(ring_prepare_sleep(&t.r));
        assert_false(ring_publish(&t.w)); /* nothing to publish */
        put(&t.w, RING_BULK, i, 8);
        assert_true(ring_publish(&t.w));
        put(&t.w, RING_BULK, i, 9);
        assert_false(ring_publish(&t.w));
        ring_cancel_sleep(&t.r);
        expect(&t.r, RING_BULK, i, 8);
        expect(&t.r, RING_BULK, i, 9);
    }
    test_ring_close(&t);
}

static void a_consumer_with_something_to_read_does_not_sleep(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    put(&t.w, RING_BULK, 1, 8);
    put(&t.w, RING_BULK, 2, 8);
    ring_publish(&t.w);
    assert_false(ring_prepare_sleep(&t.r));
    expect(&t.r, RING_BULK, 1, 8);
    assert_false(ring_prepare_sleep(&t.r));
    expect(&t.r, RING_BULK, 2, 8);
    assert_true(ring_prepare_sleep(&t.r));
    ring_cancel_sleep(&t.r);
    put(&t.w, RING_BULK, 3, 8);
    assert_false(ring_publish(&t.w)); /* it did not sleep after all */
    test_ring_close(&t);
}

static void what_was_shown_is_seen_and_wakes_when_published(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    assert_true(ring_prepare_sleep(&t.r));
    put(&t.w, RING_BULK, 1, 8);
    ring_show(&t.w);
    expect(&t.r, RING_BULK, 1, 8);
    assert_true(ring_publish(&t.w));
    assert_false(ring_publish(&t.w));
    test_ring_close(&t);
}

static void a_bell_says_which_ring_and_wakes_once_for_all(void **state)
{
    struct test_ring a, b;
    struct bell_shm bell = {0};
    test_ring_open(&a, 512, 0, 0);
    test_ring_open(&b, 512, 0, 0);
    assert_int_equal(ring_writer_attach(&a.w, a.mem, a.bytes, &bell, 0), 0);
    assert_int_equal(ring_writer_attach(&b.w, b.mem, b.bytes, &bell, 63), 0);
    assert_true(bell_prepare_sleep(&bell));
    put(&b.w, RING_BULK, 1, 8);
    assert_true(ring_publish(&b.w));
    put(&a.w, RING_BULK, 1, 8);
    assert_false(ring_publish(&a.w));
    bell_cancel_sleep(&bell);
    assert_false(bell_prepare_sleep(&bell));
    assert_true(bell_take(&bell) == (UINT64_C(1) << 63 | 1));
    assert_true(bell_take(&bell) == 0);
    put(&b.w, RING_BULK, 2, 8);
    assert_false(ring_publish(&b.w));
    assert_true(bell_take(&bell) == UINT64_C(1) << 63);
    bell_repair(&bell, 1);
    assert_true(bell_take(&bell) == 1);
    test_ring_close(&a);
    test_ring_close(&b);
}

static void the_eventfd_is_readable_after_a_wake(void **state)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_false(ring_wake_clear(fd));
    assert_int_equal(ring_wake(fd), 0);
    assert_int_equal(ring_wake(fd), 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_true(ring_wake_clear(fd));
    assert_false(ring_wake_clear(fd));
    uint64_t most =
        UINT64_MAX - 1; /* full: that write fails, and an edge-triggered waiter would hear nothing */
    assert_int_equal(write(fd, &most, sizeof most), sizeof most);
    assert_int_equal(ring_wake(fd), 0);
    uint64_t count = 0;
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
    assert_int_equal(count, 1);
    close(fd);
    assert_int_equal(ring_wake(-1), -EBADF);
}

static void a_producer_that_waits_for_room_is_told_once(void **state)
{
    struct test_ring t;
    test_ring_open(&t, 4096, 0, 0);
    assert_false(ring_want_room(&t.w, RING_BULK, 56)); /* there is room */
    fill_up(&t.w, RING_BULK, 56);
    ring_publish(&t.w);
    assert_true(ring_want_room(&t.w, RING_BULK, 56));
    for (uint32_t i = 0; i < 64; i++) {
        expect(&t.r, RING_BULK, i, 56);
        assert_int_equal(ring_release(&t.r), i == 31); /* when half of it is free */
    }
    assert_false(ring_want_room(&t.w, RING_BULK, 56));
    put(&t.w, RING_BULK, 1, 56);
    ring_publish(&t.w);
    expect(&t.r, RING_BULK, 1, 56);
    assert_false(ring_release(&t.r));
    test_ring_close(&t);
}

/* ---- a peer that writes what cannot be */

static struct record_shm *record_at(struct test_ring *t, uint64_t pos)
{
    return (struct record_shm *)((uint8_t *)t->mem + sizeof *t->shm + (pos & (t->shm->size - 1)));
}

static void a_tail_that_cannot_be_is_refused_for_good(void **state)
{
    static const uint64_t bad[] = {24, 4, 8 + 4096, UINT64_C(1) << 40, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct test_ring t;
        struct ring_record got;
        test_ring_open(&t, 4096, 0, 0);
        put(&t.w, RING_BULK, 1, 24);
        ring_publish(&t.w);
        expect(&t.r, RING_BULK, 1, 24);
        atomic_store(&t.shm->tail, bad[i]); /* the first one goes back */
        assert_int_equal(ring_read(&t.r, &got), -EPROTO);
        atomic_store(&t.shm->tail, 32);
        assert_int_equal(ring_read(&t.r, &got), -EPROTO);
        assert_false(ring_prepare_sleep(&t.r));
        test_ring_close(&t);
    }
}

static void a_head_that_cannot_be_is_refused_for_good(void **state)
{
    static const uint64_t bad[] = {4, 4096 + 8, UINT64_C(1) << 40, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct test_ring t;
        test_ring_open(&t, 4096, 0, 0);
        fill_up(&t.w, RING_BULK, 56);
        ring_publish(&t.w);
        atomic_store(&t.shm->head, bad[i]);
        assert_int_equal(put(&t.w, RING_BULK, 1, 8), -EPROTO);
        assert_false(ring_want_room(&t.w, RING_BULK, 8));
        atomic_store(&t.shm->head, 4096);
        assert_int_equal(put(&t.w, RING_BULK, 1, 8), -EPROTO);
        test_ring_close(&t);
    }
}

/* Two records of 32 bytes at 3968 and 4000 of an area of 4096, then one of 96 with padding of 64 before it.
 */
static void open_for_damage(struct test_ring *t)
{
    test_ring_open(t, 4096, 0, 3968);
    put(&t->w, RING_BULK, 1, 24);
    put(&t->w, RING_BULK, 2, 24);
    put(&t->w, RING_LIFECYCLE, 3, 88);
    ring_publish(&t->w);
}

static void damage(struct test_ring *t, uint64_t pos, uint32_t flags_len, uint32_t type)
{
    atomic_store(&record_at(t, pos)->flags_len, flags_len);
    atomic_store(&record_at(t, pos)->type, type);
}

static const struct {
    uint64_t pos;
    uint32_t flags_len, type;
    unsigned good; /* records before it */
} damages[] = {
    {3968, 4096, 1, 0},                /* beyond what is published */
    {3968, RECORD_LEN_MASK, 1, 0},     /* the same, as far as can be */
    {4000, 100, 2, 1},                 /* over the end of the area, within what is published */
    {4032, RECORD_PADDING | 48, 0, 2}, /* padding that ends before the end of the area */
    {4032, RECORD_PADDING | 56, 7, 2}, /* padding with a type */
    {4032, RECORD_PADDING | RECORD_LIFECYCLE | 56, 0, 2}, /* padding with a class */
    {4096, RECORD_PADDING | 4088, 0, 2},                  /* a whole round of padding */
    {4096, RECORD_PADDING | 88, 0, 2},                    /* padding at the beginning of the area */
    {4096, RECORD_LIFECYCLE | 89, 3, 2},                  /* one byte too long */
};

static void a_record_that_cannot_be_is_refused_for_good(void **state)
{
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct test_ring t;
        struct ring_report report;
        struct ring_record got;
        unsigned n = 0;
        open_for_damage(&t);
        assert_int_equal(ring_valid(t.mem, t.bytes, &report), 0);
        damage(&t, damages[i].pos, damages[i].flags_len, damages[i].type);
        assert_int_equal(ring_valid(t.mem, t.bytes, &report), -EPROTO);
        assert_non_null(report.fault);
        int r;
        while ((r = ring_read(&t.r, &got)) == 1)
            n++;
        assert_int_equal(r, -EPROTO);
        assert_int_equal(n, damages[i].good);
        assert_int_equal(ring_read(&t.r, &got), -EPROTO);
        test_ring_close(&t);
    }
}

/* ---- valid and repair */

static void a_good_ring_is_valid_and_counted(void **state)
{
    struct test_ring t;
    struct ring_report report;
    open_for_damage(&t);
    assert_int_equal(ring_valid(t.mem, t.bytes, &report), 0);
    assert_null(report.fault);
    assert_int_equal(report.records[RING_BULK], 2);
    assert_int_equal(report.records[RING_LIFECYCLE], 1);
    assert_int_equal(report.messages, 3);
    assert_int_equal(report.payload_bytes, 24 + 24 + 88);
    assert_int_equal(report.tail - report.head, 32 + 32 + 64 + 96);
    atomic_store(&t.shm->bell.asleep, 7);
    assert_int_equal(ring_valid(t.mem, t.bytes, &report), -EPROTO);
    test_ring_close(&t);
}

static void repair_for_a_producer_keeps_what_stands_before_the_damage(void **state)
{
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct test_ring t;
        struct ring_report report;
        open_for_damage(&t);
        damage(&t, damages[i].pos, damages[i].flags_len, damages[i].type);
        assert_int_equal(ring_repair(t.mem, t.bytes, RING_DEAD_PRODUCER, NULL, 0, &report), 0);
        assert_non_null(report.fault);
        assert_int_equal(report.records[0] + report.records[1], damages[i].good);
        assert_int_equal(report.cut_bytes, 4096 + 96 - damages[i].pos);
        assert_int_equal(ring_valid(t.mem, t.bytes, &report), 0);
        test_ring_attach(&t);
        assert_int_equal(put(&t.w, RING_BULK, 9, 300), 0);
        ring_publish(&t.w);
        for (uint32_t n = 1; n <= damages[i].good; n++)
            expect(&t.r, RING_BULK, n, 24);
        expect(&t.r, RING_BULK, 9, 300);
        test_ring_close(&t);
    }
}

static void repair_for_a_consumer_skips_what_cannot_be_read(void **state)
{
    struct test_ring t;
    struct ring_report report;
    open_for_damage(&t);
    damage(&t, 4000, 100, 2);
    assert_int_equal(ring_repair(t.mem, t.bytes, RING_DEAD_CONSUMER, NULL, 0, &report), 0);
    assert_int_equal(report.cut_bytes, 32 + 32 + 64 + 96);
    assert_int_equal(ring_valid(t.mem, t.bytes, &report), 0);
    assert_int_equal(ring_reader_attach(&t.r, t.mem, t.bytes, true), 0);
    assert_int_equal(put(&t.w, RING_BULK, 9, 300), 0); /* the producer goes on as it was */
    ring_publish(&t.w);
    expect(&t.r, RING_BULK, 9, 300);
    test_ring_close(&t);
}

static void a_new_consumer_reads_again_what_was_not_released(void **state)
{
    struct test_ring t;
    struct ring_report report;
    open_for_damage(&t);
    expect(&t.r, RING_BULK, 1, 24);
    ring_release(&t.r);
    expect(&t.r, RING_BULK, 2, 24);
    assert_int_equal(ring_repair(t.mem, t.bytes, RING_DEAD_CONSUMER, NULL, 0, &report), 0);
    assert_null(report.fault);
    assert_int_equal(report.cut_bytes, 0);
    assert_int_equal(ring_reader_attach(&t.r, t.mem, t.bytes, true), 0);
    expect(&t.r, RING_BULK, 2, 24);
    expect(&t.r, RING_LIFECYCLE, 3, 88);
    expect_empty(&t.r);
    test_ring_close(&t);
}

static void positions_that_cannot_be_leave_an_empty_ring(void **state)
{
    static const uint64_t tails[] = {3, UINT64_C(1) << 40, 0};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        struct test_ring t;
        struct ring_report report;
        open_for_damage(&t);
        atomic_store(&t.shm->tail, tails[i]);
        assert_int_equal(ring_repair(t.mem, t.bytes, RING_DEAD_PRODUCER, NULL, 0, &report), 0);
        assert_non_null(report.fault);
        assert_int_equal(report.head, report.tail);
        test_ring_attach(&t);
        put(&t.w, RING_BULK, 1, 10);
        ring_publish(&t.w);
        expect(&t.r, RING_BULK, 1, 10);
        test_ring_close(&t);
    }
}

static void repair_does_not_hide_that_the_living_side_writes_nonsense(void **state)
{
    struct test_ring t;
    struct ring_report report;
    open_for_damage(&t);
    atomic_store(&t.shm->head, 5);
    assert_int_equal(ring_repair(t.mem, t.bytes, RING_DEAD_PRODUCER, NULL, 0, &report), -EPROTO);
    assert_int_equal(ring_repair(t.mem, t.bytes, RING_DEAD_PRODUCER | RING_DEAD_CONSUMER, NULL, 0, &report),
                     0);
    assert_int_equal(ring_valid(t.mem, t.bytes, &report), 0);
    t.shm->magic++;
    assert_int_equal(ring_repair(t.mem, t.bytes, RING_DEAD_PRODUCER | RING_DEAD_CONSUMER, NULL, 0, &report),
                     -EPROTO);
    test_ring_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(making_one_refuses_what_cannot_be),
        cmocka_unit_test(attaching_refuses_what_is_no_ring),
        cmocka_unit_test(every_length_goes_through_at_every_start),
        cmocka_unit_test(the_longest_record_fits_into_an_empty_ring_at_any_position),
        cmocka_unit_test(nothing_is_seen_before_it_is_published),
        cmocka_unit_test(what_is_cancelled_is_never_seen),
        cmocka_unit_test(a_full_ring_refuses_and_counts),
        cmocka_unit_test(lifecycle_records_have_a_reserve_that_bulk_cannot_take),
        cmocka_unit_test(a_consumer_that_runs_is_not_woken),
        cmocka_unit_test(a_consumer_that_sleeps_is_woken_once),
        cmocka_unit_test(a_consumer_with_something_to_read_does_not_sleep),
        cmocka_unit_test(what_was_shown_is_seen_and_wakes_when_published),
        cmocka_unit_test(a_bell_says_which_ring_and_wakes_once_for_all),
        cmocka_unit_test(the_eventfd_is_readable_after_a_wake),
        cmocka_unit_test(a_producer_that_waits_for_room_is_told_once),
        cmocka_unit_test(a_tail_that_cannot_be_is_refused_for_good),
        cmocka_unit_test(a_head_that_cannot_be_is_refused_for_good),
        cmocka_unit_test(a_record_that_cannot_be_is_refused_for_good),
        cmocka_unit_test(a_good_ring_is_valid_and_counted),
        cmocka_unit_test(repair_for_a_producer_keeps_what_stands_before_the_damage),
        cmocka_unit_test(repair_for_a_consumer_skips_what_cannot_be_read),
        cmocka_unit_test(a_new_consumer_reads_again_what_was_not_released),
        cmocka_unit_test(positions_that_cannot_be_leave_an_empty_ring),
        cmocka_unit_test(repair_does_not_hide_that_the_living_side_writes_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
