// SPDX-License-Identifier: MIT
/* The admin process: one HTTP API (docs/ADMIN-API.md) for tgg ctl, the web page, metrics and other programs.
 * It reads what stands in shared memory and asks the shards and the supervisor for the rest
 * (common/control.h). Single thread; waits for nobody. */
#pragma once

#include "common/admin_start.h"

/* The folder of the web page (index.html and what belongs to it), to be said before admin_main, in the
 * process or one it is forked from. The text must live as long. Without it there is no page. */
void admin_set_page_dir(const char *dir);

admin_main_fn admin_main;
