// SPDX-License-Identifier: MIT
#include "common/node_shared.h"

#include <string.h>

#include "base/assert.h"

void node_home_init(struct node_home *h)
{
    for (unsigned row = 0; row < NODE_SHARDS_MAX; row++)
        memset(&h->shard[row * NODE_HOME_PARTS], (int)row, NODE_HOME_PARTS);
}

static bool has(uint64_t shards, unsigned i)
{
    return i < NODE_SHARDS_MAX && (shards >> i & 1) != 0;
}

/* How what one edge had is divided: in turns, by weight, over all its rows. */
struct division {
    unsigned from;
    int32_t weight[NODE_SHARDS_MAX], credit[NODE_SHARDS_MAX], total;
};

/* Of two that are equally due: who has it, whose row it is, then the next in the circle behind `from` (so
 * that what is left over is not always the same one's). */
static bool is_before(const struct division *d, unsigned row, unsigned a, unsigned b)
{
    if (a == d->from || b == d->from)
        return a == d->from;
    if (a == row || b == row)
        return a == row;
    return (a - d->from) % NODE_SHARDS_MAX < (b - d->from) % NODE_SHARDS_MAX;
}

static unsigned whose_turn(struct division *d, unsigned row)
{
    unsigned best = NODE_SHARDS_MAX;
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        d->credit[i] += d->weight[i];
        if (d->weight[i] == 0)
            continue;
        if (best == NODE_SHARDS_MAX || d->credit[i] > d->credit[best] ||
            (d->credit[i] == d->credit[best] && is_before(d, row, i, best)))
            best = i;
    }
    ASSERT(best < NODE_SHARDS_MAX);
    d->credit[best] -= d->total;
    return best;
}

/* Each edge before has 1 / n_before of the clients and each one now is to have 1 / n: with n_new new edges,
 * of one that stays n_before / n is kept, and the rest is for the new ones alike; when there are fewer now,
 * those that stay need 1 / n - 1 / n_before of what was at those that go, new ones 1 / n. */
static void division_init(struct division *d, unsigned from, uint64_t before, uint64_t edges)
{
    int32_t n = __builtin_popcountll(edges), n_before = __builtin_popcountll(before);
    int32_t n_new = __builtin_popcountll(edges & ~before);
    bool stays = has(edges, from);

    *d = (struct division){.from = from};
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        if (!has(edges, i))
            continue;
        bool is_new = !has(before, i);
        if (stays)
            d->weight[i] = i == from ? n_before * n_new : is_new ? n - n_before : 0;
        else if (n >= n_before)
            d->weight[i] = is_new;
        else
            d->weight[i] = is_new ? n_before : n_before - n;
        d->total += d->weight[i];
    }
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 31) * UINT64_C(0x9E3779B97F4A7C15);
    return x ^ x >> 29;
}

static uint64_t seed_of(const struct node_home *h)
{
    uint64_t seed = 1;
    for (unsigned i = 0; i < sizeof h->shard; i++)
        seed = mix(seed + h->shard[i]);
    return seed;
}

/* The parts of a row in an order of its own for each plan. In any fixed one the parts in which an edge once
 * gave its ids, and that are fuller for it, would go to the same one again. */
static void shuffle(uint8_t order[NODE_HOME_PARTS], uint64_t seed)
{
    for (unsigned i = 0; i < NODE_HOME_PARTS; i++)
        order[i] = (uint8_t)i;
    for (unsigned i = NODE_HOME_PARTS - 1; i > 0; i--) {
        seed = mix(seed + i);
        unsigned k = (unsigned)(seed % (i + 1));
        uint8_t other = order[k];
        order[k] = order[i];
        order[i] = other;
    }
}

/* Its own row first: that is where most of its clients are, and where nothing is owed yet. */
static void divide(const struct node_home *before, uint64_t seed, struct division *d, struct node_home *ret)
{
    uint8_t order[NODE_HOME_PARTS];

    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        unsigned row = (d->from + i) % NODE_SHARDS_MAX;
        shuffle(order, mix(seed + row));
        for (unsigned k = 0; k < NODE_HOME_PARTS; k++) {
            unsigned cell = row * NODE_HOME_PARTS + order[k];
            if (before->shard[cell] == d->from)
                ret->shard[cell] = (uint8_t)whose_turn(d, row);
        }
    }
}

static unsigned richest(const uint8_t *row, unsigned *counts)
{
    unsigned best = row[0];
    memset(counts, 0, NODE_SHARDS_MAX * sizeof *counts);
    for (unsigned i = 0; i < NODE_HOME_PARTS; i++) {
        if (++counts[row[i]] > counts[best])
            best = row[i];
    }
    return best;
}

/* At least so many parts of its own row are its own, from whoever has most of them. */
static void ensure_own(struct node_home *h, unsigned shard, unsigned least)
{
    uint8_t *row = &h->shard[shard * NODE_HOME_PARTS];
    unsigned counts[NODE_SHARDS_MAX];

    for (;;) {
        unsigned from = richest(row, counts);
        if (counts[shard] >= least)
            return;
        uint8_t *cell = memchr(row, (int)from, NODE_HOME_PARTS);
        ASSERT(cell != NULL);
        *cell = (uint8_t)shard;
    }
}

bool node_home_plan(const struct node_home *before, uint64_t edges_before, uint64_t edges,
                    struct node_home *ret)
{
    unsigned n = (unsigned)__builtin_popcountll(edges);
    uint64_t seed = seed_of(before);
    struct division d;

    ASSERT(edges != 0 && edges_before != 0 && ret != before);
    node_home_init(ret); /* those that have never been given */
    for (unsigned i = 0; i < sizeof ret->shard; i++) {
        if (has(edges_before, before->shard[i]))
            ret->shard[i] = before->shard[i];
    }
    for (unsigned from = 0; from < NODE_SHARDS_MAX; from++) {
        if (!has(edges_before, from) || (has(edges, from) && (int)n <= __builtin_popcountll(edges_before)))
            continue;
        division_init(&d, from, edges_before, edges);
        divide(before, seed, &d, ret);
    }
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        if (has(edges, i))
            ensure_own(ret, i, has(edges_before, i) ? 1 : NODE_HOME_PARTS / n);
    }
    return memcmp(before, ret, sizeof *ret) != 0;
}
