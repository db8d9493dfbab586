// SPDX-License-Identifier: MIT
#include "loop/loop.h"

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "base/assert.h"
#include "loop/timer.h"

#define TICK_NS ((uint64_t)LOOP_TICK_MS * 1000000)

struct loop {
    struct loop_clock clock;
    struct loop_poller poller;
    struct loop_sleeper *sleeper;
    uint64_t now_ns;       /* of this turn */
    uint64_t turn_end_ns;  /* until when the tasks of this turn may run */
    uint64_t slice_end_ns; /* the same for the task that is running: its share */
    uint64_t turn_ns_max;
    bool in_turn;
    bool polling; /* in poll, and loop_poll_returned has not been called yet */
    bool asleep;  /* in poll, with the consent of the sleeper, who has not been told of its end */
    bool again;   /* a hook wants another turn at once */
    bool stop;
    struct loop_task tasks; /* head of the ring that waits for the next pass */
    struct loop_task pass;  /* head of the ring of those that run in this turn yet */
    struct loop_task *running;
    struct loop_hook *hooks, *hook_next;
    struct loop_stats stats;
    struct timer_wheel wheel;
};

static uint64_t monotonic_now_ns(void *ctx)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t thread_cpu_ns(void *ctx)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

const struct loop_clock loop_clock_monotonic = {.now_ns = monotonic_now_ns, .cpu_ns = thread_cpu_ns};

static void task_head_init(struct loop_task *head)
{
    head->next = head;
    head->prev = head;
}

struct loop *loop_new(const struct loop_clock *clock, uint64_t turn_ns_max)
{
    struct loop *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return NULL;
    l->clock = *clock;
    l->turn_ns_max = turn_ns_max;
    l->now_ns = loop_clock_ns(l);
    task_head_init(&l->tasks);
    task_head_init(&l->pass);
    timer_wheel_init(&l->wheel, l->now_ns / TICK_NS);
    return l;
}

void loop_free(struct loop *l)
{
    if (l == NULL)
        return;
    ASSERT(!l->in_turn);
    ASSERT(timer_wheel_is_empty(&l->wheel));
    ASSERT(l->tasks.next == &l->tasks);
    ASSERT(l->hooks == NULL);
    free(l);
}

void loop_set_poller(struct loop *l, const struct loop_poller *p)
{
    l->poller = p != NULL ? *p : (struct loop_poller){0};
}

void loop_set_sleeper(struct loop *l, struct loop_sleeper *s)
{
    ASSERT(!l->asleep);
    l->sleeper = s;
}

uint64_t loop_now_ns(const struct loop *l)
{
    return l->now_ns;
}

uint64_t loop_clock_ns(const struct loop *l)
{
    return l->clock.now_ns(l->clock.ctx);
}

uint64_t loop_turn_left_ns(const struct loop *l)
{
    uint64_t now_ns = loop_clock_ns(l);
    uint64_t end_ns = l->running != NULL ? l->slice_end_ns : l->turn_end_ns;
    return now_ns < end_ns ? end_ns - now_ns : 0;
}

/* ---- timers ---- */

void timer_set(struct loop *l, struct timer *t, uint64_t delay_ms, void (*fn)(struct timer *t))
{
    /* Between turns the time of the last one may be long ago. */
    uint64_t now_ns = l->in_turn && !l->polling ? l->now_ns : loop_clock_ns(l);
    uint64_t delay_ns_max = UINT64_MAX / 2 - now_ns;
    uint64_t delay_ns = delay_ms < delay_ns_max / 1000000 ? delay_ms * 1000000 : delay_ns_max;

    if (t->next != NULL)
        timer_wheel_remove(&l->wheel, t);
    t->fn = fn;
    timer_wheel_add(&l->wheel, t, (now_ns + delay_ns + TICK_NS - 1) / TICK_NS);
}

void timer_cancel(struct loop *l, struct timer *t)
{
    if (t->next != NULL)
        timer_wheel_remove(&l->wheel, t);
}

uint64_t loop_next_ns(const struct loop *l)
{
    if (l->again || l->stop || l->tasks.next != &l->tasks)
        return 0;
    uint64_t tick = timer_wheel_next(&l->wheel);
    return tick == UINT64_MAX ? UINT64_MAX : tick * TICK_NS;
}

/* ---- tasks ---- */

void loop_task_add(struct loop *l, struct loop_task *t)
{
    if (t->next != NULL)
        return;
    t->next = &l->tasks;
    t->prev = l->tasks.prev;
    l->tasks.prev->next = t;
    l->tasks.prev = t;
}

static void task_unlink(struct loop_task *t)
{
    t->next->prev = t->prev;
    t->prev->next = t->next;
    t->next = NULL;
    t->prev = NULL;
}

void loop_task_remove(struct loop *l, struct loop_task *t)
{
    if (t == l->running)
        l->running = NULL;
    if (t->next != NULL)
        task_unlink(t);
}

/* Everything that waits becomes this turn's pass; what is added from now on waits for the next. */
static unsigned pass_begin(struct loop *l)
{
    unsigned n = 0;

    if (l->tasks.next == &l->tasks)
        return 0;
    l->pass.next = l->tasks.next;
    l->pass.prev = l->tasks.prev;
    l->pass.next->prev = &l->pass;
    l->pass.prev->next = &l->pass;
    task_head_init(&l->tasks);
    for (struct loop_task *t = l->pass.next; t != &l->pass; t = t->next)
        n++;
    return n;
}

/* One run for each task, and what is left of the turn in equal shares: else the first would use it up in
 * every turn. */
static void run_tasks(struct loop *l)
{
    unsigned n = pass_begin(l);

    for (; l->pass.next != &l->pass; n -= n > 1) {
        struct loop_task *t = l->pass.next;
        uint64_t now_ns = loop_clock_ns(l);
        uint64_t left_ns = now_ns < l->turn_end_ns ? l->turn_end_ns - now_ns : 0;
        l->slice_end_ns = now_ns + left_ns / n;
        task_unlink(t);
        l->running = t;
        /* Done: t may be gone, or be queued anew by itself. Removed while it ran: l->running is NULL. */
        if (!t->run(t) && l->running == t)
            loop_task_add(l, t);
        l->running = NULL;
    }
}

/* ---- hooks ---- */

void loop_hook_add(struct loop *l, struct loop_hook *h)
{
    struct loop_hook **p = &l->hooks;

    for (; *p != NULL; p = &(*p)->next)
        ASSERT(*p != h);
    h->next = NULL;
    *p = h;
}

void loop_hook_remove(struct loop *l, struct loop_hook *h)
{
    if (l->hook_next == h)
        l->hook_next = h->next;
    for (struct loop_hook **p = &l->hooks; *p != NULL; p = &(*p)->next) {
        if (*p == h) {
            *p = h->next;
            h->next = NULL;
            return;
        }
    }
}

static bool run_hooks(struct loop *l)
{
    bool again = false;

    for (struct loop_hook *h = l->hooks; h != NULL; h = l->hook_next) {
        l->hook_next = h->next;
        again |= h->run(h);
    }
    return again;
}

/* ---- turns ---- */

void loop_poll_returned(struct loop *l)
{
    l->polling = false;
    if (l->asleep) {
        l->asleep = false;
        l->sleeper->awake(l->sleeper);
    }
    l->now_ns = loop_clock_ns(l);
    l->turn_end_ns = l->now_ns + l->turn_ns_max;
}

/* now_ns: the time if the caller knows it, else 0. */
static uint64_t poll_timeout_ns(const struct loop *l, uint64_t timeout_ns, uint64_t now_ns)
{
    uint64_t due_ns = loop_next_ns(l);

    if (timeout_ns == 0 || due_ns == 0)
        return 0;
    if (due_ns == UINT64_MAX)
        return timeout_ns;
    if (now_ns == 0)
        now_ns = loop_clock_ns(l);
    uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    return wait_ns < timeout_ns ? wait_ns : timeout_ns;
}

/* 0 when the sleeper has something against waiting. */
static uint64_t ask_sleeper(struct loop *l, uint64_t timeout_ns)
{
    if (timeout_ns == 0 || l->sleeper == NULL)
        return timeout_ns;
    l->asleep = l->sleeper->may_sleep(l->sleeper);
    return l->asleep ? timeout_ns : 0;
}

static void poll_events(struct loop *l, uint64_t timeout_ns)
{
    l->again = false;
    l->polling = true;
    if (l->poller.poll != NULL)
        l->poller.poll(l->poller.ctx, ask_sleeper(l, timeout_ns));
    if (l->polling)
        loop_poll_returned(l);
}

/* CPU time so far, when this turn begins with work left over: those may get long; reading it is a system
 * call. 0: not to be measured. */
static uint64_t cpu_before(const struct loop *l, uint64_t timeout_ns)
{
    return timeout_ns == 0 && l->clock.cpu_ns != NULL ? l->clock.cpu_ns(l->clock.ctx) : 0;
}

static void note_cpu(struct loop *l, uint64_t before_ns)
{
    uint64_t ns = before_ns != 0 ? l->clock.cpu_ns(l->clock.ctx) - before_ns : 0;

    if (ns > l->stats.turn_cpu_ns_longest)
        l->stats.turn_cpu_ns_longest = ns;
}

/* Returns the time at its end. */
static uint64_t turn(struct loop *l, uint64_t timeout_ns)
{
    uint64_t cpu_ns = cpu_before(l, timeout_ns);

    ASSERT(!l->in_turn);
    l->in_turn = true;
    poll_events(l, timeout_ns);
    timer_wheel_advance(&l->wheel, l->now_ns / TICK_NS);
    run_tasks(l);
    l->again = run_hooks(l);
    l->in_turn = false;
    note_cpu(l, cpu_ns);

    uint64_t end_ns = loop_clock_ns(l);
    uint64_t turn_ns = end_ns - l->now_ns;
    l->stats.turn_ns_last = turn_ns;
    l->stats.turns++;
    if (turn_ns > l->stats.turn_ns_longest)
        l->stats.turn_ns_longest = turn_ns;
    if (turn_ns > l->turn_ns_max)
        l->stats.turns_over_budget++;
    return end_ns;
}

void loop_turn(struct loop *l, uint64_t timeout_ns)
{
    turn(l, poll_timeout_ns(l, timeout_ns, 0));
}

void loop_run(struct loop *l)
{
    uint64_t now_ns = 0; /* the end of one turn is the beginning of the next: saves reading the clock */

    while (!l->stop)
        now_ns = turn(l, poll_timeout_ns(l, UINT64_MAX, now_ns));
    l->stop = false;
}

void loop_stop(struct loop *l)
{
    l->stop = true;
}

void loop_stats_get(const struct loop *l, struct loop_stats *ret)
{
    *ret = l->stats;
}
