// SPDX-License-Identifier: MIT
/* A network in memory, with virtual time: several processes ("nodes", each with a loop and a net of its own)
 * in one test, every run the same for the same seed.
 *
 *   struct sim_net *w = sim_net_new(seed);
 *   struct loop_clock clock = sim_net_clock(w);
 *   struct loop *l = loop_new(&clock, budget_ns);         one for each node
 *   struct net *n = sim_net_node(w, l);                   then net_listen, net_connect ... as with any net
 *   while (sim_net_step(w, until_ns)) ...                 never loop_turn or loop_run
 *   net_free(n), loop_free(l) for each node; sim_net_free(w)
 *
 * There is one address space: net_connect finds the listener of that address and port, or one of that port on
 * the wildcard address. Bytes travel in segments with random latency, in order within a connection; each
 * direction of a connection holds a bounded number of bytes between writer and reader, so that writes get
 * short and writable() comes; a reader gets random pieces. What a node sees keeps to net.h exactly
 * (net_conformance_test.c runs on it). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "loop/loop.h"
#include "net/net.h"

struct sim_net;

/* All may be changed at any time between steps, and count from then on. Percentages are of 100. */
struct sim_net_options {
    uint64_t latency_ns_min, latency_ns_max;     /* one way, drawn for each segment */
    uint32_t buffer_bytes_min, buffer_bytes_max; /* of a direction, drawn for each connection */
    uint32_t tiny_read_percent;                  /* data() with 1 to 8 bytes of what is there */
    uint32_t part_read_percent;   /* data() with a random part of it; else with all (NET_READ_SIZE) */
    uint32_t short_write_percent; /* a write takes a random part though there was room for all */
    uint32_t skip_percent;        /* a connection that is ready waits for the next turn */
    uint32_t lost_end_percent;    /* a close never reaches the peer: half-open, as if its host died */
    uint32_t reset_per_million;   /* a segment makes the network reset its connection */
    uint64_t timeout_ns;          /* unanswered bytes: closed(ETIMEDOUT); also how long a connect tries;
                                   * a node with a user timeout (net_set_keepalive) has that */
    uint64_t clock_read_ns; /* virtual time that passes with each reading of the clock: 0 stands still within
                             * a turn, a large one makes loop_turn_left_ns run out after few steps, so that
                             * work gets sliced */
};

/* Defaults: latency 10 us to 2 ms, buffers 1 KiB to 256 KiB, tiny 10, part 30, short 10, skip 10, no lost
 * ends, no resets, timeout 60 s, clock 200 ns. Time starts at 1,000 s. NULL without memory. */
struct sim_net *sim_net_new(uint64_t seed);
/* Every node must have been freed. */
void sim_net_free(struct sim_net *w);
struct sim_net_options *sim_net_options(struct sim_net *w);

/* The clock for the loops of the nodes; lives as long as w. */
struct loop_clock sim_net_clock(struct sim_net *w);
/* Virtual time, without the cost of reading the clock. */
uint64_t sim_net_now_ns(const struct sim_net *w);
/* A number below n (n > 0) for the test's own decisions: a stream of the same seed beside that of the
 * network. */
uint64_t sim_net_draw(struct sim_net *w, uint64_t n);
/* Changes with everything that was ever told to any node, and when: two runs of one seed must agree on it. */
uint64_t sim_net_digest(const struct sim_net *w);

/* One process; sets itself as the poller of l. Freed with net_free. NULL without memory. */
struct net *sim_net_node(struct sim_net *w, struct loop *l);
/* The address that its connections come from (the port is not looked at); 127.0.0.1 before. */
void sim_net_node_source(struct net *n, const struct net_addr *addr);

/* As a write to an eventfd that this node waits for: it gets a turn, now or up to SIM_NET_POKE_NS_MAX later.
 * One turn may answer several. Nothing for a dead node. At any time, also within the turn of another node. */
#define SIM_NET_POKE_NS_MAX 50000
void sim_net_node_poke(struct net *n);

/* Move time on to what happens next, let it happen, and give one turn to each loop that has something to do,
 * in random order. false: nothing happens up to and with until_ns; the time is then until_ns (unless that is
 * UINT64_MAX). */
bool sim_net_step(struct sim_net *w, uint64_t until_ns);
/* Steps until ns have passed. */
void sim_net_run(struct sim_net *w, uint64_t ns);
/* Steps until done(ctx) is true, at most ns; the last answer of done. */
bool sim_net_run_until(struct sim_net *w, bool (*done)(void *ctx), void *ctx, uint64_t ns);

/* ---- listening sockets that outlive nodes, as the supervisor's do: for net_listen_fd on any number of nodes
 */

/* A number to be given to net_listen_fd, or -EADDRINUSE, -ENOMEM. Port 0: any, see sim_net_bound. */
int sim_net_bind(struct sim_net *w, const struct net_addr *addr, int backlog);
int sim_net_bound(const struct sim_net *w, int fd, struct net_addr *ret); /* 0 or -EBADF */
/* Close this descriptor; the socket goes with the last listener on it. What still waits in its queue is
 * reset. */
void sim_net_unbind(struct sim_net *w, int fd);

/* ---- connections that another node takes over (net.h): net_conn_handle gives a number, net_take of any
 * other node, for as long as some node has it open, a claim. Who has had it longest is the owner: it alone
 * may write and be told of anything, and so must not be held to be so; to write for or close it without being
 * the owner is an ASSERT. With net_forget, or its death, the next is. With the last of them the kernel closes
 * it. Each has a net_read_pause of its own. */

/* ---- trouble; all of it only between steps */

enum sim_net_death {
    SIM_NET_DEATH_PROCESS, /* the kernel closes everything: FIN, or RST where bytes were left unread */
    SIM_NET_DEATH_LUCKY,   /* as PROCESS, but FIN also there: all that the kernel had still arrives */
    SIM_NET_DEATH_HOST,    /* nobody is told: peers are half-open until they write and time out, or until
                            * keep-alive finds out; without net_set_keepalive there is none */
};
/* The node's loop gets no more turns, its listeners vanish. Its owner's structs may then be torn down as
 * usual: on a dead node net_close, net_listener_close, net_shutdown, pause and resume only clear what they
 * must, net_writev gives -EPIPE, net_connect and net_listen -ENETDOWN; net_free does not ask for everything
 * to have been closed. */
void sim_net_node_kill(struct net *n, enum sim_net_death how);
/* Within a turn of its loop, at the calls-th call of net or reading of the clock from now, the node stops in
 * the middle of what it is doing (longjmp): what stood on its stack, its loop and all that hangs on them is
 * never run nor freed again, and the kernel closes nothing yet. sim_net_node_kill is what remains to be done,
 * between steps, once sim_net_node_has_stopped. 0: not after all. */
void sim_net_node_stop_within(struct net *n, unsigned calls);
bool sim_net_node_has_stopped(const struct net *n);
/* Counts as one of those calls: for what else of a process is seen from outside. */
void sim_net_node_call(struct net *n);
/* The process does not run for so long (a stopped or overloaded one); the kernel below it goes on. */
void sim_net_node_freeze(struct net *n, uint64_t ns);
/* The next `count` accepts of this node fail with err (EMFILE...): accept_failed, and a rest of
 * NET_ACCEPT_PAUSE_MS. */
void sim_net_node_fail_accepts(struct net *n, unsigned count, int err);

/* The node that has the other end of c (of several, the owner); NULL: none (not accepted yet, or gone). */
struct net *sim_net_conn_peer(struct net *n, const struct net_conn *c);
/* c: either end of the connection. Reset: both ends get ECONNRESET, bytes on the way are lost. Cut: nothing
 * gets through any more, in either direction, and nobody is told. */
void sim_net_conn_reset(struct net *n, struct net_conn *c);
void sim_net_conn_cut(struct net *n, struct net_conn *c);
