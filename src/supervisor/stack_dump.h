// SPDX-License-Identifier: MIT
/* What a process was doing, as a stack in its log: on SIGQUIT (it goes on), and when it crashes (SEGV, ABRT,
 * BUS, FPE, ILL: it ends by that signal afterwards, with a core file where these are allowed). Of a crash the
 * same goes to a place that outlives it. */
#pragma once

#include <stdint.h>

#include "common/shard_crash.h"

/* Sets the handlers, on a stack of their own. name ("shard 3") must stay valid; *stacks grows with each
 * stack; crash: everything but its commands is written to it. A process that has changed its user becomes
 * dumpable in the handler, when core files are possible: until then nobody else of that user may look into
 * it. With the address sanitizer the crash signals stay with that. */
void stack_dump_install(const char *name, uint32_t *stacks, struct shard_crash *crash);
