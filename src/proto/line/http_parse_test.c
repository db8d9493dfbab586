// SPDX-License-Identifier: MIT
#include "proto/line/http_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define LIMIT 2000

static struct http_request req;
static struct http_limits limits = {.line_size_max = LIMIT, .headers_max = HTTP_HEADERS_MAX};
static uint8_t parsed[8192]; /* what req points into, once a check passed */

/* Feeds the bytes up to each of `steps` lengths; the answer is that of the first call that is not 0. */
static int parse_steps(const char *in, size_t first, size_t step, size_t len, size_t limit)
{
    size_t scanned = 0;
    limits.head_size_max = limit;
    for (size_t n = first;; n = n + step < len ? n + step : len) {
        uint8_t *exact = malloc(n > 0 ? n : 1);
        memcpy(exact, in, n);
        int r = http_parse(exact, n, &scanned, &limits, &req);
        if (r == 0)
            assert_memory_equal(exact, in, n);
        free(exact);
        if (r != 0 || n == len)
            return r;
    }
}

/* The answer in one piece, which that at every split and byte by byte has to equal. */
static int parse_len(const char *in, size_t len, size_t limit)
{
    int want = parse_steps(in, len, 1, len, limit);
    for (size_t split = 0; split < len; split++)
        assert_int_equal(parse_steps(in, split, len, len, limit), want);
    assert_int_equal(parse_steps(in, 0, 1, len, limit), want);
    size_t scanned = 0;
    assert_true(len <= sizeof parsed);
    memcpy(parsed, in, len);
    assert_int_equal(http_parse(parsed, len, &scanned, &limits, &req), want);
    return want;
}

static int parse(const char *in)
{
    return parse_len(in, strlen(in), LIMIT);
}

/* A head that is right but for one more line. */
static int parse_with(const char *line)
{
    char in[1000];
    snprintf(in, sizeof in, "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", line);
    return parse(in);
}

static void assert_header(const char *name, const char *value)
{
    const struct slice *v = http_request_header(&req, name);
    assert_non_null(v);
    if (!slice_eq_str(*v, value))
        fail_msg("%s: \"%.*s\", not \"%s\"", name, (int)v->len, v->data, value);
}

#define GOOD(in)        assert_int_equal(parse(in), strlen(in))
#define BAD(status, in) assert_int_equal(parse(in), -(status))

static void the_example_of_rfc6455(void **state)
{
    static const char in[] = "GET /chat?room=1&x=%20 HTTP/1.1\r\n"
                             "Host: server.example.com:8080\r\n"
                             "Upgrade: websocket\r\n"
                             "Connection: Upgrade\r\n"
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                             "Origin: http://example.com\r\n"
                             "Sec-WebSocket-Version: 13\r\n\r\n";
    GOOD(in);
    assert_true(slice_eq_str(req.method, "GET"));
    assert_true(slice_eq_str(req.target, "/chat?room=1&x=%20"));
    assert_true(slice_eq_str(req.path, "/chat"));
    assert_true(slice_eq_str(req.query, "room=1&x=%20"));
    assert_true(slice_eq_str(req.version, "1.1"));
    assert_true(slice_eq_str(req.host, "server.example.com"));
    assert_int_equal(req.n_headers, 6);
    assert_header("sec-websocket-KEY", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_header("ORIGIN", "http://example.com");
    assert_null(http_request_header(&req, "Cookie"));
    assert_null(http_request_header(&req, "Hos"));
}

static void what_follows_the_head_is_left(void **state)
{
    char in[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n\x81\x85xyz";
    assert_int_equal(parse(in), strlen(in) - 5);
}

static void lines_may_end_in_a_bare_lf(void **state)
{
    GOOD("GET / HTTP/1.1\nHost: a\nX: y\n\n");
    assert_header("X", "y");
    GOOD("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\n");
    GOOD("GET / HTTP/1.1\nHost: a\n\r\n");
}

static void one_empty_line_before_the_request_is_skipped(void **state)
{
    GOOD("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    GOOD("\nGET / HTTP/1.1\nHost: a\n\n");
    BAD(400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    BAD(400, "\n\nGET / HTTP/1.1\nHost: a\n\n");
}

/* --- Early answers */

static void garbage_is_known_by_its_first_bytes(void **state)
{
    assert_int_equal(parse_len("\x16\x03\x01", 1, LIMIT), -400); /* TLS */
    assert_int_equal(parse_len("\0", 1, LIMIT), -400);
    BAD(400, "{\"type\":\"login\"}");
    BAD(400, " GET / HTTP/1.1");
    BAD(400, "hello\n");
    BAD(400, "GET\r\n");
    BAD(400, "\x81\x85");
    BAD(400, "averylongwordthatisnomethod");
    BAD(400, "GET /\rx");
    BAD(400, "GET / HTTP/1.1\r\nHost: a\x01");
    BAD(400, "\rG");
    assert_int_equal(parse("averylongwordthatmaybeam"), 0);
    assert_int_equal(parse("\r"), 0);
    assert_int_equal(parse("GE"), 0);
}

static void other_methods_are_refused_at_their_end(void **state)
{
    BAD(405, "POST ");
    BAD(405, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    BAD(405, "get ");
    BAD(405, "PRI * HTTP/2.0\r\n\r\n");
    assert_int_equal(parse("POST"), 0);
}

static void sizes_have_a_limit(void **state)
{
    static const char in[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    size_t len = sizeof in - 1;
    assert_int_equal(parse_len(in, len, len), len);
    assert_int_equal(parse_len(in, len, len - 1), -431);
    assert_int_equal(parse_len(in, len, 16), -431);
    assert_int_equal(parse_len(in, len, 15), -414);
    assert_int_equal(parse_len(in, 15, 15), -414);
    assert_int_equal(parse_len(in, 14, 15), 0);
    assert_int_equal(parse_len("GET /aaaaaaaaaaaaaaaaaaaaaaaaaaa", 32, 32), -414);
}

/* The answer to a request whose line has `line_len` bytes when `line_max` are allowed, and how many bytes of
 * it had to come before it was given. */
static int parse_line_len(size_t line_len, size_t line_max, const char *end, size_t *ret_needed)
{
    char in[1000];
    size_t scanned = 0, len = strlen("GET / HTTP/1.1");
    assert_true(line_len >= len && line_len < 500);
    memset(in, 'a', line_len);
    memcpy(in, "GET /", 5);
    memcpy(in + line_len - 9, " HTTP/1.1", 9);
    len = line_len + (size_t)snprintf(in + line_len, sizeof in - line_len, "%sHost: a%s%s", end, end, end);
    limits = (struct http_limits){LIMIT, line_max, HTTP_HEADERS_MAX};
    int want = parse_len(in, len, LIMIT), r;
    for (size_t n = 0; (r = http_parse((uint8_t *)in, n, &scanned, &limits, &req)) == 0; n++)
        *ret_needed = n + 1;
    assert_int_equal(r, want);
    limits.line_size_max = LIMIT;
    return want > 0 ? want - (int)len : want;
}

static void request_lines_have_a_limit(void **state)
{
    static const char *const ends[] = {"\r\n", "\n"};
    size_t needed = 0;
    for (size_t i = 0; i < 2; i++)
        for (size_t max = 16; max < 60; max++) {
            assert_int_equal(parse_line_len(max, max, ends[i], &needed), 0);
            assert_int_equal(parse_line_len(max - 1, max, ends[i], &needed), 0);
            for (size_t over = 1; over < 40; over++) {
                assert_int_equal(parse_line_len(max + over, max, ends[i], &needed), -414);
                assert_int_equal(needed, max + 1);
            }
        }
}

static void an_empty_line_before_it_is_not_of_the_request_line(void **state)
{
    limits.line_size_max = 16;
    GOOD("\r\nGET /aa HTTP/1.1\r\nHost: a\r\n\r\n");
    GOOD("\nGET /aa HTTP/1.1\nHost: a\r\n\r\n");
    BAD(414, "\r\nGET /aaa HTTP/1.1\r\nHost: a\r\n\r\n");
    limits.line_size_max = LIMIT;
}

/* What shows before the line is too long is said instead, what shows after it is not; and headers may be
 * longer than the request line. */
static void what_else_is_wrong_with_a_long_line(void **state)
{
    limits.line_size_max = 16;
    BAD(400, "GET /\x01ttttttttttttttttttt");
    BAD(400, "GET /aaaaaaaaaa\x01");
    BAD(414, "GET /aaaaaaaaaaa\x01");
    BAD(414, "GET /aaaaaaaaaaa\xFF");
    BAD(400, "GET /aaaaaaaaaaa\rb");
    BAD(414, "GET /aaaaaaaaaa\rb");
    BAD(400, "GET /aaaaaaaaa\rb");
    BAD(405, "POST /aaaaaaaaaaaaaaaa");
    BAD(414, "averylongwordthatisnomethod");
    GOOD("GET / HTTP/1.1\r\nHost: a.very.long.name.of.a.host\r\nX-Also-Longer: yes\r\n\r\n");
    limits.line_size_max = 5;
    BAD(414, "GET / HTTP/1.1\r\n");
    limits.line_size_max = 0;
    BAD(414, "G");
    limits.line_size_max = LIMIT;
}

static void limits_may_change_between_calls(void **state)
{
    uint8_t in[] = "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n";
    size_t len = sizeof in - 1, scanned = 0;
    limits.head_size_max = LIMIT;
    assert_int_equal(http_parse(in, 30, &scanned, &limits, &req), 0);
    struct http_limits smaller = {25, 20, 1};
    size_t as_it_was = scanned;
    assert_int_equal(http_parse(in, 31, &scanned, &smaller, &req), -414);
    scanned = as_it_was;
    smaller = (struct http_limits){LIMIT, 20, 1}; /* the line was within its limit as far as it had come */
    assert_int_equal(http_parse(in, len, &scanned, &smaller, &req), len);
}

static void headers_have_a_highest_number(void **state)
{
    static const unsigned highest[] = {1, 2, 100, HTTP_HEADERS_MAX};
    for (size_t h = 0; h < sizeof highest / sizeof highest[0]; h++) {
        char in[4096] = "GET / HTTP/1.1\r\nHost: a\r\n";
        size_t len = strlen(in);
        limits.headers_max = highest[h];
        for (unsigned i = 1; i < highest[h]; i++, len += 6)
            memcpy(in + len, "a: b\r\n", 6);
        memcpy(in + len, " \r\n\r\n", 6); /* folded: no header more */
        assert_int_equal(parse_steps(in, 0, 7, len + 5, 4096), len + 5);
        assert_int_equal(req.n_headers, highest[h]);
        memcpy(in + len, "a: b\r\n\r\n", 9);
        assert_int_equal(parse_steps(in, 0, 7, len + 8, 4096), -431);
    }
    limits.headers_max = HTTP_HEADERS_MAX;
}

/* --- The request line */

static void request_lines_that_are_wrong(void **state)
{
    static const char *const lines[] = {"GET / HTTP/1.1 ",
                                        "GET  / HTTP/1.1",
                                        "GET /  HTTP/1.1",
                                        "GET / ",
                                        "GET /",
                                        "GET ",
                                        "GET  HTTP/1.1",
                                        "GET /\tx HTTP/1.1",
                                        "GET x HTTP/1.1",
                                        "GET * HTTP/1.1",
                                        "GET /#f HTTP/1.1",
                                        "GET / http/1.1",
                                        "GET / HTTP/11",
                                        "GET / HTTP/1.x",
                                        "GET / HTTP/1.10",
                                        "GET / HTTX/1.1",
                                        "GET a:80 HTTP/1.1",
                                        "GET http:// HTTP/1.1",
                                        "GET ftp://a/ HTTP/1.1",
                                        "GET http://u@a/ HTTP/1.1"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char in[100];
        snprintf(in, sizeof in, "%s\r\nHost: a\r\n\r\n", lines[i]);
        if (parse(in) != -400)
            fail_msg("%s: %d", lines[i], parse(in));
    }
}

static void other_versions(void **state)
{
    BAD(505, "GET / HTTP/0.9\r\n\r\n");
    BAD(505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n");
    BAD(505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n");
}

/* Health checks come in it, and need no Host there. */
static void the_older_version(void **state)
{
    GOOD("GET / HTTP/1.0\r\n\r\n");
    GOOD("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    BAD(400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n");
}

static void targets(void **state)
{
    GOOD("GET /a/b?c=d?e HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(slice_eq_str(req.path, "/a/b"));
    assert_true(slice_eq_str(req.query, "c=d?e"));
    GOOD("GET /? HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(req.query.len, 0);
    GOOD("GET /\xE4\xB8\xAD{|} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(slice_eq_str(req.path, "/\xE4\xB8\xAD{|}"));
    GOOD("GET ws://b.org:99/p?q HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(slice_eq_str(req.host, "b.org"));
    assert_true(slice_eq_str(req.path, "/p"));
    assert_true(slice_eq_str(req.query, "q"));
    GOOD("GET HTTP://b?q HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(req.path.len, 0);
    assert_true(slice_eq_str(req.query, "q"));
}

/* --- Headers */

static void values_are_trimmed_and_names_kept(void **state)
{
    assert_true(parse_with("X-a: \t b c \t ") > 0);
    assert_header("x-A", "b c");
    assert_true(slice_eq_str(req.headers[1].name, "X-a"));
    assert_true(parse_with("X:y") > 0);
    assert_header("X", "y");
    assert_true(parse_with("X:") > 0);
    assert_header("X", "");
    assert_true(parse_with("X:   ") > 0);
    assert_header("X", "");
    assert_true(parse_with("X: a:b: c") > 0);
    assert_header("X", "a:b: c");
    assert_true(parse_with("X: \xE4\xB8\xAD") > 0);
    assert_header("X", "\xE4\xB8\xAD");
    assert_true(parse_with("!#$%&'*+-.^_`|~09: token") > 0);
    assert_header("!#$%&'*+-.^_`|~09", "token");
}

static void folded_values_are_joined_by_spaces(void **state)
{
    assert_true(parse_with("X: a\r\n b\r\n\t c") > 0);
    assert_header("X", "a   b  \t c");
    assert_true(parse_with("X:\r\n a") > 0);
    assert_header("X", "a");
    assert_true(parse_with("X: a\n b\nY: c") > 0);
    assert_header("X", "a  b");
    assert_header("Y", "c");
    assert_true(parse_with("X: a\r\n \r\n \r\nY: c\r\n ") > 0);
    assert_header("X", "a");
    assert_header("Y", "c");
    BAD(400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n");
    BAD(400, "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n");
}

static void headers_that_are_wrong(void **state)
{
    static const char *const lines[] = {"X : y",   "X y",     ": y",     "X",      "X\t: y", "X\xC3: y",
                                        "(X): y",  "X@: y",   "X/: y",   "X\": y", "X;Y: z", "X=: y",
                                        "X: \x7F", "X: \x08", "X: a\rb", "\x0B",   "X[: y",  "X\\: y",
                                        "{X: y",   "X}: y",   "X?: y"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (parse_with(lines[i]) != -400)
            fail_msg("%s: %d", lines[i], parse_with(lines[i]));
}

static void no_control_character_passes(void **state)
{
    for (int c = 0; c < 256; c++) {
        char in[] = "GET / HTTP/1.1\r\nHost: a\r\nX: a?b\r\n\r\n";
        *strchr(in, '?') = (char)c;
        bool control = (c < 32 && c != '\t') || c == 127;
        int want = !control ? (int)sizeof in - 1 : -400; /* LF: "b" is no header */
        assert_int_equal(parse_len(in, sizeof in - 1, LIMIT), want);
    }
}

static void exactly_one_host(void **state)
{
    BAD(400, "GET / HTTP/1.1\r\n\r\n");
    BAD(400, "GET / HTTP/1.1\r\nX: y\r\n\r\n");
    BAD(400, "GET http://b/ HTTP/1.1\r\n\r\n");
    BAD(400, "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n");
}

static int parse_host(const char *host)
{
    char in[200];
    snprintf(in, sizeof in, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host);
    return parse(in);
}

static void hosts(void **state)
{
    static const char *const good[][2] = {{"a.example", "a.example"},
                                          {"a_b:1", "a_b"},
                                          {"127.0.0.1:7272", "127.0.0.1"},
                                          {"[::1]:80", "[::1]"},
                                          {"[fe80::1]", "[fe80::1]"},
                                          {"", ""},
                                          {"a:", "a"},
                                          {":80", ""}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(parse_host(good[i][0]) > 0);
        assert_true(slice_eq_str(req.host, good[i][1]));
    }
    static const char *const bad[] = {"a b", "a/b", "a:b",     "[::1",    "[::1]x",
                                      "a]",  "u@a", "a,\"b\"", "a:80:80", "\xC3\xA9"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (parse_host(bad[i]) != -400)
            fail_msg("%s: %d", bad[i], parse_host(bad[i]));
}

static void bodies_are_refused(void **state)
{
    assert_int_equal(parse_with("Content-Length: 1"), -400);
    assert_int_equal(parse_with("content-length: 05"), -400);
    assert_int_equal(parse_with("Content-Length: x"), -400);
    assert_int_equal(parse_with("Content-Length: -0"), -400);
    assert_int_equal(parse_with("Content-Length:"), -400);
    assert_int_equal(parse_with("Content-Length: 0\r\nContent-Length: 2"), -400);
    assert_int_equal(parse_with("Transfer-Encoding: chunked"), -400);
    assert_int_equal(parse_with("Transfer-Encoding: identity"), -400);
    assert_true(parse_with("Content-Length: 0") > 0);
}

/* A byte that was looked at is not looked at again. */
static void nothing_is_scanned_twice(void **state)
{
    limits.head_size_max = LIMIT;
    uint8_t in[] = "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n";
    size_t scanned = 0;
    assert_int_equal(http_parse(in, 40, &scanned, &limits, &req), 0);
    assert_int_equal(scanned, 40);
    in[30] = '\0';
    assert_int_equal(http_parse(in, 60, &scanned, &limits, &req), 0);
    assert_int_equal(scanned, 60);
}

static void lists(void **state)
{
    static const char *const has[] = {"upgrade",           "Upgrade",    "keep-alive, UPGRADE",
                                      "a ,\tupgrade\t, b", ",,upgrade,", "upgrade,upgrade"};
    static const char *const has_not[] = {"",         ",",           "upgrades",  "upgrad",
                                          "up grade", "a b upgrade", "upgrade/1", ", ,"};
    for (size_t i = 0; i < sizeof has / sizeof has[0]; i++)
        assert_true(http_list_has((struct slice){(const uint8_t *)has[i], strlen(has[i])}, "upgrade"));
    for (size_t i = 0; i < sizeof has_not / sizeof has_not[0]; i++)
        assert_false(
            http_list_has((struct slice){(const uint8_t *)has_not[i], strlen(has_not[i])}, "upgrade"));
}

static void elements_of_a_list(void **state)
{
    struct slice rest = SLICE_STR(" ,a , b c\t,,\"d,e\" ,"), item;
    static const char *const want[] = {"a", "b c", "\"d", "e\""};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_true(http_list_next(&rest, &item));
        assert_true(slice_eq_str(item, want[i]));
    }
    assert_false(http_list_next(&rest, &item));
    assert_false(http_list_next(&rest, &item));
    assert_true(slice_eq_str(item, want[3]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_rfc6455),
        cmocka_unit_test(what_follows_the_head_is_left),
        cmocka_unit_test(lines_may_end_in_a_bare_lf),
        cmocka_unit_test(one_empty_line_before_the_request_is_skipped),
        cmocka_unit_test(garbage_is_known_by_its_first_bytes),
        cmocka_unit_test(other_methods_are_refused_at_their_end),
        cmocka_unit_test(sizes_have_a_limit),
        cmocka_unit_test(request_lines_have_a_limit),
        cmocka_unit_test(an_empty_line_before_it_is_not_of_the_request_line),
        cmocka_unit_test(what_else_is_wrong_with_a_long_line),
        cmocka_unit_test(limits_may_change_between_calls),
        cmocka_unit_test(headers_have_a_highest_number),
        cmocka_unit_test(request_lines_that_are_wrong),
        cmocka_unit_test(other_versions),
        cmocka_unit_test(the_older_version),
        cmocka_unit_test(targets),
        cmocka_unit_test(values_are_trimmed_and_names_kept),
        cmocka_unit_test(folded_values_are_joined_by_spaces),
        cmocka_unit_test(headers_that_are_wrong),
        cmocka_unit_test(no_control_character_passes),
        cmocka_unit_test(exactly_one_host),
        cmocka_unit_test(hosts),
        cmocka_unit_test(bodies_are_refused),
        cmocka_unit_test(nothing_is_scanned_twice),
        cmocka_unit_test(lists),
        cmocka_unit_test(elements_of_a_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
