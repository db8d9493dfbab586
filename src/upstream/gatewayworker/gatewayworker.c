// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/gatewayworker.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "upstream/gatewayworker/gatewayworker_priv.h"

/* How long workers get to read what was written to them and to close, at the end. */
#define FINISH_MS 2000

static bool is_flushed(const struct upstream *u)
{
    const struct gatewayworker *gw = CONTAINER_OF(u, struct gatewayworker, up);
    /* Without a worker, what is parked has nowhere to go. */
    if (gw->n_workers > 0 && !list_is_empty(&gw->parked))
        return false;
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->link->queue.bytes > 0)
            return false;
    return true;
}

static void on_finish_timeout(struct timer *t)
{
    struct gatewayworker *gw = CONTAINER_OF(t, struct gatewayworker, finish_timer);
    while (!list_is_empty(&gw->links))
        link_close(CONTAINER_OF(gw->links.next, struct link, node), false);
}

/* Closing at once could turn into a reset, which takes what workers have not read yet. */
static void finish(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    if (gw->listener.handle != 0)
        net_listener_close(u->host->net, &gw->listener);
    for (struct list *node = gw->links.next; node != &gw->links;) {
        struct link *l = CONTAINER_OF(node, struct link, node);
        node = node->next;
        link_end(l);
    }
    timer_set(u->host->loop, &gw->finish_timer, FINISH_MS, on_finish_timeout);
}

static bool is_finished(const struct upstream *u)
{
    return list_is_empty(&CONTAINER_OF(u, struct gatewayworker, up)->links);
}

static bool end_of_turn(struct loop_hook *hook)
{
    struct gatewayworker *gw = CONTAINER_OF(hook, struct gatewayworker, flush_hook);
    struct upstream_host *host = gw->up.host;
    counter_set(host->counters, COUNTER_uids, directory_uids(host->directory));
    counter_set(host->counters, COUNTER_groups, directory_groups(host->directory));
    return link_flush_all(hook);
}

static void free_registers(struct gatewayworker *gw)
{
    for (unsigned i = 0; i < gw->n_registers; i++)
        register_client_free(gw->registers[i]);
    free(gw->registers);
}

/* Workers first lose their links; what they leave behind waits for nobody. */
static void free_links(struct gatewayworker *gw)
{
    while (!list_is_empty(&gw->links))
        link_close(CONTAINER_OF(gw->links.next, struct link, node), false);
    while (!list_is_empty(&gw->gone)) {
        struct worker *w = CONTAINER_OF(gw->gone.next, struct worker, gone);
        worker_unbind(w->clients[w->n_clients - 1]);
    }
}

static void gatewayworker_free(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    struct loop *loop = u->host->loop;
    if (gw->listener.handle != 0)
        net_listener_close(u->host->net, &gw->listener);
    free_registers(gw);
    free_links(gw);
    park_free_all(gw);
    timer_cancel(loop, &gw->parked_timer);
    timer_cancel(loop, &gw->ping_timer);
    timer_cancel(loop, &gw->settle_timer);
    timer_cancel(loop, &gw->finish_timer);
    loop_task_remove(loop, &gw->rebind_task);
    loop_task_remove(loop, &gw->resume_task);
    loop_task_remove(loop, &gw->unpark_task);
    loop_task_remove(loop, &gw->waiting_task);
    loop_hook_remove(loop, &gw->flush_hook);
    gw_args_fini(&gw->args);
    free(gw->workers);
    free(gw);
}

static const struct upstream_ops gatewayworker_ops = {
    .client_connected = event_connected,
    .client_handshaken = event_handshaken,
    .client_message = event_message,
    .client_blocked = event_client_blocked,
    .client_closed = event_closed,
    .is_flushed = is_flushed,
    .finish = finish,
    .is_finished = is_finished,
    .free = gatewayworker_free,
};

static int start_registers(struct gatewayworker *gw)
{
    const struct config_addresses *addresses = &gw_config(gw)->register_address;
    gw->registers = calloc(addresses->n, sizeof(struct register_client *));
    if (gw->registers == NULL && addresses->n > 0)
        return -ENOMEM;
    for (size_t i = 0; i < addresses->n; i++) {
        struct register_client *r = register_client_new(gw->up.host, &addresses->list[i]);
        if (r == NULL)
            return -ENOMEM;
        gw->registers[gw->n_registers++] = r;
    }
    return 0;
}

static void init(struct gatewayworker *gw, const struct gatewayworker_options *opt)
{
    gw->up.ops = &gatewayworker_ops;
    gw->up.host = opt->host;
    gw->random = opt->seed | 1;
    gw->head.local_ip = gw_config(gw)->lan_ip;
    gw->head.local_port = (uint16_t)gw_config(gw)->start_port;
    list_init(&gw->links);
    list_init(&gw->dirty);
    list_init(&gw->waiting);
    list_init(&gw->gone);
    list_init(&gw->parked);
    list_init(&gw->parked_timed);
    gw->rebind_task.run = worker_rebind_slice;
    gw->resume_task.run = worker_resume_slice;
    gw->unpark_task.run = park_release_slice;
    gw->waiting_task.run = link_run_waiting;
    gw->flush_hook.run = end_of_turn;
    loop_hook_add(opt->host->loop, &gw->flush_hook);
    /* PHP's rule: workers on this machine need no keep-alive. */
    if (gw->head.local_ip != UINT32_C(0x7f000001))
        timer_set(opt->host->loop, &gw->ping_timer, gw_config(gw)->worker_ping_interval * 1000,
                  worker_ping_all);
}

struct upstream *gatewayworker_new(const struct gatewayworker_options *opt, int *ret_err)
{
    struct gatewayworker *gw = calloc(1, sizeof *gw);
    if (gw == NULL) {
        *ret_err = -ENOMEM;
        return NULL;
    }
    init(gw, opt);
    int err = link_listen(gw, opt->internal_fd);
    if (err == 0)
        err = start_registers(gw);
    if (err != 0) {
        gatewayworker_free(&gw->up);
        *ret_err = err;
        return NULL;
    }
    return &gw->up;
}
