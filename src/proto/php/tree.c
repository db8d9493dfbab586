// SPDX-License-Identifier: MIT
#include "proto/php/tree.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "proto/php/php_write.h"

struct php_chunk {
    struct php_chunk *next;
    size_t cap;
    alignas(max_align_t) uint8_t data[];
};

#define CHUNK_MIN ((size_t)4096)
#define CHUNK_MAX ((size_t)1 << 20)

void php__arena_init(struct php_arena *a, size_t bytes_max)
{
    *a = (struct php_arena){.left_max = bytes_max};
}

void php__arena_fini(struct php_arena *a)
{
    while (a->chunks != NULL) {
        struct php_chunk *next = a->chunks->next;
        free(a->chunks);
        a->chunks = next;
    }
}

static bool add_chunk(struct php_arena *a, size_t size)
{
    size_t cap = a->chunks == NULL ? CHUNK_MIN : a->chunks->cap * 2;
    if (cap > CHUNK_MAX)
        cap = CHUNK_MAX;
    if (cap < size)
        cap = size;
    if (cap > a->left_max)
        return false;
    struct php_chunk *c = malloc(sizeof *c + cap);
    if (c == NULL)
        return false;
    c->next = a->chunks;
    c->cap = cap;
    a->chunks = c;
    a->used = 0;
    a->left_max -= cap;
    return true;
}

void *php__alloc(struct php_arena *a, size_t size)
{
    size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (a->chunks == NULL || size > a->chunks->cap - a->used) {
        if (!add_chunk(a, size))
            return NULL;
    }
    void *p = a->chunks->data + a->used;
    a->used += size;
    return memset(p, 0, size);
}

struct php_key php__key_of_string(struct slice s)
{
    int64_t num;
    return php_key_is_int(s, &num) ? php__key_int(num) : php__key_string(s);
}

struct php_array *php__array_new(struct php_arena *a)
{
    struct php_array *array = php__alloc(a, sizeof *array);
    if (array != NULL)
        array->next_key = INT64_MIN;
    return array;
}

static bool key_eq(struct php_key a, struct php_key b)
{
    if (a.str == NULL || b.str == NULL)
        return a.str == b.str && a.num == b.num;
    return a.len == b.len && memcmp(a.str, b.str, a.len) == 0;
}

static uint32_t key_hash(struct php_key key)
{
    /* Keyed also for integers: a session's keys may come from a client. */
    uint64_t h = key.str == NULL ? hash_bytes(&key.num, sizeof key.num) : hash_bytes(key.str, key.len);
    return (uint32_t)h;
}

#define SEARCH_MAX 8u /* entries that are searched one by one */

struct php_entry *php__array_find(const struct php_array *array, struct php_key key)
{
    if (array->index == NULL) {
        for (uint32_t i = 0; i < array->n; i++) {
            if (key_eq(array->entries[i].key, key))
                return &array->entries[i];
        }
        return NULL;
    }
    for (uint32_t h = key_hash(key);; h++) {
        uint32_t at = array->index[h & array->index_mask];
        if (at == 0)
            return NULL;
        if (key_eq(array->entries[at - 1].key, key))
            return &array->entries[at - 1];
    }
}

static void index_add(struct php_array *array, uint32_t position)
{
    uint32_t h = key_hash(array->entries[position].key);
    while (array->index[h & array->index_mask] != 0)
        h++;
    array->index[h & array->index_mask] = position + 1;
}

/* cap entries, and an index that is at most half full. */
static bool array_resize(struct php_arena *a, struct php_array *array, uint32_t cap)
{
    struct php_entry *entries = php__alloc(a, cap * sizeof *entries);
    if (entries == NULL)
        return false;
    uint32_t *index = cap > SEARCH_MAX ? php__alloc(a, (size_t)cap * 2 * sizeof *index) : NULL;
    if (index == NULL && cap > SEARCH_MAX)
        return false;
    if (array->n > 0)
        memcpy(entries, array->entries, array->n * sizeof *entries);
    array->entries = entries;
    array->cap = cap;
    array->index = index;
    array->index_mask = cap * 2 - 1;
    for (uint32_t i = 0; index != NULL && i < array->n; i++)
        index_add(array, i);
    return true;
}

/* Room for one more entry. */
static bool array_grow(struct php_arena *a, struct php_array *array)
{
    if (array->n < array->cap)
        return true;
    if (array->cap > UINT32_MAX / 8)
        return false;
    return array_resize(a, array, array->cap == 0 ? 4 : array->cap * 2);
}

struct php_value php__copy_slot(struct php_value v)
{
    if (v.type != PHP_REF)
        return v;
    if (v.ref->count == 1)
        return v.ref->value;
    v.ref->count++;
    return v;
}

struct php_array *php__array_dup(struct php_arena *a, const struct php_array *from)
{
    struct php_array *copy = php__array_new(a);
    if (copy == NULL)
        return NULL;
    copy->entries = from->entries;
    copy->n = from->n;
    copy->next_key = from->next_key;
    if (from->cap == 0)
        return copy;
    if (!array_resize(a, copy, from->cap))
        return NULL;
    for (uint32_t i = 0; i < copy->n; i++) {
        struct php_value *v = &copy->entries[i].value;
        if (v->type == PHP_REF && v->ref->value.type == PHP_ARRAY && v->ref->value.array == from)
            v->ref->count++; /* an array in itself: stays a reference */
        else
            *v = php__copy_slot(*v);
    }
    return copy;
}

struct php_entry *php__array_add(struct php_arena *a, struct php_array *array, struct php_key key)
{
    struct php_entry *e = php__array_find(array, key);
    if (e != NULL)
        return e;
    if (!array_grow(a, array))
        return NULL;
    e = &array->entries[array->n];
    *e = (struct php_entry){.key = key};
    if (array->index != NULL)
        index_add(array, array->n);
    array->n++;
    if (key.str == NULL && key.num >= array->next_key)
        array->next_key = key.num == INT64_MAX ? INT64_MAX : key.num + 1;
    return e;
}

int php__array_append(struct php_arena *a, struct php_array *array, struct php_entry **ret)
{
    struct php_key key = php__key_int(array->next_key == INT64_MIN ? 0 : array->next_key);
    if (key.num == INT64_MAX && php__array_find(array, key) != NULL)
        return -ERANGE;
    *ret = php__array_add(a, array, key);
    return *ret == NULL ? -ENOMEM : 0;
}

void php__array_remove(struct php_array *array, struct php_key key)
{
    struct php_entry *e = php__array_find(array, key);
    if (e == NULL)
        return;
    uint32_t at = (uint32_t)(e - array->entries);
    memmove(e, e + 1, (array->n - at - 1) * sizeof *e);
    array->n--;
    if (array->index == NULL)
        return;
    memset(array->index, 0, ((size_t)array->index_mask + 1) * sizeof *array->index);
    for (uint32_t i = 0; i < array->n; i++)
        index_add(array, i);
}

static int count_array(struct php_array *array, uint32_t mark, unsigned depth);

static int count_value(struct php_value v, uint32_t mark, unsigned depth)
{
    if (v.type == PHP_REF) {
        if (v.ref->mark != mark) {
            v.ref->mark = mark;
            v.ref->count = 0;
        }
        if (v.ref->count++ > 0)
            return 0;
        v = v.ref->value;
    }
    if (v.type == PHP_ARRAY)
        return count_array(v.array, mark, depth);
    return v.type == PHP_OBJECT ? count_array(&v.object->props, mark, depth) : 0;
}

static int count_array(struct php_array *array, uint32_t mark, unsigned depth)
{
    if (array->mark == mark) {
        array->holders++;
        return 0;
    }
    array->mark = mark;
    array->holders = 1;
    if (depth > PHP_DEPTH_MAX)
        return array->n > 0 ? -EPROTO : 0;
    for (uint32_t i = 0; i < array->n; i++) {
        int err = count_value(array->entries[i].value, mark, depth + 1);
        if (err < 0)
            return err;
    }
    return 0;
}

int php__count_refs(const struct php_value *roots, size_t n, uint32_t mark)
{
    for (size_t i = 0; i < n; i++) {
        int err = count_value(roots[i], mark, 0);
        if (err < 0)
            return err;
    }
    return 0;
}

static int release(struct php_value v, unsigned depth)
{
    if (v.type == PHP_REF) {
        if (--v.ref->count > 0)
            return 0;
        v = v.ref->value;
    }
    if (v.type != PHP_ARRAY && v.type != PHP_OBJECT)
        return 0;
    struct php_array *array = v.type == PHP_ARRAY ? v.array : &v.object->props;
    if (--array->holders > 0)
        return 0;
    for (uint32_t i = 0; i < array->n; i++) {
        int err = depth >= PHP_DEPTH_MAX ? -EPROTO : release(array->entries[i].value, depth + 1);
        if (err < 0)
            return err;
    }
    return 0;
}

int php__release(struct php_value v)
{
    return release(v, 0);
}
