// SPDX-License-Identifier: MIT
#include "../include/tgg_worker.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// In memory of exactly its size, so that AddressSanitizer sees a read past the end.
static int parse(const char *text, size_t len, struct tggw_value *v)
{
    char *copy = malloc(len > 0 ? len : 1);
    size_t used = 0;
    memcpy(copy, text, len);
    int r = tggw_value_parse(copy, len, v, &used);
    free(copy);
    return r == 0 && used != len ? 1 : r;
}

static int parse_text(const char *text)
{
    struct tggw_value v;
    return parse(text, strlen(text), &v);
}

static void reads_scalars(void **state)
{
    struct tggw_value v;
    assert_int_equal(tggw_value_parse("N;", 2, &v, NULL), 0);
    assert_int_equal(v.type, TGGW_NULL);
    assert_int_equal(tggw_value_parse("b:1;", 4, &v, NULL), 0);
    assert_true(v.type == TGGW_BOOL && v.i == 1);
    assert_int_equal(tggw_value_parse("i:-9223372036854775808;", 23, &v, NULL), 0);
    assert_true(v.type == TGGW_INT && v.i == INT64_MIN);
    assert_int_equal(tggw_value_parse("d:-1.5E+25;", 11, &v, NULL), 0);
    assert_true(v.type == TGGW_DOUBLE && v.d == -1.5e25);
    assert_int_equal(tggw_value_parse("s:3:\"a\"b\";", 10, &v, NULL), 0);
    assert_true(v.type == TGGW_STRING && v.len == 3 && memcmp(v.s, "a\"b", 3) == 0);
}

static const char all_forms[] = "a:9:{i:0;N;s:1:\"k\";a:1:{i:5;s:0:\"\";}i:1;d:NAN;i:2;d:-INF;"
                                "s:1:\"o\";O:1:\"A\":1:{s:1:\"p\";i:1;}s:1:\"c\";C:1:\"B\":3:{x}y}"
                                "s:1:\"e\";E:5:\"S:Red\";s:1:\"r\";r:1;s:1:\"q\";R:2;}";

static void takes_every_form_that_php_writes(void **state)
{
    struct tggw_value array, v;
    assert_int_equal(tggw_value_parse(all_forms, sizeof all_forms - 1, &array, NULL), 0);
    assert_int_equal(array.count, 9);
    assert_int_equal(tggw_value_find(&array, "o", &v), 0);
    assert_int_equal(v.type, TGGW_OTHER);
    assert_int_equal(v.len, strlen("O:1:\"A\":1:{s:1:\"p\";i:1;}"));
    assert_int_equal(tggw_value_find(&array, "k", &v), 0);
    assert_int_equal(v.type, TGGW_ARRAY);
    assert_int_equal(tggw_value_find(&v, "5", &v), 0);
    assert_int_equal(v.type, TGGW_STRING);
    assert_int_equal(tggw_value_find(&array, "none", &v), -ENOENT);
}

static void no_prefix_is_a_value(void **state)
{
    struct tggw_value v;
    for (size_t n = 0; n < sizeof all_forms - 1; n++)
        assert_int_equal(parse(all_forms, n, &v), -EBADMSG);
    assert_int_equal(parse(all_forms, sizeof all_forms - 1, &v), 0);
}

static void no_changed_byte_leads_outside(void **state)
{
    char copy[sizeof all_forms];
    struct tggw_value v;
    for (size_t i = 0; i < sizeof all_forms - 1; i++) {
        for (int c = 0; c < 256; c++) {
            memcpy(copy, all_forms, sizeof copy);
            copy[i] = (char)c;
            int r = parse(copy, sizeof copy - 1, &v);
            assert_true(r == 0 || r == 1 || r == -EBADMSG);
        }
    }
}

static void refuses_bad_lengths_and_numbers(void **state)
{
    static const char *const bad[] = {"s:4:\"abc\";",
                                      "s:2:\"abc\";",
                                      "s:-1:\"\";",
                                      "s:99999999999999999999:\"\";",
                                      "s:18446744073709551615:\"a\";",
                                      "a:2:{i:0;i:0;}",
                                      "a:0:{i:0;i:0;}",
                                      "a:4294967295:{}",
                                      "a:1:{d:1;i:0;}",
                                      "a:1:{N;i:0;}",
                                      "i:;",
                                      "i:1",
                                      "i:+1;",
                                      "i:9223372036854775808;",
                                      "b:2;",
                                      "d:;",
                                      "d:1x;",
                                      "d: 1;",
                                      "d:0x1p3;",
                                      "x:1;",
                                      "O:1:\"A\":9:{}",
                                      "C:1:\"A\":9:{}",
                                      "E:1:\"A\"",
                                      "r:;",
                                      "",
                                      "N",
                                      "a:1:{i:0;a:1:{}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse_text(bad[i]), -EBADMSG);
}

static void nesting_is_limited(void **state)
{
    char text[20000];
    size_t n = 0;
    for (int i = 0; i < 1000; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "a:1:{i:0;");
    n += (size_t)snprintf(text + n, sizeof text - n, "N;");
    for (int i = 0; i < 1000; i++)
        text[n++] = '}';
    struct tggw_value v;
    assert_int_equal(parse(text, n, &v), -EBADMSG);
}

static void iterates_in_order(void **state)
{
    static const char text[] = "a:2:{i:7;s:1:\"x\";s:2:\"07\";i:3;}";
    struct tggw_value array, k, v;
    struct tggw_iter it;
    assert_int_equal(tggw_value_parse(text, sizeof text - 1, &array, NULL), 0);
    tggw_iter_init(&it, &array);
    assert_int_equal(tggw_iter_next(&it, &k, &v), 1);
    assert_true(tggw_value_is(&k, "7") && !tggw_value_is(&k, "07"));
    assert_int_equal(tggw_iter_next(&it, &k, &v), 1);
    assert_true(tggw_value_is(&k, "07") && v.i == 3);
    assert_int_equal(tggw_iter_next(&it, &k, &v), 0);
    tggw_iter_init(&it, &v);
    assert_int_equal(tggw_iter_next(&it, &k, &v), 0);
}

static void sessions_are_written_as_php_does(void **state)
{
    static const struct tggw_pair pairs[] = {{"name", "B\"o", 3}, {"12", "", 0},
                                             {"012", "a", 1},     {"-0", "b", 1},
                                             {"-5", "c", 1},      {"9223372036854775808", "d", 1}};
    static const char want[] =
        "a:6:{s:4:\"name\";s:3:\"B\"o\";i:12;s:0:\"\";s:3:\"012\";s:1:\"a\";s:2:\"-0\";s:1:\"b\";"
        "i:-5;s:1:\"c\";s:19:\"9223372036854775808\";s:1:\"d\";}";
    char buf[256];
    const char *s;
    size_t len = tggw_session_build(pairs, 6, buf, sizeof buf), value_len;
    assert_int_equal(len, sizeof want - 1);
    assert_memory_equal(buf, want, len);
    assert_int_equal(tggw_session_build(pairs, 6, NULL, 0), len);
    assert_int_equal(tggw_session_get(buf, len, "12", &s, &value_len), 0);
    assert_int_equal(value_len, 0);
    assert_int_equal(tggw_session_get(buf, len, "name", &s, &value_len), 0);
    assert_memory_equal(s, "B\"o", 3);
    assert_int_equal(tggw_session_get(buf, len, "nope", &s, &value_len), -ENOENT);
    assert_int_equal(tggw_session_get(NULL, 0, "name", &s, &value_len), -ENOENT);
    assert_int_equal(tggw_session_get("junk", 4, "name", &s, &value_len), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_scalars),
        cmocka_unit_test(takes_every_form_that_php_writes),
        cmocka_unit_test(no_prefix_is_a_value),
        cmocka_unit_test(no_changed_byte_leads_outside),
        cmocka_unit_test(refuses_bad_lengths_and_numbers),
        cmocka_unit_test(nesting_is_limited),
        cmocka_unit_test(iterates_in_order),
        cmocka_unit_test(sessions_are_written_as_php_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
