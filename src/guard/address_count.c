// SPDX-License-Identifier: MIT
#include "guard/address_count.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/hash.h"

struct slot {
    uint64_t hash; /* 0: empty */
    uint32_t count;
    uint32_t unused;
};

/* Open addressing, linear probing; no gaps between an entry and its home, so an empty slot ends a search. */
struct table {
    uint32_t version; /* odd: entries are being moved */
    uint32_t used;    /* slots */
    uint8_t unused[56];
    struct slot slots[];
};
static_assert(sizeof(struct slot) == 16, "no padding");
static_assert(sizeof(struct table) == 64, "a cache line of its own");

/* Written before the shards are forked, then only read. */
struct guard_shm {
    uint32_t n_shards;
    uint32_t n_slots;     /* of each table */
    uint64_t table_bytes; /* whole pages */
};

#define SLOTS_PER_CLIENT 3 /* for two entries: at most two thirds are used */
#define SLOTS_MIN        64
#define READS_MAX        8

/* Relaxed where only the number itself matters (a figure a moment old is fine). Acquire and Release: see
 * search and address_count_of. */
#define LOAD(word)             __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define STORE(word, v)         __atomic_store_n(&(word), (v), __ATOMIC_RELAXED)
#define LOAD_ACQUIRE(word)     __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define STORE_RELEASE(word, v) __atomic_store_n(&(word), (v), __ATOMIC_RELEASE)

/* ---- the memory */

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + GUARD_SHM_ALIGN - 1) / GUARD_SHM_ALIGN * GUARD_SHM_ALIGN;
}

static uint32_t slots_for(uint32_t max_clients)
{
    uint64_t n = (uint64_t)max_clients * SLOTS_PER_CLIENT + SLOTS_MIN;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static uint64_t table_bytes(uint32_t max_clients)
{
    return whole_pages(sizeof(struct table) + (uint64_t)slots_for(max_clients) * sizeof(struct slot));
}

size_t guard_shm_bytes(unsigned n_shards, uint32_t max_clients)
{
    return (size_t)(whole_pages(sizeof(struct guard_shm)) + n_shards * table_bytes(max_clients));
}

struct guard_shm *guard_shm_init(void *memory, unsigned n_shards, uint32_t max_clients)
{
    struct guard_shm *shm = memory;

    ASSERT(n_shards > 0);
    *shm = (struct guard_shm){
        .n_shards = n_shards, .n_slots = slots_for(max_clients), .table_bytes = table_bytes(max_clients)};
    return shm;
}

static struct table *table_of(const struct guard_shm *shm, unsigned shard)
{
    ASSERT(shard < shm->n_shards);
    return (struct table *)((uintptr_t)shm + whole_pages(sizeof *shm) + shard * shm->table_bytes);
}

/* Where MADV_REMOVE is not to be had: slot by slot, reading first, lest untouched memory be touched more than
 * it must. */
static void clear_by_hand(const struct guard_shm *shm, struct table *t)
{
    for (uint32_t i = 0; i < shm->n_slots; i++) {
        if (LOAD(t->slots[i].hash) != 0)
            STORE_RELEASE(t->slots[i].hash, 0);
    }
}

void guard_shm_bury(struct guard_shm *shm, unsigned shard)
{
    struct table *t = table_of(shm, shard);

    if (LOAD(t->used) == 0 && LOAD(t->version) == 0)
        return;
    /* Used first: readers pass by from here on. The version last: it may be odd, of one that died halfway. */
    STORE(t->used, 0);
    if (madvise(t, shm->table_bytes, MADV_REMOVE) < 0)
        clear_by_hand(shm, t);
    STORE_RELEASE(t->version, 0);
}

/* ---- hashing */

uint64_t address_hash(const struct cidr *c, enum address_kind kind)
{
    /* No padding. An address has 128 bits and a family; the kind fits in with it. */
    uint64_t key[3] = {c->hi, c->lo, (uint64_t)c->family << 16 | (uint64_t)c->bits << 8 | (uint64_t)kind};
    uint64_t hash = hash_bytes(key, sizeof key);
    return hash != 0 ? hash : 1;
}

/* By its upper bits: any number of slots will do. */
static uint32_t home_of(uint64_t hash, uint32_t n_slots)
{
    return (uint32_t)(((unsigned __int128)hash * n_slots) >> 64);
}

static uint32_t next_slot(uint32_t i, uint32_t n_slots)
{
    return i + 1 < n_slots ? i + 1 : 0;
}

/* ---- the writer's side */

/* Its slot, or the empty one where it would stand; false: neither is there. */
static bool find_slot(const struct guard_shm *shm, const struct table *t, uint64_t hash, uint32_t *ret)
{
    uint32_t i = home_of(hash, shm->n_slots);
    for (uint32_t tries = 0; tries < shm->n_slots; tries++, i = next_slot(i, shm->n_slots)) {
        uint64_t there = LOAD(t->slots[i].hash);
        if (there == hash || there == 0) {
            *ret = i;
            return true;
        }
    }
    return false;
}

bool address_count_add(struct guard_shm *shm, unsigned shard, uint64_t hash)
{
    struct table *t = table_of(shm, shard);
    uint32_t i;

    if (!find_slot(shm, t, hash, &i))
        return false;
    struct slot *s = &t->slots[i];
    if (LOAD(s->hash) == hash) {
        STORE(s->count, LOAD(s->count) + 1);
        return true;
    }
    /* Kept below three quarters: searches stay short, and there is always an empty slot to end them. */
    if (LOAD(t->used) >= shm->n_slots / 4 * 3)
        return false;
    STORE(s->count, 1);
    STORE_RELEASE(s->hash, hash); /* who sees the hash sees its count (search: acquire) */
    STORE(t->used, LOAD(t->used) + 1);
    return true;
}

/* Whether an entry whose home is there may stand in `hole` instead of at i: the hole is between its home and
 * i, going round. */
static bool may_move(uint32_t home, uint32_t hole, uint32_t i)
{
    return hole <= i ? home <= hole || home > i : home <= hole && home > i;
}

/* Empty a slot; later entries that it parts from their homes move up. */
static void close_gap(const struct guard_shm *shm, struct table *t, uint32_t hole)
{
    uint32_t i = hole;
    for (uint32_t tries = 1; tries < shm->n_slots; tries++) {
        i = next_slot(i, shm->n_slots);
        uint64_t hash = LOAD(t->slots[i].hash);
        if (hash == 0)
            break;
        if (!may_move(home_of(hash, shm->n_slots), hole, i))
            continue;
        STORE_RELEASE(t->slots[hole].count, LOAD(t->slots[i].count));
        STORE_RELEASE(t->slots[hole].hash, hash);
        hole = i;
    }
    STORE_RELEASE(t->slots[hole].hash, 0);
}

bool address_count_remove(struct guard_shm *shm, unsigned shard, uint64_t hash)
{
    struct table *t = table_of(shm, shard);
    uint32_t i;

    if (!find_slot(shm, t, hash, &i) || LOAD(t->slots[i].hash) != hash)
        return false;
    uint32_t count = LOAD(t->slots[i].count);
    if (count > 1) {
        STORE(t->slots[i].count, count - 1);
        return true;
    }
    /* A sequence lock: every store of close_gap releases, so whoever has seen one of them (acquire) sees an
     * odd version, or a later one, when it looks again. */
    uint32_t version = LOAD(t->version);
    STORE(t->version, version | 1);
    close_gap(shm, t, i);
    STORE_RELEASE(t->version, (version | 1) + 1);
    STORE(t->used, LOAD(t->used) - 1);
    return true;
}

/* ---- the readers' side */

/* Acquire throughout: the version is looked at again after all of these. */
static uint32_t search(const struct guard_shm *shm, const struct table *t, uint64_t hash)
{
    uint32_t i = home_of(hash, shm->n_slots);
    for (uint32_t tries = 0; tries < shm->n_slots; tries++, i = next_slot(i, shm->n_slots)) {
        uint64_t there = LOAD_ACQUIRE(t->slots[i].hash);
        if (there == 0)
            return 0;
        if (there == hash)
            return LOAD_ACQUIRE(t->slots[i].count);
    }
    return 0;
}

uint32_t address_count_of(const struct guard_shm *shm, unsigned shard, uint64_t hash)
{
    const struct table *t = table_of(shm, shard);
    uint32_t most = 0;

    if (LOAD(t->used) == 0) /* also: do not touch the memory of shards that have nobody */
        return 0;
    for (unsigned reads = 0; reads < READS_MAX; reads++) {
        uint32_t version = LOAD_ACQUIRE(t->version); /* with the stores before it was made even */
        uint32_t count = search(shm, t, hash);
        if (LOAD(t->version) == version && version % 2 == 0)
            return count;
        most = count > most ? count : most;
    }
    return most;
}

uint32_t address_count_sum(const struct guard_shm *shm, uint64_t hash)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < shm->n_shards; i++)
        sum += address_count_of(shm, i, hash);
    return sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

uint32_t address_count_used(const struct guard_shm *shm, unsigned shard)
{
    return LOAD(table_of(shm, shard)->used);
}
