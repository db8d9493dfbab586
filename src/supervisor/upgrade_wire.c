// SPDX-License-Identifier: MIT
#include "supervisor/upgrade_wire.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"

/* transfer.h */
#define HEAD_BYTES     12
#define HEAD_LENGTH_AT 8

union control {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(UPGRADE_FDS_MAX * sizeof(int))];
};

int upgrade_wire_open(int ret[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) < 0 ? -errno : 0;
}

const char *upgrade_step_name(uint64_t step)
{
    switch (step) {
    case UPGRADE_STEP_OFFERED: return "offered";
    case UPGRADE_STEP_HOLD: return "hold";
    case UPGRADE_STEP_EXPORTED: return "exported";
    case UPGRADE_STEP_LEAVING: return "leaving";
    case UPGRADE_STEP_PROGRESS: return "progress";
    case UPGRADE_STEP_FAILED: return "failed";
    case UPGRADE_STEP_READY: return "ready";
    case UPGRADE_STEP_IMPORTED: return "imported";
    case UPGRADE_STEP_COMMITTED: return "committed";
    case UPGRADE_STEP_SETTLED: return "settled";
    default: return "?";
    }
}

/* ---- sending */

int upgrade_wire_send(int fd, const struct bytes *record, const int *fds, unsigned n_fds)
{
    union control control = {.bytes = {0}};
    size_t fds_bytes = n_fds * sizeof(int);
    struct iovec iov = {.iov_base = record->data, .iov_len = record->len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    ASSERT(n_fds <= UPGRADE_FDS_MAX);
    if (record->failed)
        return -ENOMEM;
    if (record->len > UPGRADE_WIRE_BYTES_MAX)
        return -EMSGSIZE;
    if (n_fds > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(fds_bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fds_bytes);
        memcpy(CMSG_DATA(c), fds, fds_bytes);
    }
    if (sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)record->len)
        return 0;
    if (errno == ETOOMANYREFS) /* too many descriptors are on their way */
        return -EAGAIN;
    return errno == ECONNRESET ? -EPIPE : -errno;
}

int upgrade_wire_step(int fd, enum upgrade_step step, const struct transfer_course *more, const char *text,
                      const int *fds, unsigned n_fds)
{
    struct transfer_course c = more != NULL ? *more : (struct transfer_course){.step = 0};
    struct bytes record = {0};

    c.step = step;
    if (text != NULL)
        c.text = (struct slice){(const uint8_t *)text, strnlen(text, UPGRADE_WIRE_TEXT_MAX)};
    transfer_put_course(&record, &c);
    int r = upgrade_wire_send(fd, &record, fds, n_fds);
    bytes_fini(&record);
    return r;
}

/* ---- receiving */

static void take_descriptors(struct msghdr *msg, struct upgrade_wire *ret)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        ASSERT(ret->n_fds + bytes / sizeof(int) <= UPGRADE_FDS_MAX);
        memcpy(ret->fds + ret->n_fds, CMSG_DATA(c), bytes);
        ret->n_fds += (unsigned)(bytes / sizeof(int));
    }
}

static bool is_known(unsigned type)
{
    return type >= TRANSFER_TYPE_offer && type <= TRANSFER_TYPE_course;
}

static int decode(struct upgrade_wire *w, size_t len)
{
    uint32_t length;

    if (len < HEAD_BYTES)
        return -EBADMSG;
    unsigned type = w->bytes[0] | (unsigned)w->bytes[1] << 8;
    length = w->bytes[HEAD_LENGTH_AT] | (uint32_t)w->bytes[HEAD_LENGTH_AT + 1] << 8 |
             (uint32_t)w->bytes[HEAD_LENGTH_AT + 2] << 16 | (uint32_t)w->bytes[HEAD_LENGTH_AT + 3] << 24;
    if (length != len - HEAD_BYTES)
        return -EBADMSG;
    if (!is_known(type))
        return -EPROTO;
    w->type = (enum transfer_type)type;
    w->fields = (struct slice){w->bytes + HEAD_BYTES, length};
    return 0;
}

int upgrade_wire_receive(int fd, struct upgrade_wire *ret)
{
    union control control;
    struct iovec iov = {.iov_base = ret->bytes, .iov_len = sizeof ret->bytes};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_LEN(UPGRADE_FDS_MAX * sizeof(int)), /* not CMSG_SPACE: see settings.c */
    };

    ret->n_fds = 0;
    ssize_t len = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    /* It has ended without reading all of ours; what it said before is there still. */
    if (len < 0 && errno == ECONNRESET)
        len = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0)
        return errno == EINTR ? -EAGAIN : errno == ECONNRESET ? -EPIPE : -errno;
    if (len == 0 && msg.msg_controllen == 0)
        return -EPIPE;
    take_descriptors(&msg, ret);
    int r = (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ? -EBADMSG : decode(ret, (size_t)len);
    if (r < 0)
        upgrade_wire_close(ret);
    return r;
}

void upgrade_wire_close(struct upgrade_wire *w)
{
    for (unsigned i = 0; i < w->n_fds; i++) {
        if (w->fds[i] >= 0)
            close(w->fds[i]);
    }
    w->n_fds = 0;
}

char *upgrade_wire_text(struct slice field, char *buf, size_t cap)
{
    size_t n = field.len < cap - 1 ? field.len : cap - 1;
    for (size_t i = 0; i < n; i++)
        buf[i] = field.data[i] < 0x20 || field.data[i] == 0x7f ? ' ' : (char)field.data[i];
    buf[n] = '\0';
    return buf;
}
