// SPDX-License-Identifier: MIT
#include "common/dirs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

static int make_dir(const char *path, mode_t mode)
{
    struct stat st;
    if (mkdir(path, mode) == 0)
        return 0;
    int err = errno; /* of a folder that is there: EEXIST, but also EROFS or EACCES on the way to it */
    if (stat(path, &st) < 0)
        return -err;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int make_dirs(const char *dir, mode_t mode)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s", dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    for (char *p = path + 1; path[0] != '\0' && *p != '\0'; p++) {
        if (*p != '/' || p[1] == '/' || p[1] == '\0')
            continue;
        *p = '\0';
        int r = make_dir(path, mode);
        if (r < 0)
            return r;
        *p = '/';
    }
    return make_dir(path, mode);
}
