// SPDX-License-Identifier: MIT
/* The answers of several shards to one question, kept until all are there. What of them is no JSON, or too
 * much, counts as no answer. */
#pragma once

#include "admin/shards.h"

#define GATHER_BYTES_MAX ((size_t)4 << 20) /* of one shard */

enum gather_form { GATHER_ROWS, GATHER_OBJECT };

struct gathered {
    bool answered;   /* with a status, good or bad; else it is missing */
    int32_t status;  /* 0 or -errno */
    uint64_t cursor; /* of the last message */
    struct bytes json;
};

/* Embedded, zeroed to begin with; ask.req and ask.kind are set by the caller, the rest of ask is not. */
struct gather {
    struct ask ask;
    enum gather_form form;
    void (*done)(struct gather *g);
    struct gathered of[PEERS_MAX];
};

/* As shards_ask; what it held is forgotten. */
int gather_ask(struct shards *s, struct gather *g, uint64_t mask, uint64_t now_ms, uint64_t timeout_ms);
int gather_ask_supervisor(struct shards *s, struct gather *g, uint64_t now_ms, uint64_t timeout_ms);
/* Not under way any more. */
void gather_fini(struct gather *g);

/* A shard that was asked and answered well. */
bool gather_has(const struct gather *g, unsigned peer);
struct slice gather_json(const struct gather *g, unsigned peer);
/* Shards that were asked and gave no answer (also one that has too much to do: -EBUSY). */
uint64_t gather_missing(const struct gather *g);
/* The status that all had who did not do well; 0: one did well, or nobody answered. */
int gather_error(const struct gather *g);
