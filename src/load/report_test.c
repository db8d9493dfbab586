// SPDX-License-Identifier: MIT
#include "load/plot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "load/report.h"

static struct bench_options o;
static struct bench_result *r;

static int setup(void **state)
{
    r = calloc(1, sizeof(*r));
    o = (struct bench_options){
        .url = "ws://h/<&\"'>", .connections = 10, .processes = 1, .one_in = 1, .rate = 1, .outstanding = 1};
    mix_parse("64", &o.mix);
    template_parse("{mark}{fill}", &o.message);
    r->opt = &o;
    return 0;
}

static int teardown(void **state)
{
    bench_result_fini(r);
    free(r);
    return 0;
}

static void run_was(size_t n_samples, uint64_t n_latencies)
{
    r->n_samples = n_samples;
    r->samples = calloc(n_samples + 1, sizeof(*r->samples));
    r->run_s = (double)n_samples;
    for (size_t i = 0; i < n_samples; i++)
        r->samples[i] = (struct bench_sample){.end_ms = 1000 * (i + 1),
                                              .open = 10,
                                              .out_per_s = 10,
                                              .in_per_s = 10,
                                              .p50_ns = 1000 * i,
                                              .p90_ns = 2000 * i,
                                              .p99_ns = 3000 * i,
                                              .max_ns = 4000 * i};
    for (uint64_t i = 1; i <= n_latencies; i++)
        hist_add(&r->sum.latency, 100000 + i * i * 1000);
    r->sum.counts[BENCH_begun] = r->sum.counts[BENCH_opened] = 10;
    r->sum.counts[BENCH_messages_out] = n_latencies;
}

/* Enough to see that every tag is closed, by the one that it should be, and that there is no bare & or <. */
static void must_be_well_formed(const struct bytes *text)
{
    const char *stack[64];
    size_t depth = 0, lens[64];
    const char *end = (const char *)text->data + text->len;
    assert_false(text->failed);
    for (const char *p = (const char *)text->data; p < end; p++) {
        if (*p == '&')
            assert_true(memcmp(p, "&amp;", 5) == 0 || memcmp(p, "&lt;", 4) == 0 ||
                        memcmp(p, "&gt;", 4) == 0 || memcmp(p, "&quot;", 6) == 0 ||
                        memcmp(p, "&#39;", 5) == 0);
        if (*p != '<')
            continue;
        const char *close = memchr(p, '>', (size_t)(end - p));
        assert_non_null(close);
        assert_null(memchr(p + 1, '<', (size_t)(close - p - 1)));
        const char *name = p + 1 + (p[1] == '/');
        size_t len = strcspn(name, " />");
        if (p[1] == '/') {
            assert_true(depth > 0 && lens[depth - 1] == len && memcmp(stack[depth - 1], name, len) == 0);
            depth--;
        } else if (p[1] != '!' && p[1] != '?' && close[-1] != '/') {
            assert_true(depth < 64);
            stack[depth] = name;
            lens[depth++] = len;
        }
        p = close;
    }
    assert_int_equal(depth, 0);
}

/* In attributes. */
static void has_only_numbers(const struct bytes *text)
{
    static const char *const wrong[] = {"nan\"", "nan,", "inf\"", "inf,"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_null(memmem(text->data, text->len, wrong[i], 4));
}

static void both_are_well_formed(void)
{
    struct bytes text = {0};
    plot_html(r, &text);
    must_be_well_formed(&text);
    has_only_numbers(&text);
    bytes_clear(&text);
    plot_svg(r, &text);
    must_be_well_formed(&text);
    has_only_numbers(&text);
    bytes_fini(&text);
}

static void escapes_what_xml_would_read(void **state)
{
    struct bytes out = {0};
    plot_escape(&out, "a<b>&\"'\x01\xff\xc3\xa4\xed\xa0\x80");
    bytes_append_byte(&out, '\0');
    assert_string_equal((char *)out.data, "a&lt;b&gt;&amp;&quot;&#39;??\xc3\xa4???");
    bytes_fini(&out);
}

static void charts_of_nothing(void **state)
{
    run_was(0, 0);
    both_are_well_formed();
    o.idle = true;
    both_are_well_formed();
}

static void charts_of_one_second_and_one_latency(void **state)
{
    run_was(1, 1);
    both_are_well_formed();
}

static void charts_of_a_long_run(void **state)
{
    struct bytes text = {0};
    run_was(100000, 5000);
    both_are_well_formed();
    plot_svg(r, &text);
    assert_in_range(text.len, 1000, 200000);
    bytes_fini(&text);
}

static void json_says_what_was_counted(void **state)
{
    struct bytes text = {0};
    json_error_t error;
    run_was(3, 100);
    r->sum.closes[1001] = 2;
    r->sum.http[403] = 1;
    report_json(r, &text);
    json_t *j = json_loadb((char *)text.data, text.len, 0, &error);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "url")), o.url);
    json_t *counts = json_object_get(j, "counts");
    assert_int_equal(json_integer_value(json_object_get(counts, "messages_out")), 100);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "latency"), "count")), 100);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "closes"), "1001")), 2);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "http_answers"), "403")), 1);
    assert_int_equal(json_array_size(json_object_get(j, "samples")), 3);
    size_t i;
    json_t *bucket;
    json_int_t sum = 0;
    json_array_foreach(json_object_get(j, "latency_histogram"), i, bucket) sum +=
        json_integer_value(json_array_get(bucket, 2));
    assert_int_equal(sum, 100);
    json_decref(j);
    bytes_fini(&text);
}

static void errors_are_the_larger_of_two_shares(void **state)
{
    run_was(1, 100);
    o.max_errors = 5;
    assert_true(bench_is_good(r));
    r->sum.counts[BENCH_failed] = 1;
    assert_true(bench_errors_percent(r) == 10 && !bench_is_good(r));
    r->sum.counts[BENCH_failed] = 0;
    r->sum.counts[BENCH_unanswered] = 3;
    assert_true(bench_errors_percent(r) == 3 && bench_is_good(r));
    r->sum.counts[BENCH_opened] = 0;
    assert_false(bench_is_good(r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_what_xml_would_read),
        cmocka_unit_test_setup_teardown(charts_of_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(charts_of_one_second_and_one_latency, setup, teardown),
        cmocka_unit_test_setup_teardown(charts_of_a_long_run, setup, teardown),
        cmocka_unit_test_setup_teardown(json_says_what_was_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_are_the_larger_of_two_shares, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
