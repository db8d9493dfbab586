// SPDX-License-Identifier: MIT
#include "admin/top.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json_writer.h"

static struct bytes out;

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static int clear(void **state)
{
    bytes_fini(&out);
    return 0;
}

static void assert_out(const char *expected)
{
    bytes_append_byte(&out, 0);
    assert_string_equal((char *)out.data, expected);
}

static void rows_of_all_are_merged_by_value(void **state)
{
    struct top_rows t = {0};
    struct json_writer w = {.out = &out};
    top_rows_add(&t, text("{\"id\":1,\"value\":5},{\"id\":2,\"value\":1}"));
    top_rows_add(&t, text(""));
    top_rows_add(&t, text("{\"id\":3,\"value\":2.5},{\"id\":4}"));
    top_rows_write(&t, 3, &w);
    assert_out("{\"id\":1,\"value\":5},{\"id\":3,\"value\":2.5},{\"id\":2,\"value\":1}");
    top_rows_fini(&t);
}

/* The drawing in top.h. */
static void names_that_may_be_in_the_top_are_asked_for(void **state)
{
    struct top_names t = {0};
    struct json_writer w = {.out = &out};
    uint64_t shards = 0;
    top_names_add(&t, 0, text("{\"name\":\"a\",\"clients\":9},{\"name\":\"b\",\"clients\":7}"), 2);
    top_names_add(&t, 1, text("{\"name\":\"c\",\"clients\":8},{\"name\":\"b\",\"clients\":5}"), 2);
    assert_false(top_names_exact(&t, 1));
    struct top_name *n = top_names_next(&t, 1, &shards);
    assert_non_null(n);
    assert_string_equal(n->name, "c"); /* at most 15 */
    assert_int_equal(shards, 1);
    top_names_know(n, 0, 6);
    /* c has 14; a has at most as many, so that it changes nothing, and so has what nobody listed. */
    assert_null(top_names_next(&t, 1, &shards));
    assert_true(top_names_exact(&t, 1));
    top_names_write(&t, 1, &w);
    assert_out("{\"name\":\"c\",\"clients\":14}");
    top_names_fini(&t);
}

static void a_shard_with_few_names_has_no_others(void **state)
{
    struct top_names t = {0};
    uint64_t shards;
    top_names_add(&t, 0, text("{\"name\":\"a\",\"clients\":9}"), 10);
    top_names_add(&t, 5, text("{\"name\":\"b\",\"clients\":8},{\"name\":\"a\",\"clients\":1}"), 10);
    assert_null(top_names_next(&t, 2, &shards));
    assert_true(top_names_exact(&t, 2));
    top_names_fini(&t);
}

static void a_name_that_was_cut_is_not_asked_for(void **state)
{
    struct top_names t = {0};
    uint64_t shards;
    top_names_add(&t, 0, text("{\"name\":\"\\ufffd\",\"clients\":9}"), 1);
    top_names_add(&t, 1, text("{\"name\":\"b\",\"clients\":9}"), 1);
    struct top_name *n = top_names_next(&t, 2, &shards);
    assert_string_equal(n->name, "b");
    top_names_know(n, 0, 0);
    assert_null(top_names_next(&t, 2, &shards));
    assert_false(top_names_exact(&t, 2));
    top_names_fini(&t);
}

/* Against the true sums, with answers as shards give them. */
static void the_top_of_the_sums_is_found(void **state)
{
    enum { SHARDS = 4, NAMES = 60, FETCH = 8, LIMIT = 5 };
    for (unsigned seed = 1; seed <= 40; seed++) {
        unsigned of[SHARDS][NAMES], sums[NAMES] = {0};
        struct top_names t = {0};
        srand(seed);
        for (unsigned s = 0; s < SHARDS; s++) {
            struct bytes rows = {0};
            bool listed[NAMES] = {false};
            for (unsigned n = 0; n < NAMES; n++) {
                of[s][n] = (unsigned)rand() % (seed % 2 == 0 ? 1000 : 12);
                sums[n] += of[s][n];
            }
            for (unsigned i = 0; i < FETCH; i++) {
                unsigned best = NAMES;
                for (unsigned n = 0; n < NAMES; n++)
                    if (!listed[n] && of[s][n] > 0 && (best == NAMES || of[s][n] > of[s][best]))
                        best = n;
                if (best == NAMES)
                    break;
                listed[best] = true;
                bytes_printf(&rows, "%s{\"name\":\"n%u\",\"clients\":%u}", i > 0 ? "," : "", best,
                             of[s][best]);
            }
            top_names_add(&t, s, (struct slice){rows.data, rows.len}, FETCH);
            bytes_fini(&rows);
        }
        uint64_t shards;
        unsigned asked = 0;
        for (struct top_name *n; (n = top_names_next(&t, LIMIT, &shards)) != NULL; asked++) {
            for (unsigned s = 0; s < SHARDS; s++)
                if ((shards >> s & 1) != 0)
                    top_names_know(n, s, of[s][strtoul(n->name + 1, NULL, 10)]);
        }
        assert_true(asked <= SHARDS * FETCH);
        if (top_names_exact(&t, LIMIT)) {
            for (unsigned i = 0; i < LIMIT; i++) {
                unsigned more = 0, own = (unsigned)t.list[i].clients;
                assert_int_equal(own, sums[strtoul(t.list[i].name + 1, NULL, 10)]);
                for (unsigned n = 0; n < NAMES; n++)
                    more += sums[n] > own;
                assert_true(more <= i);
            }
        }
        top_names_fini(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(rows_of_all_are_merged_by_value, clear),
        cmocka_unit_test_teardown(names_that_may_be_in_the_top_are_asked_for, clear),
        cmocka_unit_test_teardown(a_shard_with_few_names_has_no_others, clear),
        cmocka_unit_test_teardown(a_name_that_was_cut_is_not_asked_for, clear),
        cmocka_unit_test_teardown(the_top_of_the_sums_is_found, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
