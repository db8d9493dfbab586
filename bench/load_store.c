// SPDX-License-Identifier: MIT
/* A store behind the gateway: each connection has KEYS keys of its own, whose values (of --payload bytes) it
 * sets and gets in turn, one in SET_EVERY commands a set, one command on the way at a time. What comes back
 * for a get must be what was set last. An operation is a command answered. Before its first run each
 * connection sets all of its keys, so that every get has a value to bring. */
#include "load.h"

#include "common.h"

#include <string.h>

#define KEYS      64u
#define SET_EVERY 11u /* set:get = 1:10 */
#define COMMAND   13u /* "set ", eight digits, a space */

struct store_conn {
    uint64_t sent_ns;
    uint32_t n;             /* commands sent */
    uint32_t version[KEYS]; /* how often each was set */
};
static struct store_conn *states;

static bool is_set(uint32_t n)
{
    return n < KEYS || n % SET_EVERY == 0;
}

/* Sets walk through all keys, gets through all others. */
static uint32_t key_of(uint32_t n)
{
    return n < KEYS ? n : is_set(n) ? n / SET_EVERY % KEYS : n * 7 % KEYS;
}

/* Which connection, which key, which of its values, then letters. */
static void value_fill(const struct load *l, uint8_t *p, uint32_t number, uint32_t version)
{
    put_hex(p, number);
    put_hex(p + 8, version);
    for (uint32_t i = PAYLOAD_MIN; i < l->opt.payload; i++)
        p[i] = (uint8_t)('a' + i % 26);
}

static void command_send(struct load *l, struct conn *c)
{
    uint8_t room[CODEC_HEAD_MAX + COMMAND + PAYLOAD_MAX + CODEC_TAIL_MAX], *text = room + CODEC_HEAD_MAX;
    struct store_conn *s = &states[c->base.index];
    uint32_t key = key_of(s->n), number = c->base.index * KEYS + key, len = COMMAND - 1;
    memcpy(text, is_set(s->n) ? "set " : "get ", 4);
    put_hex(text + 4, number);
    if (is_set(s->n)) {
        text[COMMAND - 1] = ' ';
        value_fill(l, text + COMMAND, number, ++s->version[key]);
        len = COMMAND + l->opt.payload;
    }
    s->sent_ns = l->engine.now;
    s->n++;
    conn_send_payload(l, c, text, len);
}

static void answer_must_be(struct load *l, const struct conn *c, const uint8_t *data, uint32_t len)
{
    uint8_t want[PAYLOAD_MAX];
    uint32_t n = states[c->base.index].n - 1, key = key_of(n), number = c->base.index * KEYS + key;
    uint32_t want_len = is_set(n) ? 11 : l->opt.payload;
    if (is_set(n)) {
        memcpy(want, "ok ", 3);
        put_hex(want + 3, number);
    } else {
        value_fill(l, want, number, states[c->base.index].version[key]);
    }
    if (len != want_len || memcmp(data, want, len) != 0)
        die("command %u of connection %u was answered with %u bytes \"%.*s\"", n, c->base.index, len,
            len < 64 ? (int)len : 64, (const char *)data);
}

static void store_start(struct load *l)
{
    if (l->opt.connections * KEYS > 16384 || l->opt.payload > 1024 || l->opt.outstanding != 1)
        die("store: at most %u connections with values of 1024 bytes, one command on the way", 16384 / KEYS);
    if (states == NULL)
        states = xcalloc(l->opt.connections, sizeof(*states));
    for (uint32_t i = 0; i < l->opt.connections; i++)
        command_send(l, &l->conns[i]);
}

static void store_message(struct load *l, struct conn *c, const uint8_t *data, uint32_t len)
{
    answer_must_be(l, c, data, len);
    if (load_is_measuring(l))
        hist_add(&l->latency, l->engine.now - states[c->base.index].sent_ns);
    c->received++;
    l->operations++;
    if (load_is_running(l))
        command_send(l, c);
}

static bool store_drained(const struct load *l)
{
    for (uint32_t i = 0; i < l->opt.connections; i++) {
        if (l->conns[i].received < l->conns[i].sent)
            return false;
    }
    return true;
}

const struct load_mode load_store = {
    .name = "store", .start = store_start, .message = store_message, .drained = store_drained};
