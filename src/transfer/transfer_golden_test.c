// SPDX-License-Identifier: MIT
/* Records that were written once, by every version that was released, are read by this one: every field is
 * what it was then, and what was not known then is 0 or empty.
 *
 *   test_transfer_golden tests/transfer
 *       v1, v2 ...   one record of each type with every field that it had; the last folder is of this version
 *       past         records with few fields
 *       future       records of a version that is not there yet
 *   each with NAME.bin and expected.txt: lines "NAME version N", "NAME TAG FIELD number N" and
 *   "NAME TAG FIELD bytes HEX"; a field that is not there is 0 or empty.
 *
 *   TGG_TRANSFER_WRITE=tests/transfer/v2 test_transfer_golden
 *       writes those of this version. Do so, into the last folder, whenever the list has changed; after a
 *       release into a new one. Those that were released are not touched any more. */
#include "transfer/transfer_fill_test.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- to write them */

static FILE *open_in(const char *folder, const char *name, const char *mode)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, mode);
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    return f;
}

static void write_expected(FILE *to, const struct transfer_layout *l, struct filled *f)
{
    fprintf(to, "%s version %u\n", l->name, l->version);
    for (unsigned tag = 0; tag < l->n; tag++) {
        const struct transfer_field *field = &l->fields[tag];
        if (field->kind == TRANSFER_NUMBER)
            fprintf(to, "%s %u %s number %llu\n", l->name, tag, field->name,
                    (unsigned long long)*filled_number(&f->r, field));
        if (field->kind != TRANSFER_BYTES)
            continue;
        struct slice s = *filled_slice(&f->r, field);
        fprintf(to, "%s %u %s bytes ", l->name, tag, field->name);
        for (size_t i = 0; i < s.len; i++)
            fprintf(to, "%02x", s.data[i]);
        fputc('\n', to);
    }
}

static int write_folder(const char *folder)
{
    static struct filled f;
    const struct transfer_layout *l;
    FILE *expected = open_in(folder, "expected.txt", "we");
    for (unsigned i = 0; (l = transfer__layout(i)) != NULL; i++) {
        struct bytes out = {0};
        char name[NAME_MAX];
        snprintf(name, sizeof name, "%s.bin", l->name);
        fill(&f, l);
        write_expected(expected, l, &f);
        FILE *bin = open_in(folder, name, "we");
        if (!transfer__put(&out, l, &f.r, true) || fwrite(out.data, 1, out.len, bin) != out.len ||
            fclose(bin) != 0)
            return 1;
        bytes_fini(&out);
    }
    return fclose(expected) == 0 ? 0 : 1;
}

/* ---- to read them */

static const char *root;

struct seen {
    const char *name; /* of the file, without .bin */
    const struct transfer_layout *l;
    unsigned version;
    union any_record r;
    bool is_expected[256]; /* by tag */
};

static size_t read_file(const char *folder, const char *name, uint8_t *buf, size_t cap)
{
    FILE *f = open_in(folder, name, "re");
    size_t len = fread(buf, 1, cap, f);
    assert_true(len < cap);
    fclose(f);
    return len;
}

static void check_number(const struct seen *s, const struct transfer_field *f, const char *text)
{
    assert_int_equal(f->kind, TRANSFER_NUMBER);
    uint64_t want = strtoull(text, NULL, 10);
    if (*filled_number((void *)(uintptr_t)&s->r, f) != want)
        fail_msg("%s.%s is not %s", s->name, f->name, text);
}

static void check_bytes(const struct seen *s, const struct transfer_field *f, const char *hex)
{
    assert_int_equal(f->kind, TRANSFER_BYTES);
    struct slice got = *filled_slice((void *)(uintptr_t)&s->r, f);
    if (strlen(hex) != 2 * got.len)
        fail_msg("%s.%s has %zu bytes", s->name, f->name, got.len);
    for (size_t i = 0; i < got.len; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        if (strtoul(digits, NULL, 16) != got.data[i])
            fail_msg("%s.%s differs at byte %zu", s->name, f->name, i);
    }
}

/* A line behind its first word. */
static void check_line(struct seen *s, char *rest)
{
    const char *word[4] = {NULL};
    for (unsigned i = 0; i < 4 && *rest != '\0'; i++) {
        word[i] = rest;
        rest += strcspn(rest, " \n");
        if (*rest != '\0')
            *rest++ = '\0';
    }
    assert_non_null(word[1]);
    if (strcmp(word[0], "version") == 0) {
        assert_int_equal(strtoul(word[1], NULL, 10), s->version);
        return;
    }
    unsigned long tag = strtoul(word[0], NULL, 10);
    assert_non_null(word[3]);
    if (tag >= s->l->n || s->l->fields[tag].kind == TRANSFER_NO_FIELD)
        fail_msg("%s: there is no tag %lu (%s) any more", s->name, tag, word[1]);
    const struct transfer_field *f = &s->l->fields[tag];
    if (strcmp(f->name, word[1]) != 0)
        fail_msg("%s: tag %lu was %s and is %s: a tag is never used again", s->name, tag, word[1], f->name);
    s->is_expected[tag] = true;
    if (strcmp(word[2], "number") == 0)
        check_number(s, f, word[3]);
    else
        check_bytes(s, f, word[3]);
}

static void check_lines(const char *folder, struct seen *s)
{
    FILE *f = open_in(folder, "expected.txt", "re");
    char line[4096];
    unsigned lines = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        char *rest = strchr(line, ' ');
        assert_non_null(rest);
        *rest = '\0';
        if (strcmp(line, s->name) == 0) {
            check_line(s, rest + 1);
            lines++;
        }
    }
    fclose(f);
    assert_true(lines > 1);
}

static void check_all_else_is_empty(const struct seen *s)
{
    for (unsigned tag = 0; tag < s->l->n; tag++) {
        const struct transfer_field *f = &s->l->fields[tag];
        if (s->is_expected[tag] || f->kind == TRANSFER_NO_FIELD)
            continue;
        if (f->kind == TRANSFER_NUMBER)
            check_number(s, f, "0");
        else
            check_bytes(s, f, "");
    }
}

static const struct transfer_layout *layout_of(unsigned type)
{
    const struct transfer_layout *l;
    for (unsigned i = 0; (l = transfer__layout(i)) != NULL && l->type != type; i++)
        ;
    return l;
}

/* ret->r points into buf. */
static void check_file(const char *folder, const char *name, uint8_t *buf, size_t cap, struct seen *ret)
{
    char file[NAME_MAX];
    struct transfer_record rec;
    struct transfer_head head;

    snprintf(file, sizeof file, "%s.bin", name);
    struct slice run = {buf, read_file(folder, file, buf, cap)};
    *ret = (struct seen){.name = name};
    assert_int_equal(transfer_next(&run, &rec), 1);
    assert_int_equal(run.len, 0);
    assert_int_equal(transfer__head_read(buf, &head), 0);
    ret->version = head.version;
    ret->l = layout_of(rec.type);
    assert_non_null(ret->l);
    assert_int_equal(transfer__get(ret->l, rec.fields, &ret->r), 0);
    check_lines(folder, ret);
    check_all_else_is_empty(ret);
}

static unsigned check_folder(const char *folder)
{
    static uint8_t buf[1 << 20];
    static struct seen seen;
    struct dirent *e;
    unsigned n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char name[NAME_MAX];
        size_t len = strlen(e->d_name);
        if (len <= 4 || strcmp(e->d_name + len - 4, ".bin") != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(len - 4), e->d_name);
        check_file(folder, name, buf, sizeof buf, &seen);
        n++;
    }
    closedir(d);
    return n;
}

static const char *folder_of(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static const char *folder_of_version(unsigned version)
{
    char name[16];
    snprintf(name, sizeof name, "v%u", version);
    return folder_of(name);
}

static unsigned last_version(void)
{
    unsigned n = 0;
    DIR *d;
    while ((d = opendir(folder_of_version(n + 1))) != NULL) {
        closedir(d);
        n++;
    }
    return n;
}

static void records_of_every_version_are_read(void **state)
{
    unsigned n = last_version();
    assert_true(n >= 1);
    for (unsigned v = 1; v <= n; v++)
        assert_true(check_folder(folder_of_version(v)) >= 8);
}

static void a_record_with_few_fields_is_read(void **state)
{
    assert_true(check_folder(folder_of("past")) >= 1);
}

static void a_record_of_a_later_version_is_read(void **state)
{
    assert_true(check_folder(folder_of("future")) >= 1);
}

static void this_version_has_its_records(void **state)
{
    static uint8_t buf[1 << 20];
    static struct seen seen;
    const struct transfer_layout *l;
    const char *folder = folder_of_version(last_version());
    const char *how = "the list has changed: TGG_TRANSFER_WRITE=tests/transfer/vN test_transfer_golden";
    for (unsigned i = 0; (l = transfer__layout(i)) != NULL; i++) {
        char path[PATH_MAX + 64];
        snprintf(path, sizeof path, "%s/%s.bin", folder, l->name);
        FILE *f = fopen(path, "re");
        if (f == NULL)
            fail_msg("%s is missing; %s", path, how);
        fclose(f);
        check_file(folder, l->name, buf, sizeof buf, &seen);
        if (seen.version != l->version)
            fail_msg("%s is of version %u; %s", path, seen.version, how);
        for (unsigned tag = 0; tag < l->n; tag++)
            if (l->fields[tag].kind != TRANSFER_NO_FIELD && !seen.is_expected[tag])
                fail_msg("%s has no %s; %s", path, l->fields[tag].name, how);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_of_every_version_are_read),
        cmocka_unit_test(a_record_with_few_fields_is_read),
        cmocka_unit_test(a_record_of_a_later_version_is_read),
        cmocka_unit_test(this_version_has_its_records),
    };
    const char *folder = getenv("TGG_TRANSFER_WRITE");
    if (folder != NULL)
        return write_folder(folder);
    if (argc != 2) {
        fprintf(stderr, "which folder?\n");
        return 2;
    }
    root = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
