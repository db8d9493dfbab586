// SPDX-License-Identifier: MIT
#include "shard/shard.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/pool.h"
#include "estate/estate.h"
#include "shard/shard_priv.h"
#include "shard/trace.h"
#include "shard/transfer.h"
#include "upstream/gatewayworker/gatewayworker.h"

/* How often it is looked whether a burst is over and memory can go back. */
#define TRIM_INTERVAL_MS 5000
/* Clients closed between two looks at the clock while draining. */
#define DRAIN_SLICE 64
/* What one client's write is taken to cost before any was measured. */
#define WRITE_NS_FIRST 3000
/* Of the range that RFC 6455 section 7.4.2 leaves to applications. */
#define CLOSE_CODE_REPLACED 4001

/* ---- what the upstream may ask of us */

static void host_kick(struct upstream_client *up, struct upstream_message *m)
{
    struct client *c = client_of(up);
    if (m != NULL)
        client_send(up, m);
    client_close(c, CLOSE_kicked, WS_CLOSE_NORMAL, NULL);
}

static void host_destroy(struct upstream_client *up)
{
    client_destroy(client_of(up), CLOSE_destroyed, false);
}

static void host_close(struct upstream_client *up, enum close_reason reason)
{
    struct client *c = client_of(up);
    switch (reason) {
    case CLOSE_no_worker:
    case CLOSE_worker_slow: client_close(c, reason, WS_CLOSE_TRY_LATER, "try again later"); break;
    case CLOSE_too_big: client_close(c, reason, WS_CLOSE_TOO_BIG, NULL); break;
    case CLOSE_uid_replaced:
        client_close(c, reason, CLOSE_CODE_REPLACED, "replaced by a newer connection");
        break;
    default: client_close(c, reason, WS_CLOSE_INTERNAL, NULL);
    }
}

static void host_wake(struct upstream_host *h, unsigned to)
{
    struct shard *s = CONTAINER_OF(h, struct shard, host);
    if (s->wake != NULL)
        s->wake(s->wake_ctx, to);
}

static void host_traced(struct upstream_client *up, const char *command, size_t len, const char *sender)
{
    trace_command(client_of(up), command, len, sender);
}

static void host_uid_bound(struct upstream_client *up, const void *uid, size_t len)
{
    if (client_shard(client_of(up))->traces != NULL)
        trace_uid_bound(client_of(up), (struct slice){uid, len});
}

static const struct upstream_host_ops host_ops = {
    .send = client_send,
    .kick = host_kick,
    .destroy = host_destroy,
    .close = host_close,
    .resume = client_resume,
    .room = client_room,
    .wake = host_wake,
    .traced = host_traced,
    .uid_bound = host_uid_bound,
};

void shard_set_drained(struct shard *s, enum node_drained drained)
{
    s->drained = drained;
    NODE_STORE(shard_published(s)->drained, drained);
}

/* ---- memory after bursts */

static void on_trim(struct timer *t)
{
    struct shard *s = CONTAINER_OF(t, struct shard, trim_timer);
    if (s->trim_peak > 256 && s->n_clients < s->trim_peak - s->trim_peak / 4) {
        buf_trim();
        malloc_trim(0);
        s->trim_peak = s->n_clients;
    }
    timer_set(s->host.loop, t, TRIM_INTERVAL_MS, on_trim);
}

/* Figures that cost more than a store. */
static void measure(struct shard *s)
{
    counter_set(s->host.counters, COUNTER_client_pool_bytes, pool_bytes(s->client_pool));
    counter_set(s->host.counters, COUNTER_directory_bytes, directory_bytes(s->host.directory));
    counter_set(s->host.counters, COUNTER_estate_bytes,
                estate_heap_used(s->host.estate) + estate_heap_idle(s->host.estate));
    upstream_measure(s->upstream);
}

static uint32_t loop_second(const struct shard *s)
{
    return (uint32_t)(loop_now_ms(s->host.loop) / 1000);
}

static void on_second(struct timer *t)
{
    struct shard *s = CONTAINER_OF(t, struct shard, second_timer);
    s->now_unix_s = (int64_t)time(NULL);
    s->second++;
    directory_set_now(s->host.directory, s->now_unix_s);
    age_turn(&s->ages, directory_next_seq(s->host.directory), loop_second(s));
    measure(s);
    log_flush();
    listeners_reap(s);
    estate_trim(s->host.estate); /* what the packets of a burst have left */
    timer_set(s->host.loop, t, 1000, on_second);
}

/* ---- drain */

static void set_phase(struct shard *s, enum node_phase phase)
{
    NODE_STORE(shard_published(s)->phase, phase);
}

/* Downwards through the dense array: whoever leaves is replaced by one that was closed already. */
static bool drain_slice(struct loop_task *task)
{
    struct shard *s = CONTAINER_OF(task, struct shard, drain_task);
    if (s->held)
        return true; /* shard_hold runs it again */
    if (s->drain_next > s->n_clients)
        s->drain_next = s->n_clients;
    while (s->drain_next > 0) {
        client_close(s->clients[--s->drain_next], CLOSE_shutdown, WS_CLOSE_GOING_AWAY, "going away");
        if (s->drain_next % DRAIN_SLICE == 0 &&
            (loop_turn_left_ns(s->host.loop) == 0 || client_room(&s->host, true) == 0))
            return s->drain_next == 0;
        if (s->drain_next > s->n_clients)
            s->drain_next = s->n_clients;
    }
    return true;
}

void shard_drain(struct shard *s)
{
    if (s->draining)
        return;
    s->draining = true;
    shard_shm_set_state(s->shm, SHARD_STATE_DRAINING);
    set_phase(s, NODE_LEAVES);
    listeners_stop(s);
    s->drain_next = s->n_clients;
    loop_task_add(s->host.loop, &s->drain_task);
}

/* When the node ends, the workers that we have are those of other shards' clients too. */
static bool others_need_us(const struct shard *s)
{
    if (NODE_LOAD(s->shared->draining) == 0)
        return false; /* it is only us: the others take our workers for gone */
    for (unsigned i = 0; i < s->host.node->n_shards; i++) {
        uint32_t phase = NODE_LOAD(s->shared->shards[i].phase);
        if (i != s->number && (phase == NODE_UP || phase == NODE_LEAVES))
            return true;
    }
    return false;
}

/* The last steps of a drain, looked at every turn: the workers have got everything. */
static bool finish_hook(struct loop_hook *hook)
{
    struct shard *s = CONTAINER_OF(hook, struct shard, finish_hook);
    if (!s->draining || s->finishing || s->n_clients > 0)
        return false;
    if (!upstream_is_flushed(s->upstream)) {
        if (NODE_LOAD(shard_published(s)->phase) == NODE_QUIET)
            set_phase(s, NODE_LEAVES); /* something came back: it may need the others' workers */
        return false;
    }
    if (NODE_LOAD(shard_published(s)->phase) != NODE_QUIET) {
        set_phase(s, NODE_QUIET);
        for (unsigned i = 0; i < s->host.node->n_shards; i++)
            if (i != s->number)
                host_wake(&s->host, i); /* it may wait for us */
    }
    /* Flushed still: what they sent before they said that they need us no more is seen now at the latest. */
    if (others_need_us(s) || !upstream_is_flushed(s->upstream))
        return false;
    s->finishing = true;
    upstream_finish(s->upstream);
    return false;
}

bool shard_is_drained(const struct shard *s)
{
    return s->finishing && upstream_is_finished(s->upstream);
}

/* ---- held: connections move to other processes (transfer.h) */

void shard_hold(struct shard *s, bool on)
{
    s->held = on;
    net_hold(s->host.net, on);
    upstream_hold(s->upstream, on);
    if (on)
        return;
    if (!list_is_empty(&s->tls_waiting))
        loop_task_add(s->host.loop, &s->tls_task);
    if (s->drain_next > 0)
        loop_task_add(s->host.loop, &s->drain_task);
}

void shard_pause_accept(struct shard *s, bool on)
{
    for (unsigned i = 0; i < s->n_listeners; i++) {
        if (s->listeners[i].listener.handle == 0)
            continue;
        if (on)
            net_listener_pause(s->host.net, &s->listeners[i].listener);
        else
            net_listener_resume(s->host.net, &s->listeners[i].listener);
    }
}

const char *shard_unrest(const struct shard *s)
{
    if (s->sweep_next > 0)
        return "after a reload, clients are being looked at";
    if (s->import != NULL)
        return "clients that were taken over last still go on";
    return upstream_unrest(s->upstream);
}

void shard_forget(struct shard *s)
{
    shard_import_fini(s);
    listeners_stop(s);
    while (s->n_clients > 0)
        client_forget(s->clients[s->n_clients - 1]);
    upstream_forget_all(s->upstream);
}

/* ---- beginning and end */

/* Predecessors have died faster than their clients could be told of: the oldest is given up. */
static void give_up_oldest(struct shard *s, size_t bytes)
{
    struct legacy *oldest = estate_inherit(s->host.estate_mem, bytes);
    LOG(LOG_ERROR, "succession_given_up", "clients=%u hint=\"this shard dies again and again: see its log\"",
        legacy_clients_left(oldest));
    shard_count(s, COUNTER_clients_given_up, legacy_clients_left(oldest));
    legacy_free(oldest);
}

static int open_estate(struct shard *s, const struct node *node)
{
    int err = 0;
    s->host.estate_mem = node->estates[s->number];
    for (unsigned i = 0; s->host.estate == NULL && i < 2; i++) {
        if (err == -EBUSY)
            give_up_oldest(s, node->estate_bytes);
        s->host.estate = estate_open(s->host.estate_mem, node->estate_bytes, node->max_clients,
                                     node->estate_heap_bytes, &err);
    }
    return s->host.estate != NULL ? 0 : err;
}

static int open_directory(struct shard *s, const struct shard_options *opt)
{
    s->host.directory = directory_new(s->number, opt->shm->next_seq, s->host.estate);
    if (s->host.directory == NULL)
        return -ENOMEM;
    if (opt->node->n_shards > 1) /* else nobody asks */
        directory_set_filters(s->host.directory, &s->shared->names[s->number].uids,
                              &s->shared->names[s->number].groups);
    directory_set_home(s->host.directory, &s->shared->home);
    directory_set_reuse(s->host.directory, opt->shm->id_block_left_unix_s,
                        (uint32_t)shard_config(s)->id_reuse_time, (int64_t)time(NULL));
    return 0;
}

static int build(struct shard *s, const struct shard_options *opt)
{
    s->client_pool = pool_new("clients", sizeof(struct client), opt->node->max_clients + SHARD_REFUSALS_MAX);
    s->ref_pool = pool_new("queued", sizeof(struct out_ref), 0);
    if (s->client_pool == NULL || s->ref_pool == NULL)
        return -ENOMEM;
    int err = open_estate(s, opt->node);
    if (err == 0)
        err = open_directory(s, opt);
    if (err != 0)
        return err;
    struct gatewayworker_options gw = {
        .host = &s->host, .listens = opt->is_link, .internal_fd = opt->internal_fd, .seed = opt->seed};
    s->upstream = gatewayworker_new(&gw, &err);
    if (s->upstream == NULL)
        return err;
    if (opt->is_edge && (err = listeners_make(s, opt)) != 0)
        return err;
    err = edge_new(s, opt);
    return err == 0 && opt->is_edge ? listeners_listen(s, opt) : err;
}

/* The order in which they are run: the upstream reads what other shards sent (its own hooks are there
 * already), clients are written, then workers and other shards. */
static void add_hooks(struct shard *s)
{
    loop_hook_add(s->host.loop, &s->flush_hook);
    upstream_start(s->upstream);
    loop_hook_add(s->host.loop, &s->finish_hook);
}

struct shard *shard_new(const struct shard_options *opt, int *ret_err)
{
    struct shard *s = calloc(1, sizeof *s);
    if (s == NULL) {
        *ret_err = -ENOMEM;
        return NULL;
    }
    s->host = (struct upstream_host){
        .ops = &host_ops,
        .config = opt->config,
        .counters = &opt->shm->counters,
        .histograms = &opt->shm->histograms,
        .crash = opt->crash,
        .loop = opt->loop,
        .net = opt->net,
        .node = opt->node,
        .shard = opt->shm->shard,
        .wake_always = opt->wake_always,
    };
    s->shm = opt->shm;
    s->shm_of = opt->shm_of;
    s->shared = opt->node->shared;
    s->number = opt->shm->shard;
    s->wake = opt->wake;
    s->wake_ctx = opt->wake_ctx;
    s->max_clients = opt->node->max_clients;
    s->write_ns = WRITE_NS_FIRST;
    s->now_unix_s = (int64_t)time(NULL);
    s->drained = (enum node_drained)NODE_LOAD(shard_published(s)->drained); /* of a predecessor of ours */
    list_init(&s->tls_waiting);
    list_init(&s->tls_begun);
    s->flush_hook.run = client_flush_all;
    s->drain_task.run = drain_slice;
    s->finish_hook.run = finish_hook;
    int err = build(s, opt);
    if (err != 0) {
        shard_free(s);
        *ret_err = err;
        return NULL;
    }
    age_init(&s->ages, directory_next_seq(s->host.directory), loop_second(s));
    timer_set(opt->loop, &s->trim_timer, TRIM_INTERVAL_MS, on_trim);
    timer_set(opt->loop, &s->second_timer, 1000, on_second);
    add_hooks(s);
    if (opt->takes_over)
        shard_hold(s, true);
    set_phase(s, NODE_UP);
    return s;
}

void shard_cut(struct shard *s)
{
    listeners_stop(s);
    while (s->n_clients > 0)
        client_destroy(s->clients[s->n_clients - 1], CLOSE_shutdown, true);
}

void shard_free(struct shard *s)
{
    if (s == NULL)
        return;
    shard_import_fini(s);
    shard_cut(s);
    upstream_free(s->upstream);
    timer_cancel(s->host.loop, &s->trim_timer);
    timer_cancel(s->host.loop, &s->second_timer);
    loop_task_remove(s->host.loop, &s->drain_task);
    loop_hook_remove(s->host.loop, &s->flush_hook);
    loop_hook_remove(s->host.loop, &s->finish_hook);
    listeners_fini(s);
    edge_free(s);
    directory_free(s->host.directory);
    estate_close(s->host.estate);
    pool_free(s->client_pool);
    pool_free(s->ref_pool);
    free(s->clients);
    free(s->dirty);
    free(s);
}

struct net_listener *shard_listener(struct shard *s, unsigned i)
{
    if (i == SHARD_INTERNAL)
        return upstream_listener(s->upstream);
    return i < s->n_listeners && s->listeners[i].config != NULL ? &s->listeners[i].listener : NULL;
}

bool shard_listens_on(const struct shard *s, unsigned i, uint32_t socket)
{
    return i < s->n_listeners && s->listeners[i].listener.handle != 0 && s->listeners[i].socket == socket;
}

struct upstream *shard_upstream(struct shard *s)
{
    return s->upstream;
}

struct directory *shard_directory(struct shard *s)
{
    return s->host.directory;
}

uint32_t shard_connections(const struct shard *s)
{
    return s->n_clients;
}

const char *shard_check(const struct shard *s)
{
    uint32_t announced = 0;
    uint64_t queued = 0, held = 0;
    for (uint32_t i = 0; i < s->n_clients; i++) {
        const struct client *c = s->clients[i];
        announced += c->announced;
        queued += c->out_bytes;
        held += c->in != NULL ? c->in->held : 0;
        held += c->edge != NULL ? c->edge->record_held : 0;
        if (c->up.host_position != i)
            return "a client's position is not its own";
        if (c->dirty_position != 0 && s->dirty[c->dirty_position - 1] != c)
            return "a client's place in the dirty list is not its own";
        if (c->announced != (directory_find(s->host.directory, c->up.member.id) == &c->up.member))
            return "announced, but not in the directory, or the other way round";
    }
    if (announced != directory_count(s->host.directory))
        return "the directory has other members than the clients that were announced";
    if (held != s->input_bytes)
        return "memory of unfinished input does not add up";
    if (queued != s->queued_bytes)
        return "queued bytes of clients do not add up";
    if (counter_get(s->host.counters, COUNTER_clients) != s->n_clients)
        return "the gauge of clients is wrong";
    return directory_check(s->host.directory);
}
