// SPDX-License-Identifier: MIT
// The link without a gateway process: packets cut at every point, and a listening socket that plays the
// gateway.
#include "worker_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

struct seen {
    size_t messages, closes;
    char text[256];
    int send_error;
    bool reply;
};

static void on_message(struct tggw *w, const struct tggw_client *c, const void *data, size_t len, void *user)
{
    struct seen *s = user;
    s->messages++;
    snprintf(s->text + strlen(s->text), sizeof s->text - strlen(s->text), "%.*s", (int)len,
             (const char *)data);
    if (s->reply)
        s->send_error = tggw_send_to_current(w, c, data, len, 0);
}

static void on_close(struct tggw *w, const struct tggw_client *c, void *user)
{
    struct seen *s = user;
    s->closes++;
    assert_int_equal(c->session_len, 3);
    assert_string_equal(c->client_id, "7f00000107d000000009");
}

static void no_log(struct tggw *w, enum tggw_log_level level, const char *text, void *user)
{
}

static struct tggw *new_worker(struct seen *s, const char *gateway, size_t out_max)
{
    struct tggw_config config = {.gateways = &gateway,
                                 .gateway_count = 1,
                                 .secret_key = "k\"",
                                 .out_bytes_max = out_max,
                                 .query_timeout_ms = 100,
                                 .packet_bytes_max = 100000,
                                 .cb = {.on_message = on_message, .on_close = on_close, .on_log = no_log},
                                 .user = s};
    struct tggw *w = NULL;
    assert_int_equal(tggw_new(&config, &w), 0);
    return w;
}

static void add(struct tggw__bytes *b, uint8_t cmd, const char *body)
{
    struct tggw__packet p = {.cmd = cmd,
                             .flag = 1,
                             .local_ip = 0x7f000001,
                             .local_port = 2000,
                             .connection_id = 9,
                             .ext = (const uint8_t *)"abc",
                             .ext_len = 3,
                             .body = (const uint8_t *)body,
                             .body_len = strlen(body)};
    assert_int_equal(tggw__packet_append(b, &p), 0);
}

static void packets_may_be_cut_anywhere(void **state)
{
    struct tggw__bytes b = {0};
    add(&b, TGGW__ON_MESSAGE, "one,");
    add(&b, TGGW__PING, "");
    add(&b, TGGW__ON_MESSAGE, "");
    add(&b, TGGW__ON_CLOSE, "");
    add(&b, TGGW__ON_MESSAGE, "three");
    for (size_t cut = 0; cut <= b.tail; cut++) {
        struct seen s = {0};
        struct tggw *w = new_worker(&s, "127.0.0.1:1", 0);
        assert_int_equal(tggw__gateway_feed(w->gateways, b.data, cut), 0);
        assert_int_equal(tggw__gateway_feed(w->gateways, b.data + cut, b.tail - cut), 0);
        assert_int_equal(s.messages, 3);
        assert_int_equal(s.closes, 1);
        assert_string_equal(s.text, "one,three");
        tggw_free(w);
    }
    struct seen s = {0};
    struct tggw *w = new_worker(&s, "127.0.0.1:1", 0);
    for (size_t i = 0; i < b.tail; i++)
        assert_int_equal(tggw__gateway_feed(w->gateways, b.data + i, 1), 0);
    assert_string_equal(s.text, "one,three");
    tggw_free(w);
    tggw__bytes_fini(&b);
}

static void damaged_packets_end_the_link(void **state)
{
    static const uint8_t too_short[] = {0, 0, 0, 27, 3}, too_long[] = {0xff, 0xff, 0xff, 0xff};
    struct seen s = {0};
    struct tggw *w = new_worker(&s, "127.0.0.1:1", 0);
    assert_int_equal(tggw__gateway_feed(w->gateways, too_short, sizeof too_short), -EBADMSG);
    assert_int_equal(tggw__gateway_feed(w->gateways, too_long, sizeof too_long), -EBADMSG);
    assert_int_equal(tggw__gateway_feed(w->gateways, too_long, 2), 0);
    assert_int_equal(tggw__gateway_feed(w->gateways, too_long + 2, 2), -EBADMSG);
    tggw_free(w);
}

// ---- a listening socket as gateway
// ------------------------------------------------------------------------------

struct fake {
    int listener, fd;
    char address[64];
};

static void fake_open(struct fake *f)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    f->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(f->listener, 8), 0);
    getsockname(f->listener, (struct sockaddr *)&a, &len);
    snprintf(f->address, sizeof f->address, "127.0.0.1:%d", ntohs(a.sin_port));
}

static size_t read_packet(int fd, uint8_t *buf, size_t size, struct tggw__packet *ret)
{
    size_t have = 0;
    int64_t n = 0;
    while (n == 0 || have < (size_t)n) {
        ssize_t got = recv(fd, buf + have, n == 0 ? 4 - have : (size_t)n - have, 0);
        assert_true(got > 0);
        have += (size_t)got;
        n = tggw__packet_length(buf, have, size);
    }
    assert_int_equal(tggw__packet_decode(buf, have, ret), 0);
    return have;
}

static struct tggw *connected(struct seen *s, struct fake *f, size_t out_max)
{
    uint8_t buf[1000];
    struct tggw__packet p;
    static const char body[] = "{\"worker_key\":\"tggworker:0\",\"secret_key\":\"k\\\"\"}";
    fake_open(f);
    struct tggw *w = new_worker(s, f->address, out_max);
    while (tggw_gateways_up(w) == 0)
        assert_true(tggw_poll(w, 1000) >= 0);
    f->fd = accept(f->listener, NULL, NULL);
    read_packet(f->fd, buf, sizeof buf, &p);
    assert_int_equal(p.cmd, TGGW__WORKER_CONNECT);
    assert_int_equal(p.body_len, sizeof body - 1);
    assert_memory_equal(p.body, body, p.body_len);
    return w;
}

static void done(struct tggw *w, struct fake *f)
{
    tggw_free(w);
    close(f->fd);
    close(f->listener);
}

static void answers_leave_in_one_write(void **state)
{
    struct seen s = {.reply = true};
    struct fake f;
    struct tggw *w = connected(&s, &f, 0);
    struct tggw__bytes b = {0};
    struct tggw_stats before, after;
    for (int i = 0; i < 50; i++)
        add(&b, TGGW__ON_MESSAGE, "x");
    tggw_get_stats(w, &before);
    assert_int_equal(send(f.fd, b.data, b.tail, 0), b.tail);
    while (s.messages < 50)
        tggw_poll(w, 1000);
    tggw_get_stats(w, &after);
    assert_int_equal(s.send_error, 0);
    assert_int_equal(after.packets_out - before.packets_out, 50);
    assert_true(after.writes - before.writes <= after.reads - before.reads);
    tggw__bytes_fini(&b);
    done(w, &f);
}

static void a_full_buffer_is_an_error_and_nothing_else(void **state)
{
    struct seen s = {0};
    struct fake f;
    struct tggw *w = connected(&s, &f, 64 * 1024);
    static char block[10000];
    int r = 0;
    for (int i = 0; i < 7 && r == 0; i++)
        r = tggw_send_to_all(w, block, sizeof block, 0);
    assert_int_equal(r, -ENOBUFS);
    assert_int_equal(tggw_send_to_all(w, block, 65 * 1024, 0), -EMSGSIZE);
    assert_int_equal(tggw_send_to_all(w, "x", 1, 0), 0);
    struct tggw_stats stats;
    tggw_get_stats(w, &stats);
    assert_int_equal(stats.no_buffer, 1);
    done(w, &f);
}

static void bad_arguments_are_refused(void **state)
{
    struct seen s = {0};
    struct fake f;
    struct tggw *w = connected(&s, &f, 0);
    assert_int_equal(tggw_send_to_client(w, "nonsense", "x", 1, 0), -EINVAL);
    assert_int_equal(tggw_send_to_client(w, "7f000001000100000001", "x", 1, 0), -ENOTCONN);
    assert_int_equal(tggw_join_group(w, "7f000001000100000001", ""), -EINVAL);
    assert_int_equal(tggw_join_group(w, "7f000001000100000001", "0"), -EINVAL);
    assert_int_equal(tggw_send_to_uid(w, "\xff", "x", 1, 0), -EINVAL);
    done(w, &f);
}

static void a_silent_gateway_times_out(void **state)
{
    struct seen s = {0};
    struct fake f;
    struct tggw *w = connected(&s, &f, 0);
    assert_true(tggw_get_client_count(w) == -ETIMEDOUT);
    done(w, &f);
}

static void count_replies(struct tggw *w, int error, const struct tggw_result *result, void *arg)
{
    int *got = arg;
    struct tggw_value v;
    *got = error < 0 ? error : tggw_result_get(result, 0, &v, NULL, NULL) == 0 ? (int)v.i : -1;
}

static void replies_come_in_the_order_of_the_questions(void **state)
{
    struct seen s = {0};
    struct fake f;
    struct tggw *w = connected(&s, &f, 0);
    static const uint8_t replies[] = {0, 0, 0, 4, 'i', ':', '3', ';', 0, 0, 0, 4, 'i', ':', '5', ';'};
    int first = -100, second = -100, third = -100;
    assert_int_equal(tggw_query_async(w, 24, NULL, NULL, 0, count_replies, &first), 0);
    assert_int_equal(tggw_query_async(w, 24, NULL, NULL, 0, count_replies, &second), 0);
    assert_int_equal(tggw_query_async(w, 24, NULL, NULL, 0, count_replies, &third), 0);
    int fd = accept(f.listener, NULL, NULL);
    assert_int_equal(send(fd, replies, sizeof replies, 0), sizeof replies);
    while (second == -100)
        tggw_poll(w, 1000);
    assert_int_equal(first, 3);
    assert_int_equal(second, 5);
    assert_int_equal(third, -100);
    while (third == -100)
        tggw_poll(w, 1000);
    assert_int_equal(third, -ETIMEDOUT);
    close(fd);
    done(w, &f);
}

static void pending_questions_are_cancelled(void **state)
{
    struct seen s = {0};
    struct fake f;
    struct tggw *w = connected(&s, &f, 0);
    int got = -100;
    assert_int_equal(tggw_query_async(w, 24, NULL, NULL, 0, count_replies, &got), 0);
    done(w, &f);
    assert_int_equal(got, -ECANCELED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_may_be_cut_anywhere),
        cmocka_unit_test(damaged_packets_end_the_link),
        cmocka_unit_test(answers_leave_in_one_write),
        cmocka_unit_test(a_full_buffer_is_an_error_and_nothing_else),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(a_silent_gateway_times_out),
        cmocka_unit_test(replies_come_in_the_order_of_the_questions),
        cmocka_unit_test(pending_questions_are_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
