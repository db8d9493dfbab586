// SPDX-License-Identifier: MIT
#include "common/histograms.h"

const struct histogram_info histogram_infos[HISTOGRAM_N] = {
#define HISTOGRAM(name, unit, shift, help) {#name, HISTOGRAM_UNIT_##unit, shift, help},
#include "common/histograms.def"
#undef HISTOGRAM
};

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

uint64_t histogram_count(const struct histogram *h)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        n += load(&h->buckets[i]);
    return n;
}

uint64_t histogram_quantile(const struct histogram *h, unsigned shift, double part)
{
    uint64_t n = histogram_count(h), below = 0;
    if (n == 0)
        return 0;
    for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
        below += load(&h->buckets[i]);
        if ((double)below >= part * (double)n)
            return histogram_bound(shift, i);
    }
    return histogram_bound(shift, HISTOGRAM_BUCKETS - 1);
}

void histogram_merge(struct histogram *a, const struct histogram *b)
{
    a->sum += load(&b->sum);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        a->buckets[i] += load(&b->buckets[i]);
}
