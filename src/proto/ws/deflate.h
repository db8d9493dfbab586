// SPDX-License-Identifier: MIT
/* permessage-deflate (RFC 7692) on zlib, the server's side. Pure: bytes in, bytes out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "proto/line/http_request.h"

/* What we agree to. Windows: 9 to 15 (zlib's raw deflate has none of 8: an offer that insists on 8 for our
 * side is declined). */
struct ws_deflate_wish {
    bool takeover, client_takeover;
    uint8_t window_bits, client_window_bits;
};
/* What was agreed: whether the two sides may refer to earlier messages, and the windows to make a
 * ws_deflater and a ws_inflater with, 9 to 15 (a client's window of 8 is read with one of 9). */
struct ws_deflate_params {
    bool takeover, client_takeover;
    uint8_t window_bits, client_window_bits;
};
/* Looks at all offers of Sec-WebSocket-Extensions, over all headers of that name, in order, and takes the
 * first that can be agreed to (section 5). An offer with unknown, repeated or malformed parameters is
 * declined (section 7.1), other extensions are passed over; what is no list of extensions is declined up to
 * its next comma. True: *ret is filled, and header is a whole line "Sec-WebSocket-Extensions: ...\r\n",
 * NUL-terminated. False: no extension is to be answered. cap >= WS_DEFLATE_HEADER_MAX.
 *
 * A window of ours that the client did not ask for is not told: section 7.1.2.1 allows it, but clients close
 * on it, and the smaller window needs nobody's consent. */
#define WS_DEFLATE_HEADER_MAX 192
bool ws_deflate_negotiate(const struct http_request *req, const struct ws_deflate_wish *wish,
                          struct ws_deflate_params *ret, char *header, size_t cap);

/* ---- compressing */

struct ws_deflater;
/* NULL without memory. window_bits: 9 to 15; level: 1 to 9; mem_level: zlib's, 1 to 9. */
struct ws_deflater *ws_deflater_new(unsigned window_bits, unsigned level, unsigned mem_level);
void ws_deflater_free(struct ws_deflater *d);
/* Bytes that one of these takes for as long as it lives, for budgets. Asks zlib by making one, at the first
 * call for each pair of arguments. */
size_t ws_deflater_memory(unsigned window_bits, unsigned mem_level);
/* Appends the payload of a compressed message (section 7.2.1: without the 4 bytes 00 00 ff ff; an empty
 * message is one byte 00, and changes nothing in d). len: below 4 GB. false: no memory; out is as it was
 * (with failed set), d is only to be freed or used fresh.
 *
 * fresh: the message refers to nothing before it. For a peer without context take-over every message is.
 * With take-over the history of d has to be the end of the peer's, that is, of all compressed messages that
 * were sent to it. So fresh and other messages of one d may be mixed at will (a fresh one drops the history
 * of d, those after it refer back to it at most). But when a message that another deflater has compressed (a
 * fan-out's) was sent in between, the next one of d has to be fresh. */
bool ws_deflate(struct ws_deflater *d, bool fresh, const void *data, size_t len, struct bytes *out);

/* ---- decompressing */

struct ws_inflater;
/* NULL without memory. window_bits: 8 to 15, not less than the sender's. */
struct ws_inflater *ws_inflater_new(unsigned window_bits);
void ws_inflater_free(struct ws_inflater *i);
/* Bytes that one of these takes from its first message on (zlib makes the window then). */
size_t ws_inflater_memory(unsigned window_bits);
/* Between messages: the last bytes that came out of i, which its sender's next message may refer to; out has
 * room for WS_WINDOW_MAX. How many. */
#define WS_WINDOW_MAX 32768
size_t ws_inflater_window(struct ws_inflater *i, uint8_t *out);
/* A new i goes on behind those bytes. False: no memory. */
bool ws_inflater_set_window(struct ws_inflater *i, const void *window, size_t len);
/* The payload of a whole message, section 7.2.2. Appends to out. 0; -EMSGSIZE: the message has more than
 * size_max bytes, said before more of it is made; -EBADMSG: not deflate data, or cut off; -ENOMEM. After an
 * error out is as it was (with failed set at -ENOMEM), i is only to be freed or used fresh.
 *
 * out grows as the message does, so it never has much more room than twice the bytes in it (and 512). len:
 * below 4 GB. fresh: the message may not refer to messages before it (no context take-over of the sender; or
 * i served somebody else). A block with BFINAL set is fine (section 7.2.3.4: what follows is a new stream),
 * also as the last thing; so is a payload of 0 bytes, the empty message of senders that forget its 00. */
int ws_inflate(struct ws_inflater *i, bool fresh, const void *data, size_t len, size_t size_max,
               struct bytes *out);
