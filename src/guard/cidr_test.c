// SPDX-License-Identifier: MIT
#include "guard/cidr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char *parsed(const char *text)
{
    static char buf[CIDR_STRLEN];
    struct cidr c;
    switch (cidr_parse(text, strlen(text), &c)) {
    case CIDR_OK: return cidr_format(&c, buf, sizeof buf);
    case CIDR_NO_ADDRESS: return "no address";
    case CIDR_BAD_BITS: return "bad bits";
    case CIDR_HOST_BITS: return "host bits";
    }
    return "?";
}

static void prefixes_and_addresses_of_both_families(void **state)
{
    static const char *const same[] = {"0.0.0.0/0",
                                       "10.0.0.0/8",
                                       "10.128.0.0/9",
                                       "192.0.2.0/31",
                                       "192.0.2.1",
                                       "255.255.255.255",
                                       "::/0",
                                       "8000::/1",
                                       "2001:db8::/32",
                                       "2001:db8::/64",
                                       "2001:db8:0:0:8000::/65",
                                       "::1",
                                       "2001:db8::fffe/127"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        assert_string_equal(parsed(same[i]), same[i]);
    assert_string_equal(parsed("192.0.2.1/32"), "192.0.2.1");
    assert_string_equal(parsed("::1/128"), "::1");
    assert_string_equal(parsed("2001:DB8::/32"), "2001:db8::/32");
}

static void mapped_addresses_are_ipv4(void **state)
{
    assert_string_equal(parsed("::ffff:192.0.2.1"), "192.0.2.1");
    assert_string_equal(parsed("::ffff:10.0.0.0/104"), "10.0.0.0/8");
    assert_string_equal(parsed("::ffff:0:0/96"), "0.0.0.0/0");
    assert_string_equal(parsed("::ffff:0:0/95"), "host bits");
    assert_string_equal(parsed("::fffe:0:0/95"), "::fffe:0:0/95");
}

static void what_is_no_address(void **state)
{
    static const char *const bad[] = {"",           "/8",
                                      "10",         "10.0.0",
                                      "10.0.0.0.0", "010.0.0.1",
                                      "10.0.0.256", "1.2.3.4 ",
                                      " 1.2.3.4",   "example.com",
                                      "fe80::1%lo", "[::1]",
                                      ":::",        "1:2:3:4:5:6:7:8:9",
                                      "10.0.0.*",   "2001:db8::/32::"};
    for (size_t i = 0; i + 1 < sizeof bad / sizeof bad[0]; i++)
        assert_string_equal(parsed(bad[i]), "no address");
    struct cidr c;
    assert_int_equal(cidr_parse("1.2.3.4\0x", 9, &c), CIDR_NO_ADDRESS);
    assert_int_equal(cidr_parse("1.2.3.4xx", 7, &c), CIDR_OK); /* by its length, not by a NUL */
}

static void what_is_no_number_of_bits(void **state)
{
    static const char *const bad[] = {"10.0.0.0/",   "10.0.0.0/33", "10.0.0.0/08",        "10.0.0.0/+8",
                                      "10.0.0.0/8 ", "10.0.0.0/-1", "10.0.0.0/255",       "10.0.0.0/0x8",
                                      "::/129",      "::/1280",     "10.0.0.0/255.0.0.0", "10.0.0.0/8/8"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_string_equal(parsed(bad[i]), "bad bits");
}

static void assert_explained(const char *text, const char *expected)
{
    char why[CIDR_WHY_MAX];
    struct cidr c;
    cidr_explain(cidr_parse(text, strlen(text), &c), text, strlen(text), why, sizeof why);
    assert_string_equal(why, expected);
}

static void host_bits_are_refused_with_the_right_prefix(void **state)
{
    struct cidr c;
    char buf[CIDR_STRLEN];
    assert_int_equal(cidr_parse("10.1.2.3/8", 10, &c), CIDR_HOST_BITS);
    assert_string_equal(cidr_format(&c, buf, sizeof buf), "10.0.0.0/8");
    assert_explained(
        "10.1.2.3/8",
        "\"10.1.2.3/8\" has bits set behind the prefix; expected 10.0.0.0/8, or 10.1.2.3 for that "
        "one address");
    assert_explained("2001:db8::1/64", "\"2001:db8::1/64\" has bits set behind the prefix; expected "
                                       "2001:db8::/64, or 2001:db8::1 for that one address");
    assert_explained("2001:db8::/31", "\"2001:db8::/31\" is right");
    assert_explained("2001:db9::/31", "\"2001:db9::/31\" has bits set behind the prefix; expected "
                                      "2001:db8::/31, or 2001:db9:: for that one address");
    assert_explained("10.0.0.0/33",
                     "\"10.0.0.0/33\" has no number of bits behind the slash; expected /0 to /32");
    assert_explained("::/129", "\"::/129\" has no number of bits behind the slash; expected /0 to /128");
    assert_explained("ten", "\"ten\" does not begin with an address; expected a CIDR such as 10.0.0.0/8 or "
                            "2001:db8::/32, or one address");
}

static void cutting_clears_every_bit_behind(void **state)
{
    for (unsigned bits = 0; bits <= 128; bits++) {
        struct cidr c = {.hi = UINT64_MAX, .lo = UINT64_MAX, .family = AF_INET6, .bits = 128};
        cidr_cut(&c, bits);
        assert_int_equal(__builtin_popcountll(c.hi) + __builtin_popcountll(c.lo), bits);
        assert_true(bits == 0 || c.hi >> 63 == 1);
        assert_true(c.lo == 0 || c.hi == UINT64_MAX);
        assert_int_equal(c.bits, bits);
    }
}

static void an_address_is_all_of_its_bits(void **state)
{
    struct net_addr a = {.family = AF_INET, .ip = {192, 0, 2, 7, 9, 9}};
    struct cidr c;
    char buf[CIDR_STRLEN];
    cidr_from_addr(&a, &c);
    assert_string_equal(cidr_format(&c, buf, sizeof buf), "192.0.2.7");
    assert_int_equal(c.bits, 32);
    assert_true(c.hi == UINT64_C(0xc0000207) << 32 && c.lo == 0);
    a = (struct net_addr){.family = AF_UNIX};
    cidr_from_addr(&a, &c);
    assert_int_equal(c.family, AF_UNIX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefixes_and_addresses_of_both_families),
        cmocka_unit_test(mapped_addresses_are_ipv4),
        cmocka_unit_test(what_is_no_address),
        cmocka_unit_test(what_is_no_number_of_bits),
        cmocka_unit_test(host_bits_are_refused_with_the_right_prefix),
        cmocka_unit_test(cutting_clears_every_bit_behind),
        cmocka_unit_test(an_address_is_all_of_its_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
