// SPDX-License-Identifier: MIT
#include "main/ctl_text.h"

#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static char buf[CTL_FORMAT_MAX];

static void sizes_step_up_at_1024_and_never_show_a_full_unit(void **state)
{
    assert_string_equal(ctl_format_bytes(0, buf), "0 B");
    assert_string_equal(ctl_format_bytes(1023, buf), "1023 B");
    assert_string_equal(ctl_format_bytes(1024, buf), "1.0 KB");
    assert_string_equal(ctl_format_bytes(1258291, buf), "1.2 MB");
    assert_string_equal(ctl_format_bytes(99.94 * 1024, buf), "99.9 KB");
    assert_string_equal(ctl_format_bytes(99.96 * 1024, buf), "100 KB");
    assert_string_equal(ctl_format_bytes(1023.4 * 1024, buf), "1023 KB");
    assert_string_equal(ctl_format_bytes(1023.6 * 1024, buf), "1.0 MB");
    assert_string_equal(ctl_format_bytes(-5, buf), "0 B");
    assert_string_equal(ctl_format_bytes(0x1p63, buf), "8192 PB");
}

static void times_have_two_units(void **state)
{
    assert_string_equal(ctl_format_seconds(0, buf), "0s");
    assert_string_equal(ctl_format_seconds(59.9, buf), "59s");
    assert_string_equal(ctl_format_seconds(200, buf), "3m20s");
    assert_string_equal(ctl_format_seconds(7500, buf), "2h05m");
    assert_string_equal(ctl_format_seconds(3 * 86400 + 4 * 3600 + 59, buf), "3d04h");
    assert_string_equal(ctl_format_seconds(-1, buf), "0s");
    assert_string_equal(ctl_format_ns(0, buf), "0");
    assert_string_equal(ctl_format_ns(350, buf), "350 ns");
    assert_string_equal(ctl_format_ns(1234, buf), "1.2 us");
    assert_string_equal(ctl_format_ns(8e9, buf), "8.0 s");
    assert_string_equal(ctl_format_ns(999.7e6, buf), "1.0 s");
    assert_string_equal(ctl_format_ns(200e9, buf), "3m20s");
    assert_string_equal(ctl_format_unix(0, buf), "1970-01-01T00:00:00Z");
}

static void counts_are_whole_but_for_small_rates(void **state)
{
    assert_string_equal(ctl_format_count(0, buf), "0");
    assert_string_equal(ctl_format_count(1234567, buf), "1234567");
    assert_string_equal(ctl_format_count(0.5, buf), "0.5");
    assert_string_equal(ctl_format_count(1234.6, buf), "1235");
}

/* The formats never go over their buffer, whatever the number. */
static void extremes_fit(void **state)
{
    static const double extremes[] = {1e300, -1e300, 0x1p64, 1e15, 1.0 / 3};
    for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++) {
        assert_true(strlen(ctl_format_count(extremes[i], buf)) < CTL_FORMAT_MAX);
        assert_true(strlen(ctl_format_bytes(extremes[i], buf)) < CTL_FORMAT_MAX);
        assert_true(strlen(ctl_format_seconds(extremes[i], buf)) < CTL_FORMAT_MAX);
        assert_true(strlen(ctl_format_ns(extremes[i], buf)) < CTL_FORMAT_MAX);
    }
    assert_true(strlen(ctl_format_unix(INT64_MAX, buf)) < CTL_FORMAT_MAX);
}

static void expect_text(const char *in, size_t len, const char *expected, size_t columns)
{
    struct bytes out = {0};
    size_t n = ctl_text_append(&out, in, len);
    bytes_append_byte(&out, 0);
    assert_string_equal((char *)out.data, expected);
    assert_int_equal(n, columns);
    assert_int_equal(ctl_text_width(expected, strlen(expected)), columns);
    bytes_fini(&out);
}
#define EXPECT_TEXT(in, expected, columns) expect_text(in, sizeof(in) - 1, expected, columns)

static void what_a_terminal_obeys_is_shown_instead(void **state)
{
    EXPECT_TEXT("plain", "plain", 5);
    EXPECT_TEXT("\x1b[2Jx", "\\x1b[2Jx", 8);
    EXPECT_TEXT("a\0b\n\r\t\x7f", "a\\x00b\\x0a\\x0d\\x09\\x7f", 22);
    EXPECT_TEXT("\xc2\x9b"
                "31m",
                "\\x9b31m", 7); /* CSI as one character */
    EXPECT_TEXT("\xff\xc3", "\\xff\\xc3", 8);
    EXPECT_TEXT("a\xe2\x80\xae"
                "b",
                "a\\u202eb", 8); /* right to left */
    EXPECT_TEXT("\xef\xbb\xbf", "\\ufeff", 6);
}

static void wide_characters_take_two_columns_and_marks_none(void **state)
{
    EXPECT_TEXT("\xe7\x94\xa8\xe6\x88\xb7", "\xe7\x94\xa8\xe6\x88\xb7", 4);
    EXPECT_TEXT("\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", 2);
    EXPECT_TEXT("e\xcc\x81", "e\xcc\x81", 1);
    EXPECT_TEXT("\xc3\xa9", "\xc3\xa9", 1);
}

static void text_is_cut_between_characters(void **state)
{
    static const char text[] = "a\xe7\x94\xa8"
                               "b";
    assert_int_equal(ctl_text_fit(text, strlen(text), 0), 0);
    assert_int_equal(ctl_text_fit(text, strlen(text), 1), 1);
    assert_int_equal(ctl_text_fit(text, strlen(text), 2), 1);
    assert_int_equal(ctl_text_fit(text, strlen(text), 3), 4);
    assert_int_equal(ctl_text_fit(text, strlen(text), 9), 5);
}

static void json_keeps_its_meaning(void **state)
{
    struct bytes out = {0};
    static const char in[] = "{\"a\":\"x\xc2\x9by\x7f\xc3\xa9\"}";
    ctl_json_append(&out, in, strlen(in));
    bytes_append_byte(&out, 0);
    assert_string_equal((char *)out.data, "{\"a\":\"x\\u009by\\u007f\xc3\xa9\"}");
    bytes_fini(&out);
}

static void urls_are_encoded(void **state)
{
    struct bytes out = {0};
    ctl_url_append(&out, "a-b_c.~Z09 /?&=#%+\n\xff", 20);
    bytes_append_byte(&out, 0);
    assert_string_equal((char *)out.data, "a-b_c.~Z09%20%2F%3F%26%3D%23%25%2B%0A%FF");
    bytes_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_step_up_at_1024_and_never_show_a_full_unit),
        cmocka_unit_test(times_have_two_units),
        cmocka_unit_test(counts_are_whole_but_for_small_rates),
        cmocka_unit_test(extremes_fit),
        cmocka_unit_test(what_a_terminal_obeys_is_shown_instead),
        cmocka_unit_test(wide_characters_take_two_columns_and_marks_none),
        cmocka_unit_test(text_is_cut_between_characters),
        cmocka_unit_test(json_keeps_its_meaning),
        cmocka_unit_test(urls_are_encoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
