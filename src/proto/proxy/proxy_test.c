// SPDX-License-Identifier: MIT
#include "proto/proxy/proxy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static struct proxy_header header;

static void assert_same_addr(const struct net_addr *a, const struct net_addr *b)
{
    assert_int_equal(a->family, b->family);
    assert_int_equal(a->port, b->port);
    assert_memory_equal(a->ip, b->ip, sizeof a->ip);
}

static void assert_same_header(const struct proxy_header *a, const struct proxy_header *b)
{
    assert_int_equal(a->version, b->version);
    assert_int_equal(a->has_addresses, b->has_addresses);
    assert_same_addr(&a->client, &b->client);
    assert_same_addr(&a->server, &b->server);
}

/* Decodes an exact copy, so that a look past the end shows. Unless it is a header, nothing may be written. */
static ssize_t decode_exact(const void *in, size_t len, struct proxy_header *ret)
{
    struct proxy_header canary;
    uint8_t *exact = malloc(len > 0 ? len : 1);
    memcpy(exact, in, len);
    memset(&canary, 0xAA, sizeof canary);
    *ret = canary;
    ssize_t r = proxy_decode(exact, len, ret);
    if (r <= 0)
        assert_memory_equal(ret, &canary, sizeof canary);
    free(exact);
    return r;
}

/* The answer to all of it, which is also that to each beginning from some length on; before that: 0. */
static ssize_t decode_len(const void *in, size_t len)
{
    ssize_t want = decode_exact(in, len, &header);
    size_t n = 0;
    for (struct proxy_header h; n < len && decode_exact(in, n, &h) == 0;)
        n++;
    if (want > 0)
        assert_int_equal(n, want); /* as soon as the last byte is there, not later */
    for (struct proxy_header h; n < len; n++) {
        assert_int_equal(decode_exact(in, n, &h), want);
        if (want > 0)
            assert_same_header(&h, &header);
    }
    return want;
}

static ssize_t decode(const char *line)
{
    return decode_len(line, strlen(line));
}

static void assert_addresses(const char *client, const char *server)
{
    char buf[NET_ADDR_STRLEN];
    assert_true(header.has_addresses);
    assert_string_equal(net_addr_format(&header.client, buf, sizeof buf), client);
    assert_string_equal(net_addr_format(&header.server, buf, sizeof buf), server);
}

#define ASSERT_V1(line, client, server)                                                                      \
    do {                                                                                                     \
        assert_int_equal(decode(line), strlen(line));                                                        \
        assert_int_equal(header.version, 1);                                                                 \
        assert_addresses(client, server);                                                                    \
    } while (0)

/* --- Version 1 */

static void the_example_of_the_specification(void **state)
{
    static const char in[] = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
                             "GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n";
    assert_int_equal(decode(in), strlen("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"));
    assert_int_equal(header.version, 1);
    assert_addresses("192.168.0.1:56324", "192.168.0.11:443");
}

static void the_lines_of_greatest_length(void **state)
{
    ASSERT_V1("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535",
              "255.255.255.255:65535");
    ASSERT_V1("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
              "65535 65535\r\n",
              "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
              "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
    static const char worst[] = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_int_equal(strlen(worst), PROXY_V1_MAX);
    assert_int_equal(decode(worst), PROXY_V1_MAX);
    assert_false(header.has_addresses);
}

static void lines_of_version_1(void **state)
{
    ASSERT_V1("PROXY TCP4 0.0.0.0 1.2.3.4 0 1\r\n", "0.0.0.0:0", "1.2.3.4:1");
    ASSERT_V1("PROXY TCP6 2001:DB8::1 ::1 4711 80\r\n", "[2001:db8::1]:4711", "[::1]:80");
    ASSERT_V1("PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 :: 10 65535\r\n", "[2001:db8::1]:10",
              "[::]:65535");
    /* A proxy that listens on :: and forwards IPv4: haproxy says it like this. */
    ASSERT_V1("PROXY TCP6 ::ffff:1.2.3.4 ::ffff:102:305 9 10\r\n", "1.2.3.4:9", "1.2.3.5:10");
    ASSERT_V1("PROXY TCP6 ::ffff:1.2.3.4 2001:db8::1 9 10\r\n", "1.2.3.4:9", "[2001:db8::1]:10");
}

static void unknown_says_nothing(void **state)
{
    static const char *const lines[] = {"PROXY UNKNOWN\r\n", "PROXY UNKNOWN \r\n",
                                        "PROXY UNKNOWN 1.2.3.4 x y\r\n", "PROXY UNKNOWN \x01\xFF\t\r\n",
                                        "PROXY UNKNOWN TCP4 1.2.3.4 1.2.3.4 1 2\r\n"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        assert_int_equal(decode(lines[i]), strlen(lines[i]));
        assert_int_equal(header.version, 1);
        assert_false(header.has_addresses);
        assert_int_equal(header.client.family, 0);
    }
    assert_int_equal(decode_len("PROXY UNKNOWN \0\r\n", 17), 17);
}

static void lines_that_are_wrong(void **state)
{
    static const char *const lines[] = {
        /* the words */
        "PROXY \r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY unknown\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY UNKNOWN\t\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4\t1.2.3.4 1.2.3.5 1 2\r\n",
        /* the end */
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN x\ry\r\n",
        "PROXY UNKNOWN\r\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\rx",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\r\n",
        "PROXY TCP4 1.2.3.4 \n 1 2\r\n",
        /* how many, and the spaces between them */
        "PROXY TCP4 \r\n",
        "PROXY TCP4 1.2.3.4\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4  1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5  1 2\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.4\t1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.4,1.2.3.5,1,2\r\n",
        /* addresses */
        "PROXY TCP4 1.2.3 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.4.5 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.5 1 2\r\n",
        "PROXY TCP4 01.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.05 1 2\r\n",
        "PROXY TCP4 0x1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 localhost 1.2.3.5 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP4 ::ffff:1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP4 1.2.3.4 ::ffff:1.2.3.5 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n",
        "PROXY TCP6 ::1 1.2.3.5 1 2\r\n",
        "PROXY TCP6 1::2::3 ::1 1 2\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n",
        "PROXY TCP6 12345:: ::1 1 2\r\n",
        "PROXY TCP6 [::1] [::1] 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        /* ports */
        "PROXY TCP4 1.2.3.4 1.2.3.5 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 99999\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 100000\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 4294967297 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 00 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 1 0x2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.5 a b\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        ssize_t r = decode(lines[i]);
        if (r != -EPROTO)
            fail_msg("%zd: %s", r, lines[i]);
    }
    assert_int_equal(decode_len("PROXY TCP4 1.2.3.4\0 1.2.3.5 1 2\r\n", 34), -EPROTO);
}

static void a_wrong_word_is_known_at_once(void **state)
{
    assert_int_equal(decode("PROXY T"), 0);
    assert_int_equal(decode("PROXY X"), -EPROTO);
    assert_int_equal(decode("PROXY TCP7"), -EPROTO);
    assert_int_equal(decode("PROXY \n"), -EPROTO);
}

static void lines_without_an_end(void **state)
{
    char in[200] = "PROXY UNKNOWN ";
    memset(in + strlen(in), 'x', sizeof in - strlen(in));
    assert_int_equal(decode_len(in, PROXY_V1_MAX - 1), 0);
    assert_int_equal(decode_len(in, PROXY_V1_MAX), -EMSGSIZE);
    assert_int_equal(decode_len(in, sizeof in), -EMSGSIZE);
    memcpy(in + PROXY_V1_MAX - 1, "\r\n", 2); /* a line of 108 */
    assert_int_equal(decode_len(in, sizeof in), -EMSGSIZE);
    memcpy(in + PROXY_V1_MAX - 2, "\r\n", 2);
    assert_int_equal(decode_len(in, sizeof in), PROXY_V1_MAX);
}

static void what_is_none(void **state)
{
    static const char *const in[] = {"GET / HTTP/1.1\r\n",
                                     "P\n",
                                     "POST /",
                                     "PROXY\r\n",
                                     "PROXYTCP4 1.2.3.4",
                                     "proxy TCP4 1.2.3.4",
                                     " PROXY TCP4 ",
                                     "\nPROXY TCP4 ",
                                     "\r\nGET /",
                                     "\r\n\r\nGET /",
                                     "\x16\x03\x01",
                                     "\r\n\r\nPROXY TCP4"};
    for (size_t i = 0; i < sizeof in / sizeof in[0]; i++)
        assert_int_equal(decode(in[i]), -ENOMSG);
    assert_int_equal(decode_len("\0", 1), -ENOMSG);
    assert_int_equal(decode_len("", 0), 0);
    for (size_t i = 0; i < 12; i++) { /* one byte of the signature is another */
        char near[16] = SIGNATURE "\x21\x11\0\x0C";
        near[i] ^= 0x20;
        assert_int_equal(decode_len(near, sizeof near), -ENOMSG);
    }
}

/* --- Version 2 */

static uint8_t v2[70000];

/* A header with that command, family and length, and what begins its block; the rest is 0xEE. */
static size_t make_v2(uint8_t command, uint8_t family, size_t len, const void *block, size_t block_len)
{
    memcpy(v2, SIGNATURE, 12);
    v2[12] = command;
    v2[13] = family;
    v2[14] = (uint8_t)(len >> 8);
    v2[15] = (uint8_t)len;
    memset(v2 + 16, 0xEE, len);
    memcpy(v2 + 16, block, block_len);
    return 16 + len;
}

static ssize_t decode_v2(uint8_t command, uint8_t family, size_t len)
{
    return decode_len(v2, make_v2(command, family, len, "", 0));
}

#define IPV4_BLOCK "\xC0\xA8\0\x01\xC0\xA8\0\x0B\xDC\x04\x01\xBB"
#define IPV6_BLOCK                                                                                           \
    "\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x01"                                                             \
    "\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x02"                                                             \
    "\x12\x67\0\x50"

static void the_bytes_of_ipv4(void **state)
{
    static const char in[] = SIGNATURE "\x21\x11\0\x0C" IPV4_BLOCK "GET / HTTP/1.1";
    assert_int_equal(decode_len(in, sizeof in - 1), 28);
    assert_int_equal(header.version, 2);
    assert_addresses("192.168.0.1:56324", "192.168.0.11:443");
    assert_int_equal(decode_len(v2, make_v2(0x21, 0x12, 12, IPV4_BLOCK, 12)), 28); /* datagrams */
    assert_addresses("192.168.0.1:56324", "192.168.0.11:443");
}

static void the_bytes_of_ipv6(void **state)
{
    assert_int_equal(decode_len(v2, make_v2(0x21, 0x21, 36, IPV6_BLOCK, 36)), 52);
    assert_addresses("[2001:db8::1]:4711", "[2001:db8::2]:80");
    assert_int_equal(decode_len(v2, make_v2(0x21, 0x22, 36, IPV6_BLOCK, 36)), 52);
    assert_addresses("[2001:db8::1]:4711", "[2001:db8::2]:80");
    memcpy(v2 + 16, "\0\0\0\0\0\0\0\0\0\0\xFF\xFF\x01\x02\x03\x04", 16);
    assert_int_equal(decode_len(v2, 52), 52);
    assert_addresses("1.2.3.4:4711", "[2001:db8::2]:80");
}

static void tlvs_are_skipped(void **state)
{
    assert_int_equal(decode_len(v2, make_v2(0x21, 0x11, 12 + 7, IPV4_BLOCK "\x04\0\x04!!!!", 19)), 35);
    assert_addresses("192.168.0.1:56324", "192.168.0.11:443");
    assert_int_equal(decode_len(v2, make_v2(0x21, 0x21, 300, IPV6_BLOCK, 36)), 316);
    assert_addresses("[2001:db8::1]:4711", "[2001:db8::2]:80");
    size_t len = make_v2(0x21, 0x11, PROXY_V2_MAX - 16, IPV4_BLOCK, 12);
    assert_int_equal(len, PROXY_V2_MAX);
    assert_int_equal(decode_len(v2, len), PROXY_V2_MAX);
    assert_addresses("192.168.0.1:56324", "192.168.0.11:443");
}

static void headers_without_addresses(void **state)
{
    static const struct {
        uint8_t command, family;
        size_t len;
    } cases[] = {
        {0x20, 0x00, 0},  /* LOCAL: a health check of the proxy */
        {0x20, 0x00, 9},  /* with TLVs (haproxy's send-proxy-v2 with crc32c) */
        {0x20, 0x11, 12}, /* with addresses, which mean nothing */
        {0x20, 0x11, 0},   {0x20, 0x21, 5},   {0x20, 0xFF, 3}, /* its family is to be ignored */
        {0x21, 0x00, 0},   {0x21, 0x00, 20},                   /* unspecified */
        {0x21, 0x01, 0},   {0x21, 0x02, 12}, /* a stream, a datagram of an unspecified family */
        {0x21, 0x10, 12},  {0x21, 0x20, 36},  {0x21, 0x10, 0}, /* IP, but of an unspecified transport */
        {0x21, 0x31, 216}, {0x21, 0x32, 216}, {0x21, 0x31, 300}, {0x21, 0x30, 0}, /* Unix */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(decode_v2(cases[i].command, cases[i].family, cases[i].len), 16 + cases[i].len);
        assert_int_equal(header.version, 2);
        assert_false(header.has_addresses);
        assert_int_equal(header.client.family, 0);
    }
}

static void only_version_2_and_two_commands(void **state)
{
    for (unsigned command = 0; command < 256; command++) {
        ssize_t want = command == 0x20 || command == 0x21 ? 28 : -EPROTO;
        assert_int_equal(decode_v2((uint8_t)command, 0x11, 12), want);
    }
}

static void families_and_transports_that_there_are(void **state)
{
    for (unsigned family = 0; family < 256; family++) {
        bool good = family >> 4 <= 3 && (family & 15) <= 2;
        assert_int_equal(decode_v2(0x21, (uint8_t)family, 216), good ? 232 : -EPROTO);
    }
}

static void blocks_too_short_for_their_family(void **state)
{
    static const struct {
        uint8_t family, least;
    } cases[] = {{0x11, 12}, {0x12, 12}, {0x21, 36}, {0x22, 36}, {0x31, 216}, {0x32, 216}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (unsigned len = 0; len <= cases[i].least; len++)
            assert_int_equal(decode_v2(0x21, cases[i].family, len),
                             len < cases[i].least ? -EPROTO : (int)len + 16);
}

static void headers_too_long(void **state)
{
    assert_int_equal(decode_v2(0x21, 0x11, PROXY_V2_MAX - 16 + 1), -EMSGSIZE);
    assert_int_equal(decode_v2(0x20, 0x00, PROXY_V2_MAX - 16 + 1), -EMSGSIZE);
    assert_int_equal(decode_v2(0x21, 0x21, 65535), -EMSGSIZE);
    assert_int_equal(decode_len(v2, 16), -EMSGSIZE); /* said before any of it has come */
    assert_int_equal(decode_len(v2, 15), 0);
}

/* --- Both */

static struct net_addr addr(const char *text)
{
    struct net_addr a;
    assert_int_equal(net_addr_parse(text, &a), 0);
    return a;
}

static void assert_encoded(unsigned version, struct net_addr client, struct net_addr server, const void *want,
                           size_t len)
{
    uint8_t out[PROXY_V1_MAX];
    assert_int_equal(proxy_encode(version, &client, &server, out, sizeof out), len);
    assert_memory_equal(out, want, len);
    for (size_t cap = 0; cap < len; cap++) {
        uint8_t *small = malloc(cap > 0 ? cap : 1);
        assert_int_equal(proxy_encode(version, &client, &server, small, cap), 0);
        free(small);
    }
    assert_int_equal(decode_len(out, len), len);
    assert_int_equal(header.version, version);
    if (header.has_addresses) {
        assert_same_addr(&header.client, &client);
        assert_same_addr(&header.server, &server);
    }
}

#define ENCODED(version, client, server, want) assert_encoded(version, client, server, want, sizeof(want) - 1)

static void what_we_encode(void **state)
{
    struct net_addr v4 = addr("1.2.3.4:4711"), w4 = addr("5.6.7.8:80"), v6 = addr("[2001:db8::1]:65535");
    struct net_addr unix_socket = {.family = AF_UNIX};
    ENCODED(1, v4, w4, "PROXY TCP4 1.2.3.4 5.6.7.8 4711 80\r\n");
    ENCODED(1, v6, v6, "PROXY TCP6 2001:db8::1 2001:db8::1 65535 65535\r\n");
    ENCODED(1, v4, v6, "PROXY TCP6 ::ffff:1.2.3.4 2001:db8::1 4711 65535\r\n");
    ENCODED(1, unix_socket, v4, "PROXY UNKNOWN\r\n");
    assert_false(header.has_addresses);
    ENCODED(2, v4, w4, SIGNATURE "\x21\x11\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\x12\x67\0\x50");
    ENCODED(2, w4, v6,
            SIGNATURE "\x21\x21\0\x24"
                      "\0\0\0\0\0\0\0\0\0\0\xFF\xFF\x05\x06\x07\x08"
                      "\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50\xFF\xFF");
    ENCODED(2, v4, unix_socket, SIGNATURE "\x20\0\0\0");
    assert_false(header.has_addresses);
}

/* Every byte of a valid header set to every value: always an answer, and the same however it is cut. */
static void mutated_headers(void **state)
{
    static const char v1[] = "PROXY TCP4 192.168.0.1 10.0.0.11 56324 443\r\n";
    uint8_t in[64];
    for (size_t i = 0; i < sizeof v1 - 1; i++)
        for (unsigned c = 0; c < 256; c++) {
            memcpy(in, v1, sizeof v1);
            in[i] = (uint8_t)c;
            ssize_t r = decode_len(in, sizeof v1 - 1);
            assert_true(r == sizeof v1 - 1 || r == -EPROTO || (i < 6 && r == -ENOMSG));
            assert_true(r > 0 || c != (uint8_t)v1[i]);
        }
    for (size_t i = 0; i < 52; i++)
        for (unsigned c = 0; c < 256; c++) {
            make_v2(0x21, 0x21, 36, IPV6_BLOCK, 36);
            uint8_t was = v2[i];
            v2[i] = (uint8_t)c;
            ssize_t r = decode_len(v2, 52);
            assert_true(r >= 0 || i < 16);
            assert_true(r == 52 || c != was);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_specification),
        cmocka_unit_test(the_lines_of_greatest_length),
        cmocka_unit_test(lines_of_version_1),
        cmocka_unit_test(unknown_says_nothing),
        cmocka_unit_test(lines_that_are_wrong),
        cmocka_unit_test(a_wrong_word_is_known_at_once),
        cmocka_unit_test(lines_without_an_end),
        cmocka_unit_test(what_is_none),
        cmocka_unit_test(the_bytes_of_ipv4),
        cmocka_unit_test(the_bytes_of_ipv6),
        cmocka_unit_test(tlvs_are_skipped),
        cmocka_unit_test(headers_without_addresses),
        cmocka_unit_test(only_version_2_and_two_commands),
        cmocka_unit_test(families_and_transports_that_there_are),
        cmocka_unit_test(blocks_too_short_for_their_family),
        cmocka_unit_test(headers_too_long),
        cmocka_unit_test(what_we_encode),
        cmocka_unit_test(mutated_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
