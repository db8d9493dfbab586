// SPDX-License-Identifier: MIT
#include "shard/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "shard/control_priv.h"
#include "shard/trace.h"

/* Requests read in one turn. */
#define READS_MAX 8
/* An answer for which there is no room: how often and how many times it is tried again. */
#define RETRY_MS  10
#define TRIES_MAX 500
/* Texts of one request, together. */
#define TEXTS_MAX (CONTROL_MESSAGE_MAX - sizeof(struct control_head))

static enum job_state start_trace(struct control_job *job)
{
    int err = trace_begin(job_shard(job), job->control->fd, &job->req);
    if (err != 0)
        return job_fails(job, err, err == -EBUSY ? "too many traces at once" : "no memory");
    job->is_said = true; /* the trace itself answers */
    return JOB_DONE;
}

static enum job_state end_trace(struct control_job *job)
{
    trace_end(job_shard(job), (uint32_t)job->req.head.cursor);
    return JOB_DONE;
}

static enum job_state (*const operations[CONTROL_OP_N])(struct control_job *job) = {
    [CONTROL_CLIENTS] = control_list_clients,
    [CONTROL_UIDS] = control_list_names,
    [CONTROL_GROUPS] = control_list_names,
    [CONTROL_TOP] = control_top,
    [CONTROL_WORKERS] = control_list_workers,
    [CONTROL_LISTENERS] = control_list_listeners,
    [CONTROL_TABLES] = control_list_tables,
    [CONTROL_CLIENT] = control_show_client,
    [CONTROL_CHECK] = control_check,
    [CONTROL_CLOSE] = control_close,
    [CONTROL_DRAIN] = control_drain,
    [CONTROL_UNDRAIN] = control_undrain,
    [CONTROL_WORKER] = control_worker,
    [CONTROL_REBALANCE] = control_rebalance,
    [CONTROL_TRACE] = start_trace,
    [CONTROL_TRACE_END] = end_trace,
    [CONTROL_INJECT] = control_inject,
};

/* ---- what jobs may use */

uint32_t job_limit(const struct control_job *job)
{
    uint32_t limit = job->req.head.limit;
    return limit == 0 || limit > CONTROL_ROWS_MAX ? CONTROL_ROWS_MAX : limit;
}

bool job_slice_is_over(const struct control_job *job)
{
    struct loop *loop = job_shard(job)->host.loop;
    return loop_clock_ns(loop) >= job->slice_ends_ns;
}

enum job_state job_fails(struct control_job *job, int err, const char *why)
{
    job->reply.status = err;
    bytes_clear(&job->out);
    job->w = (struct json_writer){.out = &job->out};
    json_begin(&job->w, '{');
    json_member_str(&job->w, "error", why);
    json_end(&job->w, '}');
    return JOB_DONE;
}

static void on_timer(struct timer *t)
{
    struct control_job *job = CONTAINER_OF(t, struct control_job, timer);
    loop_task_add(job_shard(job)->host.loop, &job->task);
}

enum job_state job_waits(struct control_job *job, uint64_t delay_ms)
{
    timer_set(job_shard(job)->host.loop, &job->timer, delay_ms, on_timer);
    return JOB_WAITS;
}

/* ---- answers */

static void job_free(struct control_job *job)
{
    struct control *c = job->control;
    loop_task_remove(c->shard->host.loop, &job->task);
    timer_cancel(c->shard->host.loop, &job->timer);
    list_remove(&job->node);
    if (job->is_paced)
        c->n_paced--;
    else
        c->n_jobs--;
    control_top_free(job);
    bytes_fini(&job->out);
    free(job->ids);
    free(job);
}

/* 0; -EAGAIN: not now. */
static int send_answer(struct control_job *job)
{
    if (job->out.failed)
        job_fails(job, -ENOMEM, "no memory");
    int r = control_reply(job->control->fd, &job->reply, job->out.data, job->out.len);
    if (r == -EMSGSIZE) {
        job_fails(job, -EMSGSIZE, "the answer is too long");
        r = control_reply(job->control->fd, &job->reply, job->out.data, job->out.len);
    }
    return r == -EAGAIN ? r : 0;
}

static void on_retry(struct timer *t)
{
    struct control *c = CONTAINER_OF(t, struct control, retry);
    bool again = false;
    for (struct list *n = c->jobs.next, *next; n != &c->jobs; n = next) {
        struct control_job *job = CONTAINER_OF(n, struct control_job, node);
        next = n->next;
        if (!job->to_send)
            continue;
        if (send_answer(job) == 0 || ++job->tries >= TRIES_MAX)
            job_free(job);
        else
            again = true;
    }
    if (again)
        timer_set(c->shard->host.loop, t, RETRY_MS, on_retry);
}

bool job_goes_on_aside(struct control_job *job)
{
    struct control *c = job->control;
    if (c->n_paced >= CONTROL_PACED_MAX)
        return false;
    (void)send_answer(job); /* it is the order that counts */
    bytes_clear(&job->out);
    job->is_said = job->is_paced = true;
    c->n_jobs--;
    c->n_paced++;
    return true;
}

static void job_done(struct control_job *job)
{
    struct control *c = job->control;
    if (job->is_said || send_answer(job) == 0) {
        job_free(job);
        return;
    }
    job->to_send = true;
    if (!timer_is_set(&c->retry))
        timer_set(c->shard->host.loop, &c->retry, RETRY_MS, on_retry);
}

static bool run_job(struct loop_task *task)
{
    struct control_job *job = CONTAINER_OF(task, struct control_job, task);
    if (job_shard(job)->held) {
        job_waits(job, SHARD_HELD_MS);
        return true;
    }
    job->slice_ends_ns = loop_clock_ns(job_shard(job)->host.loop) + CONTROL_SLICE_NS;
    enum job_state state = job->run(job);
    if (state == JOB_DONE)
        job_done(job);
    return state != JOB_AGAIN;
}

/* ---- requests */

static void refuse(struct control *c, uint32_t id, int err)
{
    struct control_reply reply = {.id = id, .status = err};
    shard_count(c->shard, COUNTER_control_refused, 1);
    (void)control_reply(c->fd, &reply, NULL, 0);
}

static struct control_job *job_new(struct control *c, const struct control_request *req)
{
    size_t len = 0;
    for (unsigned i = 0; i < CONTROL_TEXT_N; i++)
        len += req->text[i].len;
    struct control_job *job = calloc(1, sizeof *job + len);
    if (job == NULL)
        return NULL;
    uint8_t *texts = (uint8_t *)(job + 1);
    job->req = *req;
    for (unsigned i = 0; i < CONTROL_TEXT_N; i++) {
        if (req->text[i].data == NULL)
            continue;
        if (req->text[i].len > 0)
            memcpy(texts, req->text[i].data, req->text[i].len);
        job->req.text[i].data = texts;
        texts += req->text[i].len;
    }
    job->control = c;
    job->run = operations[req->head.op];
    job->task.run = run_job;
    job->reply.id = req->head.id;
    job->w.out = &job->out;
    list_append(&c->jobs, &job->node);
    c->n_jobs++;
    return job;
}

/* Whatever else is under way: it takes no place among the jobs. */
static void hello(struct control *c, uint32_t id)
{
    struct control_reply reply = {.id = id};
    c->is_greeted = true;
    trace_end_all(c->shard);
    (void)control_reply(c->fd, &reply, NULL, 0);
}

static void on_request(struct control *c, const struct control_request *req)
{
    shard_count(c->shard, COUNTER_control_requests, 1);
    if (req->head.op == CONTROL_HELLO) {
        hello(c, req->head.id);
        return;
    }
    if (!c->is_greeted) { /* it was for a predecessor of ours, who has died */
        refuse(c, req->head.id, -ECONNRESET);
        return;
    }
    if (operations[req->head.op] == NULL) {
        refuse(c, req->head.id, -ENOSYS);
        return;
    }
    struct control_job *job = c->n_jobs < CONTROL_PENDING_MAX ? job_new(c, req) : NULL;
    if (job == NULL)
        refuse(c, req->head.id, c->n_jobs < CONTROL_PENDING_MAX ? -ENOMEM : -EBUSY);
    else
        loop_task_add(c->shard->host.loop, &job->task);
}

static void on_readable(struct net_watch *w)
{
    struct control *c = CONTAINER_OF(w, struct control, watch);
    struct control_request req;
    for (unsigned i = 0; i < READS_MAX; i++) {
        int r = control_receive(c->fd, c->message, &req);
        if (r == 0) {
            on_request(c, &req);
        } else if (r == -EBADMSG) {
            shard_count(c->shard, COUNTER_control_refused, 1);
            LOG(LOG_WARN, "control_bad_request", "note=\"a request of the admin process makes no sense\"");
        } else {
            if (r != -EAGAIN) /* the supervisor and the admin process are gone */
                net_epoll_watch_remove(c->net, w);
            return;
        }
    }
}

struct control *control_new(struct shard *s, struct net *net, int fd, int *ret_err)
{
    struct control *c = calloc(1, sizeof *c);
    uint8_t *message = malloc(CONTROL_MESSAGE_MAX);
    *ret_err = -ENOMEM;
    if (c != NULL && message != NULL) {
        c->shard = s;
        c->net = net;
        c->fd = fd;
        c->message = message;
        c->watch.readable = on_readable;
        list_init(&c->jobs);
        *ret_err = net_epoll_watch_add(net, &c->watch, fd);
    }
    if (*ret_err == 0)
        return c;
    free(message);
    free(c);
    return NULL;
}

void control_free(struct control *c)
{
    if (c == NULL)
        return;
    trace_end_all(c->shard);
    while (!list_is_empty(&c->jobs))
        job_free(CONTAINER_OF(c->jobs.next, struct control_job, node));
    timer_cancel(c->shard->host.loop, &c->retry);
    net_epoll_watch_remove(c->net, &c->watch);
    free(c->message);
    free(c);
}
