// SPDX-License-Identifier: MIT
/* UTF-8: SIMD and automaton agree, in one piece, in two, and at any place in a longer text. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void compare(const uint8_t *data, size_t len, size_t split)
{
    uint32_t want = utf8_feed_slow(UTF8_ACCEPT, data, len);
    split = split < len ? split : len;
    ASSERT(utf8_feed(UTF8_ACCEPT, data, len) == want);
    ASSERT(utf8_valid(data, len) == (want == UTF8_ACCEPT));
    uint32_t state = utf8_feed(UTF8_ACCEPT, data, split);
    ASSERT(state == utf8_feed_slow(UTF8_ACCEPT, data, split));
    ASSERT(utf8_feed(state, data + split, len - split) == want);
}

/* The first two bytes: where to cut, and how much other text stands around. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 2)
        return 0;
    size_t shift = data[0], split = data[1];
    data += 2;
    len -= 2;
    compare(data, len, split);
    uint8_t *text = malloc(shift + len + 100);
    ASSERT(text != NULL);
    memset(text, 'a', shift);
    for (size_t i = 0; i + 2 <= shift; i += 2)
        memcpy(text + i, "\xC3\xA9", 2);
    if (len > 0)
        memcpy(text + shift, data, len);
    memset(text + shift + len, 'z', 100);
    compare(text, shift + len + 100, split);
    free(text);
    return 0;
}
