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
 * gave it up) ends where the next one of its class begins; its fragments are dropped and counted. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "ring/ring.h"

/* ---- producer */

/* All but `sent` is the caller's; data stays valid and the struct in place until it is sent or given up. */
struct ring_sending {
    const uint8_t *data;
    size_t len;
    uint32_t type;
    enum ring_class class;
    size_t sent; /* starts as 0 */
};

/* Reserve what there is room for; publishing is the caller's, also after -EAGAIN. 0: all of it; -EAGAIN: call
 * again when there is room (ring_want_room with ring_send_room); -EBUSY: another message of this class is
 * under way; -EPROTO. What was reserved must be published before the next call, not cancelled. */
int ring_send(struct ring_writer *w, struct ring_sending *s);

/* The payload for which ring_send needs room to get on. */
uint32_t ring_send_room(const struct ring_writer *w, const struct ring_sending *s);

/* The message will not be finished. */
void ring_send_give_up(struct ring_writer *w, struct ring_sending *s);

/* ---- consumer */

struct ring_message_part {
    uint8_t *data; /* on the heap, message_bytes of it */
    uint64_t message_bytes, len;
    uint32_t type;
    bool open, done;
};

struct ring_receiver {
    struct ring_reader *reader;
    size_t message_max;
    struct ring_message_part part[RING_CLASS_N];
    uint64_t cut;     /* messages that were dropped because they were never finished */
    uint64_t orphans; /* fragments whose beginning was read by a predecessor: dropped */
};

/* message_max: bytes (up to UINT32_MAX); memory for one such message of each class may be in use. */
void ring_receiver_init(struct ring_receiver *rv, struct ring_reader *reader, size_t message_max);
void ring_receiver_fini(struct ring_receiver *rv);

/* As ring_read, with whole messages. ret->data of a message that came in fragments is the receiver's, until
 * the next call. ring_release is the caller's, also after 0. -EPROTO: also for a message above message_max or
 * fragments that contradict each other. -ENOMEM: nothing was read; try again later. */
int ring_receive(struct ring_receiver *rv, struct ring_record *ret);
