// SPDX-License-Identifier: MIT
/* The register: gateways tell it their internal address, workers and GatewayClient get the list of all, and
 * again whenever it changes. One JSON object per line (docs/PROTOCOL-gatewayworker.md, Register). A process
 * of its own. */
#pragma once

#include "common/config.h"
#include "common/notify.h"

/* Before register_run, and before the process says that it is there: TERM, INT and USR1 wait for
 * register_run, PIPE and HUP are ignored. */
void register_block_signals(void);

/* Bind [register] address and port. The descriptor or -errno with the reason in err. */
int register_listen(const struct config *cfg, struct config_error *err);

/* Serve until TERM or INT (both end it in order: nothing here is worth waiting for) or until a new process
 * has taken over everything (tgg upgrade --register, USR2: hand_over.c); USR1 opens the log again. listen_fd
 * stays the caller's. notify: the service manager that has started this process; NULL: none has. The exit
 * status: 0 or 1. */
int register_run(const struct config *cfg, int listen_fd, struct notify *notify);

/* The same in a new process: first everything comes from the one before, by upgrade_fd (upgrade_exec_fd),
 * which becomes its own. 1: that one goes on, if it can. */
int register_take_over(const struct config *cfg, int upgrade_fd, struct notify *notify);
