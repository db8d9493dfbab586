// SPDX-License-Identifier: MIT
/* Whatever the build's -Dinject is. */
#ifndef TGG_INJECT
#define TGG_INJECT
#endif
#include "common/fault.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include <sys/wait.h>

static char path[] = "/tmp/tgg_fault_XXXXXX";

static int with_file(void **state)
{
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    close(fd);
    return setenv("TGG_FAULT_FILE", path, 1);
}

static int without_file(void **state)
{
    unlink(path);
    return unsetenv("TGG_FAULT_FILE");
}

static void write_file(const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void nothing_fails_without_a_file(void **state)
{
    assert_int_equal(fault_at("old_shard.stop"), 0);
    unlink(path);
    assert_int_equal(fault_at("old_shard.stop"), 0);
    unsetenv("TGG_FAULT_FILE");
    assert_int_equal(fault_at("old_shard.stop"), 0);
    setenv("TGG_FAULT_FILE", path, 1);
}

static void only_the_place_that_is_named_fails(void **state)
{
    write_file("old_shard.stop fail\nnew_shard.import  fail\r\nold_shard.export\nold_shard.hold something\n");
    assert_int_equal(fault_at("old_shard.stop"), -EIO);
    assert_int_equal(fault_at("new_shard.import"), -EIO);
    assert_int_equal(fault_at("old_shard.export"), 0); /* no action */
    assert_int_equal(fault_at("old_shard.hold"), 0);   /* none that we know */
    assert_int_equal(fault_at("old_shard"), 0);
    assert_int_equal(fault_at("old_shard.stopped"), 0);
}

static void the_file_is_looked_at_each_time(void **state)
{
    write_file("a.b fail\n");
    assert_int_equal(fault_at("a.b"), -EIO);
    write_file("a.c fail"); /* no newline at its end */
    assert_int_equal(fault_at("a.b"), 0);
    assert_int_equal(fault_at("a.c"), -EIO);
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void a_slow_place_takes_half_a_second(void **state)
{
    write_file("a.b slow\n");
    uint64_t before = now_ms();
    assert_int_equal(fault_at("a.b"), 0);
    assert_in_range(now_ms() - before, 499, 5000);
}

static pid_t child_at(const char *place)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fault_at(place) == 0 ? 7 : 8);
    return pid;
}

static int status_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void a_process_kills_itself(void **state)
{
    write_file("a.b kill\n");
    int status = status_of(child_at("a.b"));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    status = status_of(child_at("a.c"));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

static void a_process_hangs(void **state)
{
    int status;
    write_file("a.b hang\n");
    pid_t pid = child_at("a.b");
    pause_for(0, 200000000);
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    kill(pid, SIGKILL);
    status_of(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_fails_without_a_file),
        cmocka_unit_test(only_the_place_that_is_named_fails),
        cmocka_unit_test(the_file_is_looked_at_each_time),
        cmocka_unit_test(a_slow_place_takes_half_a_second),
        cmocka_unit_test(a_process_kills_itself),
        cmocka_unit_test(a_process_hangs),
    };
    return cmocka_run_group_tests(tests, with_file, without_file);
}
