// SPDX-License-Identifier: MIT
/* A dense set of members (or of groups) that cursors can walk in slices while it changes. Private to
 * src/session.
 *
 *   items:  m0  m1  hole  m3  hole  m5 | (free)      each element knows its index ("position")
 *                   ▲ └─────────┘ ▲    └ used
 *                   └ array->hole: holes are linked both ways through their slots (low bit set)
 *
 * Without a cursor a removal fills its hole with the last element. While a cursor is on the set nothing may
 * move, so holes stay and joiners go behind `used`, where no cursor's end reaches. When the last cursor has
 * ended, holes are filled by joiners, and a few by every other change: a burst of leavers costs no pause
 * later. Where cursors follow each other without a gap and half of the items are holes, set__squeeze closes
 * up in order and set__remap corrects the cursors: O(used), paid for by used / 2 removals.
 *
 * A set of one needs no array: `one` holds its element (the common case for a uid). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "session/mem.h"

enum set_kind {             /* where an element keeps its position */
                SET_ALL,    /* member->position */
                SET_UID,    /* member->uid_position */
                SET_GROUP,  /* the member's membership of the group around the set */
                SET_GROUPS, /* group->position; the elements are groups */
};

struct set_array {
    uint32_t cap;
    uint32_t hole; /* first hole, all 31 bits set: none */
    void *items[];
};

struct set {
    union {
        void *one;
        struct set_array *many;
    };
    uint32_t used; /* slots, holes included */
    uint32_t live; /* elements */
    uint32_t n_cursors;
    uint8_t kind; /* enum set_kind */
    bool is_array : 1;
    bool has_mark : 1; /* of a uid: its mark stands behind the name */
    uint16_t name_len; /* of the uid or group around it (struct named): here because it costs no byte here */
};

void set__init(struct set *s, enum set_kind kind);
void set__fini(struct set *s, struct mem *mem);

/* Put elem in; its position is for the caller to keep. 0 or -ENOMEM (nothing changed). */
int set__add(struct set *s, struct mem *mem, void *elem, uint32_t *ret_position);
/* Take out what is at position; may give another element that position. */
void set__remove(struct set *s, struct mem *mem, uint32_t position);
/* All out at once. */
void set__clear(struct set *s, struct mem *mem);

void *set__at(const struct set *s, uint32_t i); /* i < used; NULL: a hole */
/* The element at *index or after, before end; *index is then one past it. NULL: none left. */
void *set__next(const struct set *s, uint32_t *index, uint32_t end);

/* The last cursor has ended: fill some holes. */
void set__settle(struct set *s, struct mem *mem);

/* Closing up under cursors: rank, then remap for every cursor, then squeeze; nothing in between. */
bool set__wants_squeeze(const struct set *s);
void set__rank(struct set *s);
void set__remap(const struct set *s, uint32_t *index, uint32_t *end);
void set__squeeze(struct set *s, struct mem *mem);

/* NULL, or what is wrong. */
const char *set__check(const struct set *s);

/* In set_position.c: the position that an element keeps for this set. */
uint32_t set__position(const struct set *s, const void *elem);
void set__set_position(const struct set *s, void *elem, uint32_t position);
