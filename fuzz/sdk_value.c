// SPDX-License-Identifier: MIT
/* The worker library's reader of PHP values: a value ends where it says, whatever follows; less of it is no
 * value; an array holds as many elements as it claims, all within the bytes that came; flat sessions can be
 * written anew. */
#include "../sdk/include/tgg_worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define PAIRS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input {
    const char *begin, *end;
};

static void check_extent(const struct input *in, const char *s, size_t len)
{
    ASSERT(s >= in->begin && s <= in->end && len <= (size_t)(in->end - s));
}

static char *text_of(const char *s, size_t len)
{
    char *text = malloc(len + 1);
    ASSERT(text != NULL);
    memcpy(text, s, len);
    text[len] = '\0';
    return text;
}

/* Looked for by its name, the first of that name is found. */
static void check_find(const struct tggw_value *array, const struct tggw_value *key)
{
    struct tggw_value found;
    if (key->type != TGGW_STRING || memchr(key->s, '\0', key->len) != NULL)
        return;
    char *name = text_of(key->s, key->len);
    ASSERT(tggw_value_is(key, name));
    ASSERT(tggw_value_find(array, name, &found) == 0);
    free(name);
}

static void check_value(const struct input *in, const struct tggw_value *v, unsigned depth);

static void check_array(const struct input *in, const struct tggw_value *v, unsigned depth)
{
    struct tggw_iter it;
    struct tggw_value key, value;
    size_t n = 0;
    tggw_iter_init(&it, v);
    while (tggw_iter_next(&it, &key, &value) > 0) {
        ASSERT(key.type == TGGW_INT || key.type == TGGW_STRING);
        check_value(in, &key, depth + 1);
        check_value(in, &value, depth + 1);
        if (n++ < 4)
            check_find(v, &key);
    }
    ASSERT(n == v->count);
    ASSERT(tggw_iter_next(&it, &key, &value) == 0);
}

static void check_value(const struct input *in, const struct tggw_value *v, unsigned depth)
{
    ASSERT(depth < 1000);
    switch (v->type) {
    case TGGW_BOOL: ASSERT(v->i == 0 || v->i == 1); break;
    case TGGW_STRING:
    case TGGW_OTHER: check_extent(in, v->s, v->len); break;
    case TGGW_ARRAY:
        check_extent(in, v->s, v->len);
        check_array(in, v, depth);
        break;
    case TGGW_NULL:
    case TGGW_INT:
    case TGGW_DOUBLE: break;
    }
}

/* It ends by itself: what follows changes nothing, and less of it is none. */
static void check_end(const uint8_t *data, size_t used)
{
    struct tggw_value v;
    size_t again = 0;
    uint8_t *exact = malloc(used); /* so that a sanitizer sees a read past its end */
    ASSERT(exact != NULL);
    memcpy(exact, data, used);
    ASSERT(tggw_value_parse(exact, used, &v, &again) == 0 && again == used);
    ASSERT(tggw_value_parse(exact, used - 1, &v, NULL) == -EBADMSG);
    ASSERT(tggw_value_parse(exact, used / 2, &v, NULL) == -EBADMSG);
    free(exact);
}

/* d:<number>; is one to its last byte. */
static void check_double(const uint8_t *data, size_t used)
{
    ASSERT(data[0] == 'd' && data[used - 1] == ';' && used > 3);
    for (size_t i = 2; i + 1 < used; i++)
        ASSERT(data[i] != '\0' && strchr("0123456789+-.eEINFA", data[i]) != NULL);
}

/* The strings of an array, up to PAIRS_MAX; each name once. */
static size_t take_pairs(const struct tggw_value *array, struct tggw_pair *pairs)
{
    struct tggw_iter it;
    struct tggw_value key, value, first;
    size_t n = 0;
    tggw_iter_init(&it, array);
    while (n < PAIRS_MAX && tggw_iter_next(&it, &key, &value) > 0) {
        if (key.type != TGGW_STRING || value.type != TGGW_STRING || memchr(key.s, '\0', key.len) != NULL)
            continue;
        char *name = text_of(key.s, key.len);
        ASSERT(tggw_value_find(array, name, &first) == 0);
        if (first.type == TGGW_STRING && first.s == value.s)
            pairs[n++] = (struct tggw_pair){name, value.s, value.len};
        else
            free(name);
    }
    return n;
}

static void check_session(const struct tggw_value *array)
{
    struct tggw_pair pairs[PAIRS_MAX];
    size_t n = take_pairs(array, pairs), used = 0;
    size_t size = tggw_session_build(pairs, n, NULL, 0);
    char *session = malloc(size);
    struct tggw_value back;
    ASSERT(session != NULL);
    ASSERT(tggw_session_build(pairs, n, session, size) == size);
    ASSERT(tggw_value_parse(session, size, &back, &used) == 0);
    ASSERT(used == size && back.type == TGGW_ARRAY && back.count == n);
    for (size_t i = 0; i < n; i++) {
        const char *value;
        size_t len;
        ASSERT(tggw_session_get(session, size, pairs[i].key, &value, &len) == 0);
        ASSERT(len == pairs[i].value_len && memcmp(value, pairs[i].value, len) == 0);
    }
    for (size_t i = 0; i < n; i++)
        free((char *)(uintptr_t)pairs[i].key);
    free(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct input in = {(const char *)data, (const char *)data + len};
    struct tggw_value v;
    size_t used = 0;
    int err = tggw_value_parse(data, len, &v, &used);
    ASSERT(err == 0 || err == -EBADMSG);
    if (err != 0)
        return 0;
    ASSERT(used >= 2 && used <= len);
    check_value(&in, &v, 0);
    check_end(data, used);
    if (v.type == TGGW_DOUBLE)
        check_double(data, used);
    if (v.type == TGGW_ARRAY)
        check_session(&v);
    return 0;
}
