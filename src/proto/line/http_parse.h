// SPDX-License-Identifier: MIT
/* Reads the head of an HTTP/1.1 GET request without a body, which is all that a WebSocket client sends (RFC
 * 9112, RFC 6455 section 4.1). Pure: it looks at bytes and slices them. */
#pragma once

#include <string.h>
#include <strings.h>

#include "proto/line/http_request.h"

struct http_limits {
    size_t head_size_max; /* bytes of the whole head, an empty line before it included */
    size_t line_size_max; /* bytes of the request line without its end */
    unsigned headers_max; /* <= HTTP_HEADERS_MAX; folded lines count as the one that they continue */
};

/* `data` holds what came from the client since the connection began (or since the last head ended); call
 * again with the same bytes and more behind them until the answer is not 0. *scanned is 0 at the first call
 * and kept by the caller between calls, so that bytes are not looked at twice, however slowly they come. The
 * limits may change between calls; those of the last call hold for what comes then.
 *
 * >0    length of the head, the empty line included. *ret is filled, its slices point into data; header lines
 *       that were folded (RFC 9112 section 5.2) have been joined in place by spaces.
 * 0     more bytes are needed; data and *ret untouched. Never with head_size_max bytes there.
 * <0    the HTTP status to answer with, negative; the connection is then to be closed; *ret is undefined.
 * -400  not an HTTP request, or one that RFC 9112 says to refuse; said at the first byte that shows it, for
 * all that shows before the head is whole (control characters, a method that is no word, a bare CR). Also a
 *       request that announces a body.
 * -405  the method is not GET
 * -414  the request line is longer than line_size_max, or than the head may be; said at the first byte too
 * many -431  the head is longer than head_size_max bytes or has more than headers_max headers -505  a version
 * of HTTP that is neither 1.1 nor 1.0
 *
 * Lines may end in a bare LF (RFC 9112 section 2.2); one empty line before the request is skipped (same
 * place). */
int http_parse(uint8_t *data, size_t len, size_t *scanned, const struct http_limits *limits,
               struct http_request *ret);

/* Case-insensitive, for the tokens of HTTP. Inline, so that the length of a literal is a constant: most
 * headers are told apart by that alone. */
static inline bool http_slice_is(struct slice s, const char *word)
{
    return s.len == strlen(word) && strncasecmp((const char *)s.data, word, s.len) == 0;
}

/* The next element of a comma-separated list (RFC 9110 section 5.6.1), without the blanks around it; empty
 * elements are skipped. *rest begins as the whole value. False: no more. Quotes mean nothing. */
bool http_list_next(struct slice *rest, struct slice *ret);

/* Is `token` an element of that list? Case-insensitive. */
bool http_list_has(struct slice value, const char *token);
