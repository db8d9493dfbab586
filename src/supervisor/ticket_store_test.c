// SPDX-License-Identifier: MIT
#include "supervisor/ticket_store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"

#define ROTATION 100
#define BEGIN    1000000

static char dir[64], kept[96], given[96];
static struct config cfg;
static struct config_error err;
static struct ticket_keys shared;
static struct ticket_store store;

static void set(const char *section, const char *key, const char *value)
{
    assert_int_equal(config_set(&cfg, section, key, value, &err), 0);
}

static int set_up(void **state)
{
    log_level_now = LOG_ERROR;
    err = (struct config_error){0};
    shared = (struct ticket_keys){0};
    snprintf(dir, sizeof dir, "/tmp/tgg-tickets-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(kept, sizeof kept, "%s/tls_tickets", dir);
    snprintf(given, sizeof given, "%s/given", dir);
    config_defaults(&cfg);
    set("gateway", "runtime_dir", dir);
    set("gateway", "tls_ticket_rotation", "100");
    set("listen a", "port", "80");
    set("listen a", "protocol", "text");
    set("listen a", "tls_certificate", "/dev/null"); /* nobody reads it here */
    ticket_store_init(&store, &cfg, &shared);
    return 0;
}

static int tear_down(void **state)
{
    char path[128];
    ticket_store_fini(&store);
    snprintf(path, sizeof path, "%s.new", kept);
    unlink(path);
    unlink(kept);
    unlink(given);
    assert_int_equal(rmdir(dir), 0);
    config_fini(&cfg);
    return 0;
}

static struct ticket_keys now_shared(void)
{
    struct ticket_keys keys;
    assert_true(ticket_keys_read(&shared, &keys));
    return keys;
}

static bool same_key(const struct ticket_key *a, const struct ticket_key *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* As a supervisor that starts. */
static void restart(int64_t now)
{
    ticket_store_fini(&store);
    shared = (struct ticket_keys){0};
    ticket_store_init(&store, &cfg, &shared);
    ticket_store_update(&store, &cfg, NULL, now);
}

static void without_tls_there_are_none(void **state)
{
    set("listen a", "tls_certificate", "");
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    ticket_store_turn(&store, BEGIN);
    assert_int_equal(now_shared().n, 0);
    assert_true(ticket_store_due_unix_s(&store) == INT64_MAX);
    assert_int_equal(access(kept, F_OK), -1);
}

static void keys_change_in_time_and_the_last_three_are_known(void **state)
{
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    struct ticket_keys first = now_shared();
    assert_int_equal(first.n, 1);
    assert_int_equal(ticket_store_due_unix_s(&store), BEGIN + ROTATION);
    ticket_store_turn(&store, BEGIN + ROTATION - 1);
    assert_true(same_key(&now_shared().keys[0], &first.keys[0]));
    ticket_store_turn(&store, BEGIN + ROTATION);
    struct ticket_keys second = now_shared();
    assert_int_equal(second.n, 2);
    assert_false(same_key(&second.keys[0], &first.keys[0]));
    assert_true(same_key(&second.keys[1], &first.keys[0]));
    ticket_store_turn(&store, BEGIN + 2 * ROTATION);
    assert_int_equal(now_shared().n, 3);
    assert_true(same_key(&now_shared().keys[2], &first.keys[0]));
    ticket_store_turn(&store, BEGIN + 3 * ROTATION);
    assert_int_equal(now_shared().n, 3);
    assert_true(same_key(&now_shared().keys[2], &second.keys[0]));
}

static void a_reload_changes_nothing(void **state)
{
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    struct ticket_keys before = now_shared();
    ticket_store_update(&store, &cfg, NULL, BEGIN + 10);
    assert_true(same_key(&now_shared().keys[0], &before.keys[0]));
    assert_int_equal(now_shared().version, before.version);
}

static void tls_can_go_and_come(void **state)
{
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    struct ticket_keys before = now_shared();
    set("listen a", "tls_certificate", "");
    ticket_store_update(&store, &cfg, NULL, BEGIN + 1);
    assert_int_equal(now_shared().n, 0);
    set("listen a", "tls_certificate", "x");
    ticket_store_update(&store, &cfg, NULL, BEGIN + 2);
    assert_true(same_key(&now_shared().keys[0], &before.keys[0]));
}

static void a_restart_goes_on(void **state)
{
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    ticket_store_turn(&store, BEGIN + ROTATION);
    struct ticket_keys before = now_shared();
    restart(BEGIN + ROTATION + 40);
    struct ticket_keys after = now_shared();
    assert_int_equal(after.n, 2);
    assert_true(same_key(&after.keys[0], &before.keys[0]) && same_key(&after.keys[1], &before.keys[1]));
    assert_int_equal(ticket_store_due_unix_s(&store), BEGIN + 2 * ROTATION);
}

static void a_late_restart_has_a_new_key_and_knows_what_may_still_come(void **state)
{
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    ticket_store_turn(&store, BEGIN + ROTATION);
    struct ticket_keys before = now_shared();
    restart(BEGIN + 3 * ROTATION); /* the first one is too old now */
    struct ticket_keys after = now_shared();
    assert_int_equal(after.n, 2);
    assert_true(same_key(&after.keys[1], &before.keys[0]));
    assert_int_equal(ticket_store_due_unix_s(&store), BEGIN + 4 * ROTATION);
    restart(BEGIN + 30 * ROTATION);
    assert_int_equal(now_shared().n, 1);
}

static void a_clock_that_goes_back_does_not_stop_it(void **state)
{
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    struct ticket_keys before = now_shared();
    ticket_store_turn(&store, BEGIN - 50000);
    assert_true(same_key(&now_shared().keys[0], &before.keys[0]));
    assert_int_equal(ticket_store_due_unix_s(&store), BEGIN - 50000 + ROTATION);
}

static void the_file_is_for_us_only(void **state)
{
    struct stat st;
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    struct ticket_keys before = now_shared();
    assert_int_equal(stat(kept, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(chmod(kept, i == 0 ? 0640 : 0604), 0);
        restart(BEGIN + 1);
        assert_int_equal(now_shared().n, 1);
        assert_false(same_key(&now_shared().keys[0], &before.keys[0]));
        assert_int_equal(stat(kept, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        before = now_shared();
    }
    restart(BEGIN + 1);
    assert_true(same_key(&now_shared().keys[0], &before.keys[0]));
    if (geteuid() == 0) { /* who else could give a file away */
        assert_int_equal(chown(kept, 65534, 65534), 0);
        restart(BEGIN + 1);
        assert_false(same_key(&now_shared().keys[0], &before.keys[0]));
    }
}

static size_t read_kept_file(char *buf, size_t cap)
{
    FILE *f = fopen(kept, "re");
    assert_non_null(f);
    size_t len = fread(buf, 1, cap, f);
    fclose(f);
    return len;
}

static void write_file(const char *path, const char *data, size_t len)
{
    unlink(path);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

/* Each byte of it as something else, and every length: taken whole, or new keys are made. */
static void a_damaged_file_is_replaced(void **state)
{
    char text[1024];
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    ticket_store_turn(&store, BEGIN + ROTATION);
    struct ticket_keys good = now_shared();
    size_t len = read_kept_file(text, sizeof text);
    assert_true(len > 2 * 160);
    for (size_t i = 0; i < len; i++) {
        char was = text[i];
        text[i] = was == 'z' ? 'y' : 'z';
        write_file(kept, text, len);
        text[i] = was;
        restart(BEGIN + ROTATION);
        assert_int_equal(now_shared().n, 1);
        assert_false(same_key(&now_shared().keys[0], &good.keys[0]));
    }
    for (size_t cut = 0; cut < len; cut++) {
        write_file(kept, text, cut);
        restart(BEGIN + ROTATION);
        struct ticket_keys got = now_shared();
        assert_true(got.n >= 1 && got.n <= 2);
        if (got.n == 2)
            assert_true(same_key(&got.keys[1], &good.keys[1]) || same_key(&got.keys[1], &good.keys[0]));
    }
    write_file(kept, text, len);
    restart(BEGIN + ROTATION);
    assert_true(same_key(&now_shared().keys[0], &good.keys[0]));
}

static void without_a_folder_there_are_keys_all_the_same(void **state)
{
    free(store.path);
    store.path = strdup("/does/not/exist/tls_tickets");
    ticket_store_update(&store, &cfg, NULL, BEGIN);
    assert_int_equal(now_shared().n, 1);
    ticket_store_turn(&store, BEGIN + ROTATION);
    assert_int_equal(now_shared().n, 2);
}

/* ---- tls_ticket_file */

#define KEY_A "0123456789abcdef0123456789abcdef"
#define KEY_B "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
#define REST                                                                                                 \
    "111111111111111111111111111111112222222222222222222222222222222233333333333333333333333333333333444444" \
    "44444444444444444444444444"

static struct files *with_file(const char *text)
{
    struct files *f = NULL;
    write_file(given, text, strlen(text));
    err = (struct config_error){0};
    set("gateway", "tls_ticket_file", given);
    set("listen a", "tls_certificate", ""); /* not to be read */
    assert_int_equal(files_load(&cfg, (struct slice){NULL, 0}, &f, &err), 0);
    set("listen a", "tls_certificate", "x");
    return f;
}

static void keys_of_a_file_are_taken_in_order(void **state)
{
    struct files *f = with_file("# keys\n" KEY_A REST "\r\n\n  " KEY_B REST);
    assert_int_equal(ticket_file_check(&cfg, f, &err), 0);
    ticket_store_update(&store, &cfg, f, BEGIN);
    struct ticket_keys keys = now_shared();
    assert_int_equal(keys.n, 2);
    assert_int_equal(keys.keys[0].name[0], 0x01);
    assert_int_equal(keys.keys[0].name[15], 0xef);
    assert_int_equal(keys.keys[0].aes[0], 0x11);
    assert_int_equal(keys.keys[0].aes[31], 0x22);
    assert_int_equal(keys.keys[0].hmac[0], 0x33);
    assert_int_equal(keys.keys[0].hmac[31], 0x44);
    assert_int_equal(keys.keys[1].name[7], 0xff);
    assert_true(ticket_store_due_unix_s(&store) == INT64_MAX);
    ticket_store_turn(&store, BEGIN + 10 * ROTATION);
    assert_int_equal(now_shared().version, keys.version);
    assert_int_equal(access(kept, F_OK), -1);
    files_free(f);
    f = with_file(KEY_B REST "\n");
    ticket_store_update(&store, &cfg, f, BEGIN); /* a reload */
    assert_int_equal(now_shared().n, 1);
    assert_int_equal(now_shared().keys[0].name[0], 0xff);
    files_free(f);
}

static void what_is_no_key_is_told_and_not_shown(void **state)
{
    static const char *const bad[] = {
        "",
        "# none\n",
        KEY_A,
        KEY_A REST "0",
        KEY_A "x" REST,
        "00000000000000000000000000000000" REST,
        KEY_A REST "\n" KEY_A REST "\n",
        KEY_A REST KEY_B REST,
        KEY_A REST "\n1" KEY_A REST "\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct files *f = with_file(bad[i]);
        assert_int_equal(ticket_file_check(&cfg, f, &err), -EINVAL);
        assert_int_equal(err.n, 1);
        assert_string_equal(err.list[0].key, "tls_ticket_file");
        assert_null(strstr(err.list[0].text, "0123456789abcdef"));
        files_free(f);
    }
    char many[5 * 162 + 1] = "";
    for (unsigned i = 0; i < 5; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%032x%s\n", i + 1, REST);
    struct files *f = with_file(many);
    assert_int_equal(ticket_file_check(&cfg, f, &err), -EINVAL);
    assert_non_null(strstr(err.list[0].text, "line 5"));
    files_free(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_tls_there_are_none),
        TEST(keys_change_in_time_and_the_last_three_are_known),
        TEST(a_reload_changes_nothing),
        TEST(tls_can_go_and_come),
        TEST(a_restart_goes_on),
        TEST(a_late_restart_has_a_new_key_and_knows_what_may_still_come),
        TEST(a_clock_that_goes_back_does_not_stop_it),
        TEST(the_file_is_for_us_only),
        TEST(a_damaged_file_is_replaced),
        TEST(without_a_folder_there_are_keys_all_the_same),
        TEST(keys_of_a_file_are_taken_in_order),
        TEST(what_is_no_key_is_told_and_not_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
