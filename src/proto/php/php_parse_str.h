// SPDX-License-Identifier: MIT
/* Query strings and cookies as PHP applications know them. */
#pragma once

#include "base/bytes.h"

#define PHP_INPUT_VARS_MAX    1000 /* PHP's max_input_vars */
#define PHP_INPUT_NESTING_MAX 64   /* PHP's max_input_nesting_level */

/* Appends serialize() of the array that parse_str(query) gives, of at most vars_max variables (the rest is
 * left out, as by PHP). 0, or -ENOMEM with out as it was. */
int php_parse_str(struct bytes *out, struct slice query, unsigned vars_max);

/* Appends serialize() of what Workerman's Request::cookie() makes of a Cookie header: name => value, split at
 * ';', names trimmed, values as they stand (neither trimmed nor decoded), pieces without '=' left out. 0 or
 * -ENOMEM. */
int php_parse_cookie(struct bytes *out, struct slice header);
