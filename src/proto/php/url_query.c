// SPDX-License-Identifier: MIT
/* parse_url(), as far as the query depends on it. Request targets are paths nearly always; but PHP also takes
 * them for "scheme:...", "host:port/..." or "//host/...", and finds some of them malformed. */
#include "proto/php/ws_connect.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MALFORMED SIZE_MAX /* as the place where the path begins */

static bool at(struct slice t, size_t i, char c)
{
    return i < t.len && t.data[i] == (uint8_t)c;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static size_t first_of(struct slice t, size_t from, const char *set)
{
    while (from < t.len && (t.data[from] == '\0' || strchr(set, t.data[from]) == NULL))
        from++;
    return from;
}

/* The last c in [from, to), or `to`. */
static size_t last_of(struct slice t, size_t from, size_t to, char c)
{
    const uint8_t *p = memrchr(t.data + from, c, to - from);
    return p == NULL ? to : (size_t)(p - t.data);
}

/* The number, or -1: strtol's idea of one (leading space and sign, anything behind it), within 16 bits. */
static long port_of(const uint8_t *s, size_t len)
{
    char text[8], *end;
    memcpy(text, s, len);
    text[len] = '\0';
    long port = strtol(text, &end, 10);
    return port >= 0 && port <= 65535 && end != text ? port : -1;
}

/* "host:port/path" from `from` on: where the path begins. known_port: one has been found before. */
static size_t path_behind_host(struct slice t, size_t from, bool known_port)
{
    size_t end = first_of(t, from, "/?#"), login = last_of(t, from, end, '@');
    if (login < end)
        from = login + 1;
    bool bracketed = at(t, from, '[') && from < end && t.data[end - 1] == ']';
    size_t colon = bracketed ? end : last_of(t, from, end, ':');
    size_t port_len = colon < end ? end - colon - 1 : 0;
    if (port_len > 0 && !known_port && (port_len > 5 || port_of(t.data + colon + 1, port_len) < 0))
        return MALFORMED;
    return colon > from ? end : MALFORMED;
}

/* The colon may stand before a port, "host:80" or "//host:80". */
static size_t path_behind_port(struct slice t, size_t colon)
{
    size_t start = colon + 1, end = start, host = at(t, 0, '/') && at(t, 1, '/') ? 2 : 0;
    while (end < t.len && end - start < 6 && is_digit(t.data[end]))
        end++;
    size_t len = end - start;
    if (len > 0 && len < 6 && (end == t.len || t.data[end] == '/')) {
        long port = port_of(t.data + start, len);
        return port < 0 ? MALFORMED : path_behind_host(t, host, port != 0);
    }
    if (start == t.len)
        return MALFORMED;
    return host > 0 ? path_behind_host(t, host, false) : 0;
}

static bool is_scheme(struct slice t, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = t.data[i];
        if (!isalnum(c) && c != '+' && c != '.' && c != '-')
            return false;
    }
    return true;
}

static size_t path_behind_scheme(struct slice t, size_t colon)
{
    size_t i = colon + 1;
    if (i == t.len)
        return t.len;
    if (t.data[i] != '/') {
        while (i < t.len && i - colon < 7 && is_digit(t.data[i]))
            i++;
        bool port = (i == t.len || t.data[i] == '/') && i - colon < 7;
        return port ? path_behind_port(t, colon) : colon + 1;
    }
    if (!at(t, i + 1, '/'))
        return i;
    if (colon == 4 && strncasecmp((const char *)t.data, "file", 4) == 0 && at(t, i + 2, '/'))
        return i + 2;
    return path_behind_host(t, i + 2, false);
}

/* Where path, query and fragment begin, or MALFORMED. */
static size_t path_start(struct slice t)
{
    const uint8_t *p = memchr(t.data, ':', t.len);
    size_t colon = p == NULL ? t.len : (size_t)(p - t.data);
    bool host = at(t, 0, '/') && at(t, 1, '/');
    if (p != NULL && colon > 0 && is_scheme(t, colon))
        return path_behind_scheme(t, colon);
    if (p != NULL && (colon == 0 || (colon + 1 < t.len && colon < first_of(t, 0, "?#"))))
        return path_behind_port(t, colon);
    return host ? path_behind_host(t, 2, false) : 0;
}

int php_url_query(struct slice target, struct bytes *scratch, struct slice *ret)
{
    *ret = SLICE_STR("");
    size_t start = target.len == 0 ? MALFORMED : path_start(target);
    if (start == MALFORMED)
        return 0;
    size_t end = first_of(target, start, "#");
    size_t from = first_of((struct slice){target.data, end}, start, "?") + 1;
    if (from >= end)
        return 0;
    *ret = (struct slice){target.data + from, end - from};
    bool clean = true;
    for (size_t i = 0; i < ret->len && clean; i++)
        clean = ret->data[i] >= 0x20 && ret->data[i] != 0x7F;
    if (clean)
        return 0;
    if (!bytes_reserve(scratch, ret->len))
        return -ENOMEM;
    uint8_t *copy = scratch->data + scratch->len;
    for (size_t i = 0; i < ret->len; i++)
        copy[i] = ret->data[i] < 0x20 || ret->data[i] == 0x7F ? '_' : ret->data[i];
    scratch->len += ret->len;
    ret->data = copy;
    return 0;
}
