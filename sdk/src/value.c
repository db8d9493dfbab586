// SPDX-License-Identifier: MIT
// Reader of PHP serialize() data, and the writer of flat sessions.
#include "../include/tgg_worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 128 };

struct cursor {
    const char *p, *end;
};

static int parse_value(struct cursor *c, struct tggw_value *v, int depth);

static bool take(struct cursor *c, char ch)
{
    if (c->p == c->end || *c->p != ch)
        return false;
    c->p++;
    return true;
}

// -?[0-9]+ that fits, then the end character.
static int take_int(struct cursor *c, char end, int64_t *ret)
{
    bool negative = take(c, '-');
    uint64_t n = 0, limit = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    const char *start = c->p;
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++) {
        uint64_t digit = (uint64_t)(*c->p - '0');
        if (n > (limit - digit) / 10)
            return -EBADMSG;
        n = n * 10 + digit;
    }
    if (c->p == start || !take(c, end))
        return -EBADMSG;
    *ret = negative ? (int64_t)(0 - n) : (int64_t)n;
    return 0;
}

// A length or count: not negative, and not more than the bytes that are left (each element takes at least
// one).
static int take_size(struct cursor *c, char end, size_t *ret)
{
    int64_t n = 0;
    if (take_int(c, end, &n) < 0 || n < 0 || (uint64_t)n > (uint64_t)(c->end - c->p))
        return -EBADMSG;
    *ret = (size_t)n;
    return 0;
}

static int take_double(struct cursor *c, double *ret)
{
    char text[64];
    const char *stop = memchr(c->p, ';', (size_t)(c->end - c->p));
    if (stop == NULL || stop == c->p || (size_t)(stop - c->p) >= sizeof text)
        return -EBADMSG;
    size_t len = (size_t)(stop - c->p);
    memcpy(text, c->p, len);
    text[len] = '\0';
    // strtod() takes more than PHP writes (spaces, hexadecimal), and would stop at a NUL as if it were the
    // end.
    if (strspn(text, "0123456789+-.eEINFA") != len)
        return -EBADMSG;
    char *rest = NULL;
    *ret = strtod(text, &rest);
    if (*rest != '\0')
        return -EBADMSG;
    c->p = stop + 1;
    return 0;
}

// len:"bytes" with the quotes.
static int take_quoted(struct cursor *c, const char **ret, size_t *ret_len)
{
    size_t len = 0;
    if (take_size(c, ':', &len) < 0 || !take(c, '"') || (size_t)(c->end - c->p) < len)
        return -EBADMSG;
    *ret = c->p;
    *ret_len = len;
    c->p += len;
    return take(c, '"') ? 0 : -EBADMSG;
}

static int parse_key(struct cursor *c, struct tggw_value *key)
{
    if (c->p == c->end || (*c->p != 'i' && *c->p != 's'))
        return -EBADMSG;
    return parse_value(c, key, DEPTH_MAX);
}

// {key value ...} of an array or object.
static int take_elements(struct cursor *c, struct tggw_value *v, int depth)
{
    struct tggw_value key, value;
    if (take_size(c, ':', &v->count) < 0 || !take(c, '{') || depth >= DEPTH_MAX)
        return -EBADMSG;
    v->s = c->p;
    for (size_t i = 0; i < v->count; i++) {
        if (parse_key(c, &key) < 0 || parse_value(c, &value, depth + 1) < 0)
            return -EBADMSG;
    }
    v->len = (size_t)(c->p - v->s);
    return take(c, '}') ? 0 : -EBADMSG;
}

// Objects, custom objects, enum cases, references: only their extent matters.
static int parse_other(struct cursor *c, char tag, struct tggw_value *v, int depth)
{
    const char *start = c->p - 2, *name = NULL;
    size_t len = 0;
    int64_t number = 0;
    int r = -EBADMSG;
    if (tag == 'r' || tag == 'R')
        r = take_int(c, ';', &number);
    else if (take_quoted(c, &name, &len) < 0)
        return -EBADMSG;
    else if (tag == 'E')
        r = take(c, ';') ? 0 : -EBADMSG;
    else if (!take(c, ':'))
        return -EBADMSG;
    else if (tag == 'O')
        r = take_elements(c, v, depth);
    else if (take_size(c, ':', &len) == 0 && take(c, '{') && (size_t)(c->end - c->p) >= len) {
        c->p += len;
        r = take(c, '}') ? 0 : -EBADMSG;
    }
    *v = (struct tggw_value){.type = TGGW_OTHER, .s = start, .len = (size_t)(c->p - start)};
    return r;
}

static int parse_value(struct cursor *c, struct tggw_value *v, int depth)
{
    *v = (struct tggw_value){0};
    if (c->p == c->end)
        return -EBADMSG;
    char tag = *c->p++;
    if (tag == 'N')
        return take(c, ';') ? 0 : -EBADMSG;
    if (!take(c, ':'))
        return -EBADMSG;
    switch (tag) {
    case 'b':
        v->type = TGGW_BOOL;
        return take_int(c, ';', &v->i) == 0 && (v->i == 0 || v->i == 1) ? 0 : -EBADMSG;
    case 'i': v->type = TGGW_INT; return take_int(c, ';', &v->i);
    case 'd': v->type = TGGW_DOUBLE; return take_double(c, &v->d);
    case 's':
        v->type = TGGW_STRING;
        return take_quoted(c, &v->s, &v->len) == 0 && take(c, ';') ? 0 : -EBADMSG;
    case 'a': v->type = TGGW_ARRAY; return take_elements(c, v, depth);
    case 'O':
    case 'C':
    case 'E':
    case 'r':
    case 'R': return parse_other(c, tag, v, depth);
    default: return -EBADMSG;
    }
}

int tggw_value_parse(const void *data, size_t len, struct tggw_value *ret_value, size_t *ret_used)
{
    struct cursor c = {data, (const char *)data + len};
    struct tggw_value v;
    if (data == NULL || len == 0)
        return -EBADMSG;
    int r = parse_value(&c, &v, 0);
    if (r < 0)
        return r;
    *ret_value = v;
    if (ret_used != NULL)
        *ret_used = (size_t)(c.p - (const char *)data);
    return 0;
}

void tggw_iter_init(struct tggw_iter *it, const struct tggw_value *array)
{
    *it = (struct tggw_iter){0};
    if (array->type == TGGW_ARRAY)
        *it = (struct tggw_iter){array->s, array->s + array->len, array->count};
}

int tggw_iter_next(struct tggw_iter *it, struct tggw_value *ret_key, struct tggw_value *ret_value)
{
    struct cursor c = {it->pos, it->end};
    struct tggw_value key, value;
    if (it->left == 0)
        return 0;
    if (parse_key(&c, &key) < 0 || parse_value(&c, &value, 0) < 0)
        return -EBADMSG;
    it->pos = c.p;
    it->left--;
    *ret_key = key;
    *ret_value = value;
    return 1;
}

bool tggw_value_is(const struct tggw_value *v, const char *text)
{
    char digits[24];
    if (v->type == TGGW_STRING)
        return v->len == strlen(text) && memcmp(v->s, text, v->len) == 0;
    if (v->type != TGGW_INT)
        return false;
    snprintf(digits, sizeof digits, "%lld", (long long)v->i);
    return strcmp(digits, text) == 0;
}

int tggw_value_find(const struct tggw_value *array, const char *key, struct tggw_value *ret_value)
{
    struct tggw_iter it;
    struct tggw_value k, v;
    int r;
    tggw_iter_init(&it, array);
    while ((r = tggw_iter_next(&it, &k, &v)) > 0) {
        if (tggw_value_is(&k, key)) {
            *ret_value = v;
            return 0;
        }
    }
    return r < 0 ? r : -ENOENT;
}

// PHP makes an array key an integer when it is one in canonical decimal form.
static bool is_int_key(const char *key)
{
    char digits[24];
    int64_t n = 0;
    bool negative = *key == '-';
    size_t len = strlen(key);
    if (len == 0 || len > 20 || key[len - 1] < '0' || key[len - 1] > '9')
        return false;
    for (size_t i = negative; i < len; i++) {
        if (key[i] < '0' || key[i] > '9')
            return false;
    }
    snprintf(digits, sizeof digits, "%s;", key);
    struct cursor c = {digits, digits + strlen(digits)};
    if (take_int(&c, ';', &n) < 0)
        return false;
    snprintf(digits, sizeof digits, "%lld", (long long)n);
    return strcmp(digits, key) == 0;
}

struct writer {
    char *buf;
    size_t size, len;
};

static void put(struct writer *w, const void *data, size_t len)
{
    if (w->len + len <= w->size && len > 0)
        memcpy(w->buf + w->len, data, len);
    w->len += len;
}

static void put_text(struct writer *w, const char *text)
{
    put(w, text, strlen(text));
}

static void put_string(struct writer *w, const void *data, size_t len)
{
    char head[32];
    snprintf(head, sizeof head, "s:%zu:\"", len);
    put_text(w, head);
    put(w, data, len);
    put_text(w, "\";");
}

size_t tggw_session_build(const struct tggw_pair *pairs, size_t count, void *buf, size_t size)
{
    struct writer w = {buf, size, 0};
    char head[32];
    snprintf(head, sizeof head, "a:%zu:{", count);
    put_text(&w, head);
    for (size_t i = 0; i < count; i++) {
        if (is_int_key(pairs[i].key)) {
            put_text(&w, "i:");
            put_text(&w, pairs[i].key);
            put_text(&w, ";");
        } else {
            put_string(&w, pairs[i].key, strlen(pairs[i].key));
        }
        put_string(&w, pairs[i].value, pairs[i].value_len);
    }
    put_text(&w, "}");
    return w.len;
}

int tggw_session_get(const void *session, size_t len, const char *key, const char **ret_value,
                     size_t *ret_len)
{
    struct tggw_value array, v;
    if (session == NULL || len == 0)
        return -ENOENT;
    int r = tggw_value_parse(session, len, &array, NULL);
    if (r == 0)
        r = tggw_value_find(&array, key, &v);
    if (r < 0)
        return r;
    if (v.type != TGGW_STRING)
        return -ENOENT;
    *ret_value = v.s;
    *ret_len = v.len;
    return 0;
}
