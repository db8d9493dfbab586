// SPDX-License-Identifier: MIT
#include "register/service.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"

#define FLUSH_MS 1000

static void signal_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGUSR2);
}

void service_block_signals(void)
{
    sigset_t set;
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    signal_set(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static void reopen_log(void)
{
    int r = log_reopen();
    if (r < 0)
        LOG(LOG_ERROR, "log_not_reopened", "error=\"%s\"", strerror(-r));
    LOG(LOG_NOTICE, "log_reopened", "signal=USR1");
}

static void on_signo(struct service *s, int signo)
{
    if (signo == SIGUSR1)
        reopen_log();
    else if (signo != SIGUSR2)
        loop_stop(s->loop);
    else if (s->usr2 != NULL)
        s->usr2(s);
}

static void on_signal(struct net_watch *w)
{
    struct service *s = CONTAINER_OF(w, struct service, signals);
    struct signalfd_siginfo info;

    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        on_signo(s, (int)info.ssi_signo);
    }
}

static int watch_signals(struct service *s)
{
    sigset_t set;

    signal_set(&set);
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return s->signal_fd < 0 ? -errno : net_epoll_watch_add(s->net, &s->signals, s->signal_fd);
}

/* What was left out at places that have been quiet since is said by nobody else. */
static void on_flush(struct timer *t)
{
    struct service *s = CONTAINER_OF(t, struct service, flush_timer);
    log_flush();
    timer_set(s->loop, t, FLUSH_MS, on_flush);
}

int service_init(struct service *s, uint64_t turn_ns_max)
{
    int err = -ENOMEM;

    *s = (struct service){.signals = {.readable = on_signal}, .signal_fd = -1};
    s->loop = loop_new(&loop_clock_monotonic, turn_ns_max);
    if (s->loop == NULL)
        return err;
    s->net = net_epoll_new(s->loop, &err);
    if (s->net == NULL)
        return err;
    timer_set(s->loop, &s->flush_timer, FLUSH_MS, on_flush);
    return watch_signals(s);
}

void service_run(struct service *s)
{
    loop_run(s->loop);
}

void service_fini(struct service *s)
{
    if (s->net != NULL) {
        if (s->signals.handle != 0)
            net_epoll_watch_remove(s->net, &s->signals);
        net_free(s->net);
    }
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    if (s->loop != NULL) {
        timer_cancel(s->loop, &s->flush_timer);
        loop_free(s->loop);
    }
}
