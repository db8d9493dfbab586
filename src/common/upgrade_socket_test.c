// SPDX-License-Identifier: MIT
#include "common/upgrade_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#define ANOTHER "busy another upgrade is under way\n"

static char dir[] = "/tmp/tgg-upgrade-socket-XXXXXX";
static char path[128];
static struct upgrade_socket sock;

static int open_socket(void **state)
{
    (void)state;
    return upgrade_socket_open(&sock, path);
}
static int close_socket(void **state)
{
    (void)state;
    upgrade_socket_close(&sock);
    unlink(path);
    return 0;
}

static int connect_new(void)
{
    int fd = upgrade_socket_connect(path);
    assert_true(fd >= 0);
    return fd;
}

static void put(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static int turn(const char **ret)
{
    int r = 0;
    for (int i = 0; i < 4 && r == 0; i++)
        r = upgrade_socket_turn(&sock, ret);
    return r;
}

/* All that it says, to its end if it has ended. */
static const char *said(int fd)
{
    static char buf[8192];
    ssize_t n = recv(fd, buf, sizeof buf - 1, MSG_DONTWAIT);
    buf[n > 0 ? n : 0] = '\0';
    return buf;
}
static bool has_ended(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

static int ask(const char *line)
{
    const char *binary = NULL;
    int fd = connect_new();
    put(fd, line);
    assert_int_equal(turn(&binary), 1);
    return fd;
}

static void who_asks_hears_how_it_goes_and_how_it_ends(void **state)
{
    const char *binary = NULL;
    (void)state;
    int fd = connect_new();
    put(fd, "upgrade /usr/bin/with space\n");
    assert_int_equal(turn(&binary), 1);
    assert_string_equal(binary, "/usr/bin/with space");
    assert_int_equal(turn(&binary), 0);
    upgrade_socket_progress(&sock, "step %d\nof two", 1);
    assert_string_equal(said(fd), "progress step 1 of two\n");
    assert_false(has_ended(fd));
    upgrade_socket_done(&sock, "pause_ms=%d", 7);
    assert_string_equal(said(fd), "done pause_ms=7\n");
    assert_true(has_ended(fd));
    close(fd);
    fd = ask("upgrade \n"); /* and the next one can come */
    upgrade_socket_failed(&sock, "no");
    assert_string_equal(said(fd), "failed no\n");
    close(fd);
}

static void a_line_may_come_in_pieces(void **state)
{
    static const char line[] = "upgrade /a/b\n";
    const char *binary = NULL;
    (void)state;
    for (size_t cut = 1; cut < sizeof line - 1; cut++) {
        int fd = connect_new();
        assert_int_equal(write(fd, line, cut), (ssize_t)cut);
        assert_int_equal(turn(&binary), 0);
        put(fd, line + cut);
        assert_int_equal(turn(&binary), 1);
        assert_string_equal(binary, "/a/b");
        upgrade_socket_done(&sock, "x");
        close(fd);
    }
}

static void no_binary_is_the_one_that_runs(void **state)
{
    const char *binary = NULL;
    (void)state;
    int fd = connect_new();
    put(fd, "upgrade \n");
    assert_int_equal(turn(&binary), 1);
    assert_string_equal(binary, "");
    close(fd);
}

static void what_is_not_understood_is_answered(void **state)
{
    static const char *const lines[] = {"\n", "upgrade\n", "stop /a\n", "upgrade relative/path\n"};
    const char *binary = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        int fd = connect_new();
        put(fd, lines[i]);
        assert_int_equal(turn(&binary), 0);
        assert_memory_equal(said(fd), "failed ", 7);
        assert_true(has_ended(fd));
        close(fd);
    }
}

static void a_line_without_end_is_refused(void **state)
{
    char x[UPGRADE_LINE_MAX];
    const char *binary = NULL;
    (void)state;
    memset(x, 'x', sizeof x);
    int fd = connect_new();
    assert_int_equal(write(fd, x, sizeof x), (ssize_t)sizeof x);
    assert_int_equal(turn(&binary), 0);
    assert_memory_equal(said(fd), "failed a line", 13);
    close(fd);
}

static void one_upgrade_at_a_time(void **state)
{
    const char *binary = NULL;
    (void)state;
    int first = ask("upgrade /a\n");
    int second = connect_new();
    put(second, "upgrade /b\n");
    assert_int_equal(turn(&binary), 0);
    assert_string_equal(said(second), ANOTHER);
    upgrade_socket_done(&sock, "x");
    assert_string_equal(said(first), "done x\n");
    close(first);
    close(second);
}

static void one_that_says_nothing_makes_room(void **state)
{
    const char *binary = NULL;
    (void)state;
    int silent = connect_new();
    assert_int_equal(turn(&binary), 0);
    int second = ask("upgrade /b\n");
    assert_memory_equal(said(silent), "busy ", 5);
    assert_true(has_ended(silent));
    close(silent);
    close(second);
}

static void busy_for_another_reason(void **state)
{
    const char *binary = NULL;
    (void)state;
    int before = connect_new();
    assert_int_equal(turn(&binary), 0);
    upgrade_socket_set_busy(&sock, true);
    put(before, "upgrade /a\n");
    assert_int_equal(turn(&binary), 0);
    assert_string_equal(said(before), ANOTHER);
    int after = connect_new();
    assert_int_equal(turn(&binary), 0);
    assert_string_equal(said(after), ANOTHER);
    upgrade_socket_progress(&sock, "nobody hears");
    upgrade_socket_done(&sock, "nobody hears");
    upgrade_socket_set_busy(&sock, false);
    close(before);
    close(after);
    close(ask("upgrade /a\n"));
}

static void who_leaves_is_not_spoken_to(void **state)
{
    const char *binary = NULL;
    (void)state;
    close(ask("upgrade /a\n"));
    assert_int_equal(turn(&binary), 0);
    assert_int_equal(sock.fd, -1);
    upgrade_socket_progress(&sock, "x");
    close(ask("upgrade /a\n"));
    upgrade_socket_progress(&sock, "x"); /* found out at writing */
    upgrade_socket_done(&sock, "x");
    assert_int_equal(sock.fd, -1);
}

static void who_does_not_read_is_left(void **state)
{
    (void)state;
    int fd = ask("upgrade /a\n");
    for (int i = 0; i < 100000 && sock.fd >= 0; i++)
        upgrade_socket_progress(&sock, "%01000d", i);
    assert_int_equal(sock.fd, -1);
    close(fd);
}

static void the_file_is_for_its_user(void **state)
{
    struct stat st;
    (void)state;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void another_user_is_refused(void **state)
{
    int status;
    const char *binary = NULL;
    (void)state;
    if (geteuid() != 0)
        skip();
    chmod(dir, 0755);
    chmod(path, 0666);
    pid_t pid = fork();
    if (pid == 0) {
        char buf[16] = "";
        int fd = setuid(65534) == 0 ? upgrade_socket_connect(path) : -1;
        (void)send(fd, "upgrade /a\n", 11, MSG_NOSIGNAL); /* it may be refused already */
        _exit(fd >= 0 && read(fd, buf, 7) == 7 && memcmp(buf, "failed ", 7) == 0 ? 0 : 1);
    }
    for (int i = 0; i < 500 && waitpid(pid, &status, WNOHANG) == 0; i++) {
        assert_int_equal(upgrade_socket_turn(&sock, &binary), 0);
        poll(&(struct pollfd){.fd = sock.listen_fd, .events = POLLIN}, 1, 10);
    }
    assert_int_equal(status, 0);
}

static void one_that_listens_is_not_replaced_and_one_that_is_dead_is(void **state)
{
    struct upgrade_socket other;
    (void)state;
    assert_int_equal(upgrade_socket_open(&other, path), -EADDRINUSE);
    upgrade_socket_close(&other);
    upgrade_socket_close(&sock);
    assert_int_equal(upgrade_socket_connect(path), -ECONNREFUSED);
    assert_int_equal(upgrade_socket_open(&sock, path), 0);
    close(connect_new());
}

static void a_file_that_is_no_socket_stays(void **state)
{
    char file[160];
    struct upgrade_socket other;
    (void)state;
    snprintf(file, sizeof file, "%s/file", dir);
    close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(upgrade_socket_open(&other, file), -EEXIST);
    assert_int_equal(access(file, F_OK), 0);
    unlink(file);
}

static void a_descriptor_can_be_adopted(void **state)
{
    (void)state;
    int fd = dup(sock.listen_fd);
    upgrade_socket_close(&sock);
    upgrade_socket_adopt(&sock, fd);
    close(ask("upgrade /a\n"));
}

static void a_path_has_to_fit(void **state)
{
    char buf[512], name[200];
    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_true(upgrade_socket_path("/run/x", "a.sock", buf, sizeof buf));
    assert_string_equal(buf, "/run/x/a.sock");
    assert_false(upgrade_socket_path("/run/x", name, buf, sizeof buf));
    assert_int_equal(upgrade_socket_connect(name), -ENAMETOOLONG);
}

#define WITH_SOCKET(f) cmocka_unit_test_setup_teardown(f, open_socket, close_socket)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SOCKET(who_asks_hears_how_it_goes_and_how_it_ends),
        WITH_SOCKET(a_line_may_come_in_pieces),
        WITH_SOCKET(no_binary_is_the_one_that_runs),
        WITH_SOCKET(what_is_not_understood_is_answered),
        WITH_SOCKET(a_line_without_end_is_refused),
        WITH_SOCKET(one_upgrade_at_a_time),
        WITH_SOCKET(one_that_says_nothing_makes_room),
        WITH_SOCKET(busy_for_another_reason),
        WITH_SOCKET(who_leaves_is_not_spoken_to),
        WITH_SOCKET(who_does_not_read_is_left),
        WITH_SOCKET(the_file_is_for_its_user),
        WITH_SOCKET(another_user_is_refused),
        WITH_SOCKET(one_that_listens_is_not_replaced_and_one_that_is_dead_is),
        WITH_SOCKET(a_file_that_is_no_socket_stays),
        WITH_SOCKET(a_descriptor_can_be_adopted),
        WITH_SOCKET(a_path_has_to_fit),
    };
    if (mkdtemp(dir) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/upgrade.sock", dir);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
