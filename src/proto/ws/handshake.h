// SPDX-License-Identifier: MIT
/* The server's half of the WebSocket opening handshake (RFC 6455 section 4.2), and the HTTP errors that a
 * client gets instead. Pure, but for a digest context that is made at the first use and kept. */
#pragma once

#include "proto/line/http_request.h"

/* 0, or the HTTP status to refuse with:
 * 426  no "websocket" in Upgrade, or a Sec-WebSocket-Version that is not 13
 * 400  no "upgrade" in Connection; Sec-WebSocket-Key missing, more than one, or not base64 of 16 bytes
 * The request line and Host have been checked by http_parse(). */
int ws_handshake_check(const struct http_request *req);

/* The 101 answer to a request that passed ws_handshake_check(), as a string of whole header lines.
 * subprotocol: one that the client offered, or NULL (PHP's Gateway selects none). extra_headers: "Name:
 * value\r\n" lines or NULL. Returns the length without the NUL that ends it; 0 if it does not fit into cap or
 * libcrypto has no memory. */
#define WS_RESPONSE_SIZE 130 /* enough without subprotocol and extra headers */
size_t ws_handshake_response(const struct http_request *req, const char *subprotocol,
                             const char *extra_headers, char *buf, size_t cap);

/* A whole response that refuses, with a line of text that says what to do; the connection is then to be
 * closed. For the statuses that http_parse() and ws_handshake_check() give, 403, 408 and 503; any other says
 * 400. Returns its length without the NUL, 0 if cap is too small (HTTP_ERROR_SIZE is enough). */
#define HTTP_ERROR_SIZE 512
size_t http_error_response(int status, char *buf, size_t cap);
