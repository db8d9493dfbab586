// SPDX-License-Identifier: MIT
#include "supervisor/reload.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json_writer.h"
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
    struct json_writer json; /* of the report: in its list of changes */
    unsigned live, restart, added, removed;
};

static void note_change(void *ctx, const char *section, const char *key, bool live)
{
    struct changes *c = ctx;
    json_begin(&c->json, '{');
    json_member_str(&c->json, "section", section);
    json_member_str(&c->json, "key", key);
    json_member_bool(&c->json, "live", live);
    json_end(&c->json, '}');
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

static void note_added(void *ctx, const struct config_listen *l)
{
    struct changes *c = ctx;
    c->added++;
    json_str(&c->json, l->name);
    LOG(LOG_NOTICE, "listener_added", "name=%s address=%s port=%" PRIu64 " protocol=%s", l->name, l->address,
        l->port, config_protocol_name(l->protocol));
}

static void note_removed(void *ctx, const struct config_listen *l)
{
    struct changes *c = ctx;
    c->removed++;
    json_str(&c->json, l->name);
    LOG(LOG_NOTICE, "listener_removed",
        "name=%s address=%s port=%" PRIu64 " note=\"its clients stay until they leave\"", l->name, l->address,
        l->port);
}

static bool has_listener(const struct config *cfg, const struct config_listen *l)
{
    char mine[CONFIG_LISTEN_IDENTITY_MAX], other[CONFIG_LISTEN_IDENTITY_MAX];
    config_listen_identity(l, mine, sizeof mine);
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (strcmp(config_listen_identity(&cfg->listen[i], other, sizeof other), mine) == 0)
            return true;
    }
    return false;
}

static void each_only_in(const struct config *one, const struct config *other,
                         void (*each)(void *ctx, const struct config_listen *l), void *ctx)
{
    for (unsigned i = 0; i < one->n_listeners; i++) {
        if (!has_listener(other, &one->listen[i]))
            each(ctx, &one->listen[i]);
    }
}

/* cfg is the new one already, `was` has what it was before. */
static void report_changes(const struct config *cfg, const struct config *was, const struct files *old_files,
                           const struct files *new_files, struct reload_report *report)
{
    struct changes c = {.json = {.out = &report->json}};

    json_begin(&c.json, '{');
    json_key(&c.json, "changed");
    json_begin(&c.json, '[');
    config_compare(was, cfg, note_change, &c);
    json_end(&c.json, ']');
    json_key(&c.json, "added");
    json_begin(&c.json, '[');
    each_only_in(cfg, was, note_added, &c);
    json_end(&c.json, ']');
    json_key(&c.json, "removed");
    json_begin(&c.json, '[');
    each_only_in(was, cfg, note_removed, &c);
    json_end(&c.json, ']');
    json_key(&c.json, "problems");
    json_begin(&c.json, '[');
    json_end(&c.json, ']');
    json_end(&c.json, '}');
    LOG(LOG_NOTICE, "reloaded",
        "config=\"%s\" changed=%u needs_restart=%u files_changed=%u listeners_added=%u listeners_removed=%u",
        cfg->source_path, c.live, c.restart, files_changed(old_files, new_files), c.added, c.removed);
}

static void report_problems(const struct config_error *err, struct reload_report *report)
{
    static const char *const empty[] = {"changed", "added", "removed"};
    struct json_writer w = {.out = &report->json};
    char line[1024];

    json_begin(&w, '{');
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        json_key(&w, empty[i]);
        json_begin(&w, '[');
        json_end(&w, ']');
    }
    json_key(&w, "problems");
    json_begin(&w, '[');
    for (unsigned i = 0; i < err->n; i++)
        json_str(&w, config_problem_format(err, i, line, sizeof line));
    json_end(&w, ']');
    json_end(&w, '}');
}

/* ---- all of it */

/* What can fail: 0 with the files and the listeners to be, and a descriptor of the files. */
static int prepare(const struct reload_target *t, struct slice text, struct files **ret_files,
                   struct listeners **ret_listeners, struct config_error *err)
{
    struct files *files = NULL;

    int r = check_mixed(t->cfg, text, &files, err);
    if (r < 0)
        return r;
    int fd = files_to_fd(files);
    if (fd < 0)
        config_error_add(err, 0, "", "", "no memory to hand it to the shards: %s", strerror(-fd));
    r = fd < 0 ? fd : listeners_prepare(t->listeners, t->cfg, t->generation, ret_listeners, err);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        files_free(files);
        return r;
    }
    *ret_files = files;
    return fd;
}

/* A descriptor; else -errno, err tells, and all is as it was. */
static int take_over(const struct reload_target *t, struct config *now, struct slice text,
                     struct reload_report *report, struct config_error *err)
{
    struct files *files = NULL;
    struct listeners *listeners = NULL;

    int r = config_check_gateway(now, err);
    if (r < 0)
        return r;
    /* What needs a restart stays in `now`, for the report. */
    config_apply_live(t->cfg, now);
    int fd = prepare(t, text, &files, &listeners, err);
    if (fd < 0) {
        config_apply_live(t->cfg, now); /* takes it back */
        return fd;
    }
    report_changes(t->cfg, now, *t->files, files, report);
    listeners_commit(t->listeners, listeners);
    files_free(*t->files);
    *t->files = files;
    return fd;
}

int reload(const struct reload_target *t, struct reload_report *report)
{
    struct config_error *err = calloc(1, sizeof *err);
    struct config *now = calloc(1, sizeof *now);
    char *text = NULL;
    size_t len = 0;
    int r = -ENOMEM;

    if (err == NULL || now == NULL)
        goto out;
    if ((r = read_again(t->cfg, now, &text, &len, err)) == 0) {
        r = take_over(t, now, (struct slice){(uint8_t *)text, len}, report, err);
        config_fini(now);
    }
    if (r < 0) {
        log_problems(err);
        report_problems(err, report);
    }
out:
    free(text);
    free(now);
    free(err);
    return r;
}
