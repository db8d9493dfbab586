// SPDX-License-Identifier: MIT
/* Prefixes of addresses (CIDR, RFC 4632 and RFC 4291 section 2.3): as text, as numbers. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/net_addr.h"

/* hi and lo are the address as one number of 128 bits, its first bit on top; IPv4 stands in the upper half of
 * hi. Bits past the prefix are 0. */
struct cidr {
    uint64_t hi, lo;
    uint8_t family; /* AF_INET, AF_INET6 */
    uint8_t bits;   /* 0 to 32 or 128 */
};

enum cidr_problem {
    CIDR_OK,
    CIDR_NO_ADDRESS, /* no IPv4 or IPv6 address in front */
    CIDR_BAD_BITS,   /* behind the slash there is no number of bits that such an address has */
    CIDR_HOST_BITS,  /* bits past the prefix are set; *ret has them cleared */
};

/* "10.0.0.0/8", "2001:db8::/32", or an address for all of its bits; no blanks. An IPv6 prefix of mapped
 * addresses (::ffff:0:0/96 and below) becomes the IPv4 one, as net_addr does. *ret is set for CIDR_OK and
 * CIDR_HOST_BITS. */
enum cidr_problem cidr_parse(const char *text, size_t len, struct cidr *ret);

/* What is wrong with it, for people: `"10.1.2.3/8" has bits set behind the prefix; expected 10.0.0.0/8, or
 * 10.1.2.3 for the one address`. Returns buf. */
#define CIDR_WHY_MAX 320
char *cidr_explain(enum cidr_problem problem, const char *text, size_t len, char *buf, size_t cap);

/* "10.0.0.0/8", an address alone without its /32 or /128. Returns buf. */
#define CIDR_STRLEN 64
char *cidr_format(const struct cidr *c, char *buf, size_t cap);

/* The address as a prefix of all its bits; family AF_UNIX gives bits 0 of that family, which is in no list.
 */
void cidr_from_addr(const struct net_addr *a, struct cidr *ret);
/* Only the first bits of it (bits <= c->bits). */
void cidr_cut(struct cidr *c, unsigned bits);
