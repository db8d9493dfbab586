// SPDX-License-Identifier: MIT
#include "net/net_epoll.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "loop/loop.h"
#include "net/net.h"

#define MS UINT64_C(1000000)

static struct loop *l;
static struct net *n;
static struct net_conn conn; /* the last that was accepted */
static struct net_addr last_peer, last_local;
static unsigned n_data, n_closed, n_accepted;
static size_t n_bytes;

static void on_data(struct net_conn *c, uint8_t *data, size_t len)
{
    n_data++;
    n_bytes += len;
}
static void on_writable(struct net_conn *c)
{
}
static void on_closed(struct net_conn *c, int err)
{
    n_closed++;
}
static const struct net_conn_ops conn_ops = {.data = on_data, .writable = on_writable, .closed = on_closed};

static struct net_conn *on_accepted(struct net_listener *li, const struct net_addr *peer,
                                    const struct net_addr *local)
{
    n_accepted++;
    last_peer = *peer;
    last_local = *local;
    if (net_conn_is_open(&conn))
        return NULL;
    conn = (struct net_conn){.ops = &conn_ops};
    return &conn;
}
static void on_accept_failed(struct net_listener *li, int err)
{
    fail();
}
static const struct net_listener_ops listener_ops = {.accepted = on_accepted,
                                                     .accept_failed = on_accept_failed};

static int setup(void **state)
{
    int err = 0;
    n_data = n_closed = n_accepted = 0;
    n_bytes = 0;
    conn = (struct net_conn){0};
    l = loop_new(&loop_clock_monotonic, 10 * MS);
    n = net_epoll_new(l, &err);
    return n == NULL;
}

static int teardown(void **state)
{
    if (net_conn_is_open(&conn))
        net_close(n, &conn, true);
    net_free(n);
    loop_free(l);
    return 0;
}

static void turns_until_accepted(unsigned count)
{
    for (unsigned i = 0; i < 1000 && n_accepted < count; i++)
        loop_turn(l, MS);
    assert_int_equal(n_accepted, count);
}

static int connect_socket(const struct net_addr *a)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(a->port), .sin_addr.s_addr = htonl(0x7f000001)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    return fd;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void assert_tcp_options(int fd, const struct net_keepalive *k)
{
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), k->idle_s);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), k->interval_s);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), k->count);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), k->user_timeout_ms);
}

static const struct net_keepalive keepalive_default = NET_KEEPALIVE_DEFAULT;
static const struct net_keepalive keepalive = {50, 10, 3, 40000};

static void listen_here(struct net_listener *li, struct net_addr *ret)
{
    assert_int_equal(net_addr_parse("127.0.0.1:0", ret), 0);
    assert_int_equal(net_listen(n, li, ret, 16), 0);
    assert_int_equal(net_listener_addr(n, li, ret), 0);
}

/* Takes one connection. */
static void assert_accepts_with(const struct net_addr *a, const struct net_keepalive *k)
{
    int fd = connect_socket(a);
    turns_until_accepted(n_accepted + 1);
    assert_tcp_options(conn.handle - 1, k);
    net_close(n, &conn, true);
    close(fd);
}

static void accepted_connections_have_the_tcp_options_of_their_listener(void **state)
{
    struct net_listener before = {.ops = &listener_ops}, after = {.ops = &listener_ops};
    struct net_addr before_addr, after_addr;

    listen_here(&before, &before_addr);
    net_set_keepalive(n, &keepalive);
    listen_here(&after, &after_addr);
    assert_accepts_with(&before_addr, &keepalive_default);
    assert_accepts_with(&after_addr, &keepalive);
    net_listener_close(n, &before);
    net_listener_close(n, &after);
}

static void a_socket_that_has_options_keeps_them(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct net_addr a;

    assert_int_equal(bind(listening, (struct sockaddr *)&in, sizeof(in)), 0);
    tcp_options_set(listening, &keepalive);
    assert_int_equal(listen(listening, 16), 0);
    assert_int_equal(net_listen_fd(n, &li, listening), 0);
    net_listener_addr(n, &li, &a);
    assert_accepts_with(&a, &keepalive);
    net_listener_close(n, &li);
    close(listening);
}

static void connections_that_are_made_have_the_tcp_options(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    struct net_conn c = {.ops = &conn_ops};
    struct net_addr a;

    listen_here(&li, &a);
    net_set_keepalive(n, &keepalive);
    assert_int_equal(net_connect(n, &c, &a), 0);
    assert_tcp_options(c.handle - 1, &keepalive);
    turns_until_accepted(1);
    assert_tcp_options(conn.handle - 1, &keepalive_default);
    net_close(n, &c, true);
    net_listener_close(n, &li);
}

static void a_listener_for_all_addresses_takes_v4_as_v4(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];

    assert_int_equal(net_addr_parse("[::]:0", &a), 0);
    int r = net_listen(n, &li, &a, 16);
    if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL) { /* a machine without IPv6 */
        assert_int_equal(socket(AF_INET6, SOCK_STREAM, 0), -1);
        return;
    }
    assert_int_equal(r, 0);
    assert_int_equal(net_listener_addr(n, &li, &a), 0);
    int fd = connect_socket(&a);
    turns_until_accepted(1);
    assert_string_equal(net_addr_format_ip(&last_peer, buf, sizeof(buf)), "127.0.0.1");
    close(fd);
    net_listener_close(n, &li);
}

/* Two processes of a node wait for the same socket: each connection reaches one of them; closing a listener
 * leaves the socket to the others. */
static void a_descriptor_can_be_shared_and_stays_the_callers(void **state)
{
    struct loop *l2 = loop_new(&loop_clock_monotonic, 10 * MS);
    struct net *n2 = net_epoll_new(l2, NULL);
    struct net_listener one = {.ops = &listener_ops}, two = {.ops = &listener_ops};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    socklen_t len = sizeof(in);
    int listening = socket(AF_INET, SOCK_STREAM, 0); /* blocking: must not matter */
    struct net_addr a;

    assert_int_equal(bind(listening, (struct sockaddr *)&in, len), 0);
    assert_int_equal(listen(listening, 16), 0);
    assert_int_equal(net_listen_fd(n, &one, listening), 0);
    int copy = dup(listening);
    assert_int_equal(net_listen_fd(n2, &two, copy), 0);
    net_listener_addr(n, &one, &a);
    int fd = connect_socket(&a);
    for (unsigned i = 0; i < 100 && n_accepted == 0; i++) {
        loop_turn(l, MS);
        loop_turn(l2, MS);
    }
    assert_int_equal(n_accepted, 1);
    net_close(net_conn_is_open(&conn) ? n : n2, &conn, true);
    close(fd);

    net_listener_close(n, &one);
    fd = connect_socket(&a);
    loop_turn(l, 10 * MS);
    assert_int_equal(n_accepted, 1);
    for (unsigned i = 0; i < 100 && n_accepted == 1; i++)
        loop_turn(l2, MS);
    assert_int_equal(n_accepted, 2);
    net_close(n2, &conn, true);
    close(fd);
    net_listener_close(n2, &two);
    assert_int_equal(close(copy), 0);
    assert_int_equal(close(listening), 0);
    net_free(n2);
    loop_free(l2);
}

/* ---- Unix sockets */

/* A listening socket without a file, and its address. */
static int listen_unix(struct sockaddr_un *ret)
{
    static unsigned number;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret->sun_path + 1, sizeof(ret->sun_path) - 1, "net_epoll_test.%d.%u", (int)getpid(), number++);
    assert_int_equal(bind(fd, (struct sockaddr *)ret, sizeof(*ret)), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

static int connect_unix(const struct sockaddr_un *un)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)un, sizeof(*un)), 0);
    return fd;
}

static void turns_until_closed(unsigned count)
{
    for (unsigned i = 0; i < 1000 && n_closed < count; i++)
        loop_turn(l, MS);
    assert_int_equal(n_closed, count);
}

/* The connection that was accepted, and its peer's end: both ways, and the end. */
static void assert_unix_connection_works(int fd)
{
    char buf[8] = "defg", name[NET_ADDR_STRLEN];
    struct iovec iov = {buf, 4};

    assert_int_equal(last_peer.family, AF_UNIX);
    assert_int_equal(last_local.family, AF_UNIX);
    assert_string_equal(net_addr_format_ip(&last_peer, name, sizeof(name)), "unix:");
    assert_int_equal(write(fd, "abc", 3), 3);
    for (unsigned i = 0; i < 100 && n_bytes < 3; i++)
        loop_turn(l, MS);
    assert_int_equal(n_bytes, 3);
    assert_int_equal(net_writev(n, &conn, &iov, 1), 4);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(read(fd, buf, sizeof(buf)), 4);
    assert_memory_equal(buf, "defg", 4);
    assert_int_equal(option(conn.handle - 1, SOL_SOCKET, SO_KEEPALIVE), 0); /* nothing of TCP was tried */
}

static void a_unix_socket_can_be_listened_on(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    struct sockaddr_un un;
    int listening = listen_unix(&un);

    assert_int_equal(net_listen_fd(n, &li, listening), 0);
    int fd = connect_unix(&un);
    turns_until_accepted(1);
    assert_unix_connection_works(fd);
    close(fd);
    turns_until_closed(1);

    fd = connect_unix(&un); /* and closed from our side */
    turns_until_accepted(2);
    net_close(n, &conn, true);
    char c;
    assert_int_equal(read(fd, &c, 1), 0);
    close(fd);
    net_listener_close(n, &li);
    close(listening);
}

static void a_peer_with_a_name_of_its_own_is_unix_too(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    struct sockaddr_un un, own;
    int listening = listen_unix(&un), fd = listen_unix(&own);

    close(fd);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
    assert_int_equal(net_listen_fd(n, &li, listening), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    turns_until_accepted(1);
    assert_unix_connection_works(fd);
    close(fd);
    net_listener_close(n, &li);
    close(listening);
}

static void a_unix_connection_can_be_adopted(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    struct sockaddr_un un;
    int listening = listen_unix(&un), fd = connect_unix(&un);

    int passed = accept(listening, NULL, NULL);
    assert_int_equal(net_listen_fd(n, &li, listening), 0);
    net_epoll_adopt(n, &li, passed);
    assert_int_equal(n_accepted, 1);
    assert_int_equal(conn.handle - 1, passed);
    assert_unix_connection_works(fd);
    close(fd);
    turns_until_closed(1);

    fd = connect_unix(&un); /* the peer is gone: there is no RST, so it is adopted, and its end told */
    passed = accept(listening, NULL, NULL);
    close(fd);
    net_epoll_adopt(n, &li, passed);
    turns_until_closed(n_accepted);
    net_listener_close(n, &li);
    close(listening);
}

/* As the shards of a node have it: a descriptor each of one socket. */
static void shards_share_a_unix_socket(void **state)
{
    struct loop *l2 = loop_new(&loop_clock_monotonic, 10 * MS);
    struct net *n2 = net_epoll_new(l2, NULL);
    struct net_listener one = {.ops = &listener_ops}, two = {.ops = &listener_ops};
    struct sockaddr_un un;
    int listening = listen_unix(&un), copy = dup(listening);

    assert_int_equal(net_listen_fd(n, &one, listening), 0);
    assert_int_equal(net_listen_fd(n2, &two, copy), 0);
    net_listener_pause(n, &one);
    int fd = connect_unix(&un);
    loop_turn(l, 10 * MS);
    assert_int_equal(n_accepted, 0);
    for (unsigned i = 0; i < 100 && n_accepted == 0; i++)
        loop_turn(l2, MS);
    assert_int_equal(n_accepted, 1);
    net_close(n2, &conn, true);
    close(fd);

    net_listener_resume(n, &one);
    net_listener_close(n2, &two);
    close(copy);
    fd = connect_unix(&un);
    turns_until_accepted(2);
    close(fd);
    net_listener_close(n, &one);
    close(listening);
    net_free(n2);
    loop_free(l2);
}

struct pipe_watch {
    struct net_watch w;
    int fd;
    unsigned n;
};

static void read_one(struct net_watch *w)
{
    struct pipe_watch *p = (struct pipe_watch *)w;
    char c;
    p->n++;
    assert_int_equal(read(p->fd, &c, 1), 1);
}

static void a_watch_tells_of_other_descriptors(void **state)
{
    int fds[2];
    struct pipe_watch p = {.w.readable = read_one};

    assert_int_equal(pipe(fds), 0);
    p.fd = fds[0];
    assert_int_equal(net_epoll_watch_add(n, &p.w, fds[0]), 0);
    loop_turn(l, 0);
    assert_int_equal(p.n, 0);
    assert_int_equal(write(fds[1], "ab", 2), 2);
    loop_turn(l, MS);
    loop_turn(l, MS);
    loop_turn(l, 0);
    assert_int_equal(p.n, 2);
    assert_int_equal(write(fds[1], "c", 1), 1);
    net_epoll_watch_remove(n, &p.w);
    net_epoll_watch_remove(n, &p.w);
    loop_turn(l, 0);
    assert_int_equal(p.n, 2);
    close(fds[0]);
    close(fds[1]);
}

static void count_wake(struct net_watch *w)
{
    ((struct pipe_watch *)w)->n++;
}

static void wake(int fd, uint64_t by)
{
    assert_int_equal(write(fd, &by, sizeof(by)), sizeof(by));
}

static void an_edge_watch_tells_of_each_write_and_needs_no_read(void **state)
{
    struct pipe_watch p = {.w.readable = count_wake, .fd = eventfd(0, EFD_NONBLOCK)};
    assert_true(p.fd >= 0);
    wake(p.fd, 7); /* before it is watched */
    assert_int_equal(net_epoll_watch_add_edge(n, &p.w, p.fd), 0);
    loop_turn(l, 0);
    assert_int_equal(p.n, 1);
    loop_turn(l, 0); /* still readable, and not told again */
    assert_int_equal(p.n, 1);
    for (unsigned i = 2; i < 100; i++) {
        wake(p.fd, 1);
        loop_turn(l, 1000 * MS);
        assert_int_equal(p.n, i);
    }
    wake(p.fd, 1);
    wake(p.fd, 1); /* two before one turn: once */
    loop_turn(l, 0);
    loop_turn(l, 0);
    assert_int_equal(p.n, 100);
    wake(p.fd, UINT64_MAX - 1 - 7 - 98 - 2); /* full: the next one has to empty it */
    loop_turn(l, 0);
    assert_int_equal(p.n, 101);
    uint64_t count = 1;
    assert_int_equal(write(p.fd, &count, sizeof(count)), -1);
    loop_turn(l, 0);
    assert_int_equal(p.n, 101);
    assert_int_equal(read(p.fd, &count, sizeof(count)), sizeof(count));
    wake(p.fd, 1);
    loop_turn(l, 0);
    assert_int_equal(p.n, 102);
    net_epoll_watch_remove(n, &p.w);
    wake(p.fd, 1);
    loop_turn(l, 0);
    assert_int_equal(p.n, 102);
    close(p.fd);
}

/* What a keeper does not want is somebody else's. */
static int kept_fd;
static bool keeps;
static unsigned n_asked;

static bool keep(void *ctx, struct net_listener *li, int fd)
{
    assert_ptr_equal(ctx, &keeps);
    n_asked++;
    if (!keeps)
        kept_fd = dup(fd);
    return keeps;
}

static void a_keeper_says_what_is_accepted(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    struct net_addr a;
    char c;

    assert_int_equal(net_addr_parse("127.0.0.1:0", &a), 0);
    assert_int_equal(net_listen(n, &li, &a, 16), 0);
    assert_int_equal(net_listener_addr(n, &li, &a), 0);
    net_epoll_set_keeper(n, keep, &keeps);
    n_asked = 0;
    keeps = true;
    int fd = connect_socket(&a);
    turns_until_accepted(1);
    assert_int_equal(n_asked, 1);
    net_close(n, &conn, true);
    close(fd);

    keeps = false;
    fd = connect_socket(&a);
    for (unsigned i = 0; i < 1000 && n_asked == 1; i++)
        loop_turn(l, MS);
    loop_turn(l, 0);
    assert_int_equal(n_asked, 2);
    assert_int_equal(n_accepted, 1);
    assert_int_equal(write(kept_fd, "x", 1), 1);
    assert_int_equal(read(fd, &c, 1), 1);
    close(kept_fd); /* the last copy: net has closed its own */
    assert_int_equal(read(fd, &c, 1), 0);
    close(fd);

    net_epoll_set_keeper(n, NULL, NULL);
    fd = connect_socket(&a);
    turns_until_accepted(2);
    close(fd);
    net_listener_close(n, &li);
}

/* A connection as another process would pass it on, accepted without any option set; li has the same port. */
static int accepted_elsewhere(struct net_listener *li, int *ret_fd)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    socklen_t len = sizeof(in);
    int on = 1, listening = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_INET, SOCK_STREAM, 0);
    struct net_addr a;

    setsockopt(listening, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    setsockopt(other, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    assert_int_equal(bind(listening, (struct sockaddr *)&in, len), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&in, &len), 0);
    assert_int_equal(bind(other, (struct sockaddr *)&in, len), 0);
    assert_int_equal(listen(listening, 16), 0);
    assert_int_equal(net_listen_fd(n, li, other), 0); /* bound only: the connection is not for it */
    assert_int_equal(net_listener_addr(n, li, &a), 0);
    *ret_fd = connect_socket(&a);
    int fd = accept(listening, NULL, NULL);
    assert_true(fd >= 0);
    close(listening);
    return fd;
}

static void unlisten(struct net_listener *li)
{
    int fd = li->handle - 1;
    net_listener_close(n, li);
    close(fd);
}

static bool is_reset(int fd)
{
    char c;
    return recv(fd, &c, 1, 0) < 0 && errno == ECONNRESET;
}

static void an_adopted_connection_is_like_an_accepted_one(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    net_set_keepalive(n, &keepalive);
    int fd, passed = accepted_elsewhere(&li, &fd);
    struct sockaddr_in in;
    socklen_t in_len = sizeof(in);
    struct net_stats stats;

    net_set_keepalive(n, &keepalive_default); /* for other listeners */
    net_listener_pause(n, &li);
    net_epoll_adopt(n, &li, passed);
    assert_int_equal(n_accepted, 1);
    assert_int_equal(conn.handle - 1, passed);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &in_len), 0);
    assert_int_equal(last_peer.port, ntohs(in.sin_port));
    assert_int_equal(getpeername(fd, (struct sockaddr *)&in, &in_len), 0);
    assert_int_equal(last_local.port, ntohs(in.sin_port));
    assert_true(fcntl(passed, F_GETFL) & O_NONBLOCK);
    assert_tcp_options(passed, &keepalive);
    net_stats_get(n, &stats);
    assert_int_equal(stats.open, 1);
    assert_int_equal(stats.accepts, 1);
    assert_int_equal(write(fd, "abc", 3), 3);
    for (unsigned i = 0; i < 100 && n_data == 0; i++)
        loop_turn(l, MS);
    assert_int_equal(n_bytes, 3);
    close(fd);
    for (unsigned i = 0; i < 100 && n_closed == 0; i++)
        loop_turn(l, MS);
    assert_int_equal(n_closed, 1);
    unlisten(&li);
}

static void what_cannot_be_adopted_is_closed(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    struct linger linger = {1, 0};
    int fd, passed = accepted_elsewhere(&li, &fd);

    /* The peer is gone. */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
    net_epoll_adopt(n, &li, passed);
    assert_int_equal(n_accepted, 0);
    assert_int_equal(fcntl(passed, F_GETFD), -1);
    unlisten(&li);
    /* The owner refuses: it has one already. */
    passed = accepted_elsewhere(&li, &fd);
    conn.handle = 1;
    net_epoll_adopt(n, &li, passed);
    conn.handle = 0;
    assert_int_equal(n_accepted, 1);
    assert_true(is_reset(fd));
    close(fd);
    unlisten(&li);
    /* There is no listener any more. */
    passed = accepted_elsewhere(&li, &fd);
    unlisten(&li);
    li.ops = NULL;
    net_epoll_adopt(n, &li, passed);
    assert_int_equal(n_accepted, 1);
    assert_true(is_reset(fd));
    close(fd);
}

static void a_closed_listener_takes_what_was_on_its_way(void **state)
{
    struct net_listener li = {.ops = &listener_ops};
    int fd, passed = accepted_elsewhere(&li, &fd);

    unlisten(&li);
    net_epoll_adopt(n, &li, passed);
    assert_int_equal(n_accepted, 1);
    assert_true(net_conn_is_open(&conn));
    assert_int_equal(last_local.family, AF_INET);
    assert_int_equal(write(fd, "abc", 3), 3);
    for (unsigned i = 0; i < 100 && n_data == 0; i++)
        loop_turn(l, MS);
    assert_int_equal(n_bytes, 3);
    close(fd);
    turns_until_closed(1);
    assert_int_equal(n_closed, 1);
}

static void the_wait_is_rounded_up_not_down(void **state)
{
    uint64_t before_ns = loop_clock_ns(l);
    loop_turn(l, 1500000);
    assert_true(loop_clock_ns(l) - before_ns >= 1500000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(accepted_connections_have_the_tcp_options_of_their_listener, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_socket_that_has_options_keeps_them, setup, teardown),
        cmocka_unit_test_setup_teardown(connections_that_are_made_have_the_tcp_options, setup, teardown),
        cmocka_unit_test_setup_teardown(a_listener_for_all_addresses_takes_v4_as_v4, setup, teardown),
        cmocka_unit_test_setup_teardown(a_descriptor_can_be_shared_and_stays_the_callers, setup, teardown),
        cmocka_unit_test_setup_teardown(a_unix_socket_can_be_listened_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_peer_with_a_name_of_its_own_is_unix_too, setup, teardown),
        cmocka_unit_test_setup_teardown(a_unix_connection_can_be_adopted, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_share_a_unix_socket, setup, teardown),
        cmocka_unit_test_setup_teardown(a_watch_tells_of_other_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(an_edge_watch_tells_of_each_write_and_needs_no_read, setup, teardown),
        cmocka_unit_test_setup_teardown(a_keeper_says_what_is_accepted, setup, teardown),
        cmocka_unit_test_setup_teardown(an_adopted_connection_is_like_an_accepted_one, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_adopted_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_closed_listener_takes_what_was_on_its_way, setup, teardown),
        cmocka_unit_test_setup_teardown(the_wait_is_rounded_up_not_down, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
