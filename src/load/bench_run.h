// SPDX-License-Identifier: MIT
/* A run of `tgg bench`: its processes, what they counted, second by second and as a whole. */
#pragma once

#include "load/bench_options.h"
#include "load/bench_shm.h"

/* One second of it, or so. */
struct bench_sample {
    uint64_t end_ms; /* since the begin */
    uint32_t open;   /* connections, at its end */
    uint64_t failed; /* connections that failed or were lost, until its end */
    double out_per_s, in_per_s, latencies_per_s;
    uint64_t p50_ns, p90_ns, p99_ns, max_ns; /* of the latencies that came within; 0: none */
};

struct bench_result {
    const struct bench_options *opt;
    struct bench_block sum; /* of all processes; closes, http, histograms and first errors too */
    struct bench_sample *samples;
    size_t n_samples;
    double connect_s; /* from the first connect until every connection was open or had failed */
    double run_s;     /* messages were sent so long */
    double begin_unix_s;
    double run_at_s;      /* since the begin */
    double cpu_share_max; /* of a CPU, of the busiest process, while it ran */
    uint32_t n_died;      /* processes that ended by a fault of their own */
    bool interrupted;
};

/* Raises the limit of descriptors as far as it goes. False: it does not suffice, error says what would. */
bool bench_limit_check(const struct bench_options *o, char *error, size_t cap);

/* Runs it, with a line of progress on standard error unless o->quiet. INT and TERM end it early; a second one
 * at once. 0 or -errno (memory, fork); ret is then to be given to bench_result_fini too. */
int bench_run(const struct bench_options *o, struct bench_result *ret);
void bench_result_fini(struct bench_result *r);

/* The share of connections that failed or were lost, or of messages that were not sent or not answered,
 * whichever is larger, in percent. */
double bench_errors_percent(const struct bench_result *r);
/* Whether the run was good: something connected, no process died, not more errors than o->max_errors. */
bool bench_is_good(const struct bench_result *r);
