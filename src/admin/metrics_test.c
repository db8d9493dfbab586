// SPDX-License-Identifier: MIT
#include "admin/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "admin/metrics_priv.h"

#define N_SHARDS 3

/* A worker's row; key, clients, health, then queue_time's first buckets. */
#define ROW(key, clients, health)                                                                            \
    "{\"key\":\"" key                                                                                        \
    "\",\"number\":0,\"shard\":0,\"address\":\"127.0.0.1:5000\",\"connected_s\":9,\"clients\":" clients      \
    ",\"clients_of\":[1,0,0],\"paused_clients\":2,\"draining\":true,\"health\":\"" health                    \
    "\",\"queue_bytes\":4096,\"queue_age_ms\":12345,\"messages_in\":11,\"bytes_in\":110,\"messages_out\":"   \
    "22,"                                                                                                    \
    "\"bytes_out\":220,\"idle_s\":7,\"queue_time\":{\"count\":6,\"p50_ns\":0,\"p99_ns\":0,\"sum_ns\":"       \
    "1500000000,"                                                                                            \
    "\"buckets\":[1,2,0,3,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}"

struct fixture {
    struct shard_plan plan;
    struct node_shm_file file;
    struct node node;
    struct config cfg;
    struct metrics_input in;
    struct bytes out;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->plan.n = N_SHARDS;
    assert_int_equal(node_shm_anonymous(&f->plan, &f->file), 0);
    f->file.shm->max_clients = 1000;
    f->node.n_shards = N_SHARDS;
    f->node.shared = node_shared_new();
    assert_non_null(f->node.shared);
    config_defaults(&f->cfg);
    f->in = (struct metrics_input){.shm = f->file.shm, .node = &f->node, .cfg = &f->cfg, .ready = true};
    for (unsigned i = 0; i < N_SHARDS; i++)
        f->in.worker_rows[i] = (struct slice){(const uint8_t *)"", 0};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bytes_fini(&f->out);
    config_fini(&f->cfg);
    node_shared_free(f->node.shared);
    node_shm_release(&f->file);
    free(f);
    return 0;
}

static const char *text_of(struct fixture *f)
{
    bytes_clear(&f->out);
    assert_true(metrics_write(&f->in, &f->out));
    bytes_append_byte(&f->out, '\0');
    return (const char *)f->out.data;
}

static bool has_line(const char *text, const char *line)
{
    size_t len = strlen(line);
    for (const char *at = strstr(text, line); at != NULL; at = strstr(at + 1, line)) {
        if ((at == text || at[-1] == '\n') && at[len] == '\n')
            return true;
    }
    return false;
}

#define assert_line(text, line)                                                                              \
    do {                                                                                                     \
        if (!has_line(text, line))                                                                           \
            fail_msg("no line %s", line);                                                                    \
    } while (0)

static void counters_and_gauges_have_a_sample_for_each_shard(void **state)
{
    struct fixture *f = *state;
    counter_add(&f->file.shm->blocks[1].shm.counters, COUNTER_client_accepted, 5);
    counter_set(&f->file.shm->blocks[2].shm.counters, COUNTER_clients, UINT64_MAX);
    const char *text = text_of(f);
    assert_line(text, "# TYPE tgg_client_accepted_total counter");
    assert_line(text, "tgg_client_accepted_total{shard=\"0\"} 0");
    assert_line(text, "tgg_client_accepted_total{shard=\"1\"} 5");
    assert_line(text, "# TYPE tgg_clients gauge");
    assert_line(text, "tgg_clients{shard=\"2\"} 18446744073709551615");
    assert_null(strstr(text, "shard=\"3\""));
}

static void reasons_and_checks_are_labels_of_one_family(void **state)
{
    struct fixture *f = *state;
    struct counters *c = &f->file.shm->blocks[0].shm.counters;
    counter_close(c, CLOSE_peer_close_frame);
    counter_drop(c, DROP_client_gone);
    counter_add(c, COUNTER_refused_total, 3);
    counter_add(c, COUNTER_dry_run_message_rate, 4);
    counter_add(c, COUNTER_client_refused, 6);
    const char *text = text_of(f);
    assert_line(text, "tgg_client_closed_total{shard=\"0\",reason=\"peer_close_frame\"} 1");
    assert_line(text, "tgg_dropped_total{shard=\"0\",reason=\"client_gone\"} 1");
    assert_line(text, "tgg_refused_total{shard=\"0\",check=\"total\"} 3");
    assert_line(text, "tgg_dry_run_refused_total{shard=\"0\",check=\"message_rate\"} 4");
    assert_line(text, "tgg_client_refused_total{shard=\"0\"} 6");
    assert_null(strstr(text, "tgg_client_closed_peer"));
    assert_null(strstr(text, "_total_total"));
}

static void what_the_announcer_counts_has_no_shard(void **state)
{
    struct fixture *f = *state;
    counter_add(&f->file.shm->announcer.counters, COUNTER_register_lost, 2);
    assert_line(text_of(f), "tgg_register_lost_total 2");
}

static void histograms_are_cumulative_in_base_units(void **state)
{
    struct fixture *f = *state;
    struct histograms *hs = &f->file.shm->blocks[0].shm.histograms;
    histogram_observe(hs, turn, 1);
    histogram_observe(hs, turn, 10000);
    histogram_observe(hs, turn, UINT64_C(1000000000000));
    histogram_observe(hs, message_in, 1023);
    histogram_observe(hs, message_in, 1024);
    const char *text = text_of(f);
    assert_line(text, "# TYPE tgg_turn_seconds histogram");
    assert_line(text, "tgg_turn_seconds_bucket{shard=\"0\",le=\"8.192e-06\"} 1");
    assert_line(text, "tgg_turn_seconds_bucket{shard=\"0\",le=\"1.6384e-05\"} 2");
    assert_line(text, "tgg_turn_seconds_bucket{shard=\"0\",le=\"34.3597384\"} 2");
    assert_line(text, "tgg_turn_seconds_bucket{shard=\"0\",le=\"+Inf\"} 3");
    assert_line(text, "tgg_turn_seconds_sum{shard=\"0\"} 1000.000010001");
    assert_line(text, "tgg_turn_seconds_count{shard=\"0\"} 3");
    assert_line(text, "tgg_message_in_bytes_bucket{shard=\"0\",le=\"1023\"} 1");
    assert_line(text, "tgg_message_in_bytes_bucket{shard=\"0\",le=\"2047\"} 2");
    assert_line(text, "tgg_message_in_bytes_sum{shard=\"0\"} 2047");
}

static void a_row_of_a_worker_becomes_its_samples(void **state)
{
    struct fixture *f = *state;
    f->in.worker_rows[0] = SLICE_STR(ROW("127.0.0.1:a", "5", "ok") "," ROW("127.0.0.1:b", "6", "stuck"));
    f->in.worker_rows[2] = SLICE_STR(ROW("127.0.0.1:a", "7", "slow"));
    const char *text = text_of(f);
    assert_line(text, "tgg_worker_clients{worker=\"127.0.0.1:a\",shard=\"0\"} 5");
    assert_line(text, "tgg_worker_clients{worker=\"127.0.0.1:b\",shard=\"0\"} 6");
    assert_line(text, "tgg_worker_clients{worker=\"127.0.0.1:a\",shard=\"2\"} 7");
    assert_line(text, "tgg_worker_paused_clients{worker=\"127.0.0.1:a\",shard=\"0\"} 2");
    assert_line(text, "tgg_worker_queue_bytes{worker=\"127.0.0.1:a\",shard=\"0\"} 4096");
    assert_line(text, "tgg_worker_queue_age_seconds{worker=\"127.0.0.1:a\",shard=\"0\"} 12.345");
    assert_line(text, "tgg_worker_messages_total{worker=\"127.0.0.1:a\",shard=\"0\",direction=\"in\"} 11");
    assert_line(text, "tgg_worker_bytes_total{worker=\"127.0.0.1:a\",shard=\"0\",direction=\"out\"} 220");
    assert_line(text, "tgg_worker_idle_seconds{worker=\"127.0.0.1:a\",shard=\"0\"} 7");
    assert_line(text, "tgg_worker_connected_seconds{worker=\"127.0.0.1:a\",shard=\"0\"} 9");
    assert_line(text, "tgg_worker_draining{worker=\"127.0.0.1:a\",shard=\"0\"} 1");
    assert_line(text, "tgg_worker_health{worker=\"127.0.0.1:b\",shard=\"0\",state=\"stuck\"} 1");
    assert_line(text, "tgg_worker_health{worker=\"127.0.0.1:b\",shard=\"0\",state=\"ok\"} 0");
    assert_line(
        text, "tgg_worker_queue_time_seconds_bucket{worker=\"127.0.0.1:b\",shard=\"0\",le=\"8.192e-06\"} 1");
    assert_line(
        text, "tgg_worker_queue_time_seconds_bucket{worker=\"127.0.0.1:b\",shard=\"0\",le=\"3.2768e-05\"} 3");
    assert_line(text,
                "tgg_worker_queue_time_seconds_bucket{worker=\"127.0.0.1:b\",shard=\"0\",le=\"+Inf\"} 6");
    assert_line(text, "tgg_worker_queue_time_seconds_sum{worker=\"127.0.0.1:b\",shard=\"0\"} 1.500000000");
    assert_line(text, "tgg_worker_queue_time_seconds_count{worker=\"127.0.0.1:b\",shard=\"0\"} 6");
}

static void a_shard_that_does_not_answer_is_told_from_one_without_workers(void **state)
{
    struct fixture *f = *state;
    f->in.worker_rows[1] = (struct slice){NULL, 0};
    f->in.worker_rows[2] = SLICE_STR("{\"key\":");
    const char *text = text_of(f);
    assert_line(text, "tgg_shard_answered{shard=\"0\"} 1");
    assert_line(text, "tgg_shard_answered{shard=\"1\"} 0");
    assert_line(text, "tgg_shard_answered{shard=\"2\"} 0");
}

static void rows_without_members_do_no_harm(void **state)
{
    struct fixture *f = *state;
    f->in.worker_rows[0] =
        SLICE_STR("{},7,{\"key\":null,\"clients\":-4,\"queue_time\":{\"buckets\":[-1,\"x\"]}}");
    assert_line(text_of(f), "tgg_worker_clients{worker=\"\",shard=\"0\"} 0");
}

static void keys_are_escaped(void **state)
{
    struct fixture *f = *state;
    f->in.worker_rows[0] = SLICE_STR(ROW("a\\\\b\\\"c\\nd\\u0000e\\u00e9", "5", "ok"));
    assert_line(text_of(f), "tgg_worker_clients{worker=\"a\\\\b\\\"c\\nd\xef\xbf\xbd"
                            "e\xc3\xa9\",shard=\"0\"} 5");
}

static void a_label_is_cut_at_the_end_of_a_character_and_made_utf_8(void **state)
{
    char buf[8];
    assert_string_equal(metrics__label(buf, sizeof buf, "abcdef\xc3\xa9", 8), "abcdef");
    assert_string_equal(metrics__label(buf, sizeof buf, "abcdefgh", 8), "abcdefg");
    assert_string_equal(metrics__label(buf, sizeof buf, "abcdef\"", 7), "abcdef");
    assert_string_equal(metrics__label(buf, sizeof buf, "a\xff\x80", 3), "a\xef\xbf\xbd\xef\xbf\xbd");
    assert_string_equal(metrics__label(buf, sizeof buf, "", 0), "");
}

static void a_key_of_the_longest_kind_fits(void **state)
{
    struct fixture *f = *state;
    char row[4096], key[2 * 256 + 1];
    for (unsigned i = 0; i < 256; i++)
        memcpy(key + (size_t)2 * i, "\\\"", 3);
    int len = snprintf(row, sizeof row, "{\"key\":\"%s\",\"clients\":3}", key);
    f->in.worker_rows[0] = (struct slice){(const uint8_t *)row, (size_t)len};
    char line[1024];
    snprintf(line, sizeof line, "tgg_worker_clients{worker=\"%s\",shard=\"0\"} 3", key);
    assert_line(text_of(f), line);
}

static void processes_with_what_proc_says(void **state)
{
    struct fixture *f = *state;
    struct node_process *p = f->file.shm->processes;
    p[NODE_PROCESS_SUPERVISOR].pid = getpid();
    p[NODE_PROCESS_SUPERVISOR].state = PROCESS_ALIVE;
    p[NODE_PROCESS_SUPERVISOR].start_unix_ms = 1700000000123;
    p[NODE_PROCESS_SHARDS + 1].pid = 0;
    p[NODE_PROCESS_SHARDS + 1].state = PROCESS_DEAD;
    p[NODE_PROCESS_SHARDS + 1].restarts = 3;
    p[NODE_PROCESS_SHARDS + 1].deaths_young = 2;
    p[NODE_PROCESS_SHARDS + 2].pid = getpid();
    p[NODE_PROCESS_SHARDS + 2].state = PROCESS_STUCK;
    f->file.shm->blocks[2].shm.cpu_ns = 1234567890123;
    const char *text = text_of(f);
    assert_line(text, "tgg_process_up{process=\"supervisor\"} 1");
    assert_line(text, "tgg_process_start_time_seconds{process=\"supervisor\"} 1700000000.123");
    assert_line(text, "tgg_process_up{process=\"shard\",shard=\"2\"} 0");
    assert_line(text, "tgg_process_state{process=\"shard\",shard=\"2\",state=\"stuck\"} 1");
    assert_line(text, "tgg_process_restarts_total{process=\"shard\",shard=\"1\"} 3");
    assert_line(text, "tgg_process_deaths_young{process=\"shard\",shard=\"1\"} 2");
    assert_line(text, "tgg_process_cpu_seconds_total{process=\"shard\",shard=\"2\"} 1234.567890123");
    assert_non_null(strstr(text, "tgg_process_cpu_seconds_total{process=\"supervisor\"} 0."));
    assert_non_null(strstr(text, "tgg_process_resident_memory_bytes{process=\"supervisor\"} "));
    assert_null(strstr(text, "tgg_process_resident_memory_bytes{process=\"supervisor\"} 0\n"));
    assert_null(strstr(text, "tgg_process_resident_memory_bytes{process=\"shard\",shard=\"1\"}"));
}

static void shards_are_up_when_they_turn_and_take_connections(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < N_SHARDS; i++) {
        f->file.shm->processes[NODE_PROCESS_SHARDS + i].state = i == 1 ? PROCESS_STUCK : PROCESS_ALIVE;
        f->node.shared->shards[i].phase = i == 2 ? NODE_LEAVES : NODE_UP;
    }
    f->node.shared->shards[2].drained = 1;
    const char *text = text_of(f);
    assert_line(text, "tgg_shard_up{shard=\"0\"} 1");
    assert_line(text, "tgg_shard_up{shard=\"1\"} 0");
    assert_line(text, "tgg_shard_up{shard=\"2\"} 0");
    assert_line(text, "tgg_shard_phase{shard=\"2\",phase=\"leaves\"} 1");
    assert_line(text, "tgg_shard_phase{shard=\"2\",phase=\"up\"} 0");
    assert_line(text, "tgg_shard_drained{shard=\"2\"} 1");
    assert_line(text, "tgg_clients_max{shard=\"2\"} 1000");
}

static void registers_and_the_node(void **state)
{
    struct fixture *f = *state;
    struct node_register *r = f->file.shm->announcer.registers;
    snprintf(r[0].address, sizeof r[0].address, "127.0.0.1:1236");
    r[0].connected = 1;
    r[0].since_unix_ms = 1700000000000;
    memset(r[1].address, 0xff, sizeof r[1].address); /* no end, and no UTF-8 */
    f->in.ready = false;
    f->in.scrapes = 3;
    f->node.shared->draining = 1;
    const char *text = text_of(f);
    assert_line(text, "tgg_register_up{register=\"127.0.0.1:1236\"} 1");
    assert_line(text, "tgg_register_change_time_seconds{register=\"127.0.0.1:1236\"} 1700000000.000");
    assert_line(text, "tgg_ready 0");
    assert_line(text, "tgg_draining 1");
    assert_line(text, "tgg_admin_scrapes_total 3");
    assert_line(text, "tgg_build_info{version=\"" TGG_VERSION "\"} 1");
}

/* Each family once, with its head before its samples, and every line of a known form. */
static void every_family_of_the_tables_is_there_once(void **state)
{
    struct fixture *f = *state;
    const char *text = text_of(f);
    char line[1024];
    for (unsigned i = 0; i < METRIC_N; i++) {
        snprintf(line, sizeof line, "# TYPE %.95s %s", metric_families[i].name,
                 metric_type_name(metric_families[i].type));
        assert_line(text, line);
    }
    for (const char *at = strstr(text, "# TYPE "); at != NULL; at = strstr(at + 1, "# TYPE ")) {
        size_t len = strcspn(at + 7, " ") + 7;
        for (const char *other = strstr(at + 1, "# TYPE "); other != NULL;
             other = strstr(other + 1, "# TYPE "))
            assert_false(strncmp(at, other, len + 1) == 0);
    }
}

/* promtool says what is wrong with names, units and help; it is there on machines that build (tools/deps). */
static void promtool_has_nothing_to_say(void **state)
{
    struct fixture *f = *state;
    f->in.worker_rows[0] = SLICE_STR(ROW("127.0.0.1:a", "5", "ok"));
    f->file.shm->processes[NODE_PROCESS_SUPERVISOR].pid = getpid();
    text_of(f);
    FILE *answer = tmpfile();
    assert_non_null(answer);
    assert_int_equal(fwrite(f->out.data, 1, f->out.len - 1, answer), f->out.len - 1);
    rewind(answer);
    char program[] = "promtool", check[] = "check",
         metrics[] = "metrics", *const argv[] = {program, check, metrics, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fileno(answer), STDIN_FILENO);
    pid_t pid;
    int status;
    assert_int_equal(posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    posix_spawn_file_actions_destroy(&actions);
    fclose(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counters_and_gauges_have_a_sample_for_each_shard, setup, teardown),
        cmocka_unit_test_setup_teardown(reasons_and_checks_are_labels_of_one_family, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_announcer_counts_has_no_shard, setup, teardown),
        cmocka_unit_test_setup_teardown(histograms_are_cumulative_in_base_units, setup, teardown),
        cmocka_unit_test_setup_teardown(a_row_of_a_worker_becomes_its_samples, setup, teardown),
        cmocka_unit_test_setup_teardown(a_shard_that_does_not_answer_is_told_from_one_without_workers, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(rows_without_members_do_no_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_are_escaped, setup, teardown),
        cmocka_unit_test(a_label_is_cut_at_the_end_of_a_character_and_made_utf_8),
        cmocka_unit_test_setup_teardown(a_key_of_the_longest_kind_fits, setup, teardown),
        cmocka_unit_test_setup_teardown(processes_with_what_proc_says, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_are_up_when_they_turn_and_take_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(registers_and_the_node, setup, teardown),
        cmocka_unit_test_setup_teardown(every_family_of_the_tables_is_there_once, setup, teardown),
        cmocka_unit_test_setup_teardown(promtool_has_nothing_to_say, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
