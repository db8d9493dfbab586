// SPDX-License-Identifier: MIT
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Another way to the same answer: decode, and look whether the shortest encoding of the result is what was
 * there. */
static size_t encode(uint32_t cp, uint8_t out[4])
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const uint8_t lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (uint8_t)(0x80 | (cp & 0x3F));
    out[0] = (uint8_t)(lead[n] | cp);
    return n;
}

static bool oracle_valid(const uint8_t *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = s[i] < 0x80   ? 1
                   : s[i] < 0xC0 ? 0
                   : s[i] < 0xE0 ? 2
                   : s[i] < 0xF0 ? 3
                   : s[i] < 0xF8 ? 4
                                 : 0;
        uint32_t cp = n == 1 ? s[i] : n == 2 ? s[i] & 0x1F : n == 3 ? s[i] & 0x0F : s[i] & 0x07;
        if (n == 0 || len - i < n)
            return false;
        for (size_t k = 1; k < n; k++) {
            if ((s[i + k] & 0xC0) != 0x80)
                return false;
            cp = cp << 6 | (s[i + k] & 0x3F);
        }
        uint8_t again[4];
        if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF) || encode(cp, again) != n ||
            memcmp(again, s + i, n) != 0)
            return false;
        i += n;
    }
    return true;
}

static void every_code_point(void **state)
{
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        uint8_t s[4];
        size_t n = encode(cp, s);
        bool surrogate = cp >= 0xD800 && cp <= 0xDFFF;
        assert_int_equal(utf8_valid(s, n), !surrogate);
    }
}

static void every_short_sequence(void **state)
{
    uint8_t s[3];
    for (uint32_t v = 0; v < 1 << 24; v++) {
        s[0] = (uint8_t)(v >> 16);
        s[1] = (uint8_t)(v >> 8);
        s[2] = (uint8_t)v;
        if (utf8_valid(s, 3) != oracle_valid(s, 3))
            fail_msg("%02x %02x %02x", s[0], s[1], s[2]);
    }
}

/* Every pair of first bytes, and the edges of the other two. */
static void every_four_byte_edge(void **state)
{
    static const uint8_t edges[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xE0, 0xF0, 0xFF};
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++)
            for (size_t c = 0; c < sizeof edges; c++)
                for (size_t d = 0; d < sizeof edges; d++) {
                    uint8_t s[4] = {(uint8_t)a, (uint8_t)b, edges[c], edges[d]};
                    assert_int_equal(utf8_valid(s, 4), oracle_valid(s, 4));
                }
}

/* How many bytes in the first bad one stands, so that "fails at the first bad byte" is checked too; 0: none.
 */
static void check_text(const char *text, size_t len, size_t first_bad)
{
    const uint8_t *s = (const uint8_t *)text;
    for (size_t split = 0; split <= len; split++) {
        uint32_t st = utf8_feed(UTF8_ACCEPT, s, split);
        assert_int_equal(st == UTF8_REJECT, first_bad != 0 && split >= first_bad);
        assert_int_equal(utf8_feed(st, s + split, len - split), utf8_feed_slow(UTF8_ACCEPT, s, len));
    }
    assert_int_equal(utf8_valid(s, len), oracle_valid(s, len));
}

#define GOOD(t)     check_text(t, sizeof(t) - 1, 0)
#define BAD(t, pos) check_text(t, sizeof(t) - 1, pos)

static void valid_boundaries(void **state)
{
    GOOD("");
    GOOD("\x00");
    GOOD("Hello-\xC2\xB5@\xC3\x9F\xC3\xB6\xC3\xA4\xC3\xBC\xC3\xA0\xC3\xA1-UTF-8!!");
    GOOD("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5");
    GOOD("\x7F");
    GOOD("\xC2\x80");
    GOOD("\xDF\xBF");
    GOOD("\xE0\xA0\x80");
    GOOD("\xED\x9F\xBF");
    GOOD("\xEE\x80\x80");
    GOOD("\xEF\xBF\xBD");
    GOOD("\xEF\xBF\xBE"); /* not characters, yet UTF-8 */
    GOOD("\xEF\xBF\xBF");
    GOOD("\xF0\x90\x80\x80");
    GOOD("\xF4\x8F\xBF\xBF");
    GOOD("\xF0\x9F\xBF\xBE");
}

static void invalid_sequences(void **state)
{
    BAD("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80\x65\x64\x69\x74\x65\x64",
        13); /* surrogate */
    BAD("\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80\x65\x64\x69\x74\x65\x64",
        13);                        /* too large */
    BAD("\xF8\x88\x80\x80\x80", 1); /* five and six bytes */
    BAD("\xFC\x84\x80\x80\x80\x80", 1);
    BAD("\xF7\xBF\xBF\xBF", 1);
    BAD("\xFB\xBF\xBF\xBF\xBF", 1);
    BAD("\xFE", 1);
    BAD("\xFF", 1);
    BAD("\xFE\xFE\xFF\xFF", 1);
    BAD("\x80", 1); /* continuations alone */
    BAD("\xBF", 1);
    BAD("\x80\xBF\x80\xBF\x80\xBF", 1);
    BAD("a\x80", 2);
    BAD("\xC0 \xC1 ", 1); /* lead bytes, each followed by a space */
    BAD("\xC2 \xC3 ", 2);
    BAD("\xE1 \xE2 ", 2);
    BAD("\xF1 \xF2 ", 2);
    BAD("\xE1\x80 ", 3);
    BAD("\xF1\x80\x80 ", 4);
    BAD("\xC0\xAF", 1); /* overlong */
    BAD("\xC1\xBF", 1);
    BAD("\xE0\x80\xAF", 2);
    BAD("\xE0\x9F\xBF", 2);
    BAD("\xF0\x80\x80\xAF", 2);
    BAD("\xF0\x8F\xBF\xBF", 2);
    BAD("\xC0\x80", 1);
    BAD("\xED\xA0\x80", 2); /* surrogates, alone and in pairs */
    BAD("\xED\xBF\xBF", 2);
    BAD("\xED\xA0\x80\xED\xB0\x80", 2);
    BAD("\xED\xAF\xBF\xED\xBF\xBF", 2);
    BAD("\xF4\x90\x80\x80", 2);
    BAD("\xF5\x80\x80\x80", 1);
}

static void cut_characters_are_not_valid_but_open(void **state)
{
    static const char *const cut[] = {"\xC3",         "\xDF",     "\xE0",         "\xE0\xA0",
                                      "\xED\x9F",     "\xEF\xBF", "\xF0\x90\x80", "\xF0\x90",
                                      "\xF4\x8F\xBF", "\xF1",     "\xED"};
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        uint32_t st = utf8_feed(UTF8_ACCEPT, (const uint8_t *)cut[i], strlen(cut[i]));
        assert_int_not_equal(st, UTF8_ACCEPT);
        assert_int_not_equal(st, UTF8_REJECT);
    }
}

static void reject_stays(void **state)
{
    uint8_t text[300];
    memset(text, 'a', sizeof text);
    assert_int_equal(utf8_feed(UTF8_REJECT, text, sizeof text), UTF8_REJECT);
    assert_int_equal(utf8_feed(UTF8_REJECT, text, 1), UTF8_REJECT);
    assert_int_equal(utf8_feed(UTF8_REJECT, text, 0), UTF8_REJECT);
}

static uint64_t rng = 0x9E3779B97F4A7C15;
static uint32_t draw(uint32_t below)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((rng >> 33) % below);
}

static uint32_t draw_code_point(unsigned kind)
{
    static const uint32_t limits[4][2] = {{0, 0x80}, {0x80, 0x800}, {0x800, 0xD800}, {0x10000, 0x110000}};
    return limits[kind][0] + draw(limits[kind][1] - limits[kind][0]);
}

/* Text of one kind of characters or of all, so that the SIMD code sees runs as well as mixtures. */
static size_t draw_text(uint8_t *out, size_t cap)
{
    size_t len = 0, want = draw((uint32_t)cap - 4);
    unsigned kinds = draw(6);
    while (len < want)
        len += encode(draw_code_point(kinds < 4 ? kinds : draw(4)), out + len);
    return len;
}

static void compare_all_ways(const uint8_t *s, size_t len)
{
    uint32_t want = utf8_feed_slow(UTF8_ACCEPT, s, len);
    assert_int_equal(want == UTF8_ACCEPT, oracle_valid(s, len));
    assert_int_equal(utf8_feed(UTF8_ACCEPT, s, len), want);
    size_t split = draw((uint32_t)len + 1);
    uint32_t st = utf8_feed(UTF8_ACCEPT, s, split);
    assert_int_equal(st, utf8_feed_slow(UTF8_ACCEPT, s, split));
    assert_int_equal(utf8_feed(st, s + split, len - split), want);
}

static void long_text_equals_the_automaton(void **state)
{
    static uint8_t text[1200];
    for (int round = 0; round < 20000; round++) {
        size_t len = draw_text(text, sizeof text);
        assert_true(utf8_valid(text, len));
        compare_all_ways(text, len);
        for (int k = 0; k < 3 && len > 0; k++) {
            text[draw((uint32_t)len)] = (uint8_t)draw(256);
            compare_all_ways(text, len);
        }
    }
}

/* Each faulty sequence at each place of a long text, across the borders of the SIMD blocks. */
static void a_fault_is_found_at_every_offset(void **state)
{
    static const char *const faults[] = {"\x80",
                                         "\xC0\xAF",
                                         "\xE0\x9F\xBF",
                                         "\xED\xA0\x80",
                                         "\xC3\x28",
                                         "\xF0\x8F\xBF\xBF",
                                         "\xF4\x90\x80\x80",
                                         "\xF5\x80\x80\x80",
                                         "\xE2\x82",
                                         "\xF0\x9F\x98",
                                         "\xFF"};
    uint8_t text[400];
    for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++)
        for (size_t at = 0; at + 5 <= sizeof text; at++) {
            memset(text, 'x', sizeof text);
            memcpy(text + at, faults[f], strlen(faults[f]));
            assert_int_equal(utf8_feed(UTF8_ACCEPT, text, sizeof text), UTF8_REJECT);
            /* and when the bytes around it are not ASCII */
            for (size_t i = 0; i + 2 <= at; i += 2)
                memcpy(text + i, "\xC3\xA9", 2);
            assert_int_equal(utf8_feed(UTF8_ACCEPT, text, sizeof text), UTF8_REJECT);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point),
        cmocka_unit_test(every_short_sequence),
        cmocka_unit_test(every_four_byte_edge),
        cmocka_unit_test(valid_boundaries),
        cmocka_unit_test(invalid_sequences),
        cmocka_unit_test(cut_characters_are_not_valid_but_open),
        cmocka_unit_test(reject_stays),
        cmocka_unit_test(long_text_equals_the_automaton),
        cmocka_unit_test(a_fault_is_found_at_every_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
