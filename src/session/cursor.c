// SPDX-License-Identifier: MIT
#include "session/directory_priv.h"

#include "base/assert.h"

static void squeeze(struct directory *d, struct set *s)
{
    set__rank(s);
    for (struct member_cursor *c = d->member_cursors; c; c = c->next) {
        if (c->set == s) {
            set__remap(s, &c->index, &c->end);
        }
    }
    for (struct group_cursor *c = d->group_cursors; c && s == &d->group_set; c = c->next) {
        set__remap(s, &c->index, &c->end);
    }
    set__squeeze(s, &d->mem);
}

void cursor__set_remove(struct directory *d, struct set *s, uint32_t position)
{
    set__remove(s, &d->mem, position);
    if (s->n_cursors > 0 && set__wants_squeeze(s)) {
        squeeze(d, s);
    }
}

/* ---- members ---- */

static void begin(struct directory *d, struct set *s, struct member_cursor *c)
{
    *c = (struct member_cursor){.set = s, .end = s ? s->used : 0};
    if (!s) {
        return;
    }
    s->n_cursors++;
    c->next = d->member_cursors;
    if (c->next) {
        c->next->prev = c;
    }
    d->member_cursors = c;
}

void directory_all_begin(struct directory *d, struct member_cursor *c)
{
    begin(d, &d->all, c);
}

void directory_uid_begin(struct directory *d, const void *uid, size_t len, struct member_cursor *c)
{
    struct named *n = named__find(&d->uids, named__key(uid, len));
    begin(d, n ? &n->set : NULL, c);
}

void directory_group_begin(struct directory *d, const void *name, size_t len, struct member_cursor *c)
{
    struct group *g = group__find(d, named__key(name, len));
    begin(d, g ? &g->named.set : NULL, c);
}

struct member *member_cursor_next(struct member_cursor *c)
{
    return c->set ? set__next(c->set, &c->index, c->end) : NULL;
}

/* The last cursor has left: an entry whose members left meanwhile has waited for this. */
static void last_ended(struct directory *d, struct set *s)
{
    if (s->live == 0 && s->kind == SET_UID) {
        uid__free(d, uid_entry_of(named_of_set(s)));
    } else if (s->live == 0 && s->kind == SET_GROUP) {
        group__free(d, group_of(named_of_set(s)));
    } else {
        set__settle(s, &d->mem);
    }
}

void member_cursor_end(struct directory *d, struct member_cursor *c)
{
    struct set *s = c->set;
    if (!s) {
        return;
    }
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        ASSERT(d->member_cursors == c);
        d->member_cursors = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    *c = (struct member_cursor){0};
    ASSERT(s->n_cursors > 0);
    if (--s->n_cursors == 0) {
        last_ended(d, s);
    }
}

/* ---- groups ---- */

void directory_groups_begin(struct directory *d, struct group_cursor *c)
{
    *c = (struct group_cursor){.directory = d, .end = d->group_set.used, .next = d->group_cursors};
    d->group_set.n_cursors++;
    if (c->next) {
        c->next->prev = c;
    }
    d->group_cursors = c;
}

const struct group *group_cursor_next(struct group_cursor *c)
{
    return c->directory ? set__next(&c->directory->group_set, &c->index, c->end) : NULL;
}

void group_cursor_end(struct group_cursor *c)
{
    struct directory *d = c->directory;
    if (!d) {
        return;
    }
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        ASSERT(d->group_cursors == c);
        d->group_cursors = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    *c = (struct group_cursor){0};
    ASSERT(d->group_set.n_cursors > 0);
    if (--d->group_set.n_cursors == 0) {
        set__settle(&d->group_set, &d->mem);
    }
}
