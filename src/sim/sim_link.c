// SPDX-License-Identifier: MIT
#include "sim/sim_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"
#include "sim/checker.h"
#include "sim/sim_message.h"
#include "sim/sim_query.h"

static const struct net_conn_ops link_ops;

/* ---- out */

static void flush(struct sim_link *l)
{
    if (l->state != SIM_LINK_OPEN || l->fin_sent)
        return;
    while (l->out.len > 0) {
        struct iovec iov = {l->out.data, l->out.len};
        ssize_t n = net_writev(l->w->link_host.net, &l->conn, &iov, 1);
        if (n <= 0)
            return;
        bytes_consume(&l->out, (size_t)n);
    }
    if (l->fin_wanted) {
        l->fin_sent = true;
        net_shutdown(l->w->link_host.net, &l->conn);
    }
}

void sim_link_command(struct sim_link *l, const struct gw_packet *p)
{
    uint8_t head[GW_HEAD_LEN];
    gw_packet_encode_head(head, p);
    bytes_append(&l->out, head, sizeof head);
    bytes_append(&l->out, p->ext.data, p->ext.len);
    bytes_append(&l->out, p->body.data, p->body.len);
    flush(l);
}

static void say_who(struct sim_link *l, const char *secret)
{
    struct bytes body = {0};
    bytes_printf(&body, "{\"worker_key\":\"w%u\",\"secret_key\":\"%s\"}", l->key, secret);
    struct gw_packet p = {.cmd = l->is_worker ? GW_CMD_WORKER_CONNECT : GW_CMD_GATEWAY_CLIENT_CONNECT,
                          .flag = GW_FLAG_BODY_IS_SCALAR,
                          .body = {body.data, body.len}};
    sim_link_command(l, &p);
    bytes_fini(&body);
}

/* ---- in */

static bool is_event(uint8_t cmd)
{
    return cmd == GW_CMD_ON_CONNECT || cmd == GW_CMD_ON_MESSAGE || cmd == GW_CMD_ON_CLOSE ||
           cmd == GW_CMD_PING || cmd == GW_CMD_ON_WEBSOCKET_CONNECT;
}

/* A reply has a letter of serialize() where an event has its command. */
static size_t take_one(struct sim_link *l)
{
    const uint8_t *data = l->in.data;
    if (l->in.len < 5)
        return 0;
    if (is_event(data[4])) {
        struct gw_packet p;
        ssize_t n = gw_packet_decode(data, l->in.len, SIM_MESSAGE_MAX, &p);
        if (n < 0)
            world_fail(l->w, "link %u: an event that is no packet", l->index);
        if (n > 0)
            checker_event(l->w, l, &p);
        return n > 0 ? (size_t)n : 0;
    }
    size_t len = gw_get_u32(data);
    if (len > SIM_MESSAGE_MAX)
        world_fail(l->w, "link %u: a reply of %zu bytes", l->index, len);
    if (l->in.len < 4 + len)
        return 0;
    sim_query_answered(l, (struct slice){data + 4, len});
    return 4 + len;
}

static void on_data(struct net_conn *conn, uint8_t *data, size_t len)
{
    struct sim_link *l = CONTAINER_OF(conn, struct sim_link, conn);
    bytes_append(&l->in, data, len);
    size_t done = 0, n;
    struct bytes all = l->in;
    while (!l->w->failed && (n = take_one(l)) > 0) {
        done += n;
        l->in.data += n;
        l->in.len -= n;
    }
    l->in = all;
    bytes_consume(&l->in, done);
}

static void on_writable(struct net_conn *conn)
{
    flush(CONTAINER_OF(conn, struct sim_link, conn));
}

static void on_connected(struct net_conn *conn)
{
    struct sim_link *l = CONTAINER_OF(conn, struct sim_link, conn);
    l->state = SIM_LINK_OPEN;
    flush(l);
}

static void on_closed(struct net_conn *conn, int err)
{
    struct sim_link *l = CONTAINER_OF(conn, struct sim_link, conn);
    world_trace(l->w, "link %u: closed, error %d", l->index, err);
    l->state = SIM_LINK_GONE;
    if (!l->fin_sent || err != 0)
        l->hard = true;
    if (l->is_worker && err != 0 && l->bereft && l->paused)
        l->w->lossy = true;
    checker_link_closed(l->w, l, err);
}

static const struct net_conn_ops link_ops = {
    .data = on_data, .writable = on_writable, .closed = on_closed, .connected = on_connected};

/* ---- life */

static struct sim_link *link_new(struct world *w)
{
    ASSERT(w->n_links < WORLD_LINKS_MAX);
    struct sim_link *l = calloc(1, sizeof *l);
    ASSERT(l != NULL);
    l->w = w;
    l->index = w->n_links;
    w->links[w->n_links++] = l;
    uint32_t ip = w->config.gateway.lan_ip;
    struct net_addr to = {.family = AF_INET, .port = (uint16_t)w->config.gateway.start_port};
    gw_put_u32(to.ip, ip);
    l->conn.ops = &link_ops;
    if (net_connect(w->link_host.net, &l->conn, &to) != 0)
        l->state = SIM_LINK_GONE;
    return l;
}

struct sim_link *sim_worker_new(struct world *w, unsigned key)
{
    struct sim_link *l = link_new(w);
    l->is_worker = true;
    l->key = key;
    l->echoes = world_chance(w, 60);
    world_trace(w, "link %u connects: worker w%u", l->index, key);
    for (unsigned i = 0; i < l->index; i++) {
        struct sim_link *other = w->links[i];
        if (other->is_worker && other->key == key && other->state != SIM_LINK_GONE)
            l->replaced = other->replaced = true; /* whichever the gateway hears of first */
    }
    say_who(l, w->config.gateway.secret_key);
    return l;
}

struct sim_link *sim_gateway_client_new(struct world *w)
{
    struct sim_link *l = link_new(w);
    world_trace(w, "link %u connects: GatewayClient", l->index);
    say_who(l, w->config.gateway.secret_key);
    return l;
}

struct sim_link *sim_intruder_new(struct world *w)
{
    static const char nonsense[] = "GET / HTTP/1.1\r\nHost: gateway\r\nAccept: */*\r\n\r\n";
    struct sim_link *l = link_new(w);
    l->wrong = true;
    l->key = 99;
    world_trace(w, "link %u connects: intruder", l->index);
    switch (world_draw(w, 4)) {
    case 0: break; /* says nothing */
    case 1: bytes_append(&l->out, nonsense, sizeof nonsense - 1); break;
    case 2: bytes_append(&l->out, "\0\0\0\4", 4); break;
    default: say_who(l, "not the secret");
    }
    return l;
}

void sim_link_free(struct sim_link *l)
{
    if (net_conn_is_open(&l->conn))
        net_close(l->w->link_host.net, &l->conn, true);
    sim_query_free_all(l);
    bytes_fini(&l->in);
    bytes_fini(&l->out);
    free(l->sends);
    free(l);
}

bool sim_link_is_usable(const struct sim_link *l)
{
    return l->state != SIM_LINK_GONE && !l->fin_wanted && !l->wrong && !l->hard;
}

void sim_link_leave(struct sim_link *l)
{
    if (l->state == SIM_LINK_GONE || l->fin_wanted)
        return;
    world_trace(l->w, "link %u leaves", l->index);
    sim_link_resume(l);
    l->fin_wanted = true;
    flush(l);
}

void sim_link_reset(struct sim_link *l)
{
    if (l->state == SIM_LINK_GONE)
        return;
    world_trace(l->w, "link %u resets", l->index);
    l->hard = true;
    l->state = SIM_LINK_GONE;
    net_close(l->w->link_host.net, &l->conn, true);
    checker_link_closed(l->w, l, ECONNRESET);
}

void sim_link_pause(struct sim_link *l)
{
    if (l->state != SIM_LINK_OPEN || l->paused)
        return;
    world_trace(l->w, "link %u stops reading", l->index);
    l->paused = true;
    net_read_pause(l->w->link_host.net, &l->conn);
}

void sim_link_resume(struct sim_link *l)
{
    if (l->state != SIM_LINK_OPEN || !l->paused)
        return;
    world_trace(l->w, "link %u reads again", l->index);
    l->paused = false;
    net_read_resume(l->w->link_host.net, &l->conn);
}

/* Names of every other link look like numbers: PHP and JSON make keys of another kind of them. */
const char *sim_link_name(const struct sim_link *l, char kind, unsigned k, char buf[SIM_NAME_SIZE])
{
    if (l->index % 2 == 1)
        snprintf(buf, SIM_NAME_SIZE, "%u", 10000 + l->index * 100 + (kind == 'g' ? 50 : 0) + k);
    else
        snprintf(buf, SIM_NAME_SIZE, "L%u%c%u", l->index, kind, k);
    return buf;
}
