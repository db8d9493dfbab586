// SPDX-License-Identifier: MIT
#include "base/json_writer.h"

#include <inttypes.h>
#include <string.h>

#include "base/utf8_char.h"

static void before_value(struct json_writer *w)
{
    if (w->comma)
        bytes_append_byte(w->out, ',');
    w->comma = true;
}

void json_begin(struct json_writer *w, char bracket)
{
    before_value(w);
    bytes_append_byte(w->out, (uint8_t)bracket);
    w->comma = false;
}

void json_end(struct json_writer *w, char bracket)
{
    bytes_append_byte(w->out, (uint8_t)bracket);
    w->comma = true;
}

void json_key(struct json_writer *w, const char *key)
{
    before_value(w);
    bytes_append_byte(w->out, '"');
    bytes_append_str(w->out, key);
    bytes_append_str(w->out, "\":");
    w->comma = false;
}

void json_uint(struct json_writer *w, uint64_t value)
{
    before_value(w);
    bytes_printf(w->out, "%" PRIu64, value);
}

void json_int(struct json_writer *w, int64_t value)
{
    before_value(w);
    bytes_printf(w->out, "%" PRId64, value);
}

void json_bool(struct json_writer *w, bool value)
{
    before_value(w);
    bytes_append_str(w->out, value ? "true" : "false");
}

void json_write_null(struct json_writer *w)
{
    before_value(w);
    bytes_append_str(w->out, "null");
}

static void write_char(struct json_writer *w, const uint8_t *p, size_t len)
{
    if (p[0] == '"' || p[0] == '\\') {
        bytes_append_byte(w->out, '\\');
        bytes_append_byte(w->out, p[0]);
    } else if (p[0] < 0x20 || p[0] == 0x7f) {
        bytes_printf(w->out, "\\u%04x", p[0]);
    } else {
        bytes_append(w->out, p, len);
    }
}

void json_write_text(struct json_writer *w, const void *data, size_t len, size_t max)
{
    const uint8_t *p = data;
    size_t left = max != 0 && len > max ? max : len;

    before_value(w);
    bytes_append_byte(w->out, '"');
    while (left > 0) {
        size_t n = utf8_char_len(p, len); /* whether it is one does not depend on where we stop */
        if (n > left)
            break;
        if (n == 0)
            bytes_append_str(w->out, "\xef\xbf\xbd");
        else
            write_char(w, p, n);
        n += n == 0;
        p += n;
        left -= n;
        len -= n;
    }
    bytes_append_byte(w->out, '"');
}

void json_str(struct json_writer *w, const char *text)
{
    if (text == NULL)
        json_write_null(w);
    else
        json_write_text(w, text, strlen(text), 0);
}

void json_raw(struct json_writer *w, const void *data, size_t len)
{
    before_value(w);
    bytes_append(w->out, data, len);
}

void json_member_uint(struct json_writer *w, const char *key, uint64_t value)
{
    json_key(w, key);
    json_uint(w, value);
}

void json_member_int(struct json_writer *w, const char *key, int64_t value)
{
    json_key(w, key);
    json_int(w, value);
}

void json_member_bool(struct json_writer *w, const char *key, bool value)
{
    json_key(w, key);
    json_bool(w, value);
}

void json_member_str(struct json_writer *w, const char *key, const char *text)
{
    json_key(w, key);
    json_str(w, text);
}

void json_member_string(struct json_writer *w, const char *key, const void *data, size_t len, size_t max)
{
    json_key(w, key);
    json_write_text(w, data, len, max);
}
