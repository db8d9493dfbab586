// SPDX-License-Identifier: MIT
/* Waking a consumer that sleeps, and only then.
 *
 * A bell is one per consumer, whatever number of rings (up to 64, a bit each) it reads. It says which rings
 * have been written to, so that the consumer looks only at those, and whether it sleeps, so that only then
 * somebody has to make a system call.
 *
 *     producer                                  consumer
 *     1 tail = new                              a take the bits of rung (to 0)
 *     2 look at its bit in rung: set? done      b read those rings
 *     3 set the bit                             c asleep = 1
 *     4 look at asleep: 0? done                 d look at rung: a bit? asleep = 0, go to a
 *     5 take asleep (to 0): had it? wake        e sleep in epoll; asleep = 0
 *
 * Each side writes one word and then reads the one that the other side writes (Dekker): 1 then 2 against a
 * then b, and 3 then 4 against c then d. All eight are seq_cst, so there is one order of them all, and in any
 * order at least one of the two sees the other. If 2 finds the bit set, a comes later, and b sees the new
 * tail. If 4 finds asleep 0, c comes later, and d sees the bit. So no wake-up is lost; and as asleep is 1
 * only between c and e, none is sent to a consumer that runs (but for one that comes
 * between c and d, and makes the next sleep a short one). Of several producers one gets asleep in 5, so
 * there is one write.
 *
 * No atomic_thread_fence, which would be the same code on x86: the thread sanitizer does not understand it.
 *
 * The words are shared with peers that are not trusted: bits may be wrong (a ring with its bit set may be
 * empty), and a peer that writes over asleep can let the consumer sleep for as long as its own timeout says.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ring/ring_fault.h"
#include "ring/ring_shm.h"

/* In zeroed memory a bell needs no beginning. */

/* ---- the producer's side */

/* There is something in ring `bit` (0 to 63), published before. True: the consumer sleeps; the caller has to
 * wake it (ring_wake), nobody else will. */
static inline bool bell_ring(struct bell_shm *b, unsigned bit)
{
    uint64_t mask = UINT64_C(1) << bit;
    /* seq_cst: 2 above; partner is a, in bell_take. */
    if ((atomic_load_explicit(&b->rung, memory_order_seq_cst) & mask) != 0)
        return false;
    RING_FAULT(bell_look);
    /* seq_cst: 3; partner is d, in bell_prepare_sleep. */
    atomic_fetch_or_explicit(&b->rung, mask, memory_order_seq_cst);
    RING_FAULT(bell_rung);
    /* seq_cst: 4; partner is c, in bell_prepare_sleep. */
    if (atomic_load_explicit(&b->asleep, memory_order_seq_cst) == 0)
        return false;
    /* seq_cst: 5; partner is the same exchange of other producers. */
    bool woke = atomic_exchange_explicit(&b->asleep, 0, memory_order_seq_cst) != 0;
    RING_FAULT(bell_sleeper);
    return woke;
}

/* ---- the consumer's side */

/* The bits since the last call; the caller must look into each of these rings, until it is empty or as often
 * as it remembers the bit itself. */
static inline uint64_t bell_take(struct bell_shm *b)
{
    /* Relaxed: only to save the exchange; what is missed now is seen by the next call, or by d. */
    if (atomic_load_explicit(&b->rung, memory_order_relaxed) == 0)
        return 0;
    /* seq_cst: a above; partner is 2, in bell_ring. */
    uint64_t bits = atomic_exchange_explicit(&b->rung, 0, memory_order_seq_cst);
    RING_FAULT(bell_taken);
    return bits;
}

/* Before sleeping, with every ring empty whose bit has been taken. False: a bit is set, do not sleep. True:
 * any bell_ring from now on wakes; call bell_cancel_sleep when awake. */
static inline bool bell_prepare_sleep(struct bell_shm *b)
{
    /* Relaxed: only so that a consumer with something to do does not announce its sleep first. */
    if (atomic_load_explicit(&b->rung, memory_order_relaxed) != 0)
        return false;
    RING_FAULT(sleep_begin);
    /* seq_cst: c above; partner is 4, in bell_ring. */
    atomic_store_explicit(&b->asleep, 1, memory_order_seq_cst);
    RING_FAULT(sleep_announced);
    /* seq_cst: d; partner is 3, in bell_ring. */
    if (atomic_load_explicit(&b->rung, memory_order_seq_cst) == 0)
        return true;
    /* Relaxed: a producer that still sees 1 wakes once too often. */
    atomic_store_explicit(&b->asleep, 0, memory_order_relaxed);
    return false;
}

/* Awake, for whatever reason (also when it did not sleep after all). */
static inline void bell_cancel_sleep(struct bell_shm *b)
{
    /* Relaxed: as above. */
    atomic_store_explicit(&b->asleep, 0, memory_order_relaxed);
}

/* For a successor of a consumer that died, by itself or by the supervisor: awake, and all of these rings are
 * to be looked at. */
void bell_repair(struct bell_shm *b, uint64_t rings);

/* ---- the eventfd (EFD_NONBLOCK) that a sleeping consumer waits for */

/* 0 or -errno of the write. Wakes also one that waits edge-triggered and never reads
 * (net_epoll_watch_add_edge): every write that succeeds is an edge. */
int ring_wake(int event_fd);
/* Take what was written; false: nothing was. */
bool ring_wake_clear(int event_fd);
