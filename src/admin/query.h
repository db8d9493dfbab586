// SPDX-License-Identifier: MIT
/* The target of an HTTP request (RFC 9112 section 3.2, origin form): a path and parameters, as they come from
 * outside. The getters check one parameter each and keep what is wrong with the first wrong one; after that
 * they do nothing, so that a caller asks once, at the end (query_end). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/net_addr.h"
#include "common/node_shared.h"

#define QUERY_PARAMS_MAX 32
#define QUERY_WHY_MAX    512

struct query_param {
    struct slice name, value; /* decoded; any bytes */
    bool used;                /* a getter has asked for it */
};

struct query {
    char *path; /* decoded, without NUL bytes inside */
    struct query_param params[QUERY_PARAMS_MAX];
    unsigned n;
    uint8_t *mem;            /* the decoded bytes */
    char why[QUERY_WHY_MAX]; /* "": nothing wrong so far. Any bytes may be quoted in it */
};

/* Decodes %XX, and + (as a blank) behind the question mark. 0; -EINVAL with why set (then there is nothing to
 * get); -ENOMEM. To be ended with query_fini in each case. */
int query_parse(const char *target, struct query *ret);
void query_fini(struct query *q);

bool query_has(const struct query *q, const char *name);
/* Each returns whether the parameter is there and good; *ret is set then only. */
bool query_text(struct query *q, const char *name, size_t len_max, struct slice *ret); /* not empty */
bool query_uint(struct query *q, const char *name, uint64_t min, uint64_t max, uint64_t *ret);
/* names ends with NULL; *ret is the place in it. */
bool query_choice(struct query *q, const char *name, const char *const *names, unsigned *ret);
bool query_yes(struct query *q, const char *name); /* it says yes; no may be said too */
/* A prefix; *ret has port 0 and no bits behind it. */
bool query_cidr(struct query *q, const char *name, struct net_addr *ret, uint8_t *ret_bits);
/* A connection_id of one of the shards, in decimal, or a client_id of this gateway. */
struct query_gateway {
    uint32_t lan_ip; /* host order */
    uint16_t start_port;
    unsigned n_shards;
    const struct node_home *home; /* which shard has an id */
};
bool query_client(struct query *q, const char *name, const struct query_gateway *gw, uint32_t *ret);
/* "shard:position", as cursor_format writes it. */
bool query_cursor(struct query *q, const char *name, unsigned n_shards, unsigned *ret_shard,
                  uint64_t *ret_cursor);
/* Says that it must be there. */
void query_need(struct query *q, const char *name, const char *expected);
/* What a caller finds out by itself. The first one stays. */
void query_wrong(struct query *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Nothing was wrong, and every parameter was asked for. */
bool query_end(struct query *q);

#define CURSOR_STRLEN 32
char *cursor_format(unsigned shard, uint64_t cursor, char *buf, size_t cap);

/* What query_client takes, from a path. 0; -EINVAL with why; -ENOENT with why: well-formed, but of another
 * gateway or of a shard that there is not. */
int client_id_parse(struct slice text, const struct query_gateway *gw, uint32_t *ret, char *why, size_t cap);
/* As GatewayClient prints it: 20 hexadecimal digits. */
#define CLIENT_ID_STRLEN 21
char *client_id_format(const struct query_gateway *gw, uint32_t connection_id, char *buf, size_t cap);
