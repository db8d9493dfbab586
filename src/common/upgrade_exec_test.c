// SPDX-License-Identifier: MIT
#include "common/upgrade_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

static char dir[] = "/tmp/tgg-upgrade-exec-XXXXXX";
static char *arguments[] = {(char *)"tgg", (char *)"register", (char *)"-c", (char *)"x y", NULL};

/* A program that says by its descriptor what it was given. Without another process: a shell that starts one
 * blocks signals for a moment. */
static const char script[] = "#!/bin/sh\n"
                             "{ echo \"args=$0|$1|$2|$3|\"; echo \"a=$TGG_A b=$TGG_B fd=$TGG_UPGRADE_FD\"\n"
                             "  echo \"fds=\" /proc/$$/fd/*; while read -r line; do\n"
                             "    case $line in SigBlk*|SigIgn*) echo \"$line\";; esac\n"
                             "  done < /proc/$$/status; } >&3\n";

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(path_of(name), "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
    assert_int_equal(chmod(path_of(name), mode), 0);
}

static void read_all(int fd, char *buf, size_t cap)
{
    size_t len = 0;
    for (ssize_t n; len < cap - 1 && (n = read(fd, buf + len, cap - 1 - len)) > 0;)
        len += (size_t)n;
    buf[len] = '\0';
}

static void it_cannot_be_done_by_a_part_of_another_program(void **state)
{
    (void)state;
    assert_non_null(upgrade_exec_why_not());
    assert_null(upgrade_exec_binary());
    assert_int_equal(upgrade_exec("/bin/true", NULL, 0), -EOPNOTSUPP);
}

static void the_own_file_is_known(void **state)
{
    char exe[512];
    (void)state;
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    assert_true(n > 0);
    exe[n] = '\0';
    upgrade_exec_remember(arguments);
    assert_null(upgrade_exec_why_not());
    assert_string_equal(upgrade_exec_binary(), exe);
}

static void a_service_whose_manager_cannot_be_told_stays(void **state)
{
    char pid[32];
    (void)state;
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("SYSTEMD_EXEC_PID", pid, 1);
    upgrade_exec_remember(arguments);
    assert_non_null(upgrade_exec_why_not());
    setenv("NOTIFY_SOCKET", "/run/x", 1);
    upgrade_exec_remember(arguments);
    assert_null(upgrade_exec_why_not());
    unsetenv("NOTIFY_SOCKET");
    setenv("SYSTEMD_EXEC_PID", "1", 1); /* of the one before, which could tell it */
    upgrade_exec_remember(arguments);
    assert_null(upgrade_exec_why_not());
    unsetenv("SYSTEMD_EXEC_PID");
}

static void start_and_listen(const char *const *env, char *said, size_t cap)
{
    int talk[2], status;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk), 0);
    pid_t pid = upgrade_exec(path_of("script"), env, talk[1]);
    assert_true(pid > 0);
    close(talk[1]);
    read_all(talk[0], said, cap);
    close(talk[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* But for the two that are the C library's own, of which nobody can say anything. */
static uint64_t signals_in(const char *said, const char *label)
{
    const char *at = strstr(said, label);
    assert_non_null(at);
    return strtoull(at + strlen(label), NULL, 16) & ~(UINT64_C(3) << 31);
}

static void the_new_program_gets_arguments_variables_and_one_descriptor(void **state)
{
    static const char *const env[] = {"TGG_A=1", "TGG_B=two", NULL};
    char said[2048];
    struct sigaction ignore = {.sa_handler = SIG_IGN}, deflt = {.sa_handler = SIG_DFL};
    sigset_t set, before;
    (void)state;

    int leak = open("/dev/null", O_RDONLY); /* not closed on exec */
    int high = fcntl(leak, F_DUPFD, 200);
    sigaction(SIGHUP, &ignore, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, &before);
    start_and_listen(env, said, sizeof said);
    sigprocmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGHUP, &deflt, NULL);
    close(leak);
    close(high);

    assert_non_null(strstr(said, "/script|register|-c|x y|\n"));
    assert_non_null(strstr(said, "a=1 b=two fd=3\n"));
    assert_null(strstr(said, "fd/200"));
    assert_int_equal(signals_in(said, "SigBlk:\t"), 0);
    assert_int_equal(signals_in(said, "SigIgn:\t"), 0);
    assert_null(getenv("TGG_A")); /* here nothing has changed */
    assert_null(getenv(UPGRADE_FD_VARIABLE));
}

static void a_descriptor_that_has_the_number_already_gets_there_too(void **state)
{
    char said[2048];
    int talk[2], status;
    (void)state;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk), 0);
    int at_4 = fcntl(talk[1], F_DUPFD_CLOEXEC, 3);
    int other = fcntl(talk[1], F_DUPFD_CLOEXEC, 3);
    for (int i = 0; i < 2; i++) {
        pid_t pid = upgrade_exec(path_of("script"), NULL, i == 0 ? at_4 : other);
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    close(talk[1]);
    close(at_4);
    close(other);
    read_all(talk[0], said, sizeof said);
    close(talk[0]);
    char *first = strstr(said, "fd=3\n");
    assert_non_null(first);
    assert_non_null(strstr(first + 1, "fd=3\n"));
}

static void what_cannot_be_started_is_said_and_leaves_nothing(void **state)
{
    (void)state;
    write_file("plain", "no program", 0644);
    write_file("rubbish", "no program", 0755);
    assert_int_equal(upgrade_exec(path_of("missing"), NULL, 0), -ENOENT);
    assert_int_equal(upgrade_exec(path_of("plain"), NULL, 0), -EACCES);
    assert_int_equal(upgrade_exec(path_of("rubbish"), NULL, 0), -ENOEXEC);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void the_descriptor_is_taken_once(void **state)
{
    int talk[2];
    char number[16];
    (void)state;

    assert_int_equal(upgrade_exec_fd(), -1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, talk), 0);
    snprintf(number, sizeof number, "%d", talk[1]);
    setenv(UPGRADE_FD_VARIABLE, number, 1);
    assert_int_equal(upgrade_exec_fd(), talk[1]);
    assert_int_equal(fcntl(talk[1], F_GETFD), FD_CLOEXEC);
    assert_int_equal(upgrade_exec_fd(), -1);
    close(talk[0]);
    close(talk[1]);
}

static void a_variable_that_makes_no_sense_is_no_descriptor(void **state)
{
    static const char *const texts[] = {"", "x", "3x", "-1", "0", "1000000", "99999999999999999999"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        setenv(UPGRADE_FD_VARIABLE, texts[i], 1);
        assert_int_equal(upgrade_exec_fd(), -EBADF);
        assert_null(getenv(UPGRADE_FD_VARIABLE));
    }
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char number[16];
    snprintf(number, sizeof number, "%d", file);
    setenv(UPGRADE_FD_VARIABLE, number, 1);
    assert_int_equal(upgrade_exec_fd(), -EBADF);
    close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_cannot_be_done_by_a_part_of_another_program),
        cmocka_unit_test(the_own_file_is_known),
        cmocka_unit_test(a_service_whose_manager_cannot_be_told_stays),
        cmocka_unit_test(the_new_program_gets_arguments_variables_and_one_descriptor),
        cmocka_unit_test(a_descriptor_that_has_the_number_already_gets_there_too),
        cmocka_unit_test(what_cannot_be_started_is_said_and_leaves_nothing),
        cmocka_unit_test(the_descriptor_is_taken_once),
        cmocka_unit_test(a_variable_that_makes_no_sense_is_no_descriptor),
    };
    if (mkdtemp(dir) == NULL)
        return 1;
    write_file("script", script, 0755);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    static const char *const names[] = {"script", "plain", "rubbish"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(path_of(names[i]));
    rmdir(dir);
    return failed;
}
