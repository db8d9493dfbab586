// SPDX-License-Identifier: MIT
/* What there is to be seen: rows of workers, of tables, of a client; gauges. docs/ADMIN-API.md says what the
 * members mean. */
#include <string.h>

#include "base/json_writer.h"
#include "common/control.h"
#include "upstream/gatewayworker/gatewayworker_priv.h"

#define NOT_KNOWN UINT64_MAX
/* What has waited for so long makes a worker slow, and stuck. */
#define SLOW_NS  UINT64_C(1000000000)
#define STUCK_NS UINT64_C(10000000000)

/* ---- workers */

static uint64_t age_ns(const struct worker *w)
{
    return meter_age_ns(&w->meter, loop_now_ns(w->gw->up.host->loop));
}

static const char *health(const struct worker *w)
{
    uint64_t ns = age_ns(w);
    if (ns > STUCK_NS)
        return "stuck";
    return w->full ? "full" : ns > SLOW_NS ? "slow" : "ok";
}

static void write_queue_time(struct json_writer *json, const struct histogram *h)
{
    json_begin(json, '{');
    json_member_uint(json, "count", histogram_count(h));
    json_member_uint(json, "p50_ns", histogram_quantile(h, HISTOGRAM_SHIFT_worker_queue, 0.5));
    json_member_uint(json, "p99_ns", histogram_quantile(h, HISTOGRAM_SHIFT_worker_queue, 0.99));
    json_member_uint(json, "sum_ns", h->sum);
    json_key(json, "buckets");
    json_begin(json, '[');
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        json_uint(json, h->buckets[i]);
    json_end(json, ']');
    json_end(json, '}');
}

static void write_clients(struct json_writer *json, const struct worker *w)
{
    const struct gatewayworker *gw = w->gw;
    json_member_uint(json, "clients", worker_clients(w));
    json_key(json, "clients_of");
    json_begin(json, '[');
    for (unsigned i = 0; i < gw->n_shards; i++)
        json_uint(json, i == gw->me ? w->n_clients : NODE_LOAD(gw->shared->workers[w->number].clients[i]));
    json_end(json, ']');
}

static void write_worker(struct json_writer *json, const struct worker *w)
{
    const struct link *l = w->link;
    uint64_t now_ms = loop_now_ms(w->gw->up.host->loop);
    char address[NET_ADDR_STRLEN];
    json_begin(json, '{');
    json_member_string(json, "key", w->key, w->key_len, CONTROL_NAME_MAX);
    json_member_uint(json, "number", w->number);
    json_member_uint(json, "shard", w->gw->me);
    json_member_str(json, "address", net_addr_format(&l->peer, address, sizeof address));
    json_member_uint(json, "connected_s", (now_ms - l->since_ms) / 1000);
    write_clients(json, w);
    json_member_uint(json, "paused_clients", w->n_paused);
    json_member_bool(json, "draining", worker_is_draining(w));
    json_member_str(json, "health", health(w));
    json_member_uint(json, "queue_bytes", l->queue.bytes);
    json_member_uint(json, "queue_age_ms", age_ns(w) / 1000000);
    json_member_uint(json, "messages_in", l->packets_in);
    json_member_uint(json, "bytes_in", l->bytes_in);
    json_member_uint(json, "messages_out", l->events_out);
    json_member_uint(json, "bytes_out", l->bytes_out);
    json_member_uint(json, "idle_s", (now_ms - l->read_ms) / 1000);
    json_key(json, "queue_time");
    write_queue_time(json, &w->meter.times);
    json_end(json, '}');
}

uint64_t inspect_workers(struct upstream *u, struct json_writer *json, uint64_t cursor, uint32_t limit,
                         size_t bytes_max)
{
    const struct gatewayworker *gw = gatewayworker_of(u);
    size_t begin = json->out->len;
    uint32_t rows = 0;
    for (uint64_t i = cursor; i < gw->cap_numbers; i++) {
        size_t before = json->out->len;
        bool comma = json->comma;
        if (gw->numbers[i] == NULL)
            continue;
        if (rows == limit)
            return i;
        write_worker(json, gw->numbers[i]);
        if (rows++ == 0 || json->out->len - begin <= bytes_max)
            continue;
        json->out->len = before; /* one too many: it begins the next page */
        json->comma = comma;
        return i;
    }
    return 0;
}

/* ---- a client */

bool upstream_is_bound_to(const struct upstream_client *c, struct slice key)
{
    const struct worker *w = c->worker;
    return w != NULL && w->key_len == key.len && memcmp(w->key, key.data, key.len) == 0;
}

/* Bytes that wait for it in our memory. */
static uint64_t waiting_for(const struct worker *w)
{
    if (w->link != NULL)
        return w->link->queue.bytes;
    return w->is_gone ? w->held.bytes : mesh_waiting(w->gw->mesh, w->shard);
}

void inspect_client(struct upstream *u, const struct upstream_client *c, struct json_writer *json, bool full)
{
    const struct worker *w = c->worker;
    json_key(json, "worker");
    if (w != NULL)
        json_write_text(json, w->key, w->key_len, CONTROL_NAME_MAX);
    else
        json_write_null(json);
    if (!full)
        return;
    json_member_uint(json, "parked_events", c->parked != NULL ? c->parked->n_events : 0);
    json_member_uint(json, "parked_bytes", c->parked != NULL ? c->parked->packets.len : 0);
    json_key(json, "worker_info");
    if (w == NULL) {
        json_write_null(json);
        return;
    }
    json_begin(json, '{');
    json_member_uint(json, "queue_bytes", waiting_for(w));
    json_member_bool(json, "full", w->full);
    json_end(json, '}');
}

/* ---- sums over links */

struct link_sums {
    uint64_t n, input, input_memory, queue, queue_memory, jobs, gathers;
};

static void add_link(struct link_sums *s, const struct link *l)
{
    s->n++;
    s->input += l->in.len - l->in_done;
    s->input_memory += l->in.cap;
    s->queue += l->queue.bytes;
    s->jobs += l->job != NULL;
    s->gathers += l->n_gathers;
}

static void add_links(const struct gatewayworker *gw, struct link_sums *s)
{
    for (const struct list *node = gw->links.next; node != &gw->links; node = node->next)
        add_link(s, CONTAINER_OF(node, struct link, node));
}

/* Places that their tables have. */
static uint64_t add_stand_ins(const struct gatewayworker *gw, struct link_sums *s)
{
    uint64_t places = 0;
    for (unsigned i = 0; i < gw->n_shards; i++) {
        const struct peer *p = &gw->peers[i];
        places += p->cap_stand_ins;
        for (uint32_t k = 0; k < p->cap_stand_ins; k++)
            if (p->stand_ins[k] != NULL)
                add_link(s, p->stand_ins[k]);
    }
    return places;
}

/* The fullest ring to another shard, and all of them. */
static uint64_t ring_bytes_used(const struct gatewayworker *gw, uint64_t *ret_most)
{
    uint64_t all = 0;
    *ret_most = 0;
    for (unsigned i = 0; i < gw->n_shards; i++) {
        uint64_t used = mesh_ring_used(gw->mesh, i);
        all += used;
        if (used > *ret_most)
            *ret_most = used;
    }
    return all;
}

void inspect_measure(struct upstream *u)
{
    const struct gatewayworker *gw = gatewayworker_of(u);
    struct counters *counters = u->host->counters;
    struct link_sums sums = {0};
    uint64_t most;
    add_links(gw, &sums);
    add_stand_ins(gw, &sums);
    counter_set(counters, COUNTER_links_input_bytes, sums.input);
    counter_set(counters, COUNTER_links_queue_bytes, sums.queue);
    counter_set(counters, COUNTER_mesh_ring_bytes, ring_bytes_used(gw, &most));
    if (most > counter_get(counters, COUNTER_mesh_ring_peak_bytes))
        counter_set(counters, COUNTER_mesh_ring_peak_bytes, most);
}

/* ---- tables */

static uint64_t count_list(const struct list *head)
{
    uint64_t n = 0;
    for (const struct list *node = head->next; node != head; node = node->next)
        n++;
    return n;
}

static void list_links(const struct gatewayworker *gw, struct json_writer *json)
{
    struct link_sums links = {0}, stand_ins = {0};
    uint64_t memory = 0;
    add_links(gw, &links);
    uint64_t places = add_stand_ins(gw, &stand_ins);
    for (const struct list *node = gw->links.next; node != &gw->links; node = node->next)
        memory += link_queue_memory(&CONTAINER_OF(node, struct link, node)->queue);
    json_table(json, gw->me, "links", links.n, gw->links_peak, gw_config(gw)->max_links,
               links.n * sizeof(struct link) + gw->cap_link_table * sizeof(struct link *));
    json_table(json, gw->me, "link_input", links.input, NOT_KNOWN, NOT_KNOWN, links.input_memory);
    json_table(json, gw->me, "link_queues", links.queue, NOT_KNOWN, NOT_KNOWN, memory);
    json_table(json, gw->me, "link_stand_ins", stand_ins.n, NOT_KNOWN, places,
               stand_ins.n * sizeof(struct link) + places * sizeof(struct link *) + stand_ins.input_memory);
    json_table(json, gw->me, "link_jobs", links.jobs + stand_ins.jobs, NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
    json_table(json, gw->me, "link_questions", links.gathers + stand_ins.gathers, NOT_KNOWN, NOT_KNOWN,
               NOT_KNOWN);
}

static void list_workers(const struct gatewayworker *gw, struct json_writer *json)
{
    uint64_t bound = 0, places = 0, of_gone = 0;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        bound += gw->workers[i]->n_clients;
        places += gw->workers[i]->cap_clients;
    }
    for (const struct list *node = gw->gone.next; node != &gw->gone; node = node->next)
        of_gone += CONTAINER_OF(node, struct worker, gone)->n_clients;
    json_table(json, gw->me, "workers", gw->n_workers, gw->workers_peak, NODE_WORKERS_MAX,
               gw->n_workers * sizeof(struct worker) +
                   (gw->cap_workers + gw->cap_numbers) * sizeof(struct worker *));
    json_table(json, gw->me, "worker_clients", bound, NOT_KNOWN, places,
               places * sizeof(struct upstream_client *));
    json_table(json, gw->me, "workers_gone", count_list(&gw->gone), NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
    json_table(json, gw->me, "workers_gone_unsettled", gw->n_unsettled, NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
    json_table(json, gw->me, "workers_gone_clients", of_gone, NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
    json_table(json, gw->me, "workers_leaving", count_list(&gw->leaving), NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
}

static void list_waiting(const struct gatewayworker *gw, struct json_writer *json)
{
    uint64_t backlog = 0, most, used = ring_bytes_used(gw, &most);
    uint64_t peak = counter_get(gw->up.host->counters, COUNTER_mesh_ring_peak_bytes);
    for (unsigned i = 0; i < gw->n_shards; i++)
        backlog += mesh_waiting(gw->mesh, i);
    json_table(json, gw->me, "parked_clients", gw->parked_clients, gw->parked_clients_peak, NOT_KNOWN,
               gw->parked_clients * sizeof(struct parked));
    json_table(json, gw->me, "parked_events", gw->parked_bytes, gw->parked_bytes_peak,
               gw_config(gw)->no_worker_total_bytes, gw->parked_bytes);
    json_table(json, gw->me, "homeless_events", gw->homeless.n_events, NOT_KNOWN, NOT_KNOWN,
               link_queue_memory(&gw->homeless.queue));
    json_table(json, gw->me, "late_closes", count_list(&gw->late_closes), NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
    json_table(json, gw->me, "mesh_backlog", backlog, NOT_KNOWN, NOT_KNOWN, backlog);
    json_table(json, gw->me, "mesh_rings", used, peak > most ? peak : most,
               (gw->n_shards - 1) * gw->up.host->node->ring_bytes, NOT_KNOWN);
}

void inspect_tables(struct upstream *u, struct json_writer *json)
{
    const struct gatewayworker *gw = gatewayworker_of(u);
    list_links(gw, json);
    list_workers(gw, json);
    list_waiting(gw, json);
}
