// SPDX-License-Identifier: MIT
/* The histograms of a shard, from histograms.def: buckets that double in width. One writer, read by others as
 * the counters are (counters.h). An observation is some ten instructions. */
#pragma once

#include <stdint.h>

#include "common/counters.h"

#define HISTOGRAM_BUCKETS 24 /* the last one without an upper bound */

struct histogram {
    uint64_t sum;
    uint64_t buckets[HISTOGRAM_BUCKETS]; /* not cumulative */
};

enum histogram_id {
#define HISTOGRAM(name, unit, shift, help) HISTOGRAM_##name,
#include "common/histograms.def"
#undef HISTOGRAM
    HISTOGRAM_N
};
/* HISTOGRAM_SHIFT_turn ... */
enum histogram_shift {
#define HISTOGRAM(name, unit, shift, help) HISTOGRAM_SHIFT_##name = (shift),
#include "common/histograms.def"
#undef HISTOGRAM
};

enum histogram_unit { HISTOGRAM_UNIT_seconds, HISTOGRAM_UNIT_bytes };

struct histogram_info {
    const char *name;
    enum histogram_unit unit;
    unsigned shift;
    const char *help;
};
extern const struct histogram_info histogram_infos[HISTOGRAM_N];

struct histograms {
    struct histogram h[HISTOGRAM_N];
};

/* n observations of that value: of a sample that stands for several. */
static inline void histogram_add_n(struct histogram *h, unsigned shift, uint64_t value, uint64_t n)
{
    uint64_t scaled = value >> shift;
    unsigned bucket = scaled == 0 ? 0 : 64 - (unsigned)__builtin_clzll(scaled);
    if (bucket >= HISTOGRAM_BUCKETS)
        bucket = HISTOGRAM_BUCKETS - 1;
    /* As counter_set: not a read-modify-write. */
    __atomic_store_n(&h->buckets[bucket], h->buckets[bucket] + n, __ATOMIC_RELAXED);
    __atomic_store_n(&h->sum, h->sum + n * value, __ATOMIC_RELAXED);
}

static inline void histogram_add(struct histogram *h, unsigned shift, uint64_t value)
{
    histogram_add_n(h, shift, value, 1);
}

/* histogram_observe(hs, turn, ns) */
#define histogram_observe(hs, name, value)                                                                   \
    histogram_add(&(hs)->h[HISTOGRAM_##name], HISTOGRAM_SHIFT_##name, (value))

/* Upper bound of a bucket, exclusive, in nanoseconds or bytes; UINT64_MAX for the last. */
static inline uint64_t histogram_bound(unsigned shift, unsigned bucket)
{
    return bucket + 1 == HISTOGRAM_BUCKETS ? UINT64_MAX : UINT64_C(1) << (shift + bucket);
}
/* All observations. */
uint64_t histogram_count(const struct histogram *h);
/* The value below which that part (0 to 1) of the observations is, by the bound of its bucket; 0: none. */
uint64_t histogram_quantile(const struct histogram *h, unsigned shift, double part);
/* b is added to a. */
void histogram_merge(struct histogram *a, const struct histogram *b);
