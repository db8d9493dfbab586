// SPDX-License-Identifier: MIT
#include "session/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "estate/estate.h"
#include "session/directory_priv.h"

struct directory *directory_new(unsigned shard, uint32_t first_id_seq, struct estate *estate)
{
    ASSERT(shard < UINT32_C(1) << (32 - ID_SEQ_BITS));
    struct mem mem = {0};
    struct directory *d = mem__alloc(&mem, sizeof(*d));
    if (!d) {
        return NULL;
    }
    *d = (struct directory){
        .shard_bits = (uint32_t)shard << ID_SEQ_BITS,
        .estate = estate,
        .mem = mem,
    };
    directory_set_next_seq(d, first_id_seq);
    set__init(&d->all, SET_ALL);
    set__init(&d->group_set, SET_GROUPS);
    return d;
}

void directory_free(struct directory *d)
{
    if (!d) {
        return;
    }
    ASSERT(d->all.live == 0 && d->group_set.live == 0 && hash_table__count(&d->uids) == 0);
    ASSERT(!d->member_cursors && !d->group_cursors);
    struct mem mem = d->mem;
    ids__fini(d, &mem);
    hash_table__fini(&d->ids, &mem);
    hash_table__fini(&d->uids, &mem);
    hash_table__fini(&d->groups, &mem);
    set__fini(&d->all, &mem);
    set__fini(&d->group_set, &mem);
    mem__free(&mem, d);
    ASSERT(mem.bytes == 0); /* everything counted in has been counted out */
}

void directory_set_filters(struct directory *d, struct name_filter *uids, struct name_filter *groups)
{
    ASSERT(hash_table__count(&d->uids) == 0 && hash_table__count(&d->groups) == 0);
    d->uid_filter = uids;
    d->group_filter = groups;
}

void directory_set_home(struct directory *d, const struct node_home *home)
{
    d->home = home;
}

static int enter(struct directory *d, struct member *m, uint32_t id)
{
    if (hash_table__insert(&d->ids, &d->mem, id, m) < 0) {
        return -ENOMEM;
    }
    if (set__add(&d->all, &d->mem, m, &m->position) < 0) {
        hash_table__remove(&d->ids, &d->mem, id, m);
        return -ENOMEM;
    }
    m->id = id;
    return 0;
}

int directory_add(struct directory *d, struct member *m)
{
    ASSERT(m->id == 0 && !m->uid && !m->memberships && !m->session);
    if (d->all.live == ID_SEQ_MAX) {
        return -ENOMEM;
    }
    uint32_t id;
    int r = ids__next(d, &id);
    if (r == 0) {
        r = enter(d, m, id);
    }
    if (r == 0) {
        ids__taken(d, id);
    }
    return r;
}

int directory_add_as(struct directory *d, struct member *m, uint32_t id)
{
    ASSERT(m->id == 0 && !m->uid && !m->memberships && !m->session);
    if ((id & ID_SEQ_MAX) == 0) {
        return -EINVAL;
    }
    if (hash_table__find(&d->ids, id)) {
        return -EEXIST;
    }
    return d->all.live == ID_SEQ_MAX ? -ENOMEM : enter(d, m, id);
}

/* ---- sessions ---- */

static struct session_bytes *session_alloc(struct directory *d, size_t size)
{
    if (!d->estate) {
        return mem__alloc(&d->mem, size);
    }
    struct session_bytes *s = mem__injected_failure() ? NULL : estate_alloc(d->estate, size);
    d->mem.bytes += s ? estate_block_bytes(d->estate, s) : 0;
    return s;
}

/* The block is not counted as ours any more. */
static void session_uncount(struct directory *d, const struct session_bytes *s)
{
    if (s) {
        size_t bytes = estate_block_bytes(d->estate, s);
        ASSERT(d->mem.bytes >= bytes);
        d->mem.bytes -= bytes;
    }
}

static void session_free(struct directory *d, struct session_bytes *s)
{
    if (!d->estate) {
        mem__free(&d->mem, s);
        return;
    }
    session_uncount(d, s);
    estate_free(d->estate, s);
}

int directory_session_set(struct directory *d, struct member *m, const void *data, size_t len)
{
    ASSERT(m->id != 0);
    struct session_bytes *s = NULL, *old = m->session;
    if (len > UINT32_MAX) {
        return -ENOMEM;
    }
    if (len > 0) {
        s = session_alloc(d, sizeof(*s) + len);
        if (!s) {
            return -ENOMEM;
        }
        s->len = (uint32_t)len;
        memcpy(s->data, data, len);
    }
    if (m->record) {
        estate_client_session(d->estate, m->record, s); /* the old one is there until this is done */
    }
    m->session = s;
    session_free(d, old);
    return 0;
}

struct session_bytes *directory_session_detach(struct directory *d, struct member *m)
{
    ASSERT(m->id != 0 && d->estate && !m->record);
    struct session_bytes *s = m->session;
    session_uncount(d, s);
    m->session = NULL;
    return s;
}

void directory_remove(struct directory *d, struct member *m)
{
    ASSERT(m->id != 0 && !m->record);
    directory_uid_unbind(d, m);
    while (m->n_memberships > 0) {
        group__leave_at(d, m, m->n_memberships - 1);
    }
    session_free(d, m->session);
    cursor__set_remove(d, &d->all, m->position);
    hash_table__remove(&d->ids, &d->mem, m->id, m);
    directory_id_gone(d, m->id);
    *m = (struct member){0};
}

struct member *directory_find(const struct directory *d, uint32_t id)
{
    return hash_table__find(&d->ids, id);
}

bool directory_at(const struct directory *d, uint32_t place, struct member **ret)
{
    if (place >= d->all.used)
        return false;
    *ret = set__at(&d->all, place);
    return true;
}

uint32_t directory_count(const struct directory *d)
{
    return d->all.live;
}

void directory_set_next_seq(struct directory *d, uint32_t seq)
{
    seq &= ID_SEQ_MAX;
    d->next_seq = seq ? seq : 1;
}

uint32_t directory_next_seq(const struct directory *d)
{
    return d->next_seq;
}

size_t directory_bytes(const struct directory *d)
{
    return d->mem.bytes;
}
