// SPDX-License-Identifier: MIT
#include "base/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void equal_only_with_the_same_bytes_and_length(void **state)
{
    assert_true(secret_equal("abc", 3, "abc", 3));
    assert_false(secret_equal("abc", 3, "abd", 3));
    assert_false(secret_equal("abc", 3, "abcd", 4));
    assert_false(secret_equal("abcd", 4, "abc", 3));
    assert_false(
        secret_equal("abca", 4, "abc", 3)); /* past the end b[0] is looked at: must not make it equal */
    assert_false(secret_equal("", 0, "abc", 3));
    assert_false(secret_equal("abc", 3, "", 0));
    assert_true(secret_equal("", 0, "", 0));
    assert_true(secret_equal(NULL, 0, NULL, 0));
    assert_false(secret_equal("\0", 1, NULL, 0));
}

static void every_bit_counts(void **state)
{
    uint8_t a[70], b[70];

    for (size_t bit = 0; bit < sizeof(a) * 8; bit++) {
        memset(a, 0x5a, sizeof(a));
        memcpy(b, a, sizeof(b));
        b[bit / 8] = (uint8_t)(b[bit / 8] ^ (1u << (bit % 8)));
        assert_false(secret_equal(a, sizeof(a), b, sizeof(b)));
        assert_false(secret_equal(b, sizeof(a), a, sizeof(b)));
    }
    memcpy(b, a, sizeof(b));
    assert_true(secret_equal(a, sizeof(a), b, sizeof(b)));
}

static void a_length_that_differs_by_256_is_not_equal(void **state)
{
    static uint8_t a[512];
    assert_false(secret_equal(a, 512, a, 256));
    assert_false(secret_equal(a, 256, a, 512));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_only_with_the_same_bytes_and_length),
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(a_length_that_differs_by_256_is_not_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
