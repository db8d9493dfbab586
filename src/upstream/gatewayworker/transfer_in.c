// SPDX-License-Identifier: MIT
/* What is taken over from another process (or shard). Held meanwhile: nothing is read, written or begun.
 *
 *   worker records   what the workers of the other node are called, and which drain; of all shards to all
 *   link records     a link; if it is a worker's, that worker is here from now on, under a number of ours,
 *                    and the other shards of our node are told (TAKEN)
 *   clients          bound to the worker of the same key, wherever that is now. One whose worker is gone is
 *                    bound to one of that key that is gone here too, and anew as always
 *
 * Epochs begin anew (steer.c): all that waits for a worker, and all its clients, are of the first one. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/array.h"
#include "base/log.h"
#include "upstream/gatewayworker/gatewayworker_priv.h"

#define ARRAY_FIRST 16

struct import_worker {
    uint32_t number;
    uint8_t from;
    bool draining;
    uint32_t position; /* in gw->workers, when it was last looked for */
    size_t key_len;
    uint8_t key[];
};

struct imports {
    struct import_worker *living[NODE_WORKERS_MAX]; /* by number, which is one over all shards */
    struct import_worker **gone;
    uint32_t n_gone, cap_gone;
    uint32_t n;
    struct homeless homeless;
};

static struct slice key_of(const struct import_worker *w)
{
    return (struct slice){w->key, w->key_len};
}

void import_free(struct gatewayworker *gw)
{
    struct imports *all = gw->imports;
    if (all == NULL)
        return;
    for (uint32_t i = 0; i < NODE_WORKERS_MAX; i++)
        free(all->living[i]);
    for (uint32_t i = 0; i < all->n_gone; i++)
        free(all->gone[i]);
    free(all->gone);
    link_queue_fini(&all->homeless.queue);
    free(all);
    gw->imports = NULL;
}

static bool need_imports(struct gatewayworker *gw)
{
    if (gw->imports == NULL && (gw->imports = calloc(1, sizeof *gw->imports)) != NULL)
        link_queue_init(&gw->imports->homeless.queue, gw->up.host->estate);
    return gw->imports != NULL;
}

/* ---- workers */

static int keep_worker(struct imports *all, struct import_worker *w, bool gone)
{
    if (!gone && (w->number >= NODE_WORKERS_MAX || all->living[w->number] != NULL))
        return -EBADMSG;
    if (!gone) {
        all->living[w->number] = w;
    } else {
        if (!array_reserve_one(&all->gone, all->n_gone, &all->cap_gone, ARRAY_FIRST))
            return -ENOMEM;
        all->gone[all->n_gone++] = w;
    }
    all->n++;
    return 0;
}

static int import_worker(struct gatewayworker *gw, unsigned from, const struct transfer_worker *t)
{
    if (t->key.len == 0 || t->number > UINT32_MAX)
        return -EBADMSG;
    struct import_worker *w = malloc(sizeof *w + t->key.len);
    if (!need_imports(gw) || w == NULL) {
        free(w);
        return -ENOMEM;
    }
    *w = (struct import_worker){
        .number = (uint32_t)t->number,
        .from = (uint8_t)from,
        .draining = t->draining != 0,
        .position = UINT32_MAX,
        .key_len = t->key.len,
    };
    memcpy(w->key, t->key.data, t->key.len);
    int err = keep_worker(gw->imports, w, t->gone != 0);
    if (err != 0)
        free(w);
    return err;
}

static bool is_at(const struct gatewayworker *gw, uint32_t position, struct slice key)
{
    const struct worker *w = position < gw->n_workers ? gw->workers[position] : NULL;
    return w != NULL && w->key_len == key.len && memcmp(w->key, key.data, key.len) == 0;
}

/* Looked for once for all of its clients. */
static struct worker *worker_of_import(struct gatewayworker *gw, struct import_worker *known)
{
    if (!is_at(gw, known->position, key_of(known))) {
        struct worker *w = worker_of_key(gw, key_of(known));
        if (w == NULL)
            return NULL;
        known->position = w->position;
    }
    return gw->workers[known->position];
}

static struct worker *of_our_node(struct gatewayworker *gw, uint64_t number)
{
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->number == number)
            return gw->workers[i];
    return NULL;
}

/* Whom that shard calls so, *ret_w NULL: nobody whom we know. 0 or -ENOMEM. */
static int find_worker(struct gatewayworker *gw, unsigned from, uint64_t number, struct worker **ret_w)
{
    const struct imports *all = gw->imports;
    struct import_worker *known = NULL;
    *ret_w = NULL;
    if (all != NULL && number < NODE_WORKERS_MAX)
        known = all->living[number];
    for (uint32_t i = 0; all != NULL && known == NULL && i < all->n_gone; i++)
        if (all->gone[i]->from == from && all->gone[i]->number == number)
            known = all->gone[i];
    if (known == NULL) { /* of a shard of our own node, which needs no records of workers */
        *ret_w = of_our_node(gw, number);
        return 0;
    }
    /* One that lived, and whose link has not come with it, is gone. */
    if (number < NODE_WORKERS_MAX)
        *ret_w = worker_of_import(gw, known);
    if (*ret_w == NULL)
        *ret_w = worker_gone_of_key(gw, key_of(known));
    return *ret_w != NULL ? 0 : -ENOMEM;
}

/* ---- links */

/* Events are whole packets. */
static bool are_packets(struct slice s)
{
    while (s.len > 0) {
        uint32_t len = s.len >= GW_HEAD_LEN ? gw_get_u32(s.data) : 0;
        if (len < GW_HEAD_LEN || len > s.len)
            return false;
        s.data += len;
        s.len -= len;
    }
    return true;
}

static void mark_packets(struct slice s)
{
    for (uint32_t len; s.len > 0; s.data += len, s.len -= len) {
        len = gw_get_u32(s.data);
        packet_mark_taken(s, true);
    }
}

/* Not marked any more. */
static void unmark_queue(struct link_queue *q)
{
    struct link_queue_cursor cursor = {0};
    struct slice packet;
    while (link_queue_next(q, &cursor, &packet))
        packet_mark_taken(packet, false);
}

static int restore_queue(struct link_queue *q, const struct transfer_link *t)
{
    struct slice left = t->out, element;
    uint64_t written = t->out_written;
    int r;
    while ((r = transfer_list_next(&left, &element)) == 1) {
        if (element.len < 2 || element.data[0] > 1)
            return -EBADMSG;
        struct link_queue_part part = {
            .kind = element.data[0] == 0 ? LINK_CHUNK_EVENTS : LINK_CHUNK_REPLY,
            .bytes = {element.data + 1, element.len - 1},
            .written = written,
        };
        if (written >= part.bytes.len || part.bytes.len > INT32_MAX ||
            (part.kind == LINK_CHUNK_EVENTS && !are_packets(part.bytes)))
            return -EBADMSG;
        if (part.kind == LINK_CHUNK_EVENTS)
            mark_packets(part.bytes);
        if (!link_queue_restore(q, &part))
            return -ENOMEM;
        written = 0;
    }
    return r == 0 && written != 0 ? -EBADMSG : r;
}

static uint64_t unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t before(uint64_t now, uint64_t ago)
{
    return ago < now ? now - ago : 0;
}

static void restore_figures(struct link *l, const struct transfer_link *t)
{
    uint64_t now_ms = loop_clock_ns(l->gw->up.host->loop) / 1000000, now_unix_ms = unix_ms();
    l->since_ms = before(now_ms, before(now_unix_ms, t->since_unix_ms));
    l->read_ms = before(now_ms, t->read_ago_ms);
    l->packets_in = t->packets_in;
    l->bytes_in = t->bytes_in;
    l->events_out = t->events_out;
    /* Also the scale of the queue. */
    l->bytes_out = t->bytes_out > l->queue.bytes ? t->bytes_out : l->queue.bytes;
}

static bool is_draining(const struct gatewayworker *gw, uint64_t number)
{
    const struct imports *all = gw->imports;
    return all != NULL && number < NODE_WORKERS_MAX && all->living[number] != NULL &&
           all->living[number]->draining;
}

/* Its age as the time limit sees it, not by the wall clock, which may have been set meanwhile. */
static void restore_auth(struct link *l, uint64_t left_ms)
{
    uint64_t limit_ms = gw_config(l->gw)->worker_auth_timeout * 1000;
    left_ms = left_ms < limit_ms ? left_ms : limit_ms;
    l->since_ms = before(loop_clock_ns(l->gw->up.host->loop) / 1000000, limit_ms - left_ms);
    link_set_auth_timer(l, left_ms);
}

static int restore_link(struct link *l, const struct transfer_link *t)
{
    struct gatewayworker *gw = l->gw;
    int err = restore_queue(&l->queue, t);
    if (err != 0)
        return err;
    if (!link_put_input(l, t->in))
        return -ENOMEM;
    restore_figures(l, t);
    l->authorized = t->authorized != 0;
    if (!l->authorized)
        restore_auth(l, t->auth_left_ms);
    if (t->decided != 0 || t->worker.len > 0)
        link_decided(l);
    if (t->worker.len == 0)
        return 0;
    err = worker_take_over(l, t->worker);
    /* Before anybody chooses one: the other shards see it here. */
    if (err == 0 && is_draining(gw, t->number))
        NODE_STORE(gw->shared->workers[l->worker->number].draining, 1);
    return err;
}

static int import_link(struct gatewayworker *gw, const struct transfer_record *r)
{
    struct transfer_link t;
    struct net_addr peer = {0};
    int err = transfer_get_link(r->fields, &t), bad;
    if (r->handle < 0)
        return -EBADMSG;
    if (err == 0)
        err = transfer_get_address(t.peer, &peer);
    struct link *l = link_take_over(gw, r->handle, &peer, &bad);
    if (l == NULL)
        return bad;
    l->taken = true;
    if (err == 0)
        err = restore_link(l, &t);
    if (err != 0)
        link_forget(l);
    return err;
}

/* ---- clients */

static int import_waiting(struct gatewayworker *gw, struct upstream_client *c,
                          const struct transfer_client *t)
{
    const struct park_like like = {
        .packets = t->parked,
        .n_events = t->parked_events,
        .n_messages = t->parked_messages,
        .n_moved = t->parked_moved,
        .ago_ms = t->parked_ago_ms,
    };
    return t->parked.len > 0 ? park_restore(gw, c, &like) : 0;
}

static int import_binding(struct gatewayworker *gw, unsigned from, struct upstream_client *c, uint64_t number)
{
    struct worker *w;
    int err = find_worker(gw, from, number, &w);
    if (err != 0 || w == NULL)
        return err; /* one that nobody knows: it is bound at its next event */
    if (!worker_bind(w, c))
        err = -ENOMEM;
    worker_told(w, c);
    return err;
}

static int restore_client(struct gatewayworker *gw, unsigned from, struct upstream_client *c,
                          const struct transfer_client *t)
{
    int err = t->worker != 0 ? import_binding(gw, from, c, t->worker - 1) : 0;
    if (err == 0)
        err = import_waiting(gw, c, t);
    if (err != 0)
        return err;
    bool waits = c->parked != NULL && c->parked->has_connect;
    if (waits != ((t->flags & TRANSFER_PARKED_CONNECT) != 0))
        return -EBADMSG;
    c->heard_of = (t->flags & TRANSFER_HEARD_OF) != 0;
    c->has_joined = (t->flags & TRANSFER_HAS_JOINED) != 0;
    if (c->heard_of && !waits) {
        record_add(gw, c);
        if (c->member.record == NULL)
            return -ENOMEM;
    }
    /* Until the resume task has looked, once all is here. Without a worker nobody is waited for. */
    if ((t->flags & TRANSFER_READ_PAUSED) != 0 && c->worker != NULL)
        worker_pause(c);
    return 0;
}

int import_client(struct upstream *u, unsigned from, struct upstream_client *c,
                  const struct transfer_client *t)
{
    int err = restore_client(gatewayworker_of(u), from, c, t);
    if (err != 0)
        export_forget_client(u, c);
    return err;
}

/* ---- */

static int import_homeless(struct gatewayworker *gw, const struct transfer_homeless *t)
{
    if (t->packet.len < GW_HEAD_LEN || gw_get_u32(t->packet.data) != t->packet.len)
        return -EBADMSG;
    if (!need_imports(gw))
        return -ENOMEM;
    packet_mark_taken(t->packet, true);
    return park_restore_homeless(gw, &gw->imports->homeless, t->packet, t->counted != 0, t->ago_ms) ? 0
                                                                                                    : -ENOMEM;
}

int import_record(struct upstream *u, unsigned from, const struct transfer_record *r)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    struct transfer_worker worker;
    struct transfer_homeless homeless;
    int err;
    switch (r->type) {
    case TRANSFER_TYPE_worker:
        err = transfer_get_worker(r->fields, &worker);
        return err == 0 ? import_worker(gw, from, &worker) : err;
    case TRANSFER_TYPE_link: return import_link(gw, r);
    case TRANSFER_TYPE_homeless:
        err = transfer_get_homeless(r->fields, &homeless);
        return err == 0 ? import_homeless(gw, &homeless) : err;
    default: return -EBADMSG;
    }
}

uint32_t import_workers(const struct upstream *u)
{
    return CONTAINER_OF(u, const struct gatewayworker, up)->n_workers;
}

/* One that moves within the node goes on as it did. */
static void drain_imported(struct gatewayworker *gw)
{
    for (uint32_t i = 0; i < NODE_WORKERS_MAX; i++) {
        const struct import_worker *known = gw->imports->living[i];
        const struct worker *w = known != NULL && known->draining ? worker_of_key(gw, key_of(known)) : NULL;
        if (w != NULL && !w->steer.drains)
            steer_drain(&gw->up, key_of(known), true, 0);
    }
}

void import_done(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    struct homeless none = {0};
    if (gw->imports != NULL) {
        drain_imported(gw);
        unmark_queue(&gw->imports->homeless.queue);
    }
    park_restored(gw, gw->imports != NULL ? &gw->imports->homeless : &none);
    import_free(gw);
    for (struct list *node = gw->links.next; node != &gw->links; node = node->next) {
        struct link *l = CONTAINER_OF(node, struct link, node);
        if (l->taken)
            unmark_queue(&l->queue);
        l->taken = false;
    }
    if (gw->n_workers > 0)
        worker_rebind_later(gw);
}

void import_forget_taken(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    for (struct list *node = gw->links.next; node != &gw->links;) {
        struct link *l = CONTAINER_OF(node, struct link, node);
        node = node->next;
        if (l->taken)
            link_moved(l);
    }
    import_free(gw);
}
