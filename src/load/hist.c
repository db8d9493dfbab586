// SPDX-License-Identifier: MIT
#include "load/hist.h"

#include <stddef.h>

/* Values below HIST_STEPS have a bucket each; above, the highest HIST_STEP_BITS + 1 bits choose it. */
static uint32_t bucket_of(uint64_t value)
{
    if (value < HIST_STEPS)
        return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HIST_STEP_BITS;
    return shift * HIST_STEPS + (uint32_t)(value >> shift);
}

uint64_t hist_bucket_last(uint32_t bucket)
{
    if (bucket < 2 * HIST_STEPS)
        return bucket;
    uint32_t shift = bucket / HIST_STEPS - 1;
    uint64_t lead = bucket % HIST_STEPS + HIST_STEPS;
    return ((lead + 1) << shift) - 1;
}

uint64_t hist_bucket_first(uint32_t bucket)
{
    return bucket == 0 ? 0 : hist_bucket_last(bucket - 1) + 1;
}

/* Relaxed: one writer, and a reader that is content with each member as it was a moment ago (hist.h). */
static void store(uint64_t *p, uint64_t value)
{
    __atomic_store_n(p, value, __ATOMIC_RELAXED);
}

static uint64_t load(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

void hist_add(struct hist *h, uint64_t value)
{
    uint64_t *bucket = &h->bucket[bucket_of(value)];
    store(&h->count, h->count + 1);
    store(&h->sum, h->sum + value);
    if (value > h->max)
        store(&h->max, value);
    store(bucket, *bucket + 1);
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
            return hist_bucket_last(i) < h->max ? hist_bucket_last(i) : h->max;
    }
    return h->max;
}

uint64_t hist_mean(const struct hist *h)
{
    return h->count == 0 ? 0 : h->sum / h->count;
}

/* The count is that of the buckets, which is what quantiles are taken of. */
void hist_merge(struct hist *into, const struct hist *from)
{
    uint64_t max = load(&from->max);
    if (max > into->max)
        into->max = max;
    into->sum += load(&from->sum);
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        uint64_t n = load(&from->bucket[i]);
        into->bucket[i] += n;
        into->count += n;
    }
}

void hist_since(const struct hist *now, const struct hist *before, struct hist *ret)
{
    ret->count = 0;
    ret->max = 0;
    ret->sum = now->sum - before->sum;
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        ret->bucket[i] = now->bucket[i] - before->bucket[i];
        ret->count += ret->bucket[i];
        if (ret->bucket[i] > 0)
            ret->max = hist_bucket_last(i) < now->max ? hist_bucket_last(i) : now->max;
    }
}
