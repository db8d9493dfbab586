// SPDX-License-Identifier: MIT
/* What the files of the directory share. Private to src/session.
 *
 *   ids     id ─────────► member            all     set of members
 *   uids    hash(uid) ──► uid_entry  {set of members, name}
 *   groups  hash(name) ─► group      {set of members, name} ◄── group_set (set of groups, for cursors)
 *
 * A uid or group is in its table exactly while it has members. When its last member leaves under a cursor, it
 * is taken out of the tables at once and freed when the cursor ends; the same name made again is another
 * entry. */
#pragma once

#include "common/node_shared.h"
#include "session/directory.h"
#include "session/hash_table.h"
#include "session/mem.h"
#include "session/set.h"

#define ID_SEQ_BITS 26
#define ID_SEQ_MAX  ((UINT32_C(1) << ID_SEQ_BITS) - 1)

struct named { /* the set is first: a pointer to one is a pointer to the other */
    struct set set;
    uint8_t name[]; /* set.name_len */
};

struct uid_entry { /* behind the name: the mark, if set.has_mark */
    struct named named;
};

struct group {
    uint32_t position; /* in group_set */
    struct named named;
};

/* What is needed for not giving an id again too soon (ids.c). */
struct gone_id {
    uint32_t id;
    int64_t unix_s;
};
struct id_reuse {
    int64_t *left_unix_s; /* NULL: nothing is kept, any id that is free may be given */
    int64_t now_unix_s;
    uint32_t reuse_s;
    uint32_t first, count, cap; /* of the ring; cap: a power of two, or 0 */
    struct gone_id *ring;       /* in the order of their going */
    struct hash_table gone;     /* the same ids */
};

struct directory {
    uint32_t shard_bits; /* shard << 26 */
    uint32_t next_seq;
    const struct node_home *home; /* NULL: every id of our row is ours to give */
    struct id_reuse reuse;
    bool uid_marks;                                /* new uids have one */
    struct estate *estate;                         /* NULL: sessions are of malloc */
    struct name_filter *uid_filter, *group_filter; /* NULL: none */
    struct hash_table ids, uids, groups;
    struct set all, group_set;
    struct member_cursor *member_cursors;
    struct group_cursor *group_cursors;
    struct mem mem;
};

/* ---- names (named.c) ---- */

struct name_key {
    const void *data;
    size_t len;
    uint32_t hash; /* the table's key, not 0 */
    uint64_t full_hash;
};
struct name_key named__key(const void *data, size_t len);
struct name_key named__key_of(const struct named *n);
/* NULL if absent, or if the name is longer than any that can be kept. */
struct named *named__find(const struct hash_table *t, struct name_key key);

static inline struct uid_entry *uid_entry_of(const struct named *n)
{
    return (struct uid_entry *)((char *)(uintptr_t)n - offsetof(struct uid_entry, named));
}
static inline struct group *group_of(const struct named *n)
{
    return (struct group *)((char *)(uintptr_t)n - offsetof(struct group, named));
}
static inline struct named *named_of_set(const struct set *s)
{
    return (struct named *)(uintptr_t)s;
}

/* That name has come to be in this directory, or has gone. */
static inline void named__filter_add(struct name_filter *f, struct name_key key)
{
    if (f) {
        name_filter_add(f, key.full_hash);
    }
}
static inline void named__filter_remove(struct name_filter *f, struct name_key key)
{
    if (f) {
        name_filter_remove(f, key.full_hash);
    }
}

struct group *group__find(const struct directory *d, struct name_key key);

/* Out of the group at m->memberships[i]. */
void group__leave_at(struct directory *d, struct member *m, uint32_t i);
/* Free a uid or group that has no members, no cursors and is in no table. */
void uid__free(struct directory *d, struct uid_entry *u);
void group__free(struct directory *d, struct group *g);

/* ---- ids (ids.c) ---- */

/* This id may belong to a member here. */
bool ids__is_ours(const struct directory *d, uint32_t id);
/* The next id that nobody has: 0, or -EAGAIN. Nothing is changed before ids__taken. */
int ids__next(const struct directory *d, uint32_t *ret_id);
void ids__taken(struct directory *d, uint32_t id);
void ids__fini(struct directory *d, struct mem *mem);

/* ---- cursors (cursor.c) ---- */

/* set__remove, and closing up if the cursors on the set leave too many holes. */
void cursor__set_remove(struct directory *d, struct set *s, uint32_t position);

/* ---- a member's groups (memberships.c) ---- */

#define MEMBERSHIP_NONE UINT32_MAX

/* Its index. At most 16 comparisons, or one look-up in the member's index of groups. */
uint32_t memberships__find(const struct member *m, const struct group *g);
/* Room for one more: 0 or -ENOMEM. */
int memberships__reserve(struct mem *mem, struct member *m);
/* After memberships__reserve. */
void memberships__add(struct member *m, struct group *g, uint32_t position);
/* The last takes the place of the one that goes. */
void memberships__remove_at(struct mem *mem, struct member *m, uint32_t i);
/* Give back what is not needed (also a reservation that was not used). */
void memberships__fit(struct mem *mem, struct member *m);
/* NULL, or what is wrong. */
const char *memberships__check(const struct member *m);
