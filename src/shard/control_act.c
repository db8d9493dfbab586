// SPDX-License-Identifier: MIT
/* Orders: clients are closed at a given pace, a shard drains, bindings to workers move. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "shard/control_priv.h"

#define STEPS        32
#define PACE_MS      20
#define REASON_MAX   123 /* RFC 6455 section 5.5: 125 bytes with the code */
#define CODE_DEFAULT 1000

/* ---- closing */

/* Those who match, by their ids: they come and go while they are closed. False: the slice is over. */
static bool collect(struct control_job *job)
{
    for (unsigned steps = 1;; steps++) {
        const struct client *c = job_next_client(job);
        if (c == NULL)
            return true;
        if (c->announced && control_matches(job, c)) {
            if (!array_reserve_one(&job->ids, job->n_ids, &job->cap_ids, 256)) {
                job->out.failed = true;
                return true;
            }
            job->ids[job->n_ids++] = c->up.member.id;
        }
        if (steps % STEPS == 0 && job_slice_is_over(job))
            return false;
    }
}

static void close_one(struct control_job *job, uint32_t id)
{
    struct shard *s = job_shard(job);
    struct member *m = directory_find(s->host.directory, id);
    if (m == NULL)
        return; /* it left by itself */
    char why[REASON_MAX + 1] = "";
    const struct control_head *h = &job->req.head;
    struct slice reason = job->req.text[CONTROL_TEXT_REASON];
    if (reason.data != NULL)
        snprintf(why, sizeof why, "%.*s", (int)reason.len, (const char *)reason.data);
    enum close_reason as = h->op == CONTROL_DRAIN ? CLOSE_drained : CLOSE_ordered;
    client_close(client_of(CONTAINER_OF(m, struct upstream_client, member)), as,
                 h->code != 0 ? h->code : CODE_DEFAULT, why[0] != '\0' ? why : NULL);
    shard_count(s, COUNTER_control_closed, 1);
    job->rows++;
}

/* When that one is due: each has a part of the time of its own, and goes in the middle of it, or by `jitter`
 * percent of it sooner or later by chance, so that they do not come back like soldiers. In their order all
 * the same. */
static uint64_t due_ms(const struct control_job *job, uint32_t i)
{
    double part_ms = (double)job->req.head.seconds * 1000 / (double)job->n_ids;
    double chance = (double)shard_random(job_shard(job)) / (double)(UINT32_C(1) << 31);
    double off = (chance - 0.5) * job->req.head.jitter / 100;
    return (uint64_t)(part_ms * (i + 0.5 + off));
}

static enum job_state close_due(struct control_job *job)
{
    struct shard *s = job_shard(job);
    uint64_t passed_ms = loop_now_ms(s->host.loop) - job->begin_ms;
    while (job->done_ids < job->n_ids) {
        if (job->due_of != job->done_ids + 1) {
            job->due_of = job->done_ids + 1;
            job->due_ms = due_ms(job, job->done_ids);
        }
        if (job->due_ms > passed_ms)
            return job_waits(job, job->due_ms - passed_ms < PACE_MS ? job->due_ms - passed_ms : PACE_MS);
        close_one(job, job->ids[job->done_ids++]);
        /* What they have to be told has to be written, too. */
        if (job->done_ids % STEPS == 0 && (job_slice_is_over(job) || client_room(&s->host, true) == 0))
            return JOB_AGAIN;
    }
    return JOB_DONE;
}

static void say_closed(struct control_job *job, uint32_t closed, uint32_t closing)
{
    json_begin(&job->w, '{');
    json_member_uint(&job->w, "closed", closed);
    json_member_uint(&job->w, "closing", closing);
    json_end(&job->w, '}');
}

static enum job_state too_many(struct control_job *job)
{
    return job_fails(job, -EBUSY, "too many orders go on for a time already");
}

/* All of them: collected, then closed one after the other. */
static enum job_state close_all(struct control_job *job)
{
    if (job->begin_ms == 0) {
        if (!collect(job))
            return JOB_AGAIN;
        job->begin_ms = loop_now_ms(job_shard(job)->host.loop);
        if (!job->is_said && job->req.head.seconds > 0) {
            say_closed(job, 0, job->n_ids);
            if (!job_goes_on_aside(job))
                return too_many(job);
        }
    }
    return close_due(job);
}

enum job_state control_close(struct control_job *job)
{
    if (!job->begun)
        job->position = UINT64_MAX;
    job->begun = true;
    enum job_state state = close_all(job);
    if (state == JOB_DONE && job->reply.status == 0) {
        LOG(LOG_NOTICE, "closed_by_order", "clients=%u", job->rows);
        say_closed(job, job->rows, 0);
    }
    return state;
}

/* ---- draining */

static bool begin_drain(struct control_job *job)
{
    struct shard *s = job_shard(job);
    job->begun = true;
    job->position = UINT64_MAX;
    json_begin(&job->w, '{');
    json_member_uint(&job->w, "clients", s->n_clients);
    json_end(&job->w, '}');
    if (!job_goes_on_aside(job))
        return false;
    job->drain = ++s->drains; /* one that goes on already ends */
    if (s->drained == NODE_NOT_DRAINED)
        shard_set_drained(s, NODE_DRAINED);
    LOG(LOG_NOTICE, "drain_begins", "clients=%u over_s=%u", s->n_clients, job->req.head.seconds);
    return true;
}

enum job_state control_drain(struct control_job *job)
{
    struct shard *s = job_shard(job);
    if (!job->begun && !begin_drain(job))
        return too_many(job);
    bool goes_on = s->drained != NODE_NOT_DRAINED &&
                   s->drains == job->drain; /* it was not taken back, nor ordered anew */
    enum job_state state = goes_on ? close_all(job) : JOB_DONE;
    if (state == JOB_DONE)
        LOG(LOG_NOTICE, "drain_ended", "closed=%u", job->rows);
    return state;
}

enum job_state control_undrain(struct control_job *job)
{
    struct shard *s = job_shard(job);
    if (s->drained == NODE_DRAINED) { /* one that was evacuated has no ids to give until it is brought back */
        shard_set_drained(s, NODE_NOT_DRAINED);
        LOG(LOG_NOTICE, "undrained", "shard=%u", s->number);
    }
    json_begin(&job->w, '{');
    json_end(&job->w, '}');
    return JOB_DONE;
}

/* ---- workers */

enum job_state control_worker(struct control_job *job)
{
    bool on = (job->req.head.flags & CONTROL_ON) != 0;
    struct slice key = job->req.text[CONTROL_TEXT_WORKER];
    if (key.data == NULL)
        return job_fails(job, -EINVAL, "no worker given");
    int err = upstream_drain_worker(job_shard(job)->upstream, key, on, job->req.head.seconds * 1000);
    if (err != 0)
        return job_fails(job, err, err == -ENOENT ? "no such worker" : strerror(-err));
    json_begin(&job->w, '{');
    json_end(&job->w, '}');
    return JOB_DONE;
}

enum job_state control_rebalance(struct control_job *job)
{
    uint32_t n = upstream_rebalance(job_shard(job)->upstream, job->req.head.seconds * 1000);
    json_begin(&job->w, '{');
    json_member_uint(&job->w, "moved", n);
    json_end(&job->w, '}');
    return JOB_DONE;
}

/* ---- errors on purpose */

#ifdef TGG_INJECT

#define STUCK_NS       UINT64_C(3600000000000)
#define SLOW_TURN_NS   UINT64_C(200000000)
#define WITHOUT_MEMORY 10

static unsigned clients_without_memory;

bool control_injects_no_memory(void)
{
    return clients_without_memory > 0 && clients_without_memory-- > 0;
}

static void spin(struct shard *s, uint64_t ns)
{
    uint64_t until = loop_clock_ns(s->host.loop) + ns;
    while (loop_clock_ns(s->host.loop) < until)
        continue;
}

static void crash(struct shard *s)
{
    int *volatile nowhere = NULL;
    *nowhere = 0;
}

static void end_by_abort(struct shard *s)
{
    abort();
}

static void get_stuck(struct shard *s)
{
    spin(s, STUCK_NS);
}

static void turn_slowly(struct shard *s)
{
    spin(s, SLOW_TURN_NS);
}

static void have_no_memory(struct shard *s)
{
    clients_without_memory = WITHOUT_MEMORY;
}

static const struct {
    const char *name;
    void (*inject)(struct shard *s);
} errors[] = {
    {"crash", crash},           {"abort", end_by_abort},       {"stuck", get_stuck},
    {"slow_turn", turn_slowly}, {"no_memory", have_no_memory},
};

enum job_state control_inject(struct control_job *job)
{
    struct slice name = job->req.text[CONTROL_TEXT_NAME];
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (!slice_eq_str(name, errors[i].name))
            continue;
        json_begin(&job->w, '{');
        json_end(&job->w, '}');
        if (!job_goes_on_aside(job))
            return too_many(job);
        LOG(LOG_WARN, "injected", "name=%s", errors[i].name);
        errors[i].inject(job_shard(job));
        return JOB_DONE;
    }
    return job_fails(job, -EINVAL, "no such error; expected crash, abort, stuck, slow_turn or no_memory");
}

#else

enum job_state control_inject(struct control_job *job)
{
    return job_fails(job, -ENOSYS, "this build injects no errors; build with -Dinject=true");
}

#endif
