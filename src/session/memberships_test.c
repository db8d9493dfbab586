// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "session/directory_priv.h"

#define N 500
static struct group groups[N];

static void join(struct mem *mem, struct member *m, uint32_t g)
{
    assert_int_equal(memberships__reserve(mem, m), 0);
    memberships__add(m, &groups[g], g + 1000);
    assert_null(memberships__check(m));
}

static void one_group_takes_one_small_chunk(void **state)
{
    struct mem mem = {0};
    struct member m = {0};
    assert_int_equal(memberships__find(&m, &groups[0]), MEMBERSHIP_NONE);
    join(&mem, &m, 0);
    assert_in_range(mem.bytes, 24, 32);
    assert_int_equal(memberships__find(&m, &groups[0]), 0);
    assert_int_equal(m.memberships[0].position, 1000);
    memberships__remove_at(&mem, &m, 0);
    assert_null(m.memberships);
    assert_int_equal(mem.bytes, 0);
}

static void each_is_found_with_and_without_index(void **state)
{
    struct mem mem = {0};
    struct member m = {0};
    for (uint32_t g = 0; g < N; g++) {
        join(&mem, &m, g);
    }
    for (uint32_t g = 0; g < N; g++) {
        uint32_t victim = (g * 7) % N;
        uint32_t i = memberships__find(&m, &groups[victim]);
        assert_int_equal(m.memberships[i].position, victim + 1000);
        memberships__remove_at(&mem, &m, i);
        assert_int_equal(memberships__find(&m, &groups[victim]), MEMBERSHIP_NONE);
        assert_null(memberships__check(&m));
    }
    assert_int_equal(mem.bytes, 0);
}

static void an_unused_reservation_is_given_back(void **state)
{
    struct mem mem = {0};
    struct member m = {0};
    assert_int_equal(memberships__reserve(&mem, &m), 0);
    memberships__fit(&mem, &m);
    assert_null(m.memberships);
    assert_int_equal(mem.bytes, 0);
}

static void without_memory_nothing_changes(void **state)
{
    struct mem mem = {0};
    struct member m = {0};
    session_alloc_fail_after = 0;
    assert_int_equal(memberships__reserve(&mem, &m), -ENOMEM);
    session_alloc_fail_after = -1;
    assert_null(m.memberships);
    for (uint32_t g = 0; g < 16; g++) {
        join(&mem, &m, g);
    }
    session_alloc_fail_after = 0;
    assert_int_equal(memberships__reserve(&mem, &m), -ENOMEM);
    while (m.n_memberships > 0) { /* cannot shrink either, and does not need to */
        memberships__remove_at(&mem, &m, 0);
        assert_null(memberships__check(&m));
    }
    session_alloc_fail_after = -1;
    assert_int_equal(mem.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_group_takes_one_small_chunk),
        cmocka_unit_test(each_is_found_with_and_without_index),
        cmocka_unit_test(an_unused_reservation_is_given_back),
        cmocka_unit_test(without_memory_nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
