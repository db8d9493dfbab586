// SPDX-License-Identifier: MIT
/* Any bytes as what a trace shows: behind a name that is to be masked nothing of the value is left, in JSON,
 * JSON within a string, and forms; what has no such name comes out as it was. */
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "shard/trace_redact.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* No byte of the input is one of these: the secret is seen if one comes out. */
#define SECRET '\x01'

static void check_masked(const uint8_t *data, size_t len, const char *before, const char *after)
{
    struct bytes in = {0}, out = {0};
    for (size_t i = 0; i < len; i++)
        bytes_append_byte(&in, data[i] == SECRET ? '.' : data[i]);
    bytes_append_str(&in, before);
    for (unsigned i = 0; i < 5; i++)
        bytes_append_byte(&in, SECRET);
    bytes_append_str(&in, after);
    trace_redact(&out, in.data, in.len, "password,token");
    ASSERT(out.len == 0 || memchr(out.data, SECRET, out.len) == NULL);
    bytes_fini(&in);
    bytes_fini(&out);
}

static void check_whole(const uint8_t *data, size_t len)
{
    struct bytes out = {0};
    trace_redact(&out, data, len, "");
    ASSERT(out.len == len && (len == 0 || memcmp(out.data, data, len) == 0));
    bytes_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    check_whole(data, len);
    check_masked(data, len, "\"password\":\"", "\"}");
    check_masked(data, len, "{\\\"Token\\\": \\\"", "\\\"}");
    check_masked(data, len, "&access_token=", "&a=b");
    check_masked(data, len, "\r\nPassword: ", "\r\n");
    return 0;
}
