// SPDX-License-Identifier: MIT
#include "worker_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

// Splits "host:port" and "[ipv6]:port".
static int address_split(const char *address, char *host, size_t host_size, char *port, size_t port_size)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || strlen(colon + 1) == 0 || strlen(colon + 1) >= port_size)
        return -EINVAL;
    const char *start = address, *end = colon;
    if (*start == '[' && end > start + 1 && end[-1] == ']') {
        start++;
        end--;
    }
    size_t len = (size_t)(end - start);
    if (len == 0 || len >= host_size)
        return -EINVAL;
    memcpy(host, start, len);
    host[len] = '\0';
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    char *rest = NULL;
    unsigned long n = strtoul(port, &rest, 10);
    return *rest == '\0' && n > 0 && n <= 65535 && port[0] >= '0' && port[0] <= '9' ? 0 : -EINVAL;
}

int tggw__address_check(const char *address)
{
    char host[TGGW__ADDRESS_SIZE], port[8];
    if (strlen(address) >= TGGW__ADDRESS_SIZE)
        return -EINVAL;
    return address_split(address, host, sizeof host, port, sizeof port);
}

// Numbers first, so that the usual address never blocks.
static int resolve(const char *address, struct sockaddr_storage *ret, socklen_t *ret_len)
{
    char host[TGGW__ADDRESS_SIZE], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int r = address_split(address, host, sizeof host, port, sizeof port);
    if (r < 0)
        return r;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        hints.ai_flags = AI_NUMERICSERV;
        if (getaddrinfo(host, port, &hints, &found) != 0)
            return -EHOSTUNREACH;
    }
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    *ret_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

void tggw__conn_init(struct tggw__conn *c, enum tggw__kind kind, void *owner)
{
    *c = (struct tggw__conn){.kind = kind, .fd = -1, .owner = owner};
}

static int watch(struct tggw *w, struct tggw__conn *c, int op, bool write)
{
    struct epoll_event ev = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = c};
    c->wants_write = write;
    return epoll_ctl(w->epoll_fd, op, c->fd, &ev) < 0 ? -errno : 0;
}

static int connect_to(struct tggw *w, struct tggw__conn *c, const struct sockaddr_storage *peer,
                      socklen_t len)
{
    int one = 1;
    c->fd = socket(peer->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -errno;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    if (connect(c->fd, (const struct sockaddr *)peer, len) < 0 && errno != EINPROGRESS)
        return -errno;
    return watch(w, c, EPOLL_CTL_ADD, true);
}

int tggw__conn_open(struct tggw *w, struct tggw__conn *c, const char *address, struct sockaddr_in *ret_peer)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = 0;
    int r = resolve(address, &peer, &len);
    if (r == 0)
        r = connect_to(w, c, &peer, len);
    if (r < 0) {
        tggw__conn_close(w, c, w->config.reconnect_ms);
        return r;
    }
    if (ret_peer != NULL && peer.ss_family == AF_INET)
        memcpy(ret_peer, &peer, sizeof *ret_peer);
    c->state = TGGW__CONNECTING;
    c->due_ms = tggw__clock_ms() + TGGW__CONNECT_MS;
    return 0;
}

int tggw__conn_finish(struct tggw__conn *c)
{
    int error = 0;
    socklen_t len = sizeof error;
    struct sockaddr_storage peer;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        return -errno;
    if (error != 0)
        return -error;
    len = sizeof peer;
    if (getpeername(c->fd, (struct sockaddr *)&peer, &len) < 0)
        return errno == ENOTCONN ? -EINPROGRESS : -errno;
    c->state = TGGW__UP;
    return 0;
}

ssize_t tggw__conn_read(struct tggw__conn *c, uint8_t *buf, size_t size)
{
    ssize_t n = recv(c->fd, buf, size, 0);
    if (n > 0)
        return n;
    if (n == 0)
        return -ECONNRESET;
    return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

size_t tggw__conn_flush(struct tggw *w, struct tggw__conn *c)
{
    size_t written = 0, left;
    while (c->state == TGGW__UP && c->error == 0 && (left = tggw__bytes_len(&c->out)) > 0) {
        ssize_t n = send(c->fd, c->out.data + c->out.head, left, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                c->error = -errno;
            break;
        }
        written += (size_t)n;
        tggw__bytes_consume(&c->out, (size_t)n);
        if ((size_t)n < left)
            break;
    }
    left = tggw__bytes_len(&c->out);
    if (left == 0)
        tggw__bytes_reset(&c->out, TGGW__KEEP_BYTES);
    if (c->state == TGGW__UP && c->wants_write != (left > 0))
        watch(w, c, EPOLL_CTL_MOD, left > 0);
    return written;
}

void tggw__conn_close(struct tggw *w, struct tggw__conn *c, uint64_t retry_ms)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = TGGW__IDLE;
    c->error = 0;
    c->wants_write = false;
    c->due_ms = tggw__clock_ms() + retry_ms;
    tggw__bytes_fini(&c->in);
    tggw__bytes_fini(&c->out);
}

void tggw__conn_fini(struct tggw *w, struct tggw__conn *c)
{
    tggw__conn_close(w, c, 0);
}
