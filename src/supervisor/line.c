// SPDX-License-Identifier: MIT
#include "supervisor/line.h"

#include <unistd.h>

void line_add_text(struct line *l, const char *text)
{
    for (; *text != '\0' && l->len < sizeof l->text; text++)
        l->text[l->len++] = *text;
}

void line_add_number(struct line *l, unsigned v)
{
    char digits[11];
    size_t at = sizeof digits - 1;

    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    line_add_text(l, digits + at);
}

void line_write(int fd, const struct line *l)
{
    ssize_t n = write(fd, l->text, l->len);
    (void)n; /* nobody is left to tell */
}
