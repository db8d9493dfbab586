// SPDX-License-Identifier: MIT
/* Records with every field set, for the tests of this folder: each to a value of its own. */
#pragma once

#include <stdio.h>
#include <string.h>

#include "transfer/transfer_priv.h"

/* Any of the structs. */
union any_record {
#define FILL_MEMBER(name, type, version, fields, text) struct transfer_##name name;
    TRANSFER_RECORDS(FILL_MEMBER)
#undef FILL_MEMBER
};

#define FILL_TEXT_MAX 64
struct filled {
    union any_record r;
    char text[256][FILL_TEXT_MAX]; /* by tag: what its fields of bytes are */
};

static inline uint64_t *filled_number(void *r, const struct transfer_field *f)
{
    return (uint64_t *)((char *)r + f->offset);
}
static inline struct slice *filled_slice(void *r, const struct transfer_field *f)
{
    return (struct slice *)((char *)r + f->offset);
}

/* Numbers of all lengths that a varint can have; bytes with zeros among them. */
static inline void fill(struct filled *to, const struct transfer_layout *l)
{
    memset(to, 0, sizeof *to);
    for (unsigned tag = 0; tag < l->n && tag < 256; tag++) {
        const struct transfer_field *f = &l->fields[tag];
        if (f->kind == TRANSFER_NUMBER) {
            *filled_number(&to->r, f) = (UINT64_C(1) << (tag * 9 + l->type) % 64) + tag;
        } else if (f->kind == TRANSFER_BYTES) {
            int n = snprintf(to->text[tag], FILL_TEXT_MAX, "%s.%s%c%c", l->name, f->name, 0, 0xFF);
            *filled_slice(&to->r, f) = (struct slice){(const uint8_t *)to->text[tag], (size_t)n};
        }
    }
}
