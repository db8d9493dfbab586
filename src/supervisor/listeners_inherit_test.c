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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <cmocka.h>

#include "supervisor/supervisor_util_test.h"

static struct config cfg;
static struct config_error err;
static struct shard_plan plans[8]; /* of so many shards, all of them edges */
static struct listeners before, after;
static struct listeners_inherited inherited;
static char path[64];
static unsigned ports[2];

#define set(section, key, ...) set_in(&cfg, section, key, __VA_ARGS__)

static int set_up(void **state)
{
    err = (struct config_error){0};
    config_defaults(&cfg);
    for (unsigned n = 1; n < 8; n++) {
        plans[n].n = n;
        for (unsigned i = 0; i < n; i++)
            plans[n].shards[i].edge = plans[n].shards[i].link = true;
    }
    ports[0] = free_port();
    ports[1] = free_port();
    snprintf(path, sizeof path, "/tmp/tgg-inherit-test-%d", (int)getpid());
    set("gateway", "lan_ip", "127.0.0.1");
    set("gateway", "start_port", "%u", ports[0]);
    set("listen a", "address", "127.0.0.1");
    set("listen a", "port", "%u", ports[1]);
    set("listen u", "address", "unix:%s", path);
    set("listen u", "port", "1");
    return 0;
}

static int tear_down(void **state)
{
    listeners_close(&after);
    listeners_close(&before);
    config_fini(&cfg);
    unlink(path);
    return 0;
}

/* As an offer brings it: copies of the descriptors. */
static void hand_over(void)
{
    listeners_inherited_init(&inherited);
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        const struct listeners_socket *s = &before.sockets[i];
        if (s->number == 0)
            continue;
        struct listeners_inheritance *to = &inherited.sockets[inherited.n++];
        snprintf(to->address, sizeof to->address, "%s", s->address);
        to->port = s->port;
        to->backlog = s->backlog;
        to->mode = s->mode;
        to->file = s->file;
        to->n_fds = 0;
        for (unsigned shard = 0; shard < NODE_SHARDS_MAX; shard++)
            if (s->fds[shard] >= 0)
                to->fds[to->n_fds++] = fcntl(s->fds[shard], F_DUPFD_CLOEXEC, 0);
    }
    inherited.internal_fd = fcntl(before.internal_fd, F_DUPFD_CLOEXEC, 0);
    inherited.internal_port = cfg.gateway.start_port;
    listeners_internal_address(&cfg, inherited.internal_address, sizeof inherited.internal_address);
}

static void open_both(unsigned n_before, unsigned n_after)
{
    assert_int_equal(listeners_open(&cfg, &plans[n_before], NULL, &before, &err), 0);
    hand_over();
    assert_int_equal(listeners_open(&cfg, &plans[n_after], &inherited, &after, &err), 0);
}

static ino_t inode_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

static int fd_of(struct listeners *l, unsigned shard, unsigned i)
{
    const struct settings_listener *list = listeners_of(l, shard);
    assert_non_null(list);
    return list[i].fd;
}

static int connect_tcp(void)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)ports[1]), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void the_same_sockets_go_on(void **state)
{
    struct stat st;
    open_both(2, 2);
    for (unsigned shard = 0; shard < 2; shard++)
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(inode_of(fd_of(&after, shard, i)), inode_of(fd_of(&before, shard, i)));
    assert_int_equal(inode_of(after.internal_fd), inode_of(before.internal_fd));
    assert_int_equal(after.n_spares, 0);
    listeners_settle(&after);
    assert_false(listeners_widen(&after, &cfg));
    listeners_disown(&before);
    listeners_close(&before);
    close(connect_tcp());
    assert_int_equal(stat(path, &st), 0); /* the new one's now */
    listeners_close(&after);
    assert_int_equal(stat(path, &st), -1);
}

static void given_up_nothing_has_changed(void **state)
{
    struct stat st;
    set("listen a", "backlog", "5");
    assert_int_equal(listeners_open(&cfg, &plans[2], NULL, &before, &err), 0);
    hand_over();
    set("listen u", "socket_mode", "0600");
    assert_int_equal(listeners_open(&cfg, &plans[1], &inherited, &after, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    listeners_close(&after);
    assert_int_equal(stat(path, &st), 0);
    close(connect_tcp());
}

static void what_has_changed_counts_when_it_is_sure(void **state)
{
    struct stat st;
    assert_int_equal(listeners_open(&cfg, &plans[1], NULL, &before, &err), 0);
    hand_over();
    set("listen u", "socket_mode", "0600");
    assert_int_equal(listeners_open(&cfg, &plans[1], &inherited, &after, &err), 0);
    listeners_settle(&after);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_socket_that_is_not_wanted_goes_at_last(void **state)
{
    struct stat st;
    struct config_error e = {0};
    assert_int_equal(listeners_open(&cfg, &plans[1], NULL, &before, &err), 0);
    hand_over();
    config_fini(&cfg);
    config_defaults(&cfg);
    set("gateway", "lan_ip", "127.0.0.1");
    set("gateway", "start_port", "%u", ports[0]);
    set("listen a", "address", "127.0.0.1");
    set("listen a", "port", "%u", ports[1]);
    assert_int_equal(listeners_open(&cfg, &plans[1], &inherited, &after, &e), 0);
    assert_int_equal(after.n, 1);
    assert_int_equal(stat(path, &st), 0);
    listeners_settle(&after);
    assert_int_equal(stat(path, &st), -1);
}

static void more_shards_get_sockets_when_it_is_sure(void **state)
{
    open_both(1, 3);
    assert_int_equal(inode_of(fd_of(&after, 0, 0)), inode_of(fd_of(&before, 0, 0)));
    for (unsigned shard = 1; shard < 3; shard++) {
        assert_int_equal(fd_of(&after, shard, 0), -1);
        assert_int_equal(inode_of(fd_of(&after, shard, 1)), inode_of(fd_of(&before, 0, 1)));
    }
    listeners_settle(&after);
    assert_true(listeners_widen(&after, &cfg));
    assert_false(listeners_widen(&after, &cfg));
    for (unsigned shard = 1; shard < 3; shard++)
        assert_true(fd_of(&after, shard, 0) >= 0);
    listeners_disown(&before);
    listeners_close(&before);
    close(connect_tcp());
}

static unsigned accept_all(const struct settings_listener *l)
{
    unsigned n = 0;
    for (int fd; l[0].fd >= 0 && (fd = accept(l[0].fd, NULL, NULL)) >= 0; n++)
        close(fd);
    return n;
}

/* What waits in the sockets of shards that are no more is there; nothing comes to them any more. */
static void nobody_is_lost_with_fewer_shards(void **state)
{
    int clients[60], fd;
    uint16_t slot, made;
    unsigned spare = 0, own = 0;

    open_both(4, 2);
    assert_int_equal(after.n_spares, 2);
    for (unsigned i = 0; i < 30; i++)
        clients[i] = connect_tcp();
    listeners_settle(&after);
    listeners_spares_rest(&after);
    while ((fd = listeners_spares_accept(&after, &slot, &made)) >= 0) {
        assert_int_equal(slot, listeners_of(&after, 0)[0].slot);
        assert_int_equal(made, listeners_of(&after, 0)[0].made);
        close(fd);
        spare++;
    }
    assert_int_equal(fd, -EAGAIN);
    assert_in_range(spare, 1, 29);
    for (unsigned i = 30; i < 60; i++)
        clients[i] = connect_tcp();
    assert_int_equal(listeners_spares_accept(&after, &slot, &made), -EAGAIN);
    listeners_spares_close(&after);
    assert_int_equal(after.n_spares, 0);
    for (unsigned shard = 0; shard < 2; shard++)
        own += accept_all(listeners_of(&after, shard));
    assert_int_equal(own + spare, 60);
    for (unsigned i = 0; i < 60; i++)
        close(clients[i]);
}

/* A successor of a shard, forked while that goes on, takes its copies away without a trace. */
static void what_a_child_closes_is_only_closed(void **state)
{
    uint16_t slot, made;
    open_both(3, 2);
    listeners_spares_rest(&after);
    struct listeners child = after;
    child.spares[0].fd = fcntl(after.spares[0].fd, F_DUPFD_CLOEXEC, 0);
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++)
        memset(child.sockets[i].fds, 0xff, sizeof child.sockets[i].fds);
    child.leavers = NULL;
    listeners_keep(&child, 0);
    int fds[30];
    for (unsigned i = 0; i < 30; i++)
        fds[i] = connect_tcp();
    assert_int_equal(listeners_spares_accept(&after, &slot, &made), -EAGAIN);
    for (unsigned i = 0; i < 30; i++)
        close(fds[i]);
}

static void the_internal_port_that_has_moved_is_bound(void **state)
{
    assert_int_equal(listeners_open(&cfg, &plans[1], NULL, &before, &err), 0);
    hand_over();
    set("gateway", "start_port", "%u", free_port());
    assert_int_equal(listeners_open(&cfg, &plans[1], &inherited, &after, &err), 0);
    assert_int_not_equal(inode_of(after.internal_fd), inode_of(before.internal_fd));
    assert_true(inherited.internal_fd >= 0);
    listeners_inherited_close(&inherited);
}

#define WITH_ALL(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ALL(the_same_sockets_go_on),
        WITH_ALL(given_up_nothing_has_changed),
        WITH_ALL(what_has_changed_counts_when_it_is_sure),
        WITH_ALL(a_socket_that_is_not_wanted_goes_at_last),
        WITH_ALL(more_shards_get_sockets_when_it_is_sure),
        WITH_ALL(nobody_is_lost_with_fewer_shards),
        WITH_ALL(what_a_child_closes_is_only_closed),
        WITH_ALL(the_internal_port_that_has_moved_is_bound),
    };
    listeners_init(&before);
    listeners_init(&after);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
