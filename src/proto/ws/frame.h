// SPDX-License-Identifier: MIT
/* WebSocket frames, the server's side (RFC 6455 sections 5 to 8; RSV1 as RFC 7692 section 6 has it). Pure:
 * bytes in, events out.
 *
 *   byte 0   FIN RSV1 RSV2 RSV3 opcode(4)
 *   byte 1   MASK length(7)           126: 2 more bytes of length follow, 127: 8 more, big-endian
 *   4 bytes  masking key              from clients always, from servers never
 *   payload
 *
 * A message is one data frame, or a first one and continuations, between whose frames control frames may
 * stand. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum ws_opcode {
    WS_OP_CONTINUATION = 0x0,
    WS_OP_TEXT = 0x1,
    WS_OP_BINARY = 0x2,
    WS_OP_CLOSE = 0x8,
    WS_OP_PING = 0x9,
    WS_OP_PONG = 0xA,
};

/* Close codes (section 7.4.1) that a gateway sends or has to tell apart. */
enum ws_close_code {
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_PROTOCOL = 1002,
    WS_CLOSE_NONE = 1005, /* never on the wire: the close frame had no code */
    WS_CLOSE_BAD_DATA = 1007,
    WS_CLOSE_POLICY = 1008,
    WS_CLOSE_TOO_BIG = 1009,
    WS_CLOSE_INTERNAL = 1011,
    WS_CLOSE_TRY_LATER = 1013,
};

enum ws_event {
    WS_NEED_MORE, /* all bytes used, nothing to tell */
    WS_DATA,      /* a piece of a data message: data, len, first, last, opcode */
    WS_PING,      /* data, len (whole, <= 125): answer with a pong of the same payload */
    WS_PONG,      /* data, len */
    WS_CLOSE, /* code (WS_CLOSE_NONE without one), data and len: the reason. Nothing after it is to be decoded
               */
    WS_ERROR, /* code to close with, why. Nothing after it is to be decoded */
};

/* What a connection may do. Constant while a message is under way. */
struct ws_rules {
    uint64_t message_size_max; /* bytes of a message as they come (compressed ones: compressed) */
    uint32_t fragments_max;    /* frames of one message, empty ones included; over that 1008. 0: no limit */
    bool deflate;              /* permessage-deflate was agreed: RSV1 of a message's first frame says that it
                                * is compressed */
};

/* What an event tells. Pointers go into the bytes given to ws_decode or into the decoder, and are valid until
 * the next call or until those bytes change. */
struct ws_piece {
    uint8_t *data;
    size_t len;
    uint8_t opcode;  /* WS_OP_TEXT or WS_OP_BINARY, the message's, with each of its pieces */
    bool first;      /* starts the message */
    bool last;       /* ends the message */
    bool compressed; /* RSV1 of the message: its text is not checked for UTF-8 */
    uint16_t code;   /* WS_CLOSE, WS_ERROR */
    const char *why; /* WS_ERROR: static text for the log */
};

#define WS_CONTROL_MAX    125
#define WS_HEADER_MAX     14  /* with a masking key */
#define WS_OUT_HEADER_MAX 10  /* without */
#define WS_CLOSE_MAX      127 /* header and payload */

/* What has to be remembered while a message (or a frame) is incomplete. All zero: between messages. */
struct ws_decoder {
    union {
        struct {
            uint8_t opcode;     /* of the message under way; 0: none */
            uint8_t frame;      /* opcode and flags of the frame whose payload is being read; 0: none */
            uint8_t header_len; /* bytes in header */
            uint8_t first;      /* a message is under way, and no piece of it has been handed out */
        };
        uint32_t pending; /* all of them, for one test */
    };
    uint8_t control_len; /* bytes in control */
    uint8_t text_state;  /* utf8_feed's */
    bool compressed;     /* the message under way */
    uint8_t header[WS_HEADER_MAX];
    uint32_t key;       /* masking key, as it lies in memory, turned to the next byte */
    uint32_t fragments; /* frames of the message under way that have begun */
    uint64_t left;      /* of the frame's payload */
    /* Bytes of the message under way, those of its current frame that are still to come included. */
    uint64_t message_len;
    uint8_t control[WS_CONTROL_MAX]; /* need not be zero between messages */
};

/* Whether the decoder remembers nothing: then it may be thrown away, and a zeroed one takes its place. */
static inline bool ws_decoder_idle(const struct ws_decoder *d)
{
    return d->pending == 0;
}

/* Between messages, whatever d was before. Costs less than an assignment: the bytes of control are left. */
static inline void ws_decoder_init(struct ws_decoder *d)
{
    memset(d, 0, offsetof(struct ws_decoder, control));
}

/* Whether a data message has begun and not ended (control frames are no part of it): what a deadline for
 * slow messages looks at. */
static inline bool ws_decoder_in_message(const struct ws_decoder *d)
{
    return d->opcode != 0;
}

/* Decodes up to the first event. data is unmasked in place, so every byte is given once. *ret_used: bytes
 * used, set with every event; while it is less than len, call again with the rest (not after WS_CLOSE and
 * WS_ERROR). *ret is set for every event but WS_NEED_MORE.
 *
 * Errors come as soon as the byte that shows them is here: 1002 for what breaks the framing (section 5, with
 * lengths not in their shortest form, close codes outside section 7.4), 1007 for text or a close reason that
 * is not UTF-8, 1009 for a message over message_size_max bytes, told by its frames' headers, 1008 for one of
 * too many frames. Pieces of a message that has an error later on may have been handed out: it never gets its
 * `last`. */
enum ws_event ws_decode(struct ws_decoder *d, const struct ws_rules *rules, uint8_t *data, size_t len,
                        size_t *ret_used, struct ws_piece *ret);

/* In an opcode: the message is compressed (RSV1). Text and binary only. */
#define WS_OP_COMPRESSED 0x40

/* Header of an unfragmented server frame (opcode may have WS_OP_COMPRESSED); out has room for
 * WS_OUT_HEADER_MAX. Returns its length. */
size_t ws_frame_header(uint8_t *out, unsigned opcode, uint64_t payload_len);

/* The same for a client (tests and load tools): with a masking key; out has room for WS_HEADER_MAX. */
size_t ws_frame_header_masked(uint8_t *out, unsigned opcode, uint64_t payload_len, const uint8_t key[4]);

/* A whole close frame; out has room for WS_CLOSE_MAX. WS_CLOSE_NONE gives an empty payload. `reason` (may be
 * NULL) is UTF-8 and is cut, between characters, to the 123 bytes that fit. Returns the length. */
size_t ws_close_frame(uint8_t *out, unsigned code, const char *reason);
