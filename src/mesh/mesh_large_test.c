// SPDX-License-Identifier: MIT
/* Messages larger than a record: kept by their sender until they are taken, whoever dies meanwhile. */
#include "mesh/mesh_shards_test.h"

#include "ring/ring_message.h"

static void what_is_behind_a_large_message_waits_until_it_is_taken(void **state)
{
    struct counted_note large = {.note.done = note_done}, small = {.note.done = note_done};
    n_done = 0;
    send(0, 1, 0, 10);
    assert_true(send_note(0, 1, 1, 40000, &large.note)); /* finds room at once, all of it */
    assert_true(send_note(0, 1, 2, 10, &small.note));
    assert_int_equal(try(0, 1, 3, 10), -EAGAIN);
    send(0, 1, 3, 10);
    for (unsigned i = 0; i < 3; i++)
        turn(0);
    assert_int_equal(n_done, 0);
    assert_true(mesh_waiting(shards[0].m, 1) > 40000);
    assert_int_equal(shards[0].n_rooms, 0);
    turn(1);
    expect_types(1, 0, 2);
    assert_int_equal(n_done, 0); /* not heard of yet */
    turn(0);
    assert_true(large.done == 1 && small.done == 1 && large.order < small.order);
    assert_int_equal(mesh_waiting(shards[0].m, 1), 0);
    assert_int_equal(shards[0].n_rooms, 1);
    turn(1);
    expect_types(1, 0, 4);
    assert_int_equal(count(0, COUNTER_mesh_messages_out), 4);
    assert_int_equal(count(0, COUNTER_mesh_backlog_bytes), 0);
}

static int reading_poll(void *ctx, uint64_t timeout_ns)
{
    struct shard *s = ctx;
    if (timeout_ns > 0)
        turn(1);
    waited_ns = timeout_ns;
    loop_poll_returned(s->l);
    return 0;
}

static void who_sleeps_until_a_large_message_is_taken_is_woken_once(void **state)
{
    struct counted_note note = {.note.done = note_done};
    turns(2);
    for (uint32_t n = 0; n < 20; n++)
        send(0, 1, n, 10); /* released one by one */
    assert_true(send_note(0, 1, 20, 40000, &note.note));
    loop_set_poller(shards[0].l, &(struct loop_poller){.poll = reading_poll, .ctx = &shards[0]});
    loop_turn(shards[0].l, 50 * MS);
    assert_true(waited_ns == 50 * MS);
    assert_int_equal(shards[1].woken[0], 1);
    assert_int_equal(note.done, 1); /* in the turn that follows the sleep */
    expect_types(1, 0, 21);
}

/* Shard 1 as far as it comes: `n` records are read, and released; with taken it also has all that it read.
 * How many it found. The sender goes on whenever there is nothing to read. */
static unsigned read_and_die(unsigned n, bool taken)
{
    struct ring_reader r;
    struct ring_receiver rv;
    struct ring_record got;
    unsigned i = 0, idle = 0;
    shard_kill(&shards[1]);
    assert_int_equal(
        ring_reader_attach(&r, mesh__ring(mem, N_NODE, RING, 0, 1), ring_bytes((uint64_t)RING), false), 0);
    ring_receiver_init(&rv, &r, sizeof payload);
    while (i < n && idle < 3) {
        int found = taken ? ring_receive(&rv, &got) : ring_read(&r, &got);
        i += (unsigned)found;
        idle = found ? 0 : idle + 1;
        if (found && got.continues && taken)
            ring_taken(&rv, &got);
        (void)ring_release(&r);
        (void)bell_ring(&mesh__shard(mem, 0)->bell, 1);
        if (!found)
            turn(0);
    }
    ring_receiver_fini(&rv);
    return i;
}

/* Before, behind: small ones. Its receiver dies when it has read `n` records of all that; the sender hears of
 * it before its successor has read anything, or later. False: there are not so many. */
static bool survives(size_t len, unsigned n, bool taken, bool told_late)
{
    struct counted_note note = {.note.done = note_done};
    uint64_t to_it;
    send(0, 1, 0, 10);
    assert_true(send_note(0, 1, 1, len, &note.note));
    for (uint32_t i = 2; i < 10; i++)
        send(0, 1, i, 10);
    turn(0);
    unsigned found = read_and_die(n, taken);
    unsigned first = found == 0 ? 0 : taken && found >= 2 ? found : 1;
    mesh_bury(mem, N_NODE, RING, 1, &to_it);
    shard_open(&shards[1], 1, true);
    assert_int_equal(note.done, 0);
    if (told_late)
        turns(20);
    mesh_peer_died(shards[0].m, 1);
    turns(20);
    expect_types(1, first, 10 - first);
    assert_int_equal(note.done, 1);
    assert_int_equal(mesh_waiting(shards[0].m, 1), 0);
    if (found <= 1 && !told_late) /* nobody had any of it: nothing is sent again */
        assert_int_equal(count(1, COUNTER_mesh_cut), 0);
    return found == n;
}

static void survives_at_each_record(size_t len, unsigned fragments, bool told_late)
{
    for (unsigned n = 0; n <= 1 + fragments; n++) {
        assert_true(survives(len, n, false, told_late));
        teardown(NULL);
        setup(NULL);
    }
}

static void a_large_message_survives_the_death_of_its_receiver_at_each_fragment(void **state)
{
    for (int late = 0; late < 2; late++) {
        survives_at_each_record(40000, 5, late);      /* is in the ring, all of it */
        survives_at_each_record(100 * KIB, 13, late); /* goes through the ring */
    }
}

static void a_large_message_that_was_taken_does_not_come_again(void **state)
{
    for (int late = 0; late < 2; late++) {
        for (unsigned n = 1; n <= 2; n++) {
            assert_true(survives(40000, n, true, late));
            teardown(NULL);
            setup(NULL);
            assert_true(survives(100 * KIB, n, true, late));
            teardown(NULL);
            setup(NULL);
        }
    }
}

static void a_large_message_survives_one_death_after_the_other(void **state)
{
    struct counted_note note = {.note.done = note_done};
    uint64_t to_it;
    assert_true(send_note(0, 1, 0, 200 * KIB, &note.note));
    send(0, 1, 1, 10);
    for (unsigned i = 0; i < 40; i++) {
        turn(0);
        (void)read_and_die(i % 7, false);
        mesh_bury(mem, N_NODE, RING, 1, &to_it);
        shard_open(&shards[1], 1, true);
        if (i % 3 != 0) /* the others are never heard of */
            mesh_peer_died(shards[0].m, 1);
        if (i % 4 == 0)
            turn(1);
        assert_int_equal(note.done, 0);
    }
    turns(40);
    expect_types(1, 0, 2);
    assert_int_equal(note.done, 1);
}

static void a_large_message_in_whose_callback_the_receiver_died_comes_again(void **state)
{
    static const size_t sizes[] = {40000, 100 * KIB};
    for (unsigned i = 0; i < 2; i++) {
        send(0, 1, 3, sizes[i]);
        send(0, 1, 4, 10);
        turn(0);
        shards[1].on_message = die;
        if (setjmp(out) == 0) {
            for (unsigned k = 0; k < 100; k++) {
                mesh_read(shards[1].m);
                turn(0);
            }
            fail();
        }
        assert_int_equal(shards[1].n_got, 1);
        uint64_t to_it;
        shard_kill(&shards[1]);
        mesh_bury(mem, N_NODE, RING, 1, &to_it);
        shard_open(&shards[1], 1, true);
        mesh_peer_died(shards[0].m, 1);
        turns(20);
        expect_types(1, 3, 2);
        shards[1].n_got = 0;
    }
}

static void a_large_message_in_the_ring_outlives_its_sender(void **state)
{
    send(0, 1, 0, 40000);
    send(0, 1, 1, 10); /* waits: gone */
    turn(0);
    shard_kill(&shards[0]);
    bury_and_tell(0, 1, 0);
    shard_open(&shards[0], 0, true);
    send(0, 1, 1, 40000);
    turns(3);
    expect_types(1, 0, 2);
    assert_int_equal(mesh_waiting(shards[0].m, 1), 0);
    assert_int_equal(count(1, COUNTER_mesh_cut), 0);
}

static void who_leaves_does_not_wait_for_a_large_message_to_be_taken(void **state)
{
    struct counted_note note = {.note.done = note_done};
    assert_true(send_note(0, 1, 0, 40000, &note.note));
    send(0, 1, 1, 10);
    mesh_free(shards[0].m);
    assert_int_equal(note.done, 0);
    assert_int_equal(counter_drop_get(&shards[0].counters, DROP_mesh_left), 0);
    assert_int_equal(count(0, COUNTER_mesh_backlog_bytes), 0);
    turn(1);
    expect_types(1, 0, 2);
    struct mesh_options opt = options_of(&shards[0]);
    int err;
    shards[0].m = mesh_new(&opt, &err);
    mesh_start(shards[0].m);
}

static void half_a_message_to_the_dead_begins_anew(void **state)
{
    struct counted_note note = {.note.done = note_done};
    assert_true(send_note(0, 1, 0, 200 * KIB, &note.note));
    send(0, 1, 1, 10);
    turn(0);
    turn(1);
    turn(0);
    shard_kill(&shards[1]);
    bury_and_tell(1, 0, 0);
    shard_open(&shards[1], 1, true);
    turns(20);
    expect_types(1, 0, 2);
    assert_int_equal(note.done, 1);
    assert_int_equal(count(1, COUNTER_mesh_cut), 1); /* the first half of the first attempt */
}

static void a_message_whose_beginning_is_gone_is_sent_again(void **state)
{
    send(0, 1, 0, 100 * KIB);
    send(0, 1, 1, 10);
    turn(1);
    turn(0); /* all sent, the end not taken */
    shard_kill(&shards[1]);
    bury_and_tell(1, 0, 1);
    shard_open(&shards[1], 1, true);
    turns(10);
    expect_types(1, 0, 2);
    assert_int_equal(count(1, COUNTER_mesh_cut), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_behind_a_large_message_waits_until_it_is_taken),
        TEST(who_sleeps_until_a_large_message_is_taken_is_woken_once),
        TEST(a_large_message_survives_the_death_of_its_receiver_at_each_fragment),
        TEST(a_large_message_that_was_taken_does_not_come_again),
        TEST(a_large_message_survives_one_death_after_the_other),
        TEST(a_large_message_in_whose_callback_the_receiver_died_comes_again),
        TEST(a_large_message_in_the_ring_outlives_its_sender),
        TEST(who_leaves_does_not_wait_for_a_large_message_to_be_taken),
        TEST(half_a_message_to_the_dead_begins_anew),
        TEST(a_message_whose_beginning_is_gone_is_sent_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
