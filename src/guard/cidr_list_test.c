// SPDX-License-Identifier: MIT
#include "guard/guard_files_test.h"

#include <time.h>

static struct cidr_list *list;

static bool has(const char *address)
{
    struct net_addr a = addr_of(address);
    return cidr_list_has(list, &a);
}

static struct cidr_list *list_of(const char *value)
{
    config_set(&cfg, "gateway", "reserve_list", value, &err);
    load_files();
    return cidr_list_new(value, test_files, "gateway", "reserve_list", 7, &err);
}

static void an_empty_value_matches_nothing(void **state)
{
    static const char *const values[] = {"", " ", " , ,"};
    for (unsigned i = 0; i < 3; i++) {
        list = cidr_list_new(values[i], NULL, "listen a", "trusted_proxies", 1, &err);
        assert_non_null(list);
        assert_false(has("10.0.0.1"));
        assert_false(has("::1"));
        cidr_list_free(list);
    }
    cidr_list_free(NULL);
}

static void prefixes_and_files_of_prefixes(void **state)
{
    char value[300];
    write_file("a", "# ours\r\n\r\n192.0.2.0/24 # office\r\n  2001:db8::/32\t\r\n198.51.100.7\r\n");
    write_file("b", "203.0.113.0/25"); /* no end of line */
    snprintf(value, sizeof value, "10.0.0.0/8 , %s,,%s, ::1", path_of("a"), path_of("b"));
    list = list_of(value);
    assert_non_null(list);
    assert_true(has("10.255.255.255") && has("192.0.2.200") && has("2001:db8:ffff::1"));
    assert_true(has("198.51.100.7") && has("203.0.113.127") && has("::1"));
    assert_false(has("11.0.0.0") || has("192.0.3.1") || has("2001:db9::") || has("198.51.100.8"));
    assert_false(has("203.0.113.128") || has("::2"));
    struct net_addr local = {.family = AF_UNIX};
    assert_false(cidr_list_has(list, &local));
    cidr_list_free(list);
}

static void an_empty_file_matches_nothing(void **state)
{
    write_file("a", "");
    list = list_of(path_of("a"));
    assert_non_null(list);
    assert_false(has("10.0.0.1"));
    cidr_list_free(list);
}

static void what_is_wrong_in_a_value(void **state)
{
    assert_null(cidr_list_new("10.1.2.3/8, ten, 10.0.0.0/40", NULL, "listen a", "trusted_proxies", 7, &err));
    assert_int_equal(err.n, 3);
    assert_string_equal(problem(0),
                        "[listen a] trusted_proxies: \"10.1.2.3/8\" has bits set behind the prefix; "
                        "expected 10.0.0.0/8, or 10.1.2.3 for that one address");
    assert_string_equal(
        problem(1),
        "[listen a] trusted_proxies: \"ten\" does not begin with an address; expected a CIDR such "
        "as 10.0.0.0/8 or 2001:db8::/32, or one address, or the path of a file, beginning with /");
    assert_string_equal(problem(2),
                        "[listen a] trusted_proxies: \"10.0.0.0/40\" has no number of bits behind the "
                        "slash; expected /0 to /32");
    assert_int_equal(err.list[0].line, 7);
}

static void what_is_wrong_in_a_file_tells_file_and_line(void **state)
{
    char expected[400];
    write_file("a", "10.0.0.0/8\n\n2001:db8::1/64 # x\n10.0.0.0/8 allow\nfoo\n");
    assert_null(list_of(path_of("a")));
    assert_int_equal(err.n, 3);
    snprintf(expected, sizeof expected,
             "[gateway] reserve_list: %s:3: \"2001:db8::1/64\" has bits set behind the prefix; expected "
             "2001:db8::/64, or 2001:db8::1 for that one address",
             path_of("a"));
    assert_string_equal(problem(0), expected);
    assert_non_null(strstr(problem(1), "/a:4: \"10.0.0.0/8 allow\" has no number of bits behind the slash"));
    assert_non_null(strstr(problem(2), "/a:5: \"foo\""));
}

static void a_file_that_was_not_read_is_an_error(void **state)
{
    assert_null(cidr_list_new("/nowhere", NULL, "gateway", "deny_list", 1, &err));
    assert_string_equal(problem(0), "[gateway] deny_list: /nowhere was not read");
}

static void a_list_of_100000_lines_loads_in_no_time(void **state)
{
    struct timespec a, b;
    FILE *f = fopen(path_of("a"), "we");
    assert_non_null(f);
    for (unsigned i = 0; i < 100000; i++)
        fprintf(f, i % 4 == 0 ? "2001:db8:%x:%x::/64\n" : "10.%u.%u.0/25 # line\n", i >> 8 & 255, i & 255);
    fclose(f);
    clock_gettime(CLOCK_MONOTONIC, &a);
    list = list_of(path_of("a"));
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_non_null(list);
    double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
    print_message("100000 lines in %.0f ms\n", ms);
    assert_true(ms < 3000); /* with any sanitizer */
    assert_true(has("10.1.1.1") && has("2001:db8:0:4::1"));
    cidr_list_free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_value_matches_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(prefixes_and_files_of_prefixes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_empty_file_matches_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_wrong_in_a_value, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_wrong_in_a_file_tells_file_and_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_was_not_read_is_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_list_of_100000_lines_loads_in_no_time, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
