// SPDX-License-Identifier: MIT
/* Lists of small numbers as they are written in a configuration: "0-3,8". */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Read numbers and rising ranges, separated by commas (blanks around them are fine), in the order in which
 * they stand; the same number may come twice. At most cap numbers, none above `max`. How many there are (at
 * least 1), or -EINVAL: not such a list; -ERANGE: a number above max; -E2BIG: more than cap. ret is only
 * filled as far as the reading came. */
int number_list_parse(const char *text, unsigned max, uint16_t *ret, size_t cap);
