// SPDX-License-Identifier: MIT
/* Workers: who is there, which clients are bound to whom, and what happens when one comes, goes or stops
 * reading. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"

/* Clients handled between two looks at the clock. */
#define SLICE 128
/* Elements that an array of clients or workers begins with. */
#define ARRAY_FIRST 16
/* After a time without any worker, clients that say nothing are bound so long after the first one came: its
 * fellows come within moments, and all clients would be its own. Who says something is bound then. */
#define SETTLE_MS 1000
/* Past so many times the limit of a worker that does not read, clients that come are turned away, since each
 * of them brings an ON_CONNECT and an ON_CLOSE. */
#define LIFECYCLE_FACTOR 4
/* Turns in which what other shards have sent is read to its end, however much it is. */
#define AWAITING_TURNS_MAX 64

/* ---- dense arrays of clients */

/* Ours, where all shards see it. */
static void publish_count(const struct worker *w)
{
    if (!gw_is_alone(w->gw) && !w->is_gone)
        NODE_STORE(w->gw->shared->workers[w->number].clients[w->gw->me], w->n_clients);
}

bool worker_bind(struct worker *w, struct upstream_client *c)
{
    if (!array_reserve_one(&w->clients, w->n_clients, &w->cap_clients, ARRAY_FIRST))
        return false;
    c->worker = w;
    c->worker_position = w->n_clients;
    w->clients[w->n_clients++] = c;
    publish_count(w);
    if (c->member.record != NULL)
        estate_client_bind(w->gw->up.host->estate, c->member.record, worker_mark(w));
    return true;
}

static void worker_free(struct worker *w)
{
    ASSERT(w->n_clients == 0 && w->n_paused == 0 && !w->unsettled);
    list_remove(&w->gone);
    free(w->fences);
    seen_set_fini(&w->returned_of);
    link_queue_fini(&w->returned);
    link_queue_fini(&w->held);
    free(w->clients);
    free(w->label);
    free(w);
}

static void put_at(struct worker *w, uint32_t position, struct upstream_client *c)
{
    w->clients[position] = c;
    c->worker_position = position;
}

void worker_unbind(struct upstream_client *c)
{
    struct worker *w = c->worker;
    if (w == NULL)
        return;
    worker_unpause(c);
    put_at(w, c->worker_position, w->clients[--w->n_clients]);
    c->worker = NULL;
    publish_count(w);
    if (w->is_gone && !w->unsettled && w->n_clients == 0)
        worker_free(w);
}

static void swap(struct worker *w, struct upstream_client *c, uint32_t position)
{
    uint32_t from = c->worker_position;
    put_at(w, from, w->clients[position]);
    put_at(w, position, c);
}

void worker_pause(struct upstream_client *c)
{
    if (c->paused)
        return;
    c->paused = true;
    swap(c->worker, c, c->worker->n_paused++);
}

void worker_unpause(struct upstream_client *c)
{
    if (!c->paused)
        return;
    c->paused = false;
    swap(c->worker, c, --c->worker->n_paused);
}

/* ---- who is whose */

struct worker *worker_any(struct gatewayworker *gw)
{
    return gw->n_workers == 0 ? NULL : gw->workers[0];
}

static bool same_key(const struct worker *a, const struct worker *b)
{
    return a->hash == b->hash && a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0;
}

/* Whoever has the key of one that is gone (its link ended and it has come back), the newest of them. */
static struct worker *find_by_key(struct gatewayworker *gw, const struct worker *like)
{
    struct worker *found = NULL;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        if (w != like && same_key(w, like) && (found == NULL || w->since > found->since))
            found = w;
    }
    return found;
}

static bool has_key(const struct worker *w, struct slice key)
{
    return w->key_len == key.len && memcmp(w->key, key.data, key.len) == 0;
}

struct worker *worker_of_key(struct gatewayworker *gw, struct slice key)
{
    struct worker *found = NULL;
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (has_key(gw->workers[i], key) && (found == NULL || gw->workers[i]->since > found->since))
            found = gw->workers[i];
    return found;
}

struct worker *worker_of_mark(struct gatewayworker *gw, uint32_t mark)
{
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (worker_mark(gw->workers[i]) == mark)
            return gw->workers[i];
    return NULL;
}

bool worker_move(struct upstream_client *c, struct worker *next)
{
    if (!array_reserve_one(&next->clients, next->n_clients, &next->cap_clients, ARRAY_FIRST))
        return false;
    bool was_paused = c->paused;
    worker_unbind(c);
    worker_bind(next, c);
    /* Read again; it pauses again when its new worker does not read either. From the resume task, because who
     * calls us may be in the middle of that client's bytes. */
    if (was_paused) {
        worker_pause(c);
        loop_task_add(next->gw->up.host->loop, &next->gw->resume_task);
    }
    return true;
}

/* A gone worker's client gets a living one. True when it has one now. */
static bool rebind(struct gatewayworker *gw, struct upstream_client *c)
{
    struct worker *next = find_by_key(gw, c->worker);
    worker_choice_begin(gw);
    if (next == NULL)
        next = worker_choose(gw, c);
    bool moved = next != NULL && worker_move(c, next);
    worker_choice_end(gw);
    if (moved)
        gw_count(gw, COUNTER_client_rebound, 1);
    else if (next != NULL)
        LOG(LOG_ERROR, "worker_bind_no_memory", "connection_id=%u", c->member.id);
    return moved;
}

struct worker *worker_of(struct gatewayworker *gw, struct upstream_client *c)
{
    if (__builtin_expect(c->worker != NULL && !c->worker->is_gone, 1))
        return c->worker;
    if (c->worker != NULL)
        return c->worker->unsettled || rebind(gw, c) ? c->worker : NULL;
    worker_choice_begin(gw);
    struct worker *w = worker_choose(gw, c);
    bool bound = w != NULL && worker_bind(w, c);
    worker_choice_end(gw);
    return bound ? w : NULL;
}

bool worker_rebind_slice(struct loop_task *task)
{
    struct gatewayworker *gw = CONTAINER_OF(task, struct gatewayworker, rebind_task);
    struct list *node = gw->gone.next;
    for (unsigned n = 0; node != &gw->gone && gw->n_workers > 0 && !gw->held; n++) {
        struct worker *w = CONTAINER_OF(node, struct worker, gone);
        struct list *next = node->next;
        bool is_last = w->n_clients == 1; /* w goes with it */
        if (w->unsettled) {
            node = next;
            continue;
        }
        ASSERT(w->n_clients > 0);
        if (!rebind(gw, w->clients[w->n_clients - 1]))
            return true; /* without memory: each is bound at its next event */
        if (is_last)
            node = next;
        if (n % SLICE == SLICE - 1 && loop_turn_left_ns(gw->up.host->loop) == 0)
            return false;
    }
    return true;
}

/* ---- one that does not read */

/* Bytes that wait for it in our memory. */
static uint64_t waiting(const struct worker *w)
{
    if (w->link != NULL)
        return w->link->queue.bytes;
    return w->is_gone ? w->held.bytes : mesh_waiting(w->gw->mesh, w->shard);
}

static void set_full(struct worker *w, bool full)
{
    struct gatewayworker *gw = w->gw;
    if (w->full == full)
        return;
    w->full = full;
    if (full)
        return;
    if (w->n_paused > 0)
        loop_task_add(gw->up.host->loop, &gw->resume_task);
    if (!list_is_empty(&gw->parked) || gw->homeless.n_events > 0)
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    succession_look(gw);
}

void worker_look_at_full(struct worker *w)
{
    uint64_t limit = gw_config(w->gw)->send_to_worker_buffer_size, bytes = waiting(w);
    ASSERT(w->link == NULL);
    if (w->fullness != FULLNESS_NONE || bytes >= limit || w->holds)
        set_full(w, true);
    else if (bytes <= limit / 2)
        set_full(w, false);
}

/* ON_CONNECT and ON_CLOSE pass the limit. What other shards had in their rings when they were told that it is
 * full comes on top. */
static uint64_t overfull_bytes(const struct gatewayworker *gw)
{
    return LIFECYCLE_FACTOR * gw_config(gw)->send_to_worker_buffer_size +
           (gw->n_shards - 1) * gw->up.host->node->ring_bytes;
}

bool worker_is_overfull(const struct worker *w)
{
    return w->full && (w->fullness == FULLNESS_OVERFULL || waiting(w) > overfull_bytes(w->gw));
}

/* The other shards are told when it matters to them. */
static enum fullness fullness_of(const struct worker *w)
{
    if (!w->full)
        return FULLNESS_NONE;
    return w->link->queue.bytes > overfull_bytes(w->gw) ? FULLNESS_OVERFULL : FULLNESS_FULL;
}

static void tell_fullness(struct worker *w)
{
    enum fullness now = fullness_of(w);
    if (now == w->fullness)
        return;
    w->fullness = now;
    peer_worker_full(w);
}

void worker_queue_changed(struct worker *w)
{
    uint64_t limit = gw_config(w->gw)->send_to_worker_buffer_size;
    uint64_t bytes = w->link->queue.bytes;
    if (!w->full && bytes >= limit) {
        if (!w->link->write_blocked)
            return; /* not yet tried to write: the end of the turn tells */
        LOG(LOG_WARN, "worker_does_not_read", "worker=%s waiting_bytes=%llu clients=%u", w->label,
            (unsigned long long)bytes, w->n_clients);
        gw_count(w->gw, COUNTER_worker_paused, 1);
        set_full(w, true);
    } else if (w->full && bytes <= limit / 2) {
        LOG(LOG_NOTICE, "worker_reads_again", "worker=%s paused_clients=%u", w->label, w->n_paused);
        set_full(w, false);
    }
    if (__builtin_expect(w->full || w->fullness != FULLNESS_NONE, 0))
        tell_fullness(w);
}

/* Resume paused clients of one worker; false when the turn's time is used up. */
static bool resume_clients(struct gatewayworker *gw, struct worker *w)
{
    while (w->n_paused > 0 && !w->full) {
        struct upstream_client *c = w->clients[w->n_paused - 1];
        bool is_last = w->is_gone && w->n_clients == 1;
        worker_unpause(c);
        gw->up.host->ops->resume(c);
        if (is_last)
            return true; /* w may be gone with it */
        if (loop_turn_left_ns(gw->up.host->loop) == 0)
            return false;
    }
    return true;
}

bool worker_resume_slice(struct loop_task *task)
{
    struct gatewayworker *gw = CONTAINER_OF(task, struct gatewayworker, resume_task);
    if (gw->held)
        return true;
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (!resume_clients(gw, gw->workers[i]))
            return false;
    /* With no worker there, clients are read again: what they send waits. */
    for (struct list *node = gw->gone.next; node != &gw->gone;) {
        struct worker *w = CONTAINER_OF(node, struct worker, gone);
        node = node->next;
        if (!resume_clients(gw, w))
            return false;
    }
    return true;
}

/* ---- coming and going */

static struct worker *worker_new(struct gatewayworker *gw, struct slice key)
{
    struct worker *w = calloc(1, sizeof *w + key.len + 1);
    if (w == NULL)
        return NULL;
    memcpy(w->key, key.data, key.len);
    w->key_len = key.len;
    w->label = strdup(log_quote(w->key, w->key_len));
    if (w->label == NULL) {
        free(w);
        return NULL;
    }
    w->hash = hash_bytes(w->key, w->key_len);
    w->gw = gw;
    w->shard = (uint8_t)gw->me;
    link_queue_init(&w->returned, gw->up.host->estate);
    link_queue_init(&w->held, gw->up.host->estate);
    return w;
}

/* remote ip + ":" + worker_key */
static bool make_key(struct bytes *out, const struct link *l, struct slice worker_key)
{
    char ip[NET_ADDR_STRLEN];
    net_addr_format_ip(&l->peer, ip, sizeof ip);
    return bytes_append(out, ip, strlen(ip)) && bytes_append_byte(out, ':') &&
           bytes_append(out, worker_key.data, worker_key.len);
}

/* A number that is ours to give and that nobody has a client bound to. */
static bool take_number(struct gatewayworker *gw, struct worker *w)
{
    uint32_t n = NODE_WORKERS_MAX / gw->n_shards;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t number = gw->me + i * gw->n_shards;
        struct node_worker *slot = &gw->shared->workers[number];
        uint32_t bound = 0;
        for (unsigned k = 0; k < gw->n_shards; k++)
            bound += NODE_LOAD(slot->clients[k]);
        if (slot->hash != 0 || bound != 0)
            continue;
        /* Others may have clients bound to many numbers of a predecessor: i can be far behind the end. */
        if (!array_reserve_at(&gw->numbers, i, &gw->cap_numbers, ARRAY_FIRST))
            return false;
        w->number = number;
        gw->numbers[i] = w;
        NODE_STORE(slot->draining, 0);
        __atomic_store_n(&slot->hash, w->hash != 0 ? w->hash : 1, __ATOMIC_RELAXED);
        return true;
    }
    gw_count(gw, COUNTER_worker_refused, 1);
    LOG(LOG_ERROR, "worker_refused", "worker=%s limit=%d why=\"too many workers on this shard\"", w->label,
        n);
    return false;
}

static void give_number_back(struct worker *w)
{
    struct gatewayworker *gw = w->gw;
    gw->numbers[w->number / gw->n_shards] = NULL;
    NODE_STORE(gw->shared->workers[w->number].draining, 0);
    __atomic_store_n(&gw->shared->workers[w->number].hash, 0, __ATOMIC_RELAXED);
}

/* The old link of a worker that has connected again under its key: closed, the worker stays with its clients.
 */
static void replace_link(struct worker *w, struct link *l)
{
    struct link *old = w->link;
    LOG(LOG_WARN, "worker_replaced", "worker=%s hint=\"two workers with one name and id on one machine?\"",
        w->label);
    gw_count(w->gw, COUNTER_worker_replaced, 1);
    w->link = l;
    l->worker = w;
    old->worker = NULL;
    /* All of it goes to the same worker again, other shards' events too. */
    struct slice packet;
    while (link_queue_take_packet(&old->queue, &packet))
        if (packet.data[4] != GW_CMD_PING && !link_put_packet(l, packet.data, packet.len))
            event_lost(w->gw, packet.data[4]);
    link_end(old);
    steer_replaced(w);
    worker_queue_changed(w);
}

void worker_rebind_later(struct gatewayworker *gw)
{
    if (!list_is_empty(&gw->gone))
        timer_set(gw->up.host->loop, &gw->settle_timer, SETTLE_MS, worker_rebind_all);
}

/* w can be chosen from now on. */
static void worker_added(struct worker *w, bool taken_over)
{
    struct gatewayworker *gw = w->gw;
    w->position = gw->n_workers;
    gw->workers[gw->n_workers++] = w;
    if (gw->n_workers > gw->workers_peak)
        gw->workers_peak = gw->n_workers;
    LOG(taken_over ? LOG_INFO : LOG_NOTICE, taken_over ? "worker_taken_over" : "worker_connected",
        "worker=%s shard=%u workers=%u", w->label, w->shard, gw->n_workers);
    if (gw->n_workers == 1)
        worker_rebind_later(gw);
    if (!list_is_empty(&gw->parked) || gw->homeless.n_events > 0)
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    succession_look(gw);
}

/* With room to be chosen. NULL without memory. */
static struct worker *worker_make(struct gatewayworker *gw, struct slice key)
{
    struct worker *w = worker_new(gw, key);
    if (w == NULL || array_reserve_one(&gw->workers, gw->n_workers, &gw->cap_workers, ARRAY_FIRST))
        return w;
    worker_free(w);
    return NULL;
}

/* w, whose link is here. -ENOSPC: too many. */
static int enter(struct worker *w, struct link *l, bool taken_over)
{
    struct gatewayworker *gw = w->gw;
    if (!take_number(gw, w)) {
        worker_free(w);
        return -ENOSPC;
    }
    w->since = loop_clock_ns(gw->up.host->loop);
    w->link = l;
    l->worker = w;
    gw->n_here++;
    counter_set(gw->up.host->counters, COUNTER_workers, gw->n_here);
    link_publish_count(gw);
    worker_added(w, taken_over);
    return 0;
}

int worker_attach(struct link *l, struct slice worker_key)
{
    struct gatewayworker *gw = l->gw;
    struct bytes key = {0};
    struct worker *w =
        make_key(&key, l, worker_key) ? worker_make(gw, (struct slice){key.data, key.len}) : NULL;
    bytes_fini(&key);
    if (w == NULL)
        return -ENOMEM;
    struct worker *same = find_by_key(gw, w);
    if (same != NULL && same->link != NULL) {
        worker_free(w);
        replace_link(same, l);
        return 0;
    }
    int err = enter(w, l, false);
    if (err != 0)
        return err;
    gw_count(gw, COUNTER_worker_connected, 1);
    peer_worker_came(w, false);
    return 0;
}

/* w has come in the place of one that has its link no more, or is about to lose it. */
static void drain_on(struct worker *w)
{
    struct gatewayworker *gw = w->gw;
    const struct worker *before = find_by_key(gw, w);
    for (struct list *node = gw->gone.next; before == NULL && node != &gw->gone; node = node->next) {
        const struct worker *gone = CONTAINER_OF(node, struct worker, gone);
        if (gone->steer.drains && same_key(gone, w))
            before = gone;
    }
    if (before != NULL)
        steer_inherit(w, before);
    else if (worker_is_draining(w)) /* nobody is bound to it here */
        steer_drain(&gw->up, (struct slice){(const uint8_t *)w->key, w->key_len}, true, 0);
}

int worker_take_over(struct link *l, struct slice key)
{
    struct gatewayworker *gw = l->gw;
    struct worker *w = worker_make(gw, key);
    int err = w != NULL ? enter(w, l, true) : -ENOMEM;
    if (err != 0)
        return err;
    w->epoch_end = l->bytes_out;
    drain_on(w);
    if (l->queue.bytes > 0)
        meter_waits(&w->meter, l->bytes_out - l->queue.bytes, l->bytes_out, loop_now_ns(gw->up.host->loop));
    w->full = l->queue.bytes >= gw_config(gw)->send_to_worker_buffer_size;
    w->fullness = (uint8_t)fullness_of(w);
    peer_worker_came(w, true);
    return 0;
}

void worker_rebind_all(struct timer *t)
{
    struct gatewayworker *gw = CONTAINER_OF(t, struct gatewayworker, settle_timer);
    loop_task_add(gw->up.host->loop, &gw->rebind_task);
}

/* One packet of a client of ours. */
static bool move_event(struct gatewayworker *gw, struct slice packet, struct worker *of_the_gone,
                       struct homeless *homeless)
{
    struct member *m = directory_find(gw->up.host->directory, gw_get_u32(packet.data + 17));
    struct upstream_client *c = m != NULL ? CONTAINER_OF(m, struct upstream_client, member) : NULL;
    packet_unmark(packet);
    if (c != NULL) {
        struct worker *w = worker_of(gw, c);
        if (w == NULL)
            return park_packet(gw, c, packet);
        worker_told(w, c);
        return worker_put_packet(w, packet.data, packet.len);
    }
    /* Once one had to stay, all behind it do. */
    if (of_the_gone != NULL && homeless->n_events == 0) {
        int err = worker_try_packet(of_the_gone, packet);
        if (err != -EAGAIN)
            return err == 0;
    }
    return park_append(homeless, packet, true);
}

void worker_move_events(struct gatewayworker *gw, struct link_queue *from, struct link_queue *then,
                        struct leaving *back, bool are_newest)
{
    struct slice packet;
    uint64_t moved = 0;
    /* Behind what is homeless already, if there is any: not past it. */
    struct worker *of_the_gone = are_newest && gw->homeless.n_events > 0 ? NULL : worker_any(gw);
    struct homeless homeless = {0};
    link_queue_init(&homeless.queue, gw->up.host->estate);
    while (link_queue_take_packet(from, &packet) || (then != NULL && link_queue_take_packet(then, &packet))) {
        uint8_t cmd = packet.data[4];
        if (cmd == GW_CMD_PING)
            continue;
        bool is_ours = back == NULL || packet_shard(gw, packet) == gw->me;
        moved += is_ours;
        if (!(is_ours ? move_event(gw, packet, of_the_gone, &homeless)
                      : link_queue_append(&back->returning, packet)))
            event_lost(gw, cmd);
    }
    park_homeless_all(gw, &homeless, !are_newest);
    gw_count(gw, COUNTER_event_moved, moved);
    if (moved > 0)
        LOG(LOG_NOTICE, "worker_events_moved", "events=%llu", (unsigned long long)moved);
}

/* Not to be chosen any more. */
static void leave_choice(struct worker *w)
{
    struct gatewayworker *gw = w->gw;
    struct worker *last = gw->workers[--gw->n_workers];
    gw->workers[w->position] = last;
    last->position = w->position;
    /* What is bound to it is nobody's load any more. */
    if (!gw_is_alone(gw))
        NODE_STORE(gw->shared->workers[w->number].clients[gw->me], 0);
    w->is_gone = true;
    w->gone_number = NODE_WORKERS_MAX + gw->n_ever_gone++;
    steer_forget(w);
    w->full = false;
    w->fullness = FULLNESS_NONE;
}

static void take_out(struct worker *w, bool moved)
{
    struct worker_steer steer = w->steer;
    leave_choice(w);
    if (moved)
        w->steer = steer; /* for whoever comes in its place, if we hear of that one later */
    LOG(moved ? LOG_INFO : LOG_NOTICE, moved ? "worker_moved" : "worker_left",
        "worker=%s shard=%u clients=%u workers=%u", w->label, w->shard, w->n_clients, w->gw->n_workers);
}

static void rebind_soon(struct gatewayworker *gw)
{
    if (!list_is_empty(&gw->gone))
        loop_task_add(gw->up.host->loop, gw->n_workers > 0 ? &gw->rebind_task : &gw->resume_task);
}

void worker_rebind_soon(struct gatewayworker *gw)
{
    if (!timer_is_set(&gw->settle_timer)) /* else they wait for more workers than the one that has come */
        rebind_soon(gw);
}

/* Of its shard no more. What goes back to other shards. */
static struct leaving *leave_shard(struct link *l, bool moved)
{
    struct worker *w = l->worker;
    struct gatewayworker *gw = l->gw;
    take_out(w, moved);
    w->link = NULL;
    l->worker = NULL;
    gw->n_here--;
    give_number_back(w);
    counter_set(gw->up.host->counters, COUNTER_workers, gw->n_here);
    link_publish_count(gw);
    struct leaving *back = peer_worker_left(w, moved);
    if (w->n_clients == 0)
        worker_free(w);
    else
        list_append(&gw->gone, &w->gone); /* freed with its last client, maybe within move_events */
    if (back != NULL)
        loop_task_add(gw->up.host->loop, &gw->return_task);
    return back;
}

void worker_detach(struct link *l)
{
    struct gatewayworker *gw = l->gw;
    struct leaving *back = leave_shard(l, false);
    gw_count(gw, COUNTER_worker_left, 1);
    worker_move_events(gw, &l->queue, NULL, back, false);
    rebind_soon(gw);
}

void worker_moved(struct link *l)
{
    leave_shard(l, true);
    rebind_soon(l->gw);
}

/* ---- workers of other shards */

struct worker *worker_elsewhere(struct gatewayworker *gw, uint32_t number, uint64_t since)
{
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->number == number && gw->workers[i]->since == since)
            return gw->workers[i];
    for (struct list *node = gw->gone.next; node != &gw->gone; node = node->next) {
        struct worker *w = CONTAINER_OF(node, struct worker, gone);
        if (w->unsettled && w->number == number && w->since == since)
            return w;
    }
    return NULL;
}

/* w has come: the one whose place it takes may go. */
static void release_predecessor(struct worker *w)
{
    struct gatewayworker *gw = w->gw;
    for (uint32_t i = 0; i < gw->n_workers && gw->n_awaiting > 0; i++) {
        struct worker *old = gw->workers[i];
        if (old == w || !old->awaits_heir || !same_key(old, w))
            continue;
        worker_lost(old, true);
        loop_task_add(gw->up.host->loop, &gw->resume_task);
        return;
    }
}

void worker_came(struct gatewayworker *gw, unsigned shard, uint32_t number, uint64_t since,
                 enum fullness fullness, struct slice key, bool taken_over)
{
    if (number >= NODE_WORKERS_MAX || worker_elsewhere(gw, number, since) != NULL)
        return;
    struct worker *w = worker_make(gw, key);
    if (w == NULL) {
        LOG(LOG_ERROR, "worker_no_memory", "workers=%u", gw->n_workers);
        return;
    }
    w->shard = (uint8_t)shard;
    w->number = number;
    w->since = since;
    worker_added(w, taken_over);
    w->fullness = fullness;
    worker_look_at_full(w);
    if (taken_over)
        drain_on(w);
    struct worker *same = taken_over ? NULL : find_by_key(gw, w);
    if (same != NULL && same->link != NULL &&
        (same->since < since || (same->since == since && gw->me < shard))) {
        LOG(LOG_WARN, "worker_replaced",
            "worker=%s hint=\"two workers with one name and id on one machine?\"", w->label);
        gw_count(gw, COUNTER_worker_replaced, 1);
        link_end(same->link);
    }
    release_predecessor(w);
}

void worker_left_for_another(struct worker *w)
{
    if (find_by_key(w->gw, w) != NULL) {
        worker_lost(w, true);
    } else if (!w->awaits_heir) { /* it is in another ring than this */
        w->awaits_heir = true;
        w->gw->n_awaiting++;
        w->gw->awaiting_turns = 0;
    }
}

void worker_look_at_awaiting(struct gatewayworker *gw)
{
    if (mesh_has_unread(gw->mesh) && ++gw->awaiting_turns < AWAITING_TURNS_MAX)
        return;
    for (uint32_t i = gw->n_workers; i-- > 0;)
        if (gw->workers[i]->awaits_heir)
            worker_lost(gw->workers[i], true);
    gw->n_awaiting = 0;
    loop_task_add(gw->up.host->loop, &gw->resume_task);
}

void worker_lost(struct worker *w, bool moved)
{
    ASSERT(w->link == NULL);
    if (w->is_gone)
        return; /* known already */
    w->gw->n_awaiting -= w->awaits_heir;
    w->awaits_heir = false;
    take_out(w, moved);
    w->unsettled = true;
    w->gw->n_unsettled++;
    list_append(&w->gw->gone, &w->gone);
    peer_ack_left(w->gw, w);
}

void worker_settled(struct worker *w, struct link_queue *returned_before)
{
    struct gatewayworker *gw = w->gw;
    if (!w->unsettled)
        return;
    w->unsettled = false;
    gw->n_unsettled--;
    w->full = false;
    seen_set_fini(&w->returned_of);
    struct link_queue returned = w->returned, held = w->held;
    link_queue_init(&w->returned, gw->up.host->estate);
    link_queue_init(&w->held, gw->up.host->estate);
    if (w->n_clients == 0)
        worker_free(w);
    else if (w->n_paused > 0)
        loop_task_add(gw->up.host->loop, &gw->resume_task);
    worker_move_events(gw, returned_before, &returned, NULL, false);
    worker_move_events(gw, &held, NULL, NULL, true);
    link_queue_fini(&returned);
    link_queue_fini(&held);
    if (gw->homeless.n_events > 0)
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    worker_rebind_soon(gw);
}

struct worker *worker_gone_of_key(struct gatewayworker *gw, struct slice key)
{
    for (struct list *node = gw->gone.next; node != &gw->gone; node = node->next) {
        struct worker *w = CONTAINER_OF(node, struct worker, gone);
        if (!w->unsettled && has_key(w, key))
            return w;
    }
    struct worker *w = worker_new(gw, key);
    if (w == NULL)
        return NULL;
    w->is_gone = true;
    w->gone_number = NODE_WORKERS_MAX + gw->n_ever_gone++;
    list_append(&gw->gone, &w->gone);
    return w;
}

/* Gone, and nobody's. */
static void free_gone(struct worker *w)
{
    while (w->n_clients > 1)
        worker_unbind(w->clients[w->n_clients - 1]);
    w->unsettled = false;
    if (w->n_clients == 1)
        worker_unbind(w->clients[0]); /* w goes with it */
    else
        worker_free(w);
}

void worker_forget(struct worker *w)
{
    if (!w->is_gone) {
        take_out(w, false);
        list_append(&w->gw->gone, &w->gone);
    }
    free_gone(w);
}

void worker_vanish(struct worker *w)
{
    struct gatewayworker *gw = w->gw;
    if (!w->is_gone) {
        leave_choice(w);
        list_append(&gw->gone, &w->gone);
    }
    if (w->link != NULL) {
        w->link->worker = NULL;
        w->link = NULL;
        gw->n_here--;
        give_number_back(w);
        counter_set(gw->up.host->counters, COUNTER_workers, gw->n_here);
        link_publish_count(gw);
    }
    if (w->unsettled)
        gw->n_unsettled--;
    free_gone(w);
}

void worker_ping_all(struct timer *t)
{
    struct gatewayworker *gw = CONTAINER_OF(t, struct gatewayworker, ping_timer);
    struct gw_packet ping = {.cmd = GW_CMD_PING, .flag = GW_FLAG_BODY_IS_SCALAR};
    if (gw->held) {
        timer_set(gw->up.host->loop, t, GW_HELD_MS, worker_ping_all);
        return;
    }
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->link != NULL)
            link_put_event(gw->workers[i]->link, &ping);
    timer_set(gw->up.host->loop, t, gw_config(gw)->worker_ping_interval * 1000, worker_ping_all);
}
