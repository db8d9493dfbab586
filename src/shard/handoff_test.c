// SPDX-License-Identifier: MIT
/* Shards as loops in one process, on real sockets; clients in a child process where they are many. */
#include "shard/handoff.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/list.h"
#include "loop/loop.h"
#include "net/net.h"
#include "net/net_epoll.h"

#define MS         UINT64_C(1000000)
#define BACKLOG    4096
#define SHARDS_MAX 8
#define SECOND     (CONFIG_LISTEN_MAX - 1) /* slot of the second listener */

struct shard_under_test {
    unsigned me;
    struct loop *loop;
    struct net *net;
    struct handoff *handoff;
    struct net_listener client, second, internal;
    struct handoff_listener listeners[CONFIG_LISTEN_MAX];
    struct counters counters;
    struct list conns;
    unsigned on_second;
};

struct conn {
    struct net_conn net;
    struct list node;
    struct shard_under_test *shard;
    uint32_t *counted_in;
};

static struct node node;
static struct shard_under_test shards[SHARDS_MAX];
static int client_fds[SHARDS_MAX], second_fds[SHARDS_MAX], internal_fd;
static uint16_t client_port, second_port, internal_port;
static uint32_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % n;
}

static struct node_shard *figures(unsigned i)
{
    return &node.shared->shards[i];
}

/* ---- what a shard does with connections */

static void conn_gone(struct conn *c)
{
    NODE_STORE(*c->counted_in, *c->counted_in - 1);
    list_remove(&c->node);
    free(c);
}
static void on_data(struct net_conn *c, uint8_t *data, size_t len)
{
}
static void on_writable(struct net_conn *c)
{
}
static void on_closed(struct net_conn *c, int err)
{
    conn_gone(CONTAINER_OF(c, struct conn, net));
}
static const struct net_conn_ops conn_ops = {.data = on_data, .writable = on_writable, .closed = on_closed};

static struct net_conn *add_conn(struct shard_under_test *s, uint32_t *counted_in)
{
    struct conn *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->shard = s;
    c->net.ops = &conn_ops;
    c->counted_in = counted_in;
    list_append(&s->conns, &c->node);
    NODE_STORE(*counted_in, *counted_in + 1);
    return &c->net;
}
static struct net_conn *client_accepted(struct net_listener *l, const struct net_addr *peer,
                                        const struct net_addr *local)
{
    struct shard_under_test *s = CONTAINER_OF(l, struct shard_under_test, client);
    assert_int_equal(local->port, client_port);
    assert_int_equal(peer->ip[0], 127);
    assert_int_not_equal(peer->port, 0);
    return add_conn(s, &figures(s->me)->clients);
}
static struct net_conn *second_accepted(struct net_listener *l, const struct net_addr *peer,
                                        const struct net_addr *local)
{
    struct shard_under_test *s = CONTAINER_OF(l, struct shard_under_test, second);
    assert_int_equal(local->port, second_port);
    s->on_second++;
    return add_conn(s, &figures(s->me)->clients);
}
static struct net_conn *link_accepted(struct net_listener *l, const struct net_addr *peer,
                                      const struct net_addr *local)
{
    struct shard_under_test *s = CONTAINER_OF(l, struct shard_under_test, internal);
    assert_int_equal(local->port, internal_port);
    return add_conn(s, &figures(s->me)->links);
}
static void accept_failed(struct net_listener *l, int err)
{
    fail();
}
static const struct net_listener_ops client_ops = {client_accepted, accept_failed};
static const struct net_listener_ops second_ops = {second_accepted, accept_failed};
static const struct net_listener_ops link_ops = {link_accepted, accept_failed};

/* ---- the node */

static int open_listener(uint16_t *port)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
    assert_int_equal(listen(fd, BACKLOG), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    *port = ntohs(in.sin_port);
    return fd;
}

static void shard_start(unsigned i, enum node_phase phase)
{
    struct shard_under_test *s = &shards[i];
    int err = 0;
    *s = (struct shard_under_test){
        .me = i, .client.ops = &client_ops, .second.ops = &second_ops, .internal.ops = &link_ops};
    s->listeners[0].listener = &s->client;
    s->listeners[SECOND] = (struct handoff_listener){.listener = &s->second, .since = 0, .made = 7};
    list_init(&s->conns);
    s->loop = loop_new(&loop_clock_monotonic, 10 * MS);
    s->net = net_epoll_new(s->loop, &err);
    assert_non_null(s->net);
    assert_int_equal(net_listen_fd(s->net, &s->client, client_fds[i]), 0);
    assert_int_equal(net_listen_fd(s->net, &s->second, second_fds[i]), 0);
    assert_int_equal(net_listen_fd(s->net, &s->internal, internal_fd), 0);
    struct handoff_options opt = {.me = i,
                                  .node = &node,
                                  .edges = UINT64_MAX,
                                  .links = UINT64_MAX,
                                  .loop = s->loop,
                                  .net = s->net,
                                  .counters = &s->counters,
                                  .clients = s->listeners,
                                  .internal = &s->internal};
    s->handoff = handoff_new(&opt, &err);
    assert_non_null(s->handoff);
    NODE_STORE(figures(i)->phase, phase);
}

static void shard_end(unsigned i)
{
    struct shard_under_test *s = &shards[i];
    if (s->loop == NULL)
        return;
    handoff_free(s->handoff);
    while (!list_is_empty(&s->conns)) {
        struct conn *c = CONTAINER_OF(s->conns.next, struct conn, node);
        net_close(s->net, &c->net, true);
        conn_gone(c);
    }
    net_listener_close(s->net, &s->client);
    if (s->second.handle != 0)
        net_listener_close(s->net, &s->second);
    net_listener_close(s->net, &s->internal);
    net_free(s->net);
    loop_free(s->loop);
    s->loop = NULL;
}

static void node_start(unsigned n, unsigned n_up)
{
    node = (struct node){.n_shards = n, .shared = node_shared_new()};
    assert_non_null(node.shared);
    client_port = second_port = internal_port = 0;
    random_state = 12345;
    internal_fd = open_listener(&internal_port);
    for (unsigned i = 0; i < n; i++) {
        client_fds[i] = open_listener(&client_port);
        second_fds[i] = open_listener(&second_port);
        assert_int_equal(node_hand_open(node.hand_fds[i]), 0);
    }
    for (unsigned i = 0; i < n_up; i++)
        shard_start(i, NODE_UP);
    for (unsigned i = 0; i < n_up; i++)
        handoff_look(shards[i].handoff);
}

static int node_end(void **state)
{
    for (unsigned i = 0; i < node.n_shards; i++) {
        shard_end(i);
        close(client_fds[i]);
        close(second_fds[i]);
        close(node.hand_fds[i][0]);
        close(node.hand_fds[i][1]);
    }
    close(internal_fd);
    node_shared_free(node.shared);
    node = (struct node){0};
    return 0;
}

/* ---- driving it */

static unsigned total(bool links)
{
    unsigned n = 0;
    for (unsigned i = 0; i < node.n_shards; i++)
        n += links ? figures(i)->links : figures(i)->clients;
    return n;
}

static uint64_t count_of(enum counter_id id)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < node.n_shards; i++)
        n += counter_get(&shards[i].counters, id);
    return n;
}

static void turn_all(void)
{
    for (unsigned i = 0; i < node.n_shards; i++)
        if (shards[i].loop != NULL)
            loop_turn(shards[i].loop, 0);
}

/* As on a machine with fewer processors than shards: now this one gets on, now that one. */
static void turn_some(void)
{
    unsigned i = random_below(node.n_shards);
    for (unsigned n = random_below(6); n > 0 && shards[i].loop != NULL; n--)
        loop_turn(shards[i].loop, 0);
}

/* So many more, once everybody has had time to see it. */
static void pretend(uint32_t *figure, uint32_t n)
{
    NODE_STORE(*figure, n);
    poll(NULL, 0, 2);
}

static uint64_t now_ms(void)
{
    return loop_clock_monotonic.now_ns(loop_clock_monotonic.ctx) / MS;
}

static void turn_until(void (*turn)(void), bool links, unsigned n)
{
    for (uint64_t end_ms = now_ms() + 20000; total(links) != n && now_ms() < end_ms;)
        turn();
    assert_int_equal(total(links), n);
    turn_all();
    assert_int_equal(total(links), n);
}

static int connect_one(uint16_t port)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger none = {1, 0}; /* reset at the end: so many would use up the ports in TIME_WAIT */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) < 0 ||
        connect(fd, (struct sockaddr *)&in, sizeof in) < 0)
        return -1;
    return fd;
}

static void connect_many(uint16_t port, int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_true((fds[i] = connect_one(port)) >= 0);
}

static void close_many(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
}

/* A child that opens so many connections for each byte that comes, answers with one, and goes at the end. */
struct crowd {
    pid_t pid;
    int to, from;
};

static struct crowd crowd_start(uint16_t port, unsigned n_each)
{
    int down[2], up[2];
    char c;
    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(down[1]);
        for (int i = 0; i < SHARDS_MAX; i++) /* room for descriptors */
            close(client_fds[i]);
        while (read(down[0], &c, 1) == 1) {
            for (unsigned i = 0; i < n_each; i++)
                if (connect_one(port) < 0)
                    _exit(1);
            if (write(up[1], "", 1) != 1)
                _exit(2);
        }
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    return (struct crowd){pid, down[1], up[0]};
}

static void crowd_order(const struct crowd *c)
{
    assert_int_equal(write(c->to, "", 1), 1);
}
static void crowd_wait(const struct crowd *c)
{
    char byte;
    assert_int_equal(read(c->from, &byte, 1), 1);
}

static void crowd_end(const struct crowd *c)
{
    int status;
    close(c->to);
    close(c->from);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    assert_int_equal(status, 0);
}

static void assert_clients_even(unsigned n, unsigned per_mille)
{
    double mean = (double)n / node.n_shards;
    for (unsigned i = 0; i < node.n_shards; i++) {
        double off = ((double)figures(i)->clients - mean) / mean;
        print_message("shard %u: %u clients (%+.2f %%), gave %lu, took %lu, failed %lu\n", i,
                      figures(i)->clients, off * 100,
                      (unsigned long)counter_get(&shards[i].counters, COUNTER_handed_over),
                      (unsigned long)counter_get(&shards[i].counters, COUNTER_taken_over),
                      (unsigned long)counter_get(&shards[i].counters, COUNTER_hand_over_failed));
        assert_true(off * 1000 < per_mille && -off * 1000 < per_mille);
    }
    assert_int_equal(count_of(COUNTER_handed_over), count_of(COUNTER_taken_over));
}

static void assert_nothing_on_its_way(void)
{
    for (unsigned i = 0; i < node.n_shards; i++)
        for (unsigned j = 0; j < node.n_shards; j++) {
            assert_int_equal(figures(i)->client_handoff.handed[j], figures(j)->client_handoff.taken[i]);
            assert_int_equal(figures(i)->link_handoff.handed[j], figures(j)->link_handoff.taken[i]);
        }
}

static unsigned links_spread(void)
{
    unsigned min = UINT32_MAX, max = 0;
    for (unsigned i = 0; i < node.n_shards; i++) {
        uint32_t links = figures(i)->links;
        min = links < min ? links : min;
        max = links > max ? links : max;
    }
    return max - min;
}

/* As many as the limit for descriptors allows, for the connections of all shards are in this process. */
static unsigned many(void)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return limit.rlim_cur >= 12000 ? 10000 : (unsigned)(limit.rlim_cur * 8 / 10 / 1000 * 1000);
}

/* ---- clients */

static void ten_thousand_clients_in_bursts(unsigned n_shards, unsigned n_bursts, void (*turn)(void))
{
    unsigned n = many() / n_bursts * n_bursts;
    node_start(n_shards, n_shards);
    struct crowd crowd = crowd_start(client_port, n / n_bursts);
    for (unsigned i = 1; i <= n_bursts; i++) {
        crowd_order(&crowd);
        if (n_bursts > 1) /* all wait in the kernel when the first is accepted */
            crowd_wait(&crowd);
        turn_until(turn, false, i * (n / n_bursts));
        if (n_bursts == 1)
            crowd_wait(&crowd);
    }
    assert_clients_even(n, 50);
    assert_nothing_on_its_way();
    crowd_end(&crowd);
    turn_until(turn_all, false, 0);
}

static void clients_that_come_in_four_bursts_spread_evenly_over_four_shards(void **state)
{
    ten_thousand_clients_in_bursts(4, 4, turn_all);
}
static void clients_that_come_in_one_burst_spread_evenly_over_eight_shards(void **state)
{
    ten_thousand_clients_in_bursts(8, 1, turn_all);
}
static void clients_spread_evenly_when_shards_get_on_by_turns(void **state)
{
    ten_thousand_clients_in_bursts(8, 8, turn_some);
}

static void a_few_clients_are_not_moved_about(void **state)
{
    int fds[8];
    node_start(4, 4);
    connect_many(client_port, fds, 3);
    turn_until(turn_all, false, 3);
    assert_int_equal(count_of(COUNTER_handed_over) + count_of(COUNTER_hand_over_failed), 0);
    close_many(fds, 3);
}

static void a_client_reaches_the_same_listener_of_the_other_shard(void **state)
{
    int fds[20];
    node_start(2, 2);
    pretend(&figures(0)->clients, 1000);
    connect_many(second_port, fds, 20);
    turn_until(turn_all, false, 1020);
    assert_int_equal(shards[0].on_second, 0);
    assert_int_equal(shards[1].on_second, 20);
    assert_int_equal(figures(0)->clients, 1000);
    close_many(fds, 20);
}

static bool is_reset(int fd)
{
    char c;
    return recv(fd, &c, 1, 0) < 0 && errno == ECONNRESET;
}

/* ---- listeners that come and go */

/* On the second port. */
static void only_the_first_listens(void)
{
    net_listener_close(shards[1].net, &shards[1].second);
    close(second_fds[1]);
    second_fds[1] = -1;
}

static void who_has_not_heard_of_a_listener_is_not_given_its_clients(void **state)
{
    int fds[20];
    node_start(2, 2);
    pretend(&figures(0)->clients, 1000);
    only_the_first_listens();
    shards[0].listeners[SECOND].since = 5;
    node_shard_took_settings(figures(1), 4, 0);
    connect_many(second_port, fds, 10);
    turn_until(turn_all, false, 1010);
    assert_int_equal(shards[0].on_second, 10);
    node_shard_took_settings(figures(1), 5, 0);
    poll(NULL, 0, 2);
    connect_many(second_port, fds + 10, 10);
    turn_until(turn_all, false, 1020);
    assert_int_equal(shards[0].on_second, 10);
    assert_int_equal(shards[1].on_second, 10); /* although closed there */
    close_many(fds, 20);
}

/* The slot went to another one while they were on their way. */
static void clients_of_another_listener_are_not_taken_for_its_own(void **state)
{
    int fds[10];
    node_start(2, 2);
    pretend(&figures(0)->clients, 1000);
    only_the_first_listens();
    connect_many(second_port, fds, 10);
    for (uint64_t end_ms = now_ms() + 20000; count_of(COUNTER_handed_over) < 10 && now_ms() < end_ms;)
        loop_turn(shards[0].loop, 0);
    shards[1].listeners[SECOND].made++;
    handoff_take(shards[1].handoff);
    assert_int_equal(shards[1].on_second, 0);
    for (unsigned i = 0; i < 10; i++)
        assert_true(is_reset(fds[i]));
    close_many(fds, 10);
}

/* A shard comes back empty: it gets everything until it has caught up, and no more than that. */
static void a_shard_that_is_empty_gets_all_until_it_has_caught_up(void **state)
{
    int fds[400];
    node_start(3, 3);
    pretend(&figures(0)->clients, 200);
    pretend(&figures(1)->clients, 200);
    connect_many(client_port, fds, 150);
    turn_until(turn_all, false, 550);
    assert_int_equal(figures(2)->clients, 150);
    connect_many(client_port, fds + 150, 250);
    turn_until(turn_all, false, 800);
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(figures(i)->clients, 800 / 3 - 12, 800 / 3 + 12);
    close_many(fds, 400);
}

/* Nobody knows of its trouble before the supervisor does. What waits for it is bounded, nothing is lost. */
static void what_a_stuck_shard_cannot_take_stays(void **state)
{
    int fds[1200];
    node_start(2, 2);
    pretend(&figures(0)->clients, 100000);
    connect_many(client_port, fds, 1200);
    struct loop *stuck = shards[1].loop;
    shards[1].loop = NULL;
    for (unsigned i = 0; i < 100; i++)
        turn_all();
    shards[1].loop = stuck;
    uint64_t given = counter_get(&shards[0].counters, COUNTER_handed_over);
    assert_true(given > 100);
    assert_true(counter_get(&shards[0].counters, COUNTER_hand_over_failed) > 0);
    turn_until(turn_all, false, 101200);
    assert_int_equal(counter_get(&shards[1].counters, COUNTER_taken_over), given);
    assert_nothing_on_its_way();
    close_many(fds, 1200);
}

static void the_successor_takes_what_was_on_its_way(void **state)
{
    int fds[100];
    node_start(2, 2);
    pretend(&figures(0)->clients, 100000);
    connect_many(client_port, fds, 100);
    for (unsigned i = 0; i < 20; i++)
        loop_turn(shards[0].loop, 0);
    uint32_t given = figures(0)->client_handoff.handed[1];
    assert_true(given > 10);
    shard_end(1);
    node_shared_bury(node.shared, 1);
    assert_nothing_on_its_way(); /* as far as anybody has to know */
    for (unsigned i = 0; i < 5; i++)
        loop_turn(shards[0].loop, 0);
    assert_int_equal(figures(0)->client_handoff.handed[1], given); /* a dead shard gets nothing */
    shard_start(1, NODE_UP);
    turn_until(turn_all, false, 100100);
    assert_int_equal(figures(1)->clients, 100);
    assert_nothing_on_its_way();
    close_many(fds, 100);
}

static void a_giver_that_died_before_it_counted_is_counted_right_again(void **state)
{
    int fds[40];
    node_start(2, 2);
    pretend(&figures(0)->clients, 100000);
    connect_many(client_port, fds, 20);
    turn_until(turn_all, false, 100020);
    uint32_t *handed = &figures(0)->client_handoff.handed[1];
    assert_true(*handed > 0);
    --*handed;
    uint32_t before = *handed;
    connect_many(client_port, fds + 20, 20);
    turn_until(turn_all, false, 100040);
    assert_true(*handed > before);
    assert_nothing_on_its_way();
    close_many(fds, 40);
}

static void a_client_that_is_gone_on_the_way_is_forgotten(void **state)
{
    int fds[40];
    node_start(2, 2);
    pretend(&figures(0)->clients, 100000);
    connect_many(client_port, fds, 40);
    for (unsigned i = 0; i < 20; i++)
        loop_turn(shards[0].loop, 0);
    uint32_t given = figures(0)->client_handoff.handed[1];
    assert_true(given > 0);
    close_many(fds, 40);
    for (unsigned i = 0; i < 20; i++)
        turn_all();
    assert_int_equal(total(false), 100000);
    assert_nothing_on_its_way();
}

/* ---- draining */

static void a_shard_that_drains_keeps_nothing_and_passes_on(void **state)
{
    int fds[60];
    node_start(3, 3);
    pretend(&figures(0)->clients, 1000);
    pretend(&figures(2)->clients, 1000);
    connect_many(client_port, fds, 60);
    for (unsigned i = 0; i < 10; i++) { /* all for shard 1, whose own are still in the kernel */
        loop_turn(shards[0].loop, 0);
        loop_turn(shards[2].loop, 0);
    }
    assert_true(figures(0)->client_handoff.handed[1] + figures(2)->client_handoff.handed[1] > 0);
    NODE_STORE(figures(1)->phase, NODE_LEAVES);
    turn_until(turn_all, false, 2060);
    assert_int_equal(figures(1)->clients, 0);
    assert_nothing_on_its_way();
    close_many(fds, 60);
}

static void without_anybody_to_take_it_a_client_is_reset(void **state)
{
    int fds[30];
    node_start(2, 2);
    pretend(&figures(0)->clients, 1000);
    connect_many(client_port, fds, 30);
    for (unsigned i = 0; i < 10; i++)
        loop_turn(shards[0].loop, 0);
    assert_true(figures(0)->client_handoff.handed[1] > 0);
    NODE_STORE(figures(0)->phase, NODE_LEAVES);
    NODE_STORE(figures(1)->phase, NODE_LEAVES);
    for (unsigned i = 0; i < 20; i++)
        turn_all();
    for (unsigned i = 0; i < 30; i++)
        assert_true(is_reset(fds[i]));
    assert_int_equal(total(false), 1000);
    assert_nothing_on_its_way();
    close_many(fds, 30);
}

/* ---- links */

static void links_differ_by_one_at_most(void **state)
{
    int fds[500];
    unsigned n = 0;
    node_start(4, 4);
    while (n < 500) {
        unsigned more = 1 + random_below(40);
        more = n + more > 500 ? 500 - n : more;
        connect_many(internal_port, fds + n, more);
        n += more;
        turn_until(turn_some, true, n);
        assert_true(links_spread() <= 1);
    }
    assert_nothing_on_its_way();
    close_many(fds, 500);
}

/* The leader does not run between one and the next: it must not take those on their way for missing. */
static void links_on_their_way_count(void **state)
{
    int fds[41];
    node_start(4, 4);
    pretend(&figures(3)->clients, 100000); /* and clients do not: 3 gives its own away */
    int client_conns[60];
    connect_many(client_port, client_conns, 60);
    for (unsigned i = 0; i < 10; i++)
        loop_turn(shards[3].loop, 0);
    connect_many(internal_port, fds, 41);
    for (unsigned i = 0; i < 20; i++)
        loop_turn(shards[0].loop, 0);
    turn_until(turn_all, true, 41);
    assert_true(links_spread() <= 1);
    close_many(fds, 41);
    close_many(client_conns, 60);
}

/* While shard 2 takes one over it is counted twice: among its 4, and on its way. It looks even, and is not.
 */
static void of_even_shards_the_one_with_links_on_their_way_comes_first(void **state)
{
    node_start(3, 3);
    pretend(&figures(0)->links, 5);
    pretend(&figures(1)->links, 5);
    pretend(&figures(2)->links, 4);
    figures(0)->link_handoff.handed[2] = 1;
    int fd = connect_one(internal_port);
    for (unsigned i = 0; i < 5; i++)
        loop_turn(shards[0].loop, 0);
    assert_int_equal(figures(0)->link_handoff.handed[2], 2);
    close(fd);
}

static void the_one_with_fewer_links_gets_the_next(void **state)
{
    int fds[30];
    node_start(3, 3);
    pretend(&figures(0)->links, 20);
    pretend(&figures(1)->links, 20);
    connect_many(internal_port, fds, 15);
    turn_until(turn_all, true, 55);
    assert_int_equal(figures(2)->links, 15);
    connect_many(internal_port, fds + 15, 15);
    turn_until(turn_all, true, 70);
    assert_true(links_spread() <= 1);
    close_many(fds, 30);
}

static void turn_for_ms(uint64_t ms)
{
    for (uint64_t end_ms = now_ms() + ms; now_ms() < end_ms;) {
        turn_all();
        poll(NULL, 0, 1);
    }
}

static void the_lowest_link_shard_that_is_up_leads(void **state)
{
    int fds[40];
    node_start(3, 3);
    connect_many(internal_port, fds, 10);
    turn_until(turn_all, true, 10);
    assert_int_equal(count_of(COUNTER_handed_over), counter_get(&shards[0].counters, COUNTER_handed_over));
    assert_true(counter_get(&shards[0].counters, COUNTER_handed_over) > 0);

    NODE_STORE(figures(0)->phase, NODE_LEAVES);
    turn_for_ms(150);
    uint64_t before = counter_get(&shards[0].counters, COUNTER_handed_over);
    uint32_t links = figures(0)->links;
    connect_many(internal_port, fds + 10, 20);
    turn_until(turn_all, true, 30);
    assert_int_equal(counter_get(&shards[0].counters, COUNTER_handed_over), before);
    assert_true(counter_get(&shards[1].counters, COUNTER_handed_over) > 0);
    assert_int_equal(figures(0)->links, links);
    close_many(fds, 30);
}

/* Its successor is there at once as a rule: what comes meanwhile waits, else it would have no links at all.
 */
static void after_a_death_links_wait_for_the_successor(void **state)
{
    int fds[40];
    node_start(2, 2);
    connect_many(internal_port, fds, 20);
    turn_until(turn_all, true, 20);
    shard_end(0);
    node_shared_bury(node.shared, 0);
    close_many(fds, 20);
    handoff_look(shards[1].handoff);
    connect_many(internal_port, fds + 20, 20);
    turn_for_ms(50);
    assert_int_equal(figures(1)->links, 0);
    shard_start(0, NODE_UP);
    handoff_look(shards[0].handoff);
    turn_until(turn_all, true, 20);
    assert_int_equal(figures(0)->links, 10);
    assert_int_equal(figures(1)->links, 10);
    close_many(fds + 20, 20);
}

static void a_shard_that_stays_away_is_not_waited_for_long(void **state)
{
    int fds[10];
    uint64_t begin_ms = now_ms();
    node_start(3, 2);
    connect_many(internal_port, fds, 10);
    turn_until(turn_all, true, 10);
    assert_true(now_ms() - begin_ms >= 490);
    assert_int_equal(figures(0)->links, 5);
    assert_int_equal(figures(1)->links, 5);
    close_many(fds, 10);
}

/* ---- in processes of their own, at the same time */

static pid_t run_shard(unsigned i)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whatever becomes of the test */
    shard_start(i, NODE_UP);
    while (NODE_LOAD(node.shared->deaths) == 0) /* here: the end */
        loop_turn(shards[i].loop, MS);
    _exit(list_is_empty(&shards[i].conns) ? 1 : 0);
}

static void wait_for_total(bool links, unsigned n)
{
    for (uint64_t end_ms = now_ms() + 20000; total(links) != n && now_ms() < end_ms;)
        poll(NULL, 0, 1);
    assert_int_equal(total(links), n);
    poll(NULL, 0, 5); /* and whoever comes too late is counted too */
    assert_int_equal(total(links), n);
}

static void processes_place_clients_and_links_at_the_same_time(void **state)
{
    enum { N_SHARDS = 6, N_CLIENTS = 6000, N_LINKS = 600 };
    static int clients[N_CLIENTS], links[N_LINKS];
    pid_t pids[N_SHARDS];
    unsigned n_links = 0;
    assert_true(many() >= N_CLIENTS + N_LINKS + 100);
    node_start(N_SHARDS, 0);
    for (unsigned i = 0; i < N_SHARDS; i++)
        pids[i] = run_shard(i);
    for (unsigned i = 0; i < N_CLIENTS; i += 100) {
        connect_many(client_port, clients + i, 100);
        connect_many(internal_port, links + n_links, 10);
        n_links += 10;
    }
    wait_for_total(true, N_LINKS);
    wait_for_total(false, N_CLIENTS);
    assert_true(links_spread() <= 1);
    for (unsigned i = 0; i < N_SHARDS; i++)
        assert_in_range(figures(i)->clients, N_CLIENTS / N_SHARDS * 95 / 100,
                        N_CLIENTS / N_SHARDS * 105 / 100);
    assert_nothing_on_its_way();
    NODE_STORE(node.shared->deaths, 1);
    for (unsigned i = 0; i < N_SHARDS; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    close_many(clients, N_CLIENTS);
    close_many(links, N_LINKS);
}

#define TEST(name) cmocka_unit_test_teardown(name, node_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(clients_that_come_in_four_bursts_spread_evenly_over_four_shards),
        TEST(clients_that_come_in_one_burst_spread_evenly_over_eight_shards),
        TEST(clients_spread_evenly_when_shards_get_on_by_turns),
        TEST(a_few_clients_are_not_moved_about),
        TEST(a_client_reaches_the_same_listener_of_the_other_shard),
        TEST(who_has_not_heard_of_a_listener_is_not_given_its_clients),
        TEST(clients_of_another_listener_are_not_taken_for_its_own),
        TEST(a_shard_that_is_empty_gets_all_until_it_has_caught_up),
        TEST(what_a_stuck_shard_cannot_take_stays),
        TEST(the_successor_takes_what_was_on_its_way),
        TEST(a_giver_that_died_before_it_counted_is_counted_right_again),
        TEST(a_client_that_is_gone_on_the_way_is_forgotten),
        TEST(a_shard_that_drains_keeps_nothing_and_passes_on),
        TEST(without_anybody_to_take_it_a_client_is_reset),
        TEST(links_differ_by_one_at_most),
        TEST(links_on_their_way_count),
        TEST(of_even_shards_the_one_with_links_on_their_way_comes_first),
        TEST(the_one_with_fewer_links_gets_the_next),
        TEST(the_lowest_link_shard_that_is_up_leads),
        TEST(after_a_death_links_wait_for_the_successor),
        TEST(a_shard_that_stays_away_is_not_waited_for_long),
        TEST(processes_place_clients_and_links_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
