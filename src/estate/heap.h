// SPDX-License-Identifier: MIT
/* Blocks in a run of pages that somebody else reads when we are dead. Private to src/estate.
 *
 *   pages      [slab of 112][run ..... ][dirty ...][slab of 64][clean ..........................]
 *   page[]      one struct page for each (private, sparse): what the page is, and free runs and slabs linked
 *
 * Nothing of the bookkeeping is in the pages, nor is anything written there but by who has the block.
 * Small blocks come from slabs of one size each (1 to 8 pages, a bit for each block), large ones are runs of
 * pages. Free runs are of two kinds: dirty (the kernel has not got their pages back) and clean; a run has
 * neighbours of its own kind nowhere, they are one. Both kinds stand in bins by size, so that a run that fits
 * is found without a search. Dirty ones are taken first; more than ESTATE_IDLE_BYTES_MAX of them, and the
 * oldest are made clean, until half of that is left: a system call for many frees. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAP_PAGE      ((size_t)4096)
#define HEAP_SMALL_MAX ((size_t)7168)
#define HEAP_CLASSES   31
#define HEAP_BINS      192
#define HEAP_NONE      UINT32_MAX

enum page_kind {
    PAGE_UNKNOWN, /* inside of a run, or never used */
    PAGE_RUN,     /* the first of a block of whole pages */
    PAGE_RUN_END, /* its last, if it is another one */
    PAGE_SLAB,    /* each page of a slab */
    PAGE_CLEAN,   /* first and last of a free run */
    PAGE_DIRTY,
};

struct page {
    uint32_t n;            /* run, free run (first and last): pages */
    uint32_t next, prev;   /* free run: in its bin; slab that has room: in its class */
    uint32_t older, newer; /* dirty run: by the time of its coming */
    uint16_t used;         /* slab: blocks out */
    uint8_t kind;
    uint8_t class_no;    /* slab */
    uint8_t slab_offset; /* slab: pages from its first */
    uint64_t free[4];    /* slab: a bit for each free block */
};
_Static_assert(sizeof(struct page) == 64, "a cache line for each page");

struct heap_bins {
    uint64_t filled[HEAP_BINS / 64];
    uint32_t first[HEAP_BINS];
};

struct heap {
    uint8_t *base;
    uint32_t n_pages;
    int advice;   /* that gives pages back: MADV_REMOVE when shared, MADV_DONTNEED when private */
    uint32_t top; /* no page from here on was ever used */
    struct page *pages;
    struct heap_bins clean, dirty;
    uint32_t oldest, newest; /* dirty */
    uint32_t dirty_pages;
    size_t used;
    uint32_t with_room[HEAP_CLASSES]; /* slabs */
};

/* base: whole pages, their content does not matter. 0 or -ENOMEM. */
int heap__init(struct heap *h, void *base, size_t bytes, int advice);
void heap__fini(struct heap *h); /* the pages stay as they are */
void *heap__alloc(struct heap *h, size_t len);
void heap__free(struct heap *h, void *block);
size_t heap__block_bytes(const struct heap *h, const void *block);
void heap__purge(struct heap *h, uint32_t dirty_pages_left);
/* Everything that belongs together does, O(pages used): NULL or what does not. For tests. */
const char *heap__check(const struct heap *h);
