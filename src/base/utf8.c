// SPDX-License-Identifier: MIT
#include "base/utf8.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* The automaton: one 64-bit row per byte value, which holds the next state for each state at that state's bit
 * offset. A step is one load and one shift; the load does not depend on the state, so the chain is the shift.
 */
enum {
    ACC = UTF8_ACCEPT,
    REJ = UTF8_REJECT,
    N1 = 12, /* one more byte 80..BF */
    N2 = 18, /* two more */
    N3 = 24, /* three more */
    E0 = 30, /* after E0: A0..BF, else overlong; then one more */
    ED = 36, /* after ED: 80..9F, else a surrogate; then one more */
    F0 = 42, /* after F0: 90..BF, else overlong; then two more */
    F4 = 48, /* after F4: 80..8F, else above U+10FFFF; then two more */
};

#define ROW(acc, n1, n2, n3, e0, ed, f0, f4)                                                                 \
    ((uint64_t)(acc) << ACC | (uint64_t)REJ << REJ | (uint64_t)(n1) << N1 | (uint64_t)(n2) << N2 |           \
     (uint64_t)(n3) << N3 | (uint64_t)(e0) << E0 | (uint64_t)(ed) << ED | (uint64_t)(f0) << F0 |             \
     (uint64_t)(f4) << F4)
#define LEAD(next) ROW(next, REJ, REJ, REJ, REJ, REJ, REJ, REJ)

static const uint64_t rows[256] = {
    [0x00 ... 0x7F] = LEAD(ACC),
    [0x80 ... 0x8F] = ROW(REJ, ACC, N1, N2, REJ, N1, REJ, N2),
    [0x90 ... 0x9F] = ROW(REJ, ACC, N1, N2, REJ, N1, N2, REJ),
    [0xA0 ... 0xBF] = ROW(REJ, ACC, N1, N2, N1, REJ, N2, REJ),
    [0xC0 ... 0xC1] = LEAD(REJ),
    [0xC2 ... 0xDF] = LEAD(N1),
    [0xE0] = LEAD(E0),
    [0xE1 ... 0xEC] = LEAD(N2),
    [0xED] = LEAD(ED),
    [0xEE ... 0xEF] = LEAD(N2),
    [0xF0] = LEAD(F0),
    [0xF1 ... 0xF3] = LEAD(N3),
    [0xF4] = LEAD(F4),
    [0xF5 ... 0xFF] = LEAD(REJ),
};

uint32_t utf8_feed_slow(uint32_t state, const uint8_t *data, size_t len)
{
    uint64_t s = state;
    for (size_t i = 0; i < len; i++)
        s = rows[data[i]] >> (s & 63);
    return s & 63;
}

static bool ascii16(const uint8_t *p)
{
    uint64_t a, b;
    memcpy(&a, p, 8);
    memcpy(&b, p + 8, 8);
    return ((a | b) & UINT64_C(0x8080808080808080)) == 0;
}

/* The automaton with strides over ASCII. */
static uint32_t feed_portable(uint32_t state, const uint8_t *data, size_t len)
{
    while (len >= 16) {
        if (state != UTF8_ACCEPT || !ascii16(data)) {
            state = utf8_feed_slow(state, data, 16);
            if (state == UTF8_REJECT)
                return state;
        }
        data += 16;
        len -= 16;
    }
    return utf8_feed_slow(state, data, len);
}

#if defined(__x86_64__)

/* The algorithm of Keiser and Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte" (2020). Every
 * fault shows in two neighbouring bytes but for "too few or too many continuation bytes in a 3 or 4 byte
 * character". Three table look-ups, by the high and the low half of the first byte and the high half of the
 * second, each give the set of faults that the half allows; what all three allow is a fault. */
enum {
    TOO_SHORT = 1 << 0,      /* lead byte, then a byte that is no continuation */
    TOO_LONG = 1 << 1,       /* ASCII, then a continuation */
    OVERLONG_3 = 1 << 2,     /* E0 80..9F */
    TOO_LARGE = 1 << 3,      /* F4 90..BF, F5.. 90..BF */
    SURROGATE = 1 << 4,      /* ED A0..BF */
    OVERLONG_2 = 1 << 5,     /* C0..C1 80..BF */
    TOO_LARGE_1000 = 1 << 6, /* F5.. 80..8F; shares the bit with the next, of which no look-up row has both */
    OVERLONG_4 = 1 << 6,     /* F0 80..8F */
    TWO_CONTS = 1 << 7,      /* two continuations: right only in a 3 or 4 byte character */
    /* What does not depend on the low half of the first byte. */
    CARRY = TOO_SHORT | TOO_LONG | TWO_CONTS,
    BIG = CARRY | TOO_LARGE | TOO_LARGE_1000,
    CONT = TOO_LONG | OVERLONG_2 | TWO_CONTS,
};

static const uint8_t by_first_high[16] = {
    [0x0 ... 0x7] = TOO_LONG,
    [0x8 ... 0xB] = TWO_CONTS,
    [0xC] = TOO_SHORT | OVERLONG_2,
    [0xD] = TOO_SHORT,
    [0xE] = TOO_SHORT | OVERLONG_3 | SURROGATE,
    [0xF] = TOO_SHORT | TOO_LARGE | TOO_LARGE_1000 | OVERLONG_4,
};
static const uint8_t by_first_low[16] = {
    [0x0] = CARRY | OVERLONG_3 | OVERLONG_2 | OVERLONG_4,
    [0x1] = CARRY | OVERLONG_2,
    [0x2 ... 0x3] = CARRY,
    [0x4] = CARRY | TOO_LARGE,
    [0x5 ... 0xC] = BIG,
    [0xD] = BIG | SURROGATE,
    [0xE ... 0xF] = BIG,
};
static const uint8_t by_second_high[16] = {
    [0x0 ... 0x7] = TOO_SHORT,
    [0x8] = CONT | OVERLONG_3 | TOO_LARGE_1000 | OVERLONG_4,
    [0x9] = CONT | OVERLONG_3 | TOO_LARGE,
    [0xA ... 0xB] = CONT | SURROGATE | TOO_LARGE,
    [0xC ... 0xF] = TOO_SHORT,
};

#define AVX2 __attribute__((target("avx2")))

/* `cur` moved up by n bytes, filled from the end of `prev`: for each byte the one n places before it. */
#define BEFORE(n, cur, prev) _mm256_alignr_epi8(cur, _mm256_permute2x128_si256(prev, cur, 0x21), 16 - (n))

AVX2 static inline __m256i high_half(__m256i v)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(0x0F));
}

AVX2 static inline __m256i look_up(const uint8_t table[16], __m256i index)
{
    __m128i half = _mm_loadu_si128((const __m128i *)table);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(half), index);
}

/* Non-zero where two neighbours are wrong, or where TWO_CONTS stands. */
AVX2 static inline __m256i pair_faults(__m256i cur, __m256i before1)
{
    __m256i a = look_up(by_first_high, high_half(before1));
    __m256i b = look_up(by_first_low, _mm256_and_si256(before1, _mm256_set1_epi8(0x0F)));
    __m256i c = look_up(by_second_high, high_half(cur));
    return _mm256_and_si256(_mm256_and_si256(a, b), c);
}

AVX2 static inline __m256i block_faults(__m256i cur, __m256i prev)
{
    __m256i pairs = pair_faults(cur, BEFORE(1, cur, prev));
    /* Third byte of a 3 or 4 byte character, fourth of a 4 byte one: there TWO_CONTS has to stand, elsewhere
     * not. */
    __m256i third = _mm256_subs_epu8(BEFORE(2, cur, prev), _mm256_set1_epi8((char)(0xE0 - 0x80)));
    __m256i fourth = _mm256_subs_epu8(BEFORE(3, cur, prev), _mm256_set1_epi8((char)(0xF0 - 0x80)));
    __m256i due = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8((char)0x80));
    return _mm256_xor_si256(pairs, due);
}

/* `len` is a multiple of 64 and data starts with a character. False: faulty. A character that the end cuts is
 * not a fault yet. */
AVX2 static bool blocks_ok(const uint8_t *data, size_t len)
{
    __m256i prev = _mm256_setzero_si256(), faults = prev;
    for (size_t i = 0; i < len; i += 64) {
        __m256i lo = _mm256_loadu_si256((const __m256i *)(data + i));
        __m256i hi = _mm256_loadu_si256((const __m256i *)(data + i + 32));
        /* All ASCII, and the block before ended in ASCII too, so that no character is open. */
        __m256i tail = _mm256_permute2x128_si256(prev, prev, 0x11);
        if (_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(lo, hi), tail)) != 0) {
            faults = _mm256_or_si256(faults, block_faults(lo, prev));
            faults = _mm256_or_si256(faults, block_faults(hi, lo));
        }
        prev = hi;
    }
    return _mm256_testz_si256(faults, faults) != 0;
}

/* Where the last character of data[0..end) starts when the end may cut it; else `end`. */
static size_t last_start(const uint8_t *data, size_t end)
{
    for (size_t back = 1; back <= 3 && back <= end; back++) {
        if (data[end - back] >= 0xC0)
            return end - back;
        if (data[end - back] < 0x80)
            break;
    }
    return end;
}

static uint32_t feed_avx2(uint32_t state, const uint8_t *data, size_t len)
{
    size_t pos = 0;
    for (; state != UTF8_ACCEPT && pos < len; pos++) {
        state = utf8_feed_slow(state, data + pos, 1);
        if (state == UTF8_REJECT)
            return UTF8_REJECT;
    }
    size_t whole = (len - pos) & ~(size_t)63;
    if (whole > 0) {
        if (!blocks_ok(data + pos, whole))
            return UTF8_REJECT;
        pos += last_start(data + pos, whole);
    }
    return feed_portable(state, data + pos, len - pos);
}
#endif

uint32_t utf8_feed(uint32_t state, const uint8_t *data, size_t len)
{
#if defined(__x86_64__)
    if (len >= 64 && __builtin_cpu_supports("avx2"))
        return feed_avx2(state, data, len);
#endif
    return feed_portable(state, data, len);
}
