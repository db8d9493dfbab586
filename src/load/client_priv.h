// SPDX-License-Identifier: MIT
/* Inside of a process of `tgg bench`:
 *
 *   client.c        its life: connect, wait for the others, run, drain, close
 *   client_send.c   what is sent when
 *   client_take.c   what comes: answers, marks, pongs; and what goes wrong */
#pragma once

#include "load/client.h"
#include "load/engine.h"

struct client {
    struct engine_conn base; /* stands first: one is cast to the other */
    bool was_open;
    uint32_t sender;      /* its number among the senders + 1; 0: it only listens */
    uint64_t sent;        /* messages */
    uint64_t expected;    /* the next of them that is to be answered */
    uint64_t progress_ns; /* closed loop: of the last send or answer */
    uint64_t ping_ns;     /* of the ping that is on its way; 0: none */
    uint8_t *tail;        /* tcp: the end of what came, in which half a mark may stand */
    uint8_t tail_len;
};

struct run {
    const struct bench_options *opt;
    struct bench_shm *shm;
    struct bench_block *block;
    uint32_t process, first, n;
    struct engine engine;
    struct client *clients;
    uint8_t *tails;
    uint32_t n_begun;

    uint32_t *senders; /* indices of clients */
    uint32_t n_senders;
    double rate;         /* of all senders here, messages a second; 0: closed loop */
    uint64_t first_ns;   /* the first message of this process is due */
    uint64_t end_ns;     /* no message from here on */
    uint64_t n_due;      /* messages 0 .. n_due - 1 are due: message i is number i / n_senders of sender i mod
                            n_senders */
    uint64_t *sent_at;   /* closed loop: [sender][seq mod outstanding] */
    uint64_t last_in_ns; /* the last message came */
    uint64_t next_look_ns; /* timeouts */
    uint64_t next_ping_ns;
    uint32_t next_ping;
    bool sending;
    uint64_t ramp_ns; /* the ramp began */
    uint64_t cpu_ns;  /* at the begin of the run */

    uint8_t *message; /* being made: room for head and tail around it */
    size_t message_max;
};

static inline struct client *client_of(struct engine_conn *c)
{
    return (struct client *)c;
}

static inline void count(struct run *r, enum bench_count what, uint64_t n)
{
    bench_add(&r->block->counts[what], n);
}

/* ---- client_send.c */
/* False: no memory. */
bool run__send_init(struct run *r);
void run__send_fini(struct run *r);
/* Sending begins: the closed loop sends its first. */
void run__start(struct run *r);
/* Whatever is due now; for how many ns there is nothing more to be sent. */
uint64_t run__send_due(struct run *r);
/* As many as client c should have sent by now, while it has room. */
void run__pump(struct run *r, struct client *c);
void run__subscribe(struct run *r, struct client *c);
/* When message seq of a sender was due (or sent, closed loop). */
uint64_t run__due_ns(const struct run *r, const struct client *c, uint64_t seq);
/* Pings whose time has come. */
void run__send_pings(struct run *r);
/* Closed loop: answers that have not come in time are given up. */
void run__give_up_late(struct run *r);
/* Nothing is on the way, nothing waits to be sent. */
bool run__all_answered(const struct run *r);
/* At the end: what is without an answer, or was not sent. */
void run__count_missing(struct run *r);

/* ---- client_take.c */
extern const struct engine_ops run__ops;
