// SPDX-License-Identifier: MIT
#include "main/ctl_table.h"

#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct ctl_screen whole = {0};

static void expect(struct ctl_table *t, const struct ctl_screen *screen, const char *expected)
{
    struct bytes out = {0};
    ctl_table_write(t, screen, &out);
    bytes_append_byte(&out, 0);
    assert_string_equal((char *)out.data, expected);
    bytes_fini(&out);
}

static struct ctl_table three_columns(void)
{
    struct ctl_table t = {0};
    ctl_table_column(&t, "name", CTL_LEFT);
    ctl_table_column(&t, "n", CTL_RIGHT);
    ctl_table_column(&t, "text", CTL_LEFT);
    return t;
}

static void row(struct ctl_table *t, const char *a, const char *b, const char *c)
{
    ctl_table_cell_str(t, a);
    ctl_table_cell_str(t, b);
    ctl_table_cell_str(t, c);
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
    struct ctl_table t = three_columns();
    row(&t, "a", "1", "x");
    row(&t, "longer", "1234", "y");
    expect(&t, &whole,
           "name       n  text\n"
           "a          1  x\n"
           "longer  1234  y\n");
    ctl_table_fini(&t);
}

static void a_table_without_rows_has_its_titles(void **state)
{
    struct ctl_table t = three_columns();
    expect(&t, &whole, "name  n  text\n");
    ctl_table_fini(&t);
}

static void later_pages_keep_the_widths_and_have_no_titles(void **state)
{
    struct ctl_table t = three_columns();
    row(&t, "longer", "1", "x");
    expect(&t, &whole, "name    n  text\nlonger  1  x\n");
    row(&t, "a", "22", "y");
    expect(&t, &whole, "a       22  y\n");
    row(&t, "b", "3", "z");
    expect(&t, &whole, "b        3  z\n");
    ctl_table_fini(&t);
}

static void lines_are_cut_at_the_width_of_the_screen(void **state)
{
    struct ctl_table t = three_columns();
    row(&t, "a", "1", "12345");
    row(&t, "b", "2", "\xe7\x94\xa8\xe7\x94\xa8\xe7\x94\xa8");
    expect(&t, &(struct ctl_screen){.width = 13},
           "name  n  text\n"
           "a     1  123>\n"
           "b     2  \xe7\x94\xa8>\n");
    ctl_table_fini(&t);
}

static void long_cells_are_shortened_but_in_the_last_column(void **state)
{
    struct ctl_table t = three_columns();
    t.cell_max = 6;
    row(&t, "abcdefgh", "1234567", "as long as it is");
    row(&t, "abcdef", "1", "y");
    expect(&t, &whole,
           "name         n  text\n"
           "abcd..  1234..  as long as it is\n"
           "abcdef       1  y\n");
    ctl_table_fini(&t);
}

static void wide_and_harmful_characters_keep_the_columns_aligned(void **state)
{
    struct ctl_table t = three_columns();
    row(&t, "\xe7\x94\xa8\xe6\x88\xb7", "1", "x");
    row(&t, "\x1b[m", "2", "y\n");
    expect(&t, &whole,
           "name    n  text\n"
           "\xe7\x94\xa8\xe6\x88\xb7    1  x\n"
           "\\x1b[m  2  y\\x0a\n");
    ctl_table_fini(&t);
}

static void many_rows_are_all_there(void **state)
{
    struct ctl_table t = {0};
    struct bytes out = {0};
    unsigned lines = 0;

    ctl_table_column(&t, "i", CTL_RIGHT);
    for (unsigned i = 0; i < 5000; i++) {
        char text[16];
        snprintf(text, sizeof text, "%u", i);
        ctl_table_cell_str(&t, text);
    }
    ctl_table_write(&t, &whole, &out);
    for (size_t i = 0; i < out.len; i++)
        lines += out.data[i] == '\n';
    assert_int_equal(lines, 5001);
    assert_int_equal(out.len, 5001 * 5);
    bytes_fini(&out);
    ctl_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
        cmocka_unit_test(a_table_without_rows_has_its_titles),
        cmocka_unit_test(later_pages_keep_the_widths_and_have_no_titles),
        cmocka_unit_test(lines_are_cut_at_the_width_of_the_screen),
        cmocka_unit_test(long_cells_are_shortened_but_in_the_last_column),
        cmocka_unit_test(wide_and_harmful_characters_keep_the_columns_aligned),
        cmocka_unit_test(many_rows_are_all_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
