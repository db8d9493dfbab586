// SPDX-License-Identifier: MIT
#include "mesh/mesh_shards_test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "ring/ring_map.h"

/* ---- messages */

static void a_message_arrives_in_the_turn_after_the_flush(void **state)
{
    send(0, 1, 7, 64);
    turn(1);
    assert_int_equal(shards[1].n_got, 0);
    turn(0);
    turn(1);
    expect_types(1, 7, 1);
    assert_int_equal(shards[1].got[0].from, 0);
    assert_int_equal(shards[1].got[0].len, 64);
    assert_int_equal(shards[2].n_got, 0);
    assert_int_equal(count(0, COUNTER_mesh_messages_out), 1);
    assert_int_equal(count(0, COUNTER_mesh_bytes_out), 64);
    assert_int_equal(count(1, COUNTER_mesh_messages_in), 1);
}

static bool all_at_rest(void)
{
    bool rest = true;
    for (unsigned i = 0; i < N_NODE; i++)
        rest &= mesh_is_at_rest(shards[i].m);
    return rest;
}

/* A large one stays in the sender's memory until it is taken. */
static void there_is_no_rest_before_all_is_taken(void **state)
{
    static const size_t sizes[] = {0, 64, 30000, 200 * KIB};
    turns(2);
    assert_true(all_at_rest());
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        send(0, 1, i, sizes[i]);
        assert_false(mesh_is_at_rest(shards[0].m));
        mesh_flush(shards[0].m);
        assert_false(all_at_rest());
        assert_true(mesh_is_at_rest(shards[2].m));
        turns(20);
        assert_true(all_at_rest());
    }
    expect_types(1, 0, sizeof sizes / sizeof *sizes);
}

static void parts_are_put_together(void **state)
{
    fill(payload, 9, 100);
    struct slice parts[] = {{payload, 3}, {NULL, 0}, {payload + 3, 60}, {payload + 63, 37}};
    assert_true(mesh_send(shards[0].m, 2, 9, parts, 4, NULL));
    assert_int_equal(mesh_try(shards[0].m, 2, 9, parts, 4), 0);
    turns(2);
    assert_int_equal(shards[2].n_got, 2);
    assert_int_equal(shards[2].got[0].len, 100);
    assert_int_equal(shards[2].got[1].len, 100);
}

static void every_size_arrives_in_order(void **state)
{
    static const size_t sizes[] = {0,     1,     7,         8,         9,        63,    64,
                                   65,    1000,  8000,      30000,     30712,    30720, 32768,
                                   65535, 65536, 65 * 1024, 200 * KIB, 599 * KIB};
    uint32_t n = 0;
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            send(0, 1, n++, sizes[(i * 7 + round) % (sizeof sizes / sizeof *sizes)]);
        turns(100);
    }
    expect_types(1, 0, n);
    assert_int_equal(mesh_waiting(shards[0].m, 1), 0);
    assert_int_equal(count(0, COUNTER_mesh_backlog_bytes), 0);
    assert_int_equal(count(1, COUNTER_mesh_cut), 0);
}

static void all_pairs_at_once(void **state)
{
    for (uint32_t n = 0; n < 300; n++) {
        for (unsigned a = 0; a < N_NODE; a++) {
            for (unsigned b = 0; b < N_NODE; b++) {
                if (a != b)
                    send(a, b, n, n * 10);
            }
        }
    }
    turns(100);
    for (unsigned i = 0; i < N_NODE; i++) {
        uint32_t next[N_NODE] = {0};
        assert_int_equal(shards[i].n_got, 600);
        for (unsigned k = 0; k < 600; k++)
            assert_int_equal(shards[i].got[k].type, next[shards[i].got[k].from]++);
    }
}

static void echo(struct shard *s, unsigned from, uint32_t type)
{
    if (type < TYPE_ECHO) {
        send_note(s->me, from, type + TYPE_ECHO, 1500, NULL);
        send_note(s->me, (s->me + 1) % N_NODE == from ? (s->me + 2) % N_NODE : (s->me + 1) % N_NODE,
                  type + TYPE_ECHO, 10, NULL);
    }
}

static void a_callback_may_send_to_anybody(void **state)
{
    for (unsigned i = 0; i < N_NODE; i++)
        shards[i].on_message = echo;
    for (uint32_t n = 0; n < 500; n++)
        send(0, 1, n, 1500); /* many more than the ring holds, and as many come back */
    turns(100);
    assert_int_equal(shards[1].n_got, 500);
    assert_int_equal(shards[0].n_got, 500);
    assert_int_equal(shards[2].n_got, 500);
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(shards[0].got[i].type, TYPE_ECHO + i);
}

/* ---- full */

static void what_finds_no_room_waits_and_room_is_told(void **state)
{
    uint32_t n = 0;
    while (mesh_waiting(shards[0].m, 1) == 0)
        send(0, 1, n++, 1000);
    for (unsigned i = 0; i < 100; i++)
        send(0, 1, n++, 1000);
    assert_true(mesh_waiting(shards[0].m, 1) >= 101 * 1000);
    assert_int_equal(mesh_waiting(shards[0].m, 2), 0);
    assert_int_equal(count(0, COUNTER_mesh_backlog_bytes), mesh_waiting(shards[0].m, 1));
    assert_int_equal(count(0, COUNTER_mesh_waited), 101);
    turn(0);
    assert_int_equal(shards[0].n_rooms, 0);
    for (unsigned i = 0; i < 20; i++) {
        turn(1);
        turn(0);
    }
    assert_int_equal(shards[0].n_rooms, 1);
    assert_int_equal(count(0, COUNTER_mesh_backlog_bytes), 0);
    expect_types(1, 0, n);
}

static void a_try_never_waits(void **state)
{
    uint32_t n = 0;
    assert_true(mesh_try_max(shards[0].m) > 30000 && mesh_try_max(shards[0].m) < 32768);
    while (try(0, 1, n, 1000) == 0)
        n++;
    assert_true(n > 50 && n < 66);
    assert_int_equal(mesh_waiting(shards[0].m, 1), 0);
    for (unsigned i = 0; i < 3; i++)
        turn(0);
    assert_int_equal(shards[0].n_rooms, 0);
    assert_int_equal(try(0, 2, 0, mesh_try_max(shards[0].m)), 0); /* nobody else is concerned */
    turn(1);
    turn(0);
    assert_int_equal(shards[0].n_rooms, 1);
    assert_int_equal(try(0, 1, n++, 1000), 0);
    turns(2);
    expect_types(1, 0, n);
    assert_int_equal(shards[0].n_rooms, 1);
}

static void a_try_does_not_overtake_the_backlog(void **state)
{
    uint32_t n = 0;
    while (mesh_waiting(shards[0].m, 1) == 0)
        send(0, 1, n++, 1000);
    assert_int_equal(try(0, 1, 99999, 0), -EAGAIN);
    turn(1);
    assert_int_equal(try(0, 1, 99999, 0), -EAGAIN); /* there is room by now, but others wait for it */
    turns(3);
    assert_int_equal(shards[0].n_rooms, 1);
    assert_int_equal(try(0, 1, n++, 0), 0);
    turns(2);
    expect_types(1, 0, n);
}

static uint32_t n_refill;

static void refill(struct shard *s, unsigned to)
{
    while (n_refill < 2000 && try(s->me, to, n_refill, 500) == 0)
        n_refill++;
}

static void a_source_that_goes_on_when_room_is_told_gets_all_through(void **state)
{
    n_refill = 0;
    shards[0].on_room = refill;
    refill(&shards[0], 1);
    turns(200);
    expect_types(1, 0, 2000);
    assert_true(shards[0].n_rooms >= 2000 * 500 / RING);
    assert_true(shards[0].n_rooms < 100);
}

static unsigned n_wide;

static void try_wide(struct shard *s, unsigned to)
{
    assert_int_equal(try(s->me, to, n_wide, 30000), 0);
    n_wide++;
}

static void there_is_room_for_what_was_tried(void **state)
{
    uint32_t n = 0;
    while (try(0, 1, n, 100) == 0)
        n++;
    n_wide = n;
    assert_int_equal(try(0, 1, n, 30000), -EAGAIN);
    shards[0].on_room = try_wide;
    shards[1].cost_ns = MS; /* reads a few at a time */
    turns(30);
    assert_int_equal(shards[0].n_rooms, 1);
    expect_types(1, 0, n + 1);
}

/* ---- notes */

static void a_note_is_told_at_once_when_there_is_room(void **state)
{
    struct counted_note note = {.note.done = note_done};
    send(0, 1, 0, 10); /* comes first, though it was not shown yet */
    assert_true(send_note(0, 1, 1, 10, &note.note));
    assert_int_equal(note.done, 1);
    shard_kill(&shards[0]);
    uint64_t to_it;
    assert_int_equal(mesh_bury(mem, N_NODE, RING, 0, &to_it), 2);
    assert_int_equal(to_it, 0);
    turn(1);
    expect_types(1, 0, 2);
    shard_open(&shards[0], 0, true);
}

static void notes_that_wait_are_told_in_order_when_they_are_visible(void **state)
{
    static struct counted_note notes[200];
    uint32_t n = 0;
    n_done = 0;
    memset(notes, 0, sizeof notes);
    while (mesh_waiting(shards[0].m, 1) == 0)
        send(0, 1, n++, 1000);
    for (unsigned i = 0; i < 200; i++) {
        notes[i].note.done = note_done;
        assert_true(send_note(0, 1, n++, i == 77 ? 300 * KIB : 900, &notes[i].note));
    }
    assert_int_equal(n_done, 0);
    for (unsigned i = 0; i < 100; i++) {
        turn(1);
        unsigned before = n_done;
        turn(0);
        assert_true(n_done >= before);
        for (unsigned k = 0; k < 200; k++)
            assert_int_equal(notes[k].done, k < n_done);
    }
    assert_int_equal(n_done, 200);
    for (unsigned k = 0; k < 200; k++)
        assert_int_equal(notes[k].order, k);
    expect_types(1, 0, n);
}

static void messages_with_a_note_find_room_when_bulk_does_not(void **state)
{
    struct counted_note note = {.note.done = note_done};
    uint32_t n = 0;
    while (try(0, 1, n, 1000) == 0)
        n++;
    assert_true(send_note(0, 1, n++, 1000, &note.note));
    assert_int_equal(note.done, 1);
    assert_int_equal(mesh_waiting(shards[0].m, 1), 0);
    turns(3);
    expect_types(1, 0, n);
}

static unsigned n_chain;

static void note_chain(struct mesh_note *n)
{
    static struct mesh_note next = {.done = note_chain};
    if (++n_chain < 500)
        send_note(0, 1, n_chain, 1000, &next);
}

static void a_note_may_send(void **state)
{
    static struct mesh_note first = {.done = note_chain};
    n_chain = 0;
    assert_true(send_note(0, 1, 0, 1000, &first));
    turns(100);
    expect_types(1, 0, 500);
}

static int try_result;

static void note_tries(struct mesh_note *n)
{
    try_result = try(0, 1, 4711, 10);
}

static void a_try_that_is_refused_within_a_note_is_told_of_room_too(void **state)
{
    struct mesh_note note = {.done = note_tries};
    uint32_t n = 0;
    while (mesh_waiting(shards[0].m, 1) == 0)
        send(0, 1, n++, 1000);
    turns(1);
    for (unsigned i = 0; i < 4; i++) /* until nothing is owed */
        turns(1);
    unsigned rooms = shards[0].n_rooms;
    while (mesh_waiting(shards[0].m, 1) == 0)
        send(0, 1, n++, 1000);
    assert_true(send_note(0, 1, n++, 10, &note));
    send(0, 1, n++, 10); /* behind it, so that the try finds somebody who waits */
    turns(5);
    assert_int_equal(try_result, -EAGAIN);
    assert_int_equal(shards[0].n_rooms, rooms + 1);
    expect_types(1, 0, n);
}

static void note_of_a_large_one_tries(struct mesh_note *n)
{
    try_result = try(0, 1, 2, 10);
}

static void room_is_told_also_when_nothing_has_to_wait_in_the_end(void **state)
{
    struct mesh_note note = {.done = note_of_a_large_one_tries};
    assert_true(send_note(0, 1, 0, 40000, &note));
    send(0, 1, 1, 10);
    turn(1);
    turn(0);
    assert_int_equal(try_result, -EAGAIN); /* the second one was not sent yet */
    assert_int_equal(mesh_waiting(shards[0].m, 1), 0);
    assert_int_equal(shards[0].n_rooms, 1);
    turns(2);
    expect_types(1, 0, 2);
}

/* ---- time, and sleep */

static void reading_stops_when_the_turn_is_over_and_goes_on_in_the_next(void **state)
{
    for (uint32_t n = 0; n < 400; n++)
        send(0, 1, n, 20);
    turn(0);
    shards[1].cost_ns = MS / 10;
    turn(1);
    assert_in_range(shards[1].n_got, 100, 100 + 16);
    assert_true(loop_next_ns(shards[1].l) == 0);
    shards[1].cost_ns = 100 * MS;
    unsigned before = shards[1].n_got;
    turn(1);
    assert_int_equal(shards[1].n_got, before + 64); /* always some */
    turns(20);
    expect_types(1, 0, 400);
    assert_true(loop_next_ns(shards[1].l) == UINT64_MAX);
}

static void a_busy_peer_does_not_keep_the_others_waiting(void **state)
{
    for (uint32_t n = 0; n < 500; n++)
        send(0, 2, n, 20);
    send(1, 2, 0, 20);
    turn(0);
    turn(1);
    shards[2].cost_ns = 20 * MS;
    turn(2);
    bool heard = false;
    for (unsigned i = 0; i < shards[2].n_got; i++)
        heard |= shards[2].got[i].from == 1;
    assert_true(heard);
    assert_true(shards[2].n_got < 100);
}

/* The virtual poll returns at once, so what comes while the shard sleeps comes in here. */
static int sleeping_poll(void *ctx, uint64_t timeout_ns)
{
    struct shard *s = ctx;
    for (uint32_t n = 0; n < 3; n++) {
        send(0, s->me, n, 10);
        turn(0);
    }
    waited_ns = timeout_ns;
    loop_poll_returned(s->l);
    return 0;
}

static void only_a_sleeper_is_woken_and_once(void **state)
{
    turns(2);
    for (uint32_t n = 0; n < 10; n++) {
        send(0, 2, n, 10);
        turn(0);
        turn(2);
    }
    assert_int_equal(shards[0].n_wakes, 0);
    loop_set_poller(shards[1].l, &(struct loop_poller){.poll = sleeping_poll, .ctx = &shards[1]});
    loop_turn(shards[1].l, 50 * MS);
    assert_true(waited_ns == 50 * MS);
    assert_int_equal(shards[0].woken[1], 1);
    assert_int_equal(count(0, COUNTER_mesh_wakes), 1);
    expect_types(1, 0, 3);
    send(0, 1, 3, 10); /* awake again */
    turn(0);
    assert_int_equal(shards[0].n_wakes, 1);
}

static void nobody_sleeps_with_something_to_read_or_to_show(void **state)
{
    turns(2);
    send(0, 1, 0, 10);
    turn(0);
    loop_turn(shards[1].l, 50 * MS);
    assert_true(waited_ns == 0);
    expect_types(1, 0, 1);
    send(1, 0, 0, 10); /* outside of a turn: shown at the latest before the sleep */
    loop_turn(shards[1].l, 50 * MS);
    assert_true(waited_ns == 50 * MS);
    turn(0);
    expect_types(0, 0, 1);
}

static int showing_poll(void *ctx, uint64_t timeout_ns)
{
    turn(0);
    waited_ns = timeout_ns;
    assert_int_equal(shards[0].n_got, 1);
    loop_poll_returned(shards[1].l);
    return 0;
}

static void everything_is_shown_before_the_sleep(void **state)
{
    send(1, 0, 0, 10); /* outside of a turn */
    loop_set_poller(shards[1].l, &(struct loop_poller){.poll = showing_poll});
    loop_turn(shards[1].l, 50 * MS);
    assert_true(waited_ns == 50 * MS);
}

static void who_slept_and_was_not_woken_is_awake_all_the_same(void **state)
{
    loop_turn(shards[1].l, 50 * MS);
    assert_true(waited_ns == 50 * MS);
    send(0, 1, 0, 10);
    turn(0);
    assert_int_equal(shards[0].n_wakes, 0);
}

static void with_wake_always_each_publish_wakes(void **state)
{
    int err;
    shard_close(&shards[0]);
    shard_open(&shards[0], 0, false);
    struct mesh_options opt = options_of(&shards[0]);
    opt.wake_always = true;
    mesh_free(shards[0].m);
    shards[0].m = mesh_new(&opt, &err);
    mesh_start(shards[0].m);
    for (unsigned i = 1; i <= 5; i++) {
        send(0, 1, i, 10);
        send(0, 1, i, 10);
        turn(0);
        assert_int_equal(shards[0].woken[1], i);
        turn(0);
        assert_int_equal(shards[0].woken[1], i);
    }
    loop_turn(shards[0].l, 50 * MS);
    assert_true(waited_ns == 50 * MS);
    turn(1);
    assert_int_equal(shards[1].n_got, 10);
}

/* ---- deaths */

static void a_successor_gets_what_its_predecessor_did_not_take(void **state)
{
    for (uint32_t n = 0; n < 100; n++)
        send(0, 1, n, 1000); /* some wait */
    send(2, 1, 0, 5);
    send(1, 2, 0, 5); /* never shown: gone */
    assert_true(mesh_waiting(shards[0].m, 1) > 0);
    turn(0);
    turn(2);
    shard_kill(&shards[1]);
    uint64_t in_ring = 100 - count(0, COUNTER_mesh_waited);
    bury_and_tell(1, 0, in_ring + 1);
    shard_open(&shards[1], 1, false);
    turns(3);
    assert_int_equal(shards[1].n_got, 0); /* not before it says so */
    mesh_start(shards[1].m);
    loop_turn(shards[1].l, 50 * MS);
    assert_true(waited_ns == 0);
    turns(10);
    assert_int_equal(shards[1].n_got, 101);
    uint32_t next[N_NODE] = {0};
    for (unsigned i = 0; i < 101; i++)
        assert_int_equal(shards[1].got[i].type, next[shards[1].got[i].from]++);
    assert_int_equal(shards[2].n_got, 0);
    send(1, 2, 0, 5);
    turns(2);
    expect_types(2, 0, 1);
}

static void what_the_dead_has_shown_is_read(void **state)
{
    for (uint32_t n = 0; n < 20; n++)
        send(0, 1, n, 100);
    turn(0);
    for (uint32_t n = 20; n < 40; n++)
        send(0, 1, n, 100); /* not shown */
    shard_kill(&shards[0]);
    bury_and_tell(0, 20, 0);
    shard_open(&shards[0], 0, true);
    for (uint32_t n = 20; n < 30; n++)
        send(0, 1, n, 100);
    turns(3);
    expect_types(1, 0, 30);
}

static void half_a_message_of_the_dead_is_dropped_and_counted(void **state)
{
    send(0, 1, 5, 200 * KIB);
    turn(0);
    turn(1);
    shard_kill(&shards[0]);
    bury_and_tell(0, 0, 0);
    shard_open(&shards[0], 0, true);
    turns(2);
    assert_int_equal(count(1, COUNTER_mesh_cut), 0);
    send(0, 1, 6, 200 * KIB);
    turns(20);
    expect_types(1, 6, 1);
    assert_int_equal(count(1, COUNTER_mesh_cut), 1);
}

static void a_sender_that_waits_for_a_dead_one_goes_on_with_its_successor(void **state)
{
    uint32_t n = 0;
    while (try(0, 1, n, 1000) == 0)
        n++;
    while (n < 200)
        send(0, 1, n++, 1000);
    turn(0);
    for (unsigned i = 0; i < 3; i++) { /* and dies again and again before it takes anything */
        shard_kill(&shards[1]);
        uint64_t to_it;
        assert_int_equal(mesh_bury(mem, N_NODE, RING, 1, &to_it), 0);
        shard_open(&shards[1], 1, false);
        assert_int_equal(to_it, count(0, COUNTER_mesh_messages_out));
        mesh_peer_died(shards[0].m, 1);
        turn(0);
    }
    mesh_start(shards[1].m);
    turns(20);
    assert_int_equal(shards[0].n_rooms, 1);
    expect_types(1, 0, 200);
}

/* Not by loop_turn, which cannot be left like this. */
static void a_message_is_taken_when_its_callback_has_returned(void **state)
{
    for (uint32_t n = 0; n < 6; n++)
        send(0, 1, n, 100);
    turn(0);
    shards[1].on_message = die;
    if (setjmp(out) == 0)
        mesh_read(shards[1].m);
    assert_int_equal(shards[1].n_got, 4);
    shard_kill(&shards[1]);
    bury_and_tell(1, 0, 3);
    shard_open(&shards[1], 1, true);
    turns(2);
    expect_types(1, 3, 3);
}

/* ---- damage */

static struct ring_shm *ring_between(unsigned from, unsigned to)
{
    return mesh__ring(mem, N_NODE, RING, from, to);
}

static void a_broken_ring_is_not_read_until_its_sender_was_replaced(void **state)
{
    send(0, 1, 0, 100);
    turns(2);
    atomic_fetch_add(&ring_between(0, 1)->tail, 12345 * 8); /* more than the area holds */
    atomic_fetch_or(&mesh__shard(mem, 1)->bell.rung, 1);
    turn(1);
    assert_int_equal(count(1, COUNTER_mesh_broken), 1);
    for (unsigned i = 0; i < 3; i++) {
        atomic_fetch_or(&mesh__shard(mem, 1)->bell.rung, 1);
        turn(1);
    }
    assert_int_equal(count(1, COUNTER_mesh_broken), 1);
    send(2, 1, 1, 100); /* others go on */
    send(1, 0, 0, 100);
    turns(2);
    assert_int_equal(shards[1].n_got, 2);
    assert_int_equal(shards[0].n_got, 1);
    shard_kill(&shards[0]);
    bury_and_tell(0, 0, 0);
    shard_open(&shards[0], 0, true);
    send(0, 1, 2, 100);
    turns(2);
    expect_types(1, 0, 3);
}

static void messages_into_a_broken_ring_are_dropped_and_counted(void **state)
{
    struct counted_note note = {.note.done = note_done};
    send(0, 1, 0, 100);
    turns(2);
    atomic_fetch_add(&ring_between(0, 1)->head, 12345 * 8);
    for (uint32_t n = 0; n < 200; n++)
        send(0, 1, n, 1000); /* found out when it looks for room */
    assert_int_equal(count(0, COUNTER_mesh_broken), 1);
    uint64_t dropped = counter_drop_get(&shards[0].counters, DROP_mesh_broken);
    assert_int_equal(dropped + count(0, COUNTER_mesh_messages_out), 201);
    assert_true(send_note(0, 1, 0, 100, &note.note));
    assert_true(send_note(0, 1, 0, 100 * KIB, &note.note));
    assert_int_equal(try(0, 1, 0, 100), -EAGAIN);
    assert_int_equal(note.done, 0);
    assert_int_equal(counter_drop_get(&shards[0].counters, DROP_mesh_broken), dropped + 2);
    assert_int_equal(mesh_waiting(shards[0].m, 1), 0);
    assert_int_equal(count(0, COUNTER_mesh_backlog_bytes), 0);
    shard_kill(&shards[1]);
    uint64_t to_it;
    mesh_bury(mem, N_NODE, RING, 1, &to_it);
    shard_open(&shards[1], 1, true);
    mesh_peer_died(shards[0].m, 1);
    turns(2);
    assert_int_equal(shards[0].n_rooms, 1);
    unsigned before = shards[1].n_got;
    send(0, 1, 1234, 100);
    turns(2);
    assert_int_equal(shards[1].n_got, before + 1);
    assert_int_equal(shards[1].got[before].type, 1234);
}

static void expect_broken(unsigned shard, unsigned n, unsigned peer)
{
    assert_int_equal(shards[shard].n_broken, n);
    assert_int_equal(shards[shard].broken, peer);
}

static void both_sides_are_told_once_of_a_broken_ring(void **state)
{
    send(0, 1, 0, 100);
    turns(2);
    atomic_fetch_add(&ring_between(0, 1)->head, 12345 * 8);
    for (uint32_t n = 0; n < 200; n++)
        send(0, 1, n, 1000);
    assert_int_equal(count(0, COUNTER_mesh_broken), 1);
    expect_broken(0, 0, 0); /* not from within a call */
    loop_turn(shards[0].l, 50 * MS);
    expect_broken(0, 1, 1);
    assert_true(waited_ns == 0);
    send(0, 1, 0, 100);
    turns(3);
    expect_broken(0, 1, 1);
    send(2, 1, 0, 100);
    turn(2);
    atomic_fetch_add(&ring_between(2, 1)->tail, 12345 * 8);
    turn(1);
    expect_broken(1, 1, 2);
    mesh_peer_died(shards[1].m, 2); /* which has mended nothing */
    turns(2);
    expect_broken(1, 2, 2);
}

static void a_broken_ring_whose_other_side_was_replaced_is_not_told(void **state)
{
    uint64_t to_it;
    send(0, 1, 0, 100);
    turns(2);
    atomic_fetch_add(&ring_between(0, 1)->head, 12345 * 8);
    for (uint32_t n = 0; n < 200; n++)
        send(0, 1, n, 1000);
    assert_int_equal(count(0, COUNTER_mesh_broken), 1);
    shard_kill(&shards[1]);
    mesh_bury(mem, N_NODE, RING, 1, &to_it);
    shard_open(&shards[1], 1, true);
    mesh_peer_died(shards[0].m, 1);
    turns(3);
    expect_broken(0, 0, 0);
    assert_true(loop_next_ns(shards[0].l) == UINT64_MAX);
}

/* The reader knows of a tail that is none any more. */
static void what_is_cut_off_by_the_repair_is_not_read(void **state)
{
    for (uint32_t n = 0; n < 100; n++)
        send(0, 1, n, 100);
    turn(0);
    shards[1].cost_ns = 100 * MS;
    turn(1);
    assert_int_equal(shards[1].n_got, 64);
    uint8_t *data = (uint8_t *)(ring_between(0, 1) + 1);
    atomic_store(&((struct record_shm *)(data + 90 * 112))->flags_len, RECORD_LEN_MASK);
    shard_kill(&shards[0]);
    bury_and_tell(0, 26, 0);
    shard_open(&shards[0], 0, true);
    send(0, 1, 90, 2000); /* goes on beyond the old tail */
    send(0, 1, 91, 10);
    turns(3);
    expect_types(1, 0, 92);
    assert_int_equal(count(1, COUNTER_mesh_broken), 0);
}

static void a_ring_that_is_none_is_broken(void **state)
{
    send(0, 1, 0, 100);
    turn(0);
    ring_between(0, 1)->magic = 4711;
    turn(1);
    assert_int_equal(shards[1].n_got, 0);
    assert_int_equal(count(1, COUNTER_mesh_broken), 1);
    shard_kill(&shards[0]);
    uint64_t to_it;
    assert_int_equal(mesh_bury(mem, N_NODE, RING, 0, &to_it), 0);
    shard_open(&shards[0], 0, true);
    send(0, 1, 0, 100);
    assert_int_equal(count(0, COUNTER_mesh_broken), 1);
    assert_int_equal(counter_drop_get(&shards[0].counters, DROP_mesh_broken), 1);
    mesh_peer_died(shards[1].m, 0);
    turns(2);
    assert_int_equal(count(1, COUNTER_mesh_broken), 2);
}

static void the_message_larger_than_agreed_breaks_the_ring(void **state)
{
    int err;
    struct mesh_options opt = options_of(&shards[1]);
    mesh_free(shards[1].m);
    opt.message_max = 100 * KIB;
    shards[1].m = mesh_new(&opt, &err);
    mesh_start(shards[1].m);
    send(0, 1, 0, 101 * KIB);
    turns(3);
    assert_int_equal(shards[1].n_got, 0);
    assert_int_equal(count(1, COUNTER_mesh_broken), 1);
}

/* ---- life */

static void what_waits_at_the_end_is_counted(void **state)
{
    for (uint32_t n = 0; n < 100; n++)
        send(0, 1, n, 1000);
    mesh_free(shards[0].m);
    struct counters *c = &shards[0].counters;
    uint64_t left = counter_drop_get(c, DROP_mesh_left);
    assert_true(left > 0);
    assert_int_equal(count(0, COUNTER_mesh_messages_out) + left, 100);
    assert_int_equal(count(0, COUNTER_mesh_backlog_bytes), 0);
    turn(1);
    expect_types(1, 0, (unsigned)(100 - left));
    struct mesh_options opt = options_of(&shards[0]);
    int err;
    shards[0].m = mesh_new(&opt, &err);
    mesh_start(shards[0].m);
}

static void an_orderly_successor_goes_on_where_it_was_left(void **state)
{
    for (uint32_t n = 0; n < 100; n++)
        send(0, 1, n, 100);
    turn(0);
    shards[1].cost_ns = 100 * MS;
    turn(1);
    assert_int_equal(shards[1].n_got, 64); /* the bell's bit is taken */
    shard_close(&shards[1]);
    shard_open(&shards[1], 1, true);
    loop_turn(shards[1].l, 50 * MS);
    assert_true(waited_ns == 0);
    expect_types(1, 64, 36);
}

static void options_that_cannot_be_are_refused(void **state)
{
    struct mesh_options opt = options_of(&shards[0]);
    int err = 0;
    opt.ring_bytes = 32 * KIB;
    assert_null(mesh_new(&opt, &err));
    assert_int_equal(err, -EINVAL);
    opt.ring_bytes = 96 * KIB;
    assert_null(mesh_new(&opt, &err));
    assert_int_equal(err, -EINVAL);
    opt = options_of(&shards[0]);
    opt.me = N_NODE;
    assert_null(mesh_new(&opt, &err));
    assert_int_equal(err, -EINVAL);
    opt = options_of(&shards[0]);
    opt.n_shards = 65;
    assert_null(mesh_new(&opt, &err));
    assert_int_equal(err, -EINVAL);
    opt = options_of(&shards[0]);
    opt.n_shards = 2; /* the memory was made for another node */
    assert_null(mesh_new(&opt, &err));
    assert_int_equal(err, -EPROTO);
}

static void one_shard_alone_needs_no_memory(void **state)
{
    struct mesh_options opt = options_of(&shards[0]);
    uint64_t to_it = 1;
    int err;
    opt.n_shards = 1;
    opt.mem = NULL;
    struct mesh *m = mesh_new(&opt, &err);
    assert_non_null(m);
    mesh_start(m);
    mesh_read(m);
    mesh_flush(m);
    mesh_free(m);
    assert_int_equal(mesh_bury(NULL, 1, RING, 0, &to_it), 0);
    assert_int_equal(to_it, 0);
}

/* Pages of a memfd that were ever touched. */
static size_t resident_bytes(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return (size_t)st.st_blocks * 512;
}

static void many_shards_cost_nothing_until_they_talk(void **state)
{
    enum { N = MESH_SHARDS_MAX };
    struct mesh *many[N];
    struct ring_map map;
    size_t bytes = mesh_bytes(N, 1024 * KIB), heads = mesh__rings_offset(N);
    uint64_t to_it;
    int err;
    assert_true(bytes > (size_t)N * N * 1024 * KIB);
    assert_int_equal(ring_shm_create(NULL, bytes, &map), 0);
    for (unsigned i = 0; i < N; i++) {
        struct mesh_options opt = options_of(&shards[0]);
        opt.me = i;
        opt.n_shards = N;
        opt.mem = map.mem;
        opt.ring_bytes = 1024 * KIB;
        opt.wake_always = true;
        many[i] = mesh_new(&opt, &err);
        assert_non_null(many[i]);
        mesh_start(many[i]);
    }
    for (unsigned i = 0; i < N; i++)
        mesh_peer_died(many[i], (i + 7) % N);
    turn(0);
    mesh_bury(map.mem, N, 1024 * KIB, 5, &to_it);
    assert_true(resident_bytes(map.fd) <= heads);
    fill(payload, 1, 100);
    assert_true(mesh_send(many[63], 0, 1, &(struct slice){payload, 100}, 1, NULL));
    turn(0);
    turn(0);
    assert_int_equal(shards[0].n_got, 1);
    assert_int_equal(shards[0].got[0].from, 63);
    assert_true(resident_bytes(map.fd) <= heads + 2 * MESH_PAGE);
    for (unsigned i = 0; i < N; i++)
        mesh_free(many[i]);
    assert_true(resident_bytes(map.fd) <= heads + 2 * MESH_PAGE);
    ring_shm_unmap(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_message_arrives_in_the_turn_after_the_flush),
        TEST(there_is_no_rest_before_all_is_taken),
        TEST(parts_are_put_together),
        TEST(every_size_arrives_in_order),
        TEST(all_pairs_at_once),
        TEST(a_callback_may_send_to_anybody),
        TEST(what_finds_no_room_waits_and_room_is_told),
        TEST(a_try_never_waits),
        TEST(a_try_does_not_overtake_the_backlog),
        TEST(a_source_that_goes_on_when_room_is_told_gets_all_through),
        TEST(there_is_room_for_what_was_tried),
        TEST(a_note_is_told_at_once_when_there_is_room),
        TEST(notes_that_wait_are_told_in_order_when_they_are_visible),
        TEST(messages_with_a_note_find_room_when_bulk_does_not),
        TEST(a_note_may_send),
        TEST(a_try_that_is_refused_within_a_note_is_told_of_room_too),
        TEST(room_is_told_also_when_nothing_has_to_wait_in_the_end),
        TEST(reading_stops_when_the_turn_is_over_and_goes_on_in_the_next),
        TEST(a_busy_peer_does_not_keep_the_others_waiting),
        TEST(only_a_sleeper_is_woken_and_once),
        TEST(nobody_sleeps_with_something_to_read_or_to_show),
        TEST(who_slept_and_was_not_woken_is_awake_all_the_same),
        TEST(everything_is_shown_before_the_sleep),
        TEST(with_wake_always_each_publish_wakes),
        TEST(a_successor_gets_what_its_predecessor_did_not_take),
        TEST(what_the_dead_has_shown_is_read),
        TEST(half_a_message_of_the_dead_is_dropped_and_counted),
        TEST(a_sender_that_waits_for_a_dead_one_goes_on_with_its_successor),
        TEST(a_message_is_taken_when_its_callback_has_returned),
        TEST(a_broken_ring_is_not_read_until_its_sender_was_replaced),
        TEST(messages_into_a_broken_ring_are_dropped_and_counted),
        TEST(both_sides_are_told_once_of_a_broken_ring),
        TEST(a_broken_ring_whose_other_side_was_replaced_is_not_told),
        TEST(what_is_cut_off_by_the_repair_is_not_read),
        TEST(a_ring_that_is_none_is_broken),
        TEST(the_message_larger_than_agreed_breaks_the_ring),
        TEST(what_waits_at_the_end_is_counted),
        TEST(an_orderly_successor_goes_on_where_it_was_left),
        TEST(options_that_cannot_be_are_refused),
        TEST(one_shard_alone_needs_no_memory),
        TEST(many_shards_cost_nothing_until_they_talk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
