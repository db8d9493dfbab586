// SPDX-License-Identifier: MIT
/* tgg ctl: from JSON to tables. What is shown of a row is a table of columns; while a command is watched,
 * columns with a rate get one more: the change per second since the answer before. */
#pragma once

#include <jansson.h>

#include "main/ctl_options.h"
#include "main/ctl_table.h"

enum ctl_unit {
    CTL_TEXT,   /* as it is; numbers, too */
    CTL_RTEXT,  /* the same, to the right */
    CTL_NUMBER, /* negative: a dash */
    CTL_BYTES,
    CTL_SECONDS,
    CTL_MS,
    CTL_NS,  /* its rate is in percent: of processor time */
    CTL_YES, /* true: yes, false: a dash */
    CTL_UNIX /* seconds since 1970 */
};

struct ctl_column {
    const char *title;
    const char *member; /* of the row; "a.b": b of the object a */
    enum ctl_unit unit;
    const char *rate; /* title of its change per second; NULL: none */
    bool rate_only;   /* while watched, the change takes the place of the value */
};

/* A list of an answer. */
struct ctl_section {
    const char *member;               /* of the answer; the array with the rows */
    const struct ctl_column *columns; /* the last one without a title */
    const char *key;  /* members that tell a row from others, with blanks between them; NULL: no rates */
    const char *sort; /* by this member; "-member": the largest first; NULL: as they come */
    const char *none; /* said instead of a table without rows */
};

struct ctl_view {
    const char *name; /* of the command */
    const struct ctl_args *args;
    struct ctl_screen screen;
    bool watch;
    json_t *answer;
    json_t *before;   /* the answer before, NULL: there is none */
    double elapsed_s; /* since then */
    struct bytes *out;
    struct bytes *notes; /* lines that are not of the answer, such as: a shard is missing */
    int status;          /* exit status */
};

/* Member at a path "a.b"; NULL when it is not there. */
json_t *ctl_member(const json_t *row, const char *path);
double ctl_number(const json_t *row, const char *path);      /* 0: none */
const char *ctl_string(const json_t *row, const char *path); /* "": none; up to its first NUL */
/* Adds a member whose value is given away; row and value may be NULL (no memory). */
void ctl_set(json_t *row, const char *name, json_t *value);

/* One value as text, behind what `out` holds; not yet made harmless. */
void ctl_value_append(struct bytes *out, const json_t *value, enum ctl_unit unit);

/* Columns of a section into a new table; ctl_rows_add with its rows, then ctl_table_write. `before` may be
 * NULL. */
void ctl_columns_add(const struct ctl_view *v, const struct ctl_section *section, struct ctl_table *t);
void ctl_rows_add(const struct ctl_view *v, const struct ctl_section *section, const json_t *rows,
                  const json_t *before, struct ctl_table *t);

/* A whole table. */
void ctl_show_rows(const struct ctl_view *v, const struct ctl_section *section, const json_t *rows,
                   const json_t *before);
/* Likewise, of the answer and the one before. */
void ctl_show_section(const struct ctl_view *v, const struct ctl_section *section);

/* An object, a line for each member: units by the ends of their names (_s, _ms, _ns, _bytes), objects within
 * it as "a.b". */
void ctl_show_object(const struct ctl_view *v, const json_t *object);

/* A line, harmless and cut at the screen's width. */
void ctl_show_line(const struct ctl_view *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ctl_note(const struct ctl_view *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
