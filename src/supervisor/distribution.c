// SPDX-License-Identifier: MIT
#include "supervisor/distribution.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "common/settings.h"

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

static void send_to(struct distribution *d, const struct node *node, unsigned shard)
{
    int r = settings_send(node->settings_fds[shard][1], d->generation, d->fd);
    d->waits[shard] = r == -EAGAIN;
    if (r < 0 && r != -EAGAIN)
        LOG(LOG_ERROR, "settings_not_sent",
            "shard=%u generation=%" PRIu64 " error=\"%s\" note=\"it goes on with the old ones\"", shard,
            d->generation, strerror(-r));
}

void distribution_turn(struct distribution *d, const struct node *node)
{
    bool waits = false;

    if (d->fd < 0)
        return;
    for (unsigned i = 0; i < node->n_shards; i++) {
        if (d->waits[i])
            send_to(d, node, i);
        waits |= d->waits[i];
    }
    if (!waits)
        close_fd(d);
}

void distribution_begin(struct distribution *d, const struct node *node, int fd)
{
    close_fd(d);
    d->fd = fd;
    d->generation++;
    for (unsigned i = 0; i < node->n_shards; i++)
        d->waits[i] = true;
    distribution_turn(d, node);
}

void distribution_skip(struct distribution *d, const struct node *node, unsigned shard)
{
    settings_drain(node->settings_fds[shard][0]);
    d->waits[shard] = false;
    distribution_turn(d, node);
}
