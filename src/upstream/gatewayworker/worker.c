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

/* ---- dense arrays of clients */

static bool worker_bind(struct worker *w, struct upstream_client *c)
{
    if (!array_reserve_one(&w->clients, w->n_clients, &w->cap_clients, ARRAY_FIRST))
        return false;
    c->worker = w;
    c->worker_position = w->n_clients;
    w->clients[w->n_clients++] = c;
    return true;
}

static void worker_free(struct worker *w)
{
    ASSERT(w->n_clients == 0 && w->n_paused == 0);
    list_remove(&w->gone);
    free(w->clients);
    free(w->paused);
    free(w->label);
    free(w);
}

void worker_unbind(struct upstream_client *c)
{
    struct worker *w = c->worker;
    if (w == NULL)
        return;
    worker_unpause(c);
    struct upstream_client *last = w->clients[--w->n_clients];
    w->clients[c->worker_position] = last;
    last->worker_position = c->worker_position;
    c->worker = NULL;
    if (w->link == NULL && w->n_clients == 0)
        worker_free(w);
}

bool worker_pause(struct worker *w, struct upstream_client *c)
{
    if (c->paused)
        return true;
    if (!array_reserve_one(&w->paused, w->n_paused, &w->cap_paused, ARRAY_FIRST))
        return false;
    c->paused = true;
    c->paused_position = w->n_paused;
    w->paused[w->n_paused++] = c;
    return true;
}

void worker_unpause(struct upstream_client *c)
{
    if (!c->paused)
        return;
    struct worker *w = c->worker;
    struct upstream_client *last = w->paused[--w->n_paused];
    w->paused[c->paused_position] = last;
    last->paused_position = c->paused_position;
    c->paused = false;
}

/* ---- the choice */

static uint64_t next_random(struct gatewayworker *gw)
{
    /* xorshift64*: only has to spread. */
    uint64_t x = gw->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    gw->random = x;
    return (x * UINT64_C(0x2545F4914F6CDD1D)) >> 32;
}

/* Least clients; one that does not read only when all do not. */
static struct worker *choose_least(struct gatewayworker *gw)
{
    struct worker *best = NULL;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        if (best == NULL || (best->full && !w->full) ||
            (best->full == w->full && w->n_clients < best->n_clients))
            best = w;
    }
    return best;
}

/* Rendezvous hashing: when a worker comes or goes, only its own clients change. */
static struct worker *choose_by_address(struct gatewayworker *gw, const struct upstream_client *c)
{
    uint64_t ip = hash_bytes(c->peer.ip, c->peer.family == AF_INET ? 4 : sizeof c->peer.ip);
    struct worker *best = NULL;
    uint64_t best_weight = 0;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        uint64_t weight = (ip ^ gw->workers[i]->hash) * UINT64_C(0x9E3779B97F4A7C15);
        weight ^= weight >> 32;
        weight *= UINT64_C(0xD6E8FEB86659FD93);
        if (best == NULL || weight > best_weight) {
            best = gw->workers[i];
            best_weight = weight;
        }
    }
    return best;
}

static struct worker *choose(struct gatewayworker *gw, const struct upstream_client *c)
{
    if (gw->n_workers == 0)
        return NULL;
    switch (gw_config(gw)->router) {
    case ROUTER_RANDOM: return gw->workers[next_random(gw) % gw->n_workers];
    case ROUTER_ROUND_ROBIN: return gw->workers[gw->round_robin++ % gw->n_workers];
    case ROUTER_CLIENT_HASH: return choose_by_address(gw, c);
    case ROUTER_LEAST_CONNECTIONS: break;
    }
    return choose_least(gw);
}

struct worker *worker_any(struct gatewayworker *gw)
{
    return gw->n_workers == 0 ? NULL : gw->workers[0];
}

/* A gone worker's client gets a living one. True when it has one now. */
static bool rebind(struct gatewayworker *gw, struct upstream_client *c)
{
    struct worker *next = choose(gw, c);
    if (next == NULL)
        return false;
    if (!array_reserve_one(&next->clients, next->n_clients, &next->cap_clients, ARRAY_FIRST)) {
        LOG(LOG_ERROR, "worker_bind_no_memory", "connection_id=%u", c->member.id);
        return false;
    }
    bool was_paused = c->paused;
    worker_unbind(c);
    worker_bind(next, c);
    gw_count(gw, COUNTER_client_rebound, 1);
    /* Read again; it pauses again when its new worker does not read either. From the resume task, because who
     * calls us may be in the middle of that client's bytes. */
    if (was_paused && worker_pause(next, c))
        loop_task_add(gw->up.host->loop, &gw->resume_task);
    else if (was_paused)
        gw->up.host->ops->resume(c);
    return true;
}

struct worker *worker_of(struct gatewayworker *gw, struct upstream_client *c)
{
    if (__builtin_expect(c->worker != NULL && c->worker->link != NULL, 1))
        return c->worker;
    if (c->worker != NULL)
        return rebind(gw, c) ? c->worker : NULL;
    struct worker *w = choose(gw, c);
    return w != NULL && worker_bind(w, c) ? w : NULL;
}

bool worker_rebind_slice(struct loop_task *task)
{
    struct gatewayworker *gw = CONTAINER_OF(task, struct gatewayworker, rebind_task);
    for (unsigned n = 0; !list_is_empty(&gw->gone) && gw->n_workers > 0; n++) {
        struct worker *w = CONTAINER_OF(gw->gone.next, struct worker, gone);
        if (w->n_clients == 0)
            worker_free(w);
        else if (!rebind(gw, w->clients[w->n_clients - 1]))
            return true; /* without memory: each is bound at its next event */
        if (n % SLICE == SLICE - 1 && loop_turn_left_ns(gw->up.host->loop) == 0)
            return false;
    }
    return true;
}

/* ---- one that does not read */

void worker_queue_changed(struct worker *w)
{
    uint64_t limit = gw_config(w->gw)->send_to_worker_buffer_size;
    uint64_t bytes = w->link->queue.bytes;
    if (!w->full && bytes >= limit) {
        if (!w->link->write_blocked)
            return; /* not yet tried to write: the end of the turn tells */
        w->full = true;
        gw_count(w->gw, COUNTER_worker_paused, 1);
        LOG(LOG_WARN, "worker_does_not_read", "worker=%s waiting_bytes=%llu clients=%u", w->label,
            (unsigned long long)bytes, w->n_clients);
    } else if (w->full && bytes <= limit / 2) {
        w->full = false;
        LOG(LOG_NOTICE, "worker_reads_again", "worker=%s paused_clients=%u", w->label, w->n_paused);
        if (w->n_paused > 0)
            loop_task_add(w->gw->up.host->loop, &w->gw->resume_task);
        if (!list_is_empty(&w->gw->parked))
            loop_task_add(w->gw->up.host->loop, &w->gw->unpark_task);
    }
}

/* Resume paused clients of one worker; false when the turn's time is used up. */
static bool resume_clients(struct gatewayworker *gw, struct worker *w)
{
    while (w->n_paused > 0 && !w->full) {
        struct upstream_client *c = w->paused[w->n_paused - 1];
        bool is_last = w->link == NULL && w->n_clients == 1;
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

static struct worker *find_by_key(struct gatewayworker *gw, const struct worker *like)
{
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        if (w->key_len == like->key_len && memcmp(w->key, like->key, w->key_len) == 0)
            return w;
    }
    return NULL;
}

static struct worker *worker_new(struct link *l, struct slice worker_key)
{
    char ip[NET_ADDR_STRLEN];
    net_addr_format_ip(&l->peer, ip, sizeof ip);
    size_t ip_len = strlen(ip);
    struct worker *w = calloc(1, sizeof *w + ip_len + 1 + worker_key.len + 1);
    if (w == NULL)
        return NULL;
    memcpy(w->key, ip, ip_len);
    w->key[ip_len] = ':';
    memcpy(w->key + ip_len + 1, worker_key.data, worker_key.len);
    w->key_len = ip_len + 1 + worker_key.len;
    w->label = strdup(log_quote(w->key, w->key_len));
    if (w->label == NULL) {
        free(w);
        return NULL;
    }
    w->hash = hash_bytes(w->key, w->key_len);
    w->gw = l->gw;
    return w;
}

static void move_events(struct gatewayworker *gw, struct link *from);

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
    move_events(w->gw, old);
    link_end(old);
    worker_queue_changed(w);
}

int worker_attach(struct link *l, struct slice worker_key)
{
    struct gatewayworker *gw = l->gw;
    struct worker *w = worker_new(l, worker_key);
    if (w == NULL || !array_reserve_one(&gw->workers, gw->n_workers, &gw->cap_workers, ARRAY_FIRST)) {
        if (w != NULL)
            worker_free(w);
        return -ENOMEM;
    }
    struct worker *same = find_by_key(gw, w);
    if (same != NULL) {
        worker_free(w);
        replace_link(same, l);
        return 0;
    }
    w->link = l;
    l->worker = w;
    w->position = gw->n_workers;
    gw->workers[gw->n_workers++] = w;
    gw_count(gw, COUNTER_worker_connected, 1);
    counter_set(gw->up.host->counters, COUNTER_workers, gw->n_workers);
    LOG(LOG_NOTICE, "worker_connected", "worker=%s workers=%u", w->label, gw->n_workers);
    if (!list_is_empty(&gw->gone) && gw->n_workers == 1)
        timer_set(gw->up.host->loop, &gw->settle_timer, SETTLE_MS, worker_rebind_all);
    if (!list_is_empty(&gw->parked))
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    return 0;
}

void worker_rebind_all(struct timer *t)
{
    struct gatewayworker *gw = CONTAINER_OF(t, struct gatewayworker, settle_timer);
    loop_task_add(gw->up.host->loop, &gw->rebind_task);
}

/* Packets that were not written whole to a link that ended, in their order: each to its client's worker of
 * now; those of clients that are gone all to one, so that they keep their order too. */
static void move_events(struct gatewayworker *gw, struct link *from)
{
    struct slice packet;
    uint64_t moved = 0;
    struct worker *of_the_gone = worker_any(gw);
    struct parked *parked_gone = NULL;
    while (link_queue_take_packet(&from->queue, &packet)) {
        uint8_t cmd = packet.data[4];
        if (cmd == GW_CMD_PING)
            continue;
        moved++;
        struct member *m = directory_find(gw->up.host->directory, gw_get_u32(packet.data + 17));
        struct upstream_client *c = m != NULL ? CONTAINER_OF(m, struct upstream_client, member) : NULL;
        struct worker *w = c != NULL ? worker_of(gw, c) : of_the_gone;
        if (!(w != NULL ? link_put_packet(w->link, packet.data, packet.len)
                        : park_packet(gw, c, packet, &parked_gone)))
            event_lost(gw, cmd);
    }
    gw_count(gw, COUNTER_event_moved, moved);
    if (moved > 0)
        LOG(LOG_NOTICE, "worker_events_moved", "events=%llu", (unsigned long long)moved);
}

void worker_detach(struct link *l)
{
    struct worker *w = l->worker;
    struct gatewayworker *gw = l->gw;
    struct worker *last = gw->workers[--gw->n_workers];
    gw->workers[w->position] = last;
    last->position = w->position;
    w->link = NULL;
    w->full = false;
    l->worker = NULL;
    gw_count(gw, COUNTER_worker_left, 1);
    counter_set(gw->up.host->counters, COUNTER_workers, gw->n_workers);
    LOG(LOG_NOTICE, "worker_left", "worker=%s clients=%u workers=%u", w->label, w->n_clients, gw->n_workers);
    if (w->n_clients == 0)
        worker_free(w);
    else
        list_append(&gw->gone, &w->gone); /* freed with its last client, maybe within move_events */
    move_events(gw, l);
    if (list_is_empty(&gw->gone))
        return;
    loop_task_add(gw->up.host->loop, gw->n_workers > 0 ? &gw->rebind_task : &gw->resume_task);
}

void worker_ping_all(struct timer *t)
{
    struct gatewayworker *gw = CONTAINER_OF(t, struct gatewayworker, ping_timer);
    struct gw_packet ping = {.cmd = GW_CMD_PING, .flag = GW_FLAG_BODY_IS_SCALAR};
    for (uint32_t i = 0; i < gw->n_workers; i++)
        link_put_event(gw->workers[i]->link, &ping);
    timer_set(gw->up.host->loop, t, gw_config(gw)->worker_ping_interval * 1000, worker_ping_all);
}
