// SPDX-License-Identifier: MIT
/* The sequence of ids, in blocks: leaving one is noted with its time, entering one is refused while that time
 * is too young.
 *
 *   seq    1 ....... 2^20 | ......... | ......... |     64 blocks; 0 is never given
 *          left: 12:00      12:20       11:05           times are kept in memory that outlives us
 *                              ^ next_seq at the first of a block: may it be entered?
 *
 * That is for the many, whose clients have gone long before the sequence comes again. Those few who leave an
 * id that is ahead of the sequence by less than half of its range are kept one by one until their time is
 * over; at most as many as there were clients. */
#include "session/directory_priv.h"

#include <errno.h>

#include "base/assert.h"

/* An id that is further ahead is not reached soon. */
#define NEAR (UINT32_C(1) << (ID_SEQ_BITS - 1))

#define BLOCK_BITS (ID_SEQ_BITS - 6)
_Static_assert(DIRECTORY_ID_BLOCKS == 1 << (ID_SEQ_BITS - BLOCK_BITS), "blocks are the upper bits");

static uint32_t seq_after(uint32_t seq)
{
    return seq == ID_SEQ_MAX ? 1 : seq + 1;
}

static uint32_t block_of(uint32_t seq)
{
    return seq >> BLOCK_BITS;
}

/* Where a block is entered. */
static bool is_first_of_block(uint32_t seq)
{
    return seq == 1 || (seq & ((UINT32_C(1) << BLOCK_BITS) - 1)) == 0;
}

static bool may_enter(const struct id_reuse *r, uint32_t block)
{
    if (!r->left_unix_s) {
        return true;
    }
    int64_t left = r->left_unix_s[block];
    return left == 0 || r->now_unix_s - left >= r->reuse_s;
}

/* Whoever reads it after our death, or in another process, finds the old time or the new one. */
static void note_left(struct id_reuse *r, uint32_t block)
{
    if (r->left_unix_s) {
        __atomic_store_n(&r->left_unix_s[block], r->now_unix_s, __ATOMIC_RELAXED);
    }
}

static bool is_at_home(const struct directory *d, uint32_t id)
{
    return !d->home || node_home_of(d->home, id) == d->shard_bits >> ID_SEQ_BITS;
}

bool ids__is_ours(const struct directory *d, uint32_t id)
{
    return (id & ID_SEQ_MAX) != 0 && is_at_home(d, id);
}

/* Long-lived ids stand in the way once per round of 67 million; those whose home is another shard in each run
 * of NODE_HOME_PARTS, which all have the same pattern. */
int ids__next(const struct directory *d, uint32_t *ret_id)
{
    uint32_t seq = d->next_seq, away = 0;
    for (uint32_t tries = 0; tries < ID_SEQ_MAX && away <= NODE_HOME_PARTS; seq = seq_after(seq), tries++) {
        uint32_t id = d->shard_bits | seq;
        if (is_first_of_block(seq) && !may_enter(&d->reuse, block_of(seq))) {
            return -EAGAIN;
        }
        if (!is_at_home(d, id)) {
            away++;
            continue;
        }
        away = 0;
        if (!hash_table__find(&d->ids, id) && !hash_table__find(&d->reuse.gone, id)) {
            *ret_id = id;
            return 0;
        }
    }
    return -EAGAIN; /* none of its row is this shard's, or all that are have an owner */
}

void ids__taken(struct directory *d, uint32_t id)
{
    uint32_t next = seq_after(id & ID_SEQ_MAX);
    /* A block may have been passed over whole, if each of its ids is in use. */
    for (uint32_t b = block_of(d->next_seq); b != block_of(next); b = (b + 1) % DIRECTORY_ID_BLOCKS) {
        note_left(&d->reuse, b);
    }
    d->next_seq = next;
}

/* ---- ids that are gone, and near */

static struct gone_id *gone_at(const struct id_reuse *r, uint32_t i)
{
    return &r->ring[(r->first + i) & (r->cap - 1)];
}

static bool ring_grow(struct id_reuse *r, struct mem *mem)
{
    uint32_t cap = r->cap ? r->cap * 2 : 64;
    struct gone_id *ring = mem__alloc(mem, cap * sizeof(*ring));
    if (!ring) {
        return false;
    }
    for (uint32_t i = 0; i < r->count; i++) {
        ring[i] = *gone_at(r, i);
    }
    mem__free(mem, r->ring);
    r->ring = ring;
    r->cap = cap;
    r->first = 0;
    return true;
}

void directory_id_gone(struct directory *d, uint32_t id)
{
    struct id_reuse *r = &d->reuse;
    if (!r->left_unix_s || (id & ~ID_SEQ_MAX) != d->shard_bits || ((id - d->next_seq) & ID_SEQ_MAX) >= NEAR ||
        hash_table__find(&r->gone, id)) {
        return;
    }
    /* Without memory it may be given again a little early. */
    if ((r->count == r->cap && !ring_grow(r, &d->mem)) || hash_table__insert(&r->gone, &d->mem, id, d) < 0) {
        return;
    }
    *gone_at(r, r->count++) = (struct gone_id){.id = id, .unix_s = r->now_unix_s};
}

static void forget_the_old(struct directory *d)
{
    struct id_reuse *r = &d->reuse;
    while (r->count > 0 && r->now_unix_s - gone_at(r, 0)->unix_s >= r->reuse_s) {
        hash_table__remove(&r->gone, &d->mem, gone_at(r, 0)->id, d);
        r->first = (r->first + 1) & (r->cap - 1);
        r->count--;
    }
    if (r->count == 0) {
        mem__free(&d->mem, r->ring);
        r->ring = NULL;
        r->first = r->cap = 0;
    }
}

void ids__fini(struct directory *d, struct mem *mem)
{
    hash_table__fini(&d->reuse.gone, mem);
    mem__free(mem, d->reuse.ring);
}

/* ---- the clock */

/* What has a time in the future is of a clock that was ahead. */
static void clock_went_back(struct id_reuse *r)
{
    for (uint32_t b = 0; r->left_unix_s && b < DIRECTORY_ID_BLOCKS; b++) {
        if (r->left_unix_s[b] > r->now_unix_s) {
            note_left(r, b);
        }
    }
    for (uint32_t i = 0; i < r->count; i++) {
        if (gone_at(r, i)->unix_s > r->now_unix_s) {
            gone_at(r, i)->unix_s = r->now_unix_s;
        }
    }
}

void directory_set_reuse(struct directory *d, int64_t *left_unix_s, uint32_t reuse_s, int64_t now_unix_s)
{
    ASSERT(d->all.live == 0 && d->reuse.count == 0);
    d->reuse = (struct id_reuse){.left_unix_s = left_unix_s, .reuse_s = reuse_s, .now_unix_s = now_unix_s};
    clock_went_back(&d->reuse);
}

void directory_set_now(struct directory *d, int64_t now_unix_s)
{
    bool back = now_unix_s < d->reuse.now_unix_s;
    d->reuse.now_unix_s = now_unix_s;
    if (back) {
        clock_went_back(&d->reuse);
    }
    forget_the_old(d);
}
