// SPDX-License-Identifier: MIT
#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define BYTES_CAP_MIN 64

void bytes_fini(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){0};
}

void bytes_wipe(struct bytes *b)
{
    if (b->data != NULL)
        explicit_bzero(b->data, b->cap);
    bytes_fini(b);
}

void bytes_clear(struct bytes *b)
{
    b->len = 0;
    b->failed = false;
}

static bool grow(struct bytes *b, size_t need)
{
    size_t cap = b->cap < BYTES_CAP_MIN ? BYTES_CAP_MIN : b->cap;
    while (cap < need) {
        if (cap > SIZE_MAX / 2) {
            cap = need;
            break;
        }
        cap *= 2;
    }
    uint8_t *data = realloc(b->data, cap);
    if (data == NULL)
        return false;
    b->data = data;
    b->cap = cap;
    return true;
}

bool bytes_reserve(struct bytes *b, size_t more)
{
    if (b->failed)
        return false;
    ASSERT(b->len <= b->cap);
    if (more <= b->cap - b->len && b->data != NULL)
        return true;
    if (more > (size_t)PTRDIFF_MAX - b->len || !grow(b, b->len + more)) {
        b->failed = true;
        return false;
    }
    return true;
}

bool bytes_append(struct bytes *b, const void *data, size_t len)
{
    if (!bytes_reserve(b, len))
        return false;
    if (len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    return true;
}

bool bytes_append_str(struct bytes *b, const char *s)
{
    return bytes_append(b, s, strlen(s));
}

bool bytes_append_byte(struct bytes *b, uint8_t c)
{
    if (!bytes_reserve(b, 1))
        return false;
    b->data[b->len++] = c;
    return true;
}

bool bytes_printf(struct bytes *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ASSERT(n >= 0);
    if (!bytes_reserve(b, (size_t)n + 1)) /* vsnprintf ends with a zero byte, which we do not count */
        return false;
    va_start(ap, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return true;
}

void bytes_consume(struct bytes *b, size_t len)
{
    ASSERT(len <= b->len);
    if (len == 0)
        return;
    b->len -= len;
    if (b->len > 0)
        memmove(b->data, b->data + len, b->len);
}

bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool slice_eq_str(struct slice a, const char *s)
{
    return slice_eq(a, (struct slice){(const uint8_t *)s, strlen(s)});
}
