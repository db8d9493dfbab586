// SPDX-License-Identifier: MIT
/* What codec, sender, receiver and document have in common. */
#pragma once

#include "transfer/transfer.h"

/* ---- the records as tables, made from transfer_records.h */

enum transfer_kind { TRANSFER_NO_FIELD, TRANSFER_NUMBER, TRANSFER_BYTES };

struct transfer_field {
    uint8_t kind;    /* enum transfer_kind; none: that tag is not in use */
    uint16_t offset; /* in its struct */
    const char *name, *text;
};

struct transfer_layout {
    const char *name, *text;
    uint16_t type, version;
    uint16_t n;    /* of fields[], which is indexed by tag */
    uint16_t size; /* of its struct */
    const struct transfer_field *fields;
};
/* In the order of the list; NULL: there are no more. */
const struct transfer_layout *transfer__layout(unsigned i);

/* Of any record; r, ret: its struct. */
bool transfer__put(struct bytes *out, const struct transfer_layout *l, const void *r, bool with_head);
int transfer__get(const struct transfer_layout *l, struct slice fields, void *ret);

/* ---- wire */

#define TRANSFER_HEAD_BYTES 12
struct transfer_head {
    uint16_t type, version;
    uint32_t len;
};
void transfer__head_write(uint8_t to[TRANSFER_HEAD_BYTES], const struct transfer_head *h);
/* Of at least TRANSFER_HEAD_BYTES: 0, or -EBADMSG: unknown type, or flags, which this version has none of. */
int transfer__head_read(const uint8_t *from, struct transfer_head *ret);

/* A message of a sender to a receiver: a head, and pieces of records one behind the other.
 *
 *   head   u32 magic, u16 sender, u16 number of descriptors with it
 *   piece  u32 length, u32 flags, bytes
 *
 * Pieces of one record follow each other among those of its sender; the descriptors are those of the pieces
 * that have one, in order. */
#define TRANSFER_MAGIC         UINT32_C(0x31585447) /* "GTX1" */
#define TRANSFER_MESSAGE_BYTES 8
#define TRANSFER_PIECE_BYTES   8
#define TRANSFER_SENDERS_MAX   64
enum transfer_piece {
    TRANSFER_PIECE_FIRST = 1, /* begins a record: there is at least its head */
    TRANSFER_PIECE_LAST = 2,  /* ends it */
    TRANSFER_PIECE_FD = 4,    /* with FIRST: a descriptor belongs to the record */
};

static inline void transfer__put_u16(uint8_t *to, uint16_t v)
{
    to[0] = (uint8_t)v;
    to[1] = (uint8_t)(v >> 8);
}
static inline void transfer__put_u32(uint8_t *to, uint32_t v)
{
    transfer__put_u16(to, (uint16_t)v);
    transfer__put_u16(to + 2, (uint16_t)(v >> 16));
}
static inline uint16_t transfer__get_u16(const uint8_t *from)
{
    return (uint16_t)(from[0] | from[1] << 8);
}
static inline uint32_t transfer__get_u32(const uint8_t *from)
{
    return transfer__get_u16(from) | (uint32_t)transfer__get_u16(from + 2) << 16;
}
