// SPDX-License-Identifier: MIT
#include "guard/cidr.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"

static unsigned bits_of(uint8_t family)
{
    return family == AF_INET ? 32 : 128;
}

static uint64_t load_be64(const uint8_t *p)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

void cidr_from_addr(const struct net_addr *a, struct cidr *ret)
{
    *ret = (struct cidr){.family = a->family};
    if (a->family == AF_INET) {
        ret->hi = load_be64(a->ip) >> 32 << 32;
        ret->bits = 32;
    } else if (a->family == AF_INET6) {
        ret->hi = load_be64(a->ip);
        ret->lo = load_be64(a->ip + 8);
        ret->bits = 128;
    }
}

void cidr_cut(struct cidr *c, unsigned bits)
{
    ASSERT(bits <= c->bits);
    /* A shift by all 64 bits means nothing in C. */
    if (bits <= 64)
        c->lo = 0;
    else if (bits < 128)
        c->lo &= ~(UINT64_MAX >> (bits - 64));
    if (bits < 64)
        c->hi &= ~(UINT64_MAX >> bits);
    c->bits = (uint8_t)bits;
}

/* ---- from text */

static bool parse_address(const char *text, size_t len, struct cidr *ret)
{
    struct net_addr a = {.family = AF_INET};
    char copy[INET6_ADDRSTRLEN];

    if (len == 0 || len >= sizeof copy)
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (strlen(copy) != len)
        return false;
    if (inet_pton(AF_INET, copy, a.ip) != 1) {
        a.family = AF_INET6;
        if (inet_pton(AF_INET6, copy, a.ip) != 1)
            return false;
    }
    cidr_from_addr(&a, ret);
    return true;
}

/* A decimal number up to max, written the only way. */
static bool parse_bits(const char *text, size_t len, unsigned max, unsigned *ret)
{
    unsigned v = 0;

    if (len == 0 || len > 3 || (text[0] == '0' && len > 1))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (unsigned)(text[i] - '0');
    }
    *ret = v;
    return v <= max;
}

/* Clients with mapped addresses are IPv4 to us, so a list of such has to be, too. */
static void unmap(struct cidr *c, unsigned *bits)
{
    if (c->family != AF_INET6 || *bits < 96 || c->hi != 0 || c->lo >> 32 != 0xffff)
        return;
    *c = (struct cidr){.hi = c->lo << 32, .family = AF_INET, .bits = 32};
    *bits -= 96;
}

enum cidr_problem cidr_parse(const char *text, size_t len, struct cidr *ret)
{
    struct cidr c, cut;
    const char *slash = memchr(text, '/', len);
    size_t address_len = slash != NULL ? (size_t)(slash - text) : len;

    if (!parse_address(text, address_len, &c))
        return CIDR_NO_ADDRESS;
    unsigned bits = c.bits;
    if (slash != NULL && !parse_bits(slash + 1, len - address_len - 1, bits_of(c.family), &bits))
        return CIDR_BAD_BITS;
    unmap(&c, &bits);
    cut = c;
    cidr_cut(&cut, bits);
    *ret = cut;
    return cut.hi == c.hi && cut.lo == c.lo ? CIDR_OK : CIDR_HOST_BITS;
}

/* ---- to text */

static void store_be64(uint64_t v, uint8_t *p)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
}

char *cidr_format(const struct cidr *c, char *buf, size_t cap)
{
    struct net_addr a = {.family = c->family};
    char ip[NET_ADDR_STRLEN];

    store_be64(c->hi, a.ip);
    store_be64(c->lo, a.ip + 8);
    net_addr_format_ip(&a, ip, sizeof ip);
    if (c->bits == bits_of(c->family))
        snprintf(buf, cap, "%s", ip);
    else
        snprintf(buf, cap, "%s/%u", ip, c->bits);
    return buf;
}

char *cidr_explain(enum cidr_problem problem, const char *text, size_t len, char *buf, size_t cap)
{
    const char *quoted = log_quote(text, len);
    const char *slash = memchr(text, '/', len);
    struct cidr c;
    char right[CIDR_STRLEN];

    switch (problem) {
    case CIDR_OK: snprintf(buf, cap, "%s is right", quoted); break;
    case CIDR_NO_ADDRESS:
        snprintf(buf, cap,
                 "%s does not begin with an address; expected a CIDR such as 10.0.0.0/8 or "
                 "2001:db8::/32, or one address",
                 quoted);
        break;
    case CIDR_BAD_BITS:
        snprintf(buf, cap, "%s has no number of bits behind the slash; expected /0 to /%s", quoted,
                 memchr(text, ':', len) != NULL ? "128" : "32");
        break;
    case CIDR_HOST_BITS:
        cidr_parse(text, len, &c);
        snprintf(buf, cap, "%s has bits set behind the prefix; expected %s, or %.*s for that one address",
                 quoted, cidr_format(&c, right, sizeof right), (int)(slash - text), text);
        break;
    }
    return buf;
}
