// SPDX-License-Identifier: MIT
/* The process that owns the listeners and watches the shards, the announcer and the admin process. Moves no
 * traffic. */
#pragma once

#include "common/admin_start.h"
#include "common/announce_start.h"
#include "common/shard_start.h"

/* Bind everything, start the shards, the admin process (but with [admin] enabled = no), and the announcer
 * once they can serve workers; start each again when it dies, until told to end: TERM lets the shards drain,
 * INT or a second TERM stops them at once, USR1 opens the logs again, HUP reads the configuration again (cfg
 * changes then; reload.h). Blocks. What is wrong before the start goes to stderr, with file and line; then
 * nothing has been started. Returns the exit status of the process: 0; 78 (EX_CONFIG): what
 * `tgg gateway -t` refuses, in the file or in what it names; 1: something that the machine would not give (a
 * port in use, a CPU, a folder), or a child that did not end well.
 *
 * A shard that dies leaves its connections' ends to its successor: rings are mended, figures cleared and the
 * other shards woken before that is forked, at once but in a crash loop. One whose loop does not turn for
 * stuck_timeout is asked for its stack (QUIT) and to end (TERM), and killed at the third such deadline. Of
 * one that died by a signal a record is made (crash_record.h). When the supervisor dies, its children get
 * TERM.
 *
 * A service manager that NOTIFY_SOCKET names is told of the start, reloads and the end (notify.h); what the
 * admin process may ask for is in common/control.h.
 *
 * The mains are handed in, because the supervisor knows nothing of shards but struct shard_start.
 *
 * At an upgrade (common/upgrade.h) another supervisor takes the place of this one: asked for by upgrade.sock
 * in runtime_dir (common/upgrade_socket.h) or USR2. upgrade_fd: what that one got from this one
 * (upgrade_exec_fd); -1: it begins by itself. */
int supervisor_run(struct config *cfg, int upgrade_fd, shard_main_fn *shard_main,
                   announce_main_fn *announce_main, admin_main_fn *admin_main);
/* The process was started to take over and cannot: the other one is told what is wrong. */
void supervisor_refuse_upgrade(int upgrade_fd, const struct config_error *err);
