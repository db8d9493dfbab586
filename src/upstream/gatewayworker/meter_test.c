// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "upstream/gatewayworker/meter.h"

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

static void nothing_waits_at_first(void **state)
{
    struct meter m = {0};
    assert_int_equal(meter_age_ns(&m, 5 * S), 0);
}

static void age_counts_from_the_first_byte(void **state)
{
    struct meter m = {0};
    meter_waits(&m, 100, 200, 1 * S);
    for (uint64_t i = 1; i <= 1000; i++)
        meter_waits(&m, 100, 200 + i, 1 * S + i * 10 * MS);
    assert_int_equal(meter_age_ns(&m, 12 * S), 11 * S);
    assert_true(m.n <= METER_MARKS);
}

static void what_comes_after_a_pause_is_young_when_the_old_is_written(void **state)
{
    struct meter m = {0};
    struct histogram all = {0};
    meter_waits(&m, 0, 10, 1 * S);
    meter_waits(&m, 0, 20, 61 * S);
    meter_written(&m, 10, 20, 61 * S, &all);
    assert_int_equal(meter_age_ns(&m, 61 * S), 0);
    assert_int_equal(histogram_count(&all), 1);
    assert_int_equal(all.sum, 60 * S);
    meter_written(&m, 20, 20, 62 * S, &all);
    assert_int_equal(m.n, 0);
    assert_int_equal(histogram_count(&all), 2);
    assert_int_equal(all.sum, 61 * S);
    assert_int_equal(m.times.sum, all.sum);
}

static void each_mark_is_one_sample(void **state)
{
    struct meter m = {0};
    struct histogram all = {0};
    meter_waits(&m, 0, 10, 1 * S);
    meter_written(&m, 1, 10, 2 * S, &all);
    meter_written(&m, 2, 10, 3 * S, &all);
    meter_written(&m, 10, 10, 4 * S, &all);
    assert_int_equal(histogram_count(&all), 1);
    assert_int_equal(all.sum, 1 * S);
}

static void one_of_several_emptied_queues_counts_for_all(void **state)
{
    struct meter m = {0};
    struct histogram all = {0};
    for (unsigned i = 0; i < 10 * METER_SAMPLE; i++)
        if (meter_samples(&m))
            meter_sample(&m, 5000, &all);
    assert_int_equal(histogram_count(&all), 10 * METER_SAMPLE);
    assert_int_equal(all.sum, 10 * METER_SAMPLE * UINT64_C(5000));
}

static void a_moved_queue_keeps_its_age(void **state)
{
    struct meter m = {0};
    meter_waits(&m, 1000, 2000, 1 * S);
    meter_waits(&m, 1000, 3000, 2 * S);
    meter_moved(&m, 0, 500);
    assert_int_equal(m.n, 1);
    assert_int_equal(meter_age_ns(&m, 4 * S), 3 * S);
    meter_moved(&m, 500, 500);
    assert_int_equal(meter_age_ns(&m, 4 * S), 0);
}

/* A queue that grows and is written at random, beside one that knows the time of each byte. */
static void ages_are_right_within_a_factor_of_two(void **state)
{
    enum { BYTES = 200000 };
    uint64_t *came = calloc(BYTES, sizeof *came);
    for (unsigned seed = 1; seed <= 50; seed++) {
        struct meter m = {0};
        struct histogram all = {0};
        uint64_t now = 1 * S, queued = 0, written = 0;
        srand(seed);
        while (queued < BYTES - 100) {
            unsigned n = 1 + (unsigned)rand() % 20;
            now += (uint64_t)(rand() % 100) * (rand() % 50 == 0 ? 100 * MS : MS / 10);
            for (unsigned i = 0; i < n; i++)
                came[queued++] = now;
            meter_waits(&m, written, queued, now);
            if (rand() % 10 == 0) {
                written += (uint64_t)rand() % (queued - written + 1);
                meter_written(&m, written, queued, now, &all);
                if (written < queued)
                    meter_waits(&m, written, queued, now);
            }
            uint64_t age = written < queued ? now - came[written] : 0, seen = meter_age_ns(&m, now);
            assert_true(seen + 1 >= age);
            assert_true(seen <= 2 * age + 20 * MS);
            assert_true(written < queued || m.n == 0);
        }
    }
    free(came);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_waits_at_first),
        cmocka_unit_test(age_counts_from_the_first_byte),
        cmocka_unit_test(what_comes_after_a_pause_is_young_when_the_old_is_written),
        cmocka_unit_test(each_mark_is_one_sample),
        cmocka_unit_test(one_of_several_emptied_queues_counts_for_all),
        cmocka_unit_test(a_moved_queue_keeps_its_age),
        cmocka_unit_test(ages_are_right_within_a_factor_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
