// SPDX-License-Identifier: MIT
/* Asserts of our own logic, on in every build: a bug stops the process, the supervisor starts another.
 * Never on what a peer, the kernel or a file can cause: those return errors. */
#pragma once

/* What failed, for the handler of the signal that follows; "": nothing has. */
#define ASSERT_TEXT_MAX 256
extern char assert_text[ASSERT_TEXT_MAX];

_Noreturn void assert_failed(const char *expr, const char *file, int line, const char *func);

#define ASSERT(expr)  ((expr) ? (void)0 : assert_failed(#expr, __FILE__, __LINE__, __func__))
#define UNREACHABLE() assert_failed("unreachable", __FILE__, __LINE__, __func__)
