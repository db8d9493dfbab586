// SPDX-License-Identifier: MIT
/* The largest of all shards from the largest of each. A client is in one shard: merging is enough. A uid or
 * group may have clients in all of them, and be small in each but large in sum: a shard that did not list it
 * has at most as many as the least that it listed (its floor), so that only those names are asked for again
 * that this may lift into the top (Fagin's threshold algorithm, with bounds).
 *
 *              shard 0      shard 1
 *   listed     a 9, b 7     c 8, b 5      floors 7 and 5
 *   b = 12 known; a = 9 to 14, c = 8 to 15: both are asked for; what nobody listed is at most 12 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct json_writer;

/* ---- clients: rows with "value" */
struct top_row {
    double value;
    struct slice row;
};
struct top_rows {
    struct top_row *list;
    unsigned n, cap;
    bool failed; /* no memory */
};
void top_rows_add(struct top_rows *t, struct slice rows); /* which must live as long */
/* Sorts; writes the `limit` largest as values of an array that is open. */
void top_rows_write(struct top_rows *t, unsigned limit, struct json_writer *w);
void top_rows_fini(struct top_rows *t);

/* ---- uids and groups: rows with "name" and "clients" */
struct top_name {
    char *name;
    size_t len;
    uint64_t clients; /* known so far */
    uint64_t known;   /* bit i: what shard i has is in it */
    bool askable;     /* the name stands in the row as it is: neither cut nor repaired */
};
struct top_names {
    struct top_name *list;
    unsigned n, cap;
    uint64_t shards;    /* that listed */
    uint64_t floor[64]; /* what each has at most of a name that it did not list */
    bool failed;
};
/* `asked` rows were asked for: when there are fewer, that shard has no other names. */
void top_names_add(struct top_names *t, unsigned shard, struct slice rows, unsigned asked);
/* A name whose place in the top is not clear: *ret_shards are to be asked for it. NULL: all is clear, or
 * cannot become so. Valid until the next top_names_add. */
struct top_name *top_names_next(struct top_names *t, unsigned limit, uint64_t *ret_shards);
/* What was asked; a shard that gave no answer is taken to have none. */
void top_names_know(struct top_name *name, unsigned shard, uint64_t clients);
/* Sorts. Whether nothing else can be in the top, and each number in it is true. */
bool top_names_exact(struct top_names *t, unsigned limit);
void top_names_write(struct top_names *t, unsigned limit, struct json_writer *w);
void top_names_fini(struct top_names *t);
