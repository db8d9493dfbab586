// SPDX-License-Identifier: MIT
#include "estate/heap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "estate/heap_priv.h"

/* Classes of small blocks: 16, 32 ... 128, then four for each doubling: 160, 192, 224, 256, 320 ... 7168. */
#define FINE_STEP 16
#define FINE_MAX  128
#define FINE_N    (FINE_MAX / FINE_STEP)
/* What may be left over of a slab before a longer one is better: 1 in 16. */
#define SLAB_WASTE      16
#define SLAB_PAGES_MAX  8
#define SLAB_BLOCKS_MAX 256

static struct class_table {
    uint16_t size, blocks, pages;
} classes[HEAP_CLASSES];

static unsigned class_of(size_t len)
{
    if (len <= FINE_MAX)
        return len == 0 ? 0 : (unsigned)(len - 1) / FINE_STEP;
    unsigned top = 63 - (unsigned)__builtin_clzll(len - 1);
    return FINE_N + (top - 7) * 4 + ((len - 1) >> (top - 2) & 3);
}

static unsigned class_size(unsigned class_no)
{
    if (class_no < FINE_N)
        return (class_no + 1) * FINE_STEP;
    unsigned doubling = (class_no - FINE_N) / 4, quarter = (class_no - FINE_N) % 4;
    return (32u << doubling) * (5 + quarter);
}

static unsigned slab_pages(unsigned size)
{
    for (unsigned pages = 1; pages < SLAB_PAGES_MAX; pages *= 2) {
        unsigned bytes = pages * (unsigned)HEAP_PAGE, over = bytes % size;
        if (bytes >= size && over <= bytes / SLAB_WASTE)
            return pages;
    }
    return SLAB_PAGES_MAX;
}

static void make_classes(void)
{
    for (unsigned i = 0; i < HEAP_CLASSES; i++) {
        unsigned size = class_size(i), pages = slab_pages(size);
        unsigned blocks = pages * (unsigned)HEAP_PAGE / size;
        ASSERT(blocks <= SLAB_BLOCKS_MAX && class_of(size) == i);
        classes[i] = (struct class_table){(uint16_t)size, (uint16_t)blocks, (uint16_t)pages};
    }
}

static size_t table_bytes(const struct heap *h)
{
    return h->n_pages * sizeof(struct page);
}

int heap__init(struct heap *h, void *base, size_t bytes, int advice)
{
    ASSERT(bytes >= HEAP_PAGE && bytes / HEAP_PAGE < HEAP_NONE);
    make_classes();
    *h = (struct heap){.base = base, .n_pages = (uint32_t)(bytes / HEAP_PAGE), .advice = advice};
    void *table = mmap(NULL, table_bytes(h), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED)
        return -ENOMEM;
    h->pages = table;
    memset(h->with_room, 0xff, sizeof h->with_room);
    heap__init_runs(h);
    return 0;
}

void heap__fini(struct heap *h)
{
    HEAP_UNPOISON(h->base, h->top * HEAP_PAGE);
    ASSERT(munmap(h->pages, table_bytes(h)) == 0);
    *h = (struct heap){0};
}

/* ---- slabs */

/* Behind the first that has room: that one is filled up while others may run empty. */
static void room_link(struct heap *h, uint32_t i)
{
    struct page *p = &h->pages[i];
    uint32_t first = h->with_room[p->class_no];
    p->prev = first;
    if (first == HEAP_NONE) {
        h->with_room[p->class_no] = i;
        p->next = HEAP_NONE;
        return;
    }
    p->next = h->pages[first].next;
    h->pages[first].next = i;
    if (p->next != HEAP_NONE)
        h->pages[p->next].prev = i;
}

static void room_unlink(struct heap *h, uint32_t i)
{
    struct page *p = &h->pages[i];
    if (p->next != HEAP_NONE)
        h->pages[p->next].prev = p->prev;
    if (p->prev != HEAP_NONE)
        h->pages[p->prev].next = p->next;
    else
        h->with_room[p->class_no] = p->next;
}

static uint32_t slab_new(struct heap *h, unsigned class_no)
{
    const struct class_table *class = &classes[class_no];
    uint32_t i = heap__take_run(h, class->pages);
    if (i == HEAP_NONE)
        return HEAP_NONE;
    for (unsigned k = 0; k < class->pages; k++) {
        h->pages[i + k].kind = PAGE_SLAB;
        h->pages[i + k].class_no = (uint8_t)class_no;
        h->pages[i + k].slab_offset = (uint8_t)k;
    }
    struct page *p = &h->pages[i];
    p->used = 0;
    for (unsigned left = class->blocks, word = 0; word < 4; word++) {
        unsigned n = left < 64 ? left : 64;
        p->free[word] = n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
        left -= n;
    }
    HEAP_POISON(h->base + i * HEAP_PAGE, class->pages * HEAP_PAGE);
    room_link(h, i);
    return i;
}

static void *small_alloc(struct heap *h, size_t len)
{
    unsigned class_no = class_of(len);
    uint32_t i = h->with_room[class_no];
    if (i == HEAP_NONE && (i = slab_new(h, class_no)) == HEAP_NONE)
        return NULL;
    struct page *p = &h->pages[i];
    const struct class_table *class = &classes[class_no];
    unsigned word = 0;
    while (p->free[word] == 0)
        word++;
    unsigned block = word * 64 + (unsigned)__builtin_ctzll(p->free[word]);
    p->free[word] &= p->free[word] - 1;
    if (++p->used == class->blocks)
        room_unlink(h, i);
    h->used += class->size;
    uint8_t *at = h->base + i * HEAP_PAGE + block * class->size;
    HEAP_UNPOISON(at, len);
    return at;
}

static void small_free(struct heap *h, uint32_t i, size_t offset)
{
    offset += h->pages[i].slab_offset * HEAP_PAGE;
    i -= h->pages[i].slab_offset;
    struct page *p = &h->pages[i];
    const struct class_table *class = &classes[p->class_no];
    unsigned block = (unsigned)offset / class->size;
    uint64_t bit = UINT64_C(1) << (block % 64);
    ASSERT(block * class->size == offset && block < class->blocks && (p->free[block / 64] & bit) == 0);
    p->free[block / 64] |= bit;
    h->used -= class->size;
    HEAP_POISON(h->base + i * HEAP_PAGE + offset, class->size);
    if (p->used-- == class->blocks)
        room_link(h, i);
    /* An empty one is kept while no other of its class has room. */
    if (p->used == 0 && (p->next != HEAP_NONE || p->prev != HEAP_NONE)) {
        room_unlink(h, i);
        heap__give_run(h, i, class->pages);
    }
}

/* ---- blocks */

static void *large_alloc(struct heap *h, size_t len)
{
    if (len > (size_t)h->n_pages * HEAP_PAGE)
        return NULL;
    uint32_t n = len == 0 ? 1 : (uint32_t)((len + HEAP_PAGE - 1) / HEAP_PAGE);
    uint32_t i = heap__take_run(h, n);
    if (i == HEAP_NONE)
        return NULL;
    h->pages[i + n - 1].kind = PAGE_RUN_END;
    h->pages[i].kind = PAGE_RUN;
    h->pages[i].n = n;
    h->used += n * HEAP_PAGE;
    uint8_t *at = h->base + i * HEAP_PAGE;
    HEAP_POISON(at, n * HEAP_PAGE);
    HEAP_UNPOISON(at, len);
    return at;
}

void *heap__alloc(struct heap *h, size_t len)
{
    void *block = len <= HEAP_SMALL_MAX ? small_alloc(h, len) : NULL;
    return block != NULL ? block : large_alloc(h, len); /* where no slab fits, a page may */
}

/* Its page; a block that is none of ours is a bug. */
static uint32_t page_of(const struct heap *h, const void *block)
{
    size_t offset = (size_t)((const uint8_t *)block - h->base);
    ASSERT(offset < (size_t)h->n_pages * HEAP_PAGE);
    return (uint32_t)(offset / HEAP_PAGE);
}

void heap__free(struct heap *h, void *block)
{
    if (block == NULL)
        return;
    uint32_t i = page_of(h, block);
    size_t offset = (size_t)((uint8_t *)block - h->base) % HEAP_PAGE;
    if (h->pages[i].kind == PAGE_SLAB) {
        small_free(h, i, offset);
        return;
    }
    ASSERT(h->pages[i].kind == PAGE_RUN && offset == 0);
    h->used -= h->pages[i].n * HEAP_PAGE;
    heap__give_run(h, i, h->pages[i].n);
}

size_t heap__block_bytes(const struct heap *h, const void *block)
{
    const struct page *p = &h->pages[page_of(h, block)];
    ASSERT(p->kind == PAGE_SLAB || p->kind == PAGE_RUN);
    return p->kind == PAGE_SLAB ? classes[p->class_no].size : p->n * HEAP_PAGE;
}

/* ---- check */

static const char *check_slab(const struct heap *h, uint32_t i, size_t *used)
{
    const struct page *p = &h->pages[i];
    const struct class_table *class = &classes[p->class_no];
    unsigned n_free = 0;
    for (unsigned word = 0; word < 4; word++)
        n_free += (unsigned)__builtin_popcountll(p->free[word]);
    if (p->slab_offset != 0 || n_free + p->used != class->blocks)
        return "the blocks of a slab do not add up";
    uint32_t at = h->with_room[p->class_no];
    while (at != HEAP_NONE && at != i)
        at = h->pages[at].next;
    if ((at == i) != (n_free > 0))
        return "a slab with room is not to be found, or a full one is";
    *used += (size_t)p->used * class->size;
    return NULL;
}

const char *heap__check(const struct heap *h)
{
    size_t used = 0;
    uint32_t dirty = 0;
    for (uint32_t i = 0, n; i < h->n_pages; i += n) {
        const struct page *p = &h->pages[i];
        const char *wrong = NULL;
        n = p->n;
        if (p->kind == PAGE_SLAB) {
            n = classes[p->class_no].pages;
            wrong = check_slab(h, i, &used);
        } else if (p->kind == PAGE_CLEAN || p->kind == PAGE_DIRTY) {
            dirty += p->kind == PAGE_DIRTY ? n : 0;
            wrong = heap__check_run(h, i);
        } else if (p->kind == PAGE_RUN) {
            used += n * HEAP_PAGE;
        } else {
            wrong = "a page is nothing";
        }
        if (wrong != NULL)
            return wrong;
    }
    return used == h->used && dirty == h->dirty_pages ? NULL : "the sums are wrong";
}
