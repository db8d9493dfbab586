// SPDX-License-Identifier: MIT
/* Places at which a test ends the process (ring_fault_test.c), or lets the other side take a turn
 * (ring_turns_test.c). Nothing in any other build. */
#pragma once

#define RING_FAULTS(X)                                                                                       \
    X(reserve_padding) /* padding is written, the record is not */                                           \
    X(reserve_head)    /* the record's head is written */                                                    \
    X(publish_begin)   /* all reserved, nothing published */                                                 \
    X(publish_tail)    /* published, nobody told */                                                          \
    X(bell_look)       /* the bit was found clear */                                                         \
    X(bell_rung)       /* the bit is set, whether the consumer sleeps not looked at */                       \
    X(bell_sleeper)    /* the sleeper's flag is taken, the eventfd not written: only repair can wake it */   \
    X(room_begin)      /* about to ask for room */                                                           \
    X(room_wanted)     /* the producer has asked for room */                                                 \
    X(read_record)     /* a record was read, not released */                                                 \
    X(taken)           /* a message in fragments was said to be taken, not released */                       \
    X(release_begin)   /* about to release */                                                                \
    X(release_head)    /* released, nobody told */                                                           \
    X(release_room)    /* the flag of a producer that waits for room is taken, nobody told */                \
    X(sleep_begin)     /* the consumer has found nothing, and not said that it will sleep */                 \
    X(sleep_announced) /* the consumer has said that it will sleep, and has not looked again */              \
    X(bell_taken)      /* the consumer has taken the bits, and not looked into the rings */

#define RING_FAULT_NAME(name) RING_FAULT_##name,
enum ring_fault { RING_FAULTS(RING_FAULT_NAME) RING_FAULT_N };

#ifdef TGG_RING_FAULTS
void ring__fault(enum ring_fault at); /* the test's */
#define RING_FAULT(name) ring__fault(RING_FAULT_##name)
#else
#define RING_FAULT(name) ((void)0)
#endif
