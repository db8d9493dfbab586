// SPDX-License-Identifier: MIT
/* The bytes of a ring: what two processes share. Code is in ring.h; nothing else may know this layout.
 *
 * One producer, one consumer, one direction. Positions are bytes since the ring was made, 64 bits, and wrap
 * as unsigned numbers do; a position's place in the data is its low bits, because the size is a power of two.
 *
 *   offset  bytes
 *        0    128  identity: magic, version, sizes. Written by ring_format, read by both, never again written
 *      128     64  tail: how far the producer has published       \ producer writes, consumer reads
 *      192     64  what the producer writes only when it is full  /
 *      256    128  head: how far the consumer has released          consumer writes, producer reads
 *      384    128  bell: does the consumer sleep, has it been rung  both write (ring_bell.h)
 *      512   size  records
 *
 * Each side's words are 128 bytes from the other's, because processors fetch lines in pairs of 64.
 *
 *                   head                                    tail            (producer's own: next)
 *     data  | free  | record | record | record | record    | reserved, unseen  |   free ...   |
 *                   +--- published: the consumer may read -+                                    size
 *
 *   A record starts at a multiple of 8 and never wraps: what does not fit before the end of the area is
 * preceded by a padding record that takes the rest of it.
 *
 *     record  | u32 flags and length | u32 type | length bytes | up to 7 bytes to the next multiple of 8 |
 *
 * Why padding and not the same pages mapped twice in a row: that needs whole pages, two mappings for each
 * ring in each process (a node of 64 shards has 4032 rings), addresses that alias (which the thread sanitizer
 * cannot see), and cannot be done in memory that somebody else gives. Padding wastes at most one record each
 * time round.
 *
 * A reservation is not here at all: the producer's position behind what it has published is in its own
 * memory. So a producer that dies leaves either the old tail or the new one, and nothing that is half done.
 */
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define RING_SHM_MAGIC   UINT64_C(0x3130474e49524754) /* "TGRING01" in memory */
#define RING_SHM_VERSION 1

#define RING_SIZE_MIN UINT64_C(512)
#define RING_SIZE_MAX (UINT64_C(1) << 28)

/* Whether the consumer sleeps, and which of its rings have been written to since it last asked. */
struct bell_shm {
    _Atomic uint64_t rung;   /* a bit for each ring; set by its producer, taken by the consumer */
    _Atomic uint32_t asleep; /* 1: set by the consumer, taken by the producer that will wake it */
    uint32_t reserved[29];
};
static_assert(offsetof(struct bell_shm, asleep) == 8, "bell layout");
static_assert(sizeof(struct bell_shm) == 128, "bell layout");

/* Values of room_wanted. */
#define ROOM_NOT  0 /* nobody waits */
#define ROOM_SOME 1 /* tell at half, or when all is released that the consumer knows of */
#define ROOM_ALL  2 /* tell when all is released that the consumer knows of */

struct ring_shm {
    /* Identity. */
    uint64_t magic;
    uint32_t version;
    uint32_t data_offset; /* sizeof(struct ring_shm) */
    uint64_t size;        /* bytes of data: a power of two */
    uint64_t reserve;     /* bytes that bulk records may not use: a multiple of 8 */
    uint64_t reserved_identity[12];
    /* The producer's. */
    _Atomic uint64_t tail;
    uint64_t reserved_tail[7];
    _Atomic uint64_t full[2];     /* refusals for want of room, by enum ring_class; grows only */
    _Atomic uint32_t room_wanted; /* ROOM_*: set by the producer, taken by the consumer that will tell it */
    uint32_t reserved_full[11];
    /* The consumer's. */
    _Atomic uint64_t head;
    _Atomic uint64_t taken[2]; /* end of the last message in fragments that was taken whole, by ring_class */
    uint64_t reserved_head[13];
    /* The bell of a consumer that has only this ring. */
    struct bell_shm bell;
};
static_assert(offsetof(struct ring_shm, tail) == 128, "layout");
static_assert(offsetof(struct ring_shm, full) == 192, "layout");
static_assert(offsetof(struct ring_shm, room_wanted) == 208, "layout");
static_assert(offsetof(struct ring_shm, head) == 256, "layout");
static_assert(offsetof(struct ring_shm, taken) == 264, "layout");
static_assert(offsetof(struct ring_shm, bell) == 384, "layout");
static_assert(sizeof(struct ring_shm) == 512, "layout");
static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "lock-free between processes");

struct record_shm {
    _Atomic uint32_t flags_len; /* RECORD_*, and the length of the payload in the low bits */
    _Atomic uint32_t type;      /* the user's; 0 in padding */
};
static_assert(sizeof(struct record_shm) == 8, "record layout");

#define RECORD_ALIGN     UINT64_C(8)
#define RECORD_PADDING   (UINT32_C(1) << 31) /* nothing; reaches to the end of the area */
#define RECORD_MORE      (UINT32_C(1) << 30) /* a fragment, and not the last one of its message */
#define RECORD_CONTINUES (UINT32_C(1) << 29) /* a fragment, and not the first one of its message */
#define RECORD_LIFECYCLE (UINT32_C(1) << 28) /* class RING_LIFECYCLE */
#define RECORD_LEN_MASK  (RECORD_LIFECYCLE - 1)
static_assert(RING_SIZE_MAX - 1 <= RECORD_LEN_MASK, "every length fits");

/* The first fragment of a message begins with this; the message's bytes follow. */
struct fragment_shm {
    uint64_t message_bytes;
};
static_assert(sizeof(struct fragment_shm) == 8, "fragment layout");
