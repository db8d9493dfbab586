// SPDX-License-Identifier: MIT
#include "proto/ws/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "proto/ws/mask.h"

#define LIMIT 100000

static const struct ws_rules plain = {.message_size_max = LIMIT},
                             deflate = {.message_size_max = LIMIT, .deflate = true};

/* --- Input: what a client sends */

static const uint8_t key[4] = {0x37, 0xFA, 0x21, 0x3D};

/* A frame with any first byte; the length in the form that ws_frame_header_masked picks. */
static void add_frame(struct bytes *in, uint8_t first_byte, const void *payload, size_t len)
{
    uint8_t header[WS_HEADER_MAX];
    size_t n = ws_frame_header_masked(header, WS_OP_TEXT, len, key);
    header[0] = first_byte;
    assert_true(bytes_append(in, header, n));
    assert_true(bytes_append(in, payload, len));
    ws_mask(in->data + in->len - len, len, key, 0);
}

static void add_str(struct bytes *in, uint8_t first_byte, const char *payload)
{
    add_frame(in, first_byte, payload, strlen(payload));
}

/* --- Output: a transcript, in which a message is one line however many pieces it came in, in capitals when
 * it is compressed. */

struct run {
    struct ws_decoder decoder;
    struct bytes log, message;
    struct ws_rules rules;
    bool over; /* a close or an error: nothing more is decoded */
};

static void log_payload(struct run *r, const char *what, const uint8_t *data, size_t len)
{
    bytes_printf(&r->log, "%s[%zu]", what, len);
    bytes_append(&r->log, data, len < 200 ? len : 200);
    bytes_append_str(&r->log, "\n");
}

static void log_data(struct run *r, const struct ws_piece *p)
{
    assert_int_equal(p->first, r->message.len == 0);
    char kind = p->opcode == WS_OP_TEXT ? 't' : 'b';
    if (p->compressed)
        kind = p->opcode == WS_OP_TEXT ? 'T' : 'B';
    if (p->first)
        bytes_append_byte(&r->message, (uint8_t)kind); /* one letter in front */
    assert_int_equal(r->message.data[0], kind);
    bytes_append(&r->message, p->data, p->len);
    assert_true(p->len > 0 || p->last);
    if (!p->last)
        return;
    static const char *const names[] = {['t'] = "text", ['b'] = "binary", ['T'] = "TEXT", ['B'] = "BINARY"};
    log_payload(r, names[r->message.data[0]], r->message.data + 1, r->message.len - 1);
    bytes_clear(&r->message);
}

static void log_event(struct run *r, enum ws_event event, const struct ws_piece *p)
{
    switch (event) {
    case WS_NEED_MORE: break;
    case WS_DATA: log_data(r, p); break;
    case WS_PING: log_payload(r, "ping", p->data, p->len); break;
    case WS_PONG: log_payload(r, "pong", p->data, p->len); break;
    case WS_CLOSE:
        bytes_printf(&r->log, "close %u ", p->code);
        log_payload(r, "", p->data, p->len);
        r->over = true;
        break;
    case WS_ERROR:
        assert_non_null(p->why);
        bytes_printf(&r->log, "error %u\n", p->code);
        r->over = true;
        break;
    }
}

/* The bytes in a block of exactly their size, so that the sanitizer sees a step beyond. */
static void feed(struct run *r, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, data, len);
    for (size_t pos = 0; pos < len && !r->over;) {
        struct ws_piece piece;
        size_t used = SIZE_MAX;
        enum ws_event event = ws_decode(&r->decoder, &r->rules, copy + pos, len - pos, &used, &piece);
        assert_true(used <= len - pos);
        pos += used;
        log_event(r, event, &piece);
        if (event == WS_NEED_MORE)
            assert_int_equal(pos, len);
    }
    free(copy);
}

static void check_log(struct run *r, const char *want)
{
    bytes_append_byte(&r->log, '\0');
    assert_string_equal((char *)r->log.data, want);
    bytes_fini(&r->log);
    bytes_fini(&r->message);
}

/* In one piece, cut in two at every place, and byte by byte. */
static void check_rules(struct bytes *in, const struct ws_rules *rules, const char *want)
{
    for (size_t split = 0; split <= in->len; split += split < 300 || in->len < 2000 ? 1 : 61) {
        struct run r = {.rules = *rules};
        feed(&r, in->data, split);
        feed(&r, in->data + split, in->len - split);
        check_log(&r, want);
    }
    struct run r = {.rules = *rules};
    for (size_t i = 0; i < in->len; i++)
        feed(&r, in->data + i, 1);
    check_log(&r, want);
}

static void check_limit(struct bytes *in, uint64_t limit, const char *want)
{
    check_rules(in, &(struct ws_rules){.message_size_max = limit}, want);
}

static void check(struct bytes *in, const char *want)
{
    check_rules(in, &plain, want);
    bytes_fini(in);
}

static void check_frame(uint8_t first_byte, const char *payload, const char *want)
{
    struct bytes in = {0};
    add_str(&in, first_byte, payload);
    check(&in, want);
}

static void check_raw(const char *data, size_t len, const char *want)
{
    struct bytes in = {0};
    bytes_append(&in, data, len);
    check(&in, want);
}
#define RAW(data, want) check_raw(data, sizeof(data) - 1, want)

/* --- Whole messages */

static void the_example_of_the_rfc(void **state)
{
    RAW("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "text[5]Hello\n");
}

static void text_binary_and_empty_messages(void **state)
{
    check_frame(0x81, "hello", "text[5]hello\n");
    check_frame(0x82, "\xFF\xFE", "binary[2]\xFF\xFE\n");
    check_frame(0x81, "", "text[0]\n");
    check_frame(0x82, "", "binary[0]\n");
}

static void several_messages_in_a_row(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x81, "one");
    add_str(&in, 0x82, "two");
    add_str(&in, 0x81, "");
    add_str(&in, 0x89, "p");
    add_str(&in, 0x81, "\xE4\xB8\xAD");
    check(&in, "text[3]one\nbinary[3]two\ntext[0]\nping[1]p\ntext[3]\xE4\xB8\xAD\n");
}

static void every_length_form(void **state)
{
    static const size_t lengths[] = {0,   1,   15,  16,  17,   124,   125,   126,
                                     127, 255, 256, 511, 1500, 65535, 65536, 70001};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct bytes in = {0}, payload = {0};
        for (size_t k = 0; k < lengths[i]; k++)
            bytes_append_byte(&payload, (uint8_t)('a' + k % 23));
        add_frame(&in, 0x81, payload.data, payload.len);
        char want[300];
        snprintf(want, sizeof want, "text[%zu]%.*s\n", payload.len,
                 payload.len < 200 ? (int)payload.len : 200, payload.len > 0 ? (char *)payload.data : "");
        check(&in, want);
        bytes_fini(&payload);
    }
}

/* --- The header's rules */

static void every_opcode(void **state)
{
    for (unsigned opcode = 0; opcode < 16; opcode++) {
        const char *want = opcode == 1    ? "text[3]\x0d\x0a!\n"
                           : opcode == 2  ? "binary[3]\x0d\x0a!\n"
                           : opcode == 8  ? "close 3338 [1]!\n" /* 0x0d0a */
                           : opcode == 9  ? "ping[3]\x0d\x0a!\n"
                           : opcode == 10 ? "pong[3]\x0d\x0a!\n"
                                          : "error 1002\n";
        check_frame((uint8_t)(0x80 | opcode), "\x0d\x0a!", want);
    }
}

static void every_reserved_bit_with_every_opcode(void **state)
{
    for (unsigned b = 0; b < 256; b++)
        if (b & 0x70)
            check_frame((uint8_t)b, "x", "error 1002\n");
}

/* With permessage-deflate RSV1 stands on the first frame of a text or binary message; RSV2 and RSV3 nowhere.
 */
static void every_reserved_bit_with_every_opcode_and_deflate(void **state)
{
    for (unsigned b = 0; b < 256; b++) {
        struct bytes in = {0};
        bool good = (b & 0x7F) == 0x41 || (b & 0x7F) == 0x42, fin = b & 0x80;
        if ((b & 0x70) == 0)
            continue;
        add_str(&in, (uint8_t)b, "x");
        check_rules(&in, &deflate,
                    !good       ? "error 1002\n"
                    : !fin      ? ""
                    : b == 0xC1 ? "TEXT[1]x\n"
                                : "BINARY[1]x\n");
        bytes_fini(&in);
    }
}

/* Inside a message, which itself is compressed or not. */
static void every_reserved_bit_on_continuations(void **state)
{
    for (unsigned first = 0x01; first <= 0x41; first += 0x40) {
        for (unsigned b = 0; b < 256; b++) {
            struct bytes in = {0};
            const char *want = "error 1002\n";
            if (b == 0x80)
                want = first == 0x01 ? "text[2]ab\n" : "TEXT[2]ab\n";
            else if (b == 0x89)
                want = "ping[1]b\n";
            else if (b == 0x8A)
                want = "pong[1]b\n";
            else if (b == 0x00)
                want = "";
            add_str(&in, (uint8_t)first, "a");
            add_str(&in, (uint8_t)b, "b"); /* a close frame of one byte is an error, too */
            check_rules(&in, &deflate, want);
            bytes_fini(&in);
        }
    }
}

/* Every length form again, where the long way is taken that plain messages do not take. */
static void compressed_messages_of_every_length_form(void **state)
{
    static const size_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, 70001};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct bytes in = {0}, payload = {0};
        for (size_t k = 0; k < lengths[i]; k++)
            bytes_append_byte(&payload, (uint8_t)('a' + k % 23));
        add_frame(&in, i & 1 ? 0xC1 : 0xC2, payload.data, payload.len);
        char want[300];
        snprintf(want, sizeof want, "%s[%zu]%.*s\n", i & 1 ? "TEXT" : "BINARY", payload.len,
                 payload.len < 200 ? (int)payload.len : 200, payload.len > 0 ? (char *)payload.data : "");
        check_rules(&in, &deflate, want);
        bytes_fini(&in);
        bytes_fini(&payload);
    }
    struct bytes in = {0};
    bytes_append(&in, "\xC1\xFE\x00\x7D", 4);
    check_rules(&in, &deflate, "error 1002\n");
    bytes_clear(&in);
    bytes_append(&in, "\xC1\x01x", 3);
    check_rules(&in, &deflate, "error 1002\n");
    bytes_clear(&in);
    bytes_append(&in, "\xC2\xFF\x00\x00\x00\x00\x00\x01\x86\xA1", 10);
    check_rules(&in, &deflate, "error 1009\n");
    bytes_fini(&in);
}

static void compressed_and_plain_messages_by_turns(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x41, "a");
    add_str(&in, 0x89, "p");
    add_str(&in, 0x00, "");
    add_str(&in, 0x80, "b");
    add_str(&in, 0x81, "c");
    add_str(&in, 0xC2, "d");
    add_str(&in, 0x01, "e");
    add_str(&in, 0x80, "f");
    add_str(&in, 0x42, "");
    add_str(&in, 0x80, "");
    add_str(&in, 0x82, "g");
    check_rules(&in, &deflate,
                "ping[1]p\nTEXT[2]ab\ntext[1]c\nBINARY[1]d\ntext[2]ef\nBINARY[0]\nbinary[1]g\n");
    bytes_fini(&in);
}

/* What is compressed is no text yet; what is not, is checked also on a connection with deflate. */
static void compressed_text_is_not_checked(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0xC1, "\xFF\xC3");
    add_str(&in, 0x41, "\x80");
    add_str(&in, 0x80, "\xE4");
    add_str(&in, 0x81, "\xC3\xBC");
    add_str(&in, 0x81, "\xC3");
    check_rules(&in, &deflate, "TEXT[2]\xFF\xC3\nTEXT[2]\x80\xE4\ntext[2]\xC3\xBC\nerror 1007\n");
    bytes_clear(&in);
    add_str(&in, 0x41, "a");
    add_str(&in, 0x80, "b");
    add_str(&in, 0x01, "\xC3");
    add_str(&in, 0x80, "c");
    check_rules(&in, &deflate, "TEXT[2]ab\nerror 1007\n");
    bytes_fini(&in);
}

/* The first byte alone tells. */
static void a_bad_first_byte_is_not_waited_on(void **state)
{
    RAW("\xC1", "error 1002\n");
    RAW("\x83", "error 1002\n");
    RAW("\x8B", "error 1002\n");
    RAW("\x80", "error 1002\n");
    RAW("\x00", "error 1002\n");
    RAW("\x09", "error 1002\n");
}

static void unmasked_frames_are_refused(void **state)
{
    RAW("\x81\x05Hello", "error 1002\n");
    RAW("\x82\x00", "error 1002\n");
    RAW("\x88\x00", "error 1002\n");
    RAW("\x81\x7E", "error 1002\n");
}

static void control_frames_are_short_and_whole(void **state)
{
    char payload[WS_CONTROL_MAX + 2], want[200];
    memset(payload, 'p', sizeof payload);
    payload[WS_CONTROL_MAX] = '\0';
    snprintf(want, sizeof want, "ping[125]%s\n", payload);
    check_frame(0x89, payload, want);
    check_frame(0x8A, "", "pong[0]\n");
    RAW("\x89\xFE", "error 1002\n");
    RAW("\x8A\xFF", "error 1002\n");
    RAW("\x88\xFE", "error 1002\n");
    RAW("\x08", "error 1002\n");
    RAW("\x09\x80", "error 1002\n");
}

static void lengths_have_their_shortest_form(void **state)
{
    RAW("\x81\xFE\x00\x7D", "error 1002\n");
    RAW("\x82\xFE\x00\x00\x01\x02\x03\x04", "error 1002\n");
    RAW("\x81\xFF\x00\x00\x00\x00\x00\x00\xFF\xFF", "error 1002\n");
    RAW("\x81\xFF\x00\x00\x00\x00\x00\x00\x00\x01\x01\x02\x03\x04x", "error 1002\n");
}

static void the_top_bit_of_a_length_is_zero(void **state)
{
    RAW("\x82\xFF\x80", "error 1002\n");
    RAW("\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", "error 1002\n");
}

/* --- The limit */

static void too_big_is_said_by_the_header(void **state)
{
    RAW("\x82\xFF\x00\x00\x00\x00\x00\x01\x86\xA1", "error 1009\n"); /* 100001, before key and payload */
    RAW("\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", "error 1009\n");
    struct bytes in = {0};
    add_str(&in, 0x81, "12345");
    check_limit(&in, 5, "text[5]12345\n");
    check_limit(&in, 4, "error 1009\n");
    check_limit(&in, 0, "error 1009\n");
    bytes_fini(&in);
}

static void fragments_count_together(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x01, "1234");
    add_str(&in, 0x89, "a ping is not counted");
    add_str(&in, 0x00, "56");
    add_str(&in, 0x80, "78");
    add_str(&in, 0x81, "the next");
    check_limit(&in, 8, "ping[21]a ping is not counted\ntext[8]12345678\ntext[8]the next\n");
    check_limit(&in, 7, "ping[21]a ping is not counted\nerror 1009\n");
    bytes_fini(&in);
    /* Nor does a sum near the end of the range. */
    add_str(&in, 0x01, "1234");
    bytes_append(&in, "\x80\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 10);
    check_limit(&in, UINT64_MAX >> 1, "error 1009\n");
    bytes_fini(&in);
}

/* As after a change of the configuration. */
static void the_limit_may_shrink_within_a_message(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x01, "12345678");
    struct run r = {.rules = {.message_size_max = 10}};
    feed(&r, in.data, in.len);
    assert_false(r.over);
    bytes_clear(&in);
    add_str(&in, 0x80, "9");
    r.rules.message_size_max = 5;
    feed(&r, in.data, in.len);
    check_log(&r, "error 1009\n");
    bytes_fini(&in);
}

static void frames_of_a_message_have_a_limit(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x01, "");
    add_str(&in, 0x00, "");
    add_str(&in, 0x89, "");
    add_str(&in, 0x80, "x");
    add_str(&in, 0x02, "y");
    add_str(&in, 0x00, "");
    add_str(&in, 0x80, "");
    struct ws_rules rules = {.message_size_max = LIMIT, .fragments_max = 3};
    check_rules(&in, &rules, "ping[0]\ntext[1]x\nbinary[1]y\n");
    rules.fragments_max = 2;
    check_rules(&in, &rules, "ping[0]\nerror 1008\n");
    rules.fragments_max = 1;
    check_rules(&in, &rules, "error 1008\n");
    rules.fragments_max = 0;
    check_rules(&in, &rules, "ping[0]\ntext[1]x\nbinary[1]y\n");
    rules = (struct ws_rules){.message_size_max = LIMIT, .fragments_max = 2, .deflate = true};
    in.data[0] |= 0x40;
    check_rules(&in, &rules, "ping[0]\nerror 1008\n");
    bytes_fini(&in);
}

static void one_frame_messages_pass_any_limit_of_frames(void **state)
{
    struct bytes in = {0};
    for (int i = 0; i < 5; i++)
        add_str(&in, 0x81, "m");
    check_rules(&in, &(struct ws_rules){.message_size_max = LIMIT, .fragments_max = 1},
                "text[1]m\ntext[1]m\ntext[1]m\ntext[1]m\ntext[1]m\n");
    bytes_fini(&in);
}

/* One frame too many is known by its first byte, before whatever else is wrong with it; an error of the
 * framing goes first. */
static void the_frame_too_many_is_said_by_its_first_byte(void **state)
{
    struct ws_rules rules = {.message_size_max = 2, .fragments_max = 1};
    struct bytes in = {0};
    add_str(&in, 0x01, "ab");
    bytes_append_byte(&in, 0x80);
    check_rules(&in, &rules, "error 1008\n");
    bytes_append_byte(&in, 0x05); /* no mask, and too big */
    check_rules(&in, &rules, "error 1008\n");
    in.data[in.len - 2] = 0xA0;
    check_rules(&in, &rules, "error 1002\n");
    in.data[in.len - 2] = 0x81;
    check_rules(&in, &rules, "error 1002\n");
    bytes_fini(&in);
}

/* --- Fragmentation */

static void fragments_make_one_message(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x01, "Hel");
    add_str(&in, 0x00, "");
    add_str(&in, 0x00, "lo ");
    add_str(&in, 0x80, "world");
    add_str(&in, 0x02, "");
    add_str(&in, 0x80, "");
    add_str(&in, 0x81, "next");
    check(&in, "text[11]Hello world\nbinary[0]\ntext[4]next\n");
}

static void control_frames_between_fragments(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x01, "Hel");
    add_str(&in, 0x89, "ping");
    add_str(&in, 0x00, "lo");
    add_str(&in, 0x8A, "");
    add_str(&in, 0x89, "");
    add_str(&in, 0x80, "!");
    check(&in, "ping[4]ping\npong[0]\nping[0]\ntext[6]Hello!\n");
}

static void a_close_between_fragments(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x02, "Hel");
    add_str(&in, 0x88,
            "\x03\xE8"
            "bye");
    add_str(&in, 0x80, "lo");
    check(&in, "close 1000 [3]bye\n");
}

static void fragments_out_of_order(void **state)
{
    check_frame(0x80, "continuation of nothing", "error 1002\n");
    check_frame(0x00, "continuation of nothing", "error 1002\n");
    for (int second = 0x01; second <= 0x82; second = second == 0x02 ? 0x81 : second + 1) {
        struct bytes in = {0};
        add_str(&in, 0x01, "first");
        add_str(&in, (uint8_t)second, "second");
        check(&in, "error 1002\n");
    }
    struct bytes in = {0};
    add_str(&in, 0x81, "whole");
    add_str(&in, 0x80, "and more");
    check(&in, "text[5]whole\nerror 1002\n");
}

/* --- Close */

static void every_close_code(void **state)
{
    for (unsigned code = 0; code < 65536; code += code < 5100 || code > 65500 ? 1 : 97) {
        bool ok = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                  (code >= 3000 && code <= 4999);
        struct bytes in = {0};
        const uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
        char want[40];
        snprintf(want, sizeof want, ok ? "close %u [0]\n" : "error 1002\n", code);
        add_frame(&in, 0x88, payload, 2);
        check(&in, want);
    }
}

static void close_payloads(void **state)
{
    check_frame(0x88, "", "close 1005 [0]\n");
    check_frame(0x88, "\x03", "error 1002\n");
    check_frame(0x88, "\x03\xE9gr\xC3\xBC\xC3\x9F", "close 1001 [6]gr\xC3\xBC\xC3\x9F\n");
    check_frame(0x88, "\x03\xE8\xC3", "error 1007\n");
    check_frame(0x88, "\x03\xE8\xED\xA0\x80", "error 1007\n");
    char payload[126] = "\x0F\xA0", want[160];
    memset(payload + 2, 'r', 123);
    snprintf(want, sizeof want, "close 4000 [123]%s\n", payload + 2);
    check_frame(0x88, payload, want);
}

/* --- UTF-8 */

static void text_has_to_be_utf8(void **state)
{
    check_frame(0x81, "gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80", "text[11]gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80\n");
    check_frame(0x81, "\xC3", "error 1007\n"); /* cut */
    check_frame(0x81, "abc\x80", "error 1007\n");
    check_frame(0x81, "\xC0\x80", "error 1007\n");
    check_frame(0x81, "\xED\xA0\x80", "error 1007\n");
    check_frame(0x81, "\xF4\x90\x80\x80", "error 1007\n");
    check_frame(0x82, "\xF4\x90\x80\x80", "binary[4]\xF4\x90\x80\x80\n");
}

static void characters_may_be_cut_by_fragments(void **state)
{
    static const char text[] = "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xF0\x9F\x98\x80";
    for (size_t cut = 0; cut < sizeof text; cut++) {
        struct bytes in = {0};
        add_frame(&in, 0x01, text, cut);
        add_str(&in, 0x89, "\xFF"); /* a ping's bytes are no part of the text */
        add_frame(&in, 0x80, text + cut, sizeof text - 1 - cut);
        add_str(&in, 0x81, "ok");
        check(&in, "ping[1]\xFF\ntext[11]\xCE\xBA\xE1\xBD\xB9\xCF\x83\xF0\x9F\x98\x80\ntext[2]ok\n");
    }
}

static void a_message_may_not_end_inside_a_character(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x01, "\xE4\xB8");
    add_str(&in, 0x80, "");
    check(&in, "error 1007\n");
    add_str(&in, 0x01, "\xE4\xB8");
    add_str(&in, 0x00, "a");
    check(&in, "error 1007\n");
}

/* What the message before left behind has no say in the next. */
static void the_state_starts_anew_with_each_message(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x02, "\xE4\xB8");
    add_str(&in, 0x80, "");
    add_str(&in, 0x01, "a");
    add_str(&in, 0x80, "b");
    check(&in, "binary[2]\xE4\xB8\ntext[2]ab\n");
}

/* Autobahn 6.4: the error comes with the bad byte, before the frame or even the message is whole. */
static void bad_text_is_said_at_its_first_bad_byte(void **state)
{
    static const char text[] = "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80 edited";
    struct bytes in = {0};
    add_frame(&in, 0x81, text, sizeof text - 1);
    for (size_t n = 0; n < in.len; n++) {
        struct run r = {.rules = plain};
        feed(&r, in.data, n);
        assert_int_equal(r.over, n >= 6 + 13);
        assert_int_equal(r.log.len, r.over ? strlen("error 1007\n") : 0);
        bytes_fini(&r.log);
        bytes_fini(&r.message);
    }
    bytes_fini(&in);
}

static void long_text_is_checked_in_parts(void **state)
{
    static char text[30000];
    for (size_t at = 8180; at < 8200; at++) {
        struct bytes in = {0};
        memset(text, 'a', sizeof text);
        memcpy(text + at, "\xF0\x9F\x98\x80", 4);
        add_frame(&in, 0x01, text, sizeof text);
        add_str(&in, 0x80, "end");
        struct run good = {.rules = plain};
        feed(&good, in.data, in.len);
        assert_memory_equal(good.log.data, "text[30003]", 11);
        bytes_fini(&good.log);
        bytes_fini(&good.message);
        in.data[8 + at + 3] ^= 0x40; /* not a continuation any more */
        struct run bad = {.rules = plain};
        feed(&bad, in.data, in.len);
        check_log(&bad, "error 1007\n");
        bytes_fini(&in);
    }
}

/* --- The decoder's memory */

/* The shard gives a decoder whose control bytes are not zero. */
static void a_decoder_starts_with_any_control_bytes(void **state)
{
    struct bytes in = {0};
    struct run r = {.rules = deflate};
    memset(&r.decoder, 0xA5, sizeof r.decoder);
    ws_decoder_init(&r.decoder);
    assert_true(ws_decoder_idle(&r.decoder));
    add_str(&in, 0x41, "a");
    add_str(&in, 0x89, "ping");
    add_str(&in, 0x80, "b");
    for (size_t i = 0; i < in.len; i++)
        feed(&r, in.data + i, 1);
    check_log(&r, "ping[4]ping\nTEXT[2]ab\n");
    bytes_fini(&in);
}

static void in_a_message_from_its_first_header_to_its_end(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x41, "Hel");
    size_t first = in.len;
    add_str(&in, 0x89, "ping");
    add_str(&in, 0x80, "lo");
    struct run r = {.rules = deflate};
    for (size_t i = 0; i < in.len; i++) {
        assert_int_equal(ws_decoder_in_message(&r.decoder), i >= 6);
        feed(&r, in.data + i, 1);
        assert_int_equal(ws_decoder_idle(&r.decoder), i + 1 == in.len);
    }
    assert_true(first > 6);
    assert_false(ws_decoder_in_message(&r.decoder));
    check_log(&r, "ping[4]ping\nTEXT[5]Hello\n");
    bytes_fini(&in);
}

static void idle_between_messages_only(void **state)
{
    struct bytes in = {0};
    size_t ends[4];
    add_str(&in, 0x81, "whole");
    ends[0] = in.len;
    add_str(&in, 0x89, "ping");
    ends[1] = in.len;
    add_str(&in, 0x01, "Hel");
    add_str(&in, 0x89, "ping");
    add_str(&in, 0x80, "lo");
    ends[2] = in.len;
    add_str(&in, 0x82, "");
    ends[3] = in.len;
    struct run r = {.rules = plain};
    for (size_t i = 0, next = 0; i < in.len; i++) {
        assert_int_equal(ws_decoder_idle(&r.decoder), i == 0 || (next > 0 && i == ends[next - 1]));
        feed(&r, in.data + i, 1);
        if (i + 1 == ends[next]) {
            assert_true(ws_decoder_idle(&r.decoder));
            memset(&r.decoder, 0xA5, sizeof r.decoder);
            r.decoder = (struct ws_decoder){0};
            next++;
        }
    }
    check_log(&r, "text[5]whole\nping[4]ping\nping[4]ping\ntext[5]Hello\nbinary[0]\n");
    bytes_fini(&in);
}

static void whole_messages_leave_the_decoder_alone(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x81, "whole");
    struct run r = {.rules = plain};
    static const struct ws_decoder zero;
    feed(&r, in.data, in.len);
    assert_memory_equal(&r.decoder, &zero, sizeof zero);
    check_log(&r, "text[5]whole\n");
    bytes_fini(&in);
}

static void pieces_point_into_the_input(void **state)
{
    struct bytes in = {0};
    add_str(&in, 0x81, "abc");
    struct ws_decoder d = {0};
    struct ws_piece p;
    size_t used;
    assert_int_equal(ws_decode(&d, &plain, in.data, in.len, &used, &p), WS_DATA);
    assert_ptr_equal(p.data, in.data + 6);
    assert_int_equal(used, in.len);
    bytes_fini(&in);
}

/* --- The encoder */

static void server_headers(void **state)
{
    uint8_t h[WS_OUT_HEADER_MAX];
    assert_int_equal(ws_frame_header(h, WS_OP_TEXT, 0), 2);
    assert_memory_equal(h, "\x81\x00", 2);
    assert_int_equal(ws_frame_header(h, WS_OP_BINARY, 125), 2);
    assert_memory_equal(h, "\x82\x7D", 2);
    assert_int_equal(ws_frame_header(h, WS_OP_TEXT, 126), 4);
    assert_memory_equal(h, "\x81\x7E\x00\x7E", 4);
    assert_int_equal(ws_frame_header(h, WS_OP_PONG, 65535), 4);
    assert_memory_equal(h, "\x8A\x7E\xFF\xFF", 4);
    assert_int_equal(ws_frame_header(h, WS_OP_TEXT, 65536), 10);
    assert_memory_equal(h, "\x81\x7F\x00\x00\x00\x00\x00\x01\x00\x00", 10);
    assert_int_equal(ws_frame_header(h, WS_OP_TEXT | WS_OP_COMPRESSED, 5), 2);
    assert_memory_equal(h, "\xC1\x05", 2);
    assert_int_equal(ws_frame_header(h, WS_OP_BINARY | WS_OP_COMPRESSED, 256), 4);
    assert_memory_equal(h, "\xC2\x7E\x01\x00", 4);
}

static void close_frames(void **state)
{
    uint8_t f[WS_CLOSE_MAX];
    assert_int_equal(ws_close_frame(f, WS_CLOSE_NONE, "not sent"), 2);
    assert_memory_equal(f, "\x88\x00", 2);
    assert_int_equal(ws_close_frame(f, 1000, NULL), 4);
    assert_memory_equal(f, "\x88\x02\x03\xE8", 4);
    assert_int_equal(ws_close_frame(f, 1009, "big"), 7);
    assert_memory_equal(f,
                        "\x88\x05\x03\xF1"
                        "big",
                        7);
}

static void a_long_close_reason_is_cut_between_characters(void **state)
{
    char reason[200];
    uint8_t f[WS_CLOSE_MAX];
    memset(reason, 'r', sizeof reason);
    reason[150] = '\0';
    assert_int_equal(ws_close_frame(f, 1001, reason), WS_CLOSE_MAX);
    assert_int_equal(f[1], 125);
    memcpy(reason + 121, "\xE4\xB8\xAD", 3); /* bytes 121 to 123 of 123 */
    assert_int_equal(ws_close_frame(f, 1001, reason), 4 + 121);
    memcpy(reason + 120,
           "\xE4\xB8\xAD"
           "r",
           4);
    assert_int_equal(ws_close_frame(f, 1001, reason), WS_CLOSE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_rfc),
        cmocka_unit_test(text_binary_and_empty_messages),
        cmocka_unit_test(several_messages_in_a_row),
        cmocka_unit_test(every_length_form),
        cmocka_unit_test(every_opcode),
        cmocka_unit_test(every_reserved_bit_with_every_opcode),
        cmocka_unit_test(every_reserved_bit_with_every_opcode_and_deflate),
        cmocka_unit_test(every_reserved_bit_on_continuations),
        cmocka_unit_test(compressed_messages_of_every_length_form),
        cmocka_unit_test(compressed_and_plain_messages_by_turns),
        cmocka_unit_test(compressed_text_is_not_checked),
        cmocka_unit_test(a_bad_first_byte_is_not_waited_on),
        cmocka_unit_test(unmasked_frames_are_refused),
        cmocka_unit_test(control_frames_are_short_and_whole),
        cmocka_unit_test(lengths_have_their_shortest_form),
        cmocka_unit_test(the_top_bit_of_a_length_is_zero),
        cmocka_unit_test(too_big_is_said_by_the_header),
        cmocka_unit_test(fragments_count_together),
        cmocka_unit_test(the_limit_may_shrink_within_a_message),
        cmocka_unit_test(frames_of_a_message_have_a_limit),
        cmocka_unit_test(one_frame_messages_pass_any_limit_of_frames),
        cmocka_unit_test(the_frame_too_many_is_said_by_its_first_byte),
        cmocka_unit_test(fragments_make_one_message),
        cmocka_unit_test(control_frames_between_fragments),
        cmocka_unit_test(a_close_between_fragments),
        cmocka_unit_test(fragments_out_of_order),
        cmocka_unit_test(every_close_code),
        cmocka_unit_test(close_payloads),
        cmocka_unit_test(text_has_to_be_utf8),
        cmocka_unit_test(characters_may_be_cut_by_fragments),
        cmocka_unit_test(a_message_may_not_end_inside_a_character),
        cmocka_unit_test(the_state_starts_anew_with_each_message),
        cmocka_unit_test(bad_text_is_said_at_its_first_bad_byte),
        cmocka_unit_test(long_text_is_checked_in_parts),
        cmocka_unit_test(a_decoder_starts_with_any_control_bytes),
        cmocka_unit_test(in_a_message_from_its_first_header_to_its_end),
        cmocka_unit_test(idle_between_messages_only),
        cmocka_unit_test(whole_messages_leave_the_decoder_alone),
        cmocka_unit_test(pieces_point_into_the_input),
        cmocka_unit_test(server_headers),
        cmocka_unit_test(close_frames),
        cmocka_unit_test(a_long_close_reason_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
