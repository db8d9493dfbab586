// SPDX-License-Identifier: MIT
#include "net/net_priv.h"

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
    net__addr_from_sockaddr(&ss, &a);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), "10.0.0.1:99");
}

static void sockaddr_and_back(void **state)
{
    static const char *const texts[] = {"1.2.3.4:80", "[2001:db8::1]:443"};
    for (unsigned i = 0; i < 2; i++) {
        struct net_addr a, b;
        struct sockaddr_storage ss;
        assert_int_equal(net_addr_parse(texts[i], &a), 0);
        assert_true(net__addr_to_sockaddr(&a, &ss) > 0);
        net__addr_from_sockaddr(&ss, &b);
        assert_memory_equal(&a, &b, sizeof(a));
    }
}

static void unix_has_a_name_and_no_bytes(void **state)
{
    struct net_addr a;
    char buf[NET_ADDR_STRLEN];
    struct sockaddr_storage ss = {.ss_family = AF_UNIX};

    net__addr_from_sockaddr(&ss, &a);
    assert_int_equal(a.family, AF_UNIX);
    assert_string_equal(net_addr_format(&a, buf, sizeof(buf)), "unix:");
    assert_string_equal(net_addr_format_ip(&a, buf, sizeof(buf)), "unix:");
    assert_int_equal(net__addr_to_sockaddr(&a, &ss), 0);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
