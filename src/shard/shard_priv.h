// SPDX-License-Identifier: MIT
/* The parts of a shard, and the life of a client:
 *
 *   accepted ── PREAMBLE ── TLS ── HANDSHAKE ── OPEN ── CLOSING ── freed
 *               (PROXY      (if    (websocket
 *                header)    so)    only)
 *
 * A client is in the directory, and its worker knows of it, from client_announce (accept or the end of the
 * TLS handshake; the end of the WebSocket handshake when on_connect is so configured, or when only its
 * headers tell whose the client is) to client_leave, which is the moment its closing begins: from then on it
 * is only a connection that gets to take what is queued. ON_CLOSE is told in client_leave and nowhere else.
 */
#pragma once

#include "base/bytes.h"
#include "base/list.h"
#include "loop/loop.h"
#include "net/net.h"
#include "guard/guard.h"
#include "proto/line/http_parse.h"
#include "proto/ws/deflate.h"
#include "proto/ws/frame.h"
#include "session/directory.h"
#include "shard/age.h"
#include "shard/shard.h"
#include "upstream/upstream.h"

struct buf;
struct pool;
struct tls_conn;
struct tls_context;
struct shard_import;

#define WINDOW_BITS_MIN 9
#define WINDOW_BITS_N   7 /* up to 15 */

/* A reference in a client's queue. */
struct out_ref {
    struct out_ref *next;
    struct buf *buf;
};

/* flags of a struct buf in a client's queue */
#define OUT_CONTROL 1u /* handshake answers, control and close frames: never dropped */
#define OUT_STREAM                                                                                           \
    2u /* compressed with context take-over: later ones refer to it, so it is not dropped either */

enum client_state { CLIENT_PREAMBLE, CLIENT_TLS, CLIENT_HANDSHAKE, CLIENT_OPEN, CLIENT_CLOSING };

/* What an incomplete message needs; an idle client has none. */
struct client_in {
    struct bytes
        raw; /* not decoded yet: head of a handshake, beginning of a line, bytes that came before a pause */
    size_t scanned;       /* of raw, by the decoder */
    struct bytes message; /* websocket: pieces of the message so far */
    struct ws_decoder ws;
    size_t held;       /* memory of raw and message, as counted in shard->input_bytes */
    uint32_t since_ms; /* it was made: the message began */
    bool compressed;   /* message is */
};

/* What only clients with TLS, compression or a metered rate have. */
struct client_edge {
    struct client *client;
    struct tls_conn *tls;            /* made when the first byte comes */
    struct list tls_wait, tls_begun; /* in the shard's lists of these names */
    size_t record_held;              /* of an incomplete record, as counted in shard->input_bytes */
    uint32_t record_since_ms;        /* it began */
    struct guard_meter meter;
    uint32_t rate_until_ms; /* rate_paused: until then */
    struct ws_deflate_params deflate;
    bool deflater_fresh;          /* a message of another compressor went to this client: ours begins anew */
    struct ws_deflater *deflater; /* with context take-over, made when used */
    struct ws_inflater *inflater; /* likewise */
    size_t deflate_bytes;         /* of the shard's budget, from the handshake on */
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
    int16_t silent_beats;    /* as PHP's pingNotResponseCount */
    uint8_t state;           /* enum client_state */
    bool announced : 1;      /* in the directory; the worker gets an ON_CLOSE */
    bool got_byte : 1;
    bool write_blocked : 1; /* wait for writable */
    bool deaf : 1;          /* what it sends is not looked at any more */
    bool broken : 1;        /* a write failed: the timer ends it */
    bool has_tls : 1;       /* a TLS listener's */
    bool has_deflate : 1;   /* permessage-deflate was agreed */
    bool rate_paused : 1;   /* not read: over its rate */
    /* The rest. */
    struct upstream_client up;
    struct client_in *in;
    struct client_edge *edge; /* NULL: it needs none */
    struct timer timer;       /* the next deadline of whatever kind */
    uint32_t since_ms;        /* begin of the state; OPEN: last heartbeat */
    uint16_t control_count;   /* pings and pongs in the second control_second */
    uint8_t control_second;   /* of shard->second */
    bool close_sent : 1;      /* websocket: our close frame is queued */
    bool close_received : 1;  /* websocket: the peer's close frame came */
    bool fin_sent : 1;
    bool counted : 1;      /* by the guard, for its address */
    bool address_open : 1; /* its address is a trusted proxy's, the request will tell the client's */
    bool is_refusal : 1;   /* in shard->n_refusals */
};

struct shard_listener {
    struct net_listener listener;
    struct shard *shard;
    uint32_t n_clients;                 /* its connections */
    const struct config_listen *config; /* NULL: a free slot */
    struct config_listen kept;          /* of one that was removed (listener.c): config points to it */
    bool removed;
    uint64_t removed_by; /* generation of settings */
    uint32_t socket;     /* number of the socket it stands on, see settings_listener */
    /* From config, anew at each reload (edge.c). */
    struct ws_rules rules[2]; /* without and with permessage-deflate */
    struct http_limits http;
    char *extra_headers;       /* whole lines, or NULL */
    struct tls_context *tls;   /* NULL: plain */
    struct cidr_list *trusted; /* proxies */
    bool shares;               /* its socket is also that of other listeners: told apart by path */
    struct ws_deflater *deflaters[WINDOW_BITS_N]; /* for messages that stand alone; made when used */
};

struct shard {
    struct upstream_host host; /* config, counters, loop, net, directory stand there */
    struct upstream *upstream;
    struct shard_shm *shm;
    struct node_shared *shared;
    unsigned number;
    void (*wake)(void *ctx, unsigned shard);
    void *wake_ctx;
    struct shard_listener *listeners; /* by slot, CONFIG_LISTEN_MAX of them; NULL: it takes no clients */
    unsigned n_listeners;             /* slots beyond that are free; before it some may be */
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
    /* The edge (edge.c). */
    struct guard *guard;
    bool is_guarded, is_metered; /* guard_is_on, guard_meters */
    uint8_t second;              /* runs round */
    int64_t now_unix_s;          /* of this second */
    const struct ticket_keys *tickets;
    uint32_t n_refusals;     /* clients that are only being told so */
    uint64_t seed;           /* of what is left to chance */
    struct list tls_waiting; /* client_edge.tls_wait: handshakes that wait for CPU time */
    struct list tls_begun;   /* client_edge.tls_begun: answered and not complete, the oldest first */
    uint32_t n_tls_waiting, n_tls_begun, n_tls;
    struct loop_task tls_task;
    struct client *tls_reading;   /* whose bytes are being decrypted; NULL: it went meanwhile */
    uint64_t deflate_bytes;       /* memory for compression */
    struct ws_inflater *inflater; /* of clients without take-over */
    struct bytes inflated;
    struct loop_task sweep_task; /* after a reload: all clients are looked at */
    uint32_t sweep_next;
    struct timer trim_timer, second_timer;
    uint32_t trim_peak; /* most clients since memory was last given back */
    /* To be seen and steered (control.h). */
    enum node_drained drained; /* but NODE_NOT_DRAINED: no new clients */
    uint32_t drains;           /* how often */
    struct census *census;     /* NULL: nobody wants to know who talks most */
    struct trace_set *traces;  /* NULL: nobody is followed */
    struct age_log ages;
    struct age_log *ages_of[NODE_SHARDS_MAX]; /* ids of other shards that are here; NULL: none */
    /* Connections on their way to or from another process (transfer.h). */
    bool held;
    struct shard_import *import; /* NULL: nothing is being taken over */
    struct shard_shm *(*shm_of)(void *ctx, unsigned shard);
};

static inline struct shard *client_shard(const struct client *c)
{
    return c->listener->shard;
}
static inline void client_set_listener(struct client *c, struct shard_listener *l)
{
    c->listener->n_clients--;
    c->listener = l;
    l->n_clients++;
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
/* 31 bits of chance, good enough for spreading things. */
static inline uint32_t shard_random(struct shard *s)
{
    s->seed = s->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(s->seed >> 33);
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

/* While the shard is held, what is due is put off by so much, and again. */
#define SHARD_HELD_MS 20

/* Clients that are only being told that they are refused, beyond max_connections; over that new ones are
 * reset. */
#define SHARD_REFUSALS_MAX 128

static inline bool client_is_paused(const struct client *c)
{
    return c->up.paused || c->rate_paused;
}

/* ---- control_act.c: errors on purpose (test builds) */
#ifdef TGG_INJECT
bool control_injects_no_memory(void);
#else
static inline bool control_injects_no_memory(void)
{
    return false;
}
#endif

/* ---- client.c: coming and going */
extern const struct net_listener_ops client_listener_ops;
/* What comes before the application is done: the WebSocket handshake begins, or the client is open. */
void client_begin(struct client *c);
/* Whether peer is a proxy of that listener's, whose word on addresses counts. */
bool client_is_of_proxy(const struct shard_listener *l, const struct net_addr *peer);
/* Its address is known now: whether it may come in, and it is counted. False: it was refused, and is closing
 * or gone. */
bool client_admit(struct client *c, const struct net_addr *peer);
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

/* c->edge, made when it is not there; NULL: no memory, the client is closing. */
struct client_edge *client_need_edge(struct client *c);

/* A client of that listener, without a connection yet; NULL: no memory, or no place. */
struct client *client_new(struct shard_listener *l, const struct net_addr *peer);
/* Its connection is released: the rest of it. */
void client_free(struct client *c);
/* One that was taken over: its state is set; what follows from that. Then, if it has an id. */
void client_restore_begun(struct client *c, bool is_refusal);
void client_restore_announced(struct client *c);
/* Somebody else has its connection: it is forgotten without a word. */
void client_forget(struct client *c);

/* ---- transfer_in.c */
/* Seconds since that id was given. */
uint32_t shard_age_of(const struct shard *s, uint32_t id);
/* c goes, before it could go on. */
void shard_import_forget_client(struct client *c);
void shard_import_fini(struct shard *s);

/* ---- listener.c: listeners come and go */
/* All of the configuration, at the start; then the edge is made; then they listen. 0 or -errno. */
int listeners_make(struct shard *s, const struct shard_options *opt);
int listeners_listen(struct shard *s, const struct shard_options *opt);
void listeners_stop(struct shard *s); /* sockets only */
void listeners_fini(struct shard *s);
/* That of config->listen[i]. */
struct shard_listener *listener_of(const struct shard *s, unsigned i);
/* A reload: is it possible; then, with the changed configuration in place, new sockets are listened on
 * (*ret_opened: for undo); then all the rest, which cannot fail: old has the configuration of before. */
int listeners_check(const struct shard *s, const struct config *changed, const struct settings *settings);
int listeners_begin(struct shard *s, const struct settings *settings, uint64_t *ret_opened);
void listeners_undo(struct shard *s, uint64_t opened);
void listeners_take(struct shard *s, struct config *old, const struct settings *settings);
/* Frees the slots of those that were removed and have nobody left. */
void listeners_reap(struct shard *s);

/* ---- client_early.c: before the application: PROXY header, TLS */
void client_on_early_data(struct net_conn *conn, uint8_t *data, size_t len);
/* The first state of a client that has a PROXY header or TLS before it. */
void client_begin_early(struct client *c, bool preamble);
/* What its tls_conn has to be rid of is sent. */
bool client_tls_is_flushed(const struct client *c);
bool client_tls_run(struct loop_task *task);
/* One that was taken over: an established connection (a record tls), or what has come of its handshake, to
 * which nothing was answered. 0 or -errno. */
int client_tls_restore(struct client *c, struct slice record, struct slice came, uint32_t record_since_ms);
/* The latter, once it may be answered. */
void client_tls_go_on(struct client *c);
void client_edge_free(struct client *c);

/* ---- client_handshake.c */
void client_feed_handshake(struct client *c, const uint8_t *data, size_t len);
/* Instead of the handshake: an HTTP answer, then the end. */
void client_refuse_handshake(struct client *c, int status, enum close_reason reason);
/* Only the answer, in place of all that is queued. */
void client_queue_answer(struct client *c, int status);

/* ---- client_deflate.c */
/* Header line for the answer when it is agreed, else "". */
void client_deflate_agree(struct client *c, const struct http_request *req, char *header, size_t cap);
/* A compressed message, whole. False: the client is closing. *ret is the shard's, until the next one. */
bool client_inflate(struct client *c, const uint8_t *data, size_t len, bool is_text, struct slice *ret);
/* As it was agreed in another process; window: what the client may refer to. 0 or -errno. */
int client_deflate_restore(struct client *c, const struct ws_deflate_params *params, struct slice window);
/* As out_message_form, compressed if the client agreed and it is worth it. */
struct buf *client_message_form(struct client *c, struct upstream_message *m, bool *ret_owned);

/* ---- edge.c: what listeners and the shard have besides, from the configuration */
int edge_new(struct shard *s, const struct shard_options *opt);
void edge_free(struct shard *s);
void edge_listener_fini(struct shard_listener *l);

/* ---- client_read.c */
/* c->in, made when it is not there; NULL: no memory, the client is closing. */
struct client_in *client_need_in(struct client *c);
/* Its worker does not read, or it is over its rate: neither do we. */
bool client_is_blocked(struct client *c);
void client_no_memory(struct client *c);
void client_feed(struct client *c, uint8_t *data, size_t len);
/* One that was taken over is not read until then. 0 or -ENOMEM. */
int client_rate_restore(struct client *c, uint32_t until_ms);
/* It is below its rate again. */
void client_rate_over(struct client *c);
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
/* At the end of the queue of one that is taken over (takes the reference). False: no memory. */
bool client_queue_restore(struct client *c, struct buf *b);
/* So many bytes of the first one are written. False: it has fewer. */
bool client_queue_skip(struct client *c, uint64_t len);
void client_mark_dirty(struct client *c);
/* Throw away what is queued and leave the dirty list. */
void client_out_clear(struct client *c);
bool client_flush_all(struct loop_hook *hook);
unsigned client_room(struct upstream_host *h, bool to_many);
void client_send(struct upstream_client *c, struct upstream_message *m);

/* ---- client_deadline.c */
/* NULL, or what is wrong with its timer. */
const char *client_timer_check(const struct client *c);
/* (Re)start the timer for whatever is due next; after every change of state. */
void client_arm(struct client *c);
void client_on_timer(struct timer *t);

/* ---- out_message.c */
/* The message as this listener's protocol sends it, framed at most once per form; NULL without memory. The
 * reference is m's. */
struct buf *out_message_form(struct upstream_message *m, struct shard_listener *l);
/* A control frame or HTTP answer of its own; NULL without memory. */
struct buf *out_control(const void *data, size_t len);
struct buf *out_websocket_control(unsigned opcode, const void *payload, size_t len);
