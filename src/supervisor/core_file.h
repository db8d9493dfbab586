// SPDX-License-Identifier: MIT
/* Whether a process that aborts leaves a core file. */
#pragma once

#include <stdbool.h>

/* By the limit of the caller (children inherit it) and kernel.core_pattern: a program, or a folder that can
 * be written to. */
bool core_file_is_possible(void);
/* The second part alone, for a pattern as in /proc/sys/kernel/core_pattern. */
bool core_file_pattern_works(const char *pattern);
