// SPDX-License-Identifier: MIT
/* What the processes of `tgg bench` and their parent have in common: an anonymous shared mapping, made before
 * they are forked. Each process writes its own block, the parent the head; all else only read. Members are
 * written and read whole (relaxed); state, start_ns, stop and close with release and acquire, so that what
 * was written before is seen. */
#pragma once

#include <stdint.h>

#include "load/hist.h"

enum bench_count {
#define BENCH_COUNT(name, text) BENCH_##name,
#include "load/bench_counts.def"
    BENCH_COUNTS
};
enum bench_error {
#define BENCH_ERROR(name, text) BENCH_ERROR_##name,
#include "load/bench_counts.def"
    BENCH_ERRORS
};
extern const char *const bench_count_names[BENCH_COUNTS], *const bench_count_texts[BENCH_COUNTS];
extern const char *const bench_error_names[BENCH_ERRORS], *const bench_error_texts[BENCH_ERRORS];

enum bench_state {
    BENCH_CONNECTING,
    BENCH_READY, /* every connection is open or has failed */
    BENCH_RUNNING,
    BENCH_DRAINED, /* all answers are here, or were given up */
    BENCH_DONE,
};

#define BENCH_CLOSE_CODES 5000u
#define BENCH_HTTP_CODES  1000u

struct bench_block {
    uint32_t state; /* enum bench_state */
    uint32_t open;  /* connections, now */
    uint64_t counts[BENCH_COUNTS];
    uint64_t errors[BENCH_ERRORS];
    uint64_t run_cpu_ns;                /* CPU time between start and end of sending */
    uint32_t closes[BENCH_CLOSE_CODES]; /* by code; others at 0 */
    uint32_t http[BENCH_HTTP_CODES]; /* answers to the handshake, by status; no HTTP, or a wrong answer: 0 */
    char tls_error[160];             /* the first one */
    int connect_errno;               /* the first one of connect_other, unreachable */
    struct hist connect, handshake, latency, ping; /* ns */
};

struct bench_shm {
    uint64_t start_ns; /* CLOCK_MONOTONIC: messages from here on; 0: not yet */
    uint32_t stop;     /* send no more */
    uint32_t close;    /* close all, end */
    uint32_t run_id;   /* of the marks */
    uint32_t n;
    struct bench_block blocks[];
};

static inline void bench_set(uint32_t *p, uint32_t value)
{
    __atomic_store_n(p, value, __ATOMIC_RELEASE);
}

static inline uint32_t bench_get(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* Relaxed: one writer, readers that are content with a moment ago. */
static inline void bench_add(uint64_t *p, uint64_t n)
{
    __atomic_store_n(p, *p + n, __ATOMIC_RELAXED);
}

static inline uint64_t bench_read(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
