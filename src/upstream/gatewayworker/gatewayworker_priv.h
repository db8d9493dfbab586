// SPDX-License-Identifier: MIT
/* The parts of the GatewayWorker upstream, and who owns what:
 *
 *   gatewayworker ── links: every internal connection (worker or GatewayClient), list
 *                 ── workers[]: those with a link, dense, for the choice
 *                 ── gone: workers whose link ended and whose clients are not all bound anew yet
 *                 ── parked: events that wait because no worker is there
 *   worker ── link (or NULL: gone), clients[] bound to it, paused[] of them
 *   link   ── in: bytes not executed yet, queue: bytes not written yet, job: a command in slices
 */
#pragma once

#include "base/bytes.h"
#include "base/list.h"
#include "loop/loop.h"
#include "proto/gw/command.h"
#include "proto/gw/packet.h"
#include "upstream/gatewayworker/gatewayworker.h"
#include "upstream/gatewayworker/link_queue.h"
#include "upstream/upstream_priv.h"

struct gatewayworker;
struct job;
struct register_client;

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
};

struct worker {
    struct gatewayworker *gw;
    struct link *link; /* NULL: gone */
    struct list gone;  /* in gw->gone, when gone */
    uint32_t position; /* in gw->workers, when not gone */
    bool full;         /* more than send_to_worker_buffer_size is waiting */
    uint64_t hash;     /* of key, for the router by client address */
    char *label;       /* the key as logs show it, in quotes */
    struct upstream_client **clients;
    uint32_t n_clients, cap_clients;
    struct upstream_client **paused;
    uint32_t n_paused, cap_paused;
    size_t key_len;
    char key[]; /* remote ip + ":" + worker_key, zero-terminated */
};

/* Events of one client (or of several that are gone) that wait because no worker is there: encoded packets.
 */
struct parked {
    struct list node;               /* in gw->parked, in the order of coming */
    struct list timed;              /* in gw->parked_timed, once a message is among them */
    struct upstream_client *client; /* NULL: gone */
    struct bytes packets;
    uint64_t since_ms; /* when the first message came */
    uint32_t n_events, n_messages;
    uint32_t n_moved; /* so many of the first ones had been handed to a worker once, and were counted then */
    bool has_connect; /* ON_CONNECT is among them: no worker has heard of the client */
};

struct gatewayworker {
    struct upstream up;
    struct net_listener listener;
    struct gw_packet head; /* local_ip and local_port filled: the template of every event */
    struct list links, dirty, waiting;
    uint32_t n_links;
    struct worker **workers;
    uint32_t n_workers, cap_workers;
    struct list gone;
    struct list parked, parked_timed;
    size_t parked_bytes;
    struct timer parked_timer, ping_timer, settle_timer, finish_timer;
    struct loop_task rebind_task, resume_task, unpark_task, waiting_task;
    struct loop_hook flush_hook;
    uint32_t round_robin;
    uint32_t n_asked; /* times that a client asked whether to go on */
    uint64_t random;
    struct gw_args args; /* scratch of commands that run in one go */
    unsigned n_registers;
    struct register_client **registers;
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

/* ---- link.c */
int link_listen(struct gatewayworker *gw, int internal_fd);
/* Ends the link at once; a worker's clients are bound anew, its unwritten events move to others. */
void link_close(struct link *l, bool hard);
/* Ends the link so that what was written to it arrives: says so, waits for the peer to close, for a while. It
 * is no worker any more. */
void link_end(struct link *l);
/* The worker's name for the log, in quotes; \"\" for a link that is none. */
const char *link_label(const struct link *l);
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
 * replies carry no id and the next ones would be taken for this one. */
void link_put_reply(struct link *l, const struct slice *parts, unsigned n);

/* ---- worker.c */
/* The link has said that it is the worker of that key: it replaces an older link of the same key. 0 or
 * -errno. */
int worker_attach(struct link *l, struct slice worker_key);
/* Its link ends: events not yet written go to other workers (or wait), clients are bound anew. */
void worker_detach(struct link *l);
/* The worker that c's events go to, chosen now when it has none (or its own is gone); NULL: there is none. */
struct worker *worker_of(struct gatewayworker *gw, struct upstream_client *c);
/* A worker for events of clients that are gone: always the same one, so that they keep their order. NULL:
 * none. */
struct worker *worker_any(struct gatewayworker *gw);
void worker_unbind(struct upstream_client *c);
void worker_queue_changed(struct worker *w);
/* Remember c as paused by its worker. False without memory. */
bool worker_pause(struct worker *w, struct upstream_client *c);
void worker_unpause(struct upstream_client *c);
void worker_rebind_all(struct timer *t);
bool worker_rebind_slice(struct loop_task *task);
bool worker_resume_slice(struct loop_task *task);
void worker_ping_all(struct timer *t);

/* ---- event.c: from clients to workers */
void event_connected(struct upstream *u, struct upstream_client *c);
void event_handshaken(struct upstream *u, struct upstream_client *c, const struct http_request *req);
void event_message(struct upstream *u, struct upstream_client *c, const uint8_t *data, size_t len);
bool event_client_blocked(struct upstream *u, struct upstream_client *c);
/* There was no memory to hand over or keep an event: logged and counted. */
void event_lost(struct gatewayworker *gw, uint8_t cmd);
/* Counts an event as handed to a worker. */
void event_count(struct gatewayworker *gw, uint8_t cmd);
void event_closed(struct upstream *u, struct upstream_client *c);

/* ---- park.c: while no worker is there */
/* Keep an event of c. False: past a bound or without memory; then c is to be closed (nothing was kept). */
bool park_event(struct gatewayworker *gw, struct upstream_client *c, const struct gw_packet *p);
/* Keep a packet that had been queued to a worker that left; c NULL: its client is gone. Without bounds: it
 * was counted where it came from. *gone: NULL before the first packet of that worker. False without memory.
 */
bool park_packet(struct gatewayworker *gw, struct upstream_client *c, struct slice packet,
                 struct parked **gone);
/* c is gone: its ON_CLOSE joins what waits, or all is forgotten when no worker ever heard of it. */
void park_client_closed(struct gatewayworker *gw, struct upstream_client *c, const struct gw_packet *p);
/* Hand what waits for c to its worker, now that there is one. */
void park_release(struct gatewayworker *gw, struct parked *p, struct worker *w);
bool park_release_slice(struct loop_task *task);
void park_expired(struct timer *t);
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

/* ---- register_client.c */
struct register_client *register_client_new(struct upstream_host *host, const struct config_address *address);
void register_client_free(struct register_client *r);
