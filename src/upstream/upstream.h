// SPDX-License-Identifier: MIT
/* What stands behind the gateway and holds the application's logic: told of what clients do (events), tells
 * what is to be done with them (commands). GatewayWorker's business workers are its first implementation; a
 * pluggable one: this header is for its caller, the shard; upstream_priv.h is for implementers.
 *
 * The shard calls upstream_client_*; the upstream calls back through struct upstream_host. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "common/config.h"
#include "common/counters.h"
#include "common/histograms.h"
#include "common/shard_crash.h"
#include "net/net.h"
#include "session/directory.h"
#include "transfer/transfer.h"

struct buf;
struct estate;
struct http_request;
struct loop;
struct node;
struct upstream;
struct worker;
struct parked;

/* A client as the upstream knows it: embedded in the shard's client struct, zeroed to begin with. The shard
 * fills peer and gateway_port before it tells of the client; the rest is the upstream's and the directory's.
 */
struct upstream_client {
    struct member member;
    struct worker *worker;    /* bound to; NULL: not yet */
    uint32_t worker_position; /* among the worker's clients */
    uint32_t host_position;   /* the shard's own: among its clients (here, where it takes no room) */
    struct parked *parked;    /* events that wait because no worker is there; NULL: none */
    struct net_addr peer;
    uint16_t gateway_port;
    bool heard_of : 1;   /* its ON_CONNECT is with a worker, or waits for one: an ON_CLOSE has to follow */
    bool has_joined : 1; /* a group, once: SELECT then gives an empty array of groups instead of null, as PHP
                          * does
                          */
    bool paused : 1;     /* not read until its worker reads: upstream_host_ops.resume follows */
    bool traced : 1;     /* the shard's: commands that concern it are told to host->traced */
    uint8_t told_epoch;  /* its worker's, at its last event */
};

/* What is sent to clients, framed at most once per form (the host's business) and shared by reference. */
#define UPSTREAM_MESSAGE_FORMS 6
struct upstream_message {
    struct slice payload;
    bool framed;  /* the payload is already framed for the client: sent as it is */
    bool to_many; /* it goes to more than one client: what is made for one is worth keeping for the next */
    struct buf *forms[UPSTREAM_MESSAGE_FORMS];
    struct upstream_forms *rare; /* those that few need; NULL: none yet */
};
#define UPSTREAM_RARE_FORMS 14
struct upstream_forms {
    struct buf *forms[UPSTREAM_RARE_FORMS];
};
/* payload must live until fini. */
static inline void upstream_message_init(struct upstream_message *m, struct slice payload, bool framed)
{
    *m = (struct upstream_message){.payload = payload, .framed = framed};
}
void upstream_message_fini(struct upstream_message *m);

struct upstream_host;
struct upstream_host_ops {
    /* Queue m to a client. */
    void (*send)(struct upstream_client *c, struct upstream_message *m);
    /* Queue m (NULL: nothing), then close once it is written. The client leaves the directory within the
     * call. */
    void (*kick)(struct upstream_client *c, struct upstream_message *m);
    /* Close at once; what is queued is thrown away. */
    void (*destroy)(struct upstream_client *c);
    /* Close for a reason of the upstream's (CLOSE_no_worker, CLOSE_worker_slow, CLOSE_too_big,
     * CLOSE_uid_replaced). */
    void (*close)(struct upstream_client *c, enum close_reason reason);
    /* Read the client again: upstream_client_blocked had said yes. */
    void (*resume)(struct upstream_client *c);
    /* Shard `to` of the node sleeps and has something to read. */
    void (*wake)(struct upstream_host *h, unsigned to);
    /* How many more deliveries fit into this turn; at 0 whoever delivers goes on in the next one. to_many:
     * for a fan-out, which leaves some room to what is sent to single clients beside it. */
    unsigned (*room)(struct upstream_host *h, bool to_many);
    /* A command of a worker or GatewayClient concerns c, which is traced (upstream_client.traced): what the
     * command is called, its number of bytes, and who sent it. Called before it has its effect. */
    void (*traced)(struct upstream_client *c, const char *command, size_t len, const char *sender);
    /* c has been bound to that uid, and was not before. May be NULL. */
    void (*uid_bound)(struct upstream_client *c, const void *uid, size_t len);
};

/* What an upstream may use of its shard. Lives as long as the shard. */
struct upstream_host {
    const struct upstream_host_ops *ops;
    const struct config *config;
    struct counters *counters;
    struct loop *loop;
    struct net *net;
    struct directory *directory;
    /* The node that this shard belongs to, and what outlives it. */
    const struct node *node;
    unsigned shard;
    bool wake_always; /* mesh_options.wake_always */
    bool
        tracing; /* some clients may have `traced` set: while it is false, nobody looks at them. The host's */
    struct histograms *histograms; /* NULL: nobody wants them */
    struct shard_crash *crash;     /* last commands go there; NULL: nowhere */
    struct estate *estate;
    void *estate_mem; /* NULL: the estate is in private memory, there is nothing to inherit */
};

/* ---- to be seen and steered (common/control.h; what the JSON says: docs/ADMIN-API.md) */
struct json_writer;

/* The rows of workers whose links this shard has, from `cursor` on, until `limit` rows or `bytes_max` bytes
 * are there; the next cursor, 0: that was all. */
uint64_t upstream_list_workers(struct upstream *u, struct json_writer *w, uint64_t cursor, uint32_t limit,
                               size_t bytes_max);
/* A row of the tables; UINT64_MAX: not known. */
void json_table(struct json_writer *w, unsigned shard, const char *name, uint64_t used, uint64_t peak,
                uint64_t capacity, uint64_t bytes);
/* Rows of its own tables: links, workers, gathers, parked, ...: json_table(). */
void upstream_list_tables(struct upstream *u, struct json_writer *w);
/* c is bound to the worker of that key (as shown: "ip:key"). */
bool upstream_is_bound_to(const struct upstream_client *c, struct slice key);
/* Members of c's row: "worker" (key or null); in full also what waits for it here. */
void upstream_describe_client(struct upstream *u, const struct upstream_client *c, struct json_writer *w,
                              bool full);
/* That worker (by key) drains: nobody is bound to it any more unless there is no other, and who is bound is
 * bound to others within over_ms; or not any more. In every shard, whether or not the link is here. The
 * bindings of clients here, moved evenly over the time. -ENOENT: no such worker is known here. */
int upstream_drain_worker(struct upstream *u, struct slice key, bool on, uint32_t over_ms);
/* Bindings of this shard's clients move within over_ms from workers that have more than their part to those
 * that have less. Returns how many are going to move: its part of what the node needs, so that the sum over
 * the shards is right. 0 with the router client_hash: there a client's worker follows from its address. */
uint32_t upstream_rebalance(struct upstream *u, uint32_t over_ms);
/* Compares its tables with each other and with the directory, in slices: *position 0 to begin with. NULL:
 * nothing wrong in this slice; else a static text. *position is 0 again when that was the last one. */
const char *upstream_check(struct upstream *u, uint64_t *position, unsigned steps);
/* Figures that cost more than a store to keep true (gauges links_*_bytes, mesh_ring_*); once a second. */
void upstream_measure(struct upstream *u);

/* ---- to be handed over to another process, and back (transfer/transfer.h) */

/* On (the net is held besides): what links send is kept; what is under way goes on until nothing is: commands
 * in slices, questions, what other shards have sent. Timers that would begin something new do nothing, and
 * nobody is resumed. Off: as if nothing had been (but for clients of a predecessor that no worker had been
 * told of: any worker may hear of them then). */
void upstream_hold(struct upstream *u, bool on);
/* While it is held: NULL when nothing is under way, here or from here to other shards (rings included, both
 * ways); else what is, for the log. From then on nothing changes, unless a turn is taken. Workers and peers
 * that do not read keep nothing going; other shards do, as long as they do not turn. */
const char *upstream_unrest(const struct upstream *u);
/* Held and at rest. Records worker and link, then `end` of phase 1 by the caller; nothing changes here.
 * *ret_links, *ret_workers: how many (workers: those whose links are here). 0 or -errno of the sink (or
 * -ENOMEM). Links that we have closed ourselves, and wait for their peers, are left out. */
int upstream_export_links(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                          uint64_t *ret_links, uint64_t *ret_workers);
/* Fills in what the upstream knows of c: flags HEARD_OF, HAS_JOINED, PARKED_CONNECT, READ_PAUSED (or-ed),
 * worker, parked*. Slices stay valid until c changes. */
void upstream_export_client(struct upstream *u, const struct upstream_client *c, struct transfer_client *ret);
/* c, which has an id, cannot be handed over, and its connection ends: what its worker is to hear of it, as
 * records homeless. 0 or -errno. */
int upstream_export_ended(struct upstream *u, const struct upstream_client *c,
                          const struct transfer_plan *plan, struct transfer_sink *sink);
/* Records homeless. *ret_records: how many. */
int upstream_export_rest(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                         uint64_t *ret_records);

/* In the process that takes over; held, after upstream_start. Records worker, link (takes the handle, also
 * when it fails), homeless. 0; -errno: the transfer fails; then upstream_forget_all. from: the shard that
 * hands over: workers are known by their numbers and it, or, when there are no such records, by their numbers
 * in this node. A shard's worker records come before its links and clients. */
int upstream_import(struct upstream *u, unsigned from, const struct transfer_record *r);
/* Workers of this node that are known here, wherever their links are. */
uint32_t upstream_workers(const struct upstream *u);
/* c is in the directory with uid, groups and session, and upstream_workers are all known: its worker, its
 * record in the estate, what waits for it. No worker is told anything. One that was not read because of its
 * worker is paused (c->paused) until upstream_hold(u, false), then resumed as its worker allows; if it has no
 * worker, it is not: the shard reads it. 0; or -errno: the upstream has forgotten it again. */
int upstream_import_client(struct upstream *u, unsigned from, struct upstream_client *c,
                           const struct transfer_client *t);
/* Within one node, after the outcome. What upstream_export_links and _rest have handed over is others': their
 * workers go from here, as all shards hear; what waits for them went over. */
void upstream_forget_given(struct upstream *u);
/* Likewise links, and what is homeless, that were imported stay with those who gave them. */
void upstream_forget_taken(struct upstream *u);
/* Everything is here: what only the import needed is freed. Then upstream_hold(u, false). */
void upstream_import_done(struct upstream *u);
/* c is another process's or shard's now: as upstream_client_closed, but nobody is told. */
void upstream_forget_client(struct upstream *u, struct upstream_client *c);
/* All links are another process's or shard's (net_forget), what is parked or homeless too, no worker of ours
 * is left and no other shard is told; before upstream_free, when everything has been handed over, or when
 * what was taken over is given up. */
void upstream_forget_all(struct upstream *u);

/* ---- from the shard to the upstream */

/* Once the shard has added its own hooks: from the next turn on. Before it, nothing is told or asked. */
void upstream_start(struct upstream *u);

/* ---- of clients; all of them may call back host->close for that client, nothing else */

/* The client is in the directory. Always the first event of a client. */
void upstream_client_connected(struct upstream *u, struct upstream_client *c);
/* Its WebSocket handshake is done. */
void upstream_client_handshaken(struct upstream *u, struct upstream_client *c,
                                const struct http_request *req);
/* A whole message. */
void upstream_client_message(struct upstream *u, struct upstream_client *c, const uint8_t *data, size_t len);
/* The client's worker does not read: do not hand over more, do not read the client, until host->resume. May
 * close it instead, by configuration (then the result is false). */
bool upstream_client_blocked(struct upstream *u, struct upstream_client *c);
/* The client is gone; still in the directory, which it leaves right after this. c is not used any more. */
void upstream_client_closed(struct upstream *u, struct upstream_client *c);

/* Where it takes connections of workers; NULL: nowhere. */
struct net_listener *upstream_listener(struct upstream *u);
/* Somebody would take a client's messages now. */
bool upstream_has_worker(const struct upstream *u);
/* Nothing is waiting to be written to a worker. */
bool upstream_is_flushed(const struct upstream *u);
/* The last client is gone: end the connections to the workers so that all that was written arrives;
 * is_finished once that is so, or after a bounded time. */
void upstream_finish(struct upstream *u);
bool upstream_is_finished(const struct upstream *u);
/* Closes everything, counts what could not be delivered. */
void upstream_free(struct upstream *u);
