// SPDX-License-Identifier: MIT
#include "supervisor/watchdog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define TIMEOUT_MS 4000
#define STEP_MS    1000

static uint64_t now_ms;

/* Looks for that long; how many deadlines were missed at its end (0: none in that time). */
static unsigned look_for(struct watchdog *w, uint64_t turns, uint64_t ms)
{
    unsigned missed = 0;
    for (uint64_t end = now_ms + ms; now_ms < end;) {
        now_ms += STEP_MS;
        unsigned m = watchdog_look(w, turns, now_ms, TIMEOUT_MS);
        if (m > 0)
            missed = m;
    }
    return missed;
}

static void one_that_turns_is_left_alone(void **state)
{
    struct watchdog w = {0};
    for (uint64_t turns = 0; turns < 100; turns++)
        assert_int_equal(look_for(&w, turns, 3000), 0);
}

static void deadlines_are_counted_one_by_one(void **state)
{
    struct watchdog w = {0};
    assert_int_equal(look_for(&w, 7, STEP_MS), 0); /* the first look only sees where it is */
    assert_int_equal(look_for(&w, 7, 3000), 0);
    assert_int_equal(look_for(&w, 7, STEP_MS), 1);
    assert_int_equal(look_for(&w, 7, 3000), 0);
    assert_int_equal(look_for(&w, 7, STEP_MS), 2);
    assert_int_equal(look_for(&w, 7, 4000), 3);
    assert_int_equal(look_for(&w, 7, 4000), 4);
}

static void one_turn_is_enough_to_start_again(void **state)
{
    struct watchdog w = {0};
    look_for(&w, 7, 9000);
    assert_int_equal(w.missed, 2);
    assert_int_equal(look_for(&w, 8, 4000), 0);
    assert_int_equal(w.missed, 0);
    assert_int_equal(look_for(&w, 8, STEP_MS), 1);
}

/* As after Ctrl-Z and fg, or a machine that was halted. */
static void who_did_not_look_accuses_nobody(void **state)
{
    struct watchdog w = {0};
    look_for(&w, 7, STEP_MS);
    now_ms += 3600 * 1000;
    assert_int_equal(watchdog_look(&w, 7, now_ms, TIMEOUT_MS), 0);
    assert_int_equal(look_for(&w, 7, 3000), 0);
    assert_int_equal(look_for(&w, 7, STEP_MS), 1);
}

static void a_successor_starts_afresh(void **state)
{
    struct watchdog w = {0};
    look_for(&w, 7, 13000);
    assert_int_equal(w.missed, 3);
    watchdog_reset(&w);
    assert_int_equal(look_for(&w, 7, 4000), 0);
    assert_int_equal(look_for(&w, 7, STEP_MS), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_turns_is_left_alone),
        cmocka_unit_test(deadlines_are_counted_one_by_one),
        cmocka_unit_test(one_turn_is_enough_to_start_again),
        cmocka_unit_test(who_did_not_look_accuses_nobody),
        cmocka_unit_test(a_successor_starts_afresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
