// SPDX-License-Identifier: MIT
#include "supervisor/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
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
        cmocka_unit_test(what_went_wrong_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
