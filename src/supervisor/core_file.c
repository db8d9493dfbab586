// SPDX-License-Identifier: MIT
#include "supervisor/core_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PATTERN_MAX 256

/* "" when it cannot be read. Returns buf. */
static char *read_pattern(char buf[PATTERN_MAX])
{
    FILE *f = fopen("/proc/sys/kernel/core_pattern", "re");
    buf[0] = '\0';
    if (f == NULL)
        return buf;
    if (fgets(buf, PATTERN_MAX, f) == NULL)
        buf[0] = '\0';
    fclose(f);
    buf[strcspn(buf, "\n")] = '\0';
    return buf;
}

static bool is_writable(const char *folder)
{
    return access(folder, W_OK | X_OK) == 0;
}

/* It says neither a program nor a folder. */
static bool is_bare(const char *pattern)
{
    return pattern[0] != '\0' && pattern[0] != '|' && strchr(pattern, '/') == NULL;
}

static bool is_allowed(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur != 0;
}

bool core_file_pattern_works(const char *pattern, const char *folder)
{
    char own[PATTERN_MAX];
    const char *slash = strrchr(pattern, '/');

    if (pattern[0] == '|')
        return true;
    if (is_bare(pattern))
        return is_writable(folder) || is_writable(".");
    if (slash == NULL)
        return false;
    snprintf(own, sizeof own, "%.*s", slash == pattern ? 1 : (int)(slash - pattern), pattern);
    /* A folder that the pattern makes up (/cores/%p/core) is not there before; the kernel does not make it.
     */
    return is_writable(own);
}

bool core_file_is_possible(void)
{
    char pattern[PATTERN_MAX];
    return is_allowed() && core_file_pattern_works(read_pattern(pattern), CORE_FILE_FOLDER);
}

bool core_file_enter(const char *pattern, const char *folder)
{
    return is_bare(pattern) && is_writable(folder) && chdir(folder) == 0;
}

bool core_file_enter_folder(void)
{
    char pattern[PATTERN_MAX];
    return is_allowed() && core_file_enter(read_pattern(pattern), CORE_FILE_FOLDER);
}
