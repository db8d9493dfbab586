// SPDX-License-Identifier: MIT
/* One node hands over to another, through the records of transfer/, on one simulated network. */
#pragma once

#include "upstream/gatewayworker/host_test.h"

#include "transfer/transfer.h"

#define RECORDS_MAX 4000

struct test_record {
    unsigned from, to;
    int handle;
    struct bytes bytes;
};

struct test_move {
    struct transfer_sink sink;
    unsigned from; /* who puts */
    int fails_at;  /* this record is refused; -1: none */
    struct test_record records[RECORDS_MAX];
    unsigned n;
    uint64_t links, workers, homeless;
};

static int move_put(struct transfer_sink *sink, unsigned to, struct slice record, int handle)
{
    struct test_move *m = CONTAINER_OF(sink, struct test_move, sink);
    if ((int)m->n == m->fails_at)
        return -EPIPE;
    ASSERT(m->n < RECORDS_MAX);
    struct test_record *r = &m->records[m->n++];
    *r = (struct test_record){.from = m->from, .to = to, .handle = handle};
    bytes_append(&r->bytes, record.data, record.len);
    return 0;
}

static struct test_move *move_new(void)
{
    struct test_move *m = calloc(1, sizeof *m);
    m->sink.put = move_put;
    m->fails_at = -1;
    return m;
}

static void move_free(struct test_move *m)
{
    for (unsigned i = 0; i < m->n; i++)
        bytes_fini(&m->records[i].bytes);
    free(m);
}

/* ---- the two sides */

static void hold_shards(struct test_node *n, bool on)
{
    for (unsigned i = 0; i < n->node.n_shards; i++) {
        net_hold(n->shards[i].net, on);
        upstream_hold(n->shards[i].u, on);
        sim_net_node_poke(n->shards[i].net);
    }
}

static const char *unrest(struct test_node *n)
{
    const char *what = NULL;
    for (unsigned i = 0; what == NULL && i < n->node.n_shards; i++)
        what = upstream_unrest(n->shards[i].u);
    return what;
}

static void rest(struct test_node *n)
{
    hold_shards(n, true);
    for (unsigned i = 0; i < 2000 && unrest(n) != NULL; i++)
        test_turn(n, 1);
    assert_null(unrest(n));
}

static struct transfer_plan plan_of(const struct test_node *from, const struct test_node *to, unsigned me)
{
    uint64_t all = (UINT64_C(1) << to->node.n_shards) - 1;
    return (struct transfer_plan){
        .n_shards = to->node.n_shards,
        .edges = all,
        .links = all,
        .home = to->node.shared->home.shard,
        .me = me,
        .same = from->node.n_shards == to->node.n_shards,
    };
}

static int export_clients(struct test_move *m, struct test_node *from, const struct transfer_plan *plan)
{
    int err = 0;
    for (unsigned i = 0; err == 0 && i < from->n_clients; i++) {
        struct test_client *c = from->clients[i];
        struct bytes record = {0};
        if (c->gone || c->shard != &from->shards[plan->me])
            continue;
        struct transfer_client t = {.id = c->up.member.id};
        if (c->up.member.uid != NULL)
            t.uid.data = uid_entry_name(c->up.member.uid, &t.uid.len);
        t.session = gw_session_of(&c->up);
        upstream_export_client(c->shard->u, &c->up, &t);
        assert_true(transfer_put_client(&record, &t));
        unsigned to = node_home_of((const struct node_home *)plan->home, c->up.member.id);
        err = move_put(&m->sink, to, (struct slice){record.data, record.len}, -1);
        bytes_fini(&record);
    }
    return err;
}

static int export(struct test_move *m, struct test_node *from, struct test_node *to)
{
    int err = 0;
    unsigned first_link = 0;
    for (unsigned i = 0; err == 0 && i < from->node.n_shards; i++) {
        struct transfer_plan plan = plan_of(from, to, i);
        uint64_t links = 0, workers = 0;
        plan.first_link = first_link;
        m->from = i;
        err = upstream_export_links(from->shards[i].u, &plan, &m->sink, &links, &workers);
        first_link += (unsigned)links;
        m->links += links;
        m->workers += workers;
    }
    for (unsigned i = 0; err == 0 && i < from->node.n_shards; i++) {
        struct transfer_plan plan = plan_of(from, to, i);
        uint64_t homeless = 0;
        m->from = i;
        err = export_clients(m, from, &plan);
        if (err == 0)
            err = upstream_export_rest(from->shards[i].u, &plan, &m->sink, &homeless);
        m->homeless += homeless;
    }
    return err;
}

static int restore_client(struct test_node *to, const struct test_record *r, struct slice fields)
{
    struct test_shard *s = &to->shards[r->to];
    struct test_client *c = calloc(1, sizeof *c);
    struct transfer_client t;
    assert_int_equal(transfer_get_client(fields, &t), 0);
    c->shard = s;
    c->up.peer = (struct net_addr){.family = AF_INET, .ip = {10, 9, 9, (uint8_t)to->n_clients}};
    to->clients[to->n_clients++] = c;
    assert_int_equal(directory_add_as(s->host.directory, &c->up.member, (uint32_t)t.id), 0);
    if (t.uid.len > 0)
        directory_uid_bind(s->host.directory, &c->up.member, t.uid.data, t.uid.len);
    directory_session_set(s->host.directory, &c->up.member, t.session.data, t.session.len);
    test_publish_members(s);
    int err = upstream_import_client(s->u, r->from, &c->up, &t);
    if (err != 0) {
        directory_remove(s->host.directory, &c->up.member);
        c->gone = true;
    }
    return err;
}

/* Records from..end; clients only after the other shards know all workers. */
static int import(const struct test_move *m, struct test_node *to, unsigned end)
{
    int err = 0;
    for (unsigned i = 0; err == 0 && i < end; i++) {
        struct slice run = {m->records[i].bytes.data, m->records[i].bytes.len};
        struct transfer_record r;
        assert_int_equal(transfer_next(&run, &r), 1);
        r.handle = m->records[i].handle;
        if (r.type != TRANSFER_TYPE_client) {
            err = upstream_import(to->shards[m->records[i].to].u, m->records[i].from, &r);
            continue;
        }
        for (unsigned k = 0; k < 100 && upstream_workers(to->shards[m->records[i].to].u) < m->workers; k++)
            test_turn(to, 1);
        err = restore_client(to, &m->records[i], r.fields);
    }
    return err;
}

/* Its connections are another's. */
static void forget(struct test_node *n)
{
    for (unsigned i = 0; i < n->n_clients; i++) {
        struct test_client *c = n->clients[i];
        if (c->gone)
            continue;
        upstream_forget_client(c->shard->u, &c->up);
        directory_remove(c->shard->host.directory, &c->up.member);
        c->gone = true;
    }
    for (unsigned i = 0; i < n->node.n_shards; i++) {
        upstream_forget_all(n->shards[i].u);
        test_shard_close(&n->shards[i]);
    }
}

static void begin_to_serve(struct test_node *n)
{
    for (unsigned i = 0; i < n->node.n_shards; i++) {
        upstream_import_done(n->shards[i].u);
        assert_null(test_check(n, i));
    }
    hold_shards(n, false);
}

/* All of `from`, which is at rest, to a new node of so many shards. */
static inline struct test_node *hand_over_resting(struct test_node *from, unsigned n_shards, const char *more)
{
    struct test_node *to = test_node_on(from, n_shards, more, NULL);
    struct test_move *m = move_new();
    for (unsigned i = 0; i < NODE_SHARDS_MAX * NODE_HOME_PARTS; i++)
        to->node.shared->home.shard[i] %= n_shards;
    hold_shards(to, true);
    assert_int_equal(export(m, from, to), 0);
    for (unsigned i = 0; i < from->node.n_shards; i++)
        assert_null(test_check(from, i));
    assert_int_equal(import(m, to, m->n), 0);
    forget(from);
    begin_to_serve(to);
    move_free(m);
    test_run(to, 20);
    for (unsigned i = 0; i < n_shards; i++)
        assert_null(test_check(to, i));
    return to;
}

static inline struct test_node *hand_over(struct test_node *from, unsigned n_shards, const char *more)
{
    rest(from);
    return hand_over_resting(from, n_shards, more);
}

/* The client in the other node. */
static struct test_client *same_client(struct test_node *n, uint32_t id)
{
    for (unsigned i = 0; i < n->n_clients; i++)
        if (n->clients[i]->up.member.id == id)
            return n->clients[i];
    return NULL;
}

static inline void say_to(struct test_worker *w, uint8_t cmd, uint32_t id, const char *ext)
{
    struct gw_packet p = {.cmd = cmd,
                          .flag = GW_FLAG_BODY_IS_SCALAR,
                          .connection_id = id,
                          .ext = {(const uint8_t *)ext, strlen(ext)},
                          .body = SLICE_STR("hello")};
    test_command(w, &p);
}

/* What w was told of c are the numbers 1 .. n, each once and in order. */
static inline void assert_in_order(const struct test_worker *w, uint32_t id, uint32_t n)
{
    uint32_t next = 1;
    for (unsigned i = 0; i < w->n_events; i++)
        if (w->events[i].id == id && w->events[i].cmd == GW_CMD_ON_MESSAGE)
            assert_int_equal(w->events[i].number, next++);
    assert_int_equal(next, n + 1);
}

static inline uint64_t count_of(struct test_node *n, unsigned shard, enum counter_id id)
{
    return counter_get(&n->shards[shard].counters, id);
}

/* ---- a GatewayClient that asks, and counts the bytes of its answers */

struct asker {
    struct net_conn conn;
    uint64_t bytes;
};
static void asker_data(struct net_conn *conn, uint8_t *data, size_t len)
{
    CONTAINER_OF(conn, struct asker, conn)->bytes += len;
}
static void asker_nothing(struct net_conn *conn)
{
}
static void asker_closed(struct net_conn *conn, int err)
{
}
static const struct net_conn_ops asker_ops
    __attribute__((unused)) = {asker_data, asker_nothing, asker_closed, asker_nothing};

static inline void ask(struct test_node *n, struct asker *asker, uint8_t cmd, uint32_t id)
{
    uint8_t head[GW_HEAD_LEN];
    struct gw_packet p = {.cmd = cmd, .flag = GW_FLAG_BODY_IS_SCALAR, .connection_id = id};
    gw_packet_encode_head(head, &p);
    struct iovec iov = {head, sizeof head};
    assert_int_equal(net_writev(n->worker_net, &asker->conn, &iov, 1), sizeof head);
}
