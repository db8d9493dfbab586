// SPDX-License-Identifier: MIT
#include "common/control.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static int fds[2];
static uint8_t buf[CONTROL_MESSAGE_MAX];

static int open_pair(void **state)
{
    return control_open(fds);
}

static int close_pair(void **state)
{
    close(fds[0]);
    close(fds[1]);
    return 0;
}

static void a_request_arrives_as_it_was_sent(void **state)
{
    struct control_request req = {.head = {.id = 7,
                                           .op = CONTROL_CLIENTS,
                                           .by = CONTROL_BY_QUEUE,
                                           .cursor = UINT64_MAX,
                                           .address = {.family = AF_INET, .ip = {10, 0, 0, 0}},
                                           .address_bits = 8}};
    struct control_request got;
    req.text[CONTROL_TEXT_UID] = SLICE_STR("u\0id");
    req.text[CONTROL_TEXT_REASON] = SLICE_STR("");
    assert_int_equal(control_send(fds[1], &req), 0);
    assert_int_equal(control_receive(fds[0], buf, &got), 0);
    assert_memory_equal(&got.head, &req.head, sizeof got.head);
    for (unsigned i = 0; i < CONTROL_TEXT_N; i++) {
        assert_int_equal(got.text[i].data == NULL, req.text[i].data == NULL);
        assert_true(slice_eq(got.text[i], req.text[i]));
    }
    assert_int_equal(control_receive(fds[0], buf, &got), -EAGAIN);
}

static void an_answer_arrives_as_it_was_sent(void **state)
{
    static char json[CONTROL_JSON_MAX];
    struct control_reply reply = {.id = 9, .status = -ENOENT, .cursor = 5, .flags = CONTROL_MORE}, got;
    struct slice text;
    memset(json, 'j', sizeof json);
    assert_int_equal(control_reply(fds[0], &reply, json, sizeof json), 0);
    assert_int_equal(control_reply(fds[0], &reply, json, sizeof json + 1), -EMSGSIZE);
    assert_int_equal(control_receive_reply(fds[1], buf, &got, &text), 0);
    assert_memory_equal(&got, &reply, sizeof got);
    assert_true(slice_eq(text, (struct slice){(uint8_t *)json, sizeof json}));
}

static void what_makes_no_sense_is_refused(void **state)
{
    struct control_head good = {.op = CONTROL_CLIENTS, .texts = 1, .text_len = {3}};
    struct control_request got;
    struct {
        struct control_head head;
        char text[3];
    } message = {good, "abc"};
    const size_t len = sizeof good + 3;

    assert_int_equal(send(fds[1], &message, len, 0), len);
    assert_int_equal(control_receive(fds[0], buf, &got), 0);
    const size_t lens[] = {1, sizeof good - 1, len - 1, len + 1};
    for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        assert_int_equal(send(fds[1], &message, lens[i], 0), lens[i]);
        assert_int_equal(control_receive(fds[0], buf, &got), -EBADMSG);
    }
    struct control_head bad[] = {good, good, good, good, good};
    bad[0].op = CONTROL_OP_N;
    bad[1].by = CONTROL_BY_N;
    bad[2].texts = 1u << CONTROL_TEXT_N | 1;
    bad[3].address.family = AF_INET;
    bad[3].address_bits = 33;
    bad[4].text_len[1] = 1; /* of one that is not set */
    bad[4].text_len[0] = 2;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        message.head = bad[i];
        assert_int_equal(send(fds[1], &message, len, 0), len);
        assert_int_equal(control_receive(fds[0], buf, &got), -EBADMSG);
    }
}

static void who_does_not_read_is_not_waited_for(void **state)
{
    static char json[CONTROL_JSON_MAX];
    struct control_reply reply = {.id = 1};
    int r, n = 0;
    while ((r = control_reply(fds[0], &reply, json, sizeof json)) == 0)
        n++;
    assert_int_equal(r, -EAGAIN);
    assert_true(n >= 1);
}

static void the_other_end_is_gone(void **state)
{
    struct control_request req = {.head = {.op = CONTROL_HELLO}}, got;
    int own[2];
    assert_int_equal(control_open(own), 0);
    close(own[1]);
    assert_int_equal(control_receive(own[0], buf, &got), -EPIPE);
    assert_int_equal(control_send(own[0], &req), -EPIPE);
    close(own[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_request_arrives_as_it_was_sent, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(an_answer_arrives_as_it_was_sent, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(what_makes_no_sense_is_refused, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(who_does_not_read_is_not_waited_for, open_pair, close_pair),
        cmocka_unit_test(the_other_end_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
