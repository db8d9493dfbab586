// SPDX-License-Identifier: MIT
#include "admin/json_rows.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/utf8_char.h"

struct scan {
    struct slice text;
    size_t at;
};

/* The byte that comes, 0 at the end: no value begins or goes on with it. */
static uint8_t peek(const struct scan *s)
{
    return s->at < s->text.len ? s->text.data[s->at] : 0;
}

static bool take(struct scan *s, uint8_t c)
{
    if (s->at >= s->text.len || s->text.data[s->at] != c)
        return false;
    s->at++;
    return true;
}

static void skip_blanks(struct scan *s)
{
    while (peek(s) == ' ' || peek(s) == '\t' || peek(s) == '\n' || peek(s) == '\r')
        s->at++;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(uint8_t c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Behind the backslash. */
static bool scan_escape(struct scan *s)
{
    uint8_t c = peek(s);
    if (c == 0 || strchr("\"\\/bfnrtu", c) == NULL)
        return false;
    s->at++;
    for (unsigned i = 0; c == 'u' && i < 4; i++) {
        if (!is_hex(peek(s)))
            return false;
        s->at++;
    }
    return true;
}

static bool scan_string(struct scan *s)
{
    if (!take(s, '"'))
        return false;
    while (!take(s, '"')) {
        if (take(s, '\\')) {
            if (!scan_escape(s))
                return false;
            continue;
        }
        size_t n = utf8_char_len(s->text.data + s->at, s->text.len - s->at);
        if (n == 0 || s->text.data[s->at] < 0x20)
            return false;
        s->at += n;
    }
    return true;
}

static bool scan_digits(struct scan *s)
{
    if (!is_digit(peek(s)))
        return false;
    while (is_digit(peek(s)))
        s->at++;
    return true;
}

static bool scan_number(struct scan *s)
{
    take(s, '-');
    if (!take(s, '0') && !scan_digits(s))
        return false;
    if (take(s, '.') && !scan_digits(s))
        return false;
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+'))
            take(s, '-');
        return scan_digits(s);
    }
    return true;
}

static bool scan_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);
    if (s->text.len - s->at < len || memcmp(s->text.data + s->at, word, len) != 0)
        return false;
    s->at += len;
    return true;
}

static bool scan_value(struct scan *s, unsigned depth);

/* An object or array, from its bracket to its end. */
static bool scan_items(struct scan *s, unsigned depth)
{
    bool object = peek(s) == '{';
    uint8_t end = object ? '}' : ']';

    s->at++;
    skip_blanks(s);
    if (take(s, end))
        return true;
    do {
        skip_blanks(s);
        if (object) {
            if (!scan_string(s))
                return false;
            skip_blanks(s);
            if (!take(s, ':'))
                return false;
        }
        if (!scan_value(s, depth))
            return false;
        skip_blanks(s);
    } while (take(s, ','));
    return take(s, end);
}

static bool scan_value(struct scan *s, unsigned depth)
{
    skip_blanks(s);
    switch (peek(s)) {
    case '{':
    case '[': return depth < JSON_ROWS_DEPTH_MAX && scan_items(s, depth + 1);
    case '"': return scan_string(s);
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    case 'n': return scan_word(s, "null");
    default: return scan_number(s);
    }
}

int json_rows_next(struct slice text, size_t *pos, struct slice *ret)
{
    struct scan s = {text, *pos};

    skip_blanks(&s);
    if (s.at == text.len) /* behind a comma there is another one */
        return *pos > 0 && text.data[*pos - 1] == ',' ? -EBADMSG : 0;
    size_t begin = s.at;
    if (peek(&s) != '{' || !scan_value(&s, 0))
        return -EBADMSG;
    size_t end = s.at;
    skip_blanks(&s);
    if (s.at < text.len && !take(&s, ','))
        return -EBADMSG;
    *ret = (struct slice){text.data + begin, end - begin};
    *pos = s.at;
    return 1;
}

int json_rows_count(struct slice text)
{
    size_t pos = 0;
    struct slice row;
    int n = 0, r;
    while ((r = json_rows_next(text, &pos, &row)) > 0 && n < INT_MAX)
        n++;
    return r < 0 ? r : n;
}
