// SPDX-License-Identifier: MIT
/* The register: gateways tell it their internal address, workers and GatewayClient get the list of all, and
 * again whenever it changes. One JSON object per line (docs/PROTOCOL-gatewayworker.md, Register). A process
 * of its own. */
#pragma once

#include "common/config.h"

/* Before register_run, and before the process says that it is there: TERM, INT and USR1 wait for
 * register_run, PIPE and HUP are ignored. */
void register_block_signals(void);

/* Bind [register] address and port. The descriptor or -errno with the reason in err. */
int register_listen(const struct config *cfg, struct config_error *err);

/* Serve until TERM or INT (both end it in order: nothing here is worth waiting for); USR1 opens the log
 * again. listen_fd stays the caller's. The exit status: 0 or 1. */
int register_run(const struct config *cfg, int listen_fd);
