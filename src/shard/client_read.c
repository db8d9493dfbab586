// SPDX-License-Identifier: MIT
/* What comes from clients: bytes to messages, messages to the upstream.
 *
 * Bytes are decoded where net has read them. What is incomplete at the end of a read is kept in struct
 * client_in, which an idle client does not have. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "proto/line/frame.h"
#include "proto/line/text.h"
#include "shard/census.h"
#include "shard/trace.h"

/* ---- what is kept */

void client_in_free(struct client *c)
{
    if (c->in == NULL)
        return;
    client_shard(c)->input_bytes -= c->in->held;
    bytes_fini(&c->in->raw);
    bytes_fini(&c->in->message);
    free(c->in);
    c->in = NULL;
}

void client_no_memory(struct client *c)
{
    client_close(c, CLOSE_no_memory, WS_CLOSE_INTERNAL, NULL);
}

struct client_in *client_need_in(struct client *c)
{
    if (c->in != NULL)
        return c->in;
    c->in = calloc(1, sizeof *c->in);
    if (c->in == NULL) {
        client_no_memory(c);
        return NULL;
    }
    c->in->since_ms = shard_now_ms(client_shard(c));
    if (c->state == CLIENT_OPEN && c->listener->config->message_timeout > 0)
        client_arm(c);
    return c->in;
}

static void keep_raw(struct client *c, const uint8_t *data, size_t len)
{
    if (len == 0)
        return;
    struct client_in *in = client_need_in(c);
    if (in != NULL && !bytes_append(&in->raw, data, len))
        client_no_memory(c);
}

/* After bytes of c were looked at: what it makes us hold counts, and has a limit over all clients. */
static void check_held(struct client *c)
{
    struct client_in *in = c->in;
    if (__builtin_expect(in == NULL, 1))
        return;
    struct shard *s = client_shard(c);
    size_t held = in->raw.cap + in->message.cap;
    s->input_bytes += held - in->held;
    in->held = held;
    if (s->input_bytes <= shard_config(s)->client_input_total_bytes)
        return;
    c->deaf = true;
    client_in_free(c);
    client_close(c, CLOSE_input_limit, WS_CLOSE_TRY_LATER, "try again later");
}

static void free_if_idle(struct client *c)
{
    struct client_in *in = c->in;
    if (in != NULL && in->raw.len == 0 && in->message.len == 0 && ws_decoder_idle(&in->ws))
        client_in_free(c);
}

/* ---- messages */

bool client_is_blocked(struct client *c)
{
    struct shard *s = client_shard(c);
    if (__builtin_expect(!client_is_paused(c) && !upstream_client_blocked(s->upstream, &c->up), 1))
        return false;
    net_read_pause(s->host.net, &c->conn);
    return true;
}

/* A message was one too many for its client: it is the last for a while. */
static __attribute__((noinline)) void over_rate(struct client *c, uint32_t wait_ms)
{
    struct shard *s = client_shard(c);
    if (shard_config(s)->rate_policy == RATE_POLICY_CLOSE) {
        client_close(c, CLOSE_rate, WS_CLOSE_POLICY, "too many messages");
        return;
    }
    c->rate_paused = true;
    c->edge->rate_until_ms = shard_now_ms(s) + wait_ms;
    shard_count(s, COUNTER_client_rate_paused, 1);
    net_read_pause(s->host.net, &c->conn);
    client_arm(c);
}

static __attribute__((noinline)) void meter(struct client *c, size_t len)
{
    struct shard *s = client_shard(c);
    struct client_edge *e = client_need_edge(c);
    uint32_t wait_ms = 0;
    if (e != NULL && guard_meter(s->guard, &e->meter, shard_now_ms(s), len, &wait_ms) != GUARD_PASS)
        over_rate(c, wait_ms);
}

/* False: the client is closing now, its bytes are of no more interest. */
static bool deliver(struct client *c, const uint8_t *data, size_t len)
{
    struct shard *s = client_shard(c);
    if (__builtin_expect(s->is_metered, 0)) {
        meter(c, len);
        if (c->state != CLIENT_OPEN)
            return false;
    }
    if (c->in != NULL) /* what follows in it is another message, with its own time */
        c->in->since_ms = shard_now_ms(s);
    shard_count(s, COUNTER_client_messages_in, 1);
    shard_count(s, COUNTER_client_message_bytes_in, len);
    histogram_observe(s->host.histograms, message_in, len);
    if (__builtin_expect(s->census != NULL, 0))
        census_in(s, c, len);
    if (__builtin_expect(s->traces != NULL && c->up.traced, 0))
        trace_message(c, "in", NULL, data, len);
    upstream_client_message(s->upstream, &c->up, data, len);
    return c->state == CLIENT_OPEN;
}

/* ---- websocket */

static void deliver_whole(struct client *c, const uint8_t *data, size_t len, const struct ws_piece *piece)
{
    struct slice message = {data, len};
    if (__builtin_expect(!piece->compressed, 1) ||
        client_inflate(c, data, len, piece->opcode == WS_OP_TEXT, &message))
        deliver(c, message.data, message.len);
}

static void on_piece(struct client *c, const struct ws_piece *piece)
{
    if (c->state != CLIENT_OPEN)
        return;
    if (piece->first && piece->last) {
        deliver_whole(c, piece->data, piece->len, piece);
        return;
    }
    struct client_in *in = client_need_in(c);
    if (in == NULL)
        return;
    if (!bytes_append(&in->message, piece->data, piece->len)) {
        client_no_memory(c);
        return;
    }
    if (!piece->last)
        return;
    struct bytes message = in->message;
    in->message = (struct bytes){0};
    deliver_whole(c, message.data, message.len, piece);
    bytes_fini(&message);
}

static void on_peer_close(struct client *c, const struct ws_piece *piece)
{
    c->close_received = true;
    c->deaf = true;
    if (c->state == CLIENT_CLOSING)
        client_mark_dirty(c); /* our close frame has been answered: the write side goes on */
    else
        client_close(c, CLOSE_peer_close_frame, piece->code, NULL);
}

static void on_decode_error(struct client *c, const struct ws_piece *piece)
{
    c->deaf = true;
    enum close_reason reason = piece->code == WS_CLOSE_TOO_BIG    ? CLOSE_too_big
                               : piece->code == WS_CLOSE_BAD_DATA ? CLOSE_bad_utf8
                               : piece->code == WS_CLOSE_POLICY   ? CLOSE_too_many_fragments
                                                                  : CLOSE_protocol_error;
    if (c->state == CLIENT_CLOSING)
        client_mark_dirty(c);
    else
        client_close(c, reason, piece->code, piece->why);
}

/* Pings and pongs cost us, and nobody else sees them. */
static void count_control(struct client *c)
{
    struct shard *s = client_shard(c);
    uint64_t limit = c->listener->config->control_rate;
    if (c->in != NULL && !ws_decoder_in_message(&c->in->ws))
        c->in->since_ms = shard_now_ms(s); /* as after a message */
    if (c->control_second != s->second) {
        c->control_second = s->second;
        c->control_count = 0;
    }
    if (c->control_count < UINT16_MAX)
        c->control_count++;
    if (limit == 0 || c->control_count <= limit || c->state != CLIENT_OPEN)
        return;
    c->deaf = true;
    client_close(c, CLOSE_rate, WS_CLOSE_POLICY, "too many control frames");
}

/* Frames that are no messages. */
static void trace_control(struct client *c, enum ws_event event, const struct ws_piece *piece)
{
    if (event == WS_PING || event == WS_PONG)
        trace_message(c, "in", event == WS_PING ? "ping" : "pong", piece->data, piece->len);
    else if (event == WS_CLOSE)
        trace_message(c, "in", "close", NULL, 0);
}

static void on_websocket_event(struct client *c, enum ws_event event, const struct ws_piece *piece)
{
    if (__builtin_expect(client_shard(c)->traces != NULL && c->up.traced, 0))
        trace_control(c, event, piece);
    switch (event) {
    case WS_DATA: on_piece(c, piece); break;
    case WS_PING:
        shard_count(client_shard(c), COUNTER_client_pings_in, 1);
        count_control(c);
        if (c->state == CLIENT_OPEN)
            client_queue_control(c, out_websocket_control(WS_OP_PONG, piece->data, piece->len));
        break;
    case WS_PONG:
        shard_count(client_shard(c), COUNTER_client_pongs_in, 1);
        count_control(c);
        break;
    case WS_CLOSE: on_peer_close(c, piece); break;
    case WS_ERROR: on_decode_error(c, piece); break;
    case WS_NEED_MORE: break;
    }
}

/* The decoder of a client that is between messages stands on the stack; it moves to c->in when it has to
 * remember. */
static void feed_websocket(struct client *c, uint8_t *data, size_t len)
{
    struct ws_decoder local, *d = &local;
    if (c->in != NULL)
        d = &c->in->ws;
    else
        ws_decoder_init(&local);
    const struct ws_rules *rules = &c->listener->rules[c->has_deflate];
    while (len > 0 && !c->deaf) {
        if (ws_decoder_idle(d) && c->state == CLIENT_OPEN && client_is_blocked(c)) {
            keep_raw(c, data, len);
            return;
        }
        struct ws_piece piece;
        size_t used;
        enum ws_event event = ws_decode(d, rules, data, len, &used, &piece);
        data += used;
        len -= used;
        if (event == WS_NEED_MORE)
            break;
        on_websocket_event(c, event, &piece);
        if (d == &local && c->in != NULL) {
            c->in->ws = local;
            d = &c->in->ws;
        }
    }
    if (d == &local && !ws_decoder_idle(d) && client_need_in(c) != NULL)
        c->in->ws = local;
    else if (d != &local)
        free_if_idle(c);
}

/* ---- text and frame: messages of a byte stream */

static ssize_t decode_one(struct client *c, const uint8_t *data, size_t len, size_t *scanned,
                          struct slice *ret)
{
    size_t size_max = c->listener->config->package_size_max;
    if (c->listener->config->protocol == PROTOCOL_TEXT)
        return text_decode(data, len, scanned, size_max, ret);
    return frame_decode(data, len, size_max, ret);
}

/* Bytes used; the client may be closing or paused after. */
static size_t decode_stream(struct client *c, const uint8_t *data, size_t len, size_t *scanned)
{
    size_t used = 0;
    while (used < len && !client_is_blocked(c) && c->state == CLIENT_OPEN) {
        struct slice message;
        ssize_t n = decode_one(c, data + used, len - used, scanned, &message);
        if (n < 0) {
            c->deaf = true;
            client_close(c, n == -EMSGSIZE ? CLOSE_too_big : CLOSE_protocol_error, 0,
                         n == -EMSGSIZE ? "message over package_size_max" : "length below 4");
            break;
        }
        if (n == 0)
            break;
        used += (size_t)n;
        if (!deliver(c, message.data, message.len))
            break;
    }
    return used;
}

static void feed_stream(struct client *c, const uint8_t *data, size_t len)
{
    size_t scanned = 0;
    if (c->in == NULL) {
        size_t used = decode_stream(c, data, len, &scanned);
        if (c->state != CLIENT_OPEN || used == len)
            return;
        keep_raw(c, data + used, len - used);
        if (c->in != NULL)
            c->in->scanned = scanned;
        return;
    }
    keep_raw(c, data, len);
    if (c->state != CLIENT_OPEN)
        return;
    struct client_in *in = c->in;
    size_t used = decode_stream(c, in->raw.data, in->raw.len, &in->scanned);
    if (c->state != CLIENT_OPEN)
        return;
    bytes_consume(&in->raw, used);
    free_if_idle(c);
}

/* ---- tcp: what comes is the message */

static void feed_tcp(struct client *c, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = len;
        if (n > c->listener->config->package_size_max)
            n = c->listener->config->package_size_max;
        if (client_is_blocked(c)) {
            keep_raw(c, data, len);
            return;
        }
        if (c->state != CLIENT_OPEN || !deliver(c, data, n))
            return;
        data += n;
        len -= n;
    }
}

void client_feed(struct client *c, uint8_t *data, size_t len)
{
    switch (c->listener->config->protocol) {
    case PROTOCOL_WEBSOCKET: feed_websocket(c, data, len); break;
    case PROTOCOL_TEXT:
    case PROTOCOL_FRAME: feed_stream(c, data, len); break;
    case PROTOCOL_TCP: feed_tcp(c, data, len); break;
    }
}

/* Looks for the peer's close frame, behind what had been kept for the worker's sake. */
static void feed_closing(struct client *c, uint8_t *data, size_t len)
{
    if (c->in == NULL || c->in->raw.len == 0) {
        feed_websocket(c, data, len);
        return;
    }
    struct bytes raw = c->in->raw;
    c->in->raw = (struct bytes){0};
    if (bytes_append(&raw, data, len))
        feed_websocket(c, raw.data, raw.len);
    else
        c->deaf = true;
    bytes_fini(&raw);
}

void client_on_data(struct net_conn *conn, uint8_t *data, size_t len)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    uint32_t now_ms = shard_now_ms(client_shard(c));
    if (now_ms - c->last_read_ms >= 1000)
        c->control_count = 0; /* control_second runs round */
    c->last_read_ms = now_ms;
    c->got_byte = true;
    if (__builtin_expect(c->state == CLIENT_OPEN, 1))
        client_feed(c, data, len);
    else if (c->state == CLIENT_HANDSHAKE)
        client_feed_handshake(c, data, len);
    else if (c->close_sent && !c->deaf)
        feed_closing(c, data, len);
    check_held(c);
}

/* The bytes that came before a pause. */
static void feed_kept(struct client *c)
{
    struct bytes raw = {0};
    if (c->in != NULL) {
        raw = c->in->raw;
        c->in->raw = (struct bytes){0};
        c->in->scanned = 0;
    }
    free_if_idle(c);
    client_feed(c, raw.data, raw.len);
    bytes_fini(&raw);
}

void client_resume(struct upstream_client *up)
{
    struct client *c = client_of(up);
    if (c->state == CLIENT_CLOSING || c->rate_paused) /* its own time will come */
        return;
    c->last_read_ms = shard_now_ms(client_shard(c));
    if (c->in != NULL)
        c->in->since_ms = c->last_read_ms; /* it waited for us */
    if (c->state == CLIENT_HANDSHAKE)
        client_feed_handshake(c, NULL, 0);
    else
        feed_kept(c);
    check_held(c);
    if (!client_is_paused(c) && c->state != CLIENT_CLOSING)
        net_read_resume(client_shard(c)->host.net, &c->conn);
}

int client_rate_restore(struct client *c, uint32_t until_ms)
{
    if (client_need_edge(c) == NULL)
        return -ENOMEM;
    c->rate_paused = true;
    c->edge->rate_until_ms = until_ms;
    return 0;
}

void client_rate_over(struct client *c)
{
    c->rate_paused = false;
    if (!c->up.paused)
        client_resume(&c->up);
}
