// SPDX-License-Identifier: MIT
#include "supervisor/node_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "common/ticket_keys.h"
#include "mesh/mesh.h"

static struct config cfg;
static struct config_error err;

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

/* Of this process, in KiB. */
static long resident_kib(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d %ld", &pages), 1);
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void sixty_four_shards_cost_no_memory(void **state)
{
    struct node n;
    long before = resident_kib();
    assert_int_equal(node_memory_make(&cfg, 64, &n, &err), 0);
    assert_true(resident_kib() - before < 1024);
    assert_int_equal(n.n_shards, 64);
    assert_int_equal(n.ring_bytes, 1024 * 1024);
    assert_non_null(n.mesh);
    assert_non_null(n.shared);
    for (unsigned i = 0; i < 64; i++) {
        assert_non_null(n.estates[i]);
        assert_true(is_open(n.wake_fds[i]) && is_open(n.hand_fds[i][0]) && is_open(n.hand_fds[i][1]));
        assert_true(is_open(n.settings_fds[i][0]) && is_open(n.settings_fds[i][1]));
        assert_true(is_open(n.control_fds[i][0]) && is_open(n.control_fds[i][1]));
        assert_true(is_open(n.upgrade_fds[i][0]) && is_open(n.upgrade_fds[i][1]));
        assert_true(is_open(n.import_fds[i][0]) && is_open(n.import_fds[i][1]));
    }
    assert_non_null(n.guard);
    assert_non_null(n.tickets);
    *(char *)n.estates[63] = 1; /* it is memory all the same */
    ((char *)n.mesh)[mesh_bytes(64, n.ring_bytes) - 1] = 1;
    int fd = n.wake_fds[63];
    node_memory_free(&n);
    assert_false(is_open(fd));
    assert_int_equal(n.n_shards, 0);
    bool had_input = is_open(STDIN_FILENO);
    node_memory_free(&n);
    assert_int_equal(is_open(STDIN_FILENO), had_input);
}

static void a_shard_keeps_its_own(void **state)
{
    struct node n;
    char c = 'x';
    assert_int_equal(node_memory_make(&cfg, 3, &n, &err), 0);
    node_memory_keep(&n, 1);
    assert_null(n.estates[0]);
    assert_non_null(n.estates[1]);
    assert_null(n.estates[2]);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(is_open(n.wake_fds[i]) && is_open(n.hand_fds[i][1]));
        assert_int_equal(n.hand_fds[i][0] >= 0, i == 1);
        assert_int_equal(n.settings_fds[i][0] >= 0, i == 1);
        assert_true(n.settings_fds[i][1] < 0);
        assert_int_equal(n.control_fds[i][0] >= 0, i == 1);
        assert_true(n.control_fds[i][1] < 0);
        assert_int_equal(n.upgrade_fds[i][0] >= 0, i == 1);
        assert_int_equal(n.import_fds[i][0] >= 0, i == 1);
        assert_true(n.upgrade_fds[i][1] < 0 && n.import_fds[i][1] < 0);
    }
    assert_true(is_open(n.control_fds[1][0]));
    assert_true(n.settings_fds[3][0] < 0 && n.settings_fds[3][1] < 0); /* the admin process's */
    assert_true(is_open(n.settings_fds[1][0]));
    assert_non_null(n.guard);
    assert_int_equal(n.tickets->n, 0);
    assert_int_equal(send(n.hand_fds[1][1], &c, 1, 0), 1);
    assert_int_equal(recv(n.hand_fds[1][0], &c, 1, 0), 1);
    assert_int_equal(recv(n.hand_fds[1][0], &c, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    node_memory_free(&n);
}

static void the_admin_process_asks_and_touches_nothing_else(void **state)
{
    struct node n;
    char c = 'x';
    assert_int_equal(node_memory_make(&cfg, 3, &n, &err), 0);
    int shards_end = dup(n.control_fds[2][0]);
    node_memory_keep_admin(&n);
    assert_null(n.mesh);
    assert_null(n.tickets);
    for (unsigned i = 0; i < 3; i++) {
        assert_null(n.estates[i]);
        assert_true(n.wake_fds[i] < 0 && n.hand_fds[i][0] < 0 && n.hand_fds[i][1] < 0);
        assert_true(n.settings_fds[i][0] < 0 && n.settings_fds[i][1] < 0);
        assert_true(n.control_fds[i][0] < 0 && is_open(n.control_fds[i][1]));
        assert_true(n.upgrade_fds[i][0] < 0 && n.upgrade_fds[i][1] < 0);
        assert_true(n.import_fds[i][0] < 0 && n.import_fds[i][1] < 0);
    }
    assert_true(is_open(n.settings_fds[3][0]) && n.settings_fds[3][1] < 0);
    assert_int_equal(send(n.control_fds[2][1], &c, 1, 0), 1);
    assert_int_equal(recv(shards_end, &c, 1, 0), 1);
    assert_int_equal(n.shared->deaths, 0);
    assert_non_null(n.guard);
    close(shards_end);
    node_memory_free(&n);
}

static void without_an_admin_process_nobody_is_asked(void **state)
{
    struct node n;
    assert_int_equal(config_set(&cfg, "admin", "enabled", "no", &err), 0);
    assert_int_equal(node_memory_make(&cfg, 2, &n, &err), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_true(n.control_fds[i][0] == -1 && n.control_fds[i][1] == -1);
    assert_true(n.settings_fds[2][0] == -1 && n.settings_fds[2][1] == -1);
    node_memory_keep(&n, 1);
    assert_int_equal(n.control_fds[1][0], -1);
    node_memory_free(&n);
}

static void one_shard_needs_no_rings(void **state)
{
    struct node n;
    assert_int_equal(node_memory_make(&cfg, 1, &n, &err), 0);
    assert_null(n.mesh);
    assert_non_null(n.estates[0]);
    node_memory_free(&n);
}

static void what_is_missing_is_told(void **state)
{
    struct node n;
    struct rlimit files, few;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    few = (struct rlimit){.rlim_cur = 20, .rlim_max = files.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int r = node_memory_make(&cfg, 16, &n, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    assert_int_equal(r, -EMFILE);
    assert_int_equal(err.n, 1);
    assert_non_null(strstr(err.list[0].text, "descriptors"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sixty_four_shards_cost_no_memory, with_defaults, without),
        cmocka_unit_test_setup_teardown(a_shard_keeps_its_own, with_defaults, without),
        cmocka_unit_test_setup_teardown(the_admin_process_asks_and_touches_nothing_else, with_defaults,
                                        without),
        cmocka_unit_test_setup_teardown(without_an_admin_process_nobody_is_asked, with_defaults, without),
        cmocka_unit_test_setup_teardown(one_shard_needs_no_rings, with_defaults, without),
        cmocka_unit_test_setup_teardown(what_is_missing_is_told, with_defaults, without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
