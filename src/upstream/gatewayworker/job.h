// SPDX-License-Identifier: MIT
/* Commands that touch many clients: sends to all, groups, uids, and queries over sets. Each is a job: read
 * the arguments, take steps until done, finish. A small one runs in one go, on the stack, straight from the
 * read buffer. One that would make a turn long runs as a task in slices, on a copy of its packet; its link
 * executes nothing else meanwhile, so that nothing overtakes it. */
#pragma once

#include "upstream/gatewayworker/gatewayworker_priv.h"

/* A name named twice is one key of the answer. */
bool job_is_new_name(struct seen_set *s, struct slice name);

/* Which clients a job goes to: all, or those of lists, one after the other. */
struct targets {
    bool all;
    struct gw_names groups, uids;
    const uint32_t *ids;
    size_t n_ids;
    const struct gw_id_set *exclude; /* NULL: nobody */
    size_t next_group, next_uid, next_id;
    bool in_set; /* cursor is begun */
    struct member_cursor cursor;
};

struct job;
struct job_kind {
    /* Fill the job from its packet. 0 or -errno: refused. Runs twice for a job that goes in slices. */
    int (*read)(struct job *j, struct gw_args *args);
    /* How many elements it will touch, at most. */
    size_t (*estimate)(const struct job *j);
    /* Some work; looks at job_slice_over now and then. True: done. */
    bool (*step)(struct job *j);
    /* All is done, or the arguments were refused (a query is answered all the same). */
    void (*finish)(struct job *j);
    /* Other shards that it concerns, a bit each. */
    uint64_t (*shards)(const struct job *j);
    enum counter_id sliced; /* counts those that ran in slices */
};

struct job {
    struct loop_task task;
    const struct job_kind *kind;
    struct gatewayworker *gw;
    struct link *link;
    bool sliced;
    unsigned steps;
    struct gw_packet p;
    struct buf *packet;  /* p points into it, when sliced */
    struct gw_args args; /* when sliced */
    struct targets targets;
    /* fan-out */
    uint64_t since_ns;   /* it began; 0: it is not measured */
    uint32_t stands_for; /* so many fan-outs, when it is */
    struct upstream_message message;
    struct bytes scratch;
    /* query */
    struct bytes reply; /* our part of the answer (gather.c), so far */
    uint32_t n_reply;
    struct seen_set seen;
    struct gw_names names; /* uids or groups asked for */
    size_t next_name;
    struct gw_select select;
    struct group_cursor groups;
    bool in_groups;
};

/* Runs the job that l asks for with p, at once or in slices. */
void job_start(struct link *l, const struct gw_packet *p, const struct job_kind *kind);

/* A larger answer is not given (PHP workers take 10 MB); the elements behind it are not collected. */
#define JOB_REPLY_MAX (256 << 20)

/* Time to let the rest of the shard work; asked after every element, cheap. */
static inline bool job_slice_over(struct job *j)
{
    if (j->reply.len > JOB_REPLY_MAX)
        j->reply.failed = true;
    if (!j->sliced || ++j->steps % 64 != 0)
        return false;
    struct upstream_host *host = j->gw->up.host;
    return loop_turn_left_ns(host->loop) == 0 || host->ops->room(host, true) == 0;
}

uint64_t targets_shards(const struct gatewayworker *gw, const struct targets *t);
size_t targets_count(const struct gatewayworker *gw, const struct targets *t);
/* The next client, NULL: no more. */
struct upstream_client *targets_next(struct gatewayworker *gw, struct targets *t);
