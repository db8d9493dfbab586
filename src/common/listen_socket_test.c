// SPDX-License-Identifier: MIT
#include "common/listen_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#define SOCKETS     4
#define CONNECTIONS 200

static const struct net_keepalive keepalive = {50, 10, 3, 40000};

static uint16_t port_of(int fd)
{
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    return ntohs(a.sin_port);
}

static uint16_t free_port(void)
{
    int fd = listen_socket_open("127.0.0.1", 0, 1);
    assert_true(fd >= 0);
    uint16_t port = port_of(fd);
    close(fd);
    return port;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static unsigned accept_all(int fd)
{
    unsigned n = 0;
    for (int c; (c = accept(fd, NULL, NULL)) >= 0; n++)
        close(c);
    assert_int_equal(errno, EAGAIN);
    return n;
}

static void close_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
}

/* Also the first one, which shared its port only after it listened. */
static void connections_are_spread_over_all(void **state)
{
    int fds[SOCKETS], clients[CONNECTIONS];
    uint16_t port = free_port();
    unsigned all = 0;

    assert_int_equal(listen_socket_open_several("127.0.0.1", port, CONNECTIONS, &keepalive, SOCKETS, fds), 0);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        clients[i] = connect_to(port);
    for (unsigned i = 0; i < SOCKETS; i++) {
        unsigned n = accept_all(fds[i]);
        assert_in_range(n, CONNECTIONS / SOCKETS / 3, CONNECTIONS / SOCKETS * 3);
        all += n;
    }
    assert_int_equal(all, CONNECTIONS);
    close_all(clients, CONNECTIONS);
    close_all(fds, SOCKETS);
}

static void nobody_else_shares_the_port(void **state)
{
    int fds[SOCKETS], others[SOCKETS];
    uint16_t port = free_port();

    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, &keepalive, SOCKETS, fds), 0);
    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, &keepalive, SOCKETS, others),
                     -EADDRINUSE);
    assert_int_equal(listen_socket_open_several("0.0.0.0", port, 8, &keepalive, SOCKETS, others),
                     -EADDRINUSE);
    assert_int_equal(listen_socket_open("127.0.0.1", port, 8), -EADDRINUSE);
    close_all(fds, SOCKETS);
    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, &keepalive, SOCKETS, others), 0);
    close_all(others, SOCKETS);
}

static void one_does_not_share(void **state)
{
    int fd, on = 1, other;
    socklen_t len = sizeof on;
    uint16_t port = free_port();

    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, &keepalive, 1, &fd), 0);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, &len), 0);
    assert_int_equal(on, 0);
    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, &keepalive, 2, &other), -EADDRINUSE);
    close(fd);
}

static void what_is_no_address_is_refused(void **state)
{
    int fds[2];
    assert_int_equal(listen_socket_open_several("nonsense", 80, 1, &keepalive, 2, fds), -EINVAL);
    assert_int_equal(listen_socket_open_several("192.0.2.1", 8080, 1, &keepalive, 2, fds), -EADDRNOTAVAIL);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

/* Also of those that connect before any shard has seen the socket. */
static void whoever_waits_in_the_queue_has_the_tcp_options(void **state)
{
    int fds[SOCKETS], clients[16];
    uint16_t port = free_port();

    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 16, &keepalive, SOCKETS, fds), 0);
    for (unsigned i = 0; i < 16; i++)
        clients[i] = connect_to(port);
    for (unsigned i = 0; i < SOCKETS; i++) {
        for (int c; (c = accept(fds[i], NULL, NULL)) >= 0; close(c)) {
            assert_int_equal(option(c, IPPROTO_TCP, TCP_NODELAY), 1);
            assert_int_equal(option(c, SOL_SOCKET, SO_KEEPALIVE), 1);
            assert_int_equal(option(c, IPPROTO_TCP, TCP_KEEPIDLE), 50);
            assert_int_equal(option(c, IPPROTO_TCP, TCP_KEEPINTVL), 10);
            assert_int_equal(option(c, IPPROTO_TCP, TCP_KEEPCNT), 3);
            assert_int_equal(option(c, IPPROTO_TCP, TCP_USER_TIMEOUT), 40000);
        }
    }
    close_all(clients, 16);
    close_all(fds, SOCKETS);
}

static bool has_ipv6(void)
{
    int fd = listen_socket_open("::1", 0, 1);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static int try_connect6(uint16_t port)
{
    struct sockaddr_in6 a = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : 0;
    close(fd);
    return r;
}

/* 0.0.0.0 has the port at the same time, so :: is IPv6 only. */
static void ipv6_sockets_take_ipv6_only(void **state)
{
    int four[SOCKETS], six[SOCKETS];
    uint16_t port = free_port();
    unsigned all = 0;

    if (!has_ipv6()) {
        print_message("no IPv6 here\n");
        skip();
    }
    for (unsigned n = 1; n <= SOCKETS; n += SOCKETS - 1) {
        all = 0;
        assert_int_equal(listen_socket_open_several("::", port, 16, &keepalive, n, six), 0);
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(option(six[i], IPPROTO_IPV6, IPV6_V6ONLY), 1);
        assert_int_equal(listen_socket_open_several("0.0.0.0", port, 16, &keepalive, n, four), 0);
        assert_int_equal(try_connect6(port), 0);
        for (unsigned i = 0; i < n; i++)
            all += accept_all(six[i]);
        assert_int_equal(all, 1);
        close_all(four, n);
        close_all(six, n);
        assert_int_equal(try_connect6(port), -ECONNREFUSED);
    }
}

/* ---- Unix sockets, in a folder of the test's own */

static char folder[64], address[108];
static const char *path;

static int with_folder(void **state)
{
    snprintf(folder, sizeof folder, "/tmp/listen_socket_test.XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(address, sizeof address, "unix:%s/s", folder);
    path = address + 5;
    return 0;
}

static int without_folder(void **state)
{
    unlink(path);
    return rmdir(folder);
}

static int open_one(struct listen_socket_file *ret)
{
    return listen_socket_open_unix(address, 8, 0660, ret);
}

static int connect_file(const char *to, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", to);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
        return fd;
    int err = errno;
    close(fd);
    return -err;
}

static bool exists(void)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void assert_mode(mode_t mode, mode_t mask)
{
    struct listen_socket_file file;
    struct stat st;
    mode_t before = umask(mask);
    int fd = listen_socket_open_unix(address, 8, mode, &file);

    assert_true(fd >= 0);
    assert_int_equal(umask(before), mask); /* as it was */
    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | mode);
    assert_int_equal(file.ino, st.st_ino);
    listen_socket_remove_file(address, &file);
    assert_false(exists());
    close(fd);
}

static void a_socket_file_has_the_mode_whatever_the_umask(void **state)
{
    assert_mode(0660, 0022);
    assert_mode(0666, 0077);
    assert_mode(0600, 0);
    assert_mode(0777, 0777);
}

static void a_unix_socket_takes_connections(void **state)
{
    struct listen_socket_file file;
    int fd = open_one(&file), c = connect_file(path, SOCK_STREAM);
    assert_true(fd >= 0 && c >= 0);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(accept_all(fd), 1);
    close(c);
    close(fd);
}

static void what_a_killed_process_left_is_replaced(void **state)
{
    struct listen_socket_file file;
    int status, pipe_fds[2];
    char byte;

    assert_int_equal(pipe(pipe_fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        byte = open_one(&file) >= 0 ? 'y' : 'n';
        if (write(pipe_fds[1], &byte, 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    assert_int_equal(open_one(&file), -EADDRINUSE);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(exists());
    assert_int_equal(connect_file(path, SOCK_STREAM), -ECONNREFUSED);
    int fd = open_one(&file);
    assert_true(fd >= 0);
    close(connect_file(path, SOCK_STREAM));
    assert_int_equal(accept_all(fd), 1);
    close(fd);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

/* Its queue is full: that is no sign of death, nor may it make us wait. */
static void somebody_who_is_slow_to_accept_has_it_still(void **state)
{
    struct listen_socket_file file;
    int clients[16], n = 0, fd = listen_socket_open_unix(address, 1, 0660, &file);

    int r;
    while ((r = connect_file(path, SOCK_STREAM)) >= 0) {
        assert_true(n < 16);
        clients[n++] = r;
    }
    assert_int_equal(r, -EAGAIN);
    assert_int_equal(open_one(&file), -EADDRINUSE);
    close_all(clients, (unsigned)n);
    close(fd);
}

static void a_socket_of_another_type_is_in_use(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct listen_socket_file file;
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(open_one(&file), -EADDRINUSE);
    close(fd);
    assert_true(exists());
}

static void what_is_no_socket_stays(void **state)
{
    struct listen_socket_file file;
    char target[80];
    int fd = open(path, O_CREAT | O_WRONLY, 0600);

    close(fd);
    assert_int_equal(open_one(&file), -EEXIST);
    assert_true(exists());
    unlink(path);

    snprintf(target, sizeof target, "%s/other", folder); /* not even a link to one that is left behind */
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(open_one(&file), -EEXIST);
    assert_true(exists());
}

static void only_ones_own_file_is_removed(void **state)
{
    struct listen_socket_file mine, others;
    int fd = open_one(&mine), beside;
    char aside[80];

    snprintf(aside, sizeof aside, "%s/aside", folder); /* so that its number is not given out again */
    assert_int_equal(rename(path, aside), 0);
    beside = open_one(&others);
    assert_true(beside >= 0);
    listen_socket_remove_file(address, &mine);
    assert_true(exists());
    listen_socket_remove_file(address, &others);
    assert_false(exists());
    listen_socket_remove_file(address, &others);
    listen_socket_remove_file("unix:nonsense", &others);
    listen_socket_remove_file("127.0.0.1", &others);
    close(fd);
    close(beside);
    unlink(aside);
}

static void two_do_not_start_in_one_folder_at_once(void **state)
{
    struct listen_socket_file file;
    int lock = open(folder, O_RDONLY | O_DIRECTORY);

    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_int_equal(open_one(&file), -EBUSY);
    close(lock);
    int fd = open_one(&file);
    assert_true(fd >= 0);
    lock = open(folder, O_RDONLY | O_DIRECTORY); /* held only while it is made */
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
    close(lock);
    close(fd);
}

static void what_is_no_path_is_refused(void **state)
{
    struct listen_socket_file file;
    char longest[200] = "unix:/";

    assert_int_equal(listen_socket_open_unix("unix:", 8, 0660, &file), -EINVAL);
    assert_int_equal(listen_socket_open_unix("unix:here", 8, 0660, &file), -EINVAL);
    assert_int_equal(listen_socket_open_unix("/tmp/x", 8, 0660, &file), -EINVAL);
    assert_int_equal(listen_socket_open("unix:/tmp/x", 80, 8), -EINVAL);
    memset(longest + 6, 'x', 120);
    assert_int_equal(listen_socket_open_unix(longest, 8, 0660, &file), -ENAMETOOLONG);
    snprintf(longest, sizeof longest, "unix:%s/no/s", folder);
    assert_int_equal(listen_socket_open_unix(longest, 8, 0660, &file), -ENOENT);
    assert_int_equal(listen_socket_open_unix("unix:/dev/null/s", 8, 0660, &file), -ENOTDIR);
}

static void assert_explained(int err, const char *word)
{
    char text[512];
    listen_socket_explain(err, "unix:/run/x/s", 80, text, sizeof text);
    if (strstr(text, word) == NULL || strstr(text, "/run/x/s") == NULL || strstr(text, "80") != NULL)
        fail_msg("%d: %s", err, text);
}

static void what_went_wrong_with_a_path_is_explained(void **state)
{
    assert_explained(-EADDRINUSE, "ss -lxp src /run/x/s");
    assert_explained(-EEXIST, "is no socket");
    assert_explained(-ENOENT, "mkdir -p");
    assert_explained(-EACCES, "not allowed");
    assert_explained(-EPERM, "not allowed");
    assert_explained(-EBUSY, "locked");
    assert_explained(-ENAMETOOLONG, "absolute path of at most 107 bytes");
    assert_explained(-EMFILE, "Too many open files");
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, with_folder, without_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_are_spread_over_all),
        cmocka_unit_test(nobody_else_shares_the_port),
        cmocka_unit_test(one_does_not_share),
        cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(whoever_waits_in_the_queue_has_the_tcp_options),
        cmocka_unit_test(ipv6_sockets_take_ipv6_only),
        IN_FOLDER(a_socket_file_has_the_mode_whatever_the_umask),
        IN_FOLDER(a_unix_socket_takes_connections),
        IN_FOLDER(what_a_killed_process_left_is_replaced),
        IN_FOLDER(somebody_who_is_slow_to_accept_has_it_still),
        IN_FOLDER(a_socket_of_another_type_is_in_use),
        IN_FOLDER(what_is_no_socket_stays),
        IN_FOLDER(only_ones_own_file_is_removed),
        IN_FOLDER(two_do_not_start_in_one_folder_at_once),
        IN_FOLDER(what_is_no_path_is_refused),
        cmocka_unit_test(what_went_wrong_with_a_path_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
