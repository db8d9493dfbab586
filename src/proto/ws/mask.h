// SPDX-License-Identifier: MIT
/* Masking and unmasking of WebSocket payloads (RFC 6455 section 5.3), in place. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* XORs data with the key, beginning with key[phase % 4]; for the next piece of the same payload phase grows
 * by len. The same call masks and unmasks. */
void ws_mask(uint8_t *data, size_t len, const uint8_t key[4], unsigned phase);

#define WS_NOT_ASCII UINT64_C(0x8080808080808080)

uint64_t ws__mask_long(uint8_t *data, size_t len, uint32_t key);
uint64_t ws__mask_tail(uint8_t *data, size_t len, uint32_t key); /* len < 16 */

/* Vectors as GCC and Clang know them on every machine: SSE2, NEON, or plain words where there is nothing. */
typedef uint64_t ws__vec16 __attribute__((vector_size(16), aligned(1), may_alias));

#define WS__MASK_LONG 256 /* from here on the call costs less than it saves */

/* The same with the key as its 4 bytes lie in memory, already turned to the phase. Returns a word in which a
 * bit of WS_NOT_ASCII is set when a byte of the result is not ASCII: the cheapest UTF-8 check of most text.
 */
static inline uint64_t ws_mask_seen(uint8_t *data, size_t len, uint32_t key)
{
    if (len >= WS__MASK_LONG)
        return ws__mask_long(data, len, key);
    const uint64_t key2 = (uint64_t)key << 32 | key;
    const ws__vec16 key4 = {key2, key2};
    ws__vec16 seen = {0, 0};
    uint8_t *end = data + (len & ~(size_t)15);
    for (; data != end; data += 16)
        seen |= *(ws__vec16 *)data ^= key4;
    uint64_t tail = (len & 15) == 0 ? 0 : ws__mask_tail(data, len & 15, key);
    return seen[0] | seen[1] | tail;
}

/* The key for a payload piece that starts `phase` bytes into the payload. */
uint32_t ws_mask_turn(uint32_t key, unsigned phase);
