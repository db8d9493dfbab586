// SPDX-License-Identifier: MIT
#include "supervisor/crash_record.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "proto/gw/packet.h"
#include "supervisor/build.h"

static struct shard_crash crash;
static struct crash_death death;
static struct bytes text;

static int fresh(void **state)
{
    crash = (struct shard_crash){0};
    death = (struct crash_death){
        .shard = 3,
        .pid = 4711,
        .signal = SIGSEGV,
        .unix_ms = INT64_C(1795363200000), /* 2026-11-22T16:00:00Z */
        .loop_ms = 10000,
    };
    return 0;
}

static int clean(void **state)
{
    bytes_fini(&text);
    return 0;
}

static const char *written(void)
{
    bytes_clear(&text);
    crash_text(&death, &crash, &text);
    bytes_append_byte(&text, '\0');
    assert_false(text.failed);
    return (const char *)text.data;
}

static void note_commands(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct crash_command c = {.loop_ns = (UINT64_C(5000) + i) * 1000000,
                                  .link = i,
                                  .connection_id = 100 + i,
                                  .len = 28,
                                  .cmd = 5};
        shard_crash_command(&crash, &c);
    }
}

static void a_crash_is_told_from_its_signal_to_its_commands(void **state)
{
    char id[BUILD_ID_STRLEN];
    crash.signal = SIGSEGV;
    crash.code = 1;
    crash.address = 0x18;
    crash.unix_ms = death.unix_ms - 2000;
    crash.loop_ms = 8000;
    crash.base = build_base();
    crash.frames[0] = (uintptr_t)getpid;
    crash.frames[1] = 0x10;
    crash.n_frames = 2;
    note_commands(3);
    const char *t = written();
    assert_non_null(strstr(t, "shard 3, pid 4711, died at 2026-11-22T15:59:58Z by signal 11 (SEGV)"));
    assert_non_null(strstr(t, build_id(id)));
    assert_non_null(strstr(t, "code 1, address 0x18"));
    assert_non_null(strstr(t, "#0  libc.so.6+0x"));
    assert_non_null(strstr(t, "getpid+0x0"));
    assert_non_null(strstr(t, "#1  0x10"));
    assert_non_null(strstr(t, "    2998 ms before: SEND_TO_ONE (5), connection_id 102, 28 bytes, link 2"));
    assert_true(strstr(t, "connection_id 102") < strstr(t, "connection_id 100"));
    assert_null(strstr(t, "assertion"));
}

static void an_assertion_is_told(void **state)
{
    crash.signal = death.signal = SIGABRT;
    snprintf(crash.assertion, sizeof crash.assertion, "a == b (x.c:5, f)");
    crash.code = -6;
    crash.address = 4711;
    assert_non_null(strstr(written(), "assertion failed: a == b (x.c:5, f)\n"));
    assert_non_null(strstr(written(), "sent by process 4711\n"));
}

static void without_a_handler_there_are_the_commands(void **state)
{
    death.signal = SIGKILL;
    note_commands(1);
    const char *t = written();
    assert_non_null(strstr(t, "by signal 9 (KILL)"));
    assert_non_null(strstr(t, "there is no stack"));
    assert_non_null(strstr(t, "5000 ms before: SEND_TO_ONE"));
}

static void the_last_commands_are_kept(void **state)
{
    note_commands(CRASH_COMMANDS + 10);
    const char *t = written();
    assert_non_null(strstr(t, "commands: 74 in all, the last 64"));
    assert_non_null(strstr(t, "connection_id 173,"));
    assert_non_null(strstr(t, "connection_id 110,"));
    assert_null(strstr(t, "connection_id 109,"));
}

/* A process that went wrong may have written over it. */
static void nonsense_does_no_harm(void **state)
{
    memset(&crash, 0xff, sizeof crash);
    assert_non_null(strstr(written(), "assertion failed: ????"));
    crash.n_commands = 5;
    crash.signal = INT32_MIN;
    crash.n_frames = UINT32_MAX;
    assert_non_null(strstr(written(), "UNKNOWN (255)"));
    death.signal = 4000;
    written();
}

static unsigned count_files(const char *folder)
{
    unsigned n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += strncmp(e->d_name, "crash-", 6) == 0;
    closedir(d);
    return n;
}

static void remove_folder(const char *path)
{
    char file[512];
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        unlink(file);
    }
    closedir(d);
    assert_int_equal(rmdir(path), 0);
}

static void the_last_files_are_kept(void **state)
{
    char folder[] = "/tmp/tgg-crash-test-XXXXXX", path[128], first[128], other[128];
    struct stat st;
    assert_non_null(mkdtemp(folder));
    snprintf(other, sizeof other, "%s/crash-report.txt", folder);
    FILE *f = fopen(other, "we");
    fclose(f);
    assert_int_equal(crash_file_write(folder, &death, SLICE_STR("a"), first, sizeof first), 0);
    assert_string_equal(strrchr(first, '/'), "/crash-shard3-20261122T160000Z.txt");
    assert_int_equal(stat(first, &st), 0);
    assert_int_equal(st.st_size, 1);
    assert_int_equal(crash_file_write(folder, &death, SLICE_STR("b"), path, sizeof path), 0);
    assert_string_equal(strrchr(path, '/'), "/crash-shard3-20261122T160000Z-2.txt");
    for (unsigned i = 0; i < 25; i++) {
        death.unix_ms += 1000;
        death.shard = i % 12; /* another order than that of the names */
        assert_int_equal(crash_file_write(folder, &death, SLICE_STR("c"), path, sizeof path), 0);
    }
    assert_int_equal(count_files(folder), CRASH_FILES_MAX + 1);
    assert_int_equal(stat(first, &st), -1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(stat(other, &st), 0); /* somebody else's */
    remove_folder(folder);
    assert_int_equal(crash_file_write(folder, &death, SLICE_STR("d"), path, sizeof path), -ENOENT);
}

static void an_address_of_a_library_is_told_as_such(void **state)
{
    char buf[128];
    assert_int_equal(strncmp(build_explain((uintptr_t)getpid + 4, buf, sizeof buf), "libc.so.6+0x", 12), 0);
    assert_non_null(strstr(buf, "getpid+0x4"));
    assert_string_equal(build_explain(3, buf, sizeof buf), "0x3");
    assert_true(build_base() != 0 && build_base() < (uintptr_t)fresh);
    char id[BUILD_ID_STRLEN];
    assert_int_equal(strlen(build_id(id)), 40);
    assert_int_equal(strspn(id, "0123456789abcdef"), 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_crash_is_told_from_its_signal_to_its_commands, fresh, clean),
        cmocka_unit_test_setup_teardown(an_assertion_is_told, fresh, clean),
        cmocka_unit_test_setup_teardown(without_a_handler_there_are_the_commands, fresh, clean),
        cmocka_unit_test_setup_teardown(the_last_commands_are_kept, fresh, clean),
        cmocka_unit_test_setup_teardown(nonsense_does_no_harm, fresh, clean),
        cmocka_unit_test_setup_teardown(the_last_files_are_kept, fresh, clean),
        cmocka_unit_test(an_address_of_a_library_is_told_as_such),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
