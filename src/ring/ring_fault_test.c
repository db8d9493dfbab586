// SPDX-License-Identifier: MIT
/* A process that dies in the middle: at each named place (ring_fault.h) by ending itself there, and at every
 * single instruction by being stepped through under ptrace, where a stopped process leaves the same bytes as
 * a dead one. Each time: what is left is valid, repair changes nothing that was published, nothing else is to
 * be seen, and successors can go on. */
#define TGG_RING_FAULTS /* as the library that it is linked with */
#include "ring/ring_util_test.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/ring_map.h"
#include "ring/ring_message.h"

#define SIZE    4096
#define RESERVE 512
/* The padding comes in the second batch, and positions wrap there. */
#define START            (UINT64_C(0) - 640)
#define DIED             77
#define MESSAGE_BYTES    4000
#define BOUNDARIES_MAX   32
#define CHANGES_AT_LEAST 100

static enum ring_fault die_at = RING_FAULT_N;
static unsigned die_after; /* so many times at that place */

void ring__fault(enum ring_fault at)
{
    if (at == die_at && die_after-- == 0)
        _exit(DIED);
}

static struct ring_map shared;
static uint8_t *reference, *copy; /* rings like the shared one */
static uint64_t boundaries[BOUNDARIES_MAX];
static unsigned n_boundaries;

static void boundary(uint64_t pos)
{
    if (n_boundaries < BOUNDARIES_MAX)
        boundaries[n_boundaries++] = pos;
}

static bool is_boundary(uint64_t pos)
{
    for (unsigned i = 0; i < n_boundaries; i++) {
        if (boundaries[i] == pos)
            return true;
    }
    return false;
}

static void publish(struct ring_writer *w)
{
    (void)ring_publish(w);
    boundary(w->tail);
}

/* All that a producer does: batches, padding, classes, fragments, a full ring. Ends the process if it cannot.
 */
static void produce(void *mem)
{
    static uint8_t message[MESSAGE_BYTES];
    struct ring_writer w;
    uint8_t *p;
    if (ring_writer_attach(&w, mem, shared.bytes, NULL, 0) < 0)
        _exit(1);
    for (uint32_t batch = 0; batch < 3; batch++) {
        for (uint32_t i = 0; i < 3; i++) {
            uint32_t type = batch * 3 + i, len = 40 + type * 17;
            if (ring_reserve(&w, type % 2 ? RING_BULK : RING_LIFECYCLE, type, len, &p) < 0)
                _exit(1);
            fill(p, type, len);
        }
        publish(&w);
    }
    fill(message, 50, sizeof message);
    struct ring_sending s = {.data = message, .len = sizeof message, .type = 50};
    int r = ring_send(&w, &s);
    publish(&w);
    if (r != (int)-EAGAIN || !ring_want_room(&w, RING_BULK, ring_send_room(&w, &s)))
        _exit(1);
    if (ring_reserve(&w, RING_LIFECYCLE, 60, 100, &p) < 0)
        _exit(1);
    fill(p, 60, 100);
    publish(&w);
    if (ring_reserve(&w, RING_LIFECYCLE, 61, 100, &p) == 0) /* and dies with something reserved */
        fill(p, 61, 100);
}

/* All that a consumer does, on a ring in which produce has been. */
static void consume(void *mem)
{
    struct ring_reader r;
    struct ring_record got;
    if (ring_reader_attach(&r, mem, shared.bytes, true) < 0 || ring_prepare_sleep(&r))
        _exit(1);
    for (unsigned batch = 1, more = 1; more; batch++) {
        for (unsigned i = 0; i < batch && more; i++)
            more = ring_read(&r, &got) == 1;
        (void)ring_release(&r);
        boundary(r.head);
    }
    if (!ring_prepare_sleep(&r))
        _exit(1);
    ring_cancel_sleep(&r);
}

static void make(void *mem, bool consumer_sleeps)
{
    struct ring_params params = {.size = SIZE, .reserve = RESERVE, .start = START};
    memset(mem, 0xa5, ring_bytes(SIZE));
    assert_int_equal(ring_format(mem, ring_bytes(SIZE), &params), 0);
    atomic_store(&((struct ring_shm *)mem)->bell.asleep, consumer_sleeps);
    n_boundaries = 0;
    boundary(START);
}

/* Everything from the head of `mem` on is what the reference has there. How many records that was. */
static unsigned same_records(void *mem)
{
    struct ring_reader r, wanted;
    struct ring_record got, want;
    unsigned n = 0;
    assert_int_equal(ring_reader_attach(&r, mem, shared.bytes, true), 0);
    assert_int_equal(ring_reader_attach(&wanted, reference, shared.bytes, true), 0);
    wanted.next = r.next; /* the reference has released nothing */
    wanted.tail = atomic_load(&((struct ring_shm *)reference)->tail);
    for (; ring_read(&r, &got) == 1; n++) {
        assert_int_equal(ring_read(&wanted, &want), 1);
        assert_true(got.type == want.type && got.len == want.len && got.class == want.class);
        assert_true(got.more == want.more && got.continues == want.continues);
        assert_memory_equal(got.data, want.data, got.len);
    }
    assert_false(r.broken);
    return n;
}

static void go_on_from(void *mem)
{
    struct ring_writer w;
    struct ring_reader r;
    struct ring_receiver rv;
    struct ring_record got = {0};
    assert_int_equal(ring_writer_attach(&w, mem, shared.bytes, NULL, 0), 0);
    assert_int_equal(ring_reader_attach(&r, mem, shared.bytes, true), 0);
    ring_receiver_init(&rv, &r, MESSAGE_BYTES);
    for (int n; (n = ring_receive(&rv, &got)) != 0;)
        assert_int_equal(n, 1);
    ring_release(&r);
    assert_int_equal(put(&w, RING_BULK, 99, ring_record_max(&w)), 0);
    ring_publish(&w);
    assert_int_equal(ring_receive(&rv, &got), 1); /* whatever was unfinished is dropped */
    assert_true(got.type == 99 && is_filled(got.data, 99, got.len));
    ring_receiver_fini(&rv);
}

static void check_after_producer(void *mem)
{
    struct ring_report before, after;
    struct ring_shm *shm = mem;
    assert_int_equal(ring_valid(mem, shared.bytes, &before), 0);
    assert_true(is_boundary(before.tail));
    assert_int_equal(ring_repair(mem, shared.bytes, RING_DEAD_PRODUCER, NULL, 0, &after), 0);
    assert_null(after.fault);
    assert_true(after.tail == before.tail && after.head == before.head && after.cut_bytes == 0);
    assert_int_equal(same_records(mem), after.records[0] + after.records[1]);
    assert_true(atomic_load(&shm->bell.rung) == 1 && atomic_load(&shm->bell.asleep) == 0);
    go_on_from(mem);
}

static void check_after_consumer(void *mem)
{
    struct ring_report before, after;
    assert_int_equal(ring_valid(mem, shared.bytes, &before), 0);
    assert_true(is_boundary(before.head));
    assert_int_equal(ring_repair(mem, shared.bytes, RING_DEAD_CONSUMER, NULL, 0, &after), 0);
    assert_null(after.fault);
    assert_true(after.tail == before.tail && after.head == before.head && after.cut_bytes == 0);
    assert_int_equal(same_records(mem), after.records[0] + after.records[1]);
    go_on_from(mem);
}

/* ---- named places */

/* Child that does `what` on the shared ring and ends at that place; whether it came there. */
static bool dies(void (*what)(void *), enum ring_fault at, unsigned after)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        die_at = at;
        die_after = after;
        what(shared.mem);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == DIED || WEXITSTATUS(status) == 0));
    return WEXITSTATUS(status) == DIED;
}

static void make_reference(void)
{
    make(reference, false);
    produce(reference);
}

static void a_producer_that_dies_at_a_named_place_leaves_a_ring_in_order(void **state)
{
    static const enum ring_fault places[] = {
        RING_FAULT_reserve_padding, RING_FAULT_reserve_head, RING_FAULT_publish_begin,
        RING_FAULT_publish_tail,    RING_FAULT_bell_rung,    RING_FAULT_bell_sleeper,
        RING_FAULT_room_wanted,     RING_FAULT_room_begin,   RING_FAULT_bell_look};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        unsigned n = 0;
        for (;; n++) {
            make(shared.mem, true);
            make_reference();
            if (!dies(produce, places[i], n))
                break;
            check_after_producer(shared.mem);
        }
        assert_true(n > 0);
    }
}

static void a_consumer_that_dies_at_a_named_place_leaves_a_ring_in_order(void **state)
{
    static const enum ring_fault places[] = {RING_FAULT_read_record,     RING_FAULT_release_begin,
                                             RING_FAULT_release_head,    RING_FAULT_release_room,
                                             RING_FAULT_sleep_announced, RING_FAULT_bell_taken,
                                             RING_FAULT_sleep_begin};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        unsigned n = 0;
        for (;; n++) {
            make_reference();
            memcpy(copy, reference, shared.bytes);
            n_boundaries = 0;
            boundary(START);
            consume(copy); /* its boundaries */
            memcpy(shared.mem, reference, shared.bytes);
            if (!dies(consume, places[i], n))
                break;
            check_after_consumer(shared.mem);
        }
        assert_true(n > 0);
    }
}

/* ---- every instruction */

static pid_t start_traced(void (*what)(void *))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(2);
        raise(SIGSTOP);
        what(shared.mem);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status)); /* else there is no ptrace here */
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL), 0);
    return pid;
}

/* check is given a copy of the shared ring after every instruction that changed it. How many did. */
static unsigned step_through(void (*what)(void *), void (*check)(void *))
{
    int status;
    unsigned changes = 0;
    uint8_t *last = malloc(shared.bytes);
    pid_t pid = start_traced(what);
    memcpy(last, shared.mem, shared.bytes);
    for (;;) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSTOPPED(status))
            break;
        assert_int_equal(WSTOPSIG(status), SIGTRAP);
        if (memcmp(last, shared.mem, shared.bytes) == 0)
            continue;
        memcpy(last, shared.mem, shared.bytes);
        memcpy(copy, shared.mem, shared.bytes);
        check(copy);
        changes++;
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    free(last);
    return changes;
}

static void a_producer_that_dies_at_any_instruction_leaves_a_ring_in_order(void **state)
{
    make(shared.mem, true);
    make_reference();
    assert_true(step_through(produce, check_after_producer) > CHANGES_AT_LEAST);
}

static void a_consumer_that_dies_at_any_instruction_leaves_a_ring_in_order(void **state)
{
    make_reference();
    memcpy(copy, reference, shared.bytes);
    n_boundaries = 0;
    boundary(START);
    consume(copy);
    memcpy(shared.mem, reference, shared.bytes);
    /* It writes little: the bits of the bell, asleep, a head for each batch. */
    assert_true(step_through(consume, check_after_consumer) >= n_boundaries);
}

static int open_memory(void **state)
{
    assert_int_equal(ring_shm_create(NULL, ring_bytes(SIZE), &shared), 0);
    reference = aligned_alloc(64, shared.bytes);
    copy = aligned_alloc(64, shared.bytes);
    assert_true(reference != NULL && copy != NULL);
    return 0;
}

static int close_memory(void **state)
{
    ring_shm_unmap(&shared);
    free(reference);
    free(copy);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_producer_that_dies_at_a_named_place_leaves_a_ring_in_order),
        cmocka_unit_test(a_consumer_that_dies_at_a_named_place_leaves_a_ring_in_order),
        cmocka_unit_test(a_producer_that_dies_at_any_instruction_leaves_a_ring_in_order),
        cmocka_unit_test(a_consumer_that_dies_at_any_instruction_leaves_a_ring_in_order),
    };
    return cmocka_run_group_tests(tests, open_memory, close_memory);
}
