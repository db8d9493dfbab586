// SPDX-License-Identifier: MIT
/* Refused calls come as SIGSYS (SECCOMP_RET_TRAP) instead of as EPERM from the kernel, so that somebody can
 * be told which it was and from where; the handler then lets the call return EPERM. SCMP_ACT_LOG would need
 * an audit daemon, and SCMP_ACT_ERRNO leaves a shard that does something odd for reasons that nobody sees.
 *
 * Calls whose arguments are not looked at stand first: for those the kernel (5.11 and later) keeps a bitmap
 * and does not run the filter at all. */
#include "supervisor/sandbox.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "supervisor/line.h"

static const int allowed[] = {
    /* connections */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvmmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendmmsg),
    SCMP_SYS(accept),
    SCMP_SYS(accept4),
    SCMP_SYS(shutdown),
    SCMP_SYS(close),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    /* the loop */
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(eventfd2),
    SCMP_SYS(signalfd4),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(sched_yield),
    SCMP_SYS(restart_syscall),
    /* memory (mmap and mprotect: below) */
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(mincore), /* unwinders ask whether an address is there */
    SCMP_SYS(msync),
    /* files: the log, new settings in a memfd, time zones, /proc for a count of CPUs. Whose they must be is
     * for the user it runs as to say. */
    SCMP_SYS(openat),
    SCMP_SYS(open),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(stat),
    SCMP_SYS(statx),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2),
    SCMP_SYS(lseek),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(dup),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(getcwd),
    SCMP_SYS(fcntl),
    /* itself */
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigpending),
    SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(getpid),
    SCMP_SYS(getppid),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(getrandom),
    SCMP_SYS(getcpu),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo), /* qsort asks how much memory there is */
    SCMP_SYS(uname),
    SCMP_SYS(membarrier),
    SCMP_SYS(rseq),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

struct rule {
    int call;
    struct scmp_arg_cmp arg;
};

static int add(scmp_filter_ctx ctx, int call, unsigned n, const struct scmp_arg_cmp *arg)
{
    int r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, n, arg);
    return r == -EDOM ? 0 : r; /* a call that this architecture has not got */
}

/* By one argument each. */
static int add_with_arguments(scmp_filter_ctx ctx)
{
    const scmp_datum_t self = (scmp_datum_t)getpid();
    const struct rule rules[] = {
        /* No new code. */
        {SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        {SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        /* Signals: to itself (abort). */
        {SCMP_SYS(kill), SCMP_A0(SCMP_CMP_EQ, self)},
        {SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, self)},
        {SCMP_SYS(rt_tgsigqueueinfo), SCMP_A0(SCMP_CMP_EQ, self)},
        /* Limits: its own, which it may lower. */
        {SCMP_SYS(prlimit64), SCMP_A0(SCMP_CMP_EQ, 0)},
        {SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME)},
        {SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_GET_DUMPABLE)},
        {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONREAD)},
        {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONBIO)},
        {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, SIOCOUTQ)},
        {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, TCGETS)}, /* isatty */
        {SCMP_SYS(socketpair), SCMP_A0(SCMP_CMP_EQ, AF_UNIX)},
    };
    /* A core file of a process that has changed its user (stack_dump.c). */
    const struct scmp_arg_cmp dumpable[] = {SCMP_A0(SCMP_CMP_EQ, PR_SET_DUMPABLE), SCMP_A1(SCMP_CMP_EQ, 1)};
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        int r = add(ctx, rules[i].call, 1, &rules[i].arg);
        if (r < 0)
            return r;
    }
    /* Who answers questions steps behind those who serve clients: itself, and no other process. */
    const struct scmp_arg_cmp nicer[] = {SCMP_A0(SCMP_CMP_EQ, PRIO_PROCESS), SCMP_A1(SCMP_CMP_EQ, 0)};
    int r = add(ctx, SCMP_SYS(prctl), 2, dumpable);
    return r == 0 ? add(ctx, SCMP_SYS(setpriority), 2, nicer) : r;
}

static int build(scmp_filter_ctx ctx)
{
    /* Without the second, old kernels (before 5.16) slow the process down lest foreign code in it guesses by
     * timing; there is none. */
    int r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 1);
    if (r == 0)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_SSB, 1);
    if (r == 0)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a list */
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0] && r == 0; i++)
        r = add(ctx, allowed[i], 0, NULL);
    return r == 0 ? add_with_arguments(ctx) : r;
}

/* ---- who was refused */

#define CALLS_N    512
#define TOLD_MAX   16
#define FRAMES_MAX 32

static char *call_names[CALLS_N]; /* before the filter: in the handler there is no memory to be had */
static const char *process_name;
static unsigned refused;

static void learn_names(void)
{
    for (int i = 0; i < CALLS_N; i++)
        call_names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
}

static void tell(int call)
{
    void *frames[FRAMES_MAX];
    struct line head = {.len = 0};
    int fd = log_fd();

    line_add_text(&head, "sandbox: ");
    line_add_text(&head, process_name);
    line_add_text(&head, ", pid ");
    line_add_number(&head, (unsigned)getpid());
    line_add_text(&head, ", was refused call ");
    line_add_number(&head, (unsigned)call);
    if (call >= 0 && call < CALLS_N && call_names[call] != NULL) {
        line_add_text(&head, " ");
        line_add_text(&head, call_names[call]);
    }
    line_add_text(&head, refused == TOLD_MAX ? "; no more is told:\n" : ":\n");
    line_write(fd, &head);
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), fd);
}

static void set_result(void *context, long value)
{
    ucontext_t *u = context;
#if defined(__x86_64__)
    u->uc_mcontext.gregs[REG_RAX] = value;
#elif defined(__aarch64__)
    u->uc_mcontext.regs[0] = (unsigned long long)value;
#else
#error "where a system call's result is"
#endif
}

static void on_refused(int sig, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    if (refused < TOLD_MAX) {
        refused++;
        tell(info->si_syscall);
    }
    set_result(context, -EPERM);
    errno = saved_errno;
}

/* ---- */

static bool is_watched(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
    return true;
#endif
#endif
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && (strstr(preload, "vgpreload") != NULL || strstr(preload, "libasan") != NULL);
}

int sandbox_enter(const char *process)
{
    struct sigaction act = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    void *frame;

    if (is_watched())
        return -ENOSYS;
    process_name = process;
    learn_names();
    backtrace(&frame, 1); /* loads libgcc, which is not possible later */
    sigemptyset(&act.sa_mask);
    if (sigaction(SIGSYS, &act, NULL) < 0)
        return -errno;
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
    if (ctx == NULL)
        return -ENOMEM;
    int r = build(ctx);
    if (r == 0)
        r = seccomp_load(ctx);
    seccomp_release(ctx);
    return r == -ENOSYS ? -EOPNOTSUPP : r;
}
