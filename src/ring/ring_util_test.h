// SPDX-License-Identifier: MIT
/* What the ring tests share: a ring in memory of its own, and records whose bytes say which one it is. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ring/ring.h"

/* First positions: plain, and so that 32 and 64 bits wrap within a few records. */
static const uint64_t starts[] = {0, UINT64_C(0x100000000) - 72, UINT64_C(0) - 72,
                                  UINT64_C(0x8000000000000000) - 8};
#define N_STARTS (sizeof starts / sizeof *starts)

struct test_ring {
    void *mem;
    size_t bytes;
    struct ring_shm *shm;
    struct ring_writer w;
    struct ring_reader r;
};

static inline void test_ring_attach(struct test_ring *t)
{
    assert_int_equal(ring_writer_attach(&t->w, t->mem, t->bytes, NULL, 0), 0);
    assert_int_equal(ring_reader_attach(&t->r, t->mem, t->bytes, true), 0);
}

static inline void test_ring_open(struct test_ring *t, uint64_t size, uint64_t reserve, uint64_t start)
{
    t->bytes = ring_bytes(size);
    t->mem = aligned_alloc(64, t->bytes);
    assert_non_null(t->mem);
    memset(t->mem, 0xa5, t->bytes);
    t->shm = t->mem;
    struct ring_params params = {.size = size, .reserve = reserve, .start = start};
    assert_int_equal(ring_format(t->mem, t->bytes, &params), 0);
    test_ring_attach(t);
}

static inline void test_ring_close(struct test_ring *t)
{
    free(t->mem);
}

static inline void fill(uint8_t *p, uint32_t type, size_t len)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(type * 31 + i * 7 + (i >> 8));
}

static inline bool is_filled(const uint8_t *p, uint32_t type, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] != (uint8_t)(type * 31 + i * 7 + (i >> 8)))
            return false;
    }
    return true;
}

/* Reserve and fill. */
static inline int put(struct ring_writer *w, enum ring_class class, uint32_t type, uint32_t len)
{
    uint8_t *p;
    int r = ring_reserve(w, class, type, len, &p);
    if (r == 0)
        fill(p, type, len);
    return r;
}

/* Read one record and find it to be this one. */
static inline void expect(struct ring_reader *r, enum ring_class class, uint32_t type, uint32_t len)
{
    struct ring_record got;
    assert_int_equal(ring_read(r, &got), 1);
    assert_int_equal(got.type, type);
    assert_int_equal(got.len, len);
    assert_int_equal(got.class, class);
    assert_false(got.more || got.continues);
    assert_true((uintptr_t)got.data % 8 == 0);
    assert_true(is_filled(got.data, type, len));
}

static inline void expect_empty(struct ring_reader *r)
{
    struct ring_record got;
    assert_int_equal(ring_read(r, &got), 0);
}
