// SPDX-License-Identifier: MIT
#include "shard/new_settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "common/files.h"
#include "shard/shard.h"

#define RETRY_MS 1000
/* Taken from the queue of a socket that goes; beyond that somebody floods it. */
#define LAST_ACCEPTS_MAX 4096

/* ---- sockets */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static bool has_socket(const struct settings *s, uint32_t number)
{
    for (unsigned i = 0; i < s->n_listeners; i++) {
        if (s->listeners[i].socket == number)
            return true;
    }
    return false;
}

/* What waits in the queue of a socket that goes is let in: when the last descriptor is closed it would be
 * reset. */
static void serve_leavers(struct new_settings *n, const struct settings *s)
{
    for (unsigned slot = 0; slot < CONFIG_LISTEN_MAX; slot++) {
        struct net_listener *l = shard_listener(n->shard, slot);
        int listening = n->sockets[slot].fd, fd;
        if (listening < 0 || l == NULL || has_socket(s, n->sockets[slot].number))
            continue;
        for (unsigned i = 0; i < LAST_ACCEPTS_MAX; i++) {
            fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd >= 0)
                net_epoll_adopt(n->net, l, fd);
            else if (errno != ECONNABORTED && errno != EINTR)
                break;
        }
    }
}

/* Of sockets that it listens on already the descriptor stays; the one that has come is another of the same.
 */
static void use_own(const struct new_settings *n, struct settings *s)
{
    for (unsigned i = 0; i < s->n_listeners; i++) {
        struct settings_listener *l = &s->listeners[i];
        if (n->is_closed)
            l->fd = -1;
        else if (l->fd >= 0 && shard_listens_on(n->shard, l->slot, l->socket))
            l->fd = n->sockets[l->slot].fd;
    }
}

/* They are what is listened on now: every other descriptor goes. */
static void take_sockets(struct new_settings *n, const struct settings *now)
{
    for (unsigned slot = 0; slot < CONFIG_LISTEN_MAX; slot++) {
        int fd = -1;
        for (unsigned i = 0; i < now->n_listeners; i++) {
            if (now->listeners[i].slot == slot) {
                fd = now->listeners[i].fd;
                n->sockets[slot].number = now->listeners[i].socket;
            }
        }
        if (n->sockets[slot].fd != fd)
            close_fd(&n->sockets[slot].fd);
        n->sockets[slot].fd = fd;
    }
    for (unsigned i = 0; i < n->pending.n_listeners; i++) {
        struct settings_listener *l = &n->pending.listeners[i];
        if (l->fd >= 0 && l->fd != now->listeners[i].fd)
            close(l->fd);
        l->fd = -1; /* else it is in sockets[] */
    }
}

static void tell_handoff(struct new_settings *n, const struct settings_listener *list, unsigned n_list)
{
    for (unsigned i = 0; i < n_list; i++)
        n->listeners[list[i].slot] = (struct handoff_listener){
            .listener = shard_listener(n->shard, list[i].slot), .since = list[i].since, .made = list[i].made};
}

/* ---- taking over */

/* 0: it is in force. */
static int try_apply(struct new_settings *n, struct settings *now)
{
    struct files *files;
    struct config *changed = malloc(sizeof *changed);
    int r = changed != NULL ? files_open_config(n->pending.files_fd, n->cfg->source_path, &files, changed)
                            : -ENOMEM;
    if (r == 0) {
        if (n->handoff != NULL)
            handoff_take(n->handoff);
        serve_leavers(n, now);
        use_own(n, now);
        r = shard_reload(n->shard, changed, files, now);
        config_fini(changed);
        files_free(files);
    }
    free(changed);
    return r;
}

static void on_retry(struct timer *t);

/* The supervisor has checked it; what can still go wrong here is memory, and that may be better soon. */
static void take_over(struct new_settings *n)
{
    struct settings now = n->pending;
    int r = try_apply(n, &now);
    if (r != 0) {
        LOG(LOG_ERROR, "shard_not_reloaded", "generation=%" PRIu64 " error=\"%s\" again_in_ms=%d",
            n->pending.generation, strerror(-r), RETRY_MS);
        timer_set(n->loop, &n->retry, RETRY_MS, on_retry);
        return;
    }
    take_sockets(n, &now);
    tell_handoff(n, now.listeners, now.n_listeners);
    LOG(LOG_NOTICE, "shard_reloaded", "generation=%" PRIu64, n->pending.generation);
    uint64_t generation = n->pending.generation;
    settings_close(&n->pending);
    shard_took_settings(n->shard, generation);
    n->is_pending = false;
    timer_cancel(n->loop, &n->retry);
}

static void on_retry(struct timer *t)
{
    take_over(CONTAINER_OF(t, struct new_settings, retry));
}

/* Of several only the newest counts. */
static void on_readable(struct net_watch *w)
{
    struct new_settings *n = CONTAINER_OF(w, struct new_settings, watch);
    struct settings next;
    bool any = false;
    int r;

    while ((r = settings_receive(n->fd, &next)) == 0 || r == -EBADMSG) {
        if (r < 0) {
            LOG(LOG_ERROR, "settings_lost", "hint=\"see the file limit (ulimit -n), then reload again\"");
            continue;
        }
        if (n->is_pending)
            settings_close(&n->pending);
        n->pending = next;
        n->is_pending = any = true;
    }
    if (r != -EAGAIN)
        net_epoll_watch_remove(n->net, w); /* the supervisor is dead */
    if (any)
        take_over(n);
}

/* ---- beginning and end */

int new_settings_begin(struct new_settings *n, const struct shard_start *start, struct shard *shard,
                       struct loop *loop, struct net *net)
{
    n->loop = loop;
    n->net = net;
    n->shard = shard;
    n->cfg = start->cfg;
    n->fd = start->settings_fd;
    for (unsigned slot = 0; slot < CONFIG_LISTEN_MAX; slot++)
        n->sockets[slot].fd = -1;
    for (unsigned i = 0; start->listeners != NULL && i < start->cfg->n_listeners; i++) {
        const struct settings_listener *l = &start->listeners[i];
        n->sockets[l->slot].fd = l->fd;
        n->sockets[l->slot].number = l->socket;
    }
    if (start->listeners != NULL)
        tell_handoff(n, start->listeners, start->cfg->n_listeners);
    n->watch.readable = on_readable;
    return n->fd >= 0 ? net_epoll_watch_add(net, &n->watch, n->fd) : 0;
}

void new_settings_end(struct new_settings *n)
{
    if (n->loop == NULL)
        return;
    timer_cancel(n->loop, &n->retry);
    net_epoll_watch_remove(n->net, &n->watch);
    if (n->is_pending)
        settings_close(&n->pending);
}

/* The net has only let go of them. The supervisor has its own for a successor; when the whole node ends it
 * has closed those, and clients who come back at once are refused now, instead of waiting in a queue that
 * nobody serves. */
void new_settings_close_sockets(struct new_settings *n)
{
    n->is_closed = true;
    for (unsigned slot = 0; slot < CONFIG_LISTEN_MAX; slot++)
        close_fd(&n->sockets[slot].fd);
}
