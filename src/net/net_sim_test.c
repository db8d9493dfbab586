// SPDX-License-Identifier: MIT
#include "net/net_sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "net/net_peer_test.h"

#define MS     UINT64_C(1000000)
#define SECOND (1000 * MS)

enum { N_NODES = 4, N_PEERS = 40 };

static struct sim_net *w;
static struct loop *loops[N_NODES];
static struct net *nets[N_NODES];
static struct net_listener listeners[N_NODES];
static struct net_addr address;
static struct peer servers[N_PEERS], clients[N_PEERS];
static unsigned n_accepted, accepted_by[N_NODES], n_accept_failed;

static struct net_conn *on_accepted(struct net_listener *l, const struct net_addr *peer,
                                    const struct net_addr *local)
{
    struct peer *p = &servers[n_accepted++];
    accepted_by[l - listeners]++;
    p->n = nets[l - listeners];
    p->c.ops = &peer_ops;
    p->remote = *peer;
    return &p->c;
}

static void on_accept_failed(struct net_listener *l, int err)
{
    n_accept_failed++;
}

static const struct net_listener_ops listener_ops = {.accepted = on_accepted,
                                                     .accept_failed = on_accept_failed};

static void start_world(uint64_t seed)
{
    memset(servers, 0, sizeof(servers));
    memset(clients, 0, sizeof(clients));
    memset(accepted_by, 0, sizeof(accepted_by));
    n_accepted = n_accept_failed = 0;
    w = sim_net_new(seed);
    struct loop_clock clock = sim_net_clock(w);
    for (unsigned i = 0; i < N_NODES; i++) {
        loops[i] = loop_new(&clock, 10 * MS);
        nets[i] = sim_net_node(w, loops[i]);
        listeners[i] = (struct net_listener){.ops = &listener_ops};
    }
    assert_int_equal(net_addr_parse("0.0.0.0:2000", &address), 0);
}

static void end_world(void)
{
    for (unsigned i = 0; i < N_PEERS; i++) {
        peer_fini(&servers[i]);
        peer_fini(&clients[i]);
    }
    for (unsigned i = 0; i < N_NODES; i++) {
        if (nets[i] == NULL)
            continue;
        if (listeners[i].handle != 0)
            net_listener_close(nets[i], &listeners[i]);
        net_free(nets[i]);
        loop_free(loops[i]);
    }
    sim_net_free(w);
}

static int setup(void **state)
{
    start_world(1);
    return 0;
}

static int teardown(void **state)
{
    end_world();
    return 0;
}

static void listen_on(unsigned node)
{
    assert_int_equal(net_listen(nets[node], &listeners[node], &address, 128), 0);
}

static void dial(unsigned i, unsigned node, const char *to)
{
    struct net_addr a;
    assert_int_equal(net_addr_parse(to, &a), 0);
    clients[i].n = nets[node];
    clients[i].c = (struct net_conn){.ops = &peer_ops};
    assert_int_equal(net_connect(nets[node], &clients[i].c, &a), 0);
}

/* Clients 0 to n-1 on node 1, servers on node 0. */
static void connected_pairs(unsigned n)
{
    listen_on(0);
    for (unsigned i = 0; i < n; i++) {
        dial(i, 1, "127.0.0.1:2000");
        sim_net_run(w, SECOND);
        assert_int_equal(n_accepted, i + 1);
        assert_int_equal(clients[i].n_connected, 1);
    }
}

static void say(struct peer *p, size_t len)
{
    for (; len > 0; len--)
        bytes_append_byte(&p->out, (uint8_t)(p->said++ * 7));
    flush(p);
}

static void assert_said(const struct peer *reader, const struct peer *writer)
{
    assert_true(reader->in.len <= writer->said);
    for (size_t i = 0; i < reader->in.len; i++)
        assert_int_equal(reader->in.data[i], (uint8_t)(i * 7));
}

/* ---- time ---- */

static void nothing_to_do_ends_at_the_horizon(void **state)
{
    uint64_t start_ns = sim_net_now_ns(w);
    assert_false(sim_net_step(w, start_ns + SECOND));
    assert_true(sim_net_now_ns(w) == start_ns + SECOND);
    assert_false(sim_net_step(w, UINT64_MAX));
    assert_true(sim_net_now_ns(w) == start_ns + SECOND);
}

static unsigned n_rung;
static uint64_t rung_ns;

static void ring(struct timer *t)
{
    n_rung++;
    rung_ns = loop_now_ns(loops[2]);
}

static void timers_of_nodes_move_time(void **state)
{
    struct timer t = {0};
    uint64_t start_ns = sim_net_now_ns(w);
    n_rung = 0;
    timer_set(loops[2], &t, 3600 * 1000, ring);
    unsigned steps = 0;
    while (sim_net_step(w, start_ns + 7200 * SECOND))
        steps++;
    assert_int_equal(n_rung, 1);
    assert_true(rung_ns >= start_ns + 3600 * SECOND && rung_ns <= start_ns + 3600 * SECOND + 10 * MS);
    assert_true(steps < 10);
}

static bool has_rung(void *ctx)
{
    return n_rung == *(unsigned *)ctx;
}

static void run_until_stops_when_it_is_so(void **state)
{
    struct timer t = {0};
    unsigned once = 1, twice = 2;
    uint64_t start_ns = sim_net_now_ns(w);
    n_rung = 0;
    timer_set(loops[2], &t, 50, ring);
    assert_true(sim_net_run_until(w, has_rung, &once, SECOND));
    assert_true(sim_net_now_ns(w) < start_ns + 100 * MS);
    assert_false(sim_net_run_until(w, has_rung, &twice, SECOND));
}

static void a_slow_clock_reading_uses_up_a_turn(void **state)
{
    sim_net_options(w)->clock_read_ns = MS;
    loop_turn(loops[0], 0);
    uint64_t before_ns = sim_net_now_ns(w);
    assert_true(loop_clock_ns(loops[0]) == before_ns + MS);
}

/* ---- addresses and listening sockets ---- */

static void connections_come_from_the_source_of_their_node(void **state)
{
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];
    listen_on(0);
    net_addr_parse("10.1.2.3:0", &a);
    sim_net_node_source(nets[1], &a);
    dial(0, 1, "127.0.0.1:2000");
    sim_net_run(w, SECOND);
    assert_string_equal(net_addr_format_ip(&servers[0].remote, buf, sizeof(buf)), "10.1.2.3");
}

static void the_exact_address_wins_over_the_wildcard(void **state)
{
    assert_int_equal(net_addr_parse("10.0.0.1:2000", &address), 0);
    listen_on(0);
    assert_int_equal(net_addr_parse("10.0.0.2:2000", &address), 0);
    listen_on(1);
    dial(0, 2, "10.0.0.1:2000");
    dial(1, 2, "10.0.0.2:2000");
    dial(2, 2, "10.0.0.3:2000");
    sim_net_run(w, SECOND);
    assert_int_equal(accepted_by[0], 1);
    assert_int_equal(accepted_by[1], 1);
    assert_int_equal(clients[2].err, ECONNREFUSED);
    assert_int_equal(net_addr_parse("0.0.0.0:2000", &address), 0);
    assert_int_equal(net_listen(nets[3], &listeners[3], &address, 1), -EADDRINUSE);
}

static void a_bound_socket_is_shared_and_outlives_its_nodes(void **state)
{
    struct net_addr a;
    int fd = sim_net_bind(w, &address, 128);
    assert_true(fd > 0);
    assert_int_equal(sim_net_bound(w, fd, &a), 0);
    assert_int_equal(a.port, 2000);
    assert_int_equal(sim_net_bind(w, &address, 128), -EADDRINUSE);
    assert_int_equal(net_listen_fd(nets[0], &listeners[0], fd), 0);
    assert_int_equal(net_listen_fd(nets[1], &listeners[1], fd), 0);
    assert_int_equal(net_listen_fd(nets[2], &listeners[2], 7), -EBADF);
    for (unsigned i = 0; i < 20; i++) {
        dial(i, 3, "127.0.0.1:2000");
        sim_net_run(w, SECOND);
    }
    assert_int_equal(accepted_by[0] + accepted_by[1], 20);
    assert_true(accepted_by[0] > 0 && accepted_by[1] > 0);

    sim_net_node_kill(nets[0], SIM_NET_DEATH_PROCESS);
    sim_net_node_kill(nets[1], SIM_NET_DEATH_PROCESS);
    dial(20, 3, "127.0.0.1:2000");
    sim_net_run(w, SECOND);
    assert_int_equal(clients[20].n_connected, 1); /* waits in the queue */
    assert_int_equal(n_accepted, 20);
    assert_int_equal(net_listen_fd(nets[2], &listeners[2], fd), 0);
    sim_net_run(w, SECOND);
    assert_int_equal(accepted_by[2], 1);

    sim_net_unbind(w, fd);
    assert_int_equal(sim_net_bound(w, fd, &a), -EBADF);
    dial(21, 3, "127.0.0.1:2000"); /* the listener still holds it */
    sim_net_run(w, SECOND);
    assert_int_equal(accepted_by[2], 2);
}

static void a_full_backlog_makes_them_wait_and_then_time_out(void **state)
{
    assert_int_equal(net_listen(nets[0], &listeners[0], &address, 2), 0);
    net_listener_pause(nets[0], &listeners[0]);
    for (unsigned i = 0; i < 4; i++)
        dial(i, 1, "127.0.0.1:2000");
    sim_net_run(w, SECOND);
    unsigned connected = 0, timed_out = 0;
    for (unsigned i = 0; i < 4; i++)
        connected += clients[i].n_connected;
    assert_int_equal(connected, 2);
    sim_net_run(w, 20 * SECOND);
    for (unsigned i = 0; i < 4; i++)
        timed_out += clients[i].n_closed == 1 && clients[i].err == ETIMEDOUT;
    assert_int_equal(timed_out, 2);
}

static void accepts_fail_as_often_as_told(void **state)
{
    listen_on(0);
    sim_net_node_fail_accepts(nets[0], 3, ENFILE);
    uint64_t start_ns = sim_net_now_ns(w);
    dial(0, 1, "127.0.0.1:2000");
    while (n_accepted == 0)
        assert_true(sim_net_step(w, start_ns + 10 * SECOND));
    assert_int_equal(n_accept_failed, 3);
    assert_true(sim_net_now_ns(w) >= start_ns + 300 * MS);
}

/* ---- trouble ---- */

static void a_dead_process_ends_its_connections(void **state)
{
    connected_pairs(3);
    net_read_pause(nets[0], &servers[1].c);
    say(&clients[1], 100); /* will be unread */
    say(&servers[2], 500); /* was written: arrives */
    sim_net_run(w, SECOND);
    say(&servers[2], 500);
    sim_net_node_kill(nets[0], SIM_NET_DEATH_PROCESS);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_closed, 1);
    assert_int_equal(clients[0].err, 0);
    assert_int_equal(clients[1].n_closed, 1);
    assert_int_equal(clients[1].err, ECONNRESET);
    assert_int_equal(clients[2].n_closed, 1);
    assert_int_equal(clients[2].in.len + servers[2].out.len, 1000);
    assert_int_equal(servers[0].n_closed, 0); /* it hears nothing any more */
    dial(3, 1, "127.0.0.1:2000");
    sim_net_run(w, SECOND);
    assert_int_equal(clients[3].err, ECONNREFUSED);
}

static void a_dead_node_can_be_torn_down_as_usual(void **state)
{
    struct iovec iov = {&address, 1};
    connected_pairs(2);
    sim_net_node_kill(nets[0], SIM_NET_DEATH_PROCESS);
    assert_true(net_conn_is_open(&servers[0].c));
    assert_int_equal(net_writev(nets[0], &servers[0].c, &iov, 1), -EPIPE);
    net_read_pause(nets[0], &servers[0].c);
    net_shutdown(nets[0], &servers[0].c);
    net_close(nets[0], &servers[0].c, false);
    assert_false(net_conn_is_open(&servers[0].c));
    net_listener_pause(nets[0], &listeners[0]);
    net_listener_close(nets[0], &listeners[0]);
    assert_int_equal(net_listen(nets[0], &listeners[0], &address, 1), -ENETDOWN);
    net_free(nets[0]);
    loop_free(loops[0]);
    nets[0] = NULL;
    servers[1].c.handle = 0;
    /* Another process takes its place. */
    struct loop_clock clock = sim_net_clock(w);
    loops[0] = loop_new(&clock, 10 * MS);
    nets[0] = sim_net_node(w, loops[0]);
    listen_on(0);
    dial(2, 1, "127.0.0.1:2000");
    sim_net_run(w, SECOND);
    assert_int_equal(clients[2].n_connected, 1);
    assert_int_equal(n_accepted, 3);
}

static void after_a_lucky_death_all_that_was_written_arrives(void **state)
{
    connected_pairs(1);
    net_read_pause(nets[0], &servers[0].c);
    say(&clients[0], 100); /* will be unread */
    sim_net_run(w, SECOND);
    say(&servers[0], 500);
    size_t written = 500 - servers[0].out.len;
    sim_net_node_kill(nets[0], SIM_NET_DEATH_LUCKY);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_closed, 1);
    assert_int_equal(clients[0].err, 0);
    assert_int_equal(clients[0].in.len, written);
}

static struct loop *stopped_loops[12]; /* never freed: they have stopped in the middle */

static void answer(struct net_conn *c, uint8_t *data, size_t len)
{
    on_data(c, data, len);
    bytes_append_str(&((struct peer *)c)->out, "answer");
    flush((struct peer *)c);
}

static const struct net_conn_ops answering_ops = {
    .data = answer, .writable = on_writable, .closed = on_closed, .connected = on_connected};

static void a_node_stops_in_the_middle_of_its_turn(void **state)
{
    for (unsigned calls = 1; calls < 12; calls++) {
        end_world();
        start_world(calls);
        connected_pairs(2);
        servers[0].c.ops = servers[1].c.ops = &answering_ops;
        assert_ptr_equal(sim_net_conn_peer(nets[1], &clients[0].c), nets[0]);
        sim_net_node_stop_within(nets[0], calls);
        for (unsigned i = 0; i < 100 && !sim_net_node_has_stopped(nets[0]); i++) {
            say(&clients[i % 2], 50);
            dial(2 + i % 30, 1, "127.0.0.1:2000");
            sim_net_step(w, sim_net_now_ns(w) + SECOND);
        }
        assert_true(sim_net_node_has_stopped(nets[0]));
        sim_net_run(w, SECOND); /* it does nothing more, and the kernel not yet */
        assert_int_equal(clients[0].n_closed + clients[1].n_closed, 0);
        sim_net_node_kill(nets[0], SIM_NET_DEATH_PROCESS);
        sim_net_run(w, SECOND);
        for (unsigned i = 0; i < N_PEERS; i++) {
            assert_true(clients[i].n == NULL || clients[i].n_closed == 1);
            servers[i].c.handle = 0;
        }
        net_free(nets[0]);
        nets[0] = NULL;
        stopped_loops[calls] = loops[0];
    }
}

static void a_call_of_another_kind_stops_only_the_node_whose_turn_it_is(void **state)
{
    sim_net_node_stop_within(nets[0], 1);
    sim_net_node_call(nets[0]); /* between steps */
    assert_false(sim_net_node_has_stopped(nets[0]));
    sim_net_node_stop_within(nets[0], 0);
    listen_on(0);
    dial(0, 1, "127.0.0.1:2000");
    sim_net_run(w, SECOND);
    assert_false(sim_net_node_has_stopped(nets[0]));
}

static void a_dead_host_is_noticed_by_writing_only(void **state)
{
    connected_pairs(2);
    sim_net_node_kill(nets[0], SIM_NET_DEATH_HOST);
    sim_net_run(w, 3600 * SECOND);
    assert_int_equal(clients[0].n_closed + clients[1].n_closed, 0);
    say(&clients[0], 1000 * 1000);
    assert_true(clients[0].out.len > 0); /* nobody takes it */
    sim_net_run(w, 10 * SECOND);
    assert_int_equal(clients[0].n_closed, 0);
    sim_net_run(w, 60 * SECOND);
    assert_int_equal(clients[0].n_closed, 1);
    assert_int_equal(clients[0].err, ETIMEDOUT);
    assert_int_equal(clients[1].n_closed, 0);
}

/* What keep-alive of 55 + 4 * 15 s says of clients[0], whose peer is gone since now. */
static void assert_found_out(void)
{
    sim_net_run(w, 59 * SECOND);
    assert_int_equal(clients[0].n_closed, 0);
    sim_net_run(w, 57 * SECOND);
    assert_int_equal(clients[0].n_closed, 1);
    assert_int_equal(clients[0].err, ETIMEDOUT);
}

static void connected_pairs_with_keepalive(unsigned count)
{
    const struct net_keepalive k = NET_KEEPALIVE_DEFAULT;
    net_set_keepalive(nets[1], &k);
    connected_pairs(count);
}

static void keepalive_finds_a_dead_host(void **state)
{
    connected_pairs_with_keepalive(1);
    sim_net_run(w, 3600 * SECOND);
    assert_int_equal(clients[0].n_closed, 0);
    sim_net_node_kill(nets[0], SIM_NET_DEATH_HOST);
    assert_found_out();
}

static void keepalive_finds_a_cut(void **state)
{
    connected_pairs_with_keepalive(2);
    sim_net_conn_cut(nets[0], &servers[0].c);
    assert_found_out();
    sim_net_run(w, 3600 * SECOND);
    assert_int_equal(servers[0].n_closed, 0); /* has none */
    assert_int_equal(clients[1].n_closed, 0);
}

static void keepalive_finds_a_host_that_died_before_it_accepted(void **state)
{
    const struct net_keepalive k = NET_KEEPALIVE_DEFAULT;
    net_set_keepalive(nets[1], &k);
    listen_on(0);
    net_listener_pause(nets[0], &listeners[0]);
    dial(0, 1, "127.0.0.1:2000");
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_connected, 1);
    assert_int_equal(n_accepted, 0);
    sim_net_node_kill(nets[0], SIM_NET_DEATH_HOST);
    assert_found_out();
}

static void the_user_timeout_is_for_what_is_not_answered(void **state)
{
    net_set_keepalive(nets[1], &(struct net_keepalive){0, 0, 0, 20000});
    connected_pairs(2);
    sim_net_node_kill(nets[0], SIM_NET_DEATH_HOST);
    say(&clients[0], 10);
    sim_net_run(w, 19 * SECOND);
    assert_int_equal(clients[0].n_closed, 0);
    sim_net_run(w, 2 * SECOND);
    assert_int_equal(clients[0].err, ETIMEDOUT);
    sim_net_run(w, 3600 * SECOND);
    assert_int_equal(clients[1].n_closed, 0);
}

static void a_lost_end_leaves_the_peer_half_open(void **state)
{
    connected_pairs(1);
    sim_net_options(w)->lost_end_percent = 100;
    say(&servers[0], 10);
    net_close(nets[0], &servers[0].c, false);
    sim_net_run(w, 3600 * SECOND);
    assert_int_equal(clients[0].n_closed, 0);
    say(&clients[0], 10);
    sim_net_run(w, 100 * SECOND);
    assert_int_equal(clients[0].err, ETIMEDOUT);
}

static void a_reset_reaches_both_ends(void **state)
{
    connected_pairs(1);
    say(&clients[0], 100000);
    sim_net_conn_reset(nets[1], &clients[0].c);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_closed, 1);
    assert_int_equal(clients[0].err, ECONNRESET);
    assert_int_equal(servers[0].n_closed, 1);
    assert_int_equal(servers[0].err, ECONNRESET);
}

static void through_a_cut_nothing_passes(void **state)
{
    connected_pairs(1);
    sim_net_conn_cut(nets[0], &servers[0].c);
    say(&clients[0], 10);
    say(&servers[0], 10);
    sim_net_run(w, 10 * SECOND);
    assert_int_equal(clients[0].in.len + servers[0].in.len, 0);
    sim_net_run(w, 100 * SECOND);
    assert_int_equal(clients[0].err, ETIMEDOUT);
    assert_int_equal(servers[0].err, ETIMEDOUT);
}

static void bytes_to_who_has_closed_are_answered_with_reset(void **state)
{
    connected_pairs(1);
    net_read_pause(nets[1], &clients[0].c); /* does not see the FIN */
    net_close(nets[0], &servers[0].c, false);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_closed, 0);
    say(&clients[0], 10);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].err, ECONNRESET);
}

static void a_frozen_node_gets_no_turn(void **state)
{
    struct loop_stats before, after;
    connected_pairs(1);
    sim_net_node_freeze(nets[0], 5 * SECOND);
    loop_stats_get(loops[0], &before);
    say(&clients[0], 10);
    sim_net_run(w, 4 * SECOND);
    loop_stats_get(loops[0], &after);
    assert_int_equal(before.turns, after.turns);
    assert_int_equal(servers[0].in.len, 0);
    sim_net_run(w, 2 * SECOND);
    assert_int_equal(servers[0].in.len, 10);
}

static void a_poked_node_gets_a_turn_soon(void **state)
{
    struct loop_stats before, after;
    bool at_once = false, later = false;
    sim_net_run(w, SECOND);
    for (unsigned i = 0; i < 50; i++) {
        uint64_t poked_ns = sim_net_now_ns(w);
        loop_stats_get(loops[1], &before);
        sim_net_node_poke(nets[1]);
        sim_net_node_poke(nets[1]); /* one turn is enough */
        assert_true(sim_net_step(w, poked_ns + SIM_NET_POKE_NS_MAX));
        loop_stats_get(loops[1], &after);
        assert_int_equal(after.turns, before.turns + 1);
        at_once |= loop_now_ns(loops[1]) < poked_ns + 1000;
        later |= loop_now_ns(loops[1]) > poked_ns + 1000;
        assert_false(sim_net_step(w, sim_net_now_ns(w) + SECOND));
    }
    assert_true(at_once && later);
    sim_net_node_kill(nets[1], SIM_NET_DEATH_PROCESS);
    sim_net_node_poke(nets[1]);
    assert_false(sim_net_step(w, sim_net_now_ns(w) + SECOND));
}

/* ---- connections that another node takes over */

static struct peer successors[2];

/* Node 2 has the servers of both pairs, too. */
static void taken_by_node_2(void)
{
    connected_pairs(2);
    net_hold(nets[0], true);
    net_hold(nets[2], true);
    for (unsigned i = 0; i < 2; i++) {
        successors[i] = (struct peer){.n = nets[2], .c.ops = &peer_ops};
        assert_int_equal(net_take(nets[2], &successors[i].c, net_conn_handle(nets[0], &servers[i].c)), 0);
    }
}

static void successors_end(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (net_conn_is_open(&successors[i].c))
            net_close(nets[2], &successors[i].c, true);
        bytes_fini(&successors[i].in);
    }
}

static void the_peer_is_who_owns_the_connection(void **state)
{
    taken_by_node_2();
    assert_ptr_equal(sim_net_conn_peer(nets[1], &clients[0].c), nets[0]);
    assert_ptr_equal(sim_net_conn_peer(nets[2], &successors[0].c), nets[1]);
    net_forget(nets[0], &servers[0].c);
    net_forget(nets[2], &successors[1].c);
    assert_ptr_equal(sim_net_conn_peer(nets[1], &clients[0].c), nets[2]);
    assert_ptr_equal(sim_net_conn_peer(nets[1], &clients[1].c), nets[0]);
    successors_end();
}

static void an_owner_that_dies_leaves_it_to_the_next(void **state)
{
    taken_by_node_2();
    say(&clients[0], 1000);
    sim_net_node_kill(nets[0], SIM_NET_DEATH_PROCESS);
    net_hold(nets[2], false);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_closed + clients[1].n_closed, 0);
    assert_int_equal(successors[0].in.len, 1000);
    sim_net_node_kill(nets[2], SIM_NET_DEATH_LUCKY);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_closed, 1);
    assert_int_equal(clients[1].n_closed, 1);
    successors_end();
}

static void a_claim_that_dies_leaves_the_owner_alone(void **state)
{
    taken_by_node_2();
    say(&clients[0], 1000);
    sim_net_node_kill(nets[2], SIM_NET_DEATH_PROCESS);
    net_hold(nets[0], false);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_closed, 0);
    assert_said(&servers[0], &clients[0]);
    net_close(nets[0], &servers[1].c, false);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[1].n_closed, 1);
    successors_end();
}

static void after_both_the_connection_ends(void **state)
{
    taken_by_node_2();
    sim_net_node_kill(nets[0], SIM_NET_DEATH_PROCESS);
    net_forget(nets[2], &successors[0].c);
    sim_net_node_kill(nets[2], SIM_NET_DEATH_PROCESS);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].n_closed, 1);
    assert_int_equal(clients[1].n_closed, 1);
    successors_end();
}

static void what_nobody_has_any_more_cannot_be_taken(void **state)
{
    struct net_conn c = {.ops = &peer_ops};

    connected_pairs(1);
    int handle = net_conn_handle(nets[0], &servers[0].c);
    net_close(nets[0], &servers[0].c, false);
    assert_int_equal(net_take(nets[2], &c, handle), -EBADF);
    sim_net_node_kill(nets[2], SIM_NET_DEATH_PROCESS);
    assert_int_equal(net_take(nets[2], &c, handle), -ENETDOWN);
    assert_false(net_conn_is_open(&c));
}

static bool dies(void (*what)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO);
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status);
}

static void write_as_successor(void)
{
    struct iovec iov = {(char[]){"x"}, 1};
    net_writev(nets[2], &successors[0].c, &iov, 1);
}

static void close_as_successor(void)
{
    net_close(nets[2], &successors[0].c, true);
}

static void write_as_owner(void)
{
    struct iovec iov = {(char[]){"x"}, 1};
    net_writev(nets[0], &servers[0].c, &iov, 1);
}

static void who_is_not_the_owner_may_not_act(void **state)
{
    taken_by_node_2();
    assert_true(dies(write_as_successor));
    assert_true(dies(close_as_successor));
    assert_false(dies(write_as_owner));
    net_forget(nets[0], &servers[0].c);
    assert_false(dies(write_as_successor));
    for (unsigned i = 0; i < 2; i++)
        net_forget(nets[2], &successors[i].c);
}

static void who_does_not_read_stops_the_writer(void **state)
{
    sim_net_options(w)->buffer_bytes_min = sim_net_options(w)->buffer_bytes_max = 5000;
    connected_pairs(1);
    net_read_pause(nets[0], &servers[0].c);
    say(&clients[0], 20000);
    sim_net_run(w, SECOND);
    assert_int_equal(clients[0].out.len, 15000);
    net_read_resume(nets[0], &servers[0].c);
    sim_net_run(w, SECOND);
    assert_int_equal(servers[0].in.len, 20000);
    assert_said(&servers[0], &clients[0]);
}

/* ---- the same seed gives the same run, whatever happens in it ---- */

static void act(unsigned i)
{
    struct peer *p = sim_net_draw(w, 2) == 0 ? &clients[i] : &servers[i];

    if (p->c.ops == NULL || !net_conn_is_open(&p->c))
        return;
    switch (sim_net_draw(w, 60)) {
    case 0: net_close(p->n, &p->c, sim_net_draw(w, 2) == 0); break;
    case 1:
        net_shutdown(p->n, &p->c);
        p->shut = true;
        break;
    case 2: sim_net_conn_reset(p->n, &p->c); break;
    case 3: sim_net_conn_cut(p->n, &p->c); break;
    case 4:
    case 5: net_read_pause(p->n, &p->c); break;
    case 6:
    case 7:
    case 8:
    case 9: net_read_resume(p->n, &p->c); break;
    default: say(p, sim_net_draw(w, 3000));
    }
}

static bool all_is_over(void)
{
    for (unsigned i = 0; i < N_PEERS; i++) {
        if ((net_conn_is_open(&clients[i].c) && !clients[i].shut) || net_conn_is_open(&servers[i].c))
            return false;
    }
    return true;
}

/* Everybody writes the same pattern: so what anybody has read must be a beginning of it. */
static uint64_t random_life(uint64_t seed)
{
    start_world(seed);
    sim_net_options(w)->lost_end_percent = (uint32_t)(seed % 3) * 10;
    sim_net_options(w)->reset_per_million = seed % 5 == 0 ? 5000 : 0;
    sim_net_options(w)->buffer_bytes_max = 1024u << seed % 8;
    listen_on(0);
    for (unsigned round = 0; round < 400; round++) {
        if (round < N_PEERS * 4 && round % 4 == 0)
            dial(round / 4, 1 + (unsigned)sim_net_draw(w, N_NODES - 1), "127.0.0.1:2000");
        act((unsigned)sim_net_draw(w, N_PEERS));
        if (sim_net_draw(w, 100) == 0)
            sim_net_node_freeze(nets[sim_net_draw(w, N_NODES)], sim_net_draw(w, 50) * MS);
        sim_net_run(w, sim_net_draw(w, 3) * MS);
    }
    if (seed % 2 == 0)
        sim_net_node_kill(nets[0], seed % 4 == 0 ? SIM_NET_DEATH_PROCESS : SIM_NET_DEATH_HOST);
    for (unsigned i = 0; i < N_PEERS;
         i++) { /* whoever is left reads on, and writes, so that it learns the end */
        if (net_conn_is_open(&clients[i].c)) {
            net_read_resume(clients[i].n, &clients[i].c);
            say(&clients[i], 1);
            if (net_conn_is_open(&clients[i].c) && seed % 2 == 1)
                net_shutdown(clients[i].n, &clients[i].c);
        }
        if (net_conn_is_open(&servers[i].c) && seed % 2 == 0)
            servers[i].c.handle = 0; /* its process is dead */
        else if (net_conn_is_open(&servers[i].c))
            net_read_resume(servers[i].n, &servers[i].c);
    }
    sim_net_run(w, 200 * SECOND);
    for (unsigned i = 0; i < N_PEERS; i++) {
        assert_true(clients[i].n_closed <= 1 && servers[i].n_closed <= 1);
        for (size_t k = 0; k < servers[i].in.len; k++)
            assert_int_equal(servers[i].in.data[k], (uint8_t)(k * 7));
        for (size_t k = 0; k < clients[i].in.len; k++)
            assert_int_equal(clients[i].in.data[k], (uint8_t)(k * 7));
    }
    if (seed % 2 == 0)
        assert_true(all_is_over());
    uint64_t digest = sim_net_digest(w);
    end_world();
    return digest;
}

static void the_same_seed_gives_the_same_run(void **state)
{
    uint64_t last = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t digest = random_life(seed);
        assert_true(random_life(seed) == digest);
        assert_true(digest != last);
        last = digest;
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(nothing_to_do_ends_at_the_horizon),
        T(timers_of_nodes_move_time),
        T(run_until_stops_when_it_is_so),
        T(a_slow_clock_reading_uses_up_a_turn),
        T(connections_come_from_the_source_of_their_node),
        T(the_exact_address_wins_over_the_wildcard),
        T(a_bound_socket_is_shared_and_outlives_its_nodes),
        T(a_full_backlog_makes_them_wait_and_then_time_out),
        T(accepts_fail_as_often_as_told),
        T(a_dead_process_ends_its_connections),
        T(a_dead_node_can_be_torn_down_as_usual),
        T(after_a_lucky_death_all_that_was_written_arrives),
        T(a_node_stops_in_the_middle_of_its_turn),
        T(a_call_of_another_kind_stops_only_the_node_whose_turn_it_is),
        T(a_dead_host_is_noticed_by_writing_only),
        T(keepalive_finds_a_dead_host),
        T(keepalive_finds_a_cut),
        T(keepalive_finds_a_host_that_died_before_it_accepted),
        T(the_user_timeout_is_for_what_is_not_answered),
        T(a_lost_end_leaves_the_peer_half_open),
        T(a_reset_reaches_both_ends),
        T(through_a_cut_nothing_passes),
        T(bytes_to_who_has_closed_are_answered_with_reset),
        T(a_frozen_node_gets_no_turn),
        T(a_poked_node_gets_a_turn_soon),
        T(the_peer_is_who_owns_the_connection),
        T(an_owner_that_dies_leaves_it_to_the_next),
        T(a_claim_that_dies_leaves_the_owner_alone),
        T(after_both_the_connection_ends),
        T(what_nobody_has_any_more_cannot_be_taken),
        T(who_is_not_the_owner_may_not_act),
        T(who_does_not_read_stops_the_writer),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
