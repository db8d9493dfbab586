// SPDX-License-Identifier: MIT
/* Connection 0 sends; the worker sends each of its messages to everybody. The next broadcast begins when one
 * has reached all; `outstanding` are on the way at a time. An operation is one delivery. Latency: send to
 * delivery. */
#include "load.h"

#include "common.h"

#define OUTSTANDING_MAX 64u

static struct broadcast {
    uint32_t deliveries;
    uint64_t sent_ns;
} broadcasts[OUTSTANDING_MAX];
static uint32_t n_complete;
static uint32_t first_sent; /* of this run */

/* With --run-operations no broadcast more than it takes is begun: others count them too (load_listen.c). */
static bool is_enough(const struct load *l, const struct conn *sender)
{
    uint64_t begun = sender->sent - first_sent;
    return l->opt.run_operations > 0 && begun * l->opt.connections >= l->opt.run_operations;
}

static void pump(struct load *l, struct conn *sender)
{
    while (load_is_running(l) && !is_enough(l, sender) && sender->sent < n_complete + l->opt.outstanding &&
           !engine_is_blocked(&sender->base)) {
        broadcasts[sender->sent % OUTSTANDING_MAX] = (struct broadcast){0, l->engine.now};
        conn_send(l, sender);
    }
}

static void fanout_start(struct load *l)
{
    if (l->opt.outstanding > OUTSTANDING_MAX)
        die("--outstanding: at most %u broadcasts", OUTSTANDING_MAX);
    first_sent = l->conns[0].sent;
    pump(l, &l->conns[0]);
}

static void fanout_message(struct load *l, struct conn *c, const uint8_t *data, uint32_t len)
{
    message_check(l, data, len, BROADCAST_INDEX, c->received);
    struct broadcast *b = &broadcasts[c->received % OUTSTANDING_MAX];
    if (load_is_measuring(l))
        hist_add(&l->latency, l->engine.now - b->sent_ns);
    c->received++;
    l->operations++;
    if (++b->deliveries == l->opt.connections) {
        n_complete++;
        pump(l, &l->conns[0]);
    }
}

static bool fanout_drained(const struct load *l)
{
    return n_complete == l->conns[0].sent;
}

const struct load_mode load_fanout = {
    .name = "fan-out",
    .start = fanout_start,
    .message = fanout_message,
    .writable = pump,
    .drained = fanout_drained,
};
