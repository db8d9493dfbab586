// SPDX-License-Identifier: MIT
/* What the shards of one node know of each other without asking: figures and summaries in shared memory, each
 * word written by one process and read by all (relaxed: a figure may be a moment old, never half written).
 * Messages go through the mesh (mesh/). Made by the supervisor, sparse, gone with the node. */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/shard_shm.h"

#define NODE_SHARDS_MAX 64

/* Workers of the node, by number: shard i gives out the numbers i, i + n_shards, i + 2 n_shards ... */
#define NODE_WORKERS_MAX 4096

/* Which shard has a connection id: by its upper 6 bits (the shard that gave it, at first) and its lower 6
 * bits. Changes only while all shards are held (common/upgrade.h). A shard gives only ids whose home it is.
 */
#define NODE_HOME_PARTS 64
struct node_home {
    uint8_t shard[NODE_SHARDS_MAX * NODE_HOME_PARTS];
};

/* Names (uids, groups) that a shard has, by hash: a counter for each bucket, which sticks at 255. 0 means: no
 * such name is there; anything else: maybe. */
#define NODE_FILTER_BUCKETS (UINT32_C(1) << 20)
struct name_filter {
    uint8_t buckets[NODE_FILTER_BUCKETS];
};

enum node_phase {
    NODE_DOWN,   /* no process, or it has not begun (supervisor) */
    NODE_UP,     /* takes connections */
    NODE_LEAVES, /* drains */
    NODE_QUIET,  /* drains, and has neither clients nor anything for other shards */
};

enum node_drained {
    NODE_NOT_DRAINED,
    NODE_DRAINED,   /* told to drain (tgg ctl drain): no new client */
    NODE_EVACUATED, /* tgg ctl evacuate: neither clients nor internal connections */
};

/* What in the estate of a shard that dies while connections move within the node is another shard's. */
enum node_void {
    NODE_VOID_NOTHING,
    NODE_VOID_TAKEN, /* what it is taking over: that has not come about */
    NODE_VOID_ALL,   /* it has given everything away */
};

/* Written by that shard, but phase and its column of workers[] by the supervisor once it is dead. */
struct node_shard {
    _Alignas(64) uint32_t phase;
    uint32_t clients; /* client connections, for their placement */
    uint32_t links;   /* internal connections that are workers or have not said yet what they are */
    uint32_t members; /* clients in its directory */
    /* Connections given to that shard, and of those that it has given, taken over: running numbers, so that
     * handed of one less taken of the other are on their way (shard/handoff.h). */
    struct node_handed {
        uint32_t handed[NODE_SHARDS_MAX];
        uint32_t taken[NODE_SHARDS_MAX];
    } client_handoff, link_handoff;
    uint64_t adds_done[NODE_SHARDS_MAX]; /* commands of that shard's links that add names, executed here */
    /* enum node_drained; of one that dies, also by the supervisor. */
    uint32_t drained;
    uint32_t void_estate; /* enum node_void; by the supervisor while connections move, then by the shard */
    /* Of the settings that it has taken over (common/settings.h), the generation, and the slots of listeners
     * in which it has a listener or a client of one. By the supervisor before it is forked, and when it is
     * dead (UINT64_MAX, none). */
    uint64_t settings, listener_slots;
};

struct node_worker {
    uint64_t hash;                     /* of its key, written by the shard that has its link; 0: free */
    uint32_t clients[NODE_SHARDS_MAX]; /* of that shard bound to it; element i is written by shard i */
    uint32_t
        draining; /* 1: nobody is bound to it any more (tgg ctl drain); written by the shard of its link */
};

struct node_shared {
    /* By the supervisor: how many processes of that shard have died; `deaths` is their sum. */
    _Alignas(64) uint32_t deaths;
    uint32_t draining; /* 1: the whole node ends (set before the shards are told, or by one that finds the
                        * supervisor gone) */
    uint32_t deaths_of[NODE_SHARDS_MAX];
    /* The shard that chooses a worker at this moment, plus 1; 0: none. See node_choice_begin. */
    _Alignas(64) uint32_t chooser;
    _Alignas(
        64) uint64_t uid_binds; /* how many there were: the number of the last (one_connection_per_uid) */
    struct node_home home;      /* to begin with, ids are at home where they were given */
    struct node_shard shards[NODE_SHARDS_MAX];
    struct node_worker workers[NODE_WORKERS_MAX];
    struct {
        struct name_filter uids, groups;
    } names[NODE_SHARDS_MAX];
};

#define NODE_LOAD(word)     __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define NODE_STORE(word, v) __atomic_store_n(&(word), (v), __ATOMIC_RELAXED)

static inline unsigned node_home_of(const struct node_home *h, uint32_t connection_id)
{
    return h
        ->shard[(connection_id >> CONNECTION_SEQ_BITS) * NODE_HOME_PARTS + connection_id % NODE_HOME_PARTS];
}
/* Each id is at home where it was given. */
void node_home_init(struct node_home *h);
/* For a node with these edges (a bit each, at least one), from that of another whose edges were edges_before.
 * With the same edges all ids stay where they are. Else each edge gets its share of every edge before it, in
 * every row, so that clients are spread evenly whenever they came; no more is moved than that needs (without
 * a new edge: only what was at those that are edges no more), and each edge has a part of its own row to
 * give. Ids of which no edge is the home have never been given: they are their row's. Returns whether
 * anything differs. */
bool node_home_plan(const struct node_home *before, uint64_t edges_before, uint64_t edges,
                    struct node_home *ret);

/* Release: whoever sees the generation sees its slots (partner: node_shard_slots). */
static inline void node_shard_took_settings(struct node_shard *s, uint64_t generation, uint64_t slots)
{
    NODE_STORE(s->listener_slots, slots);
    __atomic_store_n(&s->settings, generation, __ATOMIC_RELEASE);
}
static inline bool node_shard_has_settings(const struct node_shard *s, uint64_t generation)
{
    return __atomic_load_n(&s->settings, __ATOMIC_ACQUIRE) >= generation;
}
/* The slots that it uses; all of them as long as it has not taken over that generation. */
static inline uint64_t node_shard_slots(const struct node_shard *s, uint64_t generation)
{
    return node_shard_has_settings(s, generation) ? NODE_LOAD(s->listener_slots) : UINT64_MAX;
}

/* Shards that choose a worker by its clients take turns, lest two of them take the same one for the emptiest:
 * from begin to end (which adds to its own count) others wait. For a moment only: whoever has no CPU, or
 * died, in between is not waited for; then two choices may meet, which costs evenness and nothing else. */
static inline void node_choice_begin(struct node_shared *n, unsigned me)
{
    for (unsigned tries = 1; tries <= 8000; tries++) {
        uint32_t nobody = 0;
        /* Acquire: the counts as the one before left them. */
        if (__atomic_load_n(&n->chooser, __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(&n->chooser, &nobody, me + 1, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED))
            return;
        if (tries % 1000 == 0)
            sched_yield(); /* it may be waiting for this CPU */
    }
}
static inline void node_choice_end(struct node_shared *n, unsigned me)
{
    uint32_t own = me + 1;
    /* Release: with our count. Only if it is ours: it may have been taken without waiting. */
    __atomic_compare_exchange_n(&n->chooser, &own, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

static inline uint32_t name_filter_bucket(uint64_t hash)
{
    return (uint32_t)(hash >> 32) % NODE_FILTER_BUCKETS;
}
static inline bool name_filter_may_have(const struct name_filter *f, uint64_t hash)
{
    return NODE_LOAD(f->buckets[name_filter_bucket(hash)]) != 0;
}
static inline void name_filter_add(struct name_filter *f, uint64_t hash)
{
    uint8_t *b = &f->buckets[name_filter_bucket(hash)];
    if (*b < UINT8_MAX)
        NODE_STORE(*b, *b + 1);
}
static inline void name_filter_remove(struct name_filter *f, uint64_t hash)
{
    uint8_t *b = &f->buckets[name_filter_bucket(hash)];
    if (*b < UINT8_MAX) /* one that was full once is full for good: the safe side */
        NODE_STORE(*b, *b - 1);
}

struct guard_shm;
struct ticket_keys;

/* Everything that a node's processes share, as the supervisor made it before it forked them. */
struct node {
    unsigned n_shards;
    struct node_shared *shared;
    void *mesh; /* mesh_bytes(n_shards, ring_bytes) */
    size_t ring_bytes;
    void *estates[NODE_SHARDS_MAX]; /* estate_bytes(max_clients, estate_heap_bytes) each */
    size_t estate_bytes, estate_heap_bytes;
    uint32_t max_clients;             /* of one shard */
    int wake_fds[NODE_SHARDS_MAX];    /* eventfd of each shard: something is in a ring, or a shard has died */
    int hand_fds[NODE_SHARDS_MAX][2]; /* of each, node_hand_open: [0] to receive connections, [1] to give */
    int settings_fds[NODE_SHARDS_MAX + 1]
                    [2];                 /* of each, settings_open: [0] the shard's, [1] the supervisor's;
                                          * and behind them (n_shards) that of the admin process */
    int upgrade_fds[NODE_SHARDS_MAX][2]; /* of each, upgrade_open (common/upgrade.h): [0] the shard's, [1] the
                                          * supervisor's */
    int import_fds[NODE_SHARDS_MAX][2];  /* of each, transfer_open: [0] to receive connections that it takes
                                          * over, [1] to  hand them over to it */
    int control_fds[NODE_SHARDS_MAX][2]; /* of each, control_open: [0] the shard's, [1] the admin process's */
    struct guard_shm *guard;             /* who is counted where (guard/guard_shm.h) */
    size_t guard_bytes;
    struct ticket_keys *tickets; /* written by the supervisor; the shards cannot */
};

/* The two ends on which one shard gets connections from all others: messages with bounds, non-blocking,
 * closed on exec. 0 or -errno. */
int node_hand_open(int ret[2]);
/* What goes with a descriptor that is given to a shard. */
#define NODE_HAND_INTERNAL 0xff /* instead of a listener's slot */
struct node_hand {
    uint8_t listener; /* slot of the listener that it was accepted for */
    uint8_t from;  /* the shard that gives it; the taker itself: the supervisor does, and it is not counted */
    uint16_t made; /* of a client: which listener of that slot */
    uint32_t number; /* running, of its kind from that shard to this one: see struct node_handed */
};
/* To the shard whose giving end that is; fd stays the caller's. 0; -EAGAIN: its socket is full;
 * -ETOOMANYREFS: too many of all shards are on their way; other -errno. */
int node_hand_give(int to, const struct node_hand *what, int fd);

/* Mapped anonymous and shared. NULL without memory. For tests and simulation too. */
struct node_shared *node_shared_new(void);
void node_shared_free(struct node_shared *n);
/* The process of that shard is dead: its figures, names and bindings are gone, deaths grow (supervisor). */
void node_shared_bury(struct node_shared *n, unsigned shard);
