// SPDX-License-Identifier: MIT
#include "common/file_limit.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "common/shard_shm.h"

/* Descriptors that are not for clients: listeners, logs, epoll, and a share for workers; for each shard an
 * eventfd and a socket. */
#define RESERVE           256
#define RESERVE_PER_SHARD 2

static void raise_limit(int resource, const char *name)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(resource, &limit) < 0)
        LOG(LOG_WARN, "limit_not_raised", "limit=%s error=\"%s\"", name, strerror(errno));
}

void file_limit_raise(void)
{
    raise_limit(RLIMIT_NOFILE, "nofile");
    raise_limit(RLIMIT_CORE, "core");
}

uint32_t file_limit_clients(const struct config *cfg, unsigned n_shards)
{
    struct rlimit limit = {1024, 1024};
    uint64_t reserve = RESERVE + (n_shards > 1 ? RESERVE_PER_SHARD * n_shards : 0);
    uint64_t wanted = cfg->gateway.max_connections;

    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t possible = limit.rlim_cur > 2 * reserve ? limit.rlim_cur - reserve : limit.rlim_cur / 2;
    if (possible > CONNECTION_SEQ_MASK)
        possible = CONNECTION_SEQ_MASK;
    if (wanted > possible)
        LOG(LOG_WARN, "max_connections_lowered",
            "wanted=%" PRIu64 " possible=%" PRIu64 " hint=\"raise the file limit (ulimit -n)\"", wanted,
            possible);
    uint64_t clients = wanted == 0 || wanted > possible ? possible : wanted;
    return clients > 0 ? (uint32_t)clients : 1;
}
