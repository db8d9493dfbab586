// SPDX-License-Identifier: MIT
/* While no worker is there, events wait here, per client, as encoded packets in their order. Those of clients
 * that are gone are homeless: in one queue, which outlives the process.
 *
 * Bounds hold for what clients send (messages, handshakes): bytes per client, bytes over all, seconds.
 * ON_CONNECT and ON_CLOSE are never refused; there is at most one of each per client. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "upstream/gatewayworker/job.h"

static void changed(struct gatewayworker *gw, size_t added, size_t removed)
{
    gw->parked_bytes += added - removed;
    if (gw->parked_bytes > gw->parked_bytes_peak)
        gw->parked_bytes_peak = gw->parked_bytes;
    counter_set(gw->up.host->counters, COUNTER_parked_bytes, gw->parked_bytes);
}

static struct parked *parked_new(struct gatewayworker *gw, struct upstream_client *c)
{
    struct parked *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->client = c;
    c->parked = p;
    list_append(&gw->parked, &p->node);
    if (++gw->parked_clients > gw->parked_clients_peak)
        gw->parked_clients_peak = gw->parked_clients;
    counter_add(gw->up.host->counters, COUNTER_parked_clients, 1);
    if (gw->n_workers > 0) /* only when there was no memory to bind it */
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    return p;
}

static void parked_free(struct gatewayworker *gw, struct parked *p)
{
    changed(gw, 0, p->packets.len);
    counter_sub(gw->up.host->counters, COUNTER_parked_clients, 1);
    gw->parked_clients--;
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

bool park_append_packet(struct bytes *b, const struct gw_packet *p)
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
    if (parked == NULL || !park_append_packet(&parked->packets, p)) {
        if (parked != NULL && parked->n_events == 0)
            parked_free(gw, parked);
        return false;
    }
    noted(gw, parked, p->cmd, GW_HEAD_LEN + p->ext.len + p->body.len);
    return true;
}

bool park_packet(struct gatewayworker *gw, struct upstream_client *c, struct slice packet)
{
    struct parked *parked = c->parked != NULL ? c->parked : parked_new(gw, c);
    if (parked == NULL || !bytes_append(&parked->packets, packet.data, packet.len))
        return false;
    if (parked->n_moved == parked->n_events)
        parked->n_moved++;
    noted(gw, parked, packet.data[4], packet.len);
    if (packet.data[4] == GW_CMD_ON_CONNECT)
        record_remove(gw, c); /* nobody has heard of it after all */
    return true;
}

/* ---- clients that are gone */

bool park_append(struct homeless *h, struct slice packet, bool counted)
{
    uint8_t *at = link_queue_reserve(&h->queue, LINK_CHUNK_EVENTS, packet.len);
    if (at == NULL)
        return false;
    memcpy(at, packet.data, packet.len);
    at[PACKET_FLAG_AT] |= PACKET_LAST | (counted ? PACKET_COUNTED : 0);
    link_queue_commit(&h->queue);
    h->n_events++;
    h->n_messages += packet.data[4] == GW_CMD_ON_MESSAGE;
    return true;
}

static bool homeless_next(struct homeless *h, struct slice *ret)
{
    if (h->next.data == NULL && !link_queue_take_packet(&h->queue, &h->next))
        return false;
    *ret = h->next;
    h->next = (struct slice){0};
    h->n_events--;
    h->n_messages -= ret->data[4] == GW_CMD_ON_MESSAGE;
    return true;
}

/* Some have come: their time runs. */
static void homeless_added(struct gatewayworker *gw, size_t len, uint32_t events)
{
    struct homeless *h = &gw->homeless;
    changed(gw, len, 0);
    gw_count(gw, COUNTER_event_parked, events);
    if (gw->n_workers > 0)
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    if (h->n_messages == 0 || timer_is_set(&gw->parked_timer))
        return;
    timer_set(gw->up.host->loop, &gw->parked_timer, wait_ms(gw), park_expired);
}

bool park_homeless(struct gatewayworker *gw, struct slice packet, bool counted)
{
    if (gw->homeless.n_messages == 0)
        gw->homeless.since_ms = loop_now_ms(gw->up.host->loop);
    if (!park_append(&gw->homeless, packet, counted))
        return false;
    homeless_added(gw, packet.len, 1);
    return true;
}

static void append_all(struct gatewayworker *gw, struct homeless *to, struct homeless *from)
{
    struct slice packet;
    while (homeless_next(from, &packet))
        if (!park_append(to, packet, false))
            event_lost(gw, packet.data[4]);
    link_queue_fini(&from->queue);
}

void park_homeless_all(struct gatewayworker *gw, struct homeless *more, bool first)
{
    struct homeless *h = &gw->homeless;
    size_t added = more->queue.bytes;
    uint32_t events = more->n_events;
    if (events == 0) {
        link_queue_fini(&more->queue);
        return;
    }
    if (h->n_messages == 0)
        h->since_ms = loop_now_ms(gw->up.host->loop);
    if (first) {
        more->since_ms = h->since_ms;
        append_all(gw, more, h);
        *h = *more;
    } else {
        append_all(gw, h, more);
    }
    homeless_added(gw, added, events);
}

/* No worker came in time: messages are dropped, and who was never told of is forgotten. */
static void homeless_expire(struct gatewayworker *gw)
{
    struct homeless left = {0};
    struct seen_set unheard = {0};
    struct slice packet;
    link_queue_init(&left.queue, gw->up.host->estate);
    while (homeless_next(&gw->homeless, &packet)) {
        uint32_t id = gw_get_u32(packet.data + 17);
        uint8_t cmd = packet.data[4];
        if (cmd == GW_CMD_ON_CONNECT)
            seen_set_add(&unheard, id);
        if (cmd == GW_CMD_ON_MESSAGE)
            counter_drop(gw->up.host->counters, DROP_no_worker);
        else if (seen_set_has(&unheard, id))
            gw_count(gw, COUNTER_event_forgotten, 1);
        else if (park_append(&left, packet, false))
            continue;
        else
            event_lost(gw, cmd);
        changed(gw, 0, packet.len);
    }
    link_queue_fini(&gw->homeless.queue);
    gw->homeless = left;
    seen_set_fini(&unheard);
}

/* False: the turn's time is used up, or there is no room (peer.c calls again). While held also to a worker
 * that is full: whoever takes over may take another one for the first, and these would overtake what that one
 * has of the same clients. */
static bool homeless_release(struct gatewayworker *gw)
{
    struct homeless *h = &gw->homeless;
    struct worker *w = worker_any(gw);
    if (gw->n_unsettled > 0)
        return true; /* earlier events of the same clients may come back first: worker_settled calls again */
    while (w != NULL && (!w->full || gw->held) &&
           (h->next.data != NULL || link_queue_take_packet(&h->queue, &h->next))) {
        struct slice packet = h->next;
        uint8_t marks = packet_marks(packet), cmd = packet.data[4];
        packet_unmark(packet);
        int err = worker_try_packet(w, packet);
        if (err == -EAGAIN) {
            ((uint8_t *)packet.data)[PACKET_FLAG_AT] |= marks;
            return true;
        }
        if (err != 0)
            event_lost(gw, cmd);
        else if ((marks & PACKET_COUNTED) == 0)
            event_count(gw, cmd);
        gw_count(gw, COUNTER_event_unparked, 1);
        changed(gw, 0, packet.len);
        h->n_events--;
        h->n_messages -= cmd == GW_CMD_ON_MESSAGE;
        /* It is handed over: by taking the next one, it is not found here any more by a successor. */
        if (!link_queue_take_packet(&h->queue, &h->next))
            h->next = (struct slice){0};
        if (h->n_events % 64 == 0 && loop_turn_left_ns(gw->up.host->loop) == 0)
            return h->n_events == 0;
    }
    return true;
}

static void forget(struct gatewayworker *gw, struct parked *p)
{
    gw_count(gw, COUNTER_event_forgotten, p->n_events);
    parked_free(gw, p);
}

/* What waits for p's client, which is gone. */
static void become_homeless(struct gatewayworker *gw, struct parked *p)
{
    uint32_t n = 0;
    for (size_t at = 0; at < p->packets.len; n++) {
        struct slice packet = {p->packets.data + at, gw_get_u32(p->packets.data + at)};
        if (!park_homeless(gw, packet, n < p->n_moved))
            event_lost(gw, packet.data[4]);
        at += packet.len;
    }
    counter_sub(gw->up.host->counters, COUNTER_event_parked, p->n_events); /* they were counted already */
    parked_free(gw, p);
}

void park_client_closed(struct gatewayworker *gw, struct upstream_client *c, const struct gw_packet *p)
{
    struct parked *parked = c->parked;
    if (parked != NULL && parked->has_connect && parked->n_messages == 0) {
        forget(gw, parked); /* nobody has heard of it and it has said nothing */
        return;
    }
    struct bytes packet = {0};
    if (parked != NULL)
        become_homeless(gw, parked);
    if (!park_append_packet(&packet, p) || !park_homeless(gw, (struct slice){packet.data, packet.len}, false))
        event_lost(gw, GW_CMD_ON_CLOSE);
    bytes_fini(&packet);
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
    gw->up.host->ops->close(c, CLOSE_no_worker); /* comes back as park_client_closed */
}

void park_expired(struct timer *t)
{
    struct gatewayworker *gw = CONTAINER_OF(t, struct gatewayworker, parked_timer);
    struct loop *loop = gw->up.host->loop;
    if (gw->held) {
        timer_set(loop, t, GW_HELD_MS, park_expired);
        return;
    }
    uint64_t next_ms = UINT64_MAX;
    bool any = !list_is_empty(&gw->parked_timed) || gw->homeless.n_messages > 0;
    if (gw->n_workers > 0 && any) {
        timer_set(loop, t, 1000, park_expired); /* one is there: they wait for it to read, not for a worker */
        return;
    }
    if (gw->homeless.n_messages > 0) {
        uint64_t age_ms = loop_now_ms(loop) - gw->homeless.since_ms;
        if (age_ms >= wait_ms(gw))
            homeless_expire(gw);
        else
            next_ms = wait_ms(gw) - age_ms;
    }
    while (!list_is_empty(&gw->parked_timed)) {
        struct parked *p = CONTAINER_OF(gw->parked_timed.next, struct parked, timed);
        uint64_t age_ms = loop_now_ms(loop) - p->since_ms;
        if (age_ms < wait_ms(gw)) {
            if (wait_ms(gw) - age_ms < next_ms)
                next_ms = wait_ms(gw) - age_ms;
            break;
        }
        expire(gw, p);
        if (loop_turn_left_ns(loop) == 0) {
            next_ms = 1; /* the rest next turn */
            break;
        }
    }
    if (next_ms != UINT64_MAX)
        timer_set(loop, t, next_ms, park_expired);
}

void park_release(struct gatewayworker *gw, struct parked *p, struct worker *w)
{
    uint32_t n = 0;
    if (p->has_connect)
        record_add(gw, p->client);
    worker_told(w, p->client);
    for (size_t at = 0; at < p->packets.len; n++) {
        const uint8_t *packet = p->packets.data + at;
        size_t len = gw_get_u32(packet);
        if (!worker_put_packet(w, packet, len))
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
    if (gw->homeless.n_events > 0 && !homeless_release(gw))
        return false;
    if (gw->held)
        return true;
    for (struct list *node = gw->parked.next; node != &gw->parked && gw->n_workers > 0;) {
        struct parked *p = CONTAINER_OF(node, struct parked, node);
        struct worker *w = worker_of(gw, p->client);
        node = node->next;
        if (w == NULL || w->full)
            continue; /* looked at again when it reads (worker_queue_changed) or another one comes */
        park_release(gw, p, w);
        if (loop_turn_left_ns(gw->up.host->loop) == 0)
            return false;
    }
    return true;
}

/* ---- taken over, and handed over */

/* What is in them is what they are said to be. */
static bool is_like(const struct park_like *like, uint32_t id, bool *ret_has_connect)
{
    uint64_t events = 0, messages = 0;
    for (struct slice left = like->packets; left.len > 0; events++) {
        uint32_t len = left.len >= GW_HEAD_LEN ? gw_get_u32(left.data) : 0;
        if (len < GW_HEAD_LEN || len > left.len || gw_get_u32(left.data + 17) != id)
            return false;
        messages += left.data[4] == GW_CMD_ON_MESSAGE;
        *ret_has_connect |= left.data[4] == GW_CMD_ON_CONNECT;
        left.data += len;
        left.len -= len;
    }
    return events == like->n_events && messages == like->n_messages && like->n_moved <= events;
}

/* When something began that is so old. */
static uint64_t since(const struct gatewayworker *gw, uint64_t ago_ms)
{
    uint64_t now_ms = loop_clock_ns(gw->up.host->loop) / 1000000;
    return ago_ms < now_ms ? now_ms - ago_ms : 0;
}

int park_restore(struct gatewayworker *gw, struct upstream_client *c, const struct park_like *like)
{
    bool has_connect = false;
    if (!is_like(like, c->member.id, &has_connect))
        return -EBADMSG;
    struct parked *p = parked_new(gw, c);
    if (p == NULL)
        return -ENOMEM;
    if (!bytes_append(&p->packets, like->packets.data, like->packets.len)) {
        parked_free(gw, p);
        return -ENOMEM;
    }
    changed(gw, like->packets.len, 0);
    p->n_events = (uint32_t)like->n_events;
    p->n_messages = (uint32_t)like->n_messages;
    p->n_moved = (uint32_t)like->n_moved;
    p->has_connect = has_connect;
    p->since_ms = since(gw, like->ago_ms);
    if (p->n_messages > 0)
        list_append(&gw->parked_timed, &p->timed); /* in order after park_restored */
    return 0;
}

bool park_restore_homeless(struct gatewayworker *gw, struct homeless *apart, struct slice packet,
                           bool counted, uint64_t ago_ms)
{
    uint64_t since_ms = since(gw, ago_ms);
    bool is_first = apart->n_messages == 0;
    if (!park_append(apart, packet, counted))
        return false;
    if (is_first || since_ms < apart->since_ms)
        apart->since_ms = since_ms;
    return true;
}

/* Behind those that are here: they are of other clients. Counted they were where they came from. */
static void take_homeless(struct gatewayworker *gw, struct homeless *apart)
{
    struct homeless *h = &gw->homeless;
    size_t bytes = apart->queue.bytes;
    if (apart->n_messages > 0 && (h->n_messages == 0 || apart->since_ms < h->since_ms))
        h->since_ms = apart->since_ms;
    append_all(gw, h, apart);
    changed(gw, bytes, 0);
}

static int by_age(const void *a, const void *b)
{
    const struct parked *x = *(struct parked *const *)a, *y = *(struct parked *const *)b;
    return x->since_ms < y->since_ms ? -1 : x->since_ms > y->since_ms;
}

/* They came from several shards, each in the order of its own. Without memory some wait a little longer. */
static void sort_timed(struct gatewayworker *gw)
{
    uint32_t n = 0;
    struct parked **all = malloc(gw->parked_clients * sizeof *all + 1);
    while (all != NULL && !list_is_empty(&gw->parked_timed)) {
        all[n] = CONTAINER_OF(gw->parked_timed.next, struct parked, timed);
        list_remove(&all[n++]->timed);
    }
    if (n > 0)
        qsort(all, n, sizeof *all, by_age);
    for (uint32_t i = 0; i < n; i++)
        list_append(&gw->parked_timed, &all[i]->timed);
    free(all);
}

void park_restored(struct gatewayworker *gw, struct homeless *apart)
{
    take_homeless(gw, apart);
    sort_timed(gw);
    if (!list_is_empty(&gw->parked_timed) || gw->homeless.n_messages > 0)
        timer_set(gw->up.host->loop, &gw->parked_timer, 1, park_expired);
}

void park_forget(struct gatewayworker *gw, struct upstream_client *c)
{
    if (c->parked != NULL)
        parked_free(gw, c->parked);
}

void park_forget_homeless(struct gatewayworker *gw)
{
    struct homeless *h = &gw->homeless;
    changed(gw, 0, link_queue_sum(&h->queue) + (h->next.data != NULL ? h->next.len : 0));
    link_queue_fini(&h->queue);
    *h = (struct homeless){.queue = h->queue};
}

void park_forget_all(struct gatewayworker *gw)
{
    park_forget_homeless(gw);
    while (!list_is_empty(&gw->parked))
        parked_free(gw, CONTAINER_OF(gw->parked.next, struct parked, node));
}

void park_free_all(struct gatewayworker *gw)
{
    uint64_t events = gw->homeless.n_events;
    gw_count(gw, COUNTER_event_forgotten, events);
    link_queue_fini(&gw->homeless.queue);
    while (!list_is_empty(&gw->parked)) {
        struct parked *p = CONTAINER_OF(gw->parked.next, struct parked, node);
        events += p->n_events;
        forget(gw, p);
    }
    if (events > 0)
        LOG(LOG_WARN, "events_forgotten", "events=%llu reason=\"no worker came before the end\"",
            (unsigned long long)events);
}
