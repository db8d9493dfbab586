// SPDX-License-Identifier: MIT
#include "common/node_shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static struct node_shared *node;

static int with_node(void **state)
{
    node = node_shared_new();
    return node != NULL ? 0 : -1;
}

static int without_node(void **state)
{
    node_shared_free(node);
    return 0;
}

static uint64_t hash_of(uint64_t bucket)
{
    return bucket << 32;
}

static void a_filter_never_denies_what_is_there(void **state)
{
    struct name_filter *f = &node->names[0].uids;
    assert_false(name_filter_may_have(f, hash_of(5)));
    name_filter_add(f, hash_of(5));
    name_filter_add(f, hash_of(5 + NODE_FILTER_BUCKETS)); /* the same bucket */
    name_filter_remove(f, hash_of(5));
    assert_true(name_filter_may_have(f, hash_of(5 + NODE_FILTER_BUCKETS)));
    name_filter_remove(f, hash_of(5 + NODE_FILTER_BUCKETS));
    assert_false(name_filter_may_have(f, hash_of(5)));
}

static void a_bucket_that_was_full_stays_so(void **state)
{
    struct name_filter *f = &node->names[0].uids;
    for (int i = 0; i < 300; i++)
        name_filter_add(f, hash_of(1));
    for (int i = 0; i < 300; i++)
        name_filter_remove(f, hash_of(1));
    assert_true(name_filter_may_have(f, hash_of(1)));
}

static void nothing_of_the_dead_is_left(void **state)
{
    static const uint64_t buckets[] = {0, 1, 4095, 4096, NODE_FILTER_BUCKETS / 2, NODE_FILTER_BUCKETS - 1};
    for (unsigned shard = 0; shard < 3; shard++) {
        for (size_t i = 0; i < sizeof buckets / sizeof buckets[0]; i++) {
            name_filter_add(&node->names[shard].uids, hash_of(buckets[i]));
            name_filter_add(&node->names[shard].groups, hash_of(buckets[i]));
        }
        node->shards[shard].phase = NODE_UP;
        node->shards[shard].clients = node->shards[shard].links = node->shards[shard].members = 7;
        node->workers[0].clients[shard] = node->workers[NODE_WORKERS_MAX - 1].clients[shard] = 3;
    }
    node->shards[0].client_handoff.handed[1] = node->shards[0].link_handoff.handed[1] =
        12; /* of which it had taken 10 */
    node->shards[1].client_handoff.taken[0] = node->shards[1].link_handoff.taken[0] = 10;
    node_shared_bury(node, 1);
    for (unsigned shard = 0; shard < 3; shard++) {
        bool dead = shard == 1;
        for (size_t i = 0; i < sizeof buckets / sizeof buckets[0]; i++) {
            assert_int_equal(name_filter_may_have(&node->names[shard].uids, hash_of(buckets[i])), !dead);
            assert_int_equal(name_filter_may_have(&node->names[shard].groups, hash_of(buckets[i])), !dead);
        }
        assert_int_equal(node->shards[shard].phase, dead ? NODE_DOWN : NODE_UP);
        assert_int_equal(node->shards[shard].clients, dead ? 0 : 7);
        assert_int_equal(node->shards[shard].links, dead ? 0 : 7);
        assert_int_equal(node->shards[shard].members, dead ? 0 : 7);
        assert_int_equal(node->workers[0].clients[shard], dead ? 0 : 3);
        assert_int_equal(node->workers[NODE_WORKERS_MAX - 1].clients[shard], dead ? 0 : 3);
        assert_int_equal(node->deaths_of[shard], dead);
    }
    assert_int_equal(node->shards[1].client_handoff.taken[0], 12);
    assert_int_equal(node->shards[1].link_handoff.taken[0], 12);
    assert_int_equal(node->deaths, 1);
    node_shared_bury(node, 1);
    assert_int_equal(node->deaths, 2);
    assert_int_equal(node->deaths_of[1], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_filter_never_denies_what_is_there, with_node, without_node),
        cmocka_unit_test_setup_teardown(a_bucket_that_was_full_stays_so, with_node, without_node),
        cmocka_unit_test_setup_teardown(nothing_of_the_dead_is_left, with_node, without_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
