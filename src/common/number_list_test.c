// SPDX-License-Identifier: MIT
#include "common/number_list.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define CAP 8

static void assert_reads(const char *text, const char *expected)
{
    uint16_t list[CAP];
    char got[128] = "";
    int n = number_list_parse(text, 100, list, CAP);
    assert_true(n > 0);
    for (int i = 0, at = 0; i < n; i++)
        at += snprintf(got + at, sizeof got - (size_t)at, i > 0 ? " %u" : "%u", list[i]);
    assert_string_equal(got, expected);
}

static void assert_refused(const char *text, int err)
{
    uint16_t list[CAP];
    assert_int_equal(number_list_parse(text, 100, list, CAP), err);
}

static void numbers_and_ranges_are_read_in_their_order(void **state)
{
    assert_reads("0", "0");
    assert_reads("100", "100");
    assert_reads("0-3,8", "0 1 2 3 8");
    assert_reads("8,0-3", "8 0 1 2 3");
    assert_reads(" 2 , 1 - 2\t", "2 1 2");
    assert_reads("5-5", "5");
    assert_reads("007", "7");
    assert_reads("0-7", "0 1 2 3 4 5 6 7");
}

static void what_is_no_list_is_refused(void **state)
{
    static const char *const bad[] = {"",   " ",   ",",     "1,",  ",1",  "1,,2", "a",   "1a",  "-1",
                                      "1-", "3-1", "1-2-3", "1 2", "0x1", "+1",   "1;2", "1.5", "auto"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refused(bad[i], -EINVAL);
}

static void numbers_have_a_bound(void **state)
{
    assert_refused("101", -ERANGE);
    assert_refused("1,99-101", -ERANGE);
    assert_refused("65536", -ERANGE);
    assert_refused("4294967296", -ERANGE); /* 2^32 is not 0 */
    assert_refused("99999999999999999999999", -ERANGE);
}

static void lists_have_a_bound(void **state)
{
    assert_refused("0-8", -E2BIG);
    assert_refused("0-6,1,1", -E2BIG);
    assert_reads("0-6,1", "0 1 2 3 4 5 6 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_and_ranges_are_read_in_their_order),
        cmocka_unit_test(what_is_no_list_is_refused),
        cmocka_unit_test(numbers_have_a_bound),
        cmocka_unit_test(lists_have_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
