// SPDX-License-Identifier: MIT
#include "proto/ws/handshake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/line/http_parse.h"

#define KEY        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION    "Sec-WebSocket-Version: 13\r\n"
#define UPGRADE    "Upgrade: websocket\r\n"
#define CONNECTION "Connection: Upgrade\r\n"

static struct http_request req;
static char head[2000];

static int check_headers(const char *headers)
{
    size_t scanned = 0;
    int len = snprintf(head, sizeof head, "GET /chat HTTP/1.1\r\nHost: a\r\n%s\r\n", headers);
    assert_int_equal(http_parse((uint8_t *)head, (size_t)len, &scanned, sizeof head, &req), len);
    return ws_handshake_check(&req);
}

static void assert_status(int want, const char *headers)
{
    int status = check_headers(headers);
    if (status != want)
        fail_msg("%d, not %d:\n%s", status, want, headers);
}

static void good_handshakes(void **state)
{
    assert_status(0, UPGRADE CONNECTION KEY VERSION);
    assert_status(0, "UPGRADE: WebSocket\r\nCONNECTION: upGRADE\r\nsec-websocket-version: 13\r\n"
                     "SEC-WEBSOCKET-KEY:AAAAAAAAAAAAAAAAAAAA/+==\r\n");
    assert_status(0, UPGRADE "Connection: keep-alive, Upgrade\r\n" KEY VERSION);
    assert_status(0, UPGRADE "Connection: keep-alive\r\nConnection: Upgrade\r\n" KEY VERSION);
    assert_status(0, "Upgrade: h2c\r\nUpgrade: a, websocket\r\n" CONNECTION KEY VERSION);
    assert_status(0,
                  UPGRADE "Connection: keep-alive,\r\n Upgrade\r\n" KEY "Sec-WebSocket-Version:\r\n\t13\r\n");
}

static void upgrade_is_required(void **state)
{
    assert_status(426, "");
    assert_status(426, CONNECTION KEY VERSION);
    assert_status(426, "Upgrade: h2c\r\n" CONNECTION KEY VERSION);
    assert_status(426, "Upgrade: websocketx\r\n" CONNECTION KEY VERSION);
}

static void version_13_is_required(void **state)
{
    assert_status(426, UPGRADE CONNECTION KEY);
    assert_status(426, UPGRADE CONNECTION KEY "Sec-WebSocket-Version: 8\r\n");
    assert_status(426, UPGRADE CONNECTION KEY "Sec-WebSocket-Version: 013\r\n");
    assert_status(426, UPGRADE CONNECTION KEY "Sec-WebSocket-Version: 13, 8\r\n");
    assert_status(426, UPGRADE CONNECTION KEY VERSION "Sec-WebSocket-Version: 8\r\n");
    assert_status(426, UPGRADE CONNECTION KEY "Sec-WebSocket-Version:\r\n");
}

static void connection_has_to_say_upgrade(void **state)
{
    assert_status(400, UPGRADE KEY VERSION);
    assert_status(400, UPGRADE "Connection: keep-alive\r\n" KEY VERSION);
}

static void one_key_of_16_bytes(void **state)
{
    static const char *const bad[] = {
        "",
        "Sec-WebSocket-Key:\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA=\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ===\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q==\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub2-jZQ==\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==x\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ== x\r\n",
        KEY KEY,
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char headers[500];
        snprintf(headers, sizeof headers, "%s" UPGRADE CONNECTION VERSION, bad[i]);
        assert_status(400, headers);
    }
}

static void the_answer_of_the_rfc(void **state)
{
    char out[WS_RESPONSE_SIZE];
    static const char want[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_status(0, UPGRADE CONNECTION KEY VERSION);
    for (int round = 0; round < 3; round++) { /* the digest context is used again */
        assert_int_equal(ws_handshake_response(&req, NULL, NULL, out, sizeof out), strlen(want));
        assert_string_equal(out, want);
    }
}

static void another_key_another_answer(void **state)
{
    char out[WS_RESPONSE_SIZE];
    assert_status(0, "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n" UPGRADE CONNECTION VERSION);
    assert_true(ws_handshake_response(&req, NULL, NULL, out, sizeof out) > 0);
    assert_non_null(strstr(out, "Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n"));
}

static void answers_with_more_headers(void **state)
{
    char out[300];
    assert_status(0, UPGRADE CONNECTION KEY VERSION);
    size_t len = ws_handshake_response(&req, "chat", "Server: x\r\nX: y\r\n", out, sizeof out);
    assert_int_equal(len, strlen(out));
    assert_non_null(strstr(out, "=\r\nSec-WebSocket-Protocol: chat\r\nServer: x\r\nX: y\r\n\r\n"));
}

static void an_answer_that_does_not_fit(void **state)
{
    assert_status(0, UPGRADE CONNECTION KEY VERSION);
    for (size_t cap = 0; cap <= WS_RESPONSE_SIZE; cap++) {
        char *out = malloc(cap > 0 ? cap : 1);
        size_t len = ws_handshake_response(&req, NULL, NULL, out, cap);
        assert_int_equal(len, cap < WS_RESPONSE_SIZE ? 0 : WS_RESPONSE_SIZE - 1);
        free(out);
    }
}

static void every_refusal_is_a_whole_response(void **state)
{
    static const int statuses[] = {400, 403, 405, 408, 414, 426, 431, 503, 505};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        char out[HTTP_ERROR_SIZE], line[40];
        size_t len = http_error_response(statuses[i], out, sizeof out), body_len;
        assert_int_equal(len, strlen(out));
        snprintf(line, sizeof line, "HTTP/1.1 %d ", statuses[i]);
        assert_memory_equal(out, line, strlen(line));
        const char *body = strstr(out, "\r\n\r\n");
        assert_non_null(body);
        assert_int_equal(sscanf(strstr(out, "Content-Length: "), "Content-Length: %zu", &body_len), 1);
        assert_int_equal(strlen(body + 4), body_len);
        assert_true(body_len > 0);
        assert_non_null(strstr(out, "Content-Type: text/plain\r\n"));
        assert_non_null(strstr(out, "close\r\n"));
        assert_int_equal(http_error_response(statuses[i], out, len), 0);
    }
}

static void refusals_say_what_would_do(void **state)
{
    char out[HTTP_ERROR_SIZE];
    http_error_response(426, out, sizeof out);
    assert_non_null(strstr(out, "\r\nUpgrade: websocket\r\n"));
    assert_non_null(strstr(out, "\r\nConnection: Upgrade, close\r\n"));
    assert_non_null(strstr(out, "\r\nSec-WebSocket-Version: 13\r\n"));
    http_error_response(405, out, sizeof out);
    assert_non_null(strstr(out, "\r\nAllow: GET\r\n"));
    http_error_response(999, out, sizeof out);
    assert_memory_equal(out, "HTTP/1.1 400 ", 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_handshakes),
        cmocka_unit_test(upgrade_is_required),
        cmocka_unit_test(version_13_is_required),
        cmocka_unit_test(connection_has_to_say_upgrade),
        cmocka_unit_test(one_key_of_16_bytes),
        cmocka_unit_test(the_answer_of_the_rfc),
        cmocka_unit_test(another_key_another_answer),
        cmocka_unit_test(answers_with_more_headers),
        cmocka_unit_test(an_answer_that_does_not_fit),
        cmocka_unit_test(every_refusal_is_a_whole_response),
        cmocka_unit_test(refusals_say_what_would_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
