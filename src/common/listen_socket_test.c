// SPDX-License-Identifier: MIT
#include "common/listen_socket.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <cmocka.h>

#define SOCKETS     4
#define CONNECTIONS 200

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

    assert_int_equal(listen_socket_open_several("127.0.0.1", port, CONNECTIONS, SOCKETS, fds), 0);
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

    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, SOCKETS, fds), 0);
    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, SOCKETS, others), -EADDRINUSE);
    assert_int_equal(listen_socket_open_several("0.0.0.0", port, 8, SOCKETS, others), -EADDRINUSE);
    assert_int_equal(listen_socket_open("127.0.0.1", port, 8), -EADDRINUSE);
    close_all(fds, SOCKETS);
    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, SOCKETS, others), 0);
    close_all(others, SOCKETS);
}

static void one_does_not_share(void **state)
{
    int fd, on = 1, other;
    socklen_t len = sizeof on;
    uint16_t port = free_port();

    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, 1, &fd), 0);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, &len), 0);
    assert_int_equal(on, 0);
    assert_int_equal(listen_socket_open_several("127.0.0.1", port, 8, 2, &other), -EADDRINUSE);
    close(fd);
}

static void what_is_no_address_is_refused(void **state)
{
    int fds[2];
    assert_int_equal(listen_socket_open_several("nonsense", 80, 1, 2, fds), -EINVAL);
    assert_int_equal(listen_socket_open_several("192.0.2.1", 8080, 1, 2, fds), -EADDRNOTAVAIL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_are_spread_over_all),
        cmocka_unit_test(nobody_else_shares_the_port),
        cmocka_unit_test(one_does_not_share),
        cmocka_unit_test(what_is_no_address_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
