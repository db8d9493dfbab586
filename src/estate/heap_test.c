// SPDX-License-Identifier: MIT
/* The heap beside a plain list of blocks: none overlaps another, none is written to by anybody else, all
 * comes back. */
#include "estate/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <cmocka.h>

#include "estate/estate.h"

#define HEAP_BYTES ((size_t)64 << 20)
#define IDLE_PAGES ((uint32_t)(ESTATE_IDLE_BYTES_MAX / HEAP_PAGE))

static struct heap heap;
static void *memory;

static int open_heap_of(size_t bytes, int flags, int advice)
{
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    return heap__init(&heap, memory, bytes, advice);
}

static int open_heap(void **state)
{
    return open_heap_of(HEAP_BYTES, MAP_SHARED, MADV_REMOVE);
}

static int close_heap(void **state)
{
    size_t bytes = heap.n_pages * HEAP_PAGE;
    const char *wrong = heap__check(&heap);
    if (wrong != NULL)
        print_error("%s\n", wrong);
    heap__fini(&heap);
    munmap(memory, bytes);
    return wrong == NULL ? 0 : -1;
}

static uint64_t rng;
static uint32_t rnd(uint32_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 20) % below);
}

static size_t resident_pages(void)
{
    static unsigned char in[HEAP_BYTES / HEAP_PAGE];
    size_t n = 0;
    assert_int_equal(mincore(memory, heap.n_pages * HEAP_PAGE, in), 0);
    for (uint32_t i = 0; i < heap.n_pages; i++)
        n += in[i] & 1;
    return n;
}

static void every_length_has_its_room(void **state)
{
    for (size_t len = 0; len <= 20000; len++) {
        uint8_t *a = heap__alloc(&heap, len), *b = heap__alloc(&heap, len);
        assert_true(a != NULL && b != NULL);
        assert_int_equal((uintptr_t)a % 16, 0);
        size_t bytes = heap__block_bytes(&heap, a);
        size_t apart = a < b ? (size_t)(b - a) : (size_t)(a - b);
        assert_true(bytes >= len && apart >= bytes);
        if (len <= HEAP_SMALL_MAX)
            assert_true(bytes <= len + 16 || bytes * 4 <= len * 5);
        memset(a, 1, len);
        memset(b, 2, len);
        for (size_t i = 0; i < len; i += 97)
            assert_true(a[i] == 1 && b[i] == 2);
        heap__free(&heap, a);
        heap__free(&heap, b);
    }
    heap__free(&heap, NULL);
    assert_int_equal(heap.used, 0);
}

/* ---- model */

#define BLOCKS 2000

struct block {
    uint8_t *at;
    size_t len;
    uint8_t byte;
};
static struct block blocks[BLOCKS];

static size_t random_len(void)
{
    switch (rnd(20)) {
    case 0: return rnd(1 << 20);
    case 1: return 65536;
    case 2: return 4096;
    case 3:
    case 4: return rnd(20000);
    case 5: return rnd(2000);
    default: return rnd(300);
    }
}

/* Both ends and some in between: as it was written. */
static void check_block(const struct block *b)
{
    for (size_t i = 0; i < b->len; i += i < 64 || i + 64 > b->len ? 1 : 61)
        assert_int_equal(b->at[i], b->byte);
}

static int by_address(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static void check_all(void)
{
    static struct block sorted[BLOCKS];
    size_t n = 0, used = 0;
    const char *wrong = heap__check(&heap);
    if (wrong != NULL)
        fail_msg("%s", wrong);
    for (int i = 0; i < BLOCKS; i++) {
        if (blocks[i].at == NULL)
            continue;
        check_block(&blocks[i]);
        used += heap__block_bytes(&heap, blocks[i].at);
        sorted[n++] = blocks[i];
    }
    assert_int_equal(used, heap.used);
    qsort(sorted, n, sizeof *sorted, by_address);
    for (size_t i = 0; i + 1 < n; i++)
        assert_true(sorted[i].at + heap__block_bytes(&heap, sorted[i].at) <= sorted[i + 1].at);
}

static void drop(struct block *b)
{
    check_block(b);
    heap__free(&heap, b->at);
    b->at = NULL;
}

static unsigned run_model(uint64_t seed, unsigned steps)
{
    unsigned full = 0, fill_of_10 = 5;
    rng = seed;
    for (unsigned step = 0; step < steps; step++) {
        struct block *b = &blocks[rnd(BLOCKS)];
        if (step % 3000 == 0) { /* swing between full and empty */
            fill_of_10 = fill_of_10 == 8 ? 2 : 8;
            check_all();
        }
        if (rnd(1000) == 0)
            heap__purge(&heap, rnd(1000));
        if (b->at != NULL && rnd(10) >= fill_of_10) {
            drop(b);
        } else if (b->at == NULL && rnd(10) < fill_of_10) {
            *b = (struct block){.len = random_len(), .byte = (uint8_t)rnd(256)};
            b->at = heap__alloc(&heap, b->len);
            full += b->at == NULL;
            if (b->at != NULL)
                memset(b->at, b->byte, b->len);
        }
    }
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i].at != NULL)
            drop(&blocks[i]);
    assert_int_equal(heap.used, 0);
    return full;
}

static void random_blocks_do_not_overlap(void **state)
{
    unsigned full = 0;
    for (uint64_t seed = 1; seed <= 3; seed++)
        full += run_model(seed, 60000);
    assert_true(full > 0);
}

static void private_memory_works_alike(void **state)
{
    assert_int_equal(open_heap_of((size_t)8 << 20, MAP_PRIVATE, MADV_DONTNEED), 0);
    assert_true(run_model(9, 30000) > 0);
    assert_int_equal(close_heap(state), 0);
}

/* ---- large ones, and giving back */

static void all_of_it_can_be_one_block(void **state)
{
    for (int round = 0; round < 3; round++) {
        void *small[100];
        for (int i = 0; i < 100; i++) /* leave dirt in the front */
            assert_non_null(small[i] = heap__alloc(&heap, 10000));
        for (int i = 0; i < 100; i++)
            heap__free(&heap, small[i]);
        void *all = heap__alloc(&heap, HEAP_BYTES);
        assert_ptr_equal(all, memory);
        assert_null(heap__alloc(&heap, 1));
        assert_null(heap__alloc(&heap, HEAP_PAGE * 4));
        heap__free(&heap, all);
    }
    assert_null(heap__alloc(&heap, HEAP_BYTES + 1));
    assert_null(heap__alloc(&heap, SIZE_MAX));
}

static void free_pages_go_back_to_the_kernel(void **state)
{
    enum { N = 8000 };
    static uint8_t *small[N];
    for (int i = 0; i < N; i++) {
        assert_non_null(small[i] = heap__alloc(&heap, 2000));
        memset(small[i], 1, 2000);
    }
    uint8_t *large = heap__alloc(&heap, (size_t)40 << 20);
    memset(large, 1, (size_t)40 << 20);
    assert_true(resident_pages() >= 40 * 256 + N / 2);
    heap__free(&heap, large);
    for (int i = 0; i < N; i++)
        heap__free(&heap, small[i]);
    assert_true(heap.dirty_pages <= IDLE_PAGES);
    assert_true(resident_pages() <= IDLE_PAGES + 8);
    heap__purge(&heap, 0);
    assert_true(resident_pages() <= 8); /* one slab is kept */
}

/* Chunks that come and go cost no system call: their pages stay. */
static void pages_that_come_and_go_stay(void **state)
{
    uint8_t *chunks[30];
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 30; i++) {
            assert_non_null(chunks[i] = heap__alloc(&heap, 65536));
            if (round == 0)
                memset(chunks[i], 0xaa, 65536);
            assert_int_equal(chunks[i][65535], 0xaa);
        }
        for (int i = 0; i < 30; i++)
            heap__free(&heap, chunks[i]);
    }
}

/* After a burst of small ones most leave: what is left does not hold all the pages. */
static void slabs_run_empty(void **state)
{
    enum { N = 100000 };
    static void *small[N];
    for (int i = 0; i < N; i++)
        assert_non_null(small[i] = heap__alloc(&heap, 104));
    uint32_t pages = heap.top;
    print_message("  a session of 100 bytes: %.1f bytes of heap, %.1f of bookkeeping\n",
                  (double)pages * HEAP_PAGE / N, (double)pages * sizeof(struct page) / N);
    assert_true((pages * (HEAP_PAGE + sizeof(struct page))) / N <= 130);
    rng = 5;
    for (int i = 0; i < N; i++) { /* all but the last hundred, in any order, with some coming */
        int k = i + (int)rnd((uint32_t)(N - i)), keep = i >= N - 100;
        void *p = small[k];
        small[k] = small[i];
        small[i] = p;
        if (!keep)
            heap__free(&heap, p);
    }
    heap__purge(&heap, 0);
    uint32_t held = 0;
    for (uint32_t i = 0; i < heap.top; i++)
        held += heap.pages[i].kind == PAGE_SLAB;
    assert_true(held <= 101);
    for (int i = N - 100; i < N; i++)
        heap__free(&heap, small[i]);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void time_of(const char *what, size_t len, int n)
{
    static void *held[20000];
    int64_t t = now_ns();
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < n; i++)
            held[i] = heap__alloc(&heap, len);
        for (int i = 0; i < n; i++)
            heap__free(&heap, held[i]);
    }
    print_message("  %-36s %5.1f ns for one and back\n", what, (double)(now_ns() - t) / (10.0 * n));
}

static void it_is_quick(void **state)
{
    time_of("104 bytes, 20000 out", 104, 20000);
    time_of("104 bytes, 1 out", 104, 1);
    time_of("1000 bytes, 20000 out", 1000, 20000);
    time_of("65536 bytes, 30 out", 65536, 30);
    time_of("65536 bytes, 800 out (given back)", 65536, 800);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_heap, close_heap)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_length_has_its_room),
        TEST(random_blocks_do_not_overlap),
        cmocka_unit_test(private_memory_works_alike),
        TEST(all_of_it_can_be_one_block),
        TEST(free_pages_go_back_to_the_kernel),
        TEST(pages_that_come_and_go_stay),
        TEST(slabs_run_empty),
        TEST(it_is_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
