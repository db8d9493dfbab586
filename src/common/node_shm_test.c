// SPDX-License-Identifier: MIT
#include "common/node_shm.h"

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
    snprintf(path, sizeof path, "%s/node.shm", dir);
    return 0;
}

static int remove_dir(void **state)
{
    unlink(path);
    rmdir(dir);
    return 0;
}

static struct shard_plan plan_of(unsigned n)
{
    struct shard_plan plan = {.n = n};
    for (unsigned i = 0; i < n; i++) {
        plan.shards[i].cpu = (int)i * 2;
        plan.shards[i].edge = i != 1;
        plan.shards[i].link = true;
    }
    return plan;
}

static int create(unsigned n, struct node_shm_file *ret)
{
    struct shard_plan plan = plan_of(n);
    return node_shm_create(dir, &plan, ret);
}

static void the_clock_gives_a_sequence_in_range(void **state)
{
    assert_int_equal(shard_shm_clock_seq(0), 1);
    assert_int_equal(shard_shm_clock_seq(1), 1024);
    assert_int_equal(shard_shm_clock_seq(65536), 1); /* 2^26 exactly: 0 is never given out */
    assert_int_equal(shard_shm_clock_seq(65537), 1024);
    assert_in_range(shard_shm_clock_seq(1800000000), 1, CONNECTION_SEQ_MASK);
}

static void ids_go_on_and_counters_do_not(void **state)
{
    struct node_shm_file f;
    assert_int_equal(create(2, &f), 0);
    assert_false(f.continued);
    struct shard_shm *one = node_shm_shard(f.shm, 1);
    one->next_seq = 4711;
    one->id_block_left_unix_s[63] = 99;
    one->turns = 5;
    counter_add(&one->counters, COUNTER_client_accepted, 5);
    counter_add(&f.shm->announcer.counters, COUNTER_register_lost, 5);
    f.shm->processes[NODE_PROCESS_SHARDS].restarts = 3;
    node_shm_release(&f);
    assert_int_equal(create(2, &f), 0);
    assert_true(f.continued);
    one = node_shm_shard(f.shm, 1);
    assert_int_equal(one->next_seq, 4711);
    assert_int_equal(one->id_block_left_unix_s[63], 99);
    assert_int_equal(one->turns, 0);
    assert_int_equal(counter_get(&one->counters, COUNTER_client_accepted), 0);
    assert_int_equal(counter_get(&f.shm->announcer.counters, COUNTER_register_lost), 0);
    assert_int_equal(f.shm->processes[NODE_PROCESS_SHARDS].restarts, 0);
    node_shm_release(&f);
}

/* A shard that is not there for a run finds its own ids afterwards. */
static void ids_of_every_shard_outlive_other_numbers_of_shards(void **state)
{
    struct node_shm_file f;
    assert_int_equal(create(64, &f), 0);
    for (unsigned i = 0; i < 64; i++)
        node_shm_shard(f.shm, i)->next_seq = 1000 + i;
    node_shm_release(&f);
    assert_int_equal(create(1, &f), 0);
    assert_true(f.continued);
    assert_int_equal(f.shm->n_shards, 1);
    assert_int_equal(node_shm_shard(f.shm, 0)->next_seq, 1000);
    node_shm_shard(f.shm, 0)->next_seq = 2000;
    node_shm_release(&f);
    assert_int_equal(create(64, &f), 0);
    assert_true(f.continued);
    assert_int_equal(node_shm_shard(f.shm, 0)->next_seq, 2000);
    for (unsigned i = 1; i < 64; i++)
        assert_int_equal(node_shm_shard(f.shm, i)->next_seq, 1000 + i);
    node_shm_release(&f);
}

static void a_shard_that_is_new_starts_from_the_clock(void **state)
{
    struct node_shm_file f;
    assert_int_equal(create(1, &f), 0);
    node_shm_shard(f.shm, 0)->next_seq = 7;
    node_shm_release(&f);
    assert_int_equal(create(2, &f), 0);
    assert_false(f.continued);
    assert_int_equal(node_shm_shard(f.shm, 0)->next_seq, 7);
    assert_int_equal(node_shm_shard(f.shm, 1)->shard, 1);
    assert_in_range(node_shm_shard(f.shm, 1)->next_seq, 1, CONNECTION_SEQ_MASK);
    node_shm_release(&f);
}

/* As after kill -9: nobody released anything. */
static void ids_survive_the_death_of_their_process(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct node_shm_file f;
        if (create(3, &f) < 0)
            _exit(1);
        node_shm_shard(f.shm, 2)->next_seq = 100;
        kill(getpid(), SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    struct node_shm_file f;
    assert_int_equal(create(3, &f), 0);
    assert_true(f.continued);
    assert_int_equal(node_shm_shard(f.shm, 2)->next_seq, 100);
    node_shm_release(&f);
}

static void a_second_one_is_busy_until_the_last_holder_is_gone(void **state)
{
    struct node_shm_file f, g;
    int gate[2];
    assert_int_equal(pipe(gate), 0);
    assert_int_equal(create(1, &f), 0);
    assert_int_equal(create(1, &g), -EBUSY);
    pid_t child = fork(); /* the shard inherits the lock */
    if (child == 0) {
        char c;
        close(gate[1]);
        _exit(read(gate[0], &c, 1) == 0 ? 0 : 1);
    }
    node_shm_release(&f);
    assert_int_equal(create(1, &g), -EBUSY);
    close(gate[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(gate[0]);
    assert_int_equal(create(1, &g), 0);
    node_shm_release(&g);
}

static void write_file(const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static void assert_starts_from_the_clock(void)
{
    struct node_shm_file f;
    assert_int_equal(create(2, &f), 0);
    assert_false(f.continued);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(node_shm_shard(f.shm, i)->shard, i);
        assert_in_range(node_shm_shard(f.shm, i)->next_seq, 1, CONNECTION_SEQ_MASK);
    }
    for (unsigned i = 2; i < NODE_SHARDS_MAX; i++)
        assert_int_equal(node_shm_shard(f.shm, i)->next_seq, 0);
    node_shm_release(&f);
}

static void a_file_that_makes_no_sense_starts_from_the_clock(void **state)
{
    struct node_shm *bad = malloc(sizeof *bad);
    assert_non_null(bad);
    memset(bad, 0x11, sizeof *bad);
    write_file(bad, sizeof *bad);
    assert_starts_from_the_clock();
    write_file(bad, 300);
    assert_starts_from_the_clock();
    write_file("", 0);
    assert_starts_from_the_clock();
    bad->magic = NODE_SHM_MAGIC;
    bad->version = NODE_SHM_VERSION + 1;
    bad->block_bytes = NODE_SHM_BLOCK;
    write_file(bad, sizeof *bad);
    assert_starts_from_the_clock();
    free(bad);
}

static void a_sequence_out_of_range_starts_from_the_clock(void **state)
{
    struct node_shm_file f;
    assert_int_equal(create(2, &f), 0);
    node_shm_shard(f.shm, 0)->next_seq = CONNECTION_SEQ_MASK + 1;
    node_shm_shard(f.shm, 1)->shard = 7;
    node_shm_release(&f);
    assert_starts_from_the_clock();
}

/* Cut off by somebody within the table: what is there counts, the rest is new. */
static void a_file_that_was_cut_off_is_made_whole(void **state)
{
    struct node_shm_file f;
    assert_int_equal(create(2, &f), 0);
    node_shm_shard(f.shm, 0)->next_seq = 77;
    node_shm_release(&f);
    assert_int_equal(truncate(path, 3 * NODE_SHM_BLOCK), 0);
    const struct node_shm *view;
    bool running;
    assert_int_equal(node_shm_map(dir, &view, &running), -EPROTO);
    assert_int_equal(create(2, &f), 0);
    assert_int_equal(node_shm_shard(f.shm, 0)->next_seq, 77);
    assert_in_range(node_shm_shard(f.shm, 1)->next_seq, 1, CONNECTION_SEQ_MASK);
    node_shm_release(&f);
}

/* Counters come and go between versions; ids stay where they are. */
static void the_ids_of_a_build_with_other_counters_are_taken(void **state)
{
    struct node_shm_file f;
    const struct node_shm *view;
    bool running;
    assert_int_equal(create(1, &f), 0);
    node_shm_shard(f.shm, 0)->next_seq = 1234;
    f.shm->counters_layout ^= 1;
    node_shm_release(&f);
    assert_int_equal(node_shm_map(dir, &view, &running), -EPROTO);
    assert_int_equal(create(1, &f), 0);
    assert_true(f.continued);
    assert_int_equal(node_shm_shard(f.shm, 0)->next_seq, 1234);
    node_shm_release(&f);
}

/* As a gateway of version 2 left it: the same up to the names of the counters, and no crashes behind them. */
static void the_ids_of_a_file_of_version_2_are_taken_and_nothing_else(void **state)
{
    struct node_shm_file f;
    const struct node_shm *view;
    bool running;
    struct stat st;
    assert_int_equal(create(2, &f), 0);
    node_shm_shard(f.shm, 0)->next_seq = 4321;
    node_shm_shard(f.shm, 1)->next_seq = 8765;
    node_shm_shard(f.shm, 1)->id_block_left_unix_s[5] = 55;
    counter_add(&node_shm_shard(f.shm, 1)->counters, COUNTER_client_accepted, 5);
    f.shm->announcer.registers[0].connected = 1;
    f.shm->version = 2;
    node_shm_release(&f);
    assert_int_equal(truncate(path, offsetof(struct node_shm, crashes)), 0);
    assert_int_equal(node_shm_map(dir, &view, &running), -EPROTO);
    assert_int_equal(create(2, &f), 0);
    assert_true(f.continued);
    assert_int_equal(f.shm->version, NODE_SHM_VERSION);
    assert_int_equal(node_shm_shard(f.shm, 0)->next_seq, 4321);
    assert_int_equal(node_shm_shard(f.shm, 1)->next_seq, 8765);
    assert_int_equal(node_shm_shard(f.shm, 1)->id_block_left_unix_s[5], 55);
    assert_int_equal(counter_get(&node_shm_shard(f.shm, 1)->counters, COUNTER_client_accepted), 0);
    assert_int_equal(f.shm->announcer.registers[0].connected, 0);
    assert_int_equal(fstat(f.fd, &st), 0);
    assert_int_equal(st.st_size, sizeof(struct node_shm));
    node_shm_release(&f);
    assert_int_equal(node_shm_map(dir, &view, &running), 0);
    node_shm_unmap(view);
}

static void crashes_of_an_earlier_run_are_gone(void **state)
{
    struct node_shm_file f;
    assert_int_equal(create(2, &f), 0);
    f.shm->crashes[1].crash.signal = SIGSEGV;
    f.shm->crashes[1].crash.n_commands = 7;
    node_shm_release(&f);
    assert_int_equal(create(2, &f), 0);
    assert_int_equal(f.shm->crashes[1].crash.signal, 0);
    assert_int_equal(f.shm->crashes[1].crash.n_commands, 0);
    node_shm_release(&f);
}

static void the_log_level_is_that_of_the_file(void **state)
{
    struct node_shm_file f;
    enum log_level before = log_level_now;
    assert_int_equal(create(1, &f), 0);
    node_shm_take_log_level(f.shm); /* 0: nobody has said anything */
    assert_int_equal(log_level_now, before);
    node_shm_set_log_level(f.shm, LOG_DEBUG);
    assert_int_equal(log_level_now, LOG_DEBUG);
    f.shm->log_level = LOG_ERROR + 1;
    node_shm_take_log_level(f.shm);
    assert_int_equal(log_level_now, LOG_ERROR);
    f.shm->log_level = 99;
    node_shm_take_log_level(f.shm);
    assert_int_equal(log_level_now, LOG_ERROR);
    log_level_now = before;
    node_shm_release(&f);
}

static void a_reader_sees_everything_and_whether_it_runs(void **state)
{
    struct node_shm_file f;
    const struct node_shm *view;
    bool running;

    assert_int_equal(node_shm_map(dir, &view, &running), -ENOENT);
    assert_int_equal(create(3, &f), 0);
    shard_shm_set_state(node_shm_shard(f.shm, 2), SHARD_STATE_RUNNING);
    assert_int_equal(node_shm_map(dir, &view, &running), 0);
    assert_true(running);
    assert_int_equal(view->n_shards, 3);
    assert_int_equal(view->shards[2].cpu, 4);
    assert_int_equal(view->shards[0].roles, NODE_ROLE_EDGE | NODE_ROLE_LINK);
    assert_int_equal(view->shards[1].roles, NODE_ROLE_LINK);
    assert_int_equal(view->processes[NODE_PROCESS_SHARDS + 2].kind, PROCESS_SHARD);
    assert_int_equal(view->processes[NODE_PROCESS_SHARDS + 2].number, 2);
    assert_int_equal(view->processes[NODE_PROCESS_ADMIN].kind, PROCESS_ADMIN);
    assert_string_equal(process_kind_name(PROCESS_ADMIN), "admin");
    assert_string_equal(shard_state_name(shard_shm_state(&view->blocks[2].shm)), "running");
    const char *name = view->counter_names;
    for (unsigned id = 0; id < COUNTER_N; id++, name += strlen(name) + 1)
        assert_string_equal(name, counter_infos[id].name);
    assert_string_equal(name, "");
    node_shm_unmap(view);
    node_shm_release(&f);
    assert_int_equal(node_shm_map(dir, &view, &running), 0);
    assert_false(running);
    node_shm_unmap(view);
}

static void the_sum_is_that_of_all_processes(void **state)
{
    struct node_shm_file f;
    struct counters sum;
    assert_int_equal(create(3, &f), 0);
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) /* those above 2 are not of this run */
        counter_add(&node_shm_shard(f.shm, i)->counters, COUNTER_client_accepted, 10 + i);
    counter_add(&f.shm->announcer.counters, COUNTER_register_lost, 9);
    node_shm_sum(f.shm, &sum);
    assert_int_equal(counter_get(&sum, COUNTER_client_accepted), 10 + 11 + 12);
    assert_int_equal(counter_get(&sum, COUNTER_register_lost), 9);
    node_shm_release(&f);
}

static void blocks_that_are_not_used_take_no_room(void **state)
{
    struct node_shm_file f;
    struct stat st;
    assert_int_equal(create(1, &f), 0);
    assert_int_equal(fstat(f.fd, &st), 0);
    assert_int_equal(st.st_size, sizeof(struct node_shm));
    assert_true(st.st_blocks * 512 <= 5 * NODE_SHM_BLOCK + NODE_SHM_NAMES);
    node_shm_release(&f);
}

static void folders_are_made_and_a_file_in_the_way_is_an_error(void **state)
{
    struct node_shm_file f;
    struct shard_plan plan = plan_of(1);
    char deep[128];
    write_file("x", 1);
    snprintf(deep, sizeof deep, "%s/below", path);
    assert_int_equal(node_shm_create(deep, &plan, &f), -ENOTDIR);
    unlink(path);
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    assert_int_equal(node_shm_create(deep, &plan, &f), 0);
    node_shm_release(&f);
    snprintf(deep, sizeof deep, "%s/a/b/node.shm", dir);
    assert_int_equal(unlink(deep), 0);
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    rmdir(deep);
    snprintf(deep, sizeof deep, "%s/a", dir);
    rmdir(deep);
}

/* As an upgrade does it: from two shards to one and back, while the old ones go on. */
static void one_beside_it_takes_its_place_with_all_ids(void **state)
{
    struct node_shm_file was, now;
    struct node_shm_ids ids;
    struct shard_plan two = plan_of(2), one = plan_of(1);
    const struct node_shm *seen;
    bool running;

    assert_int_equal(node_shm_create(dir, &two, &was), 0);
    node_shm_shard(was.shm, 1)->next_seq = 4711;
    node_shm_shard(was.shm, 1)->id_block_left_unix_s[7] = 77;
    assert_int_equal(node_shm_create_next(dir, &one, &now), 0);
    assert_int_equal(node_shm_create_next(dir, &one, &now), -EBUSY);
    assert_false(node_shm_get_ids(&was, 2, &ids));
    assert_false(node_shm_get_ids(&now, 1, &ids));
    assert_true(node_shm_get_ids(&was, 1, &ids));
    assert_int_equal(node_shm_set_ids(&now, 1, &ids), 0);
    ids.next_seq = 0;
    assert_int_equal(node_shm_set_ids(&now, 0, &ids), -EINVAL);
    assert_int_equal(node_shm_map(dir, &seen, &running), 0);
    assert_int_equal(seen->n_shards, 2);
    node_shm_unmap(seen);
    assert_int_equal(node_shm_commit_next(dir), 0);
    assert_int_equal(node_shm_map(dir, &seen, &running), 0);
    assert_true(running);
    assert_int_equal(seen->n_shards, 1);
    node_shm_unmap(seen);
    node_shm_release(&was);
    assert_int_equal(node_shm_create(dir, &two, &was), -EBUSY);
    node_shm_release(&now);
    assert_int_equal(node_shm_create(dir, &two, &was), 0);
    assert_int_equal(node_shm_shard(was.shm, 1)->next_seq, 4711);
    assert_int_equal(node_shm_shard(was.shm, 1)->id_block_left_unix_s[7], 77);
    node_shm_release(&was);
}

static void one_beside_it_can_be_given_up(void **state)
{
    struct node_shm_file was, now;
    struct shard_plan plan = plan_of(1);
    const struct node_shm *seen;
    bool running;

    assert_int_equal(node_shm_create(dir, &plan, &was), 0);
    was.shm->max_clients = 5;
    assert_int_equal(node_shm_create_next(dir, &plan, &now), 0);
    node_shm_release(&now);
    node_shm_remove_next(dir);
    node_shm_remove_next(dir);
    assert_int_equal(node_shm_commit_next(dir), -ENOENT);
    assert_int_equal(node_shm_map(dir, &seen, &running), 0);
    assert_int_equal(seen->max_clients, 5);
    node_shm_unmap(seen);
    node_shm_release(&was);
}

static void without_a_file_it_works_alike(void **state)
{
    struct node_shm_file f;
    struct shard_plan plan = plan_of(3);
    assert_int_equal(node_shm_anonymous(&plan, &f), 0);
    assert_int_equal(f.fd, -1);
    assert_int_equal(f.shm->n_shards, 3);
    assert_int_equal(node_shm_shard(f.shm, 2)->shard, 2);
    assert_in_range(node_shm_shard(f.shm, 2)->next_seq, 1, CONNECTION_SEQ_MASK);
    node_shm_release(&f);
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clock_gives_a_sequence_in_range),
        WITH_DIR(ids_go_on_and_counters_do_not),
        WITH_DIR(ids_of_every_shard_outlive_other_numbers_of_shards),
        WITH_DIR(a_shard_that_is_new_starts_from_the_clock),
        WITH_DIR(ids_survive_the_death_of_their_process),
        WITH_DIR(a_second_one_is_busy_until_the_last_holder_is_gone),
        WITH_DIR(a_file_that_makes_no_sense_starts_from_the_clock),
        WITH_DIR(a_sequence_out_of_range_starts_from_the_clock),
        WITH_DIR(a_file_that_was_cut_off_is_made_whole),
        WITH_DIR(the_ids_of_a_build_with_other_counters_are_taken),
        WITH_DIR(the_ids_of_a_file_of_version_2_are_taken_and_nothing_else),
        WITH_DIR(crashes_of_an_earlier_run_are_gone),
        WITH_DIR(the_log_level_is_that_of_the_file),
        WITH_DIR(a_reader_sees_everything_and_whether_it_runs),
        WITH_DIR(the_sum_is_that_of_all_processes),
        WITH_DIR(blocks_that_are_not_used_take_no_room),
        WITH_DIR(folders_are_made_and_a_file_in_the_way_is_an_error),
        WITH_DIR(one_beside_it_takes_its_place_with_all_ids),
        WITH_DIR(one_beside_it_can_be_given_up),
        cmocka_unit_test(without_a_file_it_works_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
