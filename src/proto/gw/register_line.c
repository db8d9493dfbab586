// SPDX-License-Identifier: MIT
#include "proto/gw/register_line.h"

#include <stdlib.h>

#include "proto/gw/json.h"

void register_line_fini(struct register_line *line)
{
    free(line->addresses);
    bytes_fini(&line->text);
    *line = (struct register_line){0};
}

static enum register_event event_of(struct slice name)
{
    static const struct {
        const char *name;
        enum register_event event;
    } events[] = {{"gateway_connect", REGISTER_GATEWAY_CONNECT},
                  {"worker_connect", REGISTER_WORKER_CONNECT},
                  {"ping", REGISTER_PING},
                  {"broadcast_addresses", REGISTER_BROADCAST_ADDRESSES}};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        if (slice_eq_str(name, events[i].name))
            return events[i].event;
    }
    return REGISTER_UNKNOWN;
}

static int read_string(struct register_line *line, struct json_reader *r, struct slice *ret)
{
    struct json_value v;
    int token = json_next(r, &v);
    return token == JSON_TOK_STRING ? json_unescape(&v, &line->text, ret) : -EPROTO;
}

static int add_address(struct register_line *line, const struct json_value *v)
{
    if (line->n_addresses == line->cap_addresses) {
        size_t cap = line->cap_addresses == 0 ? 8 : line->cap_addresses * 2;
        struct slice *grown = reallocarray(line->addresses, cap, sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        line->addresses = grown;
        line->cap_addresses = cap;
    }
    return json_unescape(v, &line->text, &line->addresses[line->n_addresses++]);
}

/* A list; or an object, which is what PHP makes of a list that array_unique has left gaps in. */
static int read_addresses(struct register_line *line, struct json_reader *r)
{
    struct json_value v;
    int token = json_next(r, &v);
    if (token != JSON_TOK_ARRAY && token != JSON_TOK_OBJECT)
        return -EPROTO;
    line->n_addresses = 0;
    while ((token = json_next(r, &v)) != JSON_TOK_ARRAY_END && token != JSON_TOK_OBJECT_END) {
        if (token == JSON_TOK_KEY)
            continue;
        int err = token == JSON_TOK_STRING ? add_address(line, &v) : -EPROTO;
        if (err < 0)
            return err;
    }
    return 0;
}

static int read_member(struct register_line *line, struct json_reader *r, struct slice key,
                       struct slice *ret_event)
{
    struct json_value v;
    if (slice_eq_str(key, "event"))
        return read_string(line, r, ret_event);
    if (slice_eq_str(key, "address"))
        return read_string(line, r, &line->address);
    if (slice_eq_str(key, "secret_key"))
        return read_string(line, r, &line->secret_key);
    if (slice_eq_str(key, "addresses"))
        return read_addresses(line, r);
    int token = json_next(r, &v);
    return token < 0 ? token : json_skip(r, token);
}

int register_line_parse(const uint8_t *data, size_t len, struct register_line *ret)
{
    struct json_reader r;
    struct json_value v;
    struct slice key, event = SLICE_STR("");
    int token, err;
    bytes_clear(&ret->text);
    ret->text.failed = false;
    ret->address = ret->secret_key = SLICE_STR("");
    ret->n_addresses = 0;
    /* Decoding shrinks, so this much never moves while slices point into it. */
    if (!bytes_reserve(&ret->text, len + 1))
        return -ENOMEM;
    json_init(&r, (struct slice){data, len});
    if (json_next(&r, &v) != JSON_TOK_OBJECT)
        return -EPROTO;
    while ((token = json_next(&r, &v)) == JSON_TOK_KEY) {
        if ((err = json_unescape(&v, &ret->text, &key)) < 0)
            return err;
        if ((err = read_member(ret, &r, key, &event)) < 0)
            return err;
    }
    if (token < 0 || json_next(&r, &v) != JSON_TOK_DONE || event.len == 0)
        return -EPROTO;
    ret->event = event_of(event);
    return 0;
}

void register_line_gateway_connect(struct bytes *out, struct slice address, struct slice secret_key)
{
    bytes_append_str(out, "{\"event\":\"gateway_connect\",\"address\":");
    json_write_string(out, address);
    bytes_append_str(out, ",\"secret_key\":");
    json_write_string(out, secret_key);
    bytes_append_str(out, "}\n");
}

void register_line_worker_connect(struct bytes *out, struct slice secret_key)
{
    bytes_append_str(out, "{\"event\":\"worker_connect\",\"secret_key\":");
    json_write_string(out, secret_key);
    bytes_append_str(out, "}\n");
}

void register_line_ping(struct bytes *out)
{
    bytes_append_str(out, "{\"event\":\"ping\"}\n");
}

void register_line_broadcast(struct bytes *out, const struct slice *addresses, size_t n)
{
    bytes_append_str(out, "{\"event\":\"broadcast_addresses\",\"addresses\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            bytes_append_byte(out, ',');
        json_write_string(out, addresses[i]);
    }
    bytes_append_str(out, "]}\n");
}
