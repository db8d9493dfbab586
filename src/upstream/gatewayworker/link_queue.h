// SPDX-License-Identifier: MIT
/* Bytes that wait to be written to a link, in chunks. A chunk begins at the beginning of a packet and holds
 * whole packets only, so that after the link's death those that were not written whole can be handed to
 * another worker. Chunks of events are in the estate: they outlive the process. Replies are not: whoever
 * asked lost its link with the process.
 *
 *   chunks (ring):  [events: packet packet packet] [reply] [events: packet ... | reserved ]
 *                        ^ written: bytes of the first chunk that are with the kernel
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bytes.h"

struct buf;
struct estate;
struct estate_chunk;

enum link_chunk_kind { LINK_CHUNK_EVENTS, LINK_CHUNK_REPLY };

struct link_chunk { /* one of the two */
    struct estate_chunk *events;
    struct buf *reply;
};

struct link_queue {
    struct estate *estate;
    struct link_chunk *ring;
    uint32_t first, count, cap; /* cap: a power of two, or 0 */
    uint32_t written;
    uint32_t expected;          /* chunks marked off by link_queue_expect */
    uint32_t taken;             /* a packet of the first chunk begins here, none before it is left to take */
    struct estate_chunk *tail;  /* the last chunk, if it is one of events */
    struct estate_chunk *spare; /* a small one that is empty, kept for the next packet */
    size_t reserved;            /* by link_queue_reserve, not committed */
    uint64_t bytes;             /* committed, not yet written */
};

/* A zeroed one is empty too, but must get its estate before the first event. */
void link_queue_init(struct link_queue *q, struct estate *estate);
void link_queue_fini(struct link_queue *q);

/* Room for len contiguous bytes at the end, to be filled by the caller at once; NULL without memory. They
 * count from link_queue_commit on, which comes before anything else is done with the queue, or never. */
uint8_t *link_queue_reserve(struct link_queue *q, enum link_chunk_kind kind, size_t len);
void link_queue_commit(struct link_queue *q);
/* One packet of events, copied. False without memory. */
bool link_queue_append(struct link_queue *q, struct slice packet);

/* Bytes that are in it and not written, and not taken off its front: as `bytes`, counted anew. Looks at every
 * chunk. */
uint64_t link_queue_sum(const struct link_queue *q);
/* Memory of its chunks. */
uint64_t link_queue_memory(const struct link_queue *q);
/* NULL, or what is wrong with it; of one that is only written to and read off by writing. */
const char *link_queue_check(const struct link_queue *q);

/* What comes next to be written: number of iov filled (at most max). */
int link_queue_iov(const struct link_queue *q, struct iovec *iov, int max);
/* All that link_queue_iov gave is about to be written. A process that is killed dies when the kernel has
 * taken it, not while it does; so it is marked off now, and link_queue_written, which must follow, takes back
 * what the kernel did not take. */
void link_queue_expect(struct link_queue *q);
/* len bytes were written (0 after an error). */
void link_queue_written(struct link_queue *q, size_t len);

/* To be handed over: what of the chunk at that place is not written, from the beginning of the packet (or
 * reply) on of which a part is; written: bytes of it that are. False: there is none there; an empty one is
 * possible. */
struct link_queue_part {
    enum link_chunk_kind kind;
    struct slice bytes;
    size_t written;
};
bool link_queue_part(const struct link_queue *q, uint32_t at, struct link_queue_part *ret);
/* The other way round: behind what there is, which is nothing unless written is 0. Whole packets, or a
 * reply; more than is written. False without memory. */
bool link_queue_restore(struct link_queue *q, const struct link_queue_part *part);
/* The packets that link_queue_take_packet would take, one by one, and all stay. From a zeroed cursor on. */
struct link_queue_cursor {
    uint32_t chunk;
    size_t at;
};
bool link_queue_next(const struct link_queue *q, struct link_queue_cursor *c, struct slice *ret);

/* Takes one packet that was not written whole off the front; the slice lives until the next call. False: none
 * left. Replies are skipped. Only for a link that is not written to any more.
 * The next call (or link_queue_fini) says that the packet is safe elsewhere: in another queue, committed.
 * Until then a successor of a process that was killed finds it here. */
bool link_queue_take_packet(struct link_queue *q, struct slice *ret);
