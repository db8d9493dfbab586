// SPDX-License-Identifier: MIT
#include "upstream/upstream.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/json_writer.h"
#include "upstream/upstream_priv.h"

void upstream_message_fini(struct upstream_message *m)
{
    for (unsigned i = 0; i < UPSTREAM_MESSAGE_FORMS; i++)
        buf_unref(m->forms[i]);
    for (unsigned i = 0; m->rare != NULL && i < UPSTREAM_RARE_FORMS; i++)
        buf_unref(m->rare->forms[i]);
    free(m->rare);
}

void upstream_start(struct upstream *u)
{
    u->ops->start(u);
}

void upstream_client_connected(struct upstream *u, struct upstream_client *c)
{
    u->ops->client_connected(u, c);
}

void upstream_client_handshaken(struct upstream *u, struct upstream_client *c, const struct http_request *req)
{
    u->ops->client_handshaken(u, c, req);
}

void upstream_client_message(struct upstream *u, struct upstream_client *c, const uint8_t *data, size_t len)
{
    u->ops->client_message(u, c, data, len);
}

bool upstream_client_blocked(struct upstream *u, struct upstream_client *c)
{
    return u->ops->client_blocked(u, c);
}

void upstream_client_closed(struct upstream *u, struct upstream_client *c)
{
    u->ops->client_closed(u, c);
}

struct net_listener *upstream_listener(struct upstream *u)
{
    return u->ops->listener(u);
}

bool upstream_has_worker(const struct upstream *u)
{
    return u->ops->has_worker(u);
}

bool upstream_is_flushed(const struct upstream *u)
{
    return u->ops->is_flushed(u);
}

void upstream_finish(struct upstream *u)
{
    u->ops->finish(u);
}

bool upstream_is_finished(const struct upstream *u)
{
    return u->ops->is_finished(u);
}

void upstream_free(struct upstream *u)
{
    if (u != NULL)
        u->ops->free(u);
}

/* ---- to be handed over */

void upstream_hold(struct upstream *u, bool on)
{
    u->ops->hold(u, on);
}

const char *upstream_unrest(const struct upstream *u)
{
    return u->ops->unrest(u);
}

int upstream_export_links(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                          uint64_t *ret_links, uint64_t *ret_workers)
{
    return u->ops->export_links(u, plan, sink, ret_links, ret_workers);
}

void upstream_export_client(struct upstream *u, const struct upstream_client *c, struct transfer_client *ret)
{
    u->ops->export_client(u, c, ret);
}

int upstream_export_ended(struct upstream *u, const struct upstream_client *c,
                          const struct transfer_plan *plan, struct transfer_sink *sink)
{
    return u->ops->export_ended(u, c, plan, sink);
}

int upstream_export_rest(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                         uint64_t *ret_records)
{
    return u->ops->export_rest(u, plan, sink, ret_records);
}

int upstream_import(struct upstream *u, unsigned from, const struct transfer_record *r)
{
    return u->ops->import(u, from, r);
}

uint32_t upstream_workers(const struct upstream *u)
{
    return u->ops->workers(u);
}

int upstream_import_client(struct upstream *u, unsigned from, struct upstream_client *c,
                           const struct transfer_client *t)
{
    return u->ops->import_client(u, from, c, t);
}

void upstream_import_done(struct upstream *u)
{
    u->ops->import_done(u);
}

void upstream_forget_client(struct upstream *u, struct upstream_client *c)
{
    u->ops->forget_client(u, c);
}

void upstream_forget_all(struct upstream *u)
{
    u->ops->forget_all(u);
}

void upstream_forget_given(struct upstream *u)
{
    u->ops->forget_given(u);
}

void upstream_forget_taken(struct upstream *u)
{
    u->ops->forget_taken(u);
}

/* ---- to be seen and steered */

uint64_t upstream_list_workers(struct upstream *u, struct json_writer *w, uint64_t cursor, uint32_t limit,
                               size_t bytes_max)
{
    return u->ops->list_workers(u, w, cursor, limit, bytes_max);
}

void upstream_list_tables(struct upstream *u, struct json_writer *w)
{
    u->ops->list_tables(u, w);
}

void upstream_describe_client(struct upstream *u, const struct upstream_client *c, struct json_writer *w,
                              bool full)
{
    u->ops->describe_client(u, c, w, full);
}

int upstream_drain_worker(struct upstream *u, struct slice key, bool on, uint32_t over_ms)
{
    return u->ops->drain_worker(u, key, on, over_ms);
}

uint32_t upstream_rebalance(struct upstream *u, uint32_t over_ms)
{
    return u->ops->rebalance(u, over_ms);
}

const char *upstream_check(struct upstream *u, uint64_t *position, unsigned steps)
{
    return u->ops->check(u, position, steps);
}

void upstream_measure(struct upstream *u)
{
    u->ops->measure(u);
}

static void write_number(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, key);
    if (value == UINT64_MAX)
        json_write_null(w);
    else
        json_uint(w, value);
}

void json_table(struct json_writer *w, unsigned shard, const char *name, uint64_t used, uint64_t peak,
                uint64_t capacity, uint64_t bytes)
{
    json_begin(w, '{');
    json_member_uint(w, "shard", shard);
    json_member_str(w, "name", name);
    write_number(w, "used", used);
    write_number(w, "peak", peak);
    write_number(w, "capacity", capacity);
    write_number(w, "bytes", bytes);
    json_end(w, '}');
}
