// SPDX-License-Identifier: MIT
/* The groups of one member, in one piece of memory before whose items stands the room:
 *
 *   cap | item 0 | item 1 | ... | item cap-1 | index, only if cap > 16: 2 * cap slots of item number + 1
 *         ▲ member->memberships
 *
 * Most members are in a few groups, and comparing up to 16 pointers is as good as any index. A member of
 * thousands gets a hash index of its own (linear probing, load at most 1/2), so that no change walks over
 * them; only doubling and halving does, paid for by the changes in between. */
#include "session/directory_priv.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

#define LINEAR_MAX 16u

struct membership_list {
    uint32_t cap;
    uint32_t pad;
    struct membership items[];
};

static struct membership_list *list_of(const struct member *m)
{
    return (struct membership_list *)((char *)m->memberships - offsetof(struct membership_list, items));
}

static uint32_t cap_of(const struct member *m)
{
    return m->memberships ? list_of(m)->cap : 0;
}

static uint32_t *index_of(const struct membership_list *l)
{
    return (uint32_t *)(uintptr_t)&l->items[l->cap];
}

static uint32_t index_mask(const struct membership_list *l)
{
    return l->cap * 2 - 1;
}

static size_t list_bytes(uint32_t cap)
{
    size_t index = cap > LINEAR_MAX ? (size_t)cap * 2 * sizeof(uint32_t) : 0;
    return sizeof(struct membership_list) + cap * sizeof(struct membership) + index;
}

static uint32_t home(const struct membership_list *l, uint32_t item)
{
    return hash_u32((uint32_t)((uintptr_t)l->items[item].group >> 4)) & index_mask(l);
}

static void index_put(struct membership_list *l, uint32_t item)
{
    uint32_t *index = index_of(l), i = home(l, item);
    while (index[i]) {
        i = (i + 1) & index_mask(l);
    }
    index[i] = item + 1;
}

/* The slot of an item that is there. */
static uint32_t index_slot(const struct membership_list *l, uint32_t item)
{
    uint32_t *index = index_of(l), i = home(l, item);
    while (index[i] != item + 1) {
        ASSERT(index[i]);
        i = (i + 1) & index_mask(l);
    }
    return i;
}

static void index_remove(struct membership_list *l, uint32_t item)
{
    uint32_t *index = index_of(l), mask = index_mask(l);
    uint32_t gap = index_slot(l, item);
    for (uint32_t j = (gap + 1) & mask; index[j]; j = (j + 1) & mask) {
        if (((j - home(l, index[j] - 1)) & mask) >= ((j - gap) & mask)) {
            index[gap] = index[j];
            gap = j;
        }
    }
    index[gap] = 0;
}

static uint32_t index_find(const struct membership_list *l, const struct group *g)
{
    uint32_t *index = index_of(l);
    uint32_t i = hash_u32((uint32_t)((uintptr_t)g >> 4)) & index_mask(l);
    for (; index[i]; i = (i + 1) & index_mask(l)) {
        if (l->items[index[i] - 1].group == g) {
            return index[i] - 1;
        }
    }
    return MEMBERSHIP_NONE;
}

uint32_t memberships__find(const struct member *m, const struct group *g)
{
    if (cap_of(m) > LINEAR_MAX) {
        return index_find(list_of(m), g);
    }
    for (uint32_t i = 0; i < m->n_memberships; i++) {
        if (m->memberships[i].group == g) {
            return i;
        }
    }
    return MEMBERSHIP_NONE;
}

/* Same items, other room. */
static int resize(struct mem *mem, struct member *m, uint32_t cap)
{
    struct membership_list *l = mem__alloc(mem, list_bytes(cap));
    if (!l) {
        return -ENOMEM;
    }
    l->cap = cap;
    l->pad = 0;
    if (m->memberships) {
        memcpy(l->items, m->memberships, m->n_memberships * sizeof(struct membership));
        mem__free(mem, list_of(m));
    }
    m->memberships = l->items;
    if (cap > LINEAR_MAX) {
        memset(index_of(l), 0, (size_t)cap * 2 * sizeof(uint32_t));
        for (uint32_t i = 0; i < m->n_memberships; i++) {
            index_put(l, i);
        }
    }
    return 0;
}

int memberships__reserve(struct mem *mem, struct member *m)
{
    uint32_t cap = cap_of(m);
    return m->n_memberships < cap ? 0 : resize(mem, m, cap ? cap * 2 : 1);
}

void memberships__add(struct member *m, struct group *g, uint32_t position)
{
    ASSERT(m->n_memberships < cap_of(m));
    uint32_t i = m->n_memberships++;
    m->memberships[i] = (struct membership){.group = g, .position = position};
    if (cap_of(m) > LINEAR_MAX) {
        index_put(list_of(m), i);
    }
}

void memberships__remove_at(struct mem *mem, struct member *m, uint32_t i)
{
    ASSERT(i < m->n_memberships);
    struct membership_list *l = list_of(m);
    uint32_t last = m->n_memberships - 1;
    if (l->cap > LINEAR_MAX) {
        index_remove(l, i);
        if (i != last) {
            index_of(l)[index_slot(l, last)] = i + 1;
        }
    }
    m->memberships[i] = m->memberships[last];
    m->n_memberships = last;
    memberships__fit(mem, m);
}

void memberships__fit(struct mem *mem, struct member *m)
{
    if (m->n_memberships == 0) {
        if (m->memberships) {
            mem__free(mem, list_of(m));
        }
        m->memberships = NULL;
        return;
    }
    if (m->n_memberships <= cap_of(m) / 4) {
        (void)resize(mem, m, cap_of(m) / 2); /* without memory it stays large */
    }
}

const char *memberships__check(const struct member *m)
{
    if (m->n_memberships > cap_of(m)) {
        return "memberships: more than room";
    }
    for (uint32_t i = 0; i < m->n_memberships; i++) {
        if (memberships__find(m, m->memberships[i].group) != i) {
            return "memberships: one is not found, or there twice";
        }
    }
    return NULL;
}
