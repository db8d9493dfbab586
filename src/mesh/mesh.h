// SPDX-License-Identifier: MIT
/* Messages between the shards of one node: a ring for each ordered pair of them (ring/), in memory that all
 * of them map and that outlives each of them.
 *
 *   shard a:  mesh_send(m, b, ...) ── ring a→b ──> mesh_ops.message(from a)   :shard b
 *                  │ full                                     ^ read in its turn, woken when it sleeps
 *                  └── backlog, in a's memory, in order
 *
 * What one shard sends to one other arrives in the order of sending, once, whole, whatever its size. Nothing
 * is refused: what finds no room waits in the sender's backlog, whose bytes the sender looks at
 * (mesh_waiting) to stop its sources. What is in the ring outlives its sender; what is in the backlog does
 * not. A message is released when the receiver's callback has returned: a receiver that dies has taken
 * either all of it or nothing (but for a death within the few instructions in between, which makes its
 * successor get that one message again).
 *
 * That holds for large messages too (more than mesh_try_max, sent in fragments), as long as their sender
 * lives: it keeps one in its backlog, and what was sent behind it, until the receiver has taken it. When the
 * receiver dies in the midst, its successor finds the rest of the fragments only, drops them (counted:
 * mesh_cut), and is sent the whole message again. One large message at a time is under way in a ring, and
 * nothing else behind it: large ones are for what is rare.
 *
 * One thread. The mesh itself calls mesh_read and mesh_flush from hooks of the loop: read before what the
 * other hooks write, flush after it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "common/counters.h"
#include "loop/loop.h"

#define MESH_SHARDS_MAX 64

struct mesh;

struct mesh_ops {
    /* A whole message of that shard; data stays until the return, may be written to by a hostile peer
     * meanwhile (processes of one program: looked at once where it matters), aligned to 8. */
    void (*message)(void *ctx, unsigned from, uint32_t type, const uint8_t *data, size_t len);
    /* Nothing waits for `to` any more: its backlog is empty and its ring had room. After at least one
     * mesh_send that had to wait, or one mesh_try that said -EAGAIN. */
    void (*room)(void *ctx, unsigned to);
    /* Shard `to` sleeps and has something to read: wake it (an eventfd; in a simulation a turn). */
    void (*wake)(void *ctx, unsigned to);
    /* A ring from or to that living shard was given up, because what is there makes no sense: nothing goes
     * through it any more until one of the two processes is replaced. Once (until mesh_peer_died), from
     * within a turn, nothing of the mesh is under way; not told when the peer is replaced before that. May be
     * NULL. */
    void (*broken)(void *ctx, unsigned peer);
};

struct mesh_options {
    unsigned me, n_shards; /* n_shards 1: nobody to talk to; everything is a no-op */
    void *mem;             /* mesh_bytes(n_shards, ring_bytes) of shared memory, zero before its first user */
    size_t ring_bytes;     /* data of one ring: a power of two, 64 KiB to 64 MiB */
    struct loop *loop;
    struct counters *counters; /* mesh_* */
    const struct mesh_ops *ops;
    void *ctx;
    bool
        wake_always; /* whoever drives the loops does not let them wait (simulation): wake at every publish */
    size_t message_max; /* bytes of the largest message taken */
};

/* Sparse: rings that are not used cost no memory. */
size_t mesh_bytes(unsigned n_shards, size_t ring_bytes);

/* Takes the place of shard `me`: for the first time, or of one that died (what was sent to it and not taken
 * is received, what it had sent goes on to be read by the others). NULL and *ret_err = -errno. Nothing is
 * delivered before the first turn of the loop after mesh_start: until then a successor settles its own. */
struct mesh *mesh_new(const struct mesh_options *opt, int *ret_err);
void mesh_start(struct mesh *m);
/* Flushes what there is room for; the rest of the backlog is gone, counted. A large message that is in the
 * ring, all of it, and not taken yet counts as sent; its note is not told. */
void mesh_free(struct mesh *m);
/* As kill -9 would: memory is freed, nothing shared is touched. For tests and simulation, also from within a
 * callback that is left by longjmp. */
void mesh_abandon(struct mesh *m);

/* Called when a message is where the other, or its successor, can see it whatever happens to us; a large one:
 * when it was taken. (Or it is given up: the mesh is freed, or the ring is broken and the message dropped and
 * counted; then done is not called but forgotten.) May send. Embedded by the caller, zeroed; in use until
 * done. */
struct mesh_note {
    void (*done)(struct mesh_note *n);
};

/* Queue one message, its payload given in parts (copied). note (may be NULL): told once it is safe (above);
 * that may be within the call, when nothing waits. A large one always waits, and is followed by `room`. The
 * messages of a turn are shown to the receiver together (mesh_flush), those with a note at once. What is sent
 * outside of a turn is shown in the next one, or by mesh_flush.
 * False: no memory for the backlog; nothing was queued. (A message for a ring that was given up is dropped
 * and counted, and is true: the receiver's side is damaged, and stays so until its process is replaced.) */
bool mesh_send(struct mesh *m, unsigned to, uint32_t type, const struct slice *parts, unsigned n_parts,
               struct mesh_note *note);
/* The same, but never waits: 0: it is visible to the other, whatever happens to us; -EAGAIN: it would have
 * to wait: nothing was done, `room` follows. Only for payloads up to mesh_try_max. */
int mesh_try(struct mesh *m, unsigned to, uint32_t type, const struct slice *parts, unsigned n_parts);
size_t mesh_try_max(const struct mesh *m);
/* Bytes in the backlog to that shard, with a large message under way. */
size_t mesh_waiting(const struct mesh *m, unsigned to);

/* Bytes in the ring to that shard that it has not taken, with the heads of the messages; 0 for ourselves. */
size_t mesh_ring_used(const struct mesh *m, unsigned to);

/* Others have sent something that was not taken yet. What another shard sent before something else of it was
 * seen (a word in shared memory) is not missed. */
bool mesh_has_unread(const struct mesh *m);

/* Nothing of ours waits or is in a ring, and nothing of others is unread here. So when it is true of all
 * shards, and none of them has done anything meanwhile, nothing is under way between them. */
bool mesh_is_at_rest(const struct mesh *m);

/* Take what others have sent, at most until the loop's turn is over (loop_turn_left_ns). */
void mesh_read(struct mesh *m);
void mesh_flush(struct mesh *m);

/* The process of that shard is dead, its successor may be there already: what it published and we have not
 * read stays to be read; a message of which only a part came is dropped when the next one comes. Sending goes
 * on: the successor gets it; a large message that the dead one had begun to read begins anew. In a turn of
 * the loop, also within a callback. Called by the survivor when it is told (node_shm's incarnation has
 * changed). */
void mesh_peer_died(struct mesh *m, unsigned shard);
/* In the place of a dead shard, before its successor is forked (the supervisor): mends its sides of all
 * rings, wakes nobody itself: the caller wakes all others. Returns the number of messages that it had
 * published and nobody has read yet, and *ret_to_it: sent to it and not taken. */
uint64_t mesh_bury(void *mem, unsigned n_shards, size_t ring_bytes, unsigned dead, uint64_t *ret_to_it);
