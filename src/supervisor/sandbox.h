// SPDX-License-Identifier: MIT
/* What a shard or the admin process may call of the kernel, by seccomp: what it does all day, and to open its
 * log again, and nothing that starts a program or a process, looks into another one, or changes the machine.
 * A call that is not on the list fails with EPERM, and the first few are told in the log, with their stack.
 */
#pragma once

#include <stdint.h>

/* In that process, for good, once it has its log and its stack_dump. 0; -ENOSYS: this process is
 * looked at by a tool that needs more (a sanitizer, valgrind), nothing was done; other -errno: the kernel has
 * not got it. */
int sandbox_enter(const char *process);
