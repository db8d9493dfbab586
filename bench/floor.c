// SPDX-License-Identifier: MIT
/* tgg-floor: a bare epoll loop that does the system calls of the gateway's job and nothing else. What it
 * does, call by call, and why that is the honest minimum: bench/README.md. Sizes are fixed, so it parses
 * nothing: it takes frames of one known size from clients, records of one known size from one worker, and
 * answers every handshake with the same bytes. A connection id is the client's descriptor (low 16 bits) and
 * a count of that descriptor's uses, so that an echo that comes late reaches nobody else.
 *
 *   clients --- frame: head F, payload P --->  floor  --- record: head 28, payload P ---> worker
 *           <-- frame: head H, payload P ----         <-- record: head 28, payload P ----
 *
 * Payloads are never copied: a frame is read so that its payload lies where the record's is, and the record's
 * head is written over the frame's; on the way back the frame's head is written over the end of the record's.
 */
#include "common.h"
#include "handshake.h"
#include "packet.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load/load_tls.h"

#define EVENTS_MAX      512
#define WORKER_READ     (256u * 1024)
#define TO_WORKER_BYTES (16u * 1024 * 1024)
#define CLIENTS_MAX     65536

enum mode {
    MODE_FORWARD,          /* frames to the worker and back */
    MODE_ACCEPT,           /* accept, add to epoll, read the end of the stream, close */
    MODE_ACCEPT_HANDSHAKE, /* the same, and between: read a request, send an answer */
};

static enum mode mode = MODE_FORWARD;
static int epoll_fd;
static int client_listener;
static int worker_listener = -1;
static int worker = -1;

static uint32_t payload = 64;
static uint32_t frame_in_head;  /* of a masked frame: 6 or 8 bytes */
static uint32_t frame_out_head; /* of an unmasked frame: 2 or 4 bytes */
static uint8_t canned_head[4];

static uint8_t *to_worker;
static size_t to_worker_start, to_worker_end;
static uint8_t *from_worker;
static size_t from_worker_len;

/* Those to whom a fan-out goes: a dense array of descriptors, and each one's place in it. */
static int clients[CLIENTS_MAX];
static uint32_t n_clients;
static uint32_t place[CLIENTS_MAX];
static uint32_t id_of[CLIENTS_MAX];
static bool greeted[CLIENTS_MAX]; /* the handshake is answered */

static SSL_CTX *tls; /* NULL: plain */
static SSL *tls_of[CLIENTS_MAX];

static struct {
    uint64_t turns, events, accepts, client_reads, client_writes, worker_reads, worker_writes;
} calls;
static volatile sig_atomic_t stopping;

static void watch(int op, int fd, uint32_t events)
{
    xepoll_ctl(epoll_fd, op, fd, events, (epoll_data_t){.fd = fd});
}

/* A client that went is one that ended; TLS that failed ends the run. */
static ssize_t tls_result(ssize_t n)
{
    if (n < 0 && errno == EPROTO)
        die("TLS: %s", load_tls_error());
    return n < 0 && errno != EAGAIN ? 0 : n;
}

static ssize_t client_recv(int fd, void *data, size_t len)
{
    return tls != NULL ? tls_result(load_tls_recv(tls_of[fd], data, len)) : recv(fd, data, len, 0);
}

static ssize_t client_write(int fd, const void *data, size_t len)
{
    if (tls == NULL)
        return send(fd, data, len, MSG_NOSIGNAL);
    ssize_t n = tls_result(load_tls_send(tls_of[fd], data, len));
    if (n == 0)
        errno = EPIPE;
    return n == 0 ? -1 : n;
}

static void client_add(int fd)
{
    if (fd >= CLIENTS_MAX)
        die("descriptor %d: too many clients", fd);
    greeted[fd] = false;
    if (tls != NULL && (tls_of[fd] = load_tls_on(tls, fd, NULL)) == NULL)
        die("TLS: %s", load_tls_error());
    id_of[fd] |= (uint32_t)fd;
    if (mode != MODE_FORWARD)
        return;
    set_nodelay(fd);
    place[fd] = n_clients;
    clients[n_clients++] = fd;
}

static void client_close(int fd)
{
    if (mode == MODE_FORWARD) {
        int last = clients[--n_clients];
        clients[place[fd]] = last;
        place[last] = place[fd];
    }
    id_of[fd] += CLIENTS_MAX;
    SSL_free(tls_of[fd]);
    tls_of[fd] = NULL;
    close(fd);
}

static void clients_accept(void)
{
    for (;;) {
        struct sockaddr_in peer;
        socklen_t len = sizeof(peer);
        int fd = accept4(client_listener, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
            return;
        if (fd < 0)
            die_errno("accept4");
        calls.accepts++;
        client_add(fd);
        watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

static void worker_accept(void)
{
    if (worker >= 0)
        close(worker);
    worker = accept4(worker_listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (worker < 0)
        die_errno("accept4");
    from_worker_len = 0;
    to_worker_start = to_worker_end = 0;
    set_nodelay(worker);
    watch(EPOLL_CTL_ADD, worker, EPOLLIN);
}

/* The request, or the end of the stream. A request comes in one piece, for tgg-load sends it in one. */
static void client_greet(int fd)
{
    static char request[4096];
    if (tls != NULL && !SSL_is_init_finished(tls_of[fd])) {
        int r = load_tls_greet(tls_of[fd]);
        if (r < 0)
            die("TLS: %s", load_tls_error());
        if (r == 0)
            return;
    }
    calls.client_reads++;
    ssize_t n = client_recv(fd, request, sizeof(request));
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        client_close(fd);
        return;
    }
    calls.client_writes++;
    if (client_write(fd, HANDSHAKE_ANSWER, sizeof(HANDSHAKE_ANSWER) - 1) < 0 && errno != ECONNRESET &&
        errno != EPIPE)
        die_errno("answering a handshake");
    greeted[fd] = true;
}

static void client_read(int fd)
{
    if (!greeted[fd] || mode != MODE_FORWARD) {
        client_greet(fd);
        return;
    }
    uint8_t *record = to_worker + to_worker_end;
    uint32_t frame = frame_in_head + payload;
    if (to_worker_end + PACKET_HEAD + payload > TO_WORKER_BYTES)
        die("the worker does not read");
    calls.client_reads++;
    ssize_t n = client_recv(fd, record + PACKET_HEAD - frame_in_head, frame);
    if (tls != NULL && n < 0 && errno == EAGAIN)
        return; /* not a whole record yet */
    if (n <= 0) {
        client_close(fd);
        return;
    }
    if ((size_t)n != frame)
        die("a client sent %zd bytes instead of a frame of %u", n, frame);
    packet_head(record, CMD_ON_MESSAGE, id_of[fd], 0, payload);
    to_worker_end += PACKET_HEAD + payload;
}

static void worker_flush(void)
{
    size_t len = to_worker_end - to_worker_start;
    if (len == 0 || worker < 0)
        return;
    calls.worker_writes++;
    ssize_t n = send(worker, to_worker + to_worker_start, len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        die_errno("sending to the worker");
    bool was_behind = to_worker_start != 0;
    to_worker_start += n < 0 ? 0 : (size_t)n;
    if (to_worker_start == to_worker_end) {
        to_worker_start = to_worker_end = 0;
        if (was_behind)
            watch(EPOLL_CTL_MOD, worker, EPOLLIN);
    } else if (!was_behind) {
        watch(EPOLL_CTL_MOD, worker, EPOLLIN | EPOLLOUT);
    }
}

static void client_send(int fd, const uint8_t *frame)
{
    calls.client_writes++;
    ssize_t n = client_write(fd, frame, frame_out_head + payload);
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET || errno == EBADF))
        return; /* gone: its end of stream is still to be read */
    if (n != (ssize_t)(frame_out_head + payload))
        die_errno("client %d does not read", fd);
}

static void record_deliver(uint8_t *record, uint32_t len)
{
    uint8_t *frame = record + PACKET_HEAD - frame_out_head;
    uint8_t cmd = record[PACKET_CMD_AT];
    uint32_t id = packet_u32(record + PACKET_CONNECTION_AT);
    int fd = (int)(id % CLIENTS_MAX);
    if (cmd != CMD_SEND_TO_ONE && cmd != CMD_SEND_TO_ALL)
        return; /* the worker says who it is */
    if (len != PACKET_HEAD + payload)
        die("the worker sent a record of %u bytes", len);
    memcpy(frame, canned_head, frame_out_head);
    if (cmd == CMD_SEND_TO_ONE) {
        if (id_of[fd] == id)
            client_send(fd, frame);
        return;
    }
    for (uint32_t i = 0; i < n_clients; i++) {
        if (greeted[clients[i]])
            client_send(clients[i], frame);
    }
}

static void worker_read(void)
{
    calls.worker_reads++;
    ssize_t n = recv(worker, from_worker + from_worker_len, WORKER_READ - from_worker_len, 0);
    if (n <= 0) {
        close(worker);
        worker = -1;
        return;
    }
    from_worker_len += (size_t)n;
    size_t at = 0;
    while (from_worker_len - at >= PACKET_HEAD) {
        uint32_t len = packet_u32(from_worker + at + PACKET_LEN_AT);
        if (len < PACKET_HEAD || len > WORKER_READ)
            die("the worker sent a record of %u bytes", len);
        if (from_worker_len - at < len)
            break;
        record_deliver(from_worker + at, len);
        at += len;
    }
    from_worker_len -= at;
    memmove(from_worker, from_worker + at, from_worker_len);
}

/* One turn: wait, read every client that has something, all of it to the worker in one call, then what the
 * worker has sent, each client's part in one call. */
static void turn(void)
{
    static struct epoll_event events[EVENTS_MAX];
    bool worker_readable = false;
    calls.turns++;
    int n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
    if (n < 0 && errno != EINTR)
        die_errno("epoll_wait");
    for (int i = 0; i < n; i++) {
        int fd = events[i].data.fd;
        calls.events++;
        if (fd == client_listener)
            clients_accept();
        else if (fd == worker_listener)
            worker_accept();
        else if (fd == worker)
            worker_readable = (events[i].events & ~(uint32_t)EPOLLOUT) != 0;
        else
            client_read(fd);
    }
    worker_flush();
    if (worker_readable)
        worker_read();
}

static void on_signal(int sig)
{
    stopping = 1;
}

static void frame_sizes_set(void)
{
    bool small = payload < 126;
    frame_in_head = small ? 6 : 8;
    frame_out_head = small ? 2 : 4;
    canned_head[0] = 0x81;
    canned_head[1] = small ? (uint8_t)payload : 126;
    canned_head[2] = (uint8_t)(payload >> 8);
    canned_head[3] = (uint8_t)payload;
}

static void take_mode(const struct arg *arg, const char *text)
{
    static const char *const names[] = {
        [MODE_FORWARD] = "forward", [MODE_ACCEPT] = "accept", [MODE_ACCEPT_HANDSHAKE] = "accept-handshake"};
    *(enum mode *)arg->into = (enum mode)arg_choice(arg, text, names, 3);
}

static const char usage_text[] =
    "usage: tgg-floor --listen ADDRESS:PORT [--worker-listen ADDRESS:PORT] [--payload BYTES]\n"
    "                 [--mode forward|accept|accept-handshake] [--tls PEM]\n";

static void options_parse(int argc, char **argv)
{
    struct sockaddr_in listen_on = {0}, worker_on = {0};
    const char *pem = NULL;
    const struct arg args[] = {
        {"--listen", arg_address, &listen_on},
        {"--worker-listen", arg_address, &worker_on},
        {"--payload", arg_u32, &payload, 1, 65535},
        {"--mode", take_mode, &mode},
        {"--tls", arg_text, &pem},
    };
    int rest = args_parse(argc, argv, args, sizeof(args) / sizeof(args[0]), usage_text);
    if (rest != argc || listen_on.sin_port == 0 || (worker_on.sin_port == 0) != (mode != MODE_FORWARD))
        usage(usage_text);
    if (pem != NULL && (tls = load_tls_server(pem)) == NULL)
        die("TLS: %s", load_tls_error());
    client_listener = tcp_listen(&listen_on);
    if (mode == MODE_FORWARD)
        worker_listener = tcp_listen(&worker_on);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    options_parse(argc, argv);
    raise_file_limit();
    frame_sizes_set();
    to_worker = xcalloc(1, TO_WORKER_BYTES);
    from_worker = xcalloc(1, WORKER_READ);
    epoll_fd = xepoll_create();
    watch(EPOLL_CTL_ADD, client_listener, EPOLLIN);
    if (worker_listener >= 0)
        watch(EPOLL_CTL_ADD, worker_listener, EPOLLIN);
    if (sigaction(SIGTERM, &action, NULL) < 0 || sigaction(SIGINT, &action, NULL) < 0)
        die_errno("sigaction");
    say_ready();
    while (!stopping)
        turn();
    printf("{\"turns\":%lu,\"events\":%lu,\"accepts\":%lu,\"client_reads\":%lu,\"client_writes\":%lu,"
           "\"worker_reads\":%lu,\"worker_writes\":%lu}\n",
           calls.turns, calls.events, calls.accepts, calls.client_reads, calls.client_writes,
           calls.worker_reads, calls.worker_writes);
    return 0;
}
