// SPDX-License-Identifier: MIT
/* The parts of the admin process among themselves.
 *
 *   admin_main.c   the process: its loop, signals, settings, time
 *   http.c         requests and answers of libmicrohttpd; who may ask
 *   routes.c       which path is whose
 *   api_*.c        the paths; each answers at once, or asks (request_ask) and answers when it is told
 *   trace.c        answers that go on
 *   shards.c, gather.c   asking */
#pragma once

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "admin/gather.h"
#include "admin/query.h"
#include "base/json_writer.h"
#include "base/list.h"
#include "common/admin_start.h"

#define ADMIN_ROWS_MAX   1000 /* of one answer */
#define ADMIN_BYTES_MAX  ((size_t)8 << 20)
#define ADMIN_QUICK_MS   200 /* for what a figure more is not worth waiting for */
#define ADMIN_METRICS_MS 500
#define TRACES_MAX       8

/* A descriptor that the loop looks at. */
struct watch {
    void (*ready)(struct watch *w, uint32_t events);
    int fd;
};

struct admin_peer {
    struct watch watch;
    struct admin *admin;
    unsigned peer;
};

struct http_listener {
    struct watch watch;
    struct admin *admin;
    struct MHD_Daemon *daemon; /* NULL: not open */
    bool tcp;                  /* the token is asked for */
    struct list idle;          /* connections without a request, the oldest first (http.c) */
};

struct admin {
    struct config *cfg;
    const struct node *node;
    const struct node_shm *shm;
    const char *token;
    int page_fd; /* folder of the page; -1: none */
    int epoll_fd, signal_fd, settings_fd;
    pid_t supervisor;
    bool ends;
    struct shards *shards;
    struct watch signals, settings;
    struct admin_peer peers[PEERS_MAX];
    struct http_listener http[2];
    struct list requests;
    unsigned n_traces;
    uint64_t listeners_closed; /* bit i: listener i was open nowhere when it was looked at */
    uint64_t scrapes, requests_n, requests_refused;
    uint64_t ticked_ms;
};

/* ---- admin_main.c */
uint64_t admin_now_ms(void); /* monotonic */
int64_t admin_unix_ms(void);
/* 0 or -errno. */
int admin_watch(struct admin *a, struct watch *w, int fd, uint32_t events);
void admin_unwatch(struct admin *a, struct watch *w);
uint64_t admin_all_shards(const struct admin *a);
uint64_t admin_edge_shards(const struct admin *a);
struct query_gateway admin_gateway(const struct admin *a);
/* That has this id at this moment: an upgrade or an evacuation may move it. */
unsigned admin_shard_of(const struct admin *a, uint32_t connection_id);

/* ---- http.c */
enum request_stage {
    REQUEST_NEW,
    REQUEST_BODY,
    REQUEST_WAITS,    /* for shards; its connection is suspended */
    REQUEST_ANSWERED, /* the answer is there */
    REQUEST_SENT,     /* libmicrohttpd has it */
    REQUEST_GONE,     /* nobody reads the answer */
};

struct trace;

struct request {
    struct list link; /* admin.requests */
    struct admin *admin;
    struct MHD_Connection *connection;
    bool tcp;
    bool post;
    bool suspended;
    bool counted;
    enum request_stage stage;
    size_t body_bytes;
    struct watch hangup; /* of its socket, while suspended */
    char *target;
    struct query query;
    /* What is asked: request_ask sends gather.ask.req. */
    struct gather gather;
    void (*then)(struct request *r); /* answers are there */
    uint64_t missing;                /* shards, of all that was asked so far */
    uint64_t began_ms;
    /* The answer. */
    unsigned status;
    struct bytes body;
    const char *type;              /* NULL: JSON */
    struct MHD_Response *response; /* instead of body */
    /* Of the path: */
    void *job;
    void (*job_free)(struct request *r);
};

int http_open(struct admin *a, struct http_listener *l, int fd);
void http_run(struct http_listener *l);
/* ms, -1: nothing to wait for. */
int http_timeout_ms(struct http_listener *l);
/* Ends connections that have taken too long to ask for something. Once a second. */
void http_end_idle(struct http_listener *l, uint64_t now_ms);
/* All of a's listeners; who waits gets no answer. */
void http_close(struct admin *a);

/* body is the answer. */
void request_answer(struct request *r, unsigned status);
/* {"error":...}; what was in body is gone. */
void request_error(struct request *r, unsigned status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* What query says is wrong: 400. */
void request_wrong(struct request *r);
/* A response of libmicrohttpd's, which is r's now; NULL: no memory. */
void request_respond(struct request *r, unsigned status, struct MHD_Response *response);
void request_resume(struct request *r);
void request_suspend(struct request *r, uint32_t events);

/* The head of the question, to be filled in. */
struct control_head *request_head(struct request *r, enum control_op op);
/* Asks; `then` is called once, unless too many are under way: answered then. */
void request_ask(struct request *r, uint64_t mask, uint64_t timeout_ms, enum gather_form form,
                 void (*then)(struct request *r));
void request_ask_supervisor(struct request *r, uint64_t timeout_ms, void (*then)(struct request *r));
/* Nobody of those asked gave an answer, or all of them an error: answered with it. */
bool request_failed(struct request *r);
void request_missing(const struct request *r, struct json_writer *w);

/* ---- page.c */
void page_answer(struct request *r, const char *name);
/* For every answer. */
void page_headers(struct MHD_Response *response);

/* ---- routes.c: r->query is parsed. */
void routes_run(struct request *r);
/* A path that needs no token. */
bool routes_is_open(const struct admin *a, const char *path);

/* ---- api_node.c, api_status.c: from shared memory */
void api_status(struct request *r);
void api_counters(struct request *r);
void api_names(struct request *r);
void api_histograms(struct request *r);
void api_registers(struct request *r);
void api_closes(struct request *r);
void api_bans(struct request *r);
void api_listeners(struct request *r);
void api_metrics(struct request *r);
void api_livez(struct request *r);
void api_readyz(struct request *r);

/* Whether what r->gather holds of CONTROL_LISTENERS says that all are open is remembered. "listeners":[...].
 */
void api_write_listeners(struct request *r, struct json_writer *w);
void api_ask_listeners(struct request *r, uint64_t timeout_ms, void (*then)(struct request *r));
void api_write_registers(const struct admin *a, struct json_writer *w);

/* ---- ready.c */
#define READY_WHY_MAX 16
struct ready {
    unsigned n; /* reasons why not; 0: ready */
    char why[READY_WHY_MAX][128];
};
void ready_look(const struct admin *a, struct ready *ret);
/* Shard i has a process that takes turns; its pid, else 0. */
int32_t ready_shard_pid(const struct admin *a, unsigned shard);

/* ---- api_lists.c, api_top.c: from the shards */
void api_clients(struct request *r);
void api_client(struct request *r, const char *id);
void api_uids(struct request *r);
void api_groups(struct request *r);
void api_workers(struct request *r);
void api_tables(struct request *r);
void api_check(struct request *r);
void api_top(struct request *r);
/* Filters of clients into the question; *ret_any: at least one. The shards that can have such clients. */
uint64_t api_filters(struct request *r, struct control_request *req, bool *ret_any);
/* The shard that the parameter names, or all. */
uint64_t api_shard(struct request *r);

/* ---- api_orders.c */
void api_close(struct request *r);
void api_kick(struct request *r);
void api_ban(struct request *r);
void api_unban(struct request *r);
void api_drain(struct request *r);
void api_undrain(struct request *r);
void api_evacuate(struct request *r);
void api_rebalance(struct request *r);
void api_log(struct request *r);
void api_reload(struct request *r);
void api_inject(struct request *r);

/* ---- trace.c */
void api_trace(struct request *r);
