// SPDX-License-Identifier: MIT
#include "admin/proc_stat.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void read_file(int32_t pid, const char *name, char *buf, size_t cap)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%" PRId32 "/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, cap - 1) : 0;
    buf[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

void proc_stat_read(int32_t pid, struct proc_stat *ret)
{
    char text[1024];
    uint64_t resident = 0, user = 0, kernel = 0;
    long tick = sysconf(_SC_CLK_TCK);

    *ret = (struct proc_stat){0, 0};
    if (pid <= 0)
        return;
    read_file(pid, "statm", text, sizeof text);
    if (sscanf(text, "%*u %" SCNu64, &resident) == 1)
        ret->rss_bytes = resident * (uint64_t)sysconf(_SC_PAGESIZE);
    read_file(pid, "stat", text, sizeof text);
    /* The name in parentheses may hold anything; fields 14 and 15 are counted from behind it. */
    const char *at = strrchr(text, ')');
    if (at != NULL && tick > 0 &&
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user, &kernel) ==
            2)
        ret->cpu_ns = (user + kernel) * (UINT64_C(1000000000) / (uint64_t)tick);
}
