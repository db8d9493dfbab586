// SPDX-License-Identifier: MIT
/* serialize(): tree to text. Values are numbered in the order in which they are met; a reference or object
 * that comes again is written as that number. */
#include "proto/php/tree.h"

#include <errno.h>

#include "proto/php/php_write.h"

struct writer {
    struct bytes *out;
    size_t len_max; /* of out */
    uint32_t n;     /* values so far */
    unsigned depth;
    bool shared; /* inside an array that lies in several slots, so that what it holds may be met again */
};

static int write_value(struct writer *w, struct php_value v);

static void write_key(struct writer *w, struct php_key key)
{
    if (key.str == NULL)
        php_write_int(w->out, key.num);
    else
        php_write_string(w->out, (struct slice){key.str, key.len});
}

/* <letter>:<a>:<text with b's length>... */
static void write_count(struct writer *w, char before, size_t n, const char *after)
{
    char text[PHP_INT_LEN_MAX + 1] = {before};
    size_t len = 1 + php_format_int((int64_t)n, text + 1);
    bytes_append(w->out, text, len);
    bytes_append_str(w->out, after);
}

static void write_name(struct writer *w, char type, struct slice name)
{
    bytes_append_byte(w->out, (uint8_t)type);
    write_count(w, ':', name.len, ":\"");
    bytes_append(w->out, name.data, name.len);
    bytes_append_byte(w->out, '"');
}

/* A slot of `array`; an array inside itself is written as null. */
static int write_slot(struct writer *w, const struct php_array *array, struct php_value v)
{
    if (v.type == PHP_REF && v.ref->count == 1)
        v = v.ref->value;
    if (v.type != PHP_ARRAY)
        return write_value(w, v);
    if (v.array->active || v.array == array) {
        w->n++;
        php_write_null(w->out);
        return 0;
    }
    v.array->active = true;
    int err = write_value(w, v);
    v.array->active = false;
    return err;
}

/* n:{...}; skip_name: the property with the class name, which is no property in the text. */
static int write_entries(struct writer *w, const struct php_array *array, uint32_t n, bool skip_name)
{
    write_count(w, ':', n, ":{");
    if (w->depth >= PHP_DEPTH_MAX && n > 0)
        return -EPROTO;
    bool shared = w->shared;
    w->shared = w->depth > 0 && (shared || array->holders > 1);
    w->depth++;
    for (uint32_t i = 0; n > 0 && i < array->n; i++) {
        struct php_key key = array->entries[i].key;
        if (skip_name && slice_eq_str((struct slice){key.str, key.len}, PHP_MAGIC_MEMBER)) {
            skip_name = false;
            continue;
        }
        write_key(w, key);
        int err = write_slot(w, array, array->entries[i].value);
        if (err < 0)
            return err;
    }
    w->depth--;
    w->shared = shared;
    bytes_append_byte(w->out, '}');
    return 0;
}

static int write_object(struct writer *w, const struct php_object *o)
{
    if (o->kind == PHP_OBJECT_ENUM) {
        write_name(w, 'E', o->name);
        bytes_append_byte(w->out, ';');
        return 0;
    }
    if (o->kind == PHP_OBJECT_CUSTOM) {
        write_name(w, 'C', o->name);
        write_count(w, ':', o->custom.len, ":{");
        bytes_append(w->out, o->custom.data, o->custom.len);
        bytes_append_byte(w->out, '}');
        return 0;
    }
    if (!o->incomplete) {
        write_name(w, 'O', o->name);
        return write_entries(w, &o->props, o->props.n, false);
    }
    /* Also when the text brought a property of that name: PHP is fooled the same way. */
    const struct php_entry *e = php__array_find(&o->props, php__key_string(SLICE_STR(PHP_MAGIC_MEMBER)));
    write_name(w, 'O',
               e != NULL && e->value.type == PHP_STRING ? e->value.str : SLICE_STR(PHP_INCOMPLETE_CLASS));
    return write_entries(w, &o->props, o->props.n > 0 ? o->props.n - 1 : 0, true);
}

/* Where the number of a value that can come again is kept. A reference to an object counts as the object. PHP
 * saves itself the number of an object with one holder, which shows when an array that contains itself brings
 * it again. */
static uint32_t *number_of(const struct writer *w, struct php_value v)
{
    struct php_value inner = php__deref(v);
    if (v.type == PHP_OBJECT && !w->shared && v.object->props.holders == 1 && v.object->number == 0)
        return NULL;
    if (inner.type == PHP_OBJECT)
        return &inner.object->number;
    return v.type == PHP_REF ? &v.ref->number : NULL;
}

/* true: it has been written before, and is now written as that. */
static bool write_again(struct writer *w, struct php_value v)
{
    uint32_t *number = number_of(w, v);
    w->n++;
    if (number == NULL)
        return false;
    if (*number == 0) {
        *number = w->n;
        return false;
    }
    if (v.type == PHP_REF)
        w->n--; /* R: takes no number, r: does */
    bytes_append_byte(w->out, v.type == PHP_REF ? 'R' : 'r');
    write_count(w, ':', *number, ";");
    return true;
}

static int write_value(struct writer *w, struct php_value v)
{
    if (w->out->len > w->len_max)
        return -EMSGSIZE;
    if (write_again(w, v))
        return 0;
    v = php__deref(v);
    switch (v.type) {
    case PHP_NULL: php_write_null(w->out); break;
    case PHP_FALSE: php_write_bool(w->out, false); break;
    case PHP_TRUE: php_write_bool(w->out, true); break;
    case PHP_INT: php_write_int(w->out, v.num); break;
    case PHP_FLOAT: php_write_float(w->out, v.real); break;
    case PHP_STRING: php_write_string(w->out, v.str); break;
    case PHP_ARRAY: bytes_append_byte(w->out, 'a'); return write_entries(w, v.array, v.array->n, false);
    case PHP_OBJECT: return write_object(w, v.object);
    case PHP_REF: return -EPROTO; /* no reference to a reference exists */
    }
    return 0;
}

int php__serialize(struct bytes *out, struct php_value v, size_t len_max)
{
    size_t start = out->len;
    struct writer w = {.out = out, .len_max = start + len_max};
    int err = write_value(&w, v);
    if (err == 0 && out->failed)
        err = -ENOMEM;
    if (err == 0 && out->len > w.len_max)
        err = -EMSGSIZE;
    if (err < 0)
        out->len = start;
    return err;
}
