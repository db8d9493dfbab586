// SPDX-License-Identifier: MIT
#include "main/ctl_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "main/ctl_text.h"

void ctl_table_fini(struct ctl_table *t)
{
    bytes_fini(&t->text);
    free(t->cells);
    *t = (struct ctl_table){0};
}

void ctl_table_column(struct ctl_table *t, const char *title, enum ctl_align align)
{
    ASSERT(t->n_columns < CTL_COLUMNS_MAX && t->n_cells == 0);
    t->columns[t->n_columns].title = title;
    t->columns[t->n_columns].align = align;
    t->columns[t->n_columns++].width = ctl_text_width(title, strlen(title));
}

static bool room(struct ctl_table *t)
{
    if (t->n_cells < t->cap_cells)
        return true;
    size_t cap = t->cap_cells > 0 ? 2 * t->cap_cells : 256;
    struct ctl_cell *grown = realloc(t->cells, cap * sizeof *grown);
    if (grown == NULL)
        return false;
    t->cells = grown;
    t->cap_cells = cap;
    return true;
}

static void shorten(struct ctl_table *t, struct ctl_cell *cell)
{
    cell->len = ctl_text_fit(t->text.data + cell->at, cell->len, t->cell_max - 2);
    t->text.len = cell->at + cell->len;
    cell->width = ctl_text_width(t->text.data + cell->at, cell->len) + 2;
    bytes_append_str(&t->text, "..");
    cell->len += 2;
}

void ctl_table_cell(struct ctl_table *t, const void *data, size_t len)
{
    ASSERT(t->n_columns > 0);
    unsigned column = (unsigned)(t->n_cells % t->n_columns);
    if (t->failed || !room(t)) {
        t->failed = true;
        return;
    }
    struct ctl_cell cell = {.at = t->text.len};
    cell.width = ctl_text_append(&t->text, data, len);
    cell.len = t->text.len - cell.at;
    if (t->cell_max > 2 && cell.width > t->cell_max && column + 1 < t->n_columns && !t->text.failed)
        shorten(t, &cell);
    t->failed = t->text.failed;
    if (t->columns[column].width < cell.width)
        t->columns[column].width = cell.width;
    t->cells[t->n_cells++] = cell;
}

void ctl_table_cell_str(struct ctl_table *t, const char *text)
{
    ctl_table_cell(t, text, strlen(text));
}

/* ---- out */

void ctl_line_write(const struct ctl_screen *screen, const void *line, size_t len, struct bytes *out)
{
    if (screen->width > 0 && ctl_text_width(line, len) > screen->width) {
        bytes_append(out, line, ctl_text_fit(line, len, screen->width - 1));
        bytes_append_byte(out, '>');
    } else {
        bytes_append(out, line, len);
    }
    bytes_append_byte(out, '\n');
}

static void blanks(struct bytes *out, size_t n)
{
    while (n-- > 0)
        bytes_append_byte(out, ' ');
}

static void put(struct bytes *line, const struct ctl_table *t, unsigned column, const void *data, size_t len,
                size_t width)
{
    size_t fill = t->columns[column].width - width;

    if (column > 0)
        blanks(line, CTL_GAP);
    if (t->columns[column].align == CTL_RIGHT)
        blanks(line, fill);
    bytes_append(line, data, len);
    if (t->columns[column].align == CTL_LEFT && column + 1 < t->n_columns)
        blanks(line, fill);
}

static void write_titles(const struct ctl_table *t, struct bytes *line)
{
    for (unsigned i = 0; i < t->n_columns; i++) {
        const char *title = t->columns[i].title;
        put(line, t, i, title, strlen(title), ctl_text_width(title, strlen(title)));
    }
}

void ctl_table_write(struct ctl_table *t, const struct ctl_screen *screen, struct bytes *out)
{
    struct bytes line = {0};

    ASSERT(t->failed || t->n_cells % t->n_columns == 0);
    if (!t->begun && !t->failed) {
        write_titles(t, &line);
        ctl_line_write(screen, line.data, line.len, out);
        t->begun = true;
    }
    for (size_t i = 0; i < t->n_cells && !t->failed; i += t->n_columns) {
        bytes_clear(&line);
        for (unsigned c = 0; c < t->n_columns; c++) {
            const struct ctl_cell *cell = &t->cells[i + c];
            put(&line, t, c, t->text.data + cell->at, cell->len, cell->width);
        }
        ctl_line_write(screen, line.data, line.len, out);
    }
    out->failed = out->failed || line.failed || t->failed;
    t->n_cells = 0;
    bytes_clear(&t->text);
    bytes_fini(&line);
}
