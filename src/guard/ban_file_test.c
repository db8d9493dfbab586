// SPDX-License-Identifier: MIT
#include "guard/ban_file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64], path[96];

static struct slice text_of(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

static struct cidr cidr_of(const char *s)
{
    struct cidr c;
    assert_int_equal(cidr_parse(s, strlen(s), &c), CIDR_OK);
    return c;
}

static int set_up(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/tgg-ban-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/bans", dir);
    return 0;
}

static int tear_down(void **state)
{
    unlink(path);
    return rmdir(dir); /* nothing else was left in it */
}

/* ---- lines */

static void lines_of_all_kinds(void **state)
{
    char why[BAN_WHY_MAX];
    struct ban b;
    assert_int_equal(ban_line_parse(text_of(""), &b, why, sizeof why), BAN_LINE_EMPTY);
    assert_int_equal(ban_line_parse(text_of(" \t# 10.0.0.0/8 5"), &b, why, sizeof why), BAN_LINE_EMPTY);
    assert_int_equal(ban_line_parse(text_of("\t10.0.0.0/8 \t 1700000000 # flood"), &b, why, sizeof why),
                     BAN_LINE_BAN);
    assert_int_equal(b.cidr.bits, 8);
    assert_int_equal(b.until_unix_s, 1700000000);
    assert_int_equal(ban_line_parse(text_of("2001:db8::1 5#x"), &b, why, sizeof why), BAN_LINE_BAN);
    assert_int_equal(b.cidr.bits, 128);
    assert_int_equal(ban_line_parse(text_of("10.0.0.1/8 5"), &b, why, sizeof why), BAN_LINE_WRONG);
    assert_non_null(strstr(why, "expected 10.0.0.0/8"));
    static const char *const bad[] = {"10.0.0.0/8",    "10.0.0.0/8 soon",   "10.0.0.0/8 5 6",
                                      "10.0.0.0/8 -5", "10.0.0.0/8 # 1700", "10.0.0.0/8 1234567890123456789",
                                      "10.0.0.0/8,5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(ban_line_parse(text_of(bad[i]), &b, why, sizeof why), BAN_LINE_WRONG);
}

static void comments(void **state)
{
    struct slice c = ban_line_comment(text_of("10.0.0.0/8 5 #  spam # again"));
    assert_true(slice_eq_str(c, "spam # again"));
    assert_int_equal(ban_line_comment(text_of("10.0.0.0/8 5")).len, 0);
    assert_int_equal(ban_line_comment(text_of("")).len, 0);
}

static void count_ban(void *ctx, const struct ban *b, struct slice comment)
{
    *(int64_t *)ctx += b->until_unix_s;
}

static void walking_tells_of_the_first_wrong_line_and_goes_on(void **state)
{
    int64_t sum = 0;
    unsigned line = 0;
    char why[BAN_WHY_MAX];
    assert_int_equal(ban_text_walk(text_of("# bans\r\n10.0.0.0/8 1\r\n\r\n::/0 20"), count_ban, &sum, &line,
                                   why, sizeof why),
                     0);
    assert_int_equal(sum, 21);
    sum = 0;
    assert_int_equal(
        ban_text_walk(text_of("10.0.0.0/8 1\nx\n10.0.0.0/9 2\ny\n"), count_ban, &sum, &line, why, sizeof why),
        -EINVAL);
    assert_int_equal(sum, 3);
    assert_int_equal(line, 2);
    assert_non_null(strstr(why, "\"x\""));
}

/* ---- editing */

static struct ban_edit edit;

static void assert_edited(const char *before, const char *cidr, int64_t until, const char *after)
{
    struct bytes out = {0};
    edit = (struct ban_edit){.change = {cidr_of(cidr), until}, .now_unix_s = 100};
    assert_int_equal(ban_text_edit(text_of(before), &edit, &out), 0);
    assert_true(slice_eq_str((struct slice){out.data, out.len}, after));
    bytes_fini(&out);
}

static void a_ban_is_added_behind_what_is_there(void **state)
{
    assert_edited("", "10.0.0.0/8", 200, "10.0.0.0/8 200\n");
    assert_edited("# head\n\n1.2.3.4 150 # why\r\n", "10.0.0.0/8", 200,
                  "# head\n\n1.2.3.4 150 # why\r\n10.0.0.0/8 200\n");
    assert_edited("1.2.3.4 150", "10.0.0.0/8", 200, "1.2.3.4 150\n10.0.0.0/8 200\n");
    assert_int_equal(edit.replaced, 0);
}

static void the_ban_of_the_same_prefix_is_replaced(void **state)
{
    assert_edited("10.0.0.0/8 150 # a\n10.0.0.0/9 150\n10.0.0.0/8 160\n", "10.0.0.0/8", 200,
                  "10.0.0.0/9 150\n10.0.0.0/8 200\n");
    assert_int_equal(edit.replaced, 2);
}

static void bans_that_are_over_go(void **state)
{
    assert_edited("# a\n1.1.1.1 100\n# b\n2.2.2.2 101\n3.3.3.3 0\n", "10.0.0.0/8", 200,
                  "# a\n# b\n2.2.2.2 101\n10.0.0.0/8 200\n");
    assert_int_equal(edit.expired, 2);
}

static void a_ban_is_lifted(void **state)
{
    assert_edited("# a\n1.1.1.1 150\n1.1.1.0/24 150\n", "1.1.1.1", 0, "# a\n1.1.1.0/24 150\n");
    assert_int_equal(edit.replaced, 1);
    assert_edited("1.1.1.0/24 150\n", "1.1.1.1", 0, "1.1.1.0/24 150\n");
    assert_int_equal(edit.replaced, 0);
}

static void a_wrong_line_stops_it(void **state)
{
    struct bytes out = {0};
    edit = (struct ban_edit){.change = {cidr_of("::1"), 200}, .now_unix_s = 100};
    assert_int_equal(ban_text_edit(text_of("::2 300\nwhat\n"), &edit, &out), -EINVAL);
    assert_int_equal(edit.line, 2);
    assert_non_null(strstr(edit.why, "\"what\""));
    bytes_fini(&out);
}

/* ---- the file */

static void write_file(const char *text, mode_t mode)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static void assert_file(const char *text)
{
    struct bytes b = {0};
    assert_int_equal(ban_file_read(path, &b), 0);
    assert_true(slice_eq_str((struct slice){b.data, b.len}, text));
    bytes_fini(&b);
}

static int edit_file(const char *cidr, int64_t until)
{
    edit = (struct ban_edit){.change = {cidr_of(cidr), until}, .now_unix_s = 100};
    return ban_file_edit(path, &edit);
}

static void a_missing_file_is_empty_and_is_made(void **state)
{
    struct stat st;
    assert_file("");
    assert_int_equal(edit_file("10.0.0.0/8", 200), 0);
    assert_file("10.0.0.0/8 200\n");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
}

static void permissions_stay(void **state)
{
    struct stat st;
    write_file("# mine\n", 0640);
    assert_int_equal(edit_file("10.0.0.0/8", 200), 0);
    assert_file("# mine\n10.0.0.0/8 200\n");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
}

static void a_wrong_file_is_left_as_it_is(void **state)
{
    write_file("nonsense\n", 0644);
    assert_int_equal(edit_file("10.0.0.0/8", 200), -EINVAL);
    assert_int_equal(edit.line, 1);
    assert_file("nonsense\n");
}

static void a_link_to_the_file_stays_a_link(void **state)
{
    char link_path[128];
    struct stat st;
    snprintf(link_path, sizeof link_path, "%s.link", path);
    write_file("# behind\n", 0644);
    assert_int_equal(symlink(path, link_path), 0);
    edit = (struct ban_edit){.change = {cidr_of("::1"), 200}, .now_unix_s = 100};
    assert_int_equal(ban_file_edit(link_path, &edit), 0);
    assert_int_equal(lstat(link_path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_file("# behind\n::1 200\n");
    unlink(link_path);
}

static void no_folder_is_an_error(void **state)
{
    edit = (struct ban_edit){.change = {cidr_of("::1"), 200}, .now_unix_s = 100};
    assert_int_equal(ban_file_edit("/tmp/tgg-ban-test-not-there/bans", &edit), -ENOENT);
}

/* Several commands at once: none of their bans is lost. */
static void editors_at_the_same_time_wait_for_each_other(void **state)
{
    for (unsigned p = 0; p < 4; p++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        for (unsigned i = 0; pid == 0 && i < 10; i++) {
            char cidr[32];
            snprintf(cidr, sizeof cidr, "10.0.%u.%u", p, i);
            if (edit_file(cidr, 200) != 0)
                _exit(1);
        }
        if (pid == 0)
            _exit(0);
    }
    for (unsigned p = 0; p < 4; p++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    struct bytes b = {0};
    int64_t sum = 0;
    unsigned line;
    assert_int_equal(ban_file_read(path, &b), 0);
    assert_int_equal(ban_text_walk((struct slice){b.data, b.len}, count_ban, &sum, &line, NULL, 0), 0);
    assert_int_equal(sum, 40 * 200);
    bytes_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_all_kinds),
        cmocka_unit_test(comments),
        cmocka_unit_test(walking_tells_of_the_first_wrong_line_and_goes_on),
        cmocka_unit_test(a_ban_is_added_behind_what_is_there),
        cmocka_unit_test(the_ban_of_the_same_prefix_is_replaced),
        cmocka_unit_test(bans_that_are_over_go),
        cmocka_unit_test(a_ban_is_lifted),
        cmocka_unit_test(a_wrong_line_stops_it),
        cmocka_unit_test_setup_teardown(a_missing_file_is_empty_and_is_made, set_up, tear_down),
        cmocka_unit_test_setup_teardown(permissions_stay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_wrong_file_is_left_as_it_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_link_to_the_file_stays_a_link, set_up, tear_down),
        cmocka_unit_test(no_folder_is_an_error),
        cmocka_unit_test_setup_teardown(editors_at_the_same_time_wait_for_each_other, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
