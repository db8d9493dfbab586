// SPDX-License-Identifier: MIT
/* What each client says and hears, for as long as somebody wants to know who talks most: a row for each
 * client of the shard, at its place in shard->clients, for each who asks. While nobody asks there is none,
 * and a message costs a look at a pointer. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "shard/shard_priv.h"

#define CENSUS_MAX 4 /* at once */

struct census_row {
    uint32_t messages_in, messages_out;
    uint64_t bytes_in, bytes_out;
};
struct census {
    struct census *next; /* of the shard */
    struct census_row *rows;
    uint32_t cap; /* clients beyond that are not counted */
};

/* -EBUSY: CENSUS_MAX are under way; -ENOMEM. */
int census_begin(struct shard *s, struct census **ret);
void census_end(struct shard *s, struct census *n);
/* NULL: not counted. */
static inline struct census_row *census_row(const struct census *n, const struct client *c)
{
    return c->up.host_position < n->cap ? &n->rows[c->up.host_position] : NULL;
}
void census_in(struct shard *s, const struct client *c, size_t len);
void census_out(struct shard *s, const struct client *c, size_t len);
/* A client came to that place; the one at `from` moves to place `to`. */
void census_came(struct shard *s, uint32_t at);
void census_moved(struct shard *s, uint32_t from, uint32_t to);
