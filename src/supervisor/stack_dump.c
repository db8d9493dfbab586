// SPDX-License-Identifier: MIT
#include "supervisor/stack_dump.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "supervisor/line.h"

#define FRAMES_MAX  64
#define STACK_BYTES (256 * 1024) /* unwinding takes more than SIGSTKSZ */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const char *process_name;
static uint32_t *stacks_written;
static char handler_stack[STACK_BYTES];

/* ---- the handler */

static void write_stack(int sig)
{
    void *frames[FRAMES_MAX];
    struct line head = {.len = 0};
    int fd = log_fd();

    line_add_text(&head, "stack of ");
    line_add_text(&head, process_name);
    line_add_text(&head, ", pid ");
    line_add_number(&head, (unsigned)getpid());
    line_add_text(&head, ", signal ");
    line_add_number(&head, (unsigned)sig);
    line_add_text(&head, ":\n");
    line_write(fd, &head);
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), fd);
    __atomic_store_n(stacks_written, *stacks_written + 1, __ATOMIC_RELAXED);
}

static void on_signal(int sig)
{
    int saved_errno = errno;
    write_stack(sig);
    if (sig != SIGQUIT)
        raise(sig); /* SA_RESETHAND: comes with its default action once this handler has returned */
    errno = saved_errno;
}

static const int crashes[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
#define CRASHES_N (sizeof crashes / sizeof crashes[0])

static void set_handler(int sig, int flags)
{
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | flags};

    sigfillset(&act.sa_mask);
    sigdelset(&act.sa_mask, SIGSYS); /* blocked, a call that the sandbox refuses would end the process */
    /* A crash in the middle of SIGQUIT's handler has its own turn. */
    for (size_t i = 0; i < CRASHES_N; i++)
        sigdelset(&act.sa_mask, crashes[i]);
    sigaction(sig, &act, NULL);
}

void stack_dump_install(const char *name, uint32_t *stacks)
{
    stack_t alt = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    void *frame;

    process_name = name;
    stacks_written = stacks;
    backtrace(&frame, 1); /* loads libgcc, which must not happen in the handler */
    sigaltstack(&alt, NULL);
    set_handler(SIGQUIT, SA_RESTART);
    for (size_t i = 0; !SANITIZED && i < CRASHES_N; i++)
        set_handler(crashes[i], (int)SA_RESETHAND);
}
