// SPDX-License-Identifier: MIT
#include "supervisor/core_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

bool core_file_pattern_works(const char *pattern)
{
    char folder[256];
    const char *slash = strrchr(pattern, '/');

    if (pattern[0] == '|')
        return true;
    if (pattern[0] == '\0')
        return false;
    if (slash == NULL)
        return access(".", W_OK | X_OK) == 0;
    snprintf(folder, sizeof folder, "%.*s", slash == pattern ? 1 : (int)(slash - pattern), pattern);
    /* A folder that the pattern makes up (/cores/%p/core) is not there before; the kernel does not make it.
     */
    return access(folder, W_OK | X_OK) == 0;
}

bool core_file_is_possible(void)
{
    struct rlimit limit;
    char pattern[256] = "";
    FILE *f;

    if (getrlimit(RLIMIT_CORE, &limit) < 0 || limit.rlim_cur == 0)
        return false;
    if ((f = fopen("/proc/sys/kernel/core_pattern", "re")) == NULL)
        return false;
    if (fgets(pattern, sizeof pattern, f) == NULL)
        pattern[0] = '\0';
    fclose(f);
    pattern[strcspn(pattern, "\n")] = '\0';
    return core_file_pattern_works(pattern);
}
