// SPDX-License-Identifier: MIT
/* Comparing what a peer shows with what it should know. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Equal in length and bytes? a is the peer's, b the secret: the time taken depends on a_len, on whether b is
 * empty and on nothing else that matters; not on where, nor in how many bytes, they differ. NULL is fine with
 * length 0. */
bool secret_equal(const void *a, size_t a_len, const void *b, size_t b_len);
