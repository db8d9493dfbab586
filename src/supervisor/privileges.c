// SPDX-License-Identifier: MIT
#include "supervisor/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

/* ---- names */

static int unknown(struct config_error *err, unsigned line, const char *key, const char *name)
{
    config_error_add(err, line, "gateway", key, "there is no %s %s; expected one of this machine", key,
                     log_quote(name, strlen(name)));
    return -EINVAL;
}

static int resolve_user(const struct config_gateway *g, struct privileges *ret, struct config_error *err)
{
    const struct passwd *pw = getpwnam(g->user);
    if (pw == NULL)
        return unknown(err, g->line.user, "user", g->user);
    ret->uid = pw->pw_uid;
    ret->gid = pw->pw_gid;
    return 0;
}

static int resolve_group(const struct config_gateway *g, struct privileges *ret, struct config_error *err)
{
    const struct group *gr = getgrnam(g->group);
    if (gr == NULL)
        return unknown(err, g->line.group, "group", g->group);
    ret->gid = gr->gr_gid;
    return 0;
}

/* A user in more groups than that has the first of them. */
static void resolve_groups(const struct config_gateway *g, struct privileges *ret)
{
    ret->n_groups = PRIVILEGES_GROUPS_MAX;
    if (g->user[0] == '\0' || getgrouplist(g->user, ret->gid, ret->groups, &ret->n_groups) < 0) {
        ret->groups[0] = ret->gid;
        ret->n_groups = g->user[0] == '\0' ? 1 : PRIVILEGES_GROUPS_MAX;
    }
}

int privileges_resolve(const struct config *cfg, struct privileges *ret, struct config_error *err)
{
    const struct config_gateway *g = &cfg->gateway;
    struct privileges p = {.confine = g->sandbox == SANDBOX_ON, .uid = geteuid(), .gid = getegid()};
    int r = 0, r_group = 0;

    if (g->user[0] != '\0')
        r = resolve_user(g, &p, err);
    if (g->group[0] != '\0')
        r_group = resolve_group(g, &p, err);
    if (r < 0 || r_group < 0)
        return -EINVAL;
    p.ignored = geteuid() != 0 && (p.uid != geteuid() || p.gid != getegid());
    p.change = geteuid() == 0 && (g->user[0] != '\0' || g->group[0] != '\0');
    if (p.change)
        resolve_groups(g, &p);
    snprintf(p.user, sizeof p.user, "%s", g->user[0] != '\0' ? g->user : "as_started");
    *ret = p;
    return 0;
}

/* ---- dropping */

/* What a program could be given that we execute (we execute none). Asks for CAP_SETPCAP; who has not got that
 * has nothing to lose there, and no_new_privs holds anyway. */
static void drop_bounding_set(void)
{
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) < 0)
            return; /* past the last one that the kernel knows */
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    }
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* -1: kernel without them */
    return syscall(SYS_capset, &head, none) < 0 ? -errno : 0;
}

static int become(const struct privileges *p)
{
    uid_t r, e, s;
    if (setgroups((size_t)p->n_groups, p->groups) < 0 || setresgid(p->gid, p->gid, p->gid) < 0 ||
        setresuid(p->uid, p->uid, p->uid) < 0)
        return -errno;
    if (getresuid(&r, &e, &s) < 0 || r != p->uid || e != p->uid || s != p->uid)
        return -EPERM;
    return p->uid != 0 && setuid(0) == 0 ? -EPERM : 0; /* no way back */
}

int privileges_drop(const struct privileges *p, pid_t parent)
{
    int r = 0;
    if (p->confine)
        drop_bounding_set();
    if (p->change && (r = become(p)) < 0)
        return r;
    if (p->confine && ((r = drop_capabilities()) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0))
        return r < 0 ? r : -errno;
    /* It went with the user. What went too and stays so: other processes of that user may look into this one
     * (PR_SET_DUMPABLE), which has the keys; a process that crashes gives that up for its core file. */
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return -errno;
    return getppid() == parent ? 0 : -ESRCH; /* it died before PDEATHSIG was set */
}

/* ---- files of the children's own */

static int give(const struct privileges *p, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
        return -EINVAL;
    if (st.st_uid == p->uid && st.st_gid == p->gid)
        return 0;
    return fchown(fd, p->uid, p->gid) < 0 ? -errno : 0;
}

int privileges_give_file(const struct privileges *p, const char *path)
{
    int r = 0, flags = O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC;

    if (!p->change && !p->confine)
        return 0;
    /* To nobody else it may be what it likes: a link to the terminal, say. */
    int fd = open(path, flags | (p->change ? O_NOFOLLOW : 0), 0640);
    if (fd < 0)
        return -errno;
    if (p->change)
        r = give(p, fd);
    close(fd);
    return r;
}

static _Noreturn void try_in_child(const struct privileges *p, const char *path, pid_t parent)
{
    int r = privileges_drop(p, parent);
    if (r == 0) {
        int fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC);
        r = fd < 0 ? -errno : 0;
        close(fd);
    }
    _exit(-r & 255);
}

int privileges_try_append(const struct privileges *p, const char *path)
{
    int wstatus;
    pid_t parent = getpid(), pid = fork();

    if (pid == 0)
        try_in_child(p, path, parent);
    if (pid < 0)
        return -errno;
    while (waitpid(pid, &wstatus, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return WIFEXITED(wstatus) ? -WEXITSTATUS(wstatus) : -ECHILD;
}
