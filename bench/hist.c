// SPDX-License-Identifier: MIT
#include "hist.h"

/* Values below HIST_STEPS have a bucket each; above, the highest HIST_STEP_BITS + 1 bits choose it. */
static uint32_t bucket_of(uint64_t value)
{
    if (value < HIST_STEPS)
        return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HIST_STEP_BITS;
    return shift * HIST_STEPS + (uint32_t)(value >> shift);
}

static uint64_t bucket_last(uint32_t bucket)
{
    if (bucket < 2 * HIST_STEPS)
        return bucket;
    uint32_t shift = bucket / HIST_STEPS - 1;
    uint64_t lead = bucket % HIST_STEPS + HIST_STEPS;
    return ((lead + 1) << shift) - 1;
}

void hist_add(struct hist *h, uint64_t value)
{
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
    h->bucket[bucket_of(value)]++;
}

uint64_t hist_quantile(const struct hist *h, double share)
{
    uint64_t rank = (uint64_t)(share * (double)h->count + 0.5);
    uint64_t seen = 0;
    if (h->count == 0)
        return 0;
    if (rank < 1)
        rank = 1;
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= rank)
            return bucket_last(i) < h->max ? bucket_last(i) : h->max;
    }
    return h->max;
}
