// SPDX-License-Identifier: MIT
/* In children: the filter is for good. */
#include "supervisor/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "common/files.h"
#include "common/settings.h"
#include "supervisor/stack_dump.h"

static char log_path[64];
static bool possible;
static struct files *files;
static uint32_t *stacks;

static int set_up_all(void **state)
{
    int wstatus;
    struct config cfg;
    struct config_error err = {0};
    pid_t pid = fork();
    if (pid == 0)
        _exit(sandbox_enter("x") == 0 ? 0 : 1);
    if (waitpid(pid, &wstatus, 0) != pid)
        return -1;
    possible = wstatus == 0;
    if (!possible)
        print_message("no sandbox in this build or on this kernel: not looked at\n");
    stacks = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    config_defaults(&cfg);
    int r = files_load(&cfg, SLICE_STR("[gateway]\n"), &files, &err);
    config_fini(&cfg);
    snprintf(log_path, sizeof log_path, "/tmp/tgg-sandbox-test-XXXXXX");
    int fd = mkstemp(log_path);
    close(fd);
    return stacks == MAP_FAILED || fd < 0 ? -1 : r;
}

static int tear_down_all(void **state)
{
    files_free(files);
    return unlink(log_path);
}

/* Runs it as a shard would; its wait status. */
static struct shard_crash crash;

static int in_sandbox(int (*run)(void))
{
    int wstatus;
    truncate(log_path, 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct log_options opt = {.level = LOG_INFO, .path = log_path, .process = "shard 0"};
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        if (log_open(&opt) < 0)
            _exit(100);
        stack_dump_install("shard 0", stacks, &crash);
        if (sandbox_enter("shard 0") < 0)
            _exit(101);
        exit(run());
    }
    return waitpid(pid, &wstatus, 0) == pid ? wstatus : -1;
}

static char *logged(void)
{
    static char text[65536];
    FILE *f = fopen(log_path, "re");
    size_t len = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
    text[len] = '\0';
    if (f != NULL)
        fclose(f);
    return text;
}

/* The number of the line that was not as expected, modulo 256. */
#define LOOK(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return __LINE__ & 255;                                                                           \
    } while (0)

static void assert_runs(int (*run)(void))
{
    if (!possible)
        return;
    int wstatus = in_sandbox(run);
    if (wstatus != 0)
        fail_msg("wait status %x: line %d, modulo 256\n%s", (unsigned)wstatus, wstatus >> 8, logged());
}

/* ---- what a shard does */

static int talk(void)
{
    int pair[2], value = 1;
    char c = 'x';
    struct epoll_event ev = {.events = EPOLLIN};
    LOOK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    int ep = epoll_create1(EPOLL_CLOEXEC);
    LOOK(ep >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &ev) == 0);
    LOOK(send(pair[1], &c, 1, MSG_NOSIGNAL) == 1);
    LOOK(epoll_wait(ep, &ev, 1, 1000) == 1);
    LOOK(recv(pair[0], &c, 1, 0) == 1);
    LOOK(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &value, sizeof value) == 0);
    LOOK(shutdown(pair[0], SHUT_WR) == 0 && close(pair[0]) == 0);
    LOOK(eventfd(0, EFD_NONBLOCK) >= 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    LOOK(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && signalfd(-1, &set, SFD_CLOEXEC) >= 0);
    return 0;
}

static int take_memory(void)
{
    struct rlimit limit;
    for (size_t size = 1; size < (size_t)64 << 20; size *= 2) {
        char *p = malloc(size);
        LOOK(p != NULL);
        memset(p, 1, size);
        char *q = realloc(p, 2 * size);
        LOOK(q != NULL);
        free(q);
    }
    void *mem = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    LOOK(mem != MAP_FAILED && madvise(mem, 1 << 20, MADV_DONTNEED) == 0 && munmap(mem, 1 << 20) == 0);
    LOOK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    sched_yield();
    return 0;
}

static int take_settings(void)
{
    int pair[2];
    struct settings got;
    LOOK(settings_open(pair) == 0);
    LOOK(settings_receive(pair[0], &got) == -EAGAIN);
    return 0;
}

static int memfd, settings[2];

static int take_files(void)
{
    struct settings s;
    struct files *got;
    LOOK(settings_receive(settings[0], &s) == 0 && files_open(s.files_fd, &got) == 0);
    LOOK(slice_eq_str(files_config_text(got), "[gateway]\n"));
    LOOK(s.n_listeners == 1 && accept4(s.listeners[0].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) >= 0);
    files_free(got);
    settings_close(&s);
    return 0;
}

static int log_anew(void)
{
    char moved[80];
    snprintf(moved, sizeof moved, "%s", log_path);
    LOG(LOG_NOTICE, "before", "a=1");
    LOOK(log_reopen() == 0);
    LOG(LOG_NOTICE, "after", "a=%d", 2);
    raise(SIGQUIT);
    return 0;
}

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int sort(void)
{
    int *list = calloc(100000, sizeof *list);
    LOOK(list != NULL);
    for (int i = 0; i < 100000; i++)
        list[i] = (i * 7919) % 100003;
    qsort(list, 100000, sizeof *list, by_number);
    free(list);
    return 0;
}

static void a_shard_can_do_its_work(void **state)
{
    static int (*const all[])(void) = {talk, take_memory, sort, take_settings};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_runs(all[i]);
        assert_null(strstr(logged(), "sandbox:"));
    }
}

static void new_settings_can_be_taken(void **state)
{
    assert_int_equal(settings_open(settings), 0);
    memfd = files_to_fd(files);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(listening, 1), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&a, &len), 0);
    assert_int_equal(connect(client, (struct sockaddr *)&a, len), 0);
    struct settings s = {
        .generation = 1, .files_fd = memfd, .n_listeners = 1, .listeners = {{.socket = 1, .fd = listening}}};
    assert_int_equal(settings_send(settings[1], &s), 0);
    assert_runs(take_files);
    assert_null(strstr(logged(), "sandbox:"));
    close(listening);
    close(client);
    close(memfd);
    close(settings[0]);
    close(settings[1]);
}

static void logs_are_opened_again_and_stacks_written(void **state)
{
    *stacks = 0;
    assert_runs(log_anew);
    if (!possible)
        return;
    assert_non_null(strstr(logged(), "after a=2"));
    assert_non_null(strstr(logged(), "stack of shard 0"));
    assert_null(strstr(logged(), "sandbox:"));
    assert_int_equal(*stacks, 1);
}

/* ---- what it does not */

static int do_evil(void)
{
    char program[] = "/bin/true", *argv[] = {program, NULL};
    void *mem;
    LOOK(fork() == -1 && errno == EPERM);
    LOOK(execv(argv[0], argv) == -1 && errno == EPERM);
    LOOK(syscall(SYS_clone3, NULL, 0) == -1 && errno == EPERM);
    LOOK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1 && errno == EPERM);
    LOOK(kill(getppid(), 0) == -1 && errno == EPERM);
    LOOK(mount("x", "/", "y", 0, NULL) == -1 && errno == EPERM);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    LOOK(fd == -1 && errno == EPERM);
    fd = socket(AF_NETLINK, SOCK_RAW, 0);
    LOOK(fd == -1 && errno == EPERM);
    mem = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    LOOK(mem == MAP_FAILED && errno == EPERM);
    mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    LOOK(mem != MAP_FAILED && mprotect(mem, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EPERM);
    LOOK(prctl(PR_SET_DUMPABLE, 0) == -1 && errno == EPERM);
    LOOK(setpriority(PRIO_PROCESS, 0, 5) == 0);
    LOOK(setpriority(PRIO_PROCESS, (id_t)getppid(), 5) == -1 && errno == EPERM);
    LOOK(prctl(PR_SET_DUMPABLE, 1) == 0); /* at the end, for a core file */
    LOOK(chmod(log_path, 0777) == -1 && errno == EPERM);
    LOOK(unlink(log_path) == -1 && errno == EPERM);
    LOOK(syscall(SYS_bpf, 0, NULL, 0) == -1 && errno == EPERM);
    LOOK(syscall(SYS_io_uring_setup, 1, NULL) == -1 && errno == EPERM);
    LOOK(syscall(SYS_userfaultfd, 0) == -1 && errno == EPERM);
    LOOK(setuid(1) == -1 && errno == EPERM);
    return 0;
}

static void all_else_is_refused(void **state)
{
    assert_runs(do_evil);
    if (!possible)
        return;
    const char *text = logged();
    assert_non_null(strstr(text, "sandbox: shard 0, pid "));
    assert_non_null(strstr(text, " execve:\n"));
    assert_non_null(strstr(text, " ptrace:\n"));
    assert_non_null(strstr(text, "no more is told"));
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, "sandbox:")) != NULL; p++)
        n++;
    assert_int_equal(n, 16);
}

/* ---- how it ends */

static int abort_it(void)
{
    abort();
}

static int fault(void)
{
    volatile int *volatile nowhere = (int *)8;
    *nowhere = 1;
    return 0;
}

static void it_still_dies_as_it_should(void **state)
{
    if (!possible)
        return;
    int wstatus = in_sandbox(abort_it);
    assert_true(WIFSIGNALED(wstatus) && WTERMSIG(wstatus) == SIGABRT);
    assert_non_null(strstr(logged(), "stack of shard 0"));
    assert_null(strstr(logged(), "sandbox:"));
    wstatus = in_sandbox(fault);
    assert_true(WIFSIGNALED(wstatus) && WTERMSIG(wstatus) == SIGSEGV);
    assert_non_null(strstr(logged(), "stack of shard 0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shard_can_do_its_work),
        cmocka_unit_test(new_settings_can_be_taken),
        cmocka_unit_test(logs_are_opened_again_and_stacks_written),
        cmocka_unit_test(all_else_is_refused),
        cmocka_unit_test(it_still_dies_as_it_should),
    };
    return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
