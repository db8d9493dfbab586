// SPDX-License-Identifier: MIT
#include "load/engine.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"

#define EVENTS_MAX 1024
#define READ_BYTES (64u * 1024)
#define KEEP_BYTES 4096u /* a connection keeps a buffer of so much, larger ones are given back */

uint64_t load_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

const char *engine_end_name(enum engine_end end)
{
    static const char *const names[] = {
        [ENGINE_END_CONNECT] = "not connected",
        [ENGINE_END_TLS] = "TLS failed",
        [ENGINE_END_REFUSED] = "handshake refused",
        [ENGINE_END_EARLY] = "the other side ended it before it was open",
        [ENGINE_END_CLOSED] = "closed by a close frame",
        [ENGINE_END_LOST] = "closed by the other side",
        [ENGINE_END_PROTOCOL] = "what came is not this protocol",
        [ENGINE_END_TOO_LARGE] = "a message is too large",
        [ENGINE_END_MEMORY] = "no memory",
        [ENGINE_END_TIMEOUT] = "not open in time",
    };
    return names[end];
}

/* ---- bytes that wait */

static void drop(struct engine_bytes *b)
{
    free(b->data);
    *b = (struct engine_bytes){0};
}

static bool reserve(struct engine_bytes *b, size_t cap)
{
    if (cap <= b->cap)
        return true;
    if (cap < 2 * b->cap)
        cap = 2 * b->cap;
    uint8_t *data = realloc(b->data, cap);
    if (data == NULL)
        return false;
    b->data = data;
    b->cap = cap;
    return true;
}

static bool append(struct engine_bytes *b, const void *data, size_t len)
{
    if (!reserve(b, b->len + len))
        return false;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return true;
}

static void consume(struct engine_bytes *b, size_t len)
{
    b->len -= len;
    memmove(b->data, b->data + len, b->len);
    if (b->len == 0 && b->cap > KEEP_BYTES)
        drop(b);
}

/* ---- begin and end */

int engine_init(struct engine *e, const struct engine_conf *conf, const struct engine_ops *ops, void *user)
{
    *e = (struct engine){.conf = *conf, .ops = ops, .user = user, .now = load_now_ns()};
    e->input = malloc(READ_BYTES);
    e->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (e->input == NULL || e->epoll < 0) {
        int err = e->input == NULL ? ENOMEM : errno;
        engine_fini(e);
        return -err;
    }
    if (getrandom(e->mask, sizeof(e->mask), 0) != sizeof(e->mask))
        memcpy(e->mask, "\x37\xfa\x21\x3d", sizeof(e->mask));
    return 0;
}

void engine_fini(struct engine *e)
{
    free(e->input);
    e->input = NULL;
    if (e->epoll >= 0)
        close(e->epoll);
    e->epoll = -1;
}

static int watch(struct engine *e, int op, int fd, uint32_t events, void *ptr)
{
    struct epoll_event event = {.events = events, .data = {.ptr = ptr}};
    return epoll_ctl(e->epoll, op, fd, &event) < 0 ? -errno : 0;
}

int engine_watch(struct engine *e, int fd)
{
    return watch(e, EPOLL_CTL_ADD, fd, EPOLLIN, NULL);
}

static bool is_pending(const struct engine_conn *c)
{
    return c->state > ENGINE_IDLE && c->state < ENGINE_OPEN;
}

static void forget(struct engine *e, struct engine_conn *c)
{
    if (is_pending(c))
        e->n_pending--;
    if (c->state == ENGINE_OPEN)
        e->n_open--;
    c->state = ENGINE_CLOSED;
    SSL_free(c->tls);
    c->tls = NULL;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    drop(&c->out);
    if (e->reading != c) /* else conn_read does, which stands in it */
        drop(&c->in);
}

static void end(struct engine *e, struct engine_conn *c, enum engine_end why, int detail)
{
    if (c->state == ENGINE_CLOSED)
        return;
    forget(e, c);
    if (e->ops->ended != NULL)
        e->ops->ended(e, c, why, detail);
}

/* What the other side's end means depends on how far it was. */
static void end_lost(struct engine *e, struct engine_conn *c, int err)
{
    end(e, c, is_pending(c) ? ENGINE_END_EARLY : ENGINE_END_LOST, err);
}

void engine_begin(struct engine *e, struct engine_conn *c)
{
    ASSERT(c->state == ENGINE_IDLE);
    c->begun_ns = load_now_ns();
    c->state = ENGINE_CONNECTING;
    e->n_pending++;
    c->fd = load_socket_connect(e->conf.target, e->conf.sources, c->index);
    int err = c->fd < 0 ? c->fd : watch(e, EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
    if (err < 0)
        end(e, c, ENGINE_END_CONNECT, -err);
}

static void open_now(struct engine *e, struct engine_conn *c)
{
    c->state = ENGINE_OPEN;
    e->n_pending--;
    e->n_open++;
    if (e->ops->opened != NULL)
        e->ops->opened(e, c);
}

/* ---- out */

static ssize_t conn_write(struct engine_conn *c, const void *data, size_t len)
{
    return c->tls != NULL ? load_tls_send(c->tls, data, len) : send(c->fd, data, len, MSG_NOSIGNAL);
}

/* Whether epoll tells of room, too. */
static void watch_write(struct engine *e, struct engine_conn *c, bool on)
{
    if (c->watching_write == on)
        return;
    c->watching_write = on;
    (void)watch(e, EPOLL_CTL_MOD, c->fd, (c->deaf ? 0 : EPOLLIN) | (on ? EPOLLOUT : 0), c);
}

/* How much the kernel took; -1: the connection has ended. */
static ssize_t write_some(struct engine *e, struct engine_conn *c, const uint8_t *data, size_t len)
{
    ssize_t n = conn_write(c, data, len);
    if (n >= 0)
        return n;
    if (errno == EAGAIN)
        return 0;
    /* It is over; why is what reading it tells, where a close frame may wait. */
    if (c->state == ENGINE_OPEN && !c->deaf && (errno == EPIPE || errno == ECONNRESET))
        return (ssize_t)len;
    if (errno == EPROTO)
        end(e, c, ENGINE_END_TLS, 0);
    else
        end_lost(e, c, errno);
    return -1;
}

void engine_send(struct engine *e, struct engine_conn *c, const void *data, size_t len)
{
    ssize_t n = 0;
    if (c->state == ENGINE_CLOSED)
        return;
    if (c->out.len == 0)
        n = write_some(e, c, data, len);
    if (n < 0 || (size_t)n == len)
        return;
    if (!append(&c->out, (const uint8_t *)data + n, len - (size_t)n)) {
        end(e, c, ENGINE_END_MEMORY, ENOMEM);
        return;
    }
    watch_write(e, c, true);
}

void engine_send_message(struct engine *e, struct engine_conn *c, uint8_t opcode, uint8_t *data, size_t len)
{
    uint8_t head[CODEC_HEAD_MAX];
    size_t head_len = codec_head(e->conf.target->protocol, opcode, len, e->mask, head);
    if (e->conf.target->protocol == LOAD_WEBSOCKET)
        codec_mask(data, len, e->mask);
    memcpy(data - head_len, head, head_len);
    size_t tail_len = codec_tail(e->conf.target->protocol, data + len);
    engine_send(e, c, data - head_len, head_len + len + tail_len);
}

/* False: there is nothing more to be done with it now. */
static bool flush(struct engine *e, struct engine_conn *c)
{
    ssize_t n = c->out.len > 0 ? write_some(e, c, c->out.data, c->out.len) : 0;
    if (n < 0)
        return false;
    if (n > 0)
        consume(&c->out, (size_t)n);
    watch_write(e, c, c->out.len > 0);
    return c->out.len == 0;
}

void engine_deafen(struct engine *e, struct engine_conn *c)
{
    c->deaf = true;
    (void)watch(e, EPOLL_CTL_DEL, c->fd, 0, c);
}

void engine_close(struct engine *e, struct engine_conn *c, unsigned code)
{
    uint8_t frame[CODEC_HEAD_MAX + 2 + CODEC_TAIL_MAX], *payload = frame + CODEC_HEAD_MAX;
    if (c->state == ENGINE_CLOSED || c->state == ENGINE_IDLE)
        return;
    if (c->state == ENGINE_OPEN && code != 0 && c->out.len == 0 &&
        e->conf.target->protocol == LOAD_WEBSOCKET) {
        payload[0] = (uint8_t)(code >> 8);
        payload[1] = (uint8_t)code;
        size_t head = codec_head(LOAD_WEBSOCKET, LOAD_OP_CLOSE, 2, e->mask, frame);
        memmove(payload - head, frame, head);
        codec_mask(payload, 2, e->mask);
        (void)conn_write(c, payload - head, head + 2);
    }
    if (c->fd >= 0)
        (void)shutdown(c->fd, SHUT_WR);
    forget(e, c);
}

/* ---- in */

static void pong(struct engine *e, struct engine_conn *c, const struct codec_message *m)
{
    uint8_t out[CODEC_HEAD_MAX + 125 + CODEC_TAIL_MAX];
    memcpy(out + CODEC_HEAD_MAX, m->data, m->len);
    engine_send_message(e, c, LOAD_OP_PONG, out + CODEC_HEAD_MAX, m->len);
}

static void closed_by_frame(struct engine *e, struct engine_conn *c, const struct codec_message *m)
{
    int code = m->len < 2 ? 1005 : m->data[0] << 8 | m->data[1];
    end(e, c, ENGINE_END_CLOSED, code);
}

static void message_take(struct engine *e, struct engine_conn *c, const struct codec_message *m)
{
    switch (m->opcode) {
    case LOAD_OP_PING: pong(e, c, m); break;
    case LOAD_OP_CLOSE: closed_by_frame(e, c, m); break;
    case LOAD_OP_PONG:
        if (e->ops->pong != NULL)
            e->ops->pong(e, c, m->data, m->len);
        break;
    default:
        if (e->ops->message != NULL)
            e->ops->message(e, c, m);
    }
}

/* The answer to the handshake: how much of data it takes; c may have ended. */
static size_t answer_take(struct engine *e, struct engine_conn *c, const uint8_t *data, size_t len)
{
    unsigned status;
    size_t used = codec_answer(data, len, e->conf.accept, &status);
    if (used == 0 && len > CODEC_ANSWER_MAX)
        end(e, c, ENGINE_END_REFUSED, 0);
    if (used == 0)
        return 0;
    if (status == 101)
        open_now(e, c);
    else
        end(e, c, ENGINE_END_REFUSED, (int)status);
    return used;
}

/* Takes what is complete: how much. */
static size_t input_take(struct engine *e, struct engine_conn *c, const uint8_t *data, size_t len)
{
    size_t at = 0;
    if (c->state == ENGINE_GREETING)
        at = answer_take(e, c, data, len);
    while (c->state == ENGINE_OPEN) {
        struct codec_message m;
        ssize_t n = codec_read(e->conf.target->protocol, data + at, len - at, &m);
        if (n < 0)
            end(e, c, n == -EMSGSIZE ? ENGINE_END_TOO_LARGE : ENGINE_END_PROTOCOL, 0);
        if (n <= 0)
            break;
        message_take(e, c, &m);
        at += (size_t)n;
    }
    return at;
}

static ssize_t conn_recv(struct engine_conn *c, void *data, size_t len)
{
    return c->tls != NULL ? load_tls_recv(c->tls, data, len) : recv(c->fd, data, len, 0);
}

/* What came stands behind what was incomplete; where nothing was, in the engine's own buffer, so that a
 * connection has none of its own as long as messages come whole. */
static void bytes_came(struct engine *e, struct engine_conn *c, size_t n)
{
    bool own = c->in.len > 0;
    size_t used;
    e->reading = c;
    if (own) {
        c->in.len += n;
        used = input_take(e, c, c->in.data, c->in.len);
        consume(&c->in, used);
    } else {
        used = input_take(e, c, e->input, n);
        if (c->state != ENGINE_CLOSED && used < n && !append(&c->in, e->input + used, n - used))
            end(e, c, ENGINE_END_MEMORY, ENOMEM);
    }
    e->reading = NULL;
    if (c->state == ENGINE_CLOSED)
        drop(&c->in);
}

static void conn_read(struct engine *e, struct engine_conn *c)
{
    bool own = c->in.len > 0;
    if (own && !reserve(&c->in, c->in.len + READ_BYTES)) {
        end(e, c, ENGINE_END_MEMORY, ENOMEM);
        return;
    }
    ssize_t n = conn_recv(c, own ? c->in.data + c->in.len : e->input, READ_BYTES);
    if (n < 0 && errno == EAGAIN)
        return;
    e->now = load_now_ns();
    if (n > 0)
        bytes_came(e, c, (size_t)n);
    else if (n < 0 && errno == EPROTO)
        end(e, c, ENGINE_END_TLS, 0);
    else
        end_lost(e, c, n < 0 ? errno : 0);
}

/* ---- events */

static void greet(struct engine *e, struct engine_conn *c)
{
    if (e->conf.target->protocol != LOAD_WEBSOCKET) {
        open_now(e, c);
        return;
    }
    c->state = ENGINE_GREETING;
    engine_send(e, c, e->conf.request, strlen(e->conf.request));
}

static void tls_step(struct engine *e, struct engine_conn *c)
{
    int r = load_tls_greet(c->tls);
    if (r == 1)
        greet(e, c);
    else if (r < 0 && errno == EPROTO)
        end(e, c, ENGINE_END_TLS, 0);
    else if (r < 0)
        end_lost(e, c, errno);
}

static void connected(struct engine *e, struct engine_conn *c)
{
    int err = 0, on = 1;
    socklen_t len = sizeof(err);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        err = errno;
    if (err != 0) {
        end(e, c, ENGINE_END_CONNECT, err);
        return;
    }
    c->connected_ns = e->now;
    if (!e->conf.target->is_unix)
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (e->conf.silent) {
        engine_deafen(e, c);
        open_now(e, c);
        return;
    }
    (void)watch(e, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    if (e->conf.tls == NULL) {
        greet(e, c);
        return;
    }
    c->tls = load_tls_on(e->conf.tls, c->fd, e->conf.server_name);
    c->state = ENGINE_TLS;
    if (c->tls == NULL)
        end(e, c, ENGINE_END_TLS, 0);
    else
        tls_step(e, c); /* its first flight always fits */
}

static void conn_event(struct engine *e, struct engine_conn *c, uint32_t events)
{
    if (c->state == ENGINE_CLOSED)
        return;
    if (c->state == ENGINE_CONNECTING) {
        connected(e, c);
        return;
    }
    if (c->state == ENGINE_TLS) {
        tls_step(e, c);
        return;
    }
    if ((events & EPOLLOUT) != 0 && flush(e, c) && c->state == ENGINE_OPEN && e->ops->writable != NULL)
        e->ops->writable(e, c);
    if ((events & ~(uint32_t)EPOLLOUT) != 0 && c->state != ENGINE_CLOSED)
        conn_read(e,
                  c); /* with TLS a record at most, which is less than it has room for: nothing stays in it */
}

int engine_turn(struct engine *e, uint64_t wait_ns)
{
    struct epoll_event events[EVENTS_MAX];
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u),
                            .tv_nsec = (long)(wait_ns % 1000000000u)};
    int n = epoll_pwait2(e->epoll, events, EVENTS_MAX, wait_ns == UINT64_MAX ? NULL : &wait, NULL);
    if (n < 0 && errno != EINTR)
        return -errno;
    e->now = load_now_ns();
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr != NULL)
            conn_event(e, events[i].data.ptr, events[i].events);
        else if (e->ops->other != NULL)
            e->ops->other(e);
    }
    return n < 0 ? 0 : n;
}

void engine_expire(struct engine *e, void *conns, size_t stride, size_t n, uint64_t timeout_ns)
{
    uint8_t *p = conns;
    for (size_t i = 0; i < n; i++, p += stride) {
        struct engine_conn *c = (struct engine_conn *)p;
        if (is_pending(c) && e->now > c->begun_ns + timeout_ns)
            end(e, c, ENGINE_END_TIMEOUT, 0);
    }
}
