// SPDX-License-Identifier: MIT
#include "session/hash_table.h"

#include <errno.h>

#include "base/assert.h"
#include "base/hash.h"

#define SLOTS_MIN      16u
#define SLOTS_MAX      (UINT32_C(1) << 30)
#define SLOTS_PER_STEP 16u

static uint32_t *key_at(const struct hash_table_part *p, uint32_t i)
{
    return &p->pairs[i >> 1].key[i & 1];
}

static void **value_at(const struct hash_table_part *p, uint32_t i)
{
    return &p->pairs[i >> 1].value[i & 1];
}

/* Ids come in arithmetic sequences. The low bits of a product keep enough of that to form clusters of 50 at
 * some strides (measured), hence one more round of mixing. */
static uint32_t home(const struct hash_table_part *p, uint32_t key)
{
    uint32_t h = hash_u32(key);
    h ^= h >> 15;
    h *= UINT32_C(0x85EBCA6B);
    return (h ^ (h >> 13)) & p->mask;
}

static size_t part_bytes(uint32_t slots)
{
    return (size_t)slots / 2 * sizeof(struct hash_table_pair);
}

static int part_init(struct hash_table_part *p, struct mem *mem, uint32_t slots)
{
    struct hash_table_pair *pairs = mem__alloc_zero(mem, part_bytes(slots));
    if (!pairs) {
        return -ENOMEM;
    }
    *p = (struct hash_table_part){.pairs = pairs, .mask = slots - 1};
    return 0;
}

static void part_fini(struct hash_table_part *p, struct mem *mem)
{
    if (p->pairs) {
        mem__free_zero(mem, p->pairs, part_bytes(p->mask + 1));
    }
    *p = (struct hash_table_part){0};
}

static void part_put(struct hash_table_part *p, uint32_t key, void *value)
{
    ASSERT(p->count < p->mask);
    uint32_t i = home(p, key);
    while (*key_at(p, i)) {
        i = (i + 1) & p->mask;
    }
    *key_at(p, i) = key;
    *value_at(p, i) = value;
    p->count++;
}

/* Close the gap at i: pull back each later entry of the cluster that may stand there. */
static void part_remove_at(struct hash_table_part *p, uint32_t i)
{
    uint32_t gap = i;
    for (uint32_t j = (i + 1) & p->mask; *key_at(p, j); j = (j + 1) & p->mask) {
        uint32_t from_home = (j - home(p, *key_at(p, j))) & p->mask;
        uint32_t from_gap = (j - gap) & p->mask;
        if (from_home >= from_gap) {
            *key_at(p, gap) = *key_at(p, j);
            *value_at(p, gap) = *value_at(p, j);
            gap = j;
        }
    }
    *key_at(p, gap) = 0;
    *value_at(p, gap) = NULL;
    p->count--;
}

static bool part_remove(struct hash_table_part *p, uint32_t key, const void *value)
{
    if (p->count == 0) {
        return false;
    }
    for (uint32_t i = home(p, key); *key_at(p, i); i = (i + 1) & p->mask) {
        if (*key_at(p, i) == key && *value_at(p, i) == value) {
            part_remove_at(p, i);
            return true;
        }
    }
    return false;
}

static void *part_find(const struct hash_table_part *p, uint32_t key)
{
    if (p->count == 0) {
        return NULL;
    }
    for (uint32_t i = home(p, key); *key_at(p, i); i = (i + 1) & p->mask) {
        if (*key_at(p, i) == key) {
            return *value_at(p, i);
        }
    }
    return NULL;
}

static void *part_find_match(const struct hash_table_part *p, uint32_t key, hash_table_match_fn *match,
                             const void *arg)
{
    if (p->count == 0) {
        return NULL;
    }
    for (uint32_t i = home(p, key); *key_at(p, i); i = (i + 1) & p->mask) {
        if (*key_at(p, i) == key && match(*value_at(p, i), arg)) {
            return *value_at(p, i);
        }
    }
    return NULL;
}

/* ---- resizing ---- */

/* Empty some slots of `old` into `now`, and on to the end of the cluster. */
static void move_some(struct hash_table *t, struct mem *mem)
{
    struct hash_table_part *old = &t->old;
    if (!old->pairs) {
        return;
    }
    uint32_t i = t->move_at;
    for (uint32_t n = 0; old->count > 0; n++, i = (i + 1) & old->mask) {
        uint32_t key = *key_at(old, i);
        if (!key) {
            if (n >= SLOTS_PER_STEP) {
                break;
            }
            continue;
        }
        part_put(&t->now, key, *value_at(old, i));
        *key_at(old, i) = 0;
        old->count--;
    }
    t->move_at = i;
    if (old->count == 0) {
        part_fini(old, mem);
    }
}

static int resize_begin(struct hash_table *t, struct mem *mem, uint32_t slots)
{
    struct hash_table_part fresh;
    while (t->old.pairs) { /* does not happen by the arithmetic above; costs time only if it does */
        move_some(t, mem);
    }
    if (slots > SLOTS_MAX || part_init(&fresh, mem, slots) < 0) {
        return -ENOMEM;
    }
    t->old = t->now;
    t->now = fresh;
    t->move_at = 0;
    if (t->old.count == 0) {
        part_fini(&t->old, mem);
        return 0;
    }
    while (*key_at(&t->old, t->move_at)) { /* begin between clusters; the load leaves empty slots */
        t->move_at++;
    }
    return 0;
}

static int make_room(struct hash_table *t, struct mem *mem)
{
    if (!t->now.pairs) {
        return resize_begin(t, mem, SLOTS_MIN);
    }
    uint32_t slots = t->now.mask + 1;
    if (hash_table__count(t) < slots / 4 * 3) {
        return 0;
    }
    return resize_begin(t, mem, slots * 2);
}

static void give_back(struct hash_table *t, struct mem *mem)
{
    uint32_t slots = t->now.mask + 1;
    if (!t->old.pairs && slots > SLOTS_MIN && t->now.count < slots / 16 * 3) {
        (void)resize_begin(t, mem, slots / 2); /* without memory it stays large: no harm */
    }
}

/* ---- for others ---- */

void hash_table__fini(struct hash_table *t, struct mem *mem)
{
    part_fini(&t->now, mem);
    part_fini(&t->old, mem);
}

int hash_table__insert(struct hash_table *t, struct mem *mem, uint32_t key, void *value)
{
    ASSERT(key != 0 && value);
    if (make_room(t, mem) < 0) {
        return -ENOMEM;
    }
    move_some(t, mem);
    part_put(&t->now, key, value);
    return 0;
}

void hash_table__remove(struct hash_table *t, struct mem *mem, uint32_t key, const void *value)
{
    bool found = part_remove(&t->now, key, value) || part_remove(&t->old, key, value);
    ASSERT(found);
    if (hash_table__count(t) == 0) {
        hash_table__fini(t, mem);
        return;
    }
    move_some(t, mem);
    give_back(t, mem);
}

void *hash_table__find(const struct hash_table *t, uint32_t key)
{
    if (key == 0) {
        return NULL;
    }
    void *v = part_find(&t->now, key);
    return v ? v : part_find(&t->old, key);
}

void *hash_table__find_match(const struct hash_table *t, uint32_t key, hash_table_match_fn *match,
                             const void *arg)
{
    ASSERT(key != 0);
    void *v = part_find_match(&t->now, key, match, arg);
    return v ? v : part_find_match(&t->old, key, match, arg);
}

uint32_t hash_table__count(const struct hash_table *t)
{
    return t->now.count + t->old.count;
}

static uint32_t part_slots(const struct hash_table_part *p)
{
    return p->pairs ? p->mask + 1 : 0;
}

uint32_t hash_table__slots(const struct hash_table *t)
{
    return part_slots(&t->now) + part_slots(&t->old);
}

void *hash_table__at(const struct hash_table *t, uint32_t i)
{
    const struct hash_table_part *p = &t->now;
    if (i >= part_slots(p)) {
        i -= part_slots(p);
        p = &t->old;
    }
    ASSERT(i < part_slots(p));
    return *key_at(p, i) ? *value_at(p, i) : NULL;
}

static const char *part_check(const struct hash_table_part *p)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < part_slots(p); i++) {
        uint32_t key = *key_at(p, i);
        if (!key) {
            continue;
        }
        count++;
        for (uint32_t j = home(p, key); j != i; j = (j + 1) & p->mask) {
            if (!*key_at(p, j)) {
                return "hash table: an entry is out of reach of its home";
            }
        }
    }
    return count == p->count ? NULL : "hash table: entries miscounted";
}

const char *hash_table__check(const struct hash_table *t)
{
    const char *wrong = part_check(&t->now);
    return wrong ? wrong : part_check(&t->old);
}
