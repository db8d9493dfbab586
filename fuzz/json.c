// SPDX-License-Identifier: MIT
/* The JSON reader against jansson, where both have the same idea of what JSON is; strings written and read
 * back. */
#include <jansson.h>
#include <string.h>

#include "base/assert.h"
#include "proto/gw/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_string(const struct json_value *v)
{
    struct bytes scratch = {0}, out = {0}, again = {0};
    struct json_reader r;
    struct json_value back;
    struct slice s, t;
    ASSERT(json_unescape(v, &scratch, &s) == 0 && s.len <= v->text.len);
    json_write_string(&out, s);
    json_init(&r, (struct slice){out.data, out.len});
    ASSERT(json_next(&r, &back) == JSON_TOK_STRING && json_unescape(&back, &again, &t) == 0);
    ASSERT(slice_eq(s, t));
    ASSERT(json_next(&r, &back) == JSON_TOK_DONE);
    bytes_fini(&scratch);
    bytes_fini(&out);
    bytes_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct json_reader r;
    struct json_value v;
    json_error_t error;
    int token, depth = 0;
    json_init(&r, (struct slice){data, len});
    while ((token = json_next(&r, &v)) > 0) {
        depth += (token == JSON_TOK_ARRAY || token == JSON_TOK_OBJECT) -
                 (token == JSON_TOK_ARRAY_END || token == JSON_TOK_OBJECT_END);
        ASSERT(depth == (int)r.depth && depth <= JSON_DEPTH_MAX);
        if (token == JSON_TOK_STRING || token == JSON_TOK_KEY)
            check_string(&v);
        int64_t number;
        if (token == JSON_TOK_FLOAT)
            ASSERT(!json_int64(v.text, &number));
    }
    ASSERT(token == JSON_TOK_DONE || token == -EPROTO);
    ASSERT(json_next(&r, &v) == token);
    if (len > 0 && memchr(data, 0, len) == NULL) { /* jansson ends at a zero byte in some places */
        json_t *tree = json_loadb((const char *)data, len, JSON_DECODE_ANY, &error);
        /* What it takes, we take. It refuses more: numbers out of range, "\\u0000". */
        ASSERT(tree == NULL || token == JSON_TOK_DONE || r.depth == JSON_DEPTH_MAX);
        json_decref(tree);
    }
    return 0;
}
