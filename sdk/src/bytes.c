// SPDX-License-Identifier: MIT
#include "bytes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CAP_MIN = 4096 };

void tggw__bytes_fini(struct tggw__bytes *b)
{
    free(b->data);
    *b = (struct tggw__bytes){0};
}

static void compact(struct tggw__bytes *b)
{
    if (b->head == 0)
        return;
    memmove(b->data, b->data + b->head, b->tail - b->head);
    b->tail -= b->head;
    b->head = 0;
}

int tggw__bytes_reserve(struct tggw__bytes *b, size_t more)
{
    if (b->cap - b->tail >= more)
        return 0;
    size_t len = tggw__bytes_len(b);
    if (more > SIZE_MAX / 4 || len > SIZE_MAX / 4)
        return -ENOMEM;
    // Moving pays only when at least as much room is won as bytes are moved.
    if (b->head >= len && b->cap >= len + more) {
        compact(b);
        return 0;
    }
    size_t cap = b->cap < CAP_MIN ? CAP_MIN : b->cap;
    while (cap < b->tail + more)
        cap *= 2;
    uint8_t *data = realloc(b->data, cap);
    if (data == NULL)
        return -ENOMEM;
    b->data = data;
    b->cap = cap;
    return 0;
}

int tggw__bytes_append(struct tggw__bytes *b, const void *data, size_t len)
{
    if (len == 0)
        return 0;
    int r = tggw__bytes_reserve(b, len);
    if (r < 0)
        return r;
    memcpy(b->data + b->tail, data, len);
    b->tail += len;
    return 0;
}

void tggw__bytes_consume(struct tggw__bytes *b, size_t len)
{
    b->head += len;
    if (b->head == b->tail)
        b->head = b->tail = 0;
}

void tggw__bytes_reset(struct tggw__bytes *b, size_t keep_bytes)
{
    if (b->cap > keep_bytes)
        tggw__bytes_fini(b);
    b->head = b->tail = 0;
}

static void json_bytes(struct tggw__bytes *b, const void *data, size_t len, int *err)
{
    if (*err == 0)
        *err = tggw__bytes_append(b, data, len);
}

void tggw__json_raw(struct tggw__bytes *b, const char *text, int *err)
{
    json_bytes(b, text, strlen(text), err);
}

void tggw__json_u32(struct tggw__bytes *b, uint32_t n, int *err)
{
    char text[16];
    int len = snprintf(text, sizeof text, "%u", n);
    json_bytes(b, text, (size_t)len, err);
}

// The length of the UTF-8 character at p (NUL ends the text, so no read goes past it), 0 when it is none.
static size_t utf8_len(const uint8_t *p)
{
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xC2 && p[0] <= 0xDF   ? 2
               : (p[0] & 0xF0) == 0xE0        ? 3
               : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4
                                              : 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    }
    bool overlong = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xED && p[1] > 0x9F;
    bool beyond = p[0] == 0xF4 && p[1] > 0x8F;
    return overlong || surrogate || beyond ? 0 : n;
}

static void json_char(struct tggw__bytes *b, const uint8_t *p, size_t n, int *err)
{
    char esc[8];
    if (n == 1 && (*p == '"' || *p == '\\')) {
        snprintf(esc, sizeof esc, "\\%c", *p);
        tggw__json_raw(b, esc, err);
    } else if (n == 1 && *p < 0x20) {
        snprintf(esc, sizeof esc, "\\u%04x", *p);
        tggw__json_raw(b, esc, err);
    } else {
        json_bytes(b, p, n, err);
    }
}

void tggw__json_string(struct tggw__bytes *b, const char *text, int *err)
{
    tggw__json_raw(b, "\"", err);
    for (const uint8_t *p = (const uint8_t *)text; *p != 0;) {
        size_t n = utf8_len(p);
        if (n == 0) {
            if (*err == 0)
                *err = -EINVAL;
            return;
        }
        json_char(b, p, n, err);
        p += n;
    }
    tggw__json_raw(b, "\"", err);
}

void tggw__json_list(struct tggw__bytes *b, const char *const *texts, size_t count, int *err)
{
    tggw__json_raw(b, "[", err);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            tggw__json_raw(b, ",", err);
        tggw__json_string(b, texts[i], err);
    }
    tggw__json_raw(b, "]", err);
}
