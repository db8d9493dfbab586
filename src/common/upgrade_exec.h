// SPDX-License-Identifier: MIT
/* A process starts its successor: the same arguments, in general from another file, with one descriptor that
 * the two talk by. */
#pragma once

#include <sys/types.h>

#define UPGRADE_FD_VARIABLE "TGG_UPGRADE_FD" /* of the environment: its number */

/* Called by main for commands that can hand over to a new process: its arguments as they came (they stay the
 * caller's, for good), and the file of this program, which may be another one under that name later. Who does
 * not call it (`tgg run`) cannot be upgraded. */
void upgrade_exec_remember(char *const *argv);
/* Why there can be no upgrade of this process; NULL: there can be one. */
const char *upgrade_exec_why_not(void);
/* The file this process was started from, as an absolute path. NULL when upgrade_exec_why_not says why. */
const char *upgrade_exec_binary(void);

/* Start it: binary (absolute; "": upgrade_exec_binary) with the arguments of this process, its environment
 * with `env` ("NAME=VALUE" each, NULL at the end; NULL: none) added, the standard streams and fd; all other
 * descriptors are closed there, signals are as a shell would start it. fd stays the caller's. Returns when
 * the new program runs: its pid, a child of this process; or -errno: it could not be started (-ENOENT,
 * -EACCES, -ENOEXEC, -EAGAIN ...). */
pid_t upgrade_exec(const char *binary, const char *const *env, int fd);

/* In the new process: the descriptor, closed on exec from now on, and out of the environment. -1: it was
 * started by nobody who hands over; -EBADF: the variable is there, but no such socket. Once. */
int upgrade_exec_fd(void);
