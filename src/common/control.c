// SPDX-License-Identifier: MIT
#include "common/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define ROOM (8 * CONTROL_MESSAGE_MAX)

int control_open(int ret[2])
{
    const int room = ROOM;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) < 0)
        return -errno;
    /* As much as the system allows; with less they wait sooner for each other. */
    for (unsigned i = 0; i < 2; i++)
        (void)setsockopt(ret[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    return 0;
}

static int send_parts(int fd, struct iovec *parts, size_t n, size_t len)
{
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = n};
    if (len > CONTROL_MESSAGE_MAX)
        return -EMSGSIZE;
    ssize_t sent = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent == (ssize_t)len ? 0 : sent < 0 ? -errno : -EIO;
}

int control_send(int fd, struct control_request *req)
{
    struct iovec parts[1 + CONTROL_TEXT_N];
    size_t n = 0, len = sizeof req->head;

    req->head.texts = 0;
    parts[n++] = (struct iovec){&req->head, sizeof req->head};
    for (unsigned i = 0; i < CONTROL_TEXT_N; i++) {
        struct slice text = req->text[i];
        req->head.text_len[i] = 0;
        if (text.data == NULL)
            continue;
        if (text.len > UINT16_MAX)
            return -EMSGSIZE;
        req->head.texts |= (uint16_t)(1u << i);
        req->head.text_len[i] = (uint16_t)text.len;
        parts[n++] = (struct iovec){(void *)(uintptr_t)text.data, text.len};
        len += text.len;
    }
    return send_parts(fd, parts, n, len);
}

int control_reply(int fd, const struct control_reply *reply, const void *json, size_t len)
{
    struct iovec parts[] = {{(void *)(uintptr_t)reply, sizeof *reply}, {(void *)(uintptr_t)json, len}};
    return send_parts(fd, parts, 2, sizeof *reply + len);
}

/* A message, at least `least` bytes of it. */
static int receive(int fd, uint8_t *buf, size_t least, size_t *ret_len)
{
    struct iovec iov = {buf, CONTROL_MESSAGE_MAX};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return n == 0 ? -EPIPE : -errno;
    if ((size_t)n < least || (msg.msg_flags & MSG_TRUNC) != 0)
        return -EBADMSG;
    *ret_len = (size_t)n;
    return 0;
}

static unsigned bits_of(const struct net_addr *a)
{
    return a->family == AF_INET ? 32 : a->family == AF_INET6 ? 128 : 0;
}

static bool head_is_good(const struct control_head *h)
{
    return h->op < CONTROL_OP_N && h->by < CONTROL_BY_N && h->texts >> CONTROL_TEXT_N == 0 &&
           h->address_bits <= bits_of(&h->address);
}

int control_receive(int fd, uint8_t *buf, struct control_request *ret)
{
    size_t len = 0, at = sizeof ret->head;
    int r = receive(fd, buf, at, &len);
    if (r < 0)
        return r;
    memcpy(&ret->head, buf, sizeof ret->head);
    if (!head_is_good(&ret->head))
        return -EBADMSG;
    for (unsigned i = 0; i < CONTROL_TEXT_N; i++) {
        bool is_set = (ret->head.texts >> i & 1) != 0;
        size_t text_len = ret->head.text_len[i];
        if (text_len > len - at || (!is_set && text_len != 0))
            return -EBADMSG;
        ret->text[i] = is_set ? (struct slice){buf + at, text_len} : (struct slice){NULL, 0};
        at += text_len;
    }
    return at == len ? 0 : -EBADMSG;
}

int control_receive_reply(int fd, uint8_t *buf, struct control_reply *ret, struct slice *ret_json)
{
    size_t len = 0;
    int r = receive(fd, buf, sizeof *ret, &len);
    if (r < 0)
        return r;
    memcpy(ret, buf, sizeof *ret);
    *ret_json = (struct slice){buf + sizeof *ret, len - sizeof *ret};
    return 0;
}

const char *control_by_name(enum control_by by)
{
    static const char *const names[CONTROL_BY_N] = {
        "messages_in", "bytes_in", "messages_out", "bytes_out", "queue", "groups", "uids",
    };
    return names[by];
}
