// SPDX-License-Identifier: MIT
/* What every TCP connection of ours is to have: no delay (Nagle), and a way to find out that its peer is gone
 * without a word. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* How a peer that is gone is found out. 0: the kernel's own. */
struct net_keepalive {
    /* Nothing has come for idle_s (1 to 32767): it is asked, and again every interval_s (1 to 32767), count
     * times (1 to 127). It is gone idle_s + interval_s * count after the last that was heard of it. */
    uint32_t idle_s, interval_s, count;
    /* What was sent is not acknowledged for so long, or waits for so long because the peer reads nothing
     * (also a peer that is alive: the kernel makes no difference). Linux does not give up an idle connection
     * before this time is over either, whatever count says; so of this and the time above the shorter one
     * counts. */
    uint32_t user_timeout_ms;
};
/* As Workerman, which asks once, after 55 s, and waits as long: less than two minutes. */
#define NET_KEEPALIVE_DEFAULT                                                                                \
    {                                                                                                        \
        55, 15, 4, 0                                                                                         \
    }

/* The shorter of user_timeout_ms and the time of keep-alive, as far as they are known; 0: the kernel's. */
uint32_t tcp_options_user_timeout_ms(const struct net_keepalive *k);

/* fd: a TCP socket. Set on a listening one it is inherited by what is accepted, if it was set before
 * listen(): who is in the queue already does not get it. Fails only where there is nothing to be saved. */
void tcp_options_set(int fd, const struct net_keepalive *k);
/* Whether tcp_options_set was called for it, or for the socket that it was accepted from. */
bool tcp_options_are_set(int fd);
