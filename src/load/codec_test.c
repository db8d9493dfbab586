// SPDX-License-Identifier: MIT
#include "load/codec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const uint8_t key[4] = {1, 2, 3, 4};
static struct codec_message m;

/* Every beginning that is shorter than the message is "not complete", and the whole is the whole. */
static void must_take(enum load_protocol protocol, const void *data, size_t len, const void *want,
                      size_t want_len)
{
    for (size_t n = 0; n < len; n++)
        assert_int_equal(codec_read(protocol, data, n, &m), 0);
    assert_int_equal(codec_read(protocol, data, len, &m), len);
    assert_int_equal(m.len, want_len);
    assert_memory_equal(m.data, want, want_len);
    assert_true(m.whole);
}

static void websocket_frames_at_every_split(void **state)
{
    static uint8_t large[4 + 300] = {0x82, 126, 1, 44};
    static uint8_t huge[10 + 70000] = {0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70};
    memset(large + 4, 'x', 300);
    memset(huge + 10, 'y', 70000);
    must_take(LOAD_WEBSOCKET, "\x81\x05hello", 7, "hello", 5);
    assert_int_equal(m.opcode, LOAD_OP_TEXT);
    must_take(LOAD_WEBSOCKET, "\x88\x02\x03\xe9", 4, "\x03\xe9", 2);
    assert_int_equal(m.opcode, LOAD_OP_CLOSE);
    must_take(LOAD_WEBSOCKET, "\x81\0", 2, "", 0);
    must_take(LOAD_WEBSOCKET, large, sizeof(large), large + 4, 300);
    must_take(LOAD_WEBSOCKET, huge, sizeof(huge), huge + 10, 70000);
}

static void a_piece_of_a_message_is_not_whole(void **state)
{
    assert_int_equal(codec_read(LOAD_WEBSOCKET, (const uint8_t *)"\x01\x02hi", 4, &m), 4);
    assert_false(m.whole);
    assert_int_equal(codec_read(LOAD_WEBSOCKET, (const uint8_t *)"\xc1\x02hi", 4, &m), 4);
    assert_true(m.compressed && m.whole);
}

static void what_a_server_may_not_send_is_told(void **state)
{
    static const char *const wrong[] = {"\x81\x85", "\x91\x01", "\x83\x01",
                                        "\x8b\x01", "\x89\x7e", "\x09\x01"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(codec_read(LOAD_WEBSOCKET, (const uint8_t *)wrong[i], 2, &m), -EPROTO);
    assert_int_equal(codec_read(LOAD_WEBSOCKET, (const uint8_t *)"\x82\x7f\0\0\0\1\0\0\0\0", 10, &m),
                     -EMSGSIZE);
    assert_int_equal(codec_read(LOAD_FRAME, (const uint8_t *)"\0\0\0\3", 4, &m), -EPROTO);
    assert_int_equal(codec_read(LOAD_FRAME, (const uint8_t *)"\x7f\0\0\0", 4, &m), -EMSGSIZE);
}

static void other_protocols_at_every_split(void **state)
{
    must_take(LOAD_TEXT, "hello\n", 6, "hello", 5);
    must_take(LOAD_TEXT, "\n", 1, "", 0);
    must_take(LOAD_FRAME, "\0\0\0\x09hello", 9, "hello", 5);
    must_take(LOAD_FRAME, "\0\0\0\4", 4, "", 0);
    assert_int_equal(codec_read(LOAD_TCP, (const uint8_t *)"abc", 3, &m), 3);
    assert_int_equal(m.len, 3);
    assert_int_equal(codec_read(LOAD_TCP, (const uint8_t *)"abc", 0, &m), 0);
}

static void heads_say_how_long_the_message_is(void **state)
{
    uint8_t head[CODEC_HEAD_MAX], tail[CODEC_TAIL_MAX];
    assert_int_equal(codec_head(LOAD_WEBSOCKET, LOAD_OP_TEXT, 125, key, head), 6);
    assert_memory_equal(head, "\x81\xfd\1\2\3\4", 6);
    assert_int_equal(codec_head(LOAD_WEBSOCKET, LOAD_OP_BINARY, 126, key, head), 8);
    assert_memory_equal(head, "\x82\xfe\0\x7e\1\2\3\4", 8);
    assert_int_equal(codec_head(LOAD_WEBSOCKET, LOAD_OP_BINARY, 65536, key, head), 14);
    assert_memory_equal(head, "\x82\xff\0\0\0\0\0\1\0\0\1\2\3\4", 14);
    assert_int_equal(codec_head(LOAD_FRAME, 0, 5, key, head), 4);
    assert_memory_equal(head, "\0\0\0\x09", 4);
    assert_int_equal(codec_head(LOAD_TEXT, 0, 5, key, head), 0);
    assert_int_equal(codec_tail(LOAD_TEXT, tail), 1);
    assert_int_equal(codec_tail(LOAD_TCP, tail), 0);
}

static void masking_goes_by_four_bytes_at_any_length(void **state)
{
    uint8_t data[40], want[40];
    for (size_t len = 0; len <= sizeof(data); len++) {
        for (size_t i = 0; i < len; i++) {
            data[i] = (uint8_t)(i * 7);
            want[i] = data[i] ^ key[i % 4];
        }
        codec_mask(data, len, key);
        assert_memory_equal(data, want, len);
    }
}

static void answers_to_handshakes(void **state)
{
    static const char good[] = "HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: abc=\r\n\r\nrest";
    static const char bad[] = "HTTP/1.1 403 Forbidden\r\n\r\n";
    size_t head = sizeof(good) - 1 - 4;
    unsigned status = 7;
    for (size_t n = 0; n < head; n++)
        assert_int_equal(codec_answer((const uint8_t *)good, n, "abc=", &status), 0);
    assert_int_equal(codec_answer((const uint8_t *)good, sizeof(good) - 1, "abc=", &status), head);
    assert_int_equal(status, 101);
    codec_answer((const uint8_t *)good, sizeof(good) - 1, "other", &status);
    assert_int_equal(status, 0);
    codec_answer((const uint8_t *)bad, sizeof(bad) - 1, "abc=", &status);
    assert_int_equal(status, 403);
    codec_answer((const uint8_t *)"hello\r\n\r\n", 9, "abc=", &status);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(websocket_frames_at_every_split),
        cmocka_unit_test(a_piece_of_a_message_is_not_whole),
        cmocka_unit_test(what_a_server_may_not_send_is_told),
        cmocka_unit_test(other_protocols_at_every_split),
        cmocka_unit_test(heads_say_how_long_the_message_is),
        cmocka_unit_test(masking_goes_by_four_bytes_at_any_length),
        cmocka_unit_test(answers_to_handshakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
