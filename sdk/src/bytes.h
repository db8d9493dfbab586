// SPDX-License-Identifier: MIT
#ifndef TGGW_BYTES_H
#define TGGW_BYTES_H
// A growing byte queue: appended at the tail, taken from the head. It keeps its memory between uses, so that
// the path of a message allocates nothing.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tggw__bytes {
    uint8_t *data;
    size_t head, tail, cap;
};

void tggw__bytes_fini(struct tggw__bytes *b);
// Room for at least `more` bytes after the tail, or -ENOMEM.
int tggw__bytes_reserve(struct tggw__bytes *b, size_t more);
int tggw__bytes_append(struct tggw__bytes *b, const void *data, size_t len);
void tggw__bytes_consume(struct tggw__bytes *b, size_t len);
// Empties; memory above keep_bytes goes back to the allocator (after a burst).
void tggw__bytes_reset(struct tggw__bytes *b, size_t keep_bytes);

static inline size_t tggw__bytes_len(const struct tggw__bytes *b)
{
    return b->tail - b->head;
}

// JSON text. Errors stick: `*err` is set to the first one, later calls do nothing.
void tggw__json_raw(struct tggw__bytes *b, const char *text, int *err);
void tggw__json_u32(struct tggw__bytes *b, uint32_t n, int *err);
// With quotes; -EINVAL when it is not UTF-8 (a PHP gateway could not decode it).
void tggw__json_string(struct tggw__bytes *b, const char *text, int *err);
void tggw__json_list(struct tggw__bytes *b, const char *const *texts, size_t count, int *err);

#endif
