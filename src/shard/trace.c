// SPDX-License-Identifier: MIT
#include "shard/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/control.h"
#include "shard/control_priv.h"
#include "shard/trace_redact.h"

/* Bytes of a message that one line shows at most: each may take six. */
#define SHOWN_MAX 4096
/* What the asker has not taken; past that events are left out. */
#define WAITING_MAX (4 * CONTROL_MESSAGE_MAX)
#define LAST_N      16
#define MARK_STEPS  256

struct last_event {
    uint32_t id;
    uint64_t ns;
};

struct trace {
    struct list node;
    struct shard *shard;
    int fd;
    uint32_t id;
    struct slice uid; /* data NULL: not by uid */
    struct net_addr address;
    uint8_t address_bits;
    uint32_t client;
    struct timer timer; /* its end */
    struct loop_task mark;
    uint64_t mark_next;
    uint32_t n_marked;
    uint64_t second_ms; /* begin of the second that is counted */
    uint32_t n_in_second;
    uint64_t left_out;
    struct bytes lines;
    struct last_event last[LAST_N]; /* of the clients that it has seen last */
    unsigned next_last;
};

struct trace_set {
    struct list list;
    unsigned n;
    struct loop_hook hook;
};

/* ---- lines */

static void begin_line(struct trace *t, struct json_writer *w, const char *event)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *w = (struct json_writer){.out = &t->lines};
    json_begin(w, '{');
    json_member_int(w, "at_unix_ms", (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    json_member_uint(w, "shard", t->shard->number);
    json_member_str(w, "event", event);
}

static void end_line(struct trace *t, struct json_writer *w)
{
    json_end(w, '}');
    bytes_append_byte(&t->lines, '\n');
}

static void say_left_out(struct trace *t)
{
    struct json_writer w;
    begin_line(t, &w, "left_out");
    json_member_uint(&w, "count", t->left_out);
    end_line(t, &w);
    t->left_out = 0;
}

/* At most one message of whole lines. */
static size_t lines_that_fit(const struct trace *t)
{
    if (t->lines.len <= CONTROL_JSON_MAX)
        return t->lines.len;
    const uint8_t *end = memrchr(t->lines.data, '\n', CONTROL_JSON_MAX);
    return end != NULL ? (size_t)(end - t->lines.data) + 1 : 0;
}

/* last: nothing follows. */
static void send_lines(struct trace *t, bool last)
{
    struct control_reply reply = {.id = t->id, .flags = CONTROL_MORE};
    if (t->lines.failed) { /* no memory: begun lines are no lines */
        bytes_fini(&t->lines);
        t->left_out++;
    }
    if (t->left_out > 0 && t->lines.len < WAITING_MAX)
        say_left_out(t);
    for (size_t len; (len = lines_that_fit(t)) > 0; bytes_consume(&t->lines, len))
        if (control_reply(t->fd, &reply, t->lines.data, len) != 0)
            break;
    reply.flags = 0;
    if (last)
        (void)control_reply(t->fd, &reply, NULL, 0);
}

/* Whether that trace may say one more thing. */
static bool has_room(struct trace *t)
{
    uint64_t now_ms = loop_now_ms(t->shard->host.loop);
    if (now_ms - t->second_ms >= 1000) {
        t->second_ms = now_ms;
        t->n_in_second = 0;
    }
    bool room = t->n_in_second < t->shard->host.config->admin.trace_events && t->lines.len < WAITING_MAX;
    if (room) {
        t->n_in_second++;
        shard_count(t->shard, COUNTER_trace_events, 1);
    } else {
        t->left_out++;
        shard_count(t->shard, COUNTER_trace_left_out, 1);
    }
    return room;
}

/* Milliseconds since the event before of that client; -1: this is the first. */
static int64_t since_last(struct trace *t, uint32_t id)
{
    uint64_t now_ns = loop_clock_ns(t->shard->host.loop);
    for (unsigned i = 0; i < LAST_N; i++) {
        if (t->last[i].id != id || t->last[i].ns == 0)
            continue;
        int64_t ms = (int64_t)((now_ns - t->last[i].ns) / 1000000);
        t->last[i].ns = now_ns;
        return ms;
    }
    t->last[t->next_last++ % LAST_N] = (struct last_event){id, now_ns};
    return -1;
}

static void begin_client_line(struct trace *t, struct json_writer *w, const struct client *c,
                              const char *event)
{
    int64_t since_ms = since_last(t, c->up.member.id);
    begin_line(t, w, event);
    json_member_uint(w, "connection_id", c->up.member.id);
    json_key(w, "since_ms");
    if (since_ms >= 0)
        json_int(w, since_ms);
    else
        json_write_null(w);
}

/* ---- whom it follows */

static bool is_of_uid(const struct trace *t, const struct client *c)
{
    struct slice uid;
    if (t->uid.data == NULL || c->up.member.uid == NULL)
        return false;
    uid.data = uid_entry_name(c->up.member.uid, &uid.len);
    return slice_eq(uid, t->uid);
}

static bool is_of_address(const struct trace *t, const struct client *c)
{
    return t->address.family != 0 && control_is_within(&c->up.peer, &t->address, t->address_bits);
}

static bool follows(const struct trace *t, const struct client *c)
{
    return (t->client != 0 && t->client == c->up.member.id) || is_of_address(t, c) || is_of_uid(t, c);
}

/* Every trace that follows c and has room, one after the other; *at NULL to begin with. */
static struct trace *next_of(struct client *c, struct trace **at)
{
    struct trace_set *set = client_shard(c)->traces;
    if (set == NULL)
        return NULL;
    for (struct list *n = *at == NULL ? set->list.next : (*at)->node.next; n != &set->list; n = n->next) {
        struct trace *t = CONTAINER_OF(n, struct trace, node);
        if (follows(t, c) && has_room(t))
            return *at = t;
    }
    return NULL;
}

/* ---- events */

static void write_connect(struct trace *t, struct client *c, const char *event)
{
    struct json_writer w;
    begin_client_line(t, &w, c, event);
    json_key(&w, "client");
    control_write_client(t->shard, c, &w, false);
    end_line(t, &w);
}

void trace_new_client(struct client *c)
{
    for (struct trace *t = NULL; next_of(c, &t) != NULL;) {
        c->up.traced = true;
        write_connect(t, c, "connect");
    }
}

void trace_uid_bound(struct client *c, struct slice uid)
{
    struct json_writer w;
    for (struct trace *t = NULL; next_of(c, &t) != NULL;) {
        if (!c->up.traced)
            write_connect(t, c, "trace_begin");
        c->up.traced = true;
        begin_client_line(t, &w, c, "bind");
        json_member_string(&w, "uid", uid.data, uid.len, CONTROL_NAME_MAX);
        end_line(t, &w);
    }
}

void trace_handshake(struct client *c)
{
    struct json_writer w;
    for (struct trace *t = NULL; next_of(c, &t) != NULL;) {
        begin_client_line(t, &w, c, "handshake");
        end_line(t, &w);
    }
}

static void write_bytes(struct trace *t, struct json_writer *w, const uint8_t *data, size_t len)
{
    const struct config_admin *cfg = &t->shard->host.config->admin;
    struct bytes shown = {0};
    if (len > cfg->trace_bytes)
        len = cfg->trace_bytes;
    if (len == 0)
        return;
    trace_redact(&shown, data, len, cfg->trace_redact);
    json_member_string(w, "bytes", shown.data, shown.len, SHOWN_MAX);
    bytes_fini(&shown);
}

void trace_message(struct client *c, const char *event, const char *opcode, const uint8_t *data, size_t len)
{
    struct json_writer w;
    for (struct trace *t = NULL; next_of(c, &t) != NULL;) {
        begin_client_line(t, &w, c, event);
        json_member_uint(&w, "size", len);
        if (opcode != NULL)
            json_member_str(&w, "opcode", opcode);
        write_bytes(t, &w, data, len);
        end_line(t, &w);
    }
}

void trace_command(struct client *c, const char *command, size_t len, const char *sender)
{
    struct json_writer w;
    for (struct trace *t = NULL; next_of(c, &t) != NULL;) {
        begin_client_line(t, &w, c, "command");
        json_member_str(&w, "command", command);
        json_member_uint(&w, "size", len);
        json_member_str(&w, "sender", sender);
        end_line(t, &w);
    }
}

void trace_close(struct client *c, enum close_reason reason, unsigned code, const char *why)
{
    struct json_writer w;
    for (struct trace *t = NULL; next_of(c, &t) != NULL;) {
        begin_client_line(t, &w, c, "close");
        json_member_str(&w, "reason", close_reason_name(reason));
        if (code != 0)
            json_member_uint(&w, "code", code);
        if (why != NULL)
            json_member_str(&w, "why", why);
        json_member_uint(&w, "queue_bytes", c->out_bytes);
        end_line(t, &w);
    }
}

/* ---- coming and going */

static bool send_all(struct loop_hook *hook)
{
    struct trace_set *set = CONTAINER_OF(hook, struct trace_set, hook);
    for (struct list *n = set->list.next; n != &set->list; n = n->next) {
        struct trace *t = CONTAINER_OF(n, struct trace, node);
        if (t->lines.len > 0 || t->left_out > 0 || t->lines.failed)
            send_lines(t, false);
    }
    return false;
}

static void trace_free(struct trace *t)
{
    struct shard *s = t->shard;
    struct trace_set *set = s->traces;
    timer_cancel(s->host.loop, &t->timer);
    loop_task_remove(s->host.loop, &t->mark);
    list_remove(&t->node);
    bytes_fini(&t->lines);
    free(t);
    if (--set->n > 0)
        return;
    s->traces = NULL; /* bits that clients still have mean nothing then */
    s->host.tracing = false;
    loop_hook_remove(s->host.loop, &set->hook);
    free(set);
}

static void end(struct trace *t)
{
    struct json_writer w;
    begin_line(t, &w, "trace_end");
    end_line(t, &w);
    send_lines(t, true);
    trace_free(t);
}

static void on_timer(struct timer *timer)
{
    end(CONTAINER_OF(timer, struct trace, timer));
}

static void say_begin(struct trace *t)
{
    struct json_writer w;
    begin_line(t, &w, "trace_begin");
    json_member_uint(&w, "clients", t->n_marked);
    end_line(t, &w);
}

/* Who is there already. */
static bool mark_slice(struct loop_task *task)
{
    struct trace *t = CONTAINER_OF(task, struct trace, mark);
    for (unsigned steps = 0; steps < MARK_STEPS; steps++) {
        struct client *c = control_next_client(t->shard, &t->mark_next);
        if (c == NULL) {
            say_begin(t);
            return true;
        }
        if (follows(t, c)) {
            t->n_marked++;
            c->up.traced = true;
        }
    }
    return false;
}

static struct trace_set *need_set(struct shard *s)
{
    if (s->traces == NULL && (s->traces = calloc(1, sizeof *s->traces)) != NULL) {
        s->host.tracing = true;
        list_init(&s->traces->list);
        s->traces->hook.run = send_all;
        loop_hook_add(s->host.loop, &s->traces->hook);
    }
    return s->traces;
}

int trace_begin(struct shard *s, int fd, const struct control_request *req)
{
    struct slice uid = req->text[CONTROL_TEXT_UID];
    uint64_t seconds = req->head.seconds, most = s->host.config->admin.trace_time_max;
    if (s->traces != NULL && s->traces->n >= TRACES_MAX)
        return -EBUSY;
    struct trace *t = calloc(1, sizeof *t + uid.len);
    struct trace_set *set = t != NULL ? need_set(s) : NULL;
    if (set == NULL) {
        free(t);
        return -ENOMEM;
    }
    t->shard = s;
    t->fd = fd;
    t->id = req->head.id;
    t->client = req->head.client;
    t->address = req->head.address;
    t->address_bits = req->head.address_bits;
    if (uid.data != NULL)
        t->uid = (struct slice){memcpy(t + 1, uid.data, uid.len), uid.len};
    list_append(&set->list, &t->node);
    set->n++;
    timer_set(s->host.loop, &t->timer, (seconds == 0 || seconds > most ? most : seconds) * 1000, on_timer);
    t->mark.run = mark_slice;
    t->mark_next = s->n_clients;
    loop_task_add(s->host.loop, &t->mark);
    return 0;
}

void trace_end(struct shard *s, uint32_t id)
{
    for (struct list *n = s->traces != NULL ? s->traces->list.next : NULL; n != NULL && n != &s->traces->list;
         n = n->next) {
        struct trace *t = CONTAINER_OF(n, struct trace, node);
        if (t->id == id) {
            end(t);
            return;
        }
    }
}

void trace_end_all(struct shard *s)
{
    while (s->traces != NULL)
        end(CONTAINER_OF(s->traces->list.next, struct trace, node));
}
