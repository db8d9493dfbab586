// SPDX-License-Identifier: MIT
/* What is handed over to another process, once all is at rest (hold.c). A worker is named by its number over
 * the node, one that is gone by a number of this shard's. Nothing changes here until it is forgotten. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "upstream/gatewayworker/gatewayworker_priv.h"

/* By the clock itself: the loop may not have turned for a while. */
static uint64_t ago(const struct gatewayworker *gw, uint64_t since_ms)
{
    uint64_t now_ms = loop_clock_ns(gw->up.host->loop) / 1000000;
    return since_ms < now_ms ? now_ms - since_ms : 0;
}

static uint64_t unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct slice slice_of(const struct bytes *b)
{
    return (struct slice){b->data, b->len};
}

/* ---- workers */

static uint32_t name_of(const struct worker *w)
{
    return w->is_gone ? w->gone_number : w->number;
}

static int export_worker(const struct worker *w, const struct transfer_plan *plan, struct transfer_sink *sink)
{
    const struct transfer_worker t = {
        .number = name_of(w),
        .key = {(const uint8_t *)w->key, w->key_len},
        .gone = w->is_gone,
        .draining = !w->is_gone && worker_is_draining(w),
    };
    struct bytes record = {0};
    int err = transfer_put_worker(&record, &t) ? transfer_put_all(sink, plan, slice_of(&record)) : -ENOMEM;
    bytes_fini(&record);
    return err;
}

static int export_workers(const struct gatewayworker *gw, const struct transfer_plan *plan,
                          struct transfer_sink *sink, uint64_t *ret_workers)
{
    int err = 0;
    for (uint32_t i = 0; err == 0 && i < gw->n_workers; i++) {
        if (gw->workers[i]->link == NULL)
            continue;
        err = export_worker(gw->workers[i], plan, sink);
        ++*ret_workers;
    }
    for (const struct list *node = gw->gone.next; err == 0 && node != &gw->gone; node = node->next)
        err = export_worker(CONTAINER_OF(node, struct worker, gone), plan, sink);
    return err;
}

/* ---- links */

/* Those that we have closed already end with us; so do their peers. */
static bool is_exported(const struct link *l)
{
    return !l->ending && net_conn_is_open(&l->conn);
}

static unsigned nth_of(uint64_t shards, unsigned n)
{
    ASSERT(shards != 0);
    for (n %= (unsigned)__builtin_popcountll(shards); n > 0; n--)
        shards &= shards - 1;
    return (unsigned)__builtin_ctzll(shards);
}

static unsigned shard_for(const struct transfer_plan *plan, uint64_t index)
{
    return plan->same ? plan->me : nth_of(plan->links, (unsigned)(plan->first_link + index));
}

/* What waits to be written, chunk by chunk. */
static bool put_queue(struct bytes *out, const struct link_queue *q, uint64_t *ret_written)
{
    struct link_queue_part part;
    for (uint32_t i = 0; link_queue_part(q, i, &part); i++) {
        uint8_t kind = part.kind == LINK_CHUNK_REPLY;
        struct slice parts[] = {{&kind, 1}, part.bytes};
        if (i == 0)
            *ret_written = part.written;
        if (part.bytes.len > 0 && !transfer_list_add_parts(out, parts, 2))
            return false;
    }
    return true;
}

static uint64_t auth_left_ms(const struct link *l)
{
    uint64_t limit = gw_config(l->gw)->worker_auth_timeout * 1000, age = ago(l->gw, l->since_ms);
    return l->authorized ? 0 : age < limit ? limit - age : 1;
}

static int export_link(const struct link *l, unsigned to, struct transfer_sink *sink)
{
    struct gatewayworker *gw = l->gw;
    struct bytes peer = {0}, out = {0}, record = {0};
    struct transfer_link t = {
        .authorized = l->authorized,
        .decided = l->decided,
        .in = {l->in.data + l->in_done, l->in.len - l->in_done},
        .auth_left_ms = auth_left_ms(l),
        .since_unix_ms = unix_ms() - ago(gw, l->since_ms),
        .read_ago_ms = ago(gw, l->read_ms),
        .packets_in = l->packets_in,
        .bytes_in = l->bytes_in,
        .events_out = l->events_out,
        .bytes_out = l->bytes_out,
    };
    if (l->worker != NULL) {
        t.worker = (struct slice){(const uint8_t *)l->worker->key, l->worker->key_len};
        t.number = l->worker->number;
    }
    bool ok = transfer_put_address(&peer, &l->peer) && put_queue(&out, &l->queue, &t.out_written);
    t.peer = slice_of(&peer);
    t.out = slice_of(&out);
    int err = ok && transfer_put_link(&record, &t)
                  ? sink->put(sink, to, slice_of(&record), net_conn_handle(gw->up.host->net, &l->conn))
                  : -ENOMEM;
    bytes_fini(&peer);
    bytes_fini(&out);
    bytes_fini(&record);
    return err;
}

int export_links(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                 uint64_t *ret_links, uint64_t *ret_workers)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    uint64_t links = 0, workers = 0;
    int err = export_workers(gw, plan, sink, &workers);
    for (struct list *node = gw->links.next; err == 0 && node != &gw->links; node = node->next) {
        const struct link *l = CONTAINER_OF(node, struct link, node);
        if (is_exported(l))
            err = export_link(l, shard_for(plan, links++), sink);
    }
    if (err == 0) {
        *ret_links = links;
        *ret_workers = workers;
    }
    return err;
}

/* ---- clients, and what is left of others */

static void export_parked(const struct gatewayworker *gw, const struct parked *p, struct transfer_client *ret)
{
    ret->flags |= p->has_connect ? TRANSFER_PARKED_CONNECT : 0;
    ret->parked = slice_of(&p->packets);
    ret->parked_events = p->n_events;
    ret->parked_messages = p->n_messages;
    ret->parked_moved = p->n_moved;
    ret->parked_ago_ms = p->n_messages > 0 ? ago(gw, p->since_ms) : 0;
}

void export_client(struct upstream *u, const struct upstream_client *c, struct transfer_client *ret)
{
    ret->flags |= c->heard_of ? TRANSFER_HEARD_OF : 0;
    ret->flags |= c->has_joined ? TRANSFER_HAS_JOINED : 0;
    ret->flags |= c->paused ? TRANSFER_READ_PAUSED : 0;
    if (c->worker != NULL)
        ret->worker = 1 + (uint64_t)name_of(c->worker);
    if (c->parked != NULL)
        export_parked(gatewayworker_of(u), c->parked, ret);
}

static int export_homeless(const struct gatewayworker *gw, const struct transfer_plan *plan,
                           struct transfer_sink *sink, struct slice packet)
{
    struct bytes plain = {0}, record = {0};
    bool ok = bytes_append(&plain, packet.data, packet.len);
    if (ok)
        packet_unmark(slice_of(&plain));
    const struct transfer_homeless t = {
        .packet = slice_of(&plain),
        .counted = (packet_marks(packet) & PACKET_COUNTED) != 0,
        .ago_ms = gw->homeless.n_messages > 0 ? ago(gw, gw->homeless.since_ms) : 0,
    };
    unsigned to =
        node_home_of((const struct node_home *)(const void *)plan->home, gw_get_u32(packet.data + 17));
    int err = ok && transfer_put_homeless(&record, &t) ? sink->put(sink, to, slice_of(&record), -1) : -ENOMEM;
    bytes_fini(&plain);
    bytes_fini(&record);
    return err;
}

/* What is parked for it first. Of one that no worker has heard of nobody is told. */
int export_ended(struct upstream *u, const struct upstream_client *c, const struct transfer_plan *plan,
                 struct transfer_sink *sink)
{
    const struct gatewayworker *gw = gatewayworker_of(u);
    struct gw_packet closed = event_of_close(gw, c);
    struct slice parked = c->parked != NULL ? slice_of(&c->parked->packets) : (struct slice){0};
    struct bytes packet = {0};
    int err = 0;
    if (!c->heard_of || (c->parked != NULL && c->parked->has_connect))
        return 0;
    for (size_t at = 0; err == 0 && at < parked.len; at += gw_get_u32(parked.data + at))
        err = export_homeless(gw, plan, sink, (struct slice){parked.data + at, gw_get_u32(parked.data + at)});
    if (err == 0)
        err = park_append_packet(&packet, &closed) ? export_homeless(gw, plan, sink, slice_of(&packet))
                                                   : -ENOMEM;
    bytes_fini(&packet);
    return err;
}

int export_rest(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                uint64_t *ret_records)
{
    const struct gatewayworker *gw = gatewayworker_of(u);
    struct link_queue_cursor cursor = {0};
    struct slice packet = gw->homeless.next;
    uint64_t records = 0;
    int err = 0;
    bool more = packet.data != NULL || link_queue_next(&gw->homeless.queue, &cursor, &packet);
    for (; err == 0 && more; more = link_queue_next(&gw->homeless.queue, &cursor, &packet)) {
        err = export_homeless(gw, plan, sink, packet);
        records++;
    }
    if (err == 0)
        *ret_records = records;
    return err;
}

/* ---- it is another's now */

void export_forget_client(struct upstream *u, struct upstream_client *c)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    park_forget(gw, c);
    record_remove(gw, c);
    worker_unbind(c);
    c->heard_of = false;
}

void export_forget_given(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    for (struct list *node = gw->links.next; node != &gw->links;) {
        struct link *l = CONTAINER_OF(node, struct link, node);
        node = node->next;
        if (is_exported(l))
            link_moved(l);
    }
    park_forget_homeless(gw);
    NODE_STORE(gw->shared->shards[gw->me].void_estate, NODE_VOID_NOTHING);
}

void export_forget_all(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    while (gw->n_workers > 0)
        worker_vanish(gw->workers[gw->n_workers - 1]);
    while (!list_is_empty(&gw->gone))
        worker_vanish(CONTAINER_OF(gw->gone.next, struct worker, gone));
    while (!list_is_empty(&gw->links))
        link_forget(CONTAINER_OF(gw->links.next, struct link, node));
    park_forget_all(gw);
    import_free(gw);
}
