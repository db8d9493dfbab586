// SPDX-License-Identifier: MIT
/* Rings: records of any size from one producer to one consumer through shared memory, without locks. The
 * bytes are drawn in ring_shm.h, waking in ring_bell.h, messages larger than a record in ring_message.h, the
 * memory comes from ring_map.h or from anywhere else.
 *
 * Called by the two processes of a ring, each through a struct in its own memory that holds its own position;
 * what the peer writes is looked at once, checked, and never trusted: positions and lengths that cannot be
 * give -EPROTO for good (that side of the ring then does nothing more), never an access outside of the area.
 * Payloads stay where the peer can write: take what is to be checked out of them first.
 *
 * Nothing here blocks, allocates, calls back or makes a system call. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/ring_bell.h"
#include "ring/ring_shm.h"

/* Bulk may fill a ring up to its reserve; the rest is for what must get through. */
enum ring_class { RING_BULK, RING_LIFECYCLE };
#define RING_CLASS_N 2

/* ---- making one */

/* Bytes of memory for a ring with so much data. */
static inline size_t ring_bytes(uint64_t size)
{
    return sizeof(struct ring_shm) + (size_t)size;
}

struct ring_params {
    uint64_t size;    /* bytes of data: a power of two, RING_SIZE_MIN to RING_SIZE_MAX */
    uint64_t reserve; /* bytes for lifecycle records only: a multiple of 8, at most half of size */
    uint64_t start;   /* first position, a multiple of 8: 0; tests start near a wrap */
};

/* Make an empty ring in memory (aligned to 64) that nobody uses. 0; -EINVAL: params, alignment, too few
 * bytes. Touches only the first 512 bytes. Memory that is all zero is "not yet made": attaching gives
 * -EAGAIN. So many rings can lie in one sparse mapping, and each costs nothing until its producer makes it,
 * at its first record. */
int ring_format(void *mem, size_t bytes, const struct ring_params *params);

/* The longest payload of one record in such a ring: about (size - reserve) / 2, so that with its padding it
 * fits into an empty ring at any position. */
static inline uint32_t ring_params_record_max(const struct ring_params *p)
{
    uint64_t half = (p->size - p->reserve) / 2 & ~(RECORD_ALIGN - 1);
    return (uint32_t)(half - sizeof(struct record_shm));
}

/* ---- producer */

struct ring_writer {
    struct ring_shm *shm;
    uint8_t *data;
    struct bell_shm *bell;
    uint64_t size;
    uint64_t limit[RING_CLASS_N]; /* bytes that may be in use, by class */
    uint64_t next;                /* behind the last reservation */
    uint64_t tail;                /* behind what the consumer can see */
    uint64_t head;                /* the consumer's, when last looked at */
    uint32_t record_max;
    uint8_t bell_bit;
    bool shown;                    /* something is visible for which the bell was not rung */
    bool broken;                   /* the consumer's position could not be */
    bool fragmented[RING_CLASS_N]; /* a message is under way (ring_message.h) */
};

/* bell: the consumer's, with the bit of this ring; NULL: the ring's own. The caller knows that nobody else
 * produces. Goes on behind what is published. 0; -EAGAIN: not yet made; -EPROTO: no ring of this version, or
 * not valid (see ring_repair). */
int ring_writer_attach(struct ring_writer *w, void *mem, size_t bytes, struct bell_shm *bell,
                       unsigned bell_bit);

/* As ring_params_record_max. */
static inline uint32_t ring_record_max(const struct ring_writer *w)
{
    return w->record_max;
}

/* Room for one record; the payload is to be written to *ret (aligned to 8) before it is published. Any number
 * may be reserved and published at once. 0; -EAGAIN: full (counted in shm->full): keep it and see
 * ring_want_room; -EMSGSIZE: longer than ring_record_max; -EBUSY: a message of this class is under way in
 * fragments; -EPROTO.
 *
 * RING_LIFECYCLE is never refused because of bulk: `reserve` bytes are there for it. A record takes 8 + its
 * length rounded up to 8, at the end of the area up to twice that. */
int ring_reserve(struct ring_writer *w, enum ring_class class, uint32_t type, uint32_t len, uint8_t **ret);

/* Let the consumer see everything reserved so far. True: it sleeps, and the caller has to ring_wake it. */
bool ring_publish(struct ring_writer *w);

/* The same for a consumer that runs, without the cost of finding out whether it does; ring_publish must
 * follow before the producer turns to something else, or a consumer that sleeps is not woken. */
void ring_show(struct ring_writer *w);

/* Bytes that the consumer has not released, with what is reserved; for people to see. */
uint64_t ring_in_use(const struct ring_writer *w);

/* Forget what is reserved and not visible. */
void ring_cancel(struct ring_writer *w);

/* After -EAGAIN, with everything published: ask to be told when there is room. True: the consumer's
 * ring_release will say so. False: there is room by now, try again (or the ring is broken: so will
 * ring_reserve say). */
bool ring_want_room(struct ring_writer *w, enum ring_class class, uint32_t len);

/* With everything published: ask to be told when all of it is released. True: ring_release will say so (it
 * may once before, when the consumer has not seen all yet: ask again). False: all is released (or the ring is
 * broken). */
bool ring_want_empty(struct ring_writer *w);

/* ---- consumer */

struct ring_reader {
    struct ring_shm *shm;
    const uint8_t *data;
    struct bell_shm *bell; /* the ring's own; NULL: it shares one with other rings */
    uint64_t size;
    uint64_t head; /* released */
    uint64_t next; /* read */
    uint64_t tail; /* the producer's, when last looked at */
    bool broken;
};

struct ring_record {
    const uint8_t *data; /* in the ring: until ring_release; aligned to 8 */
    uint32_t len;
    uint32_t type;
    enum ring_class class;
    bool more, continues; /* fragments: ring_message.h */
};

/* As ring_writer_attach; goes on at the first record that was not released (which may have been read by a
 * predecessor). own_bell: sleep by ring_prepare_sleep; else by the bell that all rings of this consumer
 * share. */
int ring_reader_attach(struct ring_reader *r, void *mem, size_t bytes, bool own_bell);

/* The next record. 1; 0: there is none; -EPROTO: what the producer wrote cannot be, *ret is untouched. */
int ring_read(struct ring_reader *r, struct ring_record *ret);

/* Everything read so far may be written over. True: the producer waits for this, and the caller has to tell
 * it (by the bell and eventfd of that process, say). */
bool ring_release(struct ring_reader *r);

/* With the ring's own bell: as bell_prepare_sleep and bell_cancel_sleep. False: there is something to read
 * (or to find broken). */
bool ring_prepare_sleep(struct ring_reader *r);
void ring_cancel_sleep(struct ring_reader *r);

/* ---- when a side has died (supervisor, or the successor) */

struct ring_report {
    const char *fault; /* what is wrong, NULL: nothing */
    uint64_t size, head, tail;
    uint64_t records[RING_CLASS_N]; /* published and not released, without padding */
    uint64_t messages;              /* records that are whole messages, or the last fragment of one */
    uint64_t payload_bytes;
    uint64_t cut_bytes; /* by ring_repair: published, but not to be made sense of */
};

/* Checks everything that is shared, up to walking the records, and trusts none of it. At most one side may
 * run meanwhile. 0; -EAGAIN: not yet made; -EPROTO: report->fault says why. *ret is filled in every case. */
int ring_valid(const void *mem, size_t bytes, struct ring_report *ret);

#define RING_DEAD_PRODUCER 1u
#define RING_DEAD_CONSUMER 2u

/* In the place of the side (or both) that is gone, while the other may run: afterwards a successor can
 * attach. What was published and not released stays; what was reserved is gone; records that make no sense
 * are cut, with all behind them (producer), or everything is skipped (consumer): cut_bytes. A message of
 * which not all fragments were published is dropped by the reader when the next one comes.
 *
 * Dead producer: the bell is rung (bell and bell_bit as in ring_writer_attach), but it may have died between
 * taking the sleeper's flag and waking: always ring_wake the consumer afterwards. Dead consumer: a producer
 * that had asked for room is to be told in any case. With a bell of several rings, bell_repair it too. A
 * living consumer that had come to -EPROTO attaches again. 0; -EAGAIN: not yet made (nothing to do); -EPROTO:
 * not a ring: make it anew when both are gone. */
int ring_repair(void *mem, size_t bytes, unsigned dead, struct bell_shm *bell, unsigned bell_bit,
                struct ring_report *ret);
