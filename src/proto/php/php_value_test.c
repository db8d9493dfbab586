// SPDX-License-Identifier: MIT
/* Expected texts are what php 8.2 gives, unless a comment says otherwise; tests/test_php_oracle.py has
 * thousands more. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "proto/php/php_value.h"

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static void assert_reserialized(const char *in, const char *expected)
{
    struct bytes out = {0};
    int err = php_reserialize(&out, text(in));
    if (expected == NULL) {
        if (err != -EPROTO || out.len != 0)
            fail_msg("taken: %s", in);
    } else if (err != 0 || !slice_eq_str((struct slice){out.data, out.len}, expected)) {
        fail_msg("%s\n gives %d %.*s", in, err, (int)out.len, out.data);
    }
    bytes_fini(&out);
}

static void assert_merged(const char *session, const char *patch, const char *expected)
{
    struct bytes out = {0};
    int err = php_session_merge(&out, text(session), text(patch));
    if (err != 0 || !slice_eq_str((struct slice){out.data, out.len}, expected))
        fail_msg("%s + %s\n gives %d %.*s", session, patch, err, (int)out.len, out.data);
    bytes_fini(&out);
}

static void scalars(void **state)
{
    assert_reserialized("N;", "N;");
    assert_reserialized("b:1;x", "b:1;");
    assert_reserialized("i:+5;", "i:5;");
    assert_reserialized("i:9223372036854775808;", "i:9223372036854775807;");
    assert_reserialized("i:-99999999999999999999;", "i:-9223372036854775808;");
    assert_reserialized("d:1.5E+3;", "d:1500;");
    assert_reserialized("d:-INF;", "d:-INF;");
    assert_reserialized("d:1e999;", "d:INF;");
    assert_reserialized("S:3:\"a\\41b\";", "s:3:\"aAb\";");
    assert_reserialized("s:0:\"\";", "s:0:\"\";");
}

static void refuses_what_php_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "N",
        "b:2;",
        "i:;",
        "i:5",
        "d:.;",
        "d:1e;",
        "s:3:\"ab\";",
        "s:1:\"ab\";",
        "s:4294967296:\"a\";",
        "s:-1:\"\";",
        "S:1:\"\\4\";",
        "a:1:{i:0;}",
        "a:2:{i:0;i:1;}",
        "a:-1:{}",
        "a:4000000000:{}",
        "a:1:{d:1;i:1;}",
        "a:1:{N;i:1;}",
        "a:1:{i:0;r:1;}",
        "R:1;",
        "r:1;",
        "a:2:{i:0;i:1;i:1;r:2;}",
        "a:1:{i:0;R:9;}",
        "O:0:\"\":0:{}",
        "O:4:\"\\Foo\":0:{}",
        "O:3:\"F-o\":0:{}",
        "O:3:\"Foo\":1:{}",
        "o:0:{}",
        "C:3:\"Foo\":9:{abc}",
        "E:3:\"Foo\";",
        "x:1;",
        "}",
        "a:1:{i:0;i:1;",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_reserialized(bad[i], NULL);
}

static void keys_become_what_php_makes_of_them(void **state)
{
    assert_reserialized("a:3:{s:1:\"1\";i:5;s:2:\"01\";i:6;i:1;i:7;}", "a:2:{i:1;i:7;s:2:\"01\";i:6;}");
    assert_reserialized("O:8:\"STDCLASS\":1:{i:5;i:1;}", "O:8:\"stdClass\":1:{s:1:\"5\";i:1;}");
}

static void references_are_numbered_anew(void **state)
{
    assert_reserialized("a:3:{i:0;i:1;i:0;i:2;i:1;R:2;}", "a:2:{i:0;i:2;i:1;R:2;}");
    assert_reserialized("a:3:{i:0;O:3:\"Foo\":0:{}i:1;r:2;i:2;R:3;}",
                        "a:3:{i:0;O:3:\"Foo\":0:{}i:1;R:2;i:2;R:2;}");
    assert_reserialized("a:1:{i:0;a:1:{i:0;R:1;}}", "a:1:{i:0;a:1:{i:0;a:1:{i:0;N;}}}");
    assert_reserialized("a:1:{i:0;R:1;}", "a:1:{i:0;N;}");
}

static void unknown_classes_keep_name_and_properties(void **state)
{
    assert_reserialized("O:8:\"App\\User\":2:{s:4:\"name\";s:1:\"x\";s:2:\"id\";i:7;}",
                        "O:8:\"App\\User\":2:{s:4:\"name\";s:1:\"x\";s:2:\"id\";i:7;}");
    assert_reserialized("O:3:\"Foo\":1:{s:27:\"__PHP_Incomplete_Class_Name\";s:3:\"Abc\";}",
                        "O:3:\"Abc\":0:{}");
}

/* Not as PHP: without the class it loses the text of the first and refuses the second. */
static void custom_objects_and_enums_are_kept(void **state)
{
    assert_reserialized("a:2:{i:0;C:3:\"Foo\":4:{a}b;}i:1;r:2;}", "a:2:{i:0;C:3:\"Foo\":4:{a}b;}i:1;r:2;}");
    assert_reserialized("a:2:{i:0;E:11:\"Suit:Hearts\";i:1;r:2;}", "a:2:{i:0;E:11:\"Suit:Hearts\";i:1;r:2;}");
}

static void merges(void **state)
{
    assert_merged("a:0:{}", "a:0:{}", "a:0:{}");
    assert_merged("a:2:{s:1:\"a\";i:1;s:1:\"b\";a:2:{i:0;i:1;i:1;i:2;}}",
                  "a:2:{s:1:\"b\";a:1:{i:1;i:9;}s:1:\"c\";N;}",
                  "a:3:{s:1:\"a\";i:1;s:1:\"b\";a:2:{i:0;i:1;i:1;i:9;}s:1:\"c\";N;}");
    assert_merged("a:1:{s:1:\"a\";a:1:{i:0;i:1;}}", "a:1:{s:1:\"a\";s:1:\"x\";}",
                  "a:1:{s:1:\"a\";s:1:\"x\";}");
    assert_merged("a:1:{s:1:\"a\";s:1:\"x\";}", "a:1:{s:1:\"a\";a:0:{}}", "a:1:{s:1:\"a\";a:0:{}}");
}

static void merged_references(void **state)
{
    /* an array shared by two keys, changed under one of them, is shared no more */
    assert_merged("a:2:{s:1:\"a\";a:1:{i:0;i:1;}s:1:\"b\";R:2;}", "a:1:{s:1:\"a\";a:1:{i:0;i:2;}}",
                  "a:2:{s:1:\"a\";a:1:{i:0;i:2;}s:1:\"b\";a:1:{i:0;i:1;}}");
    assert_merged("a:1:{s:1:\"x\";i:1;}", "a:2:{s:1:\"a\";i:5;s:1:\"b\";R:2;}",
                  "a:3:{s:1:\"x\";i:1;s:1:\"a\";i:5;s:1:\"b\";R:3;}");
    assert_merged("a:2:{s:1:\"a\";O:1:\"A\":0:{}s:1:\"b\";r:2;}", "a:1:{s:1:\"0\";i:0;}",
                  "a:3:{s:1:\"a\";O:1:\"A\":0:{}s:1:\"b\";r:2;i:0;i:0;}");
}

static void merge_refuses_what_is_no_array(void **state)
{
    struct bytes out = {0};
    bytes_append_str(&out, "kept");
    assert_int_equal(php_session_merge(&out, text("i:1;"), text("a:0:{}")), -EPROTO);
    assert_int_equal(php_session_merge(&out, text("a:0:{}"), text("N;")), -EPROTO);
    assert_int_equal(php_session_merge(&out, text(""), text("a:0:{}")), -EPROTO);
    assert_int_equal(php_session_merge(&out, text("a:0:{}"), text("a:1:{i:0;")), -EPROTO);
    assert_true(slice_eq_str((struct slice){out.data, out.len}, "kept"));
    bytes_fini(&out);
}

static void many_keys_are_found_by_hash(void **state)
{
    struct bytes session = {0}, patch = {0}, expected = {0}, out = {0};
    bytes_append_str(&session, "a:20000:{");
    bytes_append_str(&patch, "a:20000:{");
    bytes_append_str(&expected, "a:20000:{");
    for (int i = 0; i < 20000; i++) {
        bytes_printf(&session, "s:6:\"k%05d\";i:%d;", i, i);
        bytes_printf(&patch, "s:6:\"k%05d\";i:%d;", 19999 - i, -(19999 - i));
        bytes_printf(&expected, "s:6:\"k%05d\";i:%d;", i, -i);
    }
    bytes_append_byte(&session, '}');
    bytes_append_byte(&patch, '}');
    bytes_append_byte(&expected, '}');
    assert_int_equal(php_session_merge(&out, (struct slice){session.data, session.len},
                                       (struct slice){patch.data, patch.len}),
                     0);
    assert_true(slice_eq((struct slice){out.data, out.len}, (struct slice){expected.data, expected.len}));
    bytes_fini(&session);
    bytes_fini(&patch);
    bytes_fini(&expected);
    bytes_fini(&out);
}

static void nest(struct bytes *out, const char *open, const char *inner, int n)
{
    bytes_clear(out);
    for (int i = 0; i < n; i++)
        bytes_append_str(out, open);
    bytes_append_str(out, inner);
    for (int i = 0; i < n; i++)
        bytes_append_byte(out, '}');
}

static void nesting_is_limited_as_in_php(void **state)
{
    struct bytes in = {0}, out = {0};
    nest(&in, "a:1:{i:0;", "N;", 4096);
    assert_int_equal(php_reserialize(&out, (struct slice){in.data, in.len}), 0);
    assert_true(slice_eq((struct slice){in.data, in.len}, (struct slice){out.data, out.len}));
    nest(&in, "a:1:{i:0;", "N;", 4097);
    assert_int_equal(php_reserialize(&out, (struct slice){in.data, in.len}), -EPROTO);
    nest(&in, "O:1:\"A\":1:{i:0;", "N;", 200000);
    assert_int_equal(php_reserialize(&out, (struct slice){in.data, in.len}), -EPROTO);
    bytes_fini(&in);
    bytes_fini(&out);
}

/* Arrays that hold references to the one before: a path as long as the text, once the short ways to them are
 * gone. */
static void long_paths_through_references_are_refused(void **state)
{
    struct bytes session = {0}, patch = {0}, out = {0};
    bytes_append_str(&session, "a:20000:{i:0;a:0:{}");
    bytes_append_str(&patch, "a:19999:{i:0;N;");
    for (int i = 1; i < 20000; i++) {
        bytes_printf(&session, "i:%d;a:1:{i:0;R:%d;}", i, i + 1);
        if (i < 19999)
            bytes_printf(&patch, "i:%d;N;", i);
    }
    bytes_append_byte(&session, '}');
    bytes_append_byte(&patch, '}');
    assert_int_equal(php_session_merge(&out, (struct slice){session.data, session.len},
                                       (struct slice){patch.data, patch.len}),
                     -EPROTO);
    assert_int_equal(out.len, 0);
    bytes_fini(&session);
    bytes_fini(&patch);
    bytes_fini(&out);
}

/* Each level refers twice to the one below, on both sides: the merge would double with every level. */
static void merges_that_explode_are_refused(void **state)
{
    struct bytes in = {0}, out = {0};
    bytes_append_str(&in, "a:60:{i:0;a:2:{i:0;a:0:{}i:1;a:0:{}}");
    int below = 2, number = 5;
    for (int i = 1; i < 60; i++) {
        bytes_printf(&in, "i:%d;a:2:{i:0;R:%d;i:1;R:%d;}", i, below, below);
        below = number++;
    }
    bytes_append_byte(&in, '}');
    struct slice s = {in.data, in.len};
    assert_true(php_session_merge(&out, s, s) < 0);
    assert_int_equal(out.len, 0);
    bytes_fini(&in);
    bytes_fini(&out);
}

static const char *const blobs[] = {
    ("a:4:{s:1:\"a\";a:2:{i:0;d:0.1;i:1;R:2;}s:1:\"b\";O:3:\"Foo\":1:{s:1:\"x\";r:5;}i:7;b:1;s:1:\"c\";N;}"),
    ("a:3:{i:0;C:3:\"Foo\":4:{a}b;}i:1;E:11:\"Suit:Hearts\";i:2;S:2:\"\\41b\";}"),
    ("a:2:{s:4:\"user\";O:8:\"stdClass\":2:{s:2:\"id\";i:-5;s:4:\"list\";a:1:{i:0;s:3:\"abc\";}}"
     "s:2:\"09\";d:1.0E+25;}"),
};

/* Each blob cut at every place and with every byte changed: an answer, nothing read outside, and what is
 * taken is a fixed point of reading and writing. */
static void changed_and_cut_blobs(void **state)
{
    static const char bytes[] = "0129:;{}\"aOCERrsSiNbd-\\\xFF";
    struct bytes out = {0}, again = {0};
    for (size_t t = 0; t < sizeof blobs / sizeof *blobs; t++) {
        size_t len = strlen(blobs[t]);
        for (size_t at = 0; at < len; at++) {
            for (size_t b = 0; b < sizeof bytes; b++) {
                size_t n = bytes[b] == '\0' ? at : len; /* the last round cuts */
                uint8_t *copy = malloc(n > 0 ? n : 1);
                assert_non_null(copy);
                memcpy(copy, blobs[t], n);
                if (n == len)
                    copy[at] = (uint8_t)bytes[b];
                bytes_clear(&out);
                int err = php_reserialize(&out, (struct slice){copy, n});
                assert_true(err == 0 || err == -EPROTO);
                assert_true(n == len || err == -EPROTO);
                if (err == 0) {
                    bytes_clear(&again);
                    assert_int_equal(php_reserialize(&again, (struct slice){out.data, out.len}), 0);
                    assert_true(
                        slice_eq((struct slice){out.data, out.len}, (struct slice){again.data, again.len}));
                }
                bytes_clear(&out);
                err = php_session_merge(&out, text(blobs[2 - t]), (struct slice){copy, n});
                assert_true(err == 0 || err == -EPROTO);
                free(copy);
            }
        }
    }
    bytes_fini(&out);
    bytes_fini(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars),
        cmocka_unit_test(refuses_what_php_refuses),
        cmocka_unit_test(keys_become_what_php_makes_of_them),
        cmocka_unit_test(references_are_numbered_anew),
        cmocka_unit_test(unknown_classes_keep_name_and_properties),
        cmocka_unit_test(custom_objects_and_enums_are_kept),
        cmocka_unit_test(merges),
        cmocka_unit_test(merged_references),
        cmocka_unit_test(merge_refuses_what_is_no_array),
        cmocka_unit_test(many_keys_are_found_by_hash),
        cmocka_unit_test(nesting_is_limited_as_in_php),
        cmocka_unit_test(long_paths_through_references_are_refused),
        cmocka_unit_test(merges_that_explode_are_refused),
        cmocka_unit_test(changed_and_cut_blobs),
    };
    hash_init_fixed(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
