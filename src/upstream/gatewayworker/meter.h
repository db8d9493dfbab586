// SPDX-License-Identifier: MIT
/* How long bytes wait in a queue, from a few marks: where the queue ended at which time.
 *
 *   position   written                                  queued
 *      ────────┼──────m1───────────m2─────────────m3─m4─┼──►     bytes ever queued
 *       m0                                                       what is behind a mark came at its time or
 * later
 *
 * A mark costs nothing while the queue is emptied by each write. When it is not, there is at most one a
 * millisecond; when there are too many, the one goes that is missed least: they become the sparser the older
 * they are, so that ages are right within a factor of two. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/histograms.h"

#define METER_MARKS 32
/* Of the writes that empty the queue at once, so many are one sample, which counts for all of them. */
#define METER_SAMPLE 8

struct meter_mark {
    uint64_t position, ns;
};

struct meter {
    uint32_t n;       /* marks; 0: nothing waits that came before this turn */
    uint32_t flushes; /* that emptied the queue at once */
    uint64_t queued;  /* the last that meter_waits was told */
    bool first_seen;  /* what stands behind marks[0] was written, and is in the histogram */
    struct meter_mark marks[METER_MARKS];
    struct histogram times; /* shift: HISTOGRAM_SHIFT_worker_queue */
};

/* Bytes from `written` to `queued` wait, the last of them since now_ns. */
void meter_waits(struct meter *m, uint64_t written, uint64_t queued, uint64_t now_ns);
/* All up to `written` has been taken. Adds to m->times and to *all. */
void meter_written(struct meter *m, uint64_t written, uint64_t queued, uint64_t now_ns,
                   struct histogram *all);
/* Positions are those of another queue now, to which all that waits was moved. */
void meter_moved(struct meter *m, uint64_t written, uint64_t queued);

/* A write has taken all at once, and no write before it had to leave anything: whether this one is a sample.
 */
static inline bool meter_samples(struct meter *m)
{
    return __builtin_expect(++m->flushes % METER_SAMPLE == 0, 0);
}
void meter_sample(struct meter *m, uint64_t ns, struct histogram *all);

/* Of the oldest byte that waits; 0: none does. */
static inline uint64_t meter_age_ns(const struct meter *m, uint64_t now_ns)
{
    return m->n == 0 || now_ns < m->marks[0].ns ? 0 : now_ns - m->marks[0].ns;
}
