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

static void on_closed(struct net_conn *conn, int err);

static const struct net_conn_ops client_conn_ops = {
    .data = client_on_data, .writable = client_on_writable, .closed = on_closed};

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
    clients_changed(s);
}

static struct client *client_new(struct shard_listener *l, const struct net_addr *peer)
{
    struct shard *s = l->shard;
    if (s->n_clients >= s->max_clients) {
        LOG(LOG_WARN, "client_refused", "clients=%u hint=\"raise max_connections or the file limit\"",
            s->n_clients);
        return NULL;
    }
    struct client *c = pool_get(s->client_pool);
    if (c == NULL)
        return NULL;
    if (!clients_append(s, c)) {
        pool_put(s->client_pool, c);
        return NULL;
    }
    c->conn.ops = &client_conn_ops;
    c->listener = l;
    c->up.peer = *peer;
    c->up.gateway_port = (uint16_t)l->config->port;
    c->since_ms = c->last_read_ms = c->beat_ms = shard_now_ms(s);
    c->silent_beats = -1;
    c->state = client_is_websocket(c) ? CLIENT_HANDSHAKE : CLIENT_OPEN;
    return c;
}

static struct net_conn *on_accepted(struct net_listener *listener, const struct net_addr *peer,
                                    const struct net_addr *local)
{
    struct shard_listener *l = CONTAINER_OF(listener, struct shard_listener, listener);
    struct shard *s = l->shard;
    struct client *c = client_new(l, peer);
    if (c == NULL) {
        shard_count(s, COUNTER_client_refused, 1);
        return NULL;
    }
    shard_count(s, COUNTER_client_accepted, 1);
    client_arm(c);
    if (c->state == CLIENT_OPEN || shard_config(s)->on_connect == ON_CONNECT_ACCEPT)
        client_announce(c);
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
    int err = directory_add(s->host.directory, &c->up.member);
    if (err != 0) {
        client_close(c, err == -EAGAIN ? CLOSE_no_id : CLOSE_no_memory, WS_CLOSE_TRY_LATER, NULL);
        return false;
    }
    /* What outlives us: a successor goes on behind this id. */
    __atomic_store_n(&s->shm->next_seq, directory_next_seq(s->host.directory), __ATOMIC_RELAXED);
    members_changed(s);
    c->announced = true;
    upstream_client_connected(s->upstream, &c->up);
    return c->state != CLIENT_CLOSING;
}

/* ---- going */

static bool is_normal(enum close_reason reason)
{
    return reason == CLOSE_peer || reason == CLOSE_peer_close_frame || reason == CLOSE_kicked ||
           reason == CLOSE_destroyed || reason == CLOSE_shutdown;
}

static void log_leaving(const struct client *c, enum close_reason reason, const char *why)
{
    const struct shard *s = client_shard(c);
    enum config_log_closes which = s->host.config->log.closes;
    if (which == LOG_CLOSES_NONE || (which == LOG_CLOSES_ABNORMAL && is_normal(reason)))
        return;
    char peer[NET_ADDR_STRLEN];
    LOG(LOG_NOTICE, "client_closed",
        "reason=%s peer=%s listen=%s connection_id=%u queued_bytes=%llu why=\"%s\"",
        close_reason_name(reason), net_addr_format(&c->up.peer, peer, sizeof peer), c->listener->config->name,
        c->up.member.id, (unsigned long long)c->out_bytes, why != NULL ? why : "");
}

/* The one place where a client stops being one: counted, logged, its worker told, out of the directory. */
static void client_leave(struct client *c, enum close_reason reason, const char *why)
{
    struct shard *s = client_shard(c);
    counter_close(s->host.counters, reason);
    log_leaving(c, reason, why);
    c->state = CLIENT_CLOSING;
    c->since_ms = shard_now_ms(s);
    if (!c->announced)
        return;
    c->announced = false;
    upstream_client_closed(s->upstream, &c->up);
    directory_remove(s->host.directory, &c->up.member);
    members_changed(s);
}

/* The connection is released: the rest of the client. */
static void client_free(struct client *c)
{
    struct shard *s = client_shard(c);
    ASSERT(!c->announced);
    timer_cancel(s->host.loop, &c->timer);
    client_out_clear(c);
    client_in_free(c);
    clients_remove(s, c);
    pool_put(s->client_pool, c);
}

static void on_closed(struct net_conn *conn, int err)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    if (c->state != CLIENT_CLOSING)
        client_leave(c, err == 0 ? CLOSE_peer : CLOSE_reset, err != 0 ? strerror(err) : NULL);
    client_free(c);
}

void client_destroy(struct client *c, enum close_reason reason, bool hard)
{
    if (c->state != CLIENT_CLOSING)
        client_leave(c, reason, NULL);
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
    char text[HTTP_ERROR_SIZE];
    bool too_late = reason == CLOSE_handshake_timeout || reason == CLOSE_first_byte_timeout;
    client_out_clear(c);
    client_queue_control(c, out_control(text, http_error_response(too_late ? 408 : 503, text, sizeof text)));
}

void client_close(struct client *c, enum close_reason reason, unsigned code, const char *why)
{
    if (c->state == CLIENT_CLOSING)
        return;
    bool was_open = c->state == CLIENT_OPEN;
    client_leave(c, reason, why);
    if (client_is_websocket(c) && was_open)
        queue_close_frame(c, code, why);
    else if (!was_open && reason != CLOSE_bad_handshake)
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
    c->fin_sent = true;
    net_shutdown(client_shard(c)->host.net, &c->conn);
}
