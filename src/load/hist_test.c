// SPDX-License-Identifier: MIT
#include "load/hist.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct hist h;

static int setup(void **state)
{
    memset(&h, 0, sizeof(h));
    return 0;
}

static void empty_gives_zero(void **state)
{
    assert_int_equal(hist_quantile(&h, 0.99), 0);
}

static void small_values_are_exact(void **state)
{
    for (uint64_t v = 1; v <= 100; v++)
        hist_add(&h, v);
    assert_int_equal(hist_quantile(&h, 0.5), 50);
    assert_int_equal(hist_quantile(&h, 0.99), 99);
    assert_int_equal(hist_quantile(&h, 1.0), 100);
    assert_int_equal(hist_quantile(&h, 0.0), 1);
}

static void any_value_is_known_within_one_step(void **state)
{
    for (uint64_t v = 1; v < (UINT64_C(1) << 61); v = v * 5 / 4 + 1) {
        memset(&h, 0, sizeof(h));
        hist_add(&h, v);
        hist_add(&h, UINT64_MAX); /* so that the maximum does not cap the bucket's end */
        uint64_t got = hist_quantile(&h, 0.5);
        assert_true(got >= v);
        assert_true(got - v <= v / HIST_STEPS);
    }
}

static void largest_value_has_a_bucket(void **state)
{
    hist_add(&h, UINT64_MAX);
    assert_true(hist_quantile(&h, 0.5) == UINT64_MAX);
}

static void quantiles_of_a_wide_range(void **state)
{
    for (uint64_t v = 1; v <= 1000000; v++)
        hist_add(&h, v);
    assert_in_range(hist_quantile(&h, 0.5), 500000, 504000);
    assert_in_range(hist_quantile(&h, 0.99), 990000, 998000);
    assert_int_equal(hist_quantile(&h, 1.0), 1000000);
    assert_int_equal(h.sum, UINT64_C(500000500000));
}

static void buckets_follow_one_another_without_gap(void **state)
{
    for (uint32_t i = 1; i < HIST_BUCKETS; i++) {
        assert_true(hist_bucket_first(i) == hist_bucket_last(i - 1) + 1);
        assert_true(hist_bucket_last(i) >= hist_bucket_first(i));
    }
    assert_int_equal(hist_bucket_first(0), 0);
}

static struct hist other, both, since;

static void merged_is_as_if_all_had_come_to_one(void **state)
{
    memset(&other, 0, sizeof(other));
    memset(&both, 0, sizeof(both));
    for (uint64_t v = 1; v <= 100000; v++) {
        hist_add(v % 3 == 0 ? &h : &other, v * 17);
        hist_add(&both, v * 17);
    }
    hist_merge(&h, &other);
    assert_memory_equal(&h, &both, sizeof(h));
    assert_true(hist_mean(&h) == 17 * 100001 / 2);
}

static void since_is_what_came_in_between(void **state)
{
    for (uint64_t v = 1; v <= 100; v++)
        hist_add(&h, v);
    memcpy(&both, &h, sizeof(both));
    for (uint64_t v = 1; v <= 50; v++)
        hist_add(&h, v);
    hist_since(&h, &both, &since);
    assert_int_equal(since.count, 50);
    assert_int_equal(since.max, 50);
    assert_int_equal(hist_quantile(&since, 0.5), 25);
    hist_since(&h, &h, &since);
    assert_int_equal(since.count, 0);
    assert_int_equal(hist_quantile(&since, 0.5), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(empty_gives_zero, setup),
        cmocka_unit_test_setup(small_values_are_exact, setup),
        cmocka_unit_test_setup(any_value_is_known_within_one_step, setup),
        cmocka_unit_test_setup(largest_value_has_a_bucket, setup),
        cmocka_unit_test_setup(quantiles_of_a_wide_range, setup),
        cmocka_unit_test(buckets_follow_one_another_without_gap),
        cmocka_unit_test_setup(merged_is_as_if_all_had_come_to_one, setup),
        cmocka_unit_test_setup(since_is_what_came_in_between, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
