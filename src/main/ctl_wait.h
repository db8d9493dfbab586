// SPDX-License-Identifier: MIT
/* tgg ctl: waiting, which INT and TERM may end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* From now on INT and TERM end a wait, not the process. */
void ctl_stop_catch(void);
bool ctl_stopped(void);

int64_t ctl_now_ms(void); /* monotonic */

#define CTL_FOREVER INT64_MAX
/* Until fd (-1: none) has one of `events` of poll(2), or ctl_now_ms() is until_ms. 1: it has; 0: the time is
 * over; -EINTR: told to stop; other -errno. */
int ctl_wait(int fd, short events, int64_t until_ms);
