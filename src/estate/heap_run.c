// SPDX-License-Identifier: MIT
/* Runs of pages: bins, splitting, joining, giving back. */
#include "estate/heap_priv.h"

#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "estate/estate.h"

#define EXACT 64u /* a bin for each size up to this, then four for each doubling */
/* How many runs of a bin are looked at that may be too small, before larger ones are split. */
#define LOOK_MAX 16

#define DIRTY_PAGES_MAX ((uint32_t)(ESTATE_IDLE_BYTES_MAX / HEAP_PAGE))

/* The bin that runs of n pages stand in. */
static uint32_t bin_of(uint32_t n)
{
    if (n <= EXACT)
        return n - 1;
    uint32_t top = 31 - (uint32_t)__builtin_clz(n);
    return EXACT + (top - 6) * 4 + (n >> (top - 2) & 3);
}

/* The first bin in which every run has n pages. */
static uint32_t bin_that_fits(uint32_t n)
{
    if (n <= EXACT)
        return n - 1;
    uint32_t step = UINT32_C(1) << (31 - (uint32_t)__builtin_clz(n) - 2);
    return (n & (step - 1)) == 0 ? bin_of(n) : bin_of(n) + 1;
}

static struct heap_bins *bins_of(struct heap *h, enum page_kind kind)
{
    return kind == PAGE_DIRTY ? &h->dirty : &h->clean;
}

static void age_link(struct heap *h, uint32_t i)
{
    struct page *p = &h->pages[i];
    p->newer = HEAP_NONE;
    p->older = h->newest;
    if (h->newest != HEAP_NONE)
        h->pages[h->newest].newer = i;
    else
        h->oldest = i;
    h->newest = i;
    h->dirty_pages += p->n;
}

static void age_unlink(struct heap *h, uint32_t i)
{
    struct page *p = &h->pages[i];
    if (p->newer != HEAP_NONE)
        h->pages[p->newer].older = p->older;
    else
        h->newest = p->older;
    if (p->older != HEAP_NONE)
        h->pages[p->older].newer = p->newer;
    else
        h->oldest = p->newer;
    h->dirty_pages -= p->n;
}

/* n pages from i on are a free run of their own. */
static void run_link(struct heap *h, uint32_t i, uint32_t n, enum page_kind kind)
{
    struct heap_bins *bins = bins_of(h, kind);
    struct page *p = &h->pages[i], *end = &h->pages[i + n - 1];
    uint32_t bin = bin_of(n);
    p->kind = end->kind = (uint8_t)kind;
    p->n = end->n = n;
    p->prev = HEAP_NONE;
    p->next = bins->first[bin];
    if (p->next != HEAP_NONE)
        h->pages[p->next].prev = i;
    bins->first[bin] = i;
    bins->filled[bin / 64] |= UINT64_C(1) << (bin % 64);
    if (kind == PAGE_DIRTY)
        age_link(h, i);
}

static void run_unlink(struct heap *h, uint32_t i)
{
    struct page *p = &h->pages[i];
    struct heap_bins *bins = bins_of(h, p->kind);
    uint32_t bin = bin_of(p->n);
    if (p->next != HEAP_NONE)
        h->pages[p->next].prev = p->prev;
    if (p->prev != HEAP_NONE)
        h->pages[p->prev].next = p->next;
    else if ((bins->first[bin] = p->next) == HEAP_NONE)
        bins->filled[bin / 64] &= ~(UINT64_C(1) << (bin % 64));
    if (p->kind == PAGE_DIRTY)
        age_unlink(h, i);
}

/* n pages from i on are free: one run with the free neighbours of that kind. */
static void run_join(struct heap *h, uint32_t i, uint32_t n, enum page_kind kind)
{
    h->pages[i].kind = (uint8_t)kind; /* a second free of it is seen, wherever it goes */
    if (i > 0 && h->pages[i - 1].kind == kind) {
        uint32_t before = h->pages[i - 1].n;
        i -= before;
        n += before;
        run_unlink(h, i);
    }
    if (i + n < h->n_pages && h->pages[i + n].kind == kind) {
        uint32_t behind = h->pages[i + n].n;
        run_unlink(h, i + n);
        n += behind;
    }
    run_link(h, i, n, kind);
}

void heap__init_runs(struct heap *h)
{
    memset(h->clean.first, 0xff, sizeof h->clean.first);
    memset(h->dirty.first, 0xff, sizeof h->dirty.first);
    h->oldest = h->newest = HEAP_NONE;
    run_link(h, 0, h->n_pages, PAGE_CLEAN);
}

/* A run in the bin of that size which has n pages; at most so many are looked at. */
static uint32_t look_in_bin(const struct heap *h, const struct heap_bins *bins, uint32_t n, uint32_t look_max)
{
    uint32_t i = bins->first[bin_of(n)];
    for (; i != HEAP_NONE && look_max > 0; i = h->pages[i].next, look_max--)
        if (h->pages[i].n >= n)
            return i;
    return HEAP_NONE;
}

static uint32_t first_from_bin(const struct heap_bins *bins, uint32_t bin)
{
    uint32_t word = bin / 64;
    uint64_t bits = bins->filled[word] & UINT64_MAX << (bin % 64);
    while (bits == 0) {
        if (++word == HEAP_BINS / 64)
            return HEAP_NONE;
        bits = bins->filled[word];
    }
    return bins->first[word * 64 + (uint32_t)__builtin_ctzll(bits)];
}

static uint32_t find(const struct heap *h, const struct heap_bins *bins, uint32_t n, uint32_t look_max)
{
    uint32_t i = n > EXACT ? look_in_bin(h, bins, n, look_max) : HEAP_NONE;
    return i != HEAP_NONE ? i : first_from_bin(bins, bin_that_fits(n));
}

uint32_t heap__take_run(struct heap *h, uint32_t n)
{
    uint32_t i = find(h, &h->dirty, n, LOOK_MAX);
    if (i == HEAP_NONE)
        i = find(h, &h->clean, n, LOOK_MAX);
    if (i == HEAP_NONE) { /* dirty and clean neighbours may be long enough together */
        heap__purge(h, 0);
        i = find(h, &h->clean, n, UINT32_MAX);
        if (i == HEAP_NONE)
            return HEAP_NONE;
    }
    struct page *p = &h->pages[i];
    enum page_kind kind = p->kind;
    uint32_t left = p->n - n;
    run_unlink(h, i);
    if (left > 0)
        run_link(h, i + n, left, kind); /* its other neighbour is not of its kind */
    if (h->top < i + n)
        h->top = i + n;
    return i;
}

void heap__give_run(struct heap *h, uint32_t first, uint32_t n)
{
    HEAP_POISON(h->base + first * HEAP_PAGE, n * HEAP_PAGE);
    run_join(h, first, n, PAGE_DIRTY);
    if (h->dirty_pages > DIRTY_PAGES_MAX)
        heap__purge(h, DIRTY_PAGES_MAX / 2);
}

void heap__purge(struct heap *h, uint32_t dirty_pages_left)
{
    while (h->dirty_pages > dirty_pages_left) {
        uint32_t i = h->oldest, n = h->pages[i].n;
        run_unlink(h, i);
        /* If the kernel does not want them (memory of another sort), they are free all the same. */
        (void)madvise(h->base + i * HEAP_PAGE, n * HEAP_PAGE, h->advice);
        run_join(h, i, n, PAGE_CLEAN);
    }
}

/* ---- check */

static bool is_in_bin(const struct heap *h, const struct heap_bins *bins, uint32_t i)
{
    uint32_t bin = bin_of(h->pages[i].n), at = bins->first[bin];
    while (at != HEAP_NONE && at != i)
        at = h->pages[at].next;
    return at == i && (bins->filled[bin / 64] >> (bin % 64) & 1) != 0;
}

const char *heap__check_run(const struct heap *h, uint32_t first)
{
    const struct page *p = &h->pages[first], *end;
    if (p->n == 0 || p->n > h->n_pages - first)
        return "a free run ends outside";
    end = &h->pages[first + p->n - 1];
    if (end->kind != p->kind || end->n != p->n)
        return "a free run does not know itself at its end";
    if (first > 0 && h->pages[first - 1].kind == p->kind)
        return "two free runs of a kind are neighbours";
    if (!is_in_bin(h, p->kind == PAGE_DIRTY ? &h->dirty : &h->clean, first))
        return "a free run is not in its bin";
    return NULL;
}
