// SPDX-License-Identifier: MIT
#include "main/ctl_wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

static volatile sig_atomic_t stopped;
static sigset_t while_waiting; /* the mask of ppoll, once they are caught */
static bool caught;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

void ctl_stop_catch(void)
{
    struct sigaction action = {.sa_handler = stop};
    sigset_t ours;

    /* Blocked but during ppoll, so that none falls between the look at `stopped` and the wait. */
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigprocmask(SIG_BLOCK, &ours, &while_waiting);
    sigdelset(&while_waiting, SIGINT);
    sigdelset(&while_waiting, SIGTERM);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    caught = true;
}

bool ctl_stopped(void)
{
    return stopped != 0;
}

int64_t ctl_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int ctl_wait(int fd, short events, int64_t until_ms)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int64_t left_ms = until_ms == CTL_FOREVER ? 0 : until_ms - ctl_now_ms();
        left_ms = left_ms < 0 ? 0 : left_ms;
        struct timespec left = {.tv_sec = left_ms / 1000, .tv_nsec = left_ms % 1000 * 1000000};
        int r =
            ppoll(&p, fd < 0 ? 0 : 1, until_ms == CTL_FOREVER ? NULL : &left, caught ? &while_waiting : NULL);
        if (stopped)
            return -EINTR;
        if (r >= 0)
            return r;
        if (errno != EINTR)
            return -errno;
    }
}
