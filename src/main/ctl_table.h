// SPDX-License-Identifier: MIT
/* tgg ctl: rows and columns, laid out for a terminal or whole. */
#pragma once

#include "base/bytes.h"

#define CTL_COLUMNS_MAX 24
#define CTL_GAP         2 /* blanks between two columns */

/* Where it goes. */
struct ctl_screen {
    unsigned width;  /* columns; lines are cut there (the last one is then a >). 0: whole */
    unsigned height; /* lines; 0: any */
};

enum ctl_align { CTL_LEFT, CTL_RIGHT };

struct ctl_cell {
    size_t at, len; /* in text */
    size_t width;
};

/* All zero is an empty table without columns. */
struct ctl_table {
    unsigned n_columns;
    struct {
        const char *title; /* the caller's */
        enum ctl_align align;
        size_t width;
    } columns[CTL_COLUMNS_MAX];
    struct bytes text;
    struct ctl_cell *cells; /* n_cells of them, row after row */
    size_t n_cells, cap_cells;
    size_t
        cell_max; /* columns that one cell may have, but of the last column; longer ones end in ..; 0: any */
    bool begun;   /* the titles have been written */
    bool failed;  /* no memory */
};

void ctl_table_fini(struct ctl_table *t);

/* Before the first cell. More than CTL_COLUMNS_MAX is a bug. */
void ctl_table_column(struct ctl_table *t, const char *title, enum ctl_align align);

/* The next cell, from left to right, row after row. Any bytes: they are made harmless (ctl_text_append). */
void ctl_table_cell(struct ctl_table *t, const void *data, size_t len);
void ctl_table_cell_str(struct ctl_table *t, const char *text);

/* The titles (once) and all rows behind what `out` holds; then the table has no rows. Columns keep their
 * width, or grow: so a long list can be written page by page. */
void ctl_table_write(struct ctl_table *t, const struct ctl_screen *screen, struct bytes *out);

/* One line of harmless text and its end, cut at the screen's width. */
void ctl_line_write(const struct ctl_screen *screen, const void *line, size_t len, struct bytes *out);
