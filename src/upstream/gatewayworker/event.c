// SPDX-License-Identifier: MIT
/* Events: what clients do, told to the worker that each is bound to. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/log.h"
#include "proto/php/ws_connect.h"

/* Messages handed over between two looks at the clock. */
#define SLICE 64

static struct gw_packet event_packet(const struct gatewayworker *gw, const struct upstream_client *c,
                                     uint8_t cmd, struct slice body)
{
    struct gw_packet p = gw->head;
    p.cmd = cmd;
    p.flag = GW_FLAG_BODY_IS_SCALAR;
    p.connection_id = c->member.id;
    p.client_port = c->peer.port;
    p.gateway_port = c->gateway_port;
    /* An IPv6 client has no place in the 32 bits: 0; ON_WEBSOCKET_CONNECT carries REMOTE_ADDR in full. */
    if (c->peer.family == AF_INET)
        p.client_ip = gw_get_u32(c->peer.ip);
    p.ext = gw_session_of(c);
    p.body = body;
    return p;
}

void event_lost(struct gatewayworker *gw, uint8_t cmd)
{
    counter_drop(gw->up.host->counters, DROP_no_memory);
    LOG(LOG_ERROR, "event_lost_no_memory", "command=%s", gw_cmd_name(cmd));
}

void event_count(struct gatewayworker *gw, uint8_t cmd)
{
    enum counter_id id = cmd == GW_CMD_ON_MESSAGE   ? COUNTER_event_message
                         : cmd == GW_CMD_ON_CONNECT ? COUNTER_event_connect
                         : cmd == GW_CMD_ON_CLOSE   ? COUNTER_event_close
                                                    : COUNTER_event_websocket_connect;
    gw_count(gw, id, 1);
}

/* To c's worker, or to what waits for one. False: it could not be kept. */
static bool emit(struct gatewayworker *gw, struct upstream_client *c, const struct gw_packet *p)
{
    struct worker *w = worker_of(gw, c);
    if (__builtin_expect(w == NULL, 0))
        return park_event(gw, c, p);
    if (__builtin_expect(c->parked != NULL, 0))
        park_release(gw, c->parked, w);
    worker_told(w, c);
    if (!worker_put_event(w, p))
        return false;
    event_count(gw, p->cmd);
    return true;
}

void event_connected(struct upstream *u, struct upstream_client *c)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    struct gw_packet p = event_packet(gw, c, GW_CMD_ON_CONNECT, (struct slice){0});
    struct worker *w = worker_of(gw, c);
    if (w != NULL && worker_is_overfull(w)) {
        u->host->ops->close(c, CLOSE_worker_slow); /* no worker has heard of it: no ON_CLOSE either */
        return;
    }
    if (w != NULL)
        record_add(gw, c);
    c->heard_of = emit(gw, c, &p);
    if (c->heard_of)
        return;
    record_remove(gw, c);
    u->host->ops->close(c, CLOSE_no_memory);
}

void record_add(struct gatewayworker *gw, struct upstream_client *c)
{
    struct estate_client like = {
        .id = c->member.id,
        .port = c->peer.port,
        .gateway_port = c->gateway_port,
        .ip = c->peer.family == AF_INET ? gw_get_u32(c->peer.ip) : 0,
    };
    if (c->member.session != NULL)
        like.session = estate_session(gw->up.host->estate, c->member.session);
    if (c->worker != NULL)
        like.worker = worker_mark(c->worker);
    if (c->member.record != NULL)
        return;
    c->member.record = estate_client_add(gw->up.host->estate, &like);
    if (c->member.record == NULL) /* as many as connections are possible: it cannot be */
        LOG(LOG_ERROR, "estate_full", "connection_id=%u", c->member.id);
}

void record_remove(struct gatewayworker *gw, struct upstream_client *c)
{
    if (c->member.record != NULL)
        estate_client_remove(gw->up.host->estate, c->member.record);
    c->member.record = NULL;
}

void event_handshaken(struct upstream *u, struct upstream_client *c, const struct http_request *req)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    char ip[NET_ADDR_STRLEN];
    struct bytes body = {0};
    net_addr_format_ip(&c->peer, ip, sizeof ip);
    bool ok = php_ws_connect(&body, req, ip, c->peer.port, c->gateway_port) == 0;
    if (ok) {
        struct gw_packet p =
            event_packet(gw, c, GW_CMD_ON_WEBSOCKET_CONNECT, (struct slice){body.data, body.len});
        p.flag = 0;
        ok = emit(gw, c, &p);
    }
    bytes_fini(&body);
    if (!ok)
        u->host->ops->close(c, gw->n_workers == 0 ? CLOSE_no_worker : CLOSE_no_memory);
}

void event_message(struct upstream *u, struct upstream_client *c, const uint8_t *data, size_t len)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    struct gw_packet p = event_packet(gw, c, GW_CMD_ON_MESSAGE, (struct slice){data, len});
    /* A worker drops its link at such a packet; moved to the next one it would end them all. */
    if (__builtin_expect(GW_HEAD_LEN + p.ext.len + len > gw_config(gw)->worker_packet_size_max, 0)) {
        u->host->ops->close(c, CLOSE_too_big);
        return;
    }
    if (__builtin_expect(emit(gw, c, &p), 1))
        return;
    bool no_worker = gw->n_workers == 0;
    counter_drop(u->host->counters, no_worker ? DROP_no_worker : DROP_no_memory);
    u->host->ops->close(c, no_worker ? CLOSE_no_worker : CLOSE_no_memory);
}

bool event_client_blocked(struct upstream *u, struct upstream_client *c)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    struct worker *w = c->worker;
    if (w == NULL || (w->is_gone && !w->unsettled))
        return false;
    if (__builtin_expect(!w->full, 1)) {
        if (++gw->n_asked % SLICE != 0 || loop_turn_left_ns(u->host->loop) > 0)
            return false;
        loop_task_add(u->host->loop,
                      &gw->resume_task); /* the turn is over: the rest of its bytes in the next one */
        worker_pause(c);
        return true;
    }
    if (gw_config(gw)->worker_backpressure == WORKER_BACKPRESSURE_CLOSE && !w->holds) {
        u->host->ops->close(c, CLOSE_worker_slow);
        return false;
    }
    worker_pause(c);
    return true;
}

struct gw_packet event_of_close(const struct gatewayworker *gw, const struct upstream_client *c)
{
    return event_packet(gw, c, GW_CMD_ON_CLOSE, (struct slice){0});
}

void event_closed(struct upstream *u, struct upstream_client *c)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    struct gw_packet p = event_of_close(gw, c);
    struct worker *w = c->heard_of ? worker_of(gw, c) : NULL;
    if (c->heard_of && w == NULL) {
        park_client_closed(gw, c, &p);
    } else if (c->heard_of) {
        if (c->parked != NULL)
            park_release(gw, c->parked, w);
        if (worker_put_close(w, c, &p))
            event_count(gw, GW_CMD_ON_CLOSE);
        else
            event_lost(gw, GW_CMD_ON_CLOSE);
    }
    record_remove(gw, c);
    worker_unbind(c);
}
