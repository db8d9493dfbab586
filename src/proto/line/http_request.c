// SPDX-License-Identifier: MIT
#include "proto/line/http_request.h"

#include <string.h>
#include <strings.h>

const struct slice *http_request_header(const struct http_request *req, const char *name)
{
    size_t len = strlen(name);
    for (unsigned i = 0; i < req->n_headers; i++) {
        const struct http_header *h = &req->headers[i];
        if (h->name.len == len && strncasecmp((const char *)h->name.data, name, len) == 0)
            return &h->value;
    }
    return NULL;
}
