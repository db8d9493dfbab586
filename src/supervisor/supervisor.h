// SPDX-License-Identifier: MIT
/* The process that owns the listeners and watches the shards and the announcer. Moves no traffic. */
#pragma once

#include "common/announce_start.h"
#include "common/shard_start.h"

/* Bind everything, start the shards, and the announcer once they can serve workers; start each again when it
 * dies, until told to end: TERM lets the shards drain, INT or a second TERM stops them at once, USR1 opens
 * the logs again, HUP reads the configuration again (cfg changes then; reload.h). Blocks. What is wrong
 * before the start goes to stderr, with file and line; then nothing has been started. Returns the exit status
 * of the process: 0, 1, or 78 (EX_CONFIG): files, certificates, lists or users that the configuration names
 * are not right.
 *
 * A shard that dies leaves its connections' ends to its successor: rings are mended, figures cleared and the
 * other shards woken before that is forked, at once but in a crash loop. One whose loop does not turn for
 * stuck_timeout is asked for its stack (QUIT) and to end (TERM), and killed at the third such deadline. When
 * the supervisor dies, its children get TERM.
 *
 * The mains are handed in, because the supervisor knows nothing of shards but struct shard_start. */
int supervisor_run(struct config *cfg, shard_main_fn *shard_main, announce_main_fn *announce_main);
