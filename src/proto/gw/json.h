// SPDX-License-Identifier: MIT
/* A pull reader of JSON (RFC 8259) for the hot path: tokens as views into the text, nothing allocated but
 * strings with escapes that the caller asks for. What PHP's json_decode refuses is refused here too: invalid
 * UTF-8, lone surrogates, nesting over 511. Everything that a token returned has passed has been checked; the
 * rest of the text has not: who acts on a document first reads it to JSON_TOK_DONE. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define JSON_DEPTH_MAX 511

/* JSON_TOK_: jansson has JSON_STRING and the like. */
enum json_token {
    JSON_TOK_DONE, /* the document is over, nothing but white space behind it */
    JSON_TOK_NULL,
    JSON_TOK_FALSE,
    JSON_TOK_TRUE,
    JSON_TOK_INT,   /* text is canonical decimal but for a possible "-0"; may exceed 64 bits */
    JSON_TOK_FLOAT, /* has a fraction or an exponent */
    JSON_TOK_STRING,
    JSON_TOK_KEY, /* name of a member; its value's token follows */
    JSON_TOK_ARRAY,
    JSON_TOK_ARRAY_END,
    JSON_TOK_OBJECT,
    JSON_TOK_OBJECT_END,
};

struct json_value {
    struct slice text; /* of a string or key: between the quotes, as it stands; of a number: the number */
    bool escaped;      /* the string has escapes: json_unescape before use */
};

struct json_reader {
    const uint8_t *pos;
    const uint8_t *end;
    uint32_t depth;
    uint8_t expect;                              /* enum json__expect */
    uint64_t is_object[JSON_DEPTH_MAX / 64 + 1]; /* one bit per open container */
};

/* The text must outlive the reader and the slices of its tokens. */
void json_init(struct json_reader *r, struct slice text);

/* enum json_token, or -EPROTO: not JSON. After an error or JSON_TOK_DONE the reader stays there. v is filled
 * for strings, keys and numbers only. */
int json_next(struct json_reader *r, struct json_value *v);

/* Reads past the rest of the value that began with `token` (an opening one, else nothing is left to read).
 * 0 or -EPROTO. */
int json_skip(struct json_reader *r, int token);

/* The bytes of a string or key: v->text itself without escapes, else decoded and appended to scratch, which
 * grows by at most v->text.len. A caller that keeps earlier results reserves room first, so that they do not
 * move. 0 or -ENOMEM. */
int json_unescape(const struct json_value *v, struct bytes *scratch, struct slice *ret);

/* Decimal text as a number; false when it is none (a JSON_TOK_FLOAT) or does not fit. */
bool json_int64(struct slice text, int64_t *ret);

/* Appends s in quotes, with '"', '\' and control characters escaped; bytes from 0x80 up go as they are, so
 * the result is JSON when s is UTF-8. Failure shows in out->failed. */
void json_write_string(struct bytes *out, struct slice s);
