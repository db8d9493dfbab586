// SPDX-License-Identifier: MIT
/* The timer wheel of a loop. Private to this folder: others use timer_set and timer_cancel (loop.h).
 *
 *   level 0   64 slots of 1 tick       ticks  now+1 ... now+63
 *   level 1   64 slots of 64 ticks            ... now+64^2-1
 *   level 2   64 slots of 64^2 ticks          ... now+64^3-1
 *   level 3   64 slots of 64^3 ticks          ... now+64^4-1 (37 hours); later ones go into its last slot,
 * and again when that comes up
 *
 * Each slot is a ring of timers with a head of its own. When the first tick of a slot of level 1, 2 or 3
 * comes, its timers move to a level below. One bit for each slot that holds something, so that time jumps
 * from one slot in use to the next, however far that is. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "loop/loop.h"

#define WHEEL_LEVELS    4
#define WHEEL_SLOT_BITS 6
#define WHEEL_SLOTS     (1 << WHEEL_SLOT_BITS)

struct timer_wheel {
    uint64_t tick; /* everything up to and with this tick has fired */
    uint64_t in_use[WHEEL_LEVELS];
    struct timer slots[WHEEL_LEVELS * WHEEL_SLOTS];
    struct timer firing; /* head of those of the current tick whose turn comes yet */
};

void timer_wheel_init(struct timer_wheel *w, uint64_t tick);
bool timer_wheel_is_empty(const struct timer_wheel *w);

/* t must not be set. A tick that is over counts as the next. */
void timer_wheel_add(struct timer_wheel *w, struct timer *t, uint64_t expires_tick);
void timer_wheel_remove(struct timer_wheel *w, struct timer *t);

/* The next tick at which there is something to do (fire, or move timers a level down: so never later than the
 * first timer); UINT64_MAX: nothing is set. */
uint64_t timer_wheel_next(const struct timer_wheel *w);

/* Fire everything up to and with `tick`, in the order of the ticks. The functions may set and cancel any
 * timer. */
void timer_wheel_advance(struct timer_wheel *w, uint64_t tick);
