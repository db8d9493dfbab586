// SPDX-License-Identifier: MIT
#include "load/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void marks_come_back_from_whatever_is_around_them(void **state)
{
    struct mark in = {0xabcdef, 12345, MARK_ID_MAX, 0x123456789abc}, out;
    char text[200] = "{\"say\":\"tgg~not a mark, tgg~";
    size_t at = strlen(text);
    mark_write(&in, text + at);
    memcpy(text + at + MARK_BYTES, "\"}", 3);
    size_t len = strlen(text);
    assert_int_equal(mark_find((const uint8_t *)text, len, &out), at + MARK_BYTES);
    assert_true(in.run == out.run && in.client == out.client && in.seq == out.seq &&
                in.time_ns == out.time_ns);
    assert_int_equal(mark_find((const uint8_t *)text, at + MARK_BYTES - 1, &out), 0);
    assert_int_equal(mark_find((const uint8_t *)text, 0, &out), 0);
    for (size_t i = at; i < at + MARK_BYTES; i++)
        assert_true(text[i] > ' ' && text[i] != '"' && text[i] != '\\' && text[i] < 127);
}

static void every_mark_of_a_message_is_found(void **state)
{
    struct mark m = {.run = 1}, out;
    char text[3 * MARK_BYTES + 1];
    for (uint32_t i = 0; i < 3; i++) {
        m.seq = i;
        mark_write(&m, text + i * MARK_BYTES);
    }
    size_t at = 0;
    for (uint32_t i = 0; i < 3; i++) {
        at += mark_find((const uint8_t *)text + at, 3 * MARK_BYTES - at, &out);
        assert_int_equal(at, (i + 1) * MARK_BYTES);
        assert_int_equal(out.seq, i);
    }
    assert_int_equal(mark_find((const uint8_t *)text + at, 3 * MARK_BYTES - at, &out), 0);
}

static void ages_survive_the_clock_going_round(void **state)
{
    struct mark m = {.time_ns = MARK_TIME_MASK - 10};
    assert_int_equal(mark_age_ns(&m, MARK_TIME_MASK + 90), 100);
    assert_int_equal(mark_age_ns(&m, MARK_TIME_MASK - 10), 0);
    assert_int_equal(mark_age_ns(&m, MARK_TIME_MASK - 20), 0);
}

static void a_mix_is_what_its_weights_say(void **state)
{
    struct mix m;
    uint32_t counts[3] = {0}, same = 0, last = 0, longest = 0;
    assert_true(mix_parse("64:80,1024:15,16384:5", &m));
    assert_int_equal(m.n, 3);
    assert_int_equal(m.total, 100);
    for (uint64_t i = 0; i < 1000; i++) {
        uint32_t size = mix_size(&m, i);
        counts[size == 64 ? 0 : size == 1024 ? 1 : 2]++;
        same = size == last ? same + 1 : 1;
        last = size;
        longest = same > longest ? same : longest;
    }
    assert_int_equal(counts[0], 800);
    assert_int_equal(counts[1], 150);
    assert_int_equal(counts[2], 50);
    assert_in_range(longest, 1, 15);
    assert_int_equal(mix_size_min(&m), 64);
    assert_int_equal(mix_size_max(&m), 16384);
    assert_int_equal(mix_mean_milli(&m), (64 * 80 + 1024 * 15 + 16384 * 5) * 10);
}

static void mixes_of_any_total_hold_every_part(void **state)
{
    struct mix m;
    assert_true(mix_parse("1:1,2:1", &m));
    assert_int_equal(mix_size(&m, 0) + mix_size(&m, 1), 3);
    assert_true(mix_parse("1:2,2:1", &m));
    assert_int_equal(mix_size(&m, 0) + mix_size(&m, 1) + mix_size(&m, 2), 4);
    assert_true(mix_parse("100", &m));
    assert_int_equal(mix_size(&m, 12345), 100);
}

static void what_is_no_mix_is_refused(void **state)
{
    static const char *const wrong[] = {"",    "a",      "0",  "64:",   "64:0",     "64,",
                                        ",64", "64:1:1", "-1", "64 :1", "16777217", "64:1000001"};
    struct mix m = {.n = 99};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(mix_parse(wrong[i], &m));
    assert_int_equal(m.n, 99);
}

static size_t fill(const char *text, size_t size, char *out, size_t cap)
{
    struct template t;
    struct message_values v = {.id = 7, .seq = 12, .time_ms = 1700000000123};
    assert_true(template_parse(text, &t));
    size_t len = template_fill(&t, &v, size, (uint8_t *)out, cap - 1);
    out[len] = '\0';
    return len;
}

static void templates_are_filled(void **state)
{
    char out[200];
    fill("{\"id\":{id},\"n\":{seq},\"at\":{time},\"x\":{}}", 0, out, sizeof(out));
    assert_string_equal(out, "{\"id\":7,\"n\":12,\"at\":1700000000123,\"x\":{}}");
    fill("plain", 100, out, sizeof(out));
    assert_string_equal(out, "plain");
    fill("{id}{id}", 0, out, sizeof(out));
    assert_string_equal(out, "77");
    fill("{ident}{", 0, out, sizeof(out));
    assert_string_equal(out, "{ident}{");
}

static void fill_brings_a_message_to_its_size(void **state)
{
    char out[200];
    for (size_t size = 0; size < 150; size++) {
        size_t bare = strlen("<12|>") + MARK_BYTES;
        assert_int_equal(fill("<{seq}|{mark}{fill}>", size, out, sizeof(out)), size > bare ? size : bare);
        assert_int_equal(out[strlen(out) - 1], '>');
    }
    assert_int_equal(fill("{fill}{fill}", 60, out, sizeof(out)), 60);
    assert_int_equal(fill("{fill}", 1000, out, sizeof(out)), sizeof(out) - 1);
}

static void a_template_says_how_long_it_can_become(void **state)
{
    struct template t;
    assert_true(template_parse("{id}{seq}", &t));
    assert_int_equal(template_len_max(&t, 10), 40);
    assert_int_equal(template_len_max(&t, 100), 100);
    assert_true(template_has(&t, PIECE_SEQ));
    assert_false(template_has(&t, PIECE_MARK));
}

static void too_many_pieces_are_refused(void **state)
{
    char text[5 * 70] = "";
    struct template t;
    for (size_t i = 0; i < 64; i++)
        memcpy(text + 4 * i, "{id}", 5);
    assert_true(template_parse(text, &t));
    memcpy(text + 4 * 64, "{id}", 5);
    assert_false(template_parse(text, &t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_come_back_from_whatever_is_around_them),
        cmocka_unit_test(every_mark_of_a_message_is_found),
        cmocka_unit_test(ages_survive_the_clock_going_round),
        cmocka_unit_test(a_mix_is_what_its_weights_say),
        cmocka_unit_test(mixes_of_any_total_hold_every_part),
        cmocka_unit_test(what_is_no_mix_is_refused),
        cmocka_unit_test(templates_are_filled),
        cmocka_unit_test(fill_brings_a_message_to_its_size),
        cmocka_unit_test(a_template_says_how_long_it_can_become),
        cmocka_unit_test(too_many_pieces_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
