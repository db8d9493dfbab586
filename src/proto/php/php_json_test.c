// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "proto/php/php_json.h"

static void assert_json(const char *in, int expected_err, const char *expected)
{
    struct bytes out = {0};
    bytes_append_byte(&out, '>');
    int err = php_to_json(&out, (struct slice){(const uint8_t *)in, strlen(in)});
    if (err != expected_err || !slice_eq_str((struct slice){out.data + 1, out.len - 1}, expected))
        fail_msg("%s\n gives %d %.*s", in, err, (int)out.len, out.data);
    bytes_fini(&out);
}

static void values(void **state)
{
    assert_json("a:0:{}", 0, "[]");
    assert_json("a:2:{i:0;i:1;i:1;N;}", 0, "[1,null]");
    assert_json("a:2:{i:1;i:1;i:0;b:0;}", 0, "{\"1\":1,\"0\":false}");
    assert_json("a:2:{s:4:\"type\";s:3:\"say\";s:1:\"n\";d:0.1;}", 0, "{\"type\":\"say\",\"n\":0.1}");
    assert_json("a:1:{i:0;d:1.0E+25;}", 0, "[1.0e+25]");
    assert_json("O:8:\"stdClass\":1:{s:1:\"a\";i:1;}", 0,
                "{\"__PHP_Incomplete_Class_Name\":\"stdClass\",\"a\":1}");
    assert_json("N;", 0, "null");
    assert_json("a:2:{i:0;a:1:{i:0;i:5;}i:1;R:2;}", 0, "[[5],[5]]");
}

static void strings(void **state)
{
    assert_json("a:1:{i:0;s:11:\"a/\"\\\b\f\n\r\t\x01\x7F\";}", 0,
                "[\"a\\/\\\"\\\\\\b\\f\\n\\r\\t\\u0001\x7F\"]");
    assert_json("a:1:{i:0;s:9:\"\xE4\xB8\xAD\xE2\x80\xA8\xE2\x80\xA9\";}", 0,
                "[\"\xE4\xB8\xAD\\u2028\\u2029\"]");
    assert_json("s:3:\"a/\xFF\";", 0, "a/\xFF");
    assert_json("i:-5;", 0, "-5");
    assert_json("b:1;", 0, "1");
    assert_json("b:0;", 0, "");
}

static void errors_leave_the_output_alone(void **state)
{
    assert_json("a:1:{i:0;s:1:\"\xFF\";}", -EILSEQ, "");
    assert_json("a:1:{s:1:\"\xFF\";i:0;}", -EILSEQ, "");
    assert_json("a:1:{i:0;d:INF;}", -EDOM, "");
    assert_json("a:1:{i:0;a:1:{i:0;R:1;}}", -ELOOP, "");
    assert_json("a:1:{i:0;E:3:\"A:B\";}", -EPROTO, "");
    assert_json("a:1:{i:0;", -EPROTO, "");
    assert_json("", -EPROTO, "");
}

static void depth(void **state)
{
    struct bytes in = {0}, out = {0};
    for (int levels = 512; levels <= 513; levels++) {
        bytes_clear(&in);
        for (int i = 1; i < levels; i++)
            bytes_append_str(&in, "a:1:{i:0;");
        bytes_append_str(&in, "a:0:{}");
        for (int i = 1; i < levels; i++)
            bytes_append_byte(&in, '}');
        assert_int_equal(php_to_json(&out, (struct slice){in.data, in.len}), levels == 512 ? 0 : -E2BIG);
    }
    bytes_fini(&in);
    bytes_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(strings),
        cmocka_unit_test(errors_leave_the_output_alone),
        cmocka_unit_test(depth),
    };
    hash_init_fixed(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
