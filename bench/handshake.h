// SPDX-License-Identifier: MIT
/* The handshake that tgg-load sends and the answer that tgg-floor gives: always the same key, that of RFC
 * 6455 section 1.3, so that the answer is known beforehand and can still be checked. */
#pragma once

#define HANDSHAKE_HEAD                                                                                       \
    "GET /bench HTTP/1.1\r\n"                                                                                \
    "Host: 127.0.0.1\r\n"                                                                                    \
    "Upgrade: websocket\r\n"                                                                                 \
    "Connection: Upgrade\r\n"                                                                                \
    "Sec-WebSocket-Version: 13\r\n"                                                                          \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

#define HANDSHAKE_REQUEST         HANDSHAKE_HEAD "\r\n"
#define HANDSHAKE_REQUEST_DEFLATE HANDSHAKE_HEAD "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

#define HANDSHAKE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#define HANDSHAKE_ANSWER                                                                                     \
    "HTTP/1.1 101 Switching Protocols\r\n"                                                                   \
    "Upgrade: websocket\r\n"                                                                                 \
    "Connection: Upgrade\r\n"                                                                                \
    "Sec-WebSocket-Accept: " HANDSHAKE_ACCEPT "\r\n"                                                         \
    "\r\n"
