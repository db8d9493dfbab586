// SPDX-License-Identifier: MIT
#include "main/ctl_show.h"

#include <stdlib.h>
#include <string.h>

#include "main/ctl_seen.h"
#include "main/ctl_trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct ctl_column columns[] = {
    {"name", "name", CTL_TEXT},
    {"n", "n", CTL_NUMBER, .rate = "n/s"},
    {"size", "in.bytes", CTL_BYTES, .rate = "size/s", .rate_only = true},
    {"cpu", "cpu_ns", CTL_NS, .rate = "busy", .rate_only = true},
    {"on", "on", CTL_YES},
    {0},
};
static const struct ctl_section section = {"rows", columns, .key = "name shard", .sort = "-n",
                                           .none = "none"};

static json_t *json(const char *text)
{
    json_t *value = json_loads(text, JSON_ALLOW_NUL, NULL);
    assert_non_null(value);
    return value;
}

struct shown {
    struct bytes out, notes;
    struct ctl_args args;
    struct ctl_view v;
};

static void show_init(struct shown *s, const char *answer, const char *before)
{
    *s = (struct shown){0};
    s->v = (struct ctl_view){.args = &s->args, .out = &s->out, .notes = &s->notes, .answer = json(answer)};
    if (before != NULL) {
        s->v.watch = true;
        s->v.before = json(before);
        s->v.elapsed_s = 2;
    }
}

static void expect(struct shown *s, const char *expected)
{
    bytes_append_byte(&s->out, 0);
    assert_string_equal((char *)s->out.data, expected);
    json_decref(s->v.answer);
    json_decref(s->v.before);
    bytes_fini(&s->out);
    bytes_fini(&s->notes);
}

static void rows_are_sorted_and_have_units(void **state)
{
    struct shown s;
    show_init(&s,
              "{\"rows\":[{\"name\":\"a\",\"n\":1,\"in\":{\"bytes\":2048},\"cpu_ns\":1500000,\"on\":true},"
              "{\"name\":null,\"n\":20,\"on\":false}]}",
              NULL);
    ctl_show_section(&s.v, &section);
    expect(&s, "name   n    size     cpu  on\n"
               "-     20       -       -  -\n"
               "a      1  2.0 KB  1.5 ms  yes\n");
}

static void without_rows_it_says_so(void **state)
{
    struct shown s;
    show_init(&s, "{\"rows\":[]}", NULL);
    ctl_show_section(&s.v, &section);
    expect(&s, "none\n");
}

static void changes_are_per_second_and_of_the_same_row(void **state)
{
    struct shown s;
    show_init(
        &s,
        "{\"rows\":[{\"name\":\"a\",\"shard\":0,\"n\":10,\"in\":{\"bytes\":4096},\"cpu_ns\":2000000000},"
        "{\"name\":\"a\",\"shard\":1,\"n\":9,\"in\":{\"bytes\":10},\"cpu_ns\":7},"
        "{\"name\":\"new\",\"shard\":1,\"n\":8}]}",
        "{\"rows\":[{\"name\":\"a\",\"shard\":1,\"n\":19,\"in\":{\"bytes\":10},\"cpu_ns\":7},"
        "{\"name\":\"a\",\"shard\":0,\"n\":7,\"in\":{\"bytes\":0},\"cpu_ns\":1000000000}]}");
    ctl_show_section(&s.v, &section);
    expect(&s, "name   n  n/s  size/s   busy  on\n"
               "a     10  1.5  2.0 KB  50.0%  -\n"
               "a      9   -5     0 B   0.0%  -\n"
               "new    8    -       -      -  -\n");
}

static void the_first_answer_of_a_watch_has_its_columns_already(void **state)
{
    struct shown s;
    show_init(&s, "{\"rows\":[{\"name\":\"a\",\"shard\":0,\"n\":10}]}", NULL);
    s.v.watch = true;
    ctl_show_section(&s.v, &section);
    expect(&s, "name   n  n/s  size/s  busy  on\n"
               "a     10    -       -     -  -\n");
}

static void objects_are_lines_with_units_by_name(void **state)
{
    struct shown s;
    show_init(&s,
              "{\"connection_id\":7,\"age_s\":200,\"queue_bytes\":2048,\"groups\":[\"a\",\"b\\u001b\"],"
              "\"tls_info\":{\"version\":\"1.3\",\"resumed\":false},\"worker\":null,\"list\":[]}",
              NULL);
    ctl_show_object(&s.v, s.v.answer);
    expect(&s, "connection_id     7\n"
               "age_s             3m20s\n"
               "queue_bytes       2.0 KB\n"
               "groups            a, b\\x1b\n"
               "tls_info.version  1.3\n"
               "tls_info.resumed  no\n"
               "worker            -\n"
               "list              -\n");
}

static void wrong_types_are_shown_as_they_are(void **state)
{
    struct shown s;
    show_init(&s, "{\"rows\":[{\"name\":5,\"n\":\"many\",\"in\":7,\"cpu_ns\":[1,2],\"on\":\"x\"},3]}", NULL);
    ctl_show_section(&s.v, &section);
    expect(&s, "name     n  size   cpu  on\n"
               "5     many     -  1, 2  -\n"
               "-        -     -     -  -\n");
}

static void lines_of_a_trace(void **state)
{
    struct bytes out = {0};
    static const char line[] = "{\"at_unix_ms\":1500,\"since_ms\":0.25,\"shard\":1,\"connection_id\":42,"
                               "\"event\":\"in\",\"size\":5,\"bytes\":\"a\\u001b\\u0000\"}";
    setenv("TZ", "UTC", 1);
    ctl_trace_line(line, strlen(line), &(struct ctl_screen){0}, &out);
    ctl_trace_line("\x1bnot json", 9, &(struct ctl_screen){0}, &out);
    bytes_append_byte(&out, 0);
    assert_string_equal(
        (char *)out.data,
        "00:00:01.500    250 us  shard 1          42  in           size=5 bytes=\"a\\x1b\\x00\"\n"
        "\\x1bnot json\n");
    bytes_fini(&out);
}

static void seen_numbers_are_new_once(void **state)
{
    struct ctl_seen seen = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t i = 0; i < 20000; i++)
            assert_int_equal(ctl_seen_add(&seen, i * 3), pass == 0);
    }
    assert_true(ctl_seen_add(&seen, 1));
    ctl_seen_fini(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sorted_and_have_units),
        cmocka_unit_test(without_rows_it_says_so),
        cmocka_unit_test(changes_are_per_second_and_of_the_same_row),
        cmocka_unit_test(the_first_answer_of_a_watch_has_its_columns_already),
        cmocka_unit_test(objects_are_lines_with_units_by_name),
        cmocka_unit_test(wrong_types_are_shown_as_they_are),
        cmocka_unit_test(lines_of_a_trace),
        cmocka_unit_test(seen_numbers_are_new_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
