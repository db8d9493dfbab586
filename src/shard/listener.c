// SPDX-License-Identifier: MIT
/* Listeners come and go. Each has a slot, at an address that stays: its clients point to it.
 *
 *   free ──> listens ──> removed ──> free
 *              │  ^         │ with its configuration, TLS and lists, as they were,
 *              └─ each ─┘   │ until its last client has gone
 *                reload     └──> listens (the same one is added again)
 *
 * A removed one has no socket, but what other shards have accepted for it meanwhile it still takes. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/settings.h"

/* ---- sockets */

static int parse_listen_addr(const struct config_listen *l, struct net_addr *ret)
{
    char text[NET_ADDR_STRLEN + 16];
    bool v6 = strchr(l->address, ':') != NULL;
    snprintf(text, sizeof text, v6 ? "[%s]:%u" : "%s:%u", l->address, (unsigned)l->port);
    return net_addr_parse(text, ret);
}

static int listen_on(struct shard *s, struct shard_listener *l, const struct config_listen *cfg, int fd)
{
    l->shard = s;
    l->listener.ops = &client_listener_ops;
    if (fd >= 0)
        return net_listen_fd(s->host.net, &l->listener, fd);
    struct net_addr addr;
    int err = parse_listen_addr(cfg, &addr);
    return err != 0 ? err : net_listen(s->host.net, &l->listener, &addr, (int)cfg->backlog);
}

static void stop_listening(struct shard *s, struct shard_listener *l)
{
    if (l->listener.handle != 0)
        net_listener_close(s->host.net, &l->listener);
}

void listeners_stop(struct shard *s)
{
    for (unsigned i = 0; i < s->n_listeners; i++)
        stop_listening(s, &s->listeners[i]);
}

/* ---- slots */

static inline bool is_present(const struct shard_listener *l)
{
    return l->config != NULL && !l->removed;
}

struct shard_listener *listener_of(const struct shard *s, unsigned i)
{
    for (unsigned slot = 0; slot < s->n_listeners; slot++)
        if (s->listeners[slot].config == &s->host.config->listen[i])
            return &s->listeners[slot];
    UNREACHABLE();
}

static uint64_t used_slots(const struct shard *s)
{
    uint64_t slots = 0;
    for (unsigned i = 0; i < s->n_listeners; i++)
        slots |= (uint64_t)(s->listeners[i].config != NULL) << i;
    return slots;
}

/* Which of them share a socket, and where the last one is. */
static void look_over(struct shard *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++) {
        struct shard_listener *l = &s->listeners[i];
        if (l->config != NULL)
            n = i + 1;
        if (!is_present(l))
            continue;
        l->shares = false;
        for (unsigned j = 0; j < CONFIG_LISTEN_MAX; j++)
            l->shares |= j != i && is_present(&s->listeners[j]) && s->listeners[j].socket == l->socket;
    }
    s->n_listeners = n;
}

static void put_into(struct shard *s, const struct settings_listener *at, unsigned i)
{
    struct shard_listener *l = &s->listeners[at->slot];
    if (l->removed)
        config_listen_fini(&l->kept);
    l->removed = false;
    l->shard = s;
    l->listener.ops =
        &client_listener_ops; /* what others have accepted for it, it takes before it has a socket */
    l->config = &s->host.config->listen[i];
    l->socket = at->socket;
}

/* Nobody can come to it any more: its clients are gone, and no shard gives it one. */
static bool is_left(const struct shard *s, const struct shard_listener *l)
{
    if (!l->removed || l->n_clients > 0)
        return false;
    for (unsigned i = 0; i < s->host.node->n_shards; i++)
        if (i != s->number && !node_shard_has_settings(&s->shared->shards[i], l->removed_by))
            return false;
    return true;
}

void listeners_reap(struct shard *s)
{
    bool any = false;
    for (unsigned i = 0; i < s->n_listeners; i++) {
        struct shard_listener *l = &s->listeners[i];
        if (!is_left(s, l))
            continue;
        edge_listener_fini(l);
        config_listen_fini(&l->kept);
        *l = (struct shard_listener){.config = NULL};
        any = true;
    }
    if (!any)
        return;
    look_over(s);
    NODE_STORE(shard_published(s)->listener_slots, used_slots(s));
}

/* ---- beginning and end */

static struct settings_listener place_at_start(const struct shard *s, const struct shard_options *opt,
                                               unsigned i)
{
    if (opt->listeners != NULL)
        return opt->listeners[i];
    return (struct settings_listener){
        .slot = (uint16_t)i, .socket = config_listen_socket_of(s->host.config, i) + 1, .fd = -1};
}

int listeners_make(struct shard *s, const struct shard_options *opt)
{
    s->listeners = calloc(CONFIG_LISTEN_MAX, sizeof *s->listeners);
    if (s->listeners == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < s->host.config->n_listeners; i++) {
        struct settings_listener at = place_at_start(s, opt, i);
        put_into(s, &at, i);
    }
    look_over(s);
    NODE_STORE(shard_published(s)->listener_slots, used_slots(s));
    return 0;
}

int listeners_listen(struct shard *s, const struct shard_options *opt)
{
    int err = 0;
    for (unsigned i = 0; err == 0 && i < s->host.config->n_listeners; i++) {
        struct settings_listener at = place_at_start(s, opt, i);
        bool has_socket =
            opt->listeners != NULL ? at.fd >= 0 : config_listen_socket_of(s->host.config, i) == i;
        if (has_socket)
            err = listen_on(s, &s->listeners[at.slot], &s->host.config->listen[i], at.fd);
    }
    return err;
}

void listeners_fini(struct shard *s)
{
    for (unsigned i = 0; i < s->n_listeners; i++) {
        edge_listener_fini(&s->listeners[i]);
        if (s->listeners[i].removed)
            config_listen_fini(&s->listeners[i].kept);
    }
    free(s->listeners);
    s->listeners = NULL;
    s->n_listeners = 0;
}

/* ---- a reload */

/* The supervisor never gives a slot to another listener as long as we use it. */
static bool is_possible(const struct shard *s, const struct config *changed, const struct settings *settings)
{
    uint64_t slots = 0;
    if (settings->n_listeners != changed->n_listeners)
        return false;
    for (unsigned i = 0; i < settings->n_listeners; i++) {
        unsigned slot = settings->listeners[i].slot;
        const struct shard_listener *l = &s->listeners[slot];
        if ((slots >> slot & 1) != 0 ||
            (l->config != NULL && strcmp(l->config->name, changed->listen[i].name) != 0))
            return false;
        slots |= UINT64_C(1) << slot;
    }
    return true;
}

int listeners_check(const struct shard *s, const struct config *changed, const struct settings *settings)
{
    return s->listeners == NULL || is_possible(s, changed, settings) ? 0 : -EINVAL;
}

void listeners_undo(struct shard *s, uint64_t opened)
{
    for (unsigned slot = 0; slot < CONFIG_LISTEN_MAX; slot++) {
        struct shard_listener *l = &s->listeners[slot];
        if ((opened >> slot & 1) == 0)
            continue;
        stop_listening(s, l);
        if (l->config == NULL)
            *l = (struct shard_listener){.config = NULL};
    }
}

int listeners_begin(struct shard *s, const struct settings *settings, uint64_t *ret_opened)
{
    uint64_t opened = 0;
    for (unsigned i = 0; i < settings->n_listeners && !s->draining; i++) {
        const struct settings_listener *at = &settings->listeners[i];
        struct shard_listener *l = &s->listeners[at->slot];
        if (at->fd < 0 || (l->listener.handle != 0 && l->socket == at->socket))
            continue;
        /* Removed and added again while we were busy: of the two sockets only the newer one counts. */
        stop_listening(s, l);
        int err = listen_on(s, l, &s->host.config->listen[i], at->fd);
        if (err != 0) {
            listeners_undo(s, opened);
            return err;
        }
        opened |= UINT64_C(1) << at->slot;
    }
    *ret_opened = opened;
    return 0;
}

static bool is_among(const struct settings *settings, unsigned slot)
{
    for (unsigned i = 0; i < settings->n_listeners; i++)
        if (settings->listeners[i].slot == slot)
            return true;
    return false;
}

/* Its configuration is in `old`, where it was in ours. */
static void remove_listener(struct shard *s, struct shard_listener *l, struct config *old,
                            uint64_t generation)
{
    unsigned i = (unsigned)(l->config - s->host.config->listen);
    stop_listening(s, l);
    config_listen_take(old, i, &l->kept);
    l->config = &l->kept;
    l->removed = true;
    l->removed_by = generation;
    if (l->n_clients > 0)
        LOG(LOG_NOTICE, "listener_closed", "name=%s clients=%u", l->config->name, l->n_clients);
}

void listeners_take(struct shard *s, struct config *old, const struct settings *settings)
{
    for (unsigned slot = 0; slot < s->n_listeners; slot++)
        if (is_present(&s->listeners[slot]) && !is_among(settings, slot))
            remove_listener(s, &s->listeners[slot], old, settings->generation);
    for (unsigned i = 0; i < settings->n_listeners; i++) {
        const struct settings_listener *at = &settings->listeners[i];
        if (at->fd < 0) /* an earlier one has the socket now */
            stop_listening(s, &s->listeners[at->slot]);
        put_into(s, at, i);
    }
    look_over(s);
}

void shard_took_settings(struct shard *s, uint64_t generation)
{
    node_shard_took_settings(shard_published(s), generation, used_slots(s));
}
