// SPDX-License-Identifier: MIT
#include "session/set.h"

#include "base/assert.h"
#include "session/directory_priv.h"

/* Where the element keeps its position in this set. */
static uint32_t *slot(const struct set *s, const void *elem)
{
    struct member *m = (struct member *)(uintptr_t)elem;
    switch ((enum set_kind)s->kind) {
    case SET_ALL: return &m->position;
    case SET_UID: return &m->uid_position;
    case SET_GROUP: {
        uint32_t i = memberships__find(m, group_of(named_of_set(s)));
        ASSERT(i != MEMBERSHIP_NONE);
        return &m->memberships[i].position;
    }
    case SET_GROUPS: return &((struct group *)(uintptr_t)elem)->position;
    }
    UNREACHABLE();
}

uint32_t set__position(const struct set *s, const void *elem)
{
    return *slot(s, elem);
}

void set__set_position(const struct set *s, void *elem, uint32_t position)
{
    *slot(s, elem) = position;
}
