// SPDX-License-Identifier: MIT
#include "session/mem.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"

#define MMAP_MIN       ((size_t)128 << 10)
#define PAGE_SIZE      ((size_t)4096)
#define CHUNK_OVERHEAD 8 /* glibc's size word before each chunk */

long session_alloc_fail_after = -1;

bool mem__injected_failure(void)
{
    if (session_alloc_fail_after < 0) {
        return false;
    }
    if (session_alloc_fail_after == 0) {
        return true;
    }
    session_alloc_fail_after--;
    return false;
}

static size_t chunk_bytes(void *p)
{
    return p ? malloc_usable_size(p) + CHUNK_OVERHEAD : 0;
}

static void uncount(struct mem *mem, size_t bytes)
{
    ASSERT(mem->bytes >= bytes);
    mem->bytes -= bytes;
}

void *mem__alloc(struct mem *mem, size_t size)
{
    void *p = mem__injected_failure() ? NULL : malloc(size);
    mem->bytes += chunk_bytes(p);
    return p;
}

void *mem__realloc(struct mem *mem, void *p, size_t size)
{
    size_t before = chunk_bytes(p);
    void *q = mem__injected_failure() ? NULL : realloc(p, size);
    if (!q) {
        return NULL;
    }
    uncount(mem, before);
    mem->bytes += chunk_bytes(q);
    return q;
}

void mem__free(struct mem *mem, void *p)
{
    uncount(mem, chunk_bytes(p));
    free(p);
}

static size_t page_round(size_t size)
{
    return (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
}

void *mem__alloc_zero(struct mem *mem, size_t size)
{
    if (mem__injected_failure()) {
        return NULL;
    }
    if (size < MMAP_MIN) {
        void *p = calloc(1, size);
        mem->bytes += chunk_bytes(p);
        return p;
    }
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return NULL;
    }
    mem->bytes += page_round(size);
    return p;
}

void mem__free_zero(struct mem *mem, void *p, size_t size)
{
    if (!p) {
        return;
    }
    if (size < MMAP_MIN) {
        mem__free(mem, p);
        return;
    }
    uncount(mem, page_round(size));
    ASSERT(munmap(p, size) == 0);
}
