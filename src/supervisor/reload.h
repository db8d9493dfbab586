// SPDX-License-Identifier: MIT
/* HUP: the file of the configuration and all that it names are read again. */
#pragma once

#include "common/config.h"
#include "common/files.h"

/* All or nothing. When everything is right the values of LIVE keys go over into cfg, *files is another one
 * (the old one is freed), and a descriptor of it comes back, the caller's, for the shards. Else -errno, and
 * cfg and *files are as they were. Every change, every problem, and every changed key that needs a restart
 * are in the log. */
int reload(struct config *cfg, struct files **files);
