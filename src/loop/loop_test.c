// SPDX-License-Identifier: MIT
#include "loop/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MS UINT64_C(1000000)

static uint64_t virtual_ns;
static struct loop *l;

static uint64_t virtual_now(void *ctx)
{
    return virtual_ns;
}
static const struct loop_clock virtual_clock = {.now_ns = virtual_now};

/* Waits by moving the time on. */
static uint64_t waited_ns;
static void (*deliver)(void);

static int virtual_poll(void *ctx, uint64_t timeout_ns)
{
    waited_ns = timeout_ns;
    if (timeout_ns != UINT64_MAX)
        virtual_ns += timeout_ns;
    loop_poll_returned(l);
    if (deliver != NULL)
        deliver();
    return 0;
}
static const struct loop_poller virtual_poller = {.poll = virtual_poll};

static int setup(void **state)
{
    virtual_ns = 123456789;
    deliver = NULL;
    l = loop_new(&virtual_clock, 10 * MS);
    loop_set_poller(l, &virtual_poller);
    return l == NULL;
}

static int teardown(void **state)
{
    loop_free(l);
    return 0;
}

/* ---- timers ---- */

struct alarm {
    struct timer timer;
    unsigned fired;
    uint64_t at_ns;
};

static void ring(struct timer *t)
{
    struct alarm *a = (struct alarm *)t;
    a->fired++;
    a->at_ns = loop_now_ns(l);
}

static void ring_and_stop(struct timer *t)
{
    ring(t);
    loop_stop(l);
}

static void a_timer_fires_neither_early_nor_a_tick_late(void **state)
{
    for (uint64_t delay_ms = 0; delay_ms < 1000; delay_ms += 7) {
        struct alarm a = {0};
        uint64_t set_ns = virtual_ns += 1234567;
        timer_set(l, &a.timer, delay_ms, ring_and_stop);
        loop_run(l);
        assert_int_equal(a.fired, 1);
        assert_true(a.at_ns >= set_ns + delay_ms * MS);
        assert_true(a.at_ns <= set_ns + (delay_ms + LOOP_TICK_MS) * MS);
        assert_false(timer_is_set(&a.timer));
    }
}

static void a_timer_set_again_moves(void **state)
{
    struct alarm a = {0};
    uint64_t set_ns = virtual_ns;
    timer_set(l, &a.timer, 10, ring_and_stop);
    timer_set(l, &a.timer, 500, ring_and_stop);
    assert_true(timer_is_set(&a.timer));
    loop_run(l);
    assert_int_equal(a.fired, 1);
    assert_true(a.at_ns >= set_ns + 500 * MS);
    timer_set(l, &a.timer, 10, ring);
    timer_cancel(l, &a.timer);
    timer_cancel(l, &a.timer);
    assert_false(timer_is_set(&a.timer));
    assert_true(loop_next_ns(l) == UINT64_MAX);
}

static void a_huge_delay_is_fine(void **state)
{
    struct alarm a = {0};
    timer_set(l, &a.timer, UINT64_MAX, ring);
    loop_turn(l, 5 * MS);
    assert_int_equal(a.fired, 0);
    timer_cancel(l, &a.timer);
}

static void poll_waits_no_longer_than_asked_or_than_the_timer(void **state)
{
    struct alarm a = {0};
    loop_turn(l, 3 * MS);
    assert_true(waited_ns == 3 * MS);
    timer_set(l, &a.timer, 100, ring);
    loop_turn(l, 3 * MS);
    assert_true(waited_ns == 3 * MS);
    for (unsigned i = 0; a.fired == 0; i++) {
        assert_true(i < 5);
        loop_turn(l, UINT64_MAX);
        assert_true(waited_ns <= 108 * MS);
    }
    loop_turn(l, UINT64_MAX);
    assert_true(waited_ns == UINT64_MAX);
    loop_turn(l, 0);
    assert_true(waited_ns == 0);
}

static void a_jump_of_the_clock_fires_everything_once(void **state)
{
    struct alarm a[100] = {0};
    for (unsigned i = 0; i < 100; i++)
        timer_set(l, &a[i].timer, i * i * i, ring);
    virtual_ns += 3600 * 1000 * MS;
    loop_turn(l, 0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(a[i].fired, 1);
}

static struct alarm from_poll;

static void set_from_poll(void)
{
    if (from_poll.timer.next == NULL && from_poll.fired == 0)
        timer_set(l, &from_poll.timer, 20, ring_and_stop);
}

/* The wait before the delivery must not count for timers set in the delivery. */
static void the_turn_begins_after_the_wait(void **state)
{
    from_poll = (struct alarm){0};
    deliver = set_from_poll;
    loop_turn(l, 500 * MS);
    uint64_t set_ns = virtual_ns;
    assert_true(loop_now_ns(l) == set_ns);
    loop_run(l);
    assert_true(from_poll.at_ns >= set_ns + 20 * MS);
    assert_true(from_poll.at_ns <= set_ns + 28 * MS);
}

/* ---- tasks ---- */

struct job {
    struct loop_task task;
    unsigned runs, runs_wanted;
    uint64_t cost_ns;  /* of a slice; 0: all that is left */
    uint64_t share_ns; /* what the last slice was given */
    struct job *remove, *add;
    bool add_self;
};
static char order[64];

static bool job_run(struct loop_task *t)
{
    struct job *j = (struct job *)t;

    if (strlen(order) < sizeof(order) - 1)
        order[strlen(order)] = (char)('a' + (int)(j->runs_wanted % 26));
    j->share_ns = loop_turn_left_ns(l);
    virtual_ns += j->cost_ns != 0 ? j->cost_ns : j->share_ns;
    j->runs++;
    if (j->remove != NULL)
        loop_task_remove(l, &j->remove->task);
    if (j->add != NULL)
        loop_task_add(l, &j->add->task);
    if (j->add_self) {
        j->add_self = false;
        loop_task_add(l, t);
        return true;
    }
    return j->runs == j->runs_wanted;
}

static void a_task_runs_once_a_turn_until_done(void **state)
{
    struct job j = {.task.run = job_run, .runs_wanted = 3, .cost_ns = MS};
    loop_task_add(l, &j.task);
    loop_task_add(l, &j.task);
    for (unsigned i = 1; i <= 3; i++) {
        loop_turn(l, UINT64_MAX);
        assert_true(waited_ns == 0);
        assert_int_equal(j.runs, i);
    }
    loop_turn(l, 7 * MS);
    assert_true(waited_ns == 7 * MS);
    assert_int_equal(j.runs, 3);
    assert_null(j.task.next);
}

static void greedy_tasks_share_the_turn(void **state)
{
    struct job a = {.task.run = job_run, .runs_wanted = 5};
    struct job b = {.task.run = job_run, .runs_wanted = 5};
    struct loop_stats stats;
    loop_task_add(l, &a.task);
    loop_task_add(l, &b.task);
    for (unsigned i = 1; i <= 5; i++) {
        loop_turn(l, 0);
        assert_int_equal(a.runs, i);
        assert_int_equal(b.runs, i);
        assert_true(a.share_ns == 5 * MS);
        assert_true(b.share_ns == 5 * MS);
    }
    loop_stats_get(l, &stats);
    assert_true(stats.turn_ns_longest == 10 * MS);
    assert_int_equal(stats.turns_over_budget, 0);
}

static void a_task_gets_its_run_also_in_a_turn_that_is_over(void **state)
{
    struct job slow = {.task.run = job_run, .runs_wanted = 4, .cost_ns = 50 * MS};
    struct job quick = {.task.run = job_run, .runs_wanted = 4, .cost_ns = 1};
    struct loop_stats stats;
    loop_task_add(l, &slow.task);
    loop_task_add(l, &quick.task);
    for (unsigned i = 0; i < 4; i++)
        loop_turn(l, 0);
    assert_int_equal(slow.runs, 4);
    assert_int_equal(quick.runs, 4);
    assert_int_equal(quick.share_ns, 0);
    loop_stats_get(l, &stats);
    assert_int_equal(stats.turns, 4);
    assert_int_equal(stats.turns_over_budget, 4);
}

static void tasks_run_in_the_order_they_came(void **state)
{
    struct job a = {.task.run = job_run, .runs_wanted = 26, .cost_ns = 1}; /* 'a' + runs_wanted % 26 */
    struct job b = {.task.run = job_run, .runs_wanted = 27, .cost_ns = 1};
    struct job c = {.task.run = job_run, .runs_wanted = 28, .cost_ns = 1};
    memset(order, 0, sizeof(order));
    loop_task_add(l, &a.task);
    loop_task_add(l, &b.task);
    a.add = &c; /* queued by a in its first run: not before the next turn */
    loop_turn(l, 0);
    assert_string_equal(order, "ab");
    loop_turn(l, 0);
    assert_string_equal(order, "abcab");
    loop_task_remove(l, &a.task);
    loop_task_remove(l, &b.task);
    loop_task_remove(l, &c.task);
    loop_task_remove(l, &c.task);
}

static void a_task_can_remove_itself_and_others(void **state)
{
    struct job a = {.task.run = job_run, .runs_wanted = 9, .cost_ns = 1};
    struct job b = {.task.run = job_run, .runs_wanted = 9, .cost_ns = 1};
    a.remove = &b;
    b.remove = &b;
    loop_task_add(l, &a.task);
    loop_task_add(l, &b.task);
    loop_turn(l, 0);
    assert_int_equal(b.runs, 0);
    a.remove = &a;
    loop_turn(l, 0);
    loop_turn(l, 0);
    assert_int_equal(a.runs, 2);
}

static void a_task_that_adds_itself_again_stays(void **state)
{
    struct job a = {.task.run = job_run, .runs_wanted = 2, .cost_ns = 1, .add_self = true};
    loop_task_add(l, &a.task);
    loop_turn(l, 0);
    loop_turn(l, 0);
    loop_turn(l, 0);
    assert_int_equal(a.runs, 2);
}

static bool free_self(struct loop_task *t)
{
    free(t);
    return true;
}

static void a_task_that_is_done_may_be_freed(void **state)
{
    struct loop_task *t = calloc(1, sizeof(*t));
    t->run = free_self;
    loop_task_add(l, t);
    loop_turn(l, 0);
}

/* ---- hooks ---- */

struct end {
    struct loop_hook hook;
    char name;
    unsigned again;
    struct end *remove;
};

static bool end_run(struct loop_hook *h)
{
    struct end *e = (struct end *)h;

    order[strlen(order)] = e->name;
    if (e->remove != NULL)
        loop_hook_remove(l, &e->remove->hook);
    if (e->again > 0) {
        e->again--;
        return true;
    }
    return false;
}

static void hooks_run_in_order_at_the_end_of_every_turn(void **state)
{
    struct end a = {.hook.run = end_run, .name = 'a'}, b = {.hook.run = end_run, .name = 'b'};
    struct job j = {.task.run = job_run, .runs_wanted = 25, .cost_ns = 1};
    memset(order, 0, sizeof(order));
    loop_hook_add(l, &a.hook);
    loop_hook_add(l, &b.hook);
    loop_task_add(l, &j.task);
    loop_turn(l, 0);
    loop_turn(l, 0);
    assert_string_equal(order, "zabzab");
    loop_task_remove(l, &j.task);
    loop_hook_remove(l, &a.hook);
    loop_turn(l, 0);
    assert_string_equal(order, "zabzabb");
    loop_hook_remove(l, &b.hook);
}

static void a_hook_that_wants_it_gets_another_turn_at_once(void **state)
{
    struct end a = {.hook.run = end_run, .name = 'a', .again = 1};
    memset(order, 0, sizeof(order));
    loop_hook_add(l, &a.hook);
    loop_turn(l, 5 * MS);
    assert_true(waited_ns == 5 * MS);
    assert_true(loop_next_ns(l) == 0);
    loop_turn(l, 5 * MS);
    assert_true(waited_ns == 0);
    loop_turn(l, 5 * MS);
    assert_true(waited_ns == 5 * MS);
    loop_hook_remove(l, &a.hook);
}

static void hooks_can_be_removed_while_they_run(void **state)
{
    struct end a = {.hook.run = end_run, .name = 'a'}, b = {.hook.run = end_run, .name = 'b'};
    struct end c = {.hook.run = end_run, .name = 'c'};
    memset(order, 0, sizeof(order));
    loop_hook_add(l, &a.hook);
    loop_hook_add(l, &b.hook);
    loop_hook_add(l, &c.hook);
    a.remove = &b; /* the next */
    c.remove = &c; /* itself */
    loop_turn(l, 0);
    assert_string_equal(order, "ac");
    loop_turn(l, 0);
    assert_string_equal(order, "aca");
    loop_hook_remove(l, &a.hook);
}

/* ---- sleep ---- */

struct guard {
    struct loop_sleeper sleeper;
    bool objects, asleep;
    unsigned asked, woken;
};
static struct guard guard;

static bool guard_may_sleep(struct loop_sleeper *s)
{
    struct guard *g = (struct guard *)s;
    assert_false(g->asleep);
    g->asked++;
    g->asleep = !g->objects;
    return g->asleep;
}

static void guard_awake(struct loop_sleeper *s)
{
    struct guard *g = (struct guard *)s;
    assert_true(g->asleep);
    g->asleep = false;
    g->woken++;
}

static void expect_awake(void)
{
    assert_false(guard.asleep);
}

static void guard_set(bool objects)
{
    guard = (struct guard){{guard_may_sleep, guard_awake}, .objects = objects};
    loop_set_sleeper(l, &guard.sleeper);
}

static void the_sleeper_is_asked_before_a_wait_and_told_before_the_delivery(void **state)
{
    guard_set(false);
    deliver = expect_awake;
    loop_turn(l, 3 * MS);
    assert_true(waited_ns == 3 * MS);
    loop_turn(l, UINT64_MAX);
    assert_true(waited_ns == UINT64_MAX);
    assert_int_equal(guard.asked, 2);
    assert_int_equal(guard.woken, 2);
}

static void the_sleeper_is_not_asked_when_nothing_would_wait(void **state)
{
    struct job j = {.task.run = job_run, .runs_wanted = 1, .cost_ns = MS};
    guard_set(false);
    loop_turn(l, 0);
    loop_task_add(l, &j.task);
    loop_turn(l, 3 * MS);
    assert_true(waited_ns == 0);
    loop_set_poller(l, NULL);
    loop_turn(l, 3 * MS);
    loop_set_poller(l, &virtual_poller);
    assert_int_equal(guard.asked, 0);
    assert_int_equal(guard.woken, 0);
    loop_set_sleeper(l, NULL);
    loop_turn(l, 3 * MS);
    assert_true(waited_ns == 3 * MS);
    assert_int_equal(guard.asked, 0);
}

static void a_sleeper_that_objects_makes_the_poll_not_wait(void **state)
{
    guard_set(true);
    loop_turn(l, 3 * MS);
    assert_true(waited_ns == 0);
    assert_int_equal(guard.asked, 1);
    assert_int_equal(guard.woken, 0);
    guard.objects = false;
    loop_turn(l, 3 * MS);
    assert_true(waited_ns == 3 * MS);
    assert_int_equal(guard.woken, 1);
}

static int mute_poll(void *ctx, uint64_t timeout_ns)
{
    assert_true(guard.asleep);
    return 0;
}

static void the_sleeper_is_told_also_by_a_poller_that_says_nothing(void **state)
{
    guard_set(false);
    loop_set_poller(l, &(struct loop_poller){.poll = mute_poll});
    loop_turn(l, 3 * MS);
    assert_false(guard.asleep);
    assert_int_equal(guard.woken, 1);
}

static void the_monotonic_clock_goes_on(void **state)
{
    uint64_t a = loop_clock_monotonic.now_ns(NULL);
    uint64_t b = loop_clock_monotonic.now_ns(NULL);
    assert_true(a > 0 && b >= a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_timer_fires_neither_early_nor_a_tick_late, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_set_again_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(a_huge_delay_is_fine, setup, teardown),
        cmocka_unit_test_setup_teardown(poll_waits_no_longer_than_asked_or_than_the_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_jump_of_the_clock_fires_everything_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_turn_begins_after_the_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_runs_once_a_turn_until_done, setup, teardown),
        cmocka_unit_test_setup_teardown(greedy_tasks_share_the_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_gets_its_run_also_in_a_turn_that_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(tasks_run_in_the_order_they_came, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_can_remove_itself_and_others, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_that_adds_itself_again_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_that_is_done_may_be_freed, setup, teardown),
        cmocka_unit_test_setup_teardown(hooks_run_in_order_at_the_end_of_every_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hook_that_wants_it_gets_another_turn_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(hooks_can_be_removed_while_they_run, setup, teardown),
        cmocka_unit_test_setup_teardown(the_sleeper_is_asked_before_a_wait_and_told_before_the_delivery,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_sleeper_is_not_asked_when_nothing_would_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sleeper_that_objects_makes_the_poll_not_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(the_sleeper_is_told_also_by_a_poller_that_says_nothing, setup,
                                        teardown),
        cmocka_unit_test(the_monotonic_clock_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
