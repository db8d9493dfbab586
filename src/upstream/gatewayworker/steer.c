// SPDX-License-Identifier: MIT
/* Clients are moved from one worker to another while both are there: a worker drains, or all are made even.
 *
 * A client's events stay in order: it is moved only when nothing of it waits for the old worker in our
 * memory, or in that of the shard that has the link. Of which clients that is so, epochs tell: an event marks
 * its client with the epoch of its worker (told_epoch), and
 *
 *   here        a new epoch begins when all that was queued at the beginning of the last one is written: what
 * is of an epoch before the last is with the kernel elsewhere   we end an epoch ourselves, with a FENCE
 * behind its events; FENCED says that all before the fence is written
 *
 * The number of an epoch has 8 bits: of two clients with the same mark one may have got it long ago, and is
 * kept waiting for the next epoch; never the other way round.
 *
 * Who drains is in node_shared, written by the shard of its link; each shard moves its own clients, and ends
 * when it sees that the mark is gone (the worker left, or another process has taken its key). To make all
 * even, each shard takes its part of what is too much at each worker, and moves one only to a worker that has
 * at least two less, as all shards count at that moment (node_choice_begin): so the sum of squares falls with
 * each move, whoever makes it, and nothing goes back and forth. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "upstream/gatewayworker/gatewayworker_priv.h"

#define TICK_MS      50
#define IDLE_TICK_MS 500
/* Moved with one look at what all shards count. */
#define BATCH 16
/* Clients looked at between two looks at the clock. */
#define SLICE 64
/* How long the mark of a drain may take to come from the shard of the link. */
#define SEEN_MS 5000
/* A fence that nobody has answered is sent again. */
#define FENCE_MS 10000
/* A drain that is late by so much holds those clients that talk all the time, for so long at most. */
#define HOLD_AFTER_MS 2000
#define HOLD_MS       500
/* A rebalance looks again so many times, each TICK_MS after the one before, when its time is over. */
#define ROUNDS 40

struct fence {
    uint64_t position;
    uint32_t number;
};

static uint64_t now_ms(const struct gatewayworker *gw)
{
    return loop_now_ms(gw->up.host->loop);
}

/* ---- what waits */

static void answer_fences(struct worker *w, uint64_t written)
{
    for (unsigned i = 0; i < w->gw->n_shards; i++) {
        uint64_t bit = UINT64_C(1) << i;
        if ((w->fences_waiting & bit) == 0 || w->fences[i].position > written)
            continue;
        w->fences_waiting &= ~bit;
        peer_fenced(w, i, w->fences[i].number);
    }
}

void steer_written(struct worker *w, uint64_t written)
{
    if (written >= w->epoch_end) {
        w->epoch++;
        w->epoch_end = w->link->bytes_out;
    }
    if (__builtin_expect(w->fences_waiting != 0, 0))
        answer_fences(w, written);
}

void steer_on_fence(struct gatewayworker *gw, unsigned from, struct worker *w, uint32_t number)
{
    if (w->link->queue.bytes == 0) {
        peer_fenced(w, from, number);
        return;
    }
    if (w->fences == NULL)
        w->fences = calloc(gw->n_shards, sizeof *w->fences);
    if (w->fences == NULL)
        return; /* it is asked again */
    w->fences[from] = (struct fence){.position = w->link->bytes_out, .number = number};
    w->fences_waiting |= UINT64_C(1) << from;
}

/* Nothing of c waits to be written to its worker. */
static bool is_free(const struct worker *w, const struct upstream_client *c)
{
    uint8_t before = (uint8_t)(w->epoch - 1);
    if (w->link != NULL)
        return w->link->queue.bytes == 0 || (c->told_epoch != w->epoch && c->told_epoch != before);
    return c->told_epoch != w->epoch && (!w->fence_out || c->told_epoch != before);
}

static void hold(struct worker *w, bool on)
{
    if (w->holds == on)
        return;
    w->holds = on;
    worker_look_at_full(w);
}

static void fence(struct worker *w)
{
    uint64_t now = now_ms(w->gw);
    if (w->fence_out && now - w->epoch_end < FENCE_MS)
        return;
    if (!w->fence_out)
        w->epoch++;
    w->fence_out = true;
    w->epoch_end = now;
    peer_fence(w, (uint8_t)(w->epoch - 1));
}

static void on_tick(struct timer *t);

static void wake(struct gatewayworker *gw, uint64_t ms)
{
    struct loop *loop = gw->up.host->loop;
    loop_task_add(loop, &gw->steer_task);
    timer_set(loop, &gw->steer_timer, ms, on_tick);
}

void steer_on_fenced(struct worker *w, uint32_t number)
{
    if (!w->fence_out || number != (uint8_t)(w->epoch - 1))
        return;
    w->fence_out = false;
    w->steer.at = w->n_clients;
    loop_task_add(w->gw->up.host->loop, &w->gw->steer_task);
}

void steer_replaced(struct worker *w)
{
    NODE_STORE(w->gw->shared->workers[w->number].draining, 0);
    w->steer = (struct worker_steer){0};
    uint64_t queued = w->link->bytes_out;
    meter_moved(&w->meter, queued - w->link->queue.bytes, queued);
    /* What was written before is in doubt with the rest: all of it has to be written now. */
    w->epoch_end = queued;
    for (unsigned i = 0; w->fences_waiting != 0 && i < w->gw->n_shards; i++)
        w->fences[i].position = queued;
}

void steer_forget(struct worker *w)
{
    w->steer = (struct worker_steer){0};
    w->fence_out = w->holds = false;
    w->fences_waiting = 0;
    w->meter.n = 0;
}

void steer_inherit(struct worker *w, const struct worker *from)
{
    const struct worker_steer *s = &from->steer;
    if (s->drains)
        w->steer = (struct worker_steer){
            .drains = true, .over_ms = s->over_ms, .first = s->first, .since_ms = s->since_ms};
}

/* ---- whom */

static bool slice_is_over(struct gatewayworker *gw)
{
    return ++gw->steer_steps % SLICE == 0 && loop_turn_left_ns(gw->up.host->loop) == 0;
}

/* The next of w's clients that may go, in this pass over them; NULL: none, or *ret_over: the time of the turn
 * is. */
static struct upstream_client *next_free(struct worker *w, bool *ret_over)
{
    if (w->steer.at > w->n_clients)
        w->steer.at = w->n_clients;
    while (w->steer.at > 0) {
        if (slice_is_over(w->gw)) {
            *ret_over = true;
            return NULL;
        }
        struct upstream_client *c = w->clients[--w->steer.at];
        if (is_free(w, c))
            return c;
    }
    return NULL;
}

static void begin_pass(struct worker *w)
{
    w->steer.at = w->n_clients;
    if (w->link == NULL)
        fence(w);
}

/* As many as can be are free. */
static void write_out(struct worker *w)
{
    if (w->link != NULL && w->link->queue.bytes > 0)
        link_flush(w->link);
}

/* ---- drain */

/* As long as it is marked; the mark may still be under way. */
static bool drains(struct worker *w)
{
    if (worker_is_draining(w)) {
        w->steer.seen = true;
        return true;
    }
    if (w->steer.seen || now_ms(w->gw) - w->steer.since_ms > SEEN_MS) {
        hold(w, false);
        w->steer = (struct worker_steer){0};
    }
    return false;
}

static bool somebody_takes(const struct gatewayworker *gw)
{
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (!worker_is_draining(gw->workers[i]))
            return true;
    return false;
}

static uint32_t may_stay(const struct worker *w)
{
    const struct worker_steer *s = &w->steer;
    uint64_t ms = now_ms(w->gw) - s->since_ms;
    return ms >= s->over_ms ? 0 : (uint32_t)((uint64_t)s->first * (s->over_ms - ms) / s->over_ms);
}

static bool move_one(struct gatewayworker *gw, struct upstream_client *c)
{
    worker_choice_begin(gw);
    struct worker *next = worker_choose(gw, c);
    bool moved = next != c->worker && !worker_is_draining(next) && worker_move(c, next);
    worker_choice_end(gw);
    gw_count(gw, COUNTER_worker_rebalanced, moved);
    return moved;
}

static void tell_done(struct worker *w)
{
    if (w->n_clients == 0 && !w->steer.told_done)
        LOG(LOG_NOTICE, "worker_drained", "worker=%s clients=%u ms=%llu", w->label, w->steer.first,
            (unsigned long long)(now_ms(w->gw) - w->steer.since_ms));
    w->steer.told_done |= w->n_clients == 0;
}

/* False: the turn's time is over. */
static bool drain_some(struct worker *w)
{
    struct gatewayworker *gw = w->gw;
    bool over = false;
    if (!drains(w) || !somebody_takes(gw))
        return true;
    if (w->steer.at > 0)
        write_out(w);
    for (uint32_t stay = may_stay(w); w->n_clients > stay;) {
        struct upstream_client *c = next_free(w, &over);
        if (over)
            return false;
        if (c == NULL || !move_one(gw, c))
            break;
    }
    if (!w->fence_out)
        hold(w, false);
    tell_done(w);
    return true;
}

static void drain_tick(struct worker *w)
{
    const struct worker_steer *s = &w->steer;
    uint64_t ms = now_ms(w->gw) - s->since_ms;
    if (!drains(w) || w->n_clients <= may_stay(w) || !somebody_takes(w->gw))
        return;
    if (w->holds && now_ms(w->gw) - w->epoch_end > HOLD_MS)
        hold(w, false);
    else if (w->link == NULL && !w->fence_out && ms > s->over_ms + (uint64_t)HOLD_AFTER_MS)
        hold(w, true);
    begin_pass(w);
}

static void drain_begin(struct worker *w, uint32_t over_ms)
{
    if (w->link != NULL)
        NODE_STORE(w->gw->shared->workers[w->number].draining, 1);
    w->steer = (struct worker_steer){
        .drains = true, .over_ms = over_ms, .first = w->n_clients, .since_ms = now_ms(w->gw)};
    LOG(LOG_NOTICE, "worker_drains", "worker=%s clients=%u over_ms=%u", w->label, w->n_clients, over_ms);
}

static void drain_end(struct worker *w)
{
    if (w->link != NULL)
        NODE_STORE(w->gw->shared->workers[w->number].draining, 0);
    else
        hold(w, false);
    if (w->steer.drains)
        LOG(LOG_NOTICE, "worker_drains_no_more", "worker=%s clients=%u", w->label, w->n_clients);
    w->steer = (struct worker_steer){0};
}

int steer_drain(struct upstream *u, struct slice key, bool on, uint32_t over_ms)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    int err = -ENOENT;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        if (w->key_len != key.len || memcmp(w->key, key.data, key.len) != 0)
            continue;
        if (on)
            drain_begin(w, over_ms);
        else
            drain_end(w);
        err = 0;
    }
    if (err == 0 && on)
        wake(gw, 0);
    return err;
}

/* ---- rebalance */

/* Those with the most first. */
static int by_total(const void *a, const void *b)
{
    const struct worker *x = *(struct worker *const *)a, *y = *(struct worker *const *)b;
    if (x->steer.total != y->steer.total)
        return x->steer.total > y->steer.total ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Of `surplus` clients that have to leave w, ours: in proportion, so that the parts of all shards add up. */
static uint32_t part_of(const struct worker *w, uint64_t surplus)
{
    const struct gatewayworker *gw = w->gw;
    const uint32_t *by_shard = gw->shared->workers[w->number].clients;
    uint64_t before = 0;
    for (unsigned i = 0; i < gw->me; i++)
        before += NODE_LOAD(by_shard[i]);
    uint64_t upto = before + w->n_clients;
    return (uint32_t)(surplus * upto / w->steer.total - surplus * before / w->steer.total);
}

/* Sets the quotas. Their sum. */
static uint32_t plan(struct gatewayworker *gw)
{
    struct worker **takers = malloc(gw->n_workers * sizeof *takers + 1);
    uint32_t n = 0, mine = 0;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        w->steer.quota = 0;
        if (takers == NULL || worker_is_draining(w))
            continue;
        w->steer.total = worker_clients(w);
        sum += w->steer.total;
        takers[n++] = w;
    }
    if (n > 0)
        qsort(takers, n, sizeof *takers, by_total);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t even = sum / n + (i < sum % n);
        if (takers[i]->steer.total <= even)
            continue;
        takers[i]->steer.quota = part_of(takers[i], takers[i]->steer.total - even);
        mine += takers[i]->steer.quota;
    }
    free(takers);
    return mine;
}

/* Some that may go, within the quotas; how many. */
static unsigned collect(struct gatewayworker *gw, struct upstream_client **some, unsigned max, bool *ret_over)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < gw->n_workers && n < max && !*ret_over; i++) {
        struct worker *w = gw->workers[i];
        if (w->steer.quota > 0 && w->steer.at > 0)
            write_out(w);
        while (w->steer.quota > 0 && n < max) {
            struct upstream_client *c = next_free(w, ret_over);
            if (c == NULL)
                break;
            some[n++] = c;
            w->steer.quota--;
        }
    }
    return n;
}

static struct worker *with_least(struct gatewayworker *gw)
{
    struct worker *best = NULL;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        if (worker_is_draining(w))
            continue;
        if (best == NULL || (best->full && !w->full) ||
            (best->full == w->full && w->steer.total < best->steer.total))
            best = w;
    }
    return best;
}

/* How many of them were. */
static uint32_t move_evenly(struct gatewayworker *gw, struct upstream_client **some, unsigned n)
{
    uint32_t moved = 0;
    worker_choice_begin(gw);
    for (uint32_t i = 0; i < gw->n_workers; i++)
        gw->workers[i]->steer.total = worker_clients(gw->workers[i]);
    for (unsigned i = 0; i < n; i++) {
        struct worker *from = some[i]->worker, *to = with_least(gw);
        if (to == NULL || from->steer.total < to->steer.total + 2 || !worker_move(some[i], to)) {
            from->steer.quota = 0;
            continue;
        }
        from->steer.total--;
        to->steer.total++;
        moved++;
    }
    worker_choice_end(gw);
    gw_count(gw, COUNTER_worker_rebalanced, moved);
    return moved;
}

static bool rebalances(const struct gatewayworker *gw)
{
    return gw->rebalance.rounds > 0;
}

static bool rebalance_is_late(const struct gatewayworker *gw)
{
    return now_ms(gw) - gw->rebalance.since_ms >= gw->rebalance.over_ms;
}

static uint32_t due(const struct gatewayworker *gw)
{
    const struct rebalance *r = &gw->rebalance;
    uint64_t ms = now_ms(gw) - r->since_ms;
    return rebalance_is_late(gw) ? r->total : (uint32_t)(r->total * ms / r->over_ms);
}

/* False: the turn's time is over. */
static bool rebalance_some(struct gatewayworker *gw)
{
    struct upstream_client *some[BATCH];
    bool over = false;
    while (rebalances(gw) && gw->rebalance.moved < due(gw) && !over) {
        uint32_t want = due(gw) - gw->rebalance.moved;
        unsigned n = collect(gw, some, want < BATCH ? want : BATCH, &over);
        if (n == 0)
            break;
        uint32_t moved = move_evenly(gw, some, n);
        gw->rebalance.moved += moved;
        gw->rebalance.total -= n - moved < gw->rebalance.total ? n - moved : gw->rebalance.total;
        over |= loop_turn_left_ns(gw->up.host->loop) == 0;
    }
    return !over;
}

static void rebalance_tick(struct gatewayworker *gw)
{
    struct rebalance *r = &gw->rebalance;
    if (!rebalances(gw))
        return;
    if (rebalance_is_late(gw) && r->moved >= r->total) {
        if (--r->rounds == 0) {
            LOG(LOG_NOTICE, "workers_rebalanced", "clients=%u", r->moved);
            return;
        }
        r->total = r->moved + plan(gw);
    } else if (rebalance_is_late(gw) && --r->rounds == 0) {
        LOG(LOG_NOTICE, "workers_rebalanced", "clients=%u busy=%u", r->moved, r->total - r->moved);
        return;
    }
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->steer.quota > 0)
            begin_pass(gw->workers[i]);
}

uint32_t steer_rebalance(struct upstream *u, uint32_t over_ms)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    if (gw_config(gw)->router == ROUTER_CLIENT_HASH)
        return 0;
    uint32_t n = plan(gw);
    gw->rebalance =
        (struct rebalance){.since_ms = now_ms(gw), .over_ms = over_ms, .total = n, .rounds = ROUNDS};
    LOG(LOG_NOTICE, "workers_rebalance", "clients=%u over_ms=%u", n, over_ms);
    wake(gw, 0);
    return n;
}

/* ---- */

static bool run_slice(struct loop_task *task)
{
    struct gatewayworker *gw = CONTAINER_OF(task, struct gatewayworker, steer_task);
    if (gw->held)
        return true;
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->steer.drains && !drain_some(gw->workers[i]))
            return false;
    return rebalance_some(gw);
}

static void on_tick(struct timer *t)
{
    struct gatewayworker *gw = CONTAINER_OF(t, struct gatewayworker, steer_timer);
    bool some = rebalances(gw), any = some;
    if (gw->held) {
        timer_set(gw->up.host->loop, t, GW_HELD_MS, on_tick);
        return;
    }
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        if (!w->steer.drains)
            continue;
        drain_tick(w);
        any = true;
        some |= w->n_clients > 0;
    }
    rebalance_tick(gw);
    if (any)
        wake(gw, some ? TICK_MS : IDLE_TICK_MS);
}

void steer_init(struct gatewayworker *gw)
{
    gw->steer_task.run = run_slice;
}

void steer_go_on(struct gatewayworker *gw)
{
    if (timer_is_set(&gw->steer_timer))
        wake(gw, 0);
}

void steer_fini(struct gatewayworker *gw)
{
    timer_cancel(gw->up.host->loop, &gw->steer_timer);
    loop_task_remove(gw->up.host->loop, &gw->steer_task);
}
