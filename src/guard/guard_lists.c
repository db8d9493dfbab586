// SPDX-License-Identifier: MIT
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "guard/guard_priv.h"

/* ---- dry_run */

static const char *const check_names[GUARD_N] = {[GUARD_PASS] = "pass",
#define CHECK_NAME(constant, name) [constant] = #name,
                                                 GUARD_CHECKS(CHECK_NAME)
#undef CHECK_NAME
};

const char *guard_check_name(enum guard_verdict v)
{
    return (unsigned)v < GUARD_N ? check_names[v] : "?";
}

static unsigned check_bit(const char *name, size_t len)
{
    if (len == 3 && memcmp(name, "all", 3) == 0)
        return (1U << GUARD_N) - 1;
    for (unsigned v = GUARD_PASS + 1; v < GUARD_N; v++) {
        if (strlen(check_names[v]) == len && memcmp(check_names[v], name, len) == 0)
            return 1U << v;
    }
    return 0;
}

static int read_dry_run(const struct config *cfg, unsigned *ret, struct config_error *err)
{
    const char *pos = cfg->gateway.dry_run, *name;
    size_t len;
    int r = 0;

    *ret = 0;
    while (config_list_next(&pos, &name, &len)) {
        unsigned bit = check_bit(name, len);
        *ret |= bit;
        if (bit != 0)
            continue;
        r = -EINVAL;
        config_error_add(err, cfg->gateway.line.dry_run, "gateway", "dry_run",
                         "%s is not a check; expected all, or some of deny, ban, per_address, per_subnet, "
                         "accept_rate, handshake_rate, total, message_rate, byte_rate",
                         log_quote(name, len));
    }
    return r;
}

/* ---- bans */

static int read_bans(struct cidr_set *set, const char *path, int64_t now_unix_s,
                     const struct list_source *src)
{
    struct text_lines l = {0};
    char why[BAN_WHY_MAX];
    struct ban b;
    int r = 0;

    if (src->files == NULL || !files_get(src->files, path, strlen(path), &l.text))
        return 0; /* a missing file is one without bans (files.h) */
    while (guard__next_line(&l)) {
        enum ban_line kind = ban_line_parse(l.content, &b, why, sizeof why);
        if (kind == BAN_LINE_WRONG) {
            config_error_add(src->err, src->line, src->section, src->key, "%s:%u: %s", path, l.line, why);
            r = -EINVAL;
        }
        if (kind == BAN_LINE_BAN && b.until_unix_s > now_unix_s &&
            cidr_set_add(set, &b.cidr, b.until_unix_s) < 0)
            return -ENOMEM;
    }
    return r;
}

static int load_bans(const struct config *cfg, int64_t now_unix_s, struct list_source *src,
                     struct cidr_table **ret)
{
    struct cidr_set set = {0};
    char path[PATH_MAX];

    src->key = "ban_file";
    src->line = cfg->gateway.line.ban_file;
    int r = read_bans(&set, files_ban_path(cfg, path, sizeof path), now_unix_s, src);
    if (r == 0 && (*ret = cidr_table_new(&set, NULL)) == NULL)
        r = -ENOMEM;
    cidr_set_fini(&set);
    return r;
}

/* ---- lists */

static int load_access(const struct config *cfg, struct list_source *src, struct guard_lists *l)
{
    const struct config_gateway *gw = &cfg->gateway;
    struct cidr_set set = {0};

    src->key = "allow_list";
    src->line = gw->line.allow_list;
    int r = guard__list_read(&set, gw->allow_list, ACCESS_ALLOW, src);
    src->key = "deny_list";
    src->line = gw->line.deny_list;
    int denied = r == -ENOMEM ? r : guard__list_read(&set, gw->deny_list, ACCESS_DENY, src);
    r = denied < 0 ? denied : r;
    if (r == 0 && (l->access = cidr_table_new(&set, &l->both)) == NULL)
        r = -ENOMEM;
    cidr_set_fini(&set);
    /* By what the keys name, not by how many lines a file has just now: emptying the last file of a deny_list
     * must not shut everybody out. */
    bool allow = guard__list_is_set(gw->allow_list), deny = guard__list_is_set(gw->deny_list);
    l->access_set = allow || deny;
    l->strangers_pass = !allow || deny;
    return r;
}

static int worse(int a, int b)
{
    return a == -ENOMEM || b == -ENOMEM ? -ENOMEM : a < 0 ? a : b;
}

int guard__lists_load(const struct config *cfg, const struct files *files, int64_t now_unix_s,
                      struct guard_lists *ret, struct config_error *err)
{
    struct list_source src = {.files = files, .section = "gateway", .err = err};
    struct guard_lists l = {0};
    unsigned before = err->n + err->left_out;

    int r = read_dry_run(cfg, &l.dry_run, err);
    r = worse(r, load_access(cfg, &src, &l));
    r = worse(r, load_bans(cfg, now_unix_s, &src, &l.bans));
    l.reserve = cidr_list_new(cfg->gateway.reserve_list, files, "gateway", "reserve_list",
                              cfg->gateway.line.reserve_list, err);
    if (l.reserve == NULL)
        r = worse(r, -EINVAL);
    if (r == 0) {
        *ret = l;
        return 0;
    }
    if (r == -ENOMEM && err->n + err->left_out == before)
        config_error_add(err, 0, "gateway", "", "no memory for lists and bans");
    guard__lists_fini(&l);
    return r;
}

void guard__lists_fini(struct guard_lists *l)
{
    cidr_table_free(l->access);
    cidr_table_free(l->bans);
    cidr_list_free(l->reserve);
    *l = (struct guard_lists){0};
}

/* ---- only checking */

static int check_proxies(const struct config_listen *listen, const struct files *files,
                         struct config_error *err)
{
    char section[80];

    snprintf(section, sizeof section, "listen %s", listen->name);
    struct cidr_list *l = cidr_list_new(listen->trusted_proxies, files, section, "trusted_proxies",
                                        listen->line.trusted_proxies, err);
    cidr_list_free(l);
    return l == NULL ? -EINVAL : 0;
}

int guard_lists_check(const struct config *cfg, const struct files *files, struct config_error *err)
{
    struct guard_lists l = {0};

    int r = guard__lists_load(cfg, files, 0, &l, err);
    if (r == 0)
        guard__lists_fini(&l);
    for (unsigned i = 0; i < cfg->n_listeners; i++)
        r = worse(r, check_proxies(&cfg->listen[i], files, err));
    return r < 0 ? -EINVAL : 0;
}
