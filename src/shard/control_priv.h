// SPDX-License-Identifier: MIT
/* How requests of the admin process are worked on: each is a job, a task of the loop, whose function is
 * called in slices until it says that it is done; then its answer is sent and it is gone.
 *
 *   control.c         requests in, answers out, the jobs
 *   control_list.c    lists and single clients
 *   control_top.c     who has most
 *   control_act.c     closing, draining
 *   control_check.c   the tables against each other
 *   trace.c           what clients do, as it happens
 */
#pragma once

#include "base/json_writer.h"
#include "common/control.h"
#include "net/net_epoll.h"
#include "shard/shard_priv.h"

/* A listing must not be seen by those who send and receive beside it. */
#define CONTROL_SLICE_NS UINT64_C(500000)

struct control {
    struct shard *shard;
    struct net *net;
    int fd;
    struct net_watch watch;
    struct list jobs;
    unsigned n_jobs;    /* that somebody waits for */
    unsigned n_paced;   /* orders that go on for a time, without anybody waiting */
    struct timer retry; /* answers found no room */
    uint8_t *message;   /* CONTROL_MESSAGE_MAX */
    bool is_greeted;    /* CONTROL_HELLO has come: what follows is for us */
};

enum job_state {
    JOB_AGAIN, /* it has more to do: in the next turn */
    JOB_WAITS, /* its timer is set */
    JOB_DONE,  /* reply and out are what is to be said */
};

struct control_job {
    struct list node; /* in control->jobs */
    struct loop_task task;
    struct timer timer;
    struct control *control;
    struct control_request req; /* its texts are in the job's own memory */
    enum job_state (*run)(struct control_job *job);
    bool is_said;  /* nobody waits for an answer */
    bool is_paced; /* in n_paced */
    bool to_send;  /* the answer found no room yet */
    unsigned tries;
    uint64_t slice_ends_ns;
    struct control_reply reply;
    struct bytes out;
    struct json_writer w;
    /* What the operations keep between slices. */
    bool begun;
    uint64_t position;
    uint32_t rows; /* written, looked at */
    uint32_t *ids; /* control_act.c: to be closed */
    uint32_t n_ids, cap_ids, done_ids;
    uint32_t due_of; /* due_ms is that of this one, plus 1 */
    uint64_t due_ms; /* after begin_ms */
    uint32_t drain;  /* which drain it is */
    uint64_t begin_ms;
    struct top_entry *top; /* control_top.c */
    struct census *census; /* NULL: it counts nothing */
    uint32_t n_top;
    unsigned phase, n_problems; /* control_check.c */
};

static inline struct shard *job_shard(const struct control_job *job)
{
    return job->control->shard;
}
/* Clients one after the other, downwards, so that nobody who stays is missed: the place of one who leaves is
 * taken by the last, who was there already (and then comes twice). *position: how many are left, more than
 * there are to begin with. NULL: that was the last. */
static inline struct client *control_next_client(const struct shard *s, uint64_t *position)
{
    if (*position > s->n_clients)
        *position = s->n_clients;
    return *position == 0 ? NULL : s->clients[--*position];
}
static inline struct client *job_next_client(struct control_job *job)
{
    return control_next_client(job_shard(job), &job->position);
}
static inline bool job_has_text(const struct control_job *job, enum control_text text)
{
    return job->req.text[text].data != NULL;
}
/* Rows that its answer may have. */
uint32_t job_limit(const struct control_job *job);
/* This slice is over; reads the clock. */
bool job_slice_is_over(const struct control_job *job);
/* The job ends with an error. */
enum job_state job_fails(struct control_job *job, int err, const char *why);
/* What is to be said is said now; the job goes on without anybody waiting for it. False: CONTROL_PACED_MAX do
 * so already; nothing was said. */
bool job_goes_on_aside(struct control_job *job);
/* Again after that time. */
enum job_state job_waits(struct control_job *job, uint64_t delay_ms);
/* The answer has room for another row of up to `row` bytes. */
static inline bool job_has_room(const struct control_job *job, size_t row)
{
    return job->out.len + row <= CONTROL_JSON_MAX;
}

/* ---- control_list.c */
#define CONTROL_ROW_MAX 8192 /* bytes of JSON: four names of CONTROL_NAME_MAX, each byte up to six */
/* a is within the first `bits` of prefix. */
bool control_is_within(const struct net_addr *a, const struct net_addr *prefix, unsigned bits);
/* Whether c is one of those that the request is about. */
bool control_matches(const struct control_job *job, const struct client *c);
void control_write_client(struct shard *s, const struct client *c, struct json_writer *w, bool full);
/* The members of such a row, for objects that have others too. */
void control_write_client_members(struct shard *s, const struct client *c, struct json_writer *w, bool full);
enum job_state control_list_clients(struct control_job *job);
enum job_state control_list_names(struct control_job *job);
enum job_state control_list_workers(struct control_job *job);
enum job_state control_list_listeners(struct control_job *job);
enum job_state control_list_tables(struct control_job *job);
enum job_state control_show_client(struct control_job *job);

/* ---- control_top.c */
struct top_entry {
    uint64_t value;
    uint32_t id;   /* of a client */
    uint8_t *name; /* of a uid or group; NULL: a client */
    uint32_t name_len;
};
enum job_state control_top(struct control_job *job);
void control_top_free(struct control_job *job);

/* ---- control_act.c */
enum job_state control_close(struct control_job *job);
enum job_state control_drain(struct control_job *job);
enum job_state control_undrain(struct control_job *job);
enum job_state control_worker(struct control_job *job);
enum job_state control_rebalance(struct control_job *job);
enum job_state control_inject(struct control_job *job);

/* ---- control_check.c */
enum job_state control_check(struct control_job *job);
