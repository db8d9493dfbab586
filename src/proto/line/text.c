// SPDX-License-Identifier: MIT
#include "proto/line/text.h"

#include <errno.h>
#include <string.h>

ssize_t text_decode(const uint8_t *data, size_t len, size_t *scanned, size_t size_max, struct slice *ret)
{
    /* The newline may be the byte after size_max others; a search beyond it could only end in an error. */
    size_t n = len > size_max ? size_max + 1 : len;
    const uint8_t *newline = n > *scanned ? memchr(data + *scanned, '\n', n - *scanned) : NULL;
    if (newline == NULL) {
        *scanned = n;
        return n > size_max ? -EMSGSIZE : 0;
    }
    size_t end = (size_t)(newline - data);
    *ret = (struct slice){data, end};
    while (ret->len > 0 && (data[ret->len - 1] == '\r' || data[ret->len - 1] == '\n'))
        ret->len--;
    *scanned = 0;
    return (ssize_t)end + 1;
}

size_t text_encode(uint8_t *out, const void *data, size_t len)
{
    if (len > 0)
        memcpy(out, data, len);
    out[len] = '\n';
    return len + TEXT_OVERHEAD;
}
