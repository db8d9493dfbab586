// SPDX-License-Identifier: MIT
#include "common/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/config_priv.h"

/* ---- problems */

void config_error_add(struct config_error *err, unsigned line, const char *section, const char *key,
                      const char *fmt, ...)
{
    if (err->n == CONFIG_PROBLEMS_MAX) {
        err->left_out++;
        return;
    }
    struct config_problem *p = &err->list[err->n++];
    p->line = line;
    snprintf(p->section, sizeof p->section, "%s", section);
    snprintf(p->key, sizeof p->key, "%s", key);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->text, sizeof p->text, fmt, ap);
    va_end(ap);
}

char *config_problem_format(const struct config_error *err, unsigned i, char *buf, size_t cap)
{
    const struct config_problem *p = &err->list[i];
    char line[16] = "";

    ASSERT(i < err->n);
    if (p->line != 0 && p->line != CONFIG_LINE_CODE)
        snprintf(line, sizeof line, ":%u", p->line);
    snprintf(buf, cap, "%s%s:%s%s%s%s%s%s %s", err->path, line, p->section[0] != '\0' ? " [" : "", p->section,
             p->section[0] != '\0' ? "]" : "", p->key[0] != '\0' ? " " : "", p->key,
             p->key[0] != '\0' ? ":" : "", p->text);
    return buf;
}

void config_error_print(FILE *out, const struct config_error *err)
{
    char line[1024];
    for (unsigned i = 0; i < err->n; i++)
        fprintf(out, "%s\n", config_problem_format(err, i, line, sizeof line));
    if (err->left_out > 0)
        fprintf(out, "%s: %u more problems\n", err->path, err->left_out);
}

/* ---- a configuration in memory */

void *config__section(struct config *cfg, enum config_section section, unsigned i)
{
    switch (section) {
    case CONFIG_SECTION_gateway: return &cfg->gateway;
    case CONFIG_SECTION_listen: return &cfg->listen[i];
    case CONFIG_SECTION_register: return &cfg->reg;
    case CONFIG_SECTION_log: return &cfg->log;
    case CONFIG_SECTION_admin: return &cfg->admin;
    case CONFIG_SECTION_N: break;
    }
    UNREACHABLE();
}

static void *copy_or_abort(const char *s)
{
    char *copy = strdup(s);
    if (copy == NULL)
        abort();
    return copy;
}

static void section_defaults(enum config_section section, void *base)
{
    char why[512];
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->section != section || k->def == NULL)
            continue;
        int r = config_value_parse(k, k->def, 0, config_key_value(k, base), why, sizeof why);
        ASSERT(r == 0); /* the table's own default */
    }
}

void config_defaults(struct config *ret)
{
    *ret = (struct config){.source_path = copy_or_abort("built-in")};
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++) {
        if (s != CONFIG_SECTION_listen)
            section_defaults((enum config_section)s, config__section(ret, (enum config_section)s, 0));
    }
}

static void section_fini(enum config_section section, void *base)
{
    for (unsigned i = 0; i < config_keys_n; i++) {
        if (config_keys[i].section == section)
            config_value_fini(&config_keys[i], config_key_value(&config_keys[i], base));
    }
}

void config_listen_fini(struct config_listen *l)
{
    section_fini(CONFIG_SECTION_listen, l);
    free(l->name);
    *l = (struct config_listen){.name = NULL};
}

void config_listen_take(struct config *cfg, unsigned i, struct config_listen *ret)
{
    ASSERT(i < cfg->n_listeners);
    *ret = cfg->listen[i];
    cfg->listen[i] = (struct config_listen){.name = NULL};
}

void config_fini(struct config *cfg)
{
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++) {
        if (s != CONFIG_SECTION_listen)
            section_fini((enum config_section)s, config__section(cfg, (enum config_section)s, 0));
    }
    for (unsigned i = 0; i < cfg->n_listeners; i++)
        config_listen_fini(&cfg->listen[i]);
    free(cfg->source_path);
    *cfg = (struct config){0};
}

/* ---- sections */

#define LISTEN_NAME_MAX 32

static bool listen_name_ok(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > LISTEN_NAME_MAX)
        return false;
    for (const char *p = name; *p != '\0'; p++) {
        if (!isalnum((unsigned char)*p) && strchr("._-", *p) == NULL)
            return false;
    }
    return true;
}

static int place_listen(struct config *cfg, const char *name, unsigned line, struct config_place *ret,
                        bool *ret_new, struct config_error *err)
{
    char label[64];
    snprintf(label, sizeof label, "listen%s%.40s", *name != '\0' ? " " : "", name);
    if (!listen_name_ok(name)) {
        config_error_add(err, line, label, "",
                         "a listener needs a name of 1 to %d letters, digits, '.', '_' or '-': [listen NAME]",
                         LISTEN_NAME_MAX);
        return -EINVAL;
    }
    *ret = (struct config_place){.section = CONFIG_SECTION_listen};
    memcpy(ret->label, label, sizeof label);
    *ret_new = false;
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (strcmp(cfg->listen[i].name, name) == 0) {
            ret->base = &cfg->listen[i];
            return 0;
        }
    }
    if (cfg->n_listeners == CONFIG_LISTEN_MAX) {
        config_error_add(err, line, label, "", "more than %d listeners", CONFIG_LISTEN_MAX);
        return -EINVAL;
    }
    struct config_listen *l = &cfg->listen[cfg->n_listeners++];
    *l = (struct config_listen){.name = copy_or_abort(name), .section_line = line};
    section_defaults(CONFIG_SECTION_listen, l);
    ret->base = l;
    *ret_new = true;
    return 0;
}

static int refuse_section(const char *title, unsigned line, struct config_error *err)
{
    const char *best = NULL;
    unsigned best_distance = 4;
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++) {
        unsigned d = config_distance(title, config_section_names[s], best_distance);
        if (d < best_distance) {
            best = config_section_names[s];
            best_distance = d;
        }
    }
    config_error_add(err, line, "", "",
                     "unknown section %s; expected [gateway], [listen NAME], [register] or [log]%s%s%s",
                     log_quote(title, strlen(title)), best != NULL ? "; did you mean [" : "",
                     best != NULL ? best : "", best != NULL ? "]?" : "");
    return -EINVAL;
}

int config__place(struct config *cfg, const char *title, unsigned line, struct config_place *ret,
                  bool *ret_new, struct config_error *err)
{
    const char *listen = config_section_names[CONFIG_SECTION_listen];
    size_t n = strlen(listen);

    *ret_new = false;
    if (strncmp(title, listen, n) == 0 && (title[n] == '\0' || title[n] == ' ' || title[n] == '\t'))
        return place_listen(cfg, title + n + strspn(title + n, " \t"), line, ret, ret_new, err);
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++) {
        if (strcmp(title, config_section_names[s]) != 0)
            continue;
        *ret = (struct config_place){.section = (enum config_section)s};
        ret->base = config__section(cfg, ret->section, 0);
        snprintf(ret->label, sizeof ret->label, "%s", title);
        return 0;
    }
    return refuse_section(title, line, err);
}

/* ---- keys */

static int refuse_key(const struct config_place *place, const char *key, unsigned line,
                      struct config_error *err)
{
    const struct config_key *near = config_key_nearest(place->section, key);
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++) {
        if (config_key_find((enum config_section)s, key) != NULL) {
            config_error_add(err, line, place->label, key, "not a key of this section, but of [%s]",
                             config_section_names[s]);
            return -EINVAL;
        }
    }
    config_error_add(err, line, place->label, key, "unknown key%s%s%s", near != NULL ? "; did you mean " : "",
                     near != NULL ? near->name : "", near != NULL ? "?" : "");
    return -EINVAL;
}

int config__set(struct config_place *place, const char *key, const char *value, unsigned line,
                struct config_error *err)
{
    char why[512];
    const struct config_key *k = config_key_find(place->section, key);

    if (k == NULL)
        return refuse_key(place, key, line, err);
    if (config_value_parse(k, value, line, config_key_value(k, place->base), why, sizeof why) < 0) {
        config_error_add(err, line, place->label, key, "%s", why);
        return -EINVAL;
    }
    *config_key_line(k, place->base) = line;
    return 0;
}

int config_set(struct config *cfg, const char *section, const char *key, const char *value,
               struct config_error *err)
{
    struct config_place place;
    bool is_new;

    if (err->path[0] == '\0')
        snprintf(err->path, sizeof err->path, "%s", cfg->source_path);
    int r = config__place(cfg, section, CONFIG_LINE_CODE, &place, &is_new, err);
    return r < 0 ? r : config__set(&place, key, value, CONFIG_LINE_CODE, err);
}

const char *config_register_secret(const struct config *cfg)
{
    return cfg->reg.secret_key[0] != '\0' ? cfg->reg.secret_key : cfg->gateway.secret_key;
}

/* ---- showing it */

static void print_key(FILE *out, const struct config_key *k, const void *base)
{
    const void *value = config_key_value(k, base);
    if (config_key_is_secret(k)) {
        /* A comment, so that nobody takes "(set)" for the key when he reads this back. */
        fprintf(out, "# %s = %s", k->name, (*(char *const *)value)[0] != '\0' ? "(set)" : "(empty)");
    } else {
        fprintf(out, "%s = ", k->name);
        config_value_print(out, k, value);
    }
    fputc('\n', out);
}

/* The mark stands on a line of its own: what follows a value on its line belongs to the value. */
static void print_section(FILE *out, enum config_section section, const void *base)
{
    for (int defaults = 0; defaults < 2; defaults++) {
        bool marked = false;
        for (unsigned i = 0; i < config_keys_n; i++) {
            const struct config_key *k = &config_keys[i];
            if (k->section != section || (*config_key_line(k, base) == 0) != (defaults == 1))
                continue;
            if (defaults == 1 && !marked)
                fputs("# defaults:\n", out);
            marked = true;
            print_key(out, k, base);
        }
    }
}

void config_print(FILE *out, const struct config *cfg)
{
    fprintf(out, "# %s\n[gateway]\n", cfg->source_path);
    print_section(out, CONFIG_SECTION_gateway, &cfg->gateway);
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        fprintf(out, "\n[listen %s]\n", cfg->listen[i].name);
        print_section(out, CONFIG_SECTION_listen, &cfg->listen[i]);
    }
    fputs("\n[register]\n", out);
    print_section(out, CONFIG_SECTION_register, &cfg->reg);
    fputs("\n[log]\n", out);
    print_section(out, CONFIG_SECTION_log, &cfg->log);
    fputs("\n[admin]\n", out);
    print_section(out, CONFIG_SECTION_admin, &cfg->admin);
}
