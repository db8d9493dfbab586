// SPDX-License-Identifier: MIT
/* serialize(): what is written for a value is read back to the same text; merging with nothing changes
 * nothing. A text with a line feed in it is a session and a patch. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "proto/php/php_json.h"
#include "proto/php/php_value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct slice of(const struct bytes *b)
{
    return (struct slice){b->data, b->len};
}

/* An array that contains itself is written with a null where it would come again, so its text says less than
 * it, and a forged class name may change the number of properties: then the texts differ, but are taken all
 * the same, until nothing is lost any more. */
static void check_value(struct slice value)
{
    struct bytes a = {0}, b = {0}, json = {0};
    int err = php_reserialize(&a, value);
    ASSERT(err == 0 || err == -EPROTO || err == -ENOMEM);
    ASSERT(err == 0 || a.len == 0);
    if (err == 0 && memmem(a.data, a.len, "__PHP_Incomplete_Class", 22) == NULL) {
        err = php_reserialize(&b, of(&a));
        ASSERT(err == 0 || err == -EPROTO); /* self-containing arrays unfold and may come to be too deep */
        if (err == 0 && memmem(value.data, value.len, "R:", 2) == NULL)
            ASSERT(slice_eq(of(&a), of(&b)));
    }
    err = php_to_json(&json, value);
    ASSERT(err == 0 || json.len == 0);
    bytes_fini(&a);
    bytes_fini(&b);
    bytes_fini(&json);
}

static void check_merge(struct slice session, struct slice patch)
{
    struct bytes merged = {0}, twice = {0}, alone = {0};
    int err = php_session_merge(&merged, session, patch);
    ASSERT(err <= 0 && (err == 0 || merged.len == 0));
    if (err == 0)
        ASSERT(merged.len >= 6 && merged.data[0] == 'a');
    bool plain = memmem(session.data, session.len, "R:", 2) == NULL;
    if (php_session_merge(&twice, session, SLICE_STR("a:0:{}")) == 0 && plain) {
        ASSERT(php_reserialize(&alone, session) == 0);
        ASSERT(slice_eq(of(&twice), of(&alone)));
    }
    bytes_fini(&merged);
    bytes_fini(&twice);
    bytes_fini(&alone);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    hash_init_fixed(1);
    const uint8_t *line = len == 0 ? NULL : memchr(data, '\n', len);
    size_t first = line == NULL ? len : (size_t)(line - data);
    struct slice session = {data, first}, patch = {data, first};
    if (line != NULL)
        patch = (struct slice){line + 1, len - first - 1};
    check_value((struct slice){data, len});
    check_merge(session, patch);
    return 0;
}
