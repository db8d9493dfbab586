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

/* A socket that is not bound yet, or -errno. */
static int make_socket(const union any_address *a)
{
    const int on = 1;
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        (a->sa.sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)) {
        int err = errno;
        close(fd);
        return -err;
    }
    return fd;
}

/* Returns fd, or -errno with fd closed. */
static int bind_and_listen(int fd, const union any_address *a, socklen_t len, int backlog)
{
    if (bind(fd, &a->sa, len) == 0 && listen(fd, backlog) == 0)
        return fd;
    int err = errno;
    close(fd);
    return -err;
}

int listen_socket_open(const char *address, uint16_t port, int backlog)
{
    union any_address a;
    socklen_t len = parse(address, port, &a);

    if (len == 0)
        return -EINVAL;
    int fd = make_socket(&a);
    return fd < 0 ? fd : bind_and_listen(fd, &a, len, backlog);
}

static int share_port(int fd)
{
    const int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ? -errno : 0;
}

/* Beside one that listens and shares its port. */
static int open_beside(const char *address, uint16_t port, int backlog)
{
    union any_address a;
    socklen_t len = parse(address, port, &a);
    int fd = make_socket(&a);

    if (fd < 0)
        return fd;
    int r = share_port(fd);
    if (r < 0) {
        close(fd);
        return r;
    }
    return bind_and_listen(fd, &a, len, backlog);
}

/* The first one listens before it shares the port: with SO_REUSEPORT from the beginning nobody would notice
 * that another process of this user, with SO_REUSEPORT too, has it already. The kernel takes it into the
 * group when the next one joins (since Linux 4.20). */
int listen_socket_open_several(const char *address, uint16_t port, int backlog, unsigned n, int *ret_fds)
{
    unsigned opened = 0;
    int r = n > 0 ? listen_socket_open(address, port, backlog) : -EINVAL;

    if (r < 0)
        return r;
    ret_fds[opened++] = r;
    r = n > 1 ? share_port(ret_fds[0]) : 0;
    while (r >= 0 && opened < n) {
        r = open_beside(address, port, backlog);
        if (r >= 0)
            ret_fds[opened++] = r;
    }
    if (r >= 0)
        return 0;
    while (opened > 0)
        close(ret_fds[--opened]);
    return r;
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
