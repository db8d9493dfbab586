// SPDX-License-Identifier: MIT
#include "shard/shard.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/pool.h"
#include "shard/shard_priv.h"
#include "upstream/gatewayworker/gatewayworker.h"

/* How often it is looked whether a burst is over and memory can go back. */
#define TRIM_INTERVAL_MS 5000
/* Clients closed between two looks at the clock while draining. */
#define DRAIN_SLICE 64
/* What one client's write is taken to cost before any was measured. */
#define WRITE_NS_FIRST 3000

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
    bool try_later = reason == CLOSE_no_worker || reason == CLOSE_worker_slow;
    unsigned code = reason == CLOSE_too_big ? WS_CLOSE_TOO_BIG
                    : try_later             ? WS_CLOSE_TRY_LATER
                                            : WS_CLOSE_INTERNAL;
    client_close(client_of(up), reason, code, try_later ? "try again later" : NULL);
}

static const struct upstream_host_ops host_ops = {
    .send = client_send,
    .kick = host_kick,
    .destroy = host_destroy,
    .close = host_close,
    .resume = client_resume,
    .room = client_room,
};

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

/* ---- drain */

/* Downwards through the dense array: whoever leaves is replaced by one that was closed already. */
static bool drain_slice(struct loop_task *task)
{
    struct shard *s = CONTAINER_OF(task, struct shard, drain_task);
    if (s->drain_next > s->n_clients)
        s->drain_next = s->n_clients;
    while (s->drain_next > 0) {
        client_close(s->clients[--s->drain_next], CLOSE_shutdown, WS_CLOSE_GOING_AWAY, "going away");
        if (s->drain_next % DRAIN_SLICE == 0 &&
            (loop_turn_left_ns(s->host.loop) == 0 || client_room(&s->host) == 0))
            return s->drain_next == 0;
        if (s->drain_next > s->n_clients)
            s->drain_next = s->n_clients;
    }
    return true;
}

static void close_listeners(struct shard *s)
{
    for (unsigned i = 0; i < s->n_listeners; i++)
        if (s->listeners[i].listener.handle != 0)
            net_listener_close(s->host.net, &s->listeners[i].listener);
}

void shard_drain(struct shard *s)
{
    if (s->draining)
        return;
    s->draining = true;
    shard_shm_set_state(s->shm, SHARD_STATE_DRAINING);
    close_listeners(s);
    s->drain_next = s->n_clients;
    loop_task_add(s->host.loop, &s->drain_task);
}

/* The last step of a drain, looked at every turn: the workers have got everything. */
static bool finish_hook(struct loop_hook *hook)
{
    struct shard *s = CONTAINER_OF(hook, struct shard, finish_hook);
    if (s->draining && !s->finishing && s->n_clients == 0 && upstream_is_flushed(s->upstream)) {
        s->finishing = true;
        upstream_finish(s->upstream);
    }
    return false;
}

bool shard_is_drained(const struct shard *s)
{
    return s->finishing && upstream_is_finished(s->upstream);
}

/* ---- beginning and end */

static int parse_listen_addr(const struct config_listen *l, struct net_addr *ret)
{
    char text[NET_ADDR_STRLEN + 16];
    bool v6 = strchr(l->address, ':') != NULL;
    snprintf(text, sizeof text, v6 ? "[%s]:%u" : "%s:%u", l->address, (unsigned)l->port);
    return net_addr_parse(text, ret);
}

static int listen_one(struct shard *s, struct shard_listener *l, int fd)
{
    l->listener.ops = &client_listener_ops;
    if (fd >= 0)
        return net_listen_fd(s->host.net, &l->listener, fd);
    struct net_addr addr;
    int err = parse_listen_addr(l->config, &addr);
    return err != 0 ? err : net_listen(s->host.net, &l->listener, &addr, (int)l->config->backlog);
}

static int listen_all(struct shard *s, const int *fds)
{
    const struct config *cfg = s->host.config;
    s->listeners = calloc(cfg->n_listeners, sizeof *s->listeners);
    if (s->listeners == NULL)
        return -ENOMEM;
    s->n_listeners = cfg->n_listeners;
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        s->listeners[i].shard = s;
        s->listeners[i].config = &cfg->listen[i];
        int err = listen_one(s, &s->listeners[i], fds != NULL ? fds[i] : -1);
        if (err != 0)
            return err;
    }
    return 0;
}

static int build(struct shard *s, const struct shard_options *opt)
{
    s->client_pool = pool_new("clients", sizeof(struct client), opt->max_clients);
    s->ref_pool = pool_new("queued", sizeof(struct out_ref), 0);
    s->host.directory = directory_new(opt->shm->shard, opt->shm->next_seq);
    if (s->client_pool == NULL || s->ref_pool == NULL || s->host.directory == NULL)
        return -ENOMEM;
    int err;
    struct gatewayworker_options gw = {.host = &s->host, .internal_fd = opt->internal_fd, .seed = opt->seed};
    s->upstream = gatewayworker_new(&gw, &err);
    return s->upstream == NULL ? err : listen_all(s, opt->listen_fds);
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
        .loop = opt->loop,
        .net = opt->net,
    };
    s->shm = opt->shm;
    s->max_clients = opt->max_clients;
    s->write_ns = WRITE_NS_FIRST;
    s->flush_hook.run = client_flush_all;
    s->drain_task.run = drain_slice;
    s->finish_hook.run = finish_hook;
    loop_hook_add(opt->loop, &s->flush_hook);
    timer_set(opt->loop, &s->trim_timer, TRIM_INTERVAL_MS, on_trim);
    int err = build(s, opt);
    loop_hook_add(opt->loop, &s->finish_hook); /* behind the upstream's, which writes to the workers */
    if (err != 0) {
        shard_free(s);
        *ret_err = err;
        return NULL;
    }
    return s;
}

void shard_free(struct shard *s)
{
    if (s == NULL)
        return;
    close_listeners(s);
    while (s->n_clients > 0)
        client_destroy(s->clients[s->n_clients - 1], CLOSE_shutdown, true);
    upstream_free(s->upstream);
    timer_cancel(s->host.loop, &s->trim_timer);
    loop_task_remove(s->host.loop, &s->drain_task);
    loop_hook_remove(s->host.loop, &s->flush_hook);
    loop_hook_remove(s->host.loop, &s->finish_hook);
    directory_free(s->host.directory);
    pool_free(s->client_pool);
    pool_free(s->ref_pool);
    free(s->listeners);
    free(s->clients);
    free(s->dirty);
    free(s);
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
        if (c->position != i)
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
