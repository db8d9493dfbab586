// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"

/* Elements of a query that are looked at in one go. */
#define QUERY_AT_ONCE 1000
/* A fan-out to fewer is measured once in so many times. */
#define FANOUT_SHORT  32
#define FANOUT_SAMPLE 16

/* ---- seen_set: open addressing, at most half full */

static bool seen_set_grow(struct seen_set *s)
{
    size_t cap = s->cap == 0 ? 64 : s->cap * 2;
    uint64_t *slots = calloc(cap, sizeof *slots);
    if (slots == NULL)
        return false;
    for (size_t i = 0; i < s->cap; i++) {
        size_t at = (s->slots[i] * UINT64_C(0x9E3779B97F4A7C15)) >> 20;
        if (s->slots[i] == 0)
            continue;
        while (slots[at & (cap - 1)] != 0)
            at++;
        slots[at & (cap - 1)] = s->slots[i];
    }
    free(s->slots);
    s->slots = slots;
    s->cap = cap;
    return true;
}

bool seen_set_add(struct seen_set *s, uint64_t v)
{
    if (s->n * 2 >= s->cap && !seen_set_grow(s) && s->n + 1 >= s->cap)
        return true;
    size_t at = (v * UINT64_C(0x9E3779B97F4A7C15)) >> 20;
    for (; s->slots[at & (s->cap - 1)] != 0; at++)
        if (s->slots[at & (s->cap - 1)] == v)
            return false;
    s->slots[at & (s->cap - 1)] = v;
    s->n++;
    return true;
}

bool seen_set_has(const struct seen_set *s, uint64_t v)
{
    size_t at = (v * UINT64_C(0x9E3779B97F4A7C15)) >> 20;
    for (; s->cap > 0 && s->slots[at & (s->cap - 1)] != 0; at++)
        if (s->slots[at & (s->cap - 1)] == v)
            return true;
    return false;
}

void seen_set_fini(struct seen_set *s)
{
    free(s->slots);
    *s = (struct seen_set){0};
}

bool job_is_new_name(struct seen_set *s, struct slice name)
{
    uint64_t h = hash_bytes(name.data, name.len);
    return seen_set_add(s, h != 0 ? h : 1);
}

/* ---- targets */

uint64_t targets_shards(const struct gatewayworker *gw, const struct targets *t)
{
    uint64_t found = 0;
    if (t->all)
        return peers_with_members(gw);
    for (size_t i = 0; i < t->groups.n; i++)
        found |= peers_with_group(gw, t->groups.items[i]);
    for (size_t i = 0; i < t->uids.n; i++)
        found |= peers_with_uid(gw, t->uids.items[i]);
    for (size_t i = 0; i < t->n_ids; i++)
        if (gw_shard_of(gw, t->ids[i]) < gw->n_shards)
            found |= UINT64_C(1) << gw_shard_of(gw, t->ids[i]);
    return found & ~(UINT64_C(1) << gw->me);
}

size_t targets_count(const struct gatewayworker *gw, const struct targets *t)
{
    const struct directory *d = gw->up.host->directory;
    size_t n = t->n_ids;
    if (t->all)
        return directory_count(d);
    for (size_t i = 0; i < t->groups.n; i++)
        n += 1 + directory_group_count(d, t->groups.items[i].data, t->groups.items[i].len);
    for (size_t i = 0; i < t->uids.n; i++)
        n += 1 + directory_uid_count(d, t->uids.items[i].data, t->uids.items[i].len);
    return n;
}

/* Begins the next of the sets. False: there is none. */
static bool begin_set(struct directory *d, struct targets *t)
{
    if (t->all) {
        t->all = false;
        directory_all_begin(d, &t->cursor);
    } else if (t->next_group < t->groups.n) {
        struct slice name = t->groups.items[t->next_group++];
        directory_group_begin(d, name.data, name.len, &t->cursor);
    } else if (t->next_uid < t->uids.n) {
        struct slice uid = t->uids.items[t->next_uid++];
        directory_uid_begin(d, uid.data, uid.len, &t->cursor);
    } else {
        return false;
    }
    t->in_set = true;
    return true;
}

static void end_set(struct directory *d, struct targets *t)
{
    if (t->in_set)
        member_cursor_end(d, &t->cursor);
    t->in_set = false;
}

static struct member *next_of_ids(struct directory *d, struct targets *t)
{
    while (t->next_id < t->n_ids) {
        struct member *m = directory_find(d, t->ids[t->next_id++]);
        if (m != NULL)
            return m;
    }
    return NULL;
}

static struct member *next_member(struct directory *d, struct targets *t)
{
    while (t->in_set || begin_set(d, t)) {
        struct member *m = member_cursor_next(&t->cursor);
        if (m != NULL)
            return m;
        end_set(d, t);
    }
    return next_of_ids(d, t);
}

struct upstream_client *targets_next(struct gatewayworker *gw, struct targets *t)
{
    struct member *m;
    do {
        m = next_member(gw->up.host->directory, t);
    } while (m != NULL && t->exclude != NULL && gw_id_set_has(t->exclude, m->id));
    return m != NULL ? CONTAINER_OF(m, struct upstream_client, member) : NULL;
}

/* ---- running */

static void job_fini(struct job *j)
{
    loop_task_remove(j->gw->up.host->loop, &j->task);
    end_set(j->gw->up.host->directory, &j->targets);
    if (j->in_groups)
        group_cursor_end(&j->groups);
    upstream_message_fini(&j->message);
    bytes_fini(&j->scratch);
    bytes_fini(&j->reply);
    seen_set_fini(&j->seen);
    gw_args_fini(&j->args);
    buf_unref(j->packet);
}

void job_free(struct job *j)
{
    job_fini(j);
    free(j);
}

static bool job_run_slice(struct loop_task *task)
{
    struct job *j = CONTAINER_OF(task, struct job, task);
    struct link *l = j->link;
    if (!j->kind->step(j))
        return false;
    j->kind->finish(j);
    l->job = NULL;
    job_free(j);
    link_continue(l);
    return true;
}

/* p's bytes as they came: head, ext and body stand behind each other. */
static struct buf *copy_packet(const struct gw_packet *p)
{
    struct buf *b = buf_new(p->pack_len);
    if (b == NULL)
        return NULL;
    memcpy(b->data, p->ext.data - GW_HEAD_LEN, p->pack_len);
    b->len = p->pack_len;
    return b;
}

/* The same job again, on memory of its own. NULL: no memory for that. */
static struct job *job_sliced(const struct job *small)
{
    struct job *j = calloc(1, sizeof *j);
    struct buf *packet = j != NULL ? copy_packet(&small->p) : NULL;
    if (packet == NULL) {
        free(j);
        return NULL;
    }
    j->kind = small->kind;
    j->gw = small->gw;
    j->link = small->link;
    j->sliced = true;
    j->packet = packet;
    j->task.run = job_run_slice;
    if (gw_packet_decode(packet->data, packet->len, packet->len, &j->p) > 0 &&
        j->kind->read(j, &j->args) == 0)
        return j;
    job_free(j);
    return NULL;
}

static bool is_query(const struct job_kind *kind)
{
    return kind->sliced == COUNTER_queries_sliced;
}

static size_t at_once(const struct job *j)
{
    struct upstream_host *host = j->gw->up.host;
    return is_query(j->kind) ? QUERY_AT_ONCE : host->ops->room(host, true);
}

/* The other shards do their part meanwhile. */
static void scatter(struct job *j)
{
    struct link *l = j->link;
    uint64_t shards = l->is_stand_in || gw_is_alone(j->gw) ? 0 : j->kind->shards(j);
    uint32_t question = 0;
    if (shards != 0 && is_query(j->kind)) {
        l->gather = gather_new(l, &j->p, shards | UINT64_C(1) << j->gw->me);
        if (l->gather == NULL) {
            command_refused(l, &j->p, "no memory to ask the other shards");
            return;
        }
        question = gather_question(l->gather);
    }
    peers_send_command(l, shards, question, &j->p);
}

/* Long ones all; of short ones, which cost little more than looking at the clock, some for all. */
static void measure(struct job *j, size_t estimate)
{
    bool is_short = estimate < FANOUT_SHORT;
    if (is_short && ++j->gw->n_fanouts % FANOUT_SAMPLE != 0)
        return;
    j->since_ns = loop_clock_ns(j->gw->up.host->loop);
    j->stands_for = is_short ? FANOUT_SAMPLE : 1;
}

void job_start(struct link *l, const struct gw_packet *p, const struct job_kind *kind)
{
    struct job small = {.kind = kind, .gw = l->gw, .link = l, .p = *p};
    int err = kind->read(&small, &l->gw->args);
    if (err != 0)
        command_refused(l, p,
                        err == -ENOMEM ? "no memory" : "ext_data is not the JSON that this command takes");
    struct job *big = NULL;
    size_t estimate = err == 0 ? kind->estimate(&small) : 0;
    if (err == 0 && !is_query(kind))
        measure(&small, estimate);
    if (err == 0)
        scatter(&small);
    if (err == 0 && estimate > at_once(&small))
        big = job_sliced(&small);
    if (big != NULL) {
        big->since_ns = small.since_ns;
        big->stands_for = small.stands_for;
        gw_count(l->gw, kind->sliced, 1);
        l->job = big;
        loop_task_add(l->gw->up.host->loop, &big->task);
    } else {
        /* Without memory for a copy it runs in one go: a long turn is better than a lost message. */
        while (err == 0 && !kind->step(&small)) {
        }
        kind->finish(&small);
    }
    job_fini(&small);
}

/* ---- sends to many */

static int fanout_read(struct job *j, struct gw_args *args)
{
    struct targets *t = &j->targets;
    struct gw_send_to_all all;
    struct gw_send_to_group group;
    int err;
    switch (j->p.cmd) {
    case GW_CMD_SEND_TO_ALL:
        if ((err = gw_read_send_to_all(args, j->p.ext, &all)) != 0)
            return err;
        t->all = !all.has_connections;
        t->ids = all.connections;
        t->n_ids = all.n_connections;
        t->exclude = all.has_connections ? NULL : all.exclude;
        break;
    case GW_CMD_SEND_TO_GROUP:
        if ((err = gw_read_send_to_group(args, j->p.ext, &group)) != 0)
            return err;
        t->groups = group.groups;
        t->exclude = group.exclude;
        break;
    default:
        if ((err = gw_read_names(args, j->p.ext, &t->uids)) != 0)
            return err;
    }
    struct slice payload;
    if (!command_payload(j->gw, &j->p, &j->scratch, &payload)) {
        *t = (struct targets){0}; /* counted there: goes to nobody */
        payload = (struct slice){0};
    }
    upstream_message_init(&j->message, payload, (j->p.flag & GW_FLAG_NOT_CALL_ENCODE) != 0);
    j->message.to_many = true;
    return 0;
}

static size_t fanout_estimate(const struct job *j)
{
    return targets_count(j->gw, &j->targets);
}

static bool fanout_step(struct job *j)
{
    void (*send)(struct upstream_client *, struct upstream_message *) = j->gw->up.host->ops->send;
    struct upstream_client *c;
    while ((c = targets_next(j->gw, &j->targets)) != NULL) {
        if (gw_is_traced(j->gw, c))
            command_traced(j->link, &j->p, c);
        send(c, &j->message);
        if (job_slice_over(j))
            return false;
    }
    return true;
}

static void fanout_finish(struct job *j)
{
    if (j->since_ns != 0)
        histogram_add_n(&j->gw->histograms->h[HISTOGRAM_fanout], HISTOGRAM_SHIFT_fanout,
                        loop_clock_ns(j->gw->up.host->loop) - j->since_ns, j->stands_for);
    gw_count(j->gw, COUNTER_fanouts, !j->link->is_stand_in);
}

static uint64_t fanout_shards(const struct job *j)
{
    return targets_shards(j->gw, &j->targets);
}

static const struct job_kind fanout_kind = {fanout_read,   fanout_estimate, fanout_step,
                                            fanout_finish, fanout_shards,   COUNTER_fanouts_sliced};

void job_fanout(struct link *l, const struct gw_packet *p)
{
    job_start(l, p, &fanout_kind);
}
