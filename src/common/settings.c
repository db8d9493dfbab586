// SPDX-License-Identifier: MIT
#include "common/settings.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the kernel puts beside a message. A peer that sends more descriptors than one has them cut off, and
 * they are closed (MSG_CTRUNC). */
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int settings_open(int ret[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) == 0 ? 0 : -errno;
}

int settings_send(int fd, uint64_t generation, int files_fd)
{
    union control control = {.bytes = {0}};
    struct iovec iov = {.iov_base = &generation, .iov_len = sizeof generation};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof files_fd);
    memcpy(CMSG_DATA(c), &files_fd, sizeof files_fd);
    return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof generation ? 0 : -errno;
}

/* The one descriptor beside it, -1 for none. */
static int descriptor_of(struct msghdr *msg)
{
    int fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof fd))
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
    }
    return fd;
}

int settings_receive(int fd, uint64_t *ret_generation)
{
    uint64_t generation;
    union control control;
    struct iovec iov = {.iov_base = &generation, .iov_len = sizeof generation};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_LEN(sizeof(int)), /* not CMSG_SPACE, in whose padding a second one fits */
    };

    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    if (n == 0 && msg.msg_controllen == 0)
        return -EPIPE;
    int got = descriptor_of(&msg);
    bool good =
        n == (ssize_t)sizeof generation && (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 && got >= 0;
    if (!good) {
        if (got >= 0)
            close(got);
        return -EBADMSG;
    }
    *ret_generation = generation;
    return got;
}

void settings_drain(int fd)
{
    uint64_t generation;
    for (;;) {
        int r = settings_receive(fd, &generation);
        if (r >= 0)
            close(r);
        else if (r != -EBADMSG && r != -EINTR)
            return;
    }
}
