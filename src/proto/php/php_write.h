// SPDX-License-Identifier: MIT
/* PHP's serialize() format, written piece by piece: for replies to workers. An array is php_write_array(out,
 * n), then n times key and value, then php_write_array_end. Without memory out->failed is set and the rest
 * does nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

void php_write_null(struct bytes *out);
void php_write_bool(struct bytes *out, bool v);
void php_write_int(struct bytes *out, int64_t v);
void php_write_float(struct bytes *out, double v);
void php_write_string(struct bytes *out, struct slice v);

void php_write_array(struct bytes *out, size_t n);
void php_write_array_end(struct bytes *out);
void php_write_key_int(struct bytes *out, int64_t key);
/* As PHP stores array keys: "123" and "-5" become integers; "0123", "-0" and what exceeds 64 bits stay
 * strings. */
void php_write_key(struct bytes *out, struct slice key);
bool php_key_is_int(struct slice key, int64_t *ret);

/* The shortest decimal that reads back as v (serialize_precision -1), as PHP prints it: "0.1", "1.0E+25",
 * "-0", "INF". exponent: 'E' in serialize(), 'e' in json_encode(). Returns the length; no terminating zero.
 */
#define PHP_FLOAT_LEN_MAX 32
size_t php_format_float(double v, char exponent, char out[PHP_FLOAT_LEN_MAX]);

/* Decimal digits of v, without a terminating zero; returns the length. */
#define PHP_INT_LEN_MAX 20
size_t php_format_int(int64_t v, char out[PHP_INT_LEN_MAX]);
