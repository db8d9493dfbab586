// SPDX-License-Identifier: MIT
/* Peers as records, and the words of the two sides of an upgrade; the whole course is in tests/. */
#include "register/register_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "base/pool.h"

#define NS_PER_MS UINT64_C(1000000)

/* What the old and the new process are to each other, in one. */
static struct register_server from, to;
static struct register_channel ends[2];
static int far[3]; /* the other ends of connections */

static uint64_t in_ms(uint64_t ms)
{
    return loop_clock_monotonic.now_ns(NULL) + ms * NS_PER_MS;
}

static void server_open(struct register_server *s, size_t max)
{
    int err;
    *s = (struct register_server){.auth_timeout_ms = 10000, .secret = ""};
    list_init(&s->gateways);
    list_init(&s->workers);
    list_init(&s->others);
    s->loop = loop_new(&loop_clock_monotonic, NS_PER_MS);
    s->net = net_epoll_new(s->loop, &err);
    s->peers = pool_new("peers", sizeof(struct peer), max);
    assert_non_null(s->net);
}

static void server_close(struct register_server *s)
{
    register__forget_all(s);
    pool_free(s->peers);
    net_free(s->net);
    loop_free(s->loop);
    register_line_fini(&s->line);
}

static int set_up(void **state)
{
    int fds[2];
    server_open(&from, 10);
    server_open(&to, 10);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(register__channel_open(&ends[i], fds[i], in_ms(2000)), 0);
    return 0;
}

static int tear_down(void **state)
{
    for (unsigned i = 0; i < 2; i++)
        register__channel_close(&ends[i]);
    for (unsigned i = 0; i < 3; i++)
        if (far[i] > 0)
            close(far[i]);
    memset(far, 0, sizeof far);
    server_close(&from);
    server_close(&to);
    return 0;
}

static int connection(unsigned i)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    far[i] = fds[0];
    return fds[1];
}

static struct peer *peer(unsigned i)
{
    struct net_addr addr = {.family = AF_INET, .ip = {10, 0, 0, (uint8_t)i}, .port = (uint16_t)(1000 + i)};
    struct peer *p = register__peer_new(&from, &addr);
    assert_non_null(p);
    assert_int_equal(net_take(from.net, &p->conn, connection(i)), 0);
    return p;
}

static struct peer *gateway(unsigned i, const char *address)
{
    struct peer *p = peer(i);
    bytes_append_str(&p->address, address);
    register__peer_authenticated(p);
    list_append(&from.gateways, &p->gateway_link);
    return p;
}

static void hand_over_all(void)
{
    struct transfer_record record;
    assert_int_equal(register__peers_put(&from, transfer_sender_sink(ends[0].out)), 0);
    assert_int_equal(transfer_sender_flush(ends[0].out), 0);
    register__forget_all(&from);
    while (register__channel_next(&ends[1], &record) > 0) {
        assert_int_equal(record.type, TRANSFER_TYPE_register_peer);
        assert_int_equal(register__peer_take(&to, &record), 0);
    }
}

static void a_peer_is_what_it_was(void **state)
{
    struct peer *both = gateway(0, "10.0.0.1:2900");
    list_append(&from.workers, &both->worker_link);
    bytes_append_str(&both->in, "half a l");
    bytes_append_str(&both->out, "what waits");
    gateway(1, "10.0.0.2:2900");
    peer(2);
    hand_over_all();

    assert_int_equal(pool_used(to.peers), 3);
    struct peer *p = CONTAINER_OF(to.gateways.next, struct peer, gateway_link);
    assert_true(list_is_linked(&p->worker_link) && !list_is_linked(&p->other_link));
    assert_true(slice_eq_str((struct slice){p->address.data, p->address.len}, "10.0.0.1:2900"));
    assert_true(slice_eq_str((struct slice){p->in.data, p->in.len}, "half a l"));
    assert_true(slice_eq_str((struct slice){p->out.data, p->out.len}, "what waits"));
    assert_int_equal(p->addr.port, 1000);
    assert_false(timer_is_set(&p->auth_timer));
    p = CONTAINER_OF(p->gateway_link.next, struct peer, gateway_link);
    assert_true(slice_eq_str((struct slice){p->address.data, p->address.len}, "10.0.0.2:2900"));
    p = CONTAINER_OF(to.others.next, struct peer, other_link);
    assert_true(timer_is_set(&p->auth_timer));
    assert_true(p->auth_until_ms <= loop_now_ms(to.loop) + 10000);
    assert_false(to.changed);
}

static void what_waited_is_written(void **state)
{
    char buf[32] = "";
    struct peer *p = gateway(0, "10.0.0.1:2900");
    bytes_append_str(&p->out, "what waits");
    hand_over_all();
    assert_int_equal(read(far[0], buf, sizeof buf), -1);
    p = CONTAINER_OF(to.gateways.next, struct peer, gateway_link);
    register__peer_go(p);
    assert_int_equal(read(far[0], buf, sizeof buf), 10);
    assert_string_equal(buf, "what waits");
    assert_int_equal(p->out.len, 0);
}

static int take(const struct transfer_register_peer *r, int handle)
{
    struct bytes fields = {0};
    assert_true(transfer_put_register_peer_fields(&fields, r));
    struct transfer_record record = {
        .type = TRANSFER_TYPE_register_peer, .fields = {fields.data, fields.len}, .handle = handle};
    int err = register__peer_take(&to, &record);
    bytes_fini(&fields);
    return err;
}

static void what_makes_no_sense_is_refused_and_its_descriptor_closed(void **state)
{
    static uint8_t zeros[REGISTER_OUT_MAX + 1];
    struct bytes addr = {0};
    transfer_put_address(&addr, &(struct net_addr){.family = AF_INET});
    struct slice peer_addr = {addr.data, addr.len};
    const struct transfer_register_peer wrong[] = {
        {.address = SLICE_STR("10.0.0.1:2900")}, /* no address of the peer */
        {.peer = SLICE_STR("x")},
        {.peer = peer_addr, .address = SLICE_STR("a b")},
        {.peer = peer_addr, .address = {zeros, REGISTER_ADDRESS_MAX + 1}},
        {.peer = peer_addr, .in = {zeros, REGISTER_LINE_MAX + 1}},
        {.peer = peer_addr, .out = {zeros, REGISTER_OUT_MAX + 1}},
        {.peer = peer_addr, .auth_left_ms = UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int fd = connection(0);
        assert_int_equal(take(&wrong[i], fd), -EBADMSG);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
        close(far[0]);
    }
    far[0] = 0;
    assert_int_equal(take(&(struct transfer_register_peer){.peer = peer_addr}, -1), -EBADMSG);
    assert_int_equal(pool_used(to.peers), 0);
    bytes_fini(&addr);
}

static void more_than_fit_are_refused(void **state)
{
    struct bytes addr = {0};
    transfer_put_address(&addr, &(struct net_addr){.family = AF_INET});
    struct transfer_register_peer r = {.peer = {addr.data, addr.len}};
    server_close(&to);
    server_open(&to, 2);
    assert_int_equal(take(&r, connection(0)), 0);
    assert_int_equal(take(&r, connection(1)), 0);
    assert_int_equal(take(&r, connection(2)), -EUSERS);
    bytes_fini(&addr);
}

static void words_go_both_ways(void **state)
{
    struct transfer_record record;
    struct transfer_register_word w;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(register__channel_say(&ends[i], REGISTER_WORD_TAKEN, 7, "text"), 0);
        assert_int_equal(register__channel_wait(&ends[1 - i], in_ms(1000), &record), 0);
        assert_int_equal(register__word_of(&record, &w), 0);
        assert_int_equal(w.word, REGISTER_WORD_TAKEN);
        assert_int_equal(w.peers, 7);
        assert_true(slice_eq_str(w.text, "text"));
    }
}

static void waiting_has_an_end(void **state)
{
    struct transfer_record record;
    uint64_t begun_ns = in_ms(0);
    assert_int_equal(register__channel_wait(&ends[0], in_ms(50), &record), -ETIMEDOUT);
    assert_true(in_ms(0) - begun_ns >= 50 * NS_PER_MS);
    assert_int_equal(register__channel_next(&ends[0], &record), 0);
    register__channel_close(&ends[1]);
    assert_int_equal(register__channel_wait(&ends[0], in_ms(5000), &record), -EPIPE);
    assert_int_equal(register__channel_say(&ends[0], REGISTER_WORD_GO, 0, NULL), -EPIPE);
}

static void a_word_has_no_descriptor_and_a_bound(void **state)
{
    struct transfer_record record;
    struct transfer_register_word w;
    char text[2 * REGISTER_WORD_TEXT_MAX];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(register__channel_say(&ends[0], REGISTER_WORD_FAILED, 0, text), 0);
    assert_int_equal(register__channel_wait(&ends[1], in_ms(1000), &record), 0);
    assert_int_equal(register__word_of(&record, &w), 0);
    assert_int_equal(w.text.len, REGISTER_WORD_TEXT_MAX);
    record.handle = connection(0);
    assert_int_equal(register__word_of(&record, &w), -EBADMSG);
    assert_int_equal(fcntl(record.handle, F_GETFD), -1);
    record = (struct transfer_record){.type = TRANSFER_TYPE_end, .handle = -1};
    assert_int_equal(register__word_of(&record, &w), -EBADMSG);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_peer_is_what_it_was),
        TEST(what_waited_is_written),
        TEST(what_makes_no_sense_is_refused_and_its_descriptor_closed),
        TEST(more_than_fit_are_refused),
        TEST(words_go_both_ways),
        TEST(waiting_has_an_end),
        TEST(a_word_has_no_descriptor_and_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
