// SPDX-License-Identifier: MIT
/* tgg ctl trace: lines of JSON as things happen, written as they come. */
#pragma once

#include <stdio.h>

#include "main/ctl_show.h"

/* One line of a trace for people, with its end: time of day, time since the event before, shard, connection
 * id, event, then what belongs to it. */
void ctl_trace_line(const void *json, size_t len, const struct ctl_screen *screen, struct bytes *out);

/* Until it is over or told to stop (both 0). Other -errno: `why` tells. */
int ctl_trace(const char *socket_path, const char *target, bool json, const struct ctl_screen *screen,
              int (*flush)(struct bytes *out), struct bytes *why);
