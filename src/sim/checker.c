// SPDX-License-Identifier: MIT
#include "sim/checker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "session/directory.h"
#include "shard/shard.h"
#include "sim/sim_client.h"
#include "sim/sim_link.h"
#include "sim/sim_message.h"
#include "upstream/upstream.h"

#define CLOSE_CODE_REPLACED 4001

/* Over all shards; what they counted outlives them. */
static uint64_t count_of(const struct world *w, enum counter_id id)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        n += counter_get(&w->node.crew->shards[i].shm.counters, id);
    return n;
}

static uint64_t drops_of(const struct world *w, enum drop_reason reason)
{
    return count_of(w, (enum counter_id)(COUNTER_DROP_FIRST + (unsigned)reason));
}

static uint64_t closes_of(const struct world *w, enum close_reason reason)
{
    return count_of(w, (enum counter_id)(COUNTER_CLOSE_FIRST + (unsigned)reason));
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
    const struct sim_shard *s = sim_node_shard_of(c->w, c->id);
    return s != NULL && s->shard != NULL && directory_find(shard_directory(s->shard), c->id) != NULL;
}

/* Its shard has died since it came: not all that it sent, nor that it was there, need be known. */
static bool has_lost_shard(const struct sim_client *c)
{
    const struct sim_shard *s = sim_node_shard_of(c->w, c->id);
    /* No worker has heard of it: any could have been its own. */
    uint32_t its = s == NULL ? UINT32_MAX : 1u << s->index;
    return c->bereft || c->lost_shard || (c->deaths_seen & its) != 0;
}

void checker_crew_leaves(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        w->clients[i]->lost_shard = has_lost_shard(w->clients[i]);
        w->clients[i]->deaths_seen = 0;
    }
}

uint64_t checker_partial_answers(const struct world *w)
{
    return count_of(w, COUNTER_queries_partial);
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
    if (t->any_message && (w->steers ? m.number <= t->last : m.number != t->last + 1))
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

/* What ON_CLOSE says is what it had then: nothing older than what a question has shown. */
static void check_last_session(struct world *w, const struct sim_client *c, struct slice session)
{
    char text[SIM_SESSION_SIZE];
    for (uint32_t i = c->sessions_seen; i < c->n_sessions; i++) {
        sim_session_text(c->sessions[i], text);
        if (slice_eq_str(session, text))
            return;
    }
    world_fail(w, "client %u: ON_CLOSE with session %.*s, which is not its last", c->index, (int)session.len,
               (const char *)session.data);
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
        check_last_session(w, c, p->ext);
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
    if (c->err == 0 && !c->fin_sent && !c->bereft &&
        (end == NULL || c->in.len != (size_t)(end - c->in.data) + 4 + len))
        world_fail(w, "client %u: more or less than one HTTP answer (%zu bytes)", c->index, c->in.len);
}

void checker_link_closed(struct world *w, const struct sim_link *l, int err)
{
    bool expected = l->fin_sent || l->wrong || l->bereft || w->draining || !sim_node_is_running(w);
    if (w->strict && !expected)
        world_fail(w, "link %u was closed by the gateway (error %d)", l->index, err);
}

/* ---- between steps */

void checker_shard(struct world *w, const struct sim_shard *s)
{
    const char *why = shard_check(s->shard);
    uint64_t position = 0;
    do
        why = why == NULL ? upstream_check(shard_upstream(s->shard), &position, 1000) : why;
    while (why == NULL && position != 0);
    if (why != NULL)
        world_fail(w, "shard_check of shard %u: %s", s->index, why);
    uint64_t open = counter_get(&s->shm.counters, COUNTER_client_accepted) - s->lost;
    for (unsigned i = 0; i < CLOSE_REASON_N; i++)
        open -= counter_close_get(&s->shm.counters, (enum close_reason)i);
    if (open > shard_connections(s->shard) || open < directory_count(shard_directory(s->shard)))
        world_fail(w, "shard %u: %llu accepted and not closed, %u connections", s->index,
                   (unsigned long long)open, shard_connections(s->shard));
}

void checker_running(struct world *w)
{
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        if (w->node.crew->shards[i].shard != NULL)
            checker_shard(w, &w->node.crew->shards[i]);
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

/* A link that died has lost an end of what it had said, and nothing between. */
static void check_prefix(struct world *w, const struct sim_link *l, const struct sim_client *c)
{
    uint32_t missing = UINT32_MAX;
    for (uint32_t n = 0; n < l->n_sends; n++) {
        const struct sim_send *s = &l->sends[n];
        if (!sim_set_has(&s->must, c->index))
            continue;
        if (!sim_set_has(&s->got, c->index))
            missing = missing == UINT32_MAX ? n : missing;
        else if (missing != UINT32_MAX)
            world_fail(w, "client %u has got %u of link %u, which died, but not %u", c->index, n, l->index,
                       missing);
    }
}

/* ---- what the shards show each other */

static uint32_t bound_to_workers(const struct node_shared *shared, unsigned shard)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < NODE_WORKERS_MAX; i++)
        n += NODE_LOAD(shared->workers[i].clients[shard]);
    return n;
}

static void check_filters(struct world *w, const struct sim_shard *s)
{
    char name[SIM_NAME_SIZE];
    const struct directory *d = shard_directory(s->shard);
    if (w->node.crew->n_shards == 1)
        return; /* nobody asks, so there is none */
    for (unsigned i = 0; i < w->n_links * 2 * SIM_NAMES; i++) {
        bool uid = i % 2 == 0;
        sim_link_name(w->links[i / (2 * SIM_NAMES)], uid ? 'u' : 'g', i / 2 % SIM_NAMES, name);
        size_t len = strlen(name);
        uint32_t has = uid ? directory_uid_count(d, name, len) : directory_group_count(d, name, len);
        const struct name_filter *f = uid ? &w->node.crew->node.shared->names[s->index].uids
                                          : &w->node.crew->node.shared->names[s->index].groups;
        if (has > 0 && !name_filter_may_have(f, hash_bytes(name, len)))
            world_fail(w, "shard %u has %s, and its filter says no", s->index, name);
    }
}

static void check_shared(struct world *w, const struct sim_shard *s)
{
    const struct node_shared *shared = w->node.crew->node.shared;
    const struct node_shard *figures = &shared->shards[s->index];
    if (s->shard == NULL) {
        world_fail(w, "shard %u has not come back", s->index);
        return;
    }
    uint32_t members = directory_count(shard_directory(s->shard)), bound = bound_to_workers(shared, s->index);
    if (NODE_LOAD(figures->members) != members || NODE_LOAD(figures->clients) != shard_connections(s->shard))
        world_fail(w, "shard %u shows %u members of %u, %u clients of %u", s->index,
                   NODE_LOAD(figures->members), members, NODE_LOAD(figures->clients),
                   shard_connections(s->shard));
    if (w->strict && w->node.crew->n_shards > 1 && bound != members)
        world_fail(w, "shard %u: %u clients, %u are bound to workers", s->index, members, bound);
    check_filters(w, s);
}

/* The gateway has ended connections only where it says why. */
static void check_closed(struct world *w)
{
    uint64_t closed = 0;
    for (unsigned i = 0; i < w->n_clients; i++) {
        const struct sim_client *c = w->clients[i];
        if (c->bereft && c->state != SIM_CLIENT_GONE)
            world_fail(w, "client %u still has its connection to a shard that died", i);
        closed += c->other_left && !c->left && !c->bereft;
    }
    uint64_t why = closes_total(w) - closes_of(w, CLOSE_peer) - closes_of(w, CLOSE_peer_close_frame) -
                   closes_of(w, CLOSE_reset) + count_of(w, COUNTER_client_refused);
    if (closed > why)
        world_fail(w, "%llu connections of clients were closed, %llu for a reason",
                   (unsigned long long)closed, (unsigned long long)why);
}

/* ---- the choice of a worker */

/* As the gateway makes it. */
static uint64_t hash_of_worker(const struct sim_link *l)
{
    char key[64];
    int n = snprintf(key, sizeof key, "127.0.0.1:w%u", l->key);
    return hash_bytes(key, (size_t)n);
}

static uint32_t load_of(const struct world *w, const struct node_worker *worker)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        n += NODE_LOAD(worker->clients[i]);
    return n;
}

void checker_load(const struct world *w, struct sim_load *ret)
{
    const struct node_worker *workers = w->node.crew->node.shared->workers;
    *ret = (struct sim_load){.least = UINT32_MAX};
    for (unsigned k = 0; k < w->n_links; k++) {
        const struct sim_link *l = w->links[k];
        ret->of[k] = UINT32_MAX;
        for (unsigned i = 0; i < NODE_WORKERS_MAX && l->is_worker && sim_link_is_usable(l); i++)
            if (workers[i].hash == hash_of_worker(l))
                ret->of[k] = load_of(w, &workers[i]);
        if (ret->of[k] != UINT32_MAX)
            ret->sum += ret->of[k];
        if (ret->of[k] < ret->least)
            ret->least = ret->of[k];
    }
}

void checker_chosen(struct world *w, const struct sim_client *c, const struct sim_load *before)
{
    struct sim_load now;
    checker_load(w, &now);
    if (now.sum != before->sum + 1)
        return; /* others have come or gone */
    for (unsigned k = 0; k < w->n_links; k++)
        if (c->told[k] != NULL && before->of[k] != before->least)
            world_fail(w, "client %u: its worker (link %u) had %u clients, another one %u", c->index, k,
                       before->of[k], before->least);
}

/* ---- one connection per uid */

static uint32_t bound_to(const struct world *w, const char *name)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        n += directory_uid_count(shard_directory(w->node.crew->shards[i].shard), name, strlen(name));
    return n;
}

static bool was_told_so(const struct sim_client *c)
{
    return c->close_frame_seen && c->close_code == CLOSE_CODE_REPLACED;
}

/* Nobody is left when the last of them went by itself. */
static void check_contested(struct world *w, unsigned k)
{
    char name[SIM_NAME_SIZE];
    uint32_t n = bound_to(w, sim_contested_name(k, name));
    bool replaced = false, otherwise = false;
    for (unsigned i = k; i < w->n_clients; i += SIM_CONTESTED) {
        const struct sim_client *c = w->clients[i];
        replaced |= c->owner == SIM_OWNER_ALL && was_told_so(c);
        otherwise |= c->owner == SIM_OWNER_ALL && !was_told_so(c) && !has_stayed(c);
    }
    if (n > 1 || (n == 0 && replaced && !otherwise))
        world_fail(w, "%u clients have uid %s", n, name);
}

/* What it was sent before somebody took its place. */
static void check_replaced(struct world *w, const struct sim_client *c)
{
    const struct sim_link *l = c->owner >= 0 ? w->links[c->owner] : NULL;
    if (!was_told_so(c))
        return;
    if (!c->may_be_replaced || !w->config.gateway.one_connection_per_uid)
        world_fail(w, "client %u was replaced, by nobody", c->index);
    for (uint32_t n = 0; l != NULL && sim_link_is_sure(l) && n < c->replaced_at; n++)
        if (sim_set_has(&l->sends[n].must, c->index) && !sim_set_has(&l->sends[n].got, c->index))
            world_fail(w, "client %u was replaced before it got %u of link %u", c->index, n, l->index);
}

/* Who had it before the last bind that took effect was closed before what was said after it. */
static void check_sends_to_uids(struct world *w, const struct sim_link *l)
{
    for (uint32_t n = 0; n < l->n_sends; n++) {
        const struct sim_send *s = &l->sends[n];
        for (unsigned k = 0; k < SIM_NAMES; k++) {
            unsigned got = 0;
            for (unsigned i = 0; i < w->n_clients; i++)
                got += sim_set_has(&s->of_uid[k], i) && sim_set_has(&s->got, i);
            if (got > 1)
                world_fail(w, "%u clients with uid %u of link %u got its %u", got, k, l->index, n);
        }
    }
}

static void check_one_per_uid(struct world *w)
{
    char name[SIM_NAME_SIZE];
    uint64_t replaced = closes_of(w, CLOSE_uid_replaced), most = 0;
    for (unsigned k = 0; k < SIM_CONTESTED; k++)
        check_contested(w, k);
    for (unsigned i = 0; i < w->n_links * SIM_NAMES; i++)
        if (bound_to(w, sim_link_name(w->links[i / SIM_NAMES], 'u', i % SIM_NAMES, name)) > 1)
            world_fail(w, "several clients have uid %s", name);
    for (unsigned i = 0; i < w->n_clients; i++)
        most += w->clients[i]->may_be_replaced;
    for (unsigned k = 0; k < w->n_links && w->node.deaths == 0; k++)
        check_sends_to_uids(w, w->links[k]);
    if (replaced != count_of(w, COUNTER_uid_replaced) || replaced > most)
        world_fail(w, "%llu clients were replaced, %llu could have been", (unsigned long long)replaced,
                   (unsigned long long)most);
}

/* ---- when all is quiet */

void checker_settled(struct world *w)
{
    uint64_t missing = 0;
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        check_shared(w, &w->node.crew->shards[i]);
    if (w->strict)
        check_closed(w);
    uint64_t dropped = drops_of(w, DROP_slow_reader_newest) + drops_of(w, DROP_slow_reader_oldest);
    if (w->config.gateway.one_connection_per_uid)
        check_one_per_uid(w);
    for (unsigned i = 0; i < w->n_clients && dropped == 0; i++)
        check_replaced(w, w->clients[i]);
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
            else if (dropped == 0)
                check_prefix(w, w->links[k], c);
    }
    if (missing > dropped)
        world_fail(w, "%llu messages did not come, %llu were dropped", (unsigned long long)missing,
                   (unsigned long long)dropped);
    for (unsigned k = 0; k < w->n_links; k++)
        /* One whose shard died may not have heard of that: the network can lose it. */
        if (w->links[k]->first != NULL && sim_link_is_usable(w->links[k]) &&
            !(w->links[k]->bereft && !w->strict))
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

/* A client that went from one worker to another and back has told each of them several pieces: what can be
 * said is that each link was told some of it in its order, and all of them together not too much. */
static ssize_t check_pieces(struct world *w, const struct sim_client *c)
{
    size_t all = 0;
    for (unsigned k = 0; k < WORLD_LINKS_MAX; k++) {
        const struct sim_told *t = c->told[k];
        size_t at = 0;
        for (size_t i = 0; t != NULL && i < c->sent.len && at < t->stream.len; i++)
            at += c->sent.data[i] == t->stream.data[at];
        if (t != NULL && at < t->stream.len)
            world_fail(w, "client %u: link %u was told bytes that it did not send", c->index, k);
        all += t != NULL ? t->stream.len : 0;
    }
    return all <= c->sent.len ? (ssize_t)all : -1;
}

/* In any run: what a link was told is a part of what the client sent. */
static void check_stream_parts(struct world *w, const struct sim_client *c)
{
    for (unsigned k = 0; k < WORLD_LINKS_MAX; k++) {
        const struct sim_told *t = c->told[k];
        if (t == NULL || t->stream.len == 0 || c->hard || w->steers)
            continue;
        if (c->sent.len == 0 || memmem(c->sent.data, c->sent.len, t->stream.data, t->stream.len) == NULL)
            world_fail(w, "client %u: link %u was told bytes that it did not send", c->index, k);
    }
}

/* Whether all that it sent has come; a gap is a failure. */
static bool all_came(struct world *w, const struct sim_client *c)
{
    if (c->protocol == PROTOCOL_TCP) {
        ssize_t len = w->steers ? check_pieces(w, c) : assemble(c, 0, 0);
        if (len < 0)
            world_fail(w, "client %u: what came is not the beginning of what it sent", c->index);
        return len == (ssize_t)c->sent.len;
    }
    for (uint32_t n = 0; n < c->n_got; n++)
        if (n / 8 >= c->got_cap || (c->got[n / 8] >> n % 8 & 1) == 0)
            world_fail(w, "client %u: message %u is missing, though later ones came", c->index, n);
    return c->n_got == c->n_sent;
}

/* What was said to have been told, or was waiting to be, is lost in part. */
static bool is_lossy(const struct world *w)
{
    return w->lossy || count_of(w, COUNTER_clients_given_up) > 0;
}

static void check_client_strictly(struct world *w, const struct sim_client *c)
{
    if (c->id == 0)
        return;
    /* Of a dead shard's client it may have been told nothing but what others had to say of it. */
    bool both = c->n_connect == 1 && c->n_close == 1;
    bool neither = c->n_connect == 0 && c->n_close == 0 && has_lost_shard(c);
    if (!both && !neither && !is_lossy(w))
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
        check_client_strictly(w, c);
        if (has_lost_shard(c) || is_lossy(w))
            continue;
        if (!c->hard && c->state != SIM_CLIENT_CONNECTING && !all_came(w, c))
            incomplete += !c->ended_by_command;
    }
    uint64_t never = drops_of(w, DROP_no_worker);
    uint64_t reset = closes_of(w, CLOSE_reset);
    uint64_t excused = closes_total(w) - closes_of(w, CLOSE_peer) - closes_of(w, CLOSE_peer_close_frame) -
                       reset + (reset > hard ? reset - hard : 0) + never +
                       count_of(w, COUNTER_client_refused);
    if (incomplete > excused)
        world_fail(w, "%llu clients' messages did not all come, %llu are explained",
                   (unsigned long long)incomplete, (unsigned long long)excused);
    if (w->node.deaths > 0)
        return; /* what died with a shard was counted by it */
    uint64_t in = count_of(w, COUNTER_client_messages_in);
    if (in != w->told_message + never)
        world_fail(w, "%llu messages in, %llu told, %llu dropped", (unsigned long long)in,
                   (unsigned long long)w->told_message, (unsigned long long)never);
    check_told(w, COUNTER_event_connect, w->told_connect);
    check_told(w, COUNTER_event_websocket_connect, w->told_ws_connect);
    check_told(w, COUNTER_event_message, w->told_message);
    check_told(w, COUNTER_event_close, w->told_close);
}

/* With nobody there the shards show nothing. */
static void check_shared_is_empty(struct world *w, const struct sim_shard *s)
{
    char name[SIM_NAME_SIZE];
    const struct node_shared *shared = w->node.crew->node.shared;
    const struct node_shard *figures = &shared->shards[s->index];
    uint32_t bound = bound_to_workers(shared, s->index), names = 0;
    for (unsigned i = 0; i < w->n_links * SIM_NAMES; i++) {
        const struct sim_link *l = w->links[i / SIM_NAMES];
        sim_link_name(l, 'u', i % SIM_NAMES, name);
        names += name_filter_may_have(&shared->names[s->index].uids, hash_bytes(name, strlen(name)));
        sim_link_name(l, 'g', i % SIM_NAMES, name);
        names += name_filter_may_have(&shared->names[s->index].groups, hash_bytes(name, strlen(name)));
    }
    if (NODE_LOAD(figures->members) + NODE_LOAD(figures->clients) + bound + names != 0)
        world_fail(w,
                   "shard %u shows %u members, %u clients, %u bound to workers, %u names, with nobody there",
                   s->index, NODE_LOAD(figures->members), NODE_LOAD(figures->clients), bound, names);
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
    uint64_t accepted = count_of(w, COUNTER_client_accepted), lost = 0;
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        lost += w->node.crew->shards[i].lost;
    if (accepted != closes_total(w) + lost)
        world_fail(w, "%llu accepted, %llu closed, %llu ended with their shard", (unsigned long long)accepted,
                   (unsigned long long)closes_total(w), (unsigned long long)lost);
    if (closes_of(w, CLOSE_upgrade) != 0)
        world_fail(w, "%llu clients were closed at an upgrade",
                   (unsigned long long)closes_of(w, CLOSE_upgrade));
    check_gauge(w, COUNTER_clients);
    check_gauge(w, COUNTER_uids);
    check_gauge(w, COUNTER_groups);
    check_gauge(w, COUNTER_client_queue_bytes);
    if (count_of(w, COUNTER_workers) > 0) {
        check_gauge(w, COUNTER_parked_bytes);
        check_gauge(w, COUNTER_parked_clients);
    }
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        check_shared_is_empty(w, &w->node.crew->shards[i]);
    for (unsigned i = 0; i < w->n_clients; i++)
        check_stream_parts(w, w->clients[i]);
    if (w->strict)
        check_messages_strictly(w);
}
