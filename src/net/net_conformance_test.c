// SPDX-License-Identifier: MIT
/* What net.h promises, against every back end. A server and a client, each with a loop and a net of its own.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "net/net_conformance.h"

/* ---- one end of a connection that notes everything ---- */

struct peer {
    struct net_conn c; /* first: so that a net_conn is its peer */
    struct net *n;
    struct bytes in;
    struct bytes out; /* still to be written */
    unsigned n_connected, n_data, n_writable, n_closed;
    int err;
    void (*on_data)(struct peer *p);
    void (*on_closed)(struct peer *p);
    struct peer *other; /* for on_data, on_closed */
    struct net_addr remote, local;
};

static bool inside_call; /* of a function of net: no callback may come now */
#define CALL(call) (inside_call = true, (call), inside_call = false)

static void flush(struct peer *p)
{
    while (p->out.len > 0 && net_conn_is_open(&p->c)) {
        struct iovec iov[3];
        int n_iov = 0;
        for (size_t at = 0; at < p->out.len && n_iov < 3; n_iov++) { /* 1, 1000 bytes, and the rest */
            size_t left = p->out.len - at, len = n_iov == 0 ? 1 : n_iov == 1 ? 1000 : left;
            iov[n_iov] = (struct iovec){p->out.data + at, len < left ? len : left};
            at += iov[n_iov].iov_len;
        }
        size_t asked = 0;
        for (int i = 0; i < n_iov; i++)
            asked += iov[i].iov_len;
        ssize_t taken = -1;
        CALL(taken = net_writev(p->n, &p->c, iov, n_iov));
        if (taken < 0)
            return;
        assert_true((size_t)taken <= asked);
        bytes_consume(&p->out, (size_t)taken);
        if ((size_t)taken < asked)
            return;
    }
}

static void on_data(struct net_conn *c, uint8_t *data, size_t len)
{
    struct peer *p = (struct peer *)c;
    assert_false(inside_call);
    assert_true(net_conn_is_open(c));
    assert_true(len > 0 && len <= NET_READ_SIZE);
    bytes_append(&p->in, data, len);
    memset(data, 0xdd, len); /* it is ours to spoil */
    p->n_data++;
    if (p->on_data != NULL)
        p->on_data(p);
}

static void on_writable(struct net_conn *c)
{
    struct peer *p = (struct peer *)c;
    assert_false(inside_call);
    assert_true(net_conn_is_open(c));
    p->n_writable++;
    flush(p);
}

static void on_closed(struct net_conn *c, int err)
{
    struct peer *p = (struct peer *)c;
    assert_false(inside_call);
    assert_false(net_conn_is_open(c));
    assert_true(err >= 0);
    p->n_closed++;
    p->err = err;
    if (p->on_closed != NULL)
        p->on_closed(p);
}

static void on_connected(struct net_conn *c)
{
    struct peer *p = (struct peer *)c;
    assert_false(inside_call);
    assert_true(net_conn_is_open(c));
    assert_int_equal(p->n_data, 0);
    p->n_connected++;
}

static const struct net_conn_ops peer_ops = {
    .data = on_data, .writable = on_writable, .closed = on_closed, .connected = on_connected};

static void say(struct peer *p, const void *data, size_t len)
{
    bytes_append(&p->out, data, len);
    flush(p);
}

static void drop(struct peer *p, bool hard)
{
    if (net_conn_is_open(&p->c))
        CALL(net_close(p->n, &p->c, hard));
}

/* ---- a listener that takes the peers of `waiting` one after the other ---- */

enum { N_PEERS = 64 };

static struct net_listener listener;
static struct net_addr listener_addr;
static struct peer servers[N_PEERS], clients[N_PEERS];
static unsigned n_accepted, n_refused, n_accept_failed;
static bool refuse;

static struct net_conn *on_accepted(struct net_listener *l, const struct net_addr *peer,
                                    const struct net_addr *local)
{
    assert_false(inside_call);
    assert_ptr_equal(l, &listener);
    if (refuse) {
        n_refused++;
        return NULL;
    }
    assert_true(n_accepted < N_PEERS);
    struct peer *p = &servers[n_accepted++];
    p->n = nets[SERVER];
    p->c.ops = &peer_ops;
    p->remote = *peer;
    p->local = *local;
    return &p->c;
}

static void on_accept_failed(struct net_listener *l, int err)
{
    assert_false(inside_call);
    assert_int_equal(err, EMFILE);
    n_accept_failed++;
}

static const struct net_listener_ops listener_ops = {.accepted = on_accepted,
                                                     .accept_failed = on_accept_failed};

static int setup(void **state)
{
    struct net_addr any = {.family = AF_INET, .ip = {127, 0, 0, 1}};

    memset(servers, 0, sizeof(servers));
    memset(clients, 0, sizeof(clients));
    n_accepted = n_refused = n_accept_failed = 0;
    refuse = false;
    backend->open();
    listener = (struct net_listener){.ops = &listener_ops};
    assert_int_equal(net_listen(nets[SERVER], &listener, &any, 128), 0);
    assert_int_equal(net_listener_addr(nets[SERVER], &listener, &listener_addr), 0);
    assert_true(listener_addr.port != 0);
    return 0;
}

static int teardown(void **state)
{
    struct net_stats s;

    for (unsigned i = 0; i < N_PEERS; i++) {
        drop(&clients[i], true);
        drop(&servers[i], true);
        bytes_fini(&clients[i].in);
        bytes_fini(&clients[i].out);
        bytes_fini(&servers[i].in);
        bytes_fini(&servers[i].out);
    }
    if (listener.handle != 0)
        net_listener_close(nets[SERVER], &listener);
    for (unsigned i = 0; i < N_NETS; i++) {
        net_stats_get(nets[i], &s);
        assert_int_equal(s.open, 0);
    }
    backend->close();
    return 0;
}

static void dial(struct peer *p)
{
    int r = -1;
    p->n = nets[CLIENT];
    p->c = (struct net_conn){.ops = &peer_ops};
    CALL(r = net_connect(p->n, &p->c, &listener_addr));
    assert_int_equal(r, 0);
    assert_true(net_conn_is_open(&p->c));
}

/* n connections, clients[i] to servers[i]. */
static void connect_peers(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned before = n_accepted;
        dial(&clients[i]);
        PUMP_UNTIL(clients[i].n_connected == 1 && n_accepted == before + 1 &&
                   net_conn_is_open(&servers[i].c));
    }
}

static uint8_t pattern(size_t at, unsigned stream)
{
    return (uint8_t)((at * 31 + at / 251 + stream * 17) & 0xff);
}

static void say_pattern(struct peer *p, size_t len, unsigned stream)
{
    bytes_reserve(&p->out, len);
    for (size_t i = 0; i < len; i++)
        bytes_append_byte(&p->out, pattern(i, stream));
    flush(p);
}

static void assert_pattern(const struct peer *p, size_t len, unsigned stream)
{
    assert_int_equal(p->in.len, len);
    for (size_t i = 0; i < len; i++) {
        if (p->in.data[i] != pattern(i, stream))
            fail_msg("%s: byte %zu of %zu is wrong", backend->name, i, len);
    }
}

/* ---- connecting ---- */

static void accepted_tells_both_addresses(void **state)
{
    struct net_stats s;
    connect_peers(1);
    assert_int_equal(servers[0].remote.family, AF_INET);
    assert_true(servers[0].remote.port != 0);
    assert_int_equal(servers[0].local.port, listener_addr.port);
    assert_memory_equal(servers[0].local.ip, listener_addr.ip, 4);
    net_stats_get(nets[SERVER], &s);
    assert_int_equal(s.accepts, 1);
    assert_int_equal(s.open, 1);
    net_stats_get(nets[CLIENT], &s);
    assert_int_equal(s.open, 1);
}

static void a_refused_connection_is_reset(void **state)
{
    refuse = true;
    dial(&clients[0]);
    PUMP_UNTIL(clients[0].n_closed == 1);
    assert_int_equal(clients[0].err, ECONNRESET);
    assert_int_equal(n_refused, 1);
    refuse = false;
    connect_peers(1);
}

static void connecting_to_nobody_fails(void **state)
{
    int r;
    struct peer *p = &clients[0];
    net_listener_close(nets[SERVER], &listener);
    p->n = nets[CLIENT];
    p->c.ops = &peer_ops;
    CALL(r = net_connect(p->n, &p->c, &listener_addr));
    if (r == 0)
        PUMP_UNTIL(p->n_closed == 1);
    else
        p->err = -r; /* a back end may know at once */
    assert_int_equal(p->err, ECONNREFUSED);
    assert_int_equal(p->n_connected, 0);
    assert_false(net_conn_is_open(&p->c));
}

static void closed_while_connecting_says_nothing_more(void **state)
{
    dial(&clients[0]);
    drop(&clients[0], false);
    backend->wait(30);
    assert_int_equal(clients[0].n_connected + clients[0].n_closed, 0);
    if (n_accepted > 0)
        PUMP_UNTIL(servers[0].n_closed == 1);
}

static void what_is_written_while_connecting_arrives(void **state)
{
    dial(&clients[0]);
    say(&clients[0], "early", 5);
    PUMP_UNTIL(servers[0].in.len == 5);
    assert_memory_equal(servers[0].in.data, "early", 5);
    assert_int_equal(clients[0].n_connected, 1);
}

static void a_paused_listener_leaves_them_in_the_queue(void **state)
{
    CALL(net_listener_pause(nets[SERVER], &listener));
    CALL(net_listener_pause(nets[SERVER], &listener));
    for (unsigned i = 0; i < 5; i++)
        dial(&clients[i]);
    for (unsigned i = 0; i < 5; i++)
        PUMP_UNTIL(clients[i].n_connected == 1);
    say(&clients[0], "hi", 2);
    backend->wait(30);
    assert_int_equal(n_accepted, 0);
    CALL(net_listener_resume(nets[SERVER], &listener));
    CALL(net_listener_resume(nets[SERVER], &listener));
    PUMP_UNTIL(n_accepted == 5);
    PUMP_UNTIL(servers[0].in.len + servers[1].in.len + servers[2].in.len + servers[3].in.len +
                   servers[4].in.len ==
               2);
}

static void after_accept_failed_it_goes_on_by_itself(void **state)
{
    CALL(net_listener_pause(nets[SERVER], &listener));
    dial(&clients[0]);
    PUMP_UNTIL(clients[0].n_connected == 1);
    backend->accepts_fail(true);
    CALL(net_listener_resume(nets[SERVER], &listener));
    PUMP_UNTIL(n_accept_failed > 0);
    assert_int_equal(n_accepted, 0);
    backend->wait(20);
    assert_int_equal(n_accept_failed, 1); /* it rests, it does not spin */
    backend->accepts_fail(false);
    PUMP_UNTIL(n_accepted == 1);
}

static void a_listener_can_close_while_it_rests(void **state)
{
    CALL(net_listener_pause(nets[SERVER], &listener));
    dial(&clients[0]);
    PUMP_UNTIL(clients[0].n_connected == 1);
    backend->accepts_fail(true);
    CALL(net_listener_resume(nets[SERVER], &listener));
    PUMP_UNTIL(n_accept_failed > 0);
    backend->accepts_fail(false);
    CALL(net_listener_close(nets[SERVER], &listener));
    PUMP_UNTIL(clients[0].n_closed == 1);
    assert_int_equal(n_accepted, 0);
}

static void a_second_listener_on_the_same_address_fails(void **state)
{
    struct net_listener second = {.ops = &listener_ops};
    assert_int_equal(net_listen(nets[SERVER], &second, &listener_addr, 1), -EADDRINUSE);
    assert_int_equal(second.handle, 0);
}

static void many_at_once(void **state)
{
    for (unsigned i = 0; i < N_PEERS; i++)
        dial(&clients[i]);
    PUMP_UNTIL(n_accepted == N_PEERS);
    for (unsigned i = 0; i < N_PEERS; i++)
        PUMP_UNTIL(clients[i].n_connected == 1);
}

/* ---- bytes ---- */

static void data_goes_both_ways(void **state)
{
    connect_peers(1);
    say(&clients[0], "hello", 5);
    say(&servers[0], "welcome", 7);
    PUMP_UNTIL(servers[0].in.len == 5 && clients[0].in.len == 7);
    assert_memory_equal(servers[0].in.data, "hello", 5);
    assert_memory_equal(clients[0].in.data, "welcome", 7);
}

/* With both: who answers stays, however long nothing is said. */
static void keepalive_leaves_those_alone_who_are_there(void **state)
{
    const struct net_keepalive k = {1, 1, 1, 1000};

    for (unsigned who = SERVER; who <= CLIENT; who++)
        net_set_keepalive(nets[who], &k);
    net_listener_close(nets[SERVER], &listener);
    assert_int_equal(net_listen(nets[SERVER], &listener, &listener_addr, 128), 0);
    connect_peers(1);
    backend->wait(2500);
    say(&clients[0], "ping", 4);
    say(&servers[0], "pong!", 5);
    PUMP_UNTIL(servers[0].in.len == 4 && clients[0].in.len == 5);
    assert_int_equal(servers[0].n_closed + clients[0].n_closed, 0);
}

static void large_transfers_pass_through_short_writes(void **state)
{
    enum { LEN = 6 * 1000 * 1000 };
    struct net_stats s, c;
    connect_peers(1);
    say_pattern(&clients[0], LEN, 1);
    say_pattern(&servers[0], LEN, 2);
    PUMP_UNTIL(servers[0].in.len == LEN && clients[0].in.len == LEN);
    assert_pattern(&servers[0], LEN, 1);
    assert_pattern(&clients[0], LEN, 2);
    assert_true(clients[0].n_writable > 0);
    assert_true(servers[0].n_writable > 0);
    net_stats_get(nets[SERVER], &s);
    net_stats_get(nets[CLIENT], &c);
    assert_int_equal(s.read_bytes, LEN);
    assert_int_equal(s.written_bytes, LEN);
    assert_int_equal(c.read_bytes, LEN);
    assert_int_equal(c.written_bytes, LEN);
    assert_true(s.reads > 0 && s.writes > 0);
}

static void many_pieces_in_one_write(void **state)
{
    struct iovec iov[NET_IOV_MAX];
    char text[NET_IOV_MAX * 3 + 1];
    size_t len = 0;

    connect_peers(1);
    for (unsigned i = 0; i < NET_IOV_MAX; i++) {
        size_t n = i % 4; /* empty ones too */
        iov[i] = (struct iovec){text + len, n};
        memset(text + len, 'a' + (int)(i % 26), n);
        len += n;
    }
    assert_int_equal(net_writev(nets[CLIENT], &clients[0].c, iov, NET_IOV_MAX), len);
    PUMP_UNTIL(servers[0].in.len == len);
    assert_memory_equal(servers[0].in.data, text, len);
}

static void writable_comes_once_for_a_short_write(void **state)
{
    connect_peers(1);
    CALL(net_read_pause(nets[SERVER], &servers[0].c));
    say_pattern(&clients[0], 8 * 1000 * 1000, 1);
    assert_true(clients[0].out.len > 0);
    backend->wait(20);
    bytes_clear(&clients[0].out); /* has nothing more to say */
    CALL(net_read_resume(nets[SERVER], &servers[0].c));
    unsigned before = clients[0].n_writable;
    PUMP_UNTIL(clients[0].n_writable > before);
    backend->wait(20);
    assert_int_equal(clients[0].n_writable, before + 1);
}

static void echo(struct peer *p)
{
    bytes_append(&p->out, p->in.data, p->in.len);
    bytes_clear(&p->in);
    flush(p);
}

static void an_echo_that_writes_within_data(void **state)
{
    connect_peers(1);
    servers[0].on_data = echo;
    say_pattern(&clients[0], 1000 * 1000, 3);
    PUMP_UNTIL(clients[0].in.len == 1000 * 1000);
    assert_pattern(&clients[0], 1000 * 1000, 3);
}

/* ---- pausing ---- */

static void nothing_comes_while_paused_and_all_of_it_after(void **state)
{
    connect_peers(1);
    CALL(net_read_pause(nets[SERVER], &servers[0].c));
    CALL(net_read_pause(nets[SERVER], &servers[0].c));
    say(&clients[0], "abc", 3);
    backend->wait(20);
    say(&clients[0], "def", 3);
    drop(&clients[0], false);
    backend->wait(20);
    assert_true(backend->is_quiet(SERVER));
    assert_int_equal(servers[0].n_data, 0);
    assert_int_equal(servers[0].n_closed, 0); /* a mere FIN waits, too */
    CALL(net_read_resume(nets[SERVER], &servers[0].c));
    CALL(net_read_resume(nets[SERVER], &servers[0].c));
    PUMP_UNTIL(servers[0].n_closed == 1);
    assert_int_equal(servers[0].in.len, 6);
    assert_memory_equal(servers[0].in.data, "abcdef", 6);
    assert_int_equal(servers[0].err, 0);
}

static void pause_self(struct peer *p)
{
    CALL(net_read_pause(p->n, &p->c));
}

static void paused_within_data_it_stays_quiet(void **state)
{
    connect_peers(1);
    servers[0].on_data = pause_self;
    say_pattern(&clients[0], 2 * 1000 * 1000, 4);
    PUMP_UNTIL(servers[0].n_data == 1);
    backend->wait(20);
    assert_int_equal(servers[0].n_data, 1);
    while (servers[0].in.len < 2 * 1000 * 1000) {
        unsigned before = servers[0].n_data;
        CALL(net_read_resume(nets[SERVER], &servers[0].c));
        PUMP_UNTIL(servers[0].n_data > before);
    }
    assert_pattern(&servers[0], 2 * 1000 * 1000, 4);
}

static void a_pause_taken_back_at_once_loses_nothing(void **state)
{
    connect_peers(1);
    for (unsigned i = 0; i < 50; i++) {
        CALL(net_read_pause(nets[SERVER], &servers[0].c));
        say(&clients[0], "x", 1);
        if (i % 2 == 0)
            backend->step();
        CALL(net_read_resume(nets[SERVER], &servers[0].c));
    }
    PUMP_UNTIL(servers[0].in.len == 50);
}

static void a_reset_is_told_while_paused(void **state)
{
    connect_peers(2);
    CALL(net_read_pause(nets[SERVER], &servers[0].c));
    CALL(net_read_pause(nets[SERVER], &servers[1].c));
    say(&clients[1], "x", 1);
    backend->wait(20); /* that one has noticed that bytes wait */
    drop(&clients[0], true);
    drop(&clients[1], true);
    PUMP_UNTIL(servers[0].n_closed == 1 && servers[1].n_closed == 1);
    assert_int_equal(servers[0].err, ECONNRESET);
    assert_int_equal(servers[1].err, ECONNRESET);
}

static void write_and_pause(struct peer *p)
{
    struct iovec iov = {(char[]){"x"}, 1};
    CALL(net_writev(p->n, &p->c, &iov, 1));
    CALL(net_writev(p->n, &p->c, &iov, 1));
    CALL(net_read_pause(p->n, &p->c));
}

/* The write gets to know of the reset before the read side does, and its owner may not look at that. */
static void a_reset_that_a_write_saw_is_told_while_paused(void **state)
{
    connect_peers(1);
    servers[0].on_data = write_and_pause;
    CALL(net_read_pause(nets[SERVER], &servers[0].c));
    say(&clients[0], "a", 1);
    backend->wait(20);
    CALL(net_read_resume(nets[SERVER], &servers[0].c));
    drop(&clients[0], true);
    PUMP_UNTIL(servers[0].n_closed == 1);
    assert_true(servers[0].err != 0);
}

static void paused_it_can_still_write(void **state)
{
    connect_peers(1);
    CALL(net_read_pause(nets[SERVER], &servers[0].c));
    say(&clients[0], "x", 1);
    say_pattern(&servers[0], 5 * 1000 * 1000, 5);
    PUMP_UNTIL(clients[0].in.len == 5 * 1000 * 1000);
    assert_pattern(&clients[0], 5 * 1000 * 1000, 5);
    assert_int_equal(servers[0].n_data, 0);
    CALL(net_read_resume(nets[SERVER], &servers[0].c));
    PUMP_UNTIL(servers[0].in.len == 1);
}

/* ---- the end ---- */

static void fin_comes_after_all_data(void **state)
{
    connect_peers(1);
    say_pattern(&servers[0], 50000, 6);
    PUMP_UNTIL(servers[0].out.len == 0);
    drop(&servers[0], false);
    PUMP_UNTIL(clients[0].n_closed == 1);
    assert_int_equal(clients[0].err, 0);
    assert_pattern(&clients[0], 50000, 6);
    backend->wait(10);
    assert_int_equal(clients[0].n_closed, 1);
    assert_int_equal(servers[0].n_closed, 0); /* who closes is not told */
}

static void a_hard_close_is_a_reset(void **state)
{
    connect_peers(1);
    drop(&servers[0], true);
    PUMP_UNTIL(clients[0].n_closed == 1);
    assert_int_equal(clients[0].err, ECONNRESET);
}

static void after_shutdown_reading_goes_on(void **state)
{
    connect_peers(1);
    CALL(net_read_pause(nets[SERVER], &servers[0].c)); /* else it would end at the FIN */
    say(&clients[0], "last words", 10);
    PUMP_UNTIL(clients[0].out.len == 0);
    CALL(net_shutdown(nets[CLIENT], &clients[0].c));
    backend->wait(10);
    say_pattern(&servers[0], 3000, 7);
    PUMP_UNTIL(clients[0].in.len == 3000);
    assert_int_equal(clients[0].n_closed, 0);
    CALL(net_read_resume(nets[SERVER], &servers[0].c));
    PUMP_UNTIL(servers[0].n_closed == 1);
    assert_int_equal(servers[0].err, 0);
    assert_int_equal(servers[0].in.len, 10);
    PUMP_UNTIL(clients[0].n_closed == 1);
    assert_int_equal(clients[0].err, 0);
}

static void both_shut_down_while_paused_is_quiet(void **state)
{
    connect_peers(1);
    CALL(net_read_pause(nets[SERVER], &servers[0].c));
    CALL(net_read_pause(nets[CLIENT], &clients[0].c));
    say(&clients[0], "x", 1);
    CALL(net_shutdown(nets[CLIENT], &clients[0].c));
    CALL(net_shutdown(nets[SERVER], &servers[0].c));
    backend->wait(30);
    assert_int_equal(servers[0].n_closed + clients[0].n_closed, 0);
    assert_true(backend->is_quiet(SERVER));
    assert_true(backend->is_quiet(CLIENT));
    CALL(net_read_resume(nets[SERVER], &servers[0].c));
    CALL(net_read_resume(nets[CLIENT], &clients[0].c));
    PUMP_UNTIL(servers[0].n_closed == 1 && clients[0].n_closed == 1);
    assert_int_equal(servers[0].in.len, 1);
    assert_int_equal(servers[0].err, 0);
    assert_int_equal(clients[0].err, 0);
}

static void writing_to_who_is_gone_fails_or_closes(void **state)
{
    connect_peers(1);
    drop(&servers[0], true);
    for (unsigned i = 0; i < 1000 && clients[0].n_closed == 0; i++) {
        char x = 'x';
        struct iovec iov = {&x, 1};
        ssize_t r = -1;
        CALL(r = net_writev(nets[CLIENT], &clients[0].c, &iov, 1));
        if (r < 0) {
            assert_true(r == -ECONNRESET || r == -EPIPE);
            drop(&clients[0], false);
            return;
        }
        backend->step();
    }
    assert_int_equal(clients[0].n_closed, 1);
    assert_true(clients[0].err == ECONNRESET || clients[0].err == EPIPE);
}

/* ---- closing within callbacks ---- */

static void drop_self(struct peer *p)
{
    drop(p, false);
}

static void a_connection_can_close_itself_within_data(void **state)
{
    connect_peers(1);
    servers[0].on_data = drop_self;
    say(&clients[0], "bye", 3);
    PUMP_UNTIL(clients[0].n_closed == 1);
    assert_int_equal(servers[0].n_closed, 0);
    assert_int_equal(servers[0].n_data, 1);
}

static void drop_other(struct peer *p)
{
    drop(p->other, false);
}

static void a_connection_can_close_another_that_has_data_in_the_same_batch(void **state)
{
    connect_peers(2);
    for (unsigned i = 0; i < 2; i++) {
        servers[i].other = &servers[1 - i];
        servers[i].on_data = drop_other;
        CALL(net_read_pause(nets[SERVER], &servers[i].c));
    }
    say(&clients[0], "a", 1);
    say(&clients[1], "b", 1);
    backend->wait(20);
    for (unsigned i = 0; i < 2; i++)
        CALL(net_read_resume(nets[SERVER], &servers[i].c));
    PUMP_UNTIL(servers[0].n_data + servers[1].n_data > 0);
    backend->wait(20);
    assert_int_equal(servers[0].n_data + servers[1].n_data, 1);
    assert_int_equal(servers[0].n_closed + servers[1].n_closed, 0);
}

/* The back end may give the new connection the number of the old one: what was meant for the old must not
 * reach it. */
static void replace_other(struct peer *p)
{
    struct peer *fresh = &servers[N_PEERS - 1];
    if (fresh->c.ops != NULL)
        return;
    drop(p->other, false);
    fresh->n = nets[SERVER];
    fresh->c.ops = &peer_ops;
    int r = -1;
    CALL(r = net_connect(nets[SERVER], &fresh->c, &listener_addr));
    assert_int_equal(r, 0);
}

static void a_stale_event_does_not_reach_the_successor(void **state)
{
    struct peer *fresh = &servers[N_PEERS - 1];
    connect_peers(2);
    for (unsigned i = 0; i < 2; i++) {
        servers[i].other = &servers[1 - i];
        servers[i].on_data = replace_other;
        CALL(net_read_pause(nets[SERVER], &servers[i].c));
    }
    say(&clients[0], "a", 1);
    say(&clients[1], "b", 1);
    backend->wait(20);
    for (unsigned i = 0; i < 2; i++)
        CALL(net_read_resume(nets[SERVER], &servers[i].c));
    PUMP_UNTIL(n_accepted == 3 && fresh->n_connected == 1); /* servers[2] is its other end */
    backend->wait(20);
    assert_int_equal(fresh->n_data + fresh->n_writable + fresh->n_closed, 0);
    say(&servers[2], "z", 1);
    PUMP_UNTIL(fresh->in.len == 1);
}

static void dial_again(struct peer *p)
{
    if (p->n_closed < 5)
        dial(p);
}

static void a_struct_can_be_used_again_within_closed(void **state)
{
    refuse = true;
    clients[0].on_closed = dial_again;
    dial(&clients[0]);
    PUMP_UNTIL(clients[0].n_closed == 5);
    assert_int_equal(n_refused, 5);
}

static void close_listener(struct peer *p)
{
    CALL(net_listener_close(nets[SERVER], &listener));
}

static void a_listener_can_be_closed_within_a_callback(void **state)
{
    connect_peers(1);
    servers[0].on_data = close_listener;
    say(&clients[0], "x", 1);
    dial(&clients[1]);
    PUMP_UNTIL(listener.handle == 0);
    PUMP_UNTIL(clients[1].n_closed == 1 || n_accepted == 2);
}

/* ---- everything at once ---- */

static void random_act(struct peer *p, unsigned stream, size_t *said)
{
    if (!net_conn_is_open(&p->c))
        return;
    switch (draw(40)) {
    case 0: drop(p, draw(2) == 0); break;
    case 1: CALL(net_read_pause(p->n, &p->c)); break;
    case 2:
    case 3:
    case 4: CALL(net_read_resume(p->n, &p->c)); break;
    default:
        for (size_t n = draw(4) == 0 ? draw(100000) : draw(100); n > 0; n--)
            bytes_append_byte(&p->out, pattern((*said)++, stream));
        flush(p);
    }
}

static void assert_prefix(const struct peer *p, unsigned stream, size_t said)
{
    assert_true(p->in.len <= said);
    assert_pattern(p, p->in.len, stream);
}

static void random_life_round(unsigned seed)
{
    enum { N = 12 };
    size_t said[2 * N] = {0};

    random_state = seed;
    connect_peers(N);
    for (unsigned round = 0; round < 600; round++) {
        unsigned i = draw(N);
        if (draw(2) == 0)
            random_act(&clients[i], i, &said[i]);
        else
            random_act(&servers[i], N + i, &said[N + i]);
        backend->step();
    }
    for (unsigned i = 0; i < N; i++) {
        drop(&clients[i], false);
        if (net_conn_is_open(&servers[i].c))
            CALL(net_read_resume(nets[SERVER], &servers[i].c));
    }
    for (unsigned i = 0; i < N; i++) {
        PUMP_UNTIL(!net_conn_is_open(&servers[i].c));
        assert_true(servers[i].n_closed <= 1 && clients[i].n_closed <= 1);
        assert_prefix(&servers[i], i, said[i]);
        assert_prefix(&clients[i], N + i, said[N + i]);
        if (servers[i].n_closed == 1 && servers[i].err == 0) /* an orderly end: nothing is missing */
            assert_int_equal(servers[i].in.len, said[i] - clients[i].out.len);
    }
}

static void random_life(void **state)
{
    for (unsigned seed = 1; seed <= 8; seed++) {
        random_life_round(seed);
        teardown(NULL);
        setup(NULL);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(accepted_tells_both_addresses),
        T(a_refused_connection_is_reset),
        T(connecting_to_nobody_fails),
        T(closed_while_connecting_says_nothing_more),
        T(what_is_written_while_connecting_arrives),
        T(a_paused_listener_leaves_them_in_the_queue),
        T(after_accept_failed_it_goes_on_by_itself),
        T(a_listener_can_close_while_it_rests),
        T(a_second_listener_on_the_same_address_fails),
        T(many_at_once),
        T(data_goes_both_ways),
        T(keepalive_leaves_those_alone_who_are_there),
        T(large_transfers_pass_through_short_writes),
        T(many_pieces_in_one_write),
        T(writable_comes_once_for_a_short_write),
        T(an_echo_that_writes_within_data),
        T(nothing_comes_while_paused_and_all_of_it_after),
        T(paused_within_data_it_stays_quiet),
        T(a_pause_taken_back_at_once_loses_nothing),
        T(a_reset_is_told_while_paused),
        T(a_reset_that_a_write_saw_is_told_while_paused),
        T(paused_it_can_still_write),
        T(fin_comes_after_all_data),
        T(a_hard_close_is_a_reset),
        T(after_shutdown_reading_goes_on),
        T(both_shut_down_while_paused_is_quiet),
        T(writing_to_who_is_gone_fails_or_closes),
        T(a_connection_can_close_itself_within_data),
        T(a_connection_can_close_another_that_has_data_in_the_same_batch),
        T(a_stale_event_does_not_reach_the_successor),
        T(a_struct_can_be_used_again_within_closed),
        T(a_listener_can_be_closed_within_a_callback),
        T(random_life),
    };
    int failed = 0;
    while (next_backend())
        failed += cmocka_run_group_tests_name(backend->name, tests, NULL, NULL);
    return failed;
}
