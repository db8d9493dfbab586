// SPDX-License-Identifier: MIT
#include "session/set.h"

#include <assert.h>
#include <errno.h>

#include "base/assert.h"

#define NO_HOLE         UINT32_C(0x7fffffff)
#define FILL_PER_CHANGE 4u
#define SQUEEZE_MIN     64u /* holes: fewer are not worth it */
#define PREFETCH_AHEAD  8u

/* ---- holes: 31 bits previous, 31 bits next, 1 bit tag; elements are aligned, so their low bit is clear ----
 */

static_assert(sizeof(void *) == 8, "a hole keeps two links in a pointer's place");
static_assert(sizeof(struct set) == 24, "every uid has one: the goal is 250 bytes for all of an idle client");

static void *hole_make(uint32_t prev, uint32_t next)
{
    return (void *)(((uintptr_t)prev << 32) | ((uintptr_t)next << 1) | 1);
}

static bool is_hole(const void *item)
{
    return ((uintptr_t)item & 1) != 0;
}

static uint32_t hole_prev(const void *item)
{
    return (uint32_t)((uintptr_t)item >> 32);
}

static uint32_t hole_next(const void *item)
{
    return (uint32_t)((uintptr_t)item >> 1) & NO_HOLE;
}

static void **items_of(const struct set *s)
{
    return s->is_array ? s->many->items : (void **)&s->one;
}

static uint32_t cap_of(const struct set *s)
{
    return s->is_array ? s->many->cap : 1;
}

static uint32_t first_hole(const struct set *s)
{
    if (s->is_array) {
        return s->many->hole;
    }
    return s->used == 1 && is_hole(s->one) ? 0 : NO_HOLE;
}

static void hole_link(struct set *s, uint32_t i)
{
    if (!s->is_array) {
        s->one = hole_make(NO_HOLE, NO_HOLE);
        return;
    }
    uint32_t first = s->many->hole;
    if (first != NO_HOLE) {
        s->many->items[first] = hole_make(i, hole_next(s->many->items[first]));
    }
    s->many->items[i] = hole_make(NO_HOLE, first);
    s->many->hole = i;
}

/* The slot at i is no hole any more; the caller fills it or drops it. */
static void hole_unlink(struct set *s, uint32_t i)
{
    if (!s->is_array) {
        s->one = NULL;
        return;
    }
    void **items = s->many->items;
    uint32_t prev = hole_prev(items[i]), next = hole_next(items[i]);
    if (prev == NO_HOLE) {
        s->many->hole = next;
    } else {
        items[prev] = hole_make(hole_prev(items[prev]), next);
    }
    if (next != NO_HOLE) {
        items[next] = hole_make(prev, hole_next(items[next]));
    }
    items[i] = NULL;
}

/* ---- room ---- */

static size_t array_bytes(uint32_t cap)
{
    return sizeof(struct set_array) + (size_t)cap * sizeof(void *);
}

static int grow(struct set *s, struct mem *mem)
{
    if (s->is_array) {
        struct set_array *a = mem__realloc(mem, s->many, array_bytes(s->many->cap * 2));
        if (!a) {
            return -ENOMEM;
        }
        a->cap *= 2;
        s->many = a;
        return 0;
    }
    struct set_array *a = mem__alloc(mem, array_bytes(2));
    if (!a) {
        return -ENOMEM;
    }
    a->cap = 2;
    a->hole = first_hole(s);
    a->items[0] = s->one;
    s->many = a;
    s->is_array = true;
    return 0;
}

/* Memory goes back when a quarter or less is used; back to no array at one. */
static void give_back(struct set *s, struct mem *mem)
{
    if (!s->is_array) {
        return;
    }
    struct set_array *a = s->many;
    if (s->used <= 1) {
        void *one = s->used == 1 ? a->items[0] : NULL;
        mem__free(mem, a);
        s->is_array = false;
        s->one = one;
        return;
    }
    if (s->used > a->cap / 4) {
        return;
    }
    uint32_t cap = a->cap / 2;
    while (s->used <= cap / 4) {
        cap /= 2;
    }
    a = mem__realloc(mem, a, array_bytes(cap));
    if (a) { /* without memory it stays large */
        a->cap = cap;
        s->many = a;
    }
}

/* ---- elements ---- */

void set__init(struct set *s, enum set_kind kind)
{
    *s = (struct set){.kind = (uint8_t)kind};
}

void set__fini(struct set *s, struct mem *mem)
{
    if (s->is_array) {
        mem__free(mem, s->many);
    }
    *s = (struct set){0};
}

int set__add(struct set *s, struct mem *mem, void *elem, uint32_t *ret_position)
{
    ASSERT(elem && !is_hole(elem));
    uint32_t i = s->n_cursors == 0 ? first_hole(s) : NO_HOLE;
    if (i != NO_HOLE) {
        hole_unlink(s, i);
    } else {
        if (s->used == cap_of(s) && grow(s, mem) < 0) {
            return -ENOMEM;
        }
        i = s->used++;
    }
    items_of(s)[i] = elem;
    s->live++;
    *ret_position = i;
    return 0;
}

/* One hole less: the last slot is dropped, after its element, if it has one, has moved into a hole. */
static void fill_one(struct set *s)
{
    void **items = items_of(s);
    uint32_t last = s->used - 1;
    void *elem = items[last];
    if (is_hole(elem)) {
        hole_unlink(s, last);
    } else {
        uint32_t i = first_hole(s);
        hole_unlink(s, i);
        items[i] = elem;
        set__set_position(s, elem, i);
    }
    s->used--;
}

void set__settle(struct set *s, struct mem *mem)
{
    ASSERT(s->n_cursors == 0);
    if (s->live == 0) {
        s->used = 0;
    }
    for (uint32_t n = 0; n < FILL_PER_CHANGE && s->used > s->live; n++) {
        fill_one(s);
    }
    give_back(s, mem);
}

void set__remove(struct set *s, struct mem *mem, uint32_t position)
{
    ASSERT(position < s->used && !is_hole(items_of(s)[position]));
    hole_link(s, position);
    s->live--;
    if (s->n_cursors == 0) {
        set__settle(s, mem);
    }
}

void set__clear(struct set *s, struct mem *mem)
{
    if (s->n_cursors == 0) {
        s->live = s->used = 0;
        give_back(s, mem);
        return;
    }
    for (uint32_t i = 0; i < s->used; i++) {
        if (!is_hole(items_of(s)[i])) {
            hole_link(s, i);
        }
    }
    s->live = 0;
}

void *set__at(const struct set *s, uint32_t i)
{
    ASSERT(i < s->used);
    void *item = items_of(s)[i];
    return is_hole(item) ? NULL : item;
}

void *set__next(const struct set *s, uint32_t *index, uint32_t end)
{
    ASSERT(end <= s->used);
    void **items = items_of(s);
    for (uint32_t i = *index; i < end; i++) {
        if (i + PREFETCH_AHEAD < end) {
            __builtin_prefetch(items[i + PREFETCH_AHEAD]); /* harmless on a hole */
        }
        if (!is_hole(items[i])) {
            *index = i + 1;
            return items[i];
        }
    }
    *index = end;
    return NULL;
}

/* ---- closing up under cursors ---- */

bool set__wants_squeeze(const struct set *s)
{
    uint32_t holes = s->used - s->live;
    return holes >= SQUEEZE_MIN && holes > s->live;
}

/* Give each element the position it will have; the items stay where they are. */
void set__rank(struct set *s)
{
    void **items = items_of(s);
    uint32_t rank = 0;
    for (uint32_t i = 0; i < s->used; i++) {
        if (!is_hole(items[i])) {
            set__set_position(s, items[i], rank++);
        }
    }
}

/* A bound becomes the number of elements before it: one more than the rank of the nearest of them. */
static uint32_t remap_bound(const struct set *s, uint32_t bound)
{
    void **items = items_of(s);
    while (bound > 0 && is_hole(items[bound - 1])) {
        bound--;
    }
    return bound == 0 ? 0 : set__position(s, items[bound - 1]) + 1;
}

void set__remap(const struct set *s, uint32_t *index, uint32_t *end)
{
    *index = remap_bound(s, *index);
    *end = remap_bound(s, *end);
}

void set__squeeze(struct set *s, struct mem *mem)
{
    void **items = items_of(s);
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->used; i++) {
        if (!is_hole(items[i])) {
            items[n++] = items[i];
        }
    }
    ASSERT(n == s->live);
    s->used = n;
    if (s->is_array) {
        s->many->hole = NO_HOLE;
    }
    give_back(s, mem);
}

/* ---- checking ---- */

static const char *check_holes(const struct set *s)
{
    uint32_t n = 0, prev = NO_HOLE;
    for (uint32_t i = first_hole(s); i != NO_HOLE; i = hole_next(items_of(s)[i])) {
        if (i >= s->used || !is_hole(items_of(s)[i]) || hole_prev(items_of(s)[i]) != prev || ++n > s->used) {
            return "set: the list of holes is broken";
        }
        prev = i;
    }
    return n == s->used - s->live ? NULL : "set: holes miscounted";
}

const char *set__check(const struct set *s)
{
    uint32_t live = 0;
    if (s->used > cap_of(s) || s->live > s->used) {
        return "set: more elements than room";
    }
    for (uint32_t i = 0; i < s->used; i++) {
        void *elem = set__at(s, i);
        if (elem && set__position(s, elem) != i) {
            return "set: an element keeps another position";
        }
        live += elem != NULL;
    }
    return live == s->live ? check_holes(s) : "set: elements miscounted";
}
