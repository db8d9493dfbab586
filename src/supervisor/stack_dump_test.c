// SPDX-License-Identifier: MIT
#include "supervisor/stack_dump.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/assert.h"
#include "supervisor/build.h"

static struct shared {
    uint32_t stacks;
    struct shard_crash crash;
} * shared; /* with the children */

/* In a child whose log is a pipe: what it wrote, and its wait status. */
static int in_child(void (*work)(void), char *ret_log, size_t cap)
{
    int fds[2], wstatus;
    size_t len = 0;

    assert_int_equal(pipe(fds), 0);
    *shared = (struct shared){0};
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        dup2(fds[1], STDERR_FILENO);
        stack_dump_install("shard 5", &shared->stacks, &shared->crash);
        work();
        _exit(0);
    }
    close(fds[1]);
    for (ssize_t n; (n = read(fds[0], ret_log + len, cap - 1 - len)) > 0;)
        len += (size_t)n;
    ret_log[len] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &wstatus, 0), pid);
    return wstatus;
}

static void quit_twice(void)
{
    raise(SIGQUIT);
    raise(SIGQUIT);
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

static void quit_writes_a_stack_and_goes_on(void **state)
{
    char log[16384];
    int wstatus = in_child(quit_twice, log, sizeof log);
    assert_true(WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0);
    assert_int_equal(shared->stacks, 2);
    assert_int_equal(count(log, "stack of shard 5, pid "), 2);
    assert_int_equal(count(log, ", signal 3:\n"), 2);
    assert_true(count(log, "[0x") >= 8);       /* frames */
    assert_int_equal(shared->crash.signal, 0); /* it was none */
}

/* sanitizers have handlers of their own for what they find */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static unsigned overflow(volatile unsigned *depth)
{
    volatile char room[4096];
    room[0] = (char)*depth;
    if (++*depth == UINT32_MAX)
        return 0;
    return overflow(depth) + (unsigned)room[0]; /* not a tail call */
}

static void overflow_the_stack(void)
{
    volatile unsigned depth = 0;
    overflow(&depth);
}

static void assert_dies_with_a_stack(void (*work)(void), int sig)
{
    char log[16384];
    int wstatus = in_child(work, log, sizeof log);
    assert_true(WIFSIGNALED(wstatus));
    assert_int_equal(WTERMSIG(wstatus), sig);
    assert_int_equal(shared->stacks, 1);
    assert_int_equal(count(log, "stack of shard 5, pid "), 1);
    assert_int_equal(shared->crash.signal, sig);
    assert_true(shared->crash.pid > 0 && shared->crash.unix_ms > 0 && shared->crash.loop_ms > 0);
    assert_true(shared->crash.base == build_base());
    assert_true(shared->crash.n_frames >= 4 && shared->crash.n_frames <= CRASH_FRAMES_MAX);
    for (unsigned i = 0; i < shared->crash.n_frames; i++)
        assert_true(shared->crash.frames[i] != 0);
}

static void send_segv(void)
{
    kill(getpid(), SIGSEGV); /* as the supervisor might: nothing faults a second time */
}

static void send_abort(void)
{
    kill(getpid(), SIGABRT);
}

static void touch_nothing(void)
{
    volatile uintptr_t nowhere = 0x18;
    *(volatile int *)nowhere = 1;
}

static void fail_an_assertion(void)
{
    ASSERT(1 + 1 == 3);
}

static void the_record_says_where_and_why(void **state)
{
    assert_dies_with_a_stack(touch_nothing, SIGSEGV);
    assert_int_equal(shared->crash.address, 0x18);
    assert_int_equal(shared->crash.code, SEGV_MAPERR);
    assert_string_equal(shared->crash.assertion, "");
    bool found = false;
    for (unsigned i = 0; i < shared->crash.n_frames; i++) {
        uint64_t into = shared->crash.frames[i] - (uintptr_t)touch_nothing;
        found |= into < 64;
    }
    assert_true(found);
    assert_dies_with_a_stack(fail_an_assertion, SIGABRT);
    assert_non_null(strstr(shared->crash.assertion, "1 + 1 == 3 ("));
    assert_non_null(strstr(shared->crash.assertion, "stack_dump_test.c:"));
}

static void a_crash_ends_by_its_signal(void **state)
{
    assert_dies_with_a_stack(abort, SIGABRT);
    assert_dies_with_a_stack(send_abort, SIGABRT);
    assert_dies_with_a_stack(send_segv, SIGSEGV);
    assert_dies_with_a_stack(overflow_the_stack, SIGSEGV);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quit_writes_a_stack_and_goes_on),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(a_crash_ends_by_its_signal),
        cmocka_unit_test(the_record_says_where_and_why),
#endif
    };
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
