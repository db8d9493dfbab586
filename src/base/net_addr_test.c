// SPDX-License-Identifier: MIT
#include "base/net_addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void formats_what_it_parsed(void **state)
{
    static const char *const texts[] = {"1.2.3.4:80", "0.0.0.0:0", "255.255.255.255:65535",
                                        "[::1]:80",   "[::]:1",    "[2001:db8::ff:1]:443"};
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct net_addr a;
        char buf[NET_ADDR_STRLEN];
        assert_int_equal(net_addr_parse(texts[i], &a), 0);
        assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), texts[i]);
    }
}

static void the_longest_address_fits(void **state)
{
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];
    assert_int_equal(net_addr_parse("[ffff:eeee:dddd:cccc:bbbb:aaaa:9999:8888]:65535", &a), 0);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)),
                        "[ffff:eeee:dddd:cccc:bbbb:aaaa:9999:8888]:65535");
    assert_string_equal(net_addr_format_ip(&a, buf, sizeof(buf)), "ffff:eeee:dddd:cccc:bbbb:aaaa:9999:8888");
}

static void mapped_v4_is_v4(void **state)
{
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];
    struct sockaddr_storage ss = {0};
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

    assert_int_equal(net_addr_parse("[::ffff:1.2.3.4]:80", &a), 0);
    assert_int_equal(a.family, AF_INET);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), "1.2.3.4:80");
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(99);
    inet_pton(AF_INET6, "::ffff:10.0.0.1", &in6->sin6_addr);
    net_addr_from_sockaddr(&ss, &a);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), "10.0.0.1:99");
}

static void sockaddr_and_back(void **state)
{
    static const char *const texts[] = {"1.2.3.4:80", "[2001:db8::1]:443"};
    for (unsigned i = 0; i < 2; i++) {
        struct net_addr a, b;
        struct sockaddr_storage ss;
        assert_int_equal(net_addr_parse(texts[i], &a), 0);
        assert_true(net_addr_to_sockaddr(&a, &ss) > 0);
        net_addr_from_sockaddr(&ss, &b);
        assert_memory_equal(&a, &b, sizeof(a));
    }
}

static void unix_has_a_name_and_no_bytes(void **state)
{
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];
    struct sockaddr_storage ss = {.ss_family = AF_UNIX};

    net_addr_from_sockaddr(&ss, &a);
    assert_int_equal(a.family, AF_UNIX);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), "unix:");
    assert_string_equal(net_addr_format_ip(&a, buf, sizeof(buf)), "unix:");
    assert_int_equal(net_addr_to_sockaddr(&a, &ss), 0);
}

static void garbage_is_refused(void **state)
{
    static const char *const texts[] = {
        "",      ":80",       "1.2.3.4",     "1.2.3.4:",     "1.2.3.4:65536",
        "[::1]", "[::1:80",   "::1:80",      "[1.2.3.4]:80", "1.2.3.4:-1",
        "[]:80", "[::1]x:80", "1.2.3.4:80 ", "1.2.3.4:8x",   "1.2.3.4:000080"};
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct net_addr a = {.port = 7};
        assert_int_equal(net_addr_parse(texts[i], &a), -EINVAL);
        assert_int_equal(a.port, 7);
    }
}

static void names_are_resolved(void **state)
{
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];
    assert_int_equal(net_addr_parse("localhost:80", &a), 0);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), "127.0.0.1:80");
    assert_int_equal(net_addr_parse("no-such-name.invalid:80", &a), -ENOENT);
}

static void plain_addresses(void **state)
{
    static const char *const good[][2] = {
        {"1.2.3.4", "1.2.3.4"},
        {"0.0.0.0", "0.0.0.0"},
        {"::", "::"},
        {"2001:DB8:0:0::1", "2001:db8::1"},
        {"::ffff:1.2.3.4", "1.2.3.4"},
        {"::ffff:102:304", "1.2.3.4"},
        {"ffff:eeee:dddd:cccc:bbbb:aaaa:255.255.255.255", "ffff:eeee:dddd:cccc:bbbb:aaaa:ffff:ffff"}};
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(net_addr_parse_ip(good[i][0], strlen(good[i][0]), &a), 0);
        assert_string_equal(net_addr_format_ip(&a, buf, sizeof(buf)), good[i][1]);
        assert_int_equal(a.port, 0);
    }
    assert_int_equal(net_addr_parse_ip("1.2.3.45", 7, &a), 0); /* no further than len */
    assert_string_equal(net_addr_format_ip(&a, buf, sizeof(buf)), "1.2.3.4");
    assert_int_equal(net_addr_parse_ip("localhost", 9, &a), -EINVAL);
    assert_string_equal(net_addr_format_ip(&a, buf, sizeof(buf)), "1.2.3.4"); /* untouched */
}

static void what_is_no_plain_address(void **state)
{
    static const char *const bad[] = {
        "",          "1",         "1.2.3",       "1.2.3.4.5",
        "1.2.3.256", "01.2.3.4",  "1.2.3.04",    "0x1.2.3.4",
        "1.2.3.4 ",  " 1.2.3.4",  "1.2.3.4:5",   "[::1]",
        "::1%lo",    "::1/128",   "1::2::3",     ":::",
        "12345::",   "::g",       "localhost",   "-1.2.3.4",
        "1.2.3.4\n", "1:2:3:4:5", "::1.2.3.4.5", "ffff:eeee:dddd:cccc:bbbb:aaaa:9999:8888:7777:6666"};
    struct net_addr a;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(net_addr_parse_ip(bad[i], strlen(bad[i]), &a), -EINVAL);
    assert_int_equal(net_addr_parse_ip("1.2.3.4\0x", 9, &a), -EINVAL);
}

static void bytes_of_ipv6(void **state)
{
    static const uint8_t mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4};
    static const uint8_t other[16] = {0x20, 1, 0xd, 0xb8, [15] = 7};
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];
    net_addr_from_ip6(mapped, 80, &a);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), "1.2.3.4:80");
    net_addr_from_ip6(other, 81, &a);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), "[2001:db8::7]:81");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_what_it_parsed),
        cmocka_unit_test(the_longest_address_fits),
        cmocka_unit_test(mapped_v4_is_v4),
        cmocka_unit_test(sockaddr_and_back),
        cmocka_unit_test(unix_has_a_name_and_no_bytes),
        cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(names_are_resolved),
        cmocka_unit_test(plain_addresses),
        cmocka_unit_test(what_is_no_plain_address),
        cmocka_unit_test(bytes_of_ipv6),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
