// SPDX-License-Identifier: MIT
#include "common/settings.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"

#define FDS_MAX (1 + CONFIG_LISTEN_MAX)

struct wire_listener {
    uint64_t since;
    uint32_t socket;
    uint16_t slot, made;
    uint32_t has_fd; /* 1, or 0 */
    uint32_t reserved;
};
struct wire {
    uint64_t generation;
    uint64_t n_listeners;
    struct wire_listener listeners[CONFIG_LISTEN_MAX]; /* so many of them are sent */
};
static_assert(sizeof(struct wire_listener) == 24 && offsetof(struct wire, listeners) == 16, "no padding");

/* Beside it: the memfd, then those of the listeners that have one, in their order. */
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

static size_t wire_len(uint64_t n_listeners)
{
    return offsetof(struct wire, listeners) + (size_t)n_listeners * sizeof(struct wire_listener);
}

int settings_open(int ret[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) == 0 ? 0 : -errno;
}

/* ---- sending */

/* The number of descriptors. */
static unsigned encode(const struct settings *s, struct wire *w, int fds[FDS_MAX])
{
    unsigned n_fds = 0;
    *w = (struct wire){.generation = s->generation, .n_listeners = s->n_listeners};
    fds[n_fds++] = s->files_fd;
    for (unsigned i = 0; i < s->n_listeners; i++) {
        const struct settings_listener *l = &s->listeners[i];
        w->listeners[i] = (struct wire_listener){
            .since = l->since, .socket = l->socket, .slot = l->slot, .made = l->made, .has_fd = l->fd >= 0};
        if (l->fd >= 0)
            fds[n_fds++] = l->fd;
    }
    return n_fds;
}

int settings_send(int fd, const struct settings *s)
{
    struct wire wire;
    int fds[FDS_MAX];

    ASSERT(s->n_listeners <= CONFIG_LISTEN_MAX);
    size_t fds_bytes = encode(s, &wire, fds) * sizeof(int), len = wire_len(s->n_listeners);
    union control control = {.bytes = {0}};
    struct iovec iov = {.iov_base = &wire, .iov_len = len};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_SPACE(fds_bytes),
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds_bytes);
    memcpy(CMSG_DATA(c), fds, fds_bytes);
    if (sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len)
        return 0;
    return errno == ETOOMANYREFS ? -EAGAIN : -errno; /* too many descriptors are on their way */
}

/* ---- receiving */

static unsigned descriptors_of(struct msghdr *msg, int fds[FDS_MAX])
{
    unsigned n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        ASSERT(bytes % sizeof(int) == 0 && n + bytes / sizeof(int) <= FDS_MAX);
        memcpy(fds + n, CMSG_DATA(c), bytes);
        n += (unsigned)(bytes / sizeof(int));
    }
    return n;
}

/* False: it does not hold together, or has another number of descriptors. */
static bool decode(const struct wire *w, size_t len, const int *fds, unsigned n_fds, struct settings *ret)
{
    unsigned used = 0;

    if (len < wire_len(0) || w->n_listeners > CONFIG_LISTEN_MAX || len != wire_len(w->n_listeners) ||
        n_fds == 0)
        return false;
    *ret = (struct settings){.generation = w->generation, .n_listeners = (unsigned)w->n_listeners};
    ret->files_fd = fds[used++];
    for (unsigned i = 0; i < ret->n_listeners; i++) {
        const struct wire_listener *l = &w->listeners[i];
        if (l->slot >= CONFIG_LISTEN_MAX || l->has_fd > 1 || (l->has_fd == 1 && used == n_fds))
            return false;
        ret->listeners[i] = (struct settings_listener){.since = l->since,
                                                       .socket = l->socket,
                                                       .slot = l->slot,
                                                       .made = l->made,
                                                       .fd = l->has_fd == 1 ? fds[used++] : -1};
    }
    return used == n_fds;
}

int settings_receive(int fd, struct settings *ret)
{
    struct wire wire = {0};
    struct settings got;
    union control control;
    int fds[FDS_MAX];
    struct iovec iov = {.iov_base = &wire, .iov_len = sizeof wire};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_LEN(sizeof fds), /* not CMSG_SPACE, in whose padding another one fits */
    };

    ssize_t len = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0)
        return -errno;
    if (len == 0 && msg.msg_controllen == 0)
        return -EPIPE;
    unsigned n_fds = descriptors_of(&msg, fds);
    if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 && decode(&wire, (size_t)len, fds, n_fds, &got)) {
        *ret = got;
        return 0;
    }
    while (n_fds > 0)
        close(fds[--n_fds]);
    return -EBADMSG;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void settings_close(struct settings *s)
{
    close_fd(&s->files_fd);
    for (unsigned i = 0; i < s->n_listeners; i++)
        close_fd(&s->listeners[i].fd);
}

void settings_drain(int fd)
{
    struct settings s;
    for (;;) {
        int r = settings_receive(fd, &s);
        if (r == 0)
            settings_close(&s);
        else if (r != -EBADMSG && r != -EINTR)
            return;
    }
}
