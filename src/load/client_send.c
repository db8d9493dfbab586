// SPDX-License-Identifier: MIT
#include "load/client_priv.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool waits_for_answers(const struct run *r)
{
    return r->opt->expect == EXPECT_ECHO || r->opt->expect == EXPECT_ANSWER;
}

static void senders_find(struct run *r)
{
    for (uint32_t i = 0; i < r->n; i++) {
        if (bench_is_sender(r->opt, r->first + i)) {
            r->senders[r->n_senders] = i;
            r->clients[i].sender = ++r->n_senders;
        }
    }
}

bool run__send_init(struct run *r)
{
    const struct bench_options *o = r->opt;
    r->senders = calloc(r->n, sizeof(*r->senders));
    size_t message = template_len_max(&o->message, mix_size_max(&o->mix));
    size_t subscribe = template_len_max(&o->subscribe, 0);
    r->message_max = message > subscribe ? message : subscribe;
    r->message = malloc(CODEC_HEAD_MAX + r->message_max + CODEC_TAIL_MAX);
    if (r->senders == NULL || r->message == NULL)
        return false;
    senders_find(r);
    r->rate = bench_sender_rate(o) * r->n_senders;
    if (r->rate == 0 && r->n_senders > 0)
        r->sent_at = calloc((size_t)r->n_senders * o->outstanding, sizeof(*r->sent_at));
    return r->rate > 0 || r->n_senders == 0 || r->sent_at != NULL;
}

void run__send_fini(struct run *r)
{
    free(r->senders);
    free(r->message);
    free(r->sent_at);
}

static uint64_t *sent_slot(const struct run *r, const struct client *c, uint64_t seq)
{
    return &r->sent_at[(size_t)(c->sender - 1) * r->opt->outstanding + seq % r->opt->outstanding];
}

uint64_t run__due_ns(const struct run *r, const struct client *c, uint64_t seq)
{
    if (r->rate == 0)
        return *sent_slot(r, c, seq);
    uint64_t i = seq * r->n_senders + c->sender - 1;
    return r->first_ns + (uint64_t)((double)i * 1e9 / r->rate);
}

/* How many messages client c should have sent by now. */
static uint64_t wanted(const struct run *r, const struct client *c)
{
    if (r->rate > 0)
        return (r->n_due + r->n_senders - c->sender) / r->n_senders;
    return r->sending ? c->expected + r->opt->outstanding : c->sent;
}

static uint64_t unix_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void send_template(struct run *r, struct client *c, const struct template *t, uint64_t seq,
                          uint64_t due_ns, size_t size)
{
    uint32_t id = c->base.index;
    struct message_values v = {
        .id = id,
        .seq = seq,
        .time_ms = template_has(t, PIECE_TIME) ? unix_ms() : 0,
        .mark = {.run = r->shm->run_id, .client = id, .seq = (uint32_t)seq, .time_ns = due_ns},
    };
    uint8_t *data = r->message + CODEC_HEAD_MAX;
    size_t len = template_fill(t, &v, size, data, r->message_max);
    engine_send_message(&r->engine, &c->base, r->opt->binary ? LOAD_OP_BINARY : LOAD_OP_TEXT, data, len);
    count(r, BENCH_bytes_out, len);
}

static void send_one(struct run *r, struct client *c)
{
    uint64_t seq = c->sent++;
    if (r->rate == 0)
        *sent_slot(r, c, seq) = r->engine.now;
    c->progress_ns = r->engine.now;
    count(r, BENCH_messages_out, 1);
    /* Clients go through the mix from different places. */
    size_t size = mix_size(&r->opt->mix, seq + c->base.index);
    send_template(r, c, &r->opt->message, seq, run__due_ns(r, c, seq), size);
}

void run__pump(struct run *r, struct client *c)
{
    if (c->sender == 0)
        return;
    for (uint64_t want = wanted(r, c); c->sent < want;) {
        if (c->base.state != ENGINE_OPEN || engine_is_blocked(&c->base))
            return;
        send_one(r, c);
    }
}

void run__subscribe(struct run *r, struct client *c)
{
    if (r->opt->subscribe.n == 0)
        return;
    count(r, BENCH_subscribes, 1);
    send_template(r, c, &r->opt->subscribe, 0, r->engine.now, 0);
}

void run__start(struct run *r)
{
    /* Processes send between each other's messages, not at the same instants. */
    double shift = r->rate > 0 ? 1e9 / r->rate * r->process / r->opt->processes : 0;
    r->first_ns = r->shm->start_ns + (uint64_t)shift;
    r->end_ns = r->shm->start_ns + (uint64_t)(r->opt->time_s * 1e9);
    r->next_ping_ns = r->shm->start_ns;
    r->sending = true;
    if (r->rate > 0)
        return;
    for (uint32_t i = 0; i < r->n_senders; i++)
        run__pump(r, &r->clients[r->senders[i]]);
}

uint64_t run__send_due(struct run *r)
{
    uint64_t now = r->engine.now < r->end_ns ? r->engine.now : r->end_ns - 1;
    if (r->rate == 0 || r->n_senders == 0 || now < r->first_ns)
        return r->rate > 0 && now < r->first_ns ? r->first_ns - now : UINT64_MAX;
    uint64_t due = (uint64_t)((double)(now - r->first_ns) * r->rate / 1e9) + 1;
    while (r->n_due < due) {
        struct client *c = &r->clients[r->senders[r->n_due % r->n_senders]];
        r->n_due++;
        run__pump(r, c);
    }
    uint64_t next = r->first_ns + (uint64_t)((double)r->n_due * 1e9 / r->rate);
    now = load_now_ns();
    return next > now ? next - now : 0;
}

/* The pings of all clients are spread over the interval. */
void run__send_pings(struct run *r)
{
    uint64_t step = (uint64_t)(r->opt->pings_s * 1e9 / r->n);
    uint8_t room[CODEC_HEAD_MAX + 8 + CODEC_TAIL_MAX];
    while (r->opt->pings_s > 0 && r->next_ping_ns <= r->engine.now) {
        struct client *c = &r->clients[r->next_ping];
        r->next_ping = (r->next_ping + 1) % r->n;
        r->next_ping_ns += step;
        if (c->base.state != ENGINE_OPEN || engine_is_blocked(&c->base))
            continue;
        c->ping_ns = r->engine.now;
        memcpy(room + CODEC_HEAD_MAX, &c->ping_ns, sizeof(c->ping_ns));
        engine_send_message(&r->engine, &c->base, LOAD_OP_PING, room + CODEC_HEAD_MAX, sizeof(c->ping_ns));
        count(r, BENCH_pings, 1);
    }
}

static uint64_t unanswered(const struct run *r, const struct client *c)
{
    return waits_for_answers(r) ? c->sent - c->expected : 0;
}

void run__give_up_late(struct run *r)
{
    uint64_t patience = (uint64_t)(r->opt->answer_timeout_s * 1e9);
    for (uint32_t i = 0; i < r->n_senders && r->rate == 0; i++) {
        struct client *c = &r->clients[r->senders[i]];
        if (c->base.state != ENGINE_OPEN || unanswered(r, c) == 0 ||
            r->engine.now < c->progress_ns + patience)
            continue;
        count(r, BENCH_unanswered, unanswered(r, c));
        c->expected = c->sent;
        run__pump(r, c);
    }
}

bool run__all_answered(const struct run *r)
{
    for (uint32_t i = 0; i < r->n_senders; i++) {
        const struct client *c = &r->clients[r->senders[i]];
        if (c->base.state == ENGINE_OPEN && (unanswered(r, c) > 0 || c->sent < wanted(r, c)))
            return false;
    }
    return true;
}

/* With a rate, what has not come back counts with its age: a percentile that leaves out the slowest would be
 * too good. */
void run__count_missing(struct run *r)
{
    for (uint32_t i = 0; i < r->n_senders; i++) {
        struct client *c = &r->clients[r->senders[i]];
        uint64_t want = wanted(r, c), now = r->engine.now;
        if (want > c->sent)
            count(r, BENCH_unsent, want - c->sent);
        count(r, BENCH_unanswered, unanswered(r, c));
        for (uint64_t seq = c->expected; waits_for_answers(r) && r->rate > 0 && seq < c->sent; seq++) {
            uint64_t due = run__due_ns(r, c, seq);
            hist_add(&r->block->latency, now > due ? now - due : 0);
        }
    }
}
