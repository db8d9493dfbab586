// SPDX-License-Identifier: MIT
/* What is under way ends before there is rest; and a transfer that is given up has changed nothing. */
#include "upstream/gatewayworker/transfer_test.h"

/* The same, and then it goes on where it was. */
static void after_a_hold_all_goes_on(void **state)
{
    struct test_node *a = test_node_new(2, "");
    struct test_worker *w = test_worker_new(a, 0, "w");
    struct test_client *c = test_client_new(a, 1), *mute = test_client_new(a, 0);
    test_run(a, 20);
    hold_shards(a, true);
    upstream_hold(a->shards[0].u, true);
    net_hold(a->shards[0].net, false);
    say_to(w, GW_CMD_SEND_TO_ONE, c->up.member.id, "");
    say_to(w, GW_CMD_SEND_TO_ONE, mute->up.member.id, "");
    test_run(a, 20);
    rest(a);
    assert_int_equal(c->delivered + mute->delivered, 0);
    hold_shards(a, false);
    test_run(a, 20);
    assert_int_equal(c->delivered, 1);
    assert_int_equal(mute->delivered, 1);
    say_to(w, GW_CMD_SEND_TO_ONE, c->up.member.id, "");
    test_say(c, 5);
    test_run(a, 20);
    assert_int_equal(c->delivered, 2);
    assert_in_order(w, c->up.member.id, 1);
    assert_null(test_check(a, 0));
    test_node_free(a);
}

/* A question to another shard is under way when all is held: it is answered before there is rest. */
static void questions_end_before_there_is_rest(void **state)
{
    struct test_node *a = test_node_new(2, "");
    struct test_client *c = test_client_new(a, 1);
    struct asker asker = {.conn.ops = &asker_ops};
    struct net_addr to = {.family = AF_INET, .port = TEST_PORT, .ip = {127, 0, 0, 1}};
    assert_int_equal(net_connect(a->worker_net, &asker.conn, &to), 0);
    test_run(a, 10);
    ask(a, &asker, GW_CMD_IS_ONLINE, c->up.member.id);
    ask(a, &asker, GW_CMD_IS_ONLINE, c->up.member.id);
    const struct link *l = CONTAINER_OF(test_gw(a, 0)->links.next, struct link, node);
    for (unsigned i = 0; i < 1000 && l->n_gathers == 0; i++)
        sim_net_run(a->sim, TEST_MS / 200);
    assert_true(l->n_gathers > 0);
    hold_shards(a, true);
    assert_string_equal(upstream_unrest(a->shards[0].u), "a question to other shards");
    struct test_node *b = hand_over(a, 2, "");
    test_run(b, 20);
    assert_int_equal(asker.bytes, 2 * (4 + 4));
    net_close(a->worker_net, &asker.conn, true);
    test_node_free(b);
    test_node_free(a);
}

/* A worker goes while shards are held: what came back from its shard is with others before there is rest. */
static void a_worker_that_leaves_meanwhile(void **state)
{
    struct test_node *a = test_node_new(2, "");
    struct test_worker *w = test_worker_new(a, 0, "w"), *next = test_worker_new(a, 1, "next");
    struct test_client *c = test_client_new(a, 1);
    uint32_t id = c->up.member.id;
    test_run(a, 20);
    struct worker *at = test_worker_at(a, 1, "w");
    if (c->up.worker != at)
        w = next, at = test_worker_at(a, 1, "next");
    net_read_pause(a->worker_net, &w->conn);
    for (unsigned i = 0; i < 5; i++)
        test_say(c, 9000);
    test_run(a, 20);
    net_close(a->worker_net, &w->conn, true);
    w->closed = true;
    for (unsigned i = 0; i < 1000 && test_gw(a, 0)->n_workers + test_gw(a, 1)->n_workers == 4; i++)
        sim_net_run(a->sim, TEST_MS / 200);
    struct test_node *b = hand_over(a, 2, "");
    struct test_worker *other = w == next ? a->workers[0] : next;
    same_client(b, id)->said = 5;
    test_say(same_client(b, id), 10);
    test_run(b, 100);
    assert_true(test_told(other, same_client(b, id), GW_CMD_ON_MESSAGE) >= 4);
    assert_int_equal(other->events[other->n_events - 1].number, 6);
    test_node_free(b);
    test_node_free(a);
}

static void fences_are_given_up(void **state)
{
    struct test_node *a = test_node_new(2, "router = least_connections\n");
    struct test_worker *w = test_worker_new(a, 0, "w");
    struct test_client *c[4];
    uint32_t ids[4];
    for (unsigned i = 0; i < 4; i++) {
        c[i] = test_client_new(a, 1);
        ids[i] = c[i]->up.member.id;
    }
    test_run(a, 20);
    struct test_worker *next = test_worker_new(a, 1, "next");
    net_read_pause(a->worker_net, &w->conn);
    for (unsigned k = 0; k < 6; k++)
        for (unsigned i = 0; i < 4; i++)
            test_say(c[i], 3000);
    test_drain(a, "w", true, 0);
    test_run(a, 500);
    assert_true(test_worker_at(a, 1, "w")->fence_out);
    struct test_node *b = hand_over(a, 2, "");
    test_run(b, 500);
    assert_int_equal(test_worker_at(b, 1, "w")->n_clients, 4); /* their events wait there still */
    net_read_resume(a->worker_net, &w->conn);
    test_run(b, 15000);
    assert_int_equal(test_worker_at(b, 1, "w")->n_clients, 0);
    for (unsigned i = 0; i < 4; i++) {
        same_client(b, ids[i])->said = 6;
        test_say(same_client(b, ids[i]), 10);
        assert_in_order(w, ids[i], 6);
    }
    test_run(b, 50);
    assert_int_equal(test_told(next, NULL, GW_CMD_ON_MESSAGE), 4);
    test_node_free(b);
    test_node_free(a);
}

/* It fails after each record; what was taken over is given up, and the first one goes on. */
static void a_transfer_that_is_given_up(void **state)
{
    unsigned n_records = 1;
    for (unsigned end = 0; end <= n_records; end++) {
        struct test_node *a = test_node_new(2, "");
        struct test_worker *w = test_worker_new(a, 0, "w");
        struct test_client *c = test_client_new(a, 1), *d = test_client_new(a, 0);
        test_run(a, 20);
        net_read_pause(a->worker_net, &w->conn);
        for (unsigned i = 0; i < 6; i++)
            test_say(d, 5000);
        test_run(a, 20);
        rest(a);
        struct test_node *b = test_node_on(a, 2, "", NULL);
        struct test_move *m = move_new();
        hold_shards(b, true);
        assert_int_equal(export(m, a, b), 0);
        n_records = m->n;
        assert_int_equal(import(m, b, end), 0);
        test_run(b, 5);
        forget(b);
        test_node_free(b);
        move_free(m);
        hold_shards(a, false);
        net_read_resume(a->worker_net, &w->conn);
        say_to(w, GW_CMD_SEND_TO_ALL, 0, "");
        test_say(c, 5);
        test_run(a, 100);
        assert_int_equal(c->delivered + d->delivered, 2);
        assert_in_order(w, c->up.member.id, 1);
        assert_in_order(w, d->up.member.id, 6);
        assert_false(w->closed);
        test_node_free(a);
    }
    assert_true(n_records > 4);
}

static void a_sink_that_fails(void **state)
{
    struct test_node *a = test_node_new(1, "");
    test_worker_new(a, 0, "w");
    test_client_new(a, 0);
    test_run(a, 20);
    rest(a);
    struct test_node *b = test_node_on(a, 1, "", NULL);
    for (int at = 0; at < 3; at++) {
        struct test_move *m = move_new();
        m->fails_at = at;
        assert_int_equal(export(m, a, b), -EPIPE);
        move_free(m);
    }
    hold_shards(a, false);
    test_node_free(b);
    test_node_free(a);
}

/* A fan-out in slices ends before there is rest, in the old process. */
static void commands_in_slices_end_before_there_is_rest(void **state)
{
    struct test_node *a = test_node_new(1, "");
    struct test_worker *w = test_worker_new(a, 0, "w");
    for (unsigned i = 0; i < 1100; i++)
        test_client_new(a, 0);
    test_run(a, 50);
    sim_net_options(a->sim)->clock_read_ns = TEST_MS;
    const struct link *l = test_worker_at(a, 0, "w")->link;
    say_to(w, GW_CMD_SEND_TO_ALL, 0, "");
    say_to(w, GW_CMD_SEND_TO_ALL, 0, "");
    for (unsigned i = 0; i < 1000 && l->job == NULL; i++)
        sim_net_step(a->sim, UINT64_MAX);
    assert_non_null(l->job);
    hold_shards(a, true);
    assert_string_equal(upstream_unrest(a->shards[0].u), "a command in slices");
    rest(a);
    for (unsigned i = 0; i < 1100; i++)
        assert_int_equal(a->clients[i]->delivered, 1);
    sim_net_options(a->sim)->clock_read_ns = 200;
    struct test_node *b = hand_over_resting(a, 1, "");
    test_run(b, 1000);
    for (unsigned i = 0; i < 1100; i++)
        assert_int_equal(b->clients[i]->delivered, 1); /* the second */
    test_node_free(b);
    test_node_free(a);
}

/* A bind that another shard executes is known to the link's shard before there is rest; and whoever binds the
 * uid afterwards replaces the one that was taken over. */
static void binds_of_uids_go_over(void **state)
{
    static const char more[] = "one_connection_per_uid = yes\n";
    struct test_node *a = test_node_new(2, more);
    struct test_worker *w = test_worker_new(a, 0, "w");
    struct test_client *c = test_client_new(a, 1), *d = test_client_new(a, 0);
    uint32_t id = c->up.member.id, other = d->up.member.id;
    test_run(a, 20);
    const struct link *l = test_worker_at(a, 0, "w")->link;
    say_to(w, GW_CMD_BIND_UID, id, "u");
    for (unsigned i = 0; i < 1000 && !replace_is_under_way(l); i++)
        sim_net_run(a->sim, TEST_MS / 200);
    assert_true(replace_is_under_way(l));
    hold_shards(a, true);
    assert_string_equal(upstream_unrest(a->shards[0].u), "a uid that another shard binds");
    struct test_node *b = hand_over(a, 2, more);
    struct test_client *c2 = same_client(b, id);
    assert_non_null(c2->up.member.uid);
    say_to(w, GW_CMD_BIND_UID, other, "u");
    test_run(b, 50);
    assert_true(c2->gone);
    assert_string_equal(same_client(b, other)->uid, "u");
    test_node_free(b);
    test_node_free(a);
}

/* Clients of a process that was killed, and no worker to tell: the next process tells of them. */
static void clients_of_a_predecessor_go_over(void **state)
{
    size_t bytes = estate_bytes(TEST_CLIENTS, TEST_HEAP_BYTES);
    void *mem = test_map(bytes);
    int err = 0;
    struct estate *dead = estate_open(mem, bytes, TEST_CLIENTS, TEST_HEAP_BYTES, &err);
    for (uint32_t id = 1; id <= 500; id++)
        assert_non_null(estate_client_add(dead, &(struct estate_client){.id = id, .worker = 5}));
    estate_abandon(dead);
    struct test_node *a = test_node_on(NULL, 1, "", mem);
    test_run(a, 100);
    assert_non_null(test_gw(a, 0)->succession);
    hold_shards(a, true);
    assert_string_equal(unrest(a), "clients of a predecessor");
    rest(a);
    assert_int_equal(test_gw(a, 0)->homeless.n_events, 500);
    struct test_node *b = hand_over_resting(a, 1, "");
    struct test_worker *w = test_worker_new(b, 0, "w");
    test_run(b, 100);
    assert_int_equal(test_told(w, NULL, GW_CMD_ON_CLOSE), 500);
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(w->events[i].id, i + 1);
    test_node_free(b);
    test_node_free(a);
    munmap(mem, bytes);
}

/* As import(), but an id may be one that is refused, and nothing is asserted of what is in the fields. */
static int import_loosely(const struct test_move *m, struct test_node *to)
{
    int err = 0;
    struct test_shard *s = &to->shards[0];
    for (unsigned i = 0; err == 0 && i < m->n; i++) {
        struct slice run = {m->records[i].bytes.data, m->records[i].bytes.len};
        struct transfer_record r;
        struct transfer_client t;
        assert_int_equal(transfer_next(&run, &r), 1);
        r.handle = m->records[i].handle;
        if (r.type != TRANSFER_TYPE_client) {
            err = upstream_import(s->u, 0, &r);
            continue;
        }
        struct test_client *c = to->clients[to->n_clients] = calloc(1, sizeof *c);
        c->shard = s;
        err = transfer_get_client(r.fields, &t);
        if (err == 0)
            err = directory_add_as(s->host.directory, &c->up.member, (uint32_t)t.id);
        if (err != 0)
            free(c);
        else
            to->n_clients++;
        if (err == 0)
            err = upstream_import_client(s->u, 0, &c->up, &t);
    }
    return err;
}

static void give_back(struct test_node *n)
{
    while (n->n_clients > 0) {
        struct test_client *c = n->clients[--n->n_clients];
        upstream_forget_client(c->shard->u, &c->up);
        directory_remove(c->shard->host.directory, &c->up.member);
        free(c);
    }
    upstream_forget_all(n->shards[0].u);
    assert_null(test_check(n, 0));
}

/* Whatever stands in the records, it is taken or refused, and can be given up. */
static void records_with_wrong_bytes(void **state)
{
    struct test_node *a = test_node_new(1, "secret_key = x\n");
    struct asker asker = {.conn.ops = &asker_ops}, other = asker;
    struct net_addr to = {.family = AF_INET, .port = TEST_PORT, .ip = {127, 0, 0, 1}};
    struct gatewayworker *gw = test_gw(a, 0);
    struct test_client *c = test_client_new(a, 0);
    assert_int_equal(net_connect(a->worker_net, &asker.conn, &to), 0);
    assert_int_equal(net_connect(a->worker_net, &other.conn, &to), 0);
    test_say(c, 30);
    test_gone(test_client_new(a, 0));
    test_run(a, 20);
    /* As if it were a worker, and much waited for it. */
    struct link *l = CONTAINER_OF(gw->links.next, struct link, node);
    l->authorized = true;
    upstream_hold(a->shards[0].u, true);
    assert_int_equal(worker_attach(l, SLICE_STR("w")), 0);
    struct gw_packet ping = {.cmd = GW_CMD_PING, .body = SLICE_STR("0123456789")};
    for (unsigned i = 0; i < 3; i++)
        link_put_event(l, &ping);
    link_put_reply(l, &SLICE_STR("reply"), 1);
    rest(a);
    struct test_node *b = test_node_on(a, 1, "", NULL);
    struct test_move *m = move_new();
    hold_shards(b, true);
    assert_int_equal(export(m, a, b), 0);
    assert_true(m->n >= 4);
    unsigned refused = 0;
    for (unsigned i = 0; i < 3000; i++) {
        struct test_record *r = &m->records[sim_net_draw(a->sim, m->n)];
        uint8_t *at = r->bytes.data + 12 + sim_net_draw(a->sim, r->bytes.len - 12), was = *at;
        *at = (uint8_t)sim_net_draw(a->sim, 256);
        refused += import_loosely(m, b) != 0;
        *at = was;
        give_back(b);
    }
    assert_true(refused > 300 && refused < 3000);
    assert_int_equal(import_loosely(m, b), 0);
    give_back(b);
    forget(b);
    hold_shards(a, false);
    net_close(a->worker_net, &asker.conn, true);
    net_close(a->worker_net, &other.conn, true);
    move_free(m);
    test_node_free(b);
    test_node_free(a);
}

int main(void)
{
    test_begin();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_a_hold_all_goes_on),
        cmocka_unit_test(questions_end_before_there_is_rest),
        cmocka_unit_test(a_worker_that_leaves_meanwhile),
        cmocka_unit_test(fences_are_given_up),
        cmocka_unit_test(a_transfer_that_is_given_up),
        cmocka_unit_test(a_sink_that_fails),
        cmocka_unit_test(commands_in_slices_end_before_there_is_rest),
        cmocka_unit_test(binds_of_uids_go_over),
        cmocka_unit_test(clients_of_a_predecessor_go_over),
        cmocka_unit_test(records_with_wrong_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
