// SPDX-License-Identifier: MIT
/* Messages that may be larger than a record, or than the whole ring: in fragments, as there is room.
 *
 *   first      MORE             u64 bytes of the message, then its first bytes
 *   middle     MORE CONTINUES   further bytes
 *   last            CONTINUES   the rest
 *   whole                       as any record: no message, no copy
 *
 * All fragments have the type and class of the message. Within a class nothing comes between the fragments of
 * a message (ring_reserve and ring_send say -EBUSY); the other class may, so a lifecycle record does not wait
 * for a long message to be through, and overtakes it. A message that was not finished (its producer died or
 * gave it up) ends where the next one of its class begins; its fragments are dropped and counted.
 *
 * What is released of fragments lives in the memory of the consumer alone, and dies with it: its successor
 * finds the rest only, and drops it. So that everything is released does not mean that somebody has got the
 * message. The consumer says so in a word of its own:
 *
 *     consumer                                         producer (ring_send_state)
 *     1 taken = end of the message (ring_taken)        a head: not at the end yet? wait (ring_want_empty)
 *     2 head = the same (ring_release)                 b taken: is it the end? taken whole; else lost
 *
 * 1 stands before 2 and a before b, whoever of several consumers in a row did them, so no message counts as
 * lost that was taken whole. One that dies before 1 has not taken it; between 1 and 2 it has, unless all
 * fragments are still there, which its successor then reads again, as with any record that was not released.
 * Nobody needs to know of a death for this, or in which order things were heard of. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ring/ring.h"

/* ---- producer */

/* All but the last three are the caller's; data stays valid and the struct in place until it is sent or given
 * up. */
struct ring_sending {
    const uint8_t *data;
    size_t len;
    uint32_t type;
    enum ring_class class;
    size_t sent;         /* starts as 0 */
    uint64_t begin, end; /* in fragments: where the first one lies, and the end of the last one, once sent */
};

/* Reserve what there is room for; publishing is the caller's, also after -EAGAIN. 0: all of it; -EAGAIN: call
 * again when there is room (ring_want_room with ring_send_room); -EBUSY: another message of this class is
 * under way; -EPROTO. What was reserved must be published before the next call, not cancelled. */
int ring_send(struct ring_writer *w, struct ring_sending *s);

/* The payload for which ring_send needs room to get on. */
uint32_t ring_send_room(const struct ring_writer *w, const struct ring_sending *s);

/* The message will not be finished. */
void ring_send_give_up(struct ring_writer *w, struct ring_sending *s);

/* Is it larger than a record, and so sent in fragments? */
static inline bool ring_send_is_large(const struct ring_writer *w, const struct ring_sending *s)
{
    return s->len > w->record_max;
}

/* A large message of which some is sent: is its beginning, and so all of it, still in the ring? False: the
 * consumer has released some of it (or the ring is broken). */
bool ring_send_is_untouched(struct ring_writer *w, const struct ring_sending *s);

/* A large message that is sent, all of it, with no other large one of its class behind it: 0: taken whole;
 * -EAGAIN: not all released yet (ring_want_empty tells, when nothing was sent behind it); -ESTALE: all is
 * released, but a consumer died in the midst, and nobody has it: send it again; -EPROTO. */
int ring_send_state(struct ring_writer *w, const struct ring_sending *s);

/* ---- consumer */

struct ring_message_part {
    uint8_t *data; /* on the heap, message_bytes of it */
    uint64_t message_bytes, len;
    uint32_t type;
    bool open, done;
    bool headless; /* fragments come of which the beginning did not */
};

struct ring_receiver {
    struct ring_reader *reader;
    size_t message_max;
    struct ring_message_part part[RING_CLASS_N];
    uint64_t cut;      /* messages that were dropped because they were never finished */
    uint64_t orphans;  /* fragments whose beginning was read by a predecessor: dropped */
    uint64_t headless; /* the messages that these were of */
};

/* message_max: bytes (up to UINT32_MAX); memory for one such message of each class may be in use. */
void ring_receiver_init(struct ring_receiver *rv, struct ring_reader *reader, size_t message_max);
void ring_receiver_fini(struct ring_receiver *rv);

/* As ring_read, with whole messages. ret->data of a message that came in fragments (ret->continues) is the
 * receiver's, until the next call. ring_release is the caller's, also after 0. -EPROTO: also for a message
 * above message_max or fragments that contradict each other. -ENOMEM: nothing was read; try again later. */
int ring_receive(struct ring_receiver *rv, struct ring_record *ret);

/* The message that ring_receive has given last, with `continues`, is dealt with: to be said before it is
 * released, or its producer takes it for lost. */
void ring_taken(struct ring_receiver *rv, const struct ring_record *got);
