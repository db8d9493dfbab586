// SPDX-License-Identifier: MIT
/* The WebSocket handshake, and everything that a client may be refused for before it: path, origin, address,
 * rate. And the plain answers of the same port: health checks. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/line/forwarded.h"
#include "proto/ws/handshake.h"
#include "shard/trace.h"

/* The answer, extra headers included (at most 8 KB of them come from the configuration). */
#define ANSWER_MAX 16384

static unsigned retry_after(struct shard *s)
{
    uint64_t most = shard_config(s)->retry_after;
    return (unsigned)(most + shard_random(s) % (most + 1));
}

void client_queue_answer(struct client *c, int status)
{
    char text[HTTP_ERROR_SIZE];
    size_t len = http_error_response(status, retry_after(client_shard(c)), text, sizeof text);
    /* Nothing that a worker sent meanwhile may follow: it is not for an HTTP client. */
    client_out_clear(c);
    client_queue_control(c, out_control(text, len));
}

void client_refuse_handshake(struct client *c, int status, enum close_reason reason)
{
    if (reason != CLOSE_health_check)
        shard_count(client_shard(c), COUNTER_client_handshakes_refused, 1);
    c->deaf = true;
    client_queue_answer(c, status);
    client_close(c, reason, 0, NULL);
}

/* ---- which listener */

/* Of those that stand on the same socket, the one whose path fits best; NULL: none. */
static struct shard_listener *listener_for(const struct client *c, struct slice path)
{
    struct shard *s = client_shard(c);
    struct shard_listener *best = NULL;
    size_t best_len = 0;
    if (!c->listener->shares)
        return http_path_match(path, c->listener->config->path) > 0 ? c->listener : NULL;
    for (unsigned i = 0; i < s->n_listeners; i++) {
        struct shard_listener *l = &s->listeners[i];
        if (l->config == NULL || l->socket != c->listener->socket || (l->removed && l != c->listener))
            continue;
        size_t len = http_path_match(path, l->config->path);
        if (len > best_len) {
            best = l;
            best_len = len;
        }
    }
    return best;
}

/* ---- health */

static bool is_health_check(const struct client *c, const struct http_request *req)
{
    const char *path = c->listener->config->health_path;
    return path[0] != '\0' && slice_eq_str(req->path, path) && http_request_header(req, "Upgrade") == NULL;
}

static void answer_health_check(struct client *c)
{
    struct shard *s = client_shard(c);
    bool ready = !s->draining && NODE_LOAD(s->shared->draining) == 0 && upstream_has_worker(s->upstream);
    shard_count(s, COUNTER_health_checks, 1);
    client_refuse_handshake(c, ready ? 200 : 503, CLOSE_health_check);
}

/* ---- whose it is */

static bool is_trusted(void *ctx, const struct net_addr *addr)
{
    return cidr_list_has(ctx, addr);
}

/* The proxy's request names the client, if it came by a listener (front) that says so. 0, or the HTTP status
 * to refuse with; -1: refused already. */
static int find_address(struct client *c, const struct shard_listener *front, const struct http_request *req)
{
    static const enum forwarded_header which[] = {
        [FORWARDED_X_FORWARDED_FOR] = FORWARDED_HEADER_X_FORWARDED_FOR,
        [FORWARDED_X_REAL_IP] = FORWARDED_HEADER_X_REAL_IP,
        [FORWARDED_RFC7239] = FORWARDED_HEADER_FORWARDED,
    };
    struct net_addr peer = c->up.peer;
    if (!c->address_open)
        return 0;
    if (front->config->forwarded != FORWARDED_OFF && front->trusted != NULL) {
        int r = forwarded_client(req, which[front->config->forwarded], is_trusted, front->trusted, &peer);
        if (r == -EINVAL)
            return 400;
        if (r == 0)
            shard_count(client_shard(c), COUNTER_forwarded_addresses, 1);
    }
    c->address_open = false;
    return client_admit(c, &peer) ? 0 : -1;
}

/* ---- the answer */

static size_t compose_answer(struct client *c, const struct http_request *req, char *text, size_t cap)
{
    char subprotocol[256], deflate[WS_DEFLATE_HEADER_MAX], extra[8192 + 256 + WS_DEFLATE_HEADER_MAX];
    const struct shard_listener *l = c->listener;
    client_deflate_agree(c, req, deflate, sizeof deflate);
    if (c->state == CLIENT_CLOSING)
        return 0;
    snprintf(extra, sizeof extra, "%s%s", deflate, l->extra_headers != NULL ? l->extra_headers : "");
    return ws_handshake_response(
        req, ws_subprotocol_select(req, l->config->subprotocols, subprotocol, sizeof subprotocol), extra,
        text, cap);
}

/* The head is there and right: workers are told, the client is answered. */
static void accept_handshake(struct client *c, const struct http_request *req)
{
    static char text[ANSWER_MAX]; /* one thread */
    struct shard *s = client_shard(c);
    shard_count(s, COUNTER_client_handshakes, 1);
    if (!c->announced && !client_announce(c))
        return;
    upstream_client_handshaken(s->upstream, &c->up, req);
    if (c->state == CLIENT_CLOSING)
        return;
    size_t len = compose_answer(c, req, text, sizeof text);
    if (c->state == CLIENT_CLOSING)
        return;
    histogram_observe(client_shard(c)->host.histograms, handshake,
                      (uint64_t)(shard_now_ms(client_shard(c)) - c->since_ms) * 1000000);
    c->state = CLIENT_OPEN;
    net_conn_settled(&c->conn);
    c->since_ms = shard_now_ms(s);
    if (s->traces != NULL && c->up.traced)
        trace_handshake(c);
    client_queue_front(c, out_control(text, len));
    client_arm(c);
}

/* 0, or the status to refuse with; -1: refused or answered already. */
static int check_request(struct client *c, const struct http_request *req)
{
    if (is_health_check(c, req)) {
        answer_health_check(c);
        return -1;
    }
    struct shard_listener *l = listener_for(c, req->path);
    if (l == NULL)
        return 404;
    const struct shard_listener *front = c->listener;
    client_set_listener(c, l);
    int status = ws_handshake_check(req);
    if (status == 0 && !ws_origin_allowed(req, l->config->origins))
        status = 403;
    return status != 0 ? status : find_address(c, front, req);
}

void client_feed_handshake(struct client *c, const uint8_t *data, size_t len)
{
    static struct http_request req; /* 4 KB; one thread */
    struct shard *s = client_shard(c);
    struct client_in *in = client_need_in(c);
    if (in == NULL)
        return;
    if (!bytes_append(&in->raw, data, len)) {
        client_no_memory(c);
        return;
    }
    int n = http_parse(in->raw.data, in->raw.len, &in->scanned, &c->listener->http, &req);
    if (n == 0)
        return;
    int status = n < 0 ? -n : check_request(c, &req);
    if (status > 0)
        client_refuse_handshake(c, status, CLOSE_bad_handshake);
    if (status != 0)
        return;
    if (client_is_blocked(c)) {
        in->scanned = 0; /* parsed again when its worker reads */
        return;
    }
    if (c->state == CLIENT_CLOSING)
        return;
    if (shard_config(s)->handshake_rate > 0 &&
        guard_check_handshake(s->guard, loop_now_ms(s->host.loop)) != GUARD_PASS) {
        client_refuse_handshake(c, 503, CLOSE_refused);
        return;
    }
    struct bytes raw = in->raw;
    in->raw = (struct bytes){0};
    accept_handshake(c, &req);
    client_in_free(c);
    if (c->state == CLIENT_OPEN && raw.len > (size_t)n)
        client_feed(c, raw.data + n, raw.len - (size_t)n);
    bytes_fini(&raw);
}
