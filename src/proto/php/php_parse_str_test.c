// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "proto/php/php_parse_str.h"

static void assert_query(const char *query, unsigned vars_max, const char *expected)
{
    struct bytes out = {0};
    assert_int_equal(php_parse_str(&out, (struct slice){(const uint8_t *)query, strlen(query)}, vars_max), 0);
    if (!slice_eq_str((struct slice){out.data, out.len}, expected))
        fail_msg("%s\n gives %.*s", query, (int)out.len, out.data);
    bytes_fini(&out);
}

static void plain_names(void **state)
{
    assert_query("", 9, "a:0:{}");
    assert_query("&&", 9, "a:0:{}");
    assert_query("=5", 9, "a:0:{}");
    assert_query("a=1&b", 9, "a:2:{s:1:\"a\";s:1:\"1\";s:1:\"b\";s:0:\"\";}");
    assert_query("a=1&b=2&a=3", 9, "a:2:{s:1:\"a\";s:1:\"3\";s:1:\"b\";s:1:\"2\";}");
    assert_query("a=%41+%zz%4&7=x", 9, "a:2:{s:1:\"a\";s:7:\"A %zz%4\";i:7;s:1:\"x\";}");
    assert_query("a.b=1&c+d=2& e=3", 9,
                 "a:3:{s:3:\"a_b\";s:1:\"1\";s:3:\"c_d\";s:1:\"2\";s:1:\"e\";s:1:\"3\";}");
    assert_query("b%00c=1", 9, "a:1:{s:1:\"b\";s:1:\"1\";}");
}

static void nested_names(void **state)
{
    assert_query("a[]=1&a[k]=2&a[]=3", 9,
                 "a:1:{s:1:\"a\";a:3:{i:0;s:1:\"1\";s:1:\"k\";s:1:\"2\";i:1;s:1:\"3\";}}");
    assert_query("a[b][c]=3", 9, "a:1:{s:1:\"a\";a:1:{s:1:\"b\";a:1:{s:1:\"c\";s:1:\"3\";}}}");
    assert_query("a=1&a[x]=2&a[x][y]=3", 9, "a:1:{s:1:\"a\";a:1:{s:1:\"x\";a:1:{s:1:\"y\";s:1:\"3\";}}}");
    assert_query("a[b.c=1&a[b]x=2&[c]=3", 9,
                 "a:2:{s:5:\"a_b_c\";s:1:\"1\";s:1:\"a\";a:1:{s:1:\"b\";s:1:\"2\";}}");
    assert_query("a[-5]=1&a[]=2", 9, "a:1:{s:1:\"a\";a:2:{i:-5;s:1:\"1\";i:-4;s:1:\"2\";}}");
    assert_query("a[9223372036854775807]=1&a[]=2", 9,
                 "a:1:{s:1:\"a\";a:1:{i:9223372036854775807;s:1:\"1\";}}");
}

static void limits(void **state)
{
    assert_query("a=1&b=2&&c=3", 2, "a:2:{s:1:\"a\";s:1:\"1\";s:1:\"b\";s:1:\"2\";}");
    struct bytes query = {0}, out = {0};
    bytes_append_str(&query, "a=1&b=2&a");
    for (int i = 0; i <= PHP_INPUT_NESTING_MAX; i++)
        bytes_append_str(&query, "[x]");
    assert_int_equal(php_parse_str(&out, (struct slice){query.data, query.len}, 9), 0);
    assert_true(slice_eq_str((struct slice){out.data, out.len}, "a:1:{s:1:\"b\";s:1:\"2\";}"));
    bytes_fini(&query);
    bytes_fini(&out);
}

static void the_worst_query_fits(void **state)
{
    struct bytes query = {0}, out = {0};
    for (int i = 0; i < 1000; i++) {
        bytes_append_str(&query, "&a");
        for (int j = 0; j < PHP_INPUT_NESTING_MAX; j++)
            bytes_append_str(&query, "[]");
    }
    assert_int_equal(php_parse_str(&out, (struct slice){query.data, query.len}, PHP_INPUT_VARS_MAX), 0);
    bytes_fini(&query);
    bytes_fini(&out);
}

static void cookies(void **state)
{
    static const struct {
        const char *header, *expected;
    } cases[] = {
        {"", "a:0:{}"},
        {"a=1; b=2", "a:2:{s:1:\"a\";s:1:\"1\";s:1:\"b\";s:1:\"2\";}"},
        {"a; =x ;7=%20 ;a.b=c=d;;", "a:3:{s:0:\"\";s:2:\"x \";i:7;s:4:\"%20 \";s:3:\"a.b\";s:3:\"c=d\";}"},
        {"a=1;b=2;\ta =3", "a:2:{s:1:\"a\";s:1:\"3\";s:1:\"b\";s:1:\"2\";}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes out = {0};
        struct slice header = {(const uint8_t *)cases[i].header, strlen(cases[i].header)};
        assert_int_equal(php_parse_cookie(&out, header), 0);
        if (!slice_eq_str((struct slice){out.data, out.len}, cases[i].expected))
            fail_msg("%s\n gives %.*s", cases[i].header, (int)out.len, out.data);
        bytes_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_names),          cmocka_unit_test(nested_names), cmocka_unit_test(limits),
        cmocka_unit_test(the_worst_query_fits), cmocka_unit_test(cookies),
    };
    hash_init_fixed(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
