// SPDX-License-Identifier: MIT
/* A growing run of bytes, owned by whoever holds the struct. All zero is a valid empty one.
 * Not for the hot path: that uses struct buf (buf.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    uint8_t *data;
    size_t len;
    size_t cap;
    bool failed; /* an append did not get memory; later appends do nothing, data is as it was */
};

void bytes_fini(struct bytes *b);

/* The same, and nobody finds in freed memory what was in it (but for copies that growing left behind). */
void bytes_wipe(struct bytes *b);

/* Empty, memory kept. */
void bytes_clear(struct bytes *b);

/* Room for `more` bytes behind len; false (and failed set) without memory. */
bool bytes_reserve(struct bytes *b, size_t more);

bool bytes_append(struct bytes *b, const void *data, size_t len);
bool bytes_append_str(struct bytes *b, const char *s);
bool bytes_append_byte(struct bytes *b, uint8_t c);
bool bytes_printf(struct bytes *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Drop the first `len` bytes (len <= b->len); the rest moves to the front. */
void bytes_consume(struct bytes *b, size_t len);

/* A view: bytes owned by somebody else. */
struct slice {
    const uint8_t *data;
    size_t len;
};

#define SLICE_STR(s) ((struct slice){(const uint8_t *)(s), sizeof(s) - 1})
bool slice_eq(struct slice a, struct slice b);
bool slice_eq_str(struct slice a, const char *s);
