// SPDX-License-Identifier: MIT
#include "transfer/transfer_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "base/assert.h"
#include "base/list.h"

/* Of several messages; the kernel gives what net.core.wmem_max allows to one without privileges. */
#define ROOM (64 * TRANSFER_MESSAGE_MAX)

int transfer_open(int ret[2])
{
    const int room = ROOM;
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    if (setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) < 0)
        (void)setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    memcpy(ret, fds, sizeof fds);
    return 0;
}

/* What is collected for one receiver. */
struct outlet {
    int fd;
    uint64_t records;
    size_t len; /* of message, its head included; 0: nothing is collected */
    unsigned n_fds;
    int fds[TRANSFER_FDS_MAX];
    uint8_t *message; /* TRANSFER_MESSAGE_MAX; NULL: never used */
};

struct transfer_sender {
    struct transfer_sink sink;
    unsigned me, n;
    uint64_t deadline_ns;
    int error; /* what once went wrong */
    struct outlet outlets[];
};

static int put(struct transfer_sink *sink, unsigned to, struct slice record, int handle);

struct transfer_sender *transfer_sender_new(unsigned me, const int *fds, unsigned n, uint64_t deadline_ns)
{
    ASSERT(me < TRANSFER_SENDERS_MAX && n > 0);
    struct transfer_sender *s = calloc(1, sizeof *s + n * sizeof s->outlets[0]);
    if (s == NULL)
        return NULL;
    s->sink.put = put;
    s->me = me;
    s->n = n;
    s->deadline_ns = deadline_ns;
    for (unsigned i = 0; i < n; i++)
        s->outlets[i].fd = fds[i];
    return s;
}

struct transfer_sink *transfer_sender_sink(struct transfer_sender *s)
{
    return &s->sink;
}

uint64_t transfer_sender_records(const struct transfer_sender *s, unsigned to)
{
    ASSERT(to < s->n);
    return s->outlets[to].records;
}

void transfer_sender_free(struct transfer_sender *s)
{
    if (s == NULL)
        return;
    for (unsigned i = 0; i < s->n; i++) {
        if (s->outlets[i].message != NULL)
            explicit_bzero(s->outlets[i].message, TRANSFER_MESSAGE_MAX); /* keys of TLS */
        free(s->outlets[i].message);
    }
    free(s);
}

/* ---- messages */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Until there is room; or ms are over (-1: no such limit), or the deadline. */
static int wait_for_room(const struct transfer_sender *s, int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    uint64_t now = now_ns();

    uint64_t left_ms = now < s->deadline_ns ? (s->deadline_ns - now) / 1000000 + 1 : 0;
    if (ms < 0 || left_ms < (uint64_t)ms)
        ms = left_ms < INT32_MAX ? (int)left_ms : INT32_MAX;
    return poll(&p, 1, ms) < 0 && errno != EINTR ? -errno : 0;
}

static int pause_for_a_moment(const struct transfer_sender *s)
{
    return wait_for_room(s, -1, 1);
}

/* After a failed sendmsg: 0: try again. ETOOMANYREFS: as many descriptors as this user may have are on their
 * way at this moment, of all senders together; as soon as receivers have taken some there is room. */
static int wait_after(const struct transfer_sender *s, int fd, int error)
{
    switch (error) {
    case EINTR: return 0;
    case EAGAIN: return wait_for_room(s, fd, -1);
    case ETOOMANYREFS:
    case ENOBUFS: return pause_for_a_moment(s);
    case ECONNRESET: return -EPIPE;
    default: return -error;
    }
}

static int send_message(const struct transfer_sender *s, const struct outlet *o)
{
    struct iovec iov = {o->message, o->len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(TRANSFER_FDS_MAX * sizeof(int))];
    } control;

    if (o->n_fds > 0) {
        memset(&control, 0, sizeof control.align);
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(o->n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(o->n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), o->fds, o->n_fds * sizeof(int));
    }
    while (now_ns() < s->deadline_ns) {
        ssize_t n = sendmsg(o->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0)
            return (size_t)n == o->len ? 0 : -EIO;
        int r = wait_after(s, o->fd, errno);
        if (r < 0)
            return r;
    }
    return -ETIMEDOUT;
}

static int flush(struct transfer_sender *s, struct outlet *o)
{
    if (o->len == 0)
        return 0;
    transfer__put_u32(o->message, TRANSFER_MAGIC);
    transfer__put_u16(o->message + 4, (uint16_t)s->me);
    transfer__put_u16(o->message + 6, (uint16_t)o->n_fds);
    int r = send_message(s, o);
    o->len = 0;
    o->n_fds = 0;
    return r;
}

/* ---- records */

#define PIECE_MAX (TRANSFER_MESSAGE_MAX - TRANSFER_MESSAGE_BYTES - TRANSFER_PIECE_BYTES)

static size_t room(const struct outlet *o)
{
    size_t used = o->len == 0 ? TRANSFER_MESSAGE_BYTES : o->len;
    size_t left = TRANSFER_MESSAGE_MAX - used;
    return left > TRANSFER_PIECE_BYTES ? left - TRANSFER_PIECE_BYTES : 0;
}

/* There is room. */
static void add_piece(struct outlet *o, const uint8_t *data, size_t len, uint32_t flags)
{
    if (o->len == 0)
        o->len = TRANSFER_MESSAGE_BYTES;
    transfer__put_u32(o->message + o->len, (uint32_t)len);
    transfer__put_u32(o->message + o->len + 4, flags);
    memcpy(o->message + o->len + TRANSFER_PIECE_BYTES, data, len);
    o->len += TRANSFER_PIECE_BYTES + len;
}

/* A record goes whole into what is collected, or begins a message of its own: so only those that are larger
 * than a message must be put together again. */
static int add_record(struct transfer_sender *s, struct outlet *o, struct slice record, int handle)
{
    uint32_t flags = TRANSFER_PIECE_FIRST;
    int r = 0;

    if (record.len > room(o) || (handle >= 0 && o->n_fds == TRANSFER_FDS_MAX))
        r = flush(s, o);
    if (handle >= 0) {
        flags |= TRANSFER_PIECE_FD;
        o->fds[o->n_fds++] = handle;
    }
    while (r == 0 && record.len > PIECE_MAX) {
        add_piece(o, record.data, PIECE_MAX, flags);
        r = flush(s, o);
        record = (struct slice){record.data + PIECE_MAX, record.len - PIECE_MAX};
        flags = 0;
    }
    if (r == 0)
        add_piece(o, record.data, record.len, flags | TRANSFER_PIECE_LAST);
    return r;
}

static int put(struct transfer_sink *sink, unsigned to, struct slice record, int handle)
{
    struct transfer_sender *s = CONTAINER_OF(sink, struct transfer_sender, sink);

    ASSERT(to < s->n && record.len >= TRANSFER_HEAD_BYTES);
    struct outlet *o = &s->outlets[to];
    if (s->error < 0)
        return s->error;
    if (o->message == NULL)
        o->message = malloc(TRANSFER_MESSAGE_MAX);
    if (o->message == NULL)
        s->error = -ENOMEM;
    else if (record.len > TRANSFER_RECORD_MAX)
        s->error = -EMSGSIZE;
    else
        s->error = add_record(s, o, record, handle);
    o->records += s->error == 0;
    return s->error;
}

int transfer_sender_flush(struct transfer_sender *s)
{
    for (unsigned i = 0; i < s->n && s->error == 0; i++)
        s->error = flush(s, &s->outlets[i]);
    return s->error;
}
