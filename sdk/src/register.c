// SPDX-License-Identifier: MIT
#include "worker_priv.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

enum { LINE_MAX_BYTES = 4 * 1024 * 1024 };

void tggw__list_free(char **list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(list[i]);
    free(list);
}

// Addresses that are no addresses are left out: one bad entry must not cost the others.
static int read_addresses(const json_t *addresses, char ***ret_list, size_t *ret_count)
{
    size_t count = json_object_size(addresses) + json_array_size(addresses), n = 0;
    char **list = calloc(count + 1, sizeof *list);
    if (list == NULL)
        return -ENOMEM;
    // PHP's array_unique() leaves holes, and json_encode() then writes an object.
    void *it = json_object_iter((json_t *)(uintptr_t)addresses);
    for (size_t i = 0; i < count; i++) {
        const json_t *v =
            json_is_array(addresses) ? json_array_get(addresses, i) : json_object_iter_value(it);
        const char *text = json_string_value(v);
        if (text != NULL && tggw__address_check(text) == 0) {
            list[n] = strdup(text);
            n += list[n] != NULL;
        }
        if (json_is_object(addresses))
            it = json_object_iter_next((json_t *)(uintptr_t)addresses, it);
    }
    *ret_list = list;
    *ret_count = n;
    return 1;
}

int tggw__register_line(const char *line, size_t len, char ***ret_list, size_t *ret_count)
{
    json_t *root = json_loadb(line, len, 0, NULL);
    const char *event = json_string_value(json_object_get(root, "event"));
    const json_t *addresses = json_object_get(root, "addresses");
    int r = 0;
    if (event == NULL)
        r = -EBADMSG;
    else if (strcmp(event, "broadcast_addresses") == 0)
        r = json_is_array(addresses) || json_is_object(addresses)
                ? read_addresses(addresses, ret_list, ret_count)
                : -EBADMSG;
    json_decref(root);
    return r;
}

int tggw__register_init(struct tggw *w, struct tggw__register *r, const char *address)
{
    *r = (struct tggw__register){.worker = w};
    tggw__conn_init(&r->conn, TGGW__KIND_REGISTER, r);
    snprintf(r->address, sizeof r->address, "%s", address);
    r->local = strncmp(address, "127.0.0.1", 9) == 0;
    return tggw__address_check(address);
}

void tggw__register_fini(struct tggw__register *r)
{
    tggw__conn_fini(r->worker, &r->conn);
    tggw__list_free(r->listed, r->listed_count);
    r->listed = NULL;
    r->listed_count = 0;
}

static bool another_is_up(const struct tggw__register *r)
{
    const struct tggw *w = r->worker;
    for (size_t i = 0; i < w->register_count; i++) {
        if (&w->registers[i] != r && w->registers[i].conn.state == TGGW__UP)
            return true;
    }
    return false;
}

// A Register that is away no longer knows better than one that is there; the last one's list stays in force.
static void lost(struct tggw__register *r, int error)
{
    struct tggw *w = r->worker;
    tggw__log(w, TGGW_LOG_WARNING, "register %s: %s; again in %u ms", r->address, strerror(-error),
              w->config.reconnect_ms);
    tggw__conn_close(w, &r->conn, w->config.reconnect_ms);
    if (!another_is_up(r))
        return;
    tggw__list_free(r->listed, r->listed_count);
    r->listed = NULL;
    r->listed_count = 0;
    tggw__gateways_update(w);
}

static int say_hello(struct tggw__register *r)
{
    struct tggw *w = r->worker;
    int err = 0;
    tggw__json_raw(&r->conn.out, "{\"event\":\"worker_connect\",\"secret_key\":", &err);
    tggw__json_string(&r->conn.out, w->config.secret_key, &err);
    tggw__json_raw(&r->conn.out, "}\n", &err);
    r->ping_ms = w->now_ms + w->config.register_ping_ms;
    if (err == 0)
        tggw__conn_flush(w, &r->conn);
    return err;
}

static int take_line(struct tggw__register *r, const char *line, size_t len)
{
    char **list = NULL;
    size_t count = 0;
    int got = tggw__register_line(line, len, &list, &count);
    if (got == -EBADMSG)
        tggw__log(r->worker, TGGW_LOG_WARNING, "register %s: a line that is not understood", r->address);
    if (got <= 0)
        return got == -EBADMSG ? 0 : got;
    tggw__list_free(r->listed, r->listed_count);
    r->listed = list;
    r->listed_count = count;
    tggw__gateways_update(r->worker);
    return 0;
}

static int take_lines(struct tggw__register *r)
{
    struct tggw__bytes *in = &r->conn.in;
    const uint8_t *end;
    while ((end = memchr(in->data + in->head, '\n', tggw__bytes_len(in))) != NULL) {
        size_t len = (size_t)(end - (in->data + in->head));
        int e = take_line(r, (const char *)in->data + in->head, len);
        if (e < 0)
            return e;
        tggw__bytes_consume(in, len + 1);
    }
    return tggw__bytes_len(in) > LINE_MAX_BYTES ? -EMSGSIZE : 0;
}

static int read_some(struct tggw__register *r)
{
    struct tggw *w = r->worker;
    ssize_t n = tggw__conn_read(&r->conn, w->read_buf, TGGW__READ_BYTES);
    if (n <= 0)
        return (int)n;
    int e = tggw__bytes_append(&r->conn.in, w->read_buf, (size_t)n);
    return e < 0 ? e : take_lines(r);
}

void tggw__register_event(struct tggw__register *r)
{
    int e = 0;
    if (r->conn.fd < 0)
        return;
    if (r->conn.state == TGGW__CONNECTING) {
        e = tggw__conn_finish(&r->conn);
        if (e == 0)
            e = say_hello(r);
    } else {
        e = read_some(r);
    }
    tggw__conn_flush(r->worker, &r->conn);
    if (e == 0 || e == -EINPROGRESS)
        e = r->conn.error;
    if (e < 0)
        lost(r, e);
}

static void ping(struct tggw__register *r)
{
    static const char line[] = "{\"event\":\"ping\"}\n";
    r->ping_ms = r->worker->now_ms + r->worker->config.register_ping_ms;
    if (tggw__bytes_append(&r->conn.out, line, sizeof line - 1) == 0)
        tggw__conn_flush(r->worker, &r->conn);
}

void tggw__register_timers(struct tggw__register *r, uint64_t *due_ms)
{
    struct tggw *w = r->worker;
    struct tggw__conn *c = &r->conn;
    if (c->state == TGGW__CONNECTING && w->now_ms >= c->due_ms)
        lost(r, -ETIMEDOUT);
    if (c->state == TGGW__IDLE && w->now_ms >= c->due_ms) {
        int e = tggw__conn_open(w, c, r->address, NULL);
        if (e < 0)
            lost(r, e);
    }
    if (c->state == TGGW__UP && !r->local) {
        if (w->now_ms >= r->ping_ms)
            ping(r);
        tggw__sooner(due_ms, r->ping_ms);
    }
    if (c->error < 0)
        lost(r, c->error);
    if (c->state != TGGW__UP)
        tggw__sooner(due_ms, c->due_ms);
}
