// SPDX-License-Identifier: MIT
/* What net.h promises of nets that are held and of connections that another net takes over, against every
 * back end. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "net/net_conformance.h"
#include "net/net_peer_test.h"

enum { N_PEERS = 32 };

static struct net_listener listener;
static struct net_addr listener_addr;
static struct peer servers[N_PEERS], clients[N_PEERS], successors[N_PEERS];
static unsigned n_accepted;

static struct net_conn *on_accepted(struct net_listener *l, const struct net_addr *peer,
                                    const struct net_addr *local)
{
    struct peer *p = &servers[n_accepted++];
    p->n = nets[SERVER];
    p->c.ops = &peer_ops;
    return &p->c;
}

static void on_accept_failed(struct net_listener *l, int err)
{
    fail();
}

static const struct net_listener_ops listener_ops = {.accepted = on_accepted,
                                                     .accept_failed = on_accept_failed};

static int setup(void **state)
{
    struct net_addr any = {.family = AF_INET, .ip = {127, 0, 0, 1}};

    memset(servers, 0, sizeof(servers));
    memset(clients, 0, sizeof(clients));
    memset(successors, 0, sizeof(successors));
    n_accepted = 0;
    backend->open();
    listener = (struct net_listener){.ops = &listener_ops};
    assert_int_equal(net_listen(nets[SERVER], &listener, &any, 128), 0);
    assert_int_equal(net_listener_addr(nets[SERVER], &listener, &listener_addr), 0);
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < N_PEERS; i++) {
        peer_fini(&clients[i]);
        peer_fini(&servers[i]);
        peer_fini(&successors[i]);
    }
    net_listener_close(nets[SERVER], &listener);
    for (unsigned i = 0; i < N_NETS; i++) {
        struct net_stats s;
        net_stats_get(nets[i], &s);
        assert_int_equal(s.open, 0);
    }
    backend->close();
    return 0;
}

static void dial(struct peer *p)
{
    p->n = nets[CLIENT];
    p->c = (struct net_conn){.ops = &peer_ops};
    assert_int_equal(net_connect(p->n, &p->c, &listener_addr), 0);
}

static void connect_peers(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        dial(&clients[i]);
        PUMP_UNTIL(clients[i].n_connected == 1 && n_accepted == i + 1 && net_conn_is_open(&servers[i].c));
    }
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)((at * 31 + at / 251) & 0xff);
}

static void say(struct peer *p, const char *text)
{
    bytes_append(&p->out, text, strlen(text));
    flush(p);
}

/* Goes on with the pattern after `said` bytes of it. */
static void say_pattern(struct peer *p, size_t said, size_t len)
{
    for (size_t i = 0; i < len; i++)
        bytes_append_byte(&p->out, pattern(said + i));
    flush(p);
}

static void assert_pattern(const struct bytes *in, size_t len)
{
    assert_int_equal(in->len, len);
    for (size_t i = 0; i < len; i++) {
        if (in->data[i] != pattern(i))
            fail_msg("%s: byte %zu of %zu is wrong", backend->name, i, len);
    }
}

static void assert_heard(const struct peer *p, const char *text)
{
    assert_int_equal(p->in.len, strlen(text));
    assert_memory_equal(p->in.data, text, p->in.len);
}

static void assert_open(unsigned who, unsigned count)
{
    struct net_stats s;
    net_stats_get(nets[who], &s);
    assert_int_equal(s.open, count);
}

/* ---- held ---- */

static void held_nothing_is_told_and_afterwards_all(void **state)
{
    connect_peers(3);
    net_hold(nets[SERVER], true);
    net_hold(nets[SERVER], true);
    say(&clients[0], "while held");
    net_close(nets[CLIENT], &clients[1].c, false);
    net_close(nets[CLIENT], &clients[2].c, true);
    dial(&clients[3]);
    PUMP_UNTIL(clients[3].n_connected == 1);
    say(&clients[3], "new");
    backend->wait(30);
    assert_int_equal(n_accepted, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(servers[i].n_data + servers[i].n_closed + servers[i].n_writable, 0);
    net_hold(nets[SERVER], false);
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(n_accepted == 4 && servers[0].in.len == 10 && servers[1].n_closed == 1 &&
               servers[2].n_closed == 1 && servers[3].in.len == 3);
    assert_heard(&servers[0], "while held");
    assert_int_equal(servers[1].err, 0);
    assert_int_equal(servers[2].err, ECONNRESET);
}

static void held_it_does_not_spin(void **state)
{
    connect_peers(3);
    net_hold(nets[SERVER], true);
    say(&clients[0], "x");
    net_close(nets[CLIENT], &clients[1].c, true);
    dial(&clients[3]);
    backend->wait(30);
    assert_true(backend->is_quiet(SERVER));
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(servers[0].in.len == 1 && servers[1].n_closed == 1 && n_accepted == 4);
}

static void held_owners_can_write_and_close(void **state)
{
    connect_peers(3);
    net_hold(nets[SERVER], true);
    say(&servers[0], "from a held net");
    net_close(nets[SERVER], &servers[1].c, false);
    net_close(nets[SERVER], &servers[2].c, true);
    PUMP_UNTIL(clients[0].in.len > 0 && clients[1].n_closed == 1 && clients[2].n_closed == 1);
    assert_int_equal(clients[1].err, 0);
    assert_int_equal(clients[2].err, ECONNRESET);
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(clients[0].in.len == 15);
}

static void writable_waits_for_the_end_of_the_hold(void **state)
{
    enum { LEN = 6000 * 1000 };
    connect_peers(1);
    net_hold(nets[SERVER], true);
    say_pattern(&servers[0], 0, LEN);
    assert_true(servers[0].out.len > 0);
    backend->wait(50);
    assert_int_equal(servers[0].n_writable, 0);
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(clients[0].in.len == LEN);
    assert_true(servers[0].n_writable > 0);
    assert_pattern(&clients[0].in, LEN);
}

static void a_paused_one_that_is_reset_while_held_is_told_of_it(void **state)
{
    connect_peers(2);
    net_read_pause(nets[SERVER], &servers[0].c);
    net_read_pause(nets[SERVER], &servers[1].c);
    say(&clients[1], "x"); /* it notices that bytes wait */
    backend->wait(30);
    net_hold(nets[SERVER], true);
    net_close(nets[CLIENT], &clients[0].c, true);
    net_close(nets[CLIENT], &clients[1].c, true);
    backend->wait(30);
    assert_int_equal(servers[0].n_closed + servers[1].n_closed, 0);
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(servers[0].n_closed == 1 && servers[1].n_closed == 1);
    assert_int_equal(servers[0].err, ECONNRESET);
}

static void hold_on_data(struct peer *p)
{
    net_hold(nets[SERVER], true);
}

/* Others of the same batch: one with bytes, and one that is paused and whose reset is told only once. */
static void held_within_a_callback_the_others_wait(void **state)
{
    connect_peers(4);
    for (unsigned i = 0; i < 4; i++)
        net_read_pause(nets[SERVER], &servers[i].c);
    for (unsigned i = 0; i < 4; i++)
        say(&clients[i], "x");
    backend->wait(30);
    for (unsigned i = 0; i < 2; i++) {
        servers[i].on_data = hold_on_data;
        net_read_resume(nets[SERVER], &servers[i].c);
    }
    net_close(nets[CLIENT], &clients[2].c, true);
    net_close(nets[CLIENT], &clients[3].c, true);
    PUMP_UNTIL(servers[0].n_data + servers[1].n_data > 0);
    backend->wait(30);
    assert_int_equal(servers[0].n_data + servers[1].n_data, 1);
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(servers[0].n_data + servers[1].n_data == 2);
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(servers[2].n_closed == 1 && servers[3].n_closed == 1);
}

static bool rung;
static void ring(struct timer *t)
{
    rung = true;
}

static bool run_twice(struct loop_task *t)
{
    static unsigned runs;
    return ++runs % 2 == 0;
}

static void timers_and_tasks_go_on_while_held(void **state)
{
    struct timer t = {0};
    struct loop_task task = {.run = run_twice};

    rung = false;
    net_hold(nets[SERVER], true);
    timer_set(loops[SERVER], &t, 20, ring);
    loop_task_add(loops[SERVER], &task);
    backend->wait(60);
    assert_true(rung);
    assert_null(task.next);
    net_hold(nets[SERVER], false);
}

static void a_listener_that_rests_while_held_accepts_afterwards(void **state)
{
    net_hold(nets[SERVER], true);
    net_listener_pause(nets[SERVER], &listener);
    dial(&clients[0]);
    net_listener_resume(nets[SERVER], &listener);
    PUMP_UNTIL(clients[0].n_connected == 1);
    backend->wait(30);
    assert_int_equal(n_accepted, 0);
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(n_accepted == 1);
}

/* ---- taken over ---- */

/* successors[i] gets what servers[i] has. */
static void take(unsigned i)
{
    struct peer *p = &successors[i];
    int handle = net_conn_handle(nets[SERVER], &servers[i].c);

    assert_true(handle >= 0);
    assert_int_equal(net_conn_handle(nets[SERVER], &servers[i].c), handle);
    p->n = nets[SUCCESSOR];
    p->c = (struct net_conn){.ops = &peer_ops};
    assert_int_equal(net_take(p->n, &p->c, backend->pass(handle)), 0);
    assert_true(net_conn_is_open(&p->c));
}

static void both_held(void)
{
    net_hold(nets[SERVER], true);
    net_hold(nets[SUCCESSOR], true);
}

static void the_successor_goes_on(void **state)
{
    connect_peers(3);
    both_held();
    for (unsigned i = 0; i < 3; i++)
        take(i);
    assert_open(SERVER, 3);
    assert_open(SUCCESSOR, 3);
    say(&clients[0], "early"); /* while both have it */
    net_close(nets[CLIENT], &clients[2].c, false);
    backend->wait(30);
    for (unsigned i = 0; i < 3; i++)
        net_forget(nets[SERVER], &servers[i].c);
    assert_false(net_conn_is_open(&servers[0].c));
    assert_open(SERVER, 0);
    net_hold(nets[SUCCESSOR], false);
    net_hold(nets[SERVER], false);
    say(&successors[0], "welcome");
    PUMP_UNTIL(successors[0].in.len == 5 && clients[0].in.len == 7 && successors[2].n_closed == 1);
    assert_heard(&successors[0], "early");
    say(&clients[1], "later");
    PUMP_UNTIL(successors[1].in.len == 5);
    net_close(nets[SUCCESSOR], &successors[0].c, false);
    net_close(nets[SUCCESSOR], &successors[1].c, true);
    PUMP_UNTIL(clients[0].n_closed == 1 && clients[1].n_closed == 1);
    assert_int_equal(clients[0].err, 0);
    assert_int_equal(clients[1].err, ECONNRESET);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(servers[i].n_data + servers[i].n_closed + servers[i].n_writable, 0);
    assert_open(SUCCESSOR, 0);
}

static void given_up_the_old_one_goes_on(void **state)
{
    connect_peers(2);
    both_held();
    take(0);
    take(1);
    say(&clients[0], "meanwhile");
    net_close(nets[CLIENT], &clients[1].c, false);
    backend->wait(30);
    net_forget(nets[SUCCESSOR], &successors[0].c);
    net_forget(nets[SUCCESSOR], &successors[1].c);
    assert_open(SUCCESSOR, 0);
    assert_open(SERVER, 2);
    net_hold(nets[SERVER], false);
    PUMP_UNTIL(servers[0].in.len == 9 && servers[1].n_closed == 1);
    say(&servers[0], "as before");
    PUMP_UNTIL(clients[0].in.len == 9);
    net_close(nets[SERVER], &servers[0].c, true);
    PUMP_UNTIL(clients[0].n_closed == 1);
    assert_int_equal(clients[0].err, ECONNRESET);
    assert_int_equal(successors[0].n_data + successors[1].n_closed, 0);
}

static void a_handle_that_is_dropped_changes_nothing(void **state)
{
    connect_peers(1);
    net_drop(nets[SUCCESSOR], backend->pass(net_conn_handle(nets[SERVER], &servers[0].c)));
    say(&clients[0], "x");
    PUMP_UNTIL(servers[0].in.len == 1);
    assert_int_equal(clients[0].n_closed, 0);
}

static void a_pause_is_each_ones_own(void **state)
{
    connect_peers(2);
    net_read_pause(nets[SERVER], &servers[0].c);
    both_held();
    take(0);
    take(1);
    net_read_pause(nets[SUCCESSOR], &successors[1].c);
    say(&clients[0], "x");
    say(&clients[1], "y");
    net_forget(nets[SERVER], &servers[0].c);
    net_forget(nets[SERVER], &servers[1].c);
    net_hold(nets[SUCCESSOR], false);
    PUMP_UNTIL(successors[0].in.len == 1);
    backend->wait(30);
    assert_int_equal(successors[1].n_data, 0);
    assert_true(backend->is_quiet(SUCCESSOR));
    net_read_resume(nets[SUCCESSOR], &successors[1].c);
    PUMP_UNTIL(successors[1].in.len == 1);
    net_hold(nets[SERVER], false);
}

static void writable_is_owed_by_the_net_that_wrote(void **state)
{
    connect_peers(1);
    net_read_pause(nets[CLIENT], &clients[0].c);
    say_pattern(&servers[0], 0, 6000 * 1000);
    assert_true(servers[0].out.len > 0);
    both_held();
    take(0);
    net_forget(nets[SERVER], &servers[0].c);
    net_hold(nets[SUCCESSOR], false);
    net_read_resume(nets[CLIENT], &clients[0].c);
    backend->wait(100);
    assert_int_equal(successors[0].n_writable, 0);
    bytes_append(&successors[0].out, servers[0].out.data, servers[0].out.len);
    flush(&successors[0]);
    PUMP_UNTIL(clients[0].in.len == 6000 * 1000);
    assert_pattern(&clients[0].in, 6000 * 1000);
    net_hold(nets[SERVER], false);
}

static void what_the_last_forgets_is_closed(void **state)
{
    connect_peers(1);
    net_forget(nets[SERVER], &servers[0].c);
    assert_open(SERVER, 0);
    PUMP_UNTIL(clients[0].n_closed == 1);
    assert_int_equal(clients[0].err, 0);
    backend->wait(20);
    assert_int_equal(servers[0].n_closed, 0);
}

static void a_successor_that_is_closed_says_nothing_to_the_old_one(void **state)
{
    connect_peers(1);
    both_held();
    take(0);
    net_forget(nets[SERVER], &servers[0].c);
    net_hold(nets[SERVER], false);
    net_hold(nets[SUCCESSOR], false);
    dial(&clients[1]); /* may get the number of the one that was forgotten */
    PUMP_UNTIL(n_accepted == 2 && net_conn_is_open(&servers[1].c));
    say(&clients[0], "to the successor");
    say(&clients[1], "to the server");
    PUMP_UNTIL(successors[0].in.len == 16 && servers[1].in.len == 13);
    net_close(nets[CLIENT], &clients[0].c, true);
    PUMP_UNTIL(successors[0].n_closed == 1);
    assert_true(backend->is_quiet(SERVER));
    assert_int_equal(servers[1].n_closed, 0);
}

/* ---- everything at once: a server's side that moves to and fro while bytes run both ways ---- */

/* p moves to the net that it is not in; or does not, after all. */
static void move(struct peer *from, struct peer *to, bool give_up)
{
    struct net *other = from->n == nets[SERVER] ? nets[SUCCESSOR] : nets[SERVER];

    net_hold(from->n, true);
    net_hold(other, true);
    for (unsigned i = draw(20); i > 0; i--)
        backend->step();
    *to = (struct peer){.n = other, .c.ops = &peer_ops};
    assert_int_equal(net_take(other, &to->c, backend->pass(net_conn_handle(from->n, &from->c))), 0);
    for (unsigned i = draw(20); i > 0; i--)
        backend->step();
    if (give_up) {
        net_forget(other, &to->c);
    } else {
        to->in = from->in;
        to->out = from->out;
        from->in = from->out = (struct bytes){0};
        net_forget(from->n, &from->c);
    }
    net_hold(from->n, false);
    net_hold(other, false);
    flush(give_up ? from : to);
}

static void moving_loses_nothing(void **state)
{
    enum { N = 4, LEN = 300 * 1000 };
    struct peer *now[N];

    random_state = 7;
    connect_peers(N);
    for (unsigned i = 0; i < N; i++)
        now[i] = &servers[i];
    for (size_t said = 0; said < LEN; said += 3000) {
        unsigned i = draw(N);
        for (unsigned k = 0; k < N; k++) {
            say_pattern(&clients[k], said, 3000);
            say_pattern(now[k], said, 3000);
        }
        struct peer *twin = now[i] == &servers[i] ? &successors[i] : &servers[i];
        bool give_up = draw(4) == 0;
        move(now[i], twin, give_up);
        now[i] = give_up ? now[i] : twin;
    }
    for (unsigned i = 0; i < N; i++) {
        PUMP_UNTIL(clients[i].in.len == LEN && now[i]->in.len == LEN);
        assert_pattern(&clients[i].in, LEN);
        assert_pattern(&now[i]->in, LEN);
        assert_int_equal(clients[i].n_closed + now[i]->n_closed, 0);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(held_nothing_is_told_and_afterwards_all),
        T(held_it_does_not_spin),
        T(held_owners_can_write_and_close),
        T(writable_waits_for_the_end_of_the_hold),
        T(a_paused_one_that_is_reset_while_held_is_told_of_it),
        T(held_within_a_callback_the_others_wait),
        T(timers_and_tasks_go_on_while_held),
        T(a_listener_that_rests_while_held_accepts_afterwards),
        T(the_successor_goes_on),
        T(given_up_the_old_one_goes_on),
        T(a_handle_that_is_dropped_changes_nothing),
        T(a_pause_is_each_ones_own),
        T(writable_is_owed_by_the_net_that_wrote),
        T(what_the_last_forgets_is_closed),
        T(a_successor_that_is_closed_says_nothing_to_the_old_one),
        T(moving_loses_nothing),
    };
    int failed = 0;
    while (next_backend())
        failed += cmocka_run_group_tests_name(backend->name, tests, NULL, NULL);
    return failed;
}
