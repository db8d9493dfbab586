// SPDX-License-Identifier: MIT
#include "main/ctl_show.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "main/ctl_text.h"

#define PATH_MAX_BYTES 128
#define CELL_MAX       40 /* columns of one cell on a terminal */

/* ---- members */

json_t *ctl_member(const json_t *row, const char *path)
{
    char name[PATH_MAX_BYTES];
    const char *dot = strchr(path, '.');

    if (dot == NULL || (size_t)(dot - path) >= sizeof name)
        return json_object_get(row, path);
    memcpy(name, path, (size_t)(dot - path));
    name[dot - path] = '\0';
    return ctl_member(json_object_get(row, name), dot + 1);
}

double ctl_number(const json_t *row, const char *path)
{
    return json_number_value(ctl_member(row, path));
}

const char *ctl_string(const json_t *row, const char *path)
{
    const char *text = json_string_value(ctl_member(row, path));
    return text != NULL ? text : "";
}

void ctl_set(json_t *row, const char *name, json_t *value)
{
    if (row == NULL)
        json_decref(value);
    else
        json_object_set_new_nocheck(row, name, value);
}

/* ---- values */

static void append_list(struct bytes *out, const json_t *list)
{
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value)
    {
        if (i > 0)
            bytes_append_str(out, ", ");
        ctl_value_append(out, value, CTL_TEXT);
    }
    if (json_array_size(list) == 0)
        bytes_append_byte(out, '-');
}

static void append_text(struct bytes *out, const json_t *value)
{
    char buf[CTL_FORMAT_MAX];

    switch (json_typeof(value)) {
    case JSON_STRING: bytes_append(out, json_string_value(value), json_string_length(value)); return;
    case JSON_INTEGER: bytes_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value)); return;
    case JSON_REAL: bytes_append_str(out, ctl_format_count(json_real_value(value), buf)); return;
    case JSON_TRUE: bytes_append_str(out, "yes"); return;
    case JSON_FALSE: bytes_append_str(out, "no"); return;
    case JSON_ARRAY: append_list(out, value); return;
    default: bytes_append_byte(out, '-');
    }
}

static const char *format_number(double n, enum ctl_unit unit, char *buf)
{
    switch (unit) {
    case CTL_BYTES: return ctl_format_bytes(n, buf);
    case CTL_SECONDS: return ctl_format_seconds(n, buf);
    case CTL_MS: return ctl_format_ns(n * 1e6, buf);
    case CTL_NS: return ctl_format_ns(n, buf);
    case CTL_UNIX: return ctl_format_unix((int64_t)n, buf);
    default: return n < 0 ? "-" : ctl_format_count(n, buf);
    }
}

void ctl_value_append(struct bytes *out, const json_t *value, enum ctl_unit unit)
{
    char buf[CTL_FORMAT_MAX];

    if (value == NULL || json_is_null(value))
        bytes_append_byte(out, '-');
    else if (unit == CTL_YES)
        bytes_append_str(out, json_is_true(value) ? "yes" : "-");
    else if (json_is_number(value) && unit != CTL_TEXT && unit != CTL_RTEXT)
        bytes_append_str(out, format_number(json_number_value(value), unit, buf));
    else
        append_text(out, value);
}

/* ---- the answer before */

static bool same_key(const json_t *a, const json_t *b, const char *key)
{
    char name[PATH_MAX_BYTES];

    while (*key != '\0') {
        size_t n = strcspn(key, " ");
        if (n >= sizeof name)
            return false;
        memcpy(name, key, n);
        name[n] = '\0';
        json_t *x = ctl_member(a, name), *y = ctl_member(b, name);
        if (x == NULL || y == NULL || !json_equal(x, y))
            return false;
        key += n + (key[n] == ' ');
    }
    return true;
}

/* The row that this one was; mostly at the same place. */
static json_t *row_before(const struct ctl_section *section, const json_t *row, size_t place,
                          const json_t *before)
{
    size_t i;
    json_t *candidate = json_array_get(before, place);

    if (candidate != NULL && same_key(row, candidate, section->key))
        return candidate;
    json_array_foreach(before, i, candidate)
    {
        if (same_key(row, candidate, section->key))
            return candidate;
    }
    return NULL;
}

/* A total that has become less began anew; what may go down is said with its sign. */
static void append_rate(const struct ctl_view *v, struct bytes *out, const struct ctl_column *column,
                        const json_t *row, const json_t *old)
{
    char buf[CTL_FORMAT_MAX];
    const json_t *now = ctl_member(row, column->member), *then = ctl_member(old, column->member);

    if (!json_is_number(now) || !json_is_number(then) || !(v->elapsed_s > 0)) {
        bytes_append_byte(out, '-');
        return;
    }
    double rate = (json_number_value(now) - json_number_value(then)) / v->elapsed_s;
    if (rate < 0) {
        bytes_append_byte(out, '-');
        rate = -rate;
    }
    if (column->unit == CTL_NS)
        bytes_printf(out, "%.1f%%", rate / 1e7);
    else
        bytes_append_str(out, format_number(rate, column->unit, buf));
}

/* ---- tables */

static bool has_rates(const struct ctl_view *v, const struct ctl_section *section)
{
    return v->watch && section->key != NULL;
}

static bool is_left(enum ctl_unit unit)
{
    return unit == CTL_TEXT || unit == CTL_YES || unit == CTL_UNIX;
}

void ctl_columns_add(const struct ctl_view *v, const struct ctl_section *section, struct ctl_table *t)
{
    t->cell_max = v->screen.width > 0 ? CELL_MAX : 0;
    for (const struct ctl_column *c = section->columns; c->title != NULL; c++) {
        bool rate = c->rate != NULL && has_rates(v, section);
        if (!rate || !c->rate_only)
            ctl_table_column(t, c->title, is_left(c->unit) ? CTL_LEFT : CTL_RIGHT);
        if (rate)
            ctl_table_column(t, c->rate, CTL_RIGHT);
    }
}

static void add_row(const struct ctl_view *v, const struct ctl_section *section, const json_t *row,
                    const json_t *old, struct ctl_table *t)
{
    struct bytes text = {0};

    for (const struct ctl_column *c = section->columns; c->title != NULL; c++) {
        bool rate = c->rate != NULL && has_rates(v, section);
        if (!rate || !c->rate_only) {
            bytes_clear(&text);
            ctl_value_append(&text, ctl_member(row, c->member), c->unit);
            ctl_table_cell(t, text.data, text.len);
        }
        if (rate) {
            bytes_clear(&text);
            append_rate(v, &text, c, row, old);
            ctl_table_cell(t, text.data, text.len);
        }
    }
    t->failed = t->failed || text.failed;
    bytes_fini(&text);
}

static int compare(const void *a, const void *b, void *ctx)
{
    const char *member = ctx;
    bool down = *member == '-';
    const json_t *x = ctl_member(*(json_t *const *)a, member + down);
    const json_t *y = ctl_member(*(json_t *const *)b, member + down);
    int order = 0;

    if (json_is_number(x) && json_is_number(y)) {
        double m = json_number_value(x), n = json_number_value(y);
        order = m < n ? -1 : m > n;
    } else if (json_is_string(x) && json_is_string(y)) {
        order = strcmp(json_string_value(x), json_string_value(y));
    }
    return down ? -order : order;
}

/* The rows in their order; to be freed. NULL without memory, or without rows. */
static json_t **sorted(const json_t *rows, const char *sort)
{
    size_t n = json_array_size(rows);
    json_t **list = n > 0 ? malloc(n * sizeof(json_t *)) : NULL;

    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < n; i++)
        list[i] = json_array_get(rows, i);
    /* glibc's qsort is a merge sort up to a quarter of the memory: equal rows stay in their order. */
    if (sort != NULL)
        qsort_r(list, n, sizeof(json_t *), compare, (void *)(uintptr_t)sort);
    return list;
}

void ctl_rows_add(const struct ctl_view *v, const struct ctl_section *section, const json_t *rows,
                  const json_t *before, struct ctl_table *t)
{
    size_t n = json_array_size(rows);
    json_t **list = sorted(rows, section->sort);

    t->failed = t->failed || (list == NULL && n > 0);
    for (size_t i = 0; i < n && !t->failed; i++) {
        json_t *old =
            has_rates(v, section) && before != NULL ? row_before(section, list[i], i, before) : NULL;
        add_row(v, section, list[i], old, t);
    }
    free(list);
}

void ctl_show_rows(const struct ctl_view *v, const struct ctl_section *section, const json_t *rows,
                   const json_t *before)
{
    struct ctl_table t = {0};

    if (json_array_size(rows) == 0 && section->none != NULL) {
        ctl_show_line(v, "%s", section->none);
        return;
    }
    ctl_columns_add(v, section, &t);
    ctl_rows_add(v, section, rows, before, &t);
    ctl_table_write(&t, &v->screen, v->out);
    ctl_table_fini(&t);
}

void ctl_show_section(const struct ctl_view *v, const struct ctl_section *section)
{
    ctl_show_rows(v, section, json_object_get(v->answer, section->member),
                  v->before != NULL ? json_object_get(v->before, section->member) : NULL);
}

/* ---- objects */

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

static enum ctl_unit unit_of(const char *name)
{
    return ends_in(name, "_unix_s")                             ? CTL_UNIX
           : ends_in(name, "_ms")                               ? CTL_MS
           : ends_in(name, "_ns")                               ? CTL_NS
           : ends_in(name, "_s")                                ? CTL_SECONDS
           : ends_in(name, "_bytes") || ends_in(name, ".bytes") ? CTL_BYTES
                                                                : CTL_TEXT;
}

static void add_members(const json_t *object, const char *prefix, struct ctl_table *t)
{
    const char *name;
    json_t *value;
    struct bytes text = {0};
    char path[PATH_MAX_BYTES];

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix != '\0' ? "." : "", name);
        if (json_is_object(value) && strlen(path) + 1 < sizeof path) {
            add_members(value, path, t);
            continue;
        }
        bytes_clear(&text);
        ctl_value_append(&text, value, unit_of(path));
        ctl_table_cell_str(t, path);
        ctl_table_cell(t, text.data, text.len);
    }
    t->failed = t->failed || text.failed;
    bytes_fini(&text);
}

void ctl_show_object(const struct ctl_view *v, const json_t *object)
{
    struct ctl_table t = {.begun = true};

    ctl_table_column(&t, "", CTL_LEFT);
    ctl_table_column(&t, "", CTL_LEFT);
    add_members(object, "", &t);
    ctl_table_write(&t, &v->screen, v->out);
    ctl_table_fini(&t);
}

/* ---- lines */

static void show_line(const struct ctl_screen *screen, struct bytes *out, const char *fmt, va_list args)
{
    struct bytes line = {0};
    char *text = NULL;

    if (vasprintf(&text, fmt, args) < 0) {
        out->failed = true;
        return;
    }
    ctl_text_append(&line, text, strlen(text));
    free(text);
    ctl_line_write(screen, line.data, line.len, out);
    out->failed = out->failed || line.failed;
    bytes_fini(&line);
}

void ctl_show_line(const struct ctl_view *v, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    show_line(&v->screen, v->out, fmt, args);
    va_end(args);
}

void ctl_note(const struct ctl_view *v, const char *fmt, ...)
{
    const struct ctl_screen whole = {0};
    va_list args;
    va_start(args, fmt);
    show_line(&whole, v->notes, fmt, args);
    va_end(args);
}
