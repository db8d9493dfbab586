// SPDX-License-Identifier: MIT
/* The table against a list that is searched from end to end, over prefixes that are random, crowded, nested
 * and adversarial; and how fast it is. */
#include "guard/cidr_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static uint64_t seed;

static uint64_t rnd(void)
{
    seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- the model */

struct model {
    struct cidr prefixes[4096];
    int64_t values[4096];
    unsigned n;
};
static struct model model;
static struct cidr_set set;
static struct cidr_table *table;

static bool inside(const struct cidr *prefix, const struct cidr *address)
{
    struct cidr c = *address;
    if (prefix->family != address->family)
        return false;
    cidr_cut(&c, prefix->bits);
    return c.hi == prefix->hi && c.lo == prefix->lo;
}

static bool model_find(const struct cidr *address, int64_t floor, int64_t *ret)
{
    int best = -1;
    for (unsigned i = 0; i < model.n; i++) {
        const struct cidr *p = &model.prefixes[i];
        if (model.values[i] <= floor || !inside(p, address) || p->bits < best)
            continue;
        if (p->bits > best || model.values[i] > *ret)
            *ret = model.values[i];
        best = p->bits;
    }
    return best >= 0;
}

static void add(struct cidr c, unsigned bits, int64_t value)
{
    cidr_cut(&c, bits);
    assert_true(model.n < 4096);
    model.prefixes[model.n] = c;
    model.values[model.n++] = value;
    assert_int_equal(cidr_set_add(&set, &c, value), 0);
}

static void add_text(const char *text, int64_t value)
{
    struct cidr c;
    assert_int_equal(cidr_parse(text, strlen(text), &c), CIDR_OK);
    add(c, c.bits, value);
}

static void begin(void)
{
    cidr_table_free(table);
    cidr_set_fini(&set);
    table = NULL;
    model.n = 0;
}

static void build(struct cidr_clashes *ret)
{
    table = cidr_table_new(&set, ret);
    assert_non_null(table);
}

static struct net_addr addr_of(const struct cidr *c)
{
    struct net_addr a = {.family = c->family};
    for (unsigned i = 0; i < 8; i++) {
        a.ip[i] = (uint8_t)(c->hi >> (56 - 8 * i));
        a.ip[8 + i] = (uint8_t)(c->lo >> (56 - 8 * i));
    }
    return a;
}

static void assert_agree(const struct cidr *c, int64_t floor)
{
    int64_t expected = -1, found = -1;
    struct net_addr a = addr_of(c);
    bool is_there = model_find(c, floor, &expected);
    if (cidr_table_find(table, &a, floor, &found) != is_there || found != expected) {
        char buf[CIDR_STRLEN];
        fail_msg("%s floor %lld: expected %lld, found %lld", cidr_format(c, buf, sizeof buf),
                 (long long)floor, (long long)expected, (long long)found);
    }
}

static struct cidr random_address(uint8_t family)
{
    return family == AF_INET ? (struct cidr){.hi = rnd() << 32, .family = AF_INET, .bits = 32}
                             : (struct cidr){.hi = rnd(), .lo = rnd(), .family = AF_INET6, .bits = 128};
}

static void flip(struct cidr *c, unsigned bit)
{
    if (bit < 64)
        c->hi ^= UINT64_C(1) << (63 - bit);
    else
        c->lo ^= UINT64_C(1) << (127 - bit);
}

static unsigned bits_max(const struct cidr *c)
{
    return c->family == AF_INET ? 32 : 128;
}

/* The first and last address of prefixes, what stands beside them, those with one bit changed anywhere, and
 * random ones. */
static void compare_all(unsigned n_random, int64_t floor)
{
    for (unsigned i = 0; i < model.n; i++) {
        struct cidr c = model.prefixes[i];
        unsigned max = bits_max(&c), bits = c.bits;
        c.bits = (uint8_t)max;
        assert_agree(&c, floor);
        for (unsigned k = 0; k < 3; k++) {
            struct cidr other = c;
            flip(&other, (unsigned)rnd() % max);
            assert_agree(&other, floor);
        }
        if (bits > 0) {
            flip(&c, bits - 1);
            assert_agree(&c, floor);
            flip(&c, bits - 1);
        }
        for (unsigned b = bits; b < max; b++)
            flip(&c, b);
        assert_agree(&c, floor);
    }
    for (unsigned i = 0; i < n_random; i++) {
        struct cidr c = random_address(i % 2 == 0 ? AF_INET : AF_INET6);
        assert_agree(&c, floor);
    }
}

/* ---- small ones */

static void nothing_matches_an_empty_table(void **state)
{
    begin();
    build(NULL);
    compare_all(100, INT64_MIN);
    assert_int_equal(cidr_table_prefixes(table), 0);
    assert_true(cidr_table_bytes(table) < 500);
}

static int64_t find(const char *address, int64_t floor)
{
    struct cidr c;
    int64_t v = -1;
    assert_int_equal(cidr_parse(address, strlen(address), &c), CIDR_OK);
    struct net_addr a = addr_of(&c);
    return cidr_table_find(table, &a, floor, &v) ? v : -1;
}

static void the_longest_decides(void **state)
{
    begin();
    add_text("10.0.0.0/8", 1);
    add_text("10.1.0.0/16", 2);
    add_text("10.1.2.0/24", 3);
    add_text("10.1.2.3", 4);
    add_text("2001:db8::/32", 5);
    add_text("2001:db8::1", 6);
    build(NULL);
    assert_int_equal(find("10.2.0.0", INT64_MIN), 1);
    assert_int_equal(find("10.1.3.0", INT64_MIN), 2);
    assert_int_equal(find("10.1.2.4", INT64_MIN), 3);
    assert_int_equal(find("10.1.2.3", INT64_MIN), 4);
    assert_int_equal(find("11.0.0.0", INT64_MIN), -1);
    assert_int_equal(find("2001:db8::2", INT64_MIN), 5);
    assert_int_equal(find("2001:db8::1", INT64_MIN), 6);
    assert_int_equal(find("2001:db9::1", INT64_MIN), -1);
}

static void families_do_not_meet(void **state)
{
    begin();
    add_text("0.0.0.0/0", 1);
    build(NULL);
    assert_int_equal(find("::", INT64_MIN), -1);
    assert_int_equal(find("::ffff:1.2.3.4", INT64_MIN), 1); /* which is IPv4 */
    begin();
    add_text("::/0", 1);
    build(NULL);
    assert_int_equal(find("0.0.0.0", INT64_MIN), -1);
    assert_int_equal(find("ffff::", INT64_MIN), 1);
    struct net_addr local = {.family = AF_UNIX};
    int64_t v;
    assert_false(cidr_table_find(table, &local, INT64_MIN, &v));
}

static void values_at_or_below_the_floor_are_passed_over(void **state)
{
    begin();
    add_text("10.0.0.0/8", 300);
    add_text("10.1.0.0/16", 100);
    add_text("10.1.2.0/24", 200);
    build(NULL);
    assert_int_equal(find("10.1.2.3", 99), 200);
    assert_int_equal(find("10.1.2.3", 199), 200);
    assert_int_equal(find("10.1.2.3", 200), 300);
    assert_int_equal(find("10.1.3.3", 100), 300);
    assert_int_equal(find("10.1.2.3", 300), -1);
}

static void of_the_same_prefix_the_highest_counts_and_it_is_told(void **state)
{
    struct cidr_clashes clashes;
    char buf[CIDR_STRLEN];
    begin();
    add_text("10.0.0.0/8", 0);
    add_text("10.1.0.0/16", 1);
    add_text("10.0.0.0/8", 0); /* the same thing twice is no clash */
    add_text("10.1.0.0/16", 0);
    add_text("2001:db8::/32", 0);
    add_text("2001:db8::/32", 1);
    build(&clashes);
    assert_int_equal(clashes.n, 2);
    assert_string_equal(cidr_format(&clashes.first, buf, sizeof buf), "10.1.0.0/16");
    assert_int_equal(cidr_table_prefixes(table), 3);
    assert_int_equal(find("10.1.0.1", INT64_MIN), 1);
    assert_int_equal(find("10.2.0.1", INT64_MIN), 0);
    assert_int_equal(find("2001:db8::1", INT64_MIN), 1);
}

/* ---- against the model */

static void random_prefixes_of_every_length(void **state)
{
    for (unsigned round = 0; round < 60; round++) {
        begin();
        unsigned n = 1 + (unsigned)rnd() % (round < 40 ? 30 : 400);
        for (unsigned i = 0; i < n; i++) {
            struct cidr c = random_address(rnd() % 2 == 0 ? AF_INET : AF_INET6);
            add(c, (unsigned)rnd() % (bits_max(&c) + 1), (int64_t)(rnd() % 50));
        }
        build(NULL);
        compare_all(100, round % 2 == 0 ? INT64_MIN : 20);
    }
}

/* All in a few bits, so that they collide, nest and part in every position. */
static void crowded_prefixes(void **state)
{
    for (unsigned round = 0; round < 60; round++) {
        begin();
        uint8_t family = round % 2 == 0 ? AF_INET : AF_INET6;
        struct cidr base = random_address(family);
        unsigned width = 2 + (unsigned)rnd() % 12, max = bits_max(&base);
        unsigned at = (unsigned)rnd() % (max - width + 1);
        for (unsigned i = 0; i < 500; i++) {
            struct cidr c = base;
            for (unsigned b = 0; b < width; b++)
                if (rnd() % 2 == 0)
                    flip(&c, at + b);
            add(c, at + (unsigned)rnd() % (max - at + 1), (int64_t)(rnd() % 9));
        }
        build(NULL);
        compare_all(50, round % 3 == 0 ? 4 : INT64_MIN);
    }
}

static void every_length_of_one_address_inside_one_another(void **state)
{
    begin();
    struct cidr v4 = random_address(AF_INET), v6 = random_address(AF_INET6);
    for (unsigned bits = 0; bits <= 128; bits++) {
        add(v6, bits, bits);
        if (bits <= 32)
            add(v4, bits, bits);
    }
    build(NULL);
    compare_all(200, INT64_MIN);
    compare_all(200, 7);
    for (unsigned bit = 0; bit < 128; bit++) { /* one that leaves the chain at that bit */
        struct cidr c = v6;
        flip(&c, bit);
        assert_agree(&c, INT64_MIN);
        c = v4;
        flip(&c, bit % 32);
        assert_agree(&c, INT64_MIN);
    }
}

/* Neighbours that differ in their last bit only: as deep as it goes. */
static void pairs_at_the_very_end(void **state)
{
    begin();
    for (unsigned i = 0; i < 500; i++) {
        struct cidr c = random_address(i % 2 == 0 ? AF_INET : AF_INET6);
        add(c, bits_max(&c), i);
        flip(&c, bits_max(&c) - 1);
        add(c, bits_max(&c), i + 1000);
    }
    build(NULL);
    compare_all(500, INT64_MIN);
    assert_true(cidr_table_bytes(table) < 1000 * 120); /* shared bits take no nodes */
}

/* Enough for the table of the first 16 bits, on both sides of its borders. */
static void more_than_the_first_step_holds(void **state)
{
    begin();
    struct cidr base = {.hi = UINT64_C(0x20010db800000000), .family = AF_INET6, .bits = 128};
    for (unsigned i = 0; i < 2047; i++) {
        struct cidr c = random_address(AF_INET);
        add(c, i % 33, i);
        c = base;
        c.hi |= rnd() & 0xffffffff;
        c.lo = rnd();
        add(c, 10 + i % 119, i);
    }
    build(NULL);
    compare_all(500, INT64_MIN); /* without it: 2047 of a family */
    begin();
    for (unsigned i = 0; i < 4000; i++) {
        struct cidr c = random_address(AF_INET);
        add(c, i % 7 == 0 ? i % 17 : 12 + i % 21, i);
    }
    build(NULL);
    compare_all(2000, INT64_MIN); /* with it */
    compare_all(100, 3000);
}

/* ---- how fast: reported, and bounded far above any machine's */

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static struct cidr measured_prefix(unsigned kind)
{
    struct cidr c = random_address(kind == 0 ? AF_INET : AF_INET6);
    if (kind == 0) {
        cidr_cut(&c, 20 + (unsigned)rnd() % 13);
    } else { /* as they are given out: inside 2000::/3, few /32, many /48 to /64, single ones */
        c.hi = UINT64_C(0x2a00000000000000) | (rnd() % 1500) << 44 | (rnd() & 0xfffffffffff);
        cidr_cut(&c, kind == 1 ? 40 + (unsigned)rnd() % 25 : 128);
    }
    return c;
}

#define N_MEASURED  100000
#define N_ADDRESSES (1 << 16)
#define N_LOOKUPS   2000000

static void measure(unsigned kind, const char *name)
{
    static struct net_addr addresses[N_ADDRESSES];
    unsigned hits = 0;
    int64_t v;

    begin();
    for (unsigned i = 0; i < N_MEASURED; i++) {
        struct cidr c = measured_prefix(kind);
        cidr_set_add(&set, &c, i);
        if (i >= N_ADDRESSES)
            continue;
        if (i % 2 == 0) /* every second one from nowhere, the others from inside a prefix */
            c = kind == 0 ? random_address(AF_INET) : measured_prefix(2);
        else if (c.bits < bits_max(&c))
            flip(&c, bits_max(&c) - 1);
        addresses[i] = addr_of(&c);
    }
    double start = now_s();
    build(NULL);
    double built = now_s();
    for (unsigned i = 0; i < N_LOOKUPS; i++)
        hits += cidr_table_find(table, &addresses[i % N_ADDRESSES], INT64_MIN, &v);
    double end = now_s();
    print_message("%s: %zu prefixes, built in %.0f ms, %.1f MB, %.1f M lookups/s, %u %% found\n", name,
                  cidr_table_prefixes(table), (built - start) * 1e3, (double)cidr_table_bytes(table) / 1e6,
                  N_LOOKUPS / (end - built) / 1e6, hits / (N_LOOKUPS / 100));
    assert_in_range(hits, N_LOOKUPS / 3, N_LOOKUPS);
    assert_true(cidr_table_bytes(table) < (size_t)N_MEASURED * 100 + 1000000);
    assert_true(built - start < 5);
    assert_true(end - built < 10); /* 200,000 a second, with any sanitizer */
}

static void lookups_over_100000_prefixes(void **state)
{
    measure(0, "ipv4");
    measure(1, "ipv6");
    measure(2, "ipv6 addresses");
}

static int teardown(void **state)
{
    begin();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_matches_an_empty_table),
        cmocka_unit_test(the_longest_decides),
        cmocka_unit_test(families_do_not_meet),
        cmocka_unit_test(values_at_or_below_the_floor_are_passed_over),
        cmocka_unit_test(of_the_same_prefix_the_highest_counts_and_it_is_told),
        cmocka_unit_test(random_prefixes_of_every_length),
        cmocka_unit_test(crowded_prefixes),
        cmocka_unit_test(every_length_of_one_address_inside_one_another),
        cmocka_unit_test(pairs_at_the_very_end),
        cmocka_unit_test(more_than_the_first_step_holds),
        cmocka_unit_test(lookups_over_100000_prefixes),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
