// SPDX-License-Identifier: MIT
#include "session/directory_priv.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

struct group *group__find(const struct directory *d, struct name_key key)
{
    struct named *n = named__find(&d->groups, key);
    return n ? group_of(n) : NULL;
}

/* A group without members, in the table and the set of groups. NULL without memory. */
static struct group *create(struct directory *d, struct name_key key)
{
    struct group *g = mem__alloc(&d->mem, sizeof(*g) + key.len);
    if (!g) {
        return NULL;
    }
    set__init(&g->named.set, SET_GROUP);
    g->named.set.name_len = (uint16_t)key.len;
    if (key.len > 0) {
        memcpy(g->named.name, key.data, key.len);
    }
    if (hash_table__insert(&d->groups, &d->mem, key.hash, &g->named) < 0) {
        group__free(d, g);
        return NULL;
    }
    if (set__add(&d->group_set, &d->mem, g, &g->position) < 0) {
        hash_table__remove(&d->groups, &d->mem, key.hash, &g->named);
        group__free(d, g);
        return NULL;
    }
    named__filter_add(d->group_filter, key);
    return g;
}

void group__free(struct directory *d, struct group *g)
{
    ASSERT(g->named.set.live == 0 && g->named.set.n_cursors == 0);
    set__fini(&g->named.set, &d->mem);
    mem__free(&d->mem, g);
}

/* The last member has gone: out of the tables; memory goes when no cursor looks at it. */
static void release(struct directory *d, struct group *g)
{
    ASSERT(g->named.set.live == 0);
    struct name_key key = named__key_of(&g->named);
    hash_table__remove(&d->groups, &d->mem, key.hash, &g->named);
    named__filter_remove(d->group_filter, key);
    cursor__set_remove(d, &d->group_set, g->position);
    if (g->named.set.n_cursors == 0) {
        group__free(d, g);
    }
}

static int join(struct directory *d, struct member *m, struct name_key key, struct group *g)
{
    uint32_t position;
    bool fresh = !g;
    if (fresh) {
        g = create(d, key);
        if (!g) {
            return -ENOMEM;
        }
    }
    if (set__add(&g->named.set, &d->mem, m, &position) < 0) {
        ASSERT(!fresh); /* the first member of a set needs no memory */
        return -ENOMEM;
    }
    memberships__add(m, g, position);
    return 0;
}

int directory_group_join(struct directory *d, struct member *m, const void *name, size_t len)
{
    ASSERT(m->id != 0);
    if (len > DIRECTORY_NAME_LEN_MAX) {
        return -EINVAL;
    }
    struct name_key key = named__key(name, len);
    struct group *g = group__find(d, key);
    if (g && memberships__find(m, g) != MEMBERSHIP_NONE) {
        return 0;
    }
    if (memberships__reserve(&d->mem, m) < 0) {
        return -ENOMEM;
    }
    int r = join(d, m, key, g);
    if (r < 0) {
        memberships__fit(&d->mem, m);
    }
    return r;
}

void group__leave_at(struct directory *d, struct member *m, uint32_t i)
{
    struct membership left = m->memberships[i];
    cursor__set_remove(d, &left.group->named.set, left.position);
    memberships__remove_at(&d->mem, m, i);
    if (left.group->named.set.live == 0) {
        release(d, left.group);
    }
}

void directory_group_leave(struct directory *d, struct member *m, const void *name, size_t len)
{
    struct group *g = group__find(d, named__key(name, len));
    uint32_t i = g ? memberships__find(m, g) : MEMBERSHIP_NONE;
    if (i != MEMBERSHIP_NONE) {
        group__leave_at(d, m, i);
    }
}

void directory_group_dissolve(struct directory *d, const void *name, size_t len)
{
    struct group *g = group__find(d, named__key(name, len));
    if (!g) {
        return;
    }
    struct member *m;
    for (uint32_t i = 0; (m = set__next(&g->named.set, &i, g->named.set.used));) {
        memberships__remove_at(&d->mem, m, memberships__find(m, g));
    }
    set__clear(&g->named.set, &d->mem);
    release(d, g);
}

uint32_t directory_group_count(const struct directory *d, const void *name, size_t len)
{
    struct group *g = group__find(d, named__key(name, len));
    return g ? g->named.set.live : 0;
}

uint32_t directory_groups(const struct directory *d)
{
    return d->group_set.live;
}

bool directory_is_in_group(const struct directory *d, const struct member *m, const void *name, size_t len)
{
    struct group *g = group__find(d, named__key(name, len));
    return g && memberships__find(m, g) != MEMBERSHIP_NONE;
}

const uint8_t *group_name(const struct group *g, size_t *ret_len)
{
    *ret_len = g->named.set.name_len;
    return g->named.name;
}
