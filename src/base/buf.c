// SPDX-License-Identifier: MIT
#include "base/buf.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

static struct buf_stats stats;

#ifdef TGG_POOL_MALLOC

struct buf *buf_new(size_t cap)
{
    if (cap > BUF_CAP_MAX)
        return NULL;
    struct buf *b =
        malloc(sizeof(*b) + cap); /* exactly as asked, so that the sanitizer sees a write past it */
    if (b == NULL)
        return NULL;
    *b = (struct buf){.refs = 1, .cap = (uint32_t)cap};
    stats.used_bytes += cap;
    stats.used_count++;
    return b;
}

void buf_free(struct buf *b)
{
    stats.used_bytes -= b->cap;
    stats.used_count--;
    free(b);
}

void buf_trim(void)
{
}

#else

/* Class i holds buffers of cap 64 << i. What comes back waits in its class for the next that asks, up to
 * IDLE_BYTES_MAX for each class; above the largest class everything goes straight to malloc and back. */
#define CLASS_MIN_SHIFT 6
#define N_CLASSES       13 /* 64 bytes ... 256 KiB */
#define POOLED_CAP_MAX  ((size_t)1 << (CLASS_MIN_SHIFT + N_CLASSES - 1))
#define IDLE_BYTES_MAX  ((uint32_t)1 << 20)

static struct {
    struct buf *first; /* linked through the first bytes of data */
    uint32_t count;
} classes[N_CLASSES];

static inline struct buf *idle_next(const struct buf *b)
{
    struct buf *next;
    memcpy(&next, b->data, sizeof(next));
    return next;
}

static inline unsigned class_of(size_t cap)
{
    if (cap <= (size_t)1 << CLASS_MIN_SHIFT)
        return 0;
    return (unsigned)(64 - CLASS_MIN_SHIFT - __builtin_clzll(cap - 1));
}

static struct buf *buf_alloc(size_t cap)
{
    if (cap > BUF_CAP_MAX)
        return NULL;
    if (cap <= POOLED_CAP_MAX)
        cap = (size_t)1 << (CLASS_MIN_SHIFT + class_of(cap));
    struct buf *b = malloc(sizeof(*b) + cap);
    if (b == NULL)
        return NULL;
    *b = (struct buf){.refs = 1, .cap = (uint32_t)cap};
    stats.used_bytes += cap;
    stats.used_count++;
    return b;
}

struct buf *buf_new(size_t cap)
{
    if (cap > POOLED_CAP_MAX)
        return buf_alloc(cap);
    unsigned class = class_of(cap);
    struct buf *b = classes[class].first;
    if (b == NULL)
        return buf_alloc(cap);
    classes[class].first = idle_next(b);
    classes[class].count--;
    stats.idle_bytes -= b->cap;
    stats.used_bytes += b->cap;
    stats.used_count++;
    b->refs = 1;
    b->len = 0;
    b->flags = 0;
    return b;
}

void buf_free(struct buf *b)
{
    stats.used_bytes -= b->cap;
    stats.used_count--;
    if (b->cap <= POOLED_CAP_MAX) {
        unsigned class = class_of(b->cap);
        if (classes[class].count < IDLE_BYTES_MAX >> (CLASS_MIN_SHIFT + class)) {
            memcpy(b->data, &classes[class].first, sizeof(b));
            classes[class].first = b;
            classes[class].count++;
            stats.idle_bytes += b->cap;
            return;
        }
    }
    free(b);
}

void buf_trim(void)
{
    if (stats.idle_bytes == 0)
        return;
    for (unsigned class = 0; class < N_CLASSES; class ++) {
        while (classes[class].first != NULL) {
            struct buf *b = classes[class].first;
            classes[class].first = idle_next(b);
            free(b);
        }
        classes[class].count = 0;
    }
    stats.idle_bytes = 0;
    malloc_trim(0);
}

#endif

void buf_stats_get(struct buf_stats *ret)
{
    *ret = stats;
}
