// SPDX-License-Identifier: MIT
#include "common/notify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <cmocka.h>

static char heard[600];

/* A manager's socket. */
static int listen_on(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    size_t len = strlen(name);
    assert_true(fd >= 0);
    memcpy(a.sun_path, name, len);
    if (name[0] == '@')
        a.sun_path[0] = '\0';
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, size), 0);
    return fd;
}

static const char *hear(int fd)
{
    ssize_t n = recv(fd, heard, sizeof heard - 1, 0);
    heard[n > 0 ? n : 0] = '\0';
    return heard;
}

static void without_a_manager_nothing_happens(void **state)
{
    struct notify n;
    unsetenv("NOTIFY_SOCKET");
    setenv("WATCHDOG_USEC", "1000000", 1);
    notify_open(&n);
    assert_int_equal(n.fd, -1);
    assert_null(getenv("WATCHDOG_USEC"));
    assert_true(notify_due_ms(&n) == UINT64_MAX);
    notify_send(&n, "READY=1");
    notify_turn(&n, 5);
    notify_close(&n);
}

static void check_name(const char *name)
{
    struct notify n;
    int fd = listen_on(name);
    setenv("NOTIFY_SOCKET", name, 1);
    notify_open(&n);
    assert_null(getenv("NOTIFY_SOCKET")); /* children do not have it */
    notify_send(&n, "READY=1\nSTATUS=%d shards run", 3);
    assert_string_equal(hear(fd), "READY=1\nSTATUS=3 shards run");
    notify_reloading(&n);
    assert_int_equal(strncmp(hear(fd), "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
    assert_true(strtoull(heard + 27, NULL, 10) > 0);
    notify_close(&n);
    close(fd);
}

static void a_path_and_an_abstract_name_will_do(void **state)
{
    char folder[] = "/tmp/tgg-notify-test-XXXXXX", path[64], name[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    check_name(path);
    unlink(path);
    rmdir(folder);
    snprintf(name, sizeof name, "@tgg-notify-test-%d", (int)getpid());
    check_name(name);
}

static void other_names_are_none(void **state)
{
    struct notify n;
    char longer[200];
    memset(longer, 'x', sizeof longer - 1);
    longer[0] = '/';
    longer[sizeof longer - 1] = '\0';
    const char *const names[] = {"", "@", "/", "relative", "/does/not/exist", longer};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        setenv("NOTIFY_SOCKET", names[i], 1);
        notify_open(&n);
        assert_int_equal(n.fd < 0, 1);
        notify_send(&n, "READY=1");
        notify_close(&n);
    }
}

static void the_watchdog_hears_of_us_twice_in_its_time(void **state)
{
    struct notify n;
    char name[64], pid[32];
    snprintf(name, sizeof name, "@tgg-notify-watchdog-%d", (int)getpid());
    int fd = listen_on(name);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    notify_open(&n);
    assert_int_equal(n.watchdog_ms, 1500);
    notify_turn(&n, 1000);
    assert_string_equal(hear(fd), "WATCHDOG=1");
    assert_int_equal(notify_due_ms(&n), 2500);
    notify_turn(&n, 2499);
    assert_string_equal(hear(fd), "");
    notify_turn(&n, 2500);
    assert_string_equal(hear(fd), "WATCHDOG=1");
    notify_close(&n);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    setenv("WATCHDOG_PID", "1", 1); /* of another process */
    notify_open(&n);
    assert_int_equal(n.watchdog_ms, 0);
    notify_close(&n);
    close(fd);
}

/* It has another pid, and the manager's clock runs for it too. */
static void a_successor_gets_what_this_one_was_given(void **state)
{
    struct notify n, next;
    const char *env[NOTIFY_VARIABLES_MAX];
    char name[64], pid[32], wanted[96];
    snprintf(name, sizeof name, "@tgg-notify-successor-%d", (int)getpid());
    int fd = listen_on(name);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    notify_open(&n);
    notify_environment(&n, env);
    snprintf(wanted, sizeof wanted, "NOTIFY_SOCKET=%s", name);
    assert_string_equal(env[0], wanted);
    assert_string_equal(env[1], "WATCHDOG_USEC=3000000");
    assert_null(env[2]);
    for (unsigned i = 0; env[i] != NULL; i++)
        assert_int_equal(putenv((char *)(uintptr_t)env[i]), 0);
    notify_open(&next);
    assert_int_equal(next.watchdog_ms, 1500);
    notify_close(&next);
    notify_close(&n);
    close(fd);
    notify_open(&n);
    notify_environment(&n, env);
    assert_null(env[0]);
    notify_close(&n);
}

/* It is told, or not, at once. */
static void a_manager_that_does_not_read_is_not_waited_for(void **state)
{
    struct notify n;
    char name[64];
    snprintf(name, sizeof name, "@tgg-notify-deaf-%d", (int)getpid());
    int fd = listen_on(name);
    setenv("NOTIFY_SOCKET", name, 1);
    notify_open(&n);
    for (unsigned i = 0; i < 1000; i++)
        notify_send(&n, "STATUS=%u", i);
    assert_string_equal(hear(fd), "STATUS=0");
    notify_close(&n);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_manager_nothing_happens),
        cmocka_unit_test(a_path_and_an_abstract_name_will_do),
        cmocka_unit_test(other_names_are_none),
        cmocka_unit_test(the_watchdog_hears_of_us_twice_in_its_time),
        cmocka_unit_test(a_successor_gets_what_this_one_was_given),
        cmocka_unit_test(a_manager_that_does_not_read_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
