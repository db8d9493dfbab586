// SPDX-License-Identifier: MIT
#include "common/listen_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union any_address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t parse(const char *address, uint16_t port, union any_address *ret)
{
    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, address, &ret->v4.sin_addr) == 1) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = htons(port);
        return sizeof ret->v4;
    }
    if (inet_pton(AF_INET6, address, &ret->v6.sin6_addr) == 1) {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons(port);
        return sizeof ret->v6;
    }
    return 0;
}

int listen_socket_open(const char *address, uint16_t port, int backlog)
{
    union any_address a;
    const int on = 1;
    socklen_t len = parse(address, port, &a);

    if (len == 0)
        return -EINVAL;
    int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        goto fail;
    if (a.sa.sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)
        goto fail;
    if (bind(fd, &a.sa, len) < 0 || listen(fd, backlog) < 0)
        goto fail;
    return fd;
fail:;
    int err = errno;
    close(fd);
    return -err;
}

char *listen_socket_explain(int err, const char *address, uint16_t port, char *buf, size_t cap)
{
    switch (err) {
    case -EADDRINUSE:
        snprintf(buf, cap,
                 "%s port %u is in use; expected a free port: see who has it with: ss -ltnp 'sport = :%u', "
                 "then stop "
                 "that or choose another port",
                 address, port, port);
        break;
    case -EADDRNOTAVAIL:
        snprintf(buf, cap, "%s is not an address of this machine; expected one of those that ip addr shows",
                 address);
        break;
    case -EACCES:
        snprintf(buf, cap,
                 "not allowed to listen on %s port %u; expected a port from 1024 on, or root, or "
                 "CAP_NET_BIND_SERVICE",
                 address, port);
        break;
    default: snprintf(buf, cap, "cannot listen on %s port %u: %s", address, port, strerror(-err)); break;
    }
    return buf;
}
