// SPDX-License-Identifier: MIT
/* What the supervisor hands the announcer at its start. */
#pragma once

#include "common/config.h"
#include "common/counters.h"
#include "common/node_shm.h"

struct announce_start {
    const struct config *cfg;
    struct counters *counters;       /* register_*; shared, the announcer is their one writer */
    struct node_register *registers; /* NODE_REGISTERS_MAX, likewise */
    const struct node_shm *node_shm; /* log_level is there */
};

/* The announcer's whole life, called in the forked child, with signals as a shard has them (TERM and INT:
 * leave the registers and end, USR1: log_reopen); TERM also comes when the supervisor dies. The log is open.
 * Returns the exit status of the process: 0 when it was told to end. */
typedef int announce_main_fn(const struct announce_start *start);
