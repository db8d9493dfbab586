// SPDX-License-Identifier: MIT
#include "base/tcp_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void set(int fd, int level, int option, uint32_t value)
{
    int n = (int)value;
    if (value != 0)
        setsockopt(fd, level, option, &n, sizeof n);
}

uint32_t tcp_options_user_timeout_ms(const struct net_keepalive *k)
{
    uint64_t keepalive_ms = ((uint64_t)k->idle_s + (uint64_t)k->interval_s * k->count) * 1000;
    bool known = k->idle_s != 0 && k->interval_s != 0 && k->count != 0;
    return known && keepalive_ms < k->user_timeout_ms ? (uint32_t)keepalive_ms : k->user_timeout_ms;
}

void tcp_options_set(int fd, const struct net_keepalive *k)
{
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, k->idle_s);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, k->interval_s);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, k->count);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, tcp_options_user_timeout_ms(k));
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1); /* last: see tcp_options_are_set */
}

bool tcp_options_are_set(int fd)
{
    int on = 0;
    socklen_t len = sizeof on;
    return getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len) == 0 && on != 0;
}
