// SPDX-License-Identifier: MIT
/* The server's half of the WebSocket opening handshake (RFC 6455 section 4.2), and the HTTP errors that a
 * client gets instead. Pure, but for a digest context that is made at the first use and kept. */
#pragma once

#include "proto/line/http_request.h"

/* 0, or the HTTP status to refuse with:
 * 505  HTTP/1.0
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

/* The first of ours ("chat, mqtt") that the client offers in Sec-WebSocket-Protocol (section 4.2.2, all
 * headers of that name; names are compared exactly), copied to buf; NULL: none, or buf is too small. */
const char *ws_subprotocol_select(const struct http_request *req, const char *ours, char *buf, size_t cap);

/* Whether the request's Origin (RFC 6454; RFC 6455 section 10.2) is on the list: "https://example.com,
 * http://localhost:3000, none". Items are scheme://host or scheme://host:port. A host that begins with "*."
 * ("*.example.com") stands for all with one or more labels before the rest, never for the rest alone. Scheme
 * and host are compared without regard to case, IPv6 addresses by what they say; a port that is the scheme's
 * default (http, ws: 80, https, wss: 443) may be missing on either side. "none" lets requests without Origin
 * in, "null" those of pages without one (sandboxed, from a file). Any other item matches nothing; nor does an
 * Origin of another form, or one that is there twice. A list without items: all. */
bool ws_origin_allowed(const struct http_request *req, const char *list);

/* Whether path is one of "/chat, /api/": equal to an item, or below an item that ends in "/". Returns the
 * length of the item that matched (the longest), 0: none. A list without items matches everything with 1.
 * Bytes are compared as they came (no %-escapes, no dots); an empty path ("GET http://host HTTP/1.1") is "/".
 */
size_t http_path_match(struct slice path, const char *list);

/* A whole response without an upgrade, with a line of text that says what to do; the connection is then to be
 * closed. For 200 (health checks), the statuses that http_parse() and ws_handshake_check() give, 403, 404,
 * 408, 429 and 503; any other says 400. retry_after_s: Retry-After of 429 and 503; 0: none. Returns its
 * length without the NUL, 0 if cap is too small (HTTP_ERROR_SIZE is enough). */
#define HTTP_ERROR_SIZE 512
size_t http_error_response(int status, unsigned retry_after_s, char *buf, size_t cap);
