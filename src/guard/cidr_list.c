// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guard/guard_priv.h"

/* ---- lines */

bool guard__next_line(struct text_lines *l)
{
    if (l->at >= l->text.len)
        return false;
    const uint8_t *p = l->text.data + l->at;
    size_t left = l->text.len - l->at;
    const uint8_t *end = memchr(p, '\n', left);
    size_t len = end != NULL ? (size_t)(end - p) : left;

    l->at += end != NULL ? len + 1 : len;
    l->line++;
    if (len > 0 && p[len - 1] == '\r')
        len--;
    l->content = (struct slice){p, len};
    return true;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

struct slice guard__line_words(struct slice line)
{
    const uint8_t *comment = line.len > 0 ? memchr(line.data, '#', line.len) : NULL;

    if (comment != NULL)
        line.len = (size_t)(comment - line.data);
    while (line.len > 0 && is_blank(line.data[line.len - 1]))
        line.len--;
    for (; line.len > 0 && is_blank(line.data[0]); line.len--)
        line.data++;
    return line;
}

/* ---- lists */

static int add_file(struct cidr_set *set, const char *path, size_t path_len, int64_t value,
                    const struct list_source *src)
{
    struct text_lines l = {0};
    char why[CIDR_WHY_MAX];
    int r = 0;

    if (src->files == NULL || !files_get(src->files, path, path_len, &l.text)) {
        config_error_add(src->err, src->line, src->section, src->key, "%.*s was not read", (int)path_len,
                         path);
        return -EINVAL;
    }
    while (r != -ENOMEM && guard__next_line(&l)) {
        struct slice words = guard__line_words(l.content);
        struct cidr c;
        if (words.len == 0)
            continue;
        enum cidr_problem problem = cidr_parse((const char *)words.data, words.len, &c);
        if (problem == CIDR_OK) {
            if (cidr_set_add(set, &c, value) < 0)
                r = -ENOMEM;
            continue;
        }
        r = -EINVAL;
        config_error_add(src->err, src->line, src->section, src->key, "%.*s:%u: %s", (int)path_len, path,
                         l.line, cidr_explain(problem, (const char *)words.data, words.len, why, sizeof why));
    }
    return r;
}

static int add_item(struct cidr_set *set, const char *item, size_t len, int64_t value,
                    const struct list_source *src)
{
    char why[CIDR_WHY_MAX];
    struct cidr c;

    if (item[0] == '/')
        return add_file(set, item, len, value, src);
    enum cidr_problem problem = cidr_parse(item, len, &c);
    if (problem == CIDR_OK)
        return cidr_set_add(set, &c, value);
    config_error_add(src->err, src->line, src->section, src->key, "%s%s",
                     cidr_explain(problem, item, len, why, sizeof why),
                     problem == CIDR_NO_ADDRESS ? ", or the path of a file, beginning with /" : "");
    return -EINVAL;
}

int guard__list_read(struct cidr_set *set, const char *list, int64_t value, const struct list_source *src)
{
    const char *pos = list, *item;
    size_t len;
    int result = 0;

    while (config_list_next(&pos, &item, &len)) {
        int r = add_item(set, item, len, value, src);
        if (r == -ENOMEM)
            return r;
        result = r < 0 ? r : result;
    }
    return result;
}

bool guard__list_is_set(const char *list)
{
    const char *item;
    size_t len;
    return config_list_next(&list, &item, &len);
}

/* ---- a list alone */

struct cidr_list {
    struct cidr_table *table;
};

struct cidr_list *cidr_list_new(const char *value, const struct files *files, const char *section,
                                const char *key, unsigned line, struct config_error *err)
{
    const struct list_source src = {.files = files, .section = section, .key = key, .line = line, .err = err};
    struct cidr_list *l = calloc(1, sizeof *l);
    struct cidr_set set = {0};
    int r = l == NULL ? -ENOMEM : guard__list_read(&set, value, 0, &src);

    if (r == 0 && (l->table = cidr_table_new(&set, NULL)) == NULL)
        r = -ENOMEM;
    cidr_set_fini(&set);
    if (r == 0)
        return l;
    if (r == -ENOMEM)
        config_error_add(err, line, section, key, "no memory for this list");
    free(l);
    return NULL;
}

void cidr_list_free(struct cidr_list *l)
{
    if (l == NULL)
        return;
    cidr_table_free(l->table);
    free(l);
}

bool cidr_list_has(const struct cidr_list *l, const struct net_addr *addr)
{
    int64_t value;
    return cidr_table_find(l->table, addr, INT64_MIN, &value);
}
