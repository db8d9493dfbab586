// SPDX-License-Identifier: MIT
/* What the supervisor hands a shard at its start: all that the two have in common. */
#pragma once

#include "common/config.h"
#include "common/node_shared.h"
#include "common/shard_shm.h"

struct shard_start {
    unsigned shard;
    const struct config *cfg;
    const struct node *node;
    const int *listen_fds; /* bound and listening, this shard's own, one per cfg->listen, in its order; NULL:
                            * it has no role edge */
    int internal_fd;       /* bound and listening, the same for all shards: the internal port; -1: it has no
                            * role link */
    struct shard_shm *shm;
};

/* A shard's whole life, called in the forked child, pinned to its CPU. TERM, INT and USR1 arrive blocked, for
 * the shard's signalfd (TERM: drain, INT: stop at once, USR1: log_reopen); TERM also comes when the
 * supervisor dies. QUIT is not blocked: its handler (the supervisor set it) writes the stack to the log. The
 * log is open, hash_init was called before the fork (all shards hash alike). Everything pointed to stays
 * valid. Returns the exit status of the process: 0 after a drain or a stop, else a failure. */
typedef int shard_main_fn(const struct shard_start *start);
