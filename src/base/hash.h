// SPDX-License-Identifier: MIT
/* Keyed hashing (XXH3 with a seed drawn once per process), so that peers cannot aim for collisions. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Draw the key; call once before any hash. hash_init_fixed is for tests and simulation. */
void hash_init(void);
void hash_init_fixed(uint64_t seed);

uint64_t hash_bytes(const void *data, size_t len);
static inline uint32_t hash_u32(uint32_t v) /* not keyed: for ids that we make ourselves */
{
    uint64_t x = v * UINT64_C(0x9E3779B97F4A7C15);
    return (uint32_t)(x >> 32);
}
