// SPDX-License-Identifier: MIT
#include "base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/log_test.XXXXXX";
static char path[64], path_old[64];
static char text[65536];

static int setup(void **state)
{
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/log", dir);
    snprintf(path_old, sizeof(path_old), "%s/log.1", dir);
    return 0;
}

static int teardown(void **state)
{
    log_close();
    unlink(path);
    unlink(path_old);
    return rmdir(dir);
}

static void open_log(enum log_format format, enum log_level level, unsigned rate_max)
{
    struct log_options opt = {
        .level = level, .format = format, .path = path, .rate_max = rate_max, .process = "shard 0"};
    unlink(path);
    assert_int_equal(log_open(&opt), 0);
}

static const char *contents(const char *from)
{
    FILE *f = fopen(from, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

static unsigned lines_of(const char *s)
{
    unsigned n = 0;
    for (; *s != '\0'; s++)
        n += *s == '\n';
    return n;
}

static void a_text_line_has_time_level_process_event_and_words(void **state)
{
    open_log(LOG_TEXT, LOG_NOTICE, 0);
    LOG(LOG_NOTICE, "worker_connected", "key=%s n=%d", log_quote("a b", 3), 5);
    const char *s = contents(path);
    unsigned y, mo, d, h, mi, sec, ms;
    int end = 0;
    assert_int_equal(sscanf(s, "%4u-%2u-%2uT%2u:%2u:%2u.%3uZ%n", &y, &mo, &d, &h, &mi, &sec, &ms, &end), 7);
    assert_int_equal(end, 24);
    assert_true(y >= 2024);
    assert_string_equal(s + end, " notice shard-0 worker_connected key=\"a b\" n=5\n");
}

static void levels_above_the_limit_are_not_written(void **state)
{
    open_log(LOG_TEXT, LOG_WARN, 0);
    LOG(LOG_NOTICE, "no", "%s", "");
    LOG(LOG_WARN, "yes", "%s", "");
    LOG(LOG_ERROR, "yes", "%s", "");
    assert_int_equal(lines_of(contents(path)), 2);
    assert_null(strstr(text, "no"));
}

static void a_control_character_does_not_break_the_line(void **state)
{
    open_log(LOG_TEXT, LOG_DEBUG, 0);
    LOG(LOG_DEBUG, "x", "a=%s", "1\n2\r3\033");
    assert_int_equal(lines_of(contents(path)), 1);
    assert_non_null(strstr(text, "a=1?2?3?\n"));
}

static void json_has_a_member_for_each_word(void **state)
{
    open_log(LOG_JSON, LOG_DEBUG, 0);
    LOG(LOG_WARN, "register_lost",
        "address=%s retry_ms=%u error=%s time=x id=007 big=%s loose words=", "1.2.3.4:5", 250u,
        log_quote("say \"hi\"\\\n\xff\xc3\xa9", 13), "1234567890123456");
    const char *s = contents(path);
    assert_int_equal(strncmp(s, "{\"time\":\"", 9), 0);
    s = strstr(s, "Z\"");
    assert_non_null(s);
    assert_string_equal(s + 2,
                        ",\"level\":\"warn\",\"process\":\"shard-0\",\"event\":\"register_lost\","
                        "\"address\":\"1.2.3.4:5\",\"retry_ms\":250,"
                        "\"error\":\"say \\\"hi\\\"\\\\\\u000a\xef\xbf\xbd\xc3\xa9\",\"time_\":\"x\","
                        "\"id\":\"007\",\"big\":\"1234567890123456\",\"words\":\"\",\"text\":\"loose\"}\n");
}

static void json_survives_a_caller_that_does_not_quote(void **state)
{
    open_log(LOG_JSON, LOG_DEBUG, 0);
    LOG(LOG_WARN, "x", "%s", "a=\"b\"c\" d=\"open \\");
    assert_non_null(strstr(contents(path), "\"a\":\"b\\\"c\",\"d\":\"open \\\\\"}\n"));
    LOG(LOG_WARN, "x", "%s", "=\"b\" \"c\" \xed\xa0\x80 \xf4\x90\x80\x80");
    contents(path);
    assert_int_equal(lines_of(text), 2);
    assert_null(strstr(text, "\xed"));
    assert_null(strstr(text, "\xf4"));
}

static void a_line_too_long_is_cut_and_still_json(void **state)
{
    static char words[10000];
    memset(words, '\x01', sizeof(words) - 1);
    memcpy(words, "k=5 l=", 6);
    open_log(LOG_JSON, LOG_DEBUG, 0);
    LOG(LOG_WARN, "x", "%s", words); /* escapes make it six times as long: does not fit */
    const char *s = contents(path);
    assert_int_equal(lines_of(s), 1);
    assert_non_null(strstr(s, "\"event\":\"x\",\"k\":5}\n"));
    memset(words + 6, 'y', sizeof(words) - 7);
    open_log(LOG_TEXT, LOG_DEBUG, 0);
    LOG(LOG_WARN, "x", "%s", words);
    s = contents(path);
    assert_int_equal(lines_of(s), 1);
    assert_true(strlen(s) > 4000);
}

static void repeat(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        LOG(LOG_WARN, "often", "i=%u", i);
}

static void lines_over_the_rate_are_counted_and_said(void **state)
{
    struct timespec second = {.tv_sec = 1, .tv_nsec = 20000000};

    open_log(LOG_TEXT, LOG_WARN, 10);
    repeat(100);
    LOG(LOG_WARN, "other", "%s", ""); /* another site has its own limit */
    assert_int_equal(lines_of(contents(path)), 11);
    nanosleep(&second, NULL);
    log_flush();
    assert_int_equal(lines_of(contents(path)), 12);
    assert_non_null(strstr(text, "warn shard-0 log_left_out of=often lines=90\n"));
    repeat(1);
    log_flush();
    assert_int_equal(lines_of(contents(path)), 13);
    repeat(20);
    log_close();
    contents(path);
    assert_non_null(strstr(text, "log_left_out of=often lines=11\n"));
    assert_int_equal(lines_of(text), 13 + 9 + 1);
}

static void reopen_follows_a_rename(void **state)
{
    open_log(LOG_TEXT, LOG_WARN, 0);
    LOG(LOG_WARN, "first", "%s", "");
    assert_int_equal(rename(path, path_old), 0);
    LOG(LOG_WARN, "second", "%s", "");
    assert_int_equal(log_reopen(), 0);
    LOG(LOG_WARN, "third", "%s", "");
    assert_int_equal(lines_of(contents(path_old)), 2);
    assert_int_equal(lines_of(contents(path)), 1);
    assert_non_null(strstr(text, "third"));
}

static void a_file_that_does_not_open_leaves_the_old_target(void **state)
{
    struct log_options opt = {.level = LOG_DEBUG, .path = "/nonexistent/dir/log"};
    open_log(LOG_TEXT, LOG_WARN, 0);
    assert_int_equal(log_open(&opt), -ENOENT);
    LOG(LOG_WARN, "here", "%s", "");
    assert_int_equal(lines_of(contents(path)), 1);
}

static void errno_is_left_alone(void **state)
{
    open_log(LOG_TEXT, LOG_WARN, 0);
    errno = ENOTTY;
    LOG(LOG_WARN, "x", "%s", "");
    assert_int_equal(errno, ENOTTY);
}

static void quote_is_printable_and_short(void **state)
{
    uint8_t all[256];
    for (unsigned i = 0; i < 256; i++)
        all[i] = (uint8_t)i;
    assert_string_equal(log_quote("", 0), "\"\"");
    assert_string_equal(log_quote("a\"\\\n\xff", 5), "\"a\\\"\\\\\\x0a\\xff\"");
    for (unsigned from = 0; from < 256; from++) {
        for (unsigned len = 0; len <= 256 - from; len++) {
            const char *q = log_quote(all + from, len);
            size_t n = strlen(q);
            assert_true(n >= 2 && n <= 128);
            assert_true(q[0] == '"' && q[n - 1] == '"');
            for (size_t i = 0; i < n; i++)
                assert_true(q[i] >= 0x20 && q[i] < 0x7f);
        }
    }
    char longest[200];
    memset(longest, 'x', sizeof(longest));
    assert_int_equal(strlen(log_quote(longest, 126)), 128);
    assert_null(strstr(log_quote(longest, 126), "..."));
    assert_non_null(strstr(log_quote(longest, 127), "x...\""));
    assert_int_equal(strlen(log_quote(longest, 127)), 128);
}

static void quotes_live_for_eight_calls(void **state)
{
    const char *q[8];
    for (unsigned i = 0; i < 8; i++)
        q[i] = log_quote(&"abcdefgh"[i], 1);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(q[i][1], 'a' + (int)i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_line_has_time_level_process_event_and_words),
        cmocka_unit_test(levels_above_the_limit_are_not_written),
        cmocka_unit_test(a_control_character_does_not_break_the_line),
        cmocka_unit_test(json_has_a_member_for_each_word),
        cmocka_unit_test(json_survives_a_caller_that_does_not_quote),
        cmocka_unit_test(a_line_too_long_is_cut_and_still_json),
        cmocka_unit_test(lines_over_the_rate_are_counted_and_said),
        cmocka_unit_test(reopen_follows_a_rename),
        cmocka_unit_test(a_file_that_does_not_open_leaves_the_old_target),
        cmocka_unit_test(errno_is_left_alone),
        cmocka_unit_test(quote_is_printable_and_short),
        cmocka_unit_test(quotes_live_for_eight_calls),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
