// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/host_test.h"

#include <jansson.h>

#include "base/json_writer.h"

/* What the writer wrote, as an array. */
static json_t *parse_rows(struct bytes *rows)
{
    struct bytes text = {0};
    json_error_t err;
    bytes_append_byte(&text, '[');
    bytes_append(&text, rows->data, rows->len);
    bytes_append_byte(&text, ']');
    json_t *all = json_loadb((const char *)text.data, text.len, 0, &err);
    assert_non_null(all);
    bytes_fini(&text);
    bytes_fini(rows);
    return all;
}

static json_t *list_workers(struct test_node *n, unsigned shard, uint64_t *cursor, uint32_t limit,
                            size_t bytes_max)
{
    struct bytes rows = {0};
    struct json_writer w = {.out = &rows};
    *cursor = upstream_list_workers(n->shards[shard].u, &w, *cursor, limit, bytes_max);
    return parse_rows(&rows);
}

static json_int_t number_of(json_t *row, const char *key)
{
    json_t *v = json_object_get(row, key);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

static const char *text_of(json_t *row, const char *key)
{
    json_t *v = json_object_get(row, key);
    assert_true(json_is_string(v));
    return json_string_value(v);
}

/* The row of the only worker. */
static void expect_worker(struct test_node *n, const char *health, bool draining, bool waits)
{
    uint64_t cursor = 0;
    json_t *rows = list_workers(n, 0, &cursor, 10, 60000);
    assert_int_equal(json_array_size(rows), 1);
    json_t *row = json_array_get(rows, 0);
    assert_string_equal(text_of(row, "health"), health);
    assert_true(json_is_boolean(json_object_get(row, "draining")));
    assert_int_equal(json_is_true(json_object_get(row, "draining")), draining);
    assert_int_equal(number_of(row, "queue_bytes") > 0, waits);
    json_decref(rows);
}

static void a_row_says_what_a_worker_does(void **state)
{
    struct test_node *n = test_node_new(2, "");
    test_worker_new(n, 0, "a");
    test_worker_new(n, 1, "b");
    for (unsigned i = 0; i < 6; i++)
        test_client_new(n, i % 2);
    test_run(n, 100);
    for (unsigned i = 0; i < 60; i++) {
        for (unsigned k = 0; k < 6; k++)
            test_say(n->clients[k], 8);
        test_run(n, 5);
    }
    test_turn(n, 7000);
    uint64_t cursor = 0;
    json_t *rows = list_workers(n, 0, &cursor, 10, 60000);
    assert_int_equal(cursor, 0);
    assert_int_equal(json_array_size(rows), 1);
    json_t *row = json_array_get(rows, 0), *queue_time = json_object_get(row, "queue_time");
    const struct link *l = test_worker_at(n, 0, "a")->link;
    assert_string_equal(text_of(row, "key"), "127.0.0.1:a");
    assert_int_equal(number_of(row, "shard"), 0);
    assert_int_equal(strncmp(text_of(row, "address"), "127.0.0.1:", 10), 0);
    assert_int_equal(number_of(row, "connected_s"), 7);
    assert_int_equal(number_of(row, "idle_s"), 7);
    assert_int_equal(number_of(row, "clients"), 3);
    assert_int_equal(json_array_size(json_object_get(row, "clients_of")), 2);
    assert_int_equal(number_of(row, "paused_clients"), 0);
    assert_string_equal(text_of(row, "health"), "ok");
    assert_int_equal(number_of(row, "queue_age_ms"), 0);
    assert_int_equal(number_of(row, "messages_in"), 1);
    assert_int_equal(number_of(row, "bytes_in"), l->bytes_in);
    assert_int_equal(number_of(row, "messages_out"), 3 + 3 * 60);
    assert_int_equal(number_of(row, "bytes_out"), 3 * GW_HEAD_LEN + 180 * (GW_HEAD_LEN + 12));
    assert_true(number_of(queue_time, "count") > 0);
    assert_int_equal(json_array_size(json_object_get(queue_time, "buckets")), HISTOGRAM_BUCKETS);
    assert_int_equal(number_of(queue_time, "count"),
                     histogram_count(&n->shards[0].histograms.h[HISTOGRAM_worker_queue]));
    json_decref(rows);
    test_node_free(n);
}

static void rows_come_in_pages(void **state)
{
    static const char *const keys[] = {"a", "b", "c", "d", "e"};
    for (unsigned by_bytes = 0; by_bytes < 2; by_bytes++) {
        struct test_node *n = test_node_new(1, "");
        uint64_t cursor = 0;
        unsigned pages = 0, rows_n = 0;
        for (unsigned i = 0; i < 5; i++)
            test_worker_new(n, 0, keys[i]);
        do {
            json_t *rows = list_workers(n, 0, &cursor, by_bytes ? 100 : 2, by_bytes ? 1000 : 60000);
            for (size_t i = 0; i < json_array_size(rows); i++)
                assert_int_equal(text_of(json_array_get(rows, i), "key")[10], keys[rows_n++][0]);
            pages++;
            json_decref(rows);
        } while (cursor != 0);
        assert_int_equal(rows_n, 5);
        assert_int_equal(pages, 3);
        test_node_free(n);
    }
}

static void health_follows_the_age_of_what_waits(void **state)
{
    struct test_node *n = test_node_new(1, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    struct test_client *c = test_client_new(n, 0);
    net_read_pause(n->worker_net, &a->conn);
    test_run(n, 10);
    expect_worker(n, "ok", false, false);
    for (unsigned i = 0; i < 10; i++) {
        test_say(c, 4000);
        test_run(n, 5);
    }
    expect_worker(n, "ok", false, true);
    test_turn(n, 1500);
    expect_worker(n, "slow", false, true);
    for (unsigned i = 0; i < 15; i++) {
        test_say(c, 4000);
        test_run(n, 5);
    }
    expect_worker(n, "full", false, true);
    test_drain(n, "a", true, 0);
    test_turn(n, 9500);
    expect_worker(n, "stuck", true, true);
    assert_null(test_check(n, 0));
    net_read_resume(n->worker_net, &a->conn);
    test_run(n, 500);
    test_drain(n, "a", false, 0);
    expect_worker(n, "ok", false, false);
    assert_null(test_check(n, 0));
    struct worker *w = test_worker_at(n, 0, "a");
    assert_true(histogram_quantile(&w->meter.times, HISTOGRAM_SHIFT_worker_queue, 1) >=
                UINT64_C(10000000000));
    test_node_free(n);
}

static json_t *describe(struct test_client *c, bool full)
{
    struct bytes row = {0};
    struct json_writer w = {.out = &row};
    json_begin(&w, '{');
    upstream_describe_client(c->shard->u, &c->up, &w, full);
    json_end(&w, '}');
    return parse_rows(&row);
}

static void a_client_says_whose_it_is_and_what_waits(void **state)
{
    struct test_node *n = test_node_new(1, "");
    struct test_client *c = test_client_new(n, 0);
    test_say(c, 5);
    json_t *all = describe(c, true), *row = json_array_get(all, 0);
    assert_true(json_is_null(json_object_get(row, "worker")));
    assert_true(json_is_null(json_object_get(row, "worker_info")));
    assert_int_equal(number_of(row, "parked_events"), 2);
    assert_int_equal(number_of(row, "parked_bytes"), 2 * GW_HEAD_LEN + 9);
    json_decref(all);
    assert_false(upstream_is_bound_to(&c->up, SLICE_STR("127.0.0.1:a")));
    assert_null(test_check(n, 0));
    test_worker_new(n, 0, "a");
    test_run(n, 50);
    all = describe(c, true);
    row = json_array_get(all, 0);
    assert_string_equal(text_of(row, "worker"), "127.0.0.1:a");
    assert_int_equal(number_of(row, "parked_events"), 0);
    assert_int_equal(number_of(json_object_get(row, "worker_info"), "queue_bytes"), 0);
    assert_true(json_is_false(json_object_get(json_object_get(row, "worker_info"), "full")));
    json_decref(all);
    all = describe(c, false);
    assert_int_equal(json_object_size(json_array_get(all, 0)), 1);
    json_decref(all);
    assert_true(upstream_is_bound_to(&c->up, SLICE_STR("127.0.0.1:a")));
    assert_false(upstream_is_bound_to(&c->up, SLICE_STR("127.0.0.1:ab")));
    test_node_free(n);
}

static void tables_and_gauges_show_what_is_there(void **state)
{
    struct test_node *n = test_node_new(2, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    struct test_client *c = test_client_new(n, 0);
    net_read_pause(n->worker_net, &a->conn);
    for (unsigned i = 0; i < 10; i++) {
        test_say(c, 4000);
        test_run(n, 2);
    }
    struct bytes text = {0};
    struct json_writer w = {.out = &text};
    upstream_list_tables(n->shards[0].u, &w);
    json_t *rows = parse_rows(&text);
    unsigned found = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        assert_int_equal(json_object_size(row), 6);
        assert_int_equal(number_of(row, "shard"), 0);
        if (strcmp(text_of(row, "name"), "links") == 0 || strcmp(text_of(row, "name"), "workers") == 0)
            found += number_of(row, "used") == 1 && number_of(row, "peak") == 1;
        if (strcmp(text_of(row, "name"), "link_queues") == 0)
            found += number_of(row, "used") > 0 && number_of(row, "bytes") >= number_of(row, "used");
    }
    assert_int_equal(found, 3);
    json_decref(rows);
    upstream_measure(n->shards[0].u);
    assert_int_equal(counter_get(&n->shards[0].counters, COUNTER_links_queue_bytes),
                     test_worker_at(n, 0, "a")->link->queue.bytes);
    assert_int_equal(counter_get(&n->shards[0].counters, COUNTER_links_input_bytes), 0);
    /* What the other shard has not taken. */
    struct slice part = SLICE_STR("0123456789");
    assert_true(mesh_send(test_gw(n, 0)->mesh, 1, 999, &part, 1, NULL));
    upstream_measure(n->shards[0].u);
    assert_true(counter_get(&n->shards[0].counters, COUNTER_mesh_ring_bytes) >= 10);
    test_turn(n, 10);
    upstream_measure(n->shards[0].u);
    assert_int_equal(counter_get(&n->shards[0].counters, COUNTER_mesh_ring_bytes), 0);
    assert_true(counter_get(&n->shards[0].counters, COUNTER_mesh_ring_peak_bytes) >= 10);
    test_node_free(n);
}

/* ---- check */

#define EXPECT_WRONG(n, lvalue, wrong_value, text)                                                           \
    do {                                                                                                     \
        __typeof__(lvalue) right_ = (lvalue);                                                                \
        (lvalue) = (__typeof__(lvalue))(wrong_value);                                                        \
        bool said_ = test_check_says(n, 0, text);                                                            \
        (lvalue) = right_;                                                                                   \
        assert_true(said_);                                                                                  \
        assert_null(test_check(n, 0));                                                                       \
    } while (0)

static void what_does_not_add_up_is_said(void **state)
{
    struct test_node *n = test_node_new(2, "");
    struct test_worker *peer = test_worker_new(n, 0, "a");
    test_worker_new(n, 1, "b");
    for (unsigned i = 0; i < 10; i++)
        test_client_new(n, 0);
    net_read_pause(n->worker_net, &peer->conn);
    for (unsigned i = 0; i < 100; i++)
        test_say(n->clients[i % 10], 500);
    test_run(n, 50);
    struct gatewayworker *gw = test_gw(n, 0);
    struct worker *a = test_worker_at(n, 0, "a"), *b = test_worker_at(n, 0, "b");
    struct upstream_client *c = a->clients[1];
    assert_true(a->link->queue.bytes > 0 && a->meter.n > 0);
    assert_null(test_check(n, 0));
    EXPECT_WRONG(n, gw->shared->workers[a->number].clients[0], 99, "another number of clients");
    EXPECT_WRONG(n, gw->shared->workers[77].clients[0], 1, "a worker that is not there");
    EXPECT_WRONG(n, gw->shared->workers[78].hash, 5, "taken by nobody");
    EXPECT_WRONG(n, gw->shared->workers[a->number].hash, 5, "another's");
    EXPECT_WRONG(n, c->worker, b, "not where it should be");
    EXPECT_WRONG(n, c->worker, (struct worker *)gw, "none that is known");
    EXPECT_WRONG(n, c->worker_position, 0, "not where it should be");
    c->paused = true;
    assert_non_null(test_check(n, 0));
    c->paused = false;
    EXPECT_WRONG(n, a->clients[0], a->clients[1], "bound to another one");
    EXPECT_WRONG(n, c->member.record->worker, 12345, "names another worker");
    EXPECT_WRONG(n, c->member.record->id, 12345, "is another's");
    EXPECT_WRONG(n, c->member.record, NULL, "has no record");
    EXPECT_WRONG(n, gw->n_links, 7, "in the list");
    EXPECT_WRONG(n, gw->link_table[a->link->number], NULL, "not in the table");
    EXPECT_WRONG(n, gw->n_undecided, 1, "miscounted");
    EXPECT_WRONG(n, gw->n_here, 2, "number of links");
    EXPECT_WRONG(n, gw->numbers[0], NULL, "not found by its number");
    EXPECT_WRONG(n, gw->n_unsettled, 1, "not settled");
    EXPECT_WRONG(n, a->link->queue.bytes, 1, "do not add up");
    EXPECT_WRONG(n, a->link->n_gathers, 1, "questions");
    EXPECT_WRONG(n, a->position, 1, "not where it should be");
    EXPECT_WRONG(n, a->meter.n, METER_MARKS + 1, "something that waits");
    EXPECT_WRONG(n, gw->parked_bytes, 5, "bytes that wait");
    EXPECT_WRONG(n, gw->parked_clients, 5, "clients that wait");
    test_node_free(n);
}

static void what_waits_for_a_worker_is_checked_too(void **state)
{
    struct test_node *n = test_node_new(1, "");
    struct test_client *c = test_client_new(n, 0), *other = test_client_new(n, 0);
    test_say(c, 5);
    test_say(other, 5);
    test_gone(test_client_new(n, 0)); /* forgotten */
    struct parked *p = c->up.parked;
    assert_null(test_check(n, 0));
    EXPECT_WRONG(n, p->n_events, 9, "events that wait");
    EXPECT_WRONG(n, p->n_messages, 0, "events that wait");
    EXPECT_WRONG(n, p->packets.data[3], 7, "no packet");
    EXPECT_WRONG(n, p->client, &other->up, "does not know");
    EXPECT_WRONG(n, c->up.parked, other->up.parked, "does not know");
    EXPECT_WRONG(n, test_gw(n, 0)->parked_bytes, 1, "bytes that wait");
    test_node_free(n);
}

/* ---- commands */

static void command(struct test_worker *w, uint8_t cmd, const struct test_client *c, const char *ext,
                    const char *body)
{
    struct gw_packet p = {.cmd = cmd,
                          .flag = GW_FLAG_BODY_IS_SCALAR,
                          .connection_id = c != NULL ? c->up.member.id : 0,
                          .ext = {(const uint8_t *)ext, strlen(ext)},
                          .body = {(const uint8_t *)body, strlen(body)}};
    test_command(w, &p);
    test_run(w->node, 20);
}

static void commands_about_a_traced_client_are_told(void **state)
{
    struct test_node *n = test_node_new(1, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    struct test_client *c = test_client_new(n, 0), *other = test_client_new(n, 0);
    static const struct {
        uint8_t cmd;
        bool to_one;
        const char *ext, *body, *name;
    } said[] = {
        {GW_CMD_SEND_TO_ONE, true, "", "hello", "SEND_TO_ONE"},
        {GW_CMD_BIND_UID, true, "u1", "", "BIND_UID"},
        {GW_CMD_JOIN_GROUP, true, "g1", "", "JOIN_GROUP"},
        {GW_CMD_SEND_TO_ALL, false, "", "hello", "SEND_TO_ALL"},
        {GW_CMD_SEND_TO_GROUP, false, "{\"group\":[\"g1\"],\"exclude\":null}", "hello", "SEND_TO_GROUP"},
        {GW_CMD_SEND_TO_UID, false, "[\"u1\"]", "hello", "SEND_TO_UID"},
        {GW_CMD_SET_SESSION, true, "a:0:{}", "", "SET_SESSION"},
        {GW_CMD_UPDATE_SESSION, true, "a:0:{}", "", "UPDATE_SESSION"},
        {GW_CMD_GET_SESSION_BY_CLIENT_ID, true, "", "", "GET_SESSION_BY_CLIENT_ID"},
        {GW_CMD_IS_ONLINE, true, "", "", "IS_ONLINE"},
        {GW_CMD_LEAVE_GROUP, true, "g1", "", "LEAVE_GROUP"},
        {GW_CMD_JOIN_GROUP, true, "g2", "", "JOIN_GROUP"},
        {GW_CMD_UNGROUP, false, "g2", "", "UNGROUP"},
        {GW_CMD_UNBIND_UID, true, "", "", "UNBIND_UID"},
        {GW_CMD_KICK, true, "", "bye", "KICK"},
    };
    c->up.traced = true;
    command(a, GW_CMD_SEND_TO_ONE, c, "", "hello");
    assert_int_equal(c->traced, 0); /* nobody is traced, says the host */
    n->shards[0].host.tracing = true;
    for (unsigned i = 0; i < sizeof said / sizeof said[0]; i++) {
        command(a, said[i].cmd, said[i].to_one ? c : NULL, said[i].ext, said[i].body);
        assert_int_equal(c->traced, i + 1);
        assert_string_equal(c->last_command, said[i].name);
        assert_string_equal(c->last_sender, "127.0.0.1:a");
    }
    assert_int_equal(other->traced, 0);
    assert_true(c->gone && other->delivered == 1);
    assert_string_equal(c->uid, "u1");
    test_node_free(n);
}

static void a_uid_is_told_once(void **state)
{
    struct test_node *n = test_node_new(1, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    struct test_client *c = test_client_new(n, 0);
    command(a, GW_CMD_BIND_UID, c, "u1", "");
    assert_string_equal(c->uid, "u1");
    c->uid[0] = '\0';
    command(a, GW_CMD_BIND_UID, c, "u1", "");
    assert_string_equal(c->uid, "");
    command(a, GW_CMD_BIND_UID, c, "u2", "");
    assert_string_equal(c->uid, "u2");
    test_node_free(n);
}

static void the_last_commands_are_kept(void **state)
{
    struct test_node *n = test_node_new(2, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    struct test_client *c = test_client_new(n, 1);
    const struct shard_crash *crash = &n->shards[0].crash, *there = &n->shards[1].crash;
    assert_int_equal(crash->n_commands, 1);
    assert_int_equal(crash->commands[0].cmd, GW_CMD_WORKER_CONNECT);
    for (unsigned i = 0; i < 100; i++)
        command(a, GW_CMD_SEND_TO_ONE, c, "", "hello");
    assert_int_equal(crash->n_commands, 101);
    const struct crash_command *last = &crash->commands[100 % CRASH_COMMANDS];
    assert_int_equal(last->cmd, GW_CMD_SEND_TO_ONE);
    assert_int_equal(last->connection_id, c->up.member.id);
    assert_int_equal(last->len, GW_HEAD_LEN + 5);
    assert_int_equal(last->shard, 0);
    assert_true(last->loop_ns > 0);
    assert_int_equal(there->n_commands, 100); /* by the stand-in */
    assert_int_equal(there->commands[99 % CRASH_COMMANDS].shard, 0);
    assert_int_equal(c->delivered, 100);
    test_node_free(n);
}

static void fanouts_are_measured(void **state)
{
    struct test_node *n = test_node_new(1, "");
    struct test_worker *a = test_worker_new(n, 0, "a");
    const struct histogram *h = &n->shards[0].histograms.h[HISTOGRAM_fanout];
    for (unsigned i = 0; i < 2; i++)
        test_client_new(n, 0);
    for (unsigned i = 0; i < 64; i++)
        command(a, GW_CMD_SEND_TO_ALL, NULL, "", "hello");
    assert_int_equal(histogram_count(h), 64); /* some stand for all */
    for (unsigned i = 0; i < 1500; i++)
        test_client_new(n, 0);
    for (unsigned i = 0; i < 3; i++) /* in slices */
        command(a, GW_CMD_SEND_TO_ALL, NULL, "", "hello");
    assert_int_equal(histogram_count(h), 67);
    assert_int_equal(counter_get(&n->shards[0].counters, COUNTER_fanouts_sliced), 3);
    test_node_free(n);
}

int main(void)
{
    test_begin();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_says_what_a_worker_does),
        cmocka_unit_test(rows_come_in_pages),
        cmocka_unit_test(health_follows_the_age_of_what_waits),
        cmocka_unit_test(a_client_says_whose_it_is_and_what_waits),
        cmocka_unit_test(tables_and_gauges_show_what_is_there),
        cmocka_unit_test(what_does_not_add_up_is_said),
        cmocka_unit_test(what_waits_for_a_worker_is_checked_too),
        cmocka_unit_test(commands_about_a_traced_client_are_told),
        cmocka_unit_test(a_uid_is_told_once),
        cmocka_unit_test(the_last_commands_are_kept),
        cmocka_unit_test(fanouts_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
