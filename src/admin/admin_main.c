// SPDX-License-Identifier: MIT
/* The admin process: what its loop looks at. */
#include "admin/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "admin/admin_priv.h"
#include "base/log.h"
#include "common/files.h"
#include "common/settings.h"
#include "common/signal_fd.h"

#define TICK_MS    1000
#define EVENTS_MAX 64
#define NICE       5 /* the shards' work comes first where there is not CPU for all */

static const char *page_dir;

void admin_set_page_dir(const char *dir)
{
    page_dir = dir;
}

/* ---- for all */

uint64_t admin_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int64_t admin_unix_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int admin_watch(struct admin *a, struct watch *w, int fd, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = w};
    w->fd = fd;
    return epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

void admin_unwatch(struct admin *a, struct watch *w)
{
    if (w->fd >= 0)
        (void)epoll_ctl(a->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->fd = -1;
}

uint64_t admin_all_shards(const struct admin *a)
{
    return a->node->n_shards == 64 ? UINT64_MAX : (UINT64_C(1) << a->node->n_shards) - 1;
}

uint64_t admin_edge_shards(const struct admin *a)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < a->node->n_shards && i < NODE_SHARDS_MAX; i++)
        mask |= (uint64_t)((a->shm->shards[i].roles & NODE_ROLE_EDGE) != 0) << i;
    return mask;
}

struct query_gateway admin_gateway(const struct admin *a)
{
    return (struct query_gateway){.lan_ip = a->cfg->gateway.lan_ip,
                                  .start_port = (uint16_t)a->cfg->gateway.start_port,
                                  .n_shards = a->node->n_shards,
                                  .home = &a->node->shared->home};
}

unsigned admin_shard_of(const struct admin *a, uint32_t connection_id)
{
    return node_home_of(&a->node->shared->home, connection_id);
}

/* ---- signals */

static void on_signal(struct watch *w, uint32_t events)
{
    struct admin *a = CONTAINER_OF(w, struct admin, signals);
    struct signalfd_siginfo info;
    while (read(a->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGUSR1)
            log_reopen();
        else
            a->ends = true;
    }
}

static int watch_signals(struct admin *a)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL); /* sendfile has no MSG_NOSIGNAL */
    a->signal_fd = signal_fd_open();
    if (a->signal_fd < 0)
        return a->signal_fd;
    a->signals.ready = on_signal;
    return admin_watch(a, &a->signals, a->signal_fd, EPOLLIN);
}

/* ---- a changed configuration */

static int reload(struct admin *a, int fd)
{
    struct files *files;
    struct config *changed = malloc(sizeof *changed);
    int r = changed != NULL ? files_open_config(fd, a->cfg->source_path, &files, changed) : -ENOMEM;
    if (r == 0) {
        config_apply_live(a->cfg, changed);
        config_fini(changed);
        files_free(files);
    }
    free(changed);
    return r;
}

static void take_over(struct admin *a, struct settings *s)
{
    int r = reload(a, s->files_fd);
    if (r == 0) {
        log_level_now = (enum log_level)a->cfg->log.level;
        a->listeners_closed = 0;
        LOG(LOG_NOTICE, "admin_reloaded", "generation=%llu", (unsigned long long)s->generation);
    } else {
        LOG(LOG_ERROR, "admin_not_reloaded", "generation=%llu error=\"%s\"",
            (unsigned long long)s->generation, strerror(-r));
    }
}

/* Of several only the newest counts. */
static void on_settings(struct watch *w, uint32_t events)
{
    struct admin *a = CONTAINER_OF(w, struct admin, settings);
    struct settings newest, next;
    bool any = false;
    int r;
    while ((r = settings_receive(a->settings_fd, &next)) == 0 || r == -EBADMSG) {
        if (r < 0)
            continue;
        if (any)
            settings_close(&newest);
        newest = next;
        any = true;
    }
    if (r != -EAGAIN)
        admin_unwatch(a, w); /* the supervisor is dead */
    if (!any)
        return;
    take_over(a, &newest);
    settings_close(&newest);
}

/* ---- shards and supervisor */

static void on_peer(struct watch *w, uint32_t events)
{
    struct admin_peer *p = CONTAINER_OF(w, struct admin_peer, watch);
    if (!shards_readable(p->admin->shards, p->peer))
        admin_unwatch(p->admin, w);
}

static int watch_peer(struct admin *a, unsigned peer, int fd)
{
    struct admin_peer *p = &a->peers[peer];
    *p = (struct admin_peer){.watch = {.ready = on_peer}, .admin = a, .peer = peer};
    return fd < 0 ? 0 : admin_watch(a, &p->watch, fd, EPOLLIN);
}

static int32_t shard_pid(void *ctx, unsigned shard)
{
    return ready_shard_pid(ctx, shard);
}

static int open_shards(struct admin *a, const struct admin_start *start)
{
    struct shards_options opt = {.n = a->node->n_shards, .pid = shard_pid, .ctx = a};
    int r = watch_peer(a, PEER_SUPERVISOR, start->control_fd);

    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++)
        opt.fds[i] = -1;
    opt.fds[PEER_SUPERVISOR] = start->control_fd;
    for (unsigned i = 0; i < a->node->n_shards && r == 0; i++) {
        opt.fds[i] = a->node->control_fds[i][1];
        r = watch_peer(a, i, opt.fds[i]);
    }
    if (getrandom(&opt.id_first, sizeof opt.id_first, 0) != (ssize_t)sizeof opt.id_first)
        opt.id_first = (uint32_t)admin_unix_ms() * 2654435761u;
    a->shards = shards_new(&opt);
    return a->shards == NULL ? -ENOMEM : r;
}

/* ---- the whole */

static int open_http(struct admin *a, const struct admin_start *start)
{
    int r = 0;
    list_init(&a->requests);
    a->http[1].tcp = true;
    if (start->socket_fd >= 0)
        r = http_open(a, &a->http[0], start->socket_fd);
    if (r == 0 && start->http_fd >= 0)
        r = http_open(a, &a->http[1], start->http_fd);
    return r;
}

static int open_admin(struct admin *a, const struct admin_start *start)
{
    int r;
    a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (a->epoll_fd < 0)
        return -errno;
    if (page_dir != NULL)
        a->page_fd = open(page_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if ((r = watch_signals(a)) < 0 || (r = open_shards(a, start)) < 0)
        return r;
    a->settings.ready = on_settings;
    if (a->settings_fd >= 0 && (r = admin_watch(a, &a->settings, a->settings_fd, EPOLLIN)) < 0)
        return r;
    return open_http(a, start);
}

static void close_admin(struct admin *a)
{
    if (a->requests.next != NULL)
        http_close(a);
    if (a->shards != NULL)
        shards_work(a->shards, UINT64_MAX); /* ends of traces: told, or given up */
    shards_free(a->shards);
    if (a->signal_fd >= 0)
        close(a->signal_fd);
    if (a->page_fd >= 0)
        close(a->page_fd);
    if (a->epoll_fd >= 0)
        close(a->epoll_fd);
}

static void tick(struct admin *a, uint64_t now_ms)
{
    if (now_ms < a->ticked_ms + TICK_MS)
        return;
    a->ticked_ms = now_ms;
    node_shm_take_log_level(a->shm);
    http_end_idle(&a->http[0], now_ms);
    http_end_idle(&a->http[1], now_ms);
    log_flush();
}

static int sooner(int a, int b)
{
    return a < 0 ? b : b < 0 || a < b ? a : b;
}

static void turn(struct admin *a)
{
    struct epoll_event events[EVENTS_MAX];
    int wait = sooner(TICK_MS, shards_timeout_ms(a->shards, admin_now_ms()));

    wait = sooner(wait, sooner(http_timeout_ms(&a->http[0]), http_timeout_ms(&a->http[1])));
    int n = epoll_wait(a->epoll_fd, events, EVENTS_MAX, wait);
    for (int i = 0; i < n; i++) {
        struct watch *w = events[i].data.ptr;
        /* None is freed here (only http_run does that), but one may have stopped to look. */
        if (w->fd >= 0)
            w->ready(w, events[i].events);
    }
    shards_work(a->shards, admin_now_ms());
    http_run(&a->http[0]);
    http_run(&a->http[1]);
    tick(a, admin_now_ms());
}

int admin_main(const struct admin_start *start)
{
    struct admin *a = calloc(1, sizeof *a);
    if (a == NULL)
        return 1;
    a->cfg = start->cfg;
    a->node = start->node;
    a->shm = start->shm;
    a->token = start->token;
    a->settings_fd = start->settings_fd;
    a->page_fd = a->epoll_fd = a->signal_fd = -1;
    a->supervisor = getppid();
    a->http[0].watch.fd = a->http[1].watch.fd = -1;
    (void)setpriority(PRIO_PROCESS, 0, NICE);
    int r = open_admin(a, start);
    if (r == 0) {
        LOG(LOG_NOTICE, "admin_runs", "socket=%s port=%s", start->socket_fd >= 0 ? "yes" : "no",
            start->http_fd >= 0 ? "yes" : "no");
        while (!a->ends)
            turn(a);
    } else {
        LOG(LOG_ERROR, "admin_start_failed", "error=\"%s\"", strerror(-r));
    }
    close_admin(a);
    free(a);
    return r == 0 ? 0 : 1;
}
