// SPDX-License-Identifier: MIT
/* Each message is expected back on its connection, in order.
 *
 * Closed loop: every connection keeps `outstanding` messages on the way; latency counts from the send.
 * Open loop: message i (of all) is due at start + i / rate, on connection i mod N, whether or not earlier
 * ones have come back; latency counts from when it was due, so that a stall counts for every message that it
 * held up (no coordinated omission). Both follow from i alone: nothing is stored per message. */
#include "load.h"

#include "common.h"

static uint64_t *sent_at;  /* closed loop: [connection][seq mod outstanding] */
static uint64_t n_due;     /* open loop: messages 0 .. n_due - 1 are due */
static uint64_t first_due; /* the first of this run */

static uint64_t *sent_slot(const struct load *l, const struct conn *c, uint32_t seq)
{
    return &sent_at[(size_t)c->base.index * l->opt.outstanding + seq % l->opt.outstanding];
}

static uint64_t due_ns(const struct load *l, const struct conn *c, uint32_t seq)
{
    uint64_t i = (uint64_t)seq * l->opt.connections + c->base.index;
    return l->start_ns + (uint64_t)((double)(i - first_due) * 1e9 / l->opt.rate);
}

/* How many messages this connection should have sent by now. */
static uint64_t wanted(const struct load *l, const struct conn *c)
{
    if (l->opt.rate == 0)
        return load_is_running(l) ? (uint64_t)c->received + l->opt.outstanding : c->sent;
    return (n_due + l->opt.connections - 1 - c->base.index) / l->opt.connections;
}

static void pump(struct load *l, struct conn *c)
{
    uint64_t want = wanted(l, c);
    while (c->sent < want && !engine_is_blocked(&c->base)) {
        if (sent_at != NULL)
            *sent_slot(l, c, c->sent) = l->engine.now;
        conn_send(l, c);
    }
}

static void echo_start(struct load *l)
{
    first_due = n_due;
    if (l->opt.rate > 0)
        return;
    if (sent_at == NULL)
        sent_at = xcalloc((size_t)l->opt.connections * l->opt.outstanding, sizeof(*sent_at));
    for (uint32_t i = 0; i < l->opt.connections; i++)
        pump(l, &l->conns[i]);
}

static uint64_t echo_turn(struct load *l)
{
    if (l->opt.rate == 0)
        return UINT64_MAX;
    uint64_t due = first_due + (uint64_t)((double)(l->engine.now - l->start_ns) * l->opt.rate / 1e9) + 1;
    while (n_due < due) {
        struct conn *c = &l->conns[n_due % l->opt.connections];
        n_due++;
        pump(l, c);
    }
    uint64_t next = l->start_ns + (uint64_t)((double)(n_due - first_due) * 1e9 / l->opt.rate);
    uint64_t now = load_now_ns();
    return next > now ? next - now : 0;
}

static uint64_t began_ns(const struct load *l, const struct conn *c, uint32_t seq)
{
    return l->opt.rate == 0 ? *sent_slot(l, c, seq) : due_ns(l, c, seq);
}

static void echo_message(struct load *l, struct conn *c, const uint8_t *data, uint32_t len)
{
    uint32_t index, seq;
    if (message_numbers(l, data, len, &index, &seq) && index == BROADCAST_INDEX)
        return; /* somebody else's, to everybody */
    message_check(l, data, len, c->base.index, c->received);
    if (load_is_measuring(l)) {
        uint64_t began = began_ns(l, c, c->received);
        hist_add(&l->latency, l->engine.now > began ? l->engine.now - began : 0);
    }
    c->received++;
    l->operations++;
    if (l->opt.rate == 0)
        pump(l, c);
}

/* What has not come back by the end counts with the time that it has waited so far. */
static void echo_end(struct load *l)
{
    for (uint32_t i = 0; i < l->opt.connections && l->opt.rate > 0; i++) {
        struct conn *c = &l->conns[i];
        for (uint64_t seq = c->received, want = wanted(l, c); seq < want; seq++)
            hist_add(&l->latency, l->engine.now - due_ns(l, c, (uint32_t)seq));
    }
}

static bool echo_drained(const struct load *l)
{
    for (uint32_t i = 0; i < l->opt.connections; i++) {
        const struct conn *c = &l->conns[i];
        if (c->received < c->sent || c->sent < wanted(l, c))
            return false;
    }
    return true;
}

const struct load_mode load_echo = {
    .name = "echo",
    .start = echo_start,
    .turn = echo_turn,
    .message = echo_message,
    .writable = pump,
    .end = echo_end,
    .drained = echo_drained,
};
