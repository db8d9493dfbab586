// SPDX-License-Identifier: MIT
/* Who has the most of something. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin_priv.h"
#include "admin/json_rows.h"
#include "admin/top.h"

#define FETCH_MIN 100 /* of each shard: more than is shown, so that fewer have to be asked for again */
#define AGAIN_MAX 200 /* names that are asked for again */

struct top {
    unsigned limit, fetch, asked_again;
    uint64_t seconds;
    enum control_by by;
    struct top_names names;
    struct top_name *asked; /* the one that is asked for now: the list stays as it is meanwhile */
};

static void top_free(struct request *r)
{
    struct top *t = r->job;
    top_names_fini(&t->names);
    free(t);
}

static void begin_answer(const struct top *t, struct json_writer *w)
{
    json_begin(w, '{');
    json_member_str(w, "by", control_by_name(t->by));
    json_member_uint(w, "seconds", t->seconds);
    json_key(w, "top");
    json_begin(w, '[');
}

/* ---- clients */

static void answer_rows(struct request *r)
{
    struct top *t = r->job;
    struct json_writer w = {.out = &r->body};
    struct top_rows rows = {0};

    if (request_failed(r))
        return;
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        if (gather_has(&r->gather, i))
            top_rows_add(&rows, gather_json(&r->gather, i));
    }
    begin_answer(t, &w);
    top_rows_write(&rows, t->limit, &w);
    json_end(&w, ']');
    request_missing(r, &w);
    json_end(&w, '}');
    r->body.failed = r->body.failed || rows.failed;
    top_rows_fini(&rows);
    request_answer(r, MHD_HTTP_OK);
}

/* ---- uids and groups */

static void answer_names(struct request *r)
{
    struct top *t = r->job;
    struct json_writer w = {.out = &r->body};
    bool exact = top_names_exact(&t->names, t->limit) && r->missing == 0;

    begin_answer(t, &w);
    top_names_write(&t->names, t->limit, &w);
    json_end(&w, ']');
    json_member_bool(&w, "exact", exact);
    request_missing(r, &w);
    json_end(&w, '}');
    r->body.failed = r->body.failed || t->names.failed;
    request_answer(r, MHD_HTTP_OK);
}

static void ask_again(struct request *r);

static uint64_t clients_in(struct slice rows)
{
    struct slice row;
    size_t pos = 0;
    if (json_rows_next(rows, &pos, &row) <= 0)
        return 0;
    json_t *json = json_loadb((const char *)row.data, row.len, JSON_ALLOW_NUL, NULL);
    json_int_t n = json_integer_value(json_object_get(json, "clients"));
    json_decref(json);
    return n > 0 ? (uint64_t)n : 0;
}

static void on_name(struct request *r)
{
    struct top *t = r->job;
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        if (r->gather.ask.state[i] == ASK_NONE)
            continue;
        if (!gather_has(&r->gather, i))
            r->missing |= UINT64_C(1) << i;
        top_names_know(t->asked, i, gather_has(&r->gather, i) ? clients_in(gather_json(&r->gather, i)) : 0);
    }
    ask_again(r);
}

static void ask_again(struct request *r)
{
    struct top *t = r->job;
    struct control_request *req = &r->gather.ask.req;
    uint64_t shards = 0, timeout_ms = r->admin->cfg->admin.query_timeout;
    uint64_t until_ms = r->began_ms + timeout_ms, now_ms = admin_now_ms();

    t->asked = top_names_next(&t->names, t->limit, &shards);
    if (t->asked == NULL || t->asked_again == AGAIN_MAX || now_ms >= until_ms) {
        answer_names(r);
        return;
    }
    t->asked_again++;
    req->head.op = t->by == CONTROL_BY_UIDS ? CONTROL_UIDS : CONTROL_GROUPS;
    req->text[CONTROL_TEXT_NAME] = (struct slice){(const uint8_t *)t->asked->name, t->asked->len};
    request_ask(r, shards, until_ms - now_ms, GATHER_ROWS, on_name);
}

static void on_names(struct request *r)
{
    struct top *t = r->job;
    if (request_failed(r))
        return;
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        if (gather_has(&r->gather, i))
            top_names_add(&t->names, i, gather_json(&r->gather, i), t->fetch);
    }
    ask_again(r);
}

/* ---- both */

static bool parse(struct request *r, struct top *t)
{
    const char *names[CONTROL_BY_N + 1];
    uint64_t limit = 20;
    unsigned by = CONTROL_BY_MESSAGES_IN;

    for (unsigned i = 0; i < CONTROL_BY_N; i++)
        names[i] = control_by_name((enum control_by)i);
    names[CONTROL_BY_N] = NULL;
    query_need(&r->query, "by", "messages_in");
    query_choice(&r->query, "by", names, &by);
    query_uint(&r->query, "seconds", 1, 10, &t->seconds);
    query_uint(&r->query, "limit", 1, CONTROL_ROWS_MAX, &limit);
    t->by = (enum control_by)by;
    t->limit = (unsigned)limit;
    t->fetch = t->limit > FETCH_MIN || by < CONTROL_BY_GROUPS ? t->limit : FETCH_MIN;
    return query_end(&r->query);
}

void api_top(struct request *r)
{
    struct top *t = calloc(1, sizeof *t);
    struct control_head *h = request_head(r, CONTROL_TOP);

    if (t == NULL) {
        request_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
        return;
    }
    t->seconds = 1;
    r->job = t;
    r->job_free = top_free;
    if (!parse(r, t)) {
        request_wrong(r);
        return;
    }
    h->by = (uint8_t)t->by;
    h->limit = t->fetch;
    h->seconds = (uint32_t)t->seconds;
    uint64_t timeout_ms = r->admin->cfg->admin.query_timeout;
    if (t->by < CONTROL_BY_QUEUE)
        timeout_ms += t->seconds * 1000;
    request_ask(r, admin_all_shards(r->admin), timeout_ms, GATHER_ROWS,
                t->by < CONTROL_BY_GROUPS ? answer_rows : on_names);
}
