// SPDX-License-Identifier: MIT
/* Whether a process that aborts leaves a core file, and where. */
#pragma once

#include <stdbool.h>

/* Where core files go when kernel.core_pattern only says how to call them, if that folder is there. */
#define CORE_FILE_FOLDER "/var/corefiles"

/* By the limit of the caller (children inherit it) and kernel.core_pattern: a program, or a folder that can
 * be written to. */
bool core_file_is_possible(void);
/* The second part alone, for a pattern as in /proc/sys/kernel/core_pattern; without a folder in it: `folder`
 * or the working folder. */
bool core_file_pattern_works(const char *pattern, const char *folder);
/* In a child that opens nothing by a relative path from now on, as the user that it is: CORE_FILE_FOLDER
 * becomes its working folder, when a core file would go there and can. Returns whether. */
bool core_file_enter_folder(void);
/* The same for that pattern and folder. */
bool core_file_enter(const char *pattern, const char *folder);
