// SPDX-License-Identifier: MIT
#include "supervisor/upgrade_spares.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "supervisor/supervisor_priv.h"

#define PER_TURN 256

static bool takes_clients(const struct supervisor *s, unsigned shard)
{
    const struct node_shard *n = &s->node.shared->shards[shard];
    return s->plan.shards[shard].edge && NODE_LOAD(n->phase) == NODE_UP && NODE_LOAD(n->drained) == 0;
}

/* given: since the figures were written. */
static int emptiest(const struct supervisor *s, const uint32_t *given)
{
    int best = -1;
    uint32_t least = 0;
    for (unsigned i = 0; i < s->plan.n; i++) {
        uint32_t n = NODE_LOAD(s->node.shared->shards[i].clients) + given[i];
        if (!takes_clients(s, i) || (best >= 0 && n >= least))
            continue;
        best = (int)i;
        least = n;
    }
    return best;
}

void upgrade_spares_turn(struct supervisor *s)
{
    uint32_t given[NODE_SHARDS_MAX] = {0};
    uint16_t slot = 0, made = 0;

    for (unsigned i = 0; i < PER_TURN && s->listeners.n_spares > 0; i++) {
        int to = emptiest(s, given);
        int fd = to >= 0 ? listeners_spares_accept(&s->listeners, &slot, &made) : -EAGAIN;
        if (fd < 0)
            return;
        struct node_hand what = {.listener = (uint8_t)slot, .from = (uint8_t)to, .made = made};
        int r = node_hand_give(s->node.hand_fds[to][1], &what, fd);
        close(fd);
        given[to]++;
        if (r < 0)
            LOG(LOG_WARN, "spare_client_lost", "shard=%d error=\"%s\"", to, strerror(-r));
    }
}
