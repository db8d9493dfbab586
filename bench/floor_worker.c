// SPDX-License-Identifier: MIT
/* tgg-floor-worker: the business worker of the benchmarks, the same one behind the floor and behind the
 * gateway, so that neither is favoured by what stands behind it. It speaks as much of the internal protocol
 * as it needs, blocking, one read and one write per turn.
 *
 *   --reply one   each message goes back to its client (SEND_TO_ONE)
 *   --reply all   each message goes to every client (SEND_TO_ALL)
 *   --reply marked   those that begin with an f go to every client, the others back to theirs
 *   --reply store "set KEY VALUE" keeps the value and is answered "ok KEY", "get KEY" with the value last
 *                 set; KEY is a number of eight hexadecimal digits, below STORE_KEYS
 *   --settle      each new client gets a uid of its own, one group (of --group-size clients), a session of 64
 * bytes, and then the message "ready", which tells it that all of that is in place */
#include "common.h"
#include "packet.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES  (256u * 1024)
#define REPLY_BYTES (4u * 1024 * 1024)
#define STORE_KEYS  16384u
#define VALUE_MAX   1024u

enum reply { REPLY_ONE, REPLY_ALL, REPLY_MARKED, REPLY_STORE };

static struct sockaddr_in gateway;
static const char *name = "bench";
static uint32_t id;
static enum reply reply_kind;
static bool settle;
static uint32_t group_size = 100;

static int fd;
static uint8_t input[READ_BYTES];
static size_t input_len;
static uint8_t reply[REPLY_BYTES];
static size_t reply_len;
static uint32_t n_settled;

static struct value {
    uint32_t len;
    uint8_t data[VALUE_MAX];
} store[STORE_KEYS];

static void reply_flush(void)
{
    for (size_t sent = 0; sent < reply_len;) {
        ssize_t n = send(fd, reply + sent, reply_len - sent, MSG_NOSIGNAL);
        if (n < 0)
            die_errno("sending to the gateway");
        sent += (size_t)n;
    }
    reply_len = 0;
}

static void reply_add(uint8_t cmd, uint32_t connection, const void *ext, uint32_t ext_len, const void *body,
                      uint32_t body_len)
{
    uint32_t len = PACKET_HEAD + ext_len + body_len;
    if (reply_len + len > REPLY_BYTES)
        reply_flush();
    uint8_t *p = reply + reply_len;
    packet_head(p, cmd, connection, ext_len, body_len);
    memcpy(p + PACKET_HEAD, ext, ext_len);
    memcpy(p + PACKET_HEAD + ext_len, body, body_len);
    reply_len += len;
}

static void client_settle(uint32_t connection)
{
    char text[80];
    int n = snprintf(text, sizeof(text), "user-%u", connection);
    reply_add(CMD_BIND_UID, connection, text, (uint32_t)n, "", 0);
    n = snprintf(text, sizeof(text), "room-%u", n_settled++ / group_size);
    reply_add(CMD_JOIN_GROUP, connection, text, (uint32_t)n, "", 0);
    n = snprintf(text, sizeof(text), "a:1:{s:4:\"name\";s:39:\"user %034u\";}", connection);
    if (n != 64)
        die("the session has %d bytes", n);
    reply_add(CMD_SET_SESSION, connection, text, (uint32_t)n, "", 0);
    reply_add(CMD_SEND_TO_ONE, connection, "", 0, "ready", 5);
}

static struct value *value_of(const uint8_t *digits)
{
    char text[9] = {0};
    memcpy(text, digits, 8);
    return &store[strtoul(text, NULL, 16) % STORE_KEYS];
}

/* verb, space, eight digits, space, value */
static void store_answer(uint32_t connection, const uint8_t *p, uint32_t len)
{
    uint8_t done[] = "ok 00000000";
    if (len < 12)
        die("a command of %u bytes", len);
    struct value *v = value_of(p + 4);
    if (memcmp(p, "get ", 4) == 0) {
        reply_add(CMD_SEND_TO_ONE, connection, "", 0, v->data, v->len);
        return;
    }
    if (memcmp(p, "set ", 4) != 0 || len < 13 || len - 13 > VALUE_MAX)
        die("a command that is none: %.12s", (const char *)p);
    v->len = len - 13;
    memcpy(v->data, p + 13, v->len);
    memcpy(done + 3, p + 4, 8);
    reply_add(CMD_SEND_TO_ONE, connection, "", 0, done, sizeof(done) - 1);
}

static void message_answer(uint32_t connection, const uint8_t *p, uint32_t len)
{
    if (reply_kind == REPLY_STORE) {
        store_answer(connection, p, len);
        return;
    }
    bool to_all = reply_kind == REPLY_ALL || (reply_kind == REPLY_MARKED && len > 0 && p[0] == 'f');
    reply_add(to_all ? CMD_SEND_TO_ALL : CMD_SEND_TO_ONE, to_all ? 0 : connection, "", 0, p, len);
}

static void packet_take(const uint8_t *p, uint32_t len)
{
    uint32_t connection = packet_u32(p + PACKET_CONNECTION_AT);
    uint32_t ext_len = packet_u32(p + PACKET_EXT_LEN_AT);
    if (ext_len > len - PACKET_HEAD)
        die("ext_len %u in a packet of %u bytes", ext_len, len);
    uint32_t body_at = PACKET_HEAD + ext_len;
    if (p[PACKET_CMD_AT] == CMD_ON_MESSAGE)
        message_answer(connection, p + body_at, len - body_at);
    else if (p[PACKET_CMD_AT] == CMD_ON_CONNECT && settle)
        client_settle(connection);
}

static void input_take(void)
{
    size_t at = 0;
    while (input_len - at >= PACKET_HEAD) {
        uint32_t len = packet_u32(input + at + PACKET_LEN_AT);
        if (len < PACKET_HEAD || len > READ_BYTES)
            die("a packet of %u bytes", len);
        if (input_len - at < len)
            break;
        packet_take(input + at, len);
        at += len;
    }
    input_len -= at;
    memmove(input, input + at, input_len);
}

static void greet(void)
{
    char body[200];
    int n = snprintf(body, sizeof(body), "{\"worker_key\":\"%s:%u\",\"secret_key\":\"\"}", name, id);
    if (n < 0 || (size_t)n >= sizeof(body))
        die("--name is too long");
    reply_add(CMD_WORKER_CONNECT, 0, "", 0, body, (uint32_t)n);
    reply_flush();
}

static void take_reply(const struct arg *arg, const char *text)
{
    static const char *const names[] = {
        [REPLY_ONE] = "one", [REPLY_ALL] = "all", [REPLY_MARKED] = "marked", [REPLY_STORE] = "store"};
    *(enum reply *)arg->into = (enum reply)arg_choice(arg, text, names, 4);
}

static const char usage_text[] =
    "usage: tgg-floor-worker --gateway ADDRESS:PORT [--name NAME] [--id N]\n"
    "                        [--reply one|all|marked|store] [--settle] [--group-size N]\n";

static void options_parse(int argc, char **argv)
{
    const struct arg args[] = {
        {"--gateway", arg_address, &gateway}, {"--name", arg_text, &name},
        {"--id", arg_u32, &id, 0, 65535},     {"--reply", take_reply, &reply_kind},
        {"--settle", arg_flag, &settle},      {"--group-size", arg_u32, &group_size, 1, 1000000},
    };
    int rest = args_parse(argc, argv, args, sizeof(args) / sizeof(args[0]), usage_text);
    if (rest != argc || gateway.sin_port == 0)
        usage(usage_text);
}

int main(int argc, char **argv)
{
    options_parse(argc, argv);
    fd = tcp_connect_blocking(&gateway);
    set_nodelay(fd);
    greet();
    say_ready();
    for (;;) {
        ssize_t n = recv(fd, input + input_len, READ_BYTES - input_len, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return 0;
        if (n < 0)
            die_errno("reading from the gateway");
        input_len += (size_t)n;
        input_take();
        if (reply_len > 0)
            reply_flush();
    }
}
