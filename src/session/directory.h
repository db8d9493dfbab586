// SPDX-License-Identifier: MIT
/* Who is connected to this shard: members by connection_id, by uid and by group, and their session bytes.
 *
 *   directory ── by id ──────► member ◄── all[] (dense, for broadcasts)
 *             ── by uid ─────► uid    ── members[] (dense)
 *             ── by group ───► group  ── members[] (dense)
 *   member    ── uid (one), position in it; memberships[] (group, position in it)
 *
 * Every change is O(1) per element touched; nothing walks over all. Sets can be iterated in slices with a
 * cursor while members come and go: whoever was in the set when the cursor began and still is, is visited
 * exactly once; whoever joined later is not visited. One thread. Names (uids, groups) are opaque bytes, any
 * length up to NAME_LEN_MAX. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct directory;
struct estate;
struct estate_client;
struct name_filter;
struct node_home;
struct uid_entry;
struct group;

#define DIRECTORY_NAME_LEN_MAX 65535

/* Session bytes: opaque. Never changed in place: replaced. A block of the estate, which is how a successor of
 * this process finds the last session of a client (estate_client.session). */
struct session_bytes {
    uint32_t len;
    uint8_t data[];
};

struct membership {
    struct group *group;
    uint32_t position; /* in the group's members */
};

/* Embedded in the owner's client struct. Zeroed is "in no directory". Only the directory writes to it, but
 * for record. */
struct member {
    uint32_t id;           /* connection_id, 0: none */
    uint32_t position;     /* in all members */
    struct uid_entry *uid; /* NULL: none */
    uint32_t uid_position;
    uint32_t n_memberships;
    struct membership *memberships; /* NULL: none */
    struct session_bytes *session;  /* NULL: empty */
    struct estate_client *record; /* the owner's; NULL: none. directory_session_set keeps its session true */
};

/* first_id_seq: where the 26-bit sequence of ids starts; shard: 0..63, the upper 6 bits. NULL without memory.
 * Sessions are blocks of the estate, which outlives the directory; NULL: of malloc (tests; no records then).
 */
struct directory *directory_new(unsigned shard, uint32_t first_id_seq, struct estate *estate);
/* Names that are there are counted in these filters (either may be NULL), by hash_bytes of the name. Before
 * the first name. */
void directory_set_filters(struct directory *d, struct name_filter *uids, struct name_filter *groups);
/* Ids are not given again before reuse_s have passed: the sequence is DIRECTORY_ID_BLOCKS blocks, the times
 * at which it left each (unix time, 0: never) are kept in left_unix_s (of that many elements; in memory that
 * outlives the process), and a block is entered only when it was left long enough ago. An id that goes when
 * the sequence is about to come to it again (its client has outlived 2^25 others) is passed over. Before the
 * first directory_add. The clock is what directory_set_now said last; when it goes back, what has a time in
 * the future has that time now. */
#define DIRECTORY_ID_BLOCKS 64
void directory_set_reuse(struct directory *d, int64_t *left_unix_s, uint32_t reuse_s, int64_t now_unix_s);
void directory_set_now(struct directory *d, int64_t now_unix_s);
/* That id was in use until now, by somebody who is not a member here: a client of a dead predecessor. */
void directory_id_gone(struct directory *d, uint32_t id);
void directory_free(struct directory *d); /* every member must have been removed, every cursor ended */

/* Give m an id (shard << 26 | sequence; 0 is never given, one in use is never given again, a freed one only
 * after the sequence has come round). 0, -ENOMEM, or -EAGAIN: the next block of ids was left too short a time
 * ago (directory_set_reuse). */
int directory_add(struct directory *d, struct member *m);
/* The same with that id, which was given elsewhere: of any shard's row, and the sequence stays where it is.
 * -EEXIST: it is in use here; -EINVAL: it is none that is ever given (sequence 0); -ENOMEM. */
int directory_add_as(struct directory *d, struct member *m, uint32_t id);
/* Only ids of which home says that they are this shard's are given (NULL, the default: all of its row;
 * directory_add says -EAGAIN when none is). Must outlive d; may change, when members whose home is elsewhere
 * from then on leave before the next check. */
void directory_set_home(struct directory *d, const struct node_home *home);
/* Out of everything: id, uid, groups; session freed. Its record must be gone before (NULL): that points to
 * the session. */
void directory_remove(struct directory *d, struct member *m);
struct member *directory_find(const struct directory *d, uint32_t id);
uint32_t directory_count(const struct directory *d);
/* For looks at all members in slices: the one at that place, NULL: none is there; false: nor behind it. Keeps
 * nothing: who comes or moves in between may be missed or met twice. */
bool directory_at(const struct directory *d, uint32_t place, struct member **ret);
/* Goes on there (a transfer, before the first directory_add). */
void directory_set_next_seq(struct directory *d, uint32_t seq);
uint32_t directory_next_seq(const struct directory *d); /* for the state that outlives the process */
/* The sequence goes on there: what another process had come to. Before the first directory_add. */
void directory_set_next_seq(struct directory *d, uint32_t seq);

/* Replace the session, in m->record too if there is one. len 0: none. 0 or -ENOMEM (then it stays as it was).
 */
int directory_session_set(struct directory *d, struct member *m, const void *data, size_t len);
/* The member has no session any more, the block is the caller's (NULL: it was empty), to be freed with
 * estate_free. For a client that goes while its record stays: m->record is the caller's too, and NULL. Only
 * with an estate. */
struct session_bytes *directory_session_detach(struct directory *d, struct member *m);

/* One uid per member: a second bind moves it. Many members per uid. 0, -ENOMEM, or -EINVAL for a name longer
 * than DIRECTORY_NAME_LEN_MAX (nothing changed). Everywhere else such a name is merely one that nobody has.
 */
int directory_uid_bind(struct directory *d, struct member *m, const void *uid, size_t len);
void directory_uid_unbind(struct directory *d, struct member *m);
/* 0, -ENOMEM or -EINVAL as above; joining twice is fine. A look-up among the member's own groups is at most
 * 16 comparisons, beyond that a hash; only when its number of groups doubles or quarters are they copied. */
int directory_group_join(struct directory *d, struct member *m, const void *name, size_t len);
void directory_group_leave(struct directory *d, struct member *m, const void *name, size_t len);
/* Nobody is in it any more. O(members). */
void directory_group_dissolve(struct directory *d, const void *name, size_t len);

uint32_t directory_uid_count(const struct directory *d, const void *uid, size_t len); /* members of a uid */
uint32_t directory_group_count(const struct directory *d, const void *name,
                               size_t len); /* members of a group */
uint32_t directory_groups(const struct directory *d);
uint32_t directory_uids(const struct directory *d);

/* Names of what a member is bound to; the pointers live until the next change. */
const uint8_t *uid_entry_name(const struct uid_entry *u, size_t *ret_len);
const uint8_t *group_name(const struct group *g, size_t *ret_len);
/* A number of the owner's for each uid: 0 until it is set, gone with the uid's last member. Uids that were
 * made without marks (the default, for the memory) have none: theirs stays 0. */
void directory_set_uid_marks(struct directory *d, bool on);
uint64_t uid_entry_mark(const struct uid_entry *u);
void uid_entry_set_mark(struct uid_entry *u, uint64_t mark);
bool directory_is_in_group(const struct directory *d, const struct member *m, const void *name, size_t len);

/* Iterate a set in slices. A begun cursor must be ended (also after next returned NULL). The struct must not
 * move between begin and end. begin on a uid or group that does not exist gives an empty iteration. */
struct member_cursor {
    struct member_cursor *next, *prev; /* other cursors of the directory */
    void *set;
    uint32_t index, end;
};
void directory_all_begin(struct directory *d, struct member_cursor *c);
void directory_uid_begin(struct directory *d, const void *uid, size_t len, struct member_cursor *c);
void directory_group_begin(struct directory *d, const void *name, size_t len, struct member_cursor *c);
struct member *member_cursor_next(struct member_cursor *c); /* NULL: at the end */
void member_cursor_end(struct directory *d, struct member_cursor *c);

/* Iterate the groups in slices: same promise as above. */
struct group_cursor {
    struct group_cursor *next, *prev;
    struct directory *directory;
    uint32_t index, end;
};
void directory_groups_begin(struct directory *d, struct group_cursor *c);
const struct group *group_cursor_next(struct group_cursor *c);
void group_cursor_end(struct group_cursor *c);

/* The uids or groups with their numbers of members, one by one in no order: *position is 0 to begin with and
 * goes on from call to call; false: that was all. Keeps nothing: names that come or go in between may be
 * missed or met twice. A call looks at 4096 places of the table at most; ret_name is NULL when none of them
 * had one. */
enum directory_names { DIRECTORY_UIDS, DIRECTORY_GROUPS };
bool directory_next_name(const struct directory *d, enum directory_names which, uint32_t *position,
                         const uint8_t **ret_name, size_t *ret_len, uint32_t *ret_members);

/* A part of directory_check, for large ones: `steps` members, uids or groups from *position on (0 to begin
 * with; 0 again when that was the last part). What takes all at once is left out: totals, and who is in a set
 * of more than 1024. NULL, or what is wrong. */
const char *directory_check_slice(const struct directory *d, uint64_t *position, uint32_t steps);

/* Compares every table with every other; NULL when they agree, else a static text of what does not add up.
 * O(everything): for tests and `tgg ctl check`. */
const char *directory_check(const struct directory *d);

/* Bytes held by the tables, sessions and names, without the members themselves. */
size_t directory_bytes(const struct directory *d);
