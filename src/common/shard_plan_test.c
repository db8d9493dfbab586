// SPDX-License-Identifier: MIT
#include "common/shard_plan.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static struct config cfg;
static struct config_error err;
static cpu_set_t allowed;

static int with_defaults(void **state)
{
    err = (struct config_error){0};
    config_defaults(&cfg);
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    return 0;
}

static int without(void **state)
{
    config_fini(&cfg);
    assert_int_equal(sched_setaffinity(0, sizeof allowed, &allowed), 0);
    return 0;
}

static void set(const char *key, const char *value)
{
    assert_int_equal(config_set(&cfg, "gateway", key, value, &err), 0);
}

static void assert_good(void)
{
    assert_int_equal(config_check(&cfg, &err), 0);
    assert_int_equal(err.n, 0);
}

static void assert_wrong(const char *key, const char *value)
{
    err = (struct config_error){0};
    set(key, value);
    assert_int_equal(config_check(&cfg, &err), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].key, key);
    assert_string_equal(err.list[0].section, "gateway");
}

static int first_cpu(void)
{
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &allowed))
            return i;
    fail();
    return -1;
}

static void one_shard_alone_does_everything_anywhere(void **state)
{
    struct shard_plan plan;
    assert_good();
    assert_int_equal(config_shards(&cfg), 1);
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), 0);
    assert_int_equal(plan.n, 1);
    assert_int_equal(plan.shards[0].cpu, SHARD_CPU_NONE);
    assert_false(plan.cpus_short);
    assert_true(plan.shards[0].edge && plan.shards[0].link);
}

static void auto_takes_the_cpus_that_it_may_have(void **state)
{
    struct shard_plan plan;
    unsigned n = (unsigned)CPU_COUNT(&allowed);
    set("shards", "auto");
    assert_good();
    assert_int_equal(config_shards(&cfg), n < 64 ? n : 64);
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), 0);
    for (unsigned i = 0; n > 1 && i < plan.n; i++) {
        assert_true(CPU_ISSET(plan.shards[i].cpu, &allowed));
        assert_true(i == 0 || plan.shards[i].cpu > plan.shards[i - 1].cpu);
    }
    assert_false(plan.cpus_short);

    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first_cpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(config_shards(&cfg), 1);
}

static void cpus_are_used_in_turn(void **state)
{
    struct shard_plan plan;
    char list[32];
    set("shards", "5");
    set("cpus", "none");
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(plan.shards[i].cpu, SHARD_CPU_NONE);
    snprintf(list, sizeof list, "%d,%d", first_cpu(), first_cpu());
    set("cpus", list);
    assert_good();
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), 0);
    assert_true(plan.cpus_short);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(plan.shards[i].cpu, first_cpu());
    set("shards", "2");
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), 0);
    assert_false(plan.cpus_short);
}

static void a_cpu_that_is_not_ours_is_an_error(void **state)
{
    struct shard_plan plan;
    set("cpus", "0-1023");
    assert_good(); /* it may be right elsewhere */
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].key, "cpus");
}

static void roles_are_as_listed(void **state)
{
    struct shard_plan plan;
    set("shards", "8");
    set("edge_shards", "0-3,6");
    set("link_shards", "4-7");
    assert_good();
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), 0);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(plan.shards[i].edge, i < 4 || i == 6);
        assert_int_equal(plan.shards[i].link, i >= 4);
        assert_int_equal(config_shard_is_edge(&cfg, i), plan.shards[i].edge);
        assert_int_equal(config_shard_is_link(&cfg, i), plan.shards[i].link);
    }
}

static void sixty_four_shards_are_possible(void **state)
{
    struct shard_plan plan;
    set("shards", "64");
    set("cpus", "none");
    set("edge_shards", "0-62");
    set("link_shards", "63");
    assert_good();
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), 0);
    assert_int_equal(plan.n, 64);
    assert_true(plan.shards[63].link && !plan.shards[63].edge);
}

static void wrong_lists_are_told(void **state)
{
    static const char *const bad_shards[] = {"0", "65", "two", "1,2", "1-2", "-1"};
    for (size_t i = 0; i < sizeof bad_shards / sizeof bad_shards[0]; i++)
        assert_wrong("shards", bad_shards[i]);
    set("shards", "4");
    assert_wrong("cpus", "a");
    assert_wrong("cpus", "3-1");
    assert_wrong("cpus", "1024");
    set("cpus", "auto");
    assert_wrong("edge_shards", "4");
    assert_wrong("edge_shards", "none");
    assert_wrong("edge_shards", "0-64");
    set("edge_shards", "all");
    assert_wrong("link_shards", "0,5");
    assert_wrong("link_shards", "0,,1");
    set("link_shards", "0");
    assert_wrong("edge_shards", "1,2"); /* 3 would have nothing to do */
    set("edge_shards", "all");
    assert_wrong("ring_size", "65537");
    assert_wrong("ring_size", "196608");
    set("ring_size", "64m");
    err = (struct config_error){0};
    assert_good();
}

/* How many there are is known where it starts. */
static void auto_is_checked_again_at_the_start(void **state)
{
    struct shard_plan plan;
    cpu_set_t one;
    set("shards", "auto");
    set("link_shards", "0,1");
    assert_good();
    CPU_ZERO(&one);
    CPU_SET(first_cpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(shard_plan_make(&cfg, &plan, &err), -EINVAL);
    assert_string_equal(err.list[0].key, "link_shards");
}

#define WITH_CONFIG(test) cmocka_unit_test_setup_teardown(test, with_defaults, without)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CONFIG(one_shard_alone_does_everything_anywhere),
        WITH_CONFIG(auto_takes_the_cpus_that_it_may_have),
        WITH_CONFIG(cpus_are_used_in_turn),
        WITH_CONFIG(a_cpu_that_is_not_ours_is_an_error),
        WITH_CONFIG(roles_are_as_listed),
        WITH_CONFIG(sixty_four_shards_are_possible),
        WITH_CONFIG(wrong_lists_are_told),
        WITH_CONFIG(auto_is_checked_again_at_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
