// SPDX-License-Identifier: MIT
/* What the mesh tests share: memory, messages whose bytes say which one they are, chance. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "mesh/mesh.h"
#include "mesh/mesh_priv.h"

#define KIB ((size_t)1024)
#define MS  UINT64_C(1000000)

static inline void *shared_memory(size_t bytes)
{
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(mem != MAP_FAILED);
    return mem;
}

static inline void fill(uint8_t *p, uint32_t n, size_t len)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(n * 31 + i * 7 + (i >> 8));
}

static inline bool is_filled(const uint8_t *p, uint32_t n, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] != (uint8_t)(n * 31 + i * 7 + (i >> 8)))
            return false;
    }
    return true;
}

static inline uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)((*state >> 32) % n);
}
