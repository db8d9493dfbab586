// SPDX-License-Identifier: MIT
#include "session/directory_priv.h"

#define TRY(check)                                                                                           \
    do {                                                                                                     \
        const char *wrong_ = (check);                                                                        \
        if (wrong_) {                                                                                        \
            return wrong_;                                                                                   \
        }                                                                                                    \
    } while (0)

static const char *check_uid_of(const struct directory *d, const struct member *m)
{
    const struct uid_entry *u = m->uid;
    if (!u) {
        return NULL;
    }
    if (named__find(&d->uids, named__key_of(&u->named)) != &u->named) {
        return "a member's uid is not in the table of uids";
    }
    if (m->uid_position >= u->named.set.used || set__at(&u->named.set, m->uid_position) != m) {
        return "a member is not where it should be in its uid";
    }
    return NULL;
}

static const char *check_groups_of(const struct directory *d, const struct member *m)
{
    TRY(memberships__check(m));
    for (uint32_t i = 0; i < m->n_memberships; i++) {
        const struct membership *ms = &m->memberships[i];
        if (group__find(d, named__key_of(&ms->group->named)) != ms->group) {
            return "a member's group is not in the table of groups";
        }
        const struct set *s = &ms->group->named.set;
        if (ms->position >= s->used || set__at(s, ms->position) != m) {
            return "a member is not where it should be in a group";
        }
    }
    return NULL;
}

static const char *check_member(const struct directory *d, const struct member *m)
{
    if (!ids__is_ours(d, m->id)) {
        return "a member's id is none of this shard";
    }
    if (hash_table__find(&d->ids, m->id) != m) {
        return "a member is not found by its id";
    }
    if (m->session && m->session->len == 0) {
        return "a member has an empty session";
    }
    TRY(check_uid_of(d, m));
    return check_groups_of(d, m);
}

struct totals {
    uint64_t bound, memberships;
};

static const char *check_members(const struct directory *d, struct totals *t)
{
    TRY(set__check(&d->all));
    TRY(hash_table__check(&d->ids));
    if (hash_table__count(&d->ids) != d->all.live) {
        return "not as many ids as members";
    }
    const struct member *m;
    for (uint32_t i = 0; (m = set__next(&d->all, &i, d->all.used));) {
        TRY(check_member(d, m));
        t->bound += m->uid != NULL;
        t->memberships += m->n_memberships;
    }
    return NULL;
}

/* With the members checked one by one, equal totals mean that nobody is in a set who should not be. */
static const char *check_table(const struct hash_table *t, enum set_kind kind, uint64_t total)
{
    TRY(hash_table__check(t));
    for (uint32_t i = 0; i < hash_table__slots(t); i++) {
        const struct named *n = hash_table__at(t, i);
        if (!n) {
            continue;
        }
        if (n->set.kind != kind || n->set.live == 0) {
            return "a uid or group without members is in its table";
        }
        TRY(set__check(&n->set));
        total -= n->set.live;
    }
    return total == 0 ? NULL : "the members of all uids or groups do not add up";
}

static const char *check_group_set(const struct directory *d)
{
    TRY(set__check(&d->group_set));
    if (d->group_set.live != hash_table__count(&d->groups)) {
        return "not as many groups in the set as in the table";
    }
    const struct group *g;
    for (uint32_t i = 0; (g = set__next(&d->group_set, &i, d->group_set.used));) {
        if (group__find(d, named__key_of(&g->named)) != g) {
            return "a group of the set is not in the table";
        }
    }
    return NULL;
}

/* Entries that only wait for their cursors are in no table: check_table would have met them. */
static const char *check_cursors(const struct directory *d)
{
    uint32_t on_all = 0, on_groups = 0;
    for (const struct member_cursor *c = d->member_cursors; c; c = c->next) {
        const struct set *s = c->set;
        if (s->n_cursors == 0 || c->index > c->end || c->end > s->used) {
            return "a cursor points outside its set";
        }
        on_all += s == &d->all;
    }
    for (const struct group_cursor *c = d->group_cursors; c; c = c->next) {
        if (c->directory != d || c->index > c->end || c->end > d->group_set.used) {
            return "a cursor points outside the set of groups";
        }
        on_groups++;
    }
    return on_all == d->all.n_cursors && on_groups == d->group_set.n_cursors ? NULL : "cursors miscounted";
}

const char *directory_check(const struct directory *d)
{
    struct totals t = {0};
    TRY(check_members(d, &t));
    TRY(check_table(&d->uids, SET_UID, t.bound));
    TRY(check_table(&d->groups, SET_GROUP, t.memberships));
    TRY(check_group_set(d));
    return check_cursors(d);
}

/* ---- in slices */

#define SET_WHOLE_MAX 1024

static const char *check_named(const struct hash_table *t, enum set_kind kind, uint32_t i)
{
    const struct named *n = hash_table__at(t, i);
    if (!n) {
        return NULL;
    }
    if (n->set.kind != kind || n->set.live == 0) {
        return "a uid or group without members is in its table";
    }
    if (named__find(t, named__key_of(n)) != n) {
        return "a uid or group is not found by its name";
    }
    return n->set.used <= SET_WHOLE_MAX ? set__check(&n->set) : NULL;
}

/* Members, then the places of both tables, one after the other. */
static const char *check_at(const struct directory *d, uint64_t i)
{
    uint32_t uids = hash_table__slots(&d->uids);
    if (i < d->all.used) {
        const struct member *m = set__at(&d->all, (uint32_t)i);
        return m ? check_member(d, m) : NULL;
    }
    i -= d->all.used;
    return i < uids ? check_named(&d->uids, SET_UID, (uint32_t)i)
                    : check_named(&d->groups, SET_GROUP, (uint32_t)i - uids);
}

const char *directory_check_slice(const struct directory *d, uint64_t *position, uint32_t steps)
{
    uint64_t end = (uint64_t)d->all.used + hash_table__slots(&d->uids) + hash_table__slots(&d->groups);
    for (; steps > 0 && *position < end; steps--) {
        TRY(check_at(d, (*position)++));
    }
    if (*position < end) {
        return NULL;
    }
    *position = 0;
    return check_cursors(d);
}
