// SPDX-License-Identifier: MIT
/* The parts of the GatewayWorker upstream, and who owns what:
 *
 *   gatewayworker ── links: every internal connection (worker or GatewayClient) of this shard, list
 *                 ── workers[]: all of the node that can be reached, dense, for the choice
 *                 ── gone: workers whose link ended and whose clients are not all bound anew yet
 *                 ── parked: events that wait because no worker is there
 *                 ── peers[]: the other shards, and stand-ins for those of their links that have asked us
 *                 ── leaving: what peers had sent to workers of this shard that are gone, going back to them
 *   worker ── link (or NULL: its link is on another shard, or gone), clients[] bound to it, the paused ones
 * first link   ── in: bytes not executed yet, queue: bytes not written yet, job: a command in slices,
 *             gathers: questions whose answers are not complete, in their order
 */
#pragma once

#include "base/bytes.h"
#include "base/list.h"
#include "common/node_shared.h"
#include "estate/estate.h"
#include "loop/loop.h"
#include "mesh/mesh.h"
#include "proto/gw/command.h"
#include "proto/gw/packet.h"
#include "upstream/gatewayworker/gatewayworker.h"
#include "upstream/gatewayworker/link_queue.h"
#include "upstream/gatewayworker/meter.h"
#include "upstream/upstream_priv.h"

struct gatewayworker;
struct gather;
struct imports;
struct job;
struct succession;
struct uid_binds;

/* A connection, or the stand-in for one that another shard has (peer.c): it has no connection, executes what
 * its original sends on, and answers to that. */
struct link {
    struct net_conn
        conn; /* not open: the peer is gone, what it had asked for is still being done (link.c, on_closed) */
    struct gatewayworker *gw;
    struct list node;      /* in gw->links */
    struct worker *worker; /* NULL: a GatewayClient, or not said yet */
    struct job *job;       /* a command in slices: nothing else of this link runs before it is done */
    struct net_addr peer;
    bool authorized;
    bool read_paused;
    bool write_blocked; /* net took less than given: wait for writable */
    bool urgent; /* more than comings and goings of clients is queued: written at the end of this turn */
    bool grew;   /* something was queued in this turn */
    uint8_t held_turns; /* turns for which comings and goings were held back, to be written together */
    struct bytes in;    /* from in_done on: not executed yet */
    size_t in_done;
    struct link_queue queue;
    struct list dirty;   /* in gw->dirty: to be flushed at the end of the turn */
    struct list waiting; /* in gw->waiting: has input to execute as soon as there is room */
    struct timer timer;  /* one of: until it has shown the secret key; until it has closed after we have; now:
                            it fails */
    bool ending;         /* we have closed: what it still says is not looked at */
    bool decided;        /* it has said what it is: a worker, or not */
    bool taken;          /* its import is not done */
    bool is_stand_in;
    uint8_t shard;         /* stand-in: of its original */
    bool stopped;          /* stand-in: its original was told to wait */
    bool forgotten;        /* stand-in: its original is gone; freed when nothing is left to execute */
    uint32_t number;       /* in gw->link_table; stand-in: in that of its original */
    uint32_t question;     /* stand-in: number of the question that is being executed, 0: none */
    uint64_t visited;      /* shards that have a stand-in for it, a bit each */
    uint64_t stopped_by;   /* shards that have told it to wait */
    uint64_t crowded_by;   /* shards for which too much of it waits here */
    struct gather *gather; /* the question that is being executed, when others are asked too */
    struct list gathers;
    uint32_t n_gathers;
    /* To be seen (inspect.c). bytes_out is also the scale of positions in the queue: all that was ever
     * queued. */
    uint64_t packets_in, bytes_in, events_out, bytes_out;
    uint64_t since_ms, read_ms; /* accepted; last bytes */
    struct uid_binds *binds;    /* that other shards have not executed yet (replace.c); NULL: none so far */
};

/* How much waits for a worker. OVERFULL: ON_CONNECT and ON_CLOSE, which pass the limit of one that does not
 * read, have come to several times that; clients that come are turned away. */
enum fullness { FULLNESS_NONE, FULLNESS_FULL, FULLNESS_OVERFULL };

/* Numbers seen already; 0 cannot be stored. */
struct seen_set {
    uint64_t *slots;
    size_t n, cap;
};
/* True when it is new. Without memory everything is new. */
bool seen_set_add(struct seen_set *s, uint64_t v);
bool seen_set_has(const struct seen_set *s, uint64_t v);
void seen_set_fini(struct seen_set *s);

/* A worker of this node, wherever its link is.
 *
 *   here       link != NULL
 *   elsewhere  shard has its link; events go there by the mesh
 *   gone       in gw->gone; its clients are bound anew at their next event, or by the rebind task.
 *              It was elsewhere: unsettled until that shard has sent back what had not reached the worker
 *              (returned); what its clients say meanwhile is held, so that it does not overtake. */
struct worker {
    struct gatewayworker *gw;
    struct link *link;
    /* Which of its clients' events may still wait to be written to it (steer.c): those that were queued in
     * this epoch or the one before. */
    uint8_t epoch;
    bool fence_out;     /* elsewhere: its shard has not said yet that all up to the epoch before is written */
    bool holds;         /* elsewhere: clients that say something wait for that */
    uint64_t epoch_end; /* here: what is queued from there on is of this epoch; elsewhere: ms, the fence was
                           sent */
    struct fence *fences;    /* here: of other shards; NULL: there has been none */
    uint64_t fences_waiting; /* a bit for each */
    struct meter meter;      /* here: how long events wait */
    struct worker_steer {
        bool drains;             /* we have been told so */
        bool seen;               /* it stood in node_shared since */
        bool told_done;          /* in the log */
        uint32_t over_ms, first; /* clients when it began */
        uint64_t since_ms;
        uint32_t at;    /* of clients, those below it are looked at yet */
        uint32_t quota; /* of a rebalance: so many have still to go */
        uint64_t total; /* over the node; scratch of a rebalance */
    } steer;
    struct list gone;
    uint32_t position; /* in gw->workers, when not gone */
    bool is_gone;
    bool unsettled;
    bool awaits_heir; /* elsewhere: its link has moved to another shard, which has told us, and we have not
                         read it yet */
    bool full;        /* more than send_to_worker_buffer_size is waiting */
    uint8_t fullness; /* here: what the other shards were told; elsewhere: what its shard says */
    uint8_t shard;    /* that has (had) its link */
    uint32_t number;  /* over the node (common/node_shared.h); with since: this one and no other, ever */
    uint32_t gone_number;             /* gone: by which it is named when its clients are handed over */
    uint64_t since;                   /* ns: the later of two with one key replaces the earlier */
    uint64_t hash;                    /* of key, for the router by client address and for successors */
    char *label;                      /* the key as logs show it, in quotes */
    struct link_queue returned, held; /* while unsettled */
    struct seen_set returned_of;      /* clients of which `returned` has events */
    struct upstream_client **clients;
    uint32_t n_clients, cap_clients;
    uint32_t n_paused; /* of clients, the first ones */
    size_t key_len;
    char key[]; /* remote ip + ":" + worker_key, zero-terminated */
};

/* A worker of this shard is gone; what other shards' clients had said to it goes back to them (peer.c). */
struct leaving {
    struct list node; /* in gw->leaving */
    uint32_t number;
    uint64_t since;
    uint64_t acks_missing;       /* shards that may still send it something */
    struct link_queue returning; /* their packets, and notes of our own in between */
    struct slice next;           /* taken off its front, but there was no room for it; data NULL: none */
};

/* Another shard. */
struct peer {
    struct link **stand_ins; /* by the number of their originals; NULL: none */
    uint32_t cap_stand_ins;
    uint32_t deaths;            /* of it that we know of */
    uint64_t adds_sent;         /* commands sent to it that add names, on its scale (adds_done) */
    bool wants_to_be_told;      /* it has begun anew; what goes back to it must go first */
    bool has_told;              /* we have begun anew, and it has told us its workers */
    struct link_queue returned; /* came back of clients that are gone, before the first LEFT_DONE */
};

/* Events of one client that wait because no worker is there: encoded packets. */
struct parked {
    struct list node;  /* in gw->parked, in the order of coming */
    struct list timed; /* in gw->parked_timed, once a message is among them */
    struct upstream_client *client;
    struct bytes packets;
    uint64_t since_ms; /* when the first message came */
    uint32_t n_events, n_messages;
    uint32_t n_moved; /* so many of the first ones had been handed to a worker once, and were counted then */
    bool has_connect; /* ON_CONNECT is among them: no worker has heard of the client */
};

/* Events of clients that are gone, for whom no worker is there: in the estate, lest an ON_CLOSE be lost. */
struct homeless {
    struct link_queue queue;
    uint32_t n_events, n_messages;
    struct slice next; /* taken off the front already; data NULL: none */
    uint64_t since_ms; /* when the first message came */
};

struct gatewayworker {
    struct upstream up;
    struct net_listener listener;
    struct gw_packet head; /* local_ip and local_port filled: the template of every event */
    struct list links, dirty, waiting;
    uint32_t n_links, n_undecided;
    struct link **link_table; /* by number; NULL: free */
    uint32_t cap_link_table, next_link_number;
    struct worker **workers;
    uint32_t n_workers, cap_workers, n_here;
    struct worker **numbers; /* workers here, by number / n_shards */
    uint32_t cap_numbers;
    struct list gone;
    uint32_t n_unsettled; /* of gone */
    uint32_t n_awaiting;  /* workers: awaits_heir */
    unsigned awaiting_turns;
    uint32_t n_ever_gone;
    struct list parked, parked_timed;
    struct homeless homeless;
    size_t parked_bytes;
    struct timer parked_timer, ping_timer, settle_timer, finish_timer;
    struct timer steer_timer;
    struct loop_task steer_task;
    unsigned steer_steps;
    struct rebalance {
        uint64_t since_ms;
        uint32_t over_ms, total, moved;
        uint32_t rounds; /* left; 0: none is under way */
    } rebalance;
    struct loop_task rebind_task, resume_task, unpark_task, waiting_task, return_task;
    struct loop_hook flush_hook;
    uint32_t round_robin;
    uint32_t n_asked; /* times that a client asked whether to go on */
    uint64_t random;
    struct gw_args args; /* scratch of commands that run in one go */
    /* The node. */
    unsigned me, n_shards;
    struct node_shared *shared;
    struct mesh *mesh;
    struct peer *peers; /* n_shards */
    struct loop_hook deaths_hook;
    uint32_t deaths;         /* of all shards, as far as we know */
    struct list late_closes; /* ON_CLOSEs that wait for room to another shard (handover.c) */
    struct list leaving;
    struct leaving orphans;  /* the same for workers of a predecessor of ours */
    bool held;               /* hold.c */
    struct imports *imports; /* transfer_in.c; NULL: nothing is being taken over */
    uint32_t last_question;
    uint32_t n_bases;              /* of adds_sent (peer.c) */
    struct succession *succession; /* NULL: there is nothing left to settle */
    /* To be seen. The host's, or nobody's. */
    struct histograms *histograms;
    struct shard_crash *crash;
    struct histograms *own_histograms;
    struct shard_crash *own_crash;
    uint32_t n_fanouts; /* short ones, of which some are measured */
    uint32_t links_peak, workers_peak, parked_clients, parked_clients_peak;
    size_t parked_bytes_peak;
};

static inline struct gatewayworker *gatewayworker_of(struct upstream *u)
{
    return CONTAINER_OF(u, struct gatewayworker, up);
}
static inline const struct config_gateway *gw_config(const struct gatewayworker *gw)
{
    return &gw->up.host->config->gateway;
}
/* The client's session as an event or an answer carries it. */
static inline struct slice gw_session_of(const struct upstream_client *c)
{
    const struct session_bytes *s = c->member.session;
    return s == NULL ? (struct slice){0} : (struct slice){s->data, s->len};
}
static inline void gw_count(struct gatewayworker *gw, enum counter_id id, uint64_t n)
{
    counter_add(gw->up.host->counters, id, n);
}

/* Commands about c are told. Asked before each: nobody looks at c while nobody is traced. */
static inline bool gw_is_traced(const struct gatewayworker *gw, const struct upstream_client *c)
{
    return __builtin_expect(gw->up.host->tracing, 0) && c->traced;
}

static inline bool gw_is_alone(const struct gatewayworker *gw)
{
    return gw->n_shards == 1;
}
/* The shard that has a connection id. */
static inline unsigned gw_shard_of(const struct gatewayworker *gw, uint32_t connection_id)
{
    return node_home_of(&gw->shared->home, connection_id);
}
/* While everything is held, timers that would begin something look again after so long. */
#define GW_HELD_MS 100

/* Marks of our own in the flag byte of a packet that waits in the estate; never sent.
 * COUNTED: it was counted as handed to a worker before. LAST: of one client, it comes after all packets
 * without this mark (a successor finds several queues, whose order it does not know). TAKEN: it was imported,
 * and its import is not done. */
#define PACKET_FLAG_AT 21
#define PACKET_COUNTED 0x80
#define PACKET_LAST    0x40
#define PACKET_TAKEN   0x20
static inline uint8_t packet_marks(struct slice packet)
{
    return packet.data[PACKET_FLAG_AT] & (PACKET_COUNTED | PACKET_LAST);
}
/* In a queue of ours, off which it has been taken. */
static inline void packet_unmark(struct slice packet)
{
    ((uint8_t *)packet.data)[PACKET_FLAG_AT] &= (uint8_t) ~(PACKET_COUNTED | PACKET_LAST | PACKET_TAKEN);
}
/* On: its import begins; off: it is done. */
static inline void packet_mark_taken(struct slice packet, bool on)
{
    uint8_t *flag = (uint8_t *)packet.data + PACKET_FLAG_AT;
    *flag = (uint8_t)(on ? *flag | PACKET_TAKEN : *flag & ~PACKET_TAKEN);
}

/* A note of ours between packets that go back to another shard (peer.c), as a packet whose connection_id has
 * the number of that shard where ids have that of the shard that gave them. */
#define CMD_NOTE 0x7f
/* The shard that a packet which is not its client's any more is to go back to. */
static inline unsigned packet_shard(const struct gatewayworker *gw, struct slice packet)
{
    uint32_t id = gw_get_u32(packet.data + 17);
    return packet.data[4] == CMD_NOTE ? id >> CONNECTION_SEQ_BITS : gw_shard_of(gw, id);
}

/* ---- hold.c, transfer_out.c, transfer_in.c: what upstream.h says */
void hold_all(struct upstream *u, bool on);
const char *hold_unrest(const struct upstream *u);
int export_links(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                 uint64_t *ret_links, uint64_t *ret_workers);
void export_client(struct upstream *u, const struct upstream_client *c, struct transfer_client *ret);
int export_ended(struct upstream *u, const struct upstream_client *c, const struct transfer_plan *plan,
                 struct transfer_sink *sink);
int export_rest(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                uint64_t *ret_records);
void export_forget_client(struct upstream *u, struct upstream_client *c);
void export_forget_all(struct upstream *u);
void export_forget_given(struct upstream *u);
int import_record(struct upstream *u, unsigned from, const struct transfer_record *r);
uint32_t import_workers(const struct upstream *u);
int import_client(struct upstream *u, unsigned from, struct upstream_client *c,
                  const struct transfer_client *t);
void import_done(struct upstream *u);
void import_forget_taken(struct upstream *u);
/* At the end of everything, whether or not it is done. */
void import_free(struct gatewayworker *gw);

/* ---- link.c */
int link_listen(struct gatewayworker *gw, int internal_fd);
/* Ends the link at once; a worker's clients are bound anew, its unwritten events move to others. */
void link_close(struct link *l, bool hard);
/* Ends the link so that what was written to it arrives: says so, waits for the peer to close, for a while. It
 * is no worker any more. */
void link_end(struct link *l);
/* The worker's name for the log, in quotes; \"\" for a link that is none. */
const char *link_label(const struct link *l);
/* The peer's address, or "shard N" for a stand-in; static memory. */
const char *link_peer_text(const struct link *l);
/* Who says something, for people: the worker's key, or the peer. */
const char *link_sender(const struct link *l);
/* Something was queued: written at the end of the turn. */
void link_touch(struct link *l);
/* Write now what is possible. */
void link_flush(struct link *l);
/* The job of this link is done (or room is back): go on with what was read meanwhile. The link may be gone
 * after. */
void link_continue(struct link *l);
bool link_flush_all(struct loop_hook *hook);
bool link_run_waiting(struct loop_task *task);
/* Append one packet (an event). False: without memory, counted by the caller. */
bool link_put_event(struct link *l, const struct gw_packet *p);
bool link_put_packet(struct link *l, const uint8_t *packet, size_t len);
/* Append a reply (u32 length + payload, given in parts). Without memory the link is closed soon, since
 * replies carry no id and the next ones would be taken for this one. Only gather.c: replies have an order. */
void link_put_reply(struct link *l, const struct slice *parts, unsigned n);
/* It has said what it is. */
void link_decided(struct link *l);
/* What the placement of internal connections looks at: workers here, and links that may become some. */
void link_publish_count(struct gatewayworker *gw);
/* Stand-ins: one is made at the first command of its original; executes (or keeps) what that sends on. */
struct link *link_stand_in(struct gatewayworker *gw, unsigned shard, uint32_t number);
void link_stand_in_command(struct link *l, uint32_t question, const uint8_t *packet, size_t len);
/* Its original is gone. */
void link_stand_in_forget(struct link *l);
/* A link that another process had: of that handle, which is the link's or closed afterwards, and of that
 * peer. Its input and queue are empty. NULL and *ret_err. */
struct link *link_take_over(struct gatewayworker *gw, int handle, const struct net_addr *peer, int *ret_err);
/* So long it has to show the secret key. */
void link_set_auth_timer(struct link *l, uint64_t ms);
/* Read, and not executed yet. False without memory. */
bool link_put_input(struct link *l, struct slice in);
/* It is another process's: nothing is written, closed or told. Its worker is gone from it already. */
void link_forget(struct link *l);
/* It is another shard's of our node: the others hear that it is not here, its worker neither. */
void link_moved(struct link *l);
/* NULL, or what of it is under way while all is held. */
const char *link_unrest(const struct link *l);
/* It is held no more. */
void link_go_on(struct link *l);
/* The question has all its answers, or fewer wait: the link may go on. */
void link_gathered(struct link *l);

/* ---- worker.c */
/* The link has said that it is the worker of that key: it replaces an older link of the same key. 0 or
 * -errno. */
int worker_attach(struct link *l, struct slice worker_key);
/* Its link ends: events not yet written go to other workers (or wait), clients are bound anew. */
void worker_detach(struct link *l);
/* The same, but its unwritten events have gone with the link. */
void worker_moved(struct link *l);
/* Another shard says that it has this worker. taken_over: it was there before, and its link is that shard's
 * now. */
void worker_came(struct gatewayworker *gw, unsigned shard, uint32_t number, uint64_t since,
                 enum fullness fullness, struct slice key, bool taken_over);
/* The link is that of the worker of that key (remote ip + ":" + worker key), which another process had; its
 * queue is what waits for it. Nobody is replaced. 0 or -errno. */
int worker_take_over(struct link *l, struct slice key);
/* w goes, but for its link, as if it had never been; nobody is told. */
void worker_vanish(struct worker *w);
/* Of that key, the newest of them. NULL: none can be chosen. */
struct worker *worker_of_key(struct gatewayworker *gw, struct slice key);
/* One of that key that is gone, and for whose clients nothing comes back: made if there is none; then it has
 * to get a client at once. NULL without memory. */
struct worker *worker_gone_of_key(struct gatewayworker *gw, struct slice key);
/* c, bound to nobody, to w. False without memory. */
bool worker_bind(struct worker *w, struct upstream_client *c);
/* Clients whose worker is gone are bound anew, unless it is waited for more workers to come. */
void worker_rebind_soon(struct gatewayworker *gw);
/* The same in a while. */
void worker_rebind_later(struct gatewayworker *gw);
/* It is gone there (moved: to another shard); that shard sends back what it has of ours, then worker_settled.
 */
void worker_lost(struct worker *w, bool moved);
/* Its link has moved to another shard: the same, once we know it there, so that its clients are bound to it
 * again. */
void worker_left_for_another(struct worker *w);
/* At each turn while n_awaiting: whose heir is not in any ring has none (it was given up). */
void worker_look_at_awaiting(struct gatewayworker *gw);
/* returned_before: came back before it was known whose it was; is empty afterwards. */
void worker_settled(struct worker *w, struct link_queue *returned_before);
/* At the end of everything: w goes, its clients are bound to nobody. */
void worker_forget(struct worker *w);
/* Of a worker elsewhere, gone ones included. NULL: not known. */
struct worker *worker_elsewhere(struct gatewayworker *gw, uint32_t number, uint64_t since);
/* Of a worker here. */
static inline struct worker *worker_here(struct gatewayworker *gw, uint32_t number, uint64_t since)
{
    uint32_t at = number / gw->n_shards;
    struct worker *w = at < gw->cap_numbers ? gw->numbers[at] : NULL;
    return w != NULL && w->since == since ? w : NULL;
}
/* What a client's record in the estate says of its worker: a part of the hash of its key, not 0. */
static inline uint32_t worker_mark(const struct worker *w)
{
    return (uint32_t)w->hash | 1;
}
struct worker *worker_of_mark(struct gatewayworker *gw, uint32_t mark);
/* The worker that c's events go to, chosen now when it has none (or its own is gone); NULL: there is none. */
struct worker *worker_of(struct gatewayworker *gw, struct upstream_client *c);
/* A worker for events of clients that are gone: always the same one, so that they keep their order. NULL:
 * none. */
struct worker *worker_any(struct gatewayworker *gw);
/* New clients are turned away: see enum fullness. */
bool worker_is_overfull(const struct worker *w);
void worker_unbind(struct upstream_client *c);
/* c, which is bound, to another one that can be chosen. Between worker_choice_begin and _end. False: no
 * memory; nothing has changed. */
bool worker_move(struct upstream_client *c, struct worker *next);
/* Clients bound to it, of all shards. */
uint32_t worker_clients(const struct worker *w);
/* An event of c has just been put into its queue, or is on its way there. */
static inline void worker_told(const struct worker *w, struct upstream_client *c)
{
    c->told_epoch = w->epoch;
}
void worker_queue_changed(struct worker *w);
/* Elsewhere: look again whether it is full (fullness or the backlog has changed). */
void worker_look_at_full(struct worker *w);
/* c is not read until its worker is. */
void worker_pause(struct upstream_client *c);
void worker_unpause(struct upstream_client *c);
/* Packets of clients of this shard that did not reach a worker, in their order (then NULL: one queue): each
 * to its client's worker of now; those of clients that are gone all to one, so that they keep their order
 * too; are_newest: what is homeless already came before them, else after. Packets of other shards' clients go
 * to `back`. */
void worker_move_events(struct gatewayworker *gw, struct link_queue *from, struct link_queue *then,
                        struct leaving *back, bool are_newest);
void worker_rebind_all(struct timer *t);
bool worker_rebind_slice(struct loop_task *task);
bool worker_resume_slice(struct loop_task *task);
void worker_ping_all(struct timer *t);

/* ---- choice.c: which worker a client gets */
/* NULL: there is none. */
struct worker *worker_choose(struct gatewayworker *gw, const struct upstream_client *c);
/* Around a choice and the binding that follows from it: other shards see the one with the other. */
void worker_choice_begin(struct gatewayworker *gw);
void worker_choice_end(struct gatewayworker *gw);
/* Nobody is to be bound to it, if there is any other. */
static inline bool worker_is_draining(const struct worker *w)
{
    return NODE_LOAD(w->gw->shared->workers[w->number].draining) != 0;
}

/* ---- steer.c: clients are moved from one worker to another while both are there */
int steer_drain(struct upstream *u, struct slice key, bool on, uint32_t over_ms);
uint32_t steer_rebalance(struct upstream *u, uint32_t over_ms);
void steer_init(struct gatewayworker *gw);
/* It is held no more. */
void steer_go_on(struct gatewayworker *gw);
void steer_fini(struct gatewayworker *gw);
/* w (here) has been written to; its queue may be empty now. */
void steer_written(struct worker *w, uint64_t written);
/* That shard wants to hear when all is written that it has sent to w by now. */
void steer_on_fence(struct gatewayworker *gw, unsigned from, struct worker *w, uint32_t number);
/* It is. */
void steer_on_fenced(struct worker *w, uint32_t number);
/* w goes. */
void steer_forget(struct worker *w);
/* w has come in the place of that one: drains as it does. */
void steer_inherit(struct worker *w, const struct worker *from);
/* w (here) has another link, and all that waits is in the queue of that. */
void steer_replaced(struct worker *w);

/* ---- inspect.c, check.c: what upstream.h says */
uint64_t inspect_workers(struct upstream *u, struct json_writer *w, uint64_t cursor, uint32_t limit,
                         size_t bytes_max);
void inspect_tables(struct upstream *u, struct json_writer *w);
void inspect_client(struct upstream *u, const struct upstream_client *c, struct json_writer *w, bool full);
void inspect_measure(struct upstream *u);
const char *check_slice(struct upstream *u, uint64_t *position, unsigned steps);

/* ---- handover.c: an event to a worker, wherever its link is */
/* Hand an event to it: to its link, to its shard, or to what is held for it. False: without memory. */
bool worker_put_event(struct worker *w, const struct gw_packet *p);
bool worker_put_packet(struct worker *w, const uint8_t *packet, size_t len);
/* The same for a packet of a client that is gone: 0 once it is where a successor of ours finds it or need
 * not; -EAGAIN: it would wait in our memory only; -ENOMEM. */
int worker_try_packet(struct worker *w, struct slice packet);
/* Its ON_CLOSE of c, after which c's record in the estate goes, at the moment at which that is safe. */
bool worker_put_close(struct worker *w, struct upstream_client *c, const struct gw_packet *p);
/* At the end, when the mesh is gone: those that never got room are given up (the mesh has counted them). */
void handover_forget_late_closes(struct gatewayworker *gw);

/* ---- peer.c: the other shards of the node */
int peers_open(struct gatewayworker *gw);
void peers_start(struct gatewayworker *gw);
void peers_close(struct gatewayworker *gw);
/* Nothing of ours is on its way to another shard. */
bool peers_are_flushed(const struct gatewayworker *gw);
/* NULL, or what is under way between other shards and us. */
const char *peers_unrest(const struct gatewayworker *gw);
/* No other shard waits for what it had sent to a worker that was here. */
bool peers_have_all_back(const struct gatewayworker *gw);
void peer_worker_came(struct worker *w, bool taken_over);
void peer_worker_full(struct worker *w);
/* What of w's queue belongs to other shards' clients goes back to them; moved: its link is another shard's.
 */
struct leaving *peer_worker_left(struct worker *w, bool moved);
bool peer_send_event(struct worker *w, const struct slice *packet, unsigned n);
/* As peer_send_event, for a lifecycle event: visible at once when there is room. */
int peer_try_event(struct worker *w, const struct slice *packet, unsigned n);
bool peer_send_event_noted(struct worker *w, const struct slice *packet, unsigned n, struct mesh_note *note);
void peer_ack_left(struct gatewayworker *gw, const struct worker *w);
/* w is elsewhere: its shard is to say when all that we have sent to it is written. Number: of the fence. */
void peer_fence(struct worker *w, uint32_t number);
/* w is here: that shard's has been. */
void peer_fenced(struct worker *w, unsigned shard, uint32_t number);
/* A command of l for the clients of another shard. question: 0 for none. */
void peer_send_command(struct link *l, unsigned shard, uint32_t question, const struct gw_packet *p);
/* The same for each of these shards (a bit each). */
void peers_send_command(struct link *l, uint64_t shards, uint32_t question, const struct gw_packet *p);
void peer_link_gone(struct link *l);
/* Stand-in l answers its question, or tells its original to wait or go on. */
void peer_answer(struct link *l, bool failed, const struct slice *parts, unsigned n);
void peer_link_flow(struct link *l, bool stop);
/* Stand-in l has bound a client to that uid, as that number (0: it has not). */
void peer_bound(struct link *l, struct slice uid, uint64_t bind);
/* That shard closes who was bound to the uid before that bind, which the link of that number wanted, behind
 * what it executes for that link. */
void peer_replace(struct gatewayworker *gw, unsigned shard, uint32_t link, struct slice uid, uint64_t bind);
/* ---- summary.c */
/* Shards other than ours that may hold a client of one of these names (or any client), a bit each. What l has
 * asked for before counts. */
uint64_t peers_with_members(const struct gatewayworker *gw);
uint64_t peers_with_uid(const struct gatewayworker *gw, struct slice name);
uint64_t peers_with_group(const struct gatewayworker *gw, struct slice name);
/* Whose summary says so at this moment; what is under way does not count. */
uint64_t peers_showing_uid(const struct gatewayworker *gw, uint64_t hash);
/* A packet that a predecessor had for a worker goes back to the shard of its client. False: no memory. */
bool peer_return_orphan(struct gatewayworker *gw, struct slice packet);
bool peer_return_slice(struct loop_task *task);
/* Another shard, and it has a process. */
static inline bool peer_is_there(const struct gatewayworker *gw, unsigned shard)
{
    return shard != gw->me && NODE_LOAD(gw->shared->shards[shard].phase) != NODE_DOWN;
}
/* More than that waiting for one shard: a link that sends it still more, or answers its questions, waits
 * until it is gone. */
#define PEER_CROWDED (4u << 20)
static inline bool peer_is_crowded(const struct gatewayworker *gw, unsigned shard)
{
    return mesh_waiting(gw->mesh, shard) > PEER_CROWDED;
}

/* ---- gather.c: answers, in the order of the questions of each link */
/* Begin a question of l that goes to these shards too. NULL without memory. */
struct gather *gather_new(struct link *l, const struct gw_packet *p, uint64_t shards);
uint32_t gather_question(const struct gather *g);
/* A number that no other question has; not 0. */
uint32_t gather_next_question(struct gatewayworker *gw);
/* One shard's part. */
void gather_part(struct gather *g, unsigned shard, bool failed, const uint8_t *data, size_t len);
void gather_answer(struct link *l, uint32_t question, unsigned shard, bool failed, const uint8_t *data,
                   size_t len);
/* That shard is dead: nothing waits for it. */
void gather_shard_died(struct gatewayworker *gw, unsigned shard);
void gathers_free(struct link *l);
/* Our own part of the question that l is executing; it is the whole answer when nobody else was asked. */
void gather_own_part(struct link *l, const struct gw_packet *p, bool failed, struct bytes *part);
/* The answer to a question about one client, as it goes over the wire. */
void gather_reply(struct link *l, struct slice reply);

/* ---- succession.c: what a predecessor of ours left behind */
int succession_begin(struct gatewayworker *gw);
void succession_free(struct gatewayworker *gw);
/* Every shard has told us its workers (or a worker came): ON_CLOSE can go to them. */
void succession_look(struct gatewayworker *gw);
/* A packet of a client that is not here came back from another shard. True: kept, until its ON_CLOSE is due.
 */
bool succession_returned(struct gatewayworker *gw, struct slice packet);

/* ---- event.c: from clients to workers */
void event_connected(struct upstream *u, struct upstream_client *c);
void event_handshaken(struct upstream *u, struct upstream_client *c, const struct http_request *req);
void event_message(struct upstream *u, struct upstream_client *c, const uint8_t *data, size_t len);
bool event_client_blocked(struct upstream *u, struct upstream_client *c);
/* c's ON_CLOSE; its parts are c's. */
struct gw_packet event_of_close(const struct gatewayworker *gw, const struct upstream_client *c);
/* There was no memory to hand over or keep an event: logged and counted. */
void event_lost(struct gatewayworker *gw, uint8_t cmd);
/* Counts an event as handed to a worker. */
void event_count(struct gatewayworker *gw, uint8_t cmd);
void event_closed(struct upstream *u, struct upstream_client *c);

/* ---- park.c: while no worker is there */
/* Keep an event of c. False: past a bound or without memory; then c is to be closed (nothing was kept). */
bool park_event(struct gatewayworker *gw, struct upstream_client *c, const struct gw_packet *p);
/* Keep a packet of c that had been queued to a worker that left. Without bounds: it was counted where it
 * came from. False without memory. */
bool park_packet(struct gatewayworker *gw, struct upstream_client *c, struct slice packet);
/* The same for a client that is gone. counted: as handed to a worker, before. */
bool park_homeless(struct gatewayworker *gw, struct slice packet, bool counted);
/* Only into that queue, which is not (yet) the shard's. */
bool park_append(struct homeless *h, struct slice packet, bool counted);
/* All of `more` comes before (first) or behind what is homeless already. */
void park_homeless_all(struct gatewayworker *gw, struct homeless *more, bool first);
/* c is gone: its ON_CLOSE and what waits become homeless, or all is forgotten when no worker ever heard of
 * it. */
void park_client_closed(struct gatewayworker *gw, struct upstream_client *c, const struct gw_packet *p);
/* p, encoded. False without memory. */
bool park_append_packet(struct bytes *b, const struct gw_packet *p);
/* Hand what waits for c to its worker, now that there is one. */
void park_release(struct gatewayworker *gw, struct parked *p, struct worker *w);
bool park_release_slice(struct loop_task *task);
void park_expired(struct timer *t);
/* What waited for c in another process: n_events packets, of which n_messages are messages and the first
 * n_moved were counted as handed to a worker; since so many ms. 0, -EBADMSG or -ENOMEM. */
struct park_like {
    struct slice packets;
    uint64_t n_events, n_messages, n_moved, ago_ms;
};
int park_restore(struct gatewayworker *gw, struct upstream_client *c, const struct park_like *like);
/* The same of clients that are gone, kept apart for now. False without memory. */
bool park_restore_homeless(struct gatewayworker *gw, struct homeless *apart, struct slice packet,
                           bool counted, uint64_t ago_ms);
/* Once all is restored: those that were apart are ours (*apart is empty then), their time runs. */
void park_restored(struct gatewayworker *gw, struct homeless *apart);
/* What waits for c, or is homeless, is another process's. */
void park_forget(struct gatewayworker *gw, struct upstream_client *c);
void park_forget_all(struct gatewayworker *gw);
void park_forget_homeless(struct gatewayworker *gw);
void park_free_all(struct gatewayworker *gw);

/* ---- command.c: from workers to clients */
/* Execute one packet; the link may be closed or have a job afterwards. False: the link was closed. */
bool command_execute(struct link *l, const struct gw_packet *p);
/* ---- job.c, query.c: sends to many and queries, in one go when they are small, else in slices */
void job_fanout(struct link *l, const struct gw_packet *p);
void job_query(struct link *l, const struct gw_packet *p);
void job_free(struct job *job);
/* A payload as it goes to clients: the string, or the JSON form of a body that is not one. False: it has none
 * (counted). scratch holds the JSON. */
bool command_payload(struct gatewayworker *gw, const struct gw_packet *p, struct bytes *scratch,
                     struct slice *ret);
void command_refused(struct link *l, const struct gw_packet *p, const char *why);
/* p concerns c, which is traced. */
void command_traced(struct link *l, const struct gw_packet *p, struct upstream_client *c);

/* ---- replace.c: one connection per uid */
/* A command between shards: ext is the uid, body the number of the bind (u64, as this machine has it). */
#define CMD_REPLACE 0x7e
/* c is bound to that uid already. */
bool replace_is_bound(const struct upstream_client *c, struct slice uid);
/* BIND_UID of l was executed here: c is bound to that uid, and was not before; NULL: nobody was bound. */
void replace_bound(struct link *l, struct upstream_client *c, struct slice uid);
/* l's bind goes to that shard: the number of its question, 0: none. */
uint32_t replace_begin(struct link *l, unsigned shard, struct slice uid);
/* That shard has executed it. */
void replace_on_bound(struct gatewayworker *gw, unsigned from, uint32_t link, uint32_t question,
                      struct slice uid, uint64_t bind);
void replace_execute(struct gatewayworker *gw, const struct gw_packet *p);
/* Nothing waits for its binds. */
void replace_shard_died(struct gatewayworker *gw, unsigned shard);
/* Some of l's binds are under way to other shards. */
bool replace_is_under_way(const struct link *l);
/* p would overtake a bind of l that is under way: not before link_gathered. */
bool replace_must_wait(struct link *l, const struct gw_packet *p);

/* c's record in the estate: from the moment that a worker is told of it until its ON_CLOSE is safe. */
void record_add(struct gatewayworker *gw, struct upstream_client *c);
void record_remove(struct gatewayworker *gw, struct upstream_client *c);
