// SPDX-License-Identifier: MIT
/* While no worker is there, events wait here, per client, as encoded packets in their order.
 *
 * Bounds hold for what clients send (messages, handshakes): bytes per client, bytes over all, seconds.
 * ON_CONNECT and ON_CLOSE are never refused; there is at most one of each per client. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"

static void changed(struct gatewayworker *gw, size_t added, size_t removed)
{
    gw->parked_bytes += added - removed;
    counter_set(gw->up.host->counters, COUNTER_parked_bytes, gw->parked_bytes);
}

static struct parked *parked_new(struct gatewayworker *gw, struct upstream_client *c)
{
    struct parked *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->client = c;
    if (c != NULL)
        c->parked = p;
    list_append(&gw->parked, &p->node);
    counter_add(gw->up.host->counters, COUNTER_parked_clients, 1);
    if (gw->n_workers > 0) /* only when there was no memory to bind it */
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    return p;
}

static void parked_free(struct gatewayworker *gw, struct parked *p)
{
    changed(gw, 0, p->packets.len);
    counter_sub(gw->up.host->counters, COUNTER_parked_clients, 1);
    if (p->client != NULL)
        p->client->parked = NULL;
    list_remove(&p->node);
    list_remove(&p->timed);
    bytes_fini(&p->packets);
    free(p);
}

static uint64_t wait_ms(const struct gatewayworker *gw)
{
    return gw_config(gw)->no_worker_wait * 1000;
}

/* The first message of p has come: its time runs. */
static void start_clock(struct gatewayworker *gw, struct parked *p)
{
    if (p->n_messages++ > 0)
        return;
    p->since_ms = loop_now_ms(gw->up.host->loop);
    list_append(&gw->parked_timed, &p->timed);
    if (!timer_is_set(&gw->parked_timer))
        timer_set(gw->up.host->loop, &gw->parked_timer, wait_ms(gw), park_expired);
}

/* Record that a packet of that command, of len bytes, is now at the end of p. */
static void noted(struct gatewayworker *gw, struct parked *p, uint8_t cmd, size_t len)
{
    p->n_events++;
    changed(gw, len, 0);
    gw_count(gw, COUNTER_event_parked, 1);
    if (cmd == GW_CMD_ON_CONNECT)
        p->has_connect = true;
    else if (cmd == GW_CMD_ON_MESSAGE)
        start_clock(gw, p);
}

static bool append_packet(struct bytes *b, const struct gw_packet *p)
{
    if (!bytes_reserve(b, GW_HEAD_LEN + p->ext.len + p->body.len))
        return false;
    uint8_t head[GW_HEAD_LEN];
    gw_packet_encode_head(head, p);
    bytes_append(b, head, sizeof head);
    bytes_append(b, p->ext.data, p->ext.len);
    return bytes_append(b, p->body.data, p->body.len);
}

static bool within_bounds(const struct gatewayworker *gw, const struct upstream_client *c,
                          const struct gw_packet *p)
{
    const struct config_gateway *cfg = gw_config(gw);
    size_t len = GW_HEAD_LEN + p->ext.len + p->body.len;
    size_t waiting = c->parked != NULL ? c->parked->packets.len : 0;
    if (p->cmd == GW_CMD_ON_CONNECT || p->cmd == GW_CMD_ON_CLOSE)
        return true;
    if (p->cmd == GW_CMD_ON_MESSAGE && cfg->no_worker_wait == 0)
        return false;
    return waiting + len <= cfg->no_worker_client_bytes &&
           gw->parked_bytes + len <= cfg->no_worker_total_bytes;
}

bool park_event(struct gatewayworker *gw, struct upstream_client *c, const struct gw_packet *p)
{
    if (!within_bounds(gw, c, p))
        return false;
    struct parked *parked = c->parked != NULL ? c->parked : parked_new(gw, c);
    if (parked == NULL || !append_packet(&parked->packets, p)) {
        if (parked != NULL && parked->n_events == 0)
            parked_free(gw, parked);
        return false;
    }
    noted(gw, parked, p->cmd, GW_HEAD_LEN + p->ext.len + p->body.len);
    return true;
}

/* Clients that are gone share one record, so that what came in order leaves in order. It stands before all
 * others: a client's later events may be waiting already, when this is not the first worker that it loses. */
static struct parked *of_the_gone(struct gatewayworker *gw, struct parked **gone)
{
    if (*gone == NULL && (*gone = parked_new(gw, NULL)) != NULL) {
        list_remove(&(*gone)->node);
        list_append(gw->parked.next, &(*gone)->node);
    }
    return *gone;
}

bool park_packet(struct gatewayworker *gw, struct upstream_client *c, struct slice packet,
                 struct parked **gone)
{
    struct parked *parked = c == NULL           ? of_the_gone(gw, gone)
                            : c->parked != NULL ? c->parked
                                                : parked_new(gw, c);
    if (parked == NULL || !bytes_append(&parked->packets, packet.data, packet.len))
        return false;
    if (parked->n_moved == parked->n_events)
        parked->n_moved++;
    if (c != NULL) {
        noted(gw, parked, packet.data[4], packet.len);
    } else {
        parked->n_events++;
        changed(gw, packet.len, 0);
        gw_count(gw, COUNTER_event_parked, 1);
    }
    return true;
}

static void forget(struct gatewayworker *gw, struct parked *p)
{
    gw_count(gw, COUNTER_event_forgotten, p->n_events);
    parked_free(gw, p);
}

void park_client_closed(struct gatewayworker *gw, struct upstream_client *c, const struct gw_packet *p)
{
    struct parked *parked = c->parked;
    if (parked != NULL && parked->has_connect && parked->n_messages == 0) {
        forget(gw, parked); /* nobody has heard of it and it has said nothing */
        return;
    }
    if (!park_event(gw, c, p))
        event_lost(gw, GW_CMD_ON_CLOSE);
    if (c->parked != NULL) {
        c->parked->client = NULL;
        c->parked = NULL;
    }
}

/* Takes the messages out of p, as dropped; the other events stay. */
static void drop_messages(struct gatewayworker *gw, struct parked *p)
{
    size_t from = 0, to = 0;
    uint32_t n_moved = p->n_moved;
    for (uint32_t n = 0; from < p->packets.len; n++) {
        uint8_t *packet = p->packets.data + from;
        size_t len = gw_get_u32(packet);
        if (packet[4] == GW_CMD_ON_MESSAGE) {
            counter_drop(gw->up.host->counters, DROP_no_worker);
            p->n_events--;
            n_moved -= n < p->n_moved;
        } else {
            memmove(p->packets.data + to, packet, len);
            to += len;
        }
        from += len;
    }
    changed(gw, 0, p->packets.len - to);
    p->packets.len = to;
    p->n_moved = n_moved;
    p->n_messages = 0;
    list_remove(&p->timed);
}

static void expire(struct gatewayworker *gw, struct parked *p)
{
    struct upstream_client *c = p->client;
    drop_messages(gw, p);
    if (c != NULL)
        gw->up.host->ops->close(c, CLOSE_no_worker); /* comes back as park_client_closed */
    else if (p->has_connect)
        forget(gw, p);
}

void park_expired(struct timer *t)
{
    struct gatewayworker *gw = CONTAINER_OF(t, struct gatewayworker, parked_timer);
    struct loop *loop = gw->up.host->loop;
    if (gw->n_workers > 0 && !list_is_empty(&gw->parked_timed)) {
        timer_set(loop, t, 1000, park_expired); /* one is there: they wait for it to read, not for a worker */
        return;
    }
    while (!list_is_empty(&gw->parked_timed)) {
        struct parked *p = CONTAINER_OF(gw->parked_timed.next, struct parked, timed);
        uint64_t age_ms = loop_now_ms(loop) - p->since_ms;
        if (age_ms < wait_ms(gw)) {
            timer_set(loop, t, wait_ms(gw) - age_ms, park_expired);
            return;
        }
        expire(gw, p);
        if (loop_turn_left_ns(loop) == 0 && !list_is_empty(&gw->parked_timed)) {
            timer_set(loop, t, 1, park_expired); /* the rest next turn */
            return;
        }
    }
}

void park_release(struct gatewayworker *gw, struct parked *p, struct worker *w)
{
    uint32_t n = 0;
    for (size_t at = 0; at < p->packets.len; n++) {
        const uint8_t *packet = p->packets.data + at;
        size_t len = gw_get_u32(packet);
        if (!link_put_packet(w->link, packet, len))
            event_lost(gw, packet[4]);
        else if (n >= p->n_moved)
            event_count(gw, packet[4]);
        at += len;
    }
    gw_count(gw, COUNTER_event_unparked, p->n_events);
    parked_free(gw, p);
}

bool park_release_slice(struct loop_task *task)
{
    struct gatewayworker *gw = CONTAINER_OF(task, struct gatewayworker, unpark_task);
    for (struct list *node = gw->parked.next; node != &gw->parked && gw->n_workers > 0;) {
        struct parked *p = CONTAINER_OF(node, struct parked, node);
        struct worker *w = p->client != NULL ? worker_of(gw, p->client) : worker_any(gw);
        node = node->next;
        if (w == NULL || w->full)
            continue; /* looked at again when it reads (worker_queue_changed) or another one comes */
        park_release(gw, p, w);
        if (loop_turn_left_ns(gw->up.host->loop) == 0)
            return false;
    }
    return true;
}

void park_free_all(struct gatewayworker *gw)
{
    uint64_t events = 0;
    while (!list_is_empty(&gw->parked)) {
        struct parked *p = CONTAINER_OF(gw->parked.next, struct parked, node);
        events += p->n_events;
        forget(gw, p);
    }
    if (events > 0)
        LOG(LOG_WARN, "events_forgotten", "events=%llu reason=\"no worker came before the end\"",
            (unsigned long long)events);
}
