// SPDX-License-Identifier: MIT
#include "transfer/transfer_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"

/* Of a sender: a record that has begun and is not whole. */
struct part {
    struct bytes record;
    size_t len; /* of the whole; 0: none has begun */
    int handle; /* -1: none */
};

struct transfer_receiver {
    int fd, error;
    struct part parts[TRANSFER_SENDERS_MAX];
    struct part *handed_out; /* its bytes are what the caller has */
    /* The message under way. */
    unsigned from;
    size_t at, len;
    unsigned fds_at, n_fds;
    int fds[TRANSFER_FDS_MAX];
    uint8_t message[TRANSFER_MESSAGE_MAX];
};

struct transfer_receiver *transfer_receiver_new(int fd)
{
    struct transfer_receiver *r = malloc(sizeof *r);
    if (r == NULL)
        return NULL;
    memset(r, 0, offsetof(struct transfer_receiver, message));
    r->fd = fd;
    for (unsigned i = 0; i < TRANSFER_SENDERS_MAX; i++)
        r->parts[i].handle = -1;
    return r;
}

static void close_fds(struct transfer_receiver *r)
{
    while (r->fds_at < r->n_fds)
        close(r->fds[r->fds_at++]);
}

void transfer_receiver_free(struct transfer_receiver *r)
{
    if (r == NULL)
        return;
    close_fds(r);
    for (unsigned i = 0; i < TRANSFER_SENDERS_MAX; i++) {
        bytes_wipe(&r->parts[i].record);
        if (r->parts[i].handle >= 0)
            close(r->parts[i].handle);
    }
    explicit_bzero(r->message, sizeof r->message); /* keys of TLS */
    free(r);
}

/* ---- messages */

static void take_fds(struct transfer_receiver *r, struct msghdr *msg)
{
    r->fds_at = r->n_fds = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        ASSERT(n <= TRANSFER_FDS_MAX - r->n_fds); /* there was no room for more */
        memcpy(&r->fds[r->n_fds], CMSG_DATA(c), n * sizeof(int));
        r->n_fds += (unsigned)n;
    }
}

/* Descriptors that did not come: there was no room for them in this process. */
static int check_message(struct transfer_receiver *r, int flags)
{
    if ((flags & MSG_CTRUNC) != 0)
        return -EMFILE;
    if ((flags & MSG_TRUNC) != 0 || r->len < TRANSFER_MESSAGE_BYTES ||
        transfer__get_u32(r->message) != TRANSFER_MAGIC)
        return -EBADMSG;
    r->from = transfer__get_u16(r->message + 4);
    r->at = TRANSFER_MESSAGE_BYTES;
    return r->from < TRANSFER_SENDERS_MAX && r->n_fds == transfer__get_u16(r->message + 6) ? 0 : -EBADMSG;
}

/* 1: there is a message; 0: none now; -errno. */
static int receive(struct transfer_receiver *r)
{
    struct iovec iov = {r->message, sizeof r->message};
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(TRANSFER_FDS_MAX * sizeof(int))];
    } control;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof r->fds)};
    ssize_t n;

    do
        n = recvmsg(r->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : errno == ECONNRESET ? -EPIPE : -errno;
    take_fds(r, &msg);
    if (n == 0)
        return -EPIPE;
    r->len = (size_t)n;
    int error = check_message(r, msg.msg_flags);
    return error < 0 ? error : 1;
}

/* ---- records */

struct piece {
    uint32_t flags;
    struct slice bytes;
};

static int next_piece(struct transfer_receiver *r, struct piece *ret)
{
    if (r->len - r->at < TRANSFER_PIECE_BYTES)
        return -EBADMSG;
    size_t len = transfer__get_u32(r->message + r->at);
    ret->flags = transfer__get_u32(r->message + r->at + 4);
    r->at += TRANSFER_PIECE_BYTES;
    if (len > r->len - r->at || ret->flags >> 3 != 0)
        return -EBADMSG;
    ret->bytes = (struct slice){r->message + r->at, len};
    r->at += len;
    return 0;
}

/* A record begins: how long it is to be, and its descriptor. */
static int begin(struct transfer_receiver *r, struct part *part, const struct piece *p)
{
    struct transfer_head head;

    if (part->len != 0 || p->bytes.len < TRANSFER_HEAD_BYTES || transfer__head_read(p->bytes.data, &head) < 0)
        return -EBADMSG;
    if (head.len > TRANSFER_RECORD_MAX - TRANSFER_HEAD_BYTES)
        return -EMSGSIZE;
    if ((p->flags & TRANSFER_PIECE_FD) != 0) {
        if (r->fds_at == r->n_fds)
            return -EBADMSG;
        part->handle = r->fds[r->fds_at++];
    }
    part->len = TRANSFER_HEAD_BYTES + head.len;
    return 0;
}

/* Takes a piece: 1: with it the record is whole, *ret; 0: it is not. */
static int take_piece(struct transfer_receiver *r, struct part *part, const struct piece *p,
                      struct slice *ret)
{
    bool is_first = (p->flags & TRANSFER_PIECE_FIRST) != 0, is_last = (p->flags & TRANSFER_PIECE_LAST) != 0;
    int error = is_first ? begin(r, part, p) : part->len != 0 && p->bytes.len != 0 ? 0 : -EBADMSG;
    if (error < 0)
        return error;
    size_t left = part->len - part->record.len;
    if (is_last ? p->bytes.len != left : p->bytes.len >= left)
        return -EBADMSG;
    if (is_first && is_last) {
        *ret = p->bytes;
        return 1;
    }
    if (!bytes_reserve(&part->record, left) || !bytes_append(&part->record, p->bytes.data, p->bytes.len))
        return -ENOMEM;
    *ret = (struct slice){part->record.data, part->record.len};
    r->handed_out = is_last ? part : NULL;
    return is_last;
}

/* What the caller had it has no more. */
static void release(struct transfer_receiver *r)
{
    if (r->handed_out == NULL)
        return;
    bytes_fini(&r->handed_out->record);
    r->handed_out = NULL;
}

/* 1, 0: there is none now; -errno. */
static int next(struct transfer_receiver *r, struct part **ret_part, struct slice *ret)
{
    for (;;) {
        struct piece p;
        int n;
        if (r->at == r->len) {
            if (r->fds_at != r->n_fds)
                return -EBADMSG; /* somebody's, but whose? */
            if ((n = receive(r)) <= 0)
                return n;
        }
        *ret_part = &r->parts[r->from];
        if ((n = next_piece(r, &p)) < 0 || (n = take_piece(r, *ret_part, &p, ret)) != 0)
            return n;
    }
}

int transfer_receiver_next(struct transfer_receiver *r, unsigned *ret_from, struct transfer_record *ret)
{
    struct part *part;
    struct slice record;

    if (r->error < 0)
        return r->error;
    release(r);
    int n = next(r, &part, &record);
    if (n < 0)
        r->error = n;
    if (n <= 0)
        return n;
    *ret_from = r->from;
    *ret = (struct transfer_record){
        .type = transfer__get_u16(record.data),
        .fields = {record.data + TRANSFER_HEAD_BYTES, record.len - TRANSFER_HEAD_BYTES},
        .handle = part->handle,
    };
    part->len = 0;
    part->handle = -1;
    return 1;
}
