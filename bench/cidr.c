// SPDX-License-Identifier: MIT
/* tgg-bench-cidr: longest match in a list of --prefixes prefixes (half of them IPv6), as the guard asks for
 * each new connection. Half of the addresses are in one of them, half are anywhere. One line of JSON. */
#include "common.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "guard/cidr_table.h"

#define ADDRESSES 65536u

static uint32_t prefixes = 100000;
static uint32_t rounds = 7;

static uint64_t chance(void)
{
    static uint64_t state;
    if (state == 0 && getrandom(&state, sizeof(state), 0) != (ssize_t)sizeof(state))
        die_errno("getrandom");
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return state >> 16;
}

static struct net_addr random_addr(void)
{
    struct net_addr a = {.family = chance() % 2 == 0 ? AF_INET : AF_INET6};
    for (unsigned i = 0; i < (a.family == AF_INET ? 4 : 16); i++)
        a.ip[i] = (uint8_t)chance();
    if (a.family == AF_INET6)
        a.ip[0] = 0x20; /* 2000::/8, where the addresses are */
    return a;
}

static uint64_t load(const uint8_t *p)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

/* The prefix of that length that the address is in. */
static struct cidr cidr_of(const struct net_addr *a, unsigned bits)
{
    struct cidr c = {.hi = load(a->ip), .lo = load(a->ip + 8), .family = a->family, .bits = (uint8_t)bits};
    c.hi &= bits >= 64 ? UINT64_MAX : ~(UINT64_MAX >> bits);
    c.lo &= bits <= 64 ? 0 : bits >= 128 ? UINT64_MAX : ~(UINT64_MAX >> (bits - 64));
    return c;
}

static struct cidr_table *make_table(struct net_addr *asked)
{
    struct cidr_set set = {0};
    for (uint32_t i = 0; i < prefixes; i++) {
        struct net_addr inside = random_addr();
        unsigned bits = (unsigned)(inside.family == AF_INET ? 16 + chance() % 17 : 32 + chance() % 97);
        struct cidr c = cidr_of(&inside, bits);
        if (cidr_set_add(&set, &c, 1) < 0)
            die("no memory");
        asked[2 * i % ADDRESSES] = inside;
    }
    for (uint32_t i = 1; i < ADDRESSES; i += 2)
        asked[i] = random_addr();
    struct cidr_table *t = cidr_table_new(&set, NULL);
    cidr_set_fini(&set);
    if (t == NULL)
        die("no memory");
    return t;
}

int main(int argc, char **argv)
{
    static const char usage_text[] = "usage: tgg-bench-cidr [--prefixes N] [--rounds N]\n";
    static struct net_addr asked[ADDRESSES];
    const struct arg args[] = {
        {"--prefixes", arg_u32, &prefixes, ADDRESSES / 2, 10000000},
        {"--rounds", arg_u32, &rounds, 1, 100},
    };
    if (args_parse(argc, argv, args, sizeof(args) / sizeof(args[0]), usage_text) != argc)
        usage(usage_text);
    struct cidr_table *t = make_table(asked);
    uint64_t found = 0, best_ns = UINT64_MAX, lookups = (uint64_t)ADDRESSES * 16;
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t begin = now_ns();
        for (uint64_t i = 0; i < lookups; i++) {
            int64_t value;
            found += cidr_table_find(t, &asked[i % ADDRESSES], INT64_MIN, &value);
        }
        uint64_t ns = now_ns() - begin;
        if (ns < best_ns)
            best_ns = ns;
    }
    printf("{\"event\":\"result\",\"prefixes\":%zu,\"bytes\":%zu,\"ns\":%.2f,\"found\":%.3f}\n",
           cidr_table_prefixes(t), cidr_table_bytes(t), (double)best_ns / (double)lookups,
           (double)found / (double)lookups / rounds);
    cidr_table_free(t);
    return 0;
}
