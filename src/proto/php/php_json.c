// SPDX-License-Identifier: MIT
#include "proto/php/php_json.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "proto/php/php_write.h"
#include "proto/php/tree.h"
#include "base/utf8_char.h"

#define JSON_ENCODE_DEPTH_MAX 512

static int encode(struct bytes *out, struct php_value v, unsigned depth);

/* U+2028 and U+2029 end lines in old JavaScript: PHP escapes them also when other characters stay as they
 * are. */
static bool is_line_end(const uint8_t *p, size_t n)
{
    return n == 3 && p[0] == 0xE2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9);
}

static void escape(struct bytes *out, const uint8_t *p, size_t n)
{
    static const char names[] = "\b\f\n\r\t\"\\/", letters[] = "bfnrt\"\\/";
    const char *name = *p == 0 ? NULL : strchr(names, *p);
    if (n > 1) {
        bytes_append_str(out, p[2] == 0xA8 ? "\\u2028" : "\\u2029");
    } else if (name != NULL) {
        bytes_append(out, (const char[]){'\\', letters[name - names]}, 2);
    } else {
        static const char digits[] = "0123456789abcdef";
        bytes_append(out, "\\u00", 4);
        bytes_append(out, (const char[]){digits[*p >> 4], digits[*p & 15]}, 2);
    }
}

static int encode_string(struct bytes *out, struct slice s)
{
    const uint8_t *p = s.data, *end = p + s.len, *from = p;
    bytes_append_byte(out, '"');
    while (p < end) {
        size_t n = utf8_char_len(p, (size_t)(end - p));
        if (n == 0)
            return -EILSEQ;
        if (*p < 0x20 || *p == '"' || *p == '\\' || *p == '/' || is_line_end(p, n)) {
            bytes_append(out, from, (size_t)(p - from));
            escape(out, p, n);
            from = p + n;
        }
        p += n;
    }
    if (p > from)
        bytes_append(out, from, (size_t)(p - from));
    bytes_append_byte(out, '"');
    return 0;
}

static void append_int(struct bytes *out, int64_t v)
{
    char text[PHP_INT_LEN_MAX];
    bytes_append(out, text, php_format_int(v, text));
}

static void append_float(struct bytes *out, double v, char exponent)
{
    char text[PHP_FLOAT_LEN_MAX];
    bytes_append(out, text, php_format_float(v, exponent, text));
}

static int encode_float(struct bytes *out, double v)
{
    if (!isfinite(v))
        return -EDOM;
    append_float(out, v, 'e');
    return 0;
}

static bool is_list(const struct php_array *array)
{
    for (uint32_t i = 0; i < array->n; i++) {
        if (array->entries[i].key.str != NULL || array->entries[i].key.num != i)
            return false;
    }
    return true;
}

static int encode_key(struct bytes *out, struct php_key key)
{
    int err = 0;
    if (key.str == NULL) {
        bytes_append_byte(out, '"');
        append_int(out, key.num);
        bytes_append_byte(out, '"');
    } else {
        err = encode_string(out, (struct slice){key.str, key.len});
    }
    bytes_append_byte(out, ':');
    return err;
}

static int encode_members(struct bytes *out, const struct php_array *array, bool list, bool object,
                          unsigned depth)
{
    bool comma = false;
    for (uint32_t i = 0; i < array->n; i++) {
        const struct php_entry *e = &array->entries[i];
        if (object && e->key.str != NULL && e->key.len > 0 && e->key.str[0] == '\0')
            continue; /* a protected or private property */
        if (comma)
            bytes_append_byte(out, ',');
        comma = true;
        int err = list ? 0 : encode_key(out, e->key);
        if (err == 0)
            err = encode(out, e->value, depth);
        if (err < 0)
            return err;
    }
    return 0;
}

static int encode_container(struct bytes *out, struct php_array *array, bool object, unsigned depth)
{
    bool list = !object && is_list(array);
    if (array->active)
        return -ELOOP;
    if (depth >= JSON_ENCODE_DEPTH_MAX)
        return -E2BIG;
    array->active = true;
    bytes_append_byte(out, list ? '[' : '{');
    int err = encode_members(out, array, list, object, depth + 1);
    bytes_append_byte(out, list ? ']' : '}');
    array->active = false;
    return err;
}

static int encode(struct bytes *out, struct php_value v, unsigned depth)
{
    v = php__deref(v);
    switch (v.type) {
    case PHP_NULL: bytes_append_str(out, "null"); return 0;
    case PHP_FALSE: bytes_append_str(out, "false"); return 0;
    case PHP_TRUE: bytes_append_str(out, "true"); return 0;
    case PHP_INT: append_int(out, v.num); return 0;
    case PHP_FLOAT: return encode_float(out, v.real);
    case PHP_STRING: return encode_string(out, v.str);
    case PHP_ARRAY: return encode_container(out, v.array, false, depth);
    case PHP_OBJECT:
        if (v.object->kind == PHP_OBJECT_ENUM)
            return -EPROTO;
        return encode_container(out, &v.object->props, true, depth);
    case PHP_REF: break;
    }
    return -EPROTO;
}

/* What the websocket sends without json_encode: a scalar, as PHP turns it into a string. */
static int append_top(struct bytes *out, struct php_value v)
{
    switch (v.type) {
    case PHP_FALSE: return 0;
    case PHP_TRUE: bytes_append_byte(out, '1'); return 0;
    case PHP_INT: append_int(out, v.num); return 0;
    case PHP_FLOAT: append_float(out, v.real, 'E'); return 0;
    case PHP_STRING:
        if (v.str.len > 0)
            bytes_append(out, v.str.data, v.str.len);
        return 0;
    default: return encode(out, v, 0);
    }
}

int php_to_json(struct bytes *out, struct slice serialized)
{
    struct php_arena arena;
    struct php_value v;
    size_t start = out->len;
    php__arena_init(&arena, php__arena_bound(serialized.len));
    int err = php__parse(&arena, serialized, PHP_NO_CLASSES, &v);
    if (err == 0)
        err = append_top(out, v);
    php__arena_fini(&arena);
    if (err == 0 && out->failed)
        err = -ENOMEM;
    if (err < 0)
        out->len = start;
    return err;
}
