// SPDX-License-Identifier: MIT
/* The other side of hand_over.c. */
#include "register/register_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pool.h"
#include "common/config.h"
#include "common/fault.h"

#define TAKE_MS   15000 /* more than the other one gives itself: it is the one that gives up */
#define NS_PER_MS UINT64_C(1000000)

struct take_over {
    struct register_server *server;
    struct register_channel channel;
    struct register_taken *taken;
    uint64_t deadline_ns, records;
    char why[300];
};

static int __attribute__((format(printf, 3, 4))) fail(struct take_over *t, int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->why, sizeof t->why, fmt, ap);
    va_end(ap);
    return err;
}

/* ---- sockets */

/* A configuration that names another address is meant to have an effect, and an upgrade cannot give it one.
 */
static int check_address(struct take_over *t, int fd)
{
    const struct config_register *cfg = &t->server->config->reg;
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    struct net_addr addr, wanted;
    char text[NET_ADDR_STRLEN];

    if (getsockname(fd, (struct sockaddr *)&bound, &len) < 0)
        return fail(t, -errno, "the socket that came is none: %s", strerror(errno));
    net_addr_from_sockaddr(&bound, &addr);
    bool same = net_addr_parse_ip(cfg->address, strlen(cfg->address), &wanted) == 0 &&
                addr.port == cfg->port && addr.family == wanted.family &&
                memcmp(addr.ip, wanted.ip, sizeof addr.ip) == 0;
    return same ? 0
                : fail(t, -EINVAL,
                       "it listens on %s, and its configuration says %s port %" PRIu64
                       ": that takes a restart",
                       net_addr_format(&addr, text, sizeof text), cfg->address, cfg->port);
}

static int take_socket(struct take_over *t, struct transfer_record *record)
{
    struct transfer_register_listener r;
    struct register_taken *taken = t->taken;
    bool fits = transfer_get_register_listener(record->fields, &r) == 0 && record->handle >= 0 &&
                r.kind <= REGISTER_LISTENER_UPGRADE && r.path.len < sizeof taken->socket_path;
    int *to = fits && r.kind == REGISTER_LISTENER_UPGRADE ? &taken->socket_fd : &taken->listen_fd;

    if (!fits || *to >= 0) {
        if (record->handle >= 0)
            close(record->handle);
        return fail(t, -EBADMSG, "a socket that makes no sense came");
    }
    *to = record->handle;
    if (r.kind == REGISTER_LISTENER_PEERS)
        return check_address(t, *to);
    snprintf(taken->socket_path, sizeof taken->socket_path, "%.*s", (int)r.path.len,
             (const char *)r.path.data);
    return 0;
}

/* ---- records */

static int take_peer(struct take_over *t, const struct transfer_record *record)
{
    int r = register__peer_take(t->server, record);
    if (r == -EUSERS)
        fail(t, r, "there are more connections than max_connections of its configuration, %" PRIu64,
             t->server->config->reg.max_connections);
    else if (r < 0)
        fail(t, r, "a connection could not be taken over: %s", strerror(-r));
    return r;
}

/* 1: that was all. */
static int take_end(struct take_over *t, const struct transfer_record *record)
{
    struct transfer_end end;
    bool complete =
        transfer_get_end(record->fields, &end) == 0 && end.records == t->records && t->taken->listen_fd >= 0;
    return complete ? 1 : fail(t, -EBADMSG, "not everything came");
}

static int take_record(struct take_over *t, struct transfer_record *record)
{
    switch (record->type) {
    case TRANSFER_TYPE_register_listener: t->records++; return take_socket(t, record);
    case TRANSFER_TYPE_register_peer: t->records++; return take_peer(t, record);
    case TRANSFER_TYPE_end: return take_end(t, record);
    default:
        if (record->handle >= 0)
            close(record->handle);
        return fail(t, -EBADMSG, "a record of type %d came, which is none of a register's",
                    (int)record->type);
    }
}

static int take_all(struct take_over *t)
{
    struct transfer_record record;
    int r;

    do {
        r = register__channel_wait(&t->channel, t->deadline_ns, &record);
        if (r < 0)
            return fail(t, r, "%s", r == -EPIPE ? "the other process has ended" : strerror(-r));
        r = take_record(t, &record);
    } while (r == 0);
    return r < 0 ? r : 0;
}

/* ---- the course */

/* It may have died meanwhile: then there is nobody but this one. */
static int wait_for_go(struct take_over *t)
{
    struct transfer_record record;
    struct transfer_register_word w;

    int r = register__channel_wait(&t->channel, t->deadline_ns, &record);
    if (r == -EPIPE) {
        LOG(LOG_WARN, "register_before_is_gone", "note=\"it ended after it had handed over everything\"");
        return 0;
    }
    if (r < 0)
        return fail(t, r, "no word to go: %s", strerror(-r));
    bool go = register__word_of(&record, &w) == 0 && w.word == REGISTER_WORD_GO;
    return go ? 0 : fail(t, -EBADMSG, "something else than the word to go came");
}

static int say(struct take_over *t, enum register_word word, const char *text)
{
    int r = register__channel_say(&t->channel, word, pool_used(t->server->peers), text);
    return r == 0 || r == -EPIPE ? 0 : fail(t, r, "it does not listen: %s", strerror(-r));
}

static int at(struct take_over *t, const char *step)
{
    return fault_at(step) == 0 ? 0 : fail(t, -EIO, "%s", step);
}

static int course(struct take_over *t)
{
    int r = at(t, "new_register.start");
    if (r == 0)
        r = say(t, REGISTER_WORD_READY, TGG_VERSION);
    if (r == 0)
        r = take_all(t);
    if (r == 0)
        r = at(t, "new_register.taken");
    if (r == 0)
        r = net_listen_fd(t->server->net, &t->server->listener, t->taken->listen_fd);
    if (r == 0)
        r = say(t, REGISTER_WORD_TAKEN, NULL);
    if (r == 0)
        r = wait_for_go(t);
    if (r == 0)
        r = at(t, "new_register.go");
    if (r == 0)
        r = say(t, REGISTER_WORD_SERVING, NULL);
    if (r == 0)
        fault_at("new_register.serving");
    return r;
}

/* All connections are still the other one's, and must not hear of this. */
static void undo(struct take_over *t)
{
    register__forget_all(t->server);
    if (t->server->listener.handle != 0)
        net_listener_close(t->server->net, &t->server->listener);
    if (t->taken->listen_fd >= 0)
        close(t->taken->listen_fd);
    if (t->taken->socket_fd >= 0)
        close(t->taken->socket_fd);
}

int register__take_over(struct register_server *s, int fd, struct register_taken *ret)
{
    struct take_over t = {.server = s, .taken = ret};

    *ret = (struct register_taken){.listen_fd = -1, .socket_fd = -1};
    t.deadline_ns = loop_clock_ns(s->loop) + TAKE_MS * NS_PER_MS;
    int r = register__channel_open(&t.channel, fd, t.deadline_ns);
    if (r < 0) {
        close(fd);
        return r;
    }
    r = course(&t);
    if (r < 0) {
        if (t.why[0] == '\0')
            fail(&t, r, "%s", strerror(-r));
        LOG(LOG_ERROR, "register_not_taken_over", "why=%s", log_quote(t.why, strlen(t.why)));
        register__channel_say(&t.channel, REGISTER_WORD_FAILED, 0, t.why);
        undo(&t);
    }
    register__channel_close(&t.channel);
    return r;
}
