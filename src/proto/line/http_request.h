// SPDX-License-Identifier: MIT
/* The parsed head of an HTTP/1.1 request, as the WebSocket handshake leaves it. All slices point into the
 * buffer that was parsed (folded header values have been unfolded in place) and live as long as it does. */
#pragma once

#include "base/bytes.h"

struct http_header {
    struct slice name;  /* as it came */
    struct slice value; /* without surrounding white space */
};

#define HTTP_HEADERS_MAX 128

struct http_request {
    struct slice method;
    struct slice target;  /* "/chat?a=1", as it came */
    struct slice path;    /* "/chat" */
    struct slice query;   /* "a=1", without '?'; empty when there is none */
    struct slice version; /* "1.1" */
    struct slice host;    /* Host header without the port; empty when there is none */
    unsigned n_headers;
    struct http_header headers[HTTP_HEADERS_MAX];
};

/* First header of that name (case-insensitive), or NULL. */
const struct slice *http_request_header(const struct http_request *req, const char *name);
