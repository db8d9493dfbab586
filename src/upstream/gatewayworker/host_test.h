// SPDX-License-Identifier: MIT
/* For tests of the upstream beside a host that only notes what it is asked for: one or two shards on the
 * simulated network, each with a port of its own for workers, and a host with workers. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>
#include <errno.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/net_sim.h"
#include "upstream/gatewayworker/gatewayworker_priv.h"

#define TEST_SHARDS_MAX 3
#define TEST_PORT       2900
#define TEST_MS         UINT64_C(1000000)
#define TEST_CLIENTS    2000
#define TEST_HEAP_BYTES ((size_t)16 << 20)

struct test_client {
    struct upstream_client up;
    struct test_shard *shard;
    unsigned delivered, traced, said, resumed;
    bool gone;
    char last_command[32], last_sender[64], uid[32];
};

struct test_shard {
    struct test_node *node;
    struct loop *loop;
    struct net *net;
    struct config config;
    struct counters counters;
    struct histograms histograms;
    struct shard_crash crash;
    struct upstream_host host;
    struct upstream *u;
};

/* A worker: notes its events. */
struct test_worker {
    struct net_conn conn;
    struct test_node *node;
    struct bytes in;
    bool closed;
    struct test_event {
        uint8_t cmd;
        uint32_t id, number;
    } events[10000];
    unsigned n_events;
};

struct test_node {
    struct sim_net *sim;
    struct test_node *before; /* whose network it is on; NULL: its own */
    unsigned port;            /* of shard 0 */
    struct node node;
    struct test_shard shards[TEST_SHARDS_MAX];
    struct loop *worker_loop;
    struct net *worker_net;
    struct test_worker *workers[8];
    unsigned n_workers;
    struct test_client *clients[TEST_CLIENTS];
    unsigned n_clients;
    void (*on_wake)(struct test_node *n, unsigned to); /* NULL: nobody */
};

/* Once, first in main. */
static inline void test_begin(void)
{
    struct log_options quiet = {.level = LOG_ERROR, .path = NULL, .process = "test"};
    hash_init_fixed(1);
    log_open(&quiet);
}

/* ---- the host */

static inline struct test_client *test_client_of(struct upstream_client *c)
{
    return CONTAINER_OF(c, struct test_client, up);
}

/* What is done outside of a turn is looked at in the next one. */
static inline void test_poke(struct test_client *c)
{
    sim_net_node_poke(c->shard->net);
}

static void test_send(struct upstream_client *c, struct upstream_message *m)
{
    test_client_of(c)->delivered++;
}

/* As the shard does. */
static void test_publish_members(const struct test_shard *s)
{
    NODE_STORE(s->node->node.shared->shards[s->host.shard].members, directory_count(s->host.directory));
}

static void test_gone(struct test_client *c)
{
    if (c->gone)
        return;
    upstream_client_closed(c->shard->u, &c->up);
    directory_remove(c->shard->host.directory, &c->up.member);
    test_publish_members(c->shard);
    c->gone = true;
    test_poke(c);
}

static void test_kick(struct upstream_client *c, struct upstream_message *m)
{
    test_gone(test_client_of(c));
}

static void test_destroy(struct upstream_client *c)
{
    test_gone(test_client_of(c));
}

static void test_close(struct upstream_client *c, enum close_reason reason)
{
    test_gone(test_client_of(c));
}

static void test_resume(struct upstream_client *c)
{
    test_client_of(c)->resumed++;
}

static void test_wake(struct upstream_host *h, unsigned to)
{
    struct test_shard *s = CONTAINER_OF(h, struct test_shard, host);
    if (s->node->on_wake != NULL)
        s->node->on_wake(s->node, to);
    if (s->node->shards[to].net != NULL)
        sim_net_node_poke(s->node->shards[to].net);
}

static unsigned test_room(struct upstream_host *h, bool to_many)
{
    return 1000;
}

static void test_traced(struct upstream_client *up, const char *command, size_t len, const char *sender)
{
    struct test_client *c = test_client_of(up);
    c->traced++;
    snprintf(c->last_command, sizeof c->last_command, "%s", command);
    snprintf(c->last_sender, sizeof c->last_sender, "%s", sender);
}

static void test_uid_bound(struct upstream_client *up, const void *uid, size_t len)
{
    snprintf(test_client_of(up)->uid, sizeof test_client_of(up)->uid, "%.*s", (int)len, (const char *)uid);
}

static const struct upstream_host_ops test_host_ops = {
    .send = test_send,
    .kick = test_kick,
    .destroy = test_destroy,
    .close = test_close,
    .resume = test_resume,
    .wake = test_wake,
    .room = test_room,
    .traced = test_traced,
    .uid_bound = test_uid_bound,
};

/* ---- the node */

static inline void test_run(struct test_node *n, uint64_t ms)
{
    sim_net_run(n->sim, ms * TEST_MS);
}

/* A turn of each shard, after that time. */
static inline void test_turn(struct test_node *n, uint64_t ms)
{
    test_run(n, ms);
    for (unsigned i = 0; i < n->node.n_shards; i++)
        if (n->shards[i].net != NULL)
            sim_net_node_poke(n->shards[i].net);
    test_run(n, 1);
}

static void *test_map(size_t len)
{
    void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(mem != MAP_FAILED);
    return mem;
}

static void test_config(struct test_shard *s, unsigned index, const char *more)
{
    struct bytes text = {0};
    struct config_error err = {0};
    bytes_printf(&text,
                 "[gateway]\nlan_ip = 127.0.0.1\nstart_port = %u\nsend_to_worker_buffer_size = 65536\n"
                 "register_address = 127.0.0.1:1236\n%s\n[listen x]\nport = 8000\nprotocol = text\n",
                 s->node->port + index, more);
    bytes_append_byte(&text, 0);
    if (config_load_text((const char *)text.data, text.len - 1, "test", &s->config, &err) != 0)
        config_error_print(stderr, &err);
    bytes_fini(&text);
}

static void test_shard_open(struct test_node *n, unsigned i, const char *more)
{
    struct test_shard *s = &n->shards[i];
    struct loop_clock clock = sim_net_clock(n->sim);
    int err = 0;
    s->node = n;
    test_config(s, i, more);
    s->loop = loop_new(&clock, 5 * TEST_MS);
    s->net = sim_net_node(n->sim, s->loop);
    s->host = (struct upstream_host){
        .ops = &test_host_ops,
        .config = &s->config,
        .counters = &s->counters,
        .loop = s->loop,
        .net = s->net,
        .node = &n->node,
        .shard = i,
        .wake_always = true,
        .histograms = &s->histograms,
        .crash = &s->crash,
    };
    s->host.estate_mem = n->node.estates[i];
    s->host.estate =
        estate_open(s->host.estate_mem, n->node.estate_bytes, TEST_CLIENTS, TEST_HEAP_BYTES, &err);
    s->host.directory = directory_new(i, 1, s->host.estate);
    directory_set_filters(s->host.directory, &n->node.shared->names[i].uids,
                          &n->node.shared->names[i].groups);
    directory_set_home(s->host.directory, &n->node.shared->home);
    NODE_STORE(n->node.shared->shards[i].phase, NODE_UP);
    struct gatewayworker_options opt = {.host = &s->host, .listens = true, .internal_fd = -1, .seed = 7};
    s->u = gatewayworker_new(&opt, &err);
    assert_non_null(s->u);
    upstream_start(s->u);
}

static struct sim_net *test_sim_new(void)
{
    struct sim_net *sim = sim_net_new(1);
    struct sim_net_options *o = sim_net_options(sim);
    o->latency_ns_min = o->latency_ns_max = TEST_MS / 10;
    o->buffer_bytes_min = o->buffer_bytes_max = 16384;
    o->tiny_read_percent = o->part_read_percent = o->short_write_percent = o->skip_percent = 0;
    return sim;
}

/* before: on its network, which it must not outlive, with ports of its own; NULL: the first.
 * estate: of shard 0, NULL: in private memory. */
static struct test_node *test_node_on(struct test_node *before, unsigned n_shards, const char *more,
                                      void *estate)
{
    struct test_node *n = calloc(1, sizeof *n);
    n->before = before;
    n->sim = before != NULL ? before->sim : test_sim_new();
    n->port = before != NULL ? before->port + TEST_SHARDS_MAX : TEST_PORT;
    n->node.n_shards = n_shards;
    n->node.max_clients = TEST_CLIENTS;
    n->node.estate_bytes = estate_bytes(TEST_CLIENTS, TEST_HEAP_BYTES);
    n->node.estates[0] = estate;
    n->node.shared = node_shared_new();
    n->node.ring_bytes = 64 << 10;
    n->node.mesh = test_map(mesh_bytes(n_shards, n->node.ring_bytes));
    for (unsigned i = 0; i < n_shards; i++)
        test_shard_open(n, i, more);
    struct loop_clock clock = sim_net_clock(n->sim);
    n->worker_loop = loop_new(&clock, 5 * TEST_MS);
    n->worker_net = sim_net_node(n->sim, n->worker_loop);
    return n;
}

static inline struct test_node *test_node_new(unsigned n_shards, const char *more)
{
    return test_node_on(NULL, n_shards, more, NULL);
}

static inline struct gatewayworker *test_gw(struct test_node *n, unsigned shard)
{
    return gatewayworker_of(n->shards[shard].u);
}

static void test_shard_close(struct test_shard *s)
{
    if (s->net == NULL)
        return;
    upstream_free(s->u);
    directory_free(s->host.directory);
    estate_close(s->host.estate);
    net_free(s->net);
    s->net = NULL;
    loop_free(s->loop);
    config_fini(&s->config);
}

static void test_node_free(struct test_node *n)
{
    for (unsigned i = 0; i < n->n_clients; i++)
        test_gone(n->clients[i]);
    test_run(n, 100);
    for (unsigned i = 0; i < n->node.n_shards; i++)
        test_shard_close(&n->shards[i]);
    test_run(n, 10);
    for (unsigned i = 0; i < n->n_workers; i++) {
        if (net_conn_is_open(&n->workers[i]->conn))
            net_close(n->worker_net, &n->workers[i]->conn, true);
        bytes_fini(&n->workers[i]->in);
        free(n->workers[i]);
    }
    for (unsigned i = 0; i < n->n_clients; i++)
        free(n->clients[i]);
    net_free(n->worker_net);
    loop_free(n->worker_loop);
    munmap(n->node.mesh, mesh_bytes(n->node.n_shards, n->node.ring_bytes));
    node_shared_free(n->node.shared);
    if (n->before == NULL)
        sim_net_free(n->sim);
    free(n);
}

/* ---- workers */

static void test_worker_data(struct net_conn *conn, uint8_t *data, size_t len)
{
    struct test_worker *w = CONTAINER_OF(conn, struct test_worker, conn);
    struct gw_packet p;
    ssize_t n;
    size_t at = 0;
    bytes_append(&w->in, data, len);
    while ((n = gw_packet_decode(w->in.data + at, w->in.len - at, 1 << 20, &p)) > 0) {
        ASSERT(w->n_events < sizeof w->events / sizeof w->events[0]);
        struct test_event *e = &w->events[w->n_events++];
        *e = (struct test_event){.cmd = p.cmd, .id = p.connection_id};
        if (p.body.len >= sizeof e->number)
            memcpy(&e->number, p.body.data, sizeof e->number);
        at += (size_t)n;
    }
    bytes_consume(&w->in, at);
}

static void test_worker_writable(struct net_conn *conn)
{
}

static void test_worker_closed(struct net_conn *conn, int err)
{
    CONTAINER_OF(conn, struct test_worker, conn)->closed = true;
}

static void test_command(struct test_worker *w, const struct gw_packet *p)
{
    uint8_t head[GW_HEAD_LEN];
    gw_packet_encode_head(head, p);
    struct iovec iov[] = {
        {head, sizeof head}, {(void *)p->ext.data, p->ext.len}, {(void *)p->body.data, p->body.len}};
    net_writev(w->node->worker_net, &w->conn, iov, 3);
}

static void test_worker_say(struct test_worker *w, const char *key)
{
    char body[80];
    int len = snprintf(body, sizeof body, "{\"worker_key\":\"%s\",\"secret_key\":\"\"}", key);
    struct gw_packet p = {.cmd = GW_CMD_WORKER_CONNECT,
                          .flag = GW_FLAG_BODY_IS_SCALAR,
                          .body = {(const uint8_t *)body, (size_t)len}};
    test_command(w, &p);
}

static void test_worker_connected(struct net_conn *conn)
{
}

static const struct net_conn_ops test_worker_ops = {.data = test_worker_data,
                                                    .writable = test_worker_writable,
                                                    .closed = test_worker_closed,
                                                    .connected = test_worker_connected};

/* Its link is on that shard. */
static struct test_worker *test_worker_new(struct test_node *n, unsigned shard, const char *key)
{
    struct test_worker *w = calloc(1, sizeof *w);
    struct net_addr to = {.family = AF_INET, .port = (uint16_t)(n->port + shard), .ip = {127, 0, 0, 1}};
    w->node = n;
    w->conn.ops = &test_worker_ops;
    n->workers[n->n_workers++] = w;
    assert_int_equal(net_connect(n->worker_net, &w->conn, &to), 0);
    test_run(n, 5);
    test_worker_say(w, key);
    test_run(n, 20);
    return w;
}

/* The shard's idea of it. */
static struct worker *test_worker_at(struct test_node *n, unsigned shard, const char *key)
{
    struct gatewayworker *gw = test_gw(n, shard);
    char full[80];
    snprintf(full, sizeof full, "127.0.0.1:%s", key);
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (strcmp(gw->workers[i]->key, full) == 0)
            return gw->workers[i];
    return NULL;
}

/* On all shards. */
static inline void test_drain(struct test_node *n, const char *key, bool on, uint32_t over_ms)
{
    char full[80];
    int len = snprintf(full, sizeof full, "127.0.0.1:%s", key);
    for (unsigned i = 0; i < n->node.n_shards; i++)
        assert_int_equal(
            upstream_drain_worker(n->shards[i].u, (struct slice){(uint8_t *)full, (size_t)len}, on, over_ms),
            0);
}

/* ---- clients */

static struct test_client *test_client_new(struct test_node *n, unsigned shard)
{
    struct test_client *c = calloc(1, sizeof *c);
    c->shard = &n->shards[shard];
    c->up.peer = (struct net_addr){
        .family = AF_INET, .ip = {10, 0, (uint8_t)(n->n_clients / 250), (uint8_t)(n->n_clients % 250)}};
    assert_int_equal(directory_add(c->shard->host.directory, &c->up.member), 0);
    test_publish_members(c->shard);
    upstream_client_connected(c->shard->u, &c->up);
    n->clients[n->n_clients++] = c;
    test_poke(c);
    return c;
}

/* Its next number, and so many bytes behind it. */
static inline void test_say(struct test_client *c, size_t len)
{
    uint8_t *body = calloc(1, len + sizeof(uint32_t));
    uint32_t number = ++c->said;
    memcpy(body, &number, sizeof number);
    upstream_client_message(c->shard->u, &c->up, body, len + sizeof number);
    free(body);
    test_poke(c);
}

/* Events of that command which w has been told of c; c NULL: of all. */
static inline unsigned test_told(const struct test_worker *w, const struct test_client *c, uint8_t cmd)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->n_events; i++)
        n += w->events[i].cmd == cmd && (c == NULL || w->events[i].id == c->up.member.id);
    return n;
}

/* NULL, or what upstream_check says first. */
static inline const char *test_check(struct test_node *n, unsigned shard)
{
    uint64_t position = 0;
    const char *wrong = NULL;
    do
        wrong = upstream_check(n->shards[shard].u, &position, 7);
    while (wrong == NULL && position != 0);
    return wrong;
}

/* It says that, among what it says. */
static inline bool test_check_says(struct test_node *n, unsigned shard, const char *text)
{
    uint64_t position = 0;
    bool says = false;
    do {
        const char *wrong = upstream_check(n->shards[shard].u, &position, 7);
        says |= wrong != NULL && strstr(wrong, text) != NULL;
    } while (position != 0);
    return says;
}
