// SPDX-License-Identifier: MIT
#include "load.h"

#include "common.h"

#include <string.h>

/* Always the same: whoever echoes what he does not unmask (tgg-floor) can be checked. */
static const uint8_t mask_key[4] = {0x37, 0xfa, 0x21, 0x3d};

static void mask(uint8_t *data, uint32_t len)
{
    codec_mask(data, len, mask_key);
}

/* Text, so that the gateway's check of UTF-8 has its usual work. */
void frames_init(struct load *l)
{
    uint32_t len = l->opt.payload;
    l->frame_head = (uint32_t)codec_head(LOAD_WEBSOCKET, LOAD_OP_TEXT, len, mask_key, l->frame);
    uint8_t *p = l->frame + l->frame_head;
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

static struct load *load_of(struct engine *e)
{
    return e->user;
}

static struct conn *conn_of(struct engine_conn *c)
{
    return (struct conn *)c;
}

static void conn_ready(struct load *l, struct conn *c)
{
    c->awaiting = false;
    l->n_ready++;
    if (l->opt.deaf)
        engine_deafen(&l->engine, &c->base);
}

static void conn_opened(struct engine *e, struct engine_conn *c)
{
    struct load *l = load_of(e);
    if (l->opt.await && !l->opt.silent)
        conn_of(c)->awaiting = true;
    else
        conn_ready(l, conn_of(c));
}

static void conn_message(struct engine *e, struct engine_conn *base, const struct codec_message *m)
{
    struct load *l = load_of(e);
    struct conn *c = conn_of(base);
    l->compressed = m->compressed;
    if (m->compressed && !l->opt.deflate)
        die("connection %u: a compressed frame", base->index);
    if (!m->whole)
        die("connection %u: a message in pieces", base->index);
    if (c->awaiting)
        conn_ready(l, c);
    else if (l->mode->message != NULL)
        l->mode->message(l, c, m->data, (uint32_t)m->len);
}

static void conn_writable(struct engine *e, struct engine_conn *c)
{
    struct load *l = load_of(e);
    if (l->mode->writable != NULL)
        l->mode->writable(l, conn_of(c));
}

static void conn_ended(struct engine *e, struct engine_conn *c, enum engine_end end, int detail)
{
    const char *more = "";
    if (end == ENGINE_END_TLS)
        more = load_tls_error();
    else if (detail != 0 && (end == ENGINE_END_CONNECT || end == ENGINE_END_LOST || end == ENGINE_END_EARLY))
        more = strerror(detail);
    die("connection %u: %s (%d) %s", c->index, engine_end_name(end), detail, more);
}

static void conn_other(struct engine *e)
{
    stdin_read(load_of(e));
}

const struct engine_ops load_conn_ops = {
    .opened = conn_opened,
    .message = conn_message,
    .writable = conn_writable,
    .ended = conn_ended,
    .other = conn_other,
};

static uint32_t number_of(const struct load *l, const struct conn *c)
{
    return l->mode == &load_fanout ? BROADCAST_INDEX : c->base.index;
}

bool conn_send(struct load *l, struct conn *c)
{
    if (engine_is_blocked(&c->base))
        return false;
    put_digits(l->frame + l->frame_head, number_of(l, c), c->sent++, true);
    engine_send(&l->engine, &c->base, l->frame, l->frame_head + l->opt.payload);
    return !engine_is_blocked(&c->base);
}

void conn_send_payload(struct load *l, struct conn *c, uint8_t *payload, uint32_t len)
{
    c->sent++;
    engine_send_message(&l->engine, &c->base, LOAD_OP_TEXT, payload, len);
}
