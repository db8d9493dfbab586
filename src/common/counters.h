// SPDX-License-Identifier: MIT
/* The counters of a shard, from counters.def. One writer (the shard); they stand in memory shared with the
 * supervisor and `tgg status` (shard_shm.h), so every access is a relaxed atomic: readers see each number
 * whole, and no order between two of them is promised.
 *
 * Names are those of the table: COUNTER_client_accepted, COUNTER_clients (a gauge); CLOSE_peer,
 * DROP_client_gone. */
#pragma once

#include <stdint.h>
#include <stdio.h>

enum close_reason {
#define COUNTER(name, help)
#define GAUGE(name, help)
#define DROP_REASON(name, help)
#define CLOSE_REASON(name, help) CLOSE_##name,
#include "common/counters.def"
#undef CLOSE_REASON
#undef DROP_REASON
    CLOSE_REASON_N
};

enum drop_reason {
#define CLOSE_REASON(name, help)
#define DROP_REASON(name, help) DROP_##name,
#include "common/counters.def"
#undef CLOSE_REASON
#undef DROP_REASON
    DROP_REASON_N
};
#undef COUNTER
#undef GAUGE

/* All in one array: counters and gauges in the order of the table, then drops, then closes. */
enum counter_id {
#define CLOSE_REASON(name, help)
#define DROP_REASON(name, help)
#define COUNTER(name, help) COUNTER_##name,
#define GAUGE(name, help)   COUNTER_##name,
#include "common/counters.def"
#undef COUNTER
#undef GAUGE
#undef CLOSE_REASON
#undef DROP_REASON
    COUNTER_DROP_FIRST,
    COUNTER_CLOSE_FIRST = COUNTER_DROP_FIRST + DROP_REASON_N,
    COUNTER_N = COUNTER_CLOSE_FIRST + CLOSE_REASON_N
};

struct counters {
    uint64_t v[COUNTER_N];
};

enum counter_kind { COUNTER_KIND_COUNTER, COUNTER_KIND_GAUGE, COUNTER_KIND_DROP, COUNTER_KIND_CLOSE };

struct counter_info {
    const char *name; /* client_accepted, dropped_client_gone, client_closed_peer */
    const char *help;
    enum counter_kind kind;
};
extern const struct counter_info counter_infos[COUNTER_N];

const char *close_reason_name(enum close_reason reason); /* "peer" */
const char *close_reason_help(enum close_reason reason);
const char *drop_reason_name(enum drop_reason reason);

static inline uint64_t counter_get(const struct counters *c, enum counter_id id)
{
    return __atomic_load_n(&c->v[id], __ATOMIC_RELAXED);
}

static inline void counter_set(struct counters *c, enum counter_id id, uint64_t value)
{
    __atomic_store_n(&c->v[id], value, __ATOMIC_RELAXED);
}

/* Not a read-modify-write: there is one writer. */
static inline void counter_add(struct counters *c, enum counter_id id, uint64_t n)
{
    counter_set(c, id, c->v[id] + n);
}

static inline void counter_sub(struct counters *c, enum counter_id id, uint64_t n) /* gauges */
{
    counter_set(c, id, c->v[id] - n);
}

static inline void counter_close(struct counters *c, enum close_reason reason)
{
    counter_add(c, (enum counter_id)(COUNTER_CLOSE_FIRST + (unsigned)reason), 1);
}

static inline void counter_drop(struct counters *c, enum drop_reason reason)
{
    counter_add(c, (enum counter_id)(COUNTER_DROP_FIRST + (unsigned)reason), 1);
}

static inline uint64_t counter_close_get(const struct counters *c, enum close_reason reason)
{
    return counter_get(c, (enum counter_id)(COUNTER_CLOSE_FIRST + (unsigned)reason));
}

static inline uint64_t counter_drop_get(const struct counters *c, enum drop_reason reason)
{
    return counter_get(c, (enum counter_id)(COUNTER_DROP_FIRST + (unsigned)reason));
}

/* Every gauge to 0: a new shard has nothing open, and goes on with the counters of the one before. */
void counters_clear_gauges(struct counters *c);

/* A hash over names and order of the table: two builds that agree on it can read each other's array. */
uint64_t counters_layout(void);

/* "name value" per line. */
void counters_write_text(FILE *out, const struct counters *c);
/* The members of one JSON object, without its braces: "name":value,... */
void counters_write_json(FILE *out, const struct counters *c);
