// SPDX-License-Identifier: MIT
#include "register/register.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pool.h"
#include "common/listen_socket.h"
#include "common/log_setup.h"
#include "register/register_priv.h"

#define BACKLOG           1024
#define TURN_NS_MAX       UINT64_C(10000000)
#define DESCRIPTORS_SPARE 64 /* beside the connections: log, epoll, listener, standard streams */

/* ---- before the run */

void register_block_signals(void)
{
    service_block_signals();
}

int register_listen(const struct config *cfg, struct config_error *err)
{
    char why[320];
    uint16_t port = (uint16_t)cfg->reg.port;
    int fd = listen_socket_open(cfg->reg.address, port, BACKLOG);

    if (fd >= 0)
        return fd;
    bool address = fd == -EADDRNOTAVAIL;
    if (err->path[0] == '\0')
        snprintf(err->path, sizeof err->path, "%s", cfg->source_path);
    config_error_add(err, address ? cfg->reg.line.address : cfg->reg.line.port, "register",
                     address ? "address" : "port", "%s",
                     listen_socket_explain(fd, cfg->reg.address, port, why, sizeof why));
    return fd;
}

static void raise_descriptors(uint64_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < wanted + DESCRIPTORS_SPARE)
        LOG(LOG_WARN, "few_descriptors", "limit=%" PRIu64 " max_connections=%" PRIu64,
            (uint64_t)limit.rlim_cur, wanted);
}

/* ---- the listener */

static struct net_conn *on_accepted(struct net_listener *l, const struct net_addr *addr,
                                    const struct net_addr *local)
{
    struct register_server *s = CONTAINER_OF(l, struct register_server, listener);
    struct peer *p = register__peer_new(s, addr);

    (void)local;
    if (p == NULL) {
        s->stats.refused++;
        LOG(LOG_WARN, "register_refused", "connections=%zu note=\"at max_connections\"", pool_used(s->peers));
        return NULL;
    }
    s->stats.accepted++;
    return &p->conn;
}

static void on_accept_failed(struct net_listener *l, int err)
{
    (void)l;
    LOG(LOG_ERROR, "accept_failed", "error=\"%s\"", strerror(err));
}

static const struct net_listener_ops listener_ops = {.accepted = on_accepted,
                                                     .accept_failed = on_accept_failed};

/* ---- the list goes out once per turn, however many gateways came and left in it */

static bool broadcast(struct loop_hook *h)
{
    struct register_server *s = CONTAINER_OF(h, struct register_server, broadcast_hook);
    struct bytes line = {0};

    if (!s->changed)
        return false;
    s->changed = false;
    register__append_list(s, &line);
    if (line.failed) {
        LOG(LOG_ERROR, "broadcast_failed", "error=\"no memory\"");
        s->changed = true; /* the next turn tries again */
        return false;
    }
    s->stats.broadcasts++;
    for (struct list *l = s->workers.next, *next; l != &s->workers; l = next) {
        next = l->next; /* sending may end this one, no other */
        register__peer_send(CONTAINER_OF(l, struct peer, worker_link), &line);
    }
    bytes_fini(&line);
    /* A worker that was ended may have been a gateway, too. */
    return s->changed;
}

/* ---- the run */

static int server_init(struct register_server *s, const struct config *cfg, struct notify *notify)
{
    *s = (struct register_server){
        .secret = config_register_secret(cfg),
        .auth_timeout_ms = cfg->reg.auth_timeout * 1000,
        .listener = {.ops = &listener_ops},
        .broadcast_hook = {.run = broadcast},
        .config = cfg,
        .notify = notify,
        .upgrade = {.poll_fd = -1, .socket = {.listen_fd = -1, .fd = -1}, .channel = {.fd = -1}},
    };
    list_init(&s->gateways);
    list_init(&s->workers);
    list_init(&s->others);
    int r = service_init(&s->service, TURN_NS_MAX);
    if (r < 0)
        return r;
    s->loop = s->service.loop;
    s->net = s->service.net;
    s->peers = pool_new("register_peers", sizeof(struct peer), cfg->reg.max_connections);
    if (s->peers == NULL)
        return -ENOMEM;
    loop_hook_add(s->loop, &s->broadcast_hook);
    return 0;
}

void register__forget_all(struct register_server *s)
{
    while (!list_is_empty(&s->others))
        register__peer_forget(CONTAINER_OF(s->others.next, struct peer, other_link));
    while (!list_is_empty(&s->workers))
        register__peer_forget(CONTAINER_OF(s->workers.next, struct peer, worker_link));
    while (!list_is_empty(&s->gateways))
        register__peer_forget(CONTAINER_OF(s->gateways.next, struct peer, gateway_link));
}

static void close_all(struct list *head, size_t link_offset)
{
    while (!list_is_empty(head))
        register__peer_close((struct peer *)((char *)head->next - link_offset), false);
}

static void server_fini(struct register_server *s)
{
    if (s->loop != NULL)
        register__upgrade_fini(s);
    close_all(&s->others, offsetof(struct peer, other_link));
    close_all(&s->workers, offsetof(struct peer, worker_link));
    close_all(&s->gateways, offsetof(struct peer, gateway_link));
    if (s->listener.handle != 0)
        net_listener_close(s->net, &s->listener);
    if (s->loop != NULL) {
        timer_cancel(s->loop, &s->notify_timer);
        loop_hook_remove(s->loop, &s->broadcast_hook);
    }
    service_fini(&s->service);
    if (s->peers != NULL)
        pool_free(s->peers);
    register_line_fini(&s->line);
}

static void log_stats(const struct register_stats *t)
{
    LOG(LOG_NOTICE, "register_ended",
        "accepted=%" PRIu64 " refused=%" PRIu64 " timeouts=%" PRIu64 " bad_lines=%" PRIu64
        " wrong_keys=%" PRIu64 " slow_readers=%" PRIu64 " broadcasts=%" PRIu64,
        t->accepted, t->refused, t->timeouts, t->bad_lines, t->wrong_keys, t->slow_readers, t->broadcasts);
}

static int process_ready(const struct config *cfg)
{
    struct config_error err = {0};

    register_block_signals();
    prctl(PR_SET_NAME, "tgg register");
    snprintf(err.path, sizeof err.path, "%s", cfg->source_path);
    if (log_setup(cfg, "register", "register.log", &err) == 0)
        return 0;
    config_error_print(stderr, &err);
    return -EINVAL;
}

static void on_notify(struct timer *t)
{
    struct register_server *s = CONTAINER_OF(t, struct register_server, notify_timer);
    notify_turn(s->notify, loop_now_ms(s->loop));
    timer_set(s->loop, t, s->notify->watchdog_ms / 2, on_notify);
}

static void tell_manager(struct register_server *s)
{
    if (s->notify == NULL)
        return;
    notify_send(s->notify, "READY=1\nMAINPID=%d\nSTATUS=serving", (int)getpid());
    if (s->notify->watchdog_ms > 0)
        timer_set(s->loop, &s->notify_timer, 0, on_notify);
}

/* Until the end. */
static void serve(struct register_server *s, const struct register_taken *taken)
{
    const struct config *cfg = s->config;

    register__upgrade_init(s, taken->socket_fd, taken->socket_path);
    LOG(LOG_NOTICE, "register_started",
        "version=%s address=%s port=%" PRIu64 " secret_key=%s connections_taken_over=%zu", TGG_VERSION,
        cfg->reg.address, cfg->reg.port, s->secret[0] != '\0' ? "set" : "empty", pool_used(s->peers));
    tell_manager(s);
    service_run(&s->service);
    if (s->notify != NULL && !s->upgrade.left)
        notify_send(s->notify, "STOPPING=1");
    log_stats(&s->stats);
}

/* Of those that were taken over: what waits for room, nobody else writes. */
static void go_on(struct register_server *s)
{
    for (struct list *l = s->gateways.next, *next; l != &s->gateways; l = next) {
        next = l->next; /* writing may end this one */
        register__peer_go(CONTAINER_OF(l, struct peer, gateway_link));
    }
    for (struct list *l = s->workers.next, *next; l != &s->workers; l = next) {
        next = l->next;
        register__peer_go(CONTAINER_OF(l, struct peer, worker_link));
    }
}

/* Everything but connections. */
static int begin(struct register_server *s, const struct config *cfg, struct notify *notify)
{
    raise_descriptors(cfg->reg.max_connections);
    int r = server_init(s, cfg, notify);
    if (r < 0)
        LOG(LOG_ERROR, "register_not_started", "error=\"%s\"", strerror(-r));
    return r;
}

static int end(struct register_server *s, int r)
{
    server_fini(s);
    log_close();
    return r == 0 ? 0 : 1;
}

int register_run(const struct config *cfg, int listen_fd, struct notify *notify)
{
    static const struct register_taken nothing = {.listen_fd = -1, .socket_fd = -1};
    struct register_server s;

    if (process_ready(cfg) < 0)
        return 1;
    int r = begin(&s, cfg, notify);
    s.listen_fd = listen_fd;
    if (r == 0) {
        r = net_listen_fd(s.net, &s.listener, listen_fd);
        if (r == 0)
            serve(&s, &nothing);
        else
            LOG(LOG_ERROR, "register_not_started", "error=\"%s\"", strerror(-r));
    }
    return end(&s, r);
}

int register_take_over(const struct config *cfg, int upgrade_fd, struct notify *notify)
{
    struct register_taken taken;
    struct register_server s;

    if (process_ready(cfg) < 0)
        return 1;
    int r = begin(&s, cfg, notify);
    if (r == 0)
        r = register__take_over(&s, upgrade_fd, &taken);
    if (r == 0) {
        s.listen_fd = taken.listen_fd;
        go_on(&s);
        serve(&s, &taken);
    }
    return end(&s, r);
}
