// SPDX-License-Identifier: MIT
/* Looks at JSON text (RFC 8259) that another process wrote, without building anything of it: may it become a
 * part of an answer of ours? A shard that has gone mad must not spoil the answers of the others. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"

#define JSON_ROWS_DEPTH_MAX 16

/* The next one of objects with commas between them; *pos begins at 0. 1: *ret is it; 0: there is no more;
 * -EBADMSG: what follows is no object, or nested too deep. */
int json_rows_next(struct slice text, size_t *pos, struct slice *ret);
/* How many there are (maybe 0), or -EBADMSG. */
int json_rows_count(struct slice text);
