// SPDX-License-Identifier: MIT
#include "common/histograms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void a_value_is_below_the_bound_of_its_bucket(void **state)
{
    for (unsigned bits = 0; bits < 64; bits++) {
        const uint64_t values[] = {UINT64_C(1) << bits, (UINT64_C(1) << bits) - 1};
        for (unsigned v = 0; v < 2; v++) {
            struct histogram h = {0};
            unsigned i = 0;
            histogram_add(&h, 4, values[v]);
            while (h.buckets[i] == 0)
                i++;
            assert_true(values[v] < histogram_bound(4, i) || i + 1 == HISTOGRAM_BUCKETS);
            assert_true(i == 0 || values[v] >= histogram_bound(4, i - 1));
            assert_int_equal(histogram_count(&h), 1);
            assert_true(h.sum == values[v]);
        }
    }
}

static void quantiles_are_bounds(void **state)
{
    struct histogram h = {0};
    assert_int_equal(histogram_quantile(&h, 4, 0.5), 0);
    for (unsigned i = 0; i < 99; i++)
        histogram_add(&h, 4, 100);
    histogram_add(&h, 4, UINT64_MAX);
    assert_int_equal(histogram_quantile(&h, 4, 0.5), 128);
    assert_int_equal(histogram_quantile(&h, 4, 0.99), 128);
    assert_true(histogram_quantile(&h, 4, 1) == UINT64_MAX);
}

static void merged_are_both(void **state)
{
    struct histogram a = {0}, b = {0};
    histogram_add(&a, 4, 1);
    histogram_add(&b, 4, 1);
    histogram_add(&b, 4, 1000);
    histogram_merge(&a, &b);
    assert_int_equal(histogram_count(&a), 3);
    assert_int_equal(a.sum, 1002);
    assert_int_equal(a.buckets[0], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_is_below_the_bound_of_its_bucket),
        cmocka_unit_test(quantiles_are_bounds),
        cmocka_unit_test(merged_are_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
