// SPDX-License-Identifier: MIT
/* How many descriptors a process may have, and how many clients that makes. */
#pragma once

#include <stdint.h>

#include "common/config.h"

/* The soft limit of descriptors becomes the hard one, and so for core files; logged when it cannot be. */
void file_limit_raise(void);

/* Clients that one shard takes: max_connections, or (0) as many as the limit of descriptors allows beside a
 * reserve for workers, listeners and the sockets between shards. Logged when it is less than max_connections
 * wants. At least 1. */
uint32_t file_limit_clients(const struct config *cfg, unsigned n_shards);
