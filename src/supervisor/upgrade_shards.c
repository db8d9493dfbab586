// SPDX-License-Identifier: MIT
#include "supervisor/upgrade_shards.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "supervisor/supervisor_priv.h"

uint64_t upgrade_shards_all(const struct supervisor *s)
{
    return UINT64_MAX >> (NODE_SHARDS_MAX - s->plan.n);
}

int upgrade_shards_tell(const struct supervisor *s, uint64_t which, const struct upgrade_message *m,
                        unsigned *ret_shard)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        if ((which >> i & 1) == 0)
            continue;
        int r = upgrade_send(s->node.upgrade_fds[i][1], m);
        if (r < 0) {
            *ret_shard = i;
            return r;
        }
    }
    return 0;
}

void upgrade_shards_tell_all(const struct supervisor *s, enum upgrade_op op)
{
    const struct upgrade_message m = {.op = op};
    for (unsigned i = 0; i < s->plan.n; i++) {
        int r = upgrade_send(s->node.upgrade_fds[i][1], &m);
        if (r < 0)
            LOG(LOG_ERROR, "shard_not_told", "shard=%u what=%s error=\"%s\"", i, upgrade_op_name(op),
                strerror(-r));
    }
}

static void close_descriptors(const struct upgrade_message *m)
{
    for (unsigned i = 0; i < m->n_fds; i++)
        close(m->fds[i]);
}

bool upgrade_shards_hear(const struct supervisor *s, unsigned *ret_shard, struct upgrade_message *ret)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        int r = upgrade_receive(s->node.upgrade_fds[i][1], ret);
        if (r == -EAGAIN || r == -EINTR)
            continue;
        *ret_shard = i;
        if (r == 0) {
            close_descriptors(ret);
            ret->n_fds = 0;
            return true;
        }
        *ret = (struct upgrade_message){.op = UPGRADE_FAILED};
        snprintf(ret->text, sizeof ret->text, "shard %u: what it says is not understood: %s", i,
                 strerror(-r));
        return true;
    }
    return false;
}

/* Descriptors that come along are closed with their messages: there is no room for them here. */
static void drain(int fd)
{
    char byte;
    while (recv(fd, &byte, sizeof byte, MSG_DONTWAIT) > 0)
        ;
}

void upgrade_shards_hush(const struct supervisor *s)
{
    struct upgrade_message m;
    unsigned shard;
    for (unsigned n = 0; n < NODE_SHARDS_MAX * UPGRADE_SHARDS_HEAR_MAX && upgrade_shards_hear(s, &shard, &m);
         n++) {
    }
    for (unsigned i = 0; i < s->plan.n; i++)
        drain(s->node.import_fds[i][0]);
}

void upgrade_shards_forget(const struct supervisor *s, unsigned shard)
{
    for (unsigned i = 0; i < 2; i++)
        drain(s->node.upgrade_fds[shard][i]);
    drain(s->node.import_fds[shard][0]);
}
