// SPDX-License-Identifier: MIT
/* Inside the register: register.c is the process (listener, signals), peer.c one connection and what it says,
 * addresses.c the list. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/list.h"
#include "loop/loop.h"
#include "net/net.h"
#include "proto/gw/register_line.h"
#include "register/service.h"

struct pool;

#define REGISTER_LINE_MAX    ((size_t)64 * 1024)   /* of a line, its end included */
#define REGISTER_OUT_MAX     ((size_t)1024 * 1024) /* bytes that may wait for one worker that does not read */
#define REGISTER_ADDRESS_MAX ((size_t)255)

struct register_stats {
    uint64_t accepted, refused, timeouts, bad_lines, wrong_keys, slow_readers, broadcasts;
};

struct register_server {
    struct service service;
    struct loop *loop; /* the service's */
    struct net *net;   /* too */
    struct net_listener listener;
    struct pool *peers;
    struct list gateways; /* peers with an address, in the order of their coming */
    struct list workers;
    struct list others; /* have not said what they are */
    struct loop_hook broadcast_hook;
    bool changed;              /* the list, since the last broadcast */
    struct register_line line; /* the one being looked at */
    const char *secret;
    uint64_t auth_timeout_ms;
    struct register_stats stats;
};

struct peer {
    struct net_conn conn;
    struct register_server *server;
    struct list gateway_link, worker_link, other_link;
    struct timer auth_timer;
    struct net_addr addr;
    struct bytes address; /* of a gateway: what it registered; empty: none */
    struct bytes in;      /* an incomplete line */
    struct bytes out;     /* what the peer has not taken yet */
};

/* ---- addresses.c */

/* Append the broadcast_addresses line with every address once, in the order of their coming. */
void register__append_list(const struct register_server *s, struct bytes *out);
/* Whether it can be an address: printable, not too long. */
bool register__address_ok(struct slice address);

/* ---- peer.c */

/* NULL at the limit or without memory. */
struct peer *register__peer_new(struct register_server *s, const struct net_addr *addr);
/* End the connection and free it. */
void register__peer_close(struct peer *p, bool hard);
/* Send or queue. false: it was broken or had too much waiting, and has been closed and freed. */
bool register__peer_send(struct peer *p, const struct bytes *line);
