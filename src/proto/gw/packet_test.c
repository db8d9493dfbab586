// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/gw/packet.h"

static const uint8_t sample[] = {0, 0, 0, 36,   6,    127,  0,   0,   1,   0x0B, 0x54, 192,
                                 0, 2, 7, 0xD4, 0x31, 0x04, 0,   0,   9,   3,    0x20, 0x5A,
                                 0, 0, 0, 3,    'e',  'x',  't', 'h', 'e', 'l',  'l',  'o'};

static ssize_t decode_exact(const uint8_t *data, size_t len, size_t size_max, struct gw_packet *ret)
{
    uint8_t *copy = malloc(len > 0 ? len : 1); /* of its own size: a read past the end shows */
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, data, len);
    ssize_t n = gw_packet_decode(copy, len, size_max, ret);
    free(copy);
    return n;
}

static void decodes_every_field(void **state)
{
    struct gw_packet p;
    assert_int_equal(gw_packet_decode(sample, sizeof sample, 1000, &p), sizeof sample);
    assert_int_equal(p.pack_len, 36);
    assert_int_equal(p.cmd, GW_CMD_SEND_TO_ALL);
    assert_int_equal(p.local_ip, 0x7F000001);
    assert_int_equal(p.local_port, 2900);
    assert_int_equal(p.client_ip, 0xC0000207);
    assert_int_equal(p.client_port, 54321);
    assert_int_equal(p.connection_id, 0x04000009);
    assert_int_equal(p.flag, GW_FLAG_BODY_IS_SCALAR | GW_FLAG_NOT_CALL_ENCODE);
    assert_int_equal(p.gateway_port, 8282);
    assert_true(slice_eq_str(p.ext, "ext"));
    assert_true(slice_eq_str(p.body, "hello"));
}

static void waits_at_every_split_point(void **state)
{
    for (size_t len = 0; len < sizeof sample; len++) {
        struct gw_packet p = {.cmd = 77};
        assert_int_equal(decode_exact(sample, len, 1000, &p), 0);
        assert_int_equal(p.cmd, 77);
    }
}

static void what_follows_a_packet_is_not_touched(void **state)
{
    uint8_t two[2 * sizeof sample];
    struct gw_packet p;
    memcpy(two, sample, sizeof sample);
    memcpy(two + sizeof sample, sample, sizeof sample);
    assert_int_equal(gw_packet_decode(two, sizeof two, 1000, &p), sizeof sample);
    assert_int_equal(p.body.len, 5);
}

static void encode_gives_the_same_bytes(void **state)
{
    struct gw_packet p;
    uint8_t head[GW_HEAD_LEN];
    assert_int_equal(gw_packet_decode(sample, sizeof sample, 1000, &p), sizeof sample);
    gw_packet_encode_head(head, &p);
    assert_memory_equal(head, sample, sizeof head);
}

static void refuses_lengths_that_lie(void **state)
{
    uint8_t bad[sizeof sample];
    struct gw_packet p;
    for (unsigned len = 0; len < GW_HEAD_LEN; len++) {
        memcpy(bad, sample, sizeof bad);
        bad[3] = (uint8_t)len;
        assert_int_equal(decode_exact(bad, 4, 1000, &p), -EPROTO);
    }
    memcpy(bad, sample, sizeof bad);
    bad[27] = 9; /* ext one byte past the end: known with the head */
    assert_int_equal(decode_exact(bad, GW_HEAD_LEN, 1000, &p), -EPROTO);
    bad[24] = 0xFF;
    assert_int_equal(decode_exact(bad, sizeof bad, 1000, &p), -EPROTO);
    memset(bad, 0xFF, 4);
    memset(bad + 24, 0xFF, 4);
    assert_int_equal(decode_exact(bad, sizeof bad, UINT32_MAX, &p), -EPROTO);
    assert_int_equal(decode_exact(bad, sizeof bad, 1 << 20, &p), -EMSGSIZE);
}

static void size_limit_is_inclusive(void **state)
{
    struct gw_packet p;
    assert_int_equal(gw_packet_decode(sample, sizeof sample, sizeof sample, &p), sizeof sample);
    assert_int_equal(decode_exact(sample, 4, sizeof sample - 1, &p), -EMSGSIZE);
}

static void every_command_has_its_number_and_name(void **state)
{
    unsigned known = 0;
    for (unsigned i = 0; i < 256; i++)
        known += gw_cmd_known((uint8_t)i);
    assert_int_equal(known, 30);
    assert_string_equal(gw_cmd_name(1), "ON_CONNECT");
    assert_string_equal(gw_cmd_name(28), "BATCH_GET_CLIENT_COUNT_BY_GROUP");
    assert_string_equal(gw_cmd_name(205), "ON_WEBSOCKET_CONNECT");
    assert_string_equal(gw_cmd_name(2), "UNKNOWN");
    assert_false(gw_cmd_known(0));
}

static void client_id_both_ways(void **state)
{
    struct gw_client_id id = {0x7F000001, 2900, 0x04000009}, back;
    char text[GW_CLIENT_ID_LEN];
    gw_client_id_encode(text, &id);
    assert_memory_equal(text, "7f0000010b5404000009", GW_CLIENT_ID_LEN);
    assert_int_equal(gw_client_id_decode((struct slice){(uint8_t *)text, sizeof text}, &back), 0);
    assert_int_equal(back.local_ip, id.local_ip);
    assert_int_equal(back.local_port, id.local_port);
    assert_int_equal(back.connection_id, id.connection_id);
    assert_int_equal(gw_client_id_decode(SLICE_STR("7F0000010B5404000009"), &back), 0);
    assert_int_equal(gw_client_id_decode(SLICE_STR("7f0000010b540400000"), &back), -EPROTO);
    assert_int_equal(gw_client_id_decode(SLICE_STR("7f0000010b54040000090"), &back), -EPROTO);
    assert_int_equal(gw_client_id_decode(SLICE_STR("7f0000010b540400000g"), &back), -EPROTO);
    assert_int_equal(gw_client_id_decode(SLICE_STR("7f0000010b54-4000009"), &back), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_every_field),
        cmocka_unit_test(waits_at_every_split_point),
        cmocka_unit_test(what_follows_a_packet_is_not_touched),
        cmocka_unit_test(encode_gives_the_same_bytes),
        cmocka_unit_test(refuses_lengths_that_lie),
        cmocka_unit_test(size_limit_is_inclusive),
        cmocka_unit_test(every_command_has_its_number_and_name),
        cmocka_unit_test(client_id_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
