// SPDX-License-Identifier: MIT
#include "supervisor/distribution.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/settings.h"
#include "supervisor/listeners.h"

#define SHARDS 3
#define ADMIN  SHARDS

static struct node node;
static struct distribution d;
static struct listeners l;

static int set_up(void **state)
{
    node = (struct node){.n_shards = SHARDS, .shared = node_shared_new()};
    if (node.shared == NULL)
        return -1;
    for (unsigned i = 0; i <= SHARDS; i++)
        if (settings_open(node.settings_fds[i]) < 0)
            return -1;
    distribution_init(&d);
    listeners_init(&l);
    l.n = 1;
    return 0;
}

static int tear_down(void **state)
{
    distribution_fini(&d);
    listeners_close(&l);
    for (unsigned i = 0; i <= SHARDS; i++)
        for (unsigned end = 0; end < 2; end++)
            close(node.settings_fds[i][end]);
    node_shared_free(node.shared);
    return 0;
}

static int begin(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    distribution_begin(&d, &node, &l, fd);
    return fd;
}

/* The number of the last that waits for that shard, and how many there were; 0: none. */
static uint64_t take(unsigned shard, unsigned *ret_n)
{
    struct settings s = {.generation = 0};
    int r;
    for (*ret_n = 0; (r = settings_receive(node.settings_fds[shard][0], &s)) == 0; (*ret_n)++)
        settings_close(&s);
    assert_int_equal(r, -EAGAIN);
    return s.generation;
}

static void every_shard_gets_them_once(void **state)
{
    unsigned n;
    int fd = begin();
    assert_false(distribution_waits(&d));
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* not kept */
    distribution_turn(&d, &node);
    for (unsigned i = 0; i <= SHARDS; i++) {
        assert_int_equal(take(i, &n), 1);
        assert_int_equal(n, 1);
    }
    begin();
    assert_int_equal(take(2, &n), 2);
}

static void who_does_not_read_gets_the_newest_later(void **state)
{
    unsigned n;
    uint64_t generations = 0;
    while (!distribution_waits(&d)) {
        begin();
        generations++;
        take(0, &n);
        assert_int_equal(n, 1);
    }
    begin();
    begin();
    generations += 2;
    assert_int_equal(take(0, &n), generations); /* the others are not held up */
    distribution_turn(&d, &node);
    assert_true(distribution_waits(&d));
    uint64_t last = take(1, &n);
    assert_true(last < generations - 1);
    distribution_turn(&d, &node);
    assert_int_equal(take(1, &n), generations);
    assert_int_equal(n, 1); /* what was overtaken does not come */
    assert_int_equal(take(0, &n), 0);
    assert_true(distribution_waits(&d)); /* for 2 */
    take(2, &n);
    distribution_turn(&d, &node);
    assert_int_equal(take(2, &n), generations);
    assert_true(distribution_waits(&d)); /* for the admin process */
    take(ADMIN, &n);
    distribution_turn(&d, &node);
    assert_int_equal(take(ADMIN, &n), generations);
    assert_false(distribution_waits(&d));
}

static void a_successor_does_not_get_what_was_for_another(void **state)
{
    unsigned n;
    begin();
    begin();
    distribution_skip(&d, &node, &l, 1);
    assert_int_equal(take(1, &n), 0);
    assert_int_equal(take(0, &n), 2);
    begin();
    assert_int_equal(take(1, &n), 3);
    while (!distribution_waits(&d)) {
        begin();
        take(0, &n);
        take(2, &n);
        take(ADMIN, &n);
    }
    distribution_skip(&d, &node, &l, 1);
    assert_int_equal(take(1, &n), 0);
    assert_false(distribution_waits(&d));
}

static void what_a_successor_has_is_said_for_it(void **state)
{
    unsigned n;
    node_shared_bury(node.shared, 1);
    assert_true(node_shard_has_settings(&node.shared->shards[1], UINT64_MAX));
    begin();
    begin();
    l.slots[5].present = true;
    distribution_skip(&d, &node, &l, 1);
    assert_true(node_shard_has_settings(&node.shared->shards[1], 2));
    assert_false(node_shard_has_settings(&node.shared->shards[1], 3));
    assert_true(node_shard_slots(&node.shared->shards[1], 2) == 1 << 5);
    assert_true(node_shard_slots(&node.shared->shards[1], 3) == UINT64_MAX);
    assert_true(node_shard_slots(&node.shared->shards[0], 1) == UINT64_MAX); /* it has not read them */
    distribution_skip(&d, &node, &l, ADMIN);
    assert_int_equal(take(ADMIN, &n), 0);
    assert_int_equal(take(0, &n), 2);
}

static void nobody_is_told_when_the_gateway_ends(void **state)
{
    unsigned n;
    while (!distribution_waits(&d)) {
        begin();
        take(0, &n);
    }
    listeners_close(&l);
    take(1, &n);
    distribution_turn(&d, &node);
    assert_int_equal(take(1, &n), 0);
    assert_false(distribution_waits(&d));
}

static void without_an_admin_process_nobody_waits_for_it(void **state)
{
    unsigned n;
    int fds[2] = {node.settings_fds[ADMIN][0], node.settings_fds[ADMIN][1]};
    node.settings_fds[ADMIN][0] = node.settings_fds[ADMIN][1] = -1;
    for (unsigned i = 1; i < 100; i++) {
        begin();
        for (unsigned shard = 0; shard < SHARDS; shard++)
            assert_int_equal(take(shard, &n), i);
        assert_false(distribution_waits(&d));
    }
    node.settings_fds[ADMIN][0] = fds[0];
    node.settings_fds[ADMIN][1] = fds[1];
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_shard_gets_them_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_does_not_read_gets_the_newest_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_successor_does_not_get_what_was_for_another, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_a_successor_has_is_said_for_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_is_told_when_the_gateway_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_an_admin_process_nobody_waits_for_it, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
