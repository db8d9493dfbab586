// SPDX-License-Identifier: MIT
/* POST: what changes something. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin_priv.h"
#include "base/utf8_char.h"

#define REASON_MAX     123 /* of a close frame: RFC 6455 section 5.5, less the code */
#define SECONDS_MAX    86400
#define BAN_SECONDS    3600
#define BAN_MAX        (UINT64_C(10) * 365 * 86400)
#define SUPERVISOR_MS  15000 /* it reads files, and answers when all of them are read */
#define WORKER_KEY_MAX 1024
#define CONFIG_LEVELS  (LOG_LEVEL_DEBUG + 1)

/* ---- parameters that several have */

/* Codes that an endpoint may send: RFC 6455 section 7.4. */
static bool code_may_be_sent(uint64_t code)
{
    if (code >= 3000)
        return code <= 4999;
    return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

static void take_code(struct request *r, struct control_head *h, uint64_t def)
{
    uint64_t code = def;
    if (query_uint(&r->query, "code", 0, UINT16_MAX, &code) && !code_may_be_sent(code))
        query_wrong(&r->query,
                    "parameter code is %u; expected 1000 to 1003, 1007 to 1014 or 3000 to 4999 (RFC 6455)",
                    (unsigned)code);
    h->code = (uint16_t)code;
}

static bool is_utf8(struct slice s)
{
    for (size_t n; s.len > 0; s.data += n, s.len -= n) {
        if ((n = utf8_char_len(s.data, s.len)) == 0)
            return false;
    }
    return true;
}

static void take_reason(struct request *r, struct control_request *req)
{
    struct slice *text = &req->text[CONTROL_TEXT_REASON];
    if (query_text(&r->query, "reason", REASON_MAX, text) && !is_utf8(*text))
        query_wrong(&r->query, "parameter reason is not UTF-8");
}

static void take_pace(struct request *r, struct control_head *h, uint64_t seconds, uint64_t jitter)
{
    query_uint(&r->query, "seconds", 0, SECONDS_MAX, &seconds);
    query_uint(&r->query, "jitter", 0, 100, &jitter);
    h->seconds = (uint32_t)seconds;
    h->jitter = (uint8_t)jitter;
}

/* All clients of a shard are closed in slices: what that may take. */
#define CLOSING_MS 10000

/* ---- answers */

static uint64_t sum_of(struct request *r, const char *key)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        struct slice text = gather_json(&r->gather, i);
        if (!gather_has(&r->gather, i))
            continue;
        json_t *json = json_loadb((const char *)text.data, text.len, JSON_ALLOW_NUL, NULL);
        json_int_t n = json_integer_value(json_object_get(json, key));
        sum += n > 0 ? (uint64_t)n : 0;
        json_decref(json);
    }
    return sum;
}

/* {"ok":true,KEY:sum of what they say,"missing":[]}, and another one (NULL: none). */
static void answer_sums(struct request *r, const char *key, const char *other)
{
    struct json_writer w = {.out = &r->body};

    if (request_failed(r))
        return;
    json_begin(&w, '{');
    json_member_bool(&w, "ok", true);
    json_member_uint(&w, key, sum_of(r, key));
    if (other != NULL)
        json_member_uint(&w, other, sum_of(r, other));
    request_missing(r, &w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

static void write_ok(struct request *r)
{
    struct json_writer w = {.out = &r->body};
    json_begin(&w, '{');
    json_member_bool(&w, "ok", true);
    request_missing(r, &w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

static void answer_ok(struct request *r)
{
    if (!request_failed(r))
        write_ok(r);
}

/* ---- close, kick */

static void answer_closed(struct request *r)
{
    answer_sums(r, "closed", "closing");
}

static void send_close(struct request *r, uint64_t mask)
{
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, CONTROL_CLOSE);
    request_ask(r, mask, r->admin->cfg->admin.query_timeout + CLOSING_MS, GATHER_OBJECT, answer_closed);
}

void api_close(struct request *r)
{
    struct control_request *req = &r->gather.ask.req;
    bool any;
    uint64_t mask = api_filters(r, req, &any);
    bool all = query_yes(&r->query, "all");

    take_code(r, &req->head, 1000);
    take_reason(r, req);
    take_pace(r, &req->head, 0, 0);
    if (!any && !all)
        query_wrong(&r->query,
                    "which clients? expected a filter (address, uid, group, worker, listener, shard, "
                    "age_min, age_max, idle_min, queue_min, client), or all=yes");
    if (any && all)
        query_wrong(&r->query, "parameter all=yes and a filter; expected one of them");
    send_close(r, mask);
}

void api_kick(struct request *r)
{
    struct control_request *req = &r->gather.ask.req;

    query_need(&r->query, "uid", "UID");
    query_text(&r->query, "uid", UINT16_MAX, &req->text[CONTROL_TEXT_UID]);
    take_code(r, &req->head, 1000);
    take_reason(r, req);
    send_close(r, admin_all_shards(r->admin));
}

/* ---- drain, undrain, rebalance */

struct target {
    uint64_t mask;
    bool worker;
};

/* One of shard, worker and node=yes. */
static bool take_target(struct request *r, struct target *ret)
{
    struct query *q = &r->query;
    struct control_request *req = &r->gather.ask.req;
    unsigned n =
        (unsigned)query_has(q, "shard") + (unsigned)query_has(q, "worker") + (unsigned)query_has(q, "node");

    ret->mask = api_shard(r);
    ret->worker = query_text(q, "worker", WORKER_KEY_MAX, &req->text[CONTROL_TEXT_WORKER]);
    if (n != 1)
        query_wrong(q, "what? expected one of shard=N, worker=KEY and node=yes");
    if (query_has(q, "node") && !query_yes(q, "node"))
        query_wrong(q, "parameter node is no; expected node=yes");
    return q->why[0] == '\0';
}

/* How many are going to be closed, unless they leave before. */
static void answer_drained(struct request *r)
{
    answer_sums(r, "clients", NULL);
}

void api_drain(struct request *r)
{
    struct control_request *req = &r->gather.ask.req;
    struct target target;

    take_target(r, &target);
    take_pace(r, &req->head, 30, 20);
    take_code(r, &req->head, 1001);
    take_reason(r, req);
    if (target.worker && (query_has(&r->query, "code") || query_has(&r->query, "reason")))
        query_wrong(&r->query, "parameters code and reason: no client is closed when a worker drains");
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, target.worker ? CONTROL_WORKER : CONTROL_DRAIN)->flags = CONTROL_ON;
    request_ask(r, target.mask, r->admin->cfg->admin.query_timeout, GATHER_OBJECT,
                target.worker ? answer_ok : answer_drained);
}

void api_undrain(struct request *r)
{
    struct target target;

    take_target(r, &target);
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, target.worker ? CONTROL_WORKER : CONTROL_UNDRAIN);
    request_ask(r, target.mask, r->admin->cfg->admin.query_timeout, GATHER_OBJECT, answer_ok);
}

static void answer_moved(struct request *r)
{
    answer_sums(r, "moved", NULL);
}

void api_rebalance(struct request *r)
{
    uint64_t seconds = 10;

    query_uint(&r->query, "seconds", 0, SECONDS_MAX, &seconds);
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, CONTROL_REBALANCE)->seconds = (uint32_t)seconds;
    request_ask(r, admin_all_shards(r->admin), r->admin->cfg->admin.query_timeout, GATHER_OBJECT,
                answer_moved);
}

/* ---- what the supervisor does */

/* Its object with "ok":true in front. */
static void pass_on(struct request *r, struct slice object)
{
    json_t *json = json_loadb((const char *)object.data, object.len, JSON_ALLOW_NUL, NULL);
    const uint8_t *brace = json_object_size(json) > 0 ? memchr(object.data, '{', object.len) : NULL;

    json_decref(json);
    if (brace == NULL) { /* it has nothing else to say */
        bytes_append_str(&r->body, "{\"ok\":true}");
    } else {
        bytes_append_str(&r->body, "{\"ok\":true,");
        bytes_append(&r->body, brace + 1, object.len - (size_t)(brace + 1 - object.data));
    }
    request_answer(r, MHD_HTTP_OK);
}

static void answer_supervisor(struct request *r)
{
    if (!request_failed(r))
        pass_on(r, gather_json(&r->gather, PEER_SUPERVISOR));
}

static void ask_supervisor(struct request *r, enum control_op op, void (*then)(struct request *r))
{
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, op);
    request_ask_supervisor(r, SUPERVISOR_MS, then);
}

void api_ban(struct request *r)
{
    struct control_head *h = &r->gather.ask.req.head;
    uint64_t seconds = BAN_SECONDS;

    query_need(&r->query, "address", "CIDR");
    query_cidr(&r->query, "address", &h->address, &h->address_bits);
    query_uint(&r->query, "seconds", 1, BAN_MAX, &seconds);
    h->seconds = (uint32_t)seconds;
    ask_supervisor(r, CONTROL_BAN, answer_supervisor);
}

void api_unban(struct request *r)
{
    struct control_head *h = &r->gather.ask.req.head;

    query_need(&r->query, "address", "CIDR");
    query_cidr(&r->query, "address", &h->address, &h->address_bits);
    ask_supervisor(r, CONTROL_UNBAN, answer_supervisor);
}

/* Answered when it is done, or when it has been given up. */
void api_evacuate(struct request *r)
{
    const struct config_gateway *cfg = &r->admin->cfg->gateway;
    struct control_head *h = &r->gather.ask.req.head;
    uint64_t shard = 0;

    query_need(&r->query, "shard", "N");
    query_uint(&r->query, "shard", 0, r->admin->node->n_shards - 1, &shard);
    bool back = query_yes(&r->query, "back");
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    h->cursor = shard;
    h->flags = back ? 0 : CONTROL_ON;
    request_head(r, CONTROL_EVACUATE);
    request_ask_supervisor(r, cfg->upgrade_timeout * 1000 + cfg->upgrade_pause_max + SUPERVISOR_MS,
                           answer_supervisor);
}

void api_log(struct request *r)
{
    const char *levels[CONFIG_LEVELS + 1];
    unsigned level = 0;

    for (unsigned i = 0; i < CONFIG_LEVELS; i++)
        levels[i] = config_log_level_name((enum config_log_level)i);
    levels[CONFIG_LEVELS] = NULL;
    query_need(&r->query, "level", "notice");
    if (query_choice(&r->query, "level", levels, &level))
        r->gather.ask.req.text[CONTROL_TEXT_NAME] =
            (struct slice){(const uint8_t *)levels[level], strlen(levels[level])};
    ask_supervisor(r, CONTROL_LOG_LEVEL, answer_supervisor);
}

/* Something in the file is wrong: 409, whatever the status says. */
static void answer_reload(struct request *r)
{
    const struct gathered *of = &r->gather.of[PEER_SUPERVISOR];
    struct slice text = gather_json(&r->gather, PEER_SUPERVISOR);
    json_t *json = json_loadb((const char *)text.data, text.len, JSON_ALLOW_NUL, NULL);
    bool problems = json_array_size(json_object_get(json, "problems")) > 0;

    if (!of->answered || (!problems && !json_is_string(json_object_get(json, "error")))) {
        answer_supervisor(r);
    } else {
        if (json_object_get(json, "error") == NULL)
            (void)json_object_set_new(json, "error",
                                      json_string("something is wrong, nothing has changed: see problems"));
        char *dump = json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER);
        bytes_append_str(&r->body, dump != NULL ? dump : "{}");
        free(dump);
        request_answer(r, of->status == -EBUSY ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_CONFLICT);
    }
    json_decref(json);
}

void api_reload(struct request *r)
{
    ask_supervisor(r, CONTROL_RELOAD, answer_reload);
}

/* ---- inject */

/* A shard that has crashed, or is stuck, as it was told to, answers no more. */
static void answer_inject(struct request *r)
{
    if (gather_error(&r->gather) < 0)
        answer_ok(r);
    else
        write_ok(r);
}

void api_inject(struct request *r)
{
    static const char *const names[] = {"crash", "abort", "stuck", "slow_turn", "no_memory", NULL};
    uint64_t mask = api_shard(r);
    unsigned name = 0;

    query_need(&r->query, "shard", "N");
    query_need(&r->query, "name", "crash");
    if (query_choice(&r->query, "name", names, &name))
        r->gather.ask.req.text[CONTROL_TEXT_NAME] =
            (struct slice){(const uint8_t *)names[name], strlen(names[name])};
    if (!query_end(&r->query)) {
        request_wrong(r);
        return;
    }
    request_head(r, CONTROL_INJECT);
    request_ask(r, mask, r->admin->cfg->admin.query_timeout, GATHER_OBJECT, answer_inject);
}
