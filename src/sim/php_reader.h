// SPDX-License-Identifier: MIT
/* Reads the replies to queries, which are of PHP's serialize() format, strictly and with code of its own.
 * Past the first thing that is not as expected `bad` is set, and everything reads as empty. */
#pragma once

#include "base/bytes.h"

struct php_reader {
    struct slice rest;
    bool bad;
    char number[24]; /* of php_read_key */
};

void php_read_null(struct php_reader *r);
int64_t php_read_int(struct php_reader *r);
struct slice php_read_string(struct php_reader *r);
/* The number of elements; keys and values follow, then php_read_array_end. */
uint32_t php_read_array(struct php_reader *r);
void php_read_array_end(struct php_reader *r);
/* A string, or a number as its text (until the next call). */
struct slice php_read_key(struct php_reader *r);
