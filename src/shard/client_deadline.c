// SPDX-License-Identifier: MIT
/* Deadlines and heartbeat of one client, all on one timer: it is set for the earliest that could be due and
 * looks again when it fires, so that a message costs no timer operation. */
#include "shard/shard_priv.h"

#include <limits.h>
#include <string.h>

#include "base/buf.h"

/* Milliseconds from now until `since` + limit; 0: due. No limit (limit_s 0): UINT32_MAX. */
static uint32_t until(uint32_t now_ms, uint32_t since_ms, uint64_t limit_ms)
{
    if (limit_ms == 0)
        return UINT32_MAX;
    uint32_t passed = now_ms - since_ms;
    return passed >= limit_ms ? 0 : (uint32_t)(limit_ms - passed);
}

static bool reached(uint32_t now_ms, uint32_t when_ms)
{
    return (int32_t)(now_ms - when_ms) >= 0;
}

static uint32_t earlier(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint64_t beat_interval_ms(const struct config_gateway *cfg)
{
    uint64_t ms = cfg->ping_interval * 1000;
    return cfg->ping_not_response_limit > 0 ? ms / 2 : ms;
}

static uint32_t next_due(const struct client *c, uint32_t now)
{
    const struct config_listen *l = c->listener->config;
    const struct config_gateway *g = shard_config(client_shard(c));
    if (c->broken)
        return 0;
    if (c->state == CLIENT_CLOSING)
        return until(now, c->since_ms, l->close_timeout * 1000);
    uint32_t due = c->got_byte ? UINT32_MAX : until(now, c->last_read_ms, l->first_byte_timeout * 1000);
    if (c->state < CLIENT_HANDSHAKE)
        return earlier(due, until(now, c->since_ms, l->tls_handshake_timeout * 1000));
    if (c->state == CLIENT_HANDSHAKE)
        return earlier(due, until(now, c->since_ms, l->handshake_timeout * 1000));
    due = earlier(due, until(now, c->last_read_ms, l->idle_timeout * 1000));
    if (c->in != NULL)
        due = earlier(due, until(now, c->in->since_ms, l->message_timeout * 1000));
    if (c->edge != NULL && c->edge->record_held > 0)
        due = earlier(due, until(now, c->edge->record_since_ms, l->message_timeout * 1000));
    if (c->rate_paused)
        due = earlier(due, reached(now, c->edge->rate_until_ms) ? 0 : c->edge->rate_until_ms - now);
    return earlier(due, until(now, c->since_ms, beat_interval_ms(g)));
}

void client_arm(struct client *c)
{
    struct loop *loop = client_shard(c)->host.loop;
    uint32_t due = next_due(c, shard_now_ms(client_shard(c)));
    if (due == UINT32_MAX)
        timer_cancel(loop, &c->timer);
    else
        timer_set(loop, &c->timer, due, client_on_timer);
}

const char *client_timer_check(const struct client *c)
{
    bool is_due = next_due(c, shard_now_ms(client_shard(c))) != UINT32_MAX;
    return is_due && !timer_is_set(&c->timer) ? "a client with a deadline has no timer" : NULL;
}

static void send_beat(struct client *c)
{
    struct shard *s = client_shard(c);
    struct slice data = {(const uint8_t *)shard_config(s)->ping_data, strlen(shard_config(s)->ping_data)};
    if (shard_config(s)->ping_mode == PING_MODE_WEBSOCKET && client_is_websocket(c)) {
        client_queue_control(c, out_websocket_control(WS_OP_PING, data.data, data.len));
    } else if (data.len > 0) {
        struct upstream_message m;
        upstream_message_init(&m, data, false);
        client_send(&c->up, &m);
        upstream_message_fini(&m);
    } else {
        return;
    }
    shard_count(s, COUNTER_client_heartbeats_out, 1);
}

/* One tick of PHP's Gateway::ping for this client. False: it was destroyed. */
static bool beat(struct client *c, uint32_t now)
{
    int limit = (int)shard_config(client_shard(c))->ping_not_response_limit;
    /* Anything from the client since the last tick, or that we do not read it: it is not silent. */
    if ((c->got_byte && now - c->last_read_ms <= now - c->since_ms) || client_is_paused(c))
        c->silent_beats = -1;
    c->since_ms = now;
    if (limit > 0 && c->silent_beats >= limit * 2) {
        client_destroy(c, CLOSE_heartbeat, false);
        return false;
    }
    if (c->silent_beats < SHRT_MAX - 1)
        c->silent_beats++;
    if (c->silent_beats > 0 && !(limit > 0 && c->silent_beats % 2 == 1))
        send_beat(c);
    return true;
}

static void closing_over(struct client *c)
{
    client_destroy(c, CLOSE_reset, c->out_bytes > 0 || c->broken);
}

static bool message_is_late(const struct client *c, uint32_t now)
{
    uint64_t limit_ms = c->listener->config->message_timeout * 1000;
    if (c->in != NULL && until(now, c->in->since_ms, limit_ms) == 0)
        return true;
    return c->edge != NULL && c->edge->record_held > 0 && until(now, c->edge->record_since_ms, limit_ms) == 0;
}

/* A deadline of an open or half-open client that has passed; false: none. The client is closing or gone
 * after. */
static bool close_if_due(struct client *c, uint32_t now)
{
    const struct config_listen *l = c->listener->config;
    if (!c->got_byte && until(now, c->last_read_ms, l->first_byte_timeout * 1000) == 0)
        client_close(c, CLOSE_first_byte_timeout, WS_CLOSE_POLICY, "nothing received in time");
    else if (c->state == CLIENT_PREAMBLE && until(now, c->since_ms, l->tls_handshake_timeout * 1000) == 0)
        client_destroy(c, CLOSE_bad_proxy_header, false);
    else if (c->state == CLIENT_TLS && until(now, c->since_ms, l->tls_handshake_timeout * 1000) == 0)
        client_destroy(c, CLOSE_tls_timeout, false);
    else if (c->state == CLIENT_HANDSHAKE && !c->up.paused &&
             until(now, c->since_ms, l->handshake_timeout * 1000) == 0)
        client_close(c, CLOSE_handshake_timeout, WS_CLOSE_POLICY, "handshake not complete in time");
    else if (c->state == CLIENT_OPEN && !client_is_paused(c) && message_is_late(c, now))
        client_close(c, CLOSE_message_timeout, WS_CLOSE_POLICY, "message not complete in time");
    else if (c->state == CLIENT_OPEN && !client_is_paused(c) &&
             until(now, c->last_read_ms, l->idle_timeout * 1000) == 0)
        client_close(c, CLOSE_idle_timeout, WS_CLOSE_NORMAL, "idle");
    else
        return false;
    return true;
}

void client_on_timer(struct timer *t)
{
    struct client *c = CONTAINER_OF(t, struct client, timer);
    uint32_t now = shard_now_ms(client_shard(c));
    if (client_shard(c)->held) {
        timer_set(client_shard(c)->host.loop, t, SHARD_HELD_MS, client_on_timer);
        return;
    }
    if (c->broken) {
        client_destroy(c, CLOSE_reset, true);
        return;
    }
    if (c->state == CLIENT_CLOSING) {
        if (until(now, c->since_ms, c->listener->config->close_timeout * 1000) == 0)
            closing_over(c);
        else
            client_arm(c);
        return;
    }
    if (close_if_due(c, now))
        return;
    uint64_t interval_ms = beat_interval_ms(shard_config(client_shard(c)));
    if (c->rate_paused && reached(now, c->edge->rate_until_ms)) {
        client_rate_over(c);
        if (c->state == CLIENT_CLOSING)
            return;
    }
    if (c->state == CLIENT_OPEN && until(now, c->since_ms, interval_ms) == 0 && !beat(c, now))
        return;
    if (client_is_paused(c)) { /* it waits for us, nobody for it */
        c->last_read_ms = now;
        if (c->in != NULL)
            c->in->since_ms = now;
        if (c->edge != NULL)
            c->edge->record_since_ms = now;
        if (c->state == CLIENT_HANDSHAKE)
            c->since_ms = now;
    }
    client_arm(c);
}
