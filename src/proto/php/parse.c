// SPDX-License-Identifier: MIT
/* unserialize(): text to tree. Recursive, at most PHP_DEPTH_MAX deep with small frames. */
#include "proto/php/tree.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "proto/php/php_write.h"

/* A value by its number: where it lies. Entries move when an array grows, so by position. */
struct slot {
    struct php_array *array;
    uint32_t at;
};

struct parser {
    struct php_arena *arena;
    const uint8_t *pos, *end;
    enum php_parse_mode mode;
    unsigned depth;
    struct slot *slots; /* of the values numbered so far: what R: and r: refer to */
    uint32_t n_slots, cap_slots;
};

static int parse_value(struct parser *p, struct slot at);

static struct php_value *slot_value(struct slot s)
{
    return &s.array->entries[s.at].value;
}

static size_t left(const struct parser *p)
{
    return (size_t)(p->end - p->pos);
}

static bool take(struct parser *p, char c)
{
    if (p->pos == p->end || *p->pos != (uint8_t)c)
        return false;
    p->pos++;
    return true;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Unsigned decimal: a length or a number of elements. What does not fit in 32 bits exceeds any text that
 * comes here. */
static bool take_count(struct parser *p, uint32_t *ret)
{
    uint64_t v = 0;
    const uint8_t *start = p->pos;
    while (p->pos < p->end && is_digit(*p->pos)) {
        v = v * 10 + (uint64_t)(*p->pos++ - '0');
        if (v > UINT32_MAX)
            return false;
    }
    *ret = (uint32_t)v;
    return p->pos > start;
}

static int add_slot(struct parser *p, struct slot s)
{
    if (p->n_slots == p->cap_slots) {
        uint32_t cap = p->cap_slots == 0 ? 64 : p->cap_slots * 2;
        struct slot *slots = php__alloc(p->arena, cap * sizeof *slots);
        if (slots == NULL)
            return -ENOMEM;
        if (p->n_slots > 0)
            memcpy(slots, p->slots, p->n_slots * sizeof *slots);
        p->slots = slots;
        p->cap_slots = cap;
    }
    p->slots[p->n_slots++] = s;
    return 0;
}

/* "[+-]?[0-9]+;", clamped to 64 bits as PHP does. */
static int parse_int(struct parser *p, struct php_value *ret)
{
    bool negative = p->pos < p->end && *p->pos == '-';
    if (negative || (p->pos < p->end && *p->pos == '+'))
        p->pos++;
    const uint8_t *start = p->pos;
    uint64_t v = 0;
    bool too_big = false;
    while (p->pos < p->end && is_digit(*p->pos)) {
        too_big |= __builtin_mul_overflow(v, 10, &v);
        too_big |= __builtin_add_overflow(v, (uint64_t)(*p->pos++ - '0'), &v);
    }
    if (p->pos == start || !take(p, ';'))
        return -EPROTO;
    uint64_t max = (uint64_t)INT64_MAX + negative;
    if (too_big || v > max)
        v = max;
    *ret = (struct php_value){PHP_INT, .num = (int64_t)(negative ? -v : v)};
    return 0;
}

static size_t skip_digits(const uint8_t **pos, const uint8_t *end)
{
    const uint8_t *start = *pos;
    while (*pos < end && is_digit(**pos))
        ++*pos;
    return (size_t)(*pos - start);
}

/* "[+-]?(digits|digits?.digits?)([eE][+-]?digits)?" with at least one digit; the end of it, or NULL. */
static const uint8_t *float_end(const uint8_t *s, const uint8_t *end)
{
    s += s < end && (*s == '-' || *s == '+');
    size_t digits = skip_digits(&s, end);
    if (s < end && *s == '.') {
        s++;
        digits += skip_digits(&s, end);
    }
    if (digits == 0)
        return NULL;
    if (s < end && (*s | 0x20) == 'e') {
        s++;
        s += s < end && (*s == '-' || *s == '+');
        if (skip_digits(&s, end) == 0)
            return NULL;
    }
    return s;
}

static int parse_float(struct parser *p, struct php_value *ret)
{
    static const struct {
        const char *text;
        size_t len;
        double v;
    } words[] = {{"NAN;", 4, (double)NAN}, {"INF;", 4, (double)INFINITY}, {"-INF;", 5, -(double)INFINITY}};
    *ret = (struct php_value){PHP_FLOAT, .real = 0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (left(p) >= words[i].len && memcmp(p->pos, words[i].text, words[i].len) == 0) {
            p->pos += words[i].len;
            ret->real = words[i].v;
            return 0;
        }
    }
    const uint8_t *start = p->pos;
    const uint8_t *end = float_end(start, p->end);
    if (end == NULL || end == p->end || *end != ';')
        return -EPROTO;
    p->pos = end + 1;
    ret->real = strtod((const char *)start, NULL); /* the ';' ends it */
    return 0;
}

/* length:"bytes" */
static int parse_quoted(struct parser *p, struct slice *ret)
{
    uint32_t len;
    if (!take_count(p, &len) || !take(p, ':') || !take(p, '"') || left(p) < len)
        return -EPROTO;
    *ret = (struct slice){p->pos, len};
    p->pos += len;
    return take(p, '"') ? 0 : -EPROTO;
}

static int hex_digit(uint8_t c)
{
    uint8_t lower = c | 0x20;
    return is_digit(c) ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* S:, with \xx for single bytes; the length counts decoded bytes. */
static int parse_escaped(struct parser *p, struct slice *ret)
{
    uint32_t len;
    if (!take_count(p, &len) || !take(p, ':') || !take(p, '"') || left(p) < len)
        return -EPROTO;
    uint8_t *out = php__alloc(p->arena, len);
    if (out == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < len; i++) {
        if (p->pos == p->end)
            return -EPROTO;
        out[i] = *p->pos++;
        if (out[i] != '\\')
            continue;
        int high = left(p) < 2 ? -1 : hex_digit(p->pos[0]), low = left(p) < 2 ? -1 : hex_digit(p->pos[1]);
        if (high < 0 || low < 0)
            return -EPROTO;
        out[i] = (uint8_t)(high << 4 | low);
        p->pos += 2;
    }
    *ret = (struct slice){out, len};
    return take(p, '"') ? 0 : -EPROTO;
}

static int parse_string(struct parser *p, uint8_t type, struct slice *ret)
{
    int err = type == 's' ? parse_quoted(p, ret) : parse_escaped(p, ret);
    if (err < 0)
        return err;
    return take(p, ';') ? 0 : -EPROTO;
}

/* Only integers and strings can be keys; a property's key is a string always. */
static int parse_key(struct parser *p, bool is_property, struct php_key *ret)
{
    struct php_value v;
    struct slice s;
    if (left(p) < 2 || p->pos[1] != ':')
        return -EPROTO;
    uint8_t type = *p->pos;
    p->pos += 2;
    if (type == 's' || type == 'S') {
        int err = parse_string(p, type, &s);
        if (err == 0)
            *ret = is_property ? php__key_string(s) : php__key_of_string(s);
        return err;
    }
    if (type != 'i' || parse_int(p, &v) < 0)
        return -EPROTO;
    *ret = php__key_int(v.num);
    if (!is_property)
        return 0;
    char *digits = php__alloc(p->arena, PHP_INT_LEN_MAX);
    if (digits == NULL)
        return -ENOMEM;
    *ret = php__key_string((struct slice){(uint8_t *)digits, php_format_int(v.num, digits)});
    return 0;
}

/* n times key and value, then '}'. A key that comes again takes the old one's place with a new value. */
static int parse_entries(struct parser *p, struct php_array *array, bool is_props, uint32_t n)
{
    if (p->depth >= PHP_DEPTH_MAX || n > left(p) / 2)
        return -EPROTO;
    p->depth++;
    for (uint32_t i = 0; i < n; i++) {
        struct php_key key;
        int err = parse_key(p, is_props, &key);
        if (err < 0)
            return err;
        struct php_entry *e = php__array_add(p->arena, array, key);
        if (e == NULL)
            return -ENOMEM;
        e->value.type = PHP_NULL;
        err = parse_value(p, (struct slot){array, (uint32_t)(e - array->entries)});
        if (err < 0)
            return err;
    }
    p->depth--;
    return take(p, '}') ? 0 : -EPROTO;
}

static int parse_array(struct parser *p, struct slot at)
{
    uint32_t n;
    if (!take_count(p, &n) || !take(p, ':') || !take(p, '{'))
        return -EPROTO;
    struct php_array *array = php__array_new(p->arena);
    if (array == NULL)
        return -ENOMEM;
    /* In its slot before its elements are read: they may refer to it. */
    *slot_value(at) = (struct php_value){PHP_ARRAY, .array = array};
    if (n == 0)
        return take(p, '}') ? 0 : -EPROTO;
    return parse_entries(p, array, false, n);
}

/* What PHP takes for a class name that it could look up. */
static bool is_class_name(struct slice s)
{
    if (s.len == 0 || s.data[0] == '\\')
        return false;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i], lower = c | 0x20;
        if (!is_digit(c) && !(lower >= 'a' && lower <= 'z') && c != '_' && c != '\\' && c < 0x80)
            return false;
    }
    return true;
}

static bool same_class(struct slice name, const char *known)
{
    return name.len == strlen(known) && strncasecmp((const char *)name.data, known, name.len) == 0;
}

static struct php_object *new_object(struct parser *p, struct slot at, enum php_object_kind kind,
                                     struct slice name)
{
    struct php_object *o = php__alloc(p->arena, sizeof *o);
    if (o == NULL)
        return NULL;
    o->kind = kind;
    o->name = name;
    o->props.next_key = INT64_MIN;
    *slot_value(at) = (struct php_value){PHP_OBJECT, .object = o};
    return o;
}

/* The class is not known: its name becomes the first property. */
static int make_incomplete(struct parser *p, struct php_object *o)
{
    o->incomplete = true;
    struct php_entry *e = php__array_add(p->arena, &o->props, php__key_string(SLICE_STR(PHP_MAGIC_MEMBER)));
    if (e == NULL)
        return -ENOMEM;
    e->value = (struct php_value){PHP_STRING, .str = o->name};
    return 0;
}

static int settle_class(struct parser *p, struct php_object *o)
{
    if (p->mode == PHP_ALL_CLASSES && same_class(o->name, "stdClass")) {
        o->name = SLICE_STR("stdClass");
        return 0;
    }
    if (p->mode == PHP_ALL_CLASSES && same_class(o->name, PHP_INCOMPLETE_CLASS)) {
        o->incomplete = true; /* the class itself is known: what name it stands for is among the properties */
        return 0;
    }
    return make_incomplete(p, o);
}

/* O:length:"name":n:{properties} */
static int parse_object(struct parser *p, struct slot at)
{
    struct slice name;
    uint32_t n;
    int err = parse_quoted(p, &name);
    if (err < 0 || !is_class_name(name) || !take(p, ':') || !take_count(p, &n) || !take(p, ':') ||
        !take(p, '{'))
        return -EPROTO;
    struct php_object *o = new_object(p, at, PHP_OBJECT_PROPS, name);
    if (o == NULL || settle_class(p, o) < 0)
        return -ENOMEM;
    return parse_entries(p, &o->props, true, n);
}

/* C:length:"name":length:{text}. PHP without the class throws the text away; we keep it. */
static int parse_custom(struct parser *p, struct slot at)
{
    struct slice name;
    uint32_t len;
    int err = parse_quoted(p, &name);
    if (err < 0 || !is_class_name(name) || !take(p, ':') || !take_count(p, &len) || !take(p, ':') ||
        !take(p, '{') || left(p) < len)
        return -EPROTO;
    struct php_object *o = new_object(p, at, PHP_OBJECT_CUSTOM, name);
    if (o == NULL)
        return -ENOMEM;
    o->custom = (struct slice){p->pos, len};
    p->pos += len;
    return take(p, '}') ? make_incomplete(p, o) : -EPROTO;
}

/* E:length:"Class:Case"; PHP without the enum refuses the whole text; we keep it. */
static int parse_enum(struct parser *p, struct slot at)
{
    struct slice name;
    int err = parse_quoted(p, &name);
    if (err < 0 || !take(p, ';'))
        return -EPROTO;
    const uint8_t *colon = memchr(name.data, ':', name.len);
    if (colon == NULL || !is_class_name((struct slice){name.data, (size_t)(colon - name.data)}))
        return -EPROTO;
    return new_object(p, at, PHP_OBJECT_ENUM, name) == NULL ? -ENOMEM : 0;
}

/* The value of that number, or NULL; never the slot that is being read itself. */
static struct php_value *referred(struct parser *p, struct slot at)
{
    uint32_t number;
    if (!take_count(p, &number) || !take(p, ';') || number == 0 || number > p->n_slots)
        return NULL;
    struct slot s = p->slots[number - 1];
    return s.array == at.array && s.at == at.at ? NULL : slot_value(s);
}

/* R: both slots become one reference. */
static int parse_reference(struct parser *p, struct slot at)
{
    struct php_value *v = referred(p, at);
    if (v == NULL)
        return -EPROTO;
    if (v->type != PHP_REF) {
        struct php_ref *ref = php__alloc(p->arena, sizeof *ref);
        if (ref == NULL)
            return -ENOMEM;
        ref->value = *v;
        *v = (struct php_value){PHP_REF, .ref = ref};
    }
    *slot_value(at) = *v;
    return 0;
}

/* r: the same object once more. */
static int parse_same_object(struct parser *p, struct slot at)
{
    struct php_value *v = referred(p, at);
    if (v == NULL || php__deref(*v).type != PHP_OBJECT)
        return -EPROTO;
    *slot_value(at) = php__deref(*v);
    return 0;
}

static int parse_bool(struct parser *p, struct php_value *ret)
{
    bool v = take(p, '1');
    if ((!v && !take(p, '0')) || !take(p, ';'))
        return -EPROTO;
    ret->type = v ? PHP_TRUE : PHP_FALSE;
    return 0;
}

static int parse_value(struct parser *p, struct slot at)
{
    struct php_value v = {PHP_NULL};
    if (left(p) < 2)
        return -EPROTO;
    uint8_t type = *p->pos++;
    if (type != 'R') { /* R: gets no number, r: does */
        int err = add_slot(p, at);
        if (err < 0)
            return err;
    }
    if (type == 'N')
        return take(p, ';') ? 0 : -EPROTO;
    if (!take(p, ':'))
        return -EPROTO;
    int err = -EPROTO;
    switch (type) {
    case 'b': err = parse_bool(p, &v); break;
    case 'i': err = parse_int(p, &v); break;
    case 'd': err = parse_float(p, &v); break;
    case 's':
    case 'S':
        v.type = PHP_STRING;
        err = parse_string(p, type, &v.str);
        break;
    case 'a': return parse_array(p, at);
    case 'O': return parse_object(p, at);
    case 'C': return parse_custom(p, at);
    case 'E': return parse_enum(p, at);
    case 'R': return parse_reference(p, at);
    case 'r': return parse_same_object(p, at);
    default: return -EPROTO;
    }
    if (err == 0)
        *slot_value(at) = v;
    return err;
}

int php__parse(struct php_arena *a, struct slice text, enum php_parse_mode mode, struct php_value *ret)
{
    struct parser p = {.arena = a, .pos = text.data, .end = text.data + text.len, .mode = mode};
    if (text.len == 0)
        return -EPROTO;
    struct php_array *root = php__array_new(a);
    if (root == NULL || php__array_add(a, root, php__key_int(0)) == NULL)
        return -ENOMEM;
    int err = parse_value(&p, (struct slot){root, 0});
    if (err < 0)
        return err;
    *ret = php__deref(root->entries[0].value); /* what unserialize() returns is no reference */
    return 0;
}
