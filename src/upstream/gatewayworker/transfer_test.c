// SPDX-License-Identifier: MIT
/* What one process hands over is what the next one has. */
#include "upstream/gatewayworker/transfer_test.h"

#include <sys/wait.h>
#include <unistd.h>

static void nobody_notices(void **state)
{
    struct test_node *a = test_node_new(1, "");
    struct test_worker *w = test_worker_new(a, 0, "w");
    struct test_client *c[3];
    for (unsigned i = 0; i < 3; i++) {
        c[i] = test_client_new(a, 0);
        test_say(c[i], 10);
    }
    test_run(a, 20);
    directory_session_set(a->shards[0].host.directory, &c[0]->up.member, "s:3", 3);
    uint32_t id = c[0]->up.member.id, gone = c[1]->up.member.id;
    struct test_node *b = hand_over(a, 1, "");
    assert_false(w->closed);
    assert_int_equal(count_of(b, 0, COUNTER_links_taken_over), 1);
    assert_int_equal(count_of(b, 0, COUNTER_worker_connected), 0);
    assert_int_equal(count_of(b, 0, COUNTER_workers), 1);
    assert_int_equal(count_of(b, 0, COUNTER_links), 1);
    struct test_client *same = same_client(b, id);
    assert_ptr_equal(same->up.worker, test_worker_at(b, 0, "w"));
    assert_int_equal(same->up.member.record->worker, worker_mark(same->up.worker));
    same->said = 1;
    test_say(same, 20);
    say_to(w, GW_CMD_SEND_TO_ONE, id, "");
    test_run(b, 20);
    assert_int_equal(same->delivered, 1);
    assert_in_order(w, id, 2);
    assert_int_equal(test_told(w, NULL, GW_CMD_ON_CONNECT), 3);
    assert_int_equal(test_told(w, NULL, GW_CMD_ON_CLOSE), 0);
    test_gone(same_client(b, gone));
    test_run(b, 20);
    assert_int_equal(test_told(w, NULL, GW_CMD_ON_CLOSE), 1);
    const struct link *l = test_worker_at(b, 0, "w")->link;
    assert_int_equal(l->packets_in, 2); /* WORKER_CONNECT was the other's */
    test_node_free(b);
    test_node_free(a);
}

/* Commands that came while it was held, half of one before it, and the rest while nobody reads. */
static void what_was_read_and_not_executed_is_executed_once(void **state)
{
    struct test_node *a = test_node_new(1, "");
    struct test_worker *w = test_worker_new(a, 0, "w");
    struct test_client *c = test_client_new(a, 0);
    uint32_t id = c->up.member.id;
    struct gw_packet p = {.cmd = GW_CMD_SEND_TO_ONE,
                          .flag = GW_FLAG_BODY_IS_SCALAR,
                          .connection_id = id,
                          .body = SLICE_STR("hello")};
    uint8_t packet[GW_HEAD_LEN + 5];
    gw_packet_encode_head(packet, &p);
    memcpy(packet + GW_HEAD_LEN, "hello", 5);
    struct iovec half = {packet, 17}, rest_of_it = {packet + 17, sizeof packet - 17};
    test_run(a, 20);
    upstream_hold(a->shards[0].u, true); /* what comes is read, and kept */
    say_to(w, GW_CMD_SEND_TO_ONE, id, "");
    say_to(w, GW_CMD_SEND_TO_ONE, id, "");
    net_writev(w->node->worker_net, &w->conn, &half, 1);
    test_run(a, 20);
    assert_int_equal(c->delivered, 0);
    rest(a);
    net_writev(w->node->worker_net, &w->conn, &rest_of_it, 1);
    say_to(w, GW_CMD_SEND_TO_ONE, id, "");
    test_run(a, 20);
    struct test_node *b = hand_over_resting(a, 1, "");
    assert_int_equal(c->delivered, 0);
    assert_int_equal(same_client(b, id)->delivered, 4);
    assert_int_equal(test_worker_at(b, 0, "w")->link->in.len, 0);
    test_node_free(b);
    test_node_free(a);
}

/* A worker that does not read: much is written in part. Its clients are paused, and read again afterwards. */
static void what_waits_to_be_written_goes_over(void **state)
{
    for (unsigned len = 100; len < 30000; len = len * 3 + 1) {
        struct test_node *a = test_node_new(1, "");
        struct test_worker *w = test_worker_new(a, 0, "w");
        struct test_client *c = test_client_new(a, 0), *d = test_client_new(a, 0);
        uint32_t id = c->up.member.id, other = d->up.member.id;
        test_run(a, 20);
        net_read_pause(a->worker_net, &w->conn);
        while (!upstream_client_blocked(a->shards[0].u, &c->up)) {
            test_say(c, len);
            test_run(a, 1);
        }
        test_say(d, len);
        test_run(a, 20);
        struct worker *old = test_worker_at(a, 0, "w");
        uint64_t queued = old->link->queue.bytes, ever = old->link->bytes_out;
        assert_true(old->full && c->up.paused && !d->up.paused);
        struct test_node *b = hand_over(a, 1, "");
        struct worker *new = test_worker_at(b, 0, "w");
        struct test_client *c2 = same_client(b, id), *d2 = same_client(b, other);
        assert_int_equal(new->link->bytes_out, ever);
        assert_true(new->link->queue.bytes <= queued);
        assert_true(new->full && c2->up.paused && c2->resumed == 0);
        assert_false(d2->up.paused);
        c2->said = c->said;
        d2->said = d->said;
        assert_true(upstream_client_blocked(b->shards[0].u, &d2->up));
        net_read_resume(b->before->worker_net, &w->conn);
        test_run(b, 100);
        assert_int_equal(new->link->queue.bytes, 0);
        assert_false(new->full || c2->up.paused || d2->up.paused);
        assert_true(c2->resumed == 1 && d2->resumed == 1);
        test_say(c2, 5);
        test_run(b, 20);
        assert_in_order(w, id, c2->said);
        assert_in_order(w, other, 1);
        test_node_free(b);
        test_node_free(a);
    }
}

static void replies_go_over(void **state)
{
    struct test_node *a = test_node_new(1, "");
    struct test_client *c = test_client_new(a, 0);
    struct asker asker = {.conn.ops = &asker_ops};
    struct net_addr to = {.family = AF_INET, .port = TEST_PORT, .ip = {127, 0, 0, 1}};
    static char session[9000];
    memset(session, 'x', sizeof session);
    directory_session_set(a->shards[0].host.directory, &c->up.member, session, sizeof session);
    assert_int_equal(net_connect(a->worker_net, &asker.conn, &to), 0);
    test_run(a, 10);
    net_read_pause(a->worker_net, &asker.conn);
    for (unsigned i = 0; i < 7; i++) {
        ask(a, &asker, GW_CMD_GET_SESSION_BY_CLIENT_ID, c->up.member.id);
        test_run(a, 5);
    }
    const struct link *l = CONTAINER_OF(test_gw(a, 0)->links.next, struct link, node);
    assert_true(l->queue.bytes > 0 && l->queue.written > 0);
    struct test_node *b = hand_over(a, 1, "");
    ask(a, &asker, GW_CMD_IS_ONLINE, c->up.member.id);
    net_read_resume(a->worker_net, &asker.conn);
    test_run(b, 100);
    assert_int_equal(asker.bytes, 7 * (4 + sizeof session) + 4 + 4);
    net_close(a->worker_net, &asker.conn, true);
    test_run(b, 10);
    assert_int_equal(count_of(b, 0, COUNTER_links), 0);
    test_node_free(b);
    test_node_free(a);
}

/* Without a worker: clients that nobody has heard of wait, and ON_CLOSEs that nobody has heard. */
static void what_waits_for_a_worker_goes_over(void **state)
{
    static const char more[] = "no_worker_wait = 5s\n";
    struct test_node *a = test_node_new(1, more);
    struct test_worker *w = test_worker_new(a, 0, "w");
    struct test_client *heard = test_client_new(a, 0), *rebound = test_client_new(a, 0);
    uint32_t heard_id = heard->up.member.id, rebound_id = rebound->up.member.id;
    test_run(a, 20);
    net_close(a->worker_net, &w->conn, true);
    w->closed = true;
    test_run(a, 20);
    struct test_client *c = test_client_new(a, 0);
    uint32_t id = c->up.member.id;
    test_say(c, 10);
    test_say(rebound, 10);
    test_gone(heard);
    test_run(a, 1000);
    assert_int_equal(test_gw(a, 0)->homeless.n_events, 1);
    struct test_node *b = hand_over(a, 1, more);
    struct gatewayworker *gw = test_gw(b, 0);
    struct test_client *c2 = same_client(b, id), *rebound2 = same_client(b, rebound_id);
    assert_int_equal(gw->homeless.n_events, 1);
    assert_int_equal(gw->parked_clients, 2);
    assert_true(c2->up.parked->has_connect && c2->up.member.record == NULL);
    assert_true(rebound2->up.worker->is_gone && rebound2->up.member.record != NULL);
    assert_int_equal(count_of(b, 0, COUNTER_event_parked), 0);
    struct test_worker *next = test_worker_new(b, 0, "w");
    test_run(b, 2000);
    assert_null(test_check(b, 0));
    assert_int_equal(test_told(next, NULL, GW_CMD_ON_CLOSE), 1);
    assert_int_equal(next->events[0].id == heard_id || next->events[1].id == heard_id ||
                         next->events[2].id == heard_id || next->events[3].id == heard_id,
                     1);
    assert_int_equal(test_told(next, NULL, GW_CMD_ON_CONNECT), 1);
    assert_in_order(next, id, 1);
    assert_in_order(next, rebound_id, 1);
    assert_ptr_equal(rebound2->up.worker, test_worker_at(b, 0, "w"));
    assert_int_equal(count_of(b, 0, COUNTER_parked_bytes), 0);
    assert_int_equal(count_of(b, 0, COUNTER_parked_clients), 0);
    test_node_free(b);
    test_node_free(a);
}

/* Time goes on: what had waited for 4 of 5 seconds waits for one more. */
static void the_time_of_what_waits_goes_on(void **state)
{
    static const char more[] = "no_worker_wait = 5s\n";
    struct test_node *a = test_node_new(1, more);
    struct test_client *c = test_client_new(a, 0);
    uint32_t id = c->up.member.id;
    test_say(c, 10);
    test_run(a, 4000);
    struct test_node *b = hand_over(a, 1, more);
    test_run(b, 500);
    assert_false(same_client(b, id)->gone);
    test_run(b, 1000);
    assert_int_equal(b->n_clients, 1);
    assert_true(b->clients[0]->gone);
    test_node_free(b);
    test_node_free(a);
}

/* Two shards with clients of each other's workers; one of them drains. Then to one shard, and to two again:
 * ids of other rows, numbers of other shards. */
static void other_numbers_of_shards(void **state)
{
    struct test_node *a = test_node_new(2, "router = least_connections\n");
    struct test_worker *w[2] = {test_worker_new(a, 0, "w0"), test_worker_new(a, 1, "w1")};
    uint32_t ids[20];
    for (unsigned i = 0; i < 20; i++) {
        struct test_client *c = test_client_new(a, i % 2);
        ids[i] = c->up.member.id;
        test_say(c, 10);
        test_run(a, 5);
    }
    struct test_node *b = hand_over(a, 1, "");
    assert_int_equal(upstream_workers(b->shards[0].u), 2);
    assert_int_equal(test_gw(b, 0)->n_here, 2);
    for (unsigned i = 0; i < 20; i++) {
        struct test_client *c = same_client(b, ids[i]);
        c->said = 1;
        test_say(c, 10);
        say_to(w[i % 2], GW_CMD_SEND_TO_ONE, ids[i], "");
    }
    test_run(b, 20);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(same_client(b, ids[i])->delivered, 1);
    test_drain(b, "w0", true, 1000000);
    struct test_node *c = hand_over(b, 2, "");
    assert_int_equal(test_gw(c, 0)->n_here, 1); /* links in turns */
    assert_int_equal(test_gw(c, 1)->n_here, 1);
    for (unsigned i = 0; i < 20; i++)
        assert_ptr_equal(same_client(c, ids[i])->shard, &c->shards[i % 2]);
    test_run(c, 3000); /* w0 drains still, and nobody is left at it */
    for (unsigned i = 0; i < 20; i++)
        assert_string_equal(same_client(c, ids[i])->up.worker->key, "127.0.0.1:w1");
    assert_true(worker_is_draining(test_worker_at(c, 0, "w0")));
    assert_true(worker_is_draining(test_worker_at(c, 1, "w0")));
    for (unsigned i = 0; i < 20; i++) {
        same_client(c, ids[i])->said = 2;
        test_say(same_client(c, ids[i]), 10);
        say_to(w[i % 2], GW_CMD_SEND_TO_ONE, ids[i], "");
    }
    test_run(c, 50);
    for (unsigned i = 0; i < 20; i++) {
        unsigned first = test_told(w[0], same_client(c, ids[i]), GW_CMD_ON_MESSAGE),
                 second = test_told(w[1], same_client(c, ids[i]), GW_CMD_ON_MESSAGE);
        assert_int_equal(first + second, 3);
        assert_int_equal(same_client(c, ids[i])->delivered, 1);
        test_gone(same_client(c, ids[i]));
    }
    test_run(c, 50);
    assert_int_equal(test_told(w[1], NULL, GW_CMD_ON_CLOSE), 20);
    assert_int_equal(test_told(w[0], NULL, GW_CMD_ON_CLOSE), 0);
    test_node_free(c);
    test_node_free(b);
    test_node_free(a);
}

/* ---- records that make no sense */

static int import_as(struct test_node *n, enum transfer_type type, const struct bytes *fields, int handle)
{
    struct transfer_record r = {.type = type, .fields = {fields->data, fields->len}, .handle = handle};
    return upstream_import(n->shards[0].u, 0, &r);
}

static int import_link_like(struct test_node *n, const struct transfer_link *t, int handle)
{
    struct bytes fields = {0};
    assert_true(transfer_put_link_fields(&fields, t));
    int err = import_as(n, TRANSFER_TYPE_link, &fields, handle);
    bytes_fini(&fields);
    return err;
}

static void senseless_records_are_refused(void **state)
{
    struct test_node *a = test_node_new(1, "");
    struct test_worker *w = test_worker_new(a, 0, "w");
    struct test_node *b = test_node_on(a, 1, "", NULL);
    rest(a);
    hold_shards(b, true);
    struct link *old = test_worker_at(a, 0, "w")->link;
    struct bytes peer = {0}, out = {0}, garbage = {0};
    transfer_put_address(&peer, &old->peer);
    struct transfer_link good = {.peer = {peer.data, peer.len}, .authorized = 1, .decided = 1}, t = good;
    assert_int_equal(import_link_like(b, &t, -1), -EBADMSG);
    transfer_list_add(&out, "\0not a packet", 13);
    t.out = (struct slice){out.data, out.len};
    int handle = net_conn_handle(a->shards[0].net, &old->conn);
    assert_int_equal(import_link_like(b, &t, handle), -EBADMSG);
    bytes_clear(&out);
    transfer_list_add(&out, "\1reply", 6);
    t.out = (struct slice){out.data, out.len};
    t.out_written = 5; /* all of it */
    assert_int_equal(import_link_like(b, &t, handle), -EBADMSG);
    t = good;
    t.peer.len = 1;
    assert_int_equal(import_link_like(b, &t, handle), -EBADMSG);
    bytes_append_str(&garbage, "\377\377\377\377");
    for (unsigned type = TRANSFER_TYPE_worker; type <= TRANSFER_TYPE_homeless; type++)
        assert_int_equal(import_as(b, (enum transfer_type)type, &garbage, -1), -EBADMSG);
    struct transfer_worker worker = {.number = NODE_WORKERS_MAX, .key = SLICE_STR("k")};
    bytes_clear(&garbage);
    transfer_put_worker_fields(&garbage, &worker);
    assert_int_equal(import_as(b, TRANSFER_TYPE_worker, &garbage, -1), -EBADMSG);
    struct transfer_homeless homeless = {.packet = SLICE_STR("short")};
    bytes_clear(&garbage);
    transfer_put_homeless_fields(&garbage, &homeless);
    assert_int_equal(import_as(b, TRANSFER_TYPE_homeless, &garbage, -1), -EBADMSG);
    struct test_client *c = calloc(1, sizeof *c);
    struct transfer_client client = {.parked = SLICE_STR("short"), .parked_events = 1};
    assert_int_equal(directory_add_as(b->shards[0].host.directory, &c->up.member, 5), 0);
    assert_int_equal(upstream_import_client(b->shards[0].u, 0, &c->up, &client), -EBADMSG);
    client = (struct transfer_client){.flags = TRANSFER_HEARD_OF | TRANSFER_PARKED_CONNECT};
    assert_int_equal(upstream_import_client(b->shards[0].u, 0, &c->up, &client), -EBADMSG);
    client = (struct transfer_client){.flags = TRANSFER_HEARD_OF, .worker = 77};
    assert_int_equal(upstream_import_client(b->shards[0].u, 0, &c->up, &client), 0);
    assert_null(c->up.worker);
    upstream_forget_client(b->shards[0].u, &c->up);
    directory_remove(b->shards[0].host.directory, &c->up.member);
    free(c);
    assert_int_equal(count_of(b, 0, COUNTER_links), 0);
    forget(b);
    hold_shards(a, false);
    test_run(a, 20);
    assert_false(w->closed);
    bytes_fini(&peer);
    bytes_fini(&out);
    bytes_fini(&garbage);
    test_node_free(b);
    test_node_free(a);
}

/* A link that has not shown the key yet has only the time that was left. */
static void who_has_not_shown_the_key(void **state)
{
    static const char more[] = "secret_key = x\nworker_auth_timeout = 10s\n";
    struct test_node *a = test_node_new(1, more);
    struct asker asker = {.conn.ops = &asker_ops};
    struct net_addr to = {.family = AF_INET, .port = TEST_PORT, .ip = {127, 0, 0, 1}};
    assert_int_equal(net_connect(a->worker_net, &asker.conn, &to), 0);
    test_run(a, 6000);
    struct test_node *b = hand_over(a, 1, more);
    test_run(b, 3500);
    assert_int_equal(test_gw(b, 0)->n_links, 1);
    assert_int_equal(test_gw(b, 0)->n_undecided, 1);
    test_run(b, 1000);
    assert_int_equal(test_gw(b, 0)->n_links, 0);
    assert_int_equal(count_of(b, 0, COUNTER_link_unauthorized), 1);
    test_node_free(b);
    test_node_free(a);
}

/* In a process of its own. */
static void take_over_and_die(struct test_node *a, void *estate)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct test_node *b = test_node_on(a, 1, "", estate);
        struct test_move *m = move_new();
        hold_shards(b, true);
        if (export(m, a, b) != 0 || import(m, b, m->n) != 0)
            _exit(1);
        upstream_import_done(b->shards[0].u);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* What it hands over is in the estate of the next: killed right after it, nothing is lost. */
static void the_next_process_has_its_own_estate(void **state)
{
    struct test_node *a = test_node_new(1, "");
    struct test_worker *w = test_worker_new(a, 0, "w");
    struct test_client *c = test_client_new(a, 0), *d = test_client_new(a, 0);
    uint32_t id = c->up.member.id;
    test_run(a, 20);
    net_read_pause(a->worker_net, &w->conn);
    for (unsigned i = 0; i < 5; i++)
        test_say(c, 9000);
    directory_session_set(a->shards[0].host.directory, &c->up.member, "s:5", 3);
    test_run(a, 20);
    test_gone(d);
    rest(a);
    size_t bytes = estate_bytes(TEST_CLIENTS, TEST_HEAP_BYTES);
    void *mem = test_map(bytes);
    take_over_and_die(a, mem);
    struct estate_client client;
    struct slice session, packet;
    uint32_t packets = 0, first = 0, closes = 0;
    int err = 0;
    struct estate *next = estate_open(mem, bytes, TEST_CLIENTS, TEST_HEAP_BYTES, &err);
    struct legacy *legacy = estate_inherit(mem, bytes);
    assert_true(legacy_client(legacy, &client, &session));
    assert_int_equal(client.id, id);
    assert_int_equal(client.worker, worker_mark(test_worker_at(a, 0, "w")));
    assert_true(slice_eq_str(session, "s:5"));
    assert_false(legacy_client(legacy, &client, &session));
    while (legacy_packet(legacy, &packet)) {
        closes += packet.data[4] == GW_CMD_ON_CLOSE;
        if (packet.data[4] != GW_CMD_ON_MESSAGE)
            continue;
        memcpy(&first, packet.data + GW_HEAD_LEN, packets++ == 0 ? sizeof first : 0);
    }
    assert_int_equal(closes, 1);
    assert_int_equal(first + packets, 6); /* the rest of the five, the one that is written in part included */
    legacy_free(legacy);
    estate_close(next);
    munmap(mem, bytes);
    hold_shards(a, false);
    test_node_free(a);
}

/* Clients of shard 1 become clients of shard 0 of the same node: no records of workers, numbers are the
 * node's.
 */
static void move_clients(struct test_node *n, unsigned to)
{
    unsigned end = n->n_clients;
    rest(n);
    memset(n->node.shared->home.shard + NODE_HOME_PARTS, (int)to, NODE_HOME_PARTS);
    for (unsigned i = 0; i < end; i++) {
        struct test_client *c = n->clients[i];
        struct transfer_client t = {.id = c->up.member.id};
        struct bytes fields = {0};
        if (c->gone || node_home_of(&n->node.shared->home, c->up.member.id) == c->shard->host.shard)
            continue;
        upstream_export_client(c->shard->u, &c->up, &t);
        transfer_put_client_fields(&fields, &t);
        struct test_record r = {.from = c->shard->host.shard, .to = to};
        assert_int_equal(restore_client(n, &r, (struct slice){fields.data, fields.len}), 0);
        n->clients[n->n_clients - 1]->said = c->said;
        upstream_forget_client(c->shard->u, &c->up);
        directory_remove(c->shard->host.directory, &c->up.member);
        test_publish_members(c->shard);
        c->gone = true;
        bytes_fini(&fields);
    }
    begin_to_serve(n);
}

static void a_shard_is_evacuated_and_gets_its_clients_back(void **state)
{
    struct test_node *n = test_node_new(2, "");
    struct test_worker *w[2] = {test_worker_new(n, 0, "w0"), test_worker_new(n, 1, "w1")};
    uint32_t ids[10];
    for (unsigned i = 0; i < 10; i++)
        ids[i] = test_client_new(n, 1)->up.member.id;
    test_run(n, 20);
    for (unsigned round = 0; round < 4; round++) {
        unsigned at = round % 2 == 0; /* where they are */
        for (unsigned i = 0; i < 10; i++) {
            struct test_client *c = NULL;
            for (unsigned k = 0; k < n->n_clients; k++)
                if (!n->clients[k]->gone && n->clients[k]->up.member.id == ids[i])
                    c = n->clients[k];
            assert_ptr_equal(c->shard, &n->shards[at]);
            test_say(c, 3000);
            say_to(w[i % 2], GW_CMD_SEND_TO_ONE, ids[i], "");
            test_run(n, i); /* some of it is under way when it begins */
            assert_int_equal(c->gone, false);
        }
        move_clients(n, !at);
        test_run(n, 50);
        assert_int_equal(directory_count(n->shards[at].host.directory), 0);
        assert_null(directory_check(n->shards[!at].host.directory));
        assert_null(test_check(n, 0));
        assert_null(test_check(n, 1));
    }
    unsigned delivered = 0;
    for (unsigned k = 0; k < n->n_clients; k++)
        delivered += n->clients[k]->delivered;
    assert_int_equal(delivered, 40);
    for (unsigned i = 0; i < 10; i++) {
        bool first = test_told(w[0], NULL, GW_CMD_ON_MESSAGE) > 0;
        for (unsigned k = 0; k < w[1]->n_events; k++)
            first &= w[1]->events[k].id != ids[i];
        assert_in_order(w[!first], ids[i], 4);
    }
    test_node_free(n);
}

/* ---- all of a shard goes to the others of its node */

static void give_home(struct test_node *n, unsigned shard)
{
    unsigned to = shard;
    for (unsigned i = 0; i < NODE_SHARDS_MAX * NODE_HOME_PARTS; i++)
        if (n->node.shared->home.shard[i] == shard)
            n->node.shared->home.shard[i] =
                (uint8_t)(to = (to + 1) % 3 == shard ? (to + 2) % 3 : (to + 1) % 3);
}

static void forget_one(struct test_client *c)
{
    upstream_forget_client(c->shard->u, &c->up);
    directory_remove(c->shard->host.directory, &c->up.member);
    test_publish_members(c->shard);
    c->gone = true;
}

static struct test_move *export_shard(struct test_node *n, const struct transfer_plan *plan)
{
    struct test_move *m = move_new();
    m->from = plan->me;
    struct upstream *u = n->shards[plan->me].u;
    assert_int_equal(upstream_export_links(u, plan, &m->sink, &m->links, &m->workers), 0);
    assert_int_equal(export_clients(m, n, plan), 0);
    assert_int_equal(upstream_export_rest(u, plan, &m->sink, &m->homeless), 0);
    return m;
}

static void take_records(struct test_node *n, const struct test_move *m)
{
    for (unsigned i = 0; i < m->n; i++) {
        struct slice run = {m->records[i].bytes.data, m->records[i].bytes.len};
        struct transfer_record r;
        if (m->records[i].to == m->from)
            continue;
        assert_int_equal(transfer_next(&run, &r), 1);
        r.handle = m->records[i].handle;
        assert_int_equal(r.type == TRANSFER_TYPE_client
                             ? restore_client(n, &m->records[i], r.fields)
                             : upstream_import(n->shards[m->records[i].to].u, m->from, &r),
                         0);
    }
}

/* done: else all stays as it was, after everything has gone over. */
static void settle(struct test_node *n, unsigned shard, unsigned n_before, bool done)
{
    for (unsigned i = done ? 0 : n_before; i < (done ? n_before : n->n_clients); i++)
        if (!n->clients[i]->gone && (!done || n->clients[i]->shard == &n->shards[shard]))
            forget_one(n->clients[i]);
    if (done)
        upstream_forget_given(n->shards[shard].u);
    for (unsigned i = 0; i < 3; i++) {
        if (i != shard && done)
            upstream_import_done(n->shards[i].u);
        else if (i != shard)
            upstream_forget_taken(n->shards[i].u);
        assert_null(test_check(n, i));
    }
}

static void evacuate(struct test_node *n, unsigned shard, bool done)
{
    unsigned n_before = n->n_clients;
    struct node_home home = n->node.shared->home;
    rest(n);
    give_home(n, shard);
    struct transfer_plan plan = {
        .n_shards = 3,
        .edges = 7 & ~(1u << shard),
        .links = 7 & ~(1u << shard),
        .takers = 7 & ~(1u << shard),
        .home = n->node.shared->home.shard,
        .me = shard,
    };
    struct test_move *m = export_shard(n, &plan);
    take_records(n, m);
    if (!done)
        n->node.shared->home = home;
    settle(n, shard, n_before, done);
    hold_shards(n, false);
    move_free(m);
}

static struct test_client *living(struct test_node *n, uint32_t id)
{
    for (unsigned i = n->n_clients; i-- > 0;)
        if (!n->clients[i]->gone && n->clients[i]->up.member.id == id)
            return n->clients[i];
    return NULL;
}

static void all_say(struct test_node *n, const uint32_t *ids, uint32_t *said, size_t len)
{
    for (unsigned i = 0; i < 12; i++) {
        struct test_client *c = living(n, ids[i]);
        c->said = said[i];
        test_say(c, len);
        said[i] = c->said;
    }
}

/* In turn each shard gives all that it has, every second time in vain; one worker does not read. */
static void links_move_within_a_node(void **state)
{
    struct test_node *n = test_node_new(3, "");
    struct test_worker *w[4];
    uint32_t ids[12], said[12] = {0};
    for (unsigned i = 0; i < 4; i++)
        w[i] = test_worker_new(n, i % 3, (const char *[]){"w0", "w1", "w2", "w3"}[i]);
    for (unsigned i = 0; i < 12; i++)
        ids[i] = test_client_new(n, i % 3)->up.member.id;
    test_run(n, 20);
    net_read_pause(n->worker_net, &w[1]->conn);
    for (unsigned round = 0; round < 12; round++) {
        unsigned shard = round / 2 % 3;
        bool done = round % 2 == 1;
        all_say(n, ids, said, 2000);
        for (unsigned i = 0; i < 12; i++)
            say_to(w[(i + round) % 4], GW_CMD_SEND_TO_ONE, ids[i], "");
        test_run(n, round % 4);
        evacuate(n, shard, done);
        all_say(n, ids, said, 500); /* before anybody has heard of it */
        test_run(n, 50);
        for (unsigned i = 0; i < 3; i++)
            assert_null(test_check(n, i));
        uint32_t here = test_gw(n, 0)->n_here + test_gw(n, 1)->n_here + test_gw(n, 2)->n_here;
        assert_int_equal(here, 4);
        if (done) {
            assert_int_equal(test_gw(n, shard)->n_links, 0);
            assert_int_equal(test_gw(n, shard)->n_here, 0);
            assert_int_equal(directory_count(n->shards[shard].host.directory), 0);
        }
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(upstream_workers(n->shards[i].u), 4);
    }
    net_read_resume(n->worker_net, &w[1]->conn);
    test_run(n, 100);
    unsigned delivered = 0;
    for (unsigned i = 0; i < n->n_clients; i++)
        delivered += n->clients[i]->delivered;
    assert_int_equal(delivered, 12 * 12);
    for (unsigned i = 0; i < 12; i++) {
        unsigned of = 0;
        while (strcmp(living(n, ids[i])->up.worker->key + 10, (const char *[]){"w0", "w1", "w2", "w3"}[of]) !=
               0)
            of++;
        assert_in_order(w[of], ids[i], said[i]); /* it has had one worker all the time */
        test_gone(living(n, ids[i]));
    }
    test_run(n, 50);
    unsigned closes = 0;
    for (unsigned i = 0; i < 4; i++) {
        assert_false(w[i]->closed);
        closes += test_told(w[i], NULL, GW_CMD_ON_CLOSE);
    }
    assert_int_equal(closes, 12);
    test_node_free(n);
}

/* Who drains goes on draining, whoever has its link; what is homeless goes to one shard and stays there. */
static void what_drains_and_who_is_homeless_within_a_node(void **state)
{
    struct test_node *n = test_node_new(3, "no_worker_wait = 60\n");
    struct test_client *c = test_client_new(n, 1);
    test_say(c, 10);
    test_run(n, 5);
    test_gone(c);
    for (unsigned round = 0; round < 2; round++) {
        evacuate(n, 1, round == 1);
        test_run(n, 20);
        unsigned homeless = 0;
        for (unsigned i = 0; i < 3; i++)
            homeless += test_gw(n, i)->homeless.n_events;
        assert_int_equal(homeless, 3);
        assert_int_equal(test_gw(n, 1)->homeless.n_events, round == 0 ? 3 : 0);
    }
    struct test_worker *w = test_worker_new(n, 2, "w");
    struct test_worker *other = test_worker_new(n, 0, "other");
    test_run(n, 50);
    assert_int_equal(test_told(w, NULL, GW_CMD_ON_CLOSE), 1);
    assert_int_equal(test_told(w, NULL, GW_CMD_ON_MESSAGE), 1);
    test_drain(n, "w", true, 1000000);
    evacuate(n, 2, true);
    test_run(n, 50);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(worker_is_draining(test_worker_at(n, i, "w")));
        assert_true(test_worker_at(n, i, "w")->steer.drains);
        if (i != 2) /* which has nobody left */
            assert_int_equal(test_worker_at(n, i, "w")->steer.over_ms, 1000000);
    }
    assert_false(other->closed);
    test_node_free(n);
}

/* ---- anything, again and again */

#define RANDOM_CLIENTS 8
struct random_run {
    struct test_node *nodes[8]; /* the last one serves */
    unsigned n;
    struct test_worker *workers[2];
    struct bytes out[2]; /* of workers, not sent yet */
    uint32_t ids[RANDOM_CLIENTS];
    uint32_t said[RANDOM_CLIENTS], sent[RANDOM_CLIENTS], delivered[RANDOM_CLIENTS];
};

static struct test_node *serving(const struct random_run *r)
{
    return r->nodes[r->n - 1];
}

static void flush_worker(struct random_run *r, unsigned i)
{
    while (r->out[i].len > 0) {
        struct iovec iov = {r->out[i].data, r->out[i].len};
        ssize_t n = net_writev(r->nodes[0]->worker_net, &r->workers[i]->conn, &iov, 1);
        if (n <= 0)
            return;
        bytes_consume(&r->out[i], (size_t)n);
    }
}

static void random_command(struct random_run *r, unsigned i, unsigned of)
{
    static const char body[2000] = "x";
    struct gw_packet p = {
        .cmd = GW_CMD_SEND_TO_ONE,
        .flag = GW_FLAG_BODY_IS_SCALAR,
        .connection_id = r->ids[of],
        .body = {(const uint8_t *)body, 1 + sim_net_draw(r->nodes[0]->sim, sizeof body - 1)}};
    uint8_t head[GW_HEAD_LEN];
    gw_packet_encode_head(head, &p);
    bytes_append(&r->out[i], head, sizeof head);
    bytes_append(&r->out[i], p.body.data, p.body.len);
    r->sent[of]++;
}

static void random_step(struct random_run *r)
{
    struct sim_net *sim = r->nodes[0]->sim;
    struct test_node *n = serving(r);
    unsigned of = (unsigned)sim_net_draw(sim, RANDOM_CLIENTS), i = (unsigned)sim_net_draw(sim, 2);
    struct test_client *c = same_client(n, r->ids[of]);
    switch (sim_net_draw(sim, 8)) {
    case 0:
    case 1:
    case 2:
        c->said = r->said[of];
        if (!c->up.paused && !upstream_client_blocked(c->shard->u, &c->up))
            test_say(c, sim_net_draw(sim, 4000));
        r->said[of] = c->said;
        break;
    case 3:
    case 4: random_command(r, i, of); break;
    case 5: net_read_pause(r->nodes[0]->worker_net, &r->workers[i]->conn); break;
    case 6: net_read_resume(r->nodes[0]->worker_net, &r->workers[i]->conn); break;
    default: sim_net_run(sim, sim_net_draw(sim, 5 * TEST_MS));
    }
    flush_worker(r, i);
}

static void collect(struct random_run *r)
{
    for (unsigned i = 0; i < RANDOM_CLIENTS; i++)
        r->delivered[i] += same_client(serving(r), r->ids[i])->delivered;
}

static void random_run(uint64_t seed)
{
    static const unsigned shards[] = {2, 2, 1, 2, 1, 1};
    struct random_run r = {.nodes[0] = test_node_new(2, ""), .n = 1};
    struct sim_net *sim = r.nodes[0]->sim;
    struct sim_net_options *o = sim_net_options(sim);
    r.workers[0] = test_worker_new(r.nodes[0], 0, "w0");
    r.workers[1] = test_worker_new(r.nodes[0], 1, "w1");
    for (unsigned i = 0; i < RANDOM_CLIENTS; i++)
        r.ids[i] = test_client_new(r.nodes[0], i % 2)->up.member.id;
    test_run(r.nodes[0], 20);
    o->tiny_read_percent = 10;
    o->part_read_percent = o->short_write_percent = o->skip_percent = 25;
    for (uint64_t i = 0; i < seed; i++)
        sim_net_draw(sim, 2);
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned step = 0; step < 150; step++)
            random_step(&r);
        rest(serving(&r));
        collect(&r);
        r.nodes[r.n] = hand_over_resting(serving(&r), shards[round], "");
        r.n++;
    }
    for (unsigned i = 0; i < 2; i++)
        net_read_resume(r.nodes[0]->worker_net, &r.workers[i]->conn);
    for (unsigned k = 0; k < 200; k++) {
        flush_worker(&r, 0);
        flush_worker(&r, 1);
        test_turn(serving(&r), 10);
    }
    collect(&r);
    for (unsigned i = 0; i < RANDOM_CLIENTS; i++) {
        struct test_client *c = same_client(serving(&r), r.ids[i]);
        assert_int_equal(r.delivered[i], r.sent[i]);
        assert_false(c->up.paused);
        assert_in_order(r.workers[strcmp(c->up.worker->key, "127.0.0.1:w0") != 0], r.ids[i], r.said[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        bytes_fini(&r.out[i]);
    while (r.n > 0)
        test_node_free(r.nodes[--r.n]);
}

static void anything_again_and_again(void **state)
{
    for (uint64_t seed = 1; seed <= 30; seed++)
        random_run(seed);
}

int main(void)
{
    test_begin();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_notices),
        cmocka_unit_test(what_was_read_and_not_executed_is_executed_once),
        cmocka_unit_test(what_waits_to_be_written_goes_over),
        cmocka_unit_test(replies_go_over),
        cmocka_unit_test(what_waits_for_a_worker_goes_over),
        cmocka_unit_test(the_time_of_what_waits_goes_on),
        cmocka_unit_test(other_numbers_of_shards),
        cmocka_unit_test(senseless_records_are_refused),
        cmocka_unit_test(who_has_not_shown_the_key),
        cmocka_unit_test(the_next_process_has_its_own_estate),
        cmocka_unit_test(a_shard_is_evacuated_and_gets_its_clients_back),
        cmocka_unit_test(links_move_within_a_node),
        cmocka_unit_test(what_drains_and_who_is_homeless_within_a_node),
        cmocka_unit_test(anything_again_and_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
