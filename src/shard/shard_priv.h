// SPDX-License-Identifier: MIT
/* The parts of a shard, and the life of a client:
 *
 *   accepted ── HANDSHAKE (websocket only) ── OPEN ── CLOSING ── freed
 *
 * A client is in the directory, and its worker knows of it, from client_announce (accept, or the end of the
 * handshake when on_connect is so configured) to client_leave, which is the moment its closing begins: from
 * then on it is only a connection that gets to take what is queued. ON_CLOSE is told in client_leave and
 * nowhere else. */
#pragma once

#include "base/bytes.h"
#include "base/list.h"
#include "loop/loop.h"
#include "net/net.h"
#include "proto/ws/frame.h"
#include "session/directory.h"
#include "shard/shard.h"
#include "upstream/upstream.h"

struct buf;
struct http_request;
struct pool;

/* A reference in a client's queue. */
struct out_ref {
    struct out_ref *next;
    struct buf *buf;
};

/* flags of a struct buf in a client's queue */
#define OUT_CONTROL 1u /* handshake answers, control and close frames: never dropped */

enum client_state { CLIENT_HANDSHAKE, CLIENT_OPEN, CLIENT_CLOSING };

/* What an incomplete message needs; an idle client has none. */
struct client_in {
    struct bytes
        raw; /* not decoded yet: head of a handshake, beginning of a line, bytes that came before a pause */
    size_t scanned;       /* of raw, by the decoder */
    struct bytes message; /* websocket: pieces of the message so far */
    struct ws_decoder ws;
    size_t held; /* memory of raw and message, as counted in shard->input_bytes */
};

struct client {
    /* What a delivery touches, together: one cache line, or two. */
    struct net_conn conn;
    struct shard_listener *listener;
    struct out_ref *out_first, *out_last;
    uint64_t out_bytes;      /* not yet written */
    uint32_t out_skip;       /* bytes of the first buffer that are written */
    uint32_t dirty_position; /* in shard->dirty, plus 1; 0: not in it */
    uint32_t last_read_ms;   /* low 32 bits of the loop's time, as all times here */
    uint8_t state;           /* enum client_state */
    bool announced : 1;      /* in the directory; the worker gets an ON_CLOSE */
    bool got_byte : 1;
    bool write_blocked : 1;  /* wait for writable */
    bool close_sent : 1;     /* websocket: our close frame is queued */
    bool close_received : 1; /* websocket: the peer's close frame came */
    bool deaf : 1;           /* what it sends is not looked at any more */
    bool fin_sent : 1;
    bool broken : 1;      /* a write failed: the timer ends it */
    int16_t silent_beats; /* as PHP's pingNotResponseCount */
    /* The rest. */
    struct upstream_client up;
    struct client_in *in;
    struct timer timer; /* the next deadline of whatever kind */
    uint32_t since_ms;  /* begin of the state */
    uint32_t beat_ms;   /* last heartbeat */
};

struct shard_listener {
    struct net_listener listener;
    struct shard *shard;
    const struct config_listen *config;
};

struct shard {
    struct upstream_host host; /* config, counters, loop, net, directory stand there */
    struct upstream *upstream;
    struct shard_shm *shm;
    struct node_shared *shared;
    unsigned number;
    void (*wake)(void *ctx, unsigned shard);
    void *wake_ctx;
    struct shard_listener *listeners;
    unsigned n_listeners;
    struct pool *client_pool, *ref_pool;
    struct client **clients; /* every connection, dense */
    uint32_t n_clients, cap_clients, max_clients;
    struct client **dirty; /* have something to write; NULL: gone meanwhile */
    uint32_t n_dirty, cap_dirty;
    uint64_t write_ns;     /* running mean of what one client's write costs */
    uint64_t queued_bytes; /* over all clients */
    uint64_t input_bytes;  /* likewise: what their struct client_in hold */
    struct loop_hook flush_hook, finish_hook;
    struct loop_task drain_task;
    uint32_t drain_next; /* clients below it are still to be closed */
    bool draining;
    bool finishing; /* no client is left: workers are being told goodbye */
    struct timer trim_timer, second_timer;
    uint32_t trim_peak; /* most clients since memory was last given back */
};

static inline struct shard *client_shard(const struct client *c)
{
    return c->listener->shard;
}
static inline struct client *client_of(struct upstream_client *c)
{
    return CONTAINER_OF(c, struct client, up);
}
static inline const struct config_gateway *shard_config(const struct shard *s)
{
    return &s->host.config->gateway;
}
static inline void shard_count(struct shard *s, enum counter_id id, uint64_t n)
{
    counter_add(s->host.counters, id, n);
}
/* What the other shards see of us. */
static inline struct node_shard *shard_published(struct shard *s)
{
    return &s->shared->shards[s->number];
}
static inline uint32_t shard_now_ms(const struct shard *s)
{
    return (uint32_t)loop_now_ms(s->host.loop);
}
static inline bool client_is_websocket(const struct client *c)
{
    return c->listener->config->protocol == PROTOCOL_WEBSOCKET;
}

/* ---- client.c: coming and going */
extern const struct net_listener_ops client_listener_ops;
/* Into the directory, ON_CONNECT. False: the client is being closed (no memory, no worker). */
bool client_announce(struct client *c);
/* Begin to close: the worker is told, what is queued is written, a websocket client gets a close frame with
 * code and why (may be NULL). Does nothing to a client that is being closed already. The struct stays valid.
 */
void client_close(struct client *c, enum close_reason reason, unsigned code, const char *why);
/* End it now: nothing more is written; the struct is gone. */
void client_destroy(struct client *c, enum close_reason reason, bool hard);
/* Everything queued is written; goes on with closing. Called by the write side. */
void client_written_out(struct client *c);

/* ---- client_read.c */
void client_on_data(struct net_conn *conn, uint8_t *data, size_t len);
/* Its worker reads again. */
void client_resume(struct upstream_client *c);
void client_in_free(struct client *c);

/* ---- client_write.c */
void client_on_writable(struct net_conn *conn);
/* Queue a control or handshake buffer (takes the reference). NULL: no memory, the client is closed. */
void client_queue_control(struct client *c, struct buf *b);
/* Queue before everything else (the answer to the handshake). */
void client_queue_front(struct client *c, struct buf *b);
void client_mark_dirty(struct client *c);
/* Throw away what is queued and leave the dirty list. */
void client_out_clear(struct client *c);
bool client_flush_all(struct loop_hook *hook);
unsigned client_room(struct upstream_host *h, bool to_many);
void client_send(struct upstream_client *c, struct upstream_message *m);

/* ---- client_deadline.c */
/* (Re)start the timer for whatever is due next; after every change of state. */
void client_arm(struct client *c);
void client_on_timer(struct timer *t);

/* ---- out_message.c */
/* The message as this listener's protocol sends it, framed at most once per form; NULL without memory. The
 * reference is m's. */
struct buf *out_message_form(struct upstream_message *m, const struct config_listen *listen);
/* A control frame or HTTP answer of its own; NULL without memory. */
struct buf *out_control(const void *data, size_t len);
struct buf *out_websocket_control(unsigned opcode, const void *payload, size_t len);
