// SPDX-License-Identifier: MIT
#include "base/tcp_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <cmocka.h>

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static int tcp_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    return fd;
}

static void all_of_them_are_set(void **state)
{
    int fd = tcp_socket();
    assert_false(tcp_options_are_set(fd));
    tcp_options_set(fd, &(struct net_keepalive){50, 10, 3, 40000});
    assert_true(tcp_options_are_set(fd));
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 50);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 10);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 40000);
    close(fd);
}

static void zero_is_the_kernels(void **state)
{
    int fd = tcp_socket(), other = tcp_socket();
    tcp_options_set(fd, &(struct net_keepalive){0});
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), option(other, IPPROTO_TCP, TCP_KEEPIDLE));
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), option(other, IPPROTO_TCP, TCP_KEEPINTVL));
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), option(other, IPPROTO_TCP, TCP_KEEPCNT));
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 0);
    assert_true(tcp_options_are_set(fd));
    close(fd);
    close(other);
}

static void assert_user_timeout(struct net_keepalive k, int expected_ms)
{
    int fd = tcp_socket();
    tcp_options_set(fd, &k);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), expected_ms);
    close(fd);
}

/* With 120 s and the default it would be 130 s until an idle peer is gone, instead of 115. */
static void the_user_timeout_does_not_make_keepalive_longer(void **state)
{
    assert_user_timeout((struct net_keepalive){55, 15, 4, 120000}, 115000);
    assert_user_timeout((struct net_keepalive){55, 15, 4, 115000}, 115000);
    assert_user_timeout((struct net_keepalive){55, 15, 4, 114999}, 114999);
    assert_user_timeout((struct net_keepalive){32767, 32767, 127, UINT32_C(86400000)}, 86400000);
    assert_user_timeout((struct net_keepalive){1, 1, 1, 0}, 0);
    assert_user_timeout((struct net_keepalive){0, 1, 1, 120000}, 120000); /* 2 h, or what the host says */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_them_are_set),
        cmocka_unit_test(zero_is_the_kernels),
        cmocka_unit_test(the_user_timeout_does_not_make_keepalive_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
