// SPDX-License-Identifier: MIT
#include "proto/gw/json.h"

#include <string.h>

#include "base/assert.h"
#include "base/utf8_char.h"

enum json__expect {
    EXPECT_VALUE,
    EXPECT_VALUE_OR_END, /* just behind '[' */
    EXPECT_KEY,
    EXPECT_KEY_OR_END, /* just behind '{' */
    EXPECT_COMMA,      /* or the end of the container; outside of all: the end of the text */
    EXPECT_NOTHING,    /* an error has been returned */
};

void json_init(struct json_reader *r, struct slice text)
{
    r->pos = text.data;
    r->end = text.data == NULL ? text.data : text.data + text.len;
    r->depth = 0;
    r->expect = EXPECT_VALUE;
}

static bool in_object(const struct json_reader *r)
{
    uint32_t level = r->depth - 1;
    return r->is_object[level / 64] >> (level % 64) & 1;
}

static int fail(struct json_reader *r)
{
    r->expect = EXPECT_NOTHING;
    return -EPROTO;
}

static void skip_space(struct json_reader *r)
{
    while (r->pos < r->end && (*r->pos == ' ' || *r->pos == '\n' || *r->pos == '\r' || *r->pos == '\t'))
        r->pos++;
}

static int open_container(struct json_reader *r, bool object)
{
    if (r->depth == JSON_DEPTH_MAX)
        return fail(r);
    uint64_t bit = UINT64_C(1) << (r->depth % 64);
    uint64_t *word = &r->is_object[r->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    r->depth++;
    r->pos++;
    r->expect = object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;
    return object ? JSON_TOK_OBJECT : JSON_TOK_ARRAY;
}

static int close_container(struct json_reader *r)
{
    bool object = in_object(r);
    if (*r->pos != (object ? '}' : ']'))
        return fail(r);
    r->pos++;
    r->depth--;
    r->expect = EXPECT_COMMA;
    return object ? JSON_TOK_OBJECT_END : JSON_TOK_ARRAY_END;
}

static int hex4(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 4)
        return -1;
    int v = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i], lower = c | 0x20;
        int digit = c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        v = v << 4 | digit;
    }
    return v;
}

/* Length of the escape at p (which points at its backslash), or 0. */
static size_t escape_len(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 2)
        return 0;
    if (p[1] != 'u')
        return p[1] != 0 && strchr("\"\\/bfnrt", p[1]) != NULL ? 2 : 0;
    int v = hex4(p + 2, end);
    if (v < 0 || (v >= 0xDC00 && v < 0xE000))
        return 0;
    if (v < 0xD800 || v >= 0xE000)
        return 6;
    if (end - p < 12 || p[6] != '\\' || p[7] != 'u')
        return 0;
    int low = hex4(p + 8, end);
    return low >= 0xDC00 && low < 0xE000 ? 12 : 0;
}

/* 1: nothing to look at in a string; everything else is a quote, a backslash, a control character or beyond
 * ASCII. */
static inline bool is_plain(uint8_t c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* pos stands on the opening quote. */
static bool read_string(struct json_reader *r, struct json_value *v)
{
    const uint8_t *p = r->pos + 1, *end = r->end;
    v->text.data = p;
    v->escaped = false;
    for (;;) {
        while (p < end && is_plain(*p))
            p++;
        if (p == end || *p < 0x20)
            return false;
        if (*p == '"')
            break;
        size_t n = *p == '\\' ? escape_len(p, end) : utf8_char_len(p, (size_t)(end - p));
        if (n == 0)
            return false;
        v->escaped |= *p == '\\';
        p += n;
    }
    v->text.len = (size_t)(p - v->text.data);
    r->pos = p + 1;
    return true;
}

static const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

static int read_number(struct json_reader *r, struct json_value *v)
{
    const uint8_t *start = r->pos, *p = start, *end = r->end, *digits;
    int token = JSON_TOK_INT;
    p += *p == '-';
    digits = p;
    p = skip_digits(p, end);
    if (p == digits || (*digits == '0' && p - digits > 1))
        return fail(r);
    if (p < end && *p == '.') {
        digits = ++p;
        p = skip_digits(p, end);
        if (p == digits)
            return fail(r);
        token = JSON_TOK_FLOAT;
    }
    if (p < end && (*p | 0x20) == 'e') {
        p++;
        p += p < end && (*p == '+' || *p == '-');
        digits = p;
        p = skip_digits(p, end);
        if (p == digits)
            return fail(r);
        token = JSON_TOK_FLOAT;
    }
    v->text = (struct slice){start, (size_t)(p - start)};
    v->escaped = false;
    r->pos = p;
    return token;
}

static int read_word(struct json_reader *r)
{
    static const struct {
        const char *word;
        size_t len;
        int token;
    } words[] = {{"null", 4, JSON_TOK_NULL}, {"true", 4, JSON_TOK_TRUE}, {"false", 5, JSON_TOK_FALSE}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = words[i].len;
        if ((size_t)(r->end - r->pos) >= n && memcmp(r->pos, words[i].word, n) == 0) {
            r->pos += n;
            return words[i].token;
        }
    }
    return fail(r);
}

static int read_value(struct json_reader *r, struct json_value *v)
{
    uint8_t c = *r->pos;
    if (c == '[' || c == '{')
        return open_container(r, c == '{');
    r->expect = EXPECT_COMMA;
    if (c == '"')
        return read_string(r, v) ? JSON_TOK_STRING : fail(r);
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(r, v);
    return read_word(r);
}

static int read_key(struct json_reader *r, struct json_value *v)
{
    if (*r->pos != '"' || !read_string(r, v))
        return fail(r);
    skip_space(r);
    if (r->pos == r->end || *r->pos != ':')
        return fail(r);
    r->pos++;
    r->expect = EXPECT_VALUE;
    return JSON_TOK_KEY;
}

int json_next(struct json_reader *r, struct json_value *v)
{
    skip_space(r);
    if (r->pos == r->end) {
        if (r->expect == EXPECT_COMMA && r->depth == 0)
            return JSON_TOK_DONE;
        return fail(r);
    }
    switch ((enum json__expect)r->expect) {
    case EXPECT_VALUE: return read_value(r, v);
    case EXPECT_VALUE_OR_END: return *r->pos == ']' ? close_container(r) : read_value(r, v);
    case EXPECT_KEY: return read_key(r, v);
    case EXPECT_KEY_OR_END: return *r->pos == '}' ? close_container(r) : read_key(r, v);
    case EXPECT_COMMA:
        if (r->depth == 0)
            return fail(r);
        if (*r->pos != ',')
            return close_container(r);
        r->pos++;
        skip_space(r);
        if (r->pos == r->end)
            return fail(r);
        return in_object(r) ? read_key(r, v) : read_value(r, v);
    case EXPECT_NOTHING: return -EPROTO;
    }
    UNREACHABLE();
}

int json_skip(struct json_reader *r, int token)
{
    if (token != JSON_TOK_ARRAY && token != JSON_TOK_OBJECT)
        return 0;
    uint32_t depth = r->depth - 1;
    while (r->depth > depth) {
        struct json_value v;
        if (json_next(r, &v) < 0)
            return -EPROTO;
    }
    return 0;
}

/* Decodes the escape at p, which read_string has checked; its length. */
static size_t unescape_one(const uint8_t *p, const uint8_t *end, uint32_t *ret)
{
    static const char names[] = "bfnrt", values[] = "\b\f\n\r\t";
    if (p[1] != 'u') {
        const char *name = strchr(names, p[1]);
        *ret = name != NULL ? (uint32_t)values[name - names] : p[1];
        return 2;
    }
    int high = hex4(p + 2, end);
    ASSERT(high >= 0);
    *ret = (uint32_t)high;
    if (high < 0xD800 || high >= 0xE000)
        return 6;
    int low = hex4(p + 8, end);
    ASSERT(low >= 0xDC00);
    *ret = 0x10000 + (((uint32_t)high - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
    return 12;
}

int json_unescape(const struct json_value *v, struct bytes *scratch, struct slice *ret)
{
    if (!v->escaped) {
        *ret = v->text;
        return 0;
    }
    if (!bytes_reserve(scratch, v->text.len))
        return -ENOMEM;
    uint8_t *start = scratch->data + scratch->len, *out = start;
    for (const uint8_t *p = v->text.data, *end = p + v->text.len; p < end;) {
        if (*p != '\\') {
            *out++ = *p++;
            continue;
        }
        uint32_t c;
        uint8_t utf8[4];
        p += unescape_one(p, end, &c);
        size_t n = utf8_char_write(utf8, c);
        memcpy(out, utf8, n);
        out += n;
    }
    *ret = (struct slice){start, (size_t)(out - start)};
    ASSERT(ret->len <= v->text.len);
    scratch->len += ret->len;
    return 0;
}

bool json_int64(struct slice text, int64_t *ret)
{
    bool negative = text.len > 0 && text.data[0] == '-';
    uint64_t v = 0;
    if (text.len == negative)
        return false;
    for (size_t i = negative; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, text.data[i] - '0', &v))
            return false;
    }
    if (v > (uint64_t)INT64_MAX + negative)
        return false;
    *ret = (int64_t)(negative ? -v : v);
    return true;
}

void json_write_string(struct bytes *out, struct slice s)
{
    static const char digits[] = "0123456789abcdef";
    bytes_append_byte(out, '"');
    size_t from = 0;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        bytes_append(out, s.data + from, i - from);
        from = i + 1;
        if (c >= 0x20) {
            bytes_append(out, (const char[]){'\\', (char)c}, 2);
        } else {
            bytes_append(out, "\\u00", 4);
            bytes_append(out, (const char[]){digits[c >> 4], digits[c & 15]}, 2);
        }
    }
    if (s.len > from)
        bytes_append(out, s.data + from, s.len - from);
    bytes_append_byte(out, '"');
}
