// SPDX-License-Identifier: MIT
/* Lists and single things that only the shards know. A list of many is paged: through the shards in order,
 * through each by its own cursor; nothing is kept between two pages. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin_priv.h"
#include "admin/collect.h"
#include "admin/json_rows.h"

#define NAME_BYTES_MAX 16384 /* of a uid or group that is asked for */
#define CHECK_MS       60000 /* looking through everything takes a while */

static uint64_t bit(unsigned shard)
{
    return UINT64_C(1) << shard;
}

/* ---- filters */

uint64_t api_shard(struct request *r)
{
    uint64_t shard;
    if (query_uint(&r->query, "shard", 0, r->admin->node->n_shards - 1, &shard))
        return bit((unsigned)shard);
    return admin_all_shards(r->admin);
}

static bool filter_u32(struct query *q, const char *name, uint32_t *ret)
{
    uint64_t v;
    if (!query_uint(q, name, 1, UINT32_MAX, &v))
        return false;
    *ret = (uint32_t)v;
    return true;
}

static bool text_filters(struct request *r, struct control_request *req)
{
    static const struct {
        const char *name;
        enum control_text text;
    } texts[] = {{"uid", CONTROL_TEXT_UID},
                 {"group", CONTROL_TEXT_GROUP},
                 {"worker", CONTROL_TEXT_WORKER},
                 {"listener", CONTROL_TEXT_LISTENER}};
    bool any = false;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (query_text(&r->query, texts[i].name, NAME_BYTES_MAX, &req->text[texts[i].text]))
            any = true;
    }
    return any;
}

uint64_t api_filters(struct request *r, struct control_request *req, bool *ret_any)
{
    struct control_head *h = &req->head;
    struct query_gateway gw = admin_gateway(r->admin);
    struct query *q = &r->query;
    uint64_t mask = api_shard(r);
    bool any = query_has(q, "shard");

    any |= text_filters(r, req);
    any |= query_cidr(q, "address", &h->address, &h->address_bits);
    any |= filter_u32(q, "age_min", &h->age_min_s);
    any |= filter_u32(q, "age_max", &h->age_max_s);
    any |= filter_u32(q, "idle_min", &h->idle_min_s);
    any |= query_uint(q, "queue_min", 1, UINT64_MAX, &h->queue_min);
    if (query_client(q, "client", &gw, &h->client)) {
        any = true;
        mask &= bit(admin_shard_of(r->admin, h->client));
        if (mask == 0)
            query_wrong(q, "parameter client is of another shard than parameter shard");
    }
    *ret_any = any;
    return mask;
}

/* ---- pages */

struct page {
    const char *key; /* of the answer */
    uint64_t mask;   /* shards to go through */
    unsigned shard;
    uint64_t cursor;
    uint32_t left; /* rows */
    struct bytes rows;
};

static void page_free(struct request *r)
{
    struct page *p = r->job;
    bytes_fini(&p->rows);
    free(p);
}

/* The next one of the shards, from `from` on; NODE_SHARDS_MAX: none. */
static unsigned next_shard(uint64_t mask, unsigned from)
{
    for (unsigned i = from; i < NODE_SHARDS_MAX; i++) {
        if ((mask & bit(i)) != 0)
            return i;
    }
    return NODE_SHARDS_MAX;
}

static void answer_page(struct request *r)
{
    struct page *p = r->job;
    struct json_writer w = {.out = &r->body};
    char cursor[CURSOR_STRLEN];

    json_begin(&w, '{');
    json_key(&w, p->key);
    json_begin(&w, '[');
    if (p->rows.len > 0)
        json_raw(&w, p->rows.data, p->rows.len);
    json_end(&w, ']');
    json_member_str(&w, "cursor",
                    p->shard < NODE_SHARDS_MAX ? cursor_format(p->shard, p->cursor, cursor, sizeof cursor)
                                               : NULL);
    request_missing(r, &w);
    json_end(&w, '}');
    r->body.failed = r->body.failed || p->rows.failed;
    if (r->missing == p->mask && p->rows.len == 0)
        request_error(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "no answer in time: see /api/status for the state of the shards");
    else
        request_answer(r, MHD_HTTP_OK);
}

static void ask_page(struct request *r);

static void on_page(struct request *r)
{
    struct page *p = r->job;
    struct slice rows = gather_json(&r->gather, p->shard);
    uint64_t cursor = r->gather.of[p->shard].cursor, timeout_ms = r->admin->cfg->admin.query_timeout;
    bool there = gather_has(&r->gather, p->shard);

    if (there) {
        uint32_t n = (uint32_t)json_rows_count(rows); /* they have been looked at: gather.c */
        if (rows.len > 0 && p->rows.len > 0)
            bytes_append_byte(&p->rows, ',');
        bytes_append(&p->rows, rows.data, rows.len);
        p->left -= n < p->left ? n : p->left;
    } else {
        r->missing |= bit(p->shard);
    }
    if (there && cursor != 0 && cursor != p->cursor) {
        p->cursor = cursor;
    } else {
        p->shard = next_shard(p->mask, p->shard + 1);
        p->cursor = 0;
    }
    /* A page that takes long is short: its cursor says that there is more. */
    if (p->left == 0 || p->shard == NODE_SHARDS_MAX || p->rows.len > ADMIN_BYTES_MAX ||
        admin_now_ms() >= r->began_ms + timeout_ms / 2)
        answer_page(r);
    else
        ask_page(r);
}

static void ask_page(struct request *r)
{
    struct page *p = r->job;
    struct control_head *h = &r->gather.ask.req.head;
    h->cursor = p->cursor;
    h->limit = p->left < CONTROL_ROWS_MAX ? p->left : CONTROL_ROWS_MAX;
    request_ask(r, bit(p->shard), r->admin->cfg->admin.query_timeout, GATHER_ROWS, on_page);
}

/* The parameters limit and cursor, then the first question. */
static void begin_pages(struct request *r, const char *key, enum control_op op, uint64_t mask)
{
    uint64_t limit = 100, cursor = 0;
    unsigned shard = 0;

    query_uint(&r->query, "limit", 1, ADMIN_ROWS_MAX, &limit);
    if (query_cursor(&r->query, "cursor", r->admin->node->n_shards, &shard, &cursor) &&
        (mask & bit(shard)) == 0)
        query_wrong(&r->query, "parameter cursor is of another shard than is asked for");
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    struct page *p = calloc(1, sizeof *p);
    if (p == NULL) {
        request_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
        return;
    }
    *p = (struct page){.key = key,
                       .mask = mask,
                       .shard = next_shard(mask, shard),
                       .cursor = cursor,
                       .left = (uint32_t)limit};
    r->job = p;
    r->job_free = page_free;
    request_head(r, op);
    ask_page(r);
}

void api_clients(struct request *r)
{
    bool any;
    uint64_t mask = api_filters(r, &r->gather.ask.req, &any);
    begin_pages(r, "clients", CONTROL_CLIENTS, mask == 0 ? admin_all_shards(r->admin) : mask);
}

/* ---- uids and groups */

static uint64_t sum_clients(struct slice rows)
{
    struct slice row;
    size_t pos = 0;
    uint64_t sum = 0;
    while (json_rows_next(rows, &pos, &row) > 0) {
        json_t *json = json_loadb((const char *)row.data, row.len, JSON_ALLOW_NUL, NULL);
        json_int_t n = json_integer_value(json_object_get(json, "clients"));
        sum += n > 0 ? (uint64_t)n : 0;
        json_decref(json);
    }
    return sum;
}

/* One name: the sum of all shards; "shard" is the one that has all of them. */
static void answer_name(struct request *r)
{
    struct json_writer w = {.out = &r->body};
    struct slice name = r->gather.ask.req.text[CONTROL_TEXT_NAME];
    uint64_t sum = 0, of = 0;

    if (request_failed(r))
        return;
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        uint64_t n = gather_has(&r->gather, i) ? sum_clients(gather_json(&r->gather, i)) : 0;
        of |= n > 0 ? bit(i) : 0;
        sum += n;
    }
    json_begin(&w, '{');
    json_key(&w, r->gather.ask.req.head.op == CONTROL_UIDS ? "uids" : "groups");
    json_begin(&w, '[');
    if (sum > 0) {
        json_begin(&w, '{');
        json_member_string(&w, "name", name.data, name.len, CONTROL_NAME_MAX);
        json_member_uint(&w, "clients", sum);
        json_key(&w, "shard");
        if ((of & (of - 1)) == 0)
            json_uint(&w, (uint64_t)__builtin_ctzll(of));
        else
            json_write_null(&w);
        json_end(&w, '}');
    }
    json_end(&w, ']');
    json_member_str(&w, "cursor", NULL);
    request_missing(r, &w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

static void names(struct request *r, const char *key, enum control_op op)
{
    struct slice *text = r->gather.ask.req.text;

    query_text(&r->query, "prefix", NAME_BYTES_MAX, &text[CONTROL_TEXT_PREFIX]);
    if (!query_text(&r->query, "name", NAME_BYTES_MAX, &text[CONTROL_TEXT_NAME])) {
        begin_pages(r, key, op, admin_all_shards(r->admin));
        return;
    }
    if (query_has(&r->query, "prefix"))
        query_wrong(&r->query, "parameters name and prefix; expected one of them");
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, op)->limit = CONTROL_ROWS_MAX;
    request_ask(r, admin_all_shards(r->admin), r->admin->cfg->admin.query_timeout, GATHER_ROWS, answer_name);
}

void api_uids(struct request *r)
{
    names(r, "uids", CONTROL_UIDS);
}

void api_groups(struct request *r)
{
    names(r, "groups", CONTROL_GROUPS);
}

/* ---- workers, tables */

static void answer_rows(struct request *r, const char *key)
{
    struct json_writer w = {.out = &r->body};

    if (r->missing == admin_all_shards(r->admin)) {
        request_error(r, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "no answer in time: see /api/status for the state of the shards");
        return;
    }
    json_begin(&w, '{');
    json_key(&w, key);
    json_begin(&w, '[');
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        struct slice rows = collected(r, i);
        if (rows.len > 0)
            json_raw(&w, rows.data, rows.len);
    }
    json_end(&w, ']');
    request_missing(r, &w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

static void answer_workers(struct request *r)
{
    answer_rows(r, "workers");
}

static void answer_tables(struct request *r)
{
    answer_rows(r, "tables");
}

static void rows(struct request *r, enum control_op op, void (*then)(struct request *r))
{
    if (!query_end(&r->query))
        request_wrong(r);
    else
        collect(r, op, r->admin->cfg->admin.query_timeout, then);
}

void api_workers(struct request *r)
{
    rows(r, CONTROL_WORKERS, answer_workers);
}

void api_tables(struct request *r)
{
    rows(r, CONTROL_TABLES, answer_tables);
}

/* ---- one client */

static void answer_client(struct request *r)
{
    unsigned shard = 0;

    if (gather_error(&r->gather) == -ENOENT) {
        request_error(r, MHD_HTTP_NOT_FOUND, "no such client: %u", r->gather.ask.req.head.client);
        return;
    }
    if (request_failed(r))
        return;
    /* One was asked; the id may be at home in another one by now. */
    while (shard < r->admin->node->n_shards - 1 && !gather_has(&r->gather, shard))
        shard++;
    struct slice json = gather_json(&r->gather, shard);
    bytes_append(&r->body, json.data, json.len);
    request_answer(r, json.len > 0 ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE);
}

void api_client(struct request *r, const char *id)
{
    struct query_gateway gw = admin_gateway(r->admin);
    struct slice text = {(const uint8_t *)id, strlen(id)};
    char why[QUERY_WHY_MAX];
    uint32_t client;

    int err = client_id_parse(text, &gw, &client, why, sizeof why);
    if (err < 0) {
        request_error(r, err == -ENOENT ? MHD_HTTP_NOT_FOUND : MHD_HTTP_BAD_REQUEST, "%s", why);
        return;
    }
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, CONTROL_CLIENT)->client = client;
    request_ask(r, bit(admin_shard_of(r->admin, client)), r->admin->cfg->admin.query_timeout, GATHER_OBJECT,
                answer_client);
}

/* ---- check */

static bool has_no_problem(struct slice object)
{
    json_t *json = json_loadb((const char *)object.data, object.len, JSON_ALLOW_NUL, NULL);
    json_t *problems = json_object_get(json, "problems");
    bool ok = json_is_array(problems) && json_array_size(problems) == 0;
    json_decref(json);
    return ok;
}

static void answer_check(struct request *r)
{
    struct json_writer w = {.out = &r->body};
    bool ok = r->missing == 0;

    if (request_failed(r))
        return;
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        if (r->gather.ask.state[i] != ASK_NONE)
            ok = ok && gather_has(&r->gather, i) && has_no_problem(gather_json(&r->gather, i));
    }
    json_begin(&w, '{');
    json_member_bool(&w, "ok", ok);
    json_key(&w, "shards");
    json_begin(&w, '[');
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        struct slice json = gather_json(&r->gather, i);
        if (gather_has(&r->gather, i))
            json_raw(&w, json.data, json.len);
    }
    json_end(&w, ']');
    request_missing(r, &w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

void api_check(struct request *r)
{
    uint64_t mask = api_shard(r), timeout_ms = r->admin->cfg->admin.query_timeout;

    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, CONTROL_CHECK);
    request_ask(r, mask, timeout_ms > CHECK_MS ? timeout_ms : CHECK_MS, GATHER_OBJECT, answer_check);
}
