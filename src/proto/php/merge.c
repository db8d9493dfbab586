// SPDX-License-Identifier: MIT
#include "proto/php/php_value.h"

#include <errno.h>
#include <string.h>

#include "proto/php/tree.h"

static int replace(struct php_arena *a, struct php_array *dest, struct php_array *src, unsigned depth);

/* Both slots hold arrays: the one in dest is copied (so it is no reference any more), then changed. */
static int replace_inside(struct php_arena *a, struct php_entry *dest, struct php_value src, unsigned depth)
{
    struct php_array *src_array = php__deref(src).array;
    if (src_array->active || depth >= PHP_DEPTH_MAX)
        return -EPROTO; /* PHP throws "Recursion detected" */
    struct php_array *copy = php__array_dup(a, php__deref(dest->value).array);
    if (copy == NULL)
        return -ENOMEM;
    if (dest->value.type == PHP_REF)
        dest->value.ref->count--;
    dest->value = (struct php_value){PHP_ARRAY, .array = copy};
    src_array->active = true;
    int err = replace(a, copy, src_array, depth + 1);
    src_array->active = false;
    return err;
}

/* array_replace_recursive(dest, src), in dest. */
static int replace(struct php_arena *a, struct php_array *dest, struct php_array *src, unsigned depth)
{
    for (uint32_t i = 0; i < src->n; i++) {
        const struct php_entry *from = &src->entries[i];
        struct php_entry *to = php__array_find(dest, from->key);
        if (to != NULL && php__deref(to->value).type == PHP_ARRAY &&
            php__deref(from->value).type == PHP_ARRAY) {
            int err = replace_inside(a, to, from->value, depth);
            if (err < 0)
                return err;
            continue;
        }
        if (to == NULL)
            to = php__array_add(a, dest, from->key);
        if (to == NULL)
            return -ENOMEM;
        to->value = php__copy_slot(from->value);
    }
    return 0;
}

static int parse_array(struct php_arena *a, struct slice text, struct php_value *ret, uint32_t mark)
{
    int err = php__parse(a, text, PHP_ALL_CLASSES, ret);
    if (err < 0)
        return err;
    return ret->type == PHP_ARRAY ? php__count_refs(ret, 1, mark) : -EPROTO;
}

static int merge(struct php_arena *a, struct bytes *out, struct slice session, struct slice patch)
{
    struct php_value all[3], *old = &all[0], *changes = &all[1], *merged = &all[2];
    int err = parse_array(a, session, old, 1);
    if (err < 0 || (err = parse_array(a, patch, changes, 2)) < 0)
        return err;
    *merged = (struct php_value){PHP_ARRAY, .array = php__array_dup(a, old->array)};
    if (merged->array == NULL)
        return -ENOMEM;
    err = replace(a, merged->array, changes->array, 0);
    if (err < 0)
        return err;
    /* When PHP's gateway serializes, it has given up the old session; the patch is there and shares with the
     * result. */
    err = php__count_refs(all, 3, 3);
    if (err < 0 || (err = php__release(*old)) < 0)
        return err;
    return php__serialize(out, *merged, PHP_MERGE_LEN_MAX);
}

int php_session_merge(struct bytes *out, struct slice session, struct slice patch)
{
    struct php_arena arena;
    php__arena_init(&arena, php__arena_bound(session.len + patch.len));
    int err = merge(&arena, out, session, patch);
    php__arena_fini(&arena);
    return err;
}

int php_reserialize(struct bytes *out, struct slice value)
{
    struct php_arena arena;
    struct php_value v;
    php__arena_init(&arena, php__arena_bound(value.len));
    int err = php__parse(&arena, value, PHP_ALL_CLASSES, &v);
    if (err == 0)
        err = php__count_refs(&v, 1, 1);
    if (err == 0)
        err = php__serialize(out, v, PHP_MERGE_LEN_MAX);
    php__arena_fini(&arena);
    return err;
}
