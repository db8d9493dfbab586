// SPDX-License-Identifier: MIT
#include "main/ctl_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "main/ctl_seen.h"
#include "main/ctl_text.h"

#define JSON_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(15))

struct list {
    const struct ctl_command *command;
    struct ctl_view *v;
    struct ctl_table table;
    struct ctl_seen seen;
    bool json, all;
    bool single;     /* one name was asked for: there are no pages */
    size_t left;     /* rows that may still come */
    size_t rows;     /* that came */
    json_t *first;   /* JSON without --all: the answer that grows */
    char cursor[64]; /* "": the first page */
    bool has_next, missing_said;
};

/* ---- each row once */

/* A client by its id (one that has none yet cannot be told from others); a uid or group in a shard by the
 * hash of both. */
static bool is_new(struct list *l, const json_t *row)
{
    const json_t *id = json_object_get(row, "connection_id"), *name = json_object_get(row, "name");

    if (json_is_integer(id))
        return json_integer_value(id) == 0 || ctl_seen_add(&l->seen, (uint64_t)json_integer_value(id));
    if (!json_is_string(name))
        return true;
    uint64_t shard = (uint64_t)json_integer_value(json_object_get(row, "shard")) + 1;
    uint64_t hash = hash_bytes(json_string_value(name), json_string_length(name));
    return ctl_seen_add(&l->seen, hash ^ shard * UINT64_C(0x9E3779B97F4A7C15));
}

static json_t *new_rows(struct list *l, const json_t *page)
{
    json_t *rows = json_array(), *row;
    size_t i;

    json_array_foreach(json_object_get(page, l->command->section->member), i, row)
    {
        if (l->left == 0 || !is_new(l, row))
            continue;
        l->left--;
        l->rows++;
        json_array_append(rows, row);
    }
    return rows;
}

/* ---- a page */

static void say_missing(struct list *l, const json_t *page)
{
    const json_t *missing = json_object_get(page, "missing");
    struct bytes text = {0};

    if (l->missing_said || json_array_size(missing) == 0)
        return;
    ctl_value_append(&text, missing, CTL_TEXT);
    bytes_append_byte(&text, '\0');
    if (!text.failed)
        ctl_note(l->v, "tgg ctl: not all is there: no answer of shard %s", (char *)text.data);
    l->missing_said = true;
    bytes_fini(&text);
}

/* For --all: the array, a row a line. */
static void write_json_rows(struct list *l, const json_t *rows, size_t before)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        char *text = json_dumps(row, JSON_FLAGS);
        if (text == NULL) {
            l->v->out->failed = true;
            return;
        }
        bytes_append_str(l->v->out, before + i == 0 ? "[" : ",\n");
        ctl_json_append(l->v->out, text, strlen(text));
        free(text);
    }
}

/* JSON without --all: the rows go behind those of the first answer. */
static void join(struct list *l, json_t *page, json_t *rows)
{
    const char *member = l->command->section->member;

    if (l->first == NULL) {
        l->first = json_incref(page);
        json_object_set(l->first, member, rows);
        return;
    }
    json_array_extend(json_object_get(l->first, member), rows);
    json_object_set(l->first, "cursor", json_object_get(page, "cursor"));
    if (json_array_size(json_object_get(page, "missing")) > 0)
        json_object_set(l->first, "missing", json_object_get(page, "missing"));
}

static void write_text_rows(struct list *l, const json_t *rows, const json_t *before)
{
    struct ctl_section section = *l->command->section;

    /* Only what is there as a whole can be sorted. */
    if (l->has_next || *l->cursor != '\0')
        section.sort = NULL;
    ctl_rows_add(l->v, &section, rows, before, &l->table);
    if (l->rows > 0)
        ctl_table_write(&l->table, &l->v->screen, l->v->out);
    else if (!l->has_next || l->left == 0)
        ctl_show_line(l->v, "%s", section.none);
}

static int take_page(struct list *l, json_t *page)
{
    const json_t *cursor = json_object_get(page, "cursor");
    const json_t *before = l->v->before != NULL && *l->cursor == '\0'
                               ? json_object_get(l->v->before, l->command->section->member)
                               : NULL;
    size_t rows_before = l->rows;

    json_t *rows = new_rows(l, page);
    l->has_next = json_is_string(cursor);
    say_missing(l, page);
    if (l->json && l->all)
        write_json_rows(l, rows, rows_before);
    else if (l->json)
        join(l, page, rows);
    else
        write_text_rows(l, rows, before);
    if (l->v->watch && *l->cursor == '\0')
        l->v->answer = json_incref(page);
    snprintf(l->cursor, sizeof l->cursor, "%s", l->has_next ? json_string_value(cursor) : "");
    json_decref(rows);
    return l->v->out->failed || l->seen.failed ? -ENOMEM : 0;
}

static int get_page(struct list *l, const struct ctl_asker *asker, const struct ctl_target *base,
                    struct bytes *why)
{
    struct ctl_target t = {.has_query = base->has_query};
    struct bytes body = {0};
    json_t *page = NULL;

    bytes_append(&t.text, base->text.data, base->text.len);
    if (!l->single)
        ctl_target_number(&t, "limit", l->left < CTL_PAGE_ROWS ? (int64_t)l->left : CTL_PAGE_ROWS);
    if (*l->cursor != '\0')
        ctl_target_parameter(&t, "cursor", l->cursor);
    bytes_append_byte(&t.text, '\0');
    int r = t.text.failed ? -ENOMEM : ctl_ask(asker, (const char *)t.text.data, &body, why);
    if (r == 0) {
        page = ctl_answer_parse(body.data, body.len, why);
        r = page != NULL ? take_page(l, page) : -EPROTO;
    }
    json_decref(page);
    bytes_fini(&body);
    ctl_target_fini(&t);
    return r;
}

/* ---- all */

static void write_end(struct list *l)
{
    if (l->json && l->all) {
        bytes_append_str(l->v->out, l->rows == 0 ? "[]\n" : "]\n");
    } else if (l->json && l->first != NULL) {
        char *text = json_dumps(l->first, JSON_FLAGS);
        if (text != NULL)
            ctl_json_append(l->v->out, text, strlen(text));
        l->v->out->failed = l->v->out->failed || text == NULL;
        bytes_append_byte(l->v->out, '\n');
        free(text);
    } else if (l->has_next && !l->v->watch) {
        ctl_note(l->v, "tgg ctl: there are more: --limit N, or --all");
    }
}

int ctl_list(const struct ctl_command *command, const struct ctl_asker *asker,
             const struct ctl_target *target, struct ctl_view *v, int (*flush)(struct bytes *out),
             struct bytes *why)
{
    struct list l = {.command = command, .v = v, .json = ctl_given(v->args, CTL_BIT(JSON))};
    int r;

    l.all = ctl_given(v->args, CTL_BIT(ALL));
    l.single = v->args->n_words > 1;
    l.left = l.all                                ? SIZE_MAX
             : ctl_given(v->args, CTL_BIT(LIMIT)) ? (size_t)v->args->number[CTL_OPTION_LIMIT]
                                                  : CTL_LIMIT_DEFAULT;
    ctl_columns_add(v, command->section, &l.table);
    do {
        r = get_page(&l, asker, target, why);
        if (r == 0 && flush != NULL)
            r = flush(v->out);
    } while (r == 0 && l.has_next && l.left > 0);
    if (r == 0)
        write_end(&l);
    if (r == -ENOMEM && why->len == 0)
        bytes_append_str(why, "tgg ctl: no memory\n");
    ctl_table_fini(&l.table);
    ctl_seen_fini(&l.seen);
    json_decref(l.first);
    return r;
}
