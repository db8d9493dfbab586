// SPDX-License-Identifier: MIT
#include "guard/ban_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "guard/guard_priv.h"

#define BAN_FILE_BYTES_MAX ((size_t)256 << 20) /* more is not ours */

/* ---- lines */

static bool parse_time(const uint8_t *p, size_t len, int64_t *ret)
{
    int64_t v = 0;

    if (len == 0 || len > 18)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        v = v * 10 + (p[i] - '0');
    }
    *ret = v;
    return true;
}

static size_t word_length(struct slice s)
{
    size_t n = 0;
    while (n < s.len && s.data[n] != ' ' && s.data[n] != '\t')
        n++;
    return n;
}

enum ban_line ban_line_parse(struct slice line, struct ban *ret, char *why, size_t cap)
{
    struct slice words = guard__line_words(line);
    struct ban b;

    if (words.len == 0)
        return BAN_LINE_EMPTY;
    size_t n = word_length(words);
    enum cidr_problem problem = cidr_parse((const char *)words.data, n, &b.cidr);
    if (problem != CIDR_OK) {
        cidr_explain(problem, (const char *)words.data, n, why, cap);
        return BAN_LINE_WRONG;
    }
    struct slice time = guard__line_words((struct slice){words.data + n, words.len - n});
    if (!parse_time(time.data, time.len, &b.until_unix_s)) {
        snprintf(why, cap, "%s is no time; expected CIDR UNTIL, the end of the ban in seconds since 1970",
                 log_quote(time.data, time.len));
        return BAN_LINE_WRONG;
    }
    *ret = b;
    return BAN_LINE_BAN;
}

struct slice ban_line_comment(struct slice line)
{
    const uint8_t *hash = line.len > 0 ? memchr(line.data, '#', line.len) : NULL;
    if (hash == NULL)
        return (struct slice){line.data, 0};
    size_t before = (size_t)(hash - line.data) + 1;
    struct slice c = {line.data + before, line.len - before};
    for (; c.len > 0 && (c.data[0] == ' ' || c.data[0] == '\t'); c.len--)
        c.data++;
    return c;
}

int ban_text_walk(struct slice text, void (*each)(void *ctx, const struct ban *b, struct slice comment),
                  void *ctx, unsigned *ret_line, char *why, size_t cap)
{
    struct text_lines l = {.text = text};
    char this_why[BAN_WHY_MAX];
    struct ban b;
    int r = 0;

    while (guard__next_line(&l)) {
        switch (ban_line_parse(l.content, &b, this_why, sizeof this_why)) {
        case BAN_LINE_EMPTY: break;
        case BAN_LINE_BAN: each(ctx, &b, ban_line_comment(l.content)); break;
        case BAN_LINE_WRONG:
            if (r == 0) {
                *ret_line = l.line;
                snprintf(why, cap, "%s", this_why);
            }
            r = -EINVAL;
            break;
        }
    }
    return r;
}

/* ---- editing a text */

static bool same_prefix(const struct cidr *a, const struct cidr *b)
{
    return a->family == b->family && a->bits == b->bits && a->hi == b->hi && a->lo == b->lo;
}

/* Whether the line stays; -EINVAL: it is wrong. */
static int keep_line(struct ban_edit *edit, const struct text_lines *l, bool *ret_keep)
{
    struct ban b;

    *ret_keep = true;
    switch (ban_line_parse(l->content, &b, edit->why, sizeof edit->why)) {
    case BAN_LINE_EMPTY: return 0;
    case BAN_LINE_WRONG: edit->line = l->line; return -EINVAL;
    case BAN_LINE_BAN: break;
    }
    if (b.until_unix_s <= edit->now_unix_s) {
        edit->expired++;
        *ret_keep = false;
    } else if (same_prefix(&b.cidr, &edit->change.cidr)) {
        edit->replaced++;
        *ret_keep = false;
    }
    return 0;
}

int ban_text_edit(struct slice text, struct ban_edit *edit, struct bytes *out)
{
    struct text_lines l = {.text = text};
    char cidr[CIDR_STRLEN];

    edit->replaced = edit->expired = edit->line = 0;
    for (size_t from = 0; guard__next_line(&l); from = l.at) {
        bool keep;
        if (keep_line(edit, &l, &keep) < 0)
            return -EINVAL;
        if (keep)
            bytes_append(out, text.data + from, l.at - from);
    }
    if (out->len > 0 && out->data[out->len - 1] != '\n')
        bytes_append_byte(out, '\n');
    if (edit->change.until_unix_s > 0)
        bytes_printf(out, "%s %" PRId64 "\n", cidr_format(&edit->change.cidr, cidr, sizeof cidr),
                     edit->change.until_unix_s);
    return out->failed ? -ENOMEM : 0;
}

/* ---- the file */

static int read_all(int fd, struct bytes *ret)
{
    for (;;) {
        if (ret->len > BAN_FILE_BYTES_MAX)
            return -EFBIG;
        if (!bytes_reserve(ret, 65536))
            return -ENOMEM;
        ssize_t n = read(fd, ret->data + ret->len, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        ret->len += (size_t)n;
    }
}

int ban_file_read(const char *path, struct bytes *ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int r = read_all(fd, ret);
    close(fd);
    return r;
}

static int write_all(int fd, const struct bytes *b)
{
    for (size_t at = 0; at < b->len;) {
        ssize_t n = write(fd, b->data + at, b->len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += (size_t)n;
    }
    return 0;
}

/* Owner and permissions of the one that it replaces. The owner only where we may: root edits the file of
 * another user, who edits only his own. */
static int take_after(int fd, const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return fchmod(fd, 0644) < 0 ? -errno : 0;
    if (fchown(fd, st.st_uid, st.st_gid) < 0 && errno != EPERM)
        return -errno;
    return fchmod(fd, st.st_mode & 07777) < 0 ? -errno : 0;
}

static int replace(const char *path, const struct bytes *content, int dir_fd)
{
    char temporary[PATH_MAX];

    if ((size_t)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= sizeof temporary)
        return -ENAMETOOLONG;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = write_all(fd, content);
    if (r == 0)
        r = take_after(fd, path);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    close(fd);
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r < 0)
        unlink(temporary);
    else if (fsync(dir_fd) < 0)
        r = -errno;
    return r;
}

/* The folder, locked until it is closed: fd or -errno. */
static int lock_folder(const char *path)
{
    char copy[PATH_MAX];

    if ((size_t)snprintf(copy, sizeof copy, "%s", path) >= sizeof copy)
        return -ENAMETOOLONG;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r;
    do
        r = flock(fd, LOCK_EX) < 0 ? -errno : 0;
    while (r == -EINTR);
    if (r < 0)
        close(fd);
    return r < 0 ? r : fd;
}

int ban_file_edit(const char *path, struct ban_edit *edit)
{
    struct bytes old = {0}, changed = {0};
    char target[PATH_MAX];

    /* Through symbolic links: it is the file that is replaced, not the link to it. */
    if (realpath(path, target) != NULL)
        path = target;
    else if (errno != ENOENT)
        return -errno;
    int dir_fd = lock_folder(path);
    if (dir_fd < 0)
        return dir_fd;
    int r = ban_file_read(path, &old);
    if (r == 0)
        r = ban_text_edit((struct slice){old.data, old.len}, edit, &changed);
    if (r == 0)
        r = replace(path, &changed, dir_fd);
    close(dir_fd);
    bytes_fini(&old);
    bytes_fini(&changed);
    return r;
}

char *ban_file_explain(int err, const char *path, const struct ban_edit *edit, char *buf, size_t cap)
{
    if (err == -EINVAL && edit->line > 0)
        snprintf(buf, cap, "%s:%u: %s", path, edit->line, edit->why);
    else
        snprintf(buf, cap, "%s: %s", path, strerror(-err));
    return buf;
}
