// SPDX-License-Identifier: MIT
#include "ring/ring_bell.h"

#include <errno.h>
#include <unistd.h>

void bell_repair(struct bell_shm *b, uint64_t rings)
{
    /* seq_cst, both: they stand for c and 3 of a consumer that is gone (ring_bell.h). */
    atomic_store_explicit(&b->asleep, 0, memory_order_seq_cst);
    atomic_fetch_or_explicit(&b->rung, rings, memory_order_seq_cst);
}

int ring_wake(int event_fd)
{
    uint64_t one = 1;
    for (;;) {
        if (write(event_fd, &one, sizeof one) == (ssize_t)sizeof one)
            return 0;
        /* Full, after 2^64 - 2 wake-ups that nobody read. That write was no edge, so the consumer may not
         * have heard of it: empty the counter in its place, and try again. */
        if (errno == EAGAIN)
            (void)ring_wake_clear(event_fd);
        else if (errno != EINTR)
            return -errno;
    }
}

bool ring_wake_clear(int event_fd)
{
    uint64_t count;
    return read(event_fd, &count, sizeof count) == (ssize_t)sizeof count;
}
