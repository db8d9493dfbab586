// SPDX-License-Identifier: MIT
/* What a shard must leave behind when it is killed, in memory that outlives it: which of its clients a worker
 * has heard of (with worker and last session), and the packets for workers that were not written yet. Its
 * successor reads that, tells the workers, and frees it.
 *
 *   estate of one shard (one sparse shared mapping)
 *     plot 0 .. PLOTS-1    one per process that has run: FREE, LIVE (its process runs), LEGACY (died)
 *       clients[]          struct estate_client, id 0: not in use
 *       chunks[]           packets not written yet: where they are, how far they are written
 *       heap               sessions and chunks
 *
 * A process takes a free plot and writes to that only; it finds the plots of predecessors as legacies, which
 * it only reads (and marks off) until it frees them. So nothing of an allocator has to survive: its
 * bookkeeping is in private memory, and the plot holds what the records point to.
 *
 * Crash-safe means: killed between any two instructions, a record is either there with everything it points
 * to, or not there; a session is the old one or the new one, whole; a packet counts from estate_chunk_commit
 * on and not before. Stores are ordered with release; a word is written last that makes the rest valid, and
 * first that makes it invalid. The reader comes after the writer's death (the kernel has told it so), so that
 * nothing but the order of one process's own stores matters.
 * What is handed from one place to another (a packet to another chunk, a client to whoever tells of it) is
 * committed there before it is marked off here: killed in between, it is there twice, never not at all.
 * Readers of a legacy check every offset and length against the plot: a wild process may have written
 * anything.
 *
 * One thread, and one living process for each estate. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/bytes.h"

struct estate;
struct legacy;

#define ESTATE_PLOTS 8

/* Bytes of address space for one shard; almost nothing of it is ever touched. heap_bytes is per plot. */
size_t estate_bytes(uint32_t max_clients, size_t heap_bytes);

/* Take a free plot of mem (whole pages, zeroed by whoever made it, mapped shared). Whatever plot is found in
 * use is a legacy from now on: its process is dead. NULL and *ret_err: -EBUSY: no plot is free: finish the
 * legacies (estate_inherit) first; -EPROTO: this memory has another shape; -ENOMEM.
 * mem NULL: an estate in private memory (one shard alone in a test): the same functions, nothing survives. */
struct estate *estate_open(void *mem, size_t bytes, uint32_t max_clients, size_t heap_bytes, int *ret_err);
/* The orderly end: everything must have been freed; the plot is free again, its memory given back. NULL is
 * fine. */
void estate_close(struct estate *e);
/* As if its process had been killed: the plot stays as it is, for the next that opens (simulation, tests). */
void estate_abandon(struct estate *e);

/* ---- heap: blocks in the plot. Aligned to 16. NULL: full or fragmented. Small ones take at most a quarter
 * more than asked (above 128 bytes; 15 bytes more below), from 7169 bytes on they are whole pages. */
void *estate_alloc(struct estate *e, size_t len);
void estate_free(struct estate *e, void *block);                      /* NULL is fine */
size_t estate_block_bytes(const struct estate *e, const void *block); /* what a block takes of the heap */
size_t estate_heap_used(const struct estate *e); /* the same for all blocks that are out */
/* Bytes of free pages that the kernel has not got back yet: at most ESTATE_IDLE_BYTES_MAX, which are there
 * for the next that asks; estate_trim gives them back too (by a timer after bursts, as buf_trim). */
#define ESTATE_IDLE_BYTES_MAX ((size_t)16 << 20)
size_t estate_heap_idle(const struct estate *e);
void estate_trim(struct estate *e);

/* ---- clients: from the moment that a worker has heard of one until its ON_CLOSE is where it is safe */
struct estate_client {
    uint32_t id;      /* connection_id; 0: not in use. Written last when it comes, first when it goes */
    uint32_t worker;  /* whom it is bound to, as the upstream says it; 0: nobody */
    uint32_t session; /* of u32 length + bytes: place in the plot, in units of 16 bytes; 0: empty */
    uint32_t ip;      /* IPv4, host order, as the wire has it; 0: IPv6 */
    uint16_t port, gateway_port; /* host order */
};

_Static_assert(sizeof(struct estate_client) == 20, "memory of an idle client");
#define ESTATE_SESSION_UNIT 16

/* What `session` of a record says for that block (of estate_alloc): for `like` below. */
uint32_t estate_session(const struct estate *e, const void *block);

/* A record for that client, with what `like` says of it (its id last). NULL: more than max_clients. */
struct estate_client *estate_client_add(struct estate *e, const struct estate_client *like);
/* The worker has been told, or is going to be by somebody who outlives us. */
void estate_client_remove(struct estate *e, struct estate_client *c);
/* It is bound to another worker. */
void estate_client_bind(struct estate *e, struct estate_client *c, uint32_t worker);
/* Its session is from now on in this block (u32 length in host order, then the bytes; of estate_alloc), NULL:
 * empty. The old block stays the caller's to free, after this. */
void estate_client_session(struct estate *e, struct estate_client *c, const void *block);

uint32_t estate_clients(const struct estate *e); /* records that are there */

/* ---- chunks: runs of whole packets on their way to one link (link_queue.h is the only user) */
struct estate_chunk {
    uint64_t seq;    /* place among all; 0: not in use. Written last when it comes, first when it goes */
    uint64_t offset; /* of the data in the plot */
    uint8_t *data;   /* the same for the process that runs; a successor does not look at it */
    uint32_t cap;
    uint32_t len; /* committed */
    uint32_t
        written; /* of them; may be more than len for a moment of estate_chunk_reset: then nothing is left */
    uint32_t free_next;
};

/* Room for `cap` bytes that belong behind everything that was made before. NULL: no room. */
struct estate_chunk *estate_chunk_new(struct estate *e, size_t cap);
/* It holds nothing any more, and what comes in belongs behind everything that was made before. */
void estate_chunk_reset(struct estate *e, struct estate_chunk *c);
void estate_chunk_free(struct estate *e, struct estate_chunk *c);
static inline uint8_t *estate_chunk_data(const struct estate_chunk *c)
{
    return c->data;
}
static inline size_t estate_chunk_len(const struct estate_chunk *c) /* committed */
{
    return c->len;
}
static inline size_t estate_chunk_cap(const struct estate_chunk *c)
{
    return c->cap;
}
/* len more bytes (whole packets) behind the committed ones are filled in and count from now on. */
static inline void estate_chunk_commit(struct estate_chunk *c, size_t len)
{
    ASSERT(len <= c->cap - c->len);
    /* Release: the packets are there before the length that covers them. */
    __atomic_store_n(&c->len, c->len + (uint32_t)len, __ATOMIC_RELEASE);
}
/* Everything up to `at` is with the kernel (or was handed on): a successor begins at the first packet that
 * ends behind it. */
static inline void estate_chunk_written(struct estate_chunk *c, size_t at)
{
    ASSERT(at <= c->len);
    /* Release: where they were handed on to, they are before they are marked off here. */
    __atomic_store_n(&c->written, (uint32_t)at, __ATOMIC_RELEASE);
}
uint32_t estate_chunks(const struct estate *e); /* chunks that are there */

/* ---- the successor's side */

/* The oldest legacy, NULL: there is none. It stays one until legacy_free. Call estate_open before (it need
 * not succeed). Of several legacies, what came first to a worker is in the older one. Memory is the heap's of
 * this process; without it this asserts (start-up may). */
struct legacy *estate_inherit(void *mem, size_t bytes);
/* The same, younger than `after`, which stays as it is. */
struct legacy *estate_inherit_next(void *mem, size_t bytes, const struct legacy *after);
/* The next packet that was not written whole, in the order in which they were queued (per link); false: none
 * left. The slice stays until legacy_free. Framing: the first 4 bytes, big endian, are the packet's length
 * (at least 4: the caller checks for its own head). */
bool legacy_packet(struct legacy *l, struct slice *ret);
/* The packet that legacy_packet gave last is safe elsewhere: a successor of ours will not see it, nor those
 * given before it from the same chunk. */
void legacy_packet_done(struct legacy *l);
/* The next client, false: none left. ret is a copy; *ret_session stays until legacy_free. */
bool legacy_client(struct legacy *l, struct estate_client *ret, struct slice *ret_session);
/* The client that legacy_client gave last is told of: a successor of ours will not see it. */
void legacy_client_done(struct legacy *l);
/* From the first client again: those that are not done. */
void legacy_rewind(struct legacy *l);
/* Clients not done yet. */
uint32_t legacy_clients_left(const struct legacy *l);
/* Records that made no sense so far and were passed over (a wild process; for the log). */
uint32_t legacy_damaged(const struct legacy *l);
/* The plot is free again, its memory given back. What was not done is forgotten. */
void legacy_free(struct legacy *l);
/* Forget the handle; what is not done stays for the next that inherits. */
void legacy_keep(struct legacy *l);
