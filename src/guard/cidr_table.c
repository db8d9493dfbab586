// SPDX-License-Identifier: MIT
#include "guard/cidr_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define NODE_BITS 6
#define NODE_WAYS 64
#define TOP_BITS  16
#define TOP_MIN   2048 /* prefixes of a family from which the 256 KB for its first step are well spent */
#define CHAIN_MAX 4    /* prefixes inside one another that share a leaf */
#define NONE      UINT32_C(0x7fffffff)

/* Where a step leads: the number of a node, or LEAF and that of an entry or NONE. */
#define LEAF UINT32_C(0x80000000)

struct node {
    uint64_t children;    /* ways that lead to a node */
    uint64_t leaf_starts; /* ways, of the others, with another entry than the way before */
    uint32_t child_first; /* nodes[] of the lowest bit in children; the others follow */
    uint32_t leaf_first;  /* leaves[], likewise */
    uint8_t depth;        /* the first of its bits */
};

struct trie {
    uint32_t *top; /* NULL: begins at root */
    uint32_t root;
};

struct cidr_table {
    struct cidr_entry *entries;
    uint32_t n_entries;
    struct node *nodes;
    uint32_t *leaves;
    uint32_t n_nodes, cap_nodes, n_leaves, cap_leaves;
    bool counts_bits; /* the CPU has an instruction for it */
    struct trie v4, v6;
};

typedef unsigned __int128 key128;

/* ---- the set */

int cidr_set_add(struct cidr_set *s, const struct cidr *c, int64_t value)
{
    ASSERT(c->family == AF_INET || c->family == AF_INET6);
    if (s->n == s->cap) {
        size_t cap = s->cap == 0 ? 64 : s->cap * 2;
        if (cap > CIDR_TABLE_MAX)
            return -ENOMEM;
        struct cidr_entry *list = reallocarray(s->list, cap, sizeof *list);
        if (list == NULL)
            return -ENOMEM;
        s->list = list;
        s->cap = cap;
    }
    s->list[s->n++] = (struct cidr_entry){
        .hi = c->hi, .lo = c->lo, .value = value, .parent = NONE, .family = c->family, .bits = c->bits};
    return 0;
}

void cidr_set_fini(struct cidr_set *s)
{
    free(s->list);
    *s = (struct cidr_set){0};
}

/* IPv4 before IPv6, then by address, the shorter of the same address first: what contains others stands
 * before them. */
static int compare(const void *va, const void *vb)
{
    const struct cidr_entry *a = va, *b = vb;
    if (a->family != b->family)
        return a->family == AF_INET ? -1 : 1;
    if (a->hi != b->hi)
        return a->hi < b->hi ? -1 : 1;
    if (a->lo != b->lo)
        return a->lo < b->lo ? -1 : 1;
    return (int)a->bits - (int)b->bits;
}

/* Each prefix once. */
static void put_in_order(struct cidr_set *s, struct cidr_clashes *clashes)
{
    size_t kept = 0;

    *clashes = (struct cidr_clashes){0};
    if (s->n > 1)
        qsort(s->list, s->n, sizeof *s->list, compare);
    for (size_t i = 0; i < s->n; i++) {
        struct cidr_entry *e = &s->list[i], *last = kept > 0 ? &s->list[kept - 1] : NULL;
        if (last == NULL || compare(last, e) != 0) {
            s->list[kept++] = *e;
            continue;
        }
        if (last->value == e->value)
            continue;
        if (clashes->n++ == 0)
            clashes->first = (struct cidr){.hi = e->hi, .lo = e->lo, .family = e->family, .bits = e->bits};
        if (e->value > last->value)
            last->value = e->value;
    }
    s->n = kept;
}

/* ---- bits */

static unsigned common_bits(const struct cidr_entry *a, uint64_t hi, uint64_t lo)
{
    if (a->hi != hi)
        return (unsigned)__builtin_clzll(a->hi ^ hi);
    return a->lo != lo ? 64 + (unsigned)__builtin_clzll(a->lo ^ lo) : 128;
}

static bool contains(const struct cidr_entry *e, uint64_t hi, uint64_t lo)
{
    return common_bits(e, hi, lo) >= e->bits;
}

/* Those `width` bits of it that begin at depth; past the end come zeros. */
static inline unsigned bits_at(uint64_t hi, uint64_t lo, unsigned depth, unsigned width)
{
    key128 key = (key128)hi << 64 | lo;
    return (unsigned)((key << depth) >> (128 - width));
}

/* ---- building */

static void link_parents(struct cidr_table *t)
{
    for (uint32_t i = 1; i < t->n_entries; i++) {
        struct cidr_entry *e = &t->entries[i];
        uint32_t p = i - 1;
        if (t->entries[p].family != e->family)
            continue;
        while (p != NONE && !contains(&t->entries[p], e->hi, e->lo))
            p = t->entries[p].parent;
        e->parent = p;
    }
}

/* Entries [from, to), which stand side by side. */
struct run {
    uint32_t from, to;
};

/* A way of a node, or of the top: the entry that covers all of it, and those that are inside. */
struct way {
    uint32_t cover;
    struct run inside;
};

/* Which entries of the run concern which of the 2^width ways at depth. Those that are no longer than the step
 * cover ways, longer ones are inside of one. In their order, what contains others comes before them, so a
 * later cover is the longer one. */
static void split(const struct cidr_table *t, struct run run, uint32_t cover, unsigned depth, unsigned width,
                  struct way *ways)
{
    for (size_t i = 0; i < (size_t)1 << width; i++)
        ways[i] = (struct way){.cover = cover};
    for (uint32_t i = run.from; i < run.to; i++) {
        const struct cidr_entry *e = &t->entries[i];
        unsigned first = bits_at(e->hi, e->lo, depth, width);
        if (e->bits > depth + width) {
            struct run *inside = &ways[first].inside;
            if (inside->to == 0)
                inside->from = i;
            inside->to = i + 1;
            continue;
        }
        for (size_t w = 0; w < (size_t)1 << (depth + width - e->bits); w++)
            ways[first + w].cover = i;
    }
}

static bool is_chain(const struct cidr_table *t, struct run run)
{
    if (run.to - run.from > CHAIN_MAX)
        return false;
    for (uint32_t i = run.from + 1; i < run.to; i++) {
        if (t->entries[i].parent != i - 1)
            return false;
    }
    return true;
}

/* The entry at which a way ends, or false: it needs a node. */
static bool way_ends(const struct cidr_table *t, const struct way *w, uint32_t *ret)
{
    *ret = w->inside.to == 0 ? w->cover : w->inside.to - 1;
    return w->inside.to == 0 || is_chain(t, w->inside);
}

/* The first bit at which the entries of a run are not all alike, or one of them ends. */
static unsigned depth_of(const struct cidr_table *t, struct run run)
{
    const struct cidr_entry *last = &t->entries[run.to - 1];
    unsigned depth = common_bits(&t->entries[run.from], last->hi, last->lo);
    for (uint32_t i = run.from; i < run.to; i++)
        depth = t->entries[i].bits < depth ? t->entries[i].bits : depth;
    return depth;
}

/* Room for more; the memory is asked for twice as often as it doubles. */
static int nodes_reserve(struct cidr_table *t, uint32_t more)
{
    if (t->n_nodes + more <= t->cap_nodes)
        return 0;
    uint32_t cap = (t->n_nodes + more) * 3 / 2 + 16;
    struct node *nodes = reallocarray(t->nodes, cap, sizeof *nodes);
    if (nodes == NULL)
        return -ENOMEM;
    t->nodes = nodes;
    t->cap_nodes = cap;
    return 0;
}

static int leaf_add(struct cidr_table *t, uint32_t entry)
{
    if (t->n_leaves == t->cap_leaves) {
        uint32_t cap = t->cap_leaves * 3 / 2 + 64;
        uint32_t *leaves = reallocarray(t->leaves, cap, sizeof *leaves);
        if (leaves == NULL)
            return -ENOMEM;
        t->leaves = leaves;
        t->cap_leaves = cap;
    }
    t->leaves[t->n_leaves++] = entry;
    return 0;
}

/* The bitmaps and leaves of a node; ways that need nodes get room, in the same order. */
static int node_fill(struct cidr_table *t, const struct way *ways, struct node *n)
{
    uint32_t before = 0, entry;

    n->leaf_first = t->n_leaves;
    n->child_first = t->n_nodes;
    for (unsigned i = 0; i < NODE_WAYS; i++) {
        if (!way_ends(t, &ways[i], &entry)) {
            n->children |= UINT64_C(1) << i;
            continue;
        }
        if (n->leaf_starts != 0 && entry == before)
            continue;
        n->leaf_starts |= UINT64_C(1) << i;
        before = entry;
        if (leaf_add(t, entry) < 0)
            return -ENOMEM;
    }
    uint32_t n_children = (uint32_t)__builtin_popcountll(n->children);
    if (nodes_reserve(t, n_children) < 0)
        return -ENOMEM;
    t->n_nodes += n_children;
    return 0;
}

/* Node `at` for these entries and all below it: every node ends one of its entries or parts them, so it goes
 * at most 22 deep, and there are fewer nodes than entries. */
static int node_build(struct cidr_table *t, uint32_t at, struct run run, uint32_t cover)
{
    struct way ways[NODE_WAYS];
    struct node n = {.depth = (uint8_t)depth_of(t, run)};

    ASSERT(n.depth < 128);
    split(t, run, cover, n.depth, NODE_BITS, ways);
    if (node_fill(t, ways, &n) < 0)
        return -ENOMEM;
    t->nodes[at] = n;
    uint32_t child = n.child_first;
    for (unsigned i = 0; i < NODE_WAYS; i++) {
        if (n.children >> i & 1 && node_build(t, child++, ways[i].inside, ways[i].cover) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int way_build(struct cidr_table *t, const struct way *w, uint32_t *ret)
{
    uint32_t entry;
    if (way_ends(t, w, &entry)) {
        *ret = LEAF | entry;
        return 0;
    }
    if (nodes_reserve(t, 1) < 0)
        return -ENOMEM;
    *ret = t->n_nodes++;
    return node_build(t, *ret, w->inside, w->cover);
}

static int top_build(struct cidr_table *t, struct run run, uint32_t *top)
{
    struct way *ways = calloc((size_t)1 << TOP_BITS, sizeof *ways);
    int r = ways == NULL ? -ENOMEM : 0;

    if (ways != NULL)
        split(t, run, NONE, 0, TOP_BITS, ways);
    for (size_t i = 0; r == 0 && i < (size_t)1 << TOP_BITS; i++)
        r = way_build(t, &ways[i], &top[i]);
    free(ways);
    return r;
}

static int trie_build(struct cidr_table *t, struct run run, struct trie *ret)
{
    if (run.to - run.from < TOP_MIN) {
        struct way all = {.cover = NONE, .inside = run.from == run.to ? (struct run){0} : run};
        return way_build(t, &all, &ret->root);
    }
    ret->top = calloc((size_t)1 << TOP_BITS, sizeof *ret->top);
    return ret->top == NULL ? -ENOMEM : top_build(t, run, ret->top);
}

/* What was reserved in advance goes back; that may fail, and does not matter then. */
static void trim(struct cidr_table *t)
{
    void *p;
    if (t->n_nodes > 0 && (p = reallocarray(t->nodes, t->n_nodes, sizeof *t->nodes)) != NULL) {
        t->nodes = p;
        t->cap_nodes = t->n_nodes;
    }
    if (t->n_leaves > 0 && (p = reallocarray(t->leaves, t->n_leaves, sizeof *t->leaves)) != NULL) {
        t->leaves = p;
        t->cap_leaves = t->n_leaves;
    }
}

static bool cpu_counts_bits(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("popcnt") != 0;
#else
    return true;
#endif
}

struct cidr_table *cidr_table_new(struct cidr_set *set, struct cidr_clashes *ret)
{
    struct cidr_clashes clashes;
    struct cidr_table *t = calloc(1, sizeof *t);
    uint32_t n4 = 0;

    if (t == NULL)
        return NULL;
    put_in_order(set, &clashes);
    t->counts_bits = cpu_counts_bits();
    t->n_entries = (uint32_t)set->n;
    t->entries = calloc(set->n + 1, sizeof *t->entries); /* +1: never of no bytes */
    if (t->entries == NULL)
        goto fail;
    if (set->n > 0)
        memcpy(t->entries, set->list, set->n * sizeof *t->entries);
    link_parents(t);
    while (n4 < t->n_entries && t->entries[n4].family == AF_INET)
        n4++;
    if (trie_build(t, (struct run){0, n4}, &t->v4) < 0 ||
        trie_build(t, (struct run){n4, t->n_entries}, &t->v6) < 0)
        goto fail;
    trim(t);
    if (ret != NULL)
        *ret = clashes;
    return t;
fail:
    cidr_table_free(t);
    return NULL;
}

void cidr_table_free(struct cidr_table *t)
{
    if (t == NULL)
        return;
    free(t->v4.top);
    free(t->v6.top);
    free(t->entries);
    free(t->nodes);
    free(t->leaves);
    free(t);
}

size_t cidr_table_prefixes(const struct cidr_table *t)
{
    return t->n_entries;
}

size_t cidr_table_bytes(const struct cidr_table *t)
{
    size_t top = ((size_t)1 << TOP_BITS) * sizeof(uint32_t);
    return sizeof *t + t->n_entries * sizeof *t->entries + t->cap_nodes * sizeof *t->nodes +
           t->cap_leaves * sizeof *t->leaves + (t->v4.top != NULL ? top : 0) + (t->v6.top != NULL ? top : 0);
}

/* ---- looking up */

/* The entry at the end of the way down: if any prefix contains the address, the longest that does is this one
 * or one that contains this one. */
static inline __attribute__((always_inline)) uint32_t descend(const struct cidr_table *t,
                                                              const struct trie *trie, uint64_t hi,
                                                              uint64_t lo)
{
    uint32_t at = trie->top != NULL ? trie->top[hi >> (64 - TOP_BITS)] : trie->root;

    while (!(at & LEAF)) {
        const struct node *n = &t->nodes[at];
        unsigned way = bits_at(hi, lo, n->depth, NODE_BITS);
        uint64_t up_to = (UINT64_C(2) << way) - 1; /* ways up to this one */
        if (!(n->children >> way & 1))
            return t->leaves[n->leaf_first + (uint32_t)__builtin_popcountll(n->leaf_starts & up_to) - 1];
        at = n->child_first + (uint32_t)__builtin_popcountll(n->children & up_to) - 1;
    }
    return at & ~LEAF;
}

#if defined(__x86_64__)
__attribute__((target("popcnt")))
#endif
static uint32_t
descend_fast(const struct cidr_table *t, const struct trie *trie, uint64_t hi, uint64_t lo)
{
    return descend(t, trie, hi, lo);
}

static uint32_t descend_anywhere(const struct cidr_table *t, const struct trie *trie, uint64_t hi,
                                 uint64_t lo)
{
    return descend(t, trie, hi, lo);
}

bool cidr_table_find(const struct cidr_table *t, const struct net_addr *addr, int64_t floor, int64_t *ret)
{
    struct cidr c;

    if (addr->family == AF_UNIX || t->n_entries == 0)
        return false;
    cidr_from_addr(addr, &c);
    const struct trie *trie = c.family == AF_INET ? &t->v4 : &t->v6;
    uint32_t at = (t->counts_bits ? descend_fast : descend_anywhere)(t, trie, c.hi, c.lo);
    for (; at != NONE; at = t->entries[at].parent) {
        const struct cidr_entry *e = &t->entries[at];
        if (e->value > floor && contains(e, c.hi, c.lo)) {
            *ret = e->value;
            return true;
        }
    }
    return false;
}
