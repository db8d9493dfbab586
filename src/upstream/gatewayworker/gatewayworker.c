// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/gatewayworker.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "upstream/gatewayworker/gatewayworker_priv.h"

/* How long workers get to read what was written to them and to close, at the end. */
#define FINISH_MS 2000

static bool has_worker(const struct upstream *u)
{
    return CONTAINER_OF(u, struct gatewayworker, up)->n_workers > 0;
}

/* One that is gone: nothing of ours waits for where it was. */
static bool worker_is_flushed(const struct worker *w)
{
    return !w->unsettled || (w->n_clients == 0 && w->held.bytes == 0 && w->returned.bytes == 0);
}

static bool is_flushed(const struct upstream *u)
{
    const struct gatewayworker *gw = CONTAINER_OF(u, struct gatewayworker, up);
    /* Without a worker, what is parked has nowhere to go. */
    if (gw->n_workers > 0 &&
        (!list_is_empty(&gw->parked) || gw->homeless.n_events > 0 || gw->succession != NULL))
        return false;
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->link != NULL && gw->workers[i]->link->queue.bytes > 0)
            return false;
    for (const struct list *node = gw->gone.next; node != &gw->gone; node = node->next)
        if (!worker_is_flushed(CONTAINER_OF(node, struct worker, gone)))
            return false;
    return peers_have_all_back(gw) && peers_are_flushed(gw);
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
    const struct gatewayworker *gw = CONTAINER_OF(u, struct gatewayworker, up);
    return list_is_empty(&gw->links) && peers_are_flushed(gw);
}

static bool end_of_turn(struct loop_hook *hook)
{
    struct gatewayworker *gw = CONTAINER_OF(hook, struct gatewayworker, flush_hook);
    struct upstream_host *host = gw->up.host;
    counter_set(host->counters, COUNTER_uids, directory_uids(host->directory));
    counter_set(host->counters, COUNTER_groups, directory_groups(host->directory));
    return link_flush_all(hook);
}

/* Workers first lose their links; what they leave behind waits for nobody. */
static void free_links(struct gatewayworker *gw)
{
    while (!list_is_empty(&gw->links))
        link_close(CONTAINER_OF(gw->links.next, struct link, node), false);
    while (gw->n_workers > 0)
        worker_forget(gw->workers[gw->n_workers - 1]);
    while (!list_is_empty(&gw->gone))
        worker_forget(CONTAINER_OF(gw->gone.next, struct worker, gone));
}

static void gatewayworker_free(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    struct loop *loop = u->host->loop;
    if (gw->listener.handle != 0)
        net_listener_close(u->host->net, &gw->listener);
    free_links(gw);
    import_free(gw);
    succession_free(gw);
    park_free_all(gw);
    peers_close(gw);
    timer_cancel(loop, &gw->parked_timer);
    timer_cancel(loop, &gw->ping_timer);
    timer_cancel(loop, &gw->settle_timer);
    timer_cancel(loop, &gw->finish_timer);
    steer_fini(gw);
    loop_task_remove(loop, &gw->rebind_task);
    loop_task_remove(loop, &gw->resume_task);
    loop_task_remove(loop, &gw->unpark_task);
    loop_task_remove(loop, &gw->waiting_task);
    loop_hook_remove(loop, &gw->flush_hook);
    gw_args_fini(&gw->args);
    free(gw->own_histograms);
    free(gw->own_crash);
    free(gw->workers);
    free(gw->numbers);
    free(gw->link_table);
    free(gw);
}

static void start(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    loop_hook_add(u->host->loop, &gw->flush_hook);
    /* Also uids that are taken over need marks. */
    directory_set_uid_marks(u->host->directory, gw_config(gw)->one_connection_per_uid);
    peers_start(gw);
}

static struct net_listener *listener(struct upstream *u)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    return gw->listener.ops != NULL ? &gw->listener : NULL;
}

static const struct upstream_ops gatewayworker_ops = {
    .listener = listener,
    .start = start,
    .client_connected = event_connected,
    .client_handshaken = event_handshaken,
    .client_message = event_message,
    .client_blocked = event_client_blocked,
    .client_closed = event_closed,
    .has_worker = has_worker,
    .is_flushed = is_flushed,
    .list_workers = inspect_workers,
    .list_tables = inspect_tables,
    .describe_client = inspect_client,
    .drain_worker = steer_drain,
    .rebalance = steer_rebalance,
    .check = check_slice,
    .measure = inspect_measure,
    .finish = finish,
    .is_finished = is_finished,
    .hold = hold_all,
    .unrest = hold_unrest,
    .export_links = export_links,
    .export_client = export_client,
    .export_ended = export_ended,
    .export_rest = export_rest,
    .import = import_record,
    .workers = import_workers,
    .import_client = import_client,
    .import_done = import_done,
    .forget_client = export_forget_client,
    .forget_all = export_forget_all,
    .forget_given = export_forget_given,
    .forget_taken = import_forget_taken,
    .free = gatewayworker_free,
};

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
    list_init(&gw->leaving);
    list_init(&gw->late_closes);
    link_queue_init(&gw->homeless.queue, opt->host->estate);
    steer_init(gw);
    /* PHP's rule: workers on this machine need no keep-alive. */
    if (gw->head.local_ip != UINT32_C(0x7f000001))
        timer_set(opt->host->loop, &gw->ping_timer, gw_config(gw)->worker_ping_interval * 1000,
                  worker_ping_all);
}

/* Who does not want to see anything gets places to write to that nobody reads, so that nobody has to ask. */
static int open_figures(struct gatewayworker *gw)
{
    const struct upstream_host *host = gw->up.host;
    if (host->histograms == NULL)
        gw->own_histograms = calloc(1, sizeof *gw->own_histograms);
    if (host->crash == NULL)
        gw->own_crash = calloc(1, sizeof *gw->own_crash);
    gw->histograms = host->histograms != NULL ? host->histograms : gw->own_histograms;
    gw->crash = host->crash != NULL ? host->crash : gw->own_crash;
    return gw->histograms != NULL && gw->crash != NULL ? 0 : -ENOMEM;
}

struct upstream *gatewayworker_new(const struct gatewayworker_options *opt, int *ret_err)
{
    struct gatewayworker *gw = calloc(1, sizeof *gw);
    if (gw == NULL) {
        *ret_err = -ENOMEM;
        return NULL;
    }
    init(gw, opt);
    int err = open_figures(gw);
    if (err == 0)
        err = peers_open(gw);
    if (err == 0 && opt->listens)
        err = link_listen(gw, opt->internal_fd);
    if (err == 0)
        err = succession_begin(gw);
    if (err != 0) {
        gatewayworker_free(&gw->up);
        *ret_err = err;
        return NULL;
    }
    return &gw->up;
}
