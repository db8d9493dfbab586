// SPDX-License-Identifier: MIT
#include "worker_priv.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static int line(const char *text, char ***list, size_t *count)
{
    return tggw__register_line(text, strlen(text), list, count);
}

static void reads_the_broadcast(void **state)
{
    char **list;
    size_t count;
    assert_int_equal(
        line("{\"event\":\"broadcast_addresses\",\"addresses\":[\"10.0.0.1:2900\",\"10.0.0.2:2901\"]}", &list,
             &count),
        1);
    assert_int_equal(count, 2);
    assert_string_equal(list[0], "10.0.0.1:2900");
    assert_string_equal(list[1], "10.0.0.2:2901");
    tggw__list_free(list, count);
}

static void an_object_is_a_list_with_holes(void **state)
{
    char **list;
    size_t count;
    assert_int_equal(line("{\"event\":\"broadcast_addresses\",\"addresses\":{\"0\":\"a:1\",\"2\":\"b:2\"}}",
                          &list, &count),
                     1);
    assert_int_equal(count, 2);
    tggw__list_free(list, count);
}

static void an_empty_list_is_a_list(void **state)
{
    char **list;
    size_t count = 9;
    assert_int_equal(line("{\"event\":\"broadcast_addresses\",\"addresses\":[]}", &list, &count), 1);
    assert_int_equal(count, 0);
    tggw__list_free(list, count);
}

static void bad_addresses_are_left_out(void **state)
{
    char **list;
    size_t count;
    assert_int_equal(
        line("{\"event\":\"broadcast_addresses\",\"addresses\":[1,\"x\",\"h:0\",\"h:70000\",\":1\",\"h:1\"]}",
             &list, &count),
        1);
    assert_int_equal(count, 1);
    assert_string_equal(list[0], "h:1");
    tggw__list_free(list, count);
}

static void garbage_is_refused_and_other_events_passed_over(void **state)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "[]",
                                      "{}",
                                      "{\"event\":1}",
                                      "null",
                                      "{\"event\":\"broadcast_addresses\"}",
                                      "{\"event\":\"broadcast_addresses\",\"addresses\":\"a:1\"}"};
    char **list;
    size_t count;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(line(bad[i], &list, &count), -EBADMSG);
    assert_int_equal(line("{\"event\":\"news\"}", &list, &count), 0);
}

static void addresses_are_host_and_port(void **state)
{
    assert_int_equal(tggw__address_check("127.0.0.1:1236"), 0);
    assert_int_equal(tggw__address_check("[::1]:1236"), 0);
    assert_int_equal(tggw__address_check("host.example:65535"), 0);
    assert_int_equal(tggw__address_check("host"), -EINVAL);
    assert_int_equal(tggw__address_check("host:"), -EINVAL);
    assert_int_equal(tggw__address_check("host:-1"), -EINVAL);
    assert_int_equal(tggw__address_check("host:12x"), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_broadcast),
        cmocka_unit_test(an_object_is_a_list_with_holes),
        cmocka_unit_test(an_empty_list_is_a_list),
        cmocka_unit_test(bad_addresses_are_left_out),
        cmocka_unit_test(garbage_is_refused_and_other_events_passed_over),
        cmocka_unit_test(addresses_are_host_and_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
