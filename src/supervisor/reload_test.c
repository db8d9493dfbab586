// SPDX-License-Identifier: MIT
#include "supervisor/reload.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "supervisor/check.h"

static char dir[64], conf[96], list[96], log_file[96];
static struct config cfg;
static struct files *files;

static void write_file(const char *path, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void write_file(const char *path, const char *fmt, ...)
{
    va_list ap;
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    va_start(ap, fmt);
    vfprintf(f, fmt, ap);
    va_end(ap);
    assert_int_equal(fclose(f), 0);
}

#define LISTENERS                                                                                            \
    "[listen a]\nport = 81\nprotocol = websocket\n"                                                          \
    "[listen b]\nport = 82\nprotocol = text\n"

static void write_conf(const char *gateway, const char *listeners)
{
    write_file(conf, "[gateway]\nruntime_dir = %s\nban_file = %s/no_bans\n%s%s", dir, dir, gateway,
               listeners);
}

static int set_up(void **state)
{
    struct config_error err = {0};
    snprintf(dir, sizeof dir, "/tmp/tgg-reload-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(conf, sizeof conf, "%s/conf", dir);
    snprintf(list, sizeof list, "%s/list", dir);
    snprintf(log_file, sizeof log_file, "%s/log", dir);
    write_conf("retry_after = 20\n", LISTENERS);
    assert_int_equal(config_load(conf, &cfg, &err), 0);
    assert_int_equal(check_files(&cfg, (struct slice){NULL, 0}, &files, &err), 0);
    struct log_options opt = {.level = LOG_INFO, .path = log_file};
    return log_open(&opt);
}

static int tear_down(void **state)
{
    log_close();
    unlink(conf);
    unlink(list);
    unlink(log_file);
    files_free(files);
    config_fini(&cfg);
    return rmdir(dir);
}

static char *logged(void)
{
    static char text[65536];
    FILE *f = fopen(log_file, "re");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

static void assert_logged(const char *text)
{
    if (strstr(logged(), text) == NULL)
        fail_msg("not in the log: %s\n%s", text, logged());
}

/* And what goes to the shards is the text as it stands in the file. */
static void assert_reloads(void)
{
    struct files *theirs;
    int fd = reload(&cfg, &files);
    if (fd < 0)
        fail_msg("%s", logged());
    assert_int_equal(files_open(fd, &theirs), 0);
    close(fd);
    assert_true(slice_eq(files_config_text(theirs), files_config_text(files)));
    assert_true(files_config_text(theirs).len > 0);
    assert_int_equal(files_changed(files, theirs), 0);
    files_free(theirs);
}

static void assert_refused(void)
{
    const struct files *before = files;
    assert_true(reload(&cfg, &files) < 0);
    assert_ptr_equal(files, before);
    assert_int_equal(cfg.gateway.retry_after, 20);
    assert_int_equal(cfg.gateway.line.retry_after, 4);
    assert_string_equal(cfg.gateway.allow_list, "");
    assert_logged("reload_refused");
    assert_logged("nothing has changed");
}

static void live_keys_change(void **state)
{
    write_conf("connections_per_address = 7\nretry_after = 30\n", LISTENERS "idle_timeout = 9\n");
    assert_reloads();
    assert_int_equal(cfg.gateway.retry_after, 30);
    assert_int_equal(cfg.gateway.line.retry_after, 5);
    assert_int_equal(cfg.gateway.connections_per_address, 7);
    assert_int_equal(cfg.listen[1].idle_timeout, 9);
    assert_logged("setting_changed section=\"gateway\" key=retry_after");
    assert_logged("setting_changed section=\"gateway\" key=connections_per_address");
    assert_logged("setting_changed section=\"listen b\" key=idle_timeout");
    assert_logged("changed=3 needs_restart=0 files_changed=0");
    assert_reloads(); /* the same again */
    assert_logged("changed=0 needs_restart=0 files_changed=0");
}

static void other_keys_wait_for_a_restart_and_that_is_said(void **state)
{
    write_conf("retry_after = 21\nstuck_timeout = 77\nsecret_key = hidden\n", LISTENERS);
    assert_reloads();
    assert_int_equal(cfg.gateway.stuck_timeout, 5);
    assert_string_equal(cfg.gateway.secret_key, "");
    assert_int_equal(cfg.gateway.retry_after, 21);
    assert_logged("setting_needs_restart section=\"gateway\" key=stuck_timeout");
    assert_logged("changed=1 needs_restart=2");
    assert_null(strstr(logged(), "hidden"));
}

static void every_mistake_is_told_and_nothing_changes(void **state)
{
    write_conf("retry_after = 30\nretry_aftr = 31\naccept_rate = many\n", LISTENERS);
    assert_refused();
    assert_logged(":5: [gateway] retry_aftr");
    assert_logged(":6: [gateway] accept_rate");
    assert_logged("problems=2");
}

static void a_missing_file_is_a_mistake(void **state)
{
    write_conf("retry_after = 30\nallow_list = /does/not/exist\n", LISTENERS);
    assert_refused();
    assert_logged("/does/not/exist");
    unlink(conf);
    assert_refused();
    assert_logged("No such file");
}

static void lists_are_looked_at(void **state)
{
    write_file(list, "10.0.0.0/8\nnonsense\n");
    char gateway[192];
    snprintf(gateway, sizeof gateway, "retry_after = 30\nallow_list = %s\n", list);
    write_conf(gateway, LISTENERS);
    assert_refused();
    assert_logged("[gateway] allow_list");
    write_file(list, "10.0.0.0/8\n");
    assert_reloads();
    assert_logged("changed=2 needs_restart=0 files_changed=1");
    write_file(list, "10.0.0.0/9\n");
    assert_reloads();
    assert_logged("changed=0 needs_restart=0 files_changed=1");
}

static void certificates_are_looked_at(void **state)
{
    char listeners[512];
    write_file(list, "no certificate\n");
    snprintf(listeners, sizeof listeners, LISTENERS "tls_certificate = %s\n", list);
    write_conf("retry_after = 30\n", listeners);
    assert_refused();
    assert_logged("[listen b] tls_certificate");
}

static void listeners_stay(void **state)
{
    write_conf("retry_after = 30\n", LISTENERS "[listen c]\nport = 83\nprotocol = tcp\n");
    assert_refused();
    assert_logged("[listen c]");
    assert_logged("a new listener");
    write_conf("retry_after = 30\n", "[listen a]\nport = 81\nprotocol = websocket\n");
    assert_refused();
    assert_logged("[listen b]");
    assert_logged("is gone");
    write_conf("retry_after = 30\n", "");
    assert_refused();
    write_conf("retry_after = 30\n",
               "[listen b]\nport = 82\nprotocol = text\n[listen a]\nport = 81\nprotocol = websocket\n");
    assert_refused();
    assert_logged("another order");
}

/* The file alone would be right, and so was the one before. */
static void old_and_new_must_go_together(void **state)
{
    write_conf("retry_after = 20\nping_mode = websocket\nstart_port = 83\n", LISTENERS);
    assert_reloads(); /* ping_mode is live */
    char gateway[512], data[200];
    memset(data, 'x', sizeof data - 1);
    data[sizeof data - 1] = '\0';
    snprintf(gateway, sizeof gateway, "retry_after = 20\nping_data = %s\nping_mode = websocket\n", data);
    write_conf(gateway, LISTENERS);
    assert_true(reload(&cfg, &files) < 0);
    assert_string_equal(cfg.gateway.ping_data, "");
    /* Its port changes with the next start only, and until then both would be on one. */
    write_conf("",
               "[listen a]\nport = 81\nprotocol = websocket\npath = /a\n[listen b]\nport = 81\nprotocol = "
               "websocket\npath = /b\n");
    struct config_error err = {0};
    files_free(files);
    config_fini(&cfg);
    assert_int_equal(config_load(conf, &cfg, &err), 0);
    assert_int_equal(check_files(&cfg, (struct slice){NULL, 0}, &files, &err), 0);
    write_conf("",
               "[listen a]\nport = 81\nprotocol = websocket\n[listen b]\nport = 82\nprotocol = websocket\n");
    assert_true(reload(&cfg, &files) < 0);
    assert_string_equal(cfg.listen[0].path, "/a");
    assert_string_equal(cfg.listen[1].path, "/b");
}

/* Ticket keys of the file that was named at the start. */
static void a_file_that_waits_for_a_restart_is_not_asked_for(void **state)
{
    write_conf("retry_after = 22\ntls_ticket_file = /does/not/exist\n", LISTENERS);
    assert_reloads();
    assert_int_equal(cfg.gateway.retry_after, 22);
    assert_logged("setting_needs_restart section=\"gateway\" key=tls_ticket_file");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(live_keys_change),
        TEST(other_keys_wait_for_a_restart_and_that_is_said),
        TEST(every_mistake_is_told_and_nothing_changes),
        TEST(a_missing_file_is_a_mistake),
        TEST(lists_are_looked_at),
        TEST(certificates_are_looked_at),
        TEST(listeners_stay),
        TEST(old_and_new_must_go_together),
        TEST(a_file_that_waits_for_a_restart_is_not_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
