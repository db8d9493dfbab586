// SPDX-License-Identifier: MIT
/* What the supervisor hands the admin process at its start. */
#pragma once

#include "common/config.h"
#include "common/node_shared.h"
#include "common/node_shm.h"

struct admin_start {
    struct config *cfg;      /* the process's own copy, to change at a reload (config_apply_live) */
    const struct node *node; /* of it shared, guard and control_fds[*][1] are used */
    const struct node_shm *shm;
    int control_fd;    /* to the supervisor (common/control.h) */
    int settings_fd;   /* new settings come by it (settings_receive) */
    int socket_fd;     /* bound and listening Unix socket; -1: it could not be made (the log says why) */
    int http_fd;       /* likewise the admin port; -1: none */
    const char *token; /* what requests to the admin port carry; never "" when there is one */
};

/* The admin process's whole life, called in the forked child, with signals as a shard has them (TERM, INT:
 * end, USR1: log_reopen); TERM also comes when the supervisor dies. The log is open. Returns the exit status
 * of the process: 0 when it was told to end. */
typedef int admin_main_fn(const struct admin_start *start);
