// SPDX-License-Identifier: MIT
/* Folders that are made when missing. */
#pragma once

#include <sys/types.h>

/* mkdir -p. 0 (also when it is there) or -errno. */
int make_dirs(const char *dir, mode_t mode);
