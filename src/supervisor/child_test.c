// SPDX-License-Identifier: MIT
#include "supervisor/child.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "supervisor/core_file.h"

static struct node_process entry;
static struct child child;

static int new_child(void **state)
{
    entry = (struct node_process){0};
    child_init(&child, PROCESS_SHARD, 3, &entry);
    return 0;
}

static void it_has_a_name(void **state)
{
    assert_string_equal(child.name, "shard 3");
    assert_string_equal(child.label, "shard=3");
    child_init(&child, PROCESS_ANNOUNCER, 0, &entry);
    assert_string_equal(child.name, "announcer");
    assert_string_equal(child.label, "process=announcer");
    child_init(&child, PROCESS_ADMIN, 0, &entry);
    assert_string_equal(child.name, "admin");
    assert_string_equal(child.label, "process=admin");
}

static void the_first_death_costs_no_time_and_a_crash_loop_does(void **state)
{
    static const unsigned delays[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    assert_int_equal(child_died(&child, 9, 10000), 0);
    for (unsigned i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        assert_int_equal(child_died(&child, 9, 9999), delays[i]);
        assert_int_equal(entry.deaths_young, i + 1);
    }
    assert_int_equal(child_died(&child, 9, 10000), 0); /* it had got over it */
    assert_int_equal(entry.deaths_young, 0);
    assert_int_equal(child_died(&child, 9, 1), 100);
    assert_int_equal(entry.restarts, 11);
    assert_int_equal(entry.state, PROCESS_DEAD);
    assert_int_equal(entry.last_wait_status, 9);
    assert_true(child.restart_at_ms != CHILD_NEVER);
    child_retire(&child);
    assert_true(child.restart_at_ms == CHILD_NEVER);
}

static void the_delay_has_a_bound(void **state)
{
    assert_int_equal(child_delay_ms(0), 0);
    assert_int_equal(child_delay_ms(6), 3200);
    assert_int_equal(child_delay_ms(7), 5000);
    assert_int_equal(child_delay_ms(33), 5000);
    assert_int_equal(child_delay_ms(UINT32_MAX), 5000);
}

static void core_files_need_a_place(void **state)
{
    assert_true(core_file_pattern_works("|/usr/lib/collect %p", "/"));
    assert_true(core_file_pattern_works("/tmp/core.%e.%p", "/does/not/exist"));
    assert_false(core_file_pattern_works("/does/not/exist/core", "/tmp"));
    assert_false(core_file_pattern_works("", "/tmp"));
    assert_true(core_file_pattern_works("core", "/tmp"));
}

static void core_files_without_a_folder_have_one_of_ours(void **state)
{
    char before[4096], now[4096], folder[] = "/tmp/tgg-core-test-XXXXXX";
    assert_non_null(getcwd(before, sizeof before));
    assert_non_null(mkdtemp(folder));
    assert_false(core_file_enter("/tmp/core", folder)); /* the kernel knows better */
    assert_false(core_file_enter("|/usr/lib/collect", folder));
    assert_false(core_file_enter("core", "/does/not/exist"));
    assert_string_equal(getcwd(now, sizeof now), before);
    assert_true(core_file_enter("core.%p", folder));
    assert_string_equal(getcwd(now, sizeof now), folder);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(it_has_a_name, new_child),
        cmocka_unit_test_setup(the_first_death_costs_no_time_and_a_crash_loop_does, new_child),
        cmocka_unit_test(the_delay_has_a_bound),
        cmocka_unit_test(core_files_need_a_place),
        cmocka_unit_test(core_files_without_a_folder_have_one_of_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
