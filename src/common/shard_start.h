// SPDX-License-Identifier: MIT
/* What the supervisor hands a shard at its start: all that the two have in common. */
#pragma once

#include "common/config.h"
#include "common/shard_shm.h"

struct shard_start {
    unsigned shard;
    const struct config *cfg;
    const int *listen_fds; /* bound and listening, one per cfg->listen, in its order */
    int internal_fd;       /* bound and listening: the internal port */
    struct shard_shm *shm;
};

/* A shard's whole life, called in the forked child. TERM, INT and USR1 arrive blocked, for the shard's
 * signalfd (TERM: drain, INT: stop at once, USR1: log_reopen); TERM also comes when the supervisor dies. The
 * log is open. Everything pointed to stays valid. Returns the exit status of the process: 0 after a drain or
 * a stop, else a failure. */
typedef int shard_main_fn(const struct shard_start *start);
