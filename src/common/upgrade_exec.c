// SPDX-License-Identifier: MIT
#include "common/upgrade_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define FD_TALK  3 /* in the new process: behind the standard streams */
#define FD_ERROR 4

static char *const *arguments;
static char own_file[PATH_MAX];
static bool manager_is_deaf;

/* ---- what this process was started as */

/* Started by systemd, which takes the end of this process for that of the service, and kills the successor,
 * unless it can be told of that one. */
static bool is_service_without_notify(void)
{
    const char *pid = getenv("SYSTEMD_EXEC_PID");
    return pid != NULL && strtoll(pid, NULL, 10) == getpid() && getenv("NOTIFY_SOCKET") == NULL;
}

void upgrade_exec_remember(char *const *argv)
{
    ssize_t n = readlink("/proc/self/exe", own_file, sizeof own_file - 1);
    own_file[n > 0 ? n : 0] = '\0';
    arguments = argv;
    manager_is_deaf = is_service_without_notify();
}

/* Inits of containers that take the end of their first child for that of everything. */
static bool parent_is_short_lived(void)
{
    static const char *const names[] = {"tini\n", "tini-static\n", "docker-init\n", "dumb-init\n",
                                        "catatonit\n"};
    char name[32] = "";
    FILE *f = getppid() == 1 ? fopen("/proc/1/comm", "re") : NULL;
    if (f == NULL)
        return false;
    bool got = fgets(name, sizeof name, f) != NULL;
    fclose(f);
    for (size_t i = 0; got && i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

const char *upgrade_exec_why_not(void)
{
    if (arguments == NULL)
        return "it is a part of another program (tgg run)";
    if (own_file[0] != '/')
        return "the file that it was started from is not known: /proc is missing";
    if (getpid() == 1)
        return "it is the first process of a container, which ends with it (start it below an init that "
               "waits for all processes: docs/UPGRADE.md)";
    if (parent_is_short_lived())
        return "the init of this container ends with the process that it has started (start it below one "
               "that "
               "waits for all processes: docs/UPGRADE.md)";
    if (manager_is_deaf)
        return "systemd could not be told of the new process, and would end it: the unit needs Type=notify";
    return NULL;
}

const char *upgrade_exec_binary(void)
{
    return upgrade_exec_why_not() == NULL ? own_file : NULL;
}

/* ---- the start */

static bool add_variables(const char *const *env, int fd)
{
    char number[16];

    snprintf(number, sizeof number, "%d", fd);
    if (setenv(UPGRADE_FD_VARIABLE, number, 1) < 0)
        return false;
    for (; env != NULL && *env != NULL; env++) {
        if (putenv((char *)(uintptr_t)*env) != 0)
            return false;
    }
    return true;
}

static void default_signals(void)
{
    struct sigaction deflt = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        sigaction(sig, &deflt, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Descriptors 3 and 4 may be those that are to get there: first to numbers that are free and high enough. */
static bool place_descriptors(int talk, int error)
{
    int talk_high = fcntl(talk, F_DUPFD_CLOEXEC, FD_ERROR + 1);
    int error_high = fcntl(error, F_DUPFD_CLOEXEC, FD_ERROR + 1);

    return talk_high >= 0 && error_high >= 0 && dup2(talk_high, FD_TALK) >= 0 &&
           dup3(error_high, FD_ERROR, O_CLOEXEC) >= 0 && close_range(FD_ERROR + 1, ~0U, 0) == 0;
}

static _Noreturn void become(const char *binary, const char *const *env, int talk, int error)
{
    if (!place_descriptors(talk, error))
        _exit(127);
    default_signals();
    if (add_variables(env, FD_TALK))
        execv(binary, arguments);
    int err = errno;
    ssize_t n = write(FD_ERROR, &err, sizeof err);
    _exit(n == (ssize_t)sizeof err ? 127 : 126);
}

/* The end without a word is that of a descriptor that the exec has closed. 0 or -errno. */
static int await_exec(int fd)
{
    int err = 0;
    ssize_t n;

    do
        n = read(fd, &err, sizeof err);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof err ? -err : 0;
}

pid_t upgrade_exec(const char *binary, const char *const *env, int fd)
{
    int error[2];

    if (upgrade_exec_why_not() != NULL)
        return -EOPNOTSUPP;
    if (pipe2(error, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0)
        become(binary[0] != '\0' ? binary : own_file, env, fd, error[1]);
    int r = pid < 0 ? -errno : 0;
    close(error[1]);
    if (r == 0)
        r = await_exec(error[0]);
    close(error[0]);
    if (r < 0 && pid > 0)
        waitpid(pid, NULL, 0);
    return r < 0 ? r : pid;
}

/* ---- in the new process */

int upgrade_exec_fd(void)
{
    const char *text = getenv(UPGRADE_FD_VARIABLE);
    char *end;
    int type;
    socklen_t len = sizeof type;

    if (text == NULL)
        return -1;
    long fd = strtol(text, &end, 10);
    bool number = *text != '\0' && *end == '\0' && fd > STDERR_FILENO && fd <= INT_MAX;
    unsetenv(UPGRADE_FD_VARIABLE);
    if (!number || getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
        return -EBADF;
    return (int)fd;
}
