// SPDX-License-Identifier: MIT
/* The tables of the shard against each other. A small shard is looked at in one go, which also sees sums; of
 * a large one every part, in slices, while it goes on. */
#include "shard/control_priv.h"

#define WHOLE_MAX    2000 /* clients */
#define STEPS        32
#define PROBLEMS_MAX 20

enum phase { PHASE_BEGIN, PHASE_CLIENTS, PHASE_DIRECTORY, PHASE_UPSTREAM, PHASE_END };

static void found(struct control_job *job, const char *wrong)
{
    if (wrong != NULL && job->n_problems++ < PROBLEMS_MAX)
        json_str(&job->w, wrong);
}

static const char *check_client(const struct shard *s, const struct client *c, uint32_t at)
{
    if (c->up.host_position != at)
        return "a client's position is not its own";
    if (c->dirty_position != 0 && s->dirty[c->dirty_position - 1] != c)
        return "a client's place in the dirty list is not its own";
    if (c->announced != (directory_find(s->host.directory, c->up.member.id) == &c->up.member))
        return "announced, but not in the directory, or the other way round";
    return client_timer_check(c);
}

/* Each true: that part is done. */
static bool check_clients(struct control_job *job)
{
    struct shard *s = job_shard(job);
    for (unsigned steps = 1;; steps++) {
        const struct client *c = job_next_client(job);
        if (c == NULL)
            return true;
        found(job, check_client(s, c, (uint32_t)job->position));
        job->rows++;
        if (steps % STEPS == 0 && job_slice_is_over(job))
            return false;
    }
}

static bool check_directory(struct control_job *job)
{
    do {
        found(job, directory_check_slice(job_shard(job)->host.directory, &job->position, STEPS));
    } while (job->position != 0 && !job_slice_is_over(job));
    return job->position == 0;
}

static bool check_upstream(struct control_job *job)
{
    do {
        found(job, upstream_check(job_shard(job)->upstream, &job->position, STEPS));
    } while (job->position != 0 && !job_slice_is_over(job));
    return job->position == 0;
}

static void begin(struct control_job *job)
{
    struct shard *s = job_shard(job);
    json_begin(&job->w, '{');
    json_member_uint(&job->w, "shard", s->number);
    json_key(&job->w, "problems");
    json_begin(&job->w, '[');
    if (s->n_clients <= WHOLE_MAX)
        found(job, shard_check(s));
}

enum job_state control_check(struct control_job *job)
{
    switch (job->phase) {
    case PHASE_BEGIN:
        begin(job);
        job->position = UINT64_MAX;
        job->phase = PHASE_CLIENTS;
        /* fallthrough */
    case PHASE_CLIENTS:
        if (!check_clients(job))
            return JOB_AGAIN;
        job->position = 0;
        job->phase = PHASE_DIRECTORY;
        /* fallthrough */
    case PHASE_DIRECTORY:
        if (!check_directory(job))
            return JOB_AGAIN;
        job->phase = PHASE_UPSTREAM;
        /* fallthrough */
    case PHASE_UPSTREAM:
        if (!check_upstream(job))
            return JOB_AGAIN;
        job->phase = PHASE_END;
    }
    json_end(&job->w, ']');
    json_member_uint(&job->w, "problems_n", job->n_problems);
    json_member_uint(&job->w, "looked_at", job->rows);
    json_end(&job->w, '}');
    return JOB_DONE;
}
