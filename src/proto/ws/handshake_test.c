// SPDX-License-Identifier: MIT
#include "proto/ws/handshake.h"

#include <limits.h>
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
    static const struct http_limits limits = {sizeof head, sizeof head, HTTP_HEADERS_MAX};
    size_t scanned = 0;
    int len = snprintf(head, sizeof head, "GET /chat HTTP/1.1\r\nHost: a\r\n%s\r\n", headers);
    assert_int_equal(http_parse((uint8_t *)head, (size_t)len, &scanned, &limits, &req), len);
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

/* --- Sub-protocols */

static void assert_selected(const char *want, const char *headers, const char *ours)
{
    char buf[20];
    check_headers(headers);
    const char *got = ws_subprotocol_select(&req, ours, buf, sizeof buf);
    if (want == NULL) {
        assert_null(got);
    } else {
        assert_ptr_equal(got, buf);
        assert_string_equal(got, want);
    }
}

/* Section 1.3: "Sec-WebSocket-Protocol: chat, superchat" is answered "Sec-WebSocket-Protocol: chat". */
static void the_subprotocol_of_the_rfc(void **state)
{
    char out[300];
    assert_selected("chat", UPGRADE CONNECTION KEY VERSION "Sec-WebSocket-Protocol: chat, superchat\r\n",
                    "chat");
    size_t len = ws_handshake_response(&req, "chat", NULL, out, sizeof out);
    assert_int_equal(len, strlen(out));
    assert_string_equal(out,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                        "Sec-WebSocket-Protocol: chat\r\n\r\n");
}

static void our_order_of_subprotocols_counts(void **state)
{
    static const char offer[] = "Sec-WebSocket-Protocol: chat, superchat ,mqtt\r\n";
    assert_selected("superchat", offer, "superchat, chat");
    assert_selected("chat", offer, " chat ,superchat");
    assert_selected("mqtt", offer, "v2.mqtt,,mqtt");
    assert_selected("b", "Sec-WebSocket-Protocol: a\r\nX: y\r\nsec-websocket-PROTOCOL: b\r\n", "c,b,a");
}

static void no_subprotocol_in_common(void **state)
{
    assert_selected(NULL, "Sec-WebSocket-Protocol: chat, superchat\r\n", "");
    assert_selected(NULL, "Sec-WebSocket-Protocol: chat, superchat\r\n", " , ");
    assert_selected(NULL, "Sec-WebSocket-Protocol: chat, superchat\r\n", "mqtt");
    assert_selected(NULL, "Sec-WebSocket-Protocol: chat, superchat\r\n", "Chat, cha, chats, super");
    assert_selected(NULL, "Sec-WebSocket-Protocol:\r\n", "chat");
    assert_selected(NULL, "X-Sec-WebSocket-Protocol: chat\r\n", "chat");
    assert_selected(NULL, "", "chat");
}

static void a_subprotocol_that_does_not_fit(void **state)
{
    assert_selected("nineteen-characters", "Sec-WebSocket-Protocol: nineteen-characters\r\n",
                    "nineteen-characters");
    assert_selected(NULL, "Sec-WebSocket-Protocol: twenty-characters-it\r\n", "twenty-characters-it");
}

/* --- Paths */

static size_t match(const char *path, const char *list)
{
    return http_path_match((struct slice){(const uint8_t *)path, strlen(path)}, list);
}

static void paths_that_match(void **state)
{
    assert_int_equal(match("/chat", "/chat"), 5);
    assert_int_equal(match("/chat", "/a, /chat , /b"), 5);
    assert_int_equal(match("/api/", "/api/"), 5);
    assert_int_equal(match("/api/v1/x", "/api/"), 5);
    assert_int_equal(match("/api/v1/x", "/,/api/,/api/v1/,/api/v2/"), 8);
    assert_int_equal(match("/api/v1/x", "/api/v1/x,/api/v1/"), 9);
    assert_int_equal(match("/", "/"), 1);
    assert_int_equal(match("/anything", "/"), 1);
    assert_int_equal(match("", "/"), 1); /* GET http://host HTTP/1.1 */
    assert_int_equal(match("/chat", ""), 1);
    assert_int_equal(match("", " , "), 1);
}

static void paths_that_do_not_match(void **state)
{
    static const char *const list = "/chat, /api/";
    static const char *const paths[] = {"",     "/",     "/cha",    "/chats",  "/chat/",      "/Chat",
                                        "/api", "/apix", "/API/",   "//chat",  "/%63hat",     "/chat%20",
                                        "chat", "api/",  "/x/api/", "/./chat", "/chat, /api/"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        assert_int_equal(match(paths[i], list), 0);
    assert_int_equal(match("/chat", "chat"), 0);
}

/* --- Refusals */

static void every_refusal_is_a_whole_response(void **state)
{
    static const int statuses[] = {200, 400, 403, 404, 405, 408, 414, 426, 429, 431, 503, 505};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        char out[HTTP_ERROR_SIZE], line[40];
        size_t len = http_error_response(statuses[i], UINT_MAX, out, sizeof out), body_len;
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
        assert_int_equal(http_error_response(statuses[i], UINT_MAX, out, len), 0);
    }
}

static void refusals_say_what_would_do(void **state)
{
    char out[HTTP_ERROR_SIZE];
    http_error_response(426, 5, out, sizeof out);
    assert_non_null(strstr(out, "\r\nUpgrade: websocket\r\n"));
    assert_non_null(strstr(out, "\r\nConnection: Upgrade, close\r\n"));
    assert_non_null(strstr(out, "\r\nSec-WebSocket-Version: 13\r\n"));
    http_error_response(405, 5, out, sizeof out);
    assert_non_null(strstr(out, "\r\nAllow: GET\r\n"));
    http_error_response(999, 5, out, sizeof out);
    assert_memory_equal(out, "HTTP/1.1 400 ", 13);
}

static void refusals_say_when_to_come_back(void **state)
{
    char out[HTTP_ERROR_SIZE];
    static const int statuses[] = {200, 400, 403, 404, 408, 426, 429, 431, 503};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        bool says = statuses[i] == 429 || statuses[i] == 503;
        http_error_response(statuses[i], 17, out, sizeof out);
        assert_int_equal(strstr(out, "\r\nRetry-After: 17\r\n") != NULL, says);
        http_error_response(statuses[i], 0, out, sizeof out);
        assert_null(strstr(out, "Retry-After"));
    }
}

static void health_checks_are_answered_ok(void **state)
{
    char out[HTTP_ERROR_SIZE];
    http_error_response(200, 0, out, sizeof out);
    assert_string_equal(out, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n"
                             "Content-Length: 3\r\n\r\nok\n");
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
        cmocka_unit_test(the_subprotocol_of_the_rfc),
        cmocka_unit_test(our_order_of_subprotocols_counts),
        cmocka_unit_test(no_subprotocol_in_common),
        cmocka_unit_test(a_subprotocol_that_does_not_fit),
        cmocka_unit_test(paths_that_match),
        cmocka_unit_test(paths_that_do_not_match),
        cmocka_unit_test(every_refusal_is_a_whole_response),
        cmocka_unit_test(refusals_say_what_would_do),
        cmocka_unit_test(refusals_say_when_to_come_back),
        cmocka_unit_test(health_checks_are_answered_ok),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
