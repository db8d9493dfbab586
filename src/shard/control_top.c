// SPDX-License-Identifier: MIT
/* Who has most of something: the clients that talk or are told most over a time, those for whom most waits,
 * the largest groups and uids. All are looked at once, in slices; the best so far stand in a small array, the
 * largest first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shard/census.h"
#include "shard/control_priv.h"

#define STEPS       32
#define SECONDS_MAX 10

static bool is_census(uint8_t by)
{
    return by <= CONTROL_BY_BYTES_OUT;
}

static bool is_names(uint8_t by)
{
    return by == CONTROL_BY_GROUPS || by == CONTROL_BY_UIDS;
}

void control_top_free(struct control_job *job)
{
    for (uint32_t i = 0; i < job->n_top; i++)
        free(job->top[i].name);
    free(job->top);
    if (job->census != NULL)
        census_end(job_shard(job), job->census);
}

/* The place for that value, made free; NULL: it is too small. */
static struct top_entry *place_for(struct control_job *job, uint64_t value)
{
    uint32_t limit = job_limit(job), at = job->n_top;
    if (value == 0 || (at == limit && job->top[at - 1].value >= value))
        return NULL;
    if (at == limit)
        free(job->top[--at].name);
    while (at > 0 && job->top[at - 1].value < value)
        at--;
    uint32_t n = job->n_top < limit ? job->n_top : limit - 1;
    memmove(&job->top[at + 1], &job->top[at], (n - at) * sizeof *job->top);
    job->n_top = n + 1;
    job->top[at] = (struct top_entry){.value = value};
    return &job->top[at];
}

/* One that moved to another place while we were looking was seen before. */
static bool is_there(const struct control_job *job, uint32_t id)
{
    for (uint32_t i = 0; i < job->n_top; i++)
        if (job->top[i].id == id)
            return true;
    return false;
}

static uint64_t value_of(const struct control_job *job, const struct client *c)
{
    if (job->census == NULL)
        return c->out_bytes;
    const struct census_row *row = census_row(job->census, c);
    if (row == NULL)
        return 0;
    switch (job->req.head.by) {
    case CONTROL_BY_MESSAGES_IN: return row->messages_in;
    case CONTROL_BY_BYTES_IN: return row->bytes_in;
    case CONTROL_BY_MESSAGES_OUT: return row->messages_out;
    default: return row->bytes_out;
    }
}

/* False: this slice is over. */
static bool look_at_clients(struct control_job *job)
{
    for (unsigned steps = 1;; steps++) {
        const struct client *c = job_next_client(job);
        if (c == NULL)
            return true;
        uint64_t value = c->announced ? value_of(job, c) : 0;
        struct top_entry *e = value > 0 && !is_there(job, c->up.member.id) ? place_for(job, value) : NULL;
        if (e != NULL)
            e->id = c->up.member.id;
        if (steps % STEPS == 0 && job_slice_is_over(job))
            return false;
    }
}

static bool look_at_names(struct control_job *job)
{
    enum directory_names which = job->req.head.by == CONTROL_BY_UIDS ? DIRECTORY_UIDS : DIRECTORY_GROUPS;
    uint32_t position = (uint32_t)job->position, clients;
    const uint8_t *name;
    size_t len;
    bool more = true;
    for (unsigned steps = 1; more; steps++) {
        more = directory_next_name(job_shard(job)->host.directory, which, &position, &name, &len, &clients);
        if (!more)
            break;
        struct top_entry *e = name != NULL ? place_for(job, clients) : NULL;
        if (e != NULL && (e->name = malloc(CONTROL_NAME_MAX)) != NULL) { /* more is not shown */
            e->name_len = len < CONTROL_NAME_MAX ? (uint32_t)len : CONTROL_NAME_MAX;
            memcpy(e->name, name, e->name_len);
        }
        if ((name == NULL || steps % STEPS == 0) && job_slice_is_over(job))
            break;
    }
    job->position = position;
    return !more;
}

static void write_entry(struct control_job *job, const struct top_entry *e)
{
    struct shard *s = job_shard(job);
    struct json_writer *w = &job->w;
    if (is_names(job->req.head.by)) {
        json_begin(w, '{');
        json_member_string(w, "name", e->name, e->name_len, CONTROL_NAME_MAX);
        json_member_uint(w, "clients", e->value);
        json_end(w, '}');
        return;
    }
    struct member *m = directory_find(s->host.directory, e->id);
    if (m == NULL)
        return; /* gone meanwhile */
    uint64_t seconds = is_census(job->req.head.by) ? job->req.head.seconds : 1;
    json_begin(w, '{');
    control_write_client_members(s, client_of(CONTAINER_OF(m, struct upstream_client, member)), w, false);
    json_member_uint(w, "value", e->value / seconds);
    json_end(w, '}');
}

static int begin(struct control_job *job)
{
    struct control_head *h = &job->req.head;
    job->begun = true;
    if (h->seconds == 0)
        h->seconds = 1;
    if (h->seconds > SECONDS_MAX)
        h->seconds = SECONDS_MAX;
    job->top = calloc(job_limit(job), sizeof *job->top);
    if (job->top == NULL)
        return -ENOMEM;
    return is_census(h->by) ? census_begin(job_shard(job), &job->census) : 0;
}

enum job_state control_top(struct control_job *job)
{
    uint8_t by = job->req.head.by;
    if (!job->begun) {
        int err = begin(job);
        if (err != 0)
            return job_fails(job, err, err == -EBUSY ? "too many ask who talks most" : "no memory");
        job->position = is_names(by) ? 0 : UINT64_MAX;
        if (is_census(by))
            return job_waits(job, job->req.head.seconds * 1000);
    }
    if (!(is_names(by) ? look_at_names(job) : look_at_clients(job)))
        return JOB_AGAIN;
    for (uint32_t i = 0; i < job->n_top && job_has_room(job, CONTROL_ROW_MAX); i++)
        write_entry(job, &job->top[i]);
    return JOB_DONE;
}
