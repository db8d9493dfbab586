// SPDX-License-Identifier: MIT
/* Inside of tgg-load: one process, one thread, N WebSocket connections with messages of one size, on the
 * engine of src/load. Whatever is not as it must be ends the process: a run that went wrong gives no figure.
 *
 *   load.c          options, the turn, phases (connect, ready, warm-up, measured window), the line of results
 *   load_conn.c     messages: what is sent, and that what comes back is that
 *   load_echo.c     echo: closed loop (k outstanding) or open loop (fixed rate)
 *   load_fanout.c   one sender, everybody receives
 *   load_listen.c   everybody receives what the sender of another process has sent
 *   load_store.c    set and get of values that the worker keeps
 *   load_connect.c  connect, handshake, close, over and over
 *   load_idle.c     connections that do nothing */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "load/engine.h"
#include "load/hist.h"

#define CPU_PIDS_MAX 128
#define FRAME_HEAD   8u /* of our own frames at most: two bytes, 16-bit length, mask */
#define PAYLOAD_MIN  16u
#define PAYLOAD_MAX  65535u

/* In place of a connection's number in the payload: a message that the worker sends to everybody. Its digits
 * begin with an f, which no connection's number does; the worker tells the two apart by that (--reply
 * marked), and so does an echo client that hears the broadcasts of somebody else. */
#define BROADCAST_INDEX UINT32_C(0xf0000000)

struct load;

/* Mode connect: how a cycle ends. */
enum close_kind {
    CLOSE_WAIT,  /* end our side, wait for the other side's end: never more than `outstanding` in the server's
                    hands */
    CLOSE_FIN,   /* end and forget: the server reads the end of the stream, nobody waits for its own */
    CLOSE_RESET, /* RST: nothing stays in TIME_WAIT */
};

struct load_options {
    struct sockaddr_in target;
    uint32_t connections;
    uint32_t payload;     /* bytes, PAYLOAD_MIN..PAYLOAD_MAX */
    uint32_t outstanding; /* messages (or broadcasts) on the way at a time */
    double rate;          /* messages per second over all connections; 0: closed loop */
    uint32_t warmup_ms;
    uint32_t run_ms;
    uint64_t warmup_operations;   /* the warm-up takes in so many operations at least */
    uint64_t run_operations;      /* the measured window ends after so many; 0: by time only */
    pid_t cpu_pids[CPU_PIDS_MAX]; /* whose CPU time is taken over the measured window */
    uint32_t n_cpu_pids;
    uint32_t source_first; /* connections come from 127.0.0.1 + source_first + (0 .. sources - 1) */
    uint32_t sources;
    uint32_t connecting_max; /* connections that are being established at a time */
    bool silent;             /* mode idle: connect and say nothing, not even a handshake */
    bool deflate;            /* offer permessage-deflate; what comes compressed is only counted */
    bool deaf;               /* a connection that is ready is not read any more */
    bool tls;                /* TLS, any certificate */
    bool opaque;             /* the peer does not unmask: echoes come back as we masked them (tgg-floor) */
    bool await;              /* a connection counts as ready when a first message has come */
    bool hold;               /* say when all are connected, start at a line on standard input */
    bool no_handshake;       /* mode connect: TCP only */
    bool message;            /* mode connect: one echo before the close */
    enum close_kind close;
};

struct conn {
    struct engine_conn base; /* stands first: one is cast to the other */
    uint32_t sent;           /* messages given to the engine */
    uint32_t received;       /* messages taken */
    bool awaiting;           /* option await: open, its first message awaited */
};

/* What a mode does. Each may be NULL. */
struct load_mode {
    const char *name;
    void (*start)(struct load *l);
    /* Once per turn, after the events. Returns for how many ns at most the next turn may sleep. */
    uint64_t (*turn)(struct load *l);
    void (*message)(struct load *l, struct conn *c, const uint8_t *data, uint32_t len);
    void (*writable)(struct load *l, struct conn *c);
    void (*end)(struct load *l);
    /* Nothing is on the way any more: asked after the end, before the next start. NULL: nothing to run. */
    bool (*drained)(const struct load *l);
};

/* With --hold: connect, hold, then for each line on standard input warm-up, measure, drain, hold again. */
enum load_phase { PHASE_CONNECT, PHASE_HOLD, PHASE_WARMUP, PHASE_MEASURE, PHASE_DRAIN, PHASE_DONE };

struct load {
    struct load_options opt;
    const struct load_mode *mode;
    enum load_phase phase;
    struct load_target target;
    struct load_sources sources;
    struct engine engine;
    bool compressed; /* the message that is being taken */
    struct conn *conns;
    uint32_t n_begun, n_ready;

    /* The frame that is sent, but for the 16 digits at the head of its payload; and the payload that is
     * expected. */
    uint8_t frame[FRAME_HEAD + PAYLOAD_MAX];
    uint32_t frame_head;
    uint8_t expected[PAYLOAD_MAX];

    uint64_t operations; /* since the start */
    struct hist latency; /* of the measured window, ns */
    uint64_t start_ns;   /* the mode began */
    uint64_t start_operations;
    struct {
        uint64_t start_ns, end_ns;
        uint64_t operations;
        uint64_t cpu_ns[CPU_PIDS_MAX];
        uint64_t own_cpu_ns;
    } window; /* at its start: absolute values; after window_close: differences */
};

static inline bool load_is_measuring(const struct load *l)
{
    return l->phase == PHASE_MEASURE;
}

/* Between start and end: new messages may be sent. */
static inline bool load_is_running(const struct load *l)
{
    return l->phase == PHASE_WARMUP || l->phase == PHASE_MEASURE;
}

extern const struct load_mode load_echo;
extern const struct load_mode load_fanout;
extern const struct load_mode load_idle;
extern const struct load_mode load_listen;
extern const struct load_mode load_store;
extern const struct load_mode load_connect;

/* load_conn.c */
void frames_init(struct load *l);
/* What the engine tells of connections. */
extern const struct engine_ops load_conn_ops;
/* Send message c->sent. False when the kernel's buffer is full: mode->writable follows. */
bool conn_send(struct load *l, struct conn *c);
/* The same with a payload of the mode's own, before which CODEC_HEAD_MAX bytes are free and behind which
 * CODEC_TAIL_MAX are; it is masked in place. */
void conn_send_payload(struct load *l, struct conn *c, uint8_t *payload, uint32_t len);
/* The eight digits in which numbers stand in payloads. */
void put_hex(uint8_t *p, uint32_t value);
/* Of a message that has come: who sent it, and which of his it is. False: no room for both. */
bool message_numbers(const struct load *l, const uint8_t *data, uint32_t len, uint32_t *ret_index,
                     uint32_t *ret_seq);
/* Ends the process unless data is message `seq` of connection `index` (BROADCAST_INDEX: of the sender). */
void message_check(struct load *l, const uint8_t *data, uint32_t len, uint32_t index, uint32_t seq);

/* load.c */
/* Standard input is readable. */
void stdin_read(struct load *l);
/* Start and end of the measured window as time passes; false when all is over. */
bool phase_advance(struct load *l);
/* load_connect.c: has a loop of its own. */
void load_connect_run(struct load *l);
