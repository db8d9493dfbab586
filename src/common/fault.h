// SPDX-License-Identifier: MIT
/* Named places at which tests have a process die, hang or fail: only in builds with -Dinject=true. The file
 * that the environment variable TGG_FAULT_FILE names is looked at each time: lines "PLACE ACTION", with
 * ACTION kill (SIGKILL to itself), hang (sleep for an hour), fail (the place fails), slow (half a second). A
 * name is ROLE.STEP; what roles and steps there are is in docs/TESTING.md. */
#pragma once

#ifdef TGG_INJECT
/* 0, or -EIO: to fail. */
int fault_at(const char *place);
#else
static inline int fault_at(const char *place)
{
    return 0;
}
#endif
