// SPDX-License-Identifier: MIT
/* The process that owns the listeners and watches the shard. Moves no traffic. */
#pragma once

#include "common/shard_start.h"

/* Bind everything, start the shard, restart it when it dies, until told to end: TERM lets it drain, INT or a
 * second TERM stops it at once, USR1 opens the logs again. Blocks. What is wrong before the start goes to
 * stderr, with file and line; then nothing has been started. Returns the exit status of the process: 0 or 1.
 * The shard's main is handed in, because the supervisor knows nothing of shards but struct shard_start. */
int supervisor_run(const struct config *cfg, shard_main_fn *shard_main);
