// SPDX-License-Identifier: MIT
/* The event loop of one shard: timers, deferred work, slices of long work, end-of-turn hooks.
 * It can be driven from outside, one turn per call (F-Stack owns the thread and calls us; the simulation
 * too).
 *
 * One turn: poll (the net back end delivers what arrived) -> timers that are due -> tasks (long work, in
 * slices) -> end-of-turn hooks (write what was queued). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct loop;

/* Monotonic nanoseconds; the simulation gives virtual time. */
struct loop_clock {
    uint64_t (*now_ns)(void *ctx);
    uint64_t (*cpu_ns)(void *ctx); /* CPU time of the thread, for the statistics; NULL: not known */
    void *ctx;
};
extern const struct loop_clock loop_clock_monotonic;

/* turn_ns_max: how long tasks may run in one turn. NULL without memory. */
struct loop *loop_new(const struct loop_clock *clock, uint64_t turn_ns_max);
void loop_free(struct loop *l); /* every timer, task and hook must have been removed */

/* The source of events; set once by the net back end. poll waits at most timeout_ns (0: not at all,
 * UINT64_MAX: until something happens) and returns the number of events handled. */
struct loop_poller {
    int (*poll)(void *ctx, uint64_t timeout_ns);
    void *ctx;
};
void loop_set_poller(struct loop *l, const struct loop_poller *p);
/* For the poller: called within poll once it has waited, before it delivers anything. The turn begins here:
 * its time is read, its length and its budget count from here. (A poller that never calls it: the turn begins
 * when poll returns.) Without a poller nothing waits. */
void loop_poll_returned(struct loop *l);
/* Who must know when this loop is about to wait, and may object: others are to wake it only then. */
struct loop_sleeper {
    /* Right before a poll that would wait; false: do not, there is something to do (the poll then takes what
     * is there). */
    bool (*may_sleep)(struct loop_sleeper *s);
    /* After each may_sleep that was true: it has waited, and nothing has been delivered yet (with a poller
     * that calls loop_poll_returned; else when poll has returned). */
    void (*awake)(struct loop_sleeper *s);
};
/* One at a time, NULL: none. Not within may_sleep or awake. */
void loop_set_sleeper(struct loop *l, struct loop_sleeper *s);
/* When this loop has something to do by itself, on its clock: 0 at once (a task, a hook that wants another
 * turn), UINT64_MAX when nothing is set; may be earlier than the first timer, never later. For whoever drives
 * the turns. */
uint64_t loop_next_ns(const struct loop *l);

/* Time of the current turn (read once per turn, after the poll has waited). Cheap. */
uint64_t loop_now_ns(const struct loop *l);
static inline uint64_t loop_now_ms(const struct loop *l)
{
    return loop_now_ns(l) / 1000000;
}
/* The clock itself, read now. */
uint64_t loop_clock_ns(const struct loop *l);
/* Nanoseconds of this turn's budget still left, 0 when used up; reads the clock. Within a task: of its share
 * (what was left when it began, divided by the tasks that wait for their run in this turn). */
uint64_t loop_turn_left_ns(const struct loop *l);

/* One turn, waiting at most timeout_ns for events (less when a timer or a task is due). */
void loop_turn(struct loop *l, uint64_t timeout_ns);
/* Turns until loop_stop. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);

struct loop_stats {
    uint64_t turns, turn_ns_last, turn_ns_longest, turns_over_budget;
    /* The same in CPU time: without what others had of the CPU. Of turns that began with work left over by
     * the one before, which those with long work are; with what poll cost. */
    uint64_t turn_cpu_ns_longest;
};
void loop_stats_get(const struct loop *l, struct loop_stats *ret);

/* ---- timers: a hierarchical wheel, O(1) to set and to cancel, resolution LOOP_TICK_MS.
 * Zeroed is "not set". The owner keeps the struct; the loop never allocates for it. A timer never fires
 * early: delay_ms counts from the time of the turn (outside of a turn: from now) and is rounded up to the
 * next tick. */
#define LOOP_TICK_MS 8
struct timer {
    struct timer *next, *prev; /* NULL when not set */
    uint64_t expires_tick;
    void (*fn)(struct timer *t);
};
void timer_set(struct loop *l, struct timer *t, uint64_t delay_ms,
               void (*fn)(struct timer *t));        /* also moves a set one */
void timer_cancel(struct loop *l, struct timer *t); /* fine when not set */
static inline bool timer_is_set(const struct timer *t)
{
    return t->next != 0;
}

/* ---- tasks: long work in slices. `run` does a slice (looking at loop_turn_left_ns) and says whether it is
 * done; a task that is not done runs again in the next turn, in turn with the others. Order: first in, first
 * out. Each queued task gets one run in every turn, also when the budget is used up: so a slice must get on
 * by at least one step. */
struct loop_task {
    struct loop_task *next, *prev; /* NULL when not queued */
    /* Not queued while it runs. true: done (t is not touched again, so it may have been freed); one that adds
     * itself again within run stays queued all the same. false: again in the next turn, unless it was removed
     * meanwhile. */
    bool (*run)(struct loop_task *t);
};
void loop_task_add(struct loop *l, struct loop_task *t); /* fine when already queued */
void loop_task_remove(struct loop *l, struct loop_task *t);

/* ---- end of turn: hooks run once at the end of every turn, in the order of their adding. A hook that
 * returns true wants another turn at once (work left over). */
struct loop_hook {
    struct loop_hook *next;
    bool (*run)(struct loop_hook *h);
};
void loop_hook_add(struct loop *l, struct loop_hook *h);
void loop_hook_remove(struct loop *l, struct loop_hook *h);
