// SPDX-License-Identifier: MIT
#include "main/assets.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The folder of the running program, without its last slash. */
static bool own_dir(char *buf, size_t cap)
{
    ssize_t n = readlink("/proc/self/exe", buf, cap - 1);
    if (n <= 0 || (size_t)n >= cap - 1)
        return false;
    buf[n] = '\0';
    char *slash = strrchr(buf, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return true;
}

static bool add(char *buf, size_t cap, const char *dir, const char *below)
{
    return snprintf(buf, cap, "%s/%s", dir, below) < (int)cap;
}

/* meson leaves build.ninja at the top of a build directory; src/main is where this program stands in it. */
static bool in_build_dir(const char *own)
{
    char path[PATH_MAX];
    return add(path, sizeof path, own, "../../build.ninja") && access(path, F_OK) == 0;
}

static bool find(const char *own, const char *const *places, size_t n, int mode, char *buf, size_t cap)
{
    for (size_t i = 0; i < n; i++) {
        if (add(buf, cap, own, places[i]) && access(buf, mode) == 0)
            return true;
    }
    return false;
}

bool assets_web_dir(char *buf, size_t cap)
{
    static const char *const installed[] = {"../share/tgg/web/index.html"};
    char own[PATH_MAX];
    bool found = false;

    if (!own_dir(own, sizeof own))
        return false;
    if (in_build_dir(own))
        found = add(buf, cap, TGG_SOURCE_ROOT, "web/index.html") && access(buf, R_OK) == 0;
    if (!found)
        found = find(own, installed, sizeof installed / sizeof installed[0], R_OK, buf, cap);
    char *slash = strrchr(buf, '/');
    if (found && slash != NULL)
        *slash = '\0';
    return found;
}

const char *assets_admin_page_dir(void)
{
    static char dir[PATH_MAX];
    char web[PATH_MAX], index[PATH_MAX];

    if (!assets_web_dir(web, sizeof web) || !add(index, sizeof index, web, "admin/index.html") ||
        access(index, R_OK) != 0)
        return NULL;
    return add(dir, sizeof dir, web, "admin") ? dir : NULL;
}

bool assets_demo_program(char *buf, size_t cap)
{
    static const char *const places[] = {
        "tgg-demo-chat",
        "../libexec/tgg/tgg-demo-chat",
        "../../sdk/tgg-demo-chat",
        "../../sdk/examples/tgg-demo-chat",
    };
    char own[PATH_MAX];
    return own_dir(own, sizeof own) && find(own, places, sizeof places / sizeof places[0], X_OK, buf, cap);
}
