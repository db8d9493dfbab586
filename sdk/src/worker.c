// SPDX-License-Identifier: MIT
#include "worker_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_PER_TURN = 64, DRAIN_MS = 1000 };

uint64_t tggw__clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void tggw__log(struct tggw *w, enum tggw_log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info"};
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (w->config.cb.on_log != NULL)
        w->config.cb.on_log(w, level, line, w->config.user);
    else
        fprintf(stderr, "tggw %s: %s\n", names[level], line);
}

// ---- making
// -----------------------------------------------------------------------------------------------------

static int copy_config(struct tggw *w, const struct tggw_config *from)
{
    struct tggw_config *c = &w->config;
    *c = *from;
    c->registers = c->gateways = NULL;
    c->name = strdup(from->name != NULL ? from->name : "tggworker");
    c->secret_key = strdup(from->secret_key != NULL ? from->secret_key : "");
    if (c->name == NULL || c->secret_key == NULL)
        return -ENOMEM;
    c->out_bytes_max = c->out_bytes_max != 0 ? c->out_bytes_max : (size_t)64 << 20;
    c->packet_bytes_max = c->packet_bytes_max != 0 ? c->packet_bytes_max : (size_t)64 << 20;
    c->reply_bytes_max = c->reply_bytes_max != 0 ? c->reply_bytes_max : (size_t)256 << 20;
    c->query_timeout_ms = c->query_timeout_ms != 0 ? c->query_timeout_ms : 5000;
    c->reconnect_ms = c->reconnect_ms != 0 ? c->reconnect_ms : 1000;
    c->register_ping_ms = c->register_ping_ms != 0 ? c->register_ping_ms : 25000;
    return strlen(c->name) > 128 ? -EINVAL : 0;
}

static int make_epoll(struct tggw *w)
{
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll_fd < 0)
        return -errno;
    w->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->wake.fd < 0)
        return -errno;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &w->wake};
    return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->wake.fd, &ev) < 0 ? -errno : 0;
}

static int add_addresses(struct tggw *w, const struct tggw_config *from)
{
    int r = 0;
    w->registers = calloc(from->register_count + 1, sizeof *w->registers);
    if (w->registers == NULL)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < from->register_count; i++) {
        r = tggw__register_init(w, &w->registers[i], from->registers[i]);
        w->register_count++;
    }
    for (size_t i = 0; r == 0 && i < from->gateway_count; i++)
        r = tggw__gateway_add(w, from->gateways[i], true);
    return r;
}

int tggw_new(const struct tggw_config *config, struct tggw **ret_w)
{
    if (config->register_count + config->gateway_count == 0)
        return -EINVAL;
    struct tggw *w = calloc(1, sizeof *w);
    if (w == NULL)
        return -ENOMEM;
    w->epoll_fd = -1;
    tggw__conn_init(&w->wake, TGGW__KIND_WAKE, w);
    w->read_buf = malloc(TGGW__READ_BYTES);
    w->query_buf = malloc(TGGW__QUERY_READ_BYTES);
    int r = w->read_buf == NULL || w->query_buf == NULL ? -ENOMEM : 0;
    if (r == 0)
        r = copy_config(w, config);
    if (r == 0)
        r = make_epoll(w);
    if (r == 0)
        r = add_addresses(w, config);
    if (r < 0)
        tggw_free(w);
    else
        *ret_w = w;
    return r;
}

void tggw_free(struct tggw *w)
{
    if (w == NULL)
        return;
    tggw__query_cancel_all(w);
    for (size_t i = 0; i < w->register_count; i++)
        tggw__register_fini(&w->registers[i]);
    free(w->registers);
    tggw__gateways_fini(w);
    tggw__conn_fini(w, &w->wake);
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    tggw__bytes_fini(&w->scratch);
    free(w->read_buf);
    free(w->query_buf);
    free((char *)(uintptr_t)w->config.name);
    free((char *)(uintptr_t)w->config.secret_key);
    free(w);
}

// ---- turns
// ------------------------------------------------------------------------------------------------------

static void timers(struct tggw *w)
{
    w->due_ms = UINT64_MAX;
    for (size_t i = 0; i < w->register_count; i++)
        tggw__register_timers(&w->registers[i], &w->due_ms);
    tggw__query_timers(w, &w->due_ms);
    tggw__gateways_timers(w, &w->due_ms);
    tggw__gateways_reap(w);
}

static void start(struct tggw *w)
{
    w->started = true;
    w->now_ms = tggw__clock_ms();
    if (w->config.cb.on_worker_start != NULL)
        w->config.cb.on_worker_start(w, w->config.user);
    timers(w);
}

static void wake_event(struct tggw *w)
{
    uint64_t n;
    ssize_t got = read(w->wake.fd, &n, sizeof n);
    (void)got; // only to make it silent again
}

static void dispatch(struct tggw *w, struct tggw__conn *c)
{
    switch (c->kind) {
    case TGGW__KIND_REGISTER: tggw__register_event(c->owner); break;
    case TGGW__KIND_LINK: tggw__gateway_event(c->owner); break;
    case TGGW__KIND_QUERY: tggw__query_event(c->owner); break;
    case TGGW__KIND_WAKE: wake_event(w); break;
    }
}

int tggw_fd(const struct tggw *w)
{
    return w->epoll_fd;
}

int tggw_timeout_ms(struct tggw *w)
{
    uint64_t now = tggw__clock_ms();
    if (!w->started || w->finished != NULL || now >= w->due_ms)
        return 0;
    if (w->due_ms == UINT64_MAX)
        return -1;
    uint64_t left = w->due_ms - now;
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

int tggw_poll(struct tggw *w, int timeout_ms)
{
    struct epoll_event events[EVENTS_PER_TURN];
    if (!w->started)
        start(w);
    tggw_flush(w);
    int due = tggw_timeout_ms(w);
    if (timeout_ms < 0 || (due >= 0 && due < timeout_ms))
        timeout_ms = due;
    int n = epoll_wait(w->epoll_fd, events, EVENTS_PER_TURN, timeout_ms);
    if (n < 0 && errno != EINTR)
        return -errno;
    w->now_ms = tggw__clock_ms();
    for (int i = 0; i < n; i++)
        dispatch(w, events[i].data.ptr);
    timers(w);
    tggw__query_callbacks(w);
    tggw_flush(w);
    return n < 0 ? 0 : n;
}

void tggw_flush(struct tggw *w)
{
    tggw__gateways_flush(w);
}

static size_t unsent(const struct tggw *w, struct pollfd *fds, size_t max)
{
    size_t n = 0;
    for (const struct tggw__gateway *g = w->gateways; g != NULL && n < max; g = g->next) {
        if (g->link.state == TGGW__UP && g->link.error == 0 && tggw__bytes_len(&g->link.out) > 0)
            fds[n++] = (struct pollfd){.fd = g->link.fd, .events = POLLOUT};
    }
    return n;
}

static void drain(struct tggw *w)
{
    struct pollfd fds[EVENTS_PER_TURN];
    uint64_t end = tggw__clock_ms() + DRAIN_MS;
    for (;;) {
        tggw_flush(w);
        uint64_t now = tggw__clock_ms();
        size_t n = unsent(w, fds, EVENTS_PER_TURN);
        if (n == 0 || now >= end)
            return;
        poll(fds, n, (int)(end - now));
    }
}

int tggw_run(struct tggw *w)
{
    int r = 0;
    while (r >= 0 && __atomic_load_n(&w->stop, __ATOMIC_ACQUIRE) == 0)
        r = tggw_poll(w, -1);
    if (w->config.cb.on_worker_stop != NULL)
        w->config.cb.on_worker_stop(w, w->config.user);
    drain(w);
    __atomic_store_n(&w->stop, 0, __ATOMIC_RELAXED);
    return r < 0 ? r : 0;
}

void tggw_stop(struct tggw *w)
{
    int saved = errno;
    uint64_t one = 1;
    __atomic_store_n(&w->stop, 1, __ATOMIC_RELEASE);
    ssize_t put = write(w->wake.fd, &one, sizeof one);
    (void)put; // a full eventfd is awake already
    errno = saved;
}

void tggw_get_stats(const struct tggw *w, struct tggw_stats *ret_stats)
{
    *ret_stats = w->stats;
    ret_stats->gateways_up = w->up_count;
}

void *tggw_user(const struct tggw *w)
{
    return w->config.user;
}

size_t tggw_gateways_up(const struct tggw *w)
{
    return w->up_count;
}
