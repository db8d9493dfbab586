// SPDX-License-Identifier: MIT
/* Private to the simulated network.
 *
 *   world ── nodes[] ── ends[] (by handle) ──┐
 *        ── sockets ── queue of pairs        │        pair: end[0] the connecting side, end[1] the accepting
 * one ── heap of events ── pair, side     └──────► end: what arrived for it, what it has been told
 *
 * net_sim.c       the world: time, chance, events in order, steps
 * net_sim_wire.c  pairs and listening sockets: what the kernels and the wire between them do
 * net_sim_node.c  the net of one node: net_ops, and the callbacks
 *
 * A pair is counted: one for each event that names it, each end that a node has open (claims too), and its
 * place in a queue. */
#pragma once

#include <setjmp.h>

#include "base/bytes.h"
#include "net/net_priv.h"
#include "net/net_sim.h"

enum sim_event_kind {
    SIM_SYN,         /* at the listening socket; len: how often it was tried before */
    SIM_ESTABLISHED, /* at the connecting end */
    SIM_REFUSED,     /* at the connecting end */
    SIM_SEGMENT,     /* at the reader; len bytes */
    SIM_ACK,         /* at the writer; len bytes were read */
    SIM_FIN,
    SIM_RST,
    SIM_TIMEOUT, /* at an end whose bytes found nobody */
};

struct sim_event {
    uint64_t at_ns;
    uint64_t seq; /* ties: first in, first out */
    struct sim_pair *pair;
    uint32_t len;
    uint8_t kind;
    uint8_t side; /* the end at which it happens */
};

enum sim_end_state {
    SIM_END_QUEUED,     /* the accepting side before accept */
    SIM_END_CONNECTING, /* the connecting side before SIM_ESTABLISHED */
    SIM_END_OPEN,
    SIM_END_CLOSED, /* answers bytes with RST */
    SIM_END_DEAD,   /* answers nothing */
};

/* A node that has an end open, too (net_take), and gets it when those before it are gone. */
struct sim_claim {
    struct sim_claim *next;
    struct sim_node *node;
    struct net_conn *c;
    uint32_t index; /* in node->ends */
    bool paused;
};

struct sim_end {
    struct sim_pair *pair;
    uint8_t side;
    uint8_t state;

    /* the owner's; NULL and 0 when no node has it open */
    struct sim_node *node;
    struct net_conn *c;
    uint32_t index;           /* in node->ends */
    struct sim_claim *claims; /* after the owner's, in this order */

    /* what comes to it */
    struct bytes in; /* the first `arrived` are there, the rest is on the way */
    size_t arrived;
    bool established, fin_arrived, paused;
    int err; /* RST, timeout, refused: not yet told */

    /* what goes out from it */
    uint32_t unacked;         /* bytes written that the peer has not read, as far as is known here */
    uint64_t last_arrival_ns; /* of anything sent from here: the next comes no earlier */
    bool fin_sent, want_write, timing_out;
    bool asked; /* keep-alive runs out: see sim__end_ask */

    bool ready; /* in its node's ring */
    struct sim_end *ready_next, *ready_prev;
};

struct sim_pair {
    struct sim_net *w;
    unsigned refs;
    int32_t number; /* for net_conn_handle: of its ends, number + side */
    uint32_t cap;   /* bytes that a direction holds */
    bool cut;
    struct net_addr to, from;
    struct sim_pair *queue_next; /* in a socket's queue */
    struct sim_end end[2];
};

/* A listening socket. */
struct sim_socket {
    struct sim_socket *next;
    struct sim_net *w;
    struct net_addr addr;
    unsigned refs; /* the descriptor of sim_net_bind, and each listener */
    int fd;        /* 0: made by net_listen */
    uint32_t queued, backlog;
    struct sim_pair *first, *last;
};

struct sim_listener {
    struct net_listener *l;
    struct sim_node *node;
    struct sim_socket *socket;
    struct timer rest; /* after accept failed */
    bool paused;
};

struct sim_node {
    struct net net; /* first */
    struct sim_net *w;
    uint32_t id;
    bool dead, held;
    uint64_t frozen_until_ns;
    uint64_t poked_ns; /* gets a turn then; UINT64_MAX: was not poked */
    struct net_addr source;
    struct sim_end **ends;
    uint32_t n_ends, ends_lowest; /* no free place below ends_lowest */
    struct sim_listener **listeners;
    uint32_t n_listeners;
    uint32_t n_ready;
    struct sim_end ready; /* head of the ring */
    unsigned accepts_to_fail;
    int accept_err;
    uint8_t *read_buf;
    /* Of tell_ready and accept_one, here so that they can be given back when the node stops within. */
    struct sim_end **batch;
    uint32_t batch_n, batch_at;
    struct sim_pair *accepting;
    unsigned calls_left; /* until it stops; 0: it does not */
    bool stopped;
    jmp_buf stop;
};

struct sim_net {
    uint64_t now_ns;
    uint64_t random, script_random;
    uint64_t digest;
    struct sim_net_options options;
    struct sim_event *heap;
    uint32_t n_events, heap_cap;
    uint64_t next_seq;
    struct sim_node **nodes;
    uint32_t n_nodes;
    uint32_t next_node_id;
    int32_t next_pair;
    struct sim_socket *sockets;
    uint16_t next_port;
    int next_fd;
    bool stepping;
    struct sim_node *turning; /* whose turn it is */
};

/* ---- net_sim.c */
uint64_t sim__random(struct sim_net *w, uint64_t n); /* below n */
bool sim__chance(struct sim_net *w, uint32_t percent);
void sim__note(struct sim_net *w, uint64_t a, uint64_t b, uint64_t c); /* into the digest */
void sim__schedule(struct sim_net *w, struct sim_event ev);            /* takes a reference of ev.pair */
void sim__node_forget(struct sim_net *w, struct sim_node *node);
void *sim__alloc(size_t size); /* zeroed; a test without memory ends */

/* ---- net_sim_wire.c */
struct sim_pair *sim__pair_new(struct sim_net *w);
void sim__pair_unref(struct sim_pair *p);
void sim__event_apply(struct sim_net *w, const struct sim_event *ev);
/* Everything that `end` sends arrives at the other end, in order. */
void sim__send(struct sim_end *end, enum sim_event_kind kind, uint32_t len);
size_t sim__end_room(const struct sim_end *end); /* bytes that it could write now */
ssize_t sim__end_write(struct sim_end *end, const struct iovec *iov, int n_iov, size_t len);
void sim__end_consume(struct sim_end *end, size_t len); /* the owner has read them */
/* The owner lets go of it: the kernel does what is left to do. */
void sim__end_close(struct sim_end *end, bool hard);
/* The same, but bytes left unread do not turn FIN into RST. */
void sim__end_close_lucky(struct sim_end *end);
/* When its peer can no longer be heard, keep-alive finds it out in time. */
void sim__end_ask(struct sim_end *end);
void sim__end_die(struct sim_end *end);
void sim__pair_cut(struct sim_pair *p);
struct sim_socket *sim__socket_new(struct sim_net *w, const struct net_addr *addr, int backlog, int *ret_err);
struct sim_socket *sim__socket_by_fd(const struct sim_net *w, int fd);
struct sim_pair *sim__socket_accept(
    struct sim_socket *s); /* NULL: none waits; the reference goes to the caller */
void sim__socket_unref(struct sim_socket *s);

/* ---- net_sim_node.c */
void sim__end_update(struct sim_end *end); /* after a change: is there something to tell its owner? */
void sim__end_attach(struct sim_end *end, struct sim_node *node, struct net_conn *c);
/* And the reference goes. Whoever has the next claim is the owner then. */
void sim__end_detach(struct sim_end *end);
bool sim__node_has_work(const struct sim_node *node);
/* The process does something that is seen from outside: it may stop here, then this does not return. */
void sim__node_call(struct sim_node *node);
/* It has stopped within a turn: what the network itself held on its stack. */
void sim__node_stopped(struct sim_node *node);
static inline struct sim_end *sim__end_other(struct sim_end *end)
{
    return &end->pair->end[1 - end->side];
}
