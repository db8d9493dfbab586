// SPDX-License-Identifier: MIT
/* Before a client's own bytes: the header of a proxy in front of us, and TLS.
 *
 * The first flight of a TLS handshake costs the shard between a tenth of a millisecond and one; so clients
 * wait for it in a queue, of which a turn serves as many as tls_handshake_time allows. Everything after it is
 * cheap. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "proto/proxy/proxy.h"
#include "tls/tls.h"

static struct client *waiting_client(struct list *node)
{
    return CONTAINER_OF(node, struct client_edge, tls_wait)->client;
}

struct client_edge *client_need_edge(struct client *c)
{
    if (c->edge == NULL)
        c->edge = calloc(1, sizeof *c->edge);
    if (c->edge == NULL)
        client_no_memory(c);
    else
        c->edge->client = c;
    return c->edge;
}

static void waiting_changed(struct shard *s)
{
    counter_set(s->host.counters, COUNTER_tls_handshakes_waiting, s->n_tls_waiting);
}

static void leave_queue(struct client *c)
{
    if (c->edge == NULL || !list_is_linked(&c->edge->tls_wait))
        return;
    list_remove(&c->edge->tls_wait);
    client_shard(c)->n_tls_waiting--;
    waiting_changed(client_shard(c));
}

static bool is_begun(const struct client *c)
{
    return list_is_linked(&c->edge->tls_begun);
}

/* Under way, until it is complete or given up. */
static void set_begun(struct client *c, bool begun)
{
    struct shard *s = client_shard(c);
    if (is_begun(c) == begun)
        return;
    if (begun)
        list_append(&s->tls_begun, &c->edge->tls_begun);
    else
        list_remove(&c->edge->tls_begun);
    s->n_tls_begun += begun ? 1 : UINT32_MAX;
    counter_set(s->host.counters, COUNTER_tls_handshakes_begun, s->n_tls_begun);
}

void client_edge_free(struct client *c)
{
    struct client_edge *e = c->edge;
    struct shard *s = client_shard(c);
    if (s->tls_reading == c)
        s->tls_reading = NULL;
    if (c->has_tls)
        counter_set(s->host.counters, COUNTER_tls_clients, --s->n_tls);
    if (e == NULL)
        return;
    leave_queue(c);
    set_begun(c, false);
    s->input_bytes -= e->record_held;
    tls_conn_free(e->tls);
    ws_deflater_free(e->deflater);
    ws_inflater_free(e->inflater);
    s->deflate_bytes -= e->deflate_bytes;
    counter_set(s->host.counters, COUNTER_deflate_bytes, s->deflate_bytes);
    free(e);
    c->edge = NULL;
}

/* ---- TLS */

static ssize_t send_record(void *owner, const void *data, size_t len)
{
    struct client *c = owner;
    struct shard *s = client_shard(c);
    struct iovec iov = {(void *)data, len};
    if (!net_conn_is_open(&c->conn))
        return -EPIPE;
    ssize_t n = net_writev(s->host.net, &c->conn, &iov, 1);
    if (n > 0)
        shard_count(s, COUNTER_tls_record_bytes_out, (uint64_t)n);
    return n;
}

static void on_open(struct client *c)
{
    struct shard *s = client_shard(c);
    set_begun(c, false);
    shard_count(s, COUNTER_tls_handshakes, 1);
    histogram_observe(s->host.histograms, tls_handshake, (uint64_t)(shard_now_ms(s) - c->since_ms) * 1000000);
    if (tls_conn_is_resumed(c->edge->tls))
        shard_count(s, COUNTER_tls_resumed, 1);
    client_begin(c);
}

/* False: c is gone. */
static bool on_plain(void *owner, uint8_t *data, size_t len)
{
    struct client *c = owner;
    struct shard *s = client_shard(c);
    if (c->state == CLIENT_TLS)
        on_open(c);
    client_on_data(&c->conn, data, len);
    return s->tls_reading == c;
}

static const struct tls_conn_ops tls_ops = {send_record, on_plain};

static void on_failed(struct client *c)
{
    struct shard *s = client_shard(c);
    const char *why = tls_conn_error(c->edge->tls);
    if (c->state == CLIENT_TLS) {
        char peer[NET_ADDR_STRLEN];
        shard_count(s, COUNTER_tls_handshakes_failed, 1);
        LOG(LOG_INFO, "tls_handshake_failed", "peer=%s listen=%s error=\"%s\"",
            net_addr_format(&c->up.peer, peer, sizeof peer), c->listener->config->name, why);
    }
    client_destroy(c, CLOSE_tls_failed, false);
}

/* What of a record has come is memory, too, and has a deadline (message_timeout). kept, len: how much there
 * was before, and what came. False: it was too much, c is gone. */
static bool count_record(struct client *c, size_t kept, size_t len)
{
    struct shard *s = client_shard(c);
    struct client_edge *e = c->edge;
    size_t held = tls_conn_kept(e->tls);
    bool is_new = held > 0 && (kept == 0 || held < kept + len); /* of another record than before */
    s->input_bytes += held - e->record_held;
    e->record_held = held;
    if (is_new) {
        e->record_since_ms = shard_now_ms(s);
        if (c->state == CLIENT_OPEN && c->listener->config->message_timeout > 0)
            client_arm(c);
    }
    if (held == 0 || s->input_bytes <= shard_config(s)->client_input_total_bytes)
        return true;
    client_destroy(c, CLOSE_input_limit, false);
    return false;
}

static void feed_tls(struct client *c, const uint8_t *data, size_t len)
{
    struct shard *s = client_shard(c);
    size_t kept = tls_conn_kept(c->edge->tls);
    s->tls_reading = c;
    enum tls_result r = tls_conn_feed(c->edge->tls, data, len);
    if (s->tls_reading != c)
        r = TLS_GONE;
    s->tls_reading = NULL;
    if (r == TLS_GONE)
        return;
    if (c->state == CLIENT_TLS && tls_conn_is_open(c->edge->tls))
        on_open(c);
    if (r == TLS_ERROR) {
        on_failed(c);
    } else if (r == TLS_ENDED) {
        tls_conn_shutdown(c->edge->tls); /* its close_notify is answered (RFC 8446 section 6.1) */
        client_destroy(c, CLOSE_peer, false);
    } else {
        count_record(c, kept, len);
    }
}

bool client_tls_is_flushed(const struct client *c)
{
    return c->edge == NULL || c->edge->tls == NULL || tls_conn_is_flushed(c->edge->tls);
}

/* One that was begun and left alone makes room, as in a SYN cache: so a flood of those keeps nobody out whose
 * handshake takes less time than the flood needs for tls_handshakes_begun_max of them. */
static void end_oldest(struct shard *s)
{
    struct client *c = CONTAINER_OF(s->tls_begun.next, struct client_edge, tls_begun)->client;
    shard_count(s, COUNTER_tls_handshakes_crowded_out, 1);
    client_destroy(c, CLOSE_tls_timeout, true);
}

/* A whole record waits: the expensive part. */
static void go_on(struct client *c)
{
    struct shard *s = client_shard(c);
    if (!is_begun(c) && s->n_tls_begun >= shard_config(s)->tls_handshakes_begun_max)
        end_oldest(s);
    set_begun(c, true);
    net_read_resume(s->host.net, &c->conn);
    feed_tls(c, NULL, 0);
}

bool client_tls_run(struct loop_task *task)
{
    struct shard *s = CONTAINER_OF(task, struct shard, tls_task);
    uint64_t budget_ns = shard_config(s)->turn_max * 1000000 / 100 * shard_config(s)->tls_handshake_time;
    uint64_t start_ns = loop_clock_ns(s->host.loop);
    if (s->held)
        return true; /* shard_hold runs it again */
    do {
        if (list_is_empty(&s->tls_waiting))
            return true;
        struct client *c = waiting_client(s->tls_waiting.next);
        leave_queue(c);
        if (c->state == CLIENT_TLS)
            go_on(c);
    } while (loop_clock_ns(s->host.loop) - start_ns < budget_ns);
    return list_is_empty(&s->tls_waiting);
}

static struct tls_conn *need_tls(struct client *c)
{
    struct client_edge *e = client_need_edge(c);
    if (e != NULL && e->tls == NULL && c->listener->tls != NULL)
        e->tls = tls_conn_new(c->listener->tls, &tls_ops, c);
    return e != NULL ? e->tls : NULL;
}

/* Every flight of a handshake: a client that sends its own in pieces gets no more CPU time for it. */
static void wait_for_handshake(struct client *c, const uint8_t *data, size_t len)
{
    struct shard *s = client_shard(c);
    struct tls_conn *t = need_tls(c);
    size_t kept = t != NULL ? tls_conn_kept(t) : 0;
    int r = t != NULL ? tls_conn_hold(t, data, len) : c->listener->tls == NULL ? -ENOBUFS : -ENOMEM;
    if (r < 0) {
        client_destroy(c, r == -ENOBUFS ? CLOSE_tls_failed : CLOSE_no_memory, true);
        return;
    }
    if (!count_record(c, kept, len) || r == 0 || list_is_linked(&c->edge->tls_wait))
        return;
    if (!is_begun(c) && s->n_tls_waiting >= shard_config(s)->tls_handshakes_max) {
        shard_count(s, COUNTER_tls_handshakes_refused, 1);
        client_destroy(c, CLOSE_refused, true);
        return;
    }
    net_read_pause(s->host.net, &c->conn);
    /* Whoever has begun comes before those who have not. */
    list_append(is_begun(c) ? s->tls_waiting.next : &s->tls_waiting, &c->edge->tls_wait);
    s->n_tls_waiting++;
    waiting_changed(s);
    loop_task_add(s->host.loop, &s->tls_task);
}

/* ---- taken over from another process */

int client_tls_restore(struct client *c, struct slice record, struct slice came, uint32_t record_since_ms)
{
    struct shard *s = client_shard(c);
    struct client_edge *e = client_need_edge(c);
    int err = 0;
    if (e == NULL)
        return -ENOMEM;
    if (record.len == 0) { /* kept until it may be answered: client_tls_go_on */
        struct client_in *in = client_need_in(c);
        return in != NULL && bytes_append(&in->raw, came.data, came.len) ? 0 : -ENOMEM;
    }
    e->tls = tls_conn_import(c->listener->tls, &tls_ops, c, record, &err);
    if (e->tls == NULL)
        return err;
    e->record_held = tls_conn_kept(e->tls);
    e->record_since_ms = record_since_ms;
    s->input_bytes += e->record_held;
    c->write_blocked = !tls_conn_is_flushed(e->tls);
    return 0;
}

void client_tls_go_on(struct client *c)
{
    struct bytes came = {0};
    if (c->in != NULL) {
        came = c->in->raw;
        c->in->raw = (struct bytes){0};
    }
    client_in_free(c);
    if (came.len > 0)
        wait_for_handshake(c, came.data, came.len);
    bytes_fini(&came);
}

/* ---- the PROXY header */

static void bad_preamble(struct client *c, const char *why)
{
    char peer[NET_ADDR_STRLEN];
    LOG(LOG_WARN, "bad_proxy_header", "peer=%s listen=%s why=\"%s\"",
        net_addr_format(&c->up.peer, peer, sizeof peer), c->listener->config->name, why);
    client_destroy(c, CLOSE_bad_proxy_header, false);
}

/* Its address is known as far as the connection tells it. False: it is gone or closing. */
static bool after_preamble(struct client *c, const struct proxy_header *h)
{
    struct net_addr peer = h->has_addresses ? h->client : c->up.peer;
    if (h->version != 0)
        shard_count(client_shard(c), COUNTER_proxy_headers, 1);
    /* A proxy behind the proxy may say more in the request. */
    c->address_open =
        client_is_of_proxy(c->listener, &peer) && c->listener->config->forwarded != FORWARDED_OFF;
    c->state = c->has_tls ? CLIENT_TLS : CLIENT_HANDSHAKE;
    if (c->address_open)
        c->up.peer = peer;
    else if (!client_admit(c, &peer))
        return false;
    if (!c->has_tls)
        client_begin(c);
    return c->state != CLIENT_CLOSING;
}

static void feed_preamble(struct client *c, uint8_t *data, size_t len)
{
    struct client_in *in = client_need_in(c);
    struct proxy_header h = {0};
    if (in == NULL)
        return;
    if (!bytes_append(&in->raw, data, len)) {
        client_no_memory(c);
        return;
    }
    ssize_t n = proxy_decode(in->raw.data, in->raw.len, &h);
    if (n == 0)
        return;
    if (n == -ENOMSG && c->listener->config->proxy_protocol == PROXY_PROTOCOL_OPTIONAL)
        n = 0;
    if (n < 0) {
        bad_preamble(c, n == -ENOMSG ? "there is none" : n == -EMSGSIZE ? "too long" : "malformed");
        return;
    }
    struct bytes raw = in->raw;
    in->raw = (struct bytes){0};
    client_in_free(c);
    if (after_preamble(c, &h) && raw.len > (size_t)n)
        c->conn.ops->data(&c->conn, raw.data + n, raw.len - (size_t)n);
    bytes_fini(&raw);
}

/* ---- both */

void client_begin_early(struct client *c, bool preamble)
{
    c->state = preamble ? CLIENT_PREAMBLE : CLIENT_TLS;
    client_arm(c);
}

void client_on_early_data(struct net_conn *conn, uint8_t *data, size_t len)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    if (c->state < CLIENT_HANDSHAKE)
        c->last_read_ms = shard_now_ms(client_shard(c));
    c->got_byte = true;
    if (c->has_tls && c->state != CLIENT_PREAMBLE)
        shard_count(client_shard(c), COUNTER_tls_record_bytes_in, len);
    if (c->state == CLIENT_PREAMBLE)
        feed_preamble(c, data, len);
    else if (c->state == CLIENT_TLS)
        wait_for_handshake(c, data, len);
    else if (!c->has_tls)
        client_on_data(conn, data, len);
    else if (c->edge != NULL && c->edge->tls != NULL)
        feed_tls(c, data, len);
}
