// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "session/directory.h"
#include "session/set.h"

#define N 1000

struct fixture {
    struct set set;
    struct mem mem;
    struct member m[N];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    set__init(&f->set, SET_ALL);
    *state = f;
    return f ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    set__fini(&f->set, &f->mem);
    int r = f->mem.bytes == 0 ? 0 : -1;
    free(f);
    return r;
}

static void add(struct fixture *f, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++) {
        assert_int_equal(set__add(&f->set, &f->mem, &f->m[i], &f->m[i].position), 0);
    }
    assert_null(set__check(&f->set));
}

static void drop(struct fixture *f, uint32_t i)
{
    set__remove(&f->set, &f->mem, f->m[i].position);
    assert_null(set__check(&f->set));
}

static void a_set_of_one_holds_no_memory(void **state)
{
    struct fixture *f = *state;
    add(f, 0, 1);
    assert_int_equal(f->mem.bytes, 0);
    assert_ptr_equal(set__at(&f->set, 0), &f->m[0]);
    add(f, 1, 1);
    assert_true(f->mem.bytes > 0);
    drop(f, 0);
    assert_int_equal(f->mem.bytes, 0);
    assert_int_equal(f->m[1].position, 0);
    drop(f, 1);
    assert_int_equal(f->set.used, 0);
}

static void removal_moves_the_last_into_the_gap(void **state)
{
    struct fixture *f = *state;
    add(f, 0, 5);
    drop(f, 1);
    assert_int_equal(f->m[4].position, 1);
    assert_int_equal(f->set.used, 4);
    drop(f, 3);
    assert_int_equal(f->set.used, 3);
}

static void the_array_shrinks_at_a_quarter(void **state)
{
    struct fixture *f = *state;
    add(f, 0, 512);
    assert_int_equal(f->set.many->cap, 512);
    for (uint32_t i = 0; i < 383; i++) {
        drop(f, i);
    }
    assert_int_equal(f->set.many->cap, 512);
    drop(f, 383);
    assert_int_equal(f->set.many->cap, 256);
}

static void shrinking_without_memory_is_put_off(void **state)
{
    struct fixture *f = *state;
    add(f, 0, 512);
    session_alloc_fail_after = 0;
    for (uint32_t i = 0; i < 500; i++) {
        drop(f, i);
    }
    session_alloc_fail_after = -1;
    assert_int_equal(f->set.many->cap, 512);
    drop(f, 500);
    assert_int_equal(f->set.live, 11);
    assert_true(f->set.many->cap < 64);
}

static void adding_without_memory_changes_nothing(void **state)
{
    struct fixture *f = *state;
    add(f, 0, 1);
    session_alloc_fail_after = 0;
    uint32_t position = 99;
    assert_int_equal(set__add(&f->set, &f->mem, &f->m[1], &position), -ENOMEM);
    session_alloc_fail_after = -1;
    assert_int_equal(position, 99);
    assert_int_equal(f->set.live, 1);
    assert_null(set__check(&f->set));
}

static void under_a_cursor_nothing_moves(void **state)
{
    struct fixture *f = *state;
    add(f, 0, 10);
    f->set.n_cursors = 1;
    drop(f, 0);
    drop(f, 9);
    drop(f, 5);
    assert_int_equal(f->set.used, 10);
    assert_int_equal(f->m[8].position, 8);
    add(f, 20, 1);
    assert_int_equal(f->m[20].position, 10);
    f->set.n_cursors = 0;
    set__settle(&f->set, &f->mem);
    assert_int_equal(f->set.used, 8);
    assert_null(set__check(&f->set));
}

static void holes_left_over_are_filled_little_by_little(void **state)
{
    struct fixture *f = *state;
    add(f, 0, N - 1);
    f->set.n_cursors = 1;
    for (uint32_t i = 0; i < 400; i++) {
        drop(f, i * 2);
    }
    f->set.n_cursors = 0;
    set__settle(&f->set, &f->mem);
    uint32_t holes = f->set.used - f->set.live;
    assert_in_range(holes, 300, 399);
    add(f, N - 1, 1);
    assert_int_equal(f->set.used - f->set.live, holes - 1);
    for (uint32_t i = 0; i < 200 && f->set.used > f->set.live; i++) {
        drop(f, i * 2 + 1);
    }
    assert_int_equal(f->set.used, f->set.live);
}

static void clear_keeps_the_slots_only_for_cursors(void **state)
{
    struct fixture *f = *state;
    add(f, 0, 100);
    f->set.n_cursors = 1;
    set__clear(&f->set, &f->mem);
    assert_int_equal(f->set.used, 100);
    assert_int_equal(f->set.live, 0);
    assert_null(set__check(&f->set));
    f->set.n_cursors = 0;
    set__settle(&f->set, &f->mem);
    assert_int_equal(f->set.used, 0);
    assert_int_equal(f->mem.bytes, 0);
    add(f, 0, 100);
    set__clear(&f->set, &f->mem);
    assert_int_equal(f->mem.bytes, 0);
}

static void squeezing_keeps_order_and_bounds(void **state)
{
    struct fixture *f = *state;
    add(f, 0, 200);
    f->set.n_cursors = 1;
    for (uint32_t i = 0; i < 200; i++) {
        if (i % 10 != 0) {
            drop(f, i);
        }
    }
    assert_true(set__wants_squeeze(&f->set));
    uint32_t index = 95, end = 181; /* 10 kept before 95 (0..90), 19 before 181 (0..180) */
    uint32_t index0 = 0, end0 = 0;
    set__rank(&f->set);
    set__remap(&f->set, &index, &end);
    set__remap(&f->set, &index0, &end0);
    set__squeeze(&f->set, &f->mem);
    f->set.n_cursors = 0;
    assert_int_equal(index, 10);
    assert_int_equal(end, 19);
    assert_int_equal(index0 + end0, 0);
    assert_int_equal(f->set.used, 20);
    assert_null(set__check(&f->set));
    for (uint32_t i = 0; i < 20; i++) {
        assert_ptr_equal(set__at(&f->set, i), &f->m[i * 10]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_set_of_one_holds_no_memory),
        TEST(removal_moves_the_last_into_the_gap),
        TEST(the_array_shrinks_at_a_quarter),
        TEST(shrinking_without_memory_is_put_off),
        TEST(adding_without_memory_changes_nothing),
        TEST(under_a_cursor_nothing_moves),
        TEST(holes_left_over_are_filled_little_by_little),
        TEST(clear_keeps_the_slots_only_for_cursors),
        TEST(squeezing_keeps_order_and_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
