// SPDX-License-Identifier: MIT
#include "proto/gw/command.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "proto/gw/json.h"

void gw_args_fini(struct gw_args *args)
{
    free(args->items);
    free(args->ids);
    free(args->exclude.ids);
    bytes_fini(&args->text);
    *args = (struct gw_args){0};
}

static void args_start(struct gw_args *args, struct json_reader *r, struct slice text)
{
    args->n_items = 0;
    args->n_ids = 0;
    args->exclude.n = 0;
    args->text.len = 0;
    args->text.failed = false;
    args->text_reserved = false;
    json_init(r, text);
}

/* Room for one more element of an array of `size`-byte elements. */
static bool grow(void *array_ptr, size_t size, size_t n, size_t *cap)
{
    if (n < *cap)
        return true;
    size_t more = *cap == 0 ? 16 : *cap * 2;
    void *old, *grown;
    memcpy(&old, array_ptr, sizeof old);
    grown = reallocarray(old, more, size);
    if (grown == NULL)
        return false;
    memcpy(array_ptr, &grown, sizeof grown);
    *cap = more;
    return true;
}

/* Decoded strings lie in args->text, which must not move once a slice points into it. So it is given room for
 * the worst rest of this text at once: a string shrinks by decoding, a float ("1e9", 3 bytes) becomes at most
 * 20 digits. */
static int reserve_text(struct gw_args *args, const struct json_reader *r, size_t value_len)
{
    if (args->text_reserved)
        return 0;
    size_t rest = (size_t)(r->end - r->pos) + value_len + 2;
    if (!bytes_reserve(&args->text, rest * 7 + 64))
        return -ENOMEM;
    args->text_reserved = true;
    return 0;
}

static int string_of(struct gw_args *args, const struct json_reader *r, const struct json_value *v,
                     struct slice *ret)
{
    if (v->escaped) {
        int err = reserve_text(args, r, v->text.len);
        if (err < 0)
            return err;
    }
    return json_unescape(v, &args->text, ret);
}

/* A JSON number as PHP's array key: floats, and integers past 64 bits, which PHP reads as floats, lose what
 * does not fit in 64 bits (zend_dval_to_lval: modulo 2^64). */
static int64_t number_key(struct slice text)
{
    int64_t key;
    char copy[64];
    if (json_int64(text, &key))
        return key;
    /* strtod needs a terminated text. */
    char *long_copy = text.len < sizeof copy ? NULL : malloc(text.len + 1);
    char *s = text.len < sizeof copy ? copy : long_copy;
    if (s == NULL)
        return 0;
    memcpy(s, text.data, text.len);
    s[text.len] = '\0';
    double d = strtod(s, NULL);
    free(long_copy);
    if (!isfinite(d))
        return 0;
    d = trunc(d);
    if (d >= -0x1p63 && d < 0x1p63)
        return (int64_t)d;
    d = fmod(d, 0x1p64);
    if (d < 0)
        d += 0x1p64;
    return (int64_t)(uint64_t)d;
}

static int number_name(struct gw_args *args, const struct json_reader *r, struct slice text,
                       struct slice *ret)
{
    int err = reserve_text(args, r, text.len);
    if (err < 0)
        return err;
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)number_key(text));
    *ret = (struct slice){args->text.data + args->text.len, (size_t)n};
    bytes_append(&args->text, digits, (size_t)n);
    ASSERT(!args->text.failed);
    return 0;
}

/* The scalar that `token` is, as PHP makes it an array key. */
static int name_of(struct gw_args *args, const struct json_reader *r, int token, const struct json_value *v,
                   struct slice *ret)
{
    switch (token) {
    case JSON_TOK_STRING: return string_of(args, r, v, ret);
    case JSON_TOK_INT:
        if (v->text.len > 18 || v->text.data[0] == '-')
            return number_name(args, r, v->text, ret);
        *ret = v->text; /* JSON allows no leading zeros: it is canonical as it stands */
        return 0;
    case JSON_TOK_FLOAT: return number_name(args, r, v->text, ret);
    case JSON_TOK_TRUE: *ret = SLICE_STR("1"); return 0;
    case JSON_TOK_FALSE: *ret = SLICE_STR("0"); return 0;
    case JSON_TOK_NULL: *ret = SLICE_STR(""); return 0;
    default: return -EPROTO;
    }
}

static int add_name(struct gw_args *args, const struct json_reader *r, int token, const struct json_value *v)
{
    struct slice name;
    int err = name_of(args, r, token, v, &name);
    if (err < 0)
        return err;
    if (!grow(&args->items, sizeof *args->items, args->n_items, &args->cap_items))
        return -ENOMEM;
    args->items[args->n_items++] = name;
    return 0;
}

/* Canonical decimal ("5", not "05" or "+5") within 32 bits. */
static bool id_of_text(struct slice s, uint32_t *ret)
{
    if (s.len == 0 || s.len > 10 || (s.data[0] == '0' && s.len > 1))
        return false;
    uint64_t id = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        id = id * 10 + (s.data[i] - '0');
    }
    if (id > UINT32_MAX)
        return false;
    *ret = (uint32_t)id;
    return true;
}

/* 1: an id; 0: a value that names no connection; negative: error. */
static int id_of(struct gw_args *args, const struct json_reader *r, int token, const struct json_value *v,
                 uint32_t *ret)
{
    struct slice name;
    if (token == JSON_TOK_INT && id_of_text(v->text, ret))
        return 1;
    int err = name_of(args, r, token, v, &name);
    return err < 0 ? err : id_of_text(name, ret);
}

static int add_id(struct gw_args *args, const struct json_reader *r, int token, const struct json_value *v)
{
    uint32_t id;
    int found = id_of(args, r, token, v, &id);
    if (found <= 0)
        return found;
    if (!grow(&args->ids, sizeof *args->ids, args->n_ids, &args->cap_ids))
        return -ENOMEM;
    args->ids[args->n_ids++] = id;
    return 0;
}

static int add_exclude(struct gw_args *args, uint32_t id)
{
    struct gw_id_set *set = &args->exclude;
    if (!grow(&set->ids, sizeof *set->ids, set->n, &set->cap))
        return -ENOMEM;
    set->ids[set->n++] = id;
    return 0;
}

static int add_excluded_value(struct gw_args *args, const struct json_reader *r, int token,
                              const struct json_value *v)
{
    uint32_t id;
    int found = id_of(args, r, token, v, &id);
    return found <= 0 ? found : add_exclude(args, id);
}

/* The member whose key is v excludes the connection of that number, unless its value is null. */
static int add_excluded_key(struct gw_args *args, struct json_reader *r, const struct json_value *v)
{
    uint32_t id = 0;
    struct slice key;
    struct json_value value;
    int err = string_of(args, r, v, &key);
    if (err < 0)
        return err;
    bool is_id = id_of_text(key, &id);
    int token = json_next(r, &value);
    if (token < 0 || json_skip(r, token) < 0)
        return -EPROTO;
    return is_id && token != JSON_TOK_NULL ? add_exclude(args, id) : 0;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void sort_set(struct gw_id_set *set)
{
    size_t i = 1, n = 0;
    while (i < set->n && set->ids[i - 1] < set->ids[i])
        i++;
    if (i >= set->n)
        return;
    qsort(set->ids, set->n, sizeof *set->ids, compare_ids);
    for (i = 0; i < set->n; i++) {
        if (n == 0 || set->ids[n - 1] != set->ids[i])
            set->ids[n++] = set->ids[i];
    }
    set->n = n;
}

typedef int add_fn(struct gw_args *args, const struct json_reader *r, int token, const struct json_value *v);

/* Calls add for each value of the list or object that `token` opened. */
static int read_each(struct gw_args *args, struct json_reader *r, int token, add_fn *add)
{
    struct json_value v;
    int close = token == JSON_TOK_ARRAY ? JSON_TOK_ARRAY_END : JSON_TOK_OBJECT_END, err;
    while ((token = json_next(r, &v)) != close) {
        if (token < 0)
            return token;
        if (token == JSON_TOK_KEY)
            continue;
        if ((err = add(args, r, token, &v)) < 0)
            return err;
    }
    return 0;
}

/* The next value: a list or object of names; a single name counts as a list of one; null and booleans name
 * nothing. */
static int read_names(struct gw_args *args, struct json_reader *r)
{
    struct json_value v;
    int token = json_next(r, &v);
    if (token == JSON_TOK_ARRAY || token == JSON_TOK_OBJECT)
        return read_each(args, r, token, add_name);
    if (token == JSON_TOK_STRING || token == JSON_TOK_INT || token == JSON_TOK_FLOAT)
        return add_name(args, r, token, &v);
    return token < 0 ? token : 0;
}

/* The next value: a list or object whose values are ids. 1: it is not null; 0: null. */
static int read_ids(struct gw_args *args, struct json_reader *r)
{
    struct json_value v;
    int token = json_next(r, &v), err = 0;
    args->n_ids = 0;
    if (token == JSON_TOK_ARRAY || token == JSON_TOK_OBJECT)
        err = read_each(args, r, token, add_id);
    if (token < 0 || err < 0)
        return token < 0 ? token : err;
    return token != JSON_TOK_NULL;
}

/* The next value: a list whose values, or an object whose keys, are ids. PHP asks isset($exclude[$id]), which
 * is meant for {id: id}; in a list that would look at positions, which nobody can mean. */
static int read_exclude(struct gw_args *args, struct json_reader *r)
{
    struct json_value v;
    int token = json_next(r, &v), err;
    args->exclude.n = 0;
    if (token == JSON_TOK_ARRAY) {
        if ((err = read_each(args, r, token, add_excluded_value)) < 0)
            return err;
    } else if (token == JSON_TOK_OBJECT) {
        while ((token = json_next(r, &v)) == JSON_TOK_KEY) {
            if ((err = add_excluded_key(args, r, &v)) < 0)
                return err;
        }
    }
    if (token < 0)
        return token;
    sort_set(&args->exclude);
    return 0;
}

static int skip_value(struct json_reader *r)
{
    struct json_value v;
    int token = json_next(r, &v);
    return token < 0 ? token : json_skip(r, token);
}

/* The next key of an open object: 1 and *key, 0 at its end, negative on error. */
static int next_key(struct gw_args *args, struct json_reader *r, struct slice *key)
{
    struct json_value v;
    int token = json_next(r, &v);
    if (token < 0)
        return token;
    if (token == JSON_TOK_OBJECT_END)
        return 0;
    ASSERT(token == JSON_TOK_KEY);
    int err = string_of(args, r, &v, key);
    return err < 0 ? err : 1;
}

/* The first token: 1 when it opens an object; 0 for any other value, which has been read to its end then. */
static int open_object(struct json_reader *r, int *ret_token)
{
    struct json_value v;
    int token = json_next(r, &v);
    *ret_token = token;
    if (token < 0 || token == JSON_TOK_OBJECT)
        return token < 0 ? token : 1;
    return json_skip(r, token);
}

static int read_end(struct json_reader *r)
{
    struct json_value v;
    return json_next(r, &v) == JSON_TOK_DONE ? 0 : -EPROTO;
}

int gw_read_send_to_all(struct gw_args *args, struct slice ext, struct gw_send_to_all *ret)
{
    struct json_reader r;
    struct slice key;
    int token, more;
    bool has_connections = false;
    args_start(args, &r, ext);
    if (ext.len == 0) {
        *ret = (struct gw_send_to_all){.exclude = &args->exclude};
        return 0;
    }
    more = open_object(&r, &token);
    while (more > 0 && (more = next_key(args, &r, &key)) > 0) {
        int err;
        if (slice_eq_str(key, "connections")) {
            err = read_ids(args, &r);
            has_connections = err > 0;
        } else {
            err = slice_eq_str(key, "exclude") ? read_exclude(args, &r) : skip_value(&r);
        }
        if (err < 0)
            return err;
    }
    if (more < 0 || (more = read_end(&r)) < 0)
        return more;
    *ret = (struct gw_send_to_all){.has_connections = has_connections,
                                   .connections = args->ids,
                                   .n_connections = has_connections ? args->n_ids : 0,
                                   .exclude = &args->exclude};
    return 0;
}

int gw_read_send_to_group(struct gw_args *args, struct slice ext, struct gw_send_to_group *ret)
{
    struct json_reader r;
    struct slice key;
    int token, more;
    args_start(args, &r, ext);
    more = open_object(&r, &token);
    while (more > 0 && (more = next_key(args, &r, &key)) > 0) {
        int err;
        if (slice_eq_str(key, "group")) {
            args->n_items = 0;
            err = read_names(args, &r);
        } else {
            err = slice_eq_str(key, "exclude") ? read_exclude(args, &r) : skip_value(&r);
        }
        if (err < 0)
            return err;
    }
    if (more < 0 || (more = read_end(&r)) < 0)
        return more;
    ret->groups = (struct gw_names){args->items, args->n_items};
    ret->exclude = &args->exclude;
    return 0;
}

int gw_read_names(struct gw_args *args, struct slice ext, struct gw_names *ret)
{
    struct json_reader r;
    args_start(args, &r, ext);
    int err = read_names(args, &r);
    if (err < 0 || (err = read_end(&r)) < 0)
        return err;
    *ret = (struct gw_names){args->items, args->n_items};
    return 0;
}

/* A part of args->items; the array may still move while others are added. */
struct range {
    size_t from, n;
};

struct select_ranges {
    struct range fields, groups, uids;
    bool has_where, any_member;
};

static int read_range(struct gw_args *args, struct json_reader *r, struct range *ret)
{
    ret->from = args->n_items;
    int err = read_names(args, r);
    ret->n = args->n_items - ret->from;
    return err;
}

static int read_where(struct gw_args *args, struct json_reader *r, struct select_ranges *ranges)
{
    struct slice key, text;
    struct json_value v;
    int token = json_next(r, &v), err = 0, more = 1;
    ranges->groups = ranges->uids = (struct range){0};
    args->n_ids = 0;
    ranges->has_where = false;
    if (token ==
        JSON_TOK_ARRAY) { /* [] is PHP's empty array; anything in it is an unknown condition, met by nobody */
        token = json_next(r, &v);
        ranges->has_where = token != JSON_TOK_ARRAY_END;
        while (token >= 0 && token != JSON_TOK_ARRAY_END) {
            if (json_skip(r, token) < 0)
                return -EPROTO;
            token = json_next(r, &v);
        }
        return token < 0 ? token : 0;
    }
    if (token != JSON_TOK_OBJECT) { /* a scalar: PHP asks whether it is true; if so, nobody meets it */
        if (token < 0)
            return token;
        if (token == JSON_TOK_NULL || token == JSON_TOK_FALSE)
            return 0;
        err = name_of(args, r, token, &v, &text);
        ranges->has_where = text.len > 0 && !slice_eq_str(text, "0");
        return err;
    }
    while ((more = next_key(args, r, &key)) > 0) {
        ranges->has_where = true;
        if (slice_eq_str(key, "groups"))
            err = read_range(args, r, &ranges->groups);
        else if (slice_eq_str(key, "uid"))
            err = read_range(args, r, &ranges->uids);
        else
            err = slice_eq_str(key, "connection_id") ? read_ids(args, r) : skip_value(r);
        if (err < 0)
            return err;
    }
    return more;
}

static struct gw_names names_of(const struct gw_args *args, struct range range)
{
    return (struct gw_names){range.n == 0 ? NULL : args->items + range.from, range.n};
}

int gw_read_select(struct gw_args *args, struct slice ext, struct gw_select *ret)
{
    struct json_reader r;
    struct slice key;
    struct select_ranges ranges = {0};
    int token, more;
    args_start(args, &r, ext);
    more = open_object(&r, &token);
    while (more > 0 && (more = next_key(args, &r, &key)) > 0) {
        int err;
        ranges.any_member = true;
        if (slice_eq_str(key, "fields"))
            err = read_range(args, &r, &ranges.fields);
        else
            err = slice_eq_str(key, "where") ? read_where(args, &r, &ranges) : skip_value(&r);
        if (err < 0)
            return err;
    }
    if (more < 0 || (more = read_end(&r)) < 0)
        return more;
    *ret = (struct gw_select){.nothing = !ranges.any_member,
                              .has_where = ranges.has_where,
                              .fields = names_of(args, ranges.fields),
                              .groups = names_of(args, ranges.groups),
                              .uids = names_of(args, ranges.uids),
                              .connections = args->ids,
                              .n_connections = args->n_ids};
    return 0;
}

/* The next value as a string; *ret_is_string tells whether it was one in JSON. */
static int read_scalar(struct gw_args *args, struct json_reader *r, struct slice *ret, bool *ret_is_string)
{
    struct json_value v;
    int token = json_next(r, &v);
    if (token < 0)
        return token;
    *ret_is_string = token == JSON_TOK_STRING;
    return name_of(args, r, token, &v, ret);
}

int gw_read_connect(struct gw_args *args, struct slice body, struct gw_connect *ret)
{
    struct json_reader r;
    struct slice key;
    struct gw_connect found = {.worker_key = SLICE_STR(""), .secret_key = SLICE_STR("")};
    bool is_string;
    int token, more;
    args_start(args, &r, body);
    more = open_object(&r, &token);
    while (more > 0 && (more = next_key(args, &r, &key)) > 0) {
        int err;
        if (slice_eq_str(key, "secret_key"))
            err = read_scalar(args, &r, &found.secret_key, &found.has_secret_key);
        else
            err = slice_eq_str(key, "worker_key") ? read_scalar(args, &r, &found.worker_key, &is_string)
                                                  : skip_value(&r);
        if (err < 0)
            return err;
    }
    if (more < 0 || (more = read_end(&r)) < 0)
        return more;
    *ret = found;
    return 0;
}
