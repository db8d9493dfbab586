// SPDX-License-Identifier: MIT
#include "proto/php/php_parse_str.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "proto/php/php_write.h"
#include "proto/php/tree.h"

static int hex_digit(uint8_t c)
{
    uint8_t lower = c | 0x20;
    return c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* urldecode() into the arena, with a zero behind it. */
static int url_decode(struct php_arena *a, struct slice s, uint8_t **ret, size_t *ret_len)
{
    uint8_t *out = php__alloc(a, s.len + 1);
    size_t n = 0;
    if (out == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%' && s.len - i > 2 && hex_digit(s.data[i + 1]) >= 0 &&
                   hex_digit(s.data[i + 2]) >= 0) {
            c = (uint8_t)(hex_digit(s.data[i + 1]) << 4 | hex_digit(s.data[i + 2]));
            i += 2;
        }
        out[n++] = c;
    }
    *ret = out;
    *ret_len = n;
    return 0;
}

/* A name is cut into the keys of nested arrays: "a[b][]" is a, b, append. */
struct path {
    struct php_arena *arena;
    struct php_array *top;
    struct php_array *array; /* that the current key belongs in */
    const uint8_t *name;     /* as it came, before any character was replaced */
    bool append;             /* the key is "[]" */
    struct slice key;
};

/* Names of cookies with guarantees must not come about by mangling ("__Host-", from "..Host-"). PHP asks that
 * of each key on the way, but always compares with the beginning of the whole name. */
static bool is_forged(const struct path *p)
{
    static const char *const prefixes[] = {"__Host-", "__Secure-"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t n = strlen(prefixes[i]);
        if (p->key.len >= n && memcmp(p->key.data, prefixes[i], n) == 0 &&
            strncmp((const char *)p->name, prefixes[i], n) != 0)
            return true;
    }
    return false;
}

/* The slot of the current key; NULL with *err 0: the variable is dropped. */
static struct php_entry *path_slot(struct path *p, int *err)
{
    struct php_entry *e = NULL;
    if (p->append) {
        *err = php__array_append(p->arena, p->array, &e);
        if (*err == -ERANGE)
            *err = 0;
        return e;
    }
    *err = 0;
    if (is_forged(p))
        return NULL;
    e = php__array_add(p->arena, p->array, php__key_of_string(p->key));
    *err = e == NULL ? -ENOMEM : 0;
    return e;
}

/* One array deeper; false: the variable is dropped (or *err). */
static bool path_descend(struct path *p, int *err)
{
    struct php_entry *e = path_slot(p, err);
    if (e == NULL)
        return false;
    if (e->value.type != PHP_ARRAY) {
        struct php_array *array = php__array_new(p->arena);
        if (array == NULL) {
            *err = -ENOMEM;
            return false;
        }
        e->value = (struct php_value){PHP_ARRAY, .array = array};
    }
    p->array = e->value.array;
    return true;
}

static int path_assign(struct path *p, struct slice value)
{
    int err;
    struct php_entry *e = path_slot(p, &err);
    if (e != NULL)
        e->value = (struct php_value){PHP_STRING, .str = value};
    return err;
}

static void mangle(uint8_t *s, size_t len, const char *bad)
{
    for (size_t i = 0; i < len; i++) {
        if (strchr(bad, s[i]) != NULL)
            s[i] = '_';
    }
}

/* The key in the brackets that open at s; what follows them, or NULL when they do not close. */
static uint8_t *bracket(uint8_t *s, struct slice *ret_key, bool *ret_append)
{
    uint8_t *start = ++s;
    if (*s == ' ' || (*s >= '\t' && *s <= '\r'))
        s++;
    *ret_append = *s == ']';
    uint8_t *end = (uint8_t *)strchr((char *)s, ']');
    if (end == NULL)
        return NULL;
    *ret_key = (struct slice){start, (size_t)(end - start)};
    return end + 1;
}

/* Follows the brackets from `open` on, then assigns. */
static int assign_nested(struct path *p, uint8_t *base, uint8_t *open, struct slice value)
{
    int err = 0;
    for (unsigned level = 1; *open == '['; level++) {
        struct slice key;
        bool append;
        if (level > PHP_INPUT_NESTING_MAX) {
            php__array_remove(p->top, php__key_of_string((struct slice){base, strcspn((char *)base, "[")}));
            return 0;
        }
        uint8_t *next = bracket(open, &key, &append);
        if (next == NULL) {
            if (level == 1) { /* not brackets at all: part of the name */
                size_t len = strlen((char *)base);
                mangle(open, len - (size_t)(open - base), " .[");
                p->key = (struct slice){base, len};
            }
            break;
        }
        if (!path_descend(p, &err))
            return err;
        p->key = key;
        p->append = append;
        open = next;
    }
    return path_assign(p, value);
}

/* name ends with a zero and is changed. */
static int register_variable(struct php_arena *a, struct php_array *top, uint8_t *name, struct slice value)
{
    while (*name == ' ')
        name++;
    size_t base_len = strcspn((char *)name, "["), len = strlen((char *)name) + 1;
    uint8_t *mangled = php__alloc(a, len);
    if (mangled == NULL)
        return -ENOMEM;
    memcpy(mangled, name, len);
    mangle(mangled, base_len, " .");
    if (base_len == 0)
        return 0;
    struct path p = {.arena = a, .top = top, .array = top, .name = name, .key = {mangled, base_len}};
    return assign_nested(&p, mangled, mangled + base_len, value);
}

/* One "name=value" or "name". */
static int parse_pair(struct php_arena *a, struct php_array *top, struct slice pair)
{
    const uint8_t *eq = memchr(pair.data, '=', pair.len);
    size_t name_len = eq == NULL ? pair.len : (size_t)(eq - pair.data), value_len = 0;
    uint8_t *name, *value = NULL;
    int err = url_decode(a, (struct slice){pair.data, name_len}, &name, &name_len);
    if (err == 0 && eq != NULL)
        err = url_decode(a, (struct slice){eq + 1, pair.len - (size_t)(eq + 1 - pair.data)}, &value,
                         &value_len);
    return err < 0 ? err : register_variable(a, top, name, (struct slice){value, value_len});
}

static int parse_query(struct php_arena *a, struct php_array *top, struct slice query, unsigned vars_max)
{
    unsigned n = 0;
    for (size_t at = 0; at < query.len;) {
        const uint8_t *start = query.data + at;
        const uint8_t *amp = memchr(start, '&', query.len - at);
        size_t len = amp == NULL ? query.len - at : (size_t)(amp - start);
        at += len + 1;
        if (len == 0)
            continue;
        if (++n > vars_max)
            return 0;
        int err = parse_pair(a, top, (struct slice){start, len});
        if (err < 0)
            return err;
    }
    return 0;
}

static int write_array(struct bytes *out, struct php_array *array)
{
    return php__serialize(out, (struct php_value){PHP_ARRAY, .array = array}, SIZE_MAX / 2);
}

int php_parse_str(struct bytes *out, struct slice query, unsigned vars_max)
{
    struct php_arena arena;
    const uint8_t *zero = query.len == 0 ? NULL : memchr(query.data, 0, query.len);
    if (zero != NULL) /* to PHP the end of the text */
        query.len = (size_t)(zero - query.data);
    /* "a[][][]": every two bytes are an array of their own. */
    php__arena_init(&arena, query.len * 256 + 64 * 1024);
    struct php_array *top = php__array_new(&arena);
    int err = top == NULL ? -ENOMEM : parse_query(&arena, top, query, vars_max);
    if (err == 0)
        err = write_array(out, top);
    php__arena_fini(&arena);
    return err;
}

static struct slice trim(const uint8_t *s, size_t len)
{
    static const char white[] = " \t\n\r\v"; /* and the zero that ends it */
    while (len > 0 && memchr(white, s[0], sizeof white) != NULL) {
        s++;
        len--;
    }
    while (len > 0 && memchr(white, s[len - 1], sizeof white) != NULL)
        len--;
    return (struct slice){s, len};
}

static int parse_cookies(struct php_arena *a, struct php_array *top, struct slice header)
{
    for (size_t at = 0; at < header.len;) {
        const uint8_t *start = header.data + at;
        const uint8_t *end = memchr(start, ';', header.len - at);
        size_t len = end == NULL ? header.len - at : (size_t)(end - start);
        const uint8_t *eq = memchr(start, '=', len);
        at += len + 1;
        if (eq == NULL)
            continue;
        struct php_key key = php__key_of_string(trim(start, (size_t)(eq - start)));
        struct php_entry *e = php__array_add(a, top, key);
        if (e == NULL)
            return -ENOMEM;
        e->value = (struct php_value){PHP_STRING, .str = {eq + 1, len - (size_t)(eq + 1 - start)}};
    }
    return 0;
}

int php_parse_cookie(struct bytes *out, struct slice header)
{
    struct php_arena arena;
    php__arena_init(&arena, php__arena_bound(header.len));
    struct php_array *top = php__array_new(&arena);
    int err = top == NULL ? -ENOMEM : parse_cookies(&arena, top, header);
    if (err == 0)
        err = write_array(out, top);
    php__arena_fini(&arena);
    return err;
}
