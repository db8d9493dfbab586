// SPDX-License-Identifier: MIT
/* For implementers of an upstream (upstream.h). */
#pragma once

#include "upstream/upstream.h"

struct upstream_ops {
    void (*start)(struct upstream *u);
    void (*client_connected)(struct upstream *u, struct upstream_client *c);
    void (*client_handshaken)(struct upstream *u, struct upstream_client *c, const struct http_request *req);
    void (*client_message)(struct upstream *u, struct upstream_client *c, const uint8_t *data, size_t len);
    bool (*client_blocked)(struct upstream *u, struct upstream_client *c);
    void (*client_closed)(struct upstream *u, struct upstream_client *c);
    struct net_listener *(*listener)(struct upstream *u);
    bool (*has_worker)(const struct upstream *u);
    bool (*is_flushed)(const struct upstream *u);
    uint64_t (*list_workers)(struct upstream *u, struct json_writer *w, uint64_t cursor, uint32_t limit,
                             size_t bytes_max);
    void (*list_tables)(struct upstream *u, struct json_writer *w);
    void (*describe_client)(struct upstream *u, const struct upstream_client *c, struct json_writer *w,
                            bool full);
    int (*drain_worker)(struct upstream *u, struct slice key, bool on, uint32_t over_ms);
    uint32_t (*rebalance)(struct upstream *u, uint32_t over_ms);
    const char *(*check)(struct upstream *u, uint64_t *position, unsigned steps);
    void (*measure)(struct upstream *u);
    void (*hold)(struct upstream *u, bool on);
    const char *(*unrest)(const struct upstream *u);
    int (*export_links)(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                        uint64_t *ret_links, uint64_t *ret_workers);
    void (*export_client)(struct upstream *u, const struct upstream_client *c, struct transfer_client *ret);
    int (*export_ended)(struct upstream *u, const struct upstream_client *c, const struct transfer_plan *plan,
                        struct transfer_sink *sink);
    int (*export_rest)(struct upstream *u, const struct transfer_plan *plan, struct transfer_sink *sink,
                       uint64_t *ret_records);
    int (*import)(struct upstream *u, unsigned from, const struct transfer_record *r);
    uint32_t (*workers)(const struct upstream *u);
    int (*import_client)(struct upstream *u, unsigned from, struct upstream_client *c,
                         const struct transfer_client *t);
    void (*import_done)(struct upstream *u);
    void (*forget_client)(struct upstream *u, struct upstream_client *c);
    void (*forget_all)(struct upstream *u);
    void (*forget_given)(struct upstream *u);
    void (*forget_taken)(struct upstream *u);
    void (*finish)(struct upstream *u);
    bool (*is_finished)(const struct upstream *u);
    void (*free)(struct upstream *u);
};

/* First member of every implementation. */
struct upstream {
    const struct upstream_ops *ops;
    struct upstream_host *host;
};
