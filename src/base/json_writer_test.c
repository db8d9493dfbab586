// SPDX-License-Identifier: MIT
#include "base/json_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void check(struct bytes *b, const char *expected)
{
    assert_false(b->failed);
    bytes_append_byte(b, 0);
    assert_string_equal((const char *)b->data, expected);
    bytes_fini(b);
}

static void commas_come_by_themselves(void **state)
{
    struct bytes b = {0};
    struct json_writer w = {.out = &b};
    json_begin(&w, '{');
    json_member_uint(&w, "n", UINT64_MAX);
    json_key(&w, "list");
    json_begin(&w, '[');
    json_int(&w, INT64_MIN);
    json_bool(&w, true);
    json_write_null(&w);
    json_begin(&w, '{');
    json_end(&w, '}');
    json_raw(&w, "1.5", 3);
    json_end(&w, ']');
    json_member_str(&w, "name", "a");
    json_member_str(&w, "none", NULL);
    json_member_bool(&w, "no", false);
    json_end(&w, '}');
    check(&b, "{\"n\":18446744073709551615,\"list\":[-9223372036854775808,true,null,{},1.5],\"name\":\"a\","
              "\"none\":null,\"no\":false}");
}

static void strings_are_escaped(void **state)
{
    struct bytes b = {0};
    struct json_writer w = {.out = &b};
    json_write_text(&w, "a\"\\\n\0\x7f", 6, 0);
    check(&b, "\"a\\\"\\\\\\u000a\\u0000\\u007f\"");
}

static void what_is_not_utf8_is_replaced(void **state)
{
    struct bytes b = {0};
    struct json_writer w = {.out = &b};
    json_write_text(&w, "\xc3\xa9\xff\xed\xa0\x80z\xe2\x82", 9, 0);
    check(&b, "\"\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void a_cut_is_at_a_characters_end(void **state)
{
    struct bytes b = {0};
    struct json_writer w = {.out = &b};
    json_write_text(&w,
                    "a\xe2\x82\xac"
                    "b",
                    5, 3);
    check(&b, "\"a\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_come_by_themselves),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(what_is_not_utf8_is_replaced),
        cmocka_unit_test(a_cut_is_at_a_characters_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
