// SPDX-License-Identifier: MIT
/* What a client says: its size (a mix), its text (a template), and the mark by which it is known again.
 *
 * A mark is 24 characters that pass through JSON, URLs and lines of text as they are:
 *
 *   tgg~ RRRR CCCC SSSS TTTTTTTT      digits of base64url
 *        run  client seq  time: CLOCK_MONOTONIC, ns, modulo 2^48 (78 hours)
 *
 * so that whoever gets it back, whatever the application has put around it, knows which message it was and
 * how old it is. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MARK_BYTES     24u
#define MARK_PREFIX    "tgg~"
#define MARK_ID_MAX    ((1u << 24) - 1) /* of run, client, seq: higher bits are left out */
#define MARK_TIME_MASK ((UINT64_C(1) << 48) - 1)

struct mark {
    uint32_t run, client, seq;
    uint64_t time_ns; /* of which the lowest 48 bits are kept */
};

void mark_write(const struct mark *m, char text[MARK_BYTES]);
/* The first mark in data: the offset behind it, 0 when there is none. */
size_t mark_find(const uint8_t *data, size_t len, struct mark *ret);
/* How old it is now; 0 when it comes from the future by less than half of what fits. */
uint64_t mark_age_ns(const struct mark *m, uint64_t now_ns);

/* ---- sizes */

#define MIX_MAX          32u
#define MESSAGE_SIZE_MAX (16u << 20)

struct mix {
    uint32_t n;
    uint32_t total; /* sum of the weights */
    struct mix_part {
        uint32_t size, weight;
    } parts[MIX_MAX];
};

/* "64:80,1024:15,16384:5" (size:weight), or one size alone. False: it is none of these. */
bool mix_parse(const char *text, struct mix *ret);
/* Which size comes n-th: a fixed order, in which every `total` messages hold each size as often as its weight
 * says, well mixed. */
uint32_t mix_size(const struct mix *m, uint64_t n);
uint32_t mix_size_min(const struct mix *m);
uint32_t mix_size_max(const struct mix *m);
/* Mean size times 1000. */
uint64_t mix_mean_milli(const struct mix *m);

/* ---- templates */

/* Literal text with {id} (the client's number), {seq} (of its message), {time} (ms since 1970), {mark}, and
 * {fill}: letters, as many as bring the whole to the size wanted. Other braces are literal. */
enum message_piece { PIECE_TEXT, PIECE_ID, PIECE_SEQ, PIECE_TIME, PIECE_MARK, PIECE_FILL };
#define TEMPLATE_PIECES_MAX 64u

struct template
{
    uint32_t n;
    struct template_piece {
        enum message_piece kind;
        const char *text; /* PIECE_TEXT; in the text that was parsed */
        uint32_t len;
    } pieces[TEMPLATE_PIECES_MAX];
};

/* False: too many pieces. text must stay. */
bool template_parse(const char *text, struct template *ret);
bool template_has(const struct template *t, enum message_piece kind);

struct message_values {
    uint64_t id, seq, time_ms;
    struct mark mark;
};

/* The message; at most `cap` bytes, its length. size: what {fill} brings it to. */
size_t template_fill(const struct template *t, const struct message_values *v, size_t size, uint8_t *out,
                     size_t cap);
/* How long it can become for messages of at most `size` bytes. */
size_t template_len_max(const struct template *t, size_t size);
