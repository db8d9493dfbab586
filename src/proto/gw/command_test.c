// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/gw/command.h"

static struct gw_args args; /* one for all tests: nothing of an earlier call may show in a later one */

static struct slice text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static void assert_names(struct gw_names names, const char *joined)
{
    char got[500] = "";
    for (size_t i = 0; i < names.n; i++) {
        size_t at = strlen(got);
        snprintf(got + at, sizeof got - at, "%s%.*s", i > 0 ? "|" : "", (int)names.items[i].len,
                 names.items[i].data);
    }
    assert_string_equal(got, joined);
}

static void assert_ids(const uint32_t *ids, size_t n, const char *joined)
{
    char got[500] = "";
    for (size_t i = 0; i < n; i++) {
        size_t at = strlen(got);
        snprintf(got + at, sizeof got - at, "%s%u", i > 0 ? " " : "", ids[i]);
    }
    assert_string_equal(got, joined);
}

static void assert_to_all(const char *ext, const char *connections, const char *exclude)
{
    struct gw_send_to_all c;
    int err = gw_read_send_to_all(&args, text(ext), &c);
    if (err != 0)
        fail_msg("%s: %d", ext, err);
    assert_int_equal(c.has_connections, connections != NULL);
    if (connections != NULL)
        assert_ids(c.connections, c.n_connections, connections);
    else
        assert_ids(c.exclude->ids, c.exclude->n, exclude);
}

static void send_to_all(void **state)
{
    assert_to_all("", NULL, "");
    assert_to_all("null", NULL, "");
    assert_to_all("[]", NULL, "");
    assert_to_all("{}", NULL, "");
    assert_to_all("{\"connections\":[3,1,2,1]}", "3 1 2 1", NULL);
    assert_to_all("{\"connections\":{\"5\":5,\"7\":\"7\"}}", "5 7", NULL);
    assert_to_all("{\"connections\":[]}", "", NULL);
    assert_to_all("{\"connections\":{}}", "", NULL);
    assert_to_all("{\"connections\":null}", NULL, "");
    assert_to_all("{\"connections\":[\"05\",\"x\",null,-1,4294967296,4294967295,1.9,true,false,\"\"]}",
                  "4294967295 1 1 0", NULL);
    assert_to_all("{\"exclude\":{\"9\":9,\"2\":2,\"5\":null,\"07\":7,\"x\":1,\"2\":[2]}}", NULL, "2 9");
    assert_to_all("{\"exclude\":[9,\"2\",9,null]}", NULL, "2 9");
    assert_to_all("{\"exclude\":null}", NULL, "");
    assert_to_all("{\"exclude\":5}", NULL, "");
    assert_to_all("{\"connections\":[1],\"exclude\":[1]}", "1", NULL);
    assert_to_all("{\"other\":{\"connections\":[1]},\"\\u0065xclude\":[3]}", NULL, "3");
}

static void send_to_all_refuses(void **state)
{
    static const char *const bad[] = {
        "{", "{\"connections\":[1}", "x", "{\"exclude\":[[1]]}", "{\"connections\":[{}]}", "{} {}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct gw_send_to_all c = {.n_connections = 77};
        assert_int_equal(gw_read_send_to_all(&args, text(bad[i]), &c), -EPROTO);
        assert_int_equal(c.n_connections, 77);
    }
}

static void send_to_group(void **state)
{
    struct gw_send_to_group c;
    assert_int_equal(
        gw_read_send_to_group(&args, text("{\"group\":[\"a\",5,\"a\",\"\\u4e2d\"],\"exclude\":null}"), &c),
        0);
    assert_names(c.groups, "a|5|a|\xE4\xB8\xAD");
    assert_int_equal(c.exclude->n, 0);
    assert_int_equal(
        gw_read_send_to_group(&args, text("{\"group\":{\"x\":\"room\"},\"exclude\":{\"3\":3,\"1\":1}}"), &c),
        0);
    assert_names(c.groups, "room");
    assert_ids(c.exclude->ids, c.exclude->n, "1 3");
    assert_int_equal(gw_read_send_to_group(&args, text("{\"exclude\":[2],\"group\":\"one\"}"), &c), 0);
    assert_names(c.groups, "one");
    assert_ids(c.exclude->ids, c.exclude->n, "2");
    assert_int_equal(gw_read_send_to_group(&args, text("{\"group\":12}"), &c), 0);
    assert_names(c.groups, "12");
    assert_int_equal(gw_read_send_to_group(&args, text("null"), &c), 0);
    assert_names(c.groups, "");
    assert_int_equal(gw_read_send_to_group(&args, text("{\"group\":[\"a\"],\"group\":[\"b\"]}"), &c), 0);
    assert_names(c.groups, "b");
    assert_int_equal(gw_read_send_to_group(&args, text(""), &c), -EPROTO);
    assert_int_equal(gw_read_send_to_group(&args, text("{\"group\":[[]]}"), &c), -EPROTO);
    assert_int_equal(gw_read_send_to_group(&args, text("{\"group\":[\"\xFF\"]}"), &c), -EPROTO);
}

static void names_are_array_keys_of_php(void **state)
{
    struct gw_names names;
    assert_int_equal(
        gw_read_names(&args, text("[\"05\",5,-5,-0,1.9,-1.9,1e3,true,false,null,9223372036854775807,1e19]"),
                      &names),
        0);
    assert_names(names, "05|5|-5|0|1|-1|1000|1|0||9223372036854775807|-8446744073709551616");
    assert_int_equal(gw_read_names(&args, text("[]"), &names), 0);
    assert_int_equal(names.n, 0);
    assert_int_equal(gw_read_names(&args, text("{\"a\":\"x\",\"b\":\"y\"}"), &names), 0);
    assert_names(names, "x|y");
}

static void decoded_names_do_not_move_while_others_are_added(void **state)
{
    struct gw_args fresh = {0};
    struct gw_names names;
    struct bytes ext = {0};
    bytes_append_byte(&ext, '[');
    for (int i = 0; i < 5000; i++)
        bytes_printf(&ext, "%s\"\\u4e2d%d\",1e%d", i > 0 ? "," : "", i, i % 19);
    bytes_append_byte(&ext, ']');
    assert_int_equal(gw_read_names(&fresh, (struct slice){ext.data, ext.len}, &names), 0);
    assert_int_equal(names.n, 10000);
    for (int i = 0; i < 5000; i++) {
        char expected[40];
        snprintf(expected, sizeof expected, "\xE4\xB8\xAD%d", i);
        assert_true(slice_eq_str(names.items[2 * i], expected));
        assert_int_equal(names.items[2 * i + 1].len, i % 19 + 1);
        assert_int_equal(names.items[2 * i + 1].data[0], '1');
    }
    gw_args_fini(&fresh);
    bytes_fini(&ext);
}

static void select_clients(void **state)
{
    struct gw_select c;
    assert_int_equal(
        gw_read_select(&args, text("{\"fields\":[\"session\",\"uid\",\"groups\"],\"where\":[]}"), &c), 0);
    assert_false(c.nothing || c.has_where);
    assert_names(c.fields, "session|uid|groups");
    assert_int_equal(
        gw_read_select(&args,
                       text("{\"where\":{\"groups\":[\"a\",7],\"connection_id\":{\"3\":3,\"4\":\"4\"},"
                            "\"uid\":[\"u\\/1\"],\"else\":[{}]},\"fields\":[\"uid\"]}"),
                       &c),
        0);
    assert_true(c.has_where);
    assert_names(c.fields, "uid");
    assert_names(c.groups, "a|7");
    assert_names(c.uids, "u/1");
    assert_ids(c.connections, c.n_connections, "3 4");
    assert_int_equal(gw_read_select(&args, text("{\"fields\":[],\"where\":null}"), &c), 0);
    assert_false(c.has_where || c.nothing);
    assert_int_equal(gw_read_select(&args, text("{\"fields\":[],\"where\":{\"connection_id\":[]}}"), &c), 0);
    assert_true(c.has_where);
    assert_int_equal(c.n_connections, 0);
    assert_int_equal(gw_read_select(&args, text("null"), &c), 0);
    assert_true(c.nothing);
    assert_int_equal(gw_read_select(&args, text("{\"fields\":[}"), &c), -EPROTO);
}

static void connect_keys(void **state)
{
    struct gw_connect c;
    assert_int_equal(
        gw_read_connect(&args, text("{\"worker_key\":\"ChatBusinessWorker:0\",\"secret_key\":\"\"}"), &c), 0);
    assert_true(c.has_secret_key);
    assert_true(slice_eq_str(c.worker_key, "ChatBusinessWorker:0"));
    assert_int_equal(c.secret_key.len, 0);
    assert_int_equal(gw_read_connect(&args, text("{\"secret_key\":\"a\\/b\\\"\"}"), &c), 0);
    assert_true(slice_eq_str(c.secret_key, "a/b\""));
    assert_int_equal(c.worker_key.len, 0);
    assert_int_equal(gw_read_connect(&args, text("{\"worker_key\":7,\"secret_key\":5}"), &c), 0);
    assert_false(c.has_secret_key);
    assert_true(slice_eq_str(c.worker_key, "7"));
    assert_int_equal(gw_read_connect(&args, text("[]"), &c), 0);
    assert_false(c.has_secret_key);
    assert_int_equal(gw_read_connect(&args, text("{\"secret_key\":{}}"), &c), -EPROTO);
    assert_int_equal(gw_read_connect(&args, text("secret"), &c), -EPROTO);
}

static void id_set_of_every_size(void **state)
{
    for (uint32_t n = 0; n < 70; n++) {
        struct bytes ext = {0};
        struct gw_send_to_all c;
        bytes_append_str(&ext, "{\"exclude\":[");
        for (uint32_t i = 0; i < n; i++)
            bytes_printf(&ext, "%s%u", i > 0 ? "," : "", (i * 7919 % n) * 3 + 1);
        bytes_append_str(&ext, "]}");
        assert_int_equal(gw_read_send_to_all(&args, (struct slice){ext.data, ext.len}, &c), 0);
        for (uint32_t id = 0; id < 3 * n + 5; id++) {
            bool in = false;
            for (uint32_t i = 0; i < n; i++)
                in |= (i * 7919 % n) * 3 + 1 == id;
            assert_int_equal(gw_id_set_has(c.exclude, id), in);
        }
        bytes_fini(&ext);
    }
}

/* Whatever a byte is changed to, and wherever the text is cut, every reader gives an answer and reads nothing
 * outside. */
static void mutated_texts(void **state)
{
    static const char *const texts[] = {
        "{\"connections\":{\"1\":1,\"22\":\"22\"},\"x\":[{},[1.5e3]]}",
        "{\"group\":[\"a\\u00e4\",5,1.5e18,true],\"exclude\":{\"7\":7,\"8\":null}}",
        "{\"fields\":[\"uid\"],\"where\":{\"groups\":[\"a\"],\"uid\":[1],\"connection_id\":[3]}}",
        "{\"worker_key\":\"w:1\",\"secret_key\":\"\\ud83d\\ude00\"}",
    };
    static const char bytes[] = "[]{}\",:\\0e-.n\xFF ";
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        size_t len = strlen(texts[t]);
        for (size_t at = 0; at < len; at++) {
            for (size_t b = 0; b <= sizeof bytes - 1; b++) {
                size_t n = b == sizeof bytes - 1 ? at : len; /* the last round cuts */
                uint8_t *copy = malloc(n > 0 ? n : 1);
                assert_non_null(copy);
                memcpy(copy, texts[t], n);
                if (n == len)
                    copy[at] = (uint8_t)bytes[b];
                struct slice s = {copy, n};
                gw_read_send_to_all(&args, s, &(struct gw_send_to_all){0});
                gw_read_send_to_group(&args, s, &(struct gw_send_to_group){0});
                gw_read_names(&args, s, &(struct gw_names){0});
                gw_read_select(&args, s, &(struct gw_select){0});
                gw_read_connect(&args, s, &(struct gw_connect){0});
                free(copy);
            }
        }
    }
}

static int free_args(void **state)
{
    gw_args_fini(&args);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(send_to_all),
        cmocka_unit_test(send_to_all_refuses),
        cmocka_unit_test(send_to_group),
        cmocka_unit_test(names_are_array_keys_of_php),
        cmocka_unit_test(decoded_names_do_not_move_while_others_are_added),
        cmocka_unit_test(select_clients),
        cmocka_unit_test(connect_keys),
        cmocka_unit_test(id_set_of_every_size),
        cmocka_unit_test(mutated_texts),
    };
    return cmocka_run_group_tests(tests, NULL, free_args);
}
