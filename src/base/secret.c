// SPDX-License-Identifier: MIT
#include "base/secret.h"

#include <stdint.h>

bool secret_equal(const void *a, size_t a_len, const void *b, size_t b_len)
{
    static const uint8_t nothing = 0;
    const uint8_t *x = a, *y = b_len > 0 ? b : &nothing;
    size_t last = b_len > 0 ? b_len - 1 : 0;
    /* volatile: else the compiler may see that a non-zero value never becomes zero again, and stop early. */
    volatile uint8_t diff = a_len != b_len;

    for (size_t i = 0; i < a_len; i++) {
        size_t beyond = (size_t)0 - (size_t)(i > last); /* all ones past the end of b: then look at b[0] */
        diff = diff | (x[i] ^ y[i & ~beyond]);
    }
    return diff == 0;
}
