// SPDX-License-Identifier: MIT
#include "shard/age.h"

#include <stdbool.h>

#include "common/shard_shm.h"

/* Marks are at most age / AGE_PARTS seconds apart: some 700 for a month. */
#define AGE_PARTS 64

void age_init(struct age_log *a, uint32_t next_seq, uint32_t second)
{
    /* Running numbers begin high, so that ids of before the start have one, too. */
    *a = (struct age_log){.n = 1, .seq = CONNECTION_SEQ_MASK, .next_seq = next_seq};
    a->marks[0] = (struct age_mark){a->seq, second};
}

/* A mark goes when those beside it are no further apart than a small part of their age. */
static void thin_out(struct age_log *a, uint32_t second)
{
    uint32_t n = 1; /* the oldest stays */
    for (uint32_t i = 1; i < a->n; i++) {
        const struct age_mark *before = &a->marks[n - 1];
        bool is_needed = i + 1 == a->n || a->marks[i + 1].second - before->second >
                                              (second - a->marks[i + 1].second) / AGE_PARTS;
        if (is_needed)
            a->marks[n++] = a->marks[i];
    }
    a->n = n;
}

void age_turn(struct age_log *a, uint32_t next_seq, uint32_t second)
{
    if (next_seq == a->next_seq) {
        /* Nobody came: what comes next came after now. */
        a->marks[a->n - 1].second = second;
        return;
    }
    a->seq += (next_seq - a->next_seq) & CONNECTION_SEQ_MASK;
    a->next_seq = next_seq;
    if (a->n == AGE_MARKS)
        thin_out(a, second);
    a->marks[a->n++] = (struct age_mark){a->seq, second};
}

uint32_t age_of(const struct age_log *a, uint32_t id, uint32_t next_seq, uint32_t second)
{
    uint64_t now = a->seq + ((next_seq - a->next_seq) & CONNECTION_SEQ_MASK);
    uint64_t seq = now - ((next_seq - id) & CONNECTION_SEQ_MASK);
    uint32_t low = 0, high = a->n; /* the last mark at or before seq */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (a->marks[middle].seq <= seq)
            low = middle;
        else
            high = middle;
    }
    return second - a->marks[low].second;
}
