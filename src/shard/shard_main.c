// SPDX-License-Identifier: MIT
/* A shard process: a shard on the kernel's sockets, its signals, its end. */
#include "shard/shard.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "loop/loop.h"
#include "net/net.h"
#include "net/net_epoll.h"

/* Descriptors that are not for clients: listeners, registers, logs, epoll, and a share for workers. */
#define FD_RESERVE 256

struct process {
    struct loop *loop;
    struct net *net;
    struct shard *shard;
    struct shard_shm *shm;
    const struct config *cfg;
    int signal_fd;
    struct net_watch signals;
    struct timer drain_deadline;
    struct loop_hook hook;
    int status;
};

static void on_drain_deadline(struct timer *t)
{
    struct process *p = CONTAINER_OF(t, struct process, drain_deadline);
    LOG(LOG_WARN, "drain_timeout", "clients=%u", shard_connections(p->shard));
    loop_stop(p->loop);
}

static void drain(struct process *p)
{
    if (timer_is_set(&p->drain_deadline)) {
        LOG(LOG_NOTICE, "shard_stops", "reason=\"second TERM\" clients=%u", shard_connections(p->shard));
        loop_stop(p->loop);
        return;
    }
    LOG(LOG_NOTICE, "shard_drains", "clients=%u limit_s=%llu", shard_connections(p->shard),
        (unsigned long long)p->cfg->gateway.drain_timeout);
    shard_drain(p->shard);
    timer_set(p->loop, &p->drain_deadline, p->cfg->gateway.drain_timeout * 1000, on_drain_deadline);
}

static void on_signal(struct net_watch *w)
{
    struct process *p = CONTAINER_OF(w, struct process, signals);
    struct signalfd_siginfo info;
    while (read(p->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        switch (info.ssi_signo) {
        case SIGTERM: drain(p); break;
        case SIGINT:
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
    if (shard_is_drained(p->shard))
        loop_stop(p->loop);
    return false;
}

static int watch_signals(struct process *p)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    p->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (p->signal_fd < 0)
        return -errno;
    p->signals.readable = on_signal;
    return net_epoll_watch_add(p->net, &p->signals, p->signal_fd);
}

static uint32_t max_clients(const struct config *cfg)
{
    struct rlimit limit = {1024, 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t by_files = limit.rlim_cur > 2 * FD_RESERVE ? limit.rlim_cur - FD_RESERVE : limit.rlim_cur / 2;
    uint64_t wanted = cfg->gateway.max_connections;
    if (wanted > by_files)
        LOG(LOG_WARN, "max_connections_lowered",
            "wanted=%llu possible=%llu hint=\"raise the file limit (ulimit -n)\"", (unsigned long long)wanted,
            (unsigned long long)by_files);
    return (uint32_t)(wanted == 0 || wanted > by_files ? by_files : wanted);
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
        .loop = p->loop,
        .net = p->net,
        .shm = start->shm,
        .listen_fds = start->listen_fds,
        .internal_fd = start->internal_fd,
        .max_clients = max_clients(start->cfg),
        .seed = seed,
    };
    p->shard = shard_new(&opt, &err);
    return p->shard != NULL ? 0 : err;
}

static void close_shard(struct process *p)
{
    if (p->loop != NULL)
        timer_cancel(p->loop, &p->drain_deadline);
    shard_free(p->shard);
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
    struct process p = {.cfg = start->cfg, .shm = start->shm, .signal_fd = -1};
    hash_init();
    counters_clear_gauges(&start->shm->counters);
    int err = open_shard(&p, start);
    if (err != 0) {
        LOG(LOG_ERROR, "shard_start_failed", "error=\"%s\"", strerror(-err));
        close_shard(&p);
        return 1;
    }
    p.hook.run = end_of_turn;
    loop_hook_add(p.loop, &p.hook);
    shard_shm_set_state(start->shm, SHARD_STATE_RUNNING);
    LOG(LOG_NOTICE, "shard_runs", "listeners=%u", start->cfg->n_listeners);
    loop_run(p.loop);
    loop_hook_remove(p.loop, &p.hook);
    close_shard(&p);
    return 0;
}
