// SPDX-License-Identifier: MIT
/* Query strings, cookies and targets: whatever comes, the result is a serialized array that reads back the
 * same. */
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "proto/php/php_parse_str.h"
#include "proto/php/php_value.h"
#include "proto/php/ws_connect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_array(struct bytes *b)
{
    struct bytes again = {0};
    ASSERT(b->len >= 6 && memcmp(b->data, "a:", 2) == 0);
    ASSERT(php_reserialize(&again, (struct slice){b->data, b->len}) == 0);
    ASSERT(slice_eq((struct slice){again.data, again.len}, (struct slice){b->data, b->len}));
    bytes_fini(&again);
    bytes_fini(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct bytes query = {0}, cookie = {0}, scratch = {0}, body = {0};
    struct slice in = {data, len}, found;
    hash_init_fixed(1);
    ASSERT(php_parse_str(&query, in, 50) == 0);
    check_array(&query);
    ASSERT(php_parse_cookie(&cookie, in) == 0);
    check_array(&cookie);
    ASSERT(php_url_query(in, &scratch, &found) == 0 && found.len <= len);
    bytes_fini(&scratch);
    struct http_request req = {.method = SLICE_STR("GET"), .target = in, .version = SLICE_STR("1.1")};
    req.headers[req.n_headers++] = (struct http_header){SLICE_STR("Cookie"), in};
    if (len > 0)
        req.headers[req.n_headers++] = (struct http_header){in, SLICE_STR("x")};
    ASSERT(php_ws_connect(&body, &req, "::1", 1, 2) == 0);
    check_array(&body);
    return 0;
}
