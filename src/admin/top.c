// SPDX-License-Identifier: MIT
#include "admin/top.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin/json_rows.h"
#include "base/json_writer.h"
#include "common/control.h"

static json_t *parse(struct slice row)
{
    return json_loadb((const char *)row.data, row.len, JSON_ALLOW_NUL, NULL);
}

/* Room for one more of `size` bytes. */
static bool reserve(void *list, unsigned n, unsigned *cap, size_t size)
{
    void **base = list;
    unsigned more = *cap == 0 ? 64 : *cap * 2;
    if (n < *cap)
        return true;
    void *grown = realloc(*base, more * size);
    if (grown == NULL)
        return false;
    *base = grown;
    *cap = more;
    return true;
}

/* ---- clients */

void top_rows_add(struct top_rows *t, struct slice rows)
{
    struct slice row;
    size_t pos = 0;
    while (json_rows_next(rows, &pos, &row) > 0) {
        json_t *json = parse(row);
        if (!reserve(&t->list, t->n, &t->cap, sizeof *t->list))
            t->failed = true;
        else
            t->list[t->n++] = (struct top_row){json_number_value(json_object_get(json, "value")), row};
        json_decref(json);
    }
}

static int more_value_first(const void *a, const void *b)
{
    const struct top_row *x = a, *y = b;
    return (x->value < y->value) - (x->value > y->value);
}

void top_rows_write(struct top_rows *t, unsigned limit, struct json_writer *w)
{
    if (t->n > 0)
        qsort(t->list, t->n, sizeof *t->list, more_value_first);
    for (unsigned i = 0; i < t->n && i < limit; i++)
        json_raw(w, t->list[i].row.data, t->list[i].row.len);
}

void top_rows_fini(struct top_rows *t)
{
    free(t->list);
    *t = (struct top_rows){0};
}

/* ---- names */

static struct top_name *find(struct top_names *t, const char *name, size_t len)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (t->list[i].len == len && memcmp(t->list[i].name, name, len) == 0)
            return &t->list[i];
    }
    return NULL;
}

/* A row shows CONTROL_NAME_MAX bytes, cut at a character's end, with U+FFFD for what is no UTF-8. */
static bool is_whole(const char *name, size_t len)
{
    return len > 0 && len + 4 <= CONTROL_NAME_MAX && memmem(name, len, "\xef\xbf\xbd", 3) == NULL;
}

static struct top_name *add_name(struct top_names *t, const char *name, size_t len)
{
    char *copy = malloc(len + 1);
    if (copy == NULL || !reserve(&t->list, t->n, &t->cap, sizeof *t->list)) {
        free(copy);
        t->failed = true;
        return NULL;
    }
    memcpy(copy, name, len);
    copy[len] = '\0';
    t->list[t->n] = (struct top_name){.name = copy, .len = len, .askable = is_whole(name, len)};
    return &t->list[t->n++];
}

/* What it says it has; 0: it is none of these rows. */
static uint64_t add_row(struct top_names *t, unsigned shard, json_t *row)
{
    json_t *text = json_object_get(row, "name");
    json_int_t clients = json_integer_value(json_object_get(row, "clients"));
    const char *name = json_string_value(text);
    if (name == NULL || clients <= 0)
        return 0;
    size_t len = json_string_length(text);
    struct top_name *n = find(t, name, len);
    if (n == NULL)
        n = add_name(t, name, len);
    if (n != NULL) /* several names of a shard may look alike once they are cut: added up */
        top_names_know(n, shard, (uint64_t)clients);
    return (uint64_t)clients;
}

void top_names_add(struct top_names *t, unsigned shard, struct slice rows, unsigned asked)
{
    struct slice text;
    size_t pos = 0;
    unsigned n = 0;
    uint64_t least = UINT64_MAX;

    while (json_rows_next(rows, &pos, &text) > 0) {
        json_t *row = parse(text);
        uint64_t clients = add_row(t, shard, row);
        json_decref(row);
        least = clients < least ? clients : least;
        n++;
    }
    t->shards |= UINT64_C(1) << shard;
    t->floor[shard] = n >= asked ? least : 0;
}

void top_names_know(struct top_name *name, unsigned shard, uint64_t clients)
{
    name->clients += clients;
    name->known |= UINT64_C(1) << shard;
}

/* Shards that may have more of it than is known. */
static uint64_t unknown(const struct top_names *t, const struct top_name *name)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t bit = UINT64_C(1) << i;
        if ((t->shards & bit) != 0 && (name->known & bit) == 0 && t->floor[i] > 0)
            mask |= bit;
    }
    return mask;
}

static uint64_t floors(const struct top_names *t, uint64_t mask)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < 64; i++)
        sum += (mask >> i & 1) != 0 ? t->floor[i] : 0;
    return sum;
}

static int more_clients_first(const void *a, const void *b)
{
    const struct top_name *x = a, *y = b;
    if (x->clients != y->clients)
        return x->clients < y->clients ? 1 : -1;
    size_t len = x->len < y->len ? x->len : y->len;
    int order = memcmp(x->name, y->name, len);
    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* What the last of the top has for certain. */
static uint64_t sort(struct top_names *t, unsigned limit)
{
    if (t->n > 0)
        qsort(t->list, t->n, sizeof *t->list, more_clients_first);
    return t->n >= limit ? t->list[limit - 1].clients : 0;
}

struct top_name *top_names_next(struct top_names *t, unsigned limit, uint64_t *ret_shards)
{
    struct top_name *best = NULL;
    uint64_t last = sort(t, limit), most = 0;

    for (unsigned i = 0; i < t->n; i++) {
        uint64_t mask = t->list[i].askable ? unknown(t, &t->list[i]) : 0;
        uint64_t at_most = t->list[i].clients + floors(t, mask);
        if (mask == 0 || (i >= limit && at_most <= last) || at_most <= most)
            continue;
        most = at_most;
        best = &t->list[i];
        *ret_shards = mask;
    }
    return best;
}

bool top_names_exact(struct top_names *t, unsigned limit)
{
    uint64_t last = sort(t, limit);
    if (floors(t, t->shards) > last)
        return false; /* one that nobody listed may have more */
    for (unsigned i = 0; i < t->n; i++) {
        uint64_t mask = unknown(t, &t->list[i]);
        if (mask != 0 && (i < limit || t->list[i].clients + floors(t, mask) > last))
            return false;
    }
    return true;
}

void top_names_write(struct top_names *t, unsigned limit, struct json_writer *w)
{
    sort(t, limit);
    for (unsigned i = 0; i < t->n && i < limit; i++) {
        json_begin(w, '{');
        json_member_string(w, "name", t->list[i].name, t->list[i].len, CONTROL_NAME_MAX);
        json_member_uint(w, "clients", t->list[i].clients);
        json_end(w, '}');
    }
}

void top_names_fini(struct top_names *t)
{
    for (unsigned i = 0; i < t->n; i++)
        free(t->list[i].name);
    free(t->list);
    *t = (struct top_names){0};
}
