// SPDX-License-Identifier: MIT
#include "proto/line/forwarded.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/line/http_parse.h"

#define XFF       FORWARDED_HEADER_X_FORWARDED_FOR
#define REAL_IP   FORWARDED_HEADER_X_REAL_IP
#define FORWARDED FORWARDED_HEADER_FORWARDED

/* Whom a test trusts: 10.0.0.0/8 and 2001:db8:ff::/48; how often it was asked. */
static unsigned n_asked;
static char context[] = "ctx";

static bool is_ours(void *ctx, const struct net_addr *a)
{
    assert_ptr_equal(ctx, context);
    assert_int_equal(a->port, 0);
    n_asked++;
    if (a->family == AF_INET)
        return a->ip[0] == 10;
    return memcmp(a->ip, "\x20\x01\x0D\xB8\x00\xFF", 6) == 0;
}

static char found[NET_ADDR_STRLEN];

/* The client that a request with these header lines has, with its port; NULL: an error, which goes to *ret_r.
 */
static const char *find(enum forwarded_header which, const char *lines, int *ret_r)
{
    static const struct http_limits limits = {4000, 4000, HTTP_HEADERS_MAX};
    static struct http_request req;
    char text[4000];
    struct net_addr a, canary;
    size_t scanned = 0;
    int len = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", lines);
    uint8_t *exact = malloc((size_t)len);
    memcpy(exact, text, (size_t)len);
    if (http_parse(exact, (size_t)len, &scanned, &limits, &req) != len)
        fail_msg("not a request: %s", lines);
    memset(&canary, 0xAA, sizeof canary);
    a = canary;
    n_asked = 0;
    *ret_r = forwarded_client(&req, which, is_ours, context, &a);
    free(exact);
    if (*ret_r == 0)
        return net_addr_format(&a, found, sizeof found);
    assert_memory_equal(&a, &canary, sizeof a);
    return NULL;
}

static void assert_client(enum forwarded_header which, const char *lines, const char *want)
{
    int r;
    const char *got = find(which, lines, &r);
    if (got == NULL || strcmp(got, want) != 0)
        fail_msg("%s: %s (%d), not %s", lines, got == NULL ? "none" : got, r, want);
}

static void assert_error(enum forwarded_header which, const char *lines, int want)
{
    int r;
    const char *got = find(which, lines, &r);
    if (got != NULL || r != want)
        fail_msg("%s: %s (%d), not %d", lines, got == NULL ? "none" : got, r, want);
}

/* --- The lists */

static void the_last_that_is_not_trusted_is_the_client(void **state)
{
    assert_client(XFF, "X-Forwarded-For: 1.2.3.4", "1.2.3.4:0");
    assert_int_equal(n_asked, 1);
    assert_client(XFF, "X-Forwarded-For: 6.6.6.6, 1.2.3.4", "1.2.3.4:0");
    assert_client(XFF, "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4:0");
    assert_client(XFF, "X-Forwarded-For: 6.6.6.6,1.2.3.4 , 10.0.0.1,\t10.0.0.2", "1.2.3.4:0");
    assert_int_equal(n_asked, 3); /* no further than the client */
    assert_client(XFF, "X-Forwarded-For: 10.6.6.6, 1.2.3.4, 2001:db8:ff::1", "1.2.3.4:0");
    assert_client(XFF, "X-Forwarded-For: 6.6.6.6, 2001:db8::1, 10.0.0.1", "[2001:db8::1]:0");
    assert_client(FORWARDED, "Forwarded: for=6.6.6.6, for=1.2.3.4;proto=http, for=10.0.0.1", "1.2.3.4:0");
}

static void all_trusted_the_first_is_the_client(void **state)
{
    assert_client(XFF, "X-Forwarded-For: 10.0.0.1", "10.0.0.1:0");
    assert_client(XFF, "X-Forwarded-For: 10.0.0.1, 10.0.0.2,10.0.0.3", "10.0.0.1:0");
    assert_client(FORWARDED, "Forwarded: for=\"10.0.0.1:99\", for=10.0.0.2", "10.0.0.1:99");
}

static void headers_of_one_name_are_one_list(void **state)
{
    assert_client(XFF, "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\nx-forwarded-FOR: 10.0.0.1",
                  "1.2.3.4:0");
    assert_client(XFF,
                  "X-Forwarded-For: 1.2.3.4, 10.0.0.2\r\nX: y\r\nX-Forwarded-For:\r\n"
                  "X-Forwarded-For: 10.0.0.1",
                  "1.2.3.4:0");
    assert_client(FORWARDED, "Forwarded: for=6.6.6.6\r\nFORWARDED: for=1.2.3.4, for=10.0.0.1", "1.2.3.4:0");
    assert_client(XFF, "X-Forwarded-For: 1.2.3.4,\r\n 10.0.0.1", "1.2.3.4:0"); /* folded */
}

static void empty_elements_are_none(void **state)
{
    assert_client(XFF, "X-Forwarded-For: , ,1.2.3.4,, ,10.0.0.1, ,", "1.2.3.4:0");
    assert_client(FORWARDED, "Forwarded: ,for=1.2.3.4,,", "1.2.3.4:0");
    assert_error(XFF, "X-Forwarded-For: , ,", -ENOENT);
    assert_error(XFF, "X-Forwarded-For:\r\nX-Forwarded-For:", -ENOENT);
    assert_error(FORWARDED, "Forwarded:", -ENOENT);
}

static void only_the_header_that_was_asked_for(void **state)
{
    static const char lines[] = "X-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 2.2.2.2\r\nForwarded: for=3.3.3.3\r\n"
                                "X-Forwarded-Fo: 4.4.4.4\r\nX-Forwarded-For2: 5.5.5.5";
    assert_client(XFF, lines, "1.1.1.1:0");
    assert_client(REAL_IP, lines, "2.2.2.2:0");
    assert_client(FORWARDED, lines, "3.3.3.3:0");
    assert_error(XFF, "X-Real-IP: 2.2.2.2", -ENOENT);
    assert_error(REAL_IP, "X-Forwarded-For: 2.2.2.2", -ENOENT);
    assert_error(FORWARDED, "X-Forwarded-For: 2.2.2.2", -ENOENT);
}

static void what_stands_where_the_client_should(void **state)
{
    assert_error(XFF, "X-Forwarded-For: unknown", -EINVAL);
    assert_error(XFF, "X-Forwarded-For: 1.2.3.4, unknown", -EINVAL);
    assert_error(XFF, "X-Forwarded-For: 1.2.3.4, _hidden, 10.0.0.1", -EINVAL);
    assert_error(XFF, "X-Forwarded-For: nonsense, 10.0.0.1", -EINVAL);
    assert_error(XFF, "X-Forwarded-For: 10.0.0.2, nonsense, 10.0.0.1", -EINVAL); /* nobody whom we trust */
    assert_client(XFF, "X-Forwarded-For: nonsense, 1.2.3.4, 10.0.0.1", "1.2.3.4:0");
    assert_client(XFF, "X-Forwarded-For: \x80<>\"', 1.2.3.4", "1.2.3.4:0");
    assert_error(FORWARDED, "Forwarded: for=unknown", -EINVAL);
    assert_error(FORWARDED, "Forwarded: for=1.2.3.4, for=\"_gazonk\"", -EINVAL);
    assert_error(FORWARDED, "Forwarded: for=1.2.3.4, proto=http", -EINVAL);
}

/* --- Addresses */

static void addresses_with_and_without_ports(void **state)
{
    static const char *const good[][2] = {{"1.2.3.4", "1.2.3.4:0"},
                                          {"1.2.3.4:80", "1.2.3.4:80"},
                                          {"1.2.3.4:0", "1.2.3.4:0"},
                                          {"1.2.3.4:65535", "1.2.3.4:65535"},
                                          {"1.2.3.4:00080", "1.2.3.4:80"},
                                          {"2001:DB8::1", "[2001:db8::1]:0"},
                                          {"[2001:db8::1]", "[2001:db8::1]:0"},
                                          {"[2001:db8::1]:4711", "[2001:db8::1]:4711"},
                                          {"::", "[::]:0"},
                                          {"::1", "[::1]:0"},
                                          {"[::]:1", "[::]:1"},
                                          {"::ffff:1.2.3.4", "1.2.3.4:0"},
                                          {"[::ffff:1.2.3.4]:5", "1.2.3.4:5"},
                                          {"1.2.3.4:_hidden", "1.2.3.4:0"},
                                          {"[::1]:_a.b-c_9", "[::1]:0"}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char lines[200];
        snprintf(lines, sizeof lines, "X-Forwarded-For: %s", good[i][0]);
        assert_client(XFF, lines, good[i][1]);
        snprintf(lines, sizeof lines, "X-Real-IP: %s", good[i][0]);
        assert_client(REAL_IP, lines, good[i][1]);
        snprintf(lines, sizeof lines, "Forwarded: for=\"%s\"", good[i][0]);
        assert_client(FORWARDED, lines, good[i][1]);
        snprintf(lines, sizeof lines, "Forwarded: for=%s;proto=http", good[i][0]); /* should be quoted */
        assert_client(FORWARDED, lines, good[i][1]);
    }
}

static void what_is_no_address(void **state)
{
    static const char *const bad[] = {"unknown",
                                      "_hidden",
                                      "localhost",
                                      "1.2.3",
                                      "1.2.3.4.5",
                                      "1.2.3.256",
                                      "01.2.3.4",
                                      "1.2.3.4:",
                                      "1.2.3.4:x",
                                      "1.2.3.4:-1",
                                      "1.2.3.4:65536",
                                      "1.2.3.4:655350",
                                      "1.2.3.4:_",
                                      "1.2.3.4:80:80",
                                      "1.2.3.4:_a!",
                                      "[1.2.3.4]",
                                      "[1.2.3.4]:80",
                                      "[::1",
                                      "::1]",
                                      "[::1]80",
                                      "[::1]:",
                                      "[::1]:x",
                                      "[]",
                                      "[]:80",
                                      ":80",
                                      ":",
                                      "[::1%25eth0]",
                                      "fe80::1%eth0",
                                      "1.2.3.4/32",
                                      "1.2.3.4 5",
                                      "[[::1]]",
                                      "1::2::3",
                                      "0x01020304",
                                      "16909060",
                                      "::ffff:1.2.3",
                                      "1.2.3.4\t5",
                                      "[ ::1]",
                                      "12345::1",
                                      "1:2:3:4:5:6:7:8:9"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char lines[200];
        snprintf(lines, sizeof lines, "X-Forwarded-For: 1.1.1.1, %s", bad[i]);
        assert_error(XFF, lines, -EINVAL);
        snprintf(lines, sizeof lines, "X-Real-IP: %s", bad[i]);
        assert_error(REAL_IP, lines, -EINVAL);
        snprintf(lines, sizeof lines, "Forwarded: for=1.1.1.1, for=\"%s\"", bad[i]);
        assert_error(FORWARDED, lines, -EINVAL);
    }
}

static void x_real_ip_is_one_address(void **state)
{
    assert_client(REAL_IP, "X-Real-IP: 10.0.0.1", "10.0.0.1:0"); /* trusted or not */
    assert_int_equal(n_asked, 0);
    assert_client(REAL_IP, "X-Real-IP: 6.6.6.6\r\nx-real-ip: 1.2.3.4", "1.2.3.4:0");
    assert_error(REAL_IP, "X-Real-IP: 6.6.6.6, 1.2.3.4", -EINVAL);
    assert_error(REAL_IP, "X-Real-IP: 6.6.6.6\r\nX-Real-IP:", -EINVAL);
    assert_error(REAL_IP, "X-Real-IP: 6.6.6.6\r\nX-Real-IP: unknown", -EINVAL);
}

/* --- Forwarded: the examples of RFC 7239 */

static void the_examples_of_section_4(void **state)
{
    assert_error(FORWARDED, "Forwarded: for=\"_gazonk\"", -EINVAL);
    assert_client(FORWARDED, "Forwarded: For=\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711");
    assert_client(FORWARDED, "Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60:0");
    assert_client(FORWARDED, "Forwarded: for=192.0.2.43, for=198.51.100.17", "198.51.100.17:0");
}

static void the_examples_of_section_6(void **state)
{
    assert_client(FORWARDED, "Forwarded: for=\"192.0.2.43:47011\"", "192.0.2.43:47011");
    assert_client(FORWARDED, "Forwarded: for=\"[2001:db8:cafe::17]:47011\"", "[2001:db8:cafe::17]:47011");
    assert_error(FORWARDED, "Forwarded: for=_hidden, for=_SEVKISEK", -EINVAL);
    assert_error(FORWARDED, "Forwarded: for=unknown", -EINVAL);
}

/* The same as a list, in two headers, with other spaces; and as X-Forwarded-For (section 7.4). */
static void the_examples_of_section_7(void **state)
{
    static const char want[] = "[2001:db8:cafe::17]:0";
    assert_client(FORWARDED,
                  "Forwarded: for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown"
                  ",for=10.0.0.1"
                  "\r\nForwarded: for=\"[2001:db8:cafe::17]\"",
                  want);
    assert_error(FORWARDED, "Forwarded: for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown", -EINVAL);
    assert_error(FORWARDED, "Forwarded: for=192.0.2.43, for=\"[2001:db8:cafe::17]\", for=unknown", -EINVAL);
    assert_error(FORWARDED,
                 "Forwarded: for=192.0.2.43\r\nForwarded: for=\"[2001:db8:cafe::17]\", for=unknown", -EINVAL);
    assert_client(FORWARDED, "Forwarded: for=192.0.2.43, for=\"[2001:db8:cafe::17]\"", want);
    assert_client(XFF, "X-Forwarded-For: 192.0.2.43, 2001:db8:cafe::17", want);
}

static void pairs_of_an_element(void **state)
{
    assert_client(FORWARDED, "Forwarded: by=10.0.0.1;for=1.2.3.4", "1.2.3.4:0");
    assert_client(FORWARDED, "Forwarded: proto=https;FOR=1.2.3.4;host=\"a,b;for=6.6.6.6\"", "1.2.3.4:0");
    assert_client(FORWARDED, "Forwarded: host=\"\\\"for=6.6.6.6,\\\\\";for=1.2.3.4", "1.2.3.4:0");
    assert_client(FORWARDED, "Forwarded: for=\"1\\.2.3.\\4\"", "1.2.3.4:0"); /* escapes mean nothing here */
    assert_client(FORWARDED, "Forwarded: ;;for=1.2.3.4;;", "1.2.3.4:0");
    assert_client(FORWARDED, "Forwarded: proto=http ; for=1.2.3.4 ;\t", "1.2.3.4:0");
    assert_client(FORWARDED, "Forwarded: secret=\"\";for=1.2.3.4;x-y=z", "1.2.3.4:0");
    assert_client(FORWARDED,
                  "Forwarded: host=\"a very long value that does not fit where addresses are kept, as it has "
                  "more than one hundred bytes\";for=1.2.3.4",
                  "1.2.3.4:0");
}

static void elements_that_are_malformed(void **state)
{
    static const char *const bad[] = {"for",
                                      "1.2.3.4",
                                      "for=",
                                      "for=\"\"",
                                      "for=\"1.2.3.4",
                                      "for=1.2.3.4\"",
                                      "for=\"1.2.3.4\\",
                                      "for=\"1.2.3.4\\\"",
                                      "for=\"1.2.3.4\"x",
                                      "for=\"1.2.3.4\"proto=http",
                                      "for=1.2.3.4 proto=http",
                                      "for=1.2.3.4;for=1.2.3.5",
                                      "for=1.2.3.4;for=1.2.3.4",
                                      "for=1.2.3.4;FOR=unknown",
                                      "for =1.2.3.4",
                                      "for= 1.2.3.4",
                                      "for=1.2.3.4;proto",
                                      "for=1.2.3.4;proto=",
                                      "proto;for=1.2.3.4",
                                      "xfor=1.2.3.4",
                                      "for=1.2.3.4;;=\"",
                                      "by=1.2.3.4",
                                      ";"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char lines[200];
        snprintf(lines, sizeof lines, "Forwarded: for=7.7.7.7, %s", bad[i]);
        assert_error(FORWARDED, lines, -EINVAL);
    }
}

/* The client sends a header of its own, the proxy appends to it. Whatever the client wrote, and wherever it
 * broke off: what the proxy wrote stands. */
static void what_the_client_wrote_changes_nothing(void **state)
{
    static const char *const written[] = {"for=\"6.6.6.6",
                                          "for=\"",
                                          "for=\"6.6.6.6, for=10.0.0.1",
                                          "\\",
                                          "for=6.6.6.6\\",
                                          "for=\"6.6.6.6\\\\\\",
                                          "\"",
                                          "\"\"\"",
                                          "\",\"",
                                          "for=6.6.6.6;",
                                          "for=6.6.6.6, for=\"a\\\"",
                                          "for=6.6.6.6,",
                                          ",,,",
                                          "\"\\",
                                          "for=10.0.0.1;host=\"x,"};
    static const char *const appended[] = {"for=1.2.3.4;host=\"a, b\"", "for=\"1.2.3.4\"", "for=1.2.3.4",
                                           "host=\"\\\"\\\\\";for=\"1.2.3.4\"",
                                           "for=1.2.3.4;by=\"[2001:db8::1]:80\", for=\"10.0.0.1:80\""};
    for (size_t i = 0; i < sizeof written / sizeof written[0]; i++)
        for (size_t k = 0; k < sizeof appended / sizeof appended[0]; k++) {
            char lines[300];
            snprintf(lines, sizeof lines, "Forwarded: %s, %s", written[i], appended[k]);
            assert_client(FORWARDED, lines, "1.2.3.4:0");
            snprintf(lines, sizeof lines, "Forwarded: %s\r\nForwarded: %s", written[i], appended[k]);
            assert_client(FORWARDED, lines, "1.2.3.4:0");
        }
}

/* Every byte of a good value set to every value that http_parse lets through: always an answer. */
static void mutated_headers(void **state)
{
    static const char good[] = "for=\"[2001:db8::1]:47\\11\";proto=http, for=10.0.0.1";
    for (size_t i = 0; i < sizeof good - 1; i++)
        for (unsigned c = ' '; c < 256; c++) {
            char lines[100];
            int r;
            if (c == 0x7F)
                continue;
            snprintf(lines, sizeof lines, "Forwarded: %s", good);
            lines[strlen("Forwarded: ") + i] = (char)c;
            find(FORWARDED, lines, &r);
            assert_true(r == 0 || r == -EINVAL);
        }
    for (size_t cut = 1; cut < sizeof good - 1; cut++) {
        char lines[100];
        int r;
        snprintf(lines, sizeof lines, "Forwarded: %.*s", (int)cut, good);
        find(FORWARDED, lines, &r);
        assert_true(r == 0 || r == -EINVAL);
        snprintf(lines, sizeof lines, "Forwarded: %s", good + cut);
        find(FORWARDED, lines, &r);
        assert_true(r == 0 || r == -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_that_is_not_trusted_is_the_client),
        cmocka_unit_test(all_trusted_the_first_is_the_client),
        cmocka_unit_test(headers_of_one_name_are_one_list),
        cmocka_unit_test(empty_elements_are_none),
        cmocka_unit_test(only_the_header_that_was_asked_for),
        cmocka_unit_test(what_stands_where_the_client_should),
        cmocka_unit_test(addresses_with_and_without_ports),
        cmocka_unit_test(what_is_no_address),
        cmocka_unit_test(x_real_ip_is_one_address),
        cmocka_unit_test(the_examples_of_section_4),
        cmocka_unit_test(the_examples_of_section_6),
        cmocka_unit_test(the_examples_of_section_7),
        cmocka_unit_test(pairs_of_an_element),
        cmocka_unit_test(elements_that_are_malformed),
        cmocka_unit_test(what_the_client_wrote_changes_nothing),
        cmocka_unit_test(mutated_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
