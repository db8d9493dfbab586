// SPDX-License-Identifier: MIT
#include "common/files.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];
static struct config cfg;
static struct config_error err;

static const char *path_of(const char *name)
{
    static char ring[4][128];
    static unsigned turn;
    char *path = ring[turn++ % 4];
    snprintf(path, sizeof ring[0], "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const char *data, size_t len)
{
    FILE *f = fopen(path_of(name), "we");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void set(const char *section, const char *key, const char *fmt, ...)
{
    char value[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    assert_int_equal(config_set(&cfg, section, key, value, &err), 0);
}

static int set_up(void **state)
{
    err = (struct config_error){0};
    snprintf(dir, sizeof dir, "/tmp/tgg-files-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    config_defaults(&cfg);
    set("gateway", "runtime_dir", "%s", dir);
    set("listen a", "port", "80");
    set("listen a", "protocol", "text");
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "bans", "fifo"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(path_of(names[i]));
    assert_int_equal(rmdir(dir), 0);
    config_fini(&cfg);
    return 0;
}

static struct files *loaded(void)
{
    struct files *f = NULL;
    int r = files_load(&cfg, SLICE_STR("[gateway]\n"), &f, &err);
    if (r < 0)
        fail_msg("%d: %s", r, err.list[0].text);
    return f;
}

static void assert_has(const struct files *f, const char *name, const char *content)
{
    struct slice got;
    const char *path = path_of(name);
    assert_true(files_get(f, path, strlen(path), &got));
    assert_true(slice_eq_str(got, content));
}

static void assert_has_not(const struct files *f, const char *name)
{
    struct slice got;
    const char *path = path_of(name);
    assert_false(files_get(f, path, strlen(path), &got));
}

static void name_all(void)
{
    write_file("a", "list a", 6);
    write_file("b", "", 0);
    write_file("c", "certificate", 11);
    write_file("d", "key", 3);
    write_file("e", "authority", 9);
    write_file("f", "proxies", 7);
    write_file("bans", "10.0.0.1 1", 10);
    set("gateway", "allow_list", "10.0.0.0/8, %s", path_of("a"));
    set("gateway", "deny_list", "%s , 2001:db8::/32", path_of("b"));
    set("gateway", "reserve_list", "%s", path_of("a"));
    set("gateway", "tls_ticket_file", "%s", path_of("f"));
    set("listen a", "tls_certificate", "%s, %s", path_of("c"), path_of("e"));
    set("listen a", "tls_key", "%s,%s", path_of("d"), path_of("d"));
    set("listen a", "tls_client_ca", "%s", path_of("e"));
    set("listen a", "trusted_proxies", "127.0.0.1/32,%s", path_of("f"));
}

static void assert_has_all(const struct files *f)
{
    assert_has(f, "a", "list a");
    assert_has(f, "b", "");
    assert_has(f, "c", "certificate");
    assert_has(f, "d", "key");
    assert_has(f, "e", "authority");
    assert_has(f, "f", "proxies");
    assert_has(f, "bans", "10.0.0.1 1");
    assert_true(slice_eq_str(files_config_text(f), "[gateway]\n"));
}

static void all_that_is_named_is_there(void **state)
{
    struct slice got;
    name_all();
    struct files *f = loaded();
    assert_has_all(f);
    assert_false(files_get(f, "10.0.0.0/8", 10, &got));
    assert_false(files_get(f, "", 0, &got));
    files_free(f);
}

static void a_configuration_that_names_nothing_is_fine(void **state)
{
    struct files *f = NULL;
    assert_int_equal(files_load(&cfg, (struct slice){NULL, 0}, &f, &err), 0);
    assert_has_not(f, "bans");
    assert_int_equal(files_config_text(f).len, 0);
    int fd = files_to_fd(f);
    files_free(f);
    assert_int_equal(files_open(fd, &f), 0);
    assert_has_not(f, "bans");
    files_free(f);
    close(fd);
}

static void another_process_gets_the_same(void **state)
{
    name_all();
    struct files *f = loaded(), *again = NULL;
    int fd = files_to_fd(f);
    assert_true(fd >= 0);
    files_free(f);
    assert_int_equal(write(fd, "x", 1), -1); /* sealed */
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(files_open(fd, &again), 0);
    close(fd);
    assert_has_all(again);
    files_free(again);
}

static void what_is_missing_is_told_with_its_key(void **state)
{
    char line[1024];
    struct files *f = NULL;
    set("gateway", "ban_file", "%s", path_of("no_bans")); /* fine */
    set("gateway", "allow_list", "%s", path_of("none"));
    set("listen a", "tls_certificate", "%s", path_of("none_either"));
    cfg.gateway.line.allow_list = 7;
    assert_int_equal(files_load(&cfg, (struct slice){NULL, 0}, &f, &err), -EINVAL);
    assert_null(f);
    assert_int_equal(err.n, 2);
    assert_string_equal(err.list[0].key, "allow_list");
    assert_int_equal(err.list[0].line, 7);
    assert_string_equal(err.list[1].section, "listen a");
    assert_string_equal(err.list[1].key, "tls_certificate");
    config_problem_format(&err, 1, line, sizeof line);
    assert_non_null(strstr(line, "none_either"));
    assert_non_null(strstr(line, "No such file"));
}

static void only_files_are_read(void **state)
{
    struct files *f = NULL;
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    set("gateway", "ban_file", "%s", dir); /* there, but no file */
    set("gateway", "deny_list", "%s, /dev/null", path_of("fifo"));
    assert_int_equal(files_load(&cfg, (struct slice){NULL, 0}, &f, &err), -EINVAL);
    assert_int_equal(err.n, 3);
}

static void a_path_too_long_for_one_is_refused(void **state)
{
    struct files *f = NULL;
    char value[5001] = "/";
    memset(value + 1, 'x', sizeof value - 2);
    assert_int_equal(config_set(&cfg, "gateway", "deny_list", value, &err), 0);
    assert_int_equal(files_load(&cfg, (struct slice){NULL, 0}, &f, &err), -EINVAL);
    assert_int_equal(err.n, 1);
}

static void more_than_the_bound_is_refused(void **state)
{
    struct files *f = NULL;
    write_file("a", "", 0);
    assert_int_equal(truncate(path_of("a"), FILES_TOTAL_MAX + 1), 0); /* sparse */
    set("gateway", "deny_list", "%s", path_of("a"));
    assert_int_equal(files_load(&cfg, (struct slice){NULL, 0}, &f, &err), -EINVAL);
    assert_int_equal(err.n, 1);
    assert_non_null(strstr(err.list[0].text, "256 MiB"));
}

/* Longer than any first guess of the buffer. */
static void large_files_are_whole(void **state)
{
    size_t len = 300001;
    char *data = malloc(len);
    struct slice got;
    assert_non_null(data);
    for (size_t i = 0; i < len; i++)
        data[i] = (char)(i * 7);
    write_file("a", data, len);
    set("gateway", "deny_list", "%s", path_of("a"));
    struct files *f = loaded();
    const char *path = path_of("a");
    assert_true(files_get(f, path, strlen(path), &got));
    assert_int_equal(got.len, len);
    assert_memory_equal(got.data, data, len);
    files_free(f);
    free(data);
}

/* A file of /proc has no size before it is read. */
static void a_size_is_not_believed(void **state)
{
    struct slice got;
    set("gateway", "deny_list", "/proc/self/status");
    struct files *f = loaded();
    assert_true(files_get(f, "/proc/self/status", 17, &got));
    assert_true(got.len > 100);
    files_free(f);
}

static void changes_are_counted(void **state)
{
    name_all();
    struct files *a = loaded(), *b = loaded();
    assert_int_equal(files_changed(a, b), 0);
    files_free(b);
    write_file("a", "LIST a", 6);
    unlink(path_of("bans"));
    set("gateway", "tls_ticket_file", "%s", path_of("a"));
    set("listen a", "trusted_proxies", "");
    b = loaded();
    assert_int_equal(files_changed(a, b), 3); /* a is another, bans and f are gone */
    assert_int_equal(files_changed(b, a), 3);
    files_free(a);
    files_free(b);
}

/* ---- from another process */

static int memfd_of(const void *data, size_t len, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static int open_bytes(const uint8_t *data, size_t len, struct files **ret)
{
    int fd = memfd_of(data, len, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
    int r = files_open(fd, ret);
    close(fd);
    return r;
}

/* Every byte of what it holds is there. */
static void touch(const struct files *f)
{
    struct slice text = files_config_text(f), got;
    unsigned sum = 0;
    for (size_t i = 0; i < text.len; i++)
        sum += text.data[i];
    for (char name[] = "a"; name[0] <= 'f'; name[0]++) {
        const char *path = path_of(name);
        if (!files_get(f, path, strlen(path), &got))
            continue;
        for (size_t i = 0; i < got.len; i++)
            sum += got.data[i];
    }
    assert_true(sum != 12345678);
}

static uint8_t *bytes_of(size_t *ret_len)
{
    struct stat st;
    name_all();
    struct files *f = loaded();
    int fd = files_to_fd(f);
    assert_int_equal(fstat(fd, &st), 0);
    *ret_len = (size_t)st.st_size;
    uint8_t *data = malloc(*ret_len);
    assert_non_null(data);
    assert_int_equal(pread(fd, data, *ret_len, 0), (ssize_t)*ret_len);
    close(fd);
    files_free(f);
    return data;
}

static void every_cut_is_refused(void **state)
{
    size_t len;
    struct files *f;
    uint8_t *data = bytes_of(&len);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(open_bytes(data, cut, &f), -EINVAL);
    assert_int_equal(open_bytes(data, len, &f), 0);
    files_free(f);
    free(data);
}

/* Each byte that says where something is, at its limits: refused, or what it then says holds together. */
static void no_damage_leads_astray(void **state)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    size_t len, refused = 0;
    struct files *f;
    uint8_t *data = bytes_of(&len);
    for (size_t at = 0; at < len && at < 400; at++) {
        uint8_t was = data[at];
        for (size_t i = 0; i < sizeof values; i++) {
            data[at] = was ^ values[i];
            int r = open_bytes(data, len, &f);
            assert_true(r == 0 || r == -EINVAL);
            refused += r != 0;
            if (r != 0)
                continue;
            touch(f);
            files_free(f);
        }
        data[at] = was;
    }
    assert_true(refused > 500);
    free(data);
}

static void what_may_change_below_us_is_refused(void **state)
{
    size_t len;
    struct files *f;
    uint8_t *data = bytes_of(&len);
    static const int seals[] = {0, F_SEAL_WRITE | F_SEAL_SHRINK, F_SEAL_SHRINK | F_SEAL_GROW,
                                F_SEAL_WRITE | F_SEAL_GROW};
    for (size_t i = 0; i < sizeof seals / sizeof seals[0]; i++) {
        int fd = memfd_of(data, len, seals[i]);
        assert_int_equal(files_open(fd, &f), -EINVAL);
        close(fd);
    }
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(files_open(null, &f), -EINVAL);
    close(null);
    free(data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_that_is_named_is_there),
        TEST(a_configuration_that_names_nothing_is_fine),
        TEST(another_process_gets_the_same),
        TEST(what_is_missing_is_told_with_its_key),
        TEST(only_files_are_read),
        TEST(a_path_too_long_for_one_is_refused),
        TEST(more_than_the_bound_is_refused),
        TEST(large_files_are_whole),
        TEST(a_size_is_not_believed),
        TEST(changes_are_counted),
        TEST(every_cut_is_refused),
        TEST(no_damage_leads_astray),
        TEST(what_may_change_below_us_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
