// SPDX-License-Identifier: MIT
#include "main/ctl_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static ssize_t parse(const char *text, struct ctl_http_head *ret)
{
    return ctl_http_head_parse((const uint8_t *)text, strlen(text), ret);
}

static void every_split_point_asks_for_more_until_the_head_is_whole(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    const size_t head_bytes = strlen(text) - 7;

    for (size_t len = 0; len <= strlen(text); len++) {
        struct ctl_http_head head = {.status = 1, .content_length = 1};
        /* Bytes of its own, so that a sanitizer sees what is read behind them. */
        uint8_t *copy = malloc(len > 0 ? len : 1);
        memcpy(copy, text, len);
        ssize_t r = ctl_http_head_parse(copy, len, &head);
        free(copy);
        if (len < head_bytes) {
            assert_int_equal(r, 0);
            assert_int_equal(head.status, 1);
            continue;
        }
        assert_int_equal(r, head_bytes);
        assert_int_equal(head.status, 200);
        assert_int_equal(head.content_length, 7);
    }
}

static void a_head_without_a_length_goes_on_to_the_end(void **state)
{
    struct ctl_http_head head;
    assert_int_equal(parse("HTTP/1.0 503\r\n\r\n", &head), 16);
    assert_int_equal(head.status, 503);
    assert_int_equal(head.content_length, -1);
}

static void names_of_fields_have_no_case_and_values_no_blanks_around(void **state)
{
    struct ctl_http_head head;
    assert_true(parse("HTTP/1.1 404 Not Found\ncontent-LENGTH: \t 12 \t\n\n", &head) > 0);
    assert_int_equal(head.content_length, 12);
    assert_int_equal(head.status, 404);
}

static void what_is_no_answer_is_refused(void **state)
{
    static const char *const bad[] = {
        "SSH-2.0-OpenSSH",
        "HTTQ",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 600 x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ctl_http_head head = {.status = 7};
        if (parse(bad[i], &head) != -EBADMSG)
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(head.status, 7);
    }
}

static void a_head_without_end_is_refused(void **state)
{
    struct ctl_http_head head;
    char *text = malloc(2 * CTL_HTTP_HEAD_MAX);
    int n = snprintf(text, 2 * CTL_HTTP_HEAD_MAX, "HTTP/1.1 200 OK\r\nX: ");
    memset(text + n, 'x', 2 * CTL_HTTP_HEAD_MAX - (size_t)n);
    assert_int_equal(ctl_http_head_parse((uint8_t *)text, CTL_HTTP_HEAD_MAX, &head), 0);
    assert_int_equal(ctl_http_head_parse((uint8_t *)text, CTL_HTTP_HEAD_MAX + 1, &head), -EMSGSIZE);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_point_asks_for_more_until_the_head_is_whole),
        cmocka_unit_test(a_head_without_a_length_goes_on_to_the_end),
        cmocka_unit_test(names_of_fields_have_no_case_and_values_no_blanks_around),
        cmocka_unit_test(what_is_no_answer_is_refused),
        cmocka_unit_test(a_head_without_end_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
