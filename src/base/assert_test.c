// SPDX-License-Identifier: MIT
#include "base/assert.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void a_true_assert_does_nothing(void **state)
{
    int evaluated = 0;
    ASSERT(++evaluated == 1);
    assert_int_equal(evaluated, 1);
}

static void a_false_assert_says_where_and_aborts(void **state)
{
    int fds[2];
    char text[1024] = "";

    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        struct sigaction dfl = {.sa_handler = SIG_DFL};
        sigaction(SIGABRT, &dfl, NULL);
        ASSERT(1 == 2);
        _exit(0);
    }
    close(fds[1]);
    assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
    close(fds[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "assert_failed"));
    assert_non_null(strstr(text, "1 == 2"));
    assert_non_null(strstr(text, "assert_test.c"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_true_assert_does_nothing),
        cmocka_unit_test(a_false_assert_says_where_and_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
