// SPDX-License-Identifier: MIT
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void same_key_same_hash(void **state)
{
    hash_init_fixed(7);
    uint64_t h = hash_bytes("group", 5);
    assert_true(hash_bytes("group", 5) == h);
    assert_true(hash_bytes("groups", 6) != h);
    hash_init_fixed(8);
    assert_true(hash_bytes("group", 5) != h);
    hash_init_fixed(7);
    assert_true(hash_bytes("group", 5) == h);
}

static void drawn_keys_differ(void **state)
{
    hash_init();
    uint64_t h = hash_bytes("group", 5);
    hash_init();
    assert_true(hash_bytes("group", 5) != h);
}

static void u32_spreads_neighbours_over_low_and_high_bits(void **state)
{
    unsigned low[16] = {0}, high[16] = {0};
    for (uint32_t v = 0; v < 1600; v++) {
        low[hash_u32(v) & 15]++;
        high[hash_u32(v) >> 28]++;
    }
    for (unsigned i = 0; i < 16; i++) {
        assert_in_range(low[i], 50, 200);
        assert_in_range(high[i], 50, 200);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_key_same_hash),
        cmocka_unit_test(drawn_keys_differ),
        cmocka_unit_test(u32_spreads_neighbours_over_low_and_high_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
