// SPDX-License-Identifier: MIT
/* What the supervisor hands a shard at its start: all that the two have in common. */
#pragma once

#include "common/config.h"
#include "common/files.h"
#include "common/node_shared.h"
#include "common/node_shm.h"
#include "common/settings.h"
#include "common/shard_shm.h"

struct shard_start {
    unsigned shard;
    struct config *cfg;        /* the process's own copy, to change at a reload (config_apply_live) */
    const struct files *files; /* all that cfg names, as it was checked; valid until the process ends */
    const struct node *node;
    const struct settings_listener *listeners; /* one per cfg->listen, in its order; their descriptors are the
                                                * shard's; NULL: it has no role edge */
    uint64_t generation;                       /* of these settings; later ones come by settings_fd */
    int internal_fd; /* bound and listening, the same for all shards: the internal port; -1: it has no
                      * role link */
    struct shard_shm *shm;
    int settings_fd;           /* new settings come by it (settings_receive) */
    int control_fd;            /* questions and orders (common/control.h); -1: nobody asks */
    int upgrade_fd;            /* common/upgrade.h: hold, hand over, take over */
    int import_fd;             /* connections that it takes over (transfer/transfer.h) */
    unsigned n_predecessors;   /* > 0: it begins by taking over from so many shards of another supervisor, and
                                * serves nobody   before UPGRADE_GO */
    struct shard_crash *crash; /* its block in node.shm */
    struct node_shm *node_shm; /* log_level is there, and the ids of shards that are no more */
    struct guard_shm *guard;   /* node->guard */
    const struct ticket_keys *tickets; /* node->tickets; none in it while no listener speaks TLS */
};

/* A shard's whole life, called in the forked child, pinned to its CPU. TERM, INT and USR1 arrive blocked, for
 * the shard's signalfd (TERM: drain, INT: stop at once, USR1: log_reopen); TERM also comes when the
 * supervisor dies. QUIT is not blocked: its handler (the supervisor set it) writes the stack to the log. The
 * log is open, hash_init was called before the fork (all shards hash alike). Everything pointed to stays
 * valid. It runs as the configured user already, within the sandbox (sandbox.h of the supervisor: what it
 * calls of the kernel beyond that list fails with EPERM). Returns the exit status of the process: 0 after a
 * drain or a stop, else a failure. */
typedef int shard_main_fn(const struct shard_start *start);
