// SPDX-License-Identifier: MIT
/* Latency histogram with logarithmic buckets, as HdrHistogram's: 128 linear steps per power of two, so that
 * any value is known within 0.8 %, whatever its size, in a fixed 58 KB. All zero is an empty one.
 *
 * One process may write while another reads (shared memory): every member is written whole, so that the
 * reader sees each as it was a moment ago; members may differ by what came in between. */
#pragma once

#include <stdint.h>

#define HIST_STEP_BITS 7
#define HIST_STEPS     (1u << HIST_STEP_BITS)
#define HIST_BUCKETS   ((64u - HIST_STEP_BITS + 1u) * HIST_STEPS)

struct hist {
    uint64_t count;
    uint64_t max;
    uint64_t sum;
    uint64_t bucket[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t value);
/* The value that `share` (0 to 1) of all values do not exceed: the upper end of its bucket, at most max. 0
 * when empty. */
uint64_t hist_quantile(const struct hist *h, double share);
/* 0 when empty. */
uint64_t hist_mean(const struct hist *h);

/* All that `from` holds, too; another process may be writing `from`. */
void hist_merge(struct hist *into, const struct hist *from);
/* What came to `now` since it was as `before`; max is known to the end of its bucket only. */
void hist_since(const struct hist *now, const struct hist *before, struct hist *ret);

/* The values of a bucket are first..last. */
uint64_t hist_bucket_first(uint32_t bucket);
uint64_t hist_bucket_last(uint32_t bucket);
