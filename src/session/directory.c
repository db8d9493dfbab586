// SPDX-License-Identifier: MIT
#include "session/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "session/directory_priv.h"

struct directory *directory_new(unsigned shard, uint32_t first_id_seq)
{
    ASSERT(shard < UINT32_C(1) << (32 - ID_SEQ_BITS));
    struct mem mem = {0};
    struct directory *d = mem__alloc(&mem, sizeof(*d));
    if (!d) {
        return NULL;
    }
    uint32_t seq = first_id_seq & ID_SEQ_MAX;
    *d = (struct directory){
        .shard_bits = (uint32_t)shard << ID_SEQ_BITS,
        .next_seq = seq ? seq : 1,
        .mem = mem,
    };
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
    hash_table__fini(&d->ids, &mem);
    hash_table__fini(&d->uids, &mem);
    hash_table__fini(&d->groups, &mem);
    set__fini(&d->all, &mem);
    set__fini(&d->group_set, &mem);
    mem__free(&mem, d);
    ASSERT(mem.bytes == 0); /* everything counted in has been counted out */
}

static uint32_t seq_after(uint32_t seq)
{
    return seq == ID_SEQ_MAX ? 1 : seq + 1;
}

/* The next id that nobody has. Long-lived ids stand in the way once per round of 67 million. */
static uint32_t take_id(struct directory *d)
{
    uint32_t seq = d->next_seq;
    while (hash_table__find(&d->ids, d->shard_bits | seq)) {
        seq = seq_after(seq);
    }
    d->next_seq = seq_after(seq);
    return d->shard_bits | seq;
}

int directory_add(struct directory *d, struct member *m)
{
    ASSERT(m->id == 0 && !m->uid && !m->memberships && !m->session);
    if (d->all.live == ID_SEQ_MAX) {
        return -ENOMEM;
    }
    uint32_t seq_before = d->next_seq;
    uint32_t id = take_id(d);
    if (hash_table__insert(&d->ids, &d->mem, id, m) < 0) {
        d->next_seq = seq_before;
        return -ENOMEM;
    }
    if (set__add(&d->all, &d->mem, m, &m->position) < 0) {
        hash_table__remove(&d->ids, &d->mem, id, m);
        d->next_seq = seq_before;
        return -ENOMEM;
    }
    m->id = id;
    return 0;
}

void directory_remove(struct directory *d, struct member *m)
{
    ASSERT(m->id != 0);
    directory_uid_unbind(d, m);
    while (m->n_memberships > 0) {
        group__leave_at(d, m, m->n_memberships - 1);
    }
    mem__free(&d->mem, m->session);
    cursor__set_remove(d, &d->all, m->position);
    hash_table__remove(&d->ids, &d->mem, m->id, m);
    *m = (struct member){0};
}

struct member *directory_find(const struct directory *d, uint32_t id)
{
    return hash_table__find(&d->ids, id);
}

uint32_t directory_count(const struct directory *d)
{
    return d->all.live;
}

uint32_t directory_next_seq(const struct directory *d)
{
    return d->next_seq;
}

int directory_session_set(struct directory *d, struct member *m, const void *data, size_t len)
{
    ASSERT(m->id != 0);
    struct session_bytes *s = NULL;
    if (len > UINT32_MAX) {
        return -ENOMEM;
    }
    if (len > 0) {
        s = mem__alloc(&d->mem, sizeof(*s) + len);
        if (!s) {
            return -ENOMEM;
        }
        s->len = (uint32_t)len;
        memcpy(s->data, data, len);
    }
    mem__free(&d->mem, m->session);
    m->session = s;
    return 0;
}

size_t directory_bytes(const struct directory *d)
{
    return d->mem.bytes;
}
