// SPDX-License-Identifier: MIT
#pragma once

/* TERM, INT and USR1 come as something to read from now on (struct signalfd_siginfo), as the children of the
 * supervisor take them. The descriptor (non-blocking, closed on exec), or -errno. */
int signal_fd_open(void);
