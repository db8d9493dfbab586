// SPDX-License-Identifier: MIT
/* Reading a file. inih does the grammar; what it does not tell (line numbers, headings, lines that are
 * neither) comes from the reader function through which it asks for each line: a line is handed out, then
 * inih calls the handler for it, or for a heading, a comment or an error does not. */
#include "common/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/config_priv.h"

#define FILE_SIZE_MAX ((size_t)4 << 20)
#define LINE_LEN_MAX  ((size_t)128 * 1024) /* over the longest value of the table and its key */

struct load {
    struct config *cfg;
    struct config_error *err;
    const char *pos, *end;
    unsigned line;         /* of the line handed out last; 1 is the first */
    bool pending;          /* that line must be a key = value, and the handler has not seen it yet */
    const char *line_text; /* it */
    size_t line_len;
    bool have_place; /* a good heading has been seen; else keys are skipped (the heading was reported) */
    bool skip;       /* in a section whose heading was wrong */
    struct config_place place;
};

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

static void heading(struct load *ld, const char *p, const char *end)
{
    char title[128];
    bool is_new;
    const char *close = memchr(p, ']', (size_t)(end - p));

    ld->skip = true;
    if (close == NULL || skip_blanks(close + 1, end) != end) {
        config_error_add(ld->err, ld->line, "", "",
                         "%s is not a heading; expected [SECTION] alone on its line",
                         log_quote(p, (unsigned long)(end - p)));
        return;
    }
    p = skip_blanks(p + 1, close);
    end = close;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    snprintf(title, sizeof title, "%.*s", (int)(end - p), p);
    if (config__place(ld->cfg, title, ld->line, &ld->place, &is_new, ld->err) < 0)
        return;
    ld->have_place = true;
    ld->skip = false;
    if (ld->place.section == CONFIG_SECTION_listen && !is_new) {
        const struct config_listen *first = ld->place.base;
        config_error_add(
            ld->err, ld->line, ld->place.label, "",
            "a second listener of that name, the first is at line %u; expected a name of its own",
            first->section_line);
        ld->skip = true;
    }
}

/* inih did not call the handler for a line that is no comment and no heading. */
static void report_pending(struct load *ld)
{
    if (!ld->pending)
        return;
    ld->pending = false;
    /* It may be a broken secret_key line: only its first word is shown. */
    size_t word = 0;
    while (word < ld->line_len && word < 32 && ld->line_text[word] != ' ' && ld->line_text[word] != '\t')
        word++;
    config_error_add(ld->err, ld->line, ld->have_place ? ld->place.label : "", "",
                     "the line that starts with %s has no '='; expected KEY = VALUE",
                     log_quote(ld->line_text, word));
}

/* Take the next line from the text; false at its end. *ret_end is without the line end. */
static bool next_line(struct load *ld, const char **ret, const char **ret_end)
{
    if (ld->pos == ld->end)
        return false;
    const char *newline = memchr(ld->pos, '\n', (size_t)(ld->end - ld->pos));
    const char *end = newline != NULL ? newline : ld->end;
    *ret = ld->pos;
    ld->pos = newline != NULL ? newline + 1 : ld->end;
    while (end > *ret && (end[-1] == '\r' || end[-1] == ' ' || end[-1] == '\t'))
        end--;
    /* Indentation means nothing here; to inih it could continue a value. */
    *ret = skip_blanks(*ret, end);
    *ret_end = end;
    ld->line++;
    return true;
}

static bool line_fits(struct load *ld, size_t len, size_t cap)
{
    size_t max = cap < LINE_LEN_MAX ? cap : LINE_LEN_MAX;
    if (len + 2 < max)
        return true;
    config_error_add(ld->err, ld->line, ld->have_place ? ld->place.label : "", "",
                     "a line of %zu bytes; expected at most %zu", len, max - 3);
    return false;
}

/* What inih sees: whole lines without indentation; an empty one in place of a heading or a line that is
 * refused. */
static char *read_line(char *buf, int cap, void *arg)
{
    struct load *ld = arg;
    const char *p, *end;

    report_pending(ld);
    if (!next_line(ld, &p, &end))
        return NULL;
    size_t len = (size_t)(end - p);
    if (memchr(p, '\0', len) != NULL) {
        config_error_add(ld->err, ld->line, "", "", "a zero byte; expected text");
        len = 0;
    } else if (!line_fits(ld, len, (size_t)cap)) {
        len = 0;
    } else if (len > 0 && *p == '[') {
        heading(ld, p, end);
        len = 0;
    }
    ld->pending = len > 0 && *p != '#' && *p != ';';
    ld->line_text = p;
    ld->line_len = len;
    memcpy(buf, p, len);
    memcpy(buf + len, "\n", 2);
    return buf;
}

static int on_key(void *arg, const char *section, const char *name, const char *value)
{
    struct load *ld = arg;

    (void)section; /* inih's copy is cut; ours is in ld->place */
    ld->pending = false;
    if (ld->skip)
        return 1;
    if (!ld->have_place) {
        config_error_add(ld->err, ld->line, "", name,
                         "a key before the first section; expected [gateway] or another before it");
        return 1;
    }
    const struct config_key *k = config_key_find(ld->place.section, name);
    uint32_t set_at = k != NULL ? *config_key_line(k, ld->place.base) : 0;
    if (set_at != 0) {
        config_error_add(ld->err, ld->line, ld->place.label, name,
                         "set twice, first at line %u; expected once", set_at);
        return 1;
    }
    config__set(&ld->place, name, value, ld->line, ld->err);
    return 1;
}

/* Set what Debian's inih leaves to the program. A value is the rest of its line: no comment can begin inside
 * one (a secret may well hold a ';'), and it can be as long as the table allows. */
static void set_up_inih(void)
{
    ini_use_stack = false;
    ini_max_line = (int)LINE_LEN_MAX;
    ini_initial_alloc = (int)LINE_LEN_MAX;
    ini_allow_realloc = false;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    ini_allow_no_value = false;
    ini_stop_on_first_error = false;
    ini_allow_bom = true;
}

static int finish(struct config *cfg, const struct config_error *err, struct config *ret)
{
    if (err->n + err->left_out > 0) {
        config_fini(cfg);
        return -EINVAL;
    }
    *ret = *cfg;
    return 0;
}

int config_load_text(const char *text, size_t len, const char *path, struct config *ret,
                     struct config_error *err)
{
    struct config *cfg = malloc(sizeof *cfg);
    if (cfg == NULL)
        abort();
    *err = (struct config_error){0};
    snprintf(err->path, sizeof err->path, "%s", path);
    config_defaults(cfg);
    free(cfg->source_path);
    cfg->source_path = strdup(path);
    if (cfg->source_path == NULL)
        abort();

    static const char bom[3] = {'\xef', '\xbb', '\xbf'};
    struct load ld = {.cfg = cfg, .err = err, .pos = text, .end = text + len};
    if (len >= sizeof bom && memcmp(text, bom, sizeof bom) == 0)
        ld.pos += sizeof bom;
    set_up_inih();
    if (ini_parse_stream(read_line, &ld, on_key, &ld) == -2)
        abort(); /* its line buffer */
    report_pending(&ld);
    if (err->n + err->left_out == 0)
        config_check(cfg, err);
    int r = finish(cfg, err, ret);
    free(cfg);
    return r;
}

/* ---- the file */

static int read_file(const char *path, char **ret, size_t *ret_len)
{
    struct stat st;
    int r = 0;
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    char *text = malloc(FILE_SIZE_MAX + 1);
    if (text == NULL)
        abort();
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (S_ISDIR(st.st_mode))
        r = -EISDIR;
    for (ssize_t n = 1; r == 0 && n > 0 && len <= FILE_SIZE_MAX; len += n > 0 ? (size_t)n : 0) {
        n = read(fd, text + len, FILE_SIZE_MAX + 1 - len);
        if (n < 0 && errno != EINTR)
            r = -errno;
    }
    close(fd);
    if (r == 0 && len > FILE_SIZE_MAX)
        r = -EFBIG;
    if (r < 0) {
        free(text);
        return r;
    }
    *ret = text;
    *ret_len = len;
    return 0;
}

int config_read_text(const char *path, char **ret, size_t *ret_len, struct config_error *err)
{
    int r = read_file(path, ret, ret_len);

    if (r == 0)
        return 0;
    *err = (struct config_error){0};
    snprintf(err->path, sizeof err->path, "%s", path);
    config_error_add(err, 0, "", "", "%s%s", strerror(-r),
                     r == -ENOENT ? "; name a file with -c FILE, or copy the example tgg_conf.ini there"
                                  : "");
    return r == -EINVAL ? -EIO : r;
}

int config_load(const char *path, struct config *ret, struct config_error *err)
{
    char *text;
    size_t len;
    int r = config_read_text(path, &text, &len, err);

    if (r < 0)
        return r;
    r = config_load_text(text, len, path, ret, err);
    free(text);
    return r;
}
