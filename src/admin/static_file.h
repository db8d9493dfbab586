// SPDX-License-Identifier: MIT
/* Files of a folder, for a browser. */
#pragma once

#include <stddef.h>

/* The file of that name (one name, no folders: nothing can lead out) in the folder dir_fd: a descriptor, the
 * caller's, and its length; -1: there is no such file. */
int static_file_open(int dir_fd, const char *name, size_t *ret_len);
/* Its media type, by the end of its name. */
const char *static_file_type(const char *name);
