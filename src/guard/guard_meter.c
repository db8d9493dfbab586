// SPDX-License-Identifier: MIT
#include "guard/guard_priv.h"

/* Callers count in 32 bits of milliseconds. */
#define WAIT_MS_MAX 3600000

/* ---- of all clients */

bool guard__bucket_take(struct bucket *b, uint64_t rate, unsigned n_edges, uint64_t now_ms)
{
    uint64_t n = n_edges > 0 ? n_edges : 1;
    uint64_t client = 1000 * n;            /* one, in parts */
    uint64_t per_ms = rate < n ? n : rate; /* parts: rate * client / 1000 / n, at least one client a second */
    uint64_t full = 1000 * per_ms;         /* one second's worth */
    uint64_t elapsed_ms = now_ms > b->last_ms ? now_ms - b->last_ms : 0;

    if (!b->started || elapsed_ms >= 1000)
        b->level = full;
    else
        b->level += elapsed_ms * per_ms;
    if (b->level > full) /* also when the rate has become lower */
        b->level = full;
    b->started = true;
    b->last_ms = now_ms;
    if (b->level < client)
        return false;
    b->level -= client;
    return true;
}

/* ---- of one client */

#define SECOND_NS UINT64_C(1000000000)
#define MS_NS     UINT64_C(1000000)

bool guard_meters(const struct guard *g)
{
    const struct config_gateway *gw = &g->opt.config->gateway;
    return gw->message_rate > 0 || gw->byte_rate > 0;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* What time has given back. */
static void give_back(struct guard_meter *m, uint32_t now_ms, uint64_t byte_rate)
{
    uint32_t elapsed_ms = now_ms - m->last_ms;

    m->last_ms = now_ms;
    m->messages_ns = (uint32_t)less(m->messages_ns, elapsed_ms * MS_NS);
    m->bytes_milli = less(m->bytes_milli, elapsed_ms * byte_rate);
}

static uint32_t wait_for(uint64_t excess, uint64_t per_ms)
{
    uint64_t ms = (excess + per_ms - 1) / per_ms;
    return ms < WAIT_MS_MAX ? (uint32_t)ms : WAIT_MS_MAX;
}

/* One that was over in dry run is as if it had not come: the next that fits passes. */
static enum guard_verdict take_message(struct guard *g, struct guard_meter *m, uint64_t rate,
                                       uint32_t *ret_wait_ms)
{
    uint64_t used = m->messages_ns + SECOND_NS / rate;

    if (used > UINT32_MAX)
        used = UINT32_MAX;
    if (used > SECOND_NS && guard__refuse(g, GUARD_MESSAGE_RATE, NULL) == GUARD_PASS)
        return GUARD_PASS;
    m->messages_ns = (uint32_t)used;
    *ret_wait_ms = wait_for(less(used, SECOND_NS), MS_NS);
    return used > SECOND_NS ? GUARD_MESSAGE_RATE : GUARD_PASS;
}

static enum guard_verdict take_bytes(struct guard *g, struct guard_meter *m, uint64_t rate, uint64_t len,
                                     uint32_t *ret_wait_ms)
{
    uint64_t used = m->bytes_milli + (len < UINT32_MAX ? len : UINT32_MAX) * 1000;
    uint64_t second = rate * 1000;

    if (used > second && guard__refuse(g, GUARD_BYTE_RATE, NULL) == GUARD_PASS)
        return GUARD_PASS;
    m->bytes_milli = used;
    *ret_wait_ms = wait_for(less(used, second), rate);
    return used > second ? GUARD_BYTE_RATE : GUARD_PASS;
}

enum guard_verdict guard_meter(struct guard *g, struct guard_meter *m, uint32_t now_ms, uint64_t len,
                               uint32_t *ret_wait_ms)
{
    const struct config_gateway *gw = &g->opt.config->gateway;
    enum guard_verdict messages = GUARD_PASS, bytes = GUARD_PASS;
    uint32_t messages_wait_ms = 0, bytes_wait_ms = 0;

    give_back(m, now_ms, gw->byte_rate);
    if (gw->message_rate > 0)
        messages = take_message(g, m, gw->message_rate, &messages_wait_ms);
    if (gw->byte_rate > 0)
        bytes = take_bytes(g, m, gw->byte_rate, len, &bytes_wait_ms);
    *ret_wait_ms = messages_wait_ms > bytes_wait_ms ? messages_wait_ms : bytes_wait_ms;
    return messages != GUARD_PASS ? messages : bytes;
}
