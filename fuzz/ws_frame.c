// SPDX-License-Identifier: MIT
/* WebSocket frames. The first 4 bytes choose the rules and how the rest is cut; the rest is what a client
 * sends.
 * - In one piece or in many, the events are the same (pieces of a message joined).
 * - What comes out is what may come out: text is UTF-8 unless it is compressed, no message is over the
 * limits, close codes are allowed ones, nothing is compressed without deflate.
 * - The decoder is idle exactly when no message and no frame is under way.
 * - The same bytes as a payload, sent in frames, come back whole. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/utf8.h"
#include "proto/ws/frame.h"
#include "proto/ws/mask.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct run {
    struct ws_decoder decoder;
    struct bytes log, message;
    struct ws_rules rules;
    uint32_t seed; /* of the cuts; 0: none */
    bool in_message, compressed, over;
};

static void log_bytes(struct run *r, char kind, unsigned code, const uint8_t *data, size_t len)
{
    bytes_printf(&r->log, "%c %u %zu ", kind, code, len);
    bytes_append(&r->log, data, len);
}

static void on_data(struct run *r, const struct ws_piece *p)
{
    ASSERT(p->first == !r->in_message);
    ASSERT(p->len > 0 || p->last);
    ASSERT(p->opcode == WS_OP_TEXT || p->opcode == WS_OP_BINARY);
    ASSERT(r->rules.deflate || !p->compressed);
    ASSERT(p->first || p->compressed == r->compressed);
    r->compressed = p->compressed;
    r->in_message = !p->last;
    bytes_append(&r->message, p->data, p->len);
    ASSERT(r->message.len <= r->rules.message_size_max);
    bool is_text = p->opcode == WS_OP_TEXT && !p->compressed;
    if (is_text)
        ASSERT(utf8_feed_slow(UTF8_ACCEPT, r->message.data, r->message.len) != UTF8_REJECT);
    if (!p->last)
        return;
    if (is_text)
        ASSERT(utf8_feed_slow(UTF8_ACCEPT, r->message.data, r->message.len) == UTF8_ACCEPT);
    log_bytes(r, p->opcode == WS_OP_TEXT ? 't' : 'b', p->compressed, r->message.data, r->message.len);
    bytes_clear(&r->message);
}

static void on_close(struct run *r, const struct ws_piece *p)
{
    ASSERT(p->code == WS_CLOSE_NONE ? p->len == 0 : p->code >= 1000 && p->code <= 4999 && p->code != 1006);
    ASSERT(p->len <= WS_CONTROL_MAX - 2 && utf8_feed_slow(UTF8_ACCEPT, p->data, p->len) == UTF8_ACCEPT);
    log_bytes(r, 'c', p->code, p->data, p->len);
    r->over = true;
}

static void on_event(struct run *r, enum ws_event event, const struct ws_piece *p)
{
    switch (event) {
    case WS_NEED_MORE: break;
    case WS_DATA: on_data(r, p); break;
    case WS_PING:
    case WS_PONG:
        ASSERT(p->len <= WS_CONTROL_MAX);
        log_bytes(r, event == WS_PING ? 'i' : 'o', 0, p->data, p->len);
        break;
    case WS_CLOSE: on_close(r, p); break;
    case WS_ERROR:
        ASSERT(p->code == WS_CLOSE_PROTOCOL || p->code == WS_CLOSE_BAD_DATA || p->code == WS_CLOSE_TOO_BIG ||
               p->code == WS_CLOSE_POLICY);
        ASSERT(p->code != WS_CLOSE_POLICY || r->rules.fragments_max != 0);
        ASSERT(p->why != NULL);
        log_bytes(r, 'e', p->code, NULL, 0);
        r->over = true;
        break;
    }
}

static size_t next_cut(struct run *r, size_t left)
{
    if (r->seed == 0)
        return left;
    r->seed = r->seed * 1664525 + 1013904223;
    size_t n = 1 + (r->seed >> 24) % ((r->seed >> 16 & 3) == 0 ? 100 : 7);
    r->seed |= 1;
    return n < left ? n : left;
}

/* An exact copy of each cut, so that AddressSanitizer sees a step beyond it. */
static void feed(struct run *r, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len);
    ASSERT(copy != NULL);
    memcpy(copy, data, len);
    for (size_t pos = 0; pos < len && !r->over;) {
        struct ws_piece piece;
        size_t used = SIZE_MAX;
        enum ws_event event = ws_decode(&r->decoder, &r->rules, copy + pos, len - pos, &used, &piece);
        ASSERT(used <= len - pos && (used > 0 || event == WS_ERROR));
        ASSERT(event != WS_NEED_MORE || used == len - pos);
        pos += used;
        on_event(r, event, &piece);
        if (r->in_message && !r->over)
            ASSERT(!ws_decoder_idle(&r->decoder));
        if (!r->over && ws_decoder_idle(&r->decoder))
            ws_decoder_init(&r->decoder); /* as the shard does */
    }
    free(copy);
}

static void run(struct run *r, const uint8_t *data, size_t len)
{
    for (size_t pos = 0; pos < len && !r->over;) {
        size_t n = next_cut(r, len - pos);
        feed(r, data + pos, n);
        pos += n;
    }
    ASSERT(!r->log.failed && !r->message.failed);
}

static void run_fini(struct run *r)
{
    bytes_fini(&r->log);
    bytes_fini(&r->message);
}

static void same_in_pieces(const uint8_t *data, size_t len, const struct ws_rules *rules, uint32_t seed)
{
    struct run whole = {.rules = *rules}, cut = {.rules = *rules, .seed = seed | 1};
    run(&whole, data, len);
    run(&cut, data, len);
    ASSERT(whole.over == cut.over);
    ASSERT(whole.log.len == cut.log.len);
    ASSERT(whole.log.len == 0 || memcmp(whole.log.data, cut.log.data, whole.log.len) == 0);
    ASSERT(whole.over || ws_decoder_idle(&whole.decoder) == ws_decoder_idle(&cut.decoder));
    run_fini(&whole);
    run_fini(&cut);
}

static void add_frame(struct bytes *out, uint8_t first_byte, const uint8_t *data, size_t len, uint32_t seed)
{
    uint8_t header[WS_HEADER_MAX], key[4];
    memcpy(key, &seed, sizeof key);
    size_t n = ws_frame_header_masked(header, WS_OP_BINARY, len, key);
    header[0] = first_byte;
    ASSERT(bytes_append(out, header, n) && bytes_append(out, data, len));
    if (len > 0)
        ws_mask(out->data + out->len - len, len, key, 0);
}

static void sent_comes_back(const uint8_t *data, size_t len, bool deflate, uint32_t seed)
{
    struct bytes wire = {0};
    size_t cut = len > 0 ? seed % (len + 1) : 0;
    uint8_t rsv1 = deflate ? WS_OP_COMPRESSED : 0;
    uint8_t type = deflate || utf8_valid(data, len) ? WS_OP_TEXT : WS_OP_BINARY;
    add_frame(&wire, rsv1 | type, data, cut, seed);
    add_frame(&wire, 0x80 | WS_OP_PING, data, len < 125 ? len : 125, seed * 3);
    add_frame(&wire, 0x80, data + cut, len - cut, seed * 5);
    add_frame(&wire, 0x80 | rsv1 | type, data, len, seed * 7);
    struct run got = {.rules = {.message_size_max = len, .fragments_max = 2, .deflate = deflate},
                      .seed = seed | 1},
               want = {0};
    run(&got, wire.data, wire.len);
    log_bytes(&want, 'i', 0, data, len < 125 ? len : 125);
    for (int i = 0; i < 2; i++)
        log_bytes(&want, type == WS_OP_TEXT ? 't' : 'b', deflate, data, len);
    ASSERT(got.log.len == want.log.len && memcmp(got.log.data, want.log.data, want.log.len) == 0);
    ASSERT(ws_decoder_idle(&got.decoder));
    run_fini(&got);
    run_fini(&want);
    bytes_fini(&wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint32_t seed;
    if (len < sizeof seed)
        return 0;
    memcpy(&seed, data, sizeof seed);
    static const uint64_t limits[] = {0, 5, 125, 126, 1000, 65536, 1 << 20, UINT64_MAX};
    static const uint32_t fragments[] = {0, 1, 3, UINT32_MAX};
    const struct ws_rules rules = {.message_size_max = limits[seed & 7],
                                   .fragments_max = fragments[seed >> 29 & 3],
                                   .deflate = seed >> 28 & 1};
    data += sizeof seed;
    len -= sizeof seed;
    same_in_pieces(data, len, &rules, seed >> 3);
    sent_comes_back(data, len, rules.deflate, seed >> 3);
    return 0;
}
