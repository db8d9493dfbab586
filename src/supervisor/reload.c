// SPDX-License-Identifier: MIT
#include "supervisor/reload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "supervisor/check.h"

/* ---- what is wrong */

/* Between quotes in a line of the log; problems have quotes of their own. */
static char *escape(const char *text, char *buf, size_t cap)
{
    size_t n = 0;
    for (; *text != '\0' && n + 3 < cap; text++) {
        if (*text == '"' || *text == '\\')
            buf[n++] = '\\';
        buf[n++] = *text;
    }
    buf[n] = '\0';
    return buf;
}

static void log_problems(const struct config_error *err)
{
    char line[1024], text[2048];
    for (unsigned i = 0; i < err->n; i++)
        LOG(LOG_ERROR, "reload_refused", "problem=\"%s\"",
            escape(config_problem_format(err, i, line, sizeof line), text, sizeof text));
    LOG(LOG_ERROR, "reload_not_done",
        "problems=%u note=\"nothing has changed, the gateway goes on as before\"", err->n + err->left_out);
}

static bool has_listener(const struct config *cfg, const char *name)
{
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (strcmp(cfg->listen[i].name, name) == 0)
            return true;
    }
    return false;
}

static int check_listeners(const struct config *cfg, const struct config *now, struct config_error *err)
{
    char label[64];

    if (config_same_listeners(cfg, now))
        return 0;
    unsigned before = err->n;
    for (unsigned i = 0; i < now->n_listeners; i++) {
        snprintf(label, sizeof label, "listen %s", now->listen[i].name);
        if (!has_listener(cfg, now->listen[i].name))
            config_error_add(err, now->listen[i].section_line, label, "",
                             "a new listener; expected those that are there: restart tgg for it");
    }
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        snprintf(label, sizeof label, "listen %s", cfg->listen[i].name);
        if (!has_listener(now, cfg->listen[i].name))
            config_error_add(err, 0, label, "",
                             "the listener is gone; expected those that are there: restart tgg for it");
    }
    if (err->n == before)
        config_error_add(err, 0, "", "",
                         "the listeners stand in another order; expected the same: restart tgg for it");
    return -EINVAL;
}

/* ---- what is read */

static int read_again(const struct config *cfg, struct config *ret, char **ret_text, size_t *ret_len,
                      struct config_error *err)
{
    int r = config_read_text(cfg->source_path, ret_text, ret_len, err);
    if (r < 0)
        return r;
    r = config_load_text(*ret_text, *ret_len, cfg->source_path, ret, err);
    if (r < 0) {
        free(*ret_text);
        *ret_text = NULL;
    }
    return r;
}

/* What is to run: the new values of LIVE keys beside the old ones of all others, which no file ever said
 * together. */
static int check_mixed(const struct config *cfg, struct slice text, struct files **ret,
                       struct config_error *err)
{
    int r = config_check(cfg, err);
    return r < 0 ? r : check_files(cfg, text, ret, err);
}

/* ---- what has changed */

struct changes {
    unsigned live, restart;
};

static void log_change(void *ctx, const char *section, const char *key, bool live)
{
    struct changes *c = ctx;
    if (live) {
        c->live++;
        LOG(LOG_NOTICE, "setting_changed", "section=\"%s\" key=%s", section, key);
    } else {
        c->restart++;
        LOG(LOG_WARN, "setting_needs_restart",
            "section=\"%s\" key=%s note=\"it has changed in the file, and takes effect when tgg is "
            "restarted\"",
            section, key);
    }
}

static void log_changes(const struct config *cfg, const struct config *now, const struct files *old_files,
                        const struct files *new_files)
{
    struct changes c = {0};
    config_compare(cfg, now, log_change, &c);
    LOG(LOG_NOTICE, "reloaded", "config=\"%s\" changed=%u needs_restart=%u files_changed=%u",
        cfg->source_path, c.live, c.restart, files_changed(old_files, new_files));
}

/* A descriptor; else -errno, err tells, and cfg is as it was. */
static int take_over(struct config *cfg, struct config *now, struct slice text, struct files **files,
                     struct config_error *err)
{
    struct files *new_files = NULL;

    int r = config_check_gateway(now, err);
    if (r < 0 || (r = check_listeners(cfg, now, err)) < 0)
        return r;
    config_apply_live(cfg, now);
    r = check_mixed(cfg, text, &new_files, err);
    if (r == 0 && (r = files_to_fd(new_files)) < 0) {
        files_free(new_files);
        config_error_add(err, 0, "", "", "no memory to hand it to the shards: %s", strerror(-r));
    }
    if (r < 0) {
        config_apply_live(cfg, now); /* takes it back */
        return r;
    }
    log_changes(cfg, now, *files, new_files);
    files_free(*files);
    *files = new_files;
    return r;
}

int reload(struct config *cfg, struct files **files)
{
    struct config_error *err = calloc(1, sizeof *err);
    struct config *now = calloc(1, sizeof *now);
    char *text = NULL;
    size_t len = 0;
    int r = -ENOMEM;

    if (err == NULL || now == NULL)
        goto out;
    if ((r = read_again(cfg, now, &text, &len, err)) == 0) {
        r = take_over(cfg, now, (struct slice){(uint8_t *)text, len}, files, err);
        config_fini(now);
    }
    if (r < 0)
        log_problems(err);
out:
    free(text);
    free(now);
    free(err);
    return r;
}
