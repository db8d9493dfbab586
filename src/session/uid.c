// SPDX-License-Identifier: MIT
#include "session/directory_priv.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

static struct uid_entry *find(const struct directory *d, struct name_key key)
{
    struct named *n = named__find(&d->uids, key);
    return n ? uid_entry_of(n) : NULL;
}

/* An entry without members, in the table. NULL without memory. */
static struct uid_entry *create(struct directory *d, struct name_key key)
{
    uint64_t mark = 0;
    struct uid_entry *u = mem__alloc(&d->mem, sizeof(*u) + key.len + (d->uid_marks ? sizeof mark : 0));
    if (!u) {
        return NULL;
    }
    set__init(&u->named.set, SET_UID);
    u->named.set.has_mark = d->uid_marks;
    u->named.set.name_len = (uint16_t)key.len;
    if (key.len > 0) {
        memcpy(u->named.name, key.data, key.len);
    }
    if (d->uid_marks) {
        memcpy(u->named.name + key.len, &mark, sizeof mark);
    }
    if (hash_table__insert(&d->uids, &d->mem, key.hash, &u->named) < 0) {
        uid__free(d, u);
        return NULL;
    }
    named__filter_add(d->uid_filter, key);
    return u;
}

void uid__free(struct directory *d, struct uid_entry *u)
{
    ASSERT(u->named.set.live == 0 && u->named.set.n_cursors == 0);
    set__fini(&u->named.set, &d->mem);
    mem__free(&d->mem, u);
}

static int add(struct directory *d, struct member *m, struct name_key key, struct uid_entry *u,
               uint32_t *ret_position, struct uid_entry **ret_u)
{
    bool fresh = !u;
    if (fresh) {
        u = create(d, key);
        if (!u) {
            return -ENOMEM;
        }
    }
    if (set__add(&u->named.set, &d->mem, m, ret_position) < 0) {
        ASSERT(!fresh); /* the first member of a set needs no memory */
        return -ENOMEM;
    }
    *ret_u = u;
    return 0;
}

int directory_uid_bind(struct directory *d, struct member *m, const void *uid, size_t len)
{
    ASSERT(m->id != 0);
    if (len > DIRECTORY_NAME_LEN_MAX) {
        return -EINVAL;
    }
    struct name_key key = named__key(uid, len);
    struct uid_entry *u = find(d, key);
    if (u && m->uid == u) {
        return 0;
    }
    uint32_t position;
    if (add(d, m, key, u, &position, &u) < 0) {
        return -ENOMEM;
    }
    directory_uid_unbind(d, m);
    m->uid = u;
    m->uid_position = position;
    return 0;
}

void directory_uid_unbind(struct directory *d, struct member *m)
{
    struct uid_entry *u = m->uid;
    if (!u) {
        return;
    }
    cursor__set_remove(d, &u->named.set, m->uid_position);
    m->uid = NULL;
    m->uid_position = 0;
    if (u->named.set.live > 0) {
        return;
    }
    struct name_key key = named__key_of(&u->named);
    hash_table__remove(&d->uids, &d->mem, key.hash, &u->named);
    named__filter_remove(d->uid_filter, key);
    if (u->named.set.n_cursors == 0) {
        uid__free(d, u);
    }
}

uint32_t directory_uid_count(const struct directory *d, const void *uid, size_t len)
{
    struct uid_entry *u = find(d, named__key(uid, len));
    return u ? u->named.set.live : 0;
}

uint32_t directory_uids(const struct directory *d)
{
    return hash_table__count(&d->uids);
}

void directory_set_uid_marks(struct directory *d, bool on)
{
    d->uid_marks = on;
}

uint64_t uid_entry_mark(const struct uid_entry *u)
{
    uint64_t mark = 0;
    if (u->named.set.has_mark) {
        memcpy(&mark, u->named.name + u->named.set.name_len, sizeof mark);
    }
    return mark;
}

void uid_entry_set_mark(struct uid_entry *u, uint64_t mark)
{
    if (u->named.set.has_mark) {
        memcpy(u->named.name + u->named.set.name_len, &mark, sizeof mark);
    }
}

const uint8_t *uid_entry_name(const struct uid_entry *u, size_t *ret_len)
{
    *ret_len = u->named.set.name_len;
    return u->named.name;
}
