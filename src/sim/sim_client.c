// SPDX-License-Identifier: MIT
#include "sim/sim_client.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"
#include "proto/line/frame.h"
#include "proto/ws/frame.h"
#include "proto/ws/mask.h"
#include "sim/checker.h"
#include "sim/sim_message.h"

static const struct net_conn_ops client_ops;

/* ---- out */

static void flush(struct sim_client *c)
{
    if (c->state != SIM_CLIENT_OPEN || c->fin_sent)
        return;
    while (c->out.len > 0) {
        struct iovec iov = {c->out.data, c->out.len};
        ssize_t n = net_writev(c->w->client_host.net, &c->conn, &iov, 1);
        if (n <= 0)
            return;
        bytes_consume(&c->out, (size_t)n);
    }
    if (c->fin_wanted && c->held.len == 0) {
        c->fin_sent = true;
        net_shutdown(c->w->client_host.net, &c->conn);
    }
}

/* Where its next bytes go. */
static struct bytes *stream(struct sim_client *c)
{
    return c->waits_for_101 && !c->upgraded ? &c->held : &c->out;
}

static void put_frame(struct sim_client *c, unsigned first_byte, const void *data, size_t len)
{
    uint8_t head[WS_HEADER_MAX], key[4];
    struct bytes *to = stream(c);
    for (unsigned i = 0; i < 4; i++)
        key[i] = (uint8_t)world_draw(c->w, 256);
    size_t head_len = ws_frame_header_masked(head, first_byte & 15, len, key);
    head[0] = (uint8_t)first_byte;
    bytes_append(to, head, head_len);
    size_t at = to->len;
    if (len > 0)
        bytes_append(to, data, len);
    ws_mask(to->data + at, len, key, 0);
}

static void put_ping(struct sim_client *c)
{
    char text[16];
    int n = snprintf(text, sizeof text, "p%llu", (unsigned long long)c->pings++);
    put_frame(c, 0x80 | WS_OP_PING, text, (size_t)n);
}

static void put_fragments(struct sim_client *c, unsigned opcode, const uint8_t *data, size_t len)
{
    unsigned first = opcode;
    while (len > 0) {
        size_t n = 1 + world_draw(c->w, len);
        put_frame(c, first | (n == len ? 0x80 : 0), data, n);
        data += n;
        len -= n;
        first = WS_OP_CONTINUATION;
        if (len > 0 && world_chance(c->w, 30))
            put_ping(c);
    }
}

static void put_message(struct sim_client *c, const uint8_t *data, size_t len)
{
    uint8_t head[FRAME_HEADER_SIZE];
    unsigned opcode = world_chance(c->w, 70) ? WS_OP_TEXT : WS_OP_BINARY;
    switch (c->protocol) {
    case PROTOCOL_WEBSOCKET:
        if (world_chance(c->w, 20))
            put_fragments(c, opcode, data, len);
        else
            put_frame(c, 0x80 | opcode, data, len);
        return;
    case PROTOCOL_FRAME: bytes_append(&c->out, head, frame_header(head, len)); break;
    case PROTOCOL_TCP: bytes_append(&c->sent, data, len); break;
    case PROTOCOL_TEXT: break;
    }
    bytes_append(&c->out, data, len);
    if (c->protocol == PROTOCOL_TEXT)
        bytes_append_str(&c->out, world_chance(c->w, 50) ? "\n" : "\r\n");
}

bool sim_client_can_send(const struct sim_client *c)
{
    return c->state != SIM_CLIENT_GONE && !c->fin_wanted && !c->close_frame_sent && !c->bad_handshake &&
           !c->silent && !c->hard && !c->refused;
}

void sim_client_send(struct sim_client *c, uint32_t len)
{
    struct bytes text = {0};
    if (!sim_client_can_send(c))
        return;
    world_trace(c->w, "client %u sends message %u of %u bytes", c->index, c->n_sent, len);
    sim_message_append(&text, &(struct sim_message){SIM_OF_CLIENT, c->index, c->n_sent++, len});
    put_message(c, text.data, text.len);
    bytes_fini(&text);
    flush(c);
}

void sim_client_ping(struct sim_client *c)
{
    if (c->protocol != PROTOCOL_WEBSOCKET || !sim_client_can_send(c))
        return;
    put_ping(c);
    flush(c);
}

void sim_client_garbage(struct sim_client *c)
{
    uint8_t junk[64];
    if (!sim_client_can_send(c))
        return;
    c->hard = c->left = true;
    world_trace(c->w, "client %u sends garbage", c->index);
    for (unsigned i = 0; i < sizeof junk; i++)
        junk[i] = (uint8_t)world_draw(c->w, 256);
    if (c->protocol == PROTOCOL_FRAME)
        memset(junk, (int)world_draw(c->w, 2) * 255, 4); /* too short, or far too long */
    bytes_append(stream(c), junk, 1 + world_draw(c->w, sizeof junk));
    flush(c);
}

static void say_hello(struct sim_client *c)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\r\n\r\n",
        "GET /?a=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", /* never ends */
        ("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 12\r\n\r\n"),
    };
    if (c->protocol != PROTOCOL_WEBSOCKET || c->silent)
        return;
    if (c->bad_handshake)
        bytes_append_str(&c->out, bad[world_draw(c->w, 5)]);
    else
        bytes_printf(
            &c->out,
            "GET /chat?client=%u HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            c->index);
}

/* ---- in */

static const struct config_listen *listener_of(const struct sim_client *c)
{
    return &c->w->config.listen[c->protocol];
}

static void take_message(struct sim_client *c, const uint8_t *data, size_t len, int opcode)
{
    checker_delivered(c->w, c, (struct slice){data, len}, opcode);
}

static void take_close_frame(struct sim_client *c, const uint8_t *data, size_t len)
{
    if (len == 1)
        world_fail(c->w, "client %u: a close frame with half a code", c->index);
    c->close_code = len >= 2 ? (uint16_t)(data[0] << 8 | data[1]) : WS_CLOSE_NONE;
    c->close_frame_seen = true;
    world_trace(c->w, "client %u gets close %u", c->index, c->close_code);
    if (!c->close_frame_sent && c->state == SIM_CLIENT_OPEN && !c->fin_wanted) {
        c->close_frame_sent = true;
        put_frame(c, 0x80 | WS_OP_CLOSE, data, len < 2 ? len : 2);
        flush(c);
    }
}

static void take_control(struct sim_client *c, unsigned opcode, const uint8_t *data, size_t len)
{
    char expected[16];
    if (opcode == WS_OP_PING && sim_client_can_send(c)) {
        put_frame(c, 0x80 | WS_OP_PONG, data, len);
        flush(c);
    }
    if (opcode != WS_OP_PONG || c->hard) /* garbage may have made pings */
        return;
    int n = snprintf(expected, sizeof expected, "p%llu", (unsigned long long)c->pongs++);
    if (c->pongs > c->pings || len != (size_t)n || memcmp(data, expected, len) != 0)
        world_fail(c->w, "client %u: pong %llu is not that of the ping", c->index,
                   (unsigned long long)c->pongs);
}

/* One frame off the front of in: its length, 0: not all there. */
static size_t take_frame(struct sim_client *c)
{
    const uint8_t *p = c->in.data;
    size_t head = 2;
    if (c->in.len < 2)
        return 0;
    uint64_t len = p[1] & 127;
    unsigned wide = len == 126 ? 2 : len == 127 ? 8 : 0;
    if (c->in.len < head + wide)
        return 0;
    if (wide > 0)
        len = 0;
    for (unsigned i = 0; i < wide; i++)
        len = len << 8 | p[head + i];
    head += wide;
    unsigned opcode = p[0] & 15;
    bool control = opcode >= WS_OP_CLOSE;
    if ((p[0] & 0xf0) != 0x80 || (p[1] & 0x80) != 0 || (wide == 2 && len < 126) ||
        (wide == 8 && len < 65536) || (control && len > 125))
        world_fail(c->w, "client %u: frame %02x %02x of %llu bytes breaks the protocol", c->index, p[0], p[1],
                   (unsigned long long)len);
    if (c->in.len < head + len)
        return 0;
    if (opcode == WS_OP_CLOSE)
        take_close_frame(c, p + head, len);
    else if (control)
        take_control(c, opcode, p + head, len);
    else
        take_message(c, p + head, len, (int)opcode);
    return head + len;
}

static size_t take_answer(struct sim_client *c)
{
    static const char ok[] = "HTTP/1.1 101 ";
    const uint8_t *end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t len = (size_t)(end - c->in.data) + 4;
    c->upgraded = memcmp(c->in.data, ok, sizeof ok - 1) == 0;
    if (!c->upgraded) {
        c->refused = true;
        return 0;
    }
    if (c->bad_handshake || memmem(c->in.data, len, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28) == NULL)
        world_fail(c->w, "client %u: a handshake accepted that should not be, or without its key", c->index);
    bytes_append(&c->out, c->held.data, c->held.len);
    bytes_clear(&c->held);
    flush(c);
    return len;
}

static size_t take_websocket(struct sim_client *c)
{
    if (c->refused || c->in.len == 0)
        return 0;
    if (!c->upgraded)
        return take_answer(c);
    if (c->close_frame_seen) {
        world_fail(c->w, "client %u: bytes after the close frame", c->index);
        return 0;
    }
    return take_frame(c);
}

static size_t take_line(struct sim_client *c)
{
    const uint8_t *end = c->in.len > 0 ? memchr(c->in.data, '\n', c->in.len) : NULL;
    if (end == NULL)
        return 0;
    size_t len = (size_t)(end - c->in.data);
    take_message(c, c->in.data, len, -1);
    return len + 1;
}

static size_t take_frame_message(struct sim_client *c)
{
    struct slice message;
    ssize_t n = frame_decode(c->in.data, c->in.len, SIZE_MAX, &message);
    if (n < 0)
        world_fail(c->w, "client %u: a frame of no sensible length", c->index);
    if (n > 0)
        take_message(c, message.data, message.len, -1);
    return n > 0 ? (size_t)n : 0;
}

/* Raw: a message tells its own length; a heartbeat may stand between. */
static size_t take_raw(struct sim_client *c)
{
    struct sim_message m;
    if (c->in.len >= 4 && memcmp(c->in.data, "{hb}", 4) == 0)
        return 4;
    if (!sim_message_head((struct slice){c->in.data, c->in.len}, &m)) {
        if (c->in.len >= SIM_MESSAGE_HEAD)
            world_fail(c->w, "client %u: the stream has lost its order", c->index);
        return 0;
    }
    if (c->in.len < m.len)
        return 0;
    take_message(c, c->in.data, m.len, -1);
    return m.len;
}

static size_t take_one(struct sim_client *c)
{
    switch (c->protocol) {
    case PROTOCOL_WEBSOCKET: return take_websocket(c);
    case PROTOCOL_TEXT: return take_line(c);
    case PROTOCOL_FRAME: return take_frame_message(c);
    case PROTOCOL_TCP: return take_raw(c);
    }
    return 0;
}

static void on_data(struct net_conn *conn, uint8_t *data, size_t len)
{
    struct sim_client *c = CONTAINER_OF(conn, struct sim_client, conn);
    bytes_append(&c->in, data, len);
    size_t n;
    while (!c->w->failed && (n = take_one(c)) > 0)
        bytes_consume(&c->in, n);
}

static void on_writable(struct net_conn *conn)
{
    flush(CONTAINER_OF(conn, struct sim_client, conn));
}

static void on_connected(struct net_conn *conn)
{
    struct sim_client *c = CONTAINER_OF(conn, struct sim_client, conn);
    c->state = SIM_CLIENT_OPEN;
    flush(c);
}

static void on_closed(struct net_conn *conn, int err)
{
    struct sim_client *c = CONTAINER_OF(conn, struct sim_client, conn);
    world_trace(c->w, "client %u: closed, error %d", c->index, err);
    c->state = SIM_CLIENT_GONE;
    c->err = err;
    c->other_left = true;
    if (c->refused)
        checker_refusal(c->w, c);
}

static const struct net_conn_ops client_ops = {
    .data = on_data, .writable = on_writable, .closed = on_closed, .connected = on_connected};

/* ---- life */

static void connect_client(struct sim_client *c)
{
    struct net *net = c->w->client_host.net;
    struct net_addr from = {.family = AF_INET};
    struct net_addr to = {.family = AF_INET, .ip = {127, 0, 0, 1}, .port = (uint16_t)listener_of(c)->port};
    uint32_t ip = htonl(SIM_CLIENT_NET + c->index);
    memcpy(from.ip, &ip, sizeof ip);
    sim_net_node_source(net, &from);
    c->conn.ops = &client_ops;
    if (net_connect(net, &c->conn, &to) != 0)
        c->state = SIM_CLIENT_GONE;
}

struct sim_client *sim_client_new(struct world *w, const struct sim_client_plan *plan)
{
    ASSERT(w->n_clients < WORLD_CLIENTS_MAX);
    struct sim_client *c = calloc(1, sizeof *c);
    ASSERT(c != NULL);
    c->w = w;
    c->index = w->n_clients;
    w->clients[w->n_clients++] = c;
    c->protocol = plan->protocol;
    c->bad_handshake = plan->bad_handshake && plan->protocol == PROTOCOL_WEBSOCKET;
    c->silent = plan->silent;
    c->waits_for_101 = plan->waits_for_101 && plan->protocol == PROTOCOL_WEBSOCKET;
    c->owner = c->uid = -1;
    c->session_v = c->session_u = -1;
    c->since_ns = sim_net_now_ns(w->net);
    sim_client_session_changed(c);
    world_trace(w, "client %u connects: %s%s%s", c->index, config_protocol_name(c->protocol),
                c->bad_handshake ? ", with a bad handshake" : "", c->silent ? ", silent" : "");
    say_hello(c);
    connect_client(c);
    return c;
}

void sim_client_free(struct sim_client *c)
{
    if (net_conn_is_open(&c->conn))
        net_close(c->w->client_host.net, &c->conn, true);
    for (unsigned i = 0; i < WORLD_LINKS_MAX; i++) {
        if (c->told[i] != NULL)
            bytes_fini(&c->told[i]->stream);
        free(c->told[i]);
    }
    bytes_fini(&c->out);
    bytes_fini(&c->held);
    bytes_fini(&c->sent);
    bytes_fini(&c->in);
    free(c->got);
    free(c->sessions);
    free(c);
}

void sim_client_session_changed(struct sim_client *c)
{
    if (c->n_sessions == c->cap_sessions) {
        c->cap_sessions = c->cap_sessions == 0 ? 4 : c->cap_sessions * 2;
        c->sessions = realloc(c->sessions, c->cap_sessions * sizeof *c->sessions);
        ASSERT(c->sessions != NULL);
    }
    c->sessions[c->n_sessions++] = (struct sim_session){c->session_v, c->session_u};
}

void sim_session_text(struct sim_session s, char text[SIM_SESSION_SIZE])
{
    if (s.v >= 0 && s.u >= 0)
        snprintf(text, SIM_SESSION_SIZE, "a:2:{s:1:\"v\";i:%lld;s:1:\"u\";i:%lld;}", (long long)s.v,
                 (long long)s.u);
    else if (s.v >= 0)
        snprintf(text, SIM_SESSION_SIZE, "a:1:{s:1:\"v\";i:%lld;}", (long long)s.v);
    else if (s.u >= 0)
        snprintf(text, SIM_SESSION_SIZE, "a:1:{s:1:\"u\";i:%lld;}", (long long)s.u);
    else
        text[0] = '\0';
}

void sim_client_pause(struct sim_client *c)
{
    if (c->state != SIM_CLIENT_OPEN || c->paused)
        return;
    world_trace(c->w, "client %u stops reading", c->index);
    c->paused = c->was_slow = true;
    net_read_pause(c->w->client_host.net, &c->conn);
}

void sim_client_resume(struct sim_client *c)
{
    if (c->state != SIM_CLIENT_OPEN || !c->paused)
        return;
    world_trace(c->w, "client %u reads again", c->index);
    c->paused = false;
    net_read_resume(c->w->client_host.net, &c->conn);
}

void sim_client_end(struct sim_client *c, bool close_frame)
{
    if (c->state == SIM_CLIENT_GONE || c->fin_wanted || c->close_frame_sent)
        return;
    sim_client_resume(c); /* else it would not see the end */
    c->left = true;
    close_frame =
        close_frame && c->protocol == PROTOCOL_WEBSOCKET && !c->bad_handshake && !c->silent && !c->hard;
    world_trace(c->w, "client %u ends with %s", c->index, close_frame ? "a close frame" : "FIN");
    if (close_frame) {
        c->close_frame_sent = true;
        put_frame(c, 0x80 | WS_OP_CLOSE, "\x03\xe8", world_chance(c->w, 50) ? 2 : 0);
    } else {
        c->fin_wanted = true;
        /* What waits for an answer that it does not wait for. */
        if (c->held.len > 0)
            c->hard = true;
        bytes_clear(&c->held);
    }
    flush(c);
}

void sim_client_reset(struct sim_client *c)
{
    if (c->state == SIM_CLIENT_GONE)
        return;
    world_trace(c->w, "client %u resets", c->index);
    c->hard = c->left = true;
    c->state = SIM_CLIENT_GONE;
    net_close(c->w->client_host.net, &c->conn, true);
}
