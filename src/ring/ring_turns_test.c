// SPDX-License-Identifier: MIT
/* Every order in which two sides can meet that matters, one after the other, on one thread: while one is at a
 * named place (ring_fault.h), the other takes a whole turn. What must hold each time: a consumer that sleeps
 * with something to read has been woken, a producer that waits with room there has been told. */
#define TGG_RING_FAULTS /* as the library that it is linked with */
#include "ring/ring_util_test.h"

#include <errno.h>

#include "ring/ring_message.h"

static enum ring_fault turn_at;
static void (*turn)(void);
static bool turn_taken;

void ring__fault(enum ring_fault at)
{
    void (*now)(void) = turn;
    if (at != turn_at || now == NULL)
        return;
    turn = NULL; /* once, and not within itself */
    now();
    turn_taken = true;
}

static struct test_ring t;
static struct bell_shm bell;
static bool slept, woke, waits, told;

static void producer_publishes(void)
{
    assert_int_equal(put(&t.w, RING_BULK, 7, 8), 0);
    woke |= ring_publish(&t.w);
}

static void consumer_sleeps(void)
{
    slept = ring_prepare_sleep(&t.r);
}

/* A consumer of many rings: takes the bits, reads, sleeps. */
static void consumer_asks_the_bell(void)
{
    struct ring_record got;
    uint64_t bits = bell_take(&bell);
    while (bits != 0 && ring_read(&t.r, &got) == 1)
        ;
    slept = bell_prepare_sleep(&bell);
}

/* Meet at every place; stale: the bit is set from a record that was read without asking the bell. */
static unsigned meet_everywhere(void (*first)(void), void (*second)(void), bool stale, bool shared_bell)
{
    unsigned met = 0;
    for (turn_at = 0; turn_at < RING_FAULT_N; turn_at++) {
        test_ring_open(&t, 512, 0, 0);
        memset(&bell, 0, sizeof bell);
        if (shared_bell)
            assert_int_equal(ring_writer_attach(&t.w, t.mem, t.bytes, &bell, 3), 0);
        turn = NULL;
        if (stale) {
            producer_publishes();
            expect(&t.r, RING_BULK, 7, 8);
        }
        slept = woke = turn_taken = false;
        turn = second;
        first();
        met += turn_taken;
        struct ring_record got;
        if (turn_taken && slept && ring_read(&t.r, &got) == 1)
            assert_true(woke);
        test_ring_close(&t);
    }
    return met;
}

static void no_wake_up_is_lost_wherever_the_sides_meet(void **state)
{
    for (int stale = 0; stale < 2; stale++) {
        assert_true(meet_everywhere(consumer_sleeps, producer_publishes, stale, false) >= 2);
        assert_true(meet_everywhere(producer_publishes, consumer_sleeps, stale, false) >= 3);
        assert_true(meet_everywhere(consumer_asks_the_bell, producer_publishes, stale, true) >= 2);
        assert_true(meet_everywhere(producer_publishes, consumer_asks_the_bell, stale, true) >= 3);
    }
}

static void producer_wants_room(void)
{
    waits = ring_want_room(&t.w, RING_BULK, ring_record_max(&t.w));
}

static void producer_wants_all(void)
{
    waits = ring_want_empty(&t.w);
}

static void consumer_reads_all(void)
{
    struct ring_record got;
    while (ring_read(&t.r, &got) == 1)
        ;
    told |= ring_release(&t.r);
}

static void no_room_is_missed(void (*producer_wants)(void))
{
    unsigned met = 0;
    for (int who = 0; who < 2; who++) {
        for (turn_at = 0; turn_at < RING_FAULT_N; turn_at++) {
            turn = NULL;
            waits = told = turn_taken = false;
            test_ring_open(&t, 512, 0, 0);
            while (put(&t.w, RING_BULK, 1, 100) == 0)
                ;
            ring_publish(&t.w);
            turn = who == 0 ? producer_wants : consumer_reads_all;
            who == 0 ? consumer_reads_all() : producer_wants();
            met += turn_taken;
            /* All has been released by now. */
            if (waits)
                assert_true(told || !turn_taken);
            test_ring_close(&t);
        }
    }
    assert_true(met >= 5);
}

static void no_room_is_missed_wherever_the_sides_meet(void **state)
{
    no_room_is_missed(producer_wants_room);
    no_room_is_missed(producer_wants_all);
}

static struct ring_receiver rv;
static struct ring_sending sending;
static int state_seen;

static void producer_looks(void)
{
    state_seen = ring_send_state(&t.w, &sending);
}

static void consumer_takes_the_message(void)
{
    struct ring_record got;
    assert_int_equal(ring_receive(&rv, &got), 1);
    ring_taken(&rv, &got);
    (void)ring_release(&t.r);
}

static void a_message_that_is_taken_never_looks_lost(void **state)
{
    static const uint8_t bytes[400];
    unsigned met = 0;
    for (turn_at = 0; turn_at < RING_FAULT_N; turn_at++) {
        turn = NULL;
        turn_taken = false;
        test_ring_open(&t, 512, 0, 0);
        ring_receiver_init(&rv, &t.r, sizeof bytes);
        sending = (struct ring_sending){.data = bytes, .len = sizeof bytes};
        assert_int_equal(ring_send(&t.w, &sending), 0);
        ring_publish(&t.w);
        turn = producer_looks;
        consumer_takes_the_message();
        if (turn_taken)
            assert_int_equal(state_seen, turn_at == RING_FAULT_release_head ? 0 : -EAGAIN);
        met += turn_taken;
        producer_looks();
        assert_int_equal(state_seen, 0);
        ring_receiver_fini(&rv);
        test_ring_close(&t);
    }
    assert_true(met >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_wake_up_is_lost_wherever_the_sides_meet),
        cmocka_unit_test(no_room_is_missed_wherever_the_sides_meet),
        cmocka_unit_test(a_message_that_is_taken_never_looks_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
