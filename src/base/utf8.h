// SPDX-License-Identifier: MIT
/* UTF-8 checking (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF), in pieces of any size.
 * Pure; long input is checked by AVX2 where the processor has it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* States are opaque but for these two. Start with UTF8_ACCEPT; it comes back whenever the bytes so far end
 * with a whole character. UTF8_REJECT stays: no continuation can make the text valid. Any other state: inside
 * a character. */
#define UTF8_ACCEPT 0u
#define UTF8_REJECT 6u

/* The state after `len` more bytes. A byte that cannot stand where it does rejects at once, not at the end of
 * its character. */
uint32_t utf8_feed(uint32_t state, const uint8_t *data, size_t len);

/* The same one byte at a time, without SIMD: the reference that tests and fuzzing compare with. */
uint32_t utf8_feed_slow(uint32_t state, const uint8_t *data, size_t len);

/* The whole text is UTF-8 and does not end inside a character. */
static inline bool utf8_valid(const uint8_t *data, size_t len)
{
    return utf8_feed(UTF8_ACCEPT, data, len) == UTF8_ACCEPT;
}
