// SPDX-License-Identifier: MIT
/* Where things are written: core files, runtime_dir, logs; and whether the clock is right. */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor/doctor_priv.h"

static bool is_there(const struct doctor *d, const char *path)
{
    char whole[PATH_MAX];
    return access(doctor__path(d, path, whole, sizeof whole), F_OK) == 0;
}

/* The folder itself, or else the nearest one above it that is there, is a folder that we may write to. */
static bool may_be_made(const struct doctor *d, const char *path)
{
    char at[PATH_MAX], whole[PATH_MAX];
    struct stat st;

    snprintf(at, sizeof at, "%s", path);
    for (;;) {
        const char *name = doctor__path(d, at[0] != '\0' ? at : "/", whole, sizeof whole);
        if (stat(name, &st) == 0)
            return S_ISDIR(st.st_mode) && access(name, W_OK | X_OK) == 0;
        char *slash = strrchr(at, '/');
        if (slash == NULL)
            return false;
        *slash = '\0';
    }
}

/* ---- core files */

#define CORE_FOLDER "/var/corefiles"

static void say_pattern(struct doctor_finding *f)
{
    DOCTOR_SAY(f->wanted,
               "a program (|...), or a folder that the shards' user may write to, such as " CORE_FOLDER);
    DOCTOR_SAY(f->now, "install -d -m 1777 " CORE_FOLDER " && sysctl -w kernel.core_pattern=" CORE_FOLDER
                       "/core.%%e.%%p.%%t");
    DOCTOR_SAY(f->keep,
               "kernel.core_pattern = " CORE_FOLDER "/core.%%e.%%p.%%t in /etc/sysctl.d/90-tgg.conf");
}

static void look_at_core_pattern(struct doctor *d)
{
    static const char key[] = "kernel.core_pattern";
    char text[256], folder[PATH_MAX];

    if (!doctor__read_sysctl(d, key, text, sizeof text)) {
        doctor__unknown(d, key, "this sysctl");
        return;
    }
    const char *slash = strrchr(text, '/');
    snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - text) : 0, text);
    bool works = text[0] == '|' ||
                 (text[0] == '/' && is_there(d, folder[0] != '\0' ? folder : "/") && may_be_made(d, folder));
    struct doctor_finding *f = doctor__add(
        d, key, works ? DOCTOR_OK : DOCTOR_WARN,
        text[0] == '/' ? "that folder is not there or not writable: a crash leaves no core file"
                       : "a name without a folder: the core file lands in whatever folder tgg was started "
                         "in, if it is writable");
    DOCTOR_SAY(f->found, "%.160s", text);
    if (!works)
        say_pattern(f);
}

static void look_at_core_limit(struct doctor *d)
{
    uint64_t soft, hard;

    if (!doctor__read_limit(d, "Max core file size", &soft, &hard)) {
        doctor__unknown(d, "core_limit", "/proc/self/limits");
        return;
    }
    struct doctor_finding *f =
        doctor__add(d, "core_limit", hard == 0 ? DOCTOR_WARN : DOCTOR_OK,
                    "without core files there is only the stack in the log to see why a shard crashed");
    if (hard == UINT64_MAX)
        DOCTOR_SAY(f->found, "hard limit unlimited");
    else
        DOCTOR_SAY(f->found, "hard limit %" PRIu64 " bytes", hard);
    DOCTOR_SAY(f->wanted, "unlimited (tgg raises the soft limit to the hard one)");
    if (hard == 0) {
        DOCTOR_SAY(f->now, "ulimit -Hc unlimited (as root, in the shell that then starts tgg)");
        DOCTOR_SAY(f->keep, "LimitCORE=infinity in [Service] of the systemd unit");
    }
}

/* ---- folders of the configuration */

/* The type of the file system that holds a path, by /proc/self/mounts. */
static bool file_system_of(const struct doctor *d, const char *path, char *ret, size_t cap)
{
    static char text[1 << 16];
    size_t best = 0;

    if (!doctor__read(d, "/proc/self/mounts", text, sizeof text))
        return false;
    for (const char *line = text; *line != '\0';) {
        const char *point = line + strcspn(line, " \n"), *type;
        point += *point == ' ';
        size_t len = strcspn(point, " \n");
        type = point + len + (point[len] == ' ');
        /* "/" holds all; "/run" holds "/run" and "/run/x", not "/running". */
        bool holds = len == 1 || (strncmp(path, point, len) == 0 && (path[len] == '/' || path[len] == '\0'));
        if (holds && len >= best && len > 0) {
            best = len;
            snprintf(ret, cap, "%.*s", (int)strcspn(type, " \n"), type);
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return best > 0;
}

static void look_at_runtime_dir(struct doctor *d)
{
    const char *dir = d->cfg->gateway.runtime_dir;
    char type[64];
    bool writable = may_be_made(d, dir), seen = file_system_of(d, dir, type, sizeof type);
    bool in_memory = !seen || strcmp(type, "tmpfs") == 0;
    struct doctor_finding *f =
        doctor__add(d, "runtime_dir",
                    !writable    ? DOCTOR_BAD
                    : !in_memory ? DOCTOR_WARN
                                 : DOCTOR_OK,
                    !writable ? "the gateway keeps its counters, connection_ids and sockets there"
                              : "counters are written all the time: on a disk the kernel writes them out, "
                                "and a shard may wait for that");
    DOCTOR_SAY(f->found, "%.100s: %s%s%s", dir, writable ? "" : "cannot be written or made by this user; ",
               seen ? "on " : "file system not known", seen ? type : "");
    DOCTOR_SAY(f->wanted, "a folder on a tmpfs that the user who starts tgg may write to");
    if (!writable)
        DOCTOR_SAY(f->now, "install -d -m 0755 -o USER %.200s", dir);
    if (!writable || !in_memory)
        DOCTOR_SAY(f->keep, "RuntimeDirectory=tgg_gw in [Service] of the systemd unit (it is /run/tgg_gw), "
                            "and runtime_dir = /run/tgg_gw");
}

static void look_at_log_folder(struct doctor *d)
{
    const char *dir = d->cfg->log.directory;
    struct doctor_finding *f;

    if (d->cfg->log.target != LOG_TARGET_FILE) {
        f = doctor__add(d, "log_directory", DOCTOR_OK, "");
        DOCTOR_SAY(f->found, "not used: target is stderr");
        return;
    }
    bool writable = may_be_made(d, dir);
    f = doctor__add(d, "log_directory", writable ? DOCTOR_OK : DOCTOR_BAD,
                    "the gateway does not start when it cannot write its logs");
    DOCTOR_SAY(f->found, "%.100s: %s", dir,
               writable ? "can be written" : "cannot be written or made by this user");
    DOCTOR_SAY(f->wanted, "a folder that the user who starts tgg may write to");
    if (!writable) {
        DOCTOR_SAY(f->now, "install -d -m 0755 -o USER %.200s", dir);
        DOCTOR_SAY(f->keep,
                   "LogsDirectory=tgg_gateway in [Service] of the systemd unit (it is /var/log/tgg_gateway)");
    }
}

/* ---- time */

/* By what the usual services leave in /run; a container has the clock of its host. */
static void look_at_time(struct doctor *d)
{
    static const char *const signs[] = {"/run/systemd/timesync/synchronized",
                                        "/run/chrony/chronyd.pid",
                                        "/run/chronyd.pid",
                                        "/run/chrony",
                                        "/run/ntpd.pid",
                                        "/run/openntpd.pid",
                                        "/run/ntpsec"};
    static const char *const containers[] = {"/run/systemd/container", "/.dockerenv", "/run/.containerenv"};

    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (is_there(d, signs[i])) {
            struct doctor_finding *f = doctor__add(d, "time", DOCTOR_OK, "");
            DOCTOR_SAY(f->found, "kept right (%s)", signs[i]);
            return;
        }
    }
    for (size_t i = 0; i < sizeof containers / sizeof containers[0]; i++) {
        if (is_there(d, containers[i])) {
            doctor__unknown(d, "time", "in a container, who keeps the clock right,");
            return;
        }
    }
    struct doctor_finding *f =
        doctor__add(d, "time", DOCTOR_WARN, "bans, certificates and logs go by the clock");
    DOCTOR_SAY(f->found, "no sign of a service that keeps the clock right");
    DOCTOR_SAY(f->wanted, "systemd-timesyncd, chrony or ntpsec");
    DOCTOR_SAY(f->now, "timedatectl set-ntp true");
    DOCTOR_SAY(f->keep, "package systemd-timesyncd or chrony");
}

void doctor__look_at_folders(struct doctor *d)
{
    look_at_core_limit(d);
    look_at_core_pattern(d);
    look_at_runtime_dir(d);
    look_at_log_folder(d);
    look_at_time(d);
}
