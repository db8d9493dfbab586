// SPDX-License-Identifier: MIT
/* One line without stdio, which a signal handler must not use. What does not fit is cut off. */
#pragma once

#include <stddef.h>

struct line { /* zeroed: empty */
    char text[160];
    size_t len;
};

void line_add_text(struct line *l, const char *text);
void line_add_number(struct line *l, unsigned v);
void line_write(int fd, const struct line *l);
