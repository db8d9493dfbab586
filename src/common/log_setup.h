// SPDX-License-Identifier: MIT
/* The log as the configuration wants it. */
#pragma once

#include "common/config.h"

/* Open the log of this process: `process` is a field of each line ("shard 0"), `file` the name of its file in
 * the log directory when target is file ("shard-0.log"). 0, or -errno with the file's path in err (problem
 * added). */
int log_setup(const struct config *cfg, const char *process, const char *file, struct config_error *err);
