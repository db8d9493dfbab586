// SPDX-License-Identifier: MIT
#include "register/register_priv.h"

#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/secret.h"

static const struct net_conn_ops peer_ops;

static const char *peer_name(const struct peer *p)
{
    static char name[NET_ADDR_STRLEN];
    return net_addr_format(&p->addr, name, sizeof name);
}

/* ---- its life */

static void on_auth_timeout(struct timer *t)
{
    struct peer *p = CONTAINER_OF(t, struct peer, auth_timer);
    p->server->stats.timeouts++;
    LOG(LOG_WARN, "register_auth_timeout", "peer=%s note=\"it did not say what it is\"", peer_name(p));
    register__peer_close(p, false);
}

struct peer *register__peer_new(struct register_server *s, const struct net_addr *addr)
{
    struct peer *p = pool_get(s->peers);
    if (p == NULL)
        return NULL;
    p->conn.ops = &peer_ops;
    p->server = s;
    p->addr = *addr;
    list_append(&s->others, &p->other_link);
    register__peer_set_auth(p, s->auth_timeout_ms);
    return p;
}

void register__peer_set_auth(struct peer *p, uint64_t left_ms)
{
    p->auth_until_ms = loop_now_ms(p->server->loop) + left_ms;
    timer_set(p->server->loop, &p->auth_timer, left_ms, on_auth_timeout);
}

static void peer_free(struct peer *p)
{
    struct register_server *s = p->server;

    if (list_is_linked(&p->gateway_link)) {
        LOG(LOG_NOTICE, "gateway_left", "address=%s peer=%s", log_quote(p->address.data, p->address.len),
            peer_name(p));
        s->changed = true;
    }
    list_remove(&p->gateway_link);
    list_remove(&p->worker_link);
    list_remove(&p->other_link);
    timer_cancel(s->loop, &p->auth_timer);
    bytes_fini(&p->address);
    bytes_fini(&p->in);
    bytes_fini(&p->out);
    pool_put(s->peers, p);
}

void register__peer_close(struct peer *p, bool hard)
{
    net_close(p->server->net, &p->conn, hard);
    peer_free(p);
}

void register__peer_forget(struct peer *p)
{
    list_remove(&p->gateway_link); /* the address stays in the list */
    if (net_conn_is_open(&p->conn))
        net_forget(p->server->net, &p->conn);
    peer_free(p);
}

static void on_closed(struct net_conn *c, int err)
{
    struct peer *p = CONTAINER_OF(c, struct peer, conn);
    LOG(LOG_DEBUG, "peer_left", "peer=%s error=%d", peer_name(p), err);
    peer_free(p);
}

/* ---- sending */

/* Bytes taken, or -errno. */
static ssize_t write_some(struct peer *p, const uint8_t *data, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};
    return net_writev(p->server->net, &p->conn, &iov, 1);
}

bool register__peer_send(struct peer *p, const struct bytes *line)
{
    ssize_t n = 0;

    if (p->out.len == 0)
        n = write_some(p, line->data, line->len);
    if (n < 0) {
        register__peer_close(p, true);
        return false;
    }
    size_t rest = line->len - (size_t)n;
    if (rest == 0)
        return true;
    if (p->out.len + rest <= REGISTER_OUT_MAX && bytes_append(&p->out, line->data + n, rest))
        return true;
    p->server->stats.slow_readers++;
    LOG(LOG_WARN, "register_slow_reader",
        "peer=%s waiting_bytes=%zu note=\"it does not read, so it is closed\"", peer_name(p), p->out.len);
    register__peer_close(p, true);
    return false;
}

static void on_writable(struct net_conn *c)
{
    struct peer *p = CONTAINER_OF(c, struct peer, conn);

    if (p->out.len == 0)
        return;
    ssize_t n = write_some(p, p->out.data, p->out.len);
    if (n < 0) {
        register__peer_close(p, true);
        return;
    }
    bytes_consume(&p->out, (size_t)n);
    if (p->out.len == 0)
        bytes_fini(&p->out); /* it was slow once: its memory does not stay */
}

/* Nobody has promised to say that there is room. */
void register__peer_go(struct peer *p)
{
    on_writable(&p->conn);
}

/* ---- what it says. Each returns false when the peer has been closed. */

static bool refuse(struct peer *p, const char *why)
{
    p->server->stats.bad_lines++;
    LOG(LOG_WARN, "register_bad_line", "peer=%s why=\"%s\"", peer_name(p), why);
    register__peer_close(p, false);
    return false;
}

static bool key_is_right(struct peer *p, struct slice key)
{
    const char *secret = p->server->secret;
    if (secret_equal(key.data, key.len, secret, strlen(secret)))
        return true;
    p->server->stats.wrong_keys++;
    LOG(LOG_WARN, "register_wrong_key", "peer=%s note=\"secret_key does not match that of this register\"",
        peer_name(p));
    return false;
}

void register__peer_authenticated(struct peer *p)
{
    timer_cancel(p->server->loop, &p->auth_timer);
    list_remove(&p->other_link);
}

static bool on_gateway_connect(struct peer *p, const struct register_line *line)
{
    struct register_server *s = p->server;

    if (!register__address_ok(line->address))
        return refuse(p, "gateway_connect without a usable address");
    if (!key_is_right(p, line->secret_key)) {
        register__peer_close(p, false);
        return false;
    }
    bytes_clear(&p->address);
    if (!bytes_append(&p->address, line->address.data, line->address.len)) {
        register__peer_close(p, true);
        return false;
    }
    register__peer_authenticated(p);
    if (!list_is_linked(&p->gateway_link))
        list_append(&s->gateways, &p->gateway_link);
    LOG(LOG_NOTICE, "gateway_came", "address=%s peer=%s", log_quote(p->address.data, p->address.len),
        peer_name(p));
    s->changed = true;
    return true;
}

static bool on_worker_connect(struct peer *p, const struct register_line *line)
{
    struct register_server *s = p->server;
    struct bytes list = {0};

    if (!key_is_right(p, line->secret_key)) {
        register__peer_close(p, false);
        return false;
    }
    register__peer_authenticated(p);
    if (!list_is_linked(&p->worker_link))
        list_append(&s->workers, &p->worker_link);
    LOG(LOG_INFO, "worker_came", "peer=%s", peer_name(p));
    register__append_list(s, &list);
    bool open = !list.failed && register__peer_send(p, &list);
    if (list.failed)
        register__peer_close(p, true);
    bytes_fini(&list);
    return open;
}

static bool on_line(struct peer *p, const uint8_t *data, size_t len)
{
    struct register_line *line = &p->server->line;

    if (register_line_parse(data, len, line) < 0)
        return refuse(p, "not a JSON object with an event");
    switch (line->event) {
    case REGISTER_GATEWAY_CONNECT: return on_gateway_connect(p, line);
    case REGISTER_WORKER_CONNECT: return on_worker_connect(p, line);
    /* A ping does not stop the clock of one that has not named itself: it could stay for ever without a key.
     */
    case REGISTER_PING: return true;
    case REGISTER_UNKNOWN:
    case REGISTER_BROADCAST_ADDRESSES: break;
    }
    return refuse(p, "an event that is none of a gateway or worker");
}

/* Keep an incomplete line for the next call. */
static void keep(struct peer *p, const uint8_t *data, size_t len)
{
    if (p->in.len + len > REGISTER_LINE_MAX)
        refuse(p, "a line of more than 64 KiB");
    else if (!bytes_append(&p->in, data, len))
        register__peer_close(p, true);
}

/* Finish the line that began earlier; *ret_used is what it took of data. */
static bool finish_kept_line(struct peer *p, const uint8_t *data, size_t len, size_t *ret_used)
{
    struct bytes line = p->in;
    if (line.len + len > REGISTER_LINE_MAX)
        return refuse(p, "a line of more than 64 KiB");
    /* The bytes are ours while the line is looked at: its peer may be freed by then. */
    p->in = (struct bytes){0};
    bool ok = bytes_append(&line, data, len);
    if (ok)
        ok = on_line(p, line.data, line.len);
    else
        register__peer_close(p, true);
    bytes_fini(&line);
    *ret_used = len;
    return ok;
}

static void on_data(struct net_conn *c, uint8_t *data, size_t len)
{
    struct peer *p = CONTAINER_OF(c, struct peer, conn);

    for (size_t at = 0; at < len;) {
        const uint8_t *end = memchr(data + at, '\n', len - at);
        if (end == NULL) {
            keep(p, data + at, len - at);
            return;
        }
        size_t n = (size_t)(end - (data + at)) + 1;
        if (p->in.len > 0) {
            if (!finish_kept_line(p, data + at, n, &n))
                return;
        } else if (n > REGISTER_LINE_MAX) {
            refuse(p, "a line of more than 64 KiB");
            return;
        } else if (!on_line(p, data + at, n)) {
            return;
        }
        at += n;
    }
}

static const struct net_conn_ops peer_ops = {
    .data = on_data,
    .writable = on_writable,
    .closed = on_closed,
};
