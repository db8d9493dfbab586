// SPDX-License-Identifier: MIT
/* What workers put into ext_data (JSON) of the commands that address many clients, read without building a
 * tree and with PHP's ideas of keys: a number 5 and a string "5" are the same name, true is "1", false "0",
 * null "", a float is cut to an integer (docs/PROTOCOL-gatewayworker.md).
 *
 * All readers return 0, -EPROTO (not JSON, or a shape on which PHP would die) or -ENOMEM, and fill ret on 0
 * only. What they return points into ext and into the struct gw_args, and is valid until the next reader runs
 * on that args. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct gw_names {
    const struct slice *items; /* in the order of the list, duplicates kept */
    size_t n;
};

/* A set of connection ids: sorted, without duplicates. All zero is a valid empty one. */
struct gw_id_set {
    uint32_t *ids;
    size_t n;
    size_t cap;
};

/* Memory that is reused from call to call: after the first calls a reader allocates nothing. All zero is
 * valid. */
struct gw_args {
    struct slice *items;
    size_t n_items, cap_items;
    uint32_t *ids; /* connections, in the order of the list */
    size_t n_ids, cap_ids;
    struct gw_id_set exclude;
    struct bytes text; /* decoded strings; never moves within a call */
    bool text_reserved;
};

void gw_args_fini(struct gw_args *args);

/* Asked once per client of a fan-out: lists are short as a rule, but may hold every client. */
static inline bool gw_id_set_has(const struct gw_id_set *set, uint32_t id)
{
    const uint32_t *base = set->ids;
    size_t n = set->n;
    if (n == 0)
        return false;
    while (n > 1) {
        size_t half = n / 2;
        base += half *
                (base[half - 1] < id); /* by arithmetic: a branch here would be guessed wrong half the time */
        n -= half;
    }
    return *base == id;
}

/* SEND_TO_ALL: ext "" (everybody) or {"connections": ids} or {"exclude": ids}. */
struct gw_send_to_all {
    bool has_connections; /* only these, which may be none; exclude does not count then */
    const uint32_t *connections;
    size_t n_connections;
    const struct gw_id_set *exclude; /* the args' own */
};
int gw_read_send_to_all(struct gw_args *args, struct slice ext, struct gw_send_to_all *ret);

/* SEND_TO_GROUP: {"group": names, "exclude": null or ids}. A client in two of the groups gets the message
 * twice. */
struct gw_send_to_group {
    struct gw_names groups;
    const struct gw_id_set *exclude; /* the args' own */
};
int gw_read_send_to_group(struct gw_args *args, struct slice ext, struct gw_send_to_group *ret);

/* SEND_TO_UID, BATCH_GET_CLIENT_ID_BY_UID, BATCH_GET_CLIENT_COUNT_BY_GROUP: a list of uids or groups. */
int gw_read_names(struct gw_args *args, struct slice ext, struct gw_names *ret);

/* SELECT: {"fields": names, "where": {"groups": names, "uid": names, "connection_id": ids}}. */
struct gw_select {
    bool nothing;   /* ext is null or empty: PHP answers with an empty array */
    bool has_where; /* false: all clients. (With no fields PHP's answer for all is empty, for a where id =>
                       empty.) */
    struct gw_names fields; /* also names that no client has: their value is null */
    struct gw_names groups;
    struct gw_names uids;
    const uint32_t *connections;
    size_t n_connections;
};
int gw_read_select(struct gw_args *args, struct slice ext, struct gw_select *ret);

/* WORKER_CONNECT, GATEWAY_CLIENT_CONNECT: body {"worker_key": .., "secret_key": ..}. */
struct gw_connect {
    struct slice worker_key; /* empty when missing */
    struct slice secret_key;
    bool has_secret_key; /* false: missing or no string; PHP refuses that even when its own key is "" */
};
int gw_read_connect(struct gw_args *args, struct slice body, struct gw_connect *ret);
