// SPDX-License-Identifier: MIT
/* Masks what must not be seen in the bytes that a trace shows. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* Appends data to out; in place of the values of these names (a list as config_list_next reads it, without
 * regard to upper and lower case) there is "***". A name is found wherever a word ends in it and : or =
 * follows, quoted or not: in JSON (also JSON within a string), in queries and forms, in header lines. A value
 * that has no clear end, or that is an object or an array, takes all that follows with it: rather too much
 * than too little. */
void trace_redact(struct bytes *out, const uint8_t *data, size_t len, const char *names);
