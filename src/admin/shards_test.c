// SPDX-License-Identifier: MIT
#include "admin/shards.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "admin/gather.h"

#define N 3

static struct shards *shards;
static int fds[N + 1][2]; /* [0] ours as the shard, [1] the asker's */
static int32_t pids[N];
static uint8_t buf[CONTROL_MESSAGE_MAX];
static unsigned dones;

static int32_t pid_of(void *ctx, unsigned shard)
{
    return pids[shard];
}

static int open_all(void **state)
{
    struct shards_options opt = {.n = N, .pid = pid_of, .id_first = UINT32_MAX - 2};
    for (unsigned i = 0; i < PEERS_MAX; i++)
        opt.fds[i] = -1;
    for (unsigned i = 0; i <= N; i++) {
        assert_int_equal(control_open(fds[i]), 0);
        opt.fds[i == N ? PEER_SUPERVISOR : i] = fds[i][1];
        if (i < N)
            pids[i] = (int32_t)(100 + i);
    }
    shards = shards_new(&opt);
    dones = 0;
    return shards == NULL;
}

static int close_all(void **state)
{
    shards_free(shards);
    for (unsigned i = 0; i <= N; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
    return 0;
}

static void on_done(struct gather *g)
{
    dones++;
}

/* The next request that shard i finds; its id. */
static uint32_t expect(unsigned i, enum control_op op)
{
    struct control_request req;
    int r = control_receive(fds[i][0], buf, &req);
    if (r != 0)
        fail_msg("shard %u: %s", i, strerror(-r));
    assert_int_equal(req.head.op, op);
    return req.head.id;
}

static void expect_nothing(unsigned i)
{
    struct control_request req;
    assert_int_equal(control_receive(fds[i][0], buf, &req), -EAGAIN);
}

static void reply(unsigned i, uint32_t id, int status, const char *json, uint32_t flags)
{
    struct control_reply head = {.id = id, .status = status, .flags = flags};
    assert_int_equal(control_reply(fds[i][0], &head, json, strlen(json)), 0);
    assert_true(shards_readable(shards, i == N ? PEER_SUPERVISOR : i));
}

static void begin(struct gather *g, uint64_t mask, uint64_t now_ms, uint64_t timeout_ms)
{
    g->done = on_done;
    g->ask.req.head.op = CONTROL_TABLES;
    assert_int_equal(gather_ask(shards, g, mask, now_ms, timeout_ms), 0);
}

static void answers_of_all_are_gathered(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    begin(&g, 7, 1000, 500);
    assert_int_equal(dones, 0);
    for (unsigned i = 0; i < N; i++) {
        expect(i, CONTROL_HELLO);
        uint32_t id = expect(i, CONTROL_TABLES);
        expect_nothing(i);
        if (i == 1)
            reply(i, id, 0, "{\"more\":1}", CONTROL_MORE);
        reply(i, id, 0, "{}", 0);
        shards_work(shards, 1001);
        assert_int_equal(dones, i == N - 1);
    }
    assert_int_equal(gather_missing(&g), 0);
    assert_true(slice_eq_str(gather_json(&g, 0), "{}"));
    assert_true(slice_eq_str(gather_json(&g, 1), "{\"more\":1},{}"));
    gather_fini(&g);
}

static void who_is_late_is_missing_and_his_answer_is_nobodys(void **state)
{
    struct gather g = {.form = GATHER_ROWS}, next = {.form = GATHER_ROWS};
    begin(&g, 3, 1000, 500);
    expect(0, CONTROL_HELLO);
    reply(0, expect(0, CONTROL_TABLES), 0, "{}", 0);
    expect(1, CONTROL_HELLO);
    uint32_t id = expect(1, CONTROL_TABLES);
    assert_in_range(shards_timeout_ms(shards, 1000), 1, 500);
    shards_work(shards, 1499);
    assert_int_equal(dones, 0);
    shards_work(shards, 1500);
    assert_int_equal(dones, 1);
    assert_int_equal(gather_missing(&g), 2);
    assert_true(gather_has(&g, 0));
    begin(&next, 2, 1500, 500);
    reply(1, id, 0, "{\"late\":1}", 0);
    shards_work(shards, 1501);
    assert_int_equal(dones, 1);
    assert_int_equal(shards_stats(shards).unknown, 1);
    reply(1, expect(1, CONTROL_TABLES), 0, "{\"new\":1}", 0);
    shards_work(shards, 1502);
    assert_true(slice_eq_str(gather_json(&next, 1), "{\"new\":1}"));
    gather_fini(&g);
    gather_fini(&next);
}

static void who_does_not_run_is_missing_at_once(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    pids[2] = 0;
    begin(&g, 4, 1000, 500);
    assert_int_equal(dones, 0); /* never from within the question */
    assert_int_equal(shards_timeout_ms(shards, 1000), 0);
    shards_work(shards, 1000);
    assert_int_equal(dones, 1);
    assert_int_equal(gather_missing(&g), 4);
    expect_nothing(2);
    gather_fini(&g);
}

static void who_dies_meanwhile_is_missing_soon(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    shards_work(shards, 1000);
    begin(&g, 1, 1000, 60000);
    pids[0] = 999; /* and another one is there already */
    shards_work(shards, 1001 + 100);
    assert_int_equal(dones, 1);
    assert_int_equal(gather_missing(&g), 1);
    gather_fini(&g);
}

static void who_is_new_is_greeted_before_anything_else(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    shards_work(shards, 1000);
    for (unsigned i = 0; i < N; i++) {
        expect(i, CONTROL_HELLO);
        expect_nothing(i);
    }
    pids[1] = 500;
    begin(&g, 2, 1001, 500);
    expect(1, CONTROL_HELLO);
    expect(1, CONTROL_TABLES);
    shards_work(shards, 2000);
    expect_nothing(1);
    expect_nothing(0);
    gather_fini(&g);
}

static void garbage_counts_as_no_answer(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    begin(&g, 7, 1000, 500);
    for (unsigned i = 0; i < N; i++)
        expect(i, CONTROL_HELLO);
    reply(0, expect(0, CONTROL_TABLES), 0, "{\"a\":", 0);
    assert_int_equal(write(fds[1][0], "?", 1), 1); /* shorter than a head */
    assert_true(shards_readable(shards, 1));
    assert_int_equal(shards_stats(shards).garbage, 1);
    reply(1, expect(1, CONTROL_TABLES) + 1000, 0, "{}", 0); /* an id that nobody has */
    reply(2, expect(2, CONTROL_TABLES), 0, "{}", 0);
    shards_work(shards, 1500);
    assert_int_equal(dones, 1);
    assert_int_equal(gather_missing(&g), 3);
    assert_true(gather_has(&g, 2));
    gather_fini(&g);
}

static void an_answer_of_one_who_was_not_asked_is_nobodys(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    begin(&g, 1, 1000, 500);
    expect(0, CONTROL_HELLO);
    uint32_t id = expect(0, CONTROL_TABLES);
    reply(1, id, 0, "{}", 0);
    reply(0, id, 0, "{}", 0);
    reply(0, id, 0, "{\"twice\":1}", 0);
    shards_work(shards, 1001);
    assert_int_equal(shards_stats(shards).unknown, 2);
    assert_true(slice_eq_str(gather_json(&g, 0), "{}"));
    gather_fini(&g);
}

static void too_much_counts_as_no_answer(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    static char row[60000];
    memset(row, ' ', sizeof row - 1);
    row[0] = '{';
    row[sizeof row - 2] = '}';
    begin(&g, 1, 1000, 500);
    expect(0, CONTROL_HELLO);
    uint32_t id = expect(0, CONTROL_TABLES);
    for (size_t sent = 0; sent < GATHER_BYTES_MAX; sent += sizeof row)
        reply(0, id, 0, row, CONTROL_MORE);
    reply(0, id, 0, "{}", 0);
    shards_work(shards, 1001);
    assert_int_equal(gather_missing(&g), 1);
    assert_true(gather_json(&g, 0).len <= GATHER_BYTES_MAX);
    gather_fini(&g);
}

/* Its socket takes no more; once it reads, the question goes out. */
static void who_does_not_read_is_tried_again(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    struct control_request fill = {.head = {.op = CONTROL_TABLES}}, req;
    static uint8_t text[30000];
    fill.text[CONTROL_TEXT_NAME] = (struct slice){text, sizeof text};
    shards_work(shards, 1000);
    while (control_send(fds[0][1], &fill) == 0)
        continue;
    begin(&g, 1, 1000, 500);
    shards_work(shards, 1001);
    assert_in_range(shards_timeout_ms(shards, 1001), 1, 5);
    while (control_receive(fds[0][0], buf, &req) == 0)
        continue;
    shards_work(shards, 1006);
    reply(0, expect(0, CONTROL_TABLES), 0, "{}", 0);
    shards_work(shards, 1007);
    assert_int_equal(dones, 1);
    assert_int_equal(gather_missing(&g), 0);
    gather_fini(&g);
}

static void there_is_an_end_to_questions(void **state)
{
    static struct gather g[ASKS_MAX + 1];
    memset(g, 0, sizeof g);
    for (unsigned i = 0; i < ASKS_MAX; i++)
        begin(&g[i], 1, 1000, 500);
    g[ASKS_MAX].done = on_done;
    assert_int_equal(gather_ask(shards, &g[ASKS_MAX], 1, 1000, 500), -EBUSY);
    g[ASKS_MAX].ask.kind = ASK_FREE;
    assert_int_equal(gather_ask(shards, &g[ASKS_MAX], 1, 1000, 500), 0);
    shards_cancel(shards, &g[0].ask);
    begin(&g[0], 1, 1000, 500);
    shards_work(shards, 1500);
    assert_int_equal(dones, ASKS_MAX + 1);
    assert_int_equal(shards_timeout_ms(shards, 1500), -1);
    for (unsigned i = 0; i <= ASKS_MAX; i++)
        gather_fini(&g[i]);
}

static void a_cancelled_question_is_not_heard_of(void **state)
{
    struct gather g = {.form = GATHER_ROWS};
    begin(&g, 1, 1000, 500);
    shards_cancel(shards, &g.ask);
    expect(0, CONTROL_HELLO);
    reply(0, expect(0, CONTROL_TABLES), 0, "{}", 0);
    shards_work(shards, 5000);
    assert_int_equal(dones, 0);
    gather_fini(&g);
}

static void the_supervisor_is_asked_alone(void **state)
{
    struct gather g = {.form = GATHER_OBJECT, .done = on_done};
    g.ask.req.head.op = CONTROL_RELOAD;
    assert_int_equal(gather_ask_supervisor(shards, &g, 1000, 500), 0);
    reply(N, expect(N, CONTROL_RELOAD), -EINVAL, "{\"error\":\"x\"}", 0);
    shards_work(shards, 1001);
    assert_int_equal(dones, 1);
    assert_int_equal(gather_error(&g), -EINVAL);
    assert_int_equal(gather_missing(&g), 0);
    expect(0, CONTROL_HELLO);
    expect_nothing(0);
    gather_fini(&g);
}

/* ---- what goes on */

static unsigned lines, ends;

static void on_line(struct ask *a, unsigned peer, const struct control_reply *r, struct slice json)
{
    lines++;
}

static void on_end(struct ask *a)
{
    ends++;
}

static void what_is_followed_is_asked_of_a_successor_too(void **state)
{
    struct ask a = {.kind = ASK_FOLLOW, .reply = on_line, .done = on_end};
    a.req.head.op = CONTROL_TRACE;
    a.req.head.seconds = 60;
    lines = ends = 0;
    pids[2] = 0;
    shards_work(shards, 1000);
    assert_int_equal(shards_ask(shards, &a, 5, 1000, 60000), 0);
    expect(0, CONTROL_HELLO);
    uint32_t id = expect(0, CONTROL_TRACE);
    reply(0, id, 0, "{}", CONTROL_MORE);
    assert_int_equal(lines, 1);
    pids[0] = 0;
    shards_work(shards, 1200);
    pids[0] = 300;
    pids[2] = 102;
    shards_work(shards, 11300);
    expect(0, CONTROL_HELLO);
    struct control_request req;
    assert_int_equal(control_receive(fds[0][0], buf, &req), 0);
    assert_int_equal(req.head.op, CONTROL_TRACE);
    assert_int_equal(req.head.id, id);
    assert_in_range(req.head.seconds, 49, 51);
    expect(2, CONTROL_HELLO);
    expect(2, CONTROL_TRACE);
    assert_int_equal(ends, 0);
    reply(0, id, 0, "", 0);
    reply(2, id, 0, "", 0);
    shards_work(shards, 11400);
    assert_int_equal(ends, 1);
}

static void what_is_followed_ends_in_time(void **state)
{
    struct ask a = {.kind = ASK_FOLLOW, .reply = on_line, .done = on_end};
    a.req.head.op = CONTROL_TRACE;
    lines = ends = 0;
    pids[0] = 0;
    assert_int_equal(shards_ask(shards, &a, 3, 1000, 500), 0);
    shards_work(shards, 1400);
    assert_int_equal(ends, 0);
    shards_work(shards, 1500);
    assert_int_equal(ends, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_of_all_are_gathered, open_all, close_all),
        cmocka_unit_test_setup_teardown(who_is_late_is_missing_and_his_answer_is_nobodys, open_all,
                                        close_all),
        cmocka_unit_test_setup_teardown(who_does_not_run_is_missing_at_once, open_all, close_all),
        cmocka_unit_test_setup_teardown(who_dies_meanwhile_is_missing_soon, open_all, close_all),
        cmocka_unit_test_setup_teardown(who_is_new_is_greeted_before_anything_else, open_all, close_all),
        cmocka_unit_test_setup_teardown(garbage_counts_as_no_answer, open_all, close_all),
        cmocka_unit_test_setup_teardown(an_answer_of_one_who_was_not_asked_is_nobodys, open_all, close_all),
        cmocka_unit_test_setup_teardown(too_much_counts_as_no_answer, open_all, close_all),
        cmocka_unit_test_setup_teardown(who_does_not_read_is_tried_again, open_all, close_all),
        cmocka_unit_test_setup_teardown(there_is_an_end_to_questions, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_cancelled_question_is_not_heard_of, open_all, close_all),
        cmocka_unit_test_setup_teardown(the_supervisor_is_asked_alone, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_is_followed_is_asked_of_a_successor_too, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_is_followed_ends_in_time, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
