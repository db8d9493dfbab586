// SPDX-License-Identifier: MIT
#include "main/ctl_trace.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "main/ctl_ask.h"
#include "main/ctl_text.h"

#define LINE_MAX_BYTES ((size_t)1 << 20)

/* ---- a line */

static void append_time(struct bytes *line, const json_t *event)
{
    double ms = ctl_number(event, "at_unix_ms");
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    char text[16];

    if (localtime_r(&s, &tm) == NULL || strftime(text, sizeof text, "%H:%M:%S", &tm) == 0)
        return;
    bytes_printf(line, "%s.%03d", text, (int)(ms - (double)s * 1000));
}

static bool is_said(const char *name)
{
    static const char *const said[] = {"at_unix_ms", "since_ms", "shard", "connection_id", "event"};
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        if (strcmp(name, said[i]) == 0)
            return true;
    }
    return false;
}

static void append_member(struct bytes *line, const char *prefix, const char *name, const json_t *value)
{
    struct bytes text = {0};
    const char *quote = json_is_string(value) ? "\"" : "";

    ctl_value_append(&text, value, CTL_TEXT);
    bytes_printf(line, " %s%s", prefix, *prefix != '\0' ? "." : "");
    ctl_text_append(line, name, strlen(name));
    bytes_printf(line, "=%s", quote);
    ctl_text_append(line, text.data, text.len);
    bytes_append_str(line, quote);
    line->failed = line->failed || text.failed;
    bytes_fini(&text);
}

/* What belongs to the event; of an object in it (the client that has come) what is known. */
static void append_rest(struct bytes *line, const json_t *event, const char *prefix)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)event, name, value)
    {
        if (is_said(name) || json_is_null(value))
            continue;
        if (json_is_object(value) && *prefix == '\0')
            append_rest(line, value, name);
        else
            append_member(line, prefix, name, value);
    }
}

/* One of the numbers of an event, right-aligned; not every event has it. */
static void append_number(struct bytes *line, const json_t *event, const char *name, size_t columns)
{
    struct bytes text = {0};

    ctl_value_append(&text, json_object_get(event, name), CTL_RTEXT);
    for (size_t i = text.len; i < columns; i++)
        bytes_append_byte(line, ' ');
    ctl_text_append(line, text.data, text.len);
    bytes_fini(&text);
}

static void append_event(struct bytes *line, const json_t *event)
{
    char since[CTL_FORMAT_MAX] = "";

    if (json_is_number(json_object_get(event, "since_ms")))
        ctl_format_ns(ctl_number(event, "since_ms") * 1e6, since);
    append_time(line, event);
    bytes_printf(line, " %9s  shard ", since);
    append_number(line, event, "shard", 0);
    append_number(line, event, "connection_id", 12);
    bytes_append_str(line, "  ");
    const char *name = ctl_string(event, "event");
    size_t columns = ctl_text_append(line, name, strlen(name));
    for (; columns < 12; columns++)
        bytes_append_byte(line, ' ');
    append_rest(line, event, "");
}

void ctl_trace_line(const void *json, size_t len, const struct ctl_screen *screen, struct bytes *out)
{
    json_t *event = len > 0 ? json_loadb(json, len, JSON_ALLOW_NUL, NULL) : NULL;
    struct bytes line = {0};

    if (json_is_object(event))
        append_event(&line, event);
    else
        ctl_text_append(&line, json, len);
    ctl_line_write(screen, line.data, line.len, out);
    out->failed = out->failed || line.failed;
    bytes_fini(&line);
    json_decref(event);
}

/* ---- the stream */

struct trace {
    bool json;
    const struct ctl_screen *screen;
    struct bytes in, out;
    int (*flush)(struct bytes *out);
};

/* The gateway says no with one piece of JSON; a trace is lines. */
static int take(void *ctx, const struct ctl_http_head *head, const uint8_t *data, size_t len)
{
    struct trace *t = ctx;
    size_t done = 0;
    const uint8_t *end;

    if (!bytes_append(&t->in, data, len))
        return -ENOMEM;
    if (t->in.len > LINE_MAX_BYTES)
        return -EMSGSIZE;
    if (head->status != 200)
        return 0;
    while ((end = memchr(t->in.data + done, '\n', t->in.len - done)) != NULL) {
        size_t n = (size_t)(end - t->in.data) - done;
        if (t->json) {
            ctl_json_append(&t->out, t->in.data + done, n + 1);
        } else if (n > 0) {
            ctl_trace_line(t->in.data + done, n, t->screen, &t->out);
        }
        done += n + 1;
    }
    bytes_consume(&t->in, done);
    return t->out.failed ? -ENOMEM : t->flush(&t->out);
}

int ctl_trace(const char *socket_path, const char *target, bool json, const struct ctl_screen *screen,
              int (*flush)(struct bytes *out), struct bytes *why)
{
    struct trace t = {.json = json, .screen = screen, .flush = flush};
    struct ctl_http_head head = {0};
    struct ctl_http_request req = {
        .method = "GET", .target = target, .endless = true, .body = take, .ctx = &t};

    int r = ctl_http_ask(socket_path, &req, &head);
    if (r == 0 && head.status != 200) {
        ctl_ask_refused(head.status, &t.in, why);
        r = -EPROTO;
    } else if (r < 0 && r != -EINTR) {
        ctl_ask_explain(socket_path, r, why);
    }
    bytes_fini(&t.in);
    bytes_fini(&t.out);
    return r == -EINTR ? 0 : r;
}
