// SPDX-License-Identifier: MIT
#include "supervisor/distribution.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "common/settings.h"
#include "supervisor/listeners.h"

void distribution_init(struct distribution *d)
{
    *d = (struct distribution){.fd = -1};
}

static void close_fd(struct distribution *d)
{
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}

void distribution_fini(struct distribution *d)
{
    close_fd(d);
    distribution_init(d);
}

bool distribution_waits(const struct distribution *d)
{
    return d->fd >= 0;
}

static void send_to(struct distribution *d, const struct node *node, unsigned receiver)
{
    struct settings s = {.generation = d->generation, .files_fd = d->fd};
    listeners_tell(d->listeners, receiver < node->n_shards ? receiver : LISTENERS_NO_SHARD, &s);
    int r = settings_send(node->settings_fds[receiver][1], &s);
    d->waits[receiver] = r == -EAGAIN;
    if (r < 0 && r != -EAGAIN)
        LOG(LOG_ERROR, "settings_not_sent",
            "%s=%u generation=%" PRIu64 " error=\"%s\" note=\"it goes on with the old ones\"",
            receiver < node->n_shards ? "shard" : "admin", receiver, d->generation, strerror(-r));
}

void distribution_turn(struct distribution *d, const struct node *node)
{
    bool waits = false;

    if (d->fd < 0)
        return;
    if (d->listeners->n == 0) { /* they are closed: the gateway ends */
        close_fd(d);
        return;
    }
    for (unsigned i = 0; i <= node->n_shards; i++) {
        if (d->waits[i])
            send_to(d, node, i);
        waits |= d->waits[i];
    }
    if (!waits)
        close_fd(d);
}

void distribution_begin(struct distribution *d, const struct node *node, const struct listeners *l, int fd)
{
    close_fd(d);
    d->fd = fd;
    d->listeners = l;
    d->generation++;
    for (unsigned i = 0; i <= node->n_shards; i++)
        d->waits[i] = node->settings_fds[i][1] >= 0;
    distribution_turn(d, node);
}

void distribution_skip(struct distribution *d, const struct node *node, const struct listeners *l,
                       unsigned receiver)
{
    settings_drain(node->settings_fds[receiver][0]);
    d->waits[receiver] = false;
    if (receiver < node->n_shards)
        node_shard_took_settings(&node->shared->shards[receiver], d->generation, listeners_slots(l));
    distribution_turn(d, node);
}
