// SPDX-License-Identifier: MIT
#include "loop/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct timer_wheel wheel;

struct seen {
    struct timer timer; /* first: so that a timer is its struct */
    unsigned fired;
    uint64_t fired_tick;
    uint64_t wanted_tick; /* the model's: 0 not set */
};

static void note(struct timer *t)
{
    struct seen *s = (struct seen *)t;
    s->fired++;
    s->fired_tick = wheel.tick;
}

static void fires_at_its_tick_at_every_distance(void **state)
{
    static const uint64_t starts[] = {
        0, 1, 63, 64, 4095, 4096, 1000000, (UINT64_C(1) << 24) - 1, UINT64_C(1) << 40};
    static const uint64_t edges[] = {1,        62,       63,       64,       65,        127,
                                     128,      4031,     4095,     4096,     4097,      8191,
                                     262143,   262144,   262145,   16777214, 16777215,  16777216,
                                     16777217, 33554431, 33554432, 99999999, 1234567890};
    for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        for (unsigned k = 0; k < sizeof(edges) / sizeof(edges[0]); k++) {
            struct seen s = {0};
            timer_wheel_init(&wheel, starts[i]);
            s.timer.fn = note;
            timer_wheel_add(&wheel, &s.timer, starts[i] + edges[k]);
            timer_wheel_advance(&wheel, starts[i] + edges[k] - 1);
            assert_int_equal(s.fired, 0);
            assert_true(timer_wheel_next(&wheel) == starts[i] + edges[k]); /* one tick before: exactly */
            timer_wheel_advance(&wheel, starts[i] + edges[k]);
            assert_int_equal(s.fired, 1);
            assert_true(timer_wheel_is_empty(&wheel));
        }
    }
}

static void a_tick_that_is_over_counts_as_the_next(void **state)
{
    struct seen s = {0};
    timer_wheel_init(&wheel, 1000);
    s.timer.fn = note;
    timer_wheel_add(&wheel, &s.timer, 500);
    assert_true(timer_wheel_next(&wheel) == 1001);
    timer_wheel_advance(&wheel, 1001);
    assert_int_equal(s.fired, 1);
}

static void a_long_idle_jump_is_cheap(void **state)
{
    struct seen s = {0};
    timer_wheel_init(&wheel, 0);
    timer_wheel_advance(&wheel, UINT64_C(1) << 60); /* tick by tick this would never end */
    s.timer.fn = note;
    timer_wheel_add(&wheel, &s.timer, (UINT64_C(1) << 60) + 5);
    timer_wheel_advance(&wheel, (UINT64_C(1) << 60) + 1000);
    assert_true(s.fired_tick == (UINT64_C(1) << 60) + 5);
}

static void again_each_tick(struct timer *t)
{
    note(t);
    timer_wheel_add(&wheel, t, 0);
}

static void a_timer_that_sets_itself_fires_once_a_tick(void **state)
{
    struct seen s = {0};
    timer_wheel_init(&wheel, 0);
    s.timer.fn = again_each_tick;
    timer_wheel_add(&wheel, &s.timer, 1);
    timer_wheel_advance(&wheel, 1000);
    assert_int_equal(s.fired, 1000);
    timer_wheel_remove(&wheel, &s.timer);
    assert_true(timer_wheel_is_empty(&wheel));
}

static struct seen *victim;

static void cancel_victim(struct timer *t)
{
    note(t);
    if (victim->timer.next != NULL)
        timer_wheel_remove(&wheel, &victim->timer);
}

static void a_timer_can_cancel_another_of_the_same_tick(void **state)
{
    struct seen s[3] = {0};
    timer_wheel_init(&wheel, 0);
    s[0].timer.fn = note;
    s[1].timer.fn = cancel_victim;
    s[2].timer.fn = note;
    for (unsigned i = 0; i < 3; i++)
        timer_wheel_add(&wheel, &s[i].timer, 7);
    victim = &s[2];
    timer_wheel_advance(&wheel, 10);
    assert_int_equal(s[0].fired, 1);
    assert_int_equal(s[1].fired, 1);
    assert_int_equal(s[2].fired, 0);
    assert_true(timer_wheel_is_empty(&wheel));
}

/* ---- against a model that knows only "wanted_tick" ---- */

enum { N_TIMERS = 300 };
static struct seen timers[N_TIMERS];
static uint64_t last_fired_tick;

static uint64_t random_distance(void)
{
    static const unsigned bits[] = {1, 3, 6, 7, 12, 13, 18, 19, 24, 26};
    uint64_t r = (uint64_t)rand() << 20 ^ (uint64_t)rand();
    return 1 + r % (UINT64_C(1) << bits[(unsigned)rand() % (sizeof(bits) / sizeof(bits[0]))]);
}

static void model_fire(struct timer *t)
{
    struct seen *s = (struct seen *)t;

    assert_true(s->wanted_tick == wheel.tick);
    assert_true(wheel.tick >= last_fired_tick);
    last_fired_tick = wheel.tick;
    s->wanted_tick = 0;
    struct seen *other = &timers[(unsigned)rand() % N_TIMERS];
    if (rand() % 4 == 0 && other->wanted_tick != 0) {
        timer_wheel_remove(&wheel, &other->timer);
        other->wanted_tick = 0;
    } else if (rand() % 4 == 0 && other->wanted_tick == 0) {
        other->wanted_tick = wheel.tick + random_distance();
        timer_wheel_add(&wheel, &other->timer, other->wanted_tick);
    }
}

static uint64_t model_next(void)
{
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < N_TIMERS; i++) {
        if (timers[i].wanted_tick != 0 && timers[i].wanted_tick < next)
            next = timers[i].wanted_tick;
    }
    return next;
}

static void toggle(struct seen *s)
{
    if (s->wanted_tick != 0) {
        timer_wheel_remove(&wheel, &s->timer);
        s->wanted_tick = 0;
    } else {
        s->timer.fn = model_fire;
        s->wanted_tick = wheel.tick + random_distance();
        timer_wheel_add(&wheel, &s->timer, s->wanted_tick);
    }
}

static void random_life_agrees_with_the_model(void **state)
{
    for (unsigned seed = 1; seed <= 20; seed++) {
        srand(seed);
        memset(timers, 0, sizeof(timers));
        for (unsigned i = 0; i < N_TIMERS; i++)
            timers[i].timer.fn = model_fire;
        timer_wheel_init(&wheel, (uint64_t)rand() * (uint64_t)(rand() % 3));
        last_fired_tick = 0;
        for (unsigned round = 0; round < 3000; round++) {
            for (unsigned i = (unsigned)rand() % 5; i > 0; i--)
                toggle(&timers[(unsigned)rand() % N_TIMERS]);
            assert_true(timer_wheel_next(&wheel) <= model_next());
            uint64_t to = wheel.tick + random_distance();
            if (rand() % 2 == 0 && timer_wheel_next(&wheel) != UINT64_MAX)
                to = timer_wheel_next(&wheel);
            timer_wheel_advance(&wheel, to);
            assert_true(wheel.tick == to);
            assert_true(model_next() > to); /* nothing that was due is left */
        }
        for (unsigned i = 0; i < N_TIMERS; i++) {
            if (timers[i].wanted_tick != 0)
                timer_wheel_remove(&wheel, &timers[i].timer);
        }
        assert_true(timer_wheel_is_empty(&wheel));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_at_its_tick_at_every_distance),
        cmocka_unit_test(a_tick_that_is_over_counts_as_the_next),
        cmocka_unit_test(a_long_idle_jump_is_cheap),
        cmocka_unit_test(a_timer_that_sets_itself_fires_once_a_tick),
        cmocka_unit_test(a_timer_can_cancel_another_of_the_same_tick),
        cmocka_unit_test(random_life_agrees_with_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
