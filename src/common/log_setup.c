// SPDX-License-Identifier: MIT
#include "common/log_setup.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "common/dirs.h"

/* Comparing through int: the two enums are meant to be the same. */
static_assert((int)LOG_LEVEL_ERROR == (int)LOG_ERROR && (int)LOG_LEVEL_DEBUG == (int)LOG_DEBUG, "levels");
static_assert((int)LOG_FORMAT_TEXT == (int)LOG_TEXT && (int)LOG_FORMAT_JSON == (int)LOG_JSON, "formats");

static int refuse(const struct config *cfg, int r, const char *path, struct config_error *err)
{
    config_error_add(err, cfg->log.line.directory, "log", "directory",
                     "%s: %s; expected a folder that this user can write to", path, strerror(-r));
    return r;
}

int log_setup(const struct config *cfg, const char *process, const char *file, struct config_error *err)
{
    char path[PATH_MAX];
    struct log_options opt = {
        .level = (enum log_level)cfg->log.level,
        .format = (enum log_format)cfg->log.format,
        .rate_max = (unsigned)cfg->log.rate_max,
        .process = process,
    };

    if (cfg->log.target == LOG_TARGET_FILE) {
        int r = make_dirs(cfg->log.directory, 0755);
        if (r < 0)
            return refuse(cfg, r, cfg->log.directory, err);
        if (snprintf(path, sizeof path, "%s/%s", cfg->log.directory, file) >= (int)sizeof path)
            return refuse(cfg, -ENAMETOOLONG, cfg->log.directory, err);
        opt.path = path;
    }
    int r = log_open(&opt);
    return r < 0 ? refuse(cfg, r, opt.path != NULL ? path : "stderr", err) : 0;
}
