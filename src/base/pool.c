// SPDX-License-Identifier: MIT
#include "base/pool.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"

#define OBJECT_ALIGN 16

#ifdef TGG_POOL_MALLOC

struct pool {
    const char *name;
    size_t size, max, used, peak;
};

struct pool *pool_new(const char *name, size_t size, size_t max)
{
    ASSERT(size > 0);
    struct pool *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    *p = (struct pool){.name = name, .size = size, .max = max};
    return p;
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    ASSERT(p->used == 0);
    free(p);
}

void *pool_get(struct pool *p)
{
    void *obj = p->max == 0 || p->used < p->max ? calloc(1, p->size) : NULL;
    if (obj == NULL)
        return NULL;
    p->used++;
    if (p->used > p->peak)
        p->peak = p->used;
    return obj;
}

void pool_put(struct pool *p, void *obj)
{
    ASSERT(obj != NULL && p->used > 0);
    p->used--;
    free(obj);
}

size_t pool_bytes(const struct pool *p)
{
    return p->used * p->size;
}

#else

/*  chunks[]    0: [head|obj obj obj ...]   1: [head|obj ...]   2: NULL   3: [head|obj ...]
 *  has_room    one bit for each chunk that can give an object
 *  lowest      no chunk below this index has room
 *
 * Objects come from the chunk of the lowest index that has room; what comes back goes to its own chunk (found
 * by masking its address). So after a burst the chunks of high index run empty; an empty one is unmapped
 * unless it is the only empty one. Memory that was never used stays untouched (carved counts how far the
 * chunk has been used). */
#define CHUNK_SIZE_MIN    ((size_t)64 * 1024)
#define CHUNK_OBJECTS_MIN 8

struct chunk {
    struct pool *pool;
    struct free_object *free;
    uint32_t index;  /* in pool.chunks */
    uint32_t used;   /* objects out */
    uint32_t carved; /* objects ever given, from the front */
};
#define CHUNK_HEAD        ((sizeof(struct chunk) + OBJECT_ALIGN - 1) / OBJECT_ALIGN * OBJECT_ALIGN)

struct free_object {
    struct free_object *next;
};

struct pool {
    const char *name;
    size_t size, stride, max, used, peak;
    size_t chunk_size;
    uint32_t chunk_objects;
    struct chunk **chunks;
    uint64_t *has_room;
    uint32_t n_slots; /* room in chunks and (as bits) in has_room; a multiple of 64 */
    uint32_t n_chunks;
    uint32_t lowest;
    struct chunk *spare; /* the empty chunk that is kept, if there is one */
};

struct pool *pool_new(const char *name, size_t size, size_t max)
{
    ASSERT(size > 0 && size <= (size_t)1 << 24);
    struct pool *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    *p = (struct pool){.name = name, .size = size, .max = max};
    p->stride = (size + OBJECT_ALIGN - 1) / OBJECT_ALIGN * OBJECT_ALIGN;
    p->chunk_size = CHUNK_SIZE_MIN;
    while (p->chunk_size < CHUNK_HEAD + CHUNK_OBJECTS_MIN * p->stride)
        p->chunk_size *= 2;
    p->chunk_objects = (uint32_t)((p->chunk_size - CHUNK_HEAD) / p->stride);
    return p;
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    ASSERT(p->used == 0);
    for (uint32_t i = 0; i < p->n_slots; i++) {
        if (p->chunks[i] != NULL)
            munmap(p->chunks[i], p->chunk_size);
    }
    free(p->chunks);
    free(p->has_room);
    free(p);
}

/* A mapping of `size` bytes at a multiple of `size`. The kernel mostly gives one next to the last, so that
 * the first try is right; else take twice as much and give back what is over. */
static void *map_aligned(size_t size)
{
    char *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        return NULL;
    if (((uintptr_t)m & (size - 1)) == 0)
        return m;
    munmap(m, size);
    m = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        return NULL;
    size_t before = (size - ((uintptr_t)m & (size - 1))) & (size - 1);
    if (before > 0)
        munmap(m, before);
    munmap(m + before + size, size - before);
    return m + before;
}

static bool slots_grow(struct pool *p)
{
    uint32_t n = p->n_slots == 0 ? 64 : p->n_slots * 2;
    struct chunk **chunks = realloc(p->chunks, n * sizeof(struct chunk *));
    if (chunks == NULL)
        return false;
    p->chunks = chunks;
    uint64_t *has_room = realloc(p->has_room, n / 64 * sizeof(uint64_t));
    if (has_room == NULL)
        return false;
    p->has_room = has_room;
    memset(chunks + p->n_slots, 0, (n - p->n_slots) * sizeof(struct chunk *));
    memset(has_room + p->n_slots / 64, 0, (n - p->n_slots) / 64 * sizeof(uint64_t));
    p->n_slots = n;
    return true;
}

/* Only when every chunk is full: once for each chunk_objects objects, so walking the slots costs nothing. */
static struct chunk *chunk_new(struct pool *p)
{
    if (p->n_chunks == p->n_slots && !slots_grow(p))
        return NULL;
    struct chunk *c = map_aligned(p->chunk_size);
    if (c == NULL)
        return NULL;
    uint32_t index = 0;
    while (p->chunks[index] != NULL)
        index++;
    c->pool = p;
    c->index = index;
    p->chunks[index] = c;
    p->has_room[index / 64] |= UINT64_C(1) << (index % 64);
    p->lowest = index;
    p->n_chunks++;
    return c;
}

/* The chunk of the lowest index that has room. */
static struct chunk *chunk_with_room(struct pool *p)
{
    uint32_t word = p->lowest / 64;
    if (p->n_slots == 0)
        return chunk_new(p);
    uint64_t bits = p->has_room[word] & (UINT64_MAX << (p->lowest % 64));
    while (bits == 0) {
        if (++word == p->n_slots / 64)
            return chunk_new(p);
        bits = p->has_room[word];
    }
    p->lowest = word * 64 + (uint32_t)__builtin_ctzll(bits);
    return p->chunks[p->lowest];
}

static void *chunk_take(struct pool *p, struct chunk *c)
{
    void *obj = c->free;
    if (obj != NULL)
        c->free = c->free->next;
    else
        obj = (char *)c + CHUNK_HEAD + p->stride * c->carved++;
    if (++c->used == p->chunk_objects)
        p->has_room[c->index / 64] &= ~(UINT64_C(1) << (c->index % 64));
    return obj;
}

void *pool_get(struct pool *p)
{
    if (p->max != 0 && p->used == p->max)
        return NULL;
    struct chunk *c = chunk_with_room(p);
    if (c == NULL)
        return NULL;
    ASSERT(c->used < p->chunk_objects);
    if (c == p->spare)
        p->spare = NULL;
    void *obj = chunk_take(p, c);
    p->used++;
    if (p->used > p->peak)
        p->peak = p->used;
    return memset(obj, 0, p->size);
}

static void chunk_release(struct pool *p, struct chunk *c)
{
    p->chunks[c->index] = NULL;
    p->has_room[c->index / 64] &= ~(UINT64_C(1) << (c->index % 64));
    p->n_chunks--;
    munmap(c, p->chunk_size);
}

static void chunk_emptied(struct pool *p, struct chunk *c)
{
    struct chunk *spare = p->spare;

    if (spare == NULL) {
        p->spare = c;
        return;
    }
    p->spare = spare->index < c->index ? spare : c;
    chunk_release(p, spare->index < c->index ? c : spare);
}

void pool_put(struct pool *p, void *obj)
{
    struct chunk *c = (struct chunk *)((uintptr_t)obj & ~(uintptr_t)(p->chunk_size - 1));
    ASSERT(obj != NULL && c->pool == p && c->used > 0);
    struct free_object *f = obj;
    f->next = c->free;
    c->free = f;
    p->has_room[c->index / 64] |= UINT64_C(1) << (c->index % 64);
    if (c->index < p->lowest)
        p->lowest = c->index;
    p->used--;
    if (--c->used == 0)
        chunk_emptied(p, c);
}

size_t pool_bytes(const struct pool *p)
{
    return p->n_chunks * p->chunk_size;
}

#endif

size_t pool_used(const struct pool *p)
{
    return p->used;
}

size_t pool_peak(const struct pool *p)
{
    return p->peak;
}
