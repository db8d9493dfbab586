// SPDX-License-Identifier: MIT
/* Following something live: lines go to the asker as the shards tell them. What he does not take waits in a
 * bounded buffer; past that it is left out, counted, and said. */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "admin/admin_priv.h"
#include "admin/json_rows.h"

#define BUFFER_MAX   ((size_t)1 << 20)
#define SAID_MAX     128  /* the line that says what was left out */
#define END_MS       1000 /* how long a shard gets to hear of the end */
#define SECONDS      60
#define NAME_MAX_LEN 16384

struct trace {
    struct request *request;
    struct ask ask;
    uint64_t mask;
    struct bytes buf;
    size_t at; /* sent up to there */
    uint64_t left_out;
    bool ended;
};

/* ---- the end of it in the shards */

struct trace_end {
    struct ask ask;
};

static void on_end_told(struct ask *a)
{
    free(CONTAINER_OF(a, struct trace_end, ask));
}

static void end_in_shards(struct admin *a, const struct trace *t)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < a->node->n_shards; i++) {
        if (t->ask.state[i] == ASK_WAITS)
            mask |= UINT64_C(1) << i;
    }
    struct trace_end *end = mask == 0 ? NULL : calloc(1, sizeof *end);
    if (end == NULL)
        return; /* without memory: it ends by its time */
    end->ask.kind = ASK_FREE;
    end->ask.done = on_end_told;
    end->ask.req.head.op = CONTROL_TRACE_END;
    end->ask.req.head.cursor = t->ask.req.head.id;
    (void)shards_ask(a->shards, &end->ask, mask, admin_now_ms(), END_MS);
}

static void trace_free(struct request *r)
{
    struct trace *t = r->job;
    if (shards_is_asked(&t->ask))
        end_in_shards(r->admin, t);
    shards_cancel(r->admin->shards, &t->ask);
    r->admin->n_traces--;
    bytes_fini(&t->buf);
    free(t);
}

/* ---- what comes */

static size_t waiting(const struct trace *t)
{
    return t->buf.len - t->at;
}

static void say_left_out(struct trace *t)
{
    if (t->left_out == 0)
        return;
    struct json_writer w = {.out = &t->buf};
    json_begin(&w, '{');
    json_member_int(&w, "at_unix_ms", admin_unix_ms());
    json_member_str(&w, "event", "left_out");
    json_member_uint(&w, "count", t->left_out);
    json_end(&w, '}');
    bytes_append_byte(&t->buf, '\n');
    t->left_out = 0;
}

static void add_line(struct trace *t, struct slice row)
{
    if (waiting(t) + row.len + SAID_MAX > BUFFER_MAX || !bytes_reserve(&t->buf, row.len + SAID_MAX)) {
        t->buf.failed = false;
        t->left_out++;
        return;
    }
    say_left_out(t);
    bytes_append(&t->buf, row.data, row.len);
    bytes_append_byte(&t->buf, '\n');
}

/* A shard that does not follow it (any more). */
static void say_refused(struct trace *t, unsigned shard, int err)
{
    struct bytes line = {0};
    struct json_writer w = {.out = &line};
    json_begin(&w, '{');
    json_member_int(&w, "at_unix_ms", admin_unix_ms());
    json_member_uint(&w, "shard", shard);
    json_member_str(&w, "event", "trace_end");
    json_member_str(&w, "reason", strerror(-err));
    json_end(&w, '}');
    if (!line.failed)
        add_line(t, (struct slice){line.data, line.len});
    bytes_fini(&line);
}

static void wake(struct trace *t)
{
    if (t->request->suspended)
        request_resume(t->request);
}

/* Lines, each an object. */
static void add_lines(struct trace *t, struct slice text)
{
    while (text.len > 0) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        struct slice line = {text.data, end != NULL ? (size_t)(end - text.data) : text.len};
        size_t used = line.len + (end != NULL);
        if (json_rows_count(line) == 1)
            add_line(t, line);
        else if (line.len > 0)
            t->left_out++; /* garbage */
        text = (struct slice){text.data + used, text.len - used};
    }
}

static void on_reply(struct ask *a, unsigned peer, const struct control_reply *reply, struct slice json)
{
    struct trace *t = CONTAINER_OF(a, struct trace, ask);
    if (t->at > 0 && t->at >= t->buf.len / 2) {
        bytes_consume(&t->buf, t->at);
        t->at = 0;
    }
    if (reply->status < 0)
        say_refused(t, peer, reply->status);
    else
        add_lines(t, json);
    wake(t);
}

static void on_done(struct ask *a)
{
    struct trace *t = CONTAINER_OF(a, struct trace, ask);
    t->ended = true;
    wake(t);
}

/* ---- what goes */

static ssize_t read_lines(void *arg, uint64_t pos, char *out, size_t max)
{
    struct trace *t = arg;
    if (t->request->stage == REQUEST_GONE)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (waiting(t) == 0) {
        bytes_clear(&t->buf);
        t->at = 0;
        say_left_out(t);
    }
    size_t n = waiting(t) < max ? waiting(t) : max;
    if (n > 0) {
        memcpy(out, t->buf.data + t->at, n);
        t->at += n;
        return (ssize_t)n;
    }
    if (t->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    request_suspend(t->request, EPOLLRDHUP);
    return 0;
}

/* ---- the beginning */

static bool parse(struct request *r, struct trace *t)
{
    struct query *q = &r->query;
    struct query_gateway gw = admin_gateway(r->admin);
    struct control_request *req = &t->ask.req;
    uint64_t seconds = SECONDS, max = r->admin->cfg->admin.trace_time_max;
    unsigned n =
        (unsigned)query_has(q, "client") + (unsigned)query_has(q, "uid") + (unsigned)query_has(q, "address");

    if (n != 1)
        query_wrong(q, "what? expected one of client=ID, uid=UID and address=CIDR");
    t->mask = admin_all_shards(r->admin);
    if (query_client(q, "client", &gw, &req->head.client))
        t->mask = UINT64_C(1) << admin_shard_of(r->admin, req->head.client);
    query_text(q, "uid", NAME_MAX_LEN, &req->text[CONTROL_TEXT_UID]);
    query_cidr(q, "address", &req->head.address, &req->head.address_bits);
    seconds = seconds < max ? seconds : max;
    query_uint(q, "seconds", 1, max, &seconds);
    req->head.seconds = (uint32_t)seconds;
    req->head.op = CONTROL_TRACE;
    return query_end(q);
}

static void begin(struct request *r, struct trace *t)
{
    struct admin *a = r->admin;
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32768, read_lines, t, NULL);
    if (response != NULL) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/x-ndjson");
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
        t->ask.kind = ASK_FOLLOW;
        t->ask.reply = on_reply;
        t->ask.done = on_done;
        (void)shards_ask(a->shards, &t->ask, t->mask, admin_now_ms(),
                         t->ask.req.head.seconds * UINT64_C(1000) + a->cfg->admin.query_timeout);
    }
    request_respond(r, MHD_HTTP_OK, response);
}

void api_trace(struct request *r)
{
    struct trace *t;
    if (r->admin->n_traces >= TRACES_MAX) {
        request_error(r, MHD_HTTP_SERVICE_UNAVAILABLE, "%d traces are under way, which is the most; end one",
                      TRACES_MAX);
        return;
    }
    t = calloc(1, sizeof *t);
    if (t == NULL) {
        request_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
        return;
    }
    t->request = r;
    r->admin->n_traces++;
    r->job = t;
    r->job_free = trace_free;
    if (parse(r, t))
        begin(r, t);
    else
        request_wrong(r);
}
