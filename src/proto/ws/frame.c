// SPDX-License-Identifier: MIT
#include "proto/ws/frame.h"

#include <endian.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "proto/ws/mask.h"

#define FIN      0x80
#define RSV      0x70
#define RSV1     WS_OP_COMPRESSED
#define OPCODE   0x0F
#define CONTROL  0x08 /* bit of an opcode */
#define MASKED   0x80 /* byte 1 */
#define IN_FRAME 0x40 /* in ws_decoder.frame, beside FIN and OPCODE */

#define LIKELY(x) __builtin_expect(!!(x), 1)

static uint32_t load_key(const uint8_t *p)
{
    uint32_t key;
    memcpy(&key, p, sizeof key);
    return key;
}

static uint64_t load_be(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

__attribute__((cold)) static enum ws_event fail(struct ws_piece *ret, unsigned code, const char *why)
{
    *ret = (struct ws_piece){.code = (uint16_t)code, .why = why};
    return WS_ERROR;
}

/* --- Frame headers */

struct header {
    size_t len; /* 0: too little of it is here to tell */
    uint64_t payload_len;
};

/* RFC 7692 section 6: RSV1 stands on the first frame of a data message, where it was agreed on. */
static bool reserved_bits_ok(const struct ws_rules *rules, uint8_t b)
{
    if ((b & RSV) == 0)
        return true;
    return rules->deflate && (b & RSV) == RSV1 && (b & CONTROL) == 0 && (b & OPCODE) != WS_OP_CONTINUATION;
}

/* Byte 0: NULL or what is wrong with it, after what came before. */
static const char *check_first_byte(const struct ws_decoder *d, const struct ws_rules *rules, uint8_t b)
{
    unsigned opcode = b & OPCODE;
    if (!reserved_bits_ok(rules, b))
        return "reserved bit set";
    if (opcode & CONTROL) {
        if (opcode > WS_OP_PONG)
            return "unknown control opcode";
        return b & FIN ? NULL : "fragmented control frame";
    }
    if (opcode > WS_OP_BINARY)
        return "unknown opcode";
    if (opcode == WS_OP_CONTINUATION)
        return d->opcode != 0 ? NULL : "continuation without a message";
    return d->opcode == 0 ? NULL : "new message inside a fragmented one";
}

/* Also told by byte 0, which has passed check_first_byte. */
static bool too_many_fragments(const struct ws_decoder *d, const struct ws_rules *rules, uint8_t b)
{
    return (b & OPCODE) == WS_OP_CONTINUATION && rules->fragments_max != 0 &&
           d->fragments >= rules->fragments_max;
}

/* Reads as much of the header at p as is here, behind its checked byte 0; NULL or what is wrong with it. */
static const char *read_lengths(const uint8_t *p, size_t have, struct header *ret)
{
    ret->len = 0;
    if (have < 2)
        return NULL;
    if ((p[1] & MASKED) == 0)
        return "frame without mask";
    uint64_t payload_len = p[1] & 0x7F;
    if ((p[0] & CONTROL) && payload_len > WS_CONTROL_MAX)
        return "control frame too long";
    size_t more = payload_len < 126 ? 0 : payload_len == 126 ? 2 : 8;
    if (more == 8 && have > 2 && (p[2] & 0x80))
        return "length with the top bit set";
    if (have < 2 + more)
        return NULL;
    if (more > 0) {
        payload_len = load_be(p + 2, more);
        if (payload_len < 126 || (more == 8 && payload_len <= UINT16_MAX))
            return "length not in its shortest form";
    }
    ret->payload_len = payload_len;
    ret->len = 2 + more + 4;
    return NULL;
}

/* Over the limit? Known before the masking key is here. Control frames have their own limit. */
static bool too_big(const struct ws_decoder *d, const struct ws_rules *rules, uint8_t first_byte,
                    uint64_t payload_len)
{
    uint64_t message_size_max = rules->message_size_max;
    uint64_t before = d->opcode != 0 ? d->message_len : 0;
    return (first_byte & CONTROL) == 0 &&
           (before > message_size_max || payload_len > message_size_max - before);
}

static void start_frame(struct ws_decoder *d, uint8_t first_byte, uint64_t payload_len, const uint8_t *key)
{
    unsigned opcode = first_byte & OPCODE;
    d->frame = (uint8_t)(IN_FRAME | (first_byte & (FIN | OPCODE)));
    d->header_len = 0;
    d->control_len = 0;
    d->left = payload_len;
    d->key = load_key(key);
    if (opcode & CONTROL)
        return;
    if (opcode != WS_OP_CONTINUATION) {
        d->opcode = (uint8_t)opcode;
        d->first = 1;
        d->compressed = (first_byte & RSV1) != 0;
        d->text_state = UTF8_ACCEPT;
        d->message_len = 0;
        d->fragments = 0;
    }
    d->fragments++;
    d->message_len += payload_len;
}

/* The checks stand in the order of the bytes that they look at, so that the same one fails however the input
 * is cut. Close code, *ret_why; or 0. */
static unsigned read_header(const struct ws_decoder *d, const struct ws_rules *rules, const uint8_t *p,
                            size_t have, struct header *ret, const char **ret_why)
{
    *ret_why = check_first_byte(d, rules, p[0]);
    if (*ret_why != NULL)
        return WS_CLOSE_PROTOCOL;
    if (too_many_fragments(d, rules, p[0])) {
        *ret_why = "too many fragments";
        return WS_CLOSE_POLICY;
    }
    *ret_why = read_lengths(p, have, ret);
    if (*ret_why != NULL)
        return WS_CLOSE_PROTOCOL;
    if (ret->len > 0 && too_big(d, rules, p[0], ret->payload_len)) {
        *ret_why = "message too big";
        return WS_CLOSE_TOO_BIG;
    }
    return 0;
}

/* Takes header bytes from data[*pos..len). The frame is started when its header is whole; else all bytes are
 * used and kept. Returns a close code and *ret_why, or 0. */
static unsigned take_header(struct ws_decoder *d, const struct ws_rules *rules, const uint8_t *data,
                            size_t len, size_t *pos, const char **ret_why)
{
    struct header h;
    const uint8_t *p = data + *pos;
    size_t have = len - *pos, kept = d->header_len;
    if (kept > 0) {
        size_t n = have < WS_HEADER_MAX - kept ? have : WS_HEADER_MAX - kept;
        memcpy(d->header + kept, p, n);
        p = d->header;
        have = kept + n;
    }
    unsigned code = read_header(d, rules, p, have, &h, ret_why);
    if (code != 0)
        return code;
    if (h.len > 0 && have >= h.len) {
        *pos += h.len - kept;
        start_frame(d, p[0], h.payload_len, p + h.len - 4);
        return 0;
    }
    if (kept == 0)
        memcpy(d->header, p, have);
    d->header_len = (uint8_t)have;
    *pos = len;
    return 0;
}

/* --- Control frames */

/* Section 7.4: what may stand in a close frame. 1004 to 1006 and 1015 may not, 1016 to 2999 are not given
 * out. */
static bool close_code_ok(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

static enum ws_event close_event(uint8_t *payload, size_t len, struct ws_piece *ret)
{
    *ret = (struct ws_piece){.code = WS_CLOSE_NONE, .data = payload};
    if (len == 0)
        return WS_CLOSE;
    if (len == 1)
        return fail(ret, WS_CLOSE_PROTOCOL, "close frame with half a code");
    unsigned code = (unsigned)load_be(payload, 2);
    if (!close_code_ok(code))
        return fail(ret, WS_CLOSE_PROTOCOL, "close code not allowed");
    if (!utf8_valid(payload + 2, len - 2))
        return fail(ret, WS_CLOSE_BAD_DATA, "close reason is not UTF-8");
    ret->code = (uint16_t)code;
    ret->data = payload + 2;
    ret->len = len - 2;
    return WS_CLOSE;
}

static enum ws_event control_event(unsigned opcode, uint8_t *payload, size_t len, struct ws_piece *ret)
{
    if (opcode == WS_OP_CLOSE)
        return close_event(payload, len, ret);
    *ret = (struct ws_piece){.data = payload, .len = len, .opcode = (uint8_t)opcode};
    return opcode == WS_OP_PING ? WS_PING : WS_PONG;
}

/* Payload of a control frame: gathered only if it comes in pieces. */
static enum ws_event take_control(struct ws_decoder *d, uint8_t *data, size_t len, size_t *pos,
                                  struct ws_piece *ret)
{
    uint8_t *p = data + *pos;
    size_t n = len - *pos < d->left ? len - *pos : (size_t)d->left;
    bool whole = n == d->left;
    if (n > 0)
        ws_mask_seen(p, n, d->key);
    *pos += n;
    if (!whole || d->control_len > 0) {
        if (n > 0)
            memcpy(d->control + d->control_len, p, n);
        d->control_len = (uint8_t)(d->control_len + n);
        d->left -= n;
        d->key = ws_mask_turn(d->key, (unsigned)n);
        p = d->control;
        n = d->control_len;
    }
    if (!whole)
        return WS_NEED_MORE;
    unsigned opcode = d->frame & OPCODE;
    d->frame = 0;
    return control_event(opcode, p, n, ret);
}

/* --- Data frames */

/* A long payload is unmasked and checked in parts that are still in the nearest cache for the check. */
#define PART_SIZE 8192

/* False: text that is not UTF-8. ASCII, the usual case, costs nothing beyond the unmasking. */
static bool unmask_text(struct ws_decoder *d, uint8_t *p, size_t n)
{
    uint32_t state = d->text_state, key = d->key;
    while (n > 0 && state != UTF8_REJECT) {
        size_t part = n < PART_SIZE ? n : PART_SIZE; /* a multiple of 4, so that the key stays turned */
        uint64_t seen = ws_mask_seen(p, part, key);
        if (state != UTF8_ACCEPT || (seen & WS_NOT_ASCII))
            state = utf8_feed(state, p, part);
        p += part;
        n -= part;
    }
    d->text_state = (uint8_t)state;
    return state != UTF8_REJECT;
}

static enum ws_event take_data(struct ws_decoder *d, uint8_t *data, size_t len, size_t *pos,
                               struct ws_piece *ret)
{
    uint8_t *p = data + *pos;
    size_t n = len - *pos < d->left ? len - *pos : (size_t)d->left;
    *pos += n;
    if (d->opcode == WS_OP_BINARY || d->compressed)
        ws_mask_seen(p, n, d->key);
    else if (!unmask_text(d, p, n))
        return fail(ret, WS_CLOSE_BAD_DATA, "text is not UTF-8");
    d->key = ws_mask_turn(d->key, (unsigned)n);
    d->left -= n;
    bool frame_ends = d->left == 0, last = frame_ends && (d->frame & FIN);
    if (last && d->opcode == WS_OP_TEXT && d->text_state != UTF8_ACCEPT)
        return fail(ret, WS_CLOSE_BAD_DATA, "text ends inside a character");
    unsigned opcode = d->opcode;
    if (frame_ends)
        d->frame = 0;
    if (last)
        d->opcode = 0;
    if (n == 0 && !last)
        return WS_NEED_MORE; /* a fragment without bytes tells nobody anything */
    *ret = (struct ws_piece){.data = p,
                             .len = n,
                             .opcode = (uint8_t)opcode,
                             .first = d->first,
                             .last = last,
                             .compressed = d->compressed};
    d->first = 0;
    return WS_DATA;
}

/* --- The decoder */

__attribute__((noinline)) static enum ws_event decode_any(struct ws_decoder *d, const struct ws_rules *rules,
                                                          uint8_t *data, size_t len, size_t *ret_used,
                                                          struct ws_piece *ret)
{
    size_t pos = 0;
    enum ws_event event = WS_NEED_MORE;
    while (event == WS_NEED_MORE && pos < len) {
        if (d->frame == 0) {
            const char *why;
            unsigned code = take_header(d, rules, data, len, &pos, &why);
            if (code != 0)
                event = fail(ret, code, why);
        }
        /* Also right after the header: a frame may have no payload to wait for. */
        if (event == WS_NEED_MORE && d->frame != 0)
            event = d->frame & CONTROL ? take_control(d, data, len, &pos, ret)
                                       : take_data(d, data, len, &pos, ret);
    }
    *ret_used = pos;
    return event;
}

static inline enum ws_event whole_message(uint8_t first_byte, uint8_t *payload, size_t n,
                                          struct ws_piece *ret)
{
    uint64_t seen = ws_mask_seen(payload, n, load_key(payload - 4));
    if (!LIKELY((seen & WS_NOT_ASCII) == 0) && first_byte == (FIN | WS_OP_TEXT) && !utf8_valid(payload, n))
        return fail(ret, WS_CLOSE_BAD_DATA, "text is not UTF-8");
    *ret = (struct ws_piece){
        .data = payload, .len = n, .opcode = first_byte & OPCODE, .first = true, .last = true};
    return WS_DATA;
}

/* The way of nearly every message: it stands in data from its header to its end, in one frame of up to 64 KB.
 * It leaves no trace in the decoder. All else goes the long way: errors too, and compressed messages, next to
 * whose decompression that is nothing. */
enum ws_event ws_decode(struct ws_decoder *d, const struct ws_rules *rules, uint8_t *data, size_t len,
                        size_t *ret_used, struct ws_piece *ret)
{
    if (!LIKELY(len >= 6 && ws_decoder_idle(d)))
        return decode_any(d, rules, data, len, ret_used, ret);
    uint64_t size_max = rules->message_size_max;
    uint8_t first_byte = data[0];
    size_t n = data[1] ^ MASKED, header_len = 6; /* without MASKED n is more than any length */
    if ((uint8_t)(first_byte - (FIN | WS_OP_TEXT)) > WS_OP_BINARY - WS_OP_TEXT)
        return decode_any(d, rules, data, len, ret_used, ret);
    if (n == 126 && len >= 8) {
        header_len = 8;
        n = (size_t)data[2] << 8 | data[3];
        if (n < 126)
            n = SIZE_MAX;
    } else if (n >= 126) {
        n = SIZE_MAX;
    }
    if (!LIKELY(n <= len - header_len && n <= size_max))
        return decode_any(d, rules, data, len, ret_used, ret);
    *ret_used = header_len + n;
    return whole_message(first_byte, data + header_len, n, ret);
}

/* --- The encoder */

static size_t put_header(uint8_t *out, unsigned opcode, uint64_t payload_len, uint8_t masked)
{
    ASSERT((opcode & ~(unsigned)WS_OP_COMPRESSED) <= (opcode & WS_OP_COMPRESSED ? WS_OP_BINARY : WS_OP_PONG));
    out[0] = (uint8_t)(FIN | opcode);
    if (payload_len < 126) {
        out[1] = (uint8_t)(masked | payload_len);
        return 2;
    }
    if (payload_len <= UINT16_MAX) {
        uint16_t be = htobe16((uint16_t)payload_len);
        out[1] = masked | 126;
        memcpy(out + 2, &be, sizeof be);
        return 4;
    }
    uint64_t be = htobe64(payload_len);
    out[1] = masked | 127;
    memcpy(out + 2, &be, sizeof be);
    return 10;
}

size_t ws_frame_header(uint8_t *out, unsigned opcode, uint64_t payload_len)
{
    return put_header(out, opcode, payload_len, 0);
}

size_t ws_frame_header_masked(uint8_t *out, unsigned opcode, uint64_t payload_len, const uint8_t key[4])
{
    size_t n = put_header(out, opcode, payload_len, MASKED);
    memcpy(out + n, key, 4);
    return n + 4;
}

size_t ws_close_frame(uint8_t *out, unsigned code, const char *reason)
{
    if (code == WS_CLOSE_NONE)
        return put_header(out, WS_OP_CLOSE, 0, 0);
    size_t n = reason == NULL ? 0 : strlen(reason);
    if (n > WS_CONTROL_MAX - 2) {
        n = WS_CONTROL_MAX - 2;
        while (n > 0 && ((uint8_t)reason[n] & 0xC0) == 0x80)
            n--;
    }
    put_header(out, WS_OP_CLOSE, n + 2, 0);
    out[2] = (uint8_t)(code >> 8);
    out[3] = (uint8_t)code;
    if (n > 0)
        memcpy(out + 4, reason, n);
    return n + 4;
}
