// SPDX-License-Identifier: MIT
// Questions and replies. A reply carries no id: on each connection they come in the order of the questions,
// so a connection that has missed one is of no more use and is closed.
#include "worker_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

struct question {
    int cmd;
    uint32_t connection_id;
    const void *ext;
    size_t ext_len;
};

// ---- results
// ----------------------------------------------------------------------------------------------------

void tggw_result_free(struct tggw_result *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->count; i++)
        free(r->parts[i].data);
    free(r);
}

size_t tggw_result_count(const struct tggw_result *r)
{
    return r->count;
}

int tggw_result_get(const struct tggw_result *r, size_t i, struct tggw_value *ret_value, uint32_t *ret_ip,
                    uint16_t *ret_port)
{
    if (i >= r->count)
        return -EINVAL;
    const struct tggw__part *part = &r->parts[i];
    if (part->error < 0)
        return part->error;
    int e = tggw_value_parse(part->data, part->len, ret_value, NULL);
    if (e < 0)
        return e;
    if (ret_ip != NULL)
        *ret_ip = part->ip;
    if (ret_port != NULL)
        *ret_port = part->port;
    return 0;
}

void tggw_result_iter_init(struct tggw_result_iter *it, const struct tggw_result *r)
{
    *it = (struct tggw_result_iter){.result = r};
}

int tggw_result_next(struct tggw_result_iter *it, char ret_client_id[TGGW_CLIENT_ID_SIZE],
                     struct tggw_value *ret_value)
{
    struct tggw_value key, array;
    int e;
    while ((e = tggw_iter_next(&it->it, &key, ret_value)) == 0) {
        if (it->next >= it->result->count)
            return 0;
        e = tggw_result_get(it->result, it->next++, &array, &it->ip, &it->port);
        if (e < 0)
            return e;
        tggw_iter_init(&it->it, &array);
    }
    if (e < 0)
        return e;
    if (key.type != TGGW_INT || key.i < 0 || key.i > UINT32_MAX)
        return -EBADMSG;
    tggw_client_id_format(it->ip, it->port, (uint32_t)key.i, ret_client_id);
    return 1;
}

static int first_error(const struct tggw_result *r)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->parts[i].error < 0)
            return r->parts[i].error;
    }
    return 0;
}

static void unlink_result(struct tggw_result **list, const struct tggw_result *r)
{
    while (*list != NULL && *list != r)
        list = &(*list)->next;
    if (*list != NULL)
        *list = r->next;
}

static void append_result(struct tggw_result **list, struct tggw_result *r)
{
    while (*list != NULL)
        list = &(*list)->next;
    r->next = NULL;
    *list = r;
}

static void part_done(struct tggw__part *part, int error)
{
    struct tggw_result *r = part->result;
    part->done = true;
    part->error = error;
    if (--r->left > 0 || r->cb == NULL)
        return;
    unlink_result(&r->worker->async, r);
    append_result(&r->worker->finished, r);
}

// ---- one connection
// ---------------------------------------------------------------------------------------------

static struct tggw__part *next_asked(struct tggw__gateway *g)
{
    struct tggw__part *part = g->asked;
    if (part == NULL)
        return NULL;
    g->asked = part->next;
    if (g->asked == NULL)
        g->asked_tail = &g->asked;
    return part;
}

void tggw__query_fail(struct tggw__gateway *g, int error)
{
    struct tggw__part *part;
    tggw__conn_close(g->worker, &g->query, 0);
    while ((part = next_asked(g)) != NULL)
        part_done(part, error);
}

static int take_reply(struct tggw__gateway *g, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, data, len);
    struct tggw__part *part = next_asked(g);
    part->data = copy;
    part->len = len;
    part->ip = g->ip;
    part->port = g->port;
    part_done(part, 0);
    return 0;
}

// u32 length and that many bytes, as often as they are there.
static int take_replies(struct tggw__gateway *g)
{
    struct tggw__bytes *in = &g->query.in;
    while (tggw__bytes_len(in) > 0) {
        const uint8_t *p = in->data + in->head;
        if (g->asked == NULL)
            return -EBADMSG;
        if (tggw__bytes_len(in) < 4)
            return 0;
        size_t len = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (len > g->worker->config.reply_bytes_max)
            return -EMSGSIZE;
        if (tggw__bytes_len(in) < len + 4)
            return 0;
        int e = take_reply(g, p + 4, len);
        if (e < 0)
            return e;
        tggw__bytes_consume(in, len + 4);
    }
    tggw__bytes_reset(in, TGGW__KEEP_BYTES);
    return 0;
}

static int read_replies(struct tggw__gateway *g)
{
    struct tggw *w = g->worker;
    ssize_t n = tggw__conn_read(&g->query, w->query_buf, TGGW__QUERY_READ_BYTES);
    if (n <= 0)
        return (int)n;
    int e = tggw__bytes_append(&g->query.in, w->query_buf, (size_t)n);
    return e < 0 ? e : take_replies(g);
}

void tggw__query_event(struct tggw__gateway *g)
{
    int e = 0;
    if (g->query.fd < 0)
        return;
    if (g->query.state == TGGW__CONNECTING)
        e = tggw__conn_finish(&g->query);
    else
        e = read_replies(g);
    if (e == -EINPROGRESS)
        return;
    tggw__conn_flush(g->worker, &g->query);
    if (e == 0)
        e = g->query.error;
    if (e < 0)
        tggw__query_fail(g, e);
}

// A gateway may have closed a connection that was idle since; its event need not have been handled yet.
static bool is_stale(struct tggw__conn *c)
{
    uint8_t byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

static int say_hello(struct tggw__gateway *g)
{
    struct tggw__bytes b = {0};
    int err = 0;
    tggw__json_raw(&b, "{\"secret_key\":", &err);
    tggw__json_string(&b, g->worker->config.secret_key, &err);
    tggw__json_raw(&b, "}", &err);
    struct tggw__packet p = {.cmd = TGGW__GATEWAY_CLIENT_CONNECT,
                             .flag = TGGW__FLAG_SCALAR,
                             .body = b.data,
                             .body_len = tggw__bytes_len(&b)};
    if (err == 0)
        err = tggw__packet_append(&g->query.out, &p);
    tggw__bytes_fini(&b);
    return err;
}

static int open_query(struct tggw__gateway *g)
{
    struct sockaddr_in peer = {0};
    if (g->query.state == TGGW__UP && g->asked == NULL && is_stale(&g->query))
        tggw__query_fail(g, -ECONNRESET);
    if (g->query.state != TGGW__IDLE)
        return 0;
    int e = tggw__conn_open(g->worker, &g->query, g->address, &peer);
    if (e < 0)
        return e;
    if (g->port == 0) {
        g->ip = ntohl(peer.sin_addr.s_addr);
        g->port = ntohs(peer.sin_port);
    }
    e = say_hello(g);
    if (e < 0)
        tggw__query_fail(g, e);
    return e;
}

static void ask_gateway(struct tggw__gateway *g, const struct question *q, struct tggw__part *part)
{
    struct tggw__packet p = {.cmd = (uint8_t)q->cmd,
                             .flag = TGGW__FLAG_SCALAR,
                             .connection_id = q->connection_id,
                             .ext = q->ext,
                             .ext_len = q->ext_len};
    int e = open_query(g);
    if (e == 0)
        e = tggw__packet_append(&g->query.out, &p);
    if (e < 0) {
        part_done(part, e);
        return;
    }
    *g->asked_tail = part;
    g->asked_tail = &part->next;
    tggw__conn_flush(g->worker, &g->query);
}

// ---- asking
// -----------------------------------------------------------------------------------------------------

static bool is_asked(const struct tggw__gateway *g, const struct tggw__gateway *only)
{
    return only != NULL ? g == only : g->listed || g->link.state == TGGW__UP;
}

// An empty result with room for every gateway that may be asked.
static int result_new(struct tggw *w, const struct tggw__gateway *only, tggw_query_cb *cb, void *arg,
                      struct tggw_result **ret_result)
{
    size_t room = 0;
    if (w->freeing)
        return -ECANCELED;
    for (const struct tggw__gateway *g = w->gateways; g != NULL; g = g->next)
        room += is_asked(g, only);
    if (room == 0)
        return -ENOTCONN;
    struct tggw_result *r = calloc(1, sizeof *r + room * sizeof r->parts[0]);
    if (r == NULL)
        return -ENOMEM;
    r->worker = w;
    r->cb = cb;
    r->arg = arg;
    r->due_ms = tggw__clock_ms() + w->config.query_timeout_ms;
    *ret_result = r;
    return 0;
}

static void add_part(struct tggw_result *r, struct tggw__gateway *g, const struct question *q)
{
    struct tggw__part *part = &r->parts[r->count++];
    part->result = r;
    ask_gateway(g, q, part);
}

static int ask(struct tggw *w, const struct question *q, struct tggw__gateway *only, tggw_query_cb *cb,
               void *arg, struct tggw_result **ret_result)
{
    struct tggw_result *r;
    int e = result_new(w, only, cb, arg, &r);
    if (e < 0)
        return e;
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next)
        r->left += is_asked(g, only);
    tggw__sooner(&w->due_ms, r->due_ms);
    if (cb != NULL)
        append_result(&w->async, r);
    // What was said before must not be overtaken on the other connection.
    tggw_flush(w);
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next) {
        if (is_asked(g, only))
            add_part(r, g, q);
    }
    *ret_result = r;
    return 0;
}

static bool waits_for(const struct tggw__gateway *g, const struct tggw_result *r)
{
    const struct tggw__part *part = g->asked;
    while (part != NULL && part->result != r)
        part = part->next;
    return part != NULL;
}

static void expire(struct tggw *w, const struct tggw_result *r)
{
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next) {
        if (waits_for(g, r))
            tggw__query_fail(g, -ETIMEDOUT);
    }
}

static size_t poll_set(struct tggw *w, const struct tggw_result *r, struct pollfd *fds,
                       struct tggw__gateway **gs)
{
    size_t n = 0;
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next) {
        if (!waits_for(g, r))
            continue;
        bool write = g->query.state == TGGW__CONNECTING || tggw__bytes_len(&g->query.out) > 0;
        fds[n] = (struct pollfd){.fd = g->query.fd, .events = (short)(POLLIN | (write ? POLLOUT : 0))};
        gs[n++] = g;
    }
    return n;
}

static int wait_some(struct tggw *w, struct tggw_result *r, struct pollfd *fds, struct tggw__gateway **gs)
{
    uint64_t now = tggw__clock_ms();
    if (now >= r->due_ms) {
        expire(w, r);
        return 0;
    }
    size_t n = poll_set(w, r, fds, gs);
    int got = poll(fds, n, (int)(r->due_ms - now));
    if (got < 0 && errno != EINTR)
        return -errno;
    for (size_t i = 0; i < n && got > 0; i++) {
        if (fds[i].revents != 0)
            tggw__query_event(gs[i]);
    }
    return 0;
}

// Waits for all parts; on an error none of them stays in a connection's list either.
static int wait_for(struct tggw *w, struct tggw_result *r)
{
    struct pollfd *fds = calloc(r->count + 1, sizeof *fds);
    struct tggw__gateway **gs = calloc(r->count + 1, sizeof *gs);
    int e = fds == NULL || gs == NULL ? -ENOMEM : 0;
    while (e == 0 && r->left > 0)
        e = wait_some(w, r, fds, gs);
    if (e < 0)
        expire(w, r);
    free(fds);
    free(gs);
    return e < 0 ? e : first_error(r);
}

static int ask_and_wait(struct tggw *w, const struct question *q, struct tggw__gateway *only,
                        struct tggw_result **ret_result)
{
    struct tggw_result *r = NULL;
    int e = ask(w, q, only, NULL, NULL, &r);
    if (e == 0)
        e = wait_for(w, r);
    if (e < 0)
        tggw_result_free(r);
    else
        *ret_result = r;
    return e;
}

int tggw__query_each(struct tggw *w, int cmd, tggw__ext_fn *make, void *arg, struct tggw_result **ret_result)
{
    struct tggw__bytes ext = {0};
    struct tggw_result *r = NULL;
    int e = result_new(w, NULL, NULL, NULL, &r);
    if (e < 0)
        return e;
    tggw_flush(w);
    for (struct tggw__gateway *g = w->gateways; e == 0 && g != NULL; g = g->next) {
        tggw__bytes_reset(&ext, TGGW__KEEP_BYTES);
        e = is_asked(g, NULL) ? make(arg, g, &ext) : -ENOENT;
        if (e == 0) {
            r->left++;
            add_part(r, g, &(struct question){cmd, 0, ext.data, tggw__bytes_len(&ext)});
        }
        e = e == -ENOENT ? 0 : e;
    }
    int waited = wait_for(w, r);
    e = e < 0 ? e : waited;
    tggw__bytes_fini(&ext);
    if (e < 0)
        tggw_result_free(r);
    else
        *ret_result = r;
    return e;
}

// The gateway of a client_id, when one is given.
static int aim(struct tggw *w, const char *client_id, struct question *q, struct tggw__gateway **ret_only)
{
    uint32_t ip;
    uint16_t port;
    *ret_only = NULL;
    if (q->cmd < 0 || q->cmd > UINT8_MAX || q->ext_len > w->config.out_bytes_max)
        return -EINVAL;
    if (client_id == NULL)
        return 0;
    int e = tggw_client_id_parse(client_id, &ip, &port, &q->connection_id);
    if (e < 0)
        return e;
    *ret_only = tggw__gateway_find(w, ip, port);
    return *ret_only == NULL ? -ENOTCONN : 0;
}

int tggw_query(struct tggw *w, int cmd, const char *client_id, const void *ext, size_t ext_len,
               struct tggw_result **ret_result)
{
    struct question q = {cmd, 0, ext, ext_len};
    struct tggw__gateway *only;
    int e = aim(w, client_id, &q, &only);
    return e < 0 ? e : ask_and_wait(w, &q, only, ret_result);
}

static void no_callback(struct tggw *w, int error, const struct tggw_result *result, void *arg)
{
}

int tggw_query_async(struct tggw *w, int cmd, const char *client_id, const void *ext, size_t ext_len,
                     tggw_query_cb *cb, void *arg)
{
    struct question q = {cmd, 0, ext, ext_len};
    struct tggw__gateway *only;
    struct tggw_result *r;
    int e = aim(w, client_id, &q, &only);
    return e < 0 ? e : ask(w, &q, only, cb != NULL ? cb : no_callback, arg, &r);
}

void tggw__query_timers(struct tggw *w, uint64_t *due_ms)
{
    // Expiring one may finish others, which changes the list: start again after each.
    for (struct tggw_result *r = w->async; r != NULL;) {
        if (w->now_ms >= r->due_ms) {
            expire(w, r);
            r = w->async;
            continue;
        }
        tggw__sooner(due_ms, r->due_ms);
        r = r->next;
    }
}

void tggw__query_callbacks(struct tggw *w)
{
    // Only those that are there now: a callback that asks again must not keep the turn from ending.
    struct tggw_result *list = w->finished;
    w->finished = NULL;
    while (list != NULL) {
        struct tggw_result *r = list;
        list = r->next;
        r->cb(w, first_error(r), r, r->arg);
        tggw_result_free(r);
    }
}

void tggw__query_cancel_all(struct tggw *w)
{
    w->freeing = true;
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next)
        tggw__query_fail(g, -ECANCELED);
    tggw__query_callbacks(w);
}
