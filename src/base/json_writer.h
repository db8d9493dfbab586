// SPDX-License-Identifier: MIT
/* JSON text (RFC 8259) written piece by piece behind what a struct bytes holds. Commas come by themselves;
 * what belongs inside what is the caller's to get right. Not for the hot path.
 *
 *   struct json_writer w = {.out = &bytes};
 *   json_begin(&w, '{'); json_key(&w, "id"); json_uint(&w, 7); json_end(&w, '}');
 *
 * Without memory out->failed is set, and what is there is cut off. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct json_writer {
    struct bytes *out;
    bool comma; /* a value came before in this object or array */
};

void json_begin(struct json_writer *w, char bracket); /* '{' or '[' */
void json_end(struct json_writer *w, char bracket);   /* '}' or ']' */
/* key needs no escape: it is one of ours. */
void json_key(struct json_writer *w, const char *key);
void json_uint(struct json_writer *w, uint64_t value);
void json_int(struct json_writer *w, int64_t value);
void json_bool(struct json_writer *w, bool value);
void json_write_null(struct json_writer *w); /* json_null and json_string are jansson's */
/* Any bytes: what is not UTF-8 becomes U+FFFD, at most `max` bytes of it are written (0: all), at a
 * character's end. */
void json_write_text(struct json_writer *w, const void *data, size_t len, size_t max);
void json_str(struct json_writer *w, const char *text); /* ended by a NUL; NULL: null */
/* Finished JSON of somebody else's. */
void json_raw(struct json_writer *w, const void *data, size_t len);

/* A member with its value. */
void json_member_uint(struct json_writer *w, const char *key, uint64_t value);
void json_member_int(struct json_writer *w, const char *key, int64_t value);
void json_member_bool(struct json_writer *w, const char *key, bool value);
void json_member_str(struct json_writer *w, const char *key, const char *text);
void json_member_string(struct json_writer *w, const char *key, const void *data, size_t len, size_t max);
