// SPDX-License-Identifier: MIT
/* For tests whose shards are threads or processes: a loop that waits on an eventfd, as the real one does. */
#pragma once

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/list.h"
#include "loop/loop.h"
#include "mesh/mesh_util_test.h"
#include "ring/ring_bell.h"

#define LOST_MS 20000

struct eventfd_poller {
    struct loop *loop;
    int fd;
    uint64_t sleeps, lost; /* lost: waits that nobody ended */
};

static inline uint64_t now_ns(void)
{
    return loop_clock_monotonic.now_ns(NULL);
}

static inline int eventfd_poll(void *ctx, uint64_t timeout_ns)
{
    struct eventfd_poller *p = ctx;
    struct pollfd fd = {.fd = p->fd, .events = POLLIN};
    if (timeout_ns > 0) {
        int timeout_ms = timeout_ns < LOST_MS * MS ? (int)(timeout_ns / MS) + 1 : LOST_MS;
        p->sleeps++;
        p->lost += poll(&fd, 1, timeout_ms) == 0 && timeout_ms == LOST_MS;
        (void)ring_wake_clear(p->fd);
    }
    loop_poll_returned(p->loop);
    return 0;
}

static inline void eventfd_poller_open(struct eventfd_poller *p, int fd)
{
    *p = (struct eventfd_poller){.loop = loop_new(&loop_clock_monotonic, 10 * MS), .fd = fd};
    loop_set_poller(p->loop, &(struct loop_poller){.poll = eventfd_poll, .ctx = p});
}
