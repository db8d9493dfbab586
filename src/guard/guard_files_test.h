// SPDX-License-Identifier: MIT
/* For the tests of guard/: a configuration, and files of lists in a folder of their own. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/hash.h"
#include "guard/guard.h"

static char test_dir[64];
static struct config cfg;
static struct config_error err;
static struct counters counters;
static struct files *test_files;

__attribute__((unused)) static const char *path_of(const char *name)
{
    static char ring[4][128];
    static unsigned turn;
    char *path = ring[turn++ % 4];
    snprintf(path, sizeof ring[0], "%s/%s", test_dir, name);
    return path;
}

__attribute__((unused)) static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

__attribute__((unused, format(printf, 2, 3))) static void set(const char *key, const char *fmt, ...)
{
    char value[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    assert_int_equal(config_set(&cfg, "gateway", key, value, &err), 0);
}

__attribute__((unused)) static void load_files(void)
{
    files_free(test_files);
    test_files = NULL;
    assert_int_equal(files_load(&cfg, (struct slice){0}, &test_files, &err), 0);
}

/* The n-th problem as it is printed, without the name of the file. */
__attribute__((unused)) static const char *problem(unsigned i)
{
    static char line[1024];
    if (i >= err.n)
        return "(no such problem)";
    return strchr(config_problem_format(&err, i, line, sizeof line), '[');
}

static int set_up(void **state)
{
    hash_init_fixed(1);
    err = (struct config_error){0};
    counters = (struct counters){0};
    snprintf(test_dir, sizeof test_dir, "/tmp/tgg-guard-test-XXXXXX");
    assert_non_null(mkdtemp(test_dir));
    config_defaults(&cfg);
    set("runtime_dir", "%s", test_dir);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"bans", "a", "b"};
    for (unsigned i = 0; i < 3; i++)
        unlink(path_of(names[i]));
    files_free(test_files);
    test_files = NULL;
    config_fini(&cfg);
    return rmdir(test_dir);
}

__attribute__((unused)) static struct net_addr addr_of(const char *text)
{
    struct net_addr a;
    char full[80];
    snprintf(full, sizeof full, strchr(text, ':') != NULL ? "[%s]:1" : "%s:1", text);
    assert_int_equal(net_addr_parse(full, &a), 0);
    return a;
}
