// SPDX-License-Identifier: MIT
#include "packet.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../include/tgg_worker.h"

static const uint8_t wire[] = {0, 0, 0, 35,   3,    127, 0,   0,   1,   0x07, 0xd0, 10,
                               0, 0, 9, 0x1f, 0x90, 0,   0,   0,   7,   0x01, 0x20, 0x5a,
                               0, 0, 0, 2,    'e',  'x', 'h', 'e', 'l', 'l',  'o'};

static void encodes_the_bytes_of_the_wire_page(void **state)
{
    struct tggw__bytes out = {0};
    struct tggw__packet p = {.cmd = 3,
                             .flag = 1,
                             .local_ip = 0x7f000001,
                             .local_port = 2000,
                             .client_ip = 0x0a000009,
                             .client_port = 8080,
                             .connection_id = 7,
                             .gateway_port = 8282,
                             .ext = (const uint8_t *)"ex",
                             .ext_len = 2,
                             .body = (const uint8_t *)"hello",
                             .body_len = 5};
    assert_int_equal(tggw__packet_append(&out, &p), 0);
    assert_int_equal(tggw__bytes_len(&out), sizeof wire);
    assert_memory_equal(out.data, wire, sizeof wire);
    tggw__bytes_fini(&out);
}

static void decodes_what_it_encodes(void **state)
{
    struct tggw__packet p;
    assert_int_equal(tggw__packet_length(wire, sizeof wire, 1000), 35);
    assert_int_equal(tggw__packet_decode(wire, sizeof wire, &p), 0);
    assert_int_equal(p.cmd, 3);
    assert_int_equal(p.flag, 1);
    assert_int_equal(p.local_ip, 0x7f000001);
    assert_int_equal(p.local_port, 2000);
    assert_int_equal(p.client_ip, 0x0a000009);
    assert_int_equal(p.client_port, 8080);
    assert_int_equal(p.connection_id, 7);
    assert_int_equal(p.gateway_port, 8282);
    assert_int_equal(p.ext_len, 2);
    assert_int_equal(p.body_len, 5);
    assert_memory_equal(p.body, "hello", 5);
}

static void refuses_lengths_that_cannot_be(void **state)
{
    uint8_t bad[sizeof wire];
    struct tggw__packet p;
    assert_int_equal(tggw__packet_length(wire, 3, 1000), 0);
    assert_int_equal(tggw__packet_length(wire, sizeof wire, 34), -EBADMSG);
    memcpy(bad, wire, sizeof wire);
    bad[3] = 27;
    assert_int_equal(tggw__packet_length(bad, sizeof bad, 1000), -EBADMSG);
    memcpy(bad, wire, sizeof wire);
    bad[27] = 8; // one more than is behind the head
    assert_int_equal(tggw__packet_decode(bad, sizeof bad, &p), -EBADMSG);
    bad[24] = 0xff;
    assert_int_equal(tggw__packet_decode(bad, sizeof bad, &p), -EBADMSG);
    assert_int_equal(tggw__packet_decode(wire, 27, &p), -EBADMSG);
}

static void client_ids_go_both_ways(void **state)
{
    char id[TGGW_CLIENT_ID_SIZE];
    uint32_t ip, connection_id;
    uint16_t port;
    tggw_client_id_format(0x7f000001, 2900, 0xdeadbeef, id);
    assert_string_equal(id, "7f0000010b54deadbeef");
    assert_int_equal(tggw_client_id_parse("7F0000010b54DEADBEEF", &ip, &port, &connection_id), 0);
    assert_int_equal(ip, 0x7f000001);
    assert_int_equal(port, 2900);
    assert_true(connection_id == 0xdeadbeef);
}

static void malformed_client_ids_are_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "7",
                                      "7f0000010b54deadbee",
                                      "7f0000010b54deadbeef0",
                                      "7g0000010b54deadbeef",
                                      "7f0000010b54deadbee "};
    uint32_t ip, connection_id;
    uint16_t port;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(tggw_client_id_parse(bad[i], &ip, &port, &connection_id), -EINVAL);
    assert_int_equal(tggw_client_id_parse(NULL, &ip, &port, &connection_id), -EINVAL);
}

static void json_text_is_escaped(void **state)
{
    static const char *const list[] = {"a\"b", "c\\d", "e\n\x01", "h\xc3\xa9", ""};
    struct tggw__bytes b = {0};
    int err = 0;
    tggw__json_list(&b, list, 5, &err);
    assert_int_equal(err, 0);
    static const char want[] = "[\"a\\\"b\",\"c\\\\d\",\"e\\u000a\\u0001\",\"h\xc3\xa9\",\"\"]";
    assert_int_equal(tggw__bytes_len(&b), sizeof want - 1);
    assert_memory_equal(b.data, want, sizeof want - 1);
    tggw__bytes_fini(&b);
}

static void json_refuses_what_is_not_utf8(void **state)
{
    static const char *const bad[] = {"\xff",         "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xe0\x80\x80", "\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct tggw__bytes b = {0};
        int err = 0;
        tggw__json_string(&b, bad[i], &err);
        assert_int_equal(err, -EINVAL);
        tggw__bytes_fini(&b);
    }
}

static void a_queue_keeps_its_bytes_in_order(void **state)
{
    struct tggw__bytes b = {0};
    uint8_t next_in = 0, next_out = 0;
    for (unsigned round = 0; round < 2000; round++) {
        uint8_t chunk[97];
        size_t n = (round * 31) % sizeof chunk + 1;
        for (size_t i = 0; i < n; i++)
            chunk[i] = next_in++;
        assert_int_equal(tggw__bytes_append(&b, chunk, n), 0);
        size_t take = tggw__bytes_len(&b) * (round % 3) / 2;
        take = take > tggw__bytes_len(&b) ? tggw__bytes_len(&b) : take;
        for (size_t i = 0; i < take; i++)
            assert_int_equal(b.data[b.head + i], next_out++);
        tggw__bytes_consume(&b, take);
    }
    assert_true(b.cap <= 64 * 1024);
    tggw__bytes_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_the_bytes_of_the_wire_page),
        cmocka_unit_test(decodes_what_it_encodes),
        cmocka_unit_test(refuses_lengths_that_cannot_be),
        cmocka_unit_test(client_ids_go_both_ways),
        cmocka_unit_test(malformed_client_ids_are_refused),
        cmocka_unit_test(json_text_is_escaped),
        cmocka_unit_test(json_refuses_what_is_not_utf8),
        cmocka_unit_test(a_queue_keeps_its_bytes_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
