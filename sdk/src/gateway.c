// SPDX-License-Identifier: MIT
#include "worker_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

// ---- the list
// ---------------------------------------------------------------------------------------------------

static struct tggw__gateway *find_address(struct tggw *w, const char *address)
{
    struct tggw__gateway *g = w->gateways;
    while (g != NULL && strcmp(g->address, address) != 0)
        g = g->next;
    return g;
}

int tggw__gateway_add(struct tggw *w, const char *address, bool pinned)
{
    int r = tggw__address_check(address);
    if (r < 0)
        return r;
    struct tggw__gateway *g = find_address(w, address);
    if (g == NULL) {
        g = calloc(1, sizeof *g);
        if (g == NULL)
            return -ENOMEM;
        g->worker = w;
        snprintf(g->address, sizeof g->address, "%s", address);
        tggw__conn_init(&g->link, TGGW__KIND_LINK, g);
        tggw__conn_init(&g->query, TGGW__KIND_QUERY, g);
        g->asked_tail = &g->asked;
        g->next = w->gateways;
        w->gateways = g;
    }
    g->pinned = g->pinned || pinned;
    g->listed = true;
    return 0;
}

void tggw__gateways_update(struct tggw *w)
{
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next)
        g->listed = g->pinned;
    for (size_t i = 0; i < w->register_count; i++) {
        const struct tggw__register *r = &w->registers[i];
        for (size_t j = 0; j < r->listed_count; j++) {
            if (tggw__gateway_add(w, r->listed[j], false) == -ENOMEM)
                tggw__log(w, TGGW_LOG_ERROR, "gateway %s: no memory", r->listed[j]);
        }
    }
}

struct tggw__gateway *tggw__gateway_find(struct tggw *w, uint32_t ip, uint16_t port)
{
    struct tggw__gateway *g = w->last_found;
    if (g != NULL && g->ip == ip && g->port == port)
        return g;
    for (g = w->gateways; g != NULL; g = g->next) {
        if (g->ip == ip && g->port == port)
            return w->last_found = g;
    }
    return NULL;
}

// ---- events in
// --------------------------------------------------------------------------------------------------

static void fill_client(struct tggw_client *c, struct tggw__gateway *g, const struct tggw__packet *p)
{
    tggw_client_id_format(p->local_ip, p->local_port, p->connection_id, c->client_id);
    c->body_serialized = (p->flag & TGGW__FLAG_SCALAR) == 0;
    c->client_ip = p->client_ip;
    c->client_port = p->client_port;
    c->gateway_port = p->gateway_port;
    c->local_ip = p->local_ip;
    c->local_port = p->local_port;
    c->connection_id = p->connection_id;
    c->session = p->ext_len > 0 ? p->ext : NULL;
    c->session_len = p->ext_len;
    c->link = g;
}

static void deliver(struct tggw__gateway *g, const struct tggw__packet *p)
{
    struct tggw *w = g->worker;
    const struct tggw_callbacks *cb = &w->config.cb;
    struct tggw_client c;
    // The address that client_ids carry may be another one than was dialled (NAT, a host name).
    g->ip = p->local_ip;
    g->port = p->local_port;
    fill_client(&c, g, p);
    switch (p->cmd) {
    case TGGW__ON_MESSAGE:
        if (cb->on_message != NULL)
            cb->on_message(w, &c, p->body, p->body_len, w->config.user);
        break;
    case TGGW__ON_CONNECT:
        if (cb->on_connect != NULL)
            cb->on_connect(w, &c, w->config.user);
        break;
    case TGGW__ON_WEBSOCKET_CONNECT:
        if (cb->on_websocket_connect != NULL)
            cb->on_websocket_connect(w, &c, p->body, p->body_len, w->config.user);
        break;
    default:
        if (cb->on_close != NULL)
            cb->on_close(w, &c, w->config.user);
        break;
    }
}

static int take_packet(struct tggw__gateway *g, const uint8_t *data, size_t len)
{
    struct tggw__packet p;
    int r = tggw__packet_decode(data, len, &p);
    if (r < 0)
        return r;
    g->worker->stats.packets_in++;
    switch (p.cmd) {
    case TGGW__ON_CONNECT:
    case TGGW__ON_MESSAGE:
    case TGGW__ON_CLOSE:
    case TGGW__ON_WEBSOCKET_CONNECT: deliver(g, &p); return 0;
    case TGGW__PING: return 0;
    default:
        tggw__log(g->worker, TGGW_LOG_WARNING, "gateway %s: unknown command %d", g->address, p.cmd);
        return 0;
    }
}

// Completes the packet whose start is kept in link.in. The bytes used, or an error; when the packet is still
// not whole all bytes were used.
static int64_t feed_partial(struct tggw__gateway *g, const uint8_t *data, size_t len)
{
    struct tggw__bytes *in = &g->link.in;
    size_t have = tggw__bytes_len(in), used = 0, want = 4;
    for (int step = 0; step < 2; step++) {
        size_t n = want <= have ? 0 : want - have;
        n = n < len - used ? n : len - used;
        int r = tggw__bytes_append(in, data + used, n);
        if (r < 0)
            return r;
        used += n;
        have += n;
        if (have < want)
            return (int64_t)used;
        int64_t total = tggw__packet_length(in->data + in->head, have, g->worker->config.packet_bytes_max);
        if (total < 0)
            return total;
        want = (size_t)total;
    }
    int r = take_packet(g, in->data + in->head, want);
    tggw__bytes_reset(in, TGGW__KEEP_BYTES);
    return r < 0 ? r : (int64_t)used;
}

int tggw__gateway_feed(struct tggw__gateway *g, const uint8_t *data, size_t len)
{
    size_t max = g->worker->config.packet_bytes_max;
    while (len > 0) {
        int64_t n;
        if (tggw__bytes_len(&g->link.in) > 0) {
            n = feed_partial(g, data, len);
            if (n < 0)
                return (int)n;
        } else {
            n = tggw__packet_length(data, len, max);
            if (n < 0)
                return (int)n;
            if (n == 0 || (size_t)n > len)
                return tggw__bytes_append(&g->link.in, data, len);
            int r = take_packet(g, data, (size_t)n);
            if (r < 0)
                return r;
        }
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

// ---- the link
// ---------------------------------------------------------------------------------------------------

static int say_hello(struct tggw__gateway *g)
{
    struct tggw *w = g->worker;
    char key[192];
    uint8_t cmd = w->config.client_only ? TGGW__GATEWAY_CLIENT_CONNECT : TGGW__WORKER_CONNECT;
    int err = 0;
    struct tggw__bytes *b = &w->scratch;
    tggw__bytes_reset(b, TGGW__KEEP_BYTES);
    snprintf(key, sizeof key, "%s:%u", w->config.name, w->config.id);
    tggw__json_raw(b, "{\"worker_key\":", &err);
    tggw__json_string(b, key, &err);
    tggw__json_raw(b, ",\"secret_key\":", &err);
    tggw__json_string(b, w->config.secret_key, &err);
    tggw__json_raw(b, "}", &err);
    if (err < 0)
        return err;
    return tggw__packet_append(&g->link.out, &(struct tggw__packet){.cmd = cmd,
                                                                    .flag = TGGW__FLAG_SCALAR,
                                                                    .body = b->data,
                                                                    .body_len = tggw__bytes_len(b)});
}

static void announce(struct tggw__gateway *g, bool up)
{
    struct tggw *w = g->worker;
    if (g->announced == up)
        return;
    g->announced = up;
    w->up_count += up ? 1 : (size_t)-1;
    tggw__log(w, TGGW_LOG_INFO, "gateway %s: %s", g->address, up ? "connected" : "gone");
    if (w->config.cb.on_gateway != NULL)
        w->config.cb.on_gateway(w, g->address, up, w->config.user);
}

// Marks; the closing waits for the end of the turn, when no callback holds the gateway.
static void fail(struct tggw__gateway *g, int error)
{
    if (g->link.error == 0)
        g->link.error = error;
}

static void link_up(struct tggw__gateway *g)
{
    int r = tggw__conn_finish(&g->link);
    if (r == -EINPROGRESS)
        return;
    if (r == 0)
        r = say_hello(g);
    if (r < 0) {
        fail(g, r);
        return;
    }
    announce(g, true);
}

void tggw__gateway_event(struct tggw__gateway *g)
{
    struct tggw *w = g->worker;
    if (g->link.fd < 0 || g->link.error < 0)
        return;
    if (g->link.state == TGGW__CONNECTING) {
        link_up(g);
        return;
    }
    ssize_t n = tggw__conn_read(&g->link, w->read_buf, TGGW__READ_BYTES);
    w->stats.reads++;
    if (n < 0) {
        fail(g, (int)n);
        return;
    }
    w->stats.bytes_in += (size_t)n;
    int r = tggw__gateway_feed(g, w->read_buf, (size_t)n);
    if (r == -EBADMSG)
        w->stats.protocol_errors++;
    if (r < 0)
        fail(g, r);
}

void tggw__gateways_flush(struct tggw *w)
{
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next) {
        // With wants_write set the kernel has said that it is full; its event brings us back here.
        if (g->link.state != TGGW__UP || tggw__bytes_len(&g->link.out) == 0)
            continue;
        w->stats.bytes_out += tggw__conn_flush(w, &g->link);
        w->stats.writes++;
    }
}

static void close_link(struct tggw__gateway *g)
{
    struct tggw *w = g->worker;
    bool was_up = g->announced;
    if (g->listed)
        tggw__log(w, TGGW_LOG_WARNING, "gateway %s: %s; again in %u ms", g->address, strerror(-g->link.error),
                  w->config.reconnect_ms);
    tggw__conn_close(w, &g->link, w->config.reconnect_ms);
    w->stats.links_lost += was_up;
    announce(g, false);
}

static void open_link(struct tggw__gateway *g)
{
    struct sockaddr_in peer = {0};
    int r = tggw__conn_open(g->worker, &g->link, g->address, &peer);
    if (r < 0) {
        tggw__log(g->worker, TGGW_LOG_WARNING, "gateway %s: %s", g->address, strerror(-r));
        return;
    }
    g->ip = ntohl(peer.sin_addr.s_addr);
    g->port = ntohs(peer.sin_port);
}

void tggw__gateways_timers(struct tggw *w, uint64_t *due_ms)
{
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next) {
        struct tggw__conn *c = &g->link;
        if (c->state == TGGW__CONNECTING && w->now_ms >= c->due_ms)
            fail(g, -ETIMEDOUT);
        if (c->error < 0)
            close_link(g);
        if (c->state == TGGW__IDLE && g->listed && w->now_ms >= c->due_ms)
            open_link(g);
        if (c->state == TGGW__CONNECTING || (c->state == TGGW__IDLE && g->listed))
            tggw__sooner(due_ms, c->due_ms);
    }
}

static void gateway_free(struct tggw__gateway *g)
{
    tggw__conn_fini(g->worker, &g->link);
    tggw__conn_fini(g->worker, &g->query);
    if (g->worker->last_found == g)
        g->worker->last_found = NULL;
    free(g);
}

// As in PHP a link that still works is kept when its address leaves the list; it is only not made again.
void tggw__gateways_reap(struct tggw *w)
{
    for (struct tggw__gateway **at = &w->gateways; *at != NULL;) {
        struct tggw__gateway *g = *at;
        if (g->listed || g->link.state != TGGW__IDLE || g->asked != NULL) {
            at = &g->next;
            continue;
        }
        *at = g->next;
        gateway_free(g);
    }
}

void tggw__gateways_fini(struct tggw *w)
{
    while (w->gateways != NULL) {
        struct tggw__gateway *g = w->gateways;
        w->gateways = g->next;
        gateway_free(g);
    }
}
