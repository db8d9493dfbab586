// SPDX-License-Identifier: MIT
#include "supervisor/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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

/* Of listener i; -1: none of its own. */
static int fd_of(const struct listeners *l, unsigned shard, unsigned i)
{
    struct settings s = {.n_listeners = 0};
    listeners_tell(l, shard, &s);
    return i < s.n_listeners ? s.listeners[i].fd : -1;
}

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
    assert_int_equal(listeners_open(&cfg, &one, NULL, &l, &err), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].section, "listen b");
    assert_string_equal(err.list[0].key, "port");
    int again = listen_socket_open("127.0.0.1", other, 1); /* was given back */
    assert_true(again >= 0);
    close(again);

    close(fd);
    assert_int_equal(listeners_open(&cfg, &one, NULL, &l, &err), 0);
    assert_int_equal(l.n, 2);
    assert_true(fd_of(&l, 0, 0) >= 0 && fd_of(&l, 0, 1) >= 0 && l.internal_fd >= 0);
    assert_int_equal(listeners_of(&l, 0)[1].fd, fd_of(&l, 0, 1));
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
    assert_int_equal(listeners_open(&cfg, &plan, NULL, &l, &err), 0);
    assert_non_null(listeners_of(&l, 0));
    assert_null(listeners_of(&l, 1));
    assert_non_null(listeners_of(&l, 2));
    assert_true(fd_of(&l, 0, 0) != fd_of(&l, 2, 0));
    assert_true(is_open(fd_of(&l, 0, 0)) && is_open(fd_of(&l, 2, 0)));
    /* Another gateway, of the same user, that shares its ports too. */
    struct listeners other;
    assert_int_equal(listeners_open(&cfg, &plan, NULL, &other, &err), -EINVAL);
    assert_int_equal(err.n, 2); /* the internal port, too */

    int first = fd_of(&l, 0, 0);
    listeners_keep(&l, 2);
    assert_false(is_open(first));
    assert_int_equal(listeners_of(&l, 0)[0].fd, -1);
    assert_true(is_open(listeners_of(&l, 2)[0].fd) && is_open(l.internal_fd));
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
    assert_int_equal(listeners_open(&cfg, &one, NULL, &l, &err), 0);
    assert_int_equal(tcp_option(fd_of(&l, 0, 0), TCP_KEEPIDLE), 20);
    assert_int_equal(tcp_option(fd_of(&l, 0, 0), TCP_KEEPINTVL), 5);
    assert_int_equal(tcp_option(fd_of(&l, 0, 0), TCP_KEEPCNT), 2);
    assert_int_equal(tcp_option(fd_of(&l, 0, 0), TCP_USER_TIMEOUT), 25000);
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
    assert_int_equal(listeners_open(&cfg, &two_edges, NULL, &l, &err), 0);
    assert_int_equal(l.n, 3);
    assert_true(is_open(fd_of(&l, 0, 0)) && is_open(fd_of(&l, 2, 0)));
    assert_true(is_open(fd_of(&l, 0, 1)) && is_open(fd_of(&l, 2, 1)));
    assert_int_equal(fd_of(&l, 0, 2), -1);
    assert_int_equal(fd_of(&l, 2, 2), -1);
    assert_int_equal(listeners_of(&l, 2)[0].fd, fd_of(&l, 2, 0));
    assert_int_equal(l.list[2].socket, l.list[0].socket);
    assert_true(l.list[1].socket != l.list[0].socket);
    listeners_keep(&l, 2);
    assert_int_equal(listeners_of(&l, 0)[0].fd, -1);
    assert_true(is_open(fd_of(&l, 2, 0)));
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

    assert_int_equal(listeners_open(&cfg, &two_edges, NULL, &l, &err), 0);
    assert_true(file_exists(&st));
    assert_int_equal(st.st_mode, S_IFSOCK | 0622);
    assert_null(listeners_of(&l, 1));
    assert_true(is_open(fd_of(&l, 0, 0)) && is_open(fd_of(&l, 2, 0)) && fd_of(&l, 0, 0) != fd_of(&l, 2, 0));
    assert_true(fcntl(fd_of(&l, 2, 0), F_GETFD) & FD_CLOEXEC);
    connect_once();
    connect_once();
    assert_accepts(fd_of(&l, 0, 0));
    assert_accepts(fd_of(&l, 2, 0));
    connect_once();

    listeners_keep(&l, 2); /* what the other had not accepted is there still */
    assert_accepts(fd_of(&l, 2, 0));
    set_number("gateway", "start_port", free_port());
    assert_int_equal(listeners_open(&cfg, &two_edges, NULL, &again, &err), -EINVAL);
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

    assert_int_equal(listeners_open(&cfg, &one, NULL, &l, &err), 0);
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

    assert_int_equal(listeners_open(&cfg, &one, NULL, &l, &err), 0);
    listeners_close(&l);
    assert_int_equal(listeners_open(&cfg, &one, NULL, &successor, &err), 0);
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
    assert_int_equal(listeners_open(&cfg, &two_edges, NULL, &l, &err), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].section, "listen b");
    assert_false(file_exists(&st));
    close(fd);
}

/* ---- a reload */

static struct node_shared *shared;

static void open_all(struct listeners *l, const struct shard_plan *plan)
{
    set_number("gateway", "start_port", free_port());
    assert_int_equal(listeners_open(&cfg, plan, NULL, l, &err), 0);
}

static void add(const char *section, const char *protocol, unsigned port)
{
    set(section, "address", "127.0.0.1");
    set_number(section, "port", port);
    set(section, "protocol", protocol);
}

static int change(struct listeners *l, uint64_t generation)
{
    struct listeners *next;
    err.n = 0;
    int r = listeners_prepare(l, &cfg, generation, &next, &err);
    if (r == 0)
        listeners_commit(l, next);
    return r;
}

static void remove_listener(unsigned i)
{
    struct config_listen gone;
    config_listen_take(&cfg, i, &gone);
    config_listen_fini(&gone);
    for (; i + 1 < cfg.n_listeners; i++)
        cfg.listen[i] = cfg.listen[i + 1];
    cfg.n_listeners--;
}

static int connect_to(unsigned port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = connect(fd, (struct sockaddr *)&a, sizeof a);
    if (r == 0)
        return fd;
    close(fd);
    return -1;
}

static void assert_connects(unsigned port)
{
    int fd = connect_to(port);
    assert_true(fd >= 0);
    close(fd);
}

static void what_is_added_and_removed_leaves_the_others_alone(void **state)
{
    struct listeners l;
    uint16_t a = free_port(), b = free_port();

    add("listen a", "text", a);
    open_all(&l, &two_edges);
    int fd = fd_of(&l, 0, 0);
    uint32_t socket = l.list[0].socket;
    assert_int_equal(l.list[0].slot, 0);
    add("listen b", "text", b);
    assert_int_equal(change(&l, 1), 0);
    assert_int_equal(l.n, 2);
    assert_int_equal(fd_of(&l, 0, 0), fd);
    assert_true(l.list[0].socket == socket && l.list[0].since == 0 && l.list[0].slot == 0);
    assert_true(l.list[1].socket != socket && l.list[1].since == 1 && l.list[1].slot == 1);
    assert_true(is_open(fd_of(&l, 0, 1)) && is_open(fd_of(&l, 2, 1)) && fd_of(&l, 1, 1) == -1);
    assert_connects(b);
    assert_true(listeners_slots(&l) == 3);

    remove_listener(0);
    assert_int_equal(change(&l, 2), 0);
    assert_int_equal(l.n, 1);
    assert_int_equal(l.list[0].slot, 1);
    assert_false(is_open(fd));
    assert_int_equal(connect_to(a), -1);
    assert_connects(b);
    assert_true(listeners_slots(&l) == 2);
    listeners_close(&l);
    assert_int_equal(connect_to(b), -1);
}

static void an_order_that_changes_is_followed(void **state)
{
    struct listeners l;

    add("listen a", "text", free_port());
    add("listen b", "text", free_port());
    open_all(&l, &one);
    int of_a = fd_of(&l, 0, 0), of_b = fd_of(&l, 0, 1);
    struct config_listen first = cfg.listen[0];
    cfg.listen[0] = cfg.listen[1];
    cfg.listen[1] = first;
    assert_int_equal(change(&l, 1), 0);
    assert_int_equal(fd_of(&l, 0, 0), of_b);
    assert_int_equal(fd_of(&l, 0, 1), of_a);
    assert_true(l.list[0].slot == 1 && l.list[1].slot == 0 && l.list[0].since == 0);
    listeners_close(&l);
}

static void one_failure_and_nothing_changes(void **state)
{
    struct listeners l;
    uint16_t a = free_port(), b = free_port(), taken;
    int occupied = occupy(&taken);

    add("listen a", "text", a);
    open_all(&l, &two_edges);
    int lowest = dup(occupied);
    close(lowest);
    add("listen b", "text", b);
    add("listen c", "text", taken);
    remove_listener(0);
    assert_int_equal(change(&l, 1), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].section, "listen c");
    assert_string_equal(err.list[0].key, "port");
    assert_int_equal(l.n, 1);
    assert_connects(a);
    assert_int_equal(connect_to(b), -1);
    int again = dup(occupied);
    assert_int_equal(again, lowest); /* no descriptor is lost */
    close(again);
    close(occupied);
    assert_int_equal(change(&l, 1), 0);
    assert_connects(b);
    assert_connects(taken);
    listeners_close(&l);
}

/* What waits there is not lost. */
static void another_protocol_or_backlog_takes_over_the_socket(void **state)
{
    struct listeners l;
    uint16_t port = free_port();

    add("listen a", "text", port);
    open_all(&l, &one);
    int fd = fd_of(&l, 0, 0), client = connect_to(port);
    uint32_t socket = l.list[0].socket;
    set("listen a", "protocol", "frame");
    assert_int_equal(change(&l, 1), 0);
    assert_int_equal(fd_of(&l, 0, 0), fd);
    assert_true(l.list[0].socket == socket && l.list[0].slot == 1 && l.list[0].since == 1);
    assert_accepts(fd);
    close(client);
    set("listen a", "backlog", "1");
    assert_int_equal(change(&l, 2), 0);
    struct tcp_info info;
    socklen_t len = sizeof info;
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
    assert_int_equal(info.tcpi_sacked, 1); /* of a listening socket: its backlog */
    listeners_close(&l);
}

/* All addresses instead of one, and back, on the same port. */
static void an_address_within_the_one_before_is_possible(void **state)
{
    struct listeners l;
    const struct shard_plan *const plans[] = {&one, &two_edges};
    uint16_t port = free_port();

    add("listen a", "text", port);
    for (unsigned i = 0; i < 2; i++) {
        open_all(&l, plans[i]);
        set("listen a", "address", "0.0.0.0");
        assert_int_equal(change(&l, 1), 0);
        assert_connects(port);
        set("listen a", "address", "127.0.0.1");
        assert_int_equal(change(&l, 2), 0);
        assert_connects(port);
        listeners_close(&l);
    }
    /* But not beside somebody else. */
    open_all(&l, &one);
    uint16_t taken;
    int fd = occupy(&taken);
    set("listen a", "address", "0.0.0.0");
    set_number("listen a", "port", taken);
    assert_int_equal(change(&l, 1), -EINVAL);
    close(fd);
    listeners_close(&l);
}

static void of_listeners_on_one_port_the_next_gets_the_socket(void **state)
{
    struct listeners l;
    uint16_t port = free_port();
    static const char *const sections[] = {"listen a", "listen b", "listen c"};

    for (unsigned i = 0; i < 3; i++) {
        add(sections[i], "websocket", port);
        set(sections[i], "path", i == 0 ? "/a" : i == 1 ? "/b" : "/c");
    }
    open_all(&l, &two_edges);
    int fd = fd_of(&l, 2, 0);
    uint32_t socket = l.list[0].socket;
    remove_listener(0);
    assert_int_equal(change(&l, 1), 0);
    assert_int_equal(fd_of(&l, 2, 0), fd);
    assert_int_equal(fd_of(&l, 2, 1), -1);
    assert_true(l.list[0].socket == socket && l.list[1].socket == socket);
    assert_true(l.list[0].slot == 1 && l.list[1].slot == 2);
    remove_listener(0);
    assert_int_equal(change(&l, 2), 0);
    assert_int_equal(fd_of(&l, 2, 0), fd);
    assert_connects(port);
    listeners_close(&l);
}

static void the_same_comes_and_goes_in_its_slot(void **state)
{
    struct listeners l;
    uint16_t port = free_port();

    add("listen a", "text", free_port());
    open_all(&l, &two_edges);
    uint32_t socket = 0;
    for (unsigned i = 1; i < 200; i += 2) {
        add("listen b", "text", port);
        assert_int_equal(change(&l, i), 0);
        assert_true(l.list[1].slot == 1 && l.list[1].since == i && l.list[1].made == 1);
        assert_true(l.list[1].socket > socket);
        socket = l.list[1].socket;
        assert_connects(port);
        remove_listener(1);
        assert_int_equal(change(&l, i + 1), 0);
    }
    listeners_close(&l);
}

static void with_shared(struct listeners *l, unsigned n_shards, uint64_t generation)
{
    shared = node_shared_new();
    assert_non_null(shared);
    listeners_set_shared(l, shared);
    for (unsigned i = 0; i < n_shards; i++)
        node_shard_took_settings(&shared->shards[i], generation, listeners_slots(l));
}

static void a_slot_that_a_shard_uses_is_for_nobody_else(void **state)
{
    struct listeners l;

    add("listen a", "text", free_port());
    add("listen b", "text", free_port());
    open_all(&l, &two_edges);
    with_shared(&l, 3, 0);
    remove_listener(1);
    assert_int_equal(change(&l, 1), 0);
    add("listen c", "text", free_port());
    node_shard_took_settings(&shared->shards[0], 1, 1);
    node_shard_took_settings(&shared->shards[1], 1, 1);
    node_shard_took_settings(&shared->shards[2], 1, 3); /* clients are left there */
    assert_int_equal(change(&l, 2), 0);
    assert_int_equal(l.list[1].slot, 2);
    remove_listener(1);
    assert_int_equal(change(&l, 3), 0);
    for (unsigned i = 0; i < 3; i++)
        node_shard_took_settings(&shared->shards[i], i == 0 ? 2 : 3, 1); /* 0 may not have heard of its end */
    add("listen d", "text", free_port());
    assert_int_equal(change(&l, 4), 0);
    assert_true(l.list[1].slot == 1 && l.list[1].made == 2);
    add("listen e", "text", free_port());
    assert_int_equal(change(&l, 5), 0);
    assert_int_equal(l.list[2].slot, 3);
    node_shared_free(shared);
    listeners_close(&l);
}

static void without_a_free_slot_it_is_refused(void **state)
{
    struct listeners l;
    char section[32];

    add("listen a", "text", free_port());
    open_all(&l, &one);
    with_shared(&l, 1, 0);
    for (unsigned i = 1; i < CONFIG_LISTEN_MAX; i++) {
        snprintf(section, sizeof section, "listen b%u", i);
        add(section, "text", free_port());
        assert_int_equal(change(&l, 2 * i), 0);
        node_shard_took_settings(&shared->shards[0], 2 * i, UINT64_MAX);
        remove_listener(1);
        assert_int_equal(change(&l, 2 * i + 1), 0);
        node_shard_took_settings(&shared->shards[0], 2 * i + 1, UINT64_MAX); /* nobody leaves */
    }
    add("listen z", "text", free_port());
    assert_int_equal(change(&l, 1000), -EINVAL);
    assert_string_equal(err.list[0].section, "listen z");
    assert_non_null(strstr(err.list[0].text, "no room for another listener"));
    remove_listener(1);
    snprintf(section, sizeof section, "listen b7"); /* but one that was there before may come back */
    add(section, "text", cfg.listen[0].port);
    remove_listener(1);
    node_shard_took_settings(&shared->shards[0], 999, UINT64_MAX & ~(UINT64_C(1) << 9));
    add("listen z", "text", free_port());
    assert_int_equal(change(&l, 1000), 0);
    assert_int_equal(l.list[1].slot, 9);
    node_shared_free(shared);
    listeners_close(&l);
}

/* The port is still bound in a shard that is not so far yet. */
static void a_port_that_shards_still_have_is_waited_for(void **state)
{
    struct listeners l;
    uint16_t port = free_port();
    int status;

    add("listen a", "text", free_port());
    add("listen b", "text", port);
    open_all(&l, &one);
    with_shared(&l, 1, 0);
    int in_shard = dup(fd_of(&l, 0, 1));
    remove_listener(1);
    assert_int_equal(change(&l, 1), 0);
    assert_connects(port);
    add("listen b", "text", port);
    pid_t pid = fork();
    if (pid == 0) { /* the shard */
        (void)poll(NULL, 0, 50);
        close(in_shard);
        (void)poll(NULL, 0, 1);
        node_shard_took_settings(&shared->shards[0], 1, 1);
        _exit(0);
    }
    close(in_shard);
    assert_int_equal(change(&l, 2), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_connects(port);
    /* One that does not come: an error after a second. */
    in_shard = dup(fd_of(&l, 0, 1));
    remove_listener(1);
    assert_int_equal(change(&l, 3), 0);
    add("listen b", "text", port);
    assert_int_equal(change(&l, 4), -EINVAL);
    assert_string_equal(err.list[0].key, "port");
    close(in_shard);
    assert_int_equal(change(&l, 4), 0);
    node_shared_free(shared);
    listeners_close(&l);
}

static void files_come_and_go(void **state)
{
    struct listeners l;
    struct stat st;

    add("listen b", "text", free_port());
    open_all(&l, &two_edges);
    connect_once();
    int fd = dup(fd_of(&l, 0, 0)); /* a shard's */
    struct config_listen kept;
    config_listen_take(&cfg, 0, &kept);
    cfg.listen[0] = cfg.listen[1];
    cfg.n_listeners = 1;
    assert_int_equal(change(&l, 1), 0);
    assert_false(file_exists(&st));
    assert_accepts(fd); /* what waits can still be served */
    cfg.listen[1] = kept;
    cfg.n_listeners = 2;
    assert_int_equal(change(&l, 2), 0);
    close(fd);
    assert_true(file_exists(&st));
    assert_int_equal(st.st_mode, S_IFSOCK | 0622);
    ino_t ino = st.st_ino;
    set("listen a", "socket_mode", "0600");
    assert_int_equal(change(&l, 3), 0);
    assert_true(file_exists(&st));
    assert_int_equal(st.st_mode, S_IFSOCK | 0600);
    assert_true(st.st_ino == ino);
    /* One that is not to be stays away. */
    uint16_t taken;
    int occupied = occupy(&taken);
    add("listen c", "text", taken);
    set("listen a", "address", "unix:/tmp");
    assert_int_equal(change(&l, 4), -EINVAL);
    assert_int_equal(err.n, 2);
    assert_true(file_exists(&st) && st.st_ino == ino);
    connect_once();
    close(occupied);
    listeners_close(&l);
    assert_false(file_exists(&st));
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
        cmocka_unit_test_setup_teardown(what_is_added_and_removed_leaves_the_others_alone, with_defaults,
                                        without),
        cmocka_unit_test_setup_teardown(an_order_that_changes_is_followed, with_defaults, without),
        cmocka_unit_test_setup_teardown(one_failure_and_nothing_changes, with_defaults, without),
        cmocka_unit_test_setup_teardown(another_protocol_or_backlog_takes_over_the_socket, with_defaults,
                                        without),
        cmocka_unit_test_setup_teardown(an_address_within_the_one_before_is_possible, with_defaults, without),
        cmocka_unit_test_setup_teardown(of_listeners_on_one_port_the_next_gets_the_socket, with_defaults,
                                        without),
        cmocka_unit_test_setup_teardown(the_same_comes_and_goes_in_its_slot, with_defaults, without),
        cmocka_unit_test_setup_teardown(a_slot_that_a_shard_uses_is_for_nobody_else, with_defaults, without),
        cmocka_unit_test_setup_teardown(without_a_free_slot_it_is_refused, with_defaults, without),
        cmocka_unit_test_setup_teardown(a_port_that_shards_still_have_is_waited_for, with_defaults, without),
        cmocka_unit_test_setup_teardown(files_come_and_go, with_folder, without_folder),
        cmocka_unit_test(what_went_wrong_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
