// SPDX-License-Identifier: MIT
/* Answers. Those on one link carry no id, so they leave in the order of the questions; a question that other
 * shards are asked too (scatter) waits for their parts (gather), and what is answered meanwhile waits behind
 * it.
 *
 * A part is not yet PHP: parts of several shards have to become one array. By command:
 *
 *   GET_SESSION_BY_CLIENT_ID, IS_ONLINE                 the answer itself
 *   GET_CLIENT_COUNT_BY_GROUP                           u64
 *   GET_ALL_CLIENT_SESSIONS, .._BY_GROUP, SELECT        u32 n, then n elements with their keys, in PHP's form
 *   GET_CLIENT_ID_BY_UID                                u32 ids
 *   GET_GROUP_ID_LIST                                   names: u32 length, bytes
 *   BATCH_GET_CLIENT_COUNT_BY_GROUP                     u32 for each name of the question
 *   BATCH_GET_CLIENT_ID_BY_UID                          u32 n and n ids for each name of the question
 *
 * (integers as this machine has them; "each name": each distinct one, in the order of the question) */
#include "upstream/gatewayworker/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"
#include "proto/php/php_write.h"

struct gather {
    struct list node; /* in link->gathers */
    struct link *link;
    uint32_t question;
    uint8_t cmd;
    bool failed;      /* too big, or no memory */
    bool done;        /* reply is complete */
    uint64_t waiting; /* shards whose part has not come */
    struct timer deadline;
    struct bytes acc; /* the parts so far, in the form of one */
    uint64_t number;
    struct seen_set seen; /* names of groups */
    struct bytes *lists;  /* ids, for each name */
    uint32_t *counts;     /* for each name */
    struct slice *names;  /* distinct */
    size_t n_names;
    struct buf *packet; /* names point into it, or into args */
    struct gw_args args;
    struct bytes reply;
};

/* ---- parts become one */

static bool needs_names(uint8_t cmd)
{
    return cmd == GW_CMD_BATCH_GET_CLIENT_ID_BY_UID || cmd == GW_CMD_BATCH_GET_CLIENT_COUNT_BY_GROUP;
}

/* 0, or -errno: the names cannot be read (the question was refused: an empty answer) or no memory. */
static int read_names(struct gather *g, struct slice ext)
{
    struct gw_names all;
    struct seen_set seen = {0};
    int err = gw_read_names(&g->args, ext, &all);
    if (err != 0 || all.n == 0)
        return err;
    g->names = calloc(all.n, sizeof *g->names);
    g->lists = calloc(all.n, sizeof *g->lists);
    g->counts = calloc(all.n, sizeof *g->counts);
    if (g->names == NULL || g->lists == NULL || g->counts == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < all.n; i++)
        if (job_is_new_name(&seen, all.items[i]))
            g->names[g->n_names++] = all.items[i];
    seen_set_fini(&seen);
    return 0;
}

static int gather_init(struct gather *g, struct link *l, const struct gw_packet *p)
{
    *g = (struct gather){.link = l, .cmd = p->cmd};
    return needs_names(p->cmd) ? read_names(g, p->ext) : 0;
}

static void gather_fini(struct gather *g)
{
    timer_cancel(g->link->gw->up.host->loop, &g->deadline);
    for (size_t i = 0; i < g->n_names; i++)
        bytes_fini(&g->lists[i]);
    free(g->lists);
    free(g->counts);
    free(g->names);
    bytes_fini(&g->acc);
    bytes_fini(&g->reply);
    seen_set_fini(&g->seen);
    gw_args_fini(&g->args);
    buf_unref(g->packet);
}

static uint32_t take_u32(struct slice *from)
{
    uint32_t v = 0;
    if (from->len < sizeof v) {
        from->len = 0;
        return 0;
    }
    memcpy(&v, from->data, sizeof v);
    from->data += sizeof v;
    from->len -= sizeof v;
    return v;
}

static void add_groups(struct gather *g, struct slice part)
{
    while (part.len > 0) {
        const uint8_t *at = part.data;
        uint32_t len = take_u32(&part);
        if (len > part.len)
            return;
        struct slice name = {part.data, len};
        if (job_is_new_name(&g->seen, name)) {
            bytes_append(&g->acc, at, sizeof len + len);
            g->number++;
        }
        part.data += len;
        part.len -= len;
    }
}

static void add_lists(struct gather *g, struct slice part)
{
    for (size_t i = 0; i < g->n_names && part.len > 0; i++) {
        size_t len = (size_t)take_u32(&part) * sizeof(uint32_t);
        if (len > part.len)
            return;
        bytes_append(&g->lists[i], part.data, len);
        g->failed |= g->lists[i].failed;
        part.data += len;
        part.len -= len;
    }
}

static void add_part(struct gather *g, struct slice part)
{
    uint64_t number = 0;
    switch (g->cmd) {
    case GW_CMD_GET_CLIENT_COUNT_BY_GROUP:
        if (part.len == sizeof number)
            memcpy(&number, part.data, sizeof number);
        g->number += number;
        break;
    case GW_CMD_GET_GROUP_ID_LIST: add_groups(g, part); break;
    case GW_CMD_BATCH_GET_CLIENT_COUNT_BY_GROUP:
        for (size_t i = 0; i < g->n_names; i++)
            g->counts[i] += take_u32(&part);
        break;
    case GW_CMD_BATCH_GET_CLIENT_ID_BY_UID: add_lists(g, part); break;
    case GW_CMD_GET_ALL_CLIENT_SESSIONS:
    case GW_CMD_GET_CLIENT_SESSIONS_BY_GROUP:
    case GW_CMD_SELECT: g->number += take_u32(&part); /* fall through */
    default: bytes_append(&g->acc, part.data, part.len);
    }
    g->failed |= g->acc.failed || g->acc.len > JOB_REPLY_MAX;
}

/* ---- the answer in PHP's form */

static void write_ids(struct bytes *out, const struct bytes *ids)
{
    struct slice left = {ids->data, ids->len};
    php_write_array(out, ids->len / sizeof(uint32_t));
    for (int64_t i = 0; left.len > 0; i++) {
        php_write_key_int(out, i);
        php_write_int(out, take_u32(&left));
    }
    php_write_array_end(out);
}

/* A name as PHP's array_keys() gives it. */
static void write_key_as_value(struct bytes *out, struct slice name)
{
    int64_t number;
    if (php_key_is_int(name, &number))
        php_write_int(out, number);
    else
        php_write_string(out, name);
}

static void write_groups(struct bytes *out, const struct gather *g)
{
    struct slice left = {g->acc.data, g->acc.len};
    php_write_array(out, g->number);
    for (int64_t i = 0; left.len > 0; i++) {
        uint32_t len = take_u32(&left);
        php_write_key_int(out, i);
        write_key_as_value(out, (struct slice){left.data, len});
        left.data += len;
        left.len -= len;
    }
    php_write_array_end(out);
}

static void write_by_name(struct bytes *out, const struct gather *g)
{
    php_write_array(out, g->n_names);
    for (size_t i = 0; i < g->n_names; i++) {
        php_write_key(out, g->names[i]);
        if (g->cmd == GW_CMD_BATCH_GET_CLIENT_ID_BY_UID)
            write_ids(out, &g->lists[i]);
        else
            php_write_int(out, g->counts[i]);
    }
    php_write_array_end(out);
}

/* head and tail around g->acc, which stays where it is: it may be large. */
#define ANSWER_PARTS 3
static void write_answer(const struct gather *g, struct bytes *head, struct slice parts[ANSWER_PARTS])
{
    memset(parts, 0, ANSWER_PARTS * sizeof *parts);
    switch (g->cmd) {
    case GW_CMD_GET_SESSION_BY_CLIENT_ID:
    case GW_CMD_IS_ONLINE:
        parts[1] = (struct slice){g->acc.data, g->acc.len};
        if (g->acc.len == 0)
            parts[1] = g->cmd == GW_CMD_IS_ONLINE ? SLICE_STR("i:0;") : SLICE_STR("N;");
        return;
    case GW_CMD_GET_CLIENT_COUNT_BY_GROUP: php_write_int(head, (int64_t)g->number); break;
    case GW_CMD_GET_CLIENT_ID_BY_UID: write_ids(head, &g->acc); break;
    case GW_CMD_GET_GROUP_ID_LIST: write_groups(head, g); break;
    case GW_CMD_BATCH_GET_CLIENT_COUNT_BY_GROUP:
    case GW_CMD_BATCH_GET_CLIENT_ID_BY_UID: write_by_name(head, g); break;
    default:
        php_write_array(head, g->number);
        parts[1] = (struct slice){g->acc.data, g->acc.len};
        parts[2] = SLICE_STR("}");
    }
    parts[0] = (struct slice){head->data, head->len};
}

static void too_big(struct gather *g, struct slice parts[ANSWER_PARTS])
{
    /* The link's questions are answered in order: something has to stand here. */
    counter_drop(g->link->gw->up.host->counters, DROP_no_memory);
    LOG(LOG_ERROR, "reply_too_big", "command=%s bytes=%zu limit=%d", gw_cmd_name(g->cmd), g->acc.len,
        JOB_REPLY_MAX);
    memset(parts, 0, ANSWER_PARTS * sizeof *parts);
    parts[0] = SLICE_STR("N;");
}

/* ---- the order of a link's answers */

static void gather_free(struct gather *g)
{
    list_remove(&g->node);
    g->link->n_gathers--;
    gather_fini(g);
    free(g);
}

/* A place in the order for an answer that is there already. */
static void queue_reply(struct link *l, const struct slice *parts, unsigned n)
{
    struct gather *g = calloc(1, sizeof *g);
    for (unsigned i = 0; g != NULL && i < n; i++)
        bytes_append(&g->reply, parts[i].data, parts[i].len);
    if (g == NULL || g->reply.failed) {
        if (g != NULL)
            bytes_fini(&g->reply);
        free(g);
        link_put_reply(l, NULL, 0); /* out of order: better no link than wrong answers */
        link_end(l);
        return;
    }
    g->link = l;
    g->done = true;
    list_append(&l->gathers, &g->node);
    l->n_gathers++;
}

static void reply_in_order(struct link *l, const struct slice *parts, unsigned n)
{
    if (list_is_empty(&l->gathers))
        link_put_reply(l, parts, n);
    else
        queue_reply(l, parts, n);
}

/* Everything at the front that is complete leaves. */
static void release_replies(struct link *l)
{
    while (!list_is_empty(&l->gathers)) {
        struct gather *g = CONTAINER_OF(l->gathers.next, struct gather, node);
        if (!g->done)
            break;
        link_put_reply(l, &(struct slice){g->reply.data, g->reply.len}, 1);
        gather_free(g);
    }
    link_gathered(l);
}

void gather_reply(struct link *l, struct slice reply)
{
    if (l->is_stand_in)
        peer_answer(l, false, &reply, 1);
    else
        reply_in_order(l, &reply, 1);
}

static void answer(struct gather *g, struct slice parts[ANSWER_PARTS], struct bytes *head)
{
    write_answer(g, head, parts);
    if (g->failed || head->failed)
        too_big(g, parts);
}

static void complete(struct gather *g)
{
    struct link *l = g->link;
    struct slice parts[ANSWER_PARTS];
    struct bytes head = {0};
    timer_cancel(l->gw->up.host->loop, &g->deadline);
    answer(g, parts, &head);
    if (l->gathers.next == &g->node) {
        link_put_reply(l, parts, ANSWER_PARTS);
        gather_free(g);
    } else {
        for (unsigned i = 0; i < ANSWER_PARTS; i++)
            bytes_append(&g->reply, parts[i].data, parts[i].len);
        bytes_fini(&g->acc);
        g->done = true;
    }
    bytes_fini(&head);
    release_replies(l);
}

/* ---- scatter and gather */

static void partial(struct gather *g, const char *why)
{
    gw_count(g->link->gw, COUNTER_queries_partial, 1);
    LOG(LOG_WARN, "query_partial", "command=%s worker=%s peer=%s missing_shards=%#llx why=\"%s\"",
        gw_cmd_name(g->cmd), link_label(g->link), link_peer_text(g->link), (unsigned long long)g->waiting,
        why);
}

static void on_deadline(struct timer *t)
{
    struct gather *g = CONTAINER_OF(t, struct gather, deadline);
    struct gatewayworker *gw = g->link->gw;
    /* Our own part comes from a job of ours, which takes its turns: it is waited for. */
    uint64_t own = g->waiting & UINT64_C(1) << gw->me;
    if (g->waiting != own)
        partial(g, "no answer within query_timeout");
    g->waiting = own;
    if (own == 0)
        complete(g);
}

uint32_t gather_next_question(struct gatewayworker *gw)
{
    if (++gw->last_question == 0)
        gw->last_question = 1;
    return gw->last_question;
}

struct gather *gather_new(struct link *l, const struct gw_packet *p, uint64_t shards)
{
    struct gatewayworker *gw = l->gw;
    struct gather *g = calloc(1, sizeof *g);
    if (g == NULL)
        return NULL;
    struct gw_packet own = *p;
    *g = (struct gather){.link = l, .cmd = p->cmd};
    if (needs_names(p->cmd)) {
        g->packet = buf_new(p->ext.len);
        if (g->packet == NULL) {
            free(g);
            return NULL;
        }
        memcpy(g->packet->data, p->ext.data, p->ext.len);
        own.ext.data = g->packet->data;
        if (read_names(g, own.ext) != 0) {
            gather_fini(g);
            free(g);
            return NULL;
        }
    }
    g->question = gather_next_question(gw);
    g->waiting = shards;
    list_append(&l->gathers, &g->node);
    l->n_gathers++;
    gw_count(gw, COUNTER_queries_scattered, 1);
    timer_set(gw->up.host->loop, &g->deadline, gw_config(gw)->query_timeout, on_deadline);
    return g;
}

uint32_t gather_question(const struct gather *g)
{
    return g->question;
}

void gather_part(struct gather *g, unsigned shard, bool failed, const uint8_t *data, size_t len)
{
    uint64_t bit = UINT64_C(1) << shard;
    if ((g->waiting & bit) == 0)
        return;
    g->waiting &= ~bit;
    g->failed |= failed;
    add_part(g, (struct slice){data, len});
    if (g->waiting == 0)
        complete(g);
}

void gather_answer(struct link *l, uint32_t question, unsigned shard, bool failed, const uint8_t *data,
                   size_t len)
{
    for (struct list *node = l != NULL ? l->gathers.next : NULL; l != NULL && node != &l->gathers;
         node = node->next) {
        struct gather *g = CONTAINER_OF(node, struct gather, node);
        if (g->question != question || g->done)
            continue;
        gather_part(g, shard, failed, data, len);
        return;
    }
}

void gather_shard_died(struct gatewayworker *gw, unsigned shard)
{
    uint64_t bit = UINT64_C(1) << shard;
    for (uint32_t i = 0; i < gw->cap_link_table; i++) {
        struct link *l = gw->link_table[i];
        for (struct list *node = l != NULL ? l->gathers.next : NULL; l != NULL && node != &l->gathers;) {
            struct gather *g = CONTAINER_OF(node, struct gather, node);
            node = node->next;
            if (g->done || (g->waiting & bit) == 0)
                continue;
            partial(g, "a shard died");
            g->waiting &= ~bit;
            if (g->waiting != 0)
                continue;
            complete(g);
            node = l->gathers.next; /* more than g may have left */
        }
    }
}

void gathers_free(struct link *l)
{
    while (!list_is_empty(&l->gathers))
        gather_free(CONTAINER_OF(l->gathers.next, struct gather, node));
}

void gather_own_part(struct link *l, const struct gw_packet *p, bool failed, struct bytes *part)
{
    struct slice data = {part->data, part->len};
    failed |= part->failed;
    if (l->is_stand_in) {
        peer_answer(l, failed, &data, failed ? 0 : 1);
        return;
    }
    if (l->gather != NULL) {
        struct gather *g = l->gather;
        l->gather = NULL;
        gather_part(g, l->gw->me, failed, data.data, data.len);
        return;
    }
    struct gather g;
    struct slice parts[ANSWER_PARTS];
    struct bytes head = {0};
    g.failed = gather_init(&g, l, p) == -ENOMEM;
    g.failed |= failed;
    add_part(&g, data);
    answer(&g, parts, &head);
    reply_in_order(l, parts, ANSWER_PARTS);
    bytes_fini(&head);
    gather_fini(&g);
}
