// SPDX-License-Identifier: MIT
#include "admin/admin.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "admin/admin_util_test.h"
#include "common/files.h"
#include "common/settings.h"

#define OF_SHARD(shard, n) (((uint32_t)(shard) << 26) + (n))

static struct fake_node f;

static int open_node(void **state)
{
    fake_node_open(&f);
    return 0;
}

static int close_node(void **state)
{
    fake_node_close(&f);
    return 0;
}

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static json_t *parse(char *body)
{
    json_error_t err;
    json_t *json = json_loads(body, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &err);
    if (json == NULL)
        fail_msg("no JSON: %s at %d of: %s", err.text, err.position, body);
    free(body);
    return json;
}

/* The answer to a GET that goes well. */
static json_t *get(const char *target)
{
    int status;
    char *body = fake_get(&f, target, &status);
    if (status != 200)
        fail_msg("%s: %d %s", target, status, body);
    return parse(body);
}

static json_t *post(const char *target)
{
    int status;
    char *body = fake_post(&f, target, &status);
    if (status != 200)
        fail_msg("%s: %d %s", target, status, body);
    json_t *json = parse(body);
    assert_true(json_is_true(json_object_get(json, "ok")));
    return json;
}

static json_int_t number(const json_t *json, const char *key)
{
    const json_t *v = json_object_get(json, key);
    if (!json_is_integer(v))
        fail_msg("no number %s", key);
    return json_integer_value(v);
}

static size_t length(const json_t *json, const char *key)
{
    const json_t *v = json_object_get(json, key);
    if (!json_is_array(v))
        fail_msg("no array %s", key);
    return json_array_size(v);
}

/* The request is refused with that status, and a text that has `part` in it. */
static void assert_refused(const char *method, const char *target, int expected, const char *part)
{
    int status;
    char *body = fake_request(&f, false, method, target, "", &status, NULL);
    if (status != expected || strstr(body, "{\"error\":\"") != body || strstr(body, part) == NULL)
        fail_msg("%s %s: %d %s, expected %d ... %s", method, target, status, body, expected, part);
    free(body);
}

static unsigned asked(enum control_op op)
{
    return __atomic_load_n(&f.fakes->asked[op], __ATOMIC_SEQ_CST);
}

static void wait_asked(enum control_op op, unsigned n)
{
    for (unsigned i = 0; asked(op) < n; i++) {
        if (i > 2000)
            fail_msg("operation %d was asked for %u times, expected %u", op, asked(op), n);
        poll(NULL, 0, 1);
    }
}

/* ---- the state */

static void the_state_of_the_node_is_told(void **state)
{
    json_t *json = get("/api/status");
    assert_true(json_is_true(json_object_get(json, "ready")));
    assert_true(json_is_true(json_object_get(json, "running")));
    assert_string_equal(json_string_value(json_object_get(json, "state")), "running");
    assert_int_equal(length(json, "shards"), 3);
    assert_int_equal(length(json, "processes"), 6);
    assert_int_equal(length(json, "not_ready"), 0);
    assert_int_equal(length(json, "missing"), 0);
    assert_int_equal(number(json, "workers_n"), 2);
    json_t *listener = json_array_get(json_object_get(json, "listeners"), 0);
    assert_string_equal(json_string_value(json_object_get(listener, "name")), "one");
    assert_int_equal(number(listener, "clients"), 6);
    assert_int_equal(number(json_object_get(listener, "shards"), "2"), 3);
    json_t *shard = json_array_get(json_object_get(json, "shards"), 1);
    assert_true(number(shard, "rss_bytes") > 0);
    assert_string_equal(json_string_value(json_object_get(shard, "phase")), "up");
    json_decref(json);
}

static void the_state_is_told_though_a_shard_is_stuck(void **state)
{
    f.fakes->mode[1] = FAKE_SILENT;
    f.shm->processes[NODE_PROCESS_SHARDS + 2].state = PROCESS_STUCK;
    uint64_t began_ms = now_ms();
    json_t *json = get("/api/status");
    assert_in_range(now_ms() - began_ms, 150, 390);
    assert_int_equal(length(json, "missing"), 2);
    assert_int_equal(length(json, "shards"), 3);
    assert_false(json_is_true(json_object_get(json, "ready")));
    json_decref(json);
}

static void tables_of_ours_are_told(void **state)
{
    counter_add(&f.shm->blocks[1].shm.counters, COUNTER_client_accepted, 4);
    counter_add(&f.shm->blocks[2].shm.counters, COUNTER_client_accepted, 5);
    counter_close(&f.shm->blocks[2].shm.counters, CLOSE_peer);
    histogram_observe(&f.shm->blocks[0].shm.histograms, turn, 10000);
    histogram_observe(&f.shm->blocks[1].shm.histograms, message_in, 10);
    snprintf(f.shm->announcer.registers[0].address, 100, "127.0.0.1:1236");
    f.shm->announcer.registers[0].connected = 1;

    json_t *json = get("/api/counters");
    assert_int_equal(number(json_object_get(json, "counters"), "client_accepted"), 9);
    assert_int_equal(length(json, "shards"), 3);
    json_decref(json);
    json = get("/api/counters?shard=1");
    assert_int_equal(number(json_object_get(json, "counters"), "client_accepted"), 4);
    assert_int_equal(length(json, "shards"), 1);
    json_decref(json);
    json = get("/api/names");
    assert_int_equal(length(json, "counters"), COUNTER_N);
    assert_int_equal(length(json, "histograms"), HISTOGRAM_N);
    assert_true(length(json, "keys") > 100);
    json_decref(json);
    json = get("/api/histograms");
    json_t *turn = json_object_get(json_object_get(json, "histograms"), "turn");
    assert_int_equal(number(turn, "count"), 1);
    assert_true(json_real_value(json_object_get(turn, "sum")) == 0.00001);
    assert_true(json_real_value(json_object_get(turn, "p50")) == 16384e-9);
    assert_int_equal(length(turn, "buckets"), HISTOGRAM_BUCKETS);
    json_t *in = json_object_get(json_object_get(json, "histograms"), "message_in");
    assert_int_equal(number(in, "max_bound"), 16);
    json_decref(json);
    json = get("/api/closes");
    assert_int_equal(length(json, "closes"), CLOSE_REASON_N);
    assert_int_equal(length(json, "drops"), DROP_REASON_N);
    json_decref(json);
    json = get("/api/registers");
    json_t *reg = json_array_get(json_object_get(json, "registers"), 0);
    assert_true(json_is_true(json_object_get(reg, "connected")));
    assert_true(json_is_null(json_object_get(reg, "since_s")));
    json_decref(json);
}

static void bans_are_read_from_their_file(void **state)
{
    char path[128];
    json_t *json = get("/api/bans");
    assert_int_equal(length(json, "bans"), 0);
    json_decref(json);
    snprintf(path, sizeof path, "%s/bans", f.dir);
    FILE *out = fopen(path, "w");
    fprintf(out, "10.0.0.0/8 4000000000 # why\n10.1.1.1 5\n");
    fclose(out);
    json = get("/api/bans");
    assert_int_equal(length(json, "bans"), 1);
    json_t *ban = json_array_get(json_object_get(json, "bans"), 0);
    assert_string_equal(json_string_value(json_object_get(ban, "address")), "10.0.0.0/8");
    assert_int_equal(number(ban, "until_unix_s"), 4000000000);
    json_decref(json);
    out = fopen(path, "w");
    fprintf(out, "nonsense\n");
    fclose(out);
    assert_refused("GET", "/api/bans", 409, "bans:1: ");
}

/* ---- ready */

static void assert_ready(int expected, const char *part)
{
    int status;
    char *body = fake_get(&f, "/readyz", &status);
    if (status != expected || strstr(body, part) == NULL)
        fail_msg("%d %s", status, body);
    free(body);
}

static void whether_it_is_ready_is_told_with_why(void **state)
{
    int status;
    char *body = fake_get(&f, "/livez?from=somebody", &status);
    assert_int_equal(status, 200);
    assert_string_equal(body, "ok\n");
    free(body);
    assert_ready(200, "ok\n");
    counter_set(&f.shm->blocks[0].shm.counters, COUNTER_workers, 0);
    assert_ready(503, "no worker is connected");
    counter_set(&f.shm->blocks[2].shm.counters, COUNTER_workers, 1);
    assert_ready(200, "ok");
    f.fakes->listener_closed = true;
    assert_ready(503, "listener two is not open");
    f.fakes->listener_closed = false;
    assert_ready(200, "ok");
    f.shm->processes[NODE_PROCESS_SHARDS + 1].state = PROCESS_DEAD;
    assert_ready(503, "shard 1 does not run");
    f.shm->processes[NODE_PROCESS_SHARDS + 1].state = PROCESS_ALIVE;
    f.node.shared->shards[0].phase = NODE_LEAVES;
    assert_ready(503, "shard 0 ends");
    f.node.shared->shards[0].phase = NODE_UP;
    f.node.shared->shards[0].drained = f.node.shared->shards[1].drained = 1;
    assert_ready(200, "ok");
    f.node.shared->shards[2].drained = 1;
    assert_ready(503, "told to drain");
    f.node.shared->draining = 1;
    assert_ready(503, "the gateway ends");
}

/* ---- lists */

static void clients_come_in_pages_through_all_shards(void **state)
{
    char target[128] = "/api/clients?limit=4";
    bool seen[FAKE_SHARDS][FAKE_CLIENTS] = {{false}};
    unsigned pages = 0, n = 0;
    for (const char *cursor = ""; cursor != NULL; pages++) {
        json_t *json = get(target), *row;
        size_t i;
        assert_true(length(json, "clients") <= 4);
        json_array_foreach(json_object_get(json, "clients"), i, row)
        {
            uint32_t id = (uint32_t)number(row, "connection_id");
            bool *is = &seen[id >> 26][(id & 0xff) - 1];
            assert_false(*is);
            *is = true;
            n++;
        }
        cursor = json_string_value(json_object_get(json, "cursor"));
        snprintf(target, sizeof target, "/api/clients?limit=4&cursor=%s", cursor != NULL ? cursor : "");
        json_decref(json);
    }
    assert_int_equal(n, FAKE_SHARDS * FAKE_CLIENTS);
    assert_int_equal(pages, 4);
}

static void a_whole_list_of_clients_names_who_is_missing(void **state)
{
    f.fakes->mode[1] = FAKE_GARBAGE;
    f.shm->processes[NODE_PROCESS_SHARDS + 2].state = PROCESS_DEAD;
    json_t *json = get("/api/clients?limit=1000");
    assert_int_equal(length(json, "clients"), FAKE_CLIENTS);
    assert_int_equal(length(json, "missing"), 2);
    assert_true(json_is_null(json_object_get(json, "cursor")));
    json_decref(json);
}

static void filters_reach_the_shards(void **state)
{
    char target[256];
    snprintf(target, sizeof target,
             "/api/clients?address=10.0.0.0/8&uid=%%00x&listener=one&age_min=5&queue_min=77&client=%u",
             OF_SHARD(1, 3));
    json_decref(get(target));
    assert_int_equal(asked(CONTROL_CLIENTS), 1);
    const struct control_head *h = &f.fakes->last;
    assert_int_equal(h->address_bits, 8);
    assert_int_equal(h->age_min_s, 5);
    assert_int_equal(h->queue_min, 77);
    assert_int_equal(h->client, OF_SHARD(1, 3));
    assert_int_equal(h->texts, 1u << CONTROL_TEXT_UID | 1u << CONTROL_TEXT_LISTENER);
    assert_int_equal(h->text_len[CONTROL_TEXT_UID], 2);
}

static void one_client_is_shown(void **state)
{
    char target[64];
    snprintf(target, sizeof target, "/api/clients/%u", OF_SHARD(2, 1));
    json_t *json = get(target);
    assert_int_equal(number(json, "connection_id"), OF_SHARD(2, 1));
    json_decref(json);
    json_decref(get("/api/clients/7f0000010b5404000002"));
    assert_refused("GET", "/api/clients/7f0000010b54040000ff", 404, "no such client");
    assert_refused("GET", "/api/clients/7f0000020b5404000002", 404, "of the gateway 127.0.0.2");
    assert_refused("GET", "/api/clients/x", 400, "is no client");
    f.fakes->mode[2] = FAKE_SILENT;
    assert_refused("GET", target, 503, "\"missing\":[2]");
}

static void names_are_listed_and_summed(void **state)
{
    json_t *json = get("/api/uids");
    assert_int_equal(length(json, "uids"), 3);
    json_decref(json);
    json = get("/api/groups?name=all");
    json_t *row = json_array_get(json_object_get(json, "groups"), 0);
    assert_int_equal(number(row, "clients"), 6);
    assert_true(json_is_null(json_object_get(row, "shard")));
    json_decref(json);
    json = get("/api/uids?name=n1");
    assert_int_equal(number(json_array_get(json_object_get(json, "uids"), 0), "shard"), 1);
    json_decref(json);
    json = get("/api/uids?name=nobody");
    assert_int_equal(length(json, "uids"), 0);
    json_decref(json);
}

static void workers_and_tables_of_all_shards_are_listed(void **state)
{
    json_t *json = get("/api/workers");
    assert_int_equal(length(json, "workers"), 9); /* three pages of each shard */
    json_decref(json);
    json = get("/api/tables");
    assert_int_equal(length(json, "tables"), 3);
    json_decref(json);
    json = get("/api/check");
    assert_true(json_is_true(json_object_get(json, "ok")));
    assert_int_equal(length(json, "shards"), 3);
    json_decref(json);
}

static void the_top_is_merged(void **state)
{
    json_t *json = get("/api/top?by=queue&limit=2");
    json_t *top = json_object_get(json, "top");
    assert_int_equal(json_array_size(top), 2);
    assert_int_equal(number(json_array_get(top, 0), "value"), 25);
    assert_int_equal(number(json_array_get(top, 1), "value"), 15);
    json_decref(json);
    json = get("/api/top?by=groups&limit=1");
    top = json_object_get(json, "top");
    assert_int_equal(number(json_array_get(top, 0), "clients"), 18);
    assert_true(json_is_true(json_object_get(json, "exact")));
    json_decref(json);
}

/* ---- shards that do not answer */

static void a_late_shard_is_waited_for_no_longer_than_query_timeout(void **state)
{
    f.fakes->mode[0] = FAKE_SILENT;
    uint64_t began_ms = now_ms();
    json_t *json = get("/api/tables");
    assert_in_range(now_ms() - began_ms, 380, 1500);
    assert_int_equal(length(json, "tables"), 2);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(json, "missing"), 0)), 0);
    json_decref(json);
}

static void a_dead_shard_is_not_waited_for(void **state)
{
    f.shm->processes[NODE_PROCESS_SHARDS].state = PROCESS_DEAD;
    uint64_t began_ms = now_ms();
    json_t *json = get("/api/tables");
    assert_true(now_ms() - began_ms < 300);
    assert_int_equal(length(json, "missing"), 1);
    json_decref(json);
}

static void without_any_answer_it_is_an_error(void **state)
{
    for (unsigned i = 0; i < FAKE_SHARDS; i++)
        f.fakes->mode[i] = i == 0 ? FAKE_REFUSES : FAKE_SILENT;
    assert_refused("GET", "/api/tables", 503, "no answer in time");
    assert_refused("GET", "/api/uids?name=x", 503, "\"missing\":[0,1,2]");
    assert_refused("POST", "/api/rebalance?seconds=0", 503, "no answer in time");
}

/* More than may be under way: some are told so at once, the others get their answer, and nobody else waits.
 */
static void too_many_questions_are_refused(void **state)
{
    enum { MANY = 40 };
    int fds[MANY];
    unsigned refused = 0;
    f.fakes->mode[1] = FAKE_SILENT;
    for (unsigned i = 0; i < MANY; i++) {
        fds[i] = fake_connect(&f, false);
        fake_send(&f, fds[i], "GET", "/api/tables");
    }
    uint64_t began_ms = now_ms();
    json_decref(get("/api/counters"));
    assert_true(now_ms() - began_ms < 300);
    for (unsigned i = 0; i < MANY; i++) {
        char text[4096] = "";
        assert_true(recv(fds[i], text, sizeof text - 1, 0) > 0);
        refused += strncmp(text, "HTTP/1.1 503", 12) == 0;
        assert_true(strncmp(text, "HTTP/1.1 503", 12) == 0 || strncmp(text, "HTTP/1.1 200", 12) == 0);
        close(fds[i]);
    }
    assert_int_equal(refused, MANY - 20);
}

/* ---- what is wrong with a request */

static void what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *method, *target;
        int status;
        const char *part;
    } wrong[] = {
        {"GET", "/api/clients?limit=0", 400,
         "parameter limit is \\\"0\\\"; expected a whole number from 1 to 1000"},
        {"GET", "/api/clients?limit=1001", 400, "limit"},
        {"GET", "/api/clients?cursor=9:0", 400, "cursor"},
        {"GET", "/api/clients?shard=3", 400, "from 0 to 2"},
        {"GET", "/api/clients?shard=1&cursor=2:5", 400, "cursor is of another shard"},
        {"GET", "/api/clients?shard=0&client=67108865", 400, "client is of another shard"},
        {"GET", "/api/clients?uid=", 400, "uid is empty"},
        {"GET", "/api/clients?address=10.0.0.1/8", 400, "parameter address"},
        {"GET", "/api/clients?color=red", 400, "\\\"color\\\" means nothing here"},
        {"GET", "/api/clients?uid", 400, "has no value"},
        {"GET", "/api/uids?name=a&prefix=b", 400, "name and prefix"},
        {"GET", "/api/top", 400, "parameter by is missing"},
        {"GET", "/api/top?by=size", 400, "expected one of: messages_in, bytes_in"},
        {"GET", "/api/top?by=queue&seconds=11", 400, "from 1 to 10"},
        {"GET", "/api/top?by=queue&limit=201", 400, "from 1 to 200"},
        {"GET", "/api/status?x=1", 400, "means nothing"},
        {"GET", "/api/trace", 400, "expected one of client=ID, uid=UID and address=CIDR"},
        {"GET", "/api/trace?uid=a&client=67108865", 400, "expected one of"},
        {"GET", "/api/trace?uid=a&seconds=601", 400, "from 1 to 600"},
        {"GET", "/api/nothing", 404, "nothing at /api/nothing"},
        {"GET", "/nothing.html", 404, "nothing at"},
        {"GET", "/../etc/passwd", 404, "nothing at"},
        {"GET", "/..%2fetc%2fpasswd", 404, "nothing at"},
        {"GET", "/%zz", 400, "hexadecimal"},
        {"GET", "/api/close?uid=a", 405, "expected POST"},
        {"POST", "/api/clients", 405, "expected GET"},
        {"POST", "/index.html", 405, "expected GET"},
        {"PUT", "/api/clients", 405, "method PUT"},
        {"POST", "/api/close", 400, "which clients?"},
        {"POST", "/api/close?all=no", 400, "which clients?"},
        {"POST", "/api/close?all=yes&uid=a", 400, "all=yes and a filter"},
        {"POST", "/api/close?uid=a&code=1006", 400, "parameter code is 1006"},
        {"POST", "/api/close?uid=a&code=2000", 400, "parameter code is 2000"},
        {"POST", "/api/close?uid=a&reason=%ff", 400, "reason is not UTF-8"},
        {"POST", "/api/close?uid=a&jitter=101", 400, "from 0 to 100"},
        {"POST", "/api/kick", 400, "parameter uid is missing"},
        {"POST", "/api/ban?seconds=5", 400, "parameter address is missing"},
        {"POST", "/api/drain", 400, "expected one of shard=N, worker=KEY and node=yes"},
        {"POST", "/api/drain?shard=1&node=yes", 400, "expected one of"},
        {"POST", "/api/drain?node=no", 400, "node"},
        {"POST", "/api/drain?worker=k&code=1000", 400, "code and reason"},
        {"POST", "/api/evacuate", 400, "parameter shard is missing"},
        {"POST", "/api/evacuate?shard=3", 400, "shard"},
        {"POST", "/api/evacuate?shard=1&back=maybe", 400, "back"},
        {"GET", "/api/evacuate?shard=1", 405, "expected POST"},
        {"POST", "/api/log?level=loud", 400, "error, warn, notice, info, debug"},
        {"POST", "/api/log", 400, "level is missing"},
        {"POST", "/api/inject?shard=0&name=x", 400, "crash, abort, stuck, slow_turn, no_memory"},
        {"POST", "/api/inject?name=crash", 400, "shard is missing"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_refused(wrong[i].method, wrong[i].target, wrong[i].status, wrong[i].part);
    assert_int_equal(asked(CONTROL_CLOSE) + asked(CONTROL_DRAIN) + asked(CONTROL_BAN) + asked(CONTROL_INJECT),
                     0);
}

static void a_body_is_refused(void **state)
{
    int status;
    char *body =
        fake_request(&f, false, "POST", "/api/close?all=yes", "Content-Length: 0\r\n", &status, NULL);
    assert_int_equal(status, 200);
    free(body);
    int fd = fake_connect(&f, false);
    static const char text[] =
        "POST /api/close?all=yes HTTP/1.1\r\nHost: tgg\r\nContent-Length: 5\r\n\r\nuid=a";
    assert_int_equal(send(fd, text, sizeof text - 1, 0), sizeof text - 1);
    char answer[1024] = "";
    assert_true(recv(fd, answer, sizeof answer - 1, 0) > 0);
    assert_int_equal(strncmp(answer, "HTTP/1.1 400", 12), 0);
    assert_non_null(strstr(answer, "a body of 5 bytes"));
    close(fd);
}

static void a_request_that_is_too_large_is_refused(void **state)
{
    static char target[70000];
    int status;
    memset(target, 'x', sizeof target - 1);
    target[0] = '/';
    char *body = fake_get(&f, target, &status);
    assert_true(status == 414 || status == 431 || status == 0);
    free(body);
    json_decref(get("/api/status"));
}

/* ---- who may ask */

static int status_over_tcp(const char *method, const char *target, const char *head)
{
    int status;
    free(fake_request(&f, true, method, target, head, &status, NULL));
    return status;
}

#define TOKEN "Authorization: Bearer se-cr_et\r\n"

static void over_tcp_the_token_is_asked_for(void **state)
{
    assert_int_equal(status_over_tcp("GET", "/api/status", ""), 401);
    assert_int_equal(status_over_tcp("GET", "/api/status", "Authorization: Bearer se-cr_eT\r\n"), 401);
    assert_int_equal(status_over_tcp("GET", "/api/status", "Authorization: Bearer se-cr_e\r\n"), 401);
    assert_int_equal(status_over_tcp("GET", "/api/status", "Authorization: Bearer se-cr_ett\r\n"), 401);
    assert_int_equal(status_over_tcp("GET", "/api/status", "Authorization: Bearer\r\n"), 401);
    assert_int_equal(status_over_tcp("GET", "/api/status", "Authorization: Basic se-cr_et\r\n"), 401);
    assert_int_equal(status_over_tcp("GET", "/api/status?token=se-cr_et", ""), 401);
    assert_int_equal(status_over_tcp("GET", "/api/nothing", ""), 401);
    assert_int_equal(status_over_tcp("GET", "/metrics", ""), 401);
    assert_int_equal(status_over_tcp("POST", "/api/close?all=yes", ""), 401);
    assert_int_equal(status_over_tcp("POST", "/livez", ""), 401);
    assert_int_equal(asked(CONTROL_CLOSE), 0);
    assert_int_equal(status_over_tcp("GET", "/api/status", TOKEN), 200);
    assert_int_equal(status_over_tcp("GET", "/api/status", "authorization: bearer se-cr_et\r\n"), 200);
    assert_int_equal(status_over_tcp("GET", "/metrics", TOKEN), 200);
    assert_int_equal(status_over_tcp("POST", "/api/close?all=yes", TOKEN), 200);
    assert_int_equal(asked(CONTROL_CLOSE), 3);
}

static void over_tcp_some_paths_are_open(void **state)
{
    assert_int_equal(status_over_tcp("GET", "/livez", ""), 200);
    assert_int_equal(status_over_tcp("GET", "/readyz", ""), 200);
    assert_int_equal(status_over_tcp("GET", "/", ""), 200);
    assert_int_equal(status_over_tcp("HEAD", "/index.html", ""), 200);
    assert_int_equal(status_over_tcp("GET", "/none.js", ""), 404);
}

static void a_page_of_another_site_is_refused(void **state)
{
    assert_int_equal(status_over_tcp("POST", "/api/close?all=yes", TOKEN "Origin: http://evil.example\r\n"),
                     403);
    assert_int_equal(status_over_tcp("GET", "/api/status", TOKEN "Origin: null\r\n"), 403);
    assert_int_equal(status_over_tcp("GET", "/api/status", TOKEN "Origin: http://tgg:8080\r\n"), 403);
    assert_int_equal(status_over_tcp("GET", "/api/status", TOKEN "Origin: http://tgg:80\r\n"), 200);
    assert_int_equal(asked(CONTROL_CLOSE), 0);
}

static int status_over_unix(const char *head)
{
    int status;
    free(fake_request(&f, false, "POST", "/api/close?all=yes", head, &status, NULL));
    return status;
}

/* A browser may be led to the socket by ssh -L. */
static void over_the_socket_a_page_of_another_site_is_refused_too(void **state)
{
    assert_int_equal(status_over_unix("Origin: http://evil.example\r\n"), 403);
    assert_int_equal(status_over_unix("Host: rebound.example:8400\r\n"), 403);
    assert_int_equal(asked(CONTROL_CLOSE), 0);
    assert_int_equal(status_over_unix("Host: localhost:8400\r\nOrigin: http://localhost:8400\r\n"), 200);
    assert_int_equal(status_over_unix("Host: [::1]:8400\r\n"), 200);
    assert_int_equal(status_over_unix("Host: 127.0.0.1:8400\r\n"), 200);
}

static void the_page_has_strict_headers(void **state)
{
    static const char *const headers[] = {
        "Content-Security-Policy: default-src 'self'",
        "X-Content-Type-Options: nosniff",
        "X-Frame-Options: DENY",
        "Referrer-Policy: no-referrer",
        "Cache-Control: no-cache",
        "Content-Type: text/html; charset=utf-8",
    };
    int status;
    char *all, *body = fake_request(&f, true, "GET", "/", "", &status, &all);
    assert_int_equal(status, 200);
    assert_string_equal(body, "<!doctype html><title>page</title>");
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        if (strstr(all, headers[i]) == NULL)
            fail_msg("no %s in %s", headers[i], all);
    free(all);
    free(body);
    free(fake_request(&f, false, "GET", "/api/registers", "", &status, &all));
    assert_non_null(strstr(all, "Cache-Control: no-store"));
    free(all);
}

/* ---- orders */

static void orders_go_to_those_they_are_for(void **state)
{
    json_t *json = post("/api/close?uid=a&code=4000&reason=go&seconds=0");
    assert_int_equal(number(json, "closed"), 6);
    assert_int_equal(f.fakes->last.code, 4000);
    json_decref(json);
    json = post("/api/close?shard=1");
    assert_int_equal(number(json, "closed"), 2);
    json_decref(json);
    json = post("/api/kick?uid=a");
    assert_int_equal(number(json, "closed"), 6);
    assert_int_equal(f.fakes->last.code, 1000);
    json_decref(json);
    json = post("/api/drain?shard=2");
    assert_int_equal(number(json, "clients"), 3);
    assert_int_equal(f.fakes->last.code, 1001);
    assert_int_equal(f.fakes->last.jitter, 20);
    assert_int_equal(f.fakes->last.seconds, 30);
    json_decref(json);
    json_decref(post("/api/undrain?node=yes"));
    assert_int_equal(asked(CONTROL_UNDRAIN), 3);
    json_decref(post("/api/drain?worker=127.0.0.1:w"));
    assert_int_equal(asked(CONTROL_WORKER), 3);
    assert_int_equal(f.fakes->last.flags, CONTROL_ON);
    json = post("/api/rebalance?seconds=0");
    assert_int_equal(number(json, "moved"), 6);
    json_decref(json);
    assert_refused("POST", "/api/inject?shard=0&name=crash", 409, "not in this build");
    assert_string_equal(f.fakes->last_name, "crash");
}

static void a_worker_that_nobody_knows_is_not_found(void **state)
{
    f.shm->processes[NODE_PROCESS_SHARDS + 1].state = PROCESS_DEAD; /* the one that knew it */
    assert_refused("POST", "/api/drain?worker=127.0.0.1:w", 404, "error");
}

static void the_supervisor_does_the_rest(void **state)
{
    json_decref(post("/api/log?level=debug"));
    assert_string_equal(f.fakes->last_name, "debug");
    json_decref(post("/api/ban?address=10.0.0.0/8&seconds=60"));
    assert_int_equal(f.fakes->last.seconds, 60);
    assert_int_equal(f.fakes->last.address_bits, 8);
    assert_int_equal(f.fakes->last.address.ip[0], 10);
    assert_refused("POST", "/api/unban?address=10.0.0.0/8", 404, "is not banned");
    json_t *json = post("/api/reload");
    assert_int_equal(length(json, "changed"), 1);
    json_decref(json);
    f.fakes->reload_problems = 1;
    int status;
    char *body = fake_post(&f, "/api/reload", &status);
    assert_int_equal(status, 409);
    json = parse(body);
    assert_int_equal(length(json, "problems"), 1);
    assert_true(json_is_string(json_object_get(json, "error")));
    json_decref(json);
}

static bool is_evacuated(unsigned shard)
{
    json_t *json = get("/api/status");
    json_t *of = json_array_get(json_object_get(json, "shards"), shard);
    bool is = json_is_true(json_object_get(of, "evacuated"));
    assert_true(json_is_boolean(json_object_get(of, "evacuated")));
    json_decref(json);
    return is;
}

/* Which shard is asked for the first client of shard 1. */
static uint64_t home_of_the_first_of_shard_1(void)
{
    json_t *json = get("/api/clients/67108865");
    uint64_t shard = (uint64_t)number(json, "shard");
    json_decref(json);
    return shard;
}

static void a_shard_that_is_no_ids_home_is_evacuated(void **state)
{
    assert_false(is_evacuated(1));
    assert_int_equal(home_of_the_first_of_shard_1(), 1);
    for (unsigned i = 0; i < sizeof f.node.shared->home.shard; i++)
        if (f.node.shared->home.shard[i] == 1)
            f.node.shared->home.shard[i] = 2;
    assert_true(is_evacuated(1));
    assert_false(is_evacuated(0) || is_evacuated(2));
    assert_int_equal(home_of_the_first_of_shard_1(), 2);
    f.node.shared->home.shard[NODE_HOME_PARTS] = 1;
    assert_false(is_evacuated(1));
}

static void a_shard_is_evacuated_and_gets_its_own_back(void **state)
{
    json_t *json = post("/api/evacuate?shard=1");
    assert_int_equal(f.fakes->last.op, CONTROL_EVACUATE);
    assert_int_equal(f.fakes->last.cursor, 1);
    assert_int_equal(f.fakes->last.flags, CONTROL_ON);
    assert_int_equal(number(json, "clients"), 7);
    assert_int_equal(number(json, "pause_ms"), 3);
    json_decref(json);
    json_decref(post("/api/evacuate?shard=2&back=yes"));
    assert_int_equal(f.fakes->last.cursor, 2);
    assert_int_equal(f.fakes->last.flags, 0);
    assert_int_equal(asked(CONTROL_EVACUATE), 2);
}

/* ---- traces */

static void a_trace_comes_as_it_happens_and_ends(void **state)
{
    int status;
    char *body = fake_get(&f, "/api/trace?uid=a&seconds=1", &status);
    assert_int_equal(status, 200);
    unsigned begins = 0, ends = 0;
    for (const char *p = body; (p = strstr(p, "trace_begin\"}\n")) != NULL; p++)
        begins++;
    for (const char *p = body; (p = strstr(p, "trace_end\"}\n")) != NULL; p++)
        ends++;
    assert_int_equal(begins, 3);
    assert_int_equal(ends, 3);
    free(body);
    assert_int_equal(asked(CONTROL_TRACE_END), 0);
}

static void lines_of_a_trace_are_there_at_once(void **state)
{
    for (unsigned tcp = 0; tcp < 2; tcp++) {
        int fd = fake_connect(&f, tcp != 0);
        uint64_t began_ms = now_ms();
        fake_send(&f, fd, "GET", "/api/trace?address=10.0.0.0/8");
        assert_int_equal(fake_read_lines(fd, 3, 2000), 3);
        assert_true(now_ms() - began_ms < 1000);
        close(fd);
    }
}

static void the_shards_hear_when_the_asker_of_a_trace_goes(void **state)
{
    for (unsigned tcp = 0; tcp < 2; tcp++) {
        int fd = fake_connect(&f, tcp != 0);
        fake_send(&f, fd, "GET", "/api/trace?uid=a");
        assert_int_equal(fake_read_lines(fd, 3, 2000), 3);
        close(fd);
        wait_asked(CONTROL_TRACE_END, 3 + 3 * tcp);
        assert_int_equal(f.fakes->last.cursor, f.fakes->trace_id);
    }
}

static void what_nobody_takes_of_a_trace_is_left_out_and_said(void **state)
{
    int fd = fake_connect(&f, false);
    f.fakes->trace_burst = 100; /* of 100 lines of 350 bytes, from each of three shards: 10 MB */
    fake_send(&f, fd, "GET", "/api/trace?uid=a");
    wait_asked(CONTROL_TRACE, 3);
    poll(NULL, 0, 700);
    json_decref(get("/api/counters")); /* nobody else waits for it */
    struct bytes all = {0};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, 500) > 0 && bytes_reserve(&all, 65536)) {
        ssize_t n = recv(fd, all.data + all.len, 65536, 0);
        if (n <= 0)
            break;
        all.len += (size_t)n;
    }
    bytes_append_byte(&all, 0);
    assert_in_range(all.len, 500000, 8000000);
    assert_non_null(strstr((char *)all.data, "\"event\":\"left_out\",\"count\":"));
    bytes_fini(&all);
    close(fd);
    wait_asked(CONTROL_TRACE_END, 3);
}

static void there_is_an_end_to_traces(void **state)
{
    int fds[8];
    for (unsigned i = 0; i < 8; i++) {
        fds[i] = fake_connect(&f, false);
        fake_send(&f, fds[i], "GET", "/api/trace?uid=a");
        assert_int_equal(fake_read_lines(fds[i], 3, 2000), 3);
    }
    assert_refused("GET", "/api/trace?uid=b", 503, "8 traces are under way");
    close(fds[0]);
    wait_asked(CONTROL_TRACE_END, 3);
    fds[0] = fake_connect(&f, false);
    fake_send(&f, fds[0], "GET", "/api/trace?uid=a");
    assert_int_equal(fake_read_lines(fds[0], 3, 2000), 3);
    for (unsigned i = 0; i < 8; i++)
        close(fds[i]);
    wait_asked(CONTROL_TRACE_END, 27);
}

/* ---- the process */

static void send_settings(const char *text)
{
    static struct config_error err;
    struct files *files = NULL;
    struct settings s = {.generation = 7};
    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++)
        s.listeners[i].fd = -1;
    assert_int_equal(files_load(&f.cfg, (struct slice){(const uint8_t *)text, strlen(text)}, &files, &err),
                     0);
    s.files_fd = files_to_fd(files);
    assert_true(s.files_fd >= 0);
    assert_int_equal(settings_send(f.settings[1], &s), 0);
    close(s.files_fd);
    files_free(files);
}

static void a_reload_takes_effect(void **state)
{
    assert_int_equal(status_over_tcp("GET", "/metrics", ""), 401);
    send_settings("[admin]\nmetrics_open = yes\n[listen one]\nport = 8282\nprotocol = websocket\n"
                  "[listen three]\nport = 8284\nprotocol = tcp\n");
    for (unsigned i = 0; status_over_tcp("GET", "/metrics", "") != 200; i++) {
        assert_true(i < 1000);
        poll(NULL, 0, 1);
    }
    json_t *json = get("/api/listeners");
    assert_int_equal(length(json, "listeners"), 2);
    json_t *listener = json_array_get(json_object_get(json, "listeners"), 1);
    assert_string_equal(json_string_value(json_object_get(listener, "name")), "three");
    json_decref(json);
    send_settings("[admin]\nno_such_key = 1\n");
    assert_int_equal(status_over_tcp("GET", "/metrics", ""), 200);
}

static void metrics_are_there_with_stuck_shards(void **state)
{
    int status;
    f.fakes->mode[0] = FAKE_SILENT;
    char *body = fake_get(&f, "/metrics", &status);
    assert_int_equal(status, 200);
    assert_non_null(strstr(body, "w1-2"));
    assert_null(strstr(body, "w0-0"));
    free(body);
}

static void a_connection_serves_many_requests(void **state)
{
    int fd = fake_connect(&f, true);
    for (unsigned i = 0; i < 50; i++) {
        char text[65536] = "";
        fake_send(&f, fd, "GET", i % 2 == 0 ? "/api/registers" : "/api/check");
        assert_true(recv(fd, text, sizeof text - 1, 0) > 0);
        assert_int_equal(strncmp(text, "HTTP/1.1 200", 12), 0);
    }
    close(fd);
}

/* With requests and traces under way. */
static void it_ends_when_told(void **state)
{
    int trace = fake_connect(&f, false), late = fake_connect(&f, true), idle = fake_connect(&f, true);
    fake_send(&f, trace, "GET", "/api/trace?uid=a");
    assert_int_equal(fake_read_lines(trace, 3, 2000), 3);
    f.fakes->mode[1] = FAKE_SILENT;
    fake_send(&f, late, "GET", "/api/tables");
    wait_asked(CONTROL_TABLES, 3);
    assert_int_equal(fake_node_end_admin(&f), 0);
    close(trace);
    close(late);
    close(idle);
}

/* Idle, with suspended requests, it does not turn in circles. */
static uint64_t cpu_ticks(int pid)
{
    char path[64];
    unsigned long long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    assert_int_equal(
        fscanf(in, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &kernel), 2);
    fclose(in);
    return user + kernel;
}

static void waiting_costs_nothing(void **state)
{
    int trace = fake_connect(&f, true), idle = fake_connect(&f, true);
    fake_send(&f, trace, "GET", "/api/trace?uid=a");
    assert_int_equal(fake_read_lines(trace, 3, 2000), 3);
    fake_send(&f, idle, "GET", "/api/registers");
    char text[4096];
    assert_true(recv(idle, text, sizeof text, 0) > 0);
    uint64_t before = cpu_ticks(f.admin);
    poll(NULL, 0, 1000);
    assert_true(cpu_ticks(f.admin) - before <= 5); /* of 100 */
    close(trace);
    close(idle);
}

#define NODE_TEST(name) cmocka_unit_test_setup_teardown(name, open_node, close_node)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NODE_TEST(the_state_of_the_node_is_told),
        NODE_TEST(the_state_is_told_though_a_shard_is_stuck),
        NODE_TEST(tables_of_ours_are_told),
        NODE_TEST(bans_are_read_from_their_file),
        NODE_TEST(whether_it_is_ready_is_told_with_why),
        NODE_TEST(clients_come_in_pages_through_all_shards),
        NODE_TEST(a_whole_list_of_clients_names_who_is_missing),
        NODE_TEST(filters_reach_the_shards),
        NODE_TEST(one_client_is_shown),
        NODE_TEST(names_are_listed_and_summed),
        NODE_TEST(workers_and_tables_of_all_shards_are_listed),
        NODE_TEST(the_top_is_merged),
        NODE_TEST(a_late_shard_is_waited_for_no_longer_than_query_timeout),
        NODE_TEST(a_dead_shard_is_not_waited_for),
        NODE_TEST(without_any_answer_it_is_an_error),
        NODE_TEST(too_many_questions_are_refused),
        NODE_TEST(what_is_wrong_is_said),
        NODE_TEST(a_body_is_refused),
        NODE_TEST(a_request_that_is_too_large_is_refused),
        NODE_TEST(over_tcp_the_token_is_asked_for),
        NODE_TEST(over_tcp_some_paths_are_open),
        NODE_TEST(a_page_of_another_site_is_refused),
        NODE_TEST(over_the_socket_a_page_of_another_site_is_refused_too),
        NODE_TEST(the_page_has_strict_headers),
        NODE_TEST(orders_go_to_those_they_are_for),
        NODE_TEST(a_worker_that_nobody_knows_is_not_found),
        NODE_TEST(the_supervisor_does_the_rest),
        NODE_TEST(a_shard_is_evacuated_and_gets_its_own_back),
        NODE_TEST(a_shard_that_is_no_ids_home_is_evacuated),
        NODE_TEST(a_trace_comes_as_it_happens_and_ends),
        NODE_TEST(lines_of_a_trace_are_there_at_once),
        NODE_TEST(the_shards_hear_when_the_asker_of_a_trace_goes),
        NODE_TEST(what_nobody_takes_of_a_trace_is_left_out_and_said),
        NODE_TEST(there_is_an_end_to_traces),
        NODE_TEST(a_reload_takes_effect),
        NODE_TEST(metrics_are_there_with_stuck_shards),
        NODE_TEST(a_connection_serves_many_requests),
        NODE_TEST(it_ends_when_told),
        NODE_TEST(waiting_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
