// SPDX-License-Identifier: MIT
/* PHP values as a tree, private to this folder. It follows Zend's model, because serialize() shows it: a slot
 * of an array or object holds a value, or a reference that several slots share; objects are handles; arrays
 * are copied.
 *
 *   slot ── scalar, string
 *        ├─ array ── entries (key, slot), in order
 *        ├─ object ─ props: an array, all keys strings
 *        └─ ref ──── one value, `count` slots
 *
 * Everything lives in one arena and goes with it; strings point into the text that was read, or into the
 * arena. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* PHP's unserialize_max_depth. Paths through references may be longer in PHP; here they are refused. */
#define PHP_DEPTH_MAX 4096

struct php_chunk;

struct php_arena {
    struct php_chunk *chunks;
    size_t used;     /* of the newest chunk */
    size_t left_max; /* bytes that may still be taken from the system */
};

/* bytes_max bounds what hostile input can make of itself. */
void php__arena_init(struct php_arena *a, size_t bytes_max);
void php__arena_fini(struct php_arena *a);
void *php__alloc(struct php_arena *a,
                 size_t size); /* zeroed, aligned for any of our structs; NULL at the bound */

enum php_type {
    PHP_NULL,
    PHP_FALSE,
    PHP_TRUE,
    PHP_INT,
    PHP_FLOAT,
    PHP_STRING,
    PHP_ARRAY,
    PHP_OBJECT,
    PHP_REF,
};

struct php_value {
    enum php_type type;
    union {
        int64_t num;
        double real;
        struct slice str;
        struct php_array *array;
        struct php_object *object;
        struct php_ref *ref;
    };
};

struct php_key {
    const uint8_t *str; /* NULL: an integer */
    union {
        size_t len;
        int64_t num;
    };
};

struct php_entry {
    struct php_key key;
    struct php_value value;
};

struct php_array {
    struct php_entry *entries;
    uint32_t n, cap;
    uint32_t *index; /* hash of the key to position + 1, built when the array is too long to search */
    uint32_t index_mask;
    int64_t next_key; /* of an append; INT64_MIN: nothing numbered yet */
    bool active;      /* on the path of a walk: Zend's recursion protection */
    uint32_t mark;    /* walk that has been here */
    uint32_t holders; /* slots that it lies in; of an object's properties: slots that hold the object */
};

enum php_object_kind {
    PHP_OBJECT_PROPS,  /* O: */
    PHP_OBJECT_CUSTOM, /* C: Serializable's own text */
    PHP_OBJECT_ENUM,   /* E: */
};

struct php_object {
    enum php_object_kind kind;
    /* The class is unknown to PHP's gateway: its name is a property then, as in __PHP_Incomplete_Class. */
    bool incomplete;
    struct slice name;   /* of the class; of an enum "Class:Case" */
    struct slice custom; /* C: the text between the braces */
    struct php_array props;
    uint32_t number; /* given by the serializer; 0: not seen yet */
};

struct php_ref {
    struct php_value value;
    uint32_t count;  /* slots that hold it */
    uint32_t number; /* like an object's */
    uint32_t mark;
};

/* The property in which PHP keeps the name of a class that it does not know. */
#define PHP_MAGIC_MEMBER     "__PHP_Incomplete_Class_Name"
#define PHP_INCOMPLETE_CLASS "__PHP_Incomplete_Class"

static inline struct php_value php__deref(struct php_value v)
{
    return v.type == PHP_REF ? v.ref->value : v;
}

struct php_key php__key_of_string(struct slice s); /* an integer when it looks like one */
static inline struct php_key php__key_string(struct slice s)
{
    return (struct php_key){.str = s.data, .len = s.len};
}
static inline struct php_key php__key_int(int64_t num)
{
    return (struct php_key){.num = num};
}

struct php_array *php__array_new(struct php_arena *a);
struct php_entry *php__array_find(const struct php_array *array, struct php_key key);
/* The entry of that key, appended with a null value when there was none; NULL without memory. */
struct php_entry *php__array_add(struct php_arena *a, struct php_array *array, struct php_key key);
/* 0, -ENOMEM, or -ERANGE when the last integer key is taken; *ret is the new entry (null). */
int php__array_append(struct php_arena *a, struct php_array *array, struct php_entry **ret);
/* What a second slot gets that is to hold the same as v: a reference that has but one slot ceases to be one;
 * others count one more. */
struct php_value php__copy_slot(struct php_value v);
/* A copy with slots of its own; NULL without memory. */
struct php_array *php__array_dup(struct php_arena *a, const struct php_array *from);
void php__array_remove(struct php_array *array, struct php_key key);

enum php_parse_mode {
    PHP_ALL_CLASSES, /* unserialize($s) in a process that knows stdClass and none of the application's classes
                      */
    PHP_NO_CLASSES,  /* unserialize($s, ['allowed_classes' => false]) */
};

/* The value at the front of `text`; what is behind it is ignored, as by PHP. 0, -EPROTO or -ENOMEM. The text
 * must outlive the tree. */
int php__parse(struct php_arena *a, struct slice text, enum php_parse_mode mode, struct php_value *ret);

/* Counts who holds what: sets count and holders of everything in reach of the roots (a shared array's slots
 * count once). `mark` must be new to these trees. 0, or -EPROTO for paths that are too deep. */
int php__count_refs(const struct php_value *roots, size_t n, uint32_t mark);
/* Takes one holder away from v, and from what nobody holds then, and so on: as when PHP gives up a variable.
 * What contains itself stays, and holds what it holds. 0, or -EPROTO as above. */
int php__release(struct php_value v);

/* serialize($v). Counts must be set. 0; -ENOMEM; -EMSGSIZE past len_max; -EPROTO for paths that are too deep.
 */
int php__serialize(struct bytes *out, struct php_value v, size_t len_max);

/* What the text may expand to in memory, at worst: "i:1;N;" is an entry. */
static inline size_t php__arena_bound(size_t text_len)
{
    return text_len * 64 + 64 * 1024;
}
