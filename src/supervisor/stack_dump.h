// SPDX-License-Identifier: MIT
/* What a process was doing, as a stack in its log: on SIGQUIT (it goes on), and when it crashes (SEGV, ABRT,
 * BUS, FPE, ILL: it ends by that signal afterwards, with a core file where these are allowed). */
#pragma once

#include <stdint.h>

/* Sets the handlers, on a stack of their own. name ("shard 3") must stay valid; *stacks grows with each
 * stack. With the address sanitizer the crash signals stay with that. */
void stack_dump_install(const char *name, uint32_t *stacks);
