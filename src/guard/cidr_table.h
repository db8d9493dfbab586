// SPDX-License-Identifier: MIT
/* A number for each prefix, found by longest match: built once, never changed.
 *
 *   key ──> top[first 16 bits] ──> node ──> node ──> leaf ──> entry (──> the next shorter one ──> ...)
 *           (large tables only)    64 ways each, at the first bit where its prefixes differ
 *
 * - The entries are all prefixes in order of address and length; each knows the next shorter prefix that
 *   contains it.
 * - A node looks at 6 bits of the address: two bitmaps say which of its 64 ways lead to other nodes and where
 *   another leaf begins than the one before, so that children and leaves lie side by side without gaps
 *   (poptrie: Asai and Ohara, SIGCOMM 2015).
 * - Bits that all prefixes below a node share are not looked at on the way down, and a few prefixes that
 *   contain one another share a leaf: the entry at the end is compared with the address, and when it does not
 *   match, the shorter ones that contain it are. So the nodes are fewer than the prefixes, and an IPv6
 *   address takes hardly more steps than an IPv4 one.
 * Tried and left: sorted ranges with an index (17 dependent steps in a crowded /16), 16-8-8 tables (160 MB
 * for 100,000 scattered addresses). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guard/cidr.h"

#define CIDR_TABLE_MAX (UINT32_C(1) << 26) /* prefixes */

/* Prefixes as they are gathered, in any order. All zero: none. */
struct cidr_entry {
    uint64_t hi, lo;
    int64_t value;
    uint32_t parent; /* of the table: the entry that contains it */
    uint8_t family, bits;
};
struct cidr_set {
    struct cidr_entry *list;
    size_t n, cap;
};
int cidr_set_add(struct cidr_set *s, const struct cidr *c, int64_t value); /* 0 or -ENOMEM */
void cidr_set_fini(struct cidr_set *s);

/* The same prefix with different values: the highest counts. */
struct cidr_clashes {
    size_t n;
    struct cidr first;
};

struct cidr_table;
/* The set is put in order and stays the caller's. NULL without memory. ret may be NULL. */
struct cidr_table *cidr_table_new(struct cidr_set *set, struct cidr_clashes *ret);
void cidr_table_free(struct cidr_table *t); /* NULL is fine */

size_t cidr_table_prefixes(const struct cidr_table *t);
size_t cidr_table_bytes(const struct cidr_table *t); /* of memory */

/* The longest prefix that contains the address, of those whose value is above `floor` (INT64_MIN: of all).
 * False: there is none; *ret untouched. */
bool cidr_table_find(const struct cidr_table *t, const struct net_addr *addr, int64_t floor, int64_t *ret);
