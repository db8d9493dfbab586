// SPDX-License-Identifier: MIT
#include "supervisor/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/listen_socket.h"

static struct config cfg;
static struct config_error err;
static struct shard_plan one = {.n = 1, .shards = {{.cpu = SHARD_CPU_NONE, .edge = true, .link = true}}};

static void set(const char *section, const char *key, const char *value)
{
    assert_int_equal(config_set(&cfg, section, key, value, &err), 0);
}

static int with_defaults(void **state)
{
    err = (struct config_error){0};
    config_defaults(&cfg);
    return 0;
}

static int without(void **state)
{
    config_fini(&cfg);
    return 0;
}

static void assert_internal(const char *lan_ip, const char *expected)
{
    char address[64];
    set("gateway", "lan_ip", lan_ip);
    assert_string_equal(listeners_internal_address(&cfg, address, sizeof address), expected);
}

static void private_addresses_are_listened_on_public_ones_are_not(void **state)
{
    static const char *const as_they_are[] = {"127.0.0.1",  "10.0.0.1",    "10.255.255.255", "172.16.0.1",
                                              "172.31.9.9", "192.168.1.1", "169.254.7.7",    "240.0.0.1"};
    static const char *const by_all[] = {"8.8.8.8",     "172.15.0.1", "172.32.0.1",
                                         "192.167.1.1", "11.0.0.1",   "100.64.0.1"};
    for (size_t i = 0; i < sizeof as_they_are / sizeof as_they_are[0]; i++)
        assert_internal(as_they_are[i], as_they_are[i]);
    for (size_t i = 0; i < sizeof by_all / sizeof by_all[0]; i++)
        assert_internal(by_all[i], "0.0.0.0");
}

static void inner_listen_wins(void **state)
{
    set("gateway", "inner_listen", "10.9.9.9");
    assert_internal("8.8.8.8", "10.9.9.9");
    assert_internal("127.0.0.1", "10.9.9.9");
}

/* A listening socket on a free port of 127.0.0.1. */
static int occupy(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

static void all_or_none_are_opened(void **state)
{
    uint16_t taken, other, internal;
    char text[16];
    struct listeners l;
    int fd = occupy(&taken);

    close(occupy(&other));
    close(occupy(&internal));
    snprintf(text, sizeof text, "%u", internal);
    set("gateway", "start_port", text);
    set("listen a", "address", "127.0.0.1");
    snprintf(text, sizeof text, "%u", other);
    set("listen a", "port", text);
    set("listen b", "address", "127.0.0.1");
    snprintf(text, sizeof text, "%u", taken);
    set("listen b", "port", text);
    assert_int_equal(listeners_open(&cfg, &one, &l, &err), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].section, "listen b");
    assert_string_equal(err.list[0].key, "port");
    int again = listen_socket_open("127.0.0.1", other, 1); /* was given back */
    assert_true(again >= 0);
    close(again);

    close(fd);
    assert_int_equal(listeners_open(&cfg, &one, &l, &err), 0);
    assert_int_equal(l.n, 2);
    assert_true(l.fds[0][0] >= 0 && l.fds[0][1] >= 0 && l.internal_fd >= 0);
    assert_ptr_equal(listeners_of(&l, 0), l.fds[0]);
    assert_int_equal(listen_socket_open("127.0.0.1", taken, 1), -EADDRINUSE);
    listeners_close(&l);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void each_edge_shard_has_sockets_of_its_own(void **state)
{
    struct shard_plan plan = {.n = 3,
                              .shards = {{.edge = true}, {.link = true}, {.edge = true, .link = true}}};
    struct listeners l;
    uint16_t port, internal;
    char text[16];

    close(occupy(&port));
    close(occupy(&internal));
    snprintf(text, sizeof text, "%u", internal);
    set("gateway", "start_port", text);
    set("listen a", "address", "127.0.0.1");
    snprintf(text, sizeof text, "%u", port);
    set("listen a", "port", text);
    assert_int_equal(listeners_open(&cfg, &plan, &l, &err), 0);
    assert_non_null(listeners_of(&l, 0));
    assert_null(listeners_of(&l, 1));
    assert_non_null(listeners_of(&l, 2));
    assert_true(l.fds[0][0] != l.fds[2][0]);
    assert_true(is_open(l.fds[0][0]) && is_open(l.fds[2][0]));
    /* Another gateway, of the same user, that shares its ports too. */
    struct listeners other;
    assert_int_equal(listeners_open(&cfg, &plan, &other, &err), -EINVAL);
    assert_int_equal(err.n, 2); /* the internal port, too */

    int first = l.fds[0][0];
    listeners_keep(&l, 2);
    assert_false(is_open(first));
    assert_null(listeners_of(&l, 0));
    assert_true(is_open(listeners_of(&l, 2)[0]) && is_open(l.internal_fd));
    listeners_close(&l);
    assert_null(listeners_of(&l, 2));
}

static void set_number(const char *section, const char *key, unsigned value)
{
    char text[16];
    snprintf(text, sizeof text, "%u", value);
    set(section, key, text);
}

static uint16_t free_port(void)
{
    uint16_t port;
    close(occupy(&port));
    return port;
}

static int tcp_option(int fd, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, name, &value, &len), 0);
    return value;
}

static void keepalive_is_that_of_the_configuration(void **state)
{
    struct listeners l;

    set_number("gateway", "start_port", free_port());
    set("gateway", "tcp_keepalive_idle", "20");
    set("gateway", "tcp_keepalive_interval", "5");
    set("gateway", "tcp_keepalive_count", "2");
    set("gateway", "tcp_user_timeout", "25");
    set("listen a", "address", "127.0.0.1");
    set_number("listen a", "port", free_port());
    assert_int_equal(listeners_open(&cfg, &one, &l, &err), 0);
    assert_int_equal(tcp_option(l.fds[0][0], TCP_KEEPIDLE), 20);
    assert_int_equal(tcp_option(l.fds[0][0], TCP_KEEPINTVL), 5);
    assert_int_equal(tcp_option(l.fds[0][0], TCP_KEEPCNT), 2);
    assert_int_equal(tcp_option(l.fds[0][0], TCP_USER_TIMEOUT), 25000);
    /* A worker that does not read is busy. */
    assert_int_equal(tcp_option(l.internal_fd, TCP_KEEPIDLE), 20);
    assert_int_equal(tcp_option(l.internal_fd, TCP_USER_TIMEOUT), 0);
    assert_int_equal(tcp_option(l.internal_fd, TCP_NODELAY), 1);
    listeners_close(&l);
}

/* ---- listeners that have no socket of their own */

static struct shard_plan two_edges = {
    .n = 3, .shards = {{.edge = true}, {.link = true}, {.edge = true, .link = true}}};

static void of_listeners_on_one_port_the_first_has_the_socket(void **state)
{
    struct listeners l;
    uint16_t port = free_port();
    static const char *const sections[] = {"listen a", "listen b", "listen c"};

    set_number("gateway", "start_port", free_port());
    for (unsigned i = 0; i < 3; i++) {
        set(sections[i], "address", "127.0.0.1");
        set_number(sections[i], "port", i == 1 ? free_port() : port);
        set(sections[i], "protocol", "websocket");
        set(sections[i], "path", i == 0 ? "/chat" : "/news");
    }
    assert_int_equal(config_listen_socket_of(&cfg, 2), 0);
    assert_int_equal(listeners_open(&cfg, &two_edges, &l, &err), 0);
    assert_int_equal(l.n, 3);
    assert_true(is_open(l.fds[0][0]) && is_open(l.fds[2][0]));
    assert_true(is_open(l.fds[0][1]) && is_open(l.fds[2][1]));
    assert_int_equal(l.fds[0][2], -1);
    assert_int_equal(l.fds[2][2], -1);
    assert_ptr_equal(listeners_of(&l, 2), l.fds[2]);
    listeners_keep(&l, 2);
    assert_null(listeners_of(&l, 0));
    assert_true(is_open(l.fds[2][0]));
    listeners_close(&l);
}

/* ---- Unix sockets, in a folder of the test's own */

static char folder[64], path[80], address[96];

static int with_folder(void **state)
{
    with_defaults(state);
    snprintf(folder, sizeof folder, "/tmp/listeners_test.XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/s", folder);
    snprintf(address, sizeof address, "unix:%s", path);
    set_number("gateway", "start_port", free_port());
    set("listen a", "address", address);
    set("listen a", "port", "7272");
    set("listen a", "protocol", "text");
    set("listen a", "socket_mode", "0622");
    return 0;
}

static int without_folder(void **state)
{
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
    return without(state);
}

static bool file_exists(struct stat *ret)
{
    return lstat(path, ret) == 0;
}

static void connect_once(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
}

static void assert_accepts(int fd)
{
    int c = accept(fd, NULL, NULL);
    assert_true(c >= 0);
    close(c);
}

static void all_edge_shards_share_a_unix_socket(void **state)
{
    struct listeners l, again;
    struct stat st;

    assert_int_equal(listeners_open(&cfg, &two_edges, &l, &err), 0);
    assert_true(file_exists(&st));
    assert_int_equal(st.st_mode, S_IFSOCK | 0622);
    assert_null(listeners_of(&l, 1));
    assert_true(is_open(l.fds[0][0]) && is_open(l.fds[2][0]) && l.fds[0][0] != l.fds[2][0]);
    assert_true(fcntl(l.fds[2][0], F_GETFD) & FD_CLOEXEC);
    connect_once();
    connect_once();
    assert_accepts(l.fds[0][0]);
    assert_accepts(l.fds[2][0]);
    connect_once();

    listeners_keep(&l, 2); /* what the other had not accepted is there still */
    assert_accepts(l.fds[2][0]);
    set_number("gateway", "start_port", free_port());
    assert_int_equal(listeners_open(&cfg, &two_edges, &again, &err), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].key, "address");
    assert_true(file_exists(&st)); /* who failed removes nothing of others */
    listeners_close(&l);
    assert_false(file_exists(&st));
}

static void only_the_opener_removes_the_file(void **state)
{
    struct listeners l;
    struct stat st;
    int status;

    assert_int_equal(listeners_open(&cfg, &one, &l, &err), 0);
    pid_t pid = fork();
    if (pid == 0) {
        listeners_close(&l);
        _exit(l.n != 0 ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_true(file_exists(&st));
    connect_once();
    listeners_close(&l);
    assert_false(file_exists(&st));
}

/* The supervisor closes when it drains, and again at its very end. */
static void a_second_close_leaves_a_successors_file(void **state)
{
    struct listeners l, successor;
    struct stat st;

    assert_int_equal(listeners_open(&cfg, &one, &l, &err), 0);
    listeners_close(&l);
    assert_int_equal(listeners_open(&cfg, &one, &successor, &err), 0);
    listeners_close(&l);
    assert_true(file_exists(&st));
    listeners_close(&successor);
}

static void a_file_goes_again_when_another_listener_fails(void **state)
{
    struct listeners l;
    struct stat st;
    uint16_t taken;
    int fd = occupy(&taken);

    set("listen b", "address", "127.0.0.1");
    set_number("listen b", "port", taken);
    assert_int_equal(listeners_open(&cfg, &two_edges, &l, &err), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].section, "listen b");
    assert_false(file_exists(&st));
    close(fd);
}

static void what_went_wrong_is_explained(void **state)
{
    char text[320];
    assert_non_null(
        strstr(listen_socket_explain(-EADDRINUSE, "::", 80, text, sizeof text), "ss -ltnp 'sport = :80'"));
    assert_non_null(
        strstr(listen_socket_explain(-EACCES, "::", 80, text, sizeof text), "CAP_NET_BIND_SERVICE"));
    assert_non_null(
        strstr(listen_socket_explain(-EMFILE, "::", 80, text, sizeof text), "Too many open files"));
    assert_int_equal(listen_socket_open("nonsense", 80, 1), -EINVAL);
    assert_int_equal(listen_socket_open("192.0.2.1", 8080, 1), -EADDRNOTAVAIL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(private_addresses_are_listened_on_public_ones_are_not, with_defaults,
                                        without),
        cmocka_unit_test_setup_teardown(inner_listen_wins, with_defaults, without),
        cmocka_unit_test_setup_teardown(all_or_none_are_opened, with_defaults, without),
        cmocka_unit_test_setup_teardown(each_edge_shard_has_sockets_of_its_own, with_defaults, without),
        cmocka_unit_test_setup_teardown(keepalive_is_that_of_the_configuration, with_defaults, without),
        cmocka_unit_test_setup_teardown(of_listeners_on_one_port_the_first_has_the_socket, with_defaults,
                                        without),
        cmocka_unit_test_setup_teardown(all_edge_shards_share_a_unix_socket, with_folder, without_folder),
        cmocka_unit_test_setup_teardown(only_the_opener_removes_the_file, with_folder, without_folder),
        cmocka_unit_test_setup_teardown(a_second_close_leaves_a_successors_file, with_folder, without_folder),
        cmocka_unit_test_setup_teardown(a_file_goes_again_when_another_listener_fails, with_folder,
                                        without_folder),
        cmocka_unit_test(what_went_wrong_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
