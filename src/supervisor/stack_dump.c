// SPDX-License-Identifier: MIT
#include "supervisor/stack_dump.h"

#include <assert.h>
#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "supervisor/build.h"
#include "supervisor/core_file.h"
#include "supervisor/line.h"

#define FRAMES_MAX  CRASH_FRAMES_MAX
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
static struct shard_crash *crash;
static uint64_t program_base;
static bool core_wanted;
static char handler_stack[STACK_BYTES];

/* ---- the handler */

static void write_stack(int sig, void *const *frames, int n)
{
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
    backtrace_symbols_fd(frames, n, fd);
    __atomic_store_n(stacks_written, *stacks_written + 1, __ATOMIC_RELAXED);
}

static void on_quit(int sig)
{
    void *frames[FRAMES_MAX];
    int saved_errno = errno;
    write_stack(sig, frames, backtrace(frames, FRAMES_MAX));
    errno = saved_errno;
}

static int64_t clock_ms(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The stack comes afterwards: looking for it is what may crash once more. */
static void begin_record(const siginfo_t *info)
{
    crash->n_frames = 0;
    crash->code = info->si_code;
    crash->address = info->si_code > 0 ? (uintptr_t)info->si_addr : (uint64_t)info->si_pid;
    crash->unix_ms = clock_ms(CLOCK_REALTIME);
    crash->loop_ms = (uint64_t)clock_ms(CLOCK_MONOTONIC);
    crash->pid = getpid();
    crash->base = program_base;
    memcpy(crash->assertion, assert_text, sizeof crash->assertion);
    __atomic_store_n(&crash->signal, info->si_signo, __ATOMIC_RELEASE);
}

static void record_stack(void *const *frames, int n)
{
    for (int i = 0; i < n; i++)
        crash->frames[i] = (uintptr_t)frames[i];
    __atomic_store_n(&crash->n_frames, (uint32_t)n, __ATOMIC_RELEASE);
}

static void on_crash(int sig, siginfo_t *info, void *context)
{
    void *frames[FRAMES_MAX];

    begin_record(info);
    int n = backtrace(frames, FRAMES_MAX);
    record_stack(frames, n);
    write_stack(sig, frames, n);
    if (core_wanted)
        prctl(PR_SET_DUMPABLE, 1);
    raise(sig); /* SA_RESETHAND: comes with its default action once this handler has returned */
}

static_assert(CRASH_ASSERTION_MAX == ASSERT_TEXT_MAX, "one is a copy of the other");

static const int crashes[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
#define CRASHES_N (sizeof crashes / sizeof crashes[0])

static void set_handler(int sig, struct sigaction act)
{
    act.sa_flags |= SA_ONSTACK;
    sigfillset(&act.sa_mask);
    sigdelset(&act.sa_mask, SIGSYS); /* blocked, a call that the sandbox refuses would end the process */
    /* A crash in the middle of SIGQUIT's handler has its own turn. */
    for (size_t i = 0; i < CRASHES_N; i++)
        sigdelset(&act.sa_mask, crashes[i]);
    sigaction(sig, &act, NULL);
}

void stack_dump_install(const char *name, uint32_t *stacks, struct shard_crash *record)
{
    stack_t alt = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    void *frame;

    process_name = name;
    stacks_written = stacks;
    crash = record;
    program_base = build_base();
    core_wanted = core_file_is_possible();
    backtrace(&frame, 1); /* loads libgcc, which must not happen in the handler */
    sigaltstack(&alt, NULL);
    set_handler(SIGQUIT, (struct sigaction){.sa_handler = on_quit, .sa_flags = SA_RESTART});
    for (size_t i = 0; !SANITIZED && i < CRASHES_N; i++)
        set_handler(crashes[i],
                    (struct sigaction){.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | (int)SA_RESETHAND});
}
