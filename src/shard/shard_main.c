// SPDX-License-Identifier: MIT
/* A shard process: a shard on the kernel's sockets, its signals, its end. */
#include "shard/shard.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "common/keepalive.h"
#include "common/shard_plan.h"
#include "common/signal_fd.h"
#include "loop/loop.h"
#include "net/net.h"
#include "net/net_epoll.h"
#include "ring/ring_bell.h"
#include "shard/control.h"
#include "shard/handoff.h"
#include "shard/new_settings.h"
#include "shard/upgrade.h"

/* After drain_timeout: how long the workers get to hear of the clients that were cut. */
#define CUT_MS 2000

struct process {
    struct loop *loop;
    struct net *net;
    struct shard *shard;
    struct shard_shm *shm;
    const struct config *cfg;
    int signal_fd;
    struct net_watch signals;
    struct new_settings settings;
    const struct node *node;
    struct handoff *handoff; /* NULL: one shard */
    struct control *control; /* NULL: nobody asks */
    struct net_watch wakes;
    uint32_t deaths; /* of shards, as far as the handoff knows */
    struct timer drain_deadline, pulse, second;
    struct node_shm *node_shm;
    struct shard_upgrade *upgrade;
    struct loop_hook hook;
    bool cut; /* drain_timeout is over */
};

static pid_t supervisor_pid;

static void on_drain_deadline(struct timer *t)
{
    struct process *p = CONTAINER_OF(t, struct process, drain_deadline);
    if (p->cut) {
        loop_stop(p->loop);
        return;
    }
    LOG(LOG_WARN, "drain_timeout", "clients=%u", shard_connections(p->shard));
    p->cut = true;
    shard_cut(p->shard); /* what workers are to be told of that still goes out */
    timer_set(p->loop, t, CUT_MS, on_drain_deadline);
}

static void drain(struct process *p)
{
    if (getppid() != supervisor_pid)
        NODE_STORE(p->node->shared->draining, 1); /* it is dead: all shards end */
    if (timer_is_set(&p->drain_deadline))
        return; /* systemd tells every process, and the supervisor tells us too; INT ends at once */
    LOG(LOG_NOTICE, "shard_drains", "clients=%u limit_s=%llu", shard_connections(p->shard),
        (unsigned long long)p->cfg->gateway.drain_timeout);
    shard_drain(p->shard);
    new_settings_close_sockets(&p->settings);
    if (p->handoff != NULL)
        handoff_look(p->handoff);
    timer_set(p->loop, &p->drain_deadline, p->cfg->gateway.drain_timeout * 1000, on_drain_deadline);
}

static void on_signal(struct net_watch *w)
{
    struct process *p = CONTAINER_OF(w, struct process, signals);
    struct signalfd_siginfo info;
    while (read(p->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        switch (info.ssi_signo) {
        case SIGTERM:
            shard_upgrade_settle(p->upgrade);
            drain(p);
            break;
        case SIGINT:
            shard_upgrade_settle(p->upgrade);
            LOG(LOG_NOTICE, "shard_stops", "reason=INT clients=%u", shard_connections(p->shard));
            loop_stop(p->loop);
            break;
        case SIGUSR1: log_reopen(); break;
        default: break;
        }
    }
}

static bool end_of_turn(struct loop_hook *hook)
{
    struct process *p = CONTAINER_OF(hook, struct process, hook);
    struct loop_stats stats;
    loop_stats_get(p->loop, &stats);
    __atomic_store_n(&p->shm->turns, stats.turns, __ATOMIC_RELAXED);
    __atomic_store_n(&p->shm->turn_longest_ns, stats.turn_ns_longest, __ATOMIC_RELAXED);
    __atomic_store_n(&p->shm->turn_cpu_longest_ns, stats.turn_cpu_ns_longest, __ATOMIC_RELAXED);
    histogram_observe(&p->shm->histograms, turn, stats.turn_ns_last); /* this one's is not known yet */
    if (shard_is_drained(p->shard))
        loop_stop(p->loop);
    shard_upgrade_turn(p->upgrade);
    return false;
}

static int watch_signals(struct process *p)
{
    p->signal_fd = signal_fd_open();
    if (p->signal_fd < 0)
        return p->signal_fd;
    p->signals.readable = on_signal;
    return net_epoll_watch_add(p->net, &p->signals, p->signal_fd);
}

/* ---- once a second */

static void on_second(struct timer *t)
{
    struct process *p = CONTAINER_OF(t, struct process, second);
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    __atomic_store_n(&p->shm->cpu_ns, (uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec,
                     __ATOMIC_RELAXED);
    node_shm_take_log_level(p->node_shm);
    timer_set(p->loop, t, 1000, on_second);
}

/* ---- the other shards */

static void wake_shard(void *ctx, unsigned to)
{
    struct process *p = ctx;
    ring_wake(p->node->wake_fds[to]);
}

/* Woken: the turn itself is what was wanted, or a shard has died. */
static void on_wake(struct net_watch *w)
{
    struct process *p = CONTAINER_OF(w, struct process, wakes);
    uint32_t deaths = NODE_LOAD(p->node->shared->deaths);
    if (deaths == p->deaths)
        return;
    p->deaths = deaths;
    handoff_look(p->handoff);
}

static uint64_t shards_with(const struct config *cfg, unsigned n,
                            bool (*has_role)(const struct config *, unsigned))
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < n; i++)
        bits |= (uint64_t)has_role(cfg, i) << i;
    return bits;
}

static int join_node(struct process *p, const struct shard_start *start)
{
    int err = 0;
    /* One shard alone gets connections of nobody, but what its predecessors had in more sockets than it has.
     */
    if (p->node->n_shards == 1 && start->n_predecessors <= 1)
        return 0;
    struct handoff_options opt = {
        .me = start->shard,
        .node = p->node,
        .edges = shards_with(p->cfg, p->node->n_shards, config_shard_is_edge),
        .links = shards_with(p->cfg, p->node->n_shards, config_shard_is_link),
        .loop = p->loop,
        .net = p->net,
        .counters = &p->shm->counters,
        .clients = start->listeners != NULL ? p->settings.listeners : NULL,
        .internal = shard_listener(p->shard, SHARD_INTERNAL),
    };
    p->handoff = handoff_new(&opt, &err);
    if (p->handoff == NULL)
        return err;
    p->settings.handoff = p->handoff;
    p->wakes.readable = on_wake;
    return net_epoll_watch_add_edge(p->net, &p->wakes, p->node->wake_fds[start->shard]);
}

static struct shard_shm *shm_of(void *ctx, unsigned shard)
{
    const struct process *p = ctx;
    return node_shm_shard(p->node_shm, shard);
}

/* The supervisor looks whether turns are taken: one at least every so often, also when nothing happens. */
static void on_pulse(struct timer *t)
{
    struct process *p = CONTAINER_OF(t, struct process, pulse);
    timer_set(p->loop, t, p->cfg->gateway.stuck_timeout * 1000 / 4, on_pulse);
}

/* Clients and workers are served from now on. */
static void serves(void *ctx)
{
    struct process *p = ctx;
    shard_shm_set_state(p->shm, SHARD_STATE_RUNNING);
}

static int join_upgrade(struct process *p, const struct shard_start *start)
{
    int err = 0;
    struct shard_upgrade_options opt = {
        .start = start,
        .shard = p->shard,
        .loop = p->loop,
        .net = p->net,
        .handoff = p->handoff,
        .serves = serves,
        .ctx = p,
    };
    p->upgrade = shard_upgrade_new(&opt, &err);
    return err;
}

static unsigned count_edges(const struct shard_start *start)
{
    return (unsigned)__builtin_popcountll(
        shards_with(start->cfg, start->node->n_shards, config_shard_is_edge));
}

static int open_shard(struct process *p, const struct shard_start *start)
{
    int err = 0;
    uint64_t seed = 0;
    p->loop = loop_new(&loop_clock_monotonic, start->cfg->gateway.turn_max * 1000000);
    if (p->loop == NULL)
        return -ENOMEM;
    p->net = net_epoll_new(p->loop, &err);
    if (p->net == NULL)
        return err;
    if ((err = watch_signals(p)) != 0)
        return err;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = (uint64_t)getpid();
    struct shard_options opt = {
        .config = start->cfg,
        .node = start->node,
        .loop = p->loop,
        .net = p->net,
        .shm = start->shm,
        .is_edge = start->listeners != NULL,
        .is_link = start->internal_fd >= 0,
        .listeners = start->listeners,
        .internal_fd = start->internal_fd,
        .seed = seed,
        .files = start->files,
        .guard_shm = start->guard,
        .tickets = start->tickets,
        .crash = start->crash,
        .n_edges = count_edges(start),
        .wake = wake_shard,
        .wake_ctx = p,
        .shm_of = shm_of,
        .takes_over = start->n_predecessors > 0,
    };
    const struct net_keepalive keepalive = keepalive_of_clients(start->cfg);
    net_set_keepalive(p->net, &keepalive);
    p->shard = shard_new(&opt, &err);
    if (p->shard == NULL)
        return err;
    if ((err = new_settings_begin(&p->settings, start, p->shard, p->loop, p->net)) != 0)
        return err;
    if (start->control_fd >= 0) {
        p->control = control_new(p->shard, p->net, start->control_fd, &err);
        if (p->control == NULL)
            return err;
    }
    err = join_node(p, start);
    return err == 0 ? join_upgrade(p, start) : err;
}

static void close_shard(struct process *p)
{
    if (p->loop != NULL) {
        timer_cancel(p->loop, &p->drain_deadline);
        timer_cancel(p->loop, &p->pulse);
        timer_cancel(p->loop, &p->second);
    }
    shard_upgrade_free(p->upgrade);
    control_free(p->control);
    new_settings_end(&p->settings);
    handoff_free(p->handoff);
    shard_free(p->shard);
    if (p->net != NULL && p->wakes.handle != 0)
        net_epoll_watch_remove(p->net, &p->wakes);
    if (p->net != NULL && p->signals.handle != 0)
        net_epoll_watch_remove(p->net, &p->signals);
    if (p->signal_fd >= 0)
        close(p->signal_fd);
    if (p->net != NULL)
        net_free(p->net);
    if (p->loop != NULL)
        loop_free(p->loop);
}

int shard_main(const struct shard_start *start)
{
    struct process p = {.cfg = start->cfg,
                        .shm = start->shm,
                        .node = start->node,
                        .node_shm = start->node_shm,
                        .signal_fd = -1};
    supervisor_pid = getppid();
    counters_clear_gauges(&start->shm->counters);
    int err = open_shard(&p, start);
    if (err != 0) {
        LOG(LOG_ERROR, "shard_start_failed", "error=\"%s\"", strerror(-err));
        close_shard(&p);
        return 1;
    }
    p.hook.run = end_of_turn;
    loop_hook_add(p.loop, &p.hook);
    if (p.cfg->gateway.stuck_timeout > 0)
        on_pulse(&p.pulse);
    on_second(&p.second);
    if (start->n_predecessors == 0)
        serves(&p);
    LOG(LOG_NOTICE, "shard_runs", "listeners=%u", start->cfg->n_listeners);
    loop_run(p.loop);
    loop_hook_remove(p.loop, &p.hook);
    close_shard(&p);
    return 0;
}
