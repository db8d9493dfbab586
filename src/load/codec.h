// SPDX-License-Identifier: MIT
/* The client's side of the four protocols of listeners (docs/PROTOCOL-gatewayworker.md does not cover it):
 * WebSocket (RFC 6455), text (a message is a line), frame (four bytes of length, themselves included, then
 * the message) and bare TCP, where a message is whatever one read brings. Written apart from src/proto, so
 * that the load client does not share the gateway's mistakes. Bytes in, bytes out; no state. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum load_protocol { LOAD_WEBSOCKET, LOAD_TEXT, LOAD_FRAME, LOAD_TCP };

enum load_opcode {
    LOAD_OP_MORE = 0x0,
    LOAD_OP_TEXT = 0x1,
    LOAD_OP_BINARY = 0x2,
    LOAD_OP_CLOSE = 0x8,
    LOAD_OP_PING = 0x9,
    LOAD_OP_PONG = 0xA,
};

#define CODEC_HEAD_MAX    14u         /* what stands before a message */
#define CODEC_TAIL_MAX    1u          /* and behind it */
#define CODEC_MESSAGE_MAX (64u << 20) /* bytes */

struct codec_message {
    uint8_t opcode;  /* WebSocket; of the other protocols LOAD_OP_BINARY */
    bool compressed; /* WebSocket: RSV1 */
    bool whole;      /* WebSocket: FIN; of the other protocols true */
    const uint8_t *data;
    size_t len;
};

/* The message (or, WebSocket, the frame) at the head of data: how many bytes it takes, 0 when it is not
 * complete, -EPROTO when a server may not send that, -EMSGSIZE when it is larger than CODEC_MESSAGE_MAX. */
ssize_t codec_read(enum load_protocol protocol, const uint8_t *data, size_t len, struct codec_message *ret);

/* What stands before a message of len bytes; its length. mask: the key with which the message will be masked
 * (WebSocket only). */
size_t codec_head(enum load_protocol protocol, uint8_t opcode, size_t len, const uint8_t mask[4],
                  uint8_t head[CODEC_HEAD_MAX]);
/* What stands behind it; its length. */
size_t codec_tail(enum load_protocol protocol, uint8_t tail[CODEC_TAIL_MAX]);
void codec_mask(uint8_t *data, size_t len, const uint8_t key[4]);

/* The answer to a handshake at the head of text: how many bytes it takes, 0 when it is not complete.
 * *ret_status: 101 only when it also holds `accept`, else what it says (0: not HTTP). */
size_t codec_answer(const uint8_t *text, size_t len, const char *accept, unsigned *ret_status);
/* Longer answers are none. */
#define CODEC_ANSWER_MAX (16u * 1024)
