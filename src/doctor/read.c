// SPDX-License-Identifier: MIT
#include "doctor/doctor_priv.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *doctor__path(const struct doctor *d, const char *path, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s%s", d->root, path);
    return buf;
}

bool doctor__read(const struct doctor *d, const char *path, char *buf, size_t cap)
{
    char whole[PATH_MAX];
    size_t len = 0;

    int fd = open(doctor__path(d, path, whole, sizeof whole), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    for (ssize_t n; len + 1 < cap && (n = read(fd, buf + len, cap - 1 - len)) > 0;)
        len += (size_t)n;
    close(fd);
    while (len > 0 && strchr(" \t\n", buf[len - 1]) != NULL)
        len--;
    buf[len] = '\0';
    return len > 0;
}

unsigned doctor__numbers(const char *text, uint64_t *ret, unsigned n)
{
    unsigned i = 0;

    for (; i < n; i++) {
        char *end;
        text += strspn(text, " \t");
        if (*text < '0' || *text > '9')
            break;
        ret[i] = strtoull(text, &end, 10);
        text = end;
    }
    return i;
}

bool doctor__read_u64(const struct doctor *d, const char *path, uint64_t *ret)
{
    char text[64];
    return doctor__read(d, path, text, sizeof text) && doctor__numbers(text, ret, 1) == 1;
}

bool doctor__read_sysctl(const struct doctor *d, const char *key, char *buf, size_t cap)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "/proc/sys/%s", key);
    for (char *p = path; *p != '\0'; p++) {
        if (*p == '.')
            *p = '/';
    }
    return doctor__read(d, path, buf, cap);
}

/* The rest of the line that begins with `name` in a file of lines. */
static bool read_line(const struct doctor *d, const char *path, const char *name, char *buf, size_t cap)
{
    char text[16384];

    if (!doctor__read(d, path, text, sizeof text))
        return false;
    for (char *line = text; *line != '\0';) {
        size_t len = strcspn(line, "\n");
        if (strncmp(line, name, strlen(name)) == 0) {
            const char *value = line + strlen(name);
            value += strspn(value, " \t");
            snprintf(buf, cap, "%.*s", (int)(line + len - value), value);
            return true;
        }
        line += len + (line[len] == '\n');
    }
    return false;
}

static const char *read_limit_word(const char *text, uint64_t *ret)
{
    text += strspn(text, " ");
    if (strncmp(text, "unlimited", 9) == 0) {
        *ret = UINT64_MAX;
        return text + 9;
    }
    if (doctor__numbers(text, ret, 1) != 1)
        return NULL;
    return text + strspn(text, "0123456789");
}

bool doctor__read_limit(const struct doctor *d, const char *name, uint64_t *ret_soft, uint64_t *ret_hard)
{
    char line[256];

    if (!read_line(d, "/proc/self/limits", name, line, sizeof line))
        return false;
    const char *rest = read_limit_word(line, ret_soft);
    return rest != NULL && read_limit_word(rest, ret_hard) != NULL;
}

bool doctor__read_meminfo(const struct doctor *d, const char *name, uint64_t *ret)
{
    char start[64], line[128];

    snprintf(start, sizeof start, "%s:", name);
    if (!read_line(d, "/proc/meminfo", start, line, sizeof line) || doctor__numbers(line, ret, 1) != 1)
        return false;
    if (strstr(line, "kB") != NULL)
        *ret *= 1024;
    return true;
}

bool doctor__read_status(const struct doctor *d, const char *name, char *buf, size_t cap)
{
    char start[64];

    snprintf(start, sizeof start, "%s:", name);
    return read_line(d, "/proc/self/status", start, buf, cap);
}

/* ---- cgroups (cgroups(7)) */

/* Whether a list of names with commas has that one. */
static bool has_name(const char *names, size_t len, const char *name)
{
    for (const char *end = names + len;; names++) {
        size_t n = strcspn(names, ",:");
        if (n == strlen(name) && strncmp(names, name, n) == 0)
            return true;
        names += n;
        if (names >= end)
            return false;
    }
}

/* The path behind "ID:NAMES:" of the line of /proc/self/cgroup whose names have that controller; "": the line
 * of version 2, which has no names. */
static bool cgroup_path(const struct doctor *d, const char *controller, char *buf, size_t cap)
{
    char text[8192];

    if (!doctor__read(d, "/proc/self/cgroup", text, sizeof text))
        return false;
    for (const char *line = text; *line != '\0';) {
        const char *names = line + strcspn(line, ":\n") + 1;
        size_t names_len = strcspn(names, ":\n"), line_len = strcspn(line, "\n");
        if (names < line + line_len && names[names_len] == ':' && has_name(names, names_len, controller)) {
            const char *path = names + names_len + 1;
            snprintf(buf, cap, "%.*s", (int)(line + line_len - path), path);
            return true;
        }
        line += line_len + (line[line_len] == '\n');
    }
    return false;
}

/* From the folder of our cgroup up to the top; one that is not visible from here (a container) is left out.
 */
static uint64_t walk_up(const struct doctor *d, const char *top, char *path, doctor_cgroup_fn *read)
{
    uint64_t least = UINT64_MAX, value;
    char folder[PATH_MAX];

    for (;;) {
        snprintf(folder, sizeof folder, "%s%s", top, path);
        if (read(d, folder, &value) && value < least)
            least = value;
        char *slash = strrchr(path, '/');
        if (slash == NULL || path[0] == '\0')
            return least;
        *slash = '\0';
    }
}

uint64_t doctor__cgroup_min(const struct doctor *d, const char *controller, doctor_cgroup_fn *v2,
                            doctor_cgroup_fn *v1)
{
    char path[2048], top[64];
    uint64_t least = UINT64_MAX, value;

    if (cgroup_path(d, "", path, sizeof path))
        least = walk_up(d, "/sys/fs/cgroup", path, v2);
    if (cgroup_path(d, controller, path, sizeof path)) {
        snprintf(top, sizeof top, "/sys/fs/cgroup/%s", controller);
        value = walk_up(d, top, path, v1);
        least = value < least ? value : least;
    }
    return least;
}
