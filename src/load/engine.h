// SPDX-License-Identifier: MIT
/* Many connections of clients to one target: one process, one thread, one epoll set. tgg-load (bench/) and
 * `tgg bench` stand on it. Connects, shakes hands, cuts what comes into messages, sends what it is given,
 * keeps what the kernel does not take. What a message means is its user's affair. Nothing here ends the
 * process: what goes wrong with a connection comes as `ended`, with its reason.
 *
 *   engine_begin -> CONNECTING -> (TLS) -> (GREETING) -> opened() -> OPEN ... message() ... -> ended() ->
 * CLOSED
 *
 * A connection belongs to the user, who gives memory of zeros and keeps it until engine_fini. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load/codec.h"
#include "load/load_tls.h"
#include "load/target.h"

enum engine_state {
    ENGINE_IDLE, /* not begun */
    ENGINE_CONNECTING,
    ENGINE_TLS,
    ENGINE_GREETING, /* request sent, answer awaited */
    ENGINE_OPEN,
    ENGINE_CLOSED,
};

enum engine_end {
    ENGINE_END_CONNECT, /* detail: errno of socket, bind or connect */
    ENGINE_END_TLS,     /* load_tls_error() says what */
    ENGINE_END_REFUSED, /* WebSocket handshake; detail: HTTP status, 0 when the answer is none, or a wrong one
                         */
    ENGINE_END_EARLY,   /* the other side went before the connection was open */
    ENGINE_END_CLOSED,  /* a close frame; detail: its code, 1005 without one */
    ENGINE_END_LOST,    /* end of the stream; detail: errno, 0 when it was an orderly one */
    ENGINE_END_PROTOCOL,  /* what came is no such protocol */
    ENGINE_END_TOO_LARGE, /* a message over CODEC_MESSAGE_MAX */
    ENGINE_END_MEMORY,
    ENGINE_END_TIMEOUT, /* engine_expire */
};
/* In words. */
const char *engine_end_name(enum engine_end end);

struct engine_conn {
    int fd;
    SSL *tls; /* NULL: plain */
    enum engine_state state;
    uint32_t index;        /* its user's number; chooses the source address */
    uint64_t begun_ns;     /* CLOCK_MONOTONIC */
    uint64_t connected_ns; /* TCP */
    bool watching_write;
    bool deaf;
    struct engine_bytes {
        uint8_t *data;
        size_t len, cap;
    } in, out; /* an incomplete message; what the kernel has not taken */
};

struct engine;

/* Each may be NULL. All may send, and may close the connection that they are about. */
struct engine_ops {
    void (*opened)(struct engine *e, struct engine_conn *c);
    /* Data of the application; valid during the call. */
    void (*message)(struct engine *e, struct engine_conn *c, const struct codec_message *m);
    void (*pong)(struct engine *e, struct engine_conn *c, const uint8_t *data, size_t len);
    /* The kernel has taken all that waited. */
    void (*writable)(struct engine *e, struct engine_conn *c);
    /* The socket is closed already. Not called for engine_close. */
    void (*ended)(struct engine *e, struct engine_conn *c, enum engine_end end, int detail);
    /* The descriptor of engine_watch is readable. */
    void (*other)(struct engine *e);
};

struct engine_conf {
    const struct load_target *target; /* resolved */
    const struct load_sources *sources;
    SSL_CTX *tls;            /* NULL: plain */
    const char *server_name; /* TLS: load_tls_on */
    const char *request;     /* WebSocket: the whole handshake */
    const char *accept;      /* and the Sec-WebSocket-Accept that answers it */
    bool silent;             /* connect and say nothing: open when TCP is, and not read */
};

struct engine {
    struct engine_conf conf;
    const struct engine_ops *ops;
    void *user;
    int epoll;
    uint64_t now;               /* ns, CLOCK_MONOTONIC; taken after each wait and each read */
    uint32_t n_pending, n_open; /* connections begun and not open yet; open */
    uint8_t mask[4];            /* key of everything that is sent */
    struct engine_conn *reading;
    uint8_t *input;
};

/* CLOCK_MONOTONIC, ns. */
uint64_t load_now_ns(void);

/* 0 or -errno. conf is copied, what it points to must stay. */
int engine_init(struct engine *e, const struct engine_conf *conf, const struct engine_ops *ops, void *user);
/* Closes no connection: engine_close does. */
void engine_fini(struct engine *e);
/* `other` is called when fd is readable. 0 or -errno. */
int engine_watch(struct engine *e, int fd);

/* c->index is set. What fails at once comes as ended() within the call. */
void engine_begin(struct engine *e, struct engine_conn *c);
/* One wait of at most `wait_ns` (UINT64_MAX: without end) and what it brought: the number of events, or
 * -errno. */
int engine_turn(struct engine *e, uint64_t wait_ns);

/* Bytes that are framed already go out, now or as soon as the kernel takes them; order is kept. */
void engine_send(struct engine *e, struct engine_conn *c, const void *data, size_t len);
/* One message, in the protocol of the target. data is masked in place (WebSocket); room for CODEC_HEAD_MAX
 * bytes before it and CODEC_TAIL_MAX behind it is overwritten. */
void engine_send_message(struct engine *e, struct engine_conn *c, uint8_t opcode, uint8_t *data, size_t len);
/* The kernel has not taken all: more should wait for writable(). */
static inline bool engine_is_blocked(const struct engine_conn *c)
{
    return c->out.len > 0;
}
/* It is open, and will not be read any more. */
void engine_deafen(struct engine *e, struct engine_conn *c);
/* Sends a close frame where the protocol has one (code 0: none), and closes. */
void engine_close(struct engine *e, struct engine_conn *c, unsigned code);
/* Those among conns[0..n-1] (`stride` bytes apart) that are not open `timeout_ns` after they began end with
 * ENGINE_END_TIMEOUT. */
void engine_expire(struct engine *e, void *conns, size_t stride, size_t n, uint64_t timeout_ns);
