// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "proto/php/ws_connect.h"

static void add_header(struct http_request *req, const char *name, const char *value)
{
    req->headers[req->n_headers++] =
        (struct http_header){{(const uint8_t *)name, strlen(name)}, {(const uint8_t *)value, strlen(value)}};
}

static void assert_body(const struct http_request *req, const char *expected)
{
    struct bytes out = {0};
    assert_int_equal(php_ws_connect(&out, req, "192.0.2.7", 54321, 8282), 0);
    if (!slice_eq_str((struct slice){out.data, out.len}, expected))
        fail_msg("%.*s", (int)out.len, out.data);
    bytes_fini(&out);
}

/* Recorded from Workerman's Request and GatewayWorker's onWebsocketConnect. */
static void a_handshake(void **state)
{
    struct http_request req = {
        .method = SLICE_STR("GET"), .target = SLICE_STR("/chat?a[]=1&b.c=x"), .version = SLICE_STR("1.1")};
    add_header(&req, "Host", "localhost:8282");
    add_header(&req, "Cookie", "sid=5; x=%20");
    assert_body(
        &req,
        "a:3:{s:3:\"get\";a:2:{s:1:\"a\";a:1:{i:0;s:1:\"1\";}s:3:\"b_c\";s:1:\"x\";}"
        "s:6:\"server\";a:11:{s:12:\"QUERY_STRING\";s:11:\"a[]=1&b.c=x\";s:14:\"REQUEST_METHOD\";s:3:\"GET\";"
        "s:11:\"REQUEST_URI\";s:17:\"/chat?a[]=1&b.c=x\";s:15:\"SERVER_PROTOCOL\";s:8:\"HTTP/1.1\";"
        "s:11:\"SERVER_NAME\";s:14:\"localhost:8282\";s:12:\"CONTENT_TYPE\";N;s:11:\"REMOTE_ADDR\";s:9:\"192."
        "0.2.7\";"
        "s:11:\"REMOTE_PORT\";i:54321;s:11:\"SERVER_PORT\";i:8282;s:9:\"HTTP_HOST\";s:14:\"localhost:8282\";"
        "s:11:\"HTTP_COOKIE\";s:12:\"sid=5; x=%20\";}"
        "s:6:\"cookie\";a:2:{s:3:\"sid\";s:1:\"5\";s:1:\"x\";s:3:\"%20\";}}");
}

static void repeated_and_colliding_headers(void **state)
{
    struct http_request req = {
        .method = SLICE_STR("GET"), .target = SLICE_STR("/"), .version = SLICE_STR("1.1")};
    add_header(&req, "X-A", "1");
    add_header(&req, "x_a", "2");
    add_header(&req, "x-a", "3");
    add_header(&req, "Content-Type", "t");
    assert_body(
        &req,
        "a:3:{s:3:\"get\";a:0:{}s:6:\"server\";a:11:{s:12:\"QUERY_STRING\";s:0:\"\";s:14:\"REQUEST_METHOD\";"
        "s:3:\"GET\";"
        "s:11:\"REQUEST_URI\";s:1:\"/\";s:15:\"SERVER_PROTOCOL\";s:8:\"HTTP/1.1\";s:11:\"SERVER_NAME\";N;"
        "s:12:\"CONTENT_TYPE\";s:1:\"t\";s:11:\"REMOTE_ADDR\";s:9:\"192.0.2.7\";s:11:\"REMOTE_PORT\";i:54321;"
        "s:11:\"SERVER_PORT\";i:8282;s:8:\"HTTP_X_A\";s:1:\"2\";s:17:\"HTTP_CONTENT_TYPE\";s:1:\"t\";}"
        "s:6:\"cookie\";a:0:{}}");
}

static void query_as_parse_url_sees_it(void **state)
{
    static const struct {
        const char *target, *query;
    } cases[] = {{"/a?b", "b"},
                 {"/a?b#c?d", "b"},
                 {"/a#b?c", ""},
                 {"//h/x?y", "y"},
                 {"//?x", ""},
                 {"/a:80", ""},
                 {"/a:80?x", "x"},
                 {"/x:99999/?y", ""},
                 {"http://h/p?q", "q"},
                 {"*", ""},
                 {"///x?y", ""},
                 {"a:80/?b", "b"},
                 {"/?a\x01\x7F", "a__"},
                 {"", ""},
                 {"/?", ""},
                 {"//[::1]:80?x", "x"},
                 {"//h:999999?x", ""},
                 {"file:///c:/x?y", "y"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes scratch = {0};
        struct slice query;
        assert_int_equal(
            php_url_query((struct slice){(const uint8_t *)cases[i].target, strlen(cases[i].target)}, &scratch,
                          &query),
            0);
        if (!slice_eq_str(query, cases[i].query))
            fail_msg("%s gives %.*s", cases[i].target, (int)query.len, query.data);
        bytes_fini(&scratch);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handshake),
        cmocka_unit_test(repeated_and_colliding_headers),
        cmocka_unit_test(query_as_parse_url_sees_it),
    };
    hash_init_fixed(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
