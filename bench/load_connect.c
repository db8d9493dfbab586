// SPDX-License-Identifier: MIT
/* Connect, handshake, perhaps one echo, close (how: load.h, close_kind): `outstanding` of them at a time. One
 * operation is one such cycle. Edge-triggered, so that the load client spends one epoll_ctl on each. */
#include "load.h"

#include "common.h"
#include "handshake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX   256
#define SLOT_BYTES   1024u
#define STALL_MAX_MS 5000

enum slot_state { SLOT_CONNECTING, SLOT_GREETING, SLOT_MESSAGE, SLOT_CLOSING };

struct slot {
    int fd;
    enum slot_state state;
    uint64_t begun_ns;
    uint32_t len;
    uint8_t input[SLOT_BYTES];
};

static uint64_t n_begun;

static void slot_begin(struct load *l, struct slot *s)
{
    s->begun_ns = l->engine.now;
    s->len = 0;
    s->state = SLOT_CONNECTING;
    s->fd = load_socket_connect(&l->target, &l->sources, n_begun++);
    if (s->fd < 0)
        die("connect: %s", strerror(-s->fd));
    xepoll_ctl(l->engine.epoll, EPOLL_CTL_ADD, s->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
               (epoll_data_t){.ptr = s});
}

static void slot_done(struct load *l, struct slot *s)
{
    close(s->fd);
    l->operations++;
    if (load_is_measuring(l))
        hist_add(&l->latency, l->engine.now - s->begun_ns);
    slot_begin(l, s);
}

static void slot_close(struct load *l, struct slot *s)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (l->opt.close == CLOSE_RESET &&
        setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) < 0)
        die_errno("SO_LINGER");
    if (l->opt.close != CLOSE_WAIT) {
        slot_done(l, s);
        return;
    }
    s->state = SLOT_CLOSING;
    if (shutdown(s->fd, SHUT_WR) < 0)
        die_errno("shutdown");
}

static void slot_connected(struct load *l, struct slot *s)
{
    if (l->opt.no_handshake) {
        slot_close(l, s);
        return;
    }
    if (send(s->fd, HANDSHAKE_REQUEST, sizeof(HANDSHAKE_REQUEST) - 1, MSG_NOSIGNAL) < 0)
        die_errno("handshake");
    s->state = SLOT_GREETING;
}

static void slot_answered(struct load *l, struct slot *s)
{
    unsigned status;
    size_t used = codec_answer(s->input, s->len, HANDSHAKE_ACCEPT, &status);
    if (used == 0)
        return;
    if (status != 101)
        die("handshake refused: %.*s", (int)used, (const char *)s->input);
    if (!l->opt.message) {
        slot_close(l, s);
        return;
    }
    s->len -= (uint32_t)used;
    memmove(s->input, s->input + used, s->len);
    s->state = SLOT_MESSAGE;
    if (send(s->fd, l->frame, l->frame_head + l->opt.payload, MSG_NOSIGNAL) < 0)
        die_errno("first message");
}

static void slot_echoed(struct load *l, struct slot *s)
{
    struct codec_message m;
    ssize_t n = codec_read(LOAD_WEBSOCKET, s->input, s->len, &m);
    if (n < 0)
        die("a frame that may not be");
    if (n > 0)
        slot_close(l, s);
}

static void slot_readable(struct load *l, struct slot *s)
{
    ssize_t n = recv(s->fd, s->input + s->len, SLOT_BYTES - s->len, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (s->state == SLOT_CLOSING) {
        /* What was still on its way to us is of no interest; its end is. */
        if (n <= 0)
            slot_done(l, s);
        return;
    }
    if (n <= 0)
        die_errno("the other side closed first (state %d, read %zd)", (int)s->state, n);
    s->len += (uint32_t)n;
    if (s->state == SLOT_GREETING)
        slot_answered(l, s);
    else
        slot_echoed(l, s);
}

static void slot_event(struct load *l, struct slot *s, uint32_t events)
{
    if (s->state != SLOT_CONNECTING) {
        if ((events & ~(uint32_t)EPOLLOUT) != 0)
            slot_readable(l, s);
        return;
    }
    if ((events & (EPOLLERR | EPOLLHUP)) != 0)
        die("connection refused");
    if ((events & EPOLLOUT) != 0)
        slot_connected(l, s);
}

void load_connect_run(struct load *l)
{
    struct epoll_event events[EVENTS_MAX];
    struct slot *slots = xcalloc(l->opt.outstanding, sizeof(*slots));
    if (l->opt.message && l->opt.payload + 200 > SLOT_BYTES)
        die("--payload: at most %u with --message", SLOT_BYTES - 200);
    l->engine.now = l->start_ns = load_now_ns();
    l->phase = PHASE_WARMUP;
    for (uint32_t i = 0; i < l->opt.outstanding; i++)
        slot_begin(l, &slots[i]);
    while (phase_advance(l)) {
        int n = epoll_wait(l->engine.epoll, events, EVENTS_MAX, STALL_MAX_MS);
        if (n < 0)
            die_errno("epoll_wait");
        if (n == 0)
            die("no answer for %d ms", STALL_MAX_MS);
        l->engine.now = load_now_ns();
        for (int i = 0; i < n; i++)
            slot_event(l, events[i].data.ptr, events[i].events);
    }
    free(slots);
}

const struct load_mode load_connect = {.name = "connect"};
