// SPDX-License-Identifier: MIT
#include "common/shard_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64], path[96];

static int make_dir(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/tgg-shm-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/shard-0.shm", dir);
    return 0;
}

static int remove_dir(void **state)
{
    unlink(path);
    rmdir(dir);
    return 0;
}

static void the_sequence_counts_and_skips_zero(void **state)
{
    struct shard_shm shm;
    shard_shm_init(&shm, 3, CONNECTION_SEQ_MASK - 1);
    assert_int_equal(shm.shard, 3);
    assert_int_equal(shard_shm_take_seq(&shm), CONNECTION_SEQ_MASK - 1);
    assert_int_equal(shard_shm_take_seq(&shm), CONNECTION_SEQ_MASK);
    assert_int_equal(shard_shm_take_seq(&shm), 1);
    assert_int_equal(shm.next_seq, 2);
}

static void the_clock_gives_a_sequence_in_range(void **state)
{
    assert_int_equal(shard_shm_clock_seq(0), 1);
    assert_int_equal(shard_shm_clock_seq(1), 1024);
    assert_int_equal(shard_shm_clock_seq(65536), 1); /* 2^26 exactly: 0 is never given out */
    assert_int_equal(shard_shm_clock_seq(65537), 1024);
    assert_in_range(shard_shm_clock_seq(1800000000), 1, CONNECTION_SEQ_MASK);
}

static void the_sequence_goes_on_and_counters_do_not(void **state)
{
    struct shard_shm_file f;
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    assert_false(f.continued);
    f.shm->next_seq = 4711;
    counter_add(&f.shm->counters, COUNTER_client_accepted, 5);
    shard_shm_release(&f);
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    assert_true(f.continued);
    assert_int_equal(f.shm->next_seq, 4711);
    assert_int_equal(counter_get(&f.shm->counters, COUNTER_client_accepted), 0);
    shard_shm_release(&f);
}

/* As after kill -9: nobody released anything. */
static void the_sequence_survives_the_death_of_its_process(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct shard_shm_file f;
        if (shard_shm_create(dir, 0, &f) < 0)
            _exit(1);
        f.shm->next_seq = 99;
        shard_shm_take_seq(f.shm);
        kill(getpid(), SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    struct shard_shm_file f;
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    assert_true(f.continued);
    assert_int_equal(f.shm->next_seq, 100);
    shard_shm_release(&f);
}

static void a_second_one_is_busy_until_the_last_holder_is_gone(void **state)
{
    struct shard_shm_file f, g;
    int gate[2];
    assert_int_equal(pipe(gate), 0);
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    assert_int_equal(shard_shm_create(dir, 0, &g), -EBUSY);
    pid_t child = fork(); /* the shard inherits the lock */
    if (child == 0) {
        char c;
        close(gate[1]);
        _exit(read(gate[0], &c, 1) == 0 ? 0 : 1);
    }
    shard_shm_release(&f);
    assert_int_equal(shard_shm_create(dir, 0, &g), -EBUSY);
    close(gate[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(gate[0]);
    assert_int_equal(shard_shm_create(dir, 0, &g), 0);
    shard_shm_release(&g);
}

static void write_file(const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static void a_file_that_makes_no_sense_starts_from_the_clock(void **state)
{
    struct shard_shm_file f;
    struct shard_shm bad;
    static const char garbage[300] = "garbage";

    write_file(garbage, sizeof garbage);
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    assert_false(f.continued);
    shard_shm_release(&f);
    write_file("", 0);
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    assert_false(f.continued);
    shard_shm_release(&f);

    shard_shm_init(&bad, 0, 5);
    bad.next_seq = CONNECTION_SEQ_MASK + 1;
    write_file(&bad, sizeof bad);
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    assert_false(f.continued);
    assert_in_range(f.shm->next_seq, 1, CONNECTION_SEQ_MASK);
    shard_shm_release(&f);
}

/* Counters come and go between versions; the head stays where it is. */
static void the_sequence_of_a_build_with_other_counters_is_taken(void **state)
{
    struct shard_shm_file f;
    struct shard_shm old;
    shard_shm_init(&old, 0, 1234);
    old.counters_layout ^= 1;
    write_file(&old, offsetof(struct shard_shm, counters) + 16);
    const struct shard_shm *view;
    bool running;
    assert_int_equal(shard_shm_map(dir, 0, &view, &running), -EPROTO);
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    assert_true(f.continued);
    assert_int_equal(f.shm->next_seq, 1234);
    shard_shm_release(&f);
}

static void a_reader_sees_counters_and_whether_it_runs(void **state)
{
    struct shard_shm_file f;
    const struct shard_shm *view;
    bool running;

    assert_int_equal(shard_shm_map(dir, 0, &view, &running), -ENOENT);
    assert_int_equal(shard_shm_create(dir, 0, &f), 0);
    shard_shm_set_state(f.shm, SHARD_STATE_RUNNING);
    assert_int_equal(shard_shm_map(dir, 0, &view, &running), 0);
    assert_true(running);
    counter_add(&f.shm->counters, COUNTER_client_accepted, 9);
    assert_int_equal(counter_get(&view->counters, COUNTER_client_accepted), 9);
    assert_string_equal(shard_state_name(shard_shm_state(view)), "running");
    shard_shm_unmap(view);
    shard_shm_release(&f);
    assert_int_equal(shard_shm_map(dir, 0, &view, &running), 0);
    assert_false(running);
    shard_shm_unmap(view);
}

static void folders_are_made_and_a_file_in_the_way_is_an_error(void **state)
{
    struct shard_shm_file f;
    char deep[128];
    write_file("x", 1);
    snprintf(deep, sizeof deep, "%s/below", path);
    assert_int_equal(shard_shm_create(deep, 0, &f), -ENOTDIR);
    unlink(path);
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    assert_int_equal(shard_shm_create(deep, 0, &f), 0);
    shard_shm_release(&f);
    snprintf(deep, sizeof deep, "%s/a/b/shard-0.shm", dir);
    unlink(deep);
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    rmdir(deep);
    snprintf(deep, sizeof deep, "%s/a", dir);
    rmdir(deep);
}

static void without_a_file_it_works_alike(void **state)
{
    struct shard_shm_file f;
    assert_int_equal(shard_shm_anonymous(2, &f), 0);
    assert_int_equal(f.fd, -1);
    assert_int_equal(f.shm->shard, 2);
    assert_in_range(f.shm->next_seq, 1, CONNECTION_SEQ_MASK);
    shard_shm_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sequence_counts_and_skips_zero),
        cmocka_unit_test(the_clock_gives_a_sequence_in_range),
        cmocka_unit_test_setup_teardown(the_sequence_goes_on_and_counters_do_not, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(the_sequence_survives_the_death_of_its_process, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_second_one_is_busy_until_the_last_holder_is_gone, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_file_that_makes_no_sense_starts_from_the_clock, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(the_sequence_of_a_build_with_other_counters_is_taken, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_reader_sees_counters_and_whether_it_runs, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(folders_are_made_and_a_file_in_the_way_is_an_error, make_dir,
                                        remove_dir),
        cmocka_unit_test(without_a_file_it_works_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
