// SPDX-License-Identifier: MIT
/* One character of UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). For short
 * texts such as names and JSON strings; the WebSocket codec has a checker of its own that runs at memory
 * speed. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at p (1 to 4), or 0 when it is not one or is cut off by `len`. */
static inline size_t utf8_char_len(const uint8_t *p, size_t len)
{
    if (len == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (n == 0 || len < n)
        return 0;
    uint8_t low = 0x80, high = 0xBF; /* bounds of the second byte */
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    }
    return n;
}

/* Writes a code point that is not a surrogate, <= 0x10FFFF; bytes written. */
static inline size_t utf8_char_write(uint8_t out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    out[0] = (uint8_t)(lead[n] | c);
    return n;
}
