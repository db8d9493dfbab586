// SPDX-License-Identifier: MIT
/* Each look at what a child has become is made in one. As another user than root only what needs none is
 * looked at. */
#include "supervisor/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static struct config cfg;
static struct config_error err;
static char dir[64];

static int set_up(void **state)
{
    err = (struct config_error){0};
    config_defaults(&cfg);
    snprintf(dir, sizeof dir, "/tmp/tgg-privileges-test-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int tear_down(void **state)
{
    config_fini(&cfg);
    return rmdir(dir);
}

static void set(const char *key, const char *value)
{
    assert_int_equal(config_set(&cfg, "gateway", key, value, &err), 0);
}

static struct privileges resolved(void)
{
    struct privileges p;
    assert_int_equal(privileges_resolve(&cfg, &p, &err), 0);
    return p;
}

/* A field of /proc/self/status as text, without the blanks before it. */
static void status_of(const char *name, char *ret, size_t cap)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "re");
    ret[0] = '\0';
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        size_t len = strlen(name);
        if (strncmp(line, name, len) != 0 || line[len] != ':')
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(ret, cap, "%s", line + len + 1 + strspn(line + len + 1, " \t"));
    }
    if (f != NULL)
        fclose(f);
}

static bool status_is(const char *name, const char *expected)
{
    char got[256];
    status_of(name, got, sizeof got);
    return strcmp(got, expected) == 0;
}

static unsigned failed_at; /* line of the first look that was not as expected */
#define LOOK(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition) && failed_at == 0)                                                                  \
            failed_at = __LINE__;                                                                            \
    } while (0)

/* Runs it in a child with these privileges; the line of its first LOOK that failed, 0 when all is well. */
static unsigned in_child(const struct privileges *p, void (*look)(void))
{
    int wstatus, fds[2];
    unsigned line = 0;
    pid_t parent = getpid();

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        failed_at = 0;
        LOOK(privileges_drop(p, parent) == 0);
        look();
        _exit(write(fds[1], &failed_at, sizeof failed_at) == sizeof failed_at ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &wstatus, 0), pid);
    assert_int_equal(wstatus, 0);
    assert_int_equal(read(fds[0], &line, sizeof line), sizeof line);
    close(fds[0]);
    close(fds[1]);
    return line;
}

static void unknown_names_are_told(void **state)
{
    struct privileges p;
    set("user", "no-such-user");
    set("group", "no-such-group");
    cfg.gateway.line.user = 3;
    assert_int_equal(privileges_resolve(&cfg, &p, &err), -EINVAL);
    assert_int_equal(err.n, 2);
    assert_string_equal(err.list[0].key, "user");
    assert_int_equal(err.list[0].line, 3);
    assert_non_null(strstr(err.list[0].text, "no-such-user"));
    assert_string_equal(err.list[1].key, "group");
}

static void look_confined(void)
{
    int sig = 0;
    LOOK(status_is("CapEff", "0000000000000000"));
    LOOK(status_is("CapPrm", "0000000000000000"));
    LOOK(status_is("CapInh", "0000000000000000"));
    LOOK(status_is("CapAmb", "0000000000000000"));
    LOOK(status_is("NoNewPrivs", "1"));
    LOOK(geteuid() != 0 || status_is("CapBnd", "0000000000000000"));
    LOOK(prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == SIGTERM);
}

static void the_sandbox_leaves_no_capabilities(void **state)
{
    struct privileges p = resolved();
    assert_false(p.change);
    assert_true(p.confine);
    assert_int_equal(in_child(&p, look_confined), 0);
}

static void look_as_started(void)
{
    LOOK(status_is("NoNewPrivs", "0"));
    LOOK(getuid() != 0 || !status_is("CapEff", "0000000000000000"));
}

static void without_it_all_is_as_it_was(void **state)
{
    set("sandbox", "off");
    struct privileges p = resolved();
    assert_int_equal(in_child(&p, look_as_started), 0);
}

static uid_t nobody;
static gid_t nogroup;

static void look_nobody(void)
{
    uid_t r, e, s;
    gid_t groups[8];
    char text[64];
    look_confined();
    LOOK(getresuid(&r, &e, &s) == 0 && r == nobody && e == nobody && s == nobody);
    LOOK(getresgid(&r, &e, &s) == 0 && r == nogroup && e == nogroup && s == nogroup);
    LOOK(getgroups(8, groups) == 1 && groups[0] == nogroup);
    snprintf(text, sizeof text, "%u\t%u\t%u\t%u", nobody, nobody, nobody, nobody);
    LOOK(status_is("Uid", text)); /* the file system's too */
    LOOK(status_is("CapBnd", "0000000000000000"));
    LOOK(setuid(0) < 0 && setgid(0) < 0 && seteuid(0) < 0);
    LOOK(access("/etc/shadow", R_OK) < 0);
}

static void look_nobody_loose(void)
{
    LOOK(getuid() == nobody && geteuid() == nobody && getgid() == nogroup);
    LOOK(status_is("CapEff", "0000000000000000"));
    LOOK(status_is("CapPrm", "0000000000000000"));
    LOOK(status_is("NoNewPrivs", "0"));
    LOOK(setuid(0) < 0);
    LOOK(prctl(PR_GET_DUMPABLE) != 1); /* others of that user may not look into it */
}

static void root_becomes_the_user(void **state)
{
    const struct passwd *pw = getpwnam("nobody");
    if (geteuid() != 0 || pw == NULL) {
        print_message("only root can become another: not looked at\n");
        return;
    }
    nobody = pw->pw_uid;
    nogroup = pw->pw_gid;
    set("user", "nobody");
    struct privileges p = resolved();
    assert_true(p.change);
    assert_int_equal(in_child(&p, look_nobody), 0);
    set("sandbox", "off");
    p = resolved();
    assert_int_equal(in_child(&p, look_nobody_loose), 0);
}

static gid_t other_group;

static void look_group(void)
{
    gid_t groups[8];
    LOOK(getgid() == other_group && getegid() == other_group);
    LOOK(getgroups(8, groups) >= 1);
}

static void the_group_can_be_another(void **state)
{
    const struct group *gr = getgrnam("daemon");
    if (geteuid() != 0 || gr == NULL) {
        print_message("only root can change its group: not looked at\n");
        return;
    }
    other_group = gr->gr_gid;
    set("group", "daemon");
    struct privileges p = resolved();
    assert_true(p.change);
    assert_int_equal(p.uid, 0);
    assert_int_equal(in_child(&p, look_group), 0);
    set("user", "nobody");
    p = resolved();
    assert_int_equal(in_child(&p, look_group), 0);
}

static void who_is_not_root_stays_who_he_is(void **state)
{
    int wstatus;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct privileges p;
        if (geteuid() == 0 && setuid(65534) < 0)
            _exit(1);
        set("user", "root");
        _exit(privileges_resolve(&cfg, &p, &err) != 0 || p.change || !p.ignored ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &wstatus, 0), pid);
    assert_int_equal(wstatus, 0);
}

/* ---- files */

static void a_log_is_given_to_the_user(void **state)
{
    char path[96], link[96], other[96];
    struct stat st;
    if (geteuid() != 0 || getpwnam("nobody") == NULL) {
        print_message("only root can give files away: not looked at\n");
        return;
    }
    set("user", "nobody");
    struct privileges p = resolved();
    snprintf(path, sizeof path, "%s/shard-0.log", dir);
    snprintf(link, sizeof link, "%s/link", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    assert_int_equal(privileges_try_append(&p, path), -EACCES); /* the folder is root's and 0700 */
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(privileges_try_append(&p, path), -ENOENT);
    assert_int_equal(privileges_give_file(&p, path), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, p.uid);
    assert_int_equal(st.st_gid, p.gid);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(privileges_try_append(&p, path), 0);
    assert_int_equal(privileges_give_file(&p, path), 0); /* again */

    assert_int_equal(symlink("/etc/passwd", link), 0);
    assert_int_equal(privileges_give_file(&p, link), -ELOOP);
    int fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    unlink(link);
    assert_int_equal(linkat(AT_FDCWD, other, AT_FDCWD, link, 0), 0);
    assert_int_equal(privileges_give_file(&p, link), -EINVAL);
    unlink(link);
    assert_int_equal(stat(other, &st), 0);
    assert_int_equal(st.st_uid, 0);
    assert_int_equal(privileges_try_append(&p, other), -EACCES);
    unlink(path);
    unlink(other);
}

static void without_a_user_files_stay_whose_they_are(void **state)
{
    char path[96], link[96];
    struct privileges p;
    set("sandbox", "off");
    p = resolved();
    snprintf(path, sizeof path, "%s/x.log", dir);
    snprintf(link, sizeof link, "%s/link", dir);
    assert_int_equal(privileges_give_file(&p, path), 0);
    assert_int_equal(access(path, F_OK), -1); /* whoever opens it makes it */
    set("sandbox", "on");
    p = resolved();
    assert_int_equal(privileges_give_file(&p, path), 0);
    assert_int_equal(privileges_try_append(&p, path), 0);
    assert_int_equal(symlink(path, link), 0); /* ours to know why */
    assert_int_equal(privileges_give_file(&p, link), 0);
    if (geteuid() == 0) { /* another user's folder: root without capabilities can only open its own there */
        assert_int_equal(chown(dir, 65534, 65534), 0);
        assert_int_equal(chmod(dir, 0755), 0);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(privileges_give_file(&p, path), 0);
        assert_int_equal(privileges_try_append(&p, path), 0);
    }
    unlink(link);
    unlink(path);
}

static void a_child_whose_parent_is_gone_does_not_go_on(void **state)
{
    int wstatus;
    struct privileges p = resolved();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(privileges_drop(&p, getppid() + 1) == -ESRCH ? 0 : 1);
    assert_int_equal(waitpid(pid, &wstatus, 0), pid);
    assert_int_equal(wstatus, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unknown_names_are_told),
        TEST(the_sandbox_leaves_no_capabilities),
        TEST(without_it_all_is_as_it_was),
        TEST(root_becomes_the_user),
        TEST(the_group_can_be_another),
        TEST(who_is_not_root_stays_who_he_is),
        TEST(a_log_is_given_to_the_user),
        TEST(without_a_user_files_stay_whose_they_are),
        TEST(a_child_whose_parent_is_gone_does_not_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
