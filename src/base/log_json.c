// SPDX-License-Identifier: MIT
#include "base/log_json.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8_char.h"

/* Longest value after unescaping; a line of the log is not longer. */
#define VALUE_MAX 4096

struct words {
    const char *p, *end;
};

void log_line_add(struct log_line *l, const char *data, size_t len)
{
    if (l->full || len > l->cap - l->len) {
        l->full = true;
        return;
    }
    memcpy(l->data + l->len, data, len);
    l->len += len;
}

static void json_char(struct log_line *l, const char *p, size_t len)
{
    char escaped[8];
    uint8_t c = (uint8_t)p[0];

    if (c == '"' || c == '\\') {
        escaped[0] = '\\';
        escaped[1] = (char)c;
        log_line_add(l, escaped, 2);
    } else if (c < 0x20 || c == 0x7f) {
        snprintf(escaped, sizeof(escaped), "\\u%04x", c);
        log_line_add(l, escaped, 6);
    } else {
        log_line_add(l, p, len);
    }
}

void log_json_string(struct log_line *l, const char *data, size_t len)
{
    log_line_add(l, "\"", 1);
    while (len > 0) {
        size_t n = utf8_char_len((const uint8_t *)data, len);
        if (n == 0)
            log_line_add(l, "\xef\xbf\xbd", 3);
        else
            json_char(l, data, n);
        data += n == 0 ? 1 : n;
        len -= n == 0 ? 1 : n;
    }
    log_line_add(l, "\"", 1);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* One character of a quoted value, w->p past it. */
static char unescape(struct words *w)
{
    char c = *w->p++;
    if (c != '\\' || w->p == w->end)
        return c;
    c = *w->p++;
    if (c == 'n')
        return '\n';
    if (c == 'x' && w->end - w->p >= 2 && hex_digit(w->p[0]) >= 0 && hex_digit(w->p[1]) >= 0) {
        c = (char)(hex_digit(w->p[0]) * 16 + hex_digit(w->p[1]));
        w->p += 2;
    }
    return c;
}

/* A quote within the value that does not end the word (a caller that did not use log_quote) belongs to the
 * value. */
static bool at_closing_quote(const struct words *w)
{
    return w->p[0] == '"' && (w->p + 1 == w->end || w->p[1] == ' ');
}

static size_t quoted_value(struct words *w, char *value)
{
    size_t n = 0;
    w->p++;
    while (w->p < w->end && !at_closing_quote(w) && n < VALUE_MAX)
        value[n++] = unescape(w);
    if (w->p < w->end)
        w->p++;
    return n;
}

/* What JSON takes as a whole number without losing any of it in a double. */
static bool is_number(const char *p, size_t len)
{
    if (len > 0 && *p == '-') {
        p++;
        len--;
    }
    if (len == 0 || len > 15 || (p[0] == '0' && len > 1))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
    }
    return true;
}

static void add_key(struct log_line *l, const char *key, size_t len)
{
    static const char *const taken[] = {"time", "level", "process", "event"};
    char renamed[16];

    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        if (strlen(taken[i]) == len && memcmp(taken[i], key, len) == 0) {
            len = (size_t)snprintf(renamed, sizeof(renamed), "%s_", taken[i]);
            key = renamed;
            break;
        }
    }
    log_line_add(l, ",", 1);
    log_json_string(l, key, len);
    log_line_add(l, ":", 1);
}

static void add_value(struct log_line *l, struct words *w)
{
    if (w->p < w->end && *w->p == '"') {
        char value[VALUE_MAX];
        log_json_string(l, value, quoted_value(w, value));
        return;
    }
    const char *start = w->p;
    while (w->p < w->end && *w->p != ' ')
        w->p++;
    size_t len = (size_t)(w->p - start);
    if (is_number(start, len))
        log_line_add(l, start, len);
    else
        log_json_string(l, start, len);
}

/* Words up to the next space or `=`. */
static size_t word_len(const struct words *w)
{
    size_t n = 0;
    while (w->p + n < w->end && w->p[n] != ' ' && w->p[n] != '=')
        n++;
    return n;
}

void log_json_members(struct log_line *l, const char *words, size_t len)
{
    struct words w = {words, words + len};
    char text[VALUE_MAX];
    struct log_line loose = {.data = text, .cap = sizeof(text)};

    for (;;) {
        size_t before = l->len;
        while (w.p < w.end && *w.p == ' ')
            w.p++;
        if (w.p == w.end)
            break;
        const char *word = w.p;
        size_t n = word_len(&w);
        w.p += n;
        if (n > 0 && w.p < w.end && *w.p == '=') {
            w.p++;
            add_key(l, word, n);
            add_value(l, &w);
        } else {
            while (w.p < w.end && *w.p != ' ')
                w.p++;
            log_line_add(&loose, " ", loose.len > 0 ? 1 : 0);
            log_line_add(&loose, word, (size_t)(w.p - word));
        }
        if (l->full) {
            l->len = before;
            return;
        }
    }
    if (loose.len > 0) {
        size_t before = l->len;
        add_key(l, "text", 4);
        log_json_string(l, text, loose.len);
        if (l->full)
            l->len = before;
    }
}
