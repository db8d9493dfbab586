// SPDX-License-Identifier: MIT
#include "sim/checker.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "session/directory.h"
#include "sim/sim_client.h"
#include "sim/sim_link.h"
#include "sim/sim_message.h"

static uint64_t count_of(const struct world *w, enum counter_id id)
{
    return counter_get(&w->gateway.shm.counters, id);
}

static uint64_t drops_of(const struct world *w, enum drop_reason reason)
{
    return counter_drop_get(&w->gateway.shm.counters, reason);
}

static uint64_t closes_of(const struct world *w, enum close_reason reason)
{
    return counter_close_get(&w->gateway.shm.counters, reason);
}

static uint64_t closes_total(const struct world *w)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < CLOSE_REASON_N; i++)
        n += closes_of(w, (enum close_reason)i);
    return n;
}

bool checker_is_online(const struct sim_client *c)
{
    struct shard *s = c->w->gateway.shard;
    return c->id != 0 && s != NULL && directory_find(shard_directory(s), c->id) != NULL;
}

struct sim_client *checker_client_by_id(const struct world *w, uint32_t id)
{
    for (unsigned i = 0; i < w->n_clients; i++)
        if (w->clients[i]->id == id && id != 0)
            return w->clients[i];
    return NULL;
}

/* ---- events */

static void note_got(struct world *w, struct sim_client *c, uint32_t number)
{
    if (number / 8 >= c->got_cap) {
        uint32_t cap = number / 8 + 16;
        c->got = realloc(c->got, cap);
        ASSERT(c->got != NULL);
        memset(c->got + c->got_cap, 0, cap - c->got_cap);
        c->got_cap = cap;
    }
    if ((c->got[number / 8] >> number % 8 & 1) != 0)
        world_fail(w, "client %u: its message %u was told twice", c->index, number);
    c->got[number / 8] |= (uint8_t)(1u << number % 8);
    c->n_got++;
}

static void event_message(struct world *w, struct sim_client *c, struct sim_told *t, struct slice body)
{
    struct sim_message m;
    if (c->protocol == PROTOCOL_TCP) {
        bytes_append(&t->stream, body.data, body.len);
        return;
    }
    if (c->hard && !sim_message_check(body, &m))
        return; /* its garbage may make messages */
    if (!sim_message_check(body, &m) || m.kind != SIM_OF_CLIENT || m.sender != c->index ||
        m.number >= c->n_sent) {
        world_fail(w, "client %u: ON_MESSAGE with something that it did not send (%zu bytes)", c->index,
                   body.len);
        return;
    }
    if (t->any_message && m.number != t->last + 1)
        world_fail(w, "client %u: message %u after %u on one link", c->index, m.number, t->last);
    t->any_message = true;
    t->last = m.number;
    note_got(w, c, m.number);
}

static void event_connect(struct world *w, struct sim_client *c, struct sim_told *t,
                          const struct gw_packet *p)
{
    bool first = !t->connect && !t->ws_connect && !t->any_message && !t->close && t->stream.len == 0;
    if (++c->n_connect > 1 || !first)
        world_fail(w, "client %u: ON_CONNECT is not its first event, or a second one", c->index);
    if (checker_client_by_id(w, p->connection_id) != c && checker_client_by_id(w, p->connection_id) != NULL)
        world_fail(w, "client %u: connection_id %u is another's", c->index, p->connection_id);
    t->connect = true;
}

static void event_ws_connect(struct world *w, struct sim_client *c, struct sim_told *t)
{
    if (++c->n_ws_connect > 1 || t->any_message || c->protocol != PROTOCOL_WEBSOCKET)
        world_fail(w, "client %u: ON_WEBSOCKET_CONNECT twice, after a message, or to no WebSocket", c->index);
    t->ws_connect = true;
}

static struct sim_client *client_of_event(struct world *w, const struct gw_packet *p)
{
    unsigned index = p->client_ip - SIM_CLIENT_NET;
    if (index >= w->n_clients) {
        world_fail(w, "an event with the client address %08x, that nobody has", p->client_ip);
        return NULL;
    }
    struct sim_client *c = w->clients[index];
    if (c->id == 0)
        c->id = p->connection_id;
    if (c->id != p->connection_id || p->gateway_port != SIM_CLIENT_PORT + c->protocol ||
        p->local_ip != w->config.gateway.lan_ip || p->local_port != w->config.gateway.start_port)
        world_fail(w, "client %u: an event whose head is wrong (connection_id %u, was %u)", index,
                   p->connection_id, c->id);
    return c;
}

/* Told something: it may talk back. */
static void react(struct world *w, struct sim_link *l, struct sim_client *c, uint8_t cmd)
{
    if (!l->echoes || !sim_link_is_usable(l) || cmd == GW_CMD_ON_CLOSE)
        return;
    if (cmd == GW_CMD_ON_CONNECT && world_chance(w, 50))
        sim_link_change(l, c);
    else if (world_chance(w, 50))
        sim_link_send_to_one(l, c, (uint32_t)world_between(w, SIM_MESSAGE_HEAD + 1, 200));
}

void checker_event(struct world *w, struct sim_link *l, const struct gw_packet *p)
{
    if (!l->is_worker || l->wrong) {
        world_fail(w, "link %u: an event to one that is no worker", l->index);
        return;
    }
    if (p->cmd == GW_CMD_PING)
        return;
    struct sim_client *c = client_of_event(w, p);
    if (c == NULL)
        return;
    if (c->told[l->index] == NULL)
        c->told[l->index] = calloc(1, sizeof *c->told[0]);
    struct sim_told *t = c->told[l->index];
    ASSERT(t != NULL);
    if (t->close)
        world_fail(w, "client %u: an event (%s) after its ON_CLOSE", c->index, gw_cmd_name(p->cmd));
    if (p->ext.len > 0 && (p->ext.len < 6 || memcmp(p->ext.data, "a:", 2) != 0))
        world_fail(w, "client %u: an event with a session that nobody set", c->index);
    world_trace(w, "link %u: %s of client %u (%u), %zu bytes", l->index, gw_cmd_name(p->cmd), c->index, c->id,
                p->body.len);
    switch (p->cmd) {
    case GW_CMD_ON_CONNECT:
        w->told_connect++;
        event_connect(w, c, t, p);
        break;
    case GW_CMD_ON_WEBSOCKET_CONNECT:
        w->told_ws_connect++;
        event_ws_connect(w, c, t);
        break;
    case GW_CMD_ON_MESSAGE:
        w->told_message++;
        event_message(w, c, t, p->body);
        break;
    default:
        w->told_close++;
        t->close = true;
        if (++c->n_close > 1)
            world_fail(w, "client %u: a second ON_CLOSE", c->index);
    }
    react(w, l, c, p->cmd);
}

/* ---- sends */

static void check_opcode(struct world *w, const struct sim_client *c, const struct sim_send *s, char kind,
                         int opcode)
{
    enum config_send_type type = w->config.listen[c->protocol].send_type;
    bool binary =
        s->framed || type == SEND_TYPE_BINARY || (type == SEND_TYPE_AUTO && kind == SIM_OF_LINK_BINARY);
    if (opcode >= 0 && opcode != (binary ? 2 : 1))
        world_fail(w, "client %u: opcode %d", c->index, opcode);
}

void checker_delivered(struct world *w, struct sim_client *c, struct slice message, int opcode)
{
    struct sim_message m;
    if (slice_eq_str(message, "{hb}") && w->config.gateway.ping_interval > 0)
        return;
    if (!sim_message_check(message, &m) || m.kind == SIM_OF_CLIENT || m.sender >= w->n_links ||
        m.number >= w->links[m.sender]->n_sends) {
        world_fail(w, "client %u: got something that nobody sent (%zu bytes)", c->index, message.len);
        return;
    }
    struct sim_send *s = &w->links[m.sender]->sends[m.number];
    check_opcode(w, c, s, m.kind, opcode);
    if (!sim_set_has(&s->may, c->index))
        world_fail(w, "client %u: got %u of link %u, which was not for it", c->index, m.number, m.sender);
    if (m.number + 1 < c->next_from[m.sender])
        world_fail(w, "client %u: got %u of link %u too late", c->index, m.number, m.sender);
    c->next_from[m.sender] = m.number + 1;
    if (!sim_set_has(&s->got, c->index))
        sim_set_add(&s->got, c->index);
    else if (sim_set_has(&s->twice, c->index))
        sim_set_add(&s->got_twice, c->index); /* how often: no more groups than two are asked for */
    else
        world_fail(w, "client %u: got %u of link %u again", c->index, m.number, m.sender);
}

void checker_refusal(struct world *w, const struct sim_client *c)
{
    static const char name[] = "Content-Length: ";
    const uint8_t *end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
    const uint8_t *at = memmem(c->in.data, c->in.len, name, sizeof name - 1);
    size_t len = at != NULL ? (size_t)strtoul((const char *)at + sizeof name - 1, NULL, 10) : 0;
    if (c->err == 0 && !c->fin_sent && (end == NULL || c->in.len != (size_t)(end - c->in.data) + 4 + len))
        world_fail(w, "client %u: more or less than one HTTP answer (%zu bytes)", c->index, c->in.len);
}

void checker_link_closed(struct world *w, const struct sim_link *l, int err)
{
    bool expected = l->fin_sent || l->wrong || w->draining || w->gateway.shard == NULL;
    if (w->strict && !expected)
        world_fail(w, "link %u was closed by the gateway (error %d)", l->index, err);
}

/* ---- between steps */

void checker_running(struct world *w)
{
    const char *why = w->gateway.shard != NULL ? shard_check(w->gateway.shard) : NULL;
    if (why != NULL)
        world_fail(w, "shard_check: %s", why);
    if (w->gateway.shard == NULL)
        return;
    uint64_t open = count_of(w, COUNTER_client_accepted) - closes_total(w);
    if (open > shard_connections(w->gateway.shard) ||
        open < directory_count(shard_directory(w->gateway.shard)))
        world_fail(w, "%llu accepted and not closed, %u connections", (unsigned long long)open,
                   shard_connections(w->gateway.shard));
}

/* It has been here all the time, reads, and nothing has begun to end it. */
static bool has_stayed(const struct sim_client *c)
{
    return c->state == SIM_CLIENT_OPEN && checker_is_online(c) && !c->fin_wanted && !c->close_frame_sent &&
           !c->close_frame_seen && !c->paused && (c->protocol != PROTOCOL_WEBSOCKET || c->upgraded);
}

static uint64_t missing_of(struct world *w, const struct sim_link *l, const struct sim_client *c)
{
    uint64_t missing = 0;
    for (uint32_t n = 0; n < l->n_sends; n++) {
        const struct sim_send *s = &l->sends[n];
        if (!sim_set_has(&s->must, c->index))
            continue;
        bool short_of = !sim_set_has(&s->got, c->index) ||
                        (sim_set_has(&s->twice, c->index) && !sim_set_has(&s->got_twice, c->index));
        if (short_of)
            world_trace(w, "client %u has not got %u of link %u", c->index, n, l->index);
        missing += short_of;
    }
    return missing;
}

void checker_settled(struct world *w)
{
    uint64_t missing = 0;
    uint64_t dropped = drops_of(w, DROP_slow_reader_newest) + drops_of(w, DROP_slow_reader_oldest);
    for (unsigned i = 0; i < w->n_clients; i++) {
        const struct sim_client *c = w->clients[i];
        if (!has_stayed(c))
            continue;
        if (w->strict && c->pongs != c->pings && !c->hard)
            world_fail(w, "client %u: %llu pings, %llu pongs", i, (unsigned long long)c->pings,
                       (unsigned long long)c->pongs);
        for (unsigned k = 0; k < w->n_links; k++)
            if (sim_link_is_sure(w->links[k]))
                missing += missing_of(w, w->links[k], c);
    }
    if (missing > dropped)
        world_fail(w, "%llu messages did not come, %llu were dropped", (unsigned long long)missing,
                   (unsigned long long)dropped);
    for (unsigned k = 0; k < w->n_links; k++)
        if (w->links[k]->first != NULL && sim_link_is_usable(w->links[k]))
            world_fail(w, "link %u: a question was not answered", k);
}

/* ---- at the end */

/* The pieces that the links were told, in some order, make the beginning of what it sent; length of that, or
 * -1. */
static ssize_t assemble(const struct sim_client *c, uint64_t used, size_t at)
{
    bool left = false;
    for (unsigned k = 0; k < WORLD_LINKS_MAX; k++) {
        const struct sim_told *t = c->told[k];
        if (t == NULL || t->stream.len == 0 || (used >> k & 1) != 0)
            continue;
        left = true;
        if (t->stream.len > c->sent.len - at || memcmp(c->sent.data + at, t->stream.data, t->stream.len) != 0)
            continue;
        ssize_t len = assemble(c, used | UINT64_C(1) << k, at + t->stream.len);
        if (len >= 0)
            return len;
    }
    return left ? -1 : (ssize_t)at;
}

/* In any run: what a link was told is a part of what the client sent. */
static void check_stream_parts(struct world *w, const struct sim_client *c)
{
    for (unsigned k = 0; k < WORLD_LINKS_MAX; k++) {
        const struct sim_told *t = c->told[k];
        if (t == NULL || t->stream.len == 0 || c->hard)
            continue;
        if (c->sent.len == 0 || memmem(c->sent.data, c->sent.len, t->stream.data, t->stream.len) == NULL)
            world_fail(w, "client %u: link %u was told bytes that it did not send", c->index, k);
    }
}

/* Whether all that it sent has come; a gap is a failure. */
static bool all_came(struct world *w, const struct sim_client *c)
{
    if (c->protocol == PROTOCOL_TCP) {
        ssize_t len = assemble(c, 0, 0);
        if (len < 0)
            world_fail(w, "client %u: what came is not the beginning of what it sent", c->index);
        return len == (ssize_t)c->sent.len;
    }
    for (uint32_t n = 0; n < c->n_got; n++)
        if (n / 8 >= c->got_cap || (c->got[n / 8] >> n % 8 & 1) == 0)
            world_fail(w, "client %u: message %u is missing, though later ones came", c->index, n);
    return c->n_got == c->n_sent;
}

static void check_client_strictly(struct world *w, const struct sim_client *c)
{
    if (c->id == 0)
        return;
    if (c->n_connect != 1 || c->n_close != 1)
        world_fail(w, "client %u (%u): %u ON_CONNECT, %u ON_CLOSE", c->index, c->id, c->n_connect,
                   c->n_close);
}

/* An event that a link was handed, and moved on when that died, may be forgotten or dropped later. */
static void check_told(struct world *w, enum counter_id id, uint64_t told)
{
    uint64_t later = count_of(w, COUNTER_event_forgotten) + drops_of(w, DROP_no_worker);
    if (count_of(w, COUNTER_event_moved) == 0)
        later = 0;
    if (count_of(w, id) < told || count_of(w, id) > told + later)
        world_fail(w, "%s is %llu, %llu were told", counter_infos[id].name,
                   (unsigned long long)count_of(w, id), (unsigned long long)told);
}

static void check_messages_strictly(struct world *w)
{
    uint64_t incomplete = 0, hard = 0;
    for (unsigned i = 0; i < w->n_clients; i++) {
        const struct sim_client *c = w->clients[i];
        hard += c->hard;
        if (!c->hard && c->state != SIM_CLIENT_CONNECTING && !all_came(w, c))
            incomplete += !c->ended_by_command;
        check_client_strictly(w, c);
    }
    uint64_t never = drops_of(w, DROP_no_worker);
    uint64_t reset = closes_of(w, CLOSE_reset);
    uint64_t excused = closes_total(w) - closes_of(w, CLOSE_peer) - closes_of(w, CLOSE_peer_close_frame) -
                       reset + (reset > hard ? reset - hard : 0) + never +
                       count_of(w, COUNTER_client_refused);
    if (incomplete > excused)
        world_fail(w, "%llu clients' messages did not all come, %llu are explained",
                   (unsigned long long)incomplete, (unsigned long long)excused);
    uint64_t in = count_of(w, COUNTER_client_messages_in);
    if (in != w->told_message + never)
        world_fail(w, "%llu messages in, %llu told, %llu dropped", (unsigned long long)in,
                   (unsigned long long)w->told_message, (unsigned long long)never);
    check_told(w, COUNTER_event_connect, w->told_connect);
    check_told(w, COUNTER_event_websocket_connect, w->told_ws_connect);
    check_told(w, COUNTER_event_message, w->told_message);
    check_told(w, COUNTER_event_close, w->told_close);
}

static void check_gauge(struct world *w, enum counter_id id)
{
    if (count_of(w, id) != 0)
        world_fail(w, "the gauge %s is %llu with nobody there", counter_infos[id].name,
                   (unsigned long long)count_of(w, id));
}

void checker_ended(struct world *w)
{
    if (w->failed)
        return;
    if (count_of(w, COUNTER_client_accepted) != closes_total(w))
        world_fail(w, "%llu accepted, %llu closed", (unsigned long long)count_of(w, COUNTER_client_accepted),
                   (unsigned long long)closes_total(w));
    check_gauge(w, COUNTER_clients);
    check_gauge(w, COUNTER_uids);
    check_gauge(w, COUNTER_groups);
    check_gauge(w, COUNTER_client_queue_bytes);
    if (count_of(w, COUNTER_workers) > 0) {
        check_gauge(w, COUNTER_parked_bytes);
        check_gauge(w, COUNTER_parked_clients);
    }
    for (unsigned i = 0; i < w->n_clients; i++)
        check_stream_parts(w, w->clients[i]);
    if (w->strict)
        check_messages_strictly(w);
}
