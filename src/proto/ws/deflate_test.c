// SPDX-License-Identifier: MIT
/* The codec. Negotiation: deflate_offer_test.c. */
#include "proto/ws/deflate.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <zlib.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* --- Help */

static void add_hex(struct bytes *b, const char *hex)
{
    for (; *hex != '\0'; hex += hex[2] == ' ' ? 3 : 2) {
        char digits[3] = {hex[0], hex[1], '\0'};
        assert_true(bytes_append_byte(b, (uint8_t)strtoul(digits, NULL, 16)));
    }
}

static void check_bytes(const struct bytes *got, const void *want, size_t len)
{
    assert_int_equal(got->len, len);
    if (len > 0)
        assert_memory_equal(got->data, want, len);
}

/* In and expected out of one message. */
static void check_inflate(struct ws_inflater *i, bool fresh, const char *hex, const char *want)
{
    struct bytes in = {0}, out = {0};
    add_hex(&in, hex);
    assert_int_equal(ws_inflate(i, fresh, in.data, in.len, 1000, &out), 0);
    check_bytes(&out, want, strlen(want));
    bytes_fini(&in);
    bytes_fini(&out);
}

static void check_deflate(struct ws_deflater *d, bool fresh, const char *message, const char *hex)
{
    struct bytes want = {0}, out = {0};
    add_hex(&want, hex);
    assert_true(ws_deflate(d, fresh, message, strlen(message), &out));
    check_bytes(&out, want.data, want.len);
    bytes_fini(&want);
    bytes_fini(&out);
}

static uint32_t random_state = 1;

static uint32_t next_random(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

/* Text with much in it that comes again, from near and far. */
static void add_text(struct bytes *b, size_t len)
{
    static const char *const words[] = {"{\"type\":", "\"say\",",     "\"client\":", "hello",
                                        " ",          "\"content\":", "}\n"};
    size_t end = b->len + len;
    while (b->len < end) {
        if (next_random() % 4 == 0)
            bytes_printf(b, "%u", next_random());
        else
            bytes_append_str(b, words[next_random() % COUNT(words)]);
    }
    b->len = end;
}

static void add_noise(struct bytes *b, size_t len)
{
    while (len-- > 0)
        bytes_append_byte(b, (uint8_t)next_random());
}

/* The client's half, apart from the code under test: a window of exactly its bits, and output a byte at a
 * time, so that nothing is found but by that window. */
struct peer {
    z_stream z;
};

static void peer_init(struct peer *p, unsigned window_bits)
{
    *p = (struct peer){0};
    assert_int_equal(inflateInit2(&p->z, -(int)window_bits), Z_OK);
}

static void peer_part(struct peer *p, const uint8_t *data, size_t len, struct bytes *out)
{
    p->z.next_in = (uint8_t *)data;
    p->z.avail_in = (unsigned)len;
    do {
        uint8_t c;
        p->z.next_out = &c;
        p->z.avail_out = 1;
        int rc = inflate(&p->z, Z_SYNC_FLUSH);
        assert_true(rc == Z_OK || rc == Z_BUF_ERROR);
        if (p->z.avail_out == 0)
            bytes_append_byte(out, c);
    } while (p->z.avail_in > 0 || p->z.avail_out == 0);
}

static void check_peer(struct peer *p, const struct bytes *wire, const struct bytes *want)
{
    struct bytes out = {0};
    peer_part(p, wire->data, wire->len, &out);
    peer_part(p, (const uint8_t *)"\x00\x00\xFF\xFF", 4, &out);
    check_bytes(&out, want->data, want->len);
    bytes_fini(&out);
}

/* --- Section 7.2.3, byte for byte */

static void the_examples_of_the_rfc_are_read(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    check_inflate(i, false, "f2 48 cd c9 c9 07 00", "Hello");                   /* 7.2.3.1 */
    check_inflate(i, false, "f2 00 11 00 00", "Hello");                         /* 7.2.3.2 */
    check_inflate(i, false, "00 05 00 fa ff 48 65 6c 6c 6f 00", "Hello");       /* 7.2.3.3 */
    check_inflate(i, false, "f3 48 cd c9 c9 07 00 00", "Hello");                /* 7.2.3.4 */
    check_inflate(i, false, "f2 48 05 00 00 00 ff ff ca c9 c9 07 00", "Hello"); /* 7.2.3.5 */
    check_inflate(i, false, "00", "");                                          /* 7.2.3.6 */
    check_inflate(i, false, "f2 00 11 00 00", "Hello"); /* the empty message has changed nothing */
    ws_inflater_free(i);
}

static void the_examples_of_the_rfc_are_written(void **state)
{
    for (unsigned level = 1; level <= 9; level++) {
        struct ws_deflater *d = ws_deflater_new(15, level, 8);
        check_deflate(d, false, "Hello", "f2 48 cd c9 c9 07 00");
        check_deflate(d, false, "Hello", "f2 00 11 00 00");
        check_deflate(d, true, "Hello", "f2 48 cd c9 c9 07 00");
        check_deflate(d, false, "", "00");
        check_deflate(d, true, "", "00");
        check_deflate(d, false, "Hello", "f2 00 11 00 00");
        check_deflate(d, true, "", "00");
        ws_deflater_free(d);
    }
}

/* Made by Python's zlib module: three messages with take-over, by windows and strategies that are not ours.
 */
static void conversations_of_other_compressors(void **state)
{
    static const char *const text[] = {"{\"type\":\"say\",\"client\":17,\"text\":\"hello\"}",
                                       "{\"type\":\"say\",\"client\":17,\"text\":\"hello again\"}",
                                       "{\"type\":\"pong\"}"};
    static const struct {
        unsigned window_bits;
        const char *hex[3];
    } talks[] = {
        {9,
         {"aa562aa92c4855b2522a4eac54d2514acec94ccd2b51b23234d7512a49ad00b29432527372f2956a0100",
          "aa264ea142627a62669e522d00", "822b2fc8cf4b57aa0500"}},
        {15,
         {"aa562aa92c4855b2522a4eac54d2514acec94ccd2b51b23234d7512a49ad2851b252ca48cdc9c957aa0500",
          "aa264ea142627a62669e522d00", "822b2fc8cf4b57aa0500"}},
        {12,
         {"002900d6ff7b2274797065223a22736179222c22636c69656e74223a31372c2274657874223a2268656c6c6f227d00",
          "002f00d0ff7b2274797065223a22736179222c22636c69656e74223a31372c2274657874223a2268656c6c6f206167"
          "61696e227d00",
          "000f00f0ff7b2274797065223a22706f6e67227d00"}},
    };
    for (size_t t = 0; t < COUNT(talks); t++) {
        struct ws_inflater *i = ws_inflater_new(talks[t].window_bits);
        for (size_t k = 0; k < 3; k++)
            check_inflate(i, k == 0, talks[t].hex[k], text[k]);
        ws_inflater_free(i);
    }
}

/* --- There and back */

/* len of each message; what is fresh is drawn. */
static void talk(unsigned window_bits, unsigned level, unsigned mem_level, const size_t *lens, size_t n,
                 unsigned fresh_in_4)
{
    struct ws_deflater *d = ws_deflater_new(window_bits, level, mem_level);
    struct ws_inflater *i = ws_inflater_new(window_bits), *forgetful = ws_inflater_new(window_bits);
    struct peer peer;
    peer_init(&peer, window_bits);
    for (size_t k = 0; k < n; k++) {
        struct bytes in = {0}, wire = {0}, out = {0};
        bool fresh = next_random() % 4 < fresh_in_4;
        if (next_random() % 8 == 0)
            add_noise(&in, lens[k]);
        else
            add_text(&in, lens[k]);
        assert_true(ws_deflate(d, fresh, in.data, in.len, &wire));
        check_peer(&peer, &wire, &in);
        assert_int_equal(ws_inflate(i, false, wire.data, wire.len, in.len, &out), 0);
        check_bytes(&out, in.data, in.len);
        if (fresh) { /* refers to nothing before it */
            bytes_clear(&out);
            assert_int_equal(ws_inflate(forgetful, true, wire.data, wire.len, in.len, &out), 0);
            check_bytes(&out, in.data, in.len);
        }
        bytes_fini(&in);
        bytes_fini(&wire);
        bytes_fini(&out);
    }
    inflateEnd(&peer.z);
    ws_deflater_free(d);
    ws_inflater_free(i);
    ws_inflater_free(forgetful);
}

static void every_window_level_and_memory_level(void **state)
{
    static const size_t lens[] = {0, 5, 64, 600, 0, 64, 2000};
    for (unsigned bits = 9; bits <= 15; bits++)
        for (unsigned level = 1; level <= 9; level++)
            for (unsigned mem_level = 1; mem_level <= 9; mem_level++)
                talk(bits, level, mem_level, lens, COUNT(lens), 1);
}

/* A peer with take-over reads messages of one deflater that are fresh or not in any order, also when they are
 * longer than the window. */
static void fresh_and_other_messages_in_any_order(void **state)
{
    size_t lens[40];
    for (unsigned bits = 9; bits <= 15; bits++) {
        for (unsigned fresh_in_4 = 0; fresh_in_4 <= 4; fresh_in_4++) {
            for (size_t k = 0; k < COUNT(lens); k++)
                lens[k] = next_random() % (k % 10 == 0 ? 100000 : k % 3 == 0 ? 3000 : 100);
            talk(bits, 1 + next_random() % 9, 1 + next_random() % 9, lens, COUNT(lens), fresh_in_4);
        }
    }
}

/* All patterns of 6 messages, so that each order of fresh, other and empty ones stands somewhere. */
static void every_pattern_of_fresh_and_empty_messages(void **state)
{
    static const char *const text[] = {"one two three", "two three four", "", "one two three", "",
                                       "four one two"};
    for (unsigned fresh = 0; fresh < 64; fresh++) {
        struct ws_deflater *d = ws_deflater_new(9, 6, 5);
        struct peer peer;
        peer_init(&peer, 9);
        for (unsigned k = 0; k < COUNT(text); k++) {
            struct bytes in = {(uint8_t *)text[k], strlen(text[k]), 0, false}, wire = {0};
            assert_true(ws_deflate(d, fresh >> k & 1, in.data, in.len, &wire));
            check_peer(&peer, &wire, &in);
            bytes_fini(&wire);
        }
        inflateEnd(&peer.z);
        ws_deflater_free(d);
    }
}

/* A fan-out's message, compressed by a deflater that many clients share, among those of a client's own. */
static void a_message_of_another_deflater_in_between(void **state)
{
    for (int then_fresh = 0; then_fresh < 2; then_fresh++) {
        struct ws_deflater *own = ws_deflater_new(15, 6, 8), *shared = ws_deflater_new(15, 6, 5);
        struct ws_inflater *i = ws_inflater_new(15);
        struct bytes wire = {0}, out = {0};
        static const char private[] = "to you alone: 4711", all_of_you[] = "to everybody: 0815, 0815";
        for (int k = 0; k < 3; k++) {
            bool mine = k != 1;
            const char *message = mine ? private : all_of_you;
            bytes_clear(&wire);
            bytes_clear(&out);
            assert_true(ws_deflate(mine ? own : shared, !mine || (k == 2 && then_fresh), message,
                                   strlen(message), &wire));
            int rc = ws_inflate(i, false, wire.data, wire.len, 1000, &out);
            bool same = rc == 0 && out.len == strlen(message) && memcmp(out.data, message, out.len) == 0;
            assert_int_equal(same, k < 2 || then_fresh); /* without: the peer reads something else */
        }
        bytes_fini(&wire);
        bytes_fini(&out);
        ws_deflater_free(own);
        ws_deflater_free(shared);
        ws_inflater_free(i);
    }
}

static void long_messages(void **state)
{
    static const size_t lens[] = {3000000, 1, 700000, 65536, 65535, 4096, 4095};
    talk(15, 1, 8, lens, COUNT(lens), 1);
    talk(9, 6, 1, lens, COUNT(lens), 2);
}

static void output_is_appended(void **state)
{
    struct ws_deflater *d = ws_deflater_new(15, 1, 8);
    struct ws_inflater *i = ws_inflater_new(15);
    struct bytes wire = {0}, out = {0};
    bytes_append_str(&wire, "ab");
    bytes_append_str(&out, "cd");
    assert_true(ws_deflate(d, true, "Hello", 5, &wire));
    check_bytes(&wire, "ab\xf2\x48\xcd\xc9\xc9\x07\x00", 9);
    assert_int_equal(ws_inflate(i, true, wire.data + 2, wire.len - 2, 5, &out), 0);
    check_bytes(&out, "cdHello", 7);
    bytes_fini(&wire);
    bytes_fini(&out);
    ws_deflater_free(d);
    ws_inflater_free(i);
}

/* --- BFINAL (section 7.2.3.4) and what is almost right */

static void last_blocks_of_a_stream(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    check_inflate(i, false, "f3 48 cd c9 c9 07 00", "Hello"); /* the 00 behind it forgotten */
    check_inflate(i, false, "f2 48 cd c9 c9 07 00", "Hello");
    check_inflate(i, false, "f3 48 cd c9 c9 07 00 f2 48 cd c9 c9 07 00", "HelloHello"); /* a stream follows */
    check_inflate(i, false, "f3 48 cd c9 c9 07 00 f3 48 cd c9 c9 07 00", "HelloHello");
    check_inflate(i, false, "01 00 00 ff ff", "");
    check_inflate(i, false, "03 00 03 00 03 00 00", "");
    check_inflate(i, false, "01 05 00 fa ff 48 65 6c 6c 6f 00", "Hello");
    struct bytes in = {0}, out = {0};
    add_hex(&in, "f3 48 cd c9 c9 07 00");
    for (size_t max = 0; max <= 6; max++) { /* also when the room ends with the message */
        int rc = ws_inflate(i, false, in.data, in.len, max, &out);
        assert_int_equal(rc, max < 5 ? -EMSGSIZE : 0);
        assert_int_equal(out.len, max < 5 ? 0 : 5 * (max - 4));
        if (rc != 0)
            check_inflate(i, true, "f2 48 cd c9 c9 07 00", "Hello");
    }
    bytes_clear(&in);
    bytes_clear(&out);
    add_hex(&in, "f2 00 11 00 00"); /* refers to what was before the end of the stream */
    assert_int_equal(ws_inflate(i, false, in.data, in.len, 100, &out), -EBADMSG);
    bytes_fini(&in);
    bytes_fini(&out);
    ws_inflater_free(i);
}

/* The room for the output ends everywhere, also within the last match of a stream whose input has all been
 * read. */
static void last_blocks_that_outgrow_their_room(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    for (unsigned len = 1; len < 2100; len++) {
        static const uint8_t zeros[2100];
        uint8_t wire[200];
        z_stream z = {
            .next_in = (uint8_t *)zeros, .avail_in = len, .next_out = wire, .avail_out = sizeof wire};
        assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        deflateEnd(&z);
        struct bytes out = {0};
        assert_int_equal(ws_inflate(i, false, wire, z.total_out, len, &out), 0);
        check_bytes(&out, zeros, len);
        bytes_fini(&out);
    }
    ws_inflater_free(i);
}

static void a_payload_of_no_bytes_is_an_empty_message(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    check_inflate(i, true, "", "");
    check_inflate(i, false, "f2 48 cd c9 c9 07 00", "Hello");
    check_inflate(i, false, "", "");
    check_inflate(i, false, "f2 00 11 00 00", "Hello");
    ws_inflater_free(i);
}

/* --- What is no deflate data */

static void check_bad(struct ws_inflater *i, const void *data, size_t len)
{
    struct bytes out = {0};
    bytes_append_str(&out, "kept");
    assert_int_equal(ws_inflate(i, true, data, len, 100000, &out), -EBADMSG);
    check_bytes(&out, "kept", 4);
    bytes_fini(&out);
    check_inflate(i, true, "f2 48 cd c9 c9 07 00", "Hello"); /* usable again, when fresh */
}

static void malformed_messages(void **state)
{
    static const char *const bad[] = {
        "06",                                  /* reserved block type */
        "07 00",                               /* the same, last */
        "00 05 00 fb ff 48 65 6c 6c 6f 00",    /* NLEN wrong */
        "f2 00 11 00 00",                      /* before the beginning */
        "f2 48 cd c9 c9 07 00 06",             /* behind a good one */
        "f3 48 cd c9 c9 07 00 06",             /* behind the end of a stream */
        "f3 48 cd c9 c9 07 00 f2 00 11 00 00", /* a new stream has no past */
        "04 fe ff ff 00",                      /* code lengths over-subscribed */
        "fc ff 00 00",                         /* too many lengths */
        "00 00 00 ff ff",                      /* the tail was sent, and ours comes behind it */
        "f2 48 cd c9 c9 07 00 00 00 ff ff",
        "ff ff ff ff",
    };
    struct ws_inflater *i = ws_inflater_new(15);
    for (size_t k = 0; k < COUNT(bad); k++) {
        struct bytes in = {0};
        add_hex(&in, bad[k]);
        check_bad(i, in.data, in.len);
        bytes_fini(&in);
    }
    ws_inflater_free(i);
}

static void cut_messages(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    struct ws_deflater *d = ws_deflater_new(15, 9, 9);
    struct bytes in = {0}, wire = {0};
    add_text(&in, 2000);
    add_noise(&in, 50);
    assert_true(ws_deflate(d, true, in.data, in.len, &wire));
    for (size_t n = 1; n < wire.len; n++) {
        uint8_t *cut = malloc(n); /* exact, for the sanitizer */
        memcpy(cut, wire.data, n);
        check_bad(i, cut, n);
        free(cut);
    }
    bytes_fini(&in);
    bytes_fini(&wire);
    ws_deflater_free(d);
    ws_inflater_free(i);
}

/* Whatever comes: an answer within the limit, and a codec that can be used again. */
static void changed_messages(void **state)
{
    struct ws_inflater *i = ws_inflater_new(11);
    struct ws_deflater *d = ws_deflater_new(11, 6, 8);
    struct bytes in = {0}, wire = {0}, out = {0};
    add_text(&in, 700);
    assert_true(ws_deflate(d, true, in.data, in.len, &wire));
    for (size_t bit = 0; bit < wire.len * 8; bit++) {
        wire.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        bytes_clear(&out);
        int rc = ws_inflate(i, true, wire.data, wire.len, 800, &out);
        assert_true(rc == 0 || rc == -EBADMSG || rc == -EMSGSIZE);
        assert_true(out.len <= 800 && (rc == 0 || out.len == 0));
        wire.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(ws_inflate(i, true, wire.data, wire.len, 800, &out), 0);
    bytes_fini(&in);
    bytes_fini(&wire);
    bytes_fini(&out);
    ws_deflater_free(d);
    ws_inflater_free(i);
}

/* --- Limits */

static void make_bomb(struct bytes *wire, size_t len)
{
    struct ws_deflater *d = ws_deflater_new(15, 9, 9);
    uint8_t *zeros = calloc(1, len);
    assert_true(ws_deflate(d, true, zeros, len, wire));
    assert_true(wire->len < len / 900 + 50);
    free(zeros);
    ws_deflater_free(d);
}

static void a_bomb_goes_no_further_than_the_limit(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    struct bytes wire = {0};
    make_bomb(&wire, 20000000);
    static const size_t limits[] = {0, 1, 100, 511, 512, 513, 65536, 65537, 1000000, 19999999};
    for (size_t k = 0; k < COUNT(limits); k++) {
        struct bytes out = {0};
        assert_int_equal(ws_inflate(i, true, wire.data, wire.len, limits[k], &out), -EMSGSIZE);
        assert_int_equal(out.len, 0);
        assert_true(out.cap <= 2 * limits[k] + 64);
        bytes_fini(&out);
    }
    struct bytes out = {0};
    assert_int_equal(ws_inflate(i, true, wire.data, wire.len, 20000000, &out), 0);
    assert_int_equal(out.len, 20000000);
    bytes_fini(&out);
    bytes_fini(&wire);
    ws_inflater_free(i);
}

static void room_grows_with_the_message(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    struct bytes wire = {0}, out = {0};
    make_bomb(&wire, 5000);
    assert_int_equal(ws_inflate(i, true, wire.data, wire.len, SIZE_MAX, &out), 0);
    assert_int_equal(out.len, 5000);
    assert_true(out.cap <= 2 * (out.len + 512));
    bytes_fini(&wire);
    bytes_fini(&out);
    ws_inflater_free(i);
}

static void the_limit_is_exact(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    struct ws_deflater *d = ws_deflater_new(15, 1, 8);
    for (size_t len = 1; len < 1500; len += len < 20 ? 1 : 37) {
        struct bytes in = {0}, wire = {0}, out = {0};
        add_text(&in, len);
        bytes_append_str(&out, "kept");
        assert_true(ws_deflate(d, false, in.data, in.len, &wire));
        assert_int_equal(ws_inflate(i, false, wire.data, wire.len, len, &out), 0);
        assert_int_equal(out.len, 4 + len);
        bytes_clear(&wire);
        assert_true(ws_deflate(d, true, in.data, in.len, &wire));
        assert_int_equal(ws_inflate(i, true, wire.data, wire.len, len - 1, &out), -EMSGSIZE);
        assert_int_equal(out.len, 4 + len);
        assert_int_equal(ws_inflate(i, true, wire.data, wire.len, len, &out), 0);
        bytes_fini(&in);
        bytes_fini(&wire);
        bytes_fini(&out);
    }
    check_inflate(i, true, "00", "");
    struct bytes out = {0};
    assert_int_equal(ws_inflate(i, true, "\x00", 1, 0, &out), 0);
    assert_int_equal(ws_inflate(i, true, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 8, 0, &out), -EMSGSIZE);
    assert_int_equal(out.cap, 0);
    bytes_fini(&out);
    ws_deflater_free(d);
    ws_inflater_free(i);
}

static void no_memory_for_the_output(void **state)
{
    struct ws_inflater *i = ws_inflater_new(15);
    struct ws_deflater *d = ws_deflater_new(15, 1, 8);
    struct bytes full = {.failed = true};
    assert_false(ws_deflate(d, false, "Hello", 5, &full));
    assert_false(ws_deflate(d, false, "", 0, &full));
    assert_int_equal(ws_inflate(i, false, "\xf2\x48\xcd\xc9\xc9\x07\x00", 7, 100, &full), -ENOMEM);
    assert_int_equal(full.len, 0);
    check_deflate(d, true, "Hello", "f2 48 cd c9 c9 07 00");
    check_inflate(i, true, "f2 48 cd c9 c9 07 00", "Hello");
    ws_deflater_free(d);
    ws_inflater_free(i);
    ws_deflater_free(NULL);
    ws_inflater_free(NULL);
}

/* --- Memory */

static size_t taken;

static void *take_memory(void *opaque, unsigned n, unsigned size)
{
    taken += (size_t)n * size;
    return malloc((size_t)n * size);
}

static void give_memory(void *opaque, void *p)
{
    free(p);
}

#define STRUCT_MAX 256 /* around zlib's own */

static void a_deflater_takes_what_it_says(void **state)
{
    for (int bits = 9; bits <= 15; bits++) {
        for (int mem_level = 1; mem_level <= 9; mem_level++) {
            uint8_t out[100];
            z_stream z = {.zalloc = take_memory, .zfree = give_memory};
            taken = 0;
            assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -bits, mem_level, Z_DEFAULT_STRATEGY), Z_OK);
            z.next_in = (uint8_t *)"Hello";
            z.avail_in = 5;
            z.next_out = out;
            z.avail_out = sizeof out;
            assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
            deflateEnd(&z);
            size_t said = ws_deflater_memory((unsigned)bits, (unsigned)mem_level);
            assert_true(said > taken && said <= taken + STRUCT_MAX);
            assert_int_equal(ws_deflater_memory((unsigned)bits, (unsigned)mem_level), said);
            assert_true(said > (4U << bits) + (512U << mem_level)); /* as zlib's manual has it */
        }
    }
}

static void an_inflater_takes_what_it_says(void **state)
{
    for (int bits = 8; bits <= 15; bits++) {
        uint8_t in[] = "\xf2\x48\xcd\xc9\xc9\x07\x00", out[100];
        z_stream z = {.zalloc = take_memory, .zfree = give_memory, .next_in = in, .avail_in = 7};
        taken = 0;
        assert_int_equal(inflateInit2(&z, -bits), Z_OK);
        z.next_out = out;
        z.avail_out = sizeof out;
        assert_int_equal(inflate(&z, Z_SYNC_FLUSH), Z_OK);
        inflateEnd(&z);
        size_t said = ws_inflater_memory((unsigned)bits);
        assert_true(said > taken && said <= taken + STRUCT_MAX);
        assert_true(said > 1U << bits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_examples_of_the_rfc_are_read),
        cmocka_unit_test(the_examples_of_the_rfc_are_written),
        cmocka_unit_test(conversations_of_other_compressors),
        cmocka_unit_test(every_window_level_and_memory_level),
        cmocka_unit_test(fresh_and_other_messages_in_any_order),
        cmocka_unit_test(every_pattern_of_fresh_and_empty_messages),
        cmocka_unit_test(a_message_of_another_deflater_in_between),
        cmocka_unit_test(long_messages),
        cmocka_unit_test(output_is_appended),
        cmocka_unit_test(last_blocks_of_a_stream),
        cmocka_unit_test(last_blocks_that_outgrow_their_room),
        cmocka_unit_test(a_payload_of_no_bytes_is_an_empty_message),
        cmocka_unit_test(malformed_messages),
        cmocka_unit_test(cut_messages),
        cmocka_unit_test(changed_messages),
        cmocka_unit_test(a_bomb_goes_no_further_than_the_limit),
        cmocka_unit_test(room_grows_with_the_message),
        cmocka_unit_test(the_limit_is_exact),
        cmocka_unit_test(no_memory_for_the_output),
        cmocka_unit_test(a_deflater_takes_what_it_says),
        cmocka_unit_test(an_inflater_takes_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
