// SPDX-License-Identifier: MIT
/* Open addressing from a 32-bit key (not 0) to a pointer; several values may share a key. Private to
 * src/session.
 *
 *   now  [k v|k v| . |k v| . | . |k v| . ]   inserts go here
 *   old  [ . | . | . |k v|k v| . |k v]       being emptied from move_at on; NULL when not resizing
 *                     ^ move_at
 *
 * Linear probing, power of two, load at most 3/4; a removal shifts the rest of its cluster back, so there are
 * no tombstones. A resize (double at 3/4, halve below 3/16) goes on a few slots with each insert and remove:
 * a table of a million entries is never rehashed in one go. Whole clusters move at a time, so that what is
 * left in `old` is always a proper table. At 16 slots per operation a resize of n slots is over after n/16
 * operations, always before the next growth is due. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "session/mem.h"

struct hash_table_pair { /* two slots: keys side by side leave no padding, pointers stay aligned */
    uint32_t key[2];     /* 0: empty */
    void *value[2];
};

struct hash_table_part {
    struct hash_table_pair *pairs; /* NULL: no slots */
    uint32_t mask;                 /* slots - 1 */
    uint32_t count;
};

struct hash_table {
    struct hash_table_part now, old;
    uint32_t move_at;
};

/* True if `value` is the one looked for. */
typedef bool hash_table_match_fn(const void *value, const void *arg);

void hash_table__fini(struct hash_table *t, struct mem *mem); /* the values are the caller's */

/* 0 or -ENOMEM (nothing changed). Zeroed is a valid empty table. */
int hash_table__insert(struct hash_table *t, struct mem *mem, uint32_t key, void *value);
/* It must be there. */
void hash_table__remove(struct hash_table *t, struct mem *mem, uint32_t key, const void *value);
/* The first with this key. */
void *hash_table__find(const struct hash_table *t, uint32_t key);
void *hash_table__find_match(const struct hash_table *t, uint32_t key, hash_table_match_fn *match,
                             const void *arg);
uint32_t hash_table__count(const struct hash_table *t);

/* For checks: slot i of hash_table__slots, NULL if empty. */
uint32_t hash_table__slots(const struct hash_table *t);
void *hash_table__at(const struct hash_table *t, uint32_t i);
/* NULL, or what is wrong. */
const char *hash_table__check(const struct hash_table *t);
