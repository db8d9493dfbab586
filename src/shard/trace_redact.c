// SPDX-License-Identifier: MIT
#include "shard/trace_redact.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "common/config.h"

struct text {
    const uint8_t *data;
    size_t len;
};

static bool is_at(struct text t, size_t at, const char *chars)
{
    return at < t.len && t.data[at] != '\0' && strchr(chars, t.data[at]) != NULL;
}

static size_t skip(struct text t, size_t at, const char *chars)
{
    while (is_at(t, at, chars))
        at++;
    return at;
}

/* Backslashes right before `at`. */
static size_t escapes_before(struct text t, size_t at)
{
    size_t n = 0;
    while (n < at && t.data[at - n - 1] == '\\')
        n++;
    return n;
}

/* Behind the quote that ends what begins behind `at`; the opening one had so many backslashes before it, as
 * JSON within a string has. */
static size_t end_of_quoted(struct text t, size_t at, uint8_t quote, size_t escapes)
{
    for (; at < t.len; at++) {
        if (t.data[at] != quote)
            continue;
        size_t n = escapes_before(t, at);
        if (escapes == 0 ? n % 2 == 0 : n == escapes)
            return at - escapes;
    }
    return t.len;
}

static size_t end_of_bare(struct text t, size_t at, bool in_json, uint8_t separator)
{
    if (is_at(t, at, "{["))
        return t.len;
    const char *ends = in_json ? ",}]\r\n \t" : separator == ':' ? "\r\n" : "&;\r\n \t\"'";
    while (at < t.len && !is_at(t, at, ends))
        at++;
    return at;
}

/* What stands at `at` ends with a name: where its value begins and ends. False: no value follows. */
static bool find_value(struct text t, size_t at, size_t *ret_begin, size_t *ret_end)
{
    size_t quoted = skip(t, at, "\\\"'");
    size_t separator = skip(t, quoted, " \t");
    if (!is_at(t, separator, ":="))
        return false;
    size_t begin = skip(t, separator + 1, " \t");
    size_t quote = skip(t, begin, "\\");
    if (is_at(t, quote, "\"'")) {
        *ret_begin = quote + 1;
        *ret_end = end_of_quoted(t, quote + 1, t.data[quote], quote - begin);
    } else {
        *ret_begin = begin;
        *ret_end = end_of_bare(t, begin, quoted > at, t.data[separator]);
    }
    return true;
}

/* Length of the name that stands at `at`; 0: none. */
static size_t name_at(struct text t, size_t at, const char *names)
{
    const char *name;
    for (size_t len; config_list_next(&names, &name, &len);) {
        if (len <= t.len - at && strncasecmp((const char *)t.data + at, name, len) == 0 &&
            (at + len == t.len || !isalnum(t.data[at + len])))
            return len;
    }
    return 0;
}

void trace_redact(struct bytes *out, const uint8_t *data, size_t len, const char *names)
{
    struct text t = {data, len};
    size_t done = 0, begin, end;
    for (size_t at = 0; at < len; at++) {
        size_t n = name_at(t, at, names);
        if (n == 0 || !find_value(t, at + n, &begin, &end))
            continue;
        /* A name within what is masked anyway has a value too, which may go on behind it. */
        if (begin >= done) {
            bytes_append(out, data + done, begin - done);
            bytes_append_str(out, "***");
            done = end;
        }
        if (end > done)
            done = end;
    }
    bytes_append(out, data + done, len - done);
}
