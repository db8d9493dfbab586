// SPDX-License-Identifier: MIT
#include "loop/timer.h"

#include <stddef.h>

#include "base/assert.h"

#define SLOT_MASK    ((uint64_t)WHEEL_SLOTS - 1)
#define DISTANCE_MAX ((UINT64_C(1) << (WHEEL_LEVELS * WHEEL_SLOT_BITS)) - 1)

static void head_init(struct timer *head)
{
    head->next = head;
    head->prev = head;
}

void timer_wheel_init(struct timer_wheel *w, uint64_t tick)
{
    w->tick = tick;
    for (unsigned i = 0; i < WHEEL_LEVELS; i++)
        w->in_use[i] = 0;
    for (unsigned i = 0; i < WHEEL_LEVELS * WHEEL_SLOTS; i++)
        head_init(&w->slots[i]);
    head_init(&w->firing);
}

bool timer_wheel_is_empty(const struct timer_wheel *w)
{
    return timer_wheel_next(w) == UINT64_MAX && w->firing.next == &w->firing;
}

/* Into the slot that its distance from now asks for; expires_tick may be the current tick (while cascading).
 */
static void place(struct timer_wheel *w, struct timer *t)
{
    uint64_t tick = t->expires_tick;
    uint64_t distance = tick - w->tick;

    if (distance > DISTANCE_MAX) {
        distance = DISTANCE_MAX;
        tick = w->tick + DISTANCE_MAX;
    }
    unsigned level = distance == 0 ? 0 : (unsigned)(63 - __builtin_clzll(distance)) / WHEEL_SLOT_BITS;
    unsigned slot = (unsigned)((tick >> (level * WHEEL_SLOT_BITS)) & SLOT_MASK);
    struct timer *head = &w->slots[level * WHEEL_SLOTS + slot];

    t->next = head;
    t->prev = head->prev;
    head->prev->next = t;
    head->prev = t;
    w->in_use[level] |= UINT64_C(1) << slot;
}

void timer_wheel_add(struct timer_wheel *w, struct timer *t, uint64_t expires_tick)
{
    ASSERT(t->next == NULL);
    t->expires_tick = expires_tick > w->tick ? expires_tick : w->tick + 1;
    place(w, t);
}

void timer_wheel_remove(struct timer_wheel *w, struct timer *t)
{
    struct timer *next = t->next, *prev = t->prev;

    ASSERT(next != NULL && next->prev == t && prev->next == t);
    next->prev = prev;
    prev->next = next;
    t->next = NULL;
    t->prev = NULL;
    /* One neighbour on both sides: that is the head of the ring, now alone. */
    if (next == prev && next != &w->firing) {
        unsigned i = (unsigned)(next - w->slots);
        w->in_use[i / WHEEL_SLOTS] &= ~(UINT64_C(1) << (i % WHEEL_SLOTS));
    }
}

static uint64_t rotate_right(uint64_t v, unsigned n)
{
    n &= 63;
    return v >> n | v << (-n & 63);
}

uint64_t timer_wheel_next(const struct timer_wheel *w)
{
    uint64_t next = UINT64_MAX;

    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        if (w->in_use[level] == 0)
            continue;
        /* The slot of now itself is done with: a bit there means one whole round from now. */
        uint64_t now = w->tick >> (level * WHEEL_SLOT_BITS);
        uint64_t ahead = rotate_right(w->in_use[level], (unsigned)((now + 1) & SLOT_MASK));
        uint64_t tick = (now + 1 + (unsigned)__builtin_ctzll(ahead)) << (level * WHEEL_SLOT_BITS);
        if (tick < next)
            next = tick;
    }
    return next;
}

/* Take everything out of a slot, into the ring at `into`. */
static void slot_take(struct timer_wheel *w, unsigned level, struct timer *into)
{
    unsigned slot = (unsigned)((w->tick >> (level * WHEEL_SLOT_BITS)) & SLOT_MASK);
    struct timer *head = &w->slots[level * WHEEL_SLOTS + slot];

    head_init(into);
    if (head->next == head)
        return;
    w->in_use[level] &= ~(UINT64_C(1) << slot);
    into->next = head->next;
    into->prev = head->prev;
    into->next->prev = into;
    into->prev->next = into;
    head_init(head);
}

/* The slots that begin with this tick, highest level first, move down; some of their timers may be due now.
 */
static void cascade(struct timer_wheel *w)
{
    for (unsigned level = WHEEL_LEVELS - 1; level > 0; level--) {
        struct timer moving;
        if ((w->tick & ((UINT64_C(1) << (level * WHEEL_SLOT_BITS)) - 1)) != 0)
            continue;
        slot_take(w, level, &moving);
        for (struct timer *t = moving.next, *next; t != &moving; t = next) {
            next = t->next;
            place(w, t);
        }
    }
}

void timer_wheel_advance(struct timer_wheel *w, uint64_t tick)
{
    ASSERT(w->firing.next == &w->firing);
    while (w->tick < tick) {
        uint64_t next = timer_wheel_next(w);
        if (next > tick) {
            w->tick = tick;
            return;
        }
        w->tick = next;
        cascade(w);
        slot_take(w, 0, &w->firing);
        while (w->firing.next != &w->firing) {
            struct timer *t = w->firing.next;
            ASSERT(t->expires_tick == w->tick);
            timer_wheel_remove(w, t);
            t->fn(t);
        }
    }
}
