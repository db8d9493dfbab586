// SPDX-License-Identifier: MIT
/* What register and announcer have alike: a loop on the kernel's sockets, ended by TERM or INT, whose log is
 * opened again on USR1 and flushed every second. */
#pragma once

#include <stdint.h>

#include "loop/loop.h"
#include "net/net.h"
#include "net/net_epoll.h"

struct service {
    struct loop *loop;
    struct net *net;
    struct net_watch signals;
    int signal_fd;
    struct timer flush_timer;
    void (*usr2)(struct service *s); /* at SIGUSR2, which is for the user of the service; NULL: nothing */
};

/* TERM, INT, USR1 and USR2 wait for service_init, PIPE and HUP are ignored. */
void service_block_signals(void);

/* 0 or -errno (then too: service_fini). The signals must be blocked. */
int service_init(struct service *s, uint64_t turn_ns_max);
/* Until TERM or INT. */
void service_run(struct service *s);
/* When nothing else uses loop and net any more. Fine after a failed service_init. */
void service_fini(struct service *s);
