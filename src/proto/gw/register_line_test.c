// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/gw/register_line.h"

static struct register_line line;

static int parse(const char *s)
{
    return register_line_parse((const uint8_t *)s, strlen(s), &line);
}

static void reads_what_php_sends(void **state)
{
    assert_int_equal(
        parse("{\"event\":\"gateway_connect\", \"address\":\"127.0.0.1:2900\", \"secret_key\":\"\"}"), 0);
    assert_int_equal(line.event, REGISTER_GATEWAY_CONNECT);
    assert_true(slice_eq_str(line.address, "127.0.0.1:2900"));
    assert_int_equal(line.secret_key.len, 0);
    assert_int_equal(parse("{\"event\":\"worker_connect\",\"secret_key\":\"a\\/b\\u4e2d\"}\n"), 0);
    assert_int_equal(line.event, REGISTER_WORKER_CONNECT);
    assert_true(slice_eq_str(line.secret_key, "a/b\xE4\xB8\xAD"));
    assert_int_equal(line.address.len, 0);
    assert_int_equal(parse("{\"event\":\"ping\"}"), 0);
    assert_int_equal(line.event, REGISTER_PING);
    assert_int_equal(
        parse("{\"event\":\"broadcast_addresses\",\"addresses\":[\"10.0.0.1:2900\",\"10.0.0.2:2900\"]}\r\n"),
        0);
    assert_int_equal(line.event, REGISTER_BROADCAST_ADDRESSES);
    assert_int_equal(line.n_addresses, 2);
    assert_true(slice_eq_str(line.addresses[1], "10.0.0.2:2900"));
    assert_int_equal(parse("{\"event\":\"broadcast_addresses\",\"addresses\":{\"0\":\"a:1\",\"2\":\"b:2\"}}"),
                     0);
    assert_int_equal(line.n_addresses, 2);
    assert_true(slice_eq_str(line.addresses[1], "b:2"));
    assert_int_equal(parse("{\"event\":\"broadcast_addresses\",\"addresses\":[]}"), 0);
    assert_int_equal(line.n_addresses, 0);
    assert_int_equal(parse("{\"x\":{\"event\":\"ping\"},\"event\":\"other\"}"), 0);
    assert_int_equal(line.event, REGISTER_UNKNOWN);
}

static void refuses_the_rest(void **state)
{
    static const char *const bad[] = {"",
                                      "\n",
                                      "ping",
                                      "[]",
                                      "{}",
                                      "null",
                                      "\"ping\"",
                                      "{\"event\":\"\"}",
                                      "{\"event\":5}",
                                      "{\"event\":\"ping\"",
                                      "{\"event\":\"ping\"} x",
                                      "{\"event\":\"ping\",\"address\":[]}",
                                      "{\"event\":\"broadcast_addresses\",\"addresses\":\"a\"}",
                                      "{\"event\":\"ping\",\"secret_key\":null}",
                                      "{\"event\":\"broadcast_addresses\",\"addresses\":[1]}",
                                      "GET / HTTP/1.1\r"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse(bad[i]) != -EPROTO)
            fail_msg("taken: %s", bad[i]);
    }
}

static void reads_back_what_it_writes(void **state)
{
    static const struct slice addresses[] = {{(const uint8_t *)"127.0.0.1:2900", 14},
                                             {(const uint8_t *)"\"\\\n", 3}};
    struct bytes out = {0};
    register_line_gateway_connect(&out, addresses[0], SLICE_STR("s\"e\\c\x01"));
    assert_int_equal(register_line_parse(out.data, out.len, &line), 0);
    assert_int_equal(line.event, REGISTER_GATEWAY_CONNECT);
    assert_true(slice_eq(line.address, addresses[0]));
    assert_true(slice_eq_str(line.secret_key, "s\"e\\c\x01"));
    bytes_clear(&out);
    register_line_worker_connect(&out, SLICE_STR(""));
    assert_true(slice_eq_str((struct slice){out.data, out.len},
                             "{\"event\":\"worker_connect\",\"secret_key\":\"\"}\n"));
    bytes_clear(&out);
    register_line_ping(&out);
    assert_true(slice_eq_str((struct slice){out.data, out.len}, "{\"event\":\"ping\"}\n"));
    bytes_clear(&out);
    register_line_broadcast(&out, addresses, 2);
    assert_int_equal(register_line_parse(out.data, out.len, &line), 0);
    assert_int_equal(line.n_addresses, 2);
    assert_true(slice_eq(line.addresses[1], addresses[1]));
    bytes_clear(&out);
    register_line_broadcast(&out, addresses, 1);
    assert_true(slice_eq_str((struct slice){out.data, out.len},
                             "{\"event\":\"broadcast_addresses\",\"addresses\":[\"127.0.0.1:2900\"]}\n"));
    bytes_fini(&out);
}

static void cut_and_changed_lines(void **state)
{
    static const char good[] = "{\"event\":\"gateway_connect\",\"address\":\"1.2.3.4:5\",\"secret_key\":"
                               "\"\\u00e4\",\"addresses\":[\"x\"]}";
    for (size_t at = 0; at < sizeof good - 1; at++) {
        uint8_t *copy = malloc(sizeof good);
        assert_non_null(copy);
        memcpy(copy, good, at);
        assert_int_equal(register_line_parse(copy, at, &line), -EPROTO);
        free(copy);
        for (unsigned b = 0; b < 256; b++) {
            uint8_t changed[sizeof good];
            memcpy(changed, good, sizeof good);
            changed[at] = (uint8_t)b;
            int err = register_line_parse(changed, sizeof good - 1, &line);
            assert_true(err == 0 || err == -EPROTO);
        }
    }
}

static int free_line(void **state)
{
    register_line_fini(&line);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_php_sends),
        cmocka_unit_test(refuses_the_rest),
        cmocka_unit_test(reads_back_what_it_writes),
        cmocka_unit_test(cut_and_changed_lines),
    };
    return cmocka_run_group_tests(tests, NULL, free_line);
}
