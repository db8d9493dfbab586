// SPDX-License-Identifier: MIT
#include "proto/ws/mask.h"

#include <endian.h>
#include <string.h>

uint32_t ws_mask_turn(uint32_t key, unsigned phase)
{
    unsigned bits = phase % 4 * 8;
    if (bits == 0)
        return key;
    uint32_t k = le32toh(key);
    return htole32(k >> bits | k << (32 - bits));
}

/* A word, half a word, single bytes. */
uint64_t ws__mask_tail(uint8_t *data, size_t len, uint32_t key)
{
    uint64_t seen = 0;
    if (len & 8) {
        memcpy(&seen, data, sizeof seen);
        seen ^= (uint64_t)key << 32 | key;
        memcpy(data, &seen, sizeof seen);
        data += 8;
    }
    if (len & 4) {
        uint32_t v;
        memcpy(&v, data, sizeof v);
        v ^= key;
        memcpy(data, &v, sizeof v);
        seen |= v;
        data += 4;
    }
    uint32_t k = le32toh(key);
    for (size_t i = 0; i < (len & 3); i++, k >>= 8) {
        data[i] ^= (uint8_t)k;
        seen |= data[i];
    }
    return seen;
}

typedef uint64_t vec32 __attribute__((vector_size(32), aligned(1), may_alias));

/* Blocks of four vectors, so that neither the loop nor its one accumulator is in the way of the loads and
 * stores. Without AVX2 the compiler makes each vector from what the machine has. `len` is a multiple of 128.
 */
static inline __attribute__((always_inline)) uint64_t mask_blocks(uint8_t *data, size_t len, uint64_t key2)
{
    const vec32 key = {key2, key2, key2, key2};
    vec32 seen = {0};
    for (vec32 *p = (vec32 *)data, *end = (vec32 *)(data + len); p != end; p += 4) {
        vec32 a = p[0] ^ key, b = p[1] ^ key, c = p[2] ^ key, d = p[3] ^ key;
        seen |= (a | b) | (c | d);
        p[0] = a;
        p[1] = b;
        p[2] = c;
        p[3] = d;
    }
    return seen[0] | seen[1] | seen[2] | seen[3];
}

static uint64_t mask_blocks_any(uint8_t *data, size_t len, uint64_t key2)
{
    return mask_blocks(data, len, key2);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t mask_blocks_avx2(uint8_t *data, size_t len, uint64_t key2)
{
    return mask_blocks(data, len, key2);
}
#endif

uint64_t ws__mask_long(uint8_t *data, size_t len, uint32_t key)
{
    uint64_t key2 = (uint64_t)key << 32 | key, seen;
    size_t whole = len & ~(size_t)127;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        seen = mask_blocks_avx2(data, whole, key2);
    else
#endif
        seen = mask_blocks_any(data, whole, key2);
    return whole == len ? seen : seen | ws_mask_seen(data + whole, len - whole, key);
}

void ws_mask(uint8_t *data, size_t len, const uint8_t key[4], unsigned phase)
{
    uint32_t k;
    memcpy(&k, key, sizeof k);
    ws_mask_seen(data, len, ws_mask_turn(k, phase));
}
