// SPDX-License-Identifier: MIT
#include "supervisor/admin_ports.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "supervisor/supervisor_util_test.h"

static char dir[64], token_path[96], socket_path[96];
static struct config cfg;
static struct config_error err;

static void set(const char *key, const char *value)
{
    assert_int_equal(config_set(&cfg, "admin", key, value, &err), 0);
}

static int set_up(void **state)
{
    err = (struct config_error){0};
    config_defaults(&cfg);
    snprintf(dir, sizeof dir, "/tmp/tgg-admin-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(config_set(&cfg, "gateway", "runtime_dir", dir, &err), 0);
    snprintf(token_path, sizeof token_path, "%s/admin.token", dir);
    snprintf(socket_path, sizeof socket_path, "%s/admin.sock", dir);
    return 0;
}

static int tear_down(void **state)
{
    config_fini(&cfg);
    unlink(token_path);
    unlink(socket_path);
    return rmdir(dir);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

static int connect_unix(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", socket_path);
    int r = connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : 0;
    close(fd);
    return r;
}

static void the_unix_socket_is_there_and_goes_with_its_opener(void **state)
{
    struct admin_ports p;
    set("socket_mode", "0660");
    assert_int_equal(admin_ports_open(&cfg, getgid(), NULL, &p, &err), 0);
    assert_int_equal(p.http_fd, -1);
    assert_string_equal(p.token, "");
    assert_int_equal(access(token_path, F_OK), -1); /* who would ask for it? */
    assert_int_equal(mode_of(socket_path), 0660);
    assert_int_equal(connect_unix(), 0);
    pid_t child = fork();
    if (child == 0) {
        admin_ports_close(&p);
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(connect_unix(), 0);
    admin_ports_close(&p);
    assert_int_equal(access(socket_path, F_OK), -1);
    admin_ports_close(&p);
}

static void one_that_was_left_behind_is_replaced(void **state)
{
    struct admin_ports p, other;
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &p, &err), 0);
    p.opener = 1; /* as after kill -9 */
    admin_ports_close(&p);
    assert_int_equal(connect_unix(), -ECONNREFUSED);
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &p, &err), 0);
    assert_int_equal(connect_unix(), 0);
    /* In use: a warning, and the gateway goes on without. */
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &other, &err), 0);
    assert_int_equal(other.socket_fd, -1);
    admin_ports_close(&other);
    assert_int_equal(connect_unix(), 0);
    admin_ports_close(&p);
}

static void off_is_off(void **state)
{
    struct admin_ports p;
    set("enabled", "no");
    set("port", "1");
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &p, &err), 0);
    assert_true(p.socket_fd == -1 && p.http_fd == -1);
    assert_int_equal(access(socket_path, F_OK), -1);
    admin_ports_close(&p);
}

static void a_port_in_use_is_an_error_that_names_its_key(void **state)
{
    struct admin_ports p;
    unsigned port;
    int fd = listen_somewhere(&port);
    set_in(&cfg, "admin", "port", "%u", port);
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &p, &err), -EADDRINUSE);
    assert_int_equal(err.n, 1);
    assert_string_equal(err.list[0].section, "admin");
    assert_string_equal(err.list[0].key, "port");
    assert_int_equal(access(socket_path, F_OK), -1);
    close(fd);
    set("address", "192.0.2.1");
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &p, &err), -EADDRNOTAVAIL);
    assert_string_equal(err.list[1].key, "address");
}

static void the_port_has_a_token_that_stays(void **state)
{
    struct admin_ports p;
    char first[ADMIN_TOKEN_MAX + 1];
    set_in(&cfg, "admin", "port", "%u", free_port());
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &p, &err), 0);
    assert_true(p.http_fd >= 0);
    assert_int_equal(strlen(p.token), 64);
    assert_int_equal(mode_of(token_path), 0600);
    memcpy(first, p.token, sizeof first);
    admin_ports_close(&p);
    assert_string_equal(p.token, "");
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &p, &err), 0);
    assert_string_equal(p.token, first);
    admin_ports_close(&p);
    set("token", "of-the-configuration");
    assert_int_equal(admin_ports_open(&cfg, (gid_t)-1, NULL, &p, &err), 0);
    assert_string_equal(p.token, "of-the-configuration");
    admin_ports_close(&p);
}

static void write_token(const char *text, mode_t mode)
{
    unlink(token_path);
    FILE *f = fopen(token_path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(token_path, mode), 0);
}

static void what_is_no_token_is_replaced(void **state)
{
    static const struct {
        const char *text;
        mode_t mode;
    } wrong[] = {
        {"", 0600},
        {"too-short\n", 0600},
        {"with a blank in the middle\n", 0600},
        {"0123456789abcdef0123456789abcdef\nand more\n", 0600},
        {"0123456789abcdef0123456789abcdef\n", 0666}, /* anybody could have written it */
    };
    char token[ADMIN_TOKEN_MAX + 1], before[ADMIN_TOKEN_MAX + 1] = "";
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_token(wrong[i].text, wrong[i].mode);
        assert_int_equal(admin_token_get(token_path, token), 0);
        assert_int_equal(strlen(token), 64);
        assert_string_not_equal(token, before);
        assert_int_equal(mode_of(token_path), 0600);
        memcpy(before, token, sizeof before);
    }
    write_token("chosen-by-hand-1234\n", 0640);
    assert_int_equal(admin_token_get(token_path, token), 0);
    assert_string_equal(token, "chosen-by-hand-1234");
    unlink(token_path);
    assert_int_equal(symlink("/etc/hostname", token_path), 0);
    assert_int_equal(admin_token_get(token_path, token), 0);
    assert_int_equal(mode_of(token_path), 0600); /* a file of ours now */
}

static void a_folder_that_is_gone_leaves_a_token_that_nobody_knows(void **state)
{
    char token[ADMIN_TOKEN_MAX + 1];
    assert_int_equal(admin_token_get("/does/not/exist/admin.token", token), -ENOENT);
    assert_int_equal(strlen(token), 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_unix_socket_is_there_and_goes_with_its_opener, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_was_left_behind_is_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(off_is_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_port_in_use_is_an_error_that_names_its_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_port_has_a_token_that_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_token_is_replaced, set_up, tear_down),
        cmocka_unit_test(a_folder_that_is_gone_leaves_a_token_that_nobody_knows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
