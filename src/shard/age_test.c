// SPDX-License-Identifier: MIT
#include "shard/age.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/shard_shm.h"

static struct age_log ages;

static void each_second_is_known(void **state)
{
    age_init(&ages, 100, 1000);
    for (uint32_t s = 1; s <= 60; s++) /* ids 100 + 10 * (s - 1) and nine more come in second s */
        age_turn(&ages, 100 + 10 * s, 1000 + s);
    for (uint32_t s = 0; s < 60; s++) {
        assert_int_equal(age_of(&ages, 100 + 10 * s, 700, 1060), 60 - s);
        assert_int_equal(age_of(&ages, 100 + 10 * s + 9, 700, 1060), 60 - s);
    }
    assert_int_equal(age_of(&ages, 701, 702, 1060), 0); /* in this second */
}

static void a_quiet_time_is_not_that_of_who_comes_after(void **state)
{
    age_init(&ages, 1, 0);
    age_turn(&ages, 2, 1);
    for (uint32_t s = 2; s <= 5000; s++)
        age_turn(&ages, 2, s);
    age_turn(&ages, 3, 5001);
    assert_int_equal(age_of(&ages, 1, 3, 5001), 5001);
    assert_int_equal(age_of(&ages, 2, 3, 5001), 1);
}

static void the_sequence_runs_round(void **state)
{
    age_init(&ages, CONNECTION_SEQ_MASK - 5, 0);
    for (uint32_t s = 1; s <= 100; s++)
        age_turn(&ages, (CONNECTION_SEQ_MASK - 5 + 3 * s) & CONNECTION_SEQ_MASK, s);
    uint32_t next = (CONNECTION_SEQ_MASK - 5 + 300) & CONNECTION_SEQ_MASK;
    for (uint32_t s = 0; s < 100; s++)
        assert_int_equal(age_of(&ages, (CONNECTION_SEQ_MASK - 5 + 3 * s) & CONNECTION_SEQ_MASK, next, 100),
                         100 - s);
}

static void a_long_life_is_known_roughly(void **state)
{
    const uint32_t end = 30 * 86400;
    age_init(&ages, 0, 0);
    for (uint32_t s = 1; s <= end; s++)
        age_turn(&ages, s, s);
    for (uint32_t s = 1; s < end; s = s * 5 / 4 + 1) {
        uint32_t age = age_of(&ages, s, end, end), is = end - s;
        uint32_t off = age > is ? age - is : is - age;
        assert_true(off <= is / 50 + 1);
    }
    assert_true(ages.n <= AGE_MARKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_second_is_known),
        cmocka_unit_test(a_quiet_time_is_not_that_of_who_comes_after),
        cmocka_unit_test(the_sequence_runs_round),
        cmocka_unit_test(a_long_life_is_known_roughly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
