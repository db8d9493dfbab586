// SPDX-License-Identifier: MIT
#include "admin/query.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct query q;
static struct node_home home;
static const struct query_gateway gw = {
    .lan_ip = 0x0a000001, .start_port = 2900, .n_shards = 3, .home = &home};

static int parse(const char *target)
{
    query_fini(&q);
    return query_parse(target, &q);
}

static int end(void **state)
{
    query_fini(&q);
    return 0;
}

static void assert_why(const char *part)
{
    assert_false(query_end(&q));
    if (strstr(q.why, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, q.why);
}

static void a_path_and_its_parameters_are_decoded(void **state)
{
    struct slice v;
    assert_int_equal(parse("/a%20b+c?uid=x%00y+z&&group=%C3%A9&n=1"), 0);
    assert_string_equal(q.path, "/a b+c");
    assert_true(query_text(&q, "uid", 100, &v));
    assert_true(slice_eq(v, SLICE_STR("x\0y z")));
    assert_true(query_text(&q, "group", 100, &v));
    assert_true(slice_eq_str(v, "\xc3\xa9"));
    assert_false(query_text(&q, "name", 100, &v));
    assert_true(query_has(&q, "n"));
    assert_why("\"n\" means nothing");
}

static void what_is_no_target_is_refused(void **state)
{
    static const struct {
        const char *target, *why;
    } wrong[] = {
        {"", "expected a path"},           {"x", "expected a path"},  {"/a%00b", "expected a path"},
        {"/a%2", "hexadecimal"},           {"/a%zz", "hexadecimal"},  {"/?a=%", "hexadecimal"},
        {"/?%4=x", "hexadecimal"},         {"/?a", "a has no value"}, {"/?a=1&a=2", "a is there twice"},
        {"/?a=1&%61=2", "is there twice"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(parse(wrong[i].target), -EINVAL);
        assert_why(wrong[i].why);
    }
}

static void there_is_an_end_to_parameters(void **state)
{
    char target[1024] = "/?";
    for (unsigned i = 0; i < QUERY_PARAMS_MAX; i++)
        snprintf(target + strlen(target), 16, "p%u=1&", i);
    assert_int_equal(parse(target), 0);
    snprintf(target + strlen(target), 16, "one_more=1");
    assert_int_equal(parse(target), -EINVAL);
    assert_why("more than 32");
}

static void numbers_are_whole_and_in_range(void **state)
{
    uint64_t n = 7;
    assert_int_equal(parse("/?a=0&b=18446744073709551615"), 0);
    assert_true(query_uint(&q, "a", 0, 10, &n));
    assert_int_equal(n, 0);
    assert_true(query_uint(&q, "b", 0, UINT64_MAX, &n));
    assert_true(n == UINT64_MAX);
    assert_false(query_uint(&q, "c", 0, 10, &n));
    assert_true(query_end(&q));
    static const char *const wrong[] = {"/?a=",  "/?a=-1", "/?a=1.5", "/?a=11", "/?a=18446744073709551616",
                                        "/?a=1+"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(parse(wrong[i]), 0);
        n = 7;
        assert_false(query_uint(&q, "a", 0, 10, &n));
        assert_int_equal(n, 7);
        assert_why("parameter a is \"");
        assert_why("expected a whole number from 0 to 10");
    }
}

static void choices_are_named(void **state)
{
    static const char *const names[] = {"one", "two", NULL};
    unsigned which = 9;
    assert_int_equal(parse("/?a=two&b=three&all=yes"), 0);
    assert_true(query_choice(&q, "a", names, &which));
    assert_int_equal(which, 1);
    assert_true(query_yes(&q, "all"));
    assert_false(query_yes(&q, "node"));
    assert_false(query_choice(&q, "b", names, &which));
    assert_why("parameter b is \"three\"; expected one of: one, two");
}

static void texts_are_neither_empty_nor_too_long(void **state)
{
    struct slice v = {NULL, 0};
    assert_int_equal(parse("/?uid="), 0);
    assert_false(query_text(&q, "uid", 4, &v));
    assert_null(v.data);
    assert_why("uid is empty");
    assert_int_equal(parse("/?uid=12345"), 0);
    assert_false(query_text(&q, "uid", 4, &v));
    assert_why("5 bytes; expected at most 4");
}

static void prefixes_are_addresses_without_bits_behind(void **state)
{
    struct net_addr a;
    uint8_t bits;
    assert_int_equal(parse("/?x=10.1.0.0/16&y=2001:db8::/32&z=10.1.2.3/16"), 0);
    assert_true(query_cidr(&q, "x", &a, &bits));
    assert_int_equal(a.family, AF_INET);
    assert_int_equal(bits, 16);
    assert_memory_equal(a.ip, "\x0a\x01\0\0", 4);
    assert_true(query_cidr(&q, "y", &a, &bits));
    assert_int_equal(a.family, AF_INET6);
    assert_memory_equal(a.ip, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_false(query_cidr(&q, "z", &a, &bits));
    assert_why("parameter z: ");
}

static void only_the_first_problem_is_kept(void **state)
{
    uint64_t n;
    assert_int_equal(parse("/?a=x&b=y"), 0);
    assert_false(query_uint(&q, "a", 0, 1, &n));
    assert_false(query_uint(&q, "b", 0, 1, &n));
    query_need(&q, "c", "1");
    assert_why("parameter a ");
}

static void a_client_is_named_by_number_or_by_client_id(void **state)
{
    uint32_t id = 0;
    char target[80], text[CLIENT_ID_STRLEN];
    uint32_t of_shard_2 = (2u << 26) + 5;

    assert_string_equal(client_id_format(&gw, of_shard_2, text, sizeof text), "0a0000010b5408000005");
    snprintf(target, sizeof target, "/?client=%s&b=%u", text, of_shard_2);
    assert_int_equal(parse(target), 0);
    assert_true(query_client(&q, "client", &gw, &id));
    assert_int_equal(id, of_shard_2);
    id = 0;
    assert_true(query_client(&q, "b", &gw, &id));
    assert_int_equal(id, of_shard_2);
}

static void a_client_of_others_is_said_to_be_so(void **state)
{
    static const struct {
        const char *text;
        int err;
        const char *why;
    } wrong[] = {
        {"0a0000020b5408000005", -ENOENT, "of the gateway 10.0.0.2:2900; this one is 10.0.0.1:2900"},
        {"0a0000010b5508000005", -ENOENT, "of the gateway 10.0.0.1:2901"},
        {"0a0000010b540c000005", -ENOENT, "is of shard 3; this gateway has the shards 0 to 2"},
        {"0a0000010b5408000000", -EINVAL, "is no connection_id"},
        {"0a0000010b540800000g", -EINVAL, "is no client_id"},
        {"0", -EINVAL, "is no connection_id"},
        {"4294967296", -EINVAL, "is no connection_id"},
        {"67108864", -EINVAL, "is no connection_id"},
        {"-5", -EINVAL, "is no client;"},
        {"", -EINVAL, "is no client;"},
        {"99999999999", -EINVAL, "is no client;"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint32_t id = 77;
        char why[QUERY_WHY_MAX] = "";
        struct slice text = {(const uint8_t *)wrong[i].text, strlen(wrong[i].text)};
        assert_int_equal(client_id_parse(text, &gw, &id, why, sizeof why), wrong[i].err);
        assert_int_equal(id, 77);
        if (strstr(why, wrong[i].why) == NULL)
            fail_msg("%s: %s", wrong[i].text, why);
    }
}

static void a_cursor_comes_back(void **state)
{
    unsigned shard = 9;
    uint64_t cursor = 9;
    char text[CURSOR_STRLEN], target[64];
    snprintf(target, sizeof target, "/?cursor=%s", cursor_format(2, UINT64_MAX, text, sizeof text));
    assert_int_equal(parse(target), 0);
    assert_true(query_cursor(&q, "cursor", 3, &shard, &cursor));
    assert_int_equal(shard, 2);
    assert_true(cursor == UINT64_MAX);
    static const char *const wrong[] = {"", "1", ":", "1:", ":1", "3:0", "1:x", "x:1", "-1:0", "1:2:3"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(target, sizeof target, "/?cursor=%s", wrong[i]);
        assert_int_equal(parse(target), 0);
        assert_false(query_cursor(&q, "cursor", 3, &shard, &cursor));
        assert_why("expected the \"cursor\" of the page before");
    }
}

/* Of a node that has fewer shards than the one before, or has a shard evacuated. */
static void an_id_is_of_the_shard_that_is_its_home(void **state)
{
    char why[QUERY_WHY_MAX];
    uint32_t id;
    unsigned of_shard_3 = 3 * NODE_HOME_PARTS + 5;
    assert_int_equal(client_id_parse(SLICE_STR("0a0000010b540c000005"), &gw, &id, why, sizeof why), -ENOENT);
    home.shard[of_shard_3] = 1;
    assert_int_equal(client_id_parse(SLICE_STR("0a0000010b540c000005"), &gw, &id, why, sizeof why), 0);
    assert_int_equal(id, 0x0c000005);
    assert_int_equal(client_id_parse(SLICE_STR("0a0000010b540c000006"), &gw, &id, why, sizeof why), -ENOENT);
    home.shard[of_shard_3] = 3;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_path_and_its_parameters_are_decoded, end),
        cmocka_unit_test_teardown(what_is_no_target_is_refused, end),
        cmocka_unit_test_teardown(there_is_an_end_to_parameters, end),
        cmocka_unit_test_teardown(numbers_are_whole_and_in_range, end),
        cmocka_unit_test_teardown(choices_are_named, end),
        cmocka_unit_test_teardown(texts_are_neither_empty_nor_too_long, end),
        cmocka_unit_test_teardown(prefixes_are_addresses_without_bits_behind, end),
        cmocka_unit_test_teardown(only_the_first_problem_is_kept, end),
        cmocka_unit_test_teardown(a_client_is_named_by_number_or_by_client_id, end),
        cmocka_unit_test_teardown(a_client_of_others_is_said_to_be_so, end),
        cmocka_unit_test_teardown(a_cursor_comes_back, end),
        cmocka_unit_test(an_id_is_of_the_shard_that_is_its_home),
    };
    for (unsigned i = 0; i < sizeof home.shard; i++)
        home.shard[i] = (uint8_t)(i / NODE_HOME_PARTS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
