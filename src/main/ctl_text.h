// SPDX-License-Identifier: MIT
/* tgg ctl: numbers and foreign text as people read them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define CTL_FORMAT_MAX 32

/* Each writes into buf[CTL_FORMAT_MAX] and returns it. */
char *ctl_format_count(
    double n, char *buf); /* "12345"; with one digit behind the point when it has a fraction below 100 */
char *ctl_format_bytes(double n,
                       char *buf); /* "512 B", "1.2 MB": powers of 1024, as k, m, g in the configuration */
char *ctl_format_seconds(double s, char *buf); /* "45s", "3m20s", "2h05m", "3d04h" */
char *ctl_format_ns(double ns, char *buf); /* "0", "350 ns", "1.2 ms", "8.0 s", then as ctl_format_seconds */
char *ctl_format_unix(int64_t unix_s, char *buf); /* "2026-01-31T12:00:00Z" */

/* Foreign text, of any bytes, behind what `out` holds: what a terminal could obey (control characters, C1
 * included) or what reorders or hides other text (bidirectional and zero-width characters) is written as \x1b
 * or \u202e, what is not UTF-8 as \xff. Returns the columns of a terminal that it takes. */
size_t ctl_text_append(struct bytes *out, const void *data, size_t len);

/* Columns of text that ctl_text_append wrote; and how many bytes of it fit into `columns`. */
size_t ctl_text_width(const void *data, size_t len);
size_t ctl_text_fit(const void *data, size_t len, size_t columns);

/* JSON text stays the same JSON, with control characters that JSON lets through (DEL, C1) escaped. */
void ctl_json_append(struct bytes *out, const void *data, size_t len);

/* Percent-encoded, for a path or a query (RFC 3986 section 2.3). */
void ctl_url_append(struct bytes *out, const void *data, size_t len);
