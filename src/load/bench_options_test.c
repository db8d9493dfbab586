// SPDX-License-Identifier: MIT
#include "load/bench_options.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct bench_options o;

static int parse_words(const char *const *words)
{
    char *argv[32] = {(char *)"bench"};
    int argc = 1;
    while (*words != NULL)
        argv[argc++] = (char *)(uintptr_t)*words++;
    bench_options_fini(&o);
    return bench_options_parse(argc, argv, &o);
}

/* The words after "bench", ended by NULL. */
#define parse(...) parse_words((const char *const[]){__VA_ARGS__})

static void targets_of_all_kinds(void **state)
{
    assert_int_equal(parse("ws://example.org", NULL), -1);
    assert_string_equal(o.target.host, "example.org");
    assert_int_equal(o.target.port, 80);
    assert_string_equal(o.target.path, "/");
    assert_int_equal(parse("wss://[::1]:8443/a?b=c", NULL), -1);
    assert_string_equal(o.target.host, "::1");
    assert_int_equal(o.target.port, 8443);
    assert_string_equal(o.target.path, "/a?b=c");
    assert_true(o.target.tls);
    assert_int_equal(parse("ws://h?x", NULL), -1);
    assert_string_equal(o.target.path, "/?x");
    assert_int_equal(parse("text://127.0.0.1:77/", NULL), -1);
    assert_int_equal(o.target.protocol, LOAD_TEXT);
    assert_int_equal(parse("ws://unix:/run/a.sock:/room", NULL), -1);
    assert_true(o.target.is_unix);
    assert_string_equal(o.target.host, "/run/a.sock");
    assert_string_equal(o.target.path, "/room");
    assert_int_equal(parse("--tls", "tcp://h:1", NULL), -1);
    assert_true(o.target.tls);
}

static void what_is_no_target_is_usage(void **state)
{
    static const char *const wrong[] = {"http://h",     "ws://",        "ws://:80",  "ws://h:0",
                                        "ws://h:65536", "ws://h:80x",   "text://h",  "tcp://h:1/p",
                                        "ws://[::1",    "ws://[::1]80", "ws://a b",  "ws://h/\n",
                                        "frame://h:",   "h:80",         "ws://h::1", "ws://unix:"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(parse(wrong[i], NULL), 2);
    assert_int_equal(parse(NULL, NULL), 2);
    assert_int_equal(parse("ws://a", "ws://b", NULL), 2);
}

static void numbers_and_times(void **state)
{
    assert_int_equal(parse("--connections", "1000", "--time", "1.5m", "--rate", "0.5", "--ramp-time", "500ms",
                           "ws://h", NULL),
                     -1);
    assert_int_equal(o.connections, 1000);
    assert_true(o.time_s == 90 && o.rate == 0.5 && o.ramp == 2000);
    static const char *const wrong[][2] = {
        {"--connections", "0"},  {"--connections", "1.5"}, {"--connections", "x"},
        {"--time", "10d"},       {"--time", "-1"},         {"--rate", "nan"},
        {"--max-errors", "101"}, {"--processes", "2"},     {"--nonsense", "1"}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(parse(wrong[i][0], wrong[i][1], "ws://h", NULL), 2);
}

static void what_does_not_go_together_is_usage(void **state)
{
    static const char *const wrong[][4] = {
        {"--rate", "1", "--total-rate", "2"},
        {"--ramp", "1", "--ramp-time", "2"},
        {"--size", "9", "--mix", "64:1"},
        {"--rate", "1", "--outstanding", "2"},
        {"--size", "23", "--expect", "echo"},
        {"--message", "no mark", "--expect", "fanout"},
        {"--expect", "nothing", "--size", "64"},
        {"--expect", "answer:", "--size", "64"},
        {"--ca", "x", "--size", "64"},
        {"--header", "no colon", "--size", "64"},
        {"--header", "a: b\r\nc: d", "--size", "64"},
        {"--mix", "64:1,23:1", "--expect", "echo"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(parse(wrong[i][0], wrong[i][1], wrong[i][2], wrong[i][3], "ws://h", NULL), 2);
    assert_int_equal(parse("--pings", "1", "tcp://h:1", NULL), 2);
    assert_int_equal(parse("--message", "a\n{mark}", "text://h:1", NULL), 2);
    assert_int_equal(parse("--idle", "--rate", "1", "ws://h", NULL), 2);
}

static void who_sends_and_how_much(void **state)
{
    assert_int_equal(parse("--connections", "10", "ws://h", NULL), -1);
    assert_int_equal(bench_senders(&o, 0, 10), 10);
    assert_true(bench_sender_rate(&o) == 0);
    assert_int_equal(parse("--connections", "10", "--expect", "fanout", "ws://h", NULL), -1);
    assert_int_equal(bench_senders(&o, 0, 10), 1);
    assert_int_equal(bench_senders(&o, 5, 5), 0);
    assert_true(bench_sender_rate(&o) == 1);
    assert_int_equal(parse("--connections", "10", "--one-in", "3", "--total-rate", "8", "ws://h", NULL), -1);
    assert_int_equal(bench_senders(&o, 0, 10), 4);
    assert_true(bench_sender_rate(&o) == 2);
    uint32_t n = 0;
    for (uint32_t i = 0; i < 10; i++)
        n += bench_is_sender(&o, i);
    assert_int_equal(n, 4);
    assert_int_equal(bench_senders(&o, 1, 2) + bench_senders(&o, 3, 7), 3);
    assert_int_equal(parse("--connections", "10", "--idle", "ws://h", NULL), -1);
    assert_int_equal(bench_senders(&o, 0, 10), 0);
}

static uint32_t source(size_t i)
{
    return ntohl(((struct sockaddr_in *)&o.sources.list[i])->sin_addr.s_addr);
}

static void sources(void **state)
{
    assert_int_equal(
        parse("--source", "127.0.0.2,127.0.0.9", "--source-range", "127.0.0.254-127.0.1.1", "ws://h", NULL),
        -1);
    assert_int_equal(o.sources.n, 6);
    assert_int_equal(source(1), 0x7f000009);
    assert_int_equal(source(2), 0x7f0000fe);
    assert_int_equal(source(5), 0x7f000101);
    assert_int_equal(parse("--source", "::1", "ws://h", NULL), -1);
    assert_int_equal(o.sources.list[0].ss_family, AF_INET6);
    static const char *const wrong[][2] = {
        {"--source", "localhost"},       {"--source", "1.2.3.4,"},
        {"--source-range", "127.0.0.1"}, {"--source-range", "127.0.0.2-127.0.0.1"},
        {"--source-range", "::1-::2"},   {"--source-range", "10.0.0.0-10.1.0.0"}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(parse(wrong[i][0], wrong[i][1], "ws://h", NULL), 2);
}

static void defaults_of_messages(void **state)
{
    assert_int_equal(parse("--expect", "none", "--size", "5", "ws://h", NULL), -1);
    assert_false(template_has(&o.message, PIECE_MARK));
    assert_int_equal(parse("--expect", "answer:ok", "--message", "ping", "ws://h", NULL), -1);
    assert_string_equal(o.answer, "ok");
    assert_int_equal(parse("--message", "{\"m\":\"{mark}\"}", "--subscribe", "join {id}", "ws://h", NULL),
                     -1);
    assert_true(o.subscribe.n > 0);
}

/* What is said on standard error is not what is looked at here. */
static int stderr_kept = -1;

static int quiet(void **state)
{
    stderr_kept = dup(STDERR_FILENO);
    return stderr_kept < 0 || freopen("/dev/null", "w", stderr) == NULL;
}

static int loud_again(void **state)
{
    bench_options_fini(&o);
    fflush(stderr);
    int r = dup2(stderr_kept, STDERR_FILENO);
    close(stderr_kept);
    return r < 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_of_all_kinds),   cmocka_unit_test(what_is_no_target_is_usage),
        cmocka_unit_test(numbers_and_times),      cmocka_unit_test(what_does_not_go_together_is_usage),
        cmocka_unit_test(who_sends_and_how_much), cmocka_unit_test(sources),
        cmocka_unit_test(defaults_of_messages),
    };
    return cmocka_run_group_tests(tests, quiet, loud_again);
}
