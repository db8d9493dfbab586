// SPDX-License-Identifier: MIT
/* What tgg needs besides itself: found beside the installed tgg (../share/tgg/web, ../libexec/tgg), or
 * in the tree it was built from when it runs from its build directory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* false: not there; buf then holds the places looked at, for the message. */
bool assets_web_dir(char *buf, size_t cap);
bool assets_demo_program(char *buf, size_t cap);
/* Of the page of the admin process, valid until the process ends. NULL: not there. */
const char *assets_admin_page_dir(void);
