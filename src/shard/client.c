// SPDX-License-Identifier: MIT
/* Clients come and go. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/pool.h"
#include "proto/ws/handshake.h"
#include "shard/census.h"
#include "shard/trace.h"
#include "tls/tls.h"

static void on_closed(struct net_conn *conn, int err);

static const struct net_conn_ops client_conn_ops = {
    .data = client_on_data, .writable = client_on_writable, .closed = on_closed};
/* With a PROXY header or TLS before it. */
static const struct net_conn_ops early_conn_ops = {
    .data = client_on_early_data, .writable = client_on_writable, .closed = on_closed};

/* ---- coming */

static void clients_changed(struct shard *s)
{
    counter_set(s->host.counters, COUNTER_clients, s->n_clients);
    NODE_STORE(shard_published(s)->clients, s->n_clients);
}

static void members_changed(struct shard *s)
{
    NODE_STORE(shard_published(s)->members, directory_count(s->host.directory));
}

static bool clients_append(struct shard *s, struct client *c)
{
    if (!array_reserve_one(&s->clients, s->n_clients, &s->cap_clients, 256))
        return false;
    c->up.host_position = s->n_clients;
    s->clients[s->n_clients++] = c;
    if (s->census != NULL)
        census_came(s, c->up.host_position);
    clients_changed(s);
    if (s->n_clients > s->trim_peak)
        s->trim_peak = s->n_clients;
    return true;
}

static void clients_remove(struct shard *s, struct client *c)
{
    struct client *last = s->clients[--s->n_clients];
    s->clients[c->up.host_position] = last;
    last->up.host_position = c->up.host_position;
    if (s->census != NULL)
        census_moved(s, s->n_clients, c->up.host_position);
    clients_changed(s);
}

struct client *client_new(struct shard_listener *l, const struct net_addr *peer)
{
    struct shard *s = l->shard;
    struct client *c = control_injects_no_memory() ? NULL : pool_get(s->client_pool);
    if (c == NULL)
        return NULL;
    if (!clients_append(s, c)) {
        pool_put(s->client_pool, c);
        return NULL;
    }
    c->has_tls = l->tls != NULL;
    if (c->has_tls)
        counter_set(s->host.counters, COUNTER_tls_clients, ++s->n_tls);
    c->conn.ops = c->has_tls ? &early_conn_ops : &client_conn_ops;
    c->listener = l;
    l->n_clients++;
    c->up.peer = *peer;
    c->up.gateway_port = (uint16_t)l->config->port;
    c->since_ms = c->last_read_ms = shard_now_ms(s);
    c->silent_beats = -1;
    return c;
}

/* ---- whether it may */

bool client_is_of_proxy(const struct shard_listener *l, const struct net_addr *peer)
{
    return l->trusted != NULL && (peer->family == AF_UNIX || cidr_list_has(l->trusted, peer));
}

/* others: clients of this shard besides the one that this is about */
static enum guard_verdict check(struct shard *s, const struct net_addr *peer, uint32_t others)
{
    uint32_t clients = others - s->n_refusals;
    if (!s->is_guarded && clients < s->max_clients)
        return GUARD_PASS;
    return guard_check(s->guard, peer, clients, s->max_clients, loop_now_ms(s->host.loop), s->now_unix_s);
}

/* Only whether there is any place left. */
static enum guard_verdict check_room(struct shard *s)
{
    if (s->n_clients - s->n_refusals < s->max_clients)
        return GUARD_PASS;
    shard_count(s, COUNTER_refused_total, 1);
    return GUARD_TOTAL;
}

static unsigned status_of(enum guard_verdict v)
{
    if (v == GUARD_DENY || v == GUARD_BAN)
        return 403;
    return v == GUARD_PER_ADDRESS || v == GUARD_PER_SUBNET ? 429 : 503;
}

/* Answered with an HTTP status where that is understood, else just closed. */
static void refuse(struct client *c, enum guard_verdict v)
{
    if (client_is_websocket(c) && c->state == CLIENT_HANDSHAKE)
        client_refuse_handshake(c, (int)status_of(v), CLOSE_refused);
    else
        client_destroy(c, CLOSE_refused, true);
}

static void set_refusal(struct client *c)
{
    struct shard *s = client_shard(c);
    c->is_refusal = true;
    counter_set(s->host.counters, COUNTER_refusals, ++s->n_refusals);
}

/* There it is, and then it is told to go: so it comes back when it may, not at once. */
static struct net_conn *refuse_at_accept(struct shard_listener *l, const struct net_addr *peer,
                                         enum guard_verdict v)
{
    struct shard *s = l->shard;
    bool in_words = l->config->protocol == PROTOCOL_WEBSOCKET && l->tls == NULL && status_of(v) != 403;
    struct client *c = NULL;
    shard_count(s, COUNTER_client_refused, 1);
    if (v == GUARD_TOTAL && !s->drained)
        LOG(LOG_WARN, "client_refused", "clients=%u hint=\"raise max_connections or the file limit\"",
            s->n_clients);
    if (in_words && s->n_refusals < SHARD_REFUSALS_MAX)
        c = client_new(l, peer);
    if (c == NULL) {
        shard_count(s, COUNTER_client_refused_rst, 1);
        return NULL;
    }
    shard_count(s, COUNTER_client_accepted, 1); /* and client_closed_refused follows */
    c->state = CLIENT_HANDSHAKE;
    set_refusal(c);
    refuse(c, v);
    return &c->conn;
}

bool client_admit(struct client *c, const struct net_addr *peer)
{
    struct shard *s = client_shard(c);
    enum guard_verdict v = check(s, peer, s->n_clients - 1);
    c->up.peer = *peer;
    c->address_open = false;
    if (v != GUARD_PASS) {
        shard_count(s, COUNTER_client_refused, 1);
        refuse(c, v);
        return false;
    }
    c->counted = s->is_guarded && guard_enter(s->guard, peer);
    return true;
}

void client_begin(struct client *c)
{
    c->state = client_is_websocket(c) ? CLIENT_HANDSHAKE : CLIENT_OPEN;
    c->since_ms = shard_now_ms(client_shard(c));
    if (c->state == CLIENT_OPEN && net_conn_is_open(&c->conn)) /* not within accept */
        net_conn_settled(&c->conn);
    client_arm(c);
    if (c->state == CLIENT_OPEN ||
        (shard_config(client_shard(c))->on_connect == ON_CONNECT_ACCEPT && !c->address_open))
        client_announce(c);
}

/* It is not a proxy of ours, and nobody else may come here. */
static struct net_conn *refuse_stranger(struct shard_listener *l, const struct net_addr *peer)
{
    char text[NET_ADDR_STRLEN];
    LOG(LOG_WARN, "not_a_trusted_proxy", "peer=%s listen=%s", net_addr_format(peer, text, sizeof text),
        l->config->name);
    shard_count(l->shard, COUNTER_client_accepted, 1);
    counter_close(l->shard->host.counters, CLOSE_bad_proxy_header);
    return NULL;
}

static struct net_conn *on_accepted(struct net_listener *listener, const struct net_addr *peer,
                                    const struct net_addr *local)
{
    struct shard_listener *l = CONTAINER_OF(listener, struct shard_listener, listener);
    struct shard *s = l->shard;
    bool trusted = client_is_of_proxy(l, peer);
    bool preamble = trusted && l->config->proxy_protocol != PROXY_PROTOCOL_OFF;
    bool address_open = trusted && !preamble && l->config->forwarded != FORWARDED_OFF;
    if (l->config->proxy_protocol == PROXY_PROTOCOL_REQUIRED && !trusted)
        return refuse_stranger(l, peer);
    if (s->drained) { /* and every other shard too, else it would have been given to them */
        shard_count(s, COUNTER_refused_draining, 1);
        return refuse_at_accept(l, peer, GUARD_TOTAL);
    }
    /* Of a proxy only its number counts until it has told whose connection it is. */
    enum guard_verdict v = preamble || address_open ? check_room(s) : check(s, peer, s->n_clients);
    if (v != GUARD_PASS)
        return refuse_at_accept(l, peer, v);
    struct client *c = client_new(l, peer);
    if (c == NULL) {
        shard_count(s, COUNTER_client_refused, 1);
        return NULL;
    }
    shard_count(s, COUNTER_client_accepted, 1);
    c->address_open = address_open;
    if (s->is_guarded && !preamble && !address_open)
        c->counted = guard_enter(s->guard, peer);
    if (preamble)
        c->conn.ops = &early_conn_ops;
    if (preamble || c->has_tls)
        client_begin_early(c, preamble);
    else
        client_begin(c);
    return &c->conn;
}

static void on_accept_failed(struct net_listener *listener, int err)
{
    struct shard_listener *l = CONTAINER_OF(listener, struct shard_listener, listener);
    shard_count(l->shard, COUNTER_client_accept_failed, 1);
    LOG(LOG_ERROR, "client_accept_failed",
        "listen=%s error=\"%s\" clients=%u hint=\"see the file limit (ulimit -n)\"", l->config->name,
        strerror(err), l->shard->n_clients);
}

const struct net_listener_ops client_listener_ops = {on_accepted, on_accept_failed};

bool client_announce(struct client *c)
{
    struct shard *s = client_shard(c);
    if (s->drained) { /* it was on its way in when the drain began */
        client_close(c, CLOSE_drained, WS_CLOSE_GOING_AWAY, "going away");
        return false;
    }
    int err = directory_add(s->host.directory, &c->up.member);
    if (err != 0) {
        client_close(c, err == -EAGAIN ? CLOSE_no_id : CLOSE_no_memory, WS_CLOSE_TRY_LATER, NULL);
        return false;
    }
    /* What outlives us: a successor goes on behind this id. */
    __atomic_store_n(&s->shm->next_seq, directory_next_seq(s->host.directory), __ATOMIC_RELAXED);
    members_changed(s);
    c->announced = true;
    if (s->traces != NULL)
        trace_new_client(c);
    upstream_client_connected(s->upstream, &c->up);
    return c->state != CLIENT_CLOSING;
}

/* ---- going */

static bool is_normal(enum close_reason reason)
{
    return reason == CLOSE_peer || reason == CLOSE_peer_close_frame || reason == CLOSE_kicked ||
           reason == CLOSE_destroyed || reason == CLOSE_shutdown || reason == CLOSE_health_check ||
           reason == CLOSE_uid_replaced || reason == CLOSE_ordered || reason == CLOSE_drained;
}

static void log_leaving(const struct client *c, enum close_reason reason, const char *why)
{
    const struct shard *s = client_shard(c);
    enum config_log_closes which = s->host.config->log.closes;
    if (which == LOG_CLOSES_NONE || (which == LOG_CLOSES_ABNORMAL && is_normal(reason)))
        return;
    char peer[NET_ADDR_STRLEN];
    LOG(LOG_NOTICE, "client_closed", "reason=%s peer=%s listen=%s connection_id=%u queued_bytes=%llu why=%s",
        close_reason_name(reason), net_addr_format(&c->up.peer, peer, sizeof peer), c->listener->config->name,
        c->up.member.id, (unsigned long long)c->out_bytes, log_quote(why, why != NULL ? strlen(why) : 0));
}

/* The one place where a client stops being one: counted, logged, its worker told, out of the directory. */
static void client_leave(struct client *c, enum close_reason reason, unsigned code, const char *why)
{
    struct shard *s = client_shard(c);
    counter_close(s->host.counters, reason);
    log_leaving(c, reason, why);
    if (s->traces != NULL && c->up.traced)
        trace_close(c, reason, code, why);
    c->state = CLIENT_CLOSING;
    c->since_ms = shard_now_ms(s);
    if (!c->announced)
        return;
    c->announced = false;
    upstream_client_closed(s->upstream, &c->up);
    directory_remove(s->host.directory, &c->up.member);
    members_changed(s);
}

void client_free(struct client *c)
{
    struct shard *s = client_shard(c);
    if (s->import != NULL)
        shard_import_forget_client(c);
    ASSERT(!c->announced);
    timer_cancel(s->host.loop, &c->timer);
    client_out_clear(c);
    client_in_free(c);
    client_edge_free(c);
    if (c->counted)
        guard_leave(s->guard, &c->up.peer);
    if (c->is_refusal)
        counter_set(s->host.counters, COUNTER_refusals, --s->n_refusals);
    c->listener->n_clients--;
    clients_remove(s, c);
    pool_put(s->client_pool, c);
}

static void on_closed(struct net_conn *conn, int err)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    if (c->state != CLIENT_CLOSING)
        client_leave(c, err == 0 ? CLOSE_peer : CLOSE_reset, 0, err != 0 ? strerror(err) : NULL);
    client_free(c);
}

void client_destroy(struct client *c, enum close_reason reason, bool hard)
{
    if (c->state != CLIENT_CLOSING)
        client_leave(c, reason, 0, NULL);
    net_close(client_shard(c)->host.net, &c->conn, hard);
    client_free(c);
}

static void queue_close_frame(struct client *c, unsigned code, const char *why)
{
    uint8_t frame[WS_CLOSE_MAX];
    c->close_sent = true;
    client_queue_control(c, out_control(frame, ws_close_frame(frame, code, why)));
}

/* Instead of a close frame, to a client whose handshake is not done. What waited for it is not for an HTTP
 * client. */
static void queue_http_refusal(struct client *c, enum close_reason reason)
{
    bool too_late = reason == CLOSE_handshake_timeout || reason == CLOSE_first_byte_timeout;
    client_queue_answer(c, too_late ? 408 : 503);
}

/* By whoever closes for that reason. */
static bool is_answered(enum close_reason reason)
{
    return reason == CLOSE_bad_handshake || reason == CLOSE_refused || reason == CLOSE_health_check;
}

void client_close(struct client *c, enum close_reason reason, unsigned code, const char *why)
{
    if (c->state == CLIENT_CLOSING)
        return;
    enum client_state was = c->state;
    client_leave(c, reason, code, why);
    if (client_is_websocket(c) && was == CLIENT_OPEN)
        queue_close_frame(c, code, why);
    else if (was == CLIENT_HANDSHAKE && !is_answered(reason))
        queue_http_refusal(c, reason);
    if (net_conn_is_open(&c->conn)) /* not yet when it is refused while being accepted */
        net_read_resume(client_shard(c)->host.net, &c->conn);
    client_arm(c);
    client_mark_dirty(c);
}

void client_written_out(struct client *c)
{
    if (c->fin_sent)
        return;
    /* A websocket peer gets to answer our close frame; then, and with other protocols, our FIN. Its own FIN,
     * or the deadline, ends it: closing at once could turn into a reset that takes what it has not read yet.
     */
    bool waits_for_frame = c->close_sent && !c->close_received && !c->deaf;
    if (waits_for_frame)
        return;
    if (c->has_tls && c->edge != NULL && c->edge->tls != NULL) {
        tls_conn_shutdown(c->edge->tls);
        if (!client_tls_is_flushed(c)) {
            c->write_blocked = true; /* and here again */
            return;
        }
    }
    c->fin_sent = true;
    net_shutdown(client_shard(c)->host.net, &c->conn);
}

/* ---- taken over, handed over */

void client_restore_begun(struct client *c, bool is_refusal)
{
    struct shard *s = client_shard(c);
    if (is_refusal)
        set_refusal(c);
    else if (s->is_guarded && c->state != CLIENT_PREAMBLE && !c->address_open)
        c->counted = guard_enter(s->guard, &c->up.peer);
    if (c->state == CLIENT_PREAMBLE)
        c->conn.ops = &early_conn_ops;
}

void client_restore_announced(struct client *c)
{
    c->announced = true;
    members_changed(client_shard(c));
}

void client_forget(struct client *c)
{
    struct shard *s = client_shard(c);
    if (c->announced) {
        c->announced = false;
        upstream_forget_client(s->upstream, &c->up);
        directory_remove(s->host.directory, &c->up.member);
        members_changed(s);
    }
    if (net_conn_is_open(&c->conn))
        net_forget(s->host.net, &c->conn);
    client_free(c);
}
