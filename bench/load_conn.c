// SPDX-License-Identifier: MIT
#include "load.h"

#include "common.h"
#include "handshake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define OP_TEXT  0x1
#define OP_BIN   0x2
#define OP_CLOSE 0x8
#define OP_PING  0x9
#define OP_PONG  0xA

static const uint8_t mask_key[4] = {0x37, 0xfa, 0x21, 0x3d};

static void mask(uint8_t *data, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        data[i] ^= mask_key[i % 4];
}

/* Text, so that the gateway's check of UTF-8 has its usual work. */
void frames_init(struct load *l)
{
    uint32_t len = l->opt.payload;
    uint8_t *p = l->frame;
    l->frame_head = len < 126 ? 6 : 8;
    p[0] = 0x80 | OP_TEXT;
    p[1] = 0x80 | (len < 126 ? (uint8_t)len : 126);
    p[2] = (uint8_t)(len >> 8);
    p[3] = (uint8_t)len;
    memcpy(p + l->frame_head - 4, mask_key, 4);
    p += l->frame_head;
    for (uint32_t i = 0; i < len; i++)
        p[i] = (uint8_t)('a' + i % 26);
    mask(p, len);
    memcpy(l->expected, p, len);
    if (!l->opt.opaque)
        mask(l->expected, len);
}

void put_hex(uint8_t *p, uint32_t value)
{
    for (int i = 7; i >= 0; i--, value >>= 4)
        p[i] = (uint8_t) "0123456789abcdef"[value & 15];
}

static uint32_t take_hex(const uint8_t *p)
{
    uint32_t value = 0;
    for (int i = 0; i < 8; i++) {
        const char *digit = memchr("0123456789abcdef", p[i], 16);
        if (digit == NULL)
            die("not a number in a payload: %.8s", (const char *)p);
        value = value << 4 | (uint32_t)(digit - "0123456789abcdef");
    }
    return value;
}

bool message_numbers(const struct load *l, const uint8_t *data, uint32_t len, uint32_t *ret_index,
                     uint32_t *ret_seq)
{
    uint8_t digits[16];
    if (len < sizeof(digits))
        return false;
    memcpy(digits, data, sizeof(digits));
    if (l->opt.opaque)
        mask(digits, sizeof(digits));
    *ret_index = take_hex(digits);
    *ret_seq = take_hex(digits + 8);
    return true;
}

/* The first 16 bytes of a payload: who sent it and which of his it is. */
static void put_digits(uint8_t *p, uint32_t index, uint32_t seq, bool masked)
{
    put_hex(p, index);
    put_hex(p + 8, seq);
    if (masked)
        mask(p, 16);
}

void message_check(struct load *l, const uint8_t *data, uint32_t len, uint32_t index, uint32_t seq)
{
    if (l->compressed)
        return;
    put_digits(l->expected, index, seq, l->opt.opaque);
    if (len != l->opt.payload || memcmp(data, l->expected, len) != 0)
        die("message %u of connection %u came back as %u bytes \"%.*s\"", seq, index, len,
            len < 64 ? (int)len : 64, (const char *)data);
}

int socket_connect(const struct load *l, uint64_t n)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die_errno("socket");
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + l->opt.source_first + (uint32_t)(n % l->opt.sources));
    /* The port is chosen at connect: then it need only be free towards this target. */
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&source, sizeof(source)) < 0)
        die_errno("bind");
    if (connect(fd, (const struct sockaddr *)&l->opt.target, sizeof(l->opt.target)) < 0 &&
        errno != EINPROGRESS)
        die_errno("connect");
    return fd;
}

void conn_begin(struct load *l, struct conn *c)
{
    c->fd = socket_connect(l, c->index);
    c->state = CONN_CONNECTING;
    watch(l, EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
}

static ssize_t conn_recv(struct conn *c, void *data, size_t len)
{
    return c->tls != NULL ? tls_recv(c->tls, data, len) : recv(c->fd, data, len, 0);
}

static ssize_t conn_write(struct conn *c, const void *data, size_t len)
{
    return c->tls != NULL ? tls_send(c->tls, data, len) : send(c->fd, data, len, MSG_NOSIGNAL);
}

static void conn_greet(const struct load *l, struct conn *c)
{
    const char *request = l->opt.deflate ? HANDSHAKE_REQUEST_DEFLATE : HANDSHAKE_REQUEST;
    if (conn_write(c, request, strlen(request)) < 0)
        die_errno("handshake of connection %u", c->index);
    c->state = CONN_GREETING;
}

static void conn_ready(struct load *l, struct conn *c)
{
    c->state = CONN_OPEN;
    l->n_ready++;
    if (l->opt.deaf)
        watch(l, EPOLL_CTL_DEL, c->fd, 0, c);
}

static void conn_connected(struct load *l, struct conn *c)
{
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err != 0) {
        errno = err;
        die_errno("connection %u", c->index);
    }
    set_nodelay(c->fd);
    if (l->opt.silent) {
        watch(l, EPOLL_CTL_DEL, c->fd, 0, c);
        conn_ready(l, c);
        return;
    }
    watch(l, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    if (l->tls == NULL) {
        conn_greet(l, c);
        return;
    }
    c->tls = tls_on(l->tls, c->fd);
    c->state = CONN_TLS;
    tls_greet(c->tls); /* its first flight always fits */
}

size_t answer_check(const uint8_t *text, size_t len)
{
    const uint8_t *end = memmem(text, len, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t used = (size_t)(end - text) + 4;
    if (memcmp(text, "HTTP/1.1 101", 12) != 0 ||
        memmem(text, used, HANDSHAKE_ACCEPT, sizeof(HANDSHAKE_ACCEPT) - 1) == NULL)
        die("handshake refused: %.*s", (int)used, (const char *)text);
    return used;
}

size_t frame_read(const uint8_t *data, size_t len, struct frame *ret)
{
    size_t head = 2;
    if (len < 2)
        return 0;
    size_t n = data[1] & 127;
    if (n == 126) {
        head = 4;
        if (len < head)
            return 0;
        n = (size_t)data[2] << 8 | data[3];
    } else if (n == 127) {
        die("a frame longer than any that was sent");
    }
    if ((data[0] & 0xB0) != 0x80 || (data[1] & 0x80) != 0)
        die("a frame begins with %02x %02x", data[0], data[1]);
    if (len < head + n)
        return 0;
    *ret = (struct frame){data[0] & 15, (data[0] & 0x40) != 0, data + head, (uint32_t)n};
    return head + n;
}

static void pong(struct conn *c, const struct frame *f)
{
    uint8_t out[6 + 125] = {0x80 | OP_PONG, 0x80 | (uint8_t)f->payload_len};
    memcpy(out + 2, mask_key, 4);
    memcpy(out + 6, f->payload, f->payload_len);
    mask(out + 6, f->payload_len);
    if (conn_write(c, out, 6 + f->payload_len) < 0)
        die_errno("pong");
}

static void frame_take(struct load *l, struct conn *c, const struct frame *f)
{
    l->compressed = f->compressed;
    if (f->compressed && !l->opt.deflate)
        die("connection %u: a compressed frame", c->index);
    if (f->opcode == OP_PING && f->payload_len <= 125)
        pong(c, f);
    else if (f->opcode == OP_CLOSE)
        die("connection %u was closed with code %d", c->index,
            f->payload_len < 2 ? 1005 : f->payload[0] << 8 | f->payload[1]);
    else if (f->opcode != OP_TEXT && f->opcode != OP_BIN)
        die("a frame of type %u", f->opcode);
    else if (c->state == CONN_AWAITING)
        conn_ready(l, c);
    else if (l->mode->message != NULL)
        l->mode->message(l, c, f->payload, f->payload_len);
}

/* Takes what is complete; returns how much. */
static size_t input_take(struct load *l, struct conn *c, const uint8_t *data, size_t len)
{
    size_t at = 0;
    if (c->state == CONN_GREETING) {
        at = answer_check(data, len);
        if (at == 0)
            return 0;
        if (l->opt.await)
            c->state = CONN_AWAITING;
        else
            conn_ready(l, c);
    }
    for (;;) {
        struct frame f;
        size_t n = frame_read(data + at, len - at, &f);
        if (n == 0)
            return at;
        frame_take(l, c, &f);
        at += n;
    }
}

static void partial_keep(struct conn *c, const uint8_t *data, size_t len)
{
    if (len > PAYLOAD_MAX + FRAME_HEAD)
        die("connection %u: an answer of more than %zu bytes", c->index, len);
    if (len > 0 && c->partial == NULL)
        c->partial = xcalloc(1, PAYLOAD_MAX + FRAME_HEAD);
    if (len > 0)
        memcpy(c->partial, data, len);
    c->partial_len = (uint32_t)len;
}

static void conn_read(struct load *l, struct conn *c)
{
    size_t len = c->partial_len;
    if (len > 0)
        memcpy(l->input, c->partial, len);
    ssize_t n = conn_recv(c, l->input + len, READ_BYTES);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        die_errno("reading connection %u", c->index);
    if (n == 0)
        die("connection %u was closed by the other side", c->index);
    l->now = now_ns();
    len += (size_t)n;
    size_t used = input_take(l, c, l->input, len);
    partial_keep(c, l->input + used, len - used);
}

static void conn_block(struct load *l, struct conn *c, bool blocked)
{
    if (c->blocked == blocked)
        return;
    c->blocked = blocked;
    watch(l, EPOLL_CTL_MOD, c->fd, EPOLLIN | (blocked ? EPOLLOUT : 0), c);
}

static uint32_t number_of(const struct load *l, const struct conn *c)
{
    return l->mode == &load_fanout ? BROADCAST_INDEX : c->index;
}

/* The frame of message sent - 1, its last c->unsent bytes. */
static bool unsent_send(struct load *l, struct conn *c)
{
    uint32_t len = l->frame_head + l->opt.payload;
    put_digits(l->frame + l->frame_head, number_of(l, c), c->sent - 1, true);
    ssize_t n = conn_write(c, l->frame + len - c->unsent, c->unsent);
    if (n < 0 && errno != EAGAIN)
        die_errno("writing to connection %u", c->index);
    c->unsent -= n < 0 ? 0 : (uint32_t)n;
    conn_block(l, c, c->unsent > 0);
    return !c->blocked;
}

bool conn_send(struct load *l, struct conn *c)
{
    if (c->blocked)
        return false;
    c->sent++;
    c->unsent = l->frame_head + l->opt.payload;
    return unsent_send(l, c);
}

void conn_send_payload(struct conn *c, uint8_t *payload, uint32_t len)
{
    uint8_t head[FRAME_HEAD] = {0x80 | OP_TEXT, 0x80 | (len < 126 ? (uint8_t)len : 126), (uint8_t)(len >> 8),
                                (uint8_t)len};
    uint32_t head_len = len < 126 ? 6 : 8;
    memcpy(head + head_len - 4, mask_key, 4);
    mask(payload, len);
    if (c->tls != NULL)
        die("this mode has no TLS");
    struct iovec parts[] = {{head, head_len}, {payload, len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (sendmsg(c->fd, &message, MSG_NOSIGNAL) != (ssize_t)(head_len + len))
        die_errno("connection %u did not take a message whole", c->index);
    c->sent++;
}

void conn_event(struct load *l, struct conn *c, uint32_t events)
{
    if (c->state == CONN_CONNECTING) {
        conn_connected(l, c);
        return;
    }
    if (c->state == CONN_TLS) {
        if (tls_greet(c->tls))
            conn_greet(l, c);
        return;
    }
    if ((events & EPOLLOUT) != 0 && unsent_send(l, c) && l->mode->writable != NULL)
        l->mode->writable(l, c);
    if ((events & ~(uint32_t)EPOLLOUT) != 0)
        conn_read(l, c);
}
