// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/host_test.h"

static void add_clients(struct test_node *n, unsigned shard, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        test_client_new(n, shard);
}

static uint32_t clients_at(struct test_node *n, const char *key)
{
    return worker_clients(test_worker_at(n, 0, key));
}

static void assert_sound(struct test_node *n)
{
    for (unsigned i = 0; i < n->node.n_shards; i++)
        assert_null(test_check(n, i));
}

static uint64_t rebalanced(struct test_node *n)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < n->node.n_shards; i++)
        sum += counter_get(&n->shards[i].counters, COUNTER_worker_rebalanced);
    return sum;
}

static void drained_workers_clients_go_to_others_and_close_there(void **state)
{
    struct test_node *n = test_node_new(1, "");
    struct test_worker *a = test_worker_new(n, 0, "a"), *b = test_worker_new(n, 0, "b");
    add_clients(n, 0, 10);
    test_run(n, 20);
    assert_int_equal(clients_at(n, "a"), 5);
    test_drain(n, "a", true, 0);
    test_run(n, 200);
    assert_int_equal(clients_at(n, "a"), 0);
    assert_int_equal(clients_at(n, "b"), 10);
    assert_int_equal(rebalanced(n), 5);
    assert_sound(n);
    for (unsigned i = 0; i < 10; i++)
        test_gone(n->clients[i]);
    test_run(n, 50);
    assert_int_equal(test_told(a, NULL, GW_CMD_ON_CLOSE), 0);
    assert_int_equal(test_told(b, NULL, GW_CMD_ON_CLOSE), 10);
    test_node_free(n);
}

static void new_clients_pass_over_one_that_drains_with_any_router(void **state)
{
    static const char *const routers[] = {"router = least_connections", "router = random",
                                          "router = round_robin", "router = client_hash"};
    for (unsigned r = 0; r < 4; r++) {
        struct test_node *n = test_node_new(1, routers[r]);
        test_worker_new(n, 0, "a");
        test_worker_new(n, 0, "b");
        test_worker_new(n, 0, "c");
        test_drain(n, "a", true, 0);
        add_clients(n, 0, 100);
        assert_int_equal(clients_at(n, "a"), 0);
        assert_true(clients_at(n, "b") > 0 && clients_at(n, "c") > 0);
        test_drain(n, "a", false, 0);
        add_clients(n, 0, 100);
        assert_true(clients_at(n, "a") > 0);
        assert_sound(n);
        test_node_free(n);
    }
}

static void all_are_used_when_all_drain(void **state)
{
    struct test_node *n = test_node_new(1, "");
    test_worker_new(n, 0, "a");
    test_worker_new(n, 0, "b");
    test_drain(n, "a", true, 0);
    test_drain(n, "b", true, 0);
    add_clients(n, 0, 10);
    test_run(n, 2000);
    assert_int_equal(clients_at(n, "a"), 5);
    assert_int_equal(clients_at(n, "b"), 5);
    test_drain(n, "b", false, 0);
    test_run(n, 2000);
    assert_int_equal(clients_at(n, "b"), 10);
    test_node_free(n);
}

static void a_drain_takes_its_time(void **state)
{
    struct test_node *n = test_node_new(1, "");
    test_worker_new(n, 0, "a");
    test_worker_new(n, 0, "b");
    add_clients(n, 0, 200);
    test_drain(n, "a", true, 10000);
    test_run(n, 5000);
    assert_in_range(clients_at(n, "a"), 48, 52);
    test_run(n, 2500);
    assert_in_range(clients_at(n, "a"), 23, 27);
    test_run(n, 3000);
    assert_int_equal(clients_at(n, "a"), 0);
    test_node_free(n);
}

static void nobody_knows_a_worker_of_another_key(void **state)
{
    struct test_node *n = test_node_new(1, "");
    test_worker_new(n, 0, "a");
    assert_int_equal(upstream_drain_worker(n->shards[0].u, SLICE_STR("127.0.0.1:b"), true, 0), -ENOENT);
    test_node_free(n);
}

static void who_comes_back_with_its_key_is_undrained(void **state)
{
    struct test_node *n = test_node_new(1, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    test_worker_new(n, 0, "b");
    test_drain(n, "a", true, 0);
    assert_true(worker_is_draining(test_worker_at(n, 0, "a")));
    test_worker_new(n, 0, "a"); /* replaces the link */
    assert_false(worker_is_draining(test_worker_at(n, 0, "a")));
    test_drain(n, "a", true, 0);
    net_close(n->worker_net, &n->workers[2]->conn, false);
    test_run(n, 100);
    assert_null(test_worker_at(n, 0, "a"));
    test_worker_new(n, 0, "a");
    assert_false(worker_is_draining(test_worker_at(n, 0, "a")));
    assert_true(a->closed);
    assert_sound(n);
    test_node_free(n);
}

/* That worker reads nothing any more, and its queue holds something of that client. */
static void stuff(struct test_node *n, struct test_worker *w, struct test_client *c)
{
    net_read_pause(n->worker_net, &w->conn);
    for (unsigned i = 0; i < 12; i++) {
        test_say(c, 3000);
        test_run(n, 2);
    }
}

static void talk_waits_for_a_worker_that_does_not_read(unsigned shard_of_clients, unsigned n_shards)
{
    struct test_node *n = test_node_new(n_shards, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    add_clients(n, shard_of_clients, 10);
    test_run(n, 50);
    struct test_client *talks = n->clients[3];
    stuff(n, a, talks);
    assert_true(test_worker_at(n, 0, "a")->link->queue.bytes > 0);
    struct test_worker *b = test_worker_new(n, 0, "b");
    test_drain(n, "a", true, 0);
    test_run(n, 300);
    if (n_shards == 1) {
        assert_int_equal(clients_at(n, "a"), 1); /* who is quiet has gone */
        assert_ptr_equal(talks->up.worker, test_worker_at(n, shard_of_clients, "a"));
    } else {
        assert_int_equal(clients_at(n, "a"), 10); /* its shard does not say whose what waits is */
    }
    test_say(talks, 10); /* comes behind what waits */
    net_read_resume(n->worker_net, &a->conn);
    test_run(n, 500);
    assert_int_equal(clients_at(n, "a"), 0);
    test_say(talks, 10);
    test_run(n, 50);
    assert_int_equal(test_told(a, talks, GW_CMD_ON_MESSAGE), 13);
    assert_int_equal(test_told(b, talks, GW_CMD_ON_MESSAGE), 1);
    for (unsigned i = 0, last = 0; i < a->n_events; i++)
        if (a->events[i].cmd == GW_CMD_ON_MESSAGE)
            assert_int_equal(a->events[i].number, ++last);
    assert_sound(n);
    test_node_free(n);
}

static void a_client_goes_when_nothing_of_it_waits(void **state)
{
    talk_waits_for_a_worker_that_does_not_read(0, 1);
}

static void a_client_of_another_shard_goes_when_nothing_of_it_waits(void **state)
{
    talk_waits_for_a_worker_that_does_not_read(1, 2);
}

/* Whenever its shard hears something, it has said something before. */
static void talk(struct test_node *n, unsigned to)
{
    struct test_client *c = n->clients[0];
    if (to == 1 && !c->up.paused && !upstream_client_blocked(c->shard->u, &c->up))
        test_say(c, 1);
}

static void who_talks_all_the_time_goes_too(void **state)
{
    struct test_node *n = test_node_new(2, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    for (unsigned i = 0; i < 4; i++)
        test_client_new(n, 1);
    struct test_worker *b = test_worker_new(n, 1, "b");
    n->on_wake = talk;
    test_drain(n, "a", true, 0);
    test_run(n, 1500);
    assert_int_equal(clients_at(n, "a"), 1);
    test_run(n, 1500);
    assert_int_equal(clients_at(n, "a"), 0);
    n->on_wake = NULL;
    test_say(n->clients[0], 1);
    test_run(n, 100);
    assert_int_equal(test_told(a, NULL, GW_CMD_ON_MESSAGE) + test_told(b, NULL, GW_CMD_ON_MESSAGE),
                     n->clients[0]->said);
    assert_true(test_told(b, NULL, GW_CMD_ON_MESSAGE) > 0);
    assert_sound(n);
    test_node_free(n);
}

static void a_drain_concerns_all_shards(void **state)
{
    struct test_node *n = test_node_new(2, "");
    test_worker_new(n, 0, "a");
    test_worker_new(n, 1, "b");
    add_clients(n, 0, 20);
    add_clients(n, 1, 20);
    test_run(n, 50);
    test_drain(n, "a", true, 1000);
    test_run(n, 1500);
    assert_int_equal(clients_at(n, "a"), 0);
    assert_int_equal(clients_at(n, "b"), 40);
    assert_sound(n);
    test_node_free(n);
}

static void all_shards_make_all_workers_even(void **state)
{
    static const char *const keys[] = {"a", "b", "c"};
    for (unsigned over_ms = 0; over_ms <= 1000; over_ms += 1000) {
        struct test_node *n = test_node_new(2, "");
        test_worker_new(n, 0, "a");
        add_clients(n, 0, 33);
        add_clients(n, 1, 17);
        test_worker_new(n, 1, "b");
        test_worker_new(n, 0, "c");
        uint32_t said = 0;
        for (unsigned i = 0; i < 2; i++) {
            said += upstream_rebalance(n->shards[i].u, over_ms);
            test_run(n, over_ms == 0 ? 0 : 7);
        }
        assert_int_equal(said, 33);
        if (over_ms > 0) {
            test_run(n, 500);
            assert_in_range(clients_at(n, "a"), 30, 37);
        }
        test_run(n, over_ms + 3000);
        for (unsigned i = 0; i < 3; i++)
            assert_in_range(clients_at(n, keys[i]), 16, 17);
        assert_int_equal(rebalanced(n), 33); /* nobody twice */
        assert_int_equal(upstream_rebalance(n->shards[0].u, 0), 0);
        assert_sound(n);
        test_node_free(n);
    }
}

static void a_rebalance_leaves_out_who_drains(void **state)
{
    struct test_node *n = test_node_new(1, "");
    test_worker_new(n, 0, "a");
    add_clients(n, 0, 30);
    test_worker_new(n, 0, "b");
    test_worker_new(n, 0, "c");
    test_drain(n, "c", true, 0);
    assert_int_equal(upstream_rebalance(n->shards[0].u, 100), 15);
    test_run(n, 3000);
    assert_int_equal(clients_at(n, "a"), 15);
    assert_int_equal(clients_at(n, "b"), 15);
    assert_int_equal(clients_at(n, "c"), 0);
    test_node_free(n);
}

int main(void)
{
    test_begin();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drained_workers_clients_go_to_others_and_close_there),
        cmocka_unit_test(new_clients_pass_over_one_that_drains_with_any_router),
        cmocka_unit_test(all_are_used_when_all_drain),
        cmocka_unit_test(a_drain_takes_its_time),
        cmocka_unit_test(nobody_knows_a_worker_of_another_key),
        cmocka_unit_test(who_comes_back_with_its_key_is_undrained),
        cmocka_unit_test(a_client_goes_when_nothing_of_it_waits),
        cmocka_unit_test(a_client_of_another_shard_goes_when_nothing_of_it_waits),
        cmocka_unit_test(who_talks_all_the_time_goes_too),
        cmocka_unit_test(a_drain_concerns_all_shards),
        cmocka_unit_test(all_shards_make_all_workers_even),
        cmocka_unit_test(a_rebalance_leaves_out_who_drains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
