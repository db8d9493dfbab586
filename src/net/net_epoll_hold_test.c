// SPDX-License-Identifier: MIT
/* Held nets and descriptors that two processes have, as far as it is the kernel's matter. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "loop/loop.h"
#include "net/net.h"
#include "net/net_epoll.h"

#define MS UINT64_C(1000000)

enum { CONNS = 400 };

struct conn {
    struct net_conn c; /* first */
    unsigned n_data, n_closed;
    int err;
};

static struct loop *l;
static struct net *n;
static struct net_listener listener;
static struct net_addr addr;
static struct conn conns[CONNS];
static int peers[CONNS];
static unsigned n_accepted;

static void on_data(struct net_conn *c, uint8_t *data, size_t len)
{
    ((struct conn *)c)->n_data++;
}
static void on_writable(struct net_conn *c)
{
}
static void on_closed(struct net_conn *c, int err)
{
    ((struct conn *)c)->n_closed++;
    ((struct conn *)c)->err = err;
}
static const struct net_conn_ops conn_ops = {.data = on_data, .writable = on_writable, .closed = on_closed};

static struct net_conn *on_accepted(struct net_listener *li, const struct net_addr *peer,
                                    const struct net_addr *local)
{
    conns[n_accepted].c.ops = &conn_ops;
    return &conns[n_accepted++].c;
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
    memset(conns, 0, sizeof(conns));
    memset(peers, -1, sizeof(peers));
    n_accepted = 0;
    l = loop_new(&loop_clock_monotonic, 10 * MS);
    n = net_epoll_new(l, &err);
    listener = (struct net_listener){.ops = &listener_ops};
    assert_int_equal(net_addr_parse("127.0.0.1:0", &addr), 0);
    assert_int_equal(net_listen(n, &listener, &addr, CONNS), 0);
    return net_listener_addr(n, &listener, &addr);
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < CONNS; i++) {
        if (net_conn_is_open(&conns[i].c))
            net_close(n, &conns[i].c, true);
        if (peers[i] >= 0)
            close(peers[i]);
    }
    net_listener_close(n, &listener);
    net_free(n);
    loop_free(l);
    return 0;
}

#define TURN_UNTIL(cond)                                                                                     \
    do {                                                                                                     \
        for (unsigned i_ = 0; i_ < 2000 && !(cond); i_++)                                                    \
            loop_turn(l, MS);                                                                                \
        assert_true(cond);                                                                                   \
    } while (0)

static int dial(void)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(addr.port), .sin_addr.s_addr = htonl(0x7f000001)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    return fd;
}

static void connect_all(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        peers[i] = dial();
        TURN_UNTIL(n_accepted == i + 1);
    }
}

static void peer_resets(unsigned i)
{
    struct linger linger = {1, 0};
    setsockopt(peers[i], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(peers[i]);
    peers[i] = -1;
}

/* A turn that finds nothing waits; one that spins comes back at once. */
static bool is_quiet(void)
{
    uint64_t start_ns = loop_clock_ns(l);
    loop_turn(l, 30 * MS);
    return loop_clock_ns(l) - start_ns >= 29 * MS;
}

/* "": nothing; "end", "reset", or what has come. */
static const char *heard_by(unsigned i)
{
    static char text[64];
    struct pollfd p = {.fd = peers[i], .events = POLLIN};
    if (poll(&p, 1, 20) == 0)
        return "";
    ssize_t len = recv(peers[i], text, sizeof(text) - 1, MSG_DONTWAIT);
    if (len <= 0)
        return len == 0 ? "end" : errno == ECONNRESET ? "reset" : "error";
    text[len] = '\0';
    return text;
}

/* ---- watches of a held net ---- */

static unsigned n_woken, n_read;

static void count_wake(struct net_watch *w)
{
    n_woken++;
}
static void read_one(struct net_watch *w)
{
    char byte;
    assert_int_equal(read(w->handle - 1, &byte, 1), 1);
    n_read++;
}
static void wake(int fd)
{
    uint64_t one = 1;
    assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static void watches_are_served_while_held(void **state)
{
    struct net_watch edge = {.readable = count_wake}, level = {.readable = read_one};
    int fd = eventfd(1, EFD_NONBLOCK), pipes[2];

    n_woken = n_read = 0;
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(net_epoll_watch_add_edge(n, &edge, fd), 0);
    TURN_UNTIL(n_woken == 1);
    connect_all(1);
    assert_int_equal(write(peers[0], "x", 1), 1);
    net_hold(n, true);
    loop_turn(l, 0);                                               /* may tell of the edge once more */
    assert_int_equal(net_epoll_watch_add(n, &level, pipes[0]), 0); /* while held */
    assert_true(is_quiet());                                       /* its counter is never read */
    unsigned before = n_woken;
    wake(fd);
    TURN_UNTIL(n_woken == before + 1);
    assert_true(is_quiet());
    assert_int_equal(write(pipes[1], "ab", 2), 2);
    TURN_UNTIL(n_read == 2);
    assert_true(is_quiet());
    wake(fd); /* not told before the end of the hold */
    net_hold(n, false);
    before = n_woken;
    TURN_UNTIL(n_woken > before && conns[0].n_data == 1);
    assert_true(is_quiet());
    net_hold(n, true);
    net_epoll_watch_remove(n, &edge);
    net_epoll_watch_remove(n, &level);
    wake(fd);
    before = n_woken;
    assert_true(is_quiet());
    net_hold(n, false);
    loop_turn(l, 0);
    assert_int_equal(n_woken, before);
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
}

static void hold_from_watch(struct net_watch *w)
{
    read_one(w);
    net_hold(n, true);
}

static void thaw_from_watch(struct net_watch *w)
{
    read_one(w);
    net_hold(n, false);
}

/* As a shard that is told by its supervisor. */
static void a_watch_may_begin_and_end_the_hold(void **state)
{
    struct net_watch begin = {.readable = hold_from_watch}, end = {.readable = thaw_from_watch};
    int a[2], b[2];

    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    assert_int_equal(net_epoll_watch_add(n, &begin, a[0]), 0);
    assert_int_equal(net_epoll_watch_add(n, &end, b[0]), 0);
    connect_all(2);
    n_read = 0;
    assert_int_equal(write(a[1], "x", 1), 1);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(write(peers[i], "x", 1), 1);
    TURN_UNTIL(n_read == 1);
    unsigned told = conns[0].n_data + conns[1].n_data;
    assert_true(is_quiet());
    assert_int_equal(conns[0].n_data + conns[1].n_data, told);
    assert_int_equal(write(b[1], "x", 1), 1);
    TURN_UNTIL(conns[0].n_data + conns[1].n_data == 2);
    net_epoll_watch_remove(n, &begin);
    net_epoll_watch_remove(n, &end);
    for (unsigned i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

static void an_adopted_connection_waits_while_held(void **state)
{
    connect_all(1);
    int passed = dup(conns[0].c.handle - 1); /* as another shard's accept */
    net_forget(n, &conns[0].c);
    net_hold(n, true);
    net_epoll_adopt(n, &listener, passed);
    assert_int_equal(n_accepted, 2);
    assert_true(net_conn_is_open(&conns[1].c));
    assert_int_equal(write(peers[0], "x", 1), 1);
    assert_true(is_quiet());
    assert_int_equal(conns[1].n_data, 0);
    net_hold(n, false);
    TURN_UNTIL(conns[1].n_data == 1);
}

/* Those whose turn has not come in a storm have their events switched off. */
static void what_a_storm_put_off_is_not_lost_by_a_hold(void **state)
{
    net_listener_close(n, &listener);
    net_free(n);
    loop_free(l);
    /* One with a budget that is used up soon. */
    l = loop_new(&loop_clock_monotonic, 20000);
    n = net_epoll_new(l, &(int){0});
    assert_int_equal(net_listen(n, &listener, &addr, CONNS), 0);
    connect_all(CONNS);
    for (unsigned i = 0; i < CONNS; i++) {
        if (i % 2 == 0) {
            assert_int_equal(write(peers[i], "x", 1), 1);
            shutdown(peers[i], SHUT_WR);
        } else {
            peer_resets(i);
        }
    }
    loop_turn(l, 0);
    unsigned told = 0;
    for (unsigned i = 0; i < CONNS; i++)
        told += conns[i].n_closed;
    assert_true(told < CONNS / 2);
    net_hold(n, true);
    assert_true(is_quiet());
    net_hold(n, false);
    for (unsigned i = 0; i < CONNS; i++) {
        TURN_UNTIL(conns[i].n_closed == 1);
        assert_int_equal(conns[i].n_data, i % 2 == 0);
    }
}

/* ---- descriptors of which there is a copy ---- */

/* A copy as another process has it; the reason why net_forget is not just close. */
static void forgotten_with_a_copy_elsewhere_is_not_heard_of(void **state)
{
    connect_all(2);
    int copy = dup(net_conn_handle(n, &conns[0].c));
    net_forget(n, &conns[0].c);
    assert_int_equal(write(peers[0], "for the copy", 12), 12);
    assert_true(is_quiet());
    assert_string_equal(heard_by(0), "");
    assert_int_equal(write(copy, "still there", 11), 11);
    assert_string_equal(heard_by(0), "still there");
    assert_int_equal(write(peers[1], "x", 1), 1);
    TURN_UNTIL(conns[1].n_data == 1);
    close(copy);
}

/* After an upgrade that was given up, and whose new processes have not ended yet. */
static void closed_with_a_copy_elsewhere_ends_at_once(void **state)
{
    int copies[3];

    connect_all(3);
    for (unsigned i = 0; i < 3; i++)
        copies[i] = dup(net_conn_handle(n, &conns[i].c));
    net_close(n, &conns[0].c, false);
    net_close(n, &conns[1].c, true);
    assert_string_equal(heard_by(0), "end");
    assert_string_equal(heard_by(1), "reset");
    shutdown(peers[2], SHUT_WR); /* our end of it follows */
    TURN_UNTIL(conns[2].n_closed == 1);
    assert_string_equal(heard_by(2), "end");
    assert_true(is_quiet());
    for (unsigned i = 0; i < 3; i++)
        close(copies[i]);
}

static void taken_with_a_copy_elsewhere_ends_at_once(void **state)
{
    connect_all(2);
    for (unsigned i = 0; i < 2; i++) {
        int fd = dup(conns[i].c.handle - 1), copy = dup(fd);
        net_forget(n, &conns[i].c);
        assert_int_equal(net_take(n, &conns[i].c, fd), 0);
        net_close(n, &conns[i].c, i == 1);
        assert_string_equal(heard_by(i), i == 1 ? "reset" : "end");
        assert_true(is_quiet());
        close(copy);
    }
}

static void what_cannot_be_taken_is_closed(void **state)
{
    struct net_conn c = {.ops = &conn_ops};
    struct net_stats s;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* epoll refuses it */

    assert_int_equal(net_take(n, &c, fd), -EPERM);
    assert_false(net_conn_is_open(&c));
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    net_stats_get(n, &s);
    assert_int_equal(s.open, 0);
}

/* ---- two processes ---- */

static void send_fds(int sock, const int *fds, unsigned count)
{
    char byte = 'x', control[CMSG_SPACE(8 * sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(count * 4)};
    struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(count * 4);
    memcpy(CMSG_DATA(cm), fds, count * 4);
    assert_int_equal(sendmsg(sock, &msg, 0), 1);
}

static void receive_fds(int sock, int *ret, unsigned count)
{
    char byte, control[CMSG_SPACE(8 * sizeof(int))];
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
        _exit(2);
    memcpy(ret, CMSG_DATA(CMSG_FIRSTHDR(&msg)), count * 4);
}

static struct net *child_net;
static void echo(struct net_conn *c, uint8_t *data, size_t len)
{
    struct iovec iov = {data, len};
    net_writev(child_net, c, &iov, 1);
}
static const struct net_conn_ops echo_ops = {.data = echo, .writable = on_writable, .closed = on_closed};

/* Takes two connections, says that it has, and when told to, serves them; ends by a signal only. */
static void successor(int sock)
{
    struct loop *loop = loop_new(&loop_clock_monotonic, 10 * MS);
    struct net_conn mine[2] = {{.ops = &echo_ops}, {.ops = &echo_ops}};
    int fds[2];
    char byte = 'x';

    child_net = net_epoll_new(loop, &(int){0});
    net_hold(child_net, true);
    receive_fds(sock, fds, 2);
    for (unsigned i = 0; i < 2; i++) {
        if (net_take(child_net, &mine[i], fds[i]) < 0)
            _exit(3);
    }
    for (unsigned i = 0; i < 10; i++)
        loop_turn(loop, MS);
    if (write(sock, &byte, 1) != 1 || read(sock, &byte, 1) != 1)
        _exit(4);
    net_hold(child_net, false);
    for (;;)
        loop_turn(loop, 10 * MS);
}

/* The child, which has both connections by the time this returns. */
static pid_t hand_over(int *ret_sock)
{
    int pair[2], fds[2];
    char byte;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork(); /* of course it has copies of everything: what counts is that it is another process */
    if (pid == 0) {
        for (int fd = 3; fd < 1024; fd++) {
            if (fd != pair[1])
                close(fd);
        }
        successor(pair[1]);
    }
    close(pair[1]);
    net_hold(n, true);
    for (unsigned i = 0; i < 2; i++)
        fds[i] = net_conn_handle(n, &conns[i].c);
    send_fds(pair[0], fds, 2);
    assert_int_equal(read(pair[0], &byte, 1), 1);
    *ret_sock = pair[0];
    return pid;
}

static void kill_child(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void another_process_takes_over(void **state)
{
    int sock;

    connect_all(2);
    assert_int_equal(write(peers[0], "early", 5), 5);
    pid_t pid = hand_over(&sock);
    assert_string_equal(heard_by(0), ""); /* it is held, too */
    for (unsigned i = 0; i < 2; i++)
        net_forget(n, &conns[i].c);
    net_hold(n, false);
    assert_int_equal(write(sock, "x", 1), 1);
    assert_string_equal(heard_by(0), "early");
    assert_int_equal(write(peers[1], "later", 5), 5);
    assert_string_equal(heard_by(1), "later");
    assert_true(is_quiet());
    assert_int_equal(conns[0].n_data + conns[1].n_data + conns[0].n_closed + conns[1].n_closed, 0);
    kill_child(pid);
    assert_string_equal(heard_by(0), "end");
    assert_true(is_quiet());
    close(sock);
}

static void a_process_that_dies_with_its_copies_changes_nothing(void **state)
{
    int sock;

    connect_all(2);
    pid_t pid = hand_over(&sock);
    assert_int_equal(write(peers[0], "meanwhile", 9), 9);
    kill_child(pid);
    net_hold(n, false);
    TURN_UNTIL(conns[0].n_data == 1);
    struct iovec iov = {(char[]){"as before"}, 9};
    assert_int_equal(net_writev(n, &conns[1].c, &iov, 1), 9);
    assert_string_equal(heard_by(1), "as before");
    assert_string_equal(heard_by(0), "");
    net_close(n, &conns[0].c, true);
    assert_string_equal(heard_by(0), "reset");
    net_close(n, &conns[1].c, false);
    assert_string_equal(heard_by(1), "end");
    assert_true(is_quiet());
    close(sock);
}

/* One that hangs has its copies for long. */
static void closed_while_another_process_hangs_with_its_copies(void **state)
{
    int sock;

    connect_all(2);
    pid_t pid = hand_over(&sock);
    net_hold(n, false);
    net_close(n, &conns[0].c, false);
    assert_string_equal(heard_by(0), "end");
    peer_resets(1);
    TURN_UNTIL(conns[1].n_closed == 1);
    assert_int_equal(conns[1].err, ECONNRESET);
    assert_true(is_quiet());
    kill_child(pid);
    assert_true(is_quiet());
    close(sock);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(watches_are_served_while_held),
        T(a_watch_may_begin_and_end_the_hold),
        T(an_adopted_connection_waits_while_held),
        T(what_a_storm_put_off_is_not_lost_by_a_hold),
        T(forgotten_with_a_copy_elsewhere_is_not_heard_of),
        T(closed_with_a_copy_elsewhere_ends_at_once),
        T(taken_with_a_copy_elsewhere_ends_at_once),
        T(what_cannot_be_taken_is_closed),
        T(another_process_takes_over),
        T(a_process_that_dies_with_its_copies_changes_nothing),
        T(closed_while_another_process_hangs_with_its_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
