// SPDX-License-Identifier: MIT
/* Private to the log: turns the words of a line into members of a JSON object. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* A piece of memory that is written up to its end and no further; `full` when something did not fit. */
struct log_line {
    char *data;
    size_t len, cap;
    bool full;
};

void log_line_add(struct log_line *l, const char *data, size_t len);

/* `"..."`: JSON-escaped; bytes that are not UTF-8 become U+FFFD. */
void log_json_string(struct log_line *l, const char *data, size_t len);

/* `,"key":value` for each key=value of words. A value in quotes (escapes as log_quote writes them) becomes a
 * string, a bare whole number a number, all else a string. Words without `=` are put together in the member
 * "text". A key that every line has already (time, level, process, event) gets a `_` behind it. A member that
 * does not fit is left out with all that follow it. */
void log_json_members(struct log_line *l, const char *words, size_t len);
