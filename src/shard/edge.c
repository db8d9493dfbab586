// SPDX-License-Identifier: MIT
/* What stands between the network and the application: lists and limits, TLS, proxies, compression; made from
 * the configuration, and made anew when that changes. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tls/tls.h"

/* Clients looked at between two looks at the clock. */
#define SWEEP_SLICE 256

/* What is made from files and lists, to be exchanged as a whole. */
struct parts {
    struct tls_context *tls;
    struct cidr_list *trusted;
};

static void parts_free(struct parts *p, unsigned n)
{
    for (unsigned i = 0; p != NULL && i < n; i++) {
        tls_context_free(p[i].tls);
        cidr_list_free(p[i].trusted);
    }
    free(p);
}

static bool make_part(const struct shard *s, unsigned i, const struct files *files, struct parts *ret,
                      struct config_error *err)
{
    const struct config_listen *l = &s->host.config->listen[i];
    char label[64];
    snprintf(label, sizeof label, "listen %s", l->name);
    if (l->tls_certificate[0] != '\0') {
        ret->tls = tls_context_new(l, files, s->tickets, err);
        if (ret->tls == NULL)
            return false;
    }
    if (l->proxy_protocol == PROXY_PROTOCOL_OFF && l->forwarded == FORWARDED_OFF)
        return true;
    ret->trusted =
        cidr_list_new(l->trusted_proxies, files, label, "trusted_proxies", l->line.trusted_proxies, err);
    return ret->trusted != NULL;
}

/* NULL: err tells. */
static struct parts *make_parts(const struct shard *s, const struct files *files, struct config_error *err)
{
    unsigned n = s->host.config->n_listeners;
    struct parts *p = calloc(n, sizeof *p);
    for (unsigned i = 0; p != NULL && i < n; i++) {
        if (!make_part(s, i, files, &p[i], err)) {
            parts_free(p, n);
            return NULL;
        }
    }
    return p;
}

/* What was there before is in p then. */
static void take_parts(struct shard *s, struct parts *p)
{
    for (unsigned i = 0; i < s->host.config->n_listeners; i++) {
        struct shard_listener *l = listener_of(s, i);
        struct parts old = {l->tls, l->trusted};
        l->tls = p[i].tls;
        l->trusted = p[i].trusted;
        p[i] = old;
    }
}

/* ---- plain values */

/* "A: b | C: d" to lines; NULL: none. */
static char *header_lines(const char *value)
{
    struct bytes b = {0};
    while (*value != '\0') {
        value += strspn(value, " \t|");
        size_t len = strcspn(value, "|"), end = len;
        while (end > 0 && (value[end - 1] == ' ' || value[end - 1] == '\t'))
            end--;
        if (end > 0)
            bytes_printf(&b, "%.*s\r\n", (int)end, value);
        value += len;
    }
    if (b.len > 0)
        bytes_append_byte(&b, '\0');
    if (b.failed)
        bytes_fini(&b);
    return (char *)b.data;
}

static void drop_deflaters(struct shard_listener *l)
{
    for (unsigned i = 0; i < WINDOW_BITS_N; i++) {
        ws_deflater_free(l->deflaters[i]);
        l->deflaters[i] = NULL;
    }
}

static void take_values(struct shard_listener *l)
{
    l->listener.newcomers = l->config->protocol == PROTOCOL_WEBSOCKET || l->tls != NULL;
    for (unsigned deflate = 0; deflate < 2; deflate++)
        l->rules[deflate] = (struct ws_rules){.message_size_max = l->config->package_size_max,
                                              .fragments_max = (uint32_t)l->config->fragments_max,
                                              .deflate = deflate == 1};
    l->http = (struct http_limits){.head_size_max = l->config->header_size_max,
                                   .line_size_max = l->config->url_length_max,
                                   .headers_max = (unsigned)l->config->header_count_max};
    free(l->extra_headers);
    l->extra_headers = header_lines(l->config->response_headers);
    drop_deflaters(l); /* the level may have changed */
}

static void take_all_values(struct shard *s)
{
    for (unsigned i = 0; s->listeners != NULL && i < s->host.config->n_listeners; i++)
        take_values(listener_of(s, i));
    s->is_guarded = guard_is_on(s->guard);
    s->is_metered = guard_meters(s->guard);
}

static void log_problems(const struct config_error *err)
{
    char line[1024];
    for (unsigned i = 0; i < err->n; i++)
        LOG(LOG_ERROR, "edge_not_made", "problem=\"%s\"", config_problem_format(err, i, line, sizeof line));
}

/* ---- after a reload */

/* Everybody who is there: still welcome? And its deadlines may have changed. Downwards through the dense
 * array, as when draining. */
static bool sweep(struct loop_task *task)
{
    struct shard *s = CONTAINER_OF(task, struct shard, sweep_task);
    for (unsigned n = 1; s->sweep_next > 0; n++) {
        if (s->sweep_next > s->n_clients) {
            s->sweep_next = s->n_clients;
            continue;
        }
        struct client *c = s->clients[--s->sweep_next];
        if (c->state == CLIENT_CLOSING)
            continue;
        bool known = c->state > CLIENT_PREAMBLE && !c->address_open;
        if (known && guard_check_lists(s->guard, &c->up.peer, s->now_unix_s) != GUARD_PASS) {
            client_close(c, CLOSE_listed, WS_CLOSE_POLICY, "address not allowed");
        } else {
            if (c->rate_paused) /* the rates may be others now: it is looked at again */
                c->edge->rate_until_ms = shard_now_ms(s);
            client_arm(c);
        }
        if (n % SWEEP_SLICE == 0 && loop_turn_left_ns(s->host.loop) == 0)
            return false;
    }
    return true;
}

/* The changed configuration is in place. On failure what was made is gone again, and p has nothing. */
static int make_all(struct shard *s, const struct files *files, const struct settings *settings,
                    struct parts **ret, struct config_error *err)
{
    uint64_t opened = 0;
    *ret = NULL;
    if (s->listeners == NULL)
        return guard_reload(s->guard, files, err);
    struct parts *p = make_parts(s, files, err);
    if (p == NULL)
        return -EINVAL;
    int r = listeners_begin(s, settings, &opened);
    if (r == 0 && (r = guard_reload(s->guard, files, err)) != 0)
        listeners_undo(s, opened);
    if (r != 0)
        parts_free(p, s->host.config->n_listeners);
    else
        *ret = p;
    return r;
}

int shard_reload(struct shard *s, struct config *changed, const struct files *files,
                 const struct settings *settings)
{
    struct config *cfg = (struct config *)s->host.config; /* this process's own copy */
    struct config_error *err = calloc(1, sizeof *err);
    struct parts *p;
    if (err == NULL)
        return -ENOMEM;
    listeners_reap(s);
    int r = listeners_check(s, changed, settings);
    if (r != 0)
        goto out;
    config_apply_live(cfg, changed);
    r = make_all(s, files, settings, &p, err);
    if (r != 0) {
        /* The supervisor has tried the same before: this is about memory. */
        config_apply_live(cfg, changed);
        log_problems(err);
        goto out;
    }
    if (p != NULL) {
        listeners_take(s, changed, settings);
        take_parts(s, p);
    }
    take_all_values(s);
    parts_free(p, cfg->n_listeners);
    s->sweep_next = s->n_clients;
    loop_task_add(s->host.loop, &s->sweep_task);
out:
    shard_count(s, r == 0 ? COUNTER_reloads : COUNTER_reloads_failed, 1);
    free(err);
    return r;
}

/* ---- beginning and end */

int edge_new(struct shard *s, const struct shard_options *opt)
{
    struct guard_options guard = {
        .config = opt->config,
        .files = opt->files,
        .shm = opt->guard_shm,
        .shard = s->number,
        .n_shards = opt->node->n_shards,
        .n_edges = opt->n_edges > 0 ? opt->n_edges : 1,
        .max_clients = opt->node->max_clients,
        .counters = s->host.counters,
    };
    struct config_error *err = calloc(1, sizeof *err);
    int r = -ENOMEM;
    if (err == NULL)
        return r;
    s->tickets = opt->tickets;
    s->seed = opt->seed;
    s->tls_task.run = client_tls_run;
    s->sweep_task.run = sweep;
    s->guard = guard_new(&guard, &r, err);
    if (s->guard != NULL) {
        struct parts *p = s->listeners != NULL ? make_parts(s, opt->files, err) : NULL;
        r = p == NULL && s->listeners != NULL ? -EINVAL : 0;
        if (p != NULL)
            take_parts(s, p);
        parts_free(p, s->host.config->n_listeners);
    }
    if (r == 0)
        take_all_values(s);
    log_problems(err);
    free(err);
    return r;
}

void edge_listener_fini(struct shard_listener *l)
{
    tls_context_free(l->tls);
    cidr_list_free(l->trusted);
    free(l->extra_headers);
    drop_deflaters(l);
}

void edge_free(struct shard *s)
{
    guard_free(s->guard);
    ws_inflater_free(s->inflater);
    bytes_fini(&s->inflated);
    loop_task_remove(s->host.loop, &s->tls_task);
    loop_task_remove(s->host.loop, &s->sweep_task);
}
