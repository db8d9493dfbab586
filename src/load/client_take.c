// SPDX-License-Identifier: MIT
#include "load/client_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct run *run_of(struct engine *e)
{
    return e->user;
}

/* ---- answers */

static void answered(struct run *r, struct client *c, uint64_t began_ns)
{
    uint64_t now = r->engine.now;
    count(r, BENCH_answered, 1);
    hist_add(&r->block->latency, now > began_ns ? now - began_ns : 0);
    c->progress_ns = now;
}

/* Numbers of messages stand in marks modulo 2^24: those before it that are not answered never will be. */
static void echo_take(struct run *r, struct client *c, const struct mark *m)
{
    uint32_t ahead = (m->seq - (uint32_t)c->expected) & MARK_ID_MAX;
    if (m->client != (c->base.index & MARK_ID_MAX))
        return; /* somebody else's: the application sends to several */
    if (c->expected + ahead >= c->sent) {
        count(r, BENCH_repeated, 1);
        return;
    }
    count(r, BENCH_unanswered, ahead);
    c->expected += ahead + 1;
    answered(r, c, r->engine.now - mark_age_ns(m, r->engine.now));
}

static void mark_take(struct run *r, struct client *c, const struct mark *m)
{
    if (m->run != (r->shm->run_id & MARK_ID_MAX))
        return;
    if (r->opt->expect == EXPECT_ECHO) {
        echo_take(r, c, m);
        return;
    }
    if (r->opt->expect == EXPECT_FANOUT) {
        count(r, BENCH_deliveries, 1);
        hist_add(&r->block->latency, mark_age_ns(m, r->engine.now));
    }
}

/* A message with the text: answers the oldest one. */
static void answer_take(struct run *r, struct client *c)
{
    if (c->sender == 0 || c->expected == c->sent) {
        count(r, BENCH_repeated, 1);
        return;
    }
    uint64_t began = run__due_ns(r, c, c->expected++);
    answered(r, c, began);
}

/* What is looked for has this length. */
static size_t wanted_len(const struct run *r)
{
    if (r->opt->expect == EXPECT_ANSWER)
        return strlen(r->opt->answer);
    return r->opt->expect == EXPECT_NONE ? 0 : MARK_BYTES;
}

/* The first of what is looked for in data: the offset behind it, 0 when there is none. */
static size_t take_first(struct run *r, struct client *c, const uint8_t *data, size_t len)
{
    struct mark m;
    if (r->opt->expect == EXPECT_ANSWER) {
        size_t n = strlen(r->opt->answer);
        const uint8_t *p = memmem(data, len, r->opt->answer, n);
        if (p != NULL)
            answer_take(r, c);
        return p == NULL ? 0 : (size_t)(p - data) + n;
    }
    size_t used = mark_find(data, len, &m);
    if (used > 0)
        mark_take(r, c, &m);
    return used;
}

/* All of them: a message may hold several marks. With --expect answer a message is one answer. */
static void message_look(struct run *r, struct client *c, const uint8_t *data, size_t len)
{
    size_t at = 0, used;
    while ((used = take_first(r, c, data + at, len - at)) > 0 && r->opt->expect != EXPECT_ANSWER)
        at += used;
}

/* Without messages' borders: what is looked for may stand across two reads, so the end of one is kept for the
 * next, one byte less than what would be whole. */
static void stream_look(struct run *r, struct client *c, const uint8_t *data, size_t len)
{
    size_t whole = wanted_len(r), keep, at = 0, used;
    uint8_t joint[2 * BENCH_ANSWER_MAX];
    if (whole == 0)
        return;
    size_t front = len < whole - 1 ? len : whole - 1, had = c->tail_len;
    memcpy(joint, c->tail, had);
    memcpy(joint + had, data, front);
    while ((used = take_first(r, c, joint + at, had + front - at)) > 0)
        at += used;
    if (len >= whole) { /* what was found across the border is not found again */
        size_t begin = at > had ? at - had : 0;
        while ((used = take_first(r, c, data + begin, len - begin)) > 0)
            begin += used;
        keep = len - begin < whole - 1 ? len - begin : whole - 1;
        memcpy(c->tail, data + len - keep, keep);
    } else {
        keep = had + front - at < whole - 1 ? had + front - at : whole - 1;
        memcpy(c->tail, joint + had + front - keep, keep);
    }
    c->tail_len = (uint8_t)keep;
}

static void on_message(struct engine *e, struct engine_conn *base, const struct codec_message *m)
{
    struct run *r = run_of(e);
    struct client *c = client_of(base);
    count(r, BENCH_messages_in, m->whole ? 1 : 0);
    count(r, BENCH_bytes_in, m->len);
    r->last_in_ns = e->now;
    if (r->opt->expect != EXPECT_NONE) {
        if (c->tail != NULL)
            stream_look(r, c, m->data, m->len);
        else
            message_look(r, c, m->data, m->len);
    }
    if (r->rate == 0 && r->sending)
        run__pump(r, c);
}

static void on_pong(struct engine *e, struct engine_conn *base, const uint8_t *data, size_t len)
{
    struct run *r = run_of(e);
    struct client *c = client_of(base);
    uint64_t sent_ns;
    if (len != sizeof(sent_ns))
        return;
    memcpy(&sent_ns, data, sizeof(sent_ns));
    if (c->ping_ns == 0 || sent_ns != c->ping_ns)
        return;
    c->ping_ns = 0;
    count(r, BENCH_pongs, 1);
    hist_add(&r->block->ping, e->now > sent_ns ? e->now - sent_ns : 0);
}

static void on_writable(struct engine *e, struct engine_conn *c)
{
    run__pump(run_of(e), client_of(c));
}

/* ---- begin and end of connections */

static void open_set(struct run *r)
{
    bench_set(&r->block->open, r->engine.n_open);
}

static void on_opened(struct engine *e, struct engine_conn *base)
{
    struct run *r = run_of(e);
    client_of(base)->was_open = true;
    count(r, BENCH_opened, 1);
    hist_add(&r->block->connect, base->connected_ns - base->begun_ns);
    hist_add(&r->block->handshake, e->now - base->connected_ns);
    open_set(r);
    run__subscribe(r, client_of(base));
}

static enum bench_error connect_error(struct run *r, int err)
{
    switch (err) {
    case ECONNREFUSED: return BENCH_ERROR_refused;
    case ETIMEDOUT: return BENCH_ERROR_connect_timeout;
    case EADDRNOTAVAIL: return BENCH_ERROR_no_port;
    case EMFILE:
    case ENFILE: return BENCH_ERROR_no_descriptor;
    case ECONNRESET: return BENCH_ERROR_reset;
    default: break;
    }
    if (r->block->connect_errno == 0)
        r->block->connect_errno = err;
    bool far = err == EHOSTUNREACH || err == ENETUNREACH || err == ENOENT;
    return far ? BENCH_ERROR_unreachable : BENCH_ERROR_connect_other;
}

static enum bench_error error_of(struct run *r, enum engine_end end, int detail)
{
    struct bench_block *b = r->block;
    switch (end) {
    case ENGINE_END_CONNECT: return connect_error(r, detail);
    case ENGINE_END_TLS:
        if (b->tls_error[0] == '\0')
            snprintf(b->tls_error, sizeof(b->tls_error), "%s", load_tls_error());
        return BENCH_ERROR_tls;
    case ENGINE_END_REFUSED:
        b->http[detail > 0 && detail < (int)BENCH_HTTP_CODES ? detail : 0]++;
        return BENCH_ERROR_handshake;
    case ENGINE_END_EARLY: return detail == ECONNRESET ? BENCH_ERROR_reset : BENCH_ERROR_early;
    case ENGINE_END_CLOSED:
        b->closes[detail > 0 && detail < (int)BENCH_CLOSE_CODES ? detail : 0]++;
        return BENCH_ERROR_closed;
    case ENGINE_END_LOST: return BENCH_ERROR_lost;
    case ENGINE_END_PROTOCOL: return BENCH_ERROR_protocol;
    case ENGINE_END_TOO_LARGE: return BENCH_ERROR_too_large;
    case ENGINE_END_MEMORY: return BENCH_ERROR_memory;
    case ENGINE_END_TIMEOUT: return BENCH_ERROR_connect_timeout;
    }
    return BENCH_ERROR_connect_other;
}

static void on_ended(struct engine *e, struct engine_conn *c, enum engine_end end, int detail)
{
    struct run *r = run_of(e);
    count(r, client_of(c)->was_open ? BENCH_dropped : BENCH_failed, 1);
    bench_add(&r->block->errors[error_of(r, end, detail)], 1);
    open_set(r);
}

const struct engine_ops run__ops = {
    .opened = on_opened,
    .message = on_message,
    .pong = on_pong,
    .writable = on_writable,
    .ended = on_ended,
};
