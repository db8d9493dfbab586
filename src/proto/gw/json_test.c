// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/gw/json.h"

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

/* Reads to the end from a copy of its own size. */
static bool is_json(const void *data, size_t len)
{
    struct json_reader r;
    struct json_value v;
    uint8_t *copy = malloc(len > 0 ? len : 1);
    int token;
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, data, len);
    json_init(&r, (struct slice){copy, len});
    while ((token = json_next(&r, &v)) > 0)
        ;
    int again = json_next(&r, &v);
    assert_int_equal(again, token);
    free(copy);
    return token == JSON_TOK_DONE;
}

static void gives_the_tokens_of_a_document(void **state)
{
    static const int expected[] = {JSON_TOK_OBJECT,     JSON_TOK_KEY,        JSON_TOK_ARRAY,  JSON_TOK_INT,
                                   JSON_TOK_FLOAT,      JSON_TOK_ARRAY_END,  JSON_TOK_KEY,    JSON_TOK_OBJECT,
                                   JSON_TOK_OBJECT_END, JSON_TOK_KEY,        JSON_TOK_STRING, JSON_TOK_KEY,
                                   JSON_TOK_TRUE,       JSON_TOK_KEY,        JSON_TOK_NULL,   JSON_TOK_KEY,
                                   JSON_TOK_FALSE,      JSON_TOK_OBJECT_END, JSON_TOK_DONE,   JSON_TOK_DONE};
    struct json_reader r;
    struct json_value v;
    json_init(&r,
              text(" {\"a\" : [ -1, 2.5e3 ],\"b\":{},\"c\":\"x\",\"d\":true,\"e\":null,\"f\":false}\r\n"));
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_int_equal(json_next(&r, &v), expected[i]);
        if (expected[i] == JSON_TOK_FLOAT)
            assert_true(slice_eq_str(v.text, "2.5e3"));
    }
}

static void takes_what_is_json(void **state)
{
    static const char *const good[] = {"0",
                                       "-0",
                                       "1e5",
                                       "1E+5",
                                       "-1.25e-3",
                                       "\"\"",
                                       "[]",
                                       "{}",
                                       "[[],{}]",
                                       "\"\\u0000\"",
                                       "true",
                                       "null",
                                       "\"\xC3\xA4\"",
                                       " 1 ",
                                       "{\"a\":[1,{\"b\":[2]}]}",
                                       "\"\\ud83d\\ude00\"",
                                       "\"\x7F\"",
                                       "\"\xF0\x9F\x98\x80\""};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(is_json(good[i], strlen(good[i])));
}

static void refuses_what_is_not(void **state)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "01",
                                      "1.",
                                      "-",
                                      ".5",
                                      "+1",
                                      "1e",
                                      "[1,]",
                                      "[,1]",
                                      "[1 2]",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{1:2}",
                                      "{\"a\":1,}",
                                      "{,}",
                                      "[}",
                                      "{]",
                                      "]",
                                      "[1]]",
                                      "1 2",
                                      "nul",
                                      "True",
                                      "NULL",
                                      "\"",
                                      "\"\\\"",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "\"\\ud800\"",
                                      "\"\\udc00\"",
                                      "\"\\ud800\\u0041\"",
                                      "\"\t\"",
                                      "\"\n\"",
                                      "\"\x80\"",
                                      "\"\xC0\x80\"",
                                      "\"\xED\xA0\x80\"",
                                      "\"\xF4\x90\x80\x80\"",
                                      "\"\xE4\xB8\"",
                                      "[\"a\":1]",
                                      "{\"a\",1}",
                                      "\xEF\xBB\xBF 1",
                                      "'a'"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (is_json(bad[i], strlen(bad[i])))
            fail_msg("taken: %s", bad[i]);
    }
    assert_false(is_json("1\0", 2));
    assert_false(is_json("\"a\0\"", 4));
}

static void no_proper_prefix_of_a_document_is_one(void **state)
{
    static const char doc[] =
        "{\"group\":[\"a\\u00e4\\ud83d\\ude00\",\"\xE4\xB8\xAD\",-12.5e3,true,null],\"exclude\":{\"7\":7}}";
    for (size_t len = 0; len < strlen(doc); len++)
        assert_false(is_json(doc, len));
    assert_true(is_json(doc, strlen(doc)));
}

static void depth_is_limited(void **state)
{
    char doc[2 * JSON_DEPTH_MAX + 2];
    memset(doc, '[', JSON_DEPTH_MAX);
    memset(doc + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_true(is_json(doc, 2 * JSON_DEPTH_MAX));
    memset(doc, '[', JSON_DEPTH_MAX + 1);
    memset(doc + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_false(is_json(doc, 2 * JSON_DEPTH_MAX + 2));
}

static void skips_a_value_whole(void **state)
{
    struct json_reader r;
    struct json_value v;
    json_init(&r, text("[{\"a\":[1,[2],{\"b\":3}]},4]"));
    assert_int_equal(json_next(&r, &v), JSON_TOK_ARRAY);
    int token = json_next(&r, &v);
    assert_int_equal(token, JSON_TOK_OBJECT);
    assert_int_equal(json_skip(&r, token), 0);
    assert_int_equal(json_next(&r, &v), JSON_TOK_INT);
    assert_true(slice_eq_str(v.text, "4"));
    json_init(&r, text("[1,"));
    assert_int_equal(json_next(&r, &v), JSON_TOK_ARRAY);
    assert_int_equal(json_skip(&r, JSON_TOK_ARRAY), -EPROTO);
}

static void unescapes(void **state)
{
    struct json_reader r;
    struct json_value v;
    struct bytes scratch = {0};
    struct slice s;
    json_init(&r, text("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\u4E2D\\ud83d\\ude00x\""));
    assert_int_equal(json_next(&r, &v), JSON_TOK_STRING);
    assert_true(v.escaped);
    assert_int_equal(json_unescape(&v, &scratch, &s), 0);
    assert_true(slice_eq_str(s, "\"\\/\b\f\n\r\t\xC3\xA4\xE4\xB8\xAD\xF0\x9F\x98\x80x"));
    json_init(&r, text("\"plain\""));
    assert_int_equal(json_next(&r, &v), JSON_TOK_STRING);
    assert_false(v.escaped);
    size_t before = scratch.len;
    assert_int_equal(json_unescape(&v, &scratch, &s), 0);
    assert_int_equal(scratch.len, before);
    assert_ptr_equal(s.data, v.text.data);
    bytes_fini(&scratch);
}

static void integers(void **state)
{
    int64_t v;
    assert_true(json_int64(SLICE_STR("-9223372036854775808"), &v));
    assert_true(v == INT64_MIN);
    assert_true(json_int64(SLICE_STR("9223372036854775807"), &v));
    assert_false(json_int64(SLICE_STR("9223372036854775808"), &v));
    assert_false(json_int64(SLICE_STR("99999999999999999999999"), &v));
    assert_false(json_int64(SLICE_STR("1e3"), &v));
    assert_false(json_int64(SLICE_STR("-"), &v));
    assert_true(json_int64(SLICE_STR("-0"), &v));
    assert_int_equal(v, 0);
}

static void writes_strings_that_it_reads_back(void **state)
{
    uint8_t all[256];
    size_t n = 0;
    struct bytes out = {0}, scratch = {0};
    struct json_reader r;
    struct json_value v;
    struct slice s;
    for (unsigned c = 0; c < 128; c++)
        all[n++] = (uint8_t)c;
    json_write_string(&out, (struct slice){all, n});
    json_init(&r, (struct slice){out.data, out.len});
    assert_int_equal(json_next(&r, &v), JSON_TOK_STRING);
    assert_int_equal(json_unescape(&v, &scratch, &s), 0);
    assert_true(slice_eq(s, (struct slice){all, n}));
    assert_int_equal(json_next(&r, &v), JSON_TOK_DONE);
    bytes_fini(&out);
    bytes_fini(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_tokens_of_a_document),
        cmocka_unit_test(takes_what_is_json),
        cmocka_unit_test(refuses_what_is_not),
        cmocka_unit_test(no_proper_prefix_of_a_document_is_one),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(skips_a_value_whole),
        cmocka_unit_test(unescapes),
        cmocka_unit_test(integers),
        cmocka_unit_test(writes_strings_that_it_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
