// SPDX-License-Identifier: MIT
/* When a client came, from its id alone: ids are given in the order of coming, so it is enough to remember
 * when the sequence was where: of the last minutes each second, before that ever fewer moments, so that the
 * error stays below two percent of the age. */
#pragma once

#include <stdint.h>

#define AGE_MARKS 2048

struct age_mark {
    uint64_t seq; /* running, of the first id given after that moment */
    uint32_t second;
};
struct age_log {
    struct age_mark marks[AGE_MARKS];
    uint32_t n;
    uint64_t seq;      /* running */
    uint32_t next_seq; /* as the directory says it (26 bits), at seq */
};

void age_init(struct age_log *a, uint32_t next_seq, uint32_t second);
/* Once a second: the sequence is at next_seq now. */
void age_turn(struct age_log *a, uint32_t next_seq, uint32_t second);
/* Seconds since that id was given; next_seq is that of now. Of a client that has outlived 2^26 others: less
 * than is true. */
uint32_t age_of(const struct age_log *a, uint32_t id, uint32_t next_seq, uint32_t second);
