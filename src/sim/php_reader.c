// SPDX-License-Identifier: MIT
#include "sim/php_reader.h"

#include <stdio.h>
#include <string.h>

static struct slice take(struct php_reader *r, size_t len)
{
    if (r->bad || r->rest.len < len) {
        r->bad = true;
        return (struct slice){0};
    }
    struct slice s = {r->rest.data, len};
    r->rest.data += len;
    r->rest.len -= len;
    return s;
}

static void expect(struct php_reader *r, const char *text)
{
    if (!slice_eq_str(take(r, strlen(text)), text))
        r->bad = true;
}

/* Digits up to `end`, which is taken too. */
static int64_t number(struct php_reader *r, char end)
{
    int64_t v = 0;
    bool negative = r->rest.len > 0 && r->rest.data[0] == '-';
    if (negative)
        take(r, 1);
    for (unsigned digits = 0; !r->bad; digits++) {
        struct slice c = take(r, 1);
        if (c.len == 1 && c.data[0] == (uint8_t)end && digits > 0)
            return negative ? -v : v;
        if (c.len == 0 || c.data[0] < '0' || c.data[0] > '9' || digits > 18)
            r->bad = true;
        else
            v = v * 10 + (c.data[0] - '0');
    }
    return 0;
}

void php_read_null(struct php_reader *r)
{
    expect(r, "N;");
}

int64_t php_read_int(struct php_reader *r)
{
    expect(r, "i:");
    return number(r, ';');
}

struct slice php_read_string(struct php_reader *r)
{
    expect(r, "s:");
    size_t len = (size_t)number(r, ':');
    expect(r, "\"");
    struct slice s = take(r, len);
    expect(r, "\";");
    return s;
}

uint32_t php_read_array(struct php_reader *r)
{
    expect(r, "a:");
    uint32_t n = (uint32_t)number(r, ':');
    expect(r, "{");
    return r->bad ? 0 : n;
}

void php_read_array_end(struct php_reader *r)
{
    expect(r, "}");
}

struct slice php_read_key(struct php_reader *r)
{
    if (r->rest.len == 0 || r->rest.data[0] != 'i')
        return php_read_string(r);
    int n = snprintf(r->number, sizeof r->number, "%lld", (long long)php_read_int(r));
    return (struct slice){(const uint8_t *)r->number, (size_t)n};
}
