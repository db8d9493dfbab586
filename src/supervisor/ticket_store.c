// SPDX-License-Identifier: MIT
#include "supervisor/ticket_store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"

#define KEY_BYTES  (sizeof(struct ticket_key))
#define KEY_DIGITS (2 * KEY_BYTES)
static_assert(KEY_BYTES == 80 && sizeof(struct ticket_key) == 16 + 32 + 32, "a key is its bytes in order");
static_assert(TICKET_STORE_KEYS <= TICKET_KEYS_MAX, "all can be shared");

/* "tgg tls tickets 1", then a line `MADE_UNIX_S KEY` each, newest first. */
#define HEADING        "tgg tls tickets 1\n"
#define FILE_BYTES_MAX 1024

void ticket_store_init(struct ticket_store *t, const struct config *cfg, struct ticket_keys *shared)
{
    *t = (struct ticket_store){.shared = shared, .rotation_s = cfg->gateway.tls_ticket_rotation};
    if (asprintf(&t->path, "%s/tls_tickets", cfg->gateway.runtime_dir) < 0)
        abort();
}

void ticket_store_fini(struct ticket_store *t)
{
    free(t->path);
    explicit_bzero(t, sizeof *t);
}

/* ---- keys as text */

static int digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_zero(const struct ticket_key *k)
{
    static const struct ticket_key zero;
    return memcmp(k->name, zero.name, sizeof k->name) == 0;
}

static bool parse_key(const uint8_t *text, size_t len, struct ticket_key *ret)
{
    uint8_t *to = (uint8_t *)ret;
    if (len != KEY_DIGITS)
        return false;
    for (size_t i = 0; i < KEY_BYTES; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return !is_zero(ret);
}

static void print_key(const struct ticket_key *k, char ret[KEY_DIGITS + 1])
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *from = (const uint8_t *)k;
    for (size_t i = 0; i < KEY_BYTES; i++) {
        ret[2 * i] = hex[from[i] >> 4];
        ret[2 * i + 1] = hex[from[i] & 15];
    }
    ret[KEY_DIGITS] = '\0';
}

/* The next line without its end; false: there is none. */
static bool next_line(struct slice *text, struct slice *ret)
{
    if (text->len == 0)
        return false;
    const uint8_t *newline = memchr(text->data, '\n', text->len);
    size_t len = newline != NULL ? (size_t)(newline - text->data) : text->len;
    size_t used = newline != NULL ? len + 1 : len;
    *ret = (struct slice){text->data, len};
    *text = (struct slice){text->data + used, text->len - used};
    return true;
}

/* ---- tls_ticket_file */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct slice trimmed(struct slice s)
{
    while (s.len > 0 && is_blank(s.data[0]))
        s = (struct slice){s.data + 1, s.len - 1};
    while (s.len > 0 && is_blank(s.data[s.len - 1]))
        s.len--;
    return s;
}

static bool has_name(const struct ticket_keys *keys, const struct ticket_key *k)
{
    for (unsigned i = 0; i < keys->n; i++) {
        if (memcmp(keys->keys[i].name, k->name, sizeof k->name) == 0)
            return true;
    }
    return false;
}

/* What is wrong in which line of it; NULL: nothing. Never shows the line. */
static const char *parse_file(struct slice text, struct ticket_keys *ret, unsigned *ret_line)
{
    struct slice line;
    *ret = (struct ticket_keys){.n = 0};
    for (*ret_line = 1; next_line(&text, &line); (*ret_line)++) {
        struct ticket_key key;
        line = trimmed(line);
        if (line.len == 0 || line.data[0] == '#')
            continue;
        if (ret->n == TICKET_KEYS_MAX)
            return "one key too many; expected at most 4 lines";
        if (!parse_key(line.data, line.len, &key))
            return "not a key; expected 160 hexadecimal digits (openssl rand -hex 80)";
        if (has_name(ret, &key))
            return "begins with the same 32 digits, the name, as a key above; expected a name of its own";
        ret->keys[ret->n++] = key;
    }
    *ret_line = 0;
    return ret->n > 0 ? NULL : "no key in it; expected lines of 160 hexadecimal digits";
}

static struct slice file_of(const struct config *cfg, const struct files *files)
{
    const char *path = cfg->gateway.tls_ticket_file;
    struct slice text = {NULL, 0};
    files_get(files, path, strlen(path), &text);
    return text;
}

int ticket_file_check(const struct config *cfg, const struct files *files, struct config_error *err)
{
    const struct config_gateway *g = &cfg->gateway;
    struct ticket_keys keys;
    unsigned line;

    if (g->tls_ticket_file[0] == '\0')
        return 0;
    const char *wrong = parse_file(file_of(cfg, files), &keys, &line);
    explicit_bzero(&keys, sizeof keys);
    if (wrong == NULL)
        return 0;
    const char *path = log_quote(g->tls_ticket_file, strlen(g->tls_ticket_file));
    if (line > 0)
        config_error_add(err, g->line.tls_ticket_file, "gateway", "tls_ticket_file", "%s line %u: %s", path,
                         line, wrong);
    else
        config_error_add(err, g->line.tls_ticket_file, "gateway", "tls_ticket_file", "%s: %s", path, wrong);
    return -EINVAL;
}

static void warn_of_readers(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        LOG(LOG_WARN, "tls_ticket_file_not_private",
            "path=\"%s\" mode=%03o note=\"who can read it can read TLS sessions: chmod 600\"", path,
            (unsigned)(st.st_mode & 0777));
}

/* Of a ticket: the key that made it opens it for so long. */
static uint32_t lifetime_s(const struct ticket_store *t)
{
    return t->rotation_s < UINT32_MAX / 2 ? (uint32_t)(2 * t->rotation_s) : UINT32_MAX;
}

static void take_file(struct ticket_store *t, const struct config *cfg, const struct files *files)
{
    struct ticket_keys keys;
    unsigned line;
    const char *wrong = parse_file(file_of(cfg, files), &keys, &line);

    ASSERT(wrong == NULL); /* ticket_file_check */
    warn_of_readers(cfg->gateway.tls_ticket_file);
    keys.lifetime_s = lifetime_s(t);
    ticket_keys_write(t->shared, &keys);
    LOG(LOG_INFO, "tls_ticket_keys_read", "path=\"%s\" keys=%u", cfg->gateway.tls_ticket_file, keys.n);
    explicit_bzero(&keys, sizeof keys);
}

/* ---- our own: what is kept */

/* Whether the descriptor is of a file that only we may have read or written. */
static const char *distrust(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "it is no regular file";
    if (st.st_uid != geteuid())
        return "it belongs to another user";
    return (st.st_mode & (S_IRWXG | S_IRWXO)) != 0 ? "others may have read it" : NULL;
}

static bool parse_kept(struct ticket_store *t, struct slice line)
{
    char *end;
    char text[FILE_BYTES_MAX + 1];
    if (t->n == TICKET_STORE_KEYS)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)line.len, (const char *)line.data);
    int64_t made = strtoll(text, &end, 10);
    bool good =
        end != text && *end == ' ' && made >= 0 &&
        parse_key((uint8_t *)end + 1, strlen(end + 1), &t->own[t->n].key) && /* in order: each older */
        (t->n == 0 || made <= t->own[t->n - 1].made_unix_s);
    explicit_bzero(text, sizeof text);
    if (good)
        t->own[t->n++].made_unix_s = made;
    return good;
}

static const char *parse_all_kept(struct ticket_store *t, struct slice text)
{
    struct slice line;
    if (text.len < sizeof HEADING - 1 || memcmp(text.data, HEADING, sizeof HEADING - 1) != 0)
        return "it does not begin as it should";
    next_line(&text, &line);
    while (next_line(&text, &line)) {
        if (!parse_kept(t, line))
            return "a line is damaged";
    }
    return NULL;
}

static const char *read_kept(struct ticket_store *t, int fd)
{
    uint8_t text[FILE_BYTES_MAX];
    const char *wrong = distrust(fd);

    if (wrong != NULL)
        return wrong;
    ssize_t n = read(fd, text, sizeof text);
    if (n < 0)
        wrong = strerror(errno);
    else
        wrong = parse_all_kept(t, (struct slice){text, (size_t)n});
    explicit_bzero(text, sizeof text);
    return wrong;
}

static void load_kept(struct ticket_store *t)
{
    int fd = open(t->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    const char *wrong = fd < 0 ? (errno == ENOENT ? NULL : strerror(errno)) : read_kept(t, fd);

    if (fd >= 0)
        close(fd);
    if (wrong == NULL)
        return;
    t->n = 0;
    LOG(LOG_WARN, "tls_tickets_not_continued", "path=\"%s\" error=\"%s\" note=\"new keys are made\"", t->path,
        wrong);
}

static int write_kept(const struct ticket_store *t, const char *path)
{
    char digits[KEY_DIGITS + 1];
    (void)unlink(path); /* of one that died here */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), r = 0;

    if (fd < 0)
        return -errno;
    if (dprintf(fd, HEADING) < 0)
        r = -errno;
    for (unsigned i = 0; i < t->n && r == 0; i++) {
        print_key(&t->own[i].key, digits);
        if (dprintf(fd, "%" PRId64 " %s\n", t->own[i].made_unix_s, digits) < 0)
            r = -errno;
    }
    explicit_bzero(digits, sizeof digits);
    close(fd);
    return r;
}

/* Whole or not at all, for whoever reads it next. Not synced: after a crash of the machine new keys do. */
static void save(const struct ticket_store *t)
{
    char path[PATH_MAX];
    int r = -ENAMETOOLONG;

    if (snprintf(path, sizeof path, "%s.new", t->path) < (int)sizeof path)
        r = write_kept(t, path);
    if (r == 0 && rename(path, t->path) < 0)
        r = -errno;
    if (r < 0)
        LOG(LOG_WARN, "tls_tickets_not_kept",
            "path=\"%s\" error=\"%s\" note=\"after a restart clients make whole handshakes\"", t->path,
            strerror(-r));
}

/* ---- our own: their life */

static void share(const struct ticket_store *t)
{
    struct ticket_keys keys = {.n = t->n, .lifetime_s = lifetime_s(t)};
    for (unsigned i = 0; i < t->n; i++)
        keys.keys[i] = t->own[i].key;
    ticket_keys_write(t->shared, &keys);
    explicit_bzero(&keys, sizeof keys);
}

static bool make_key(struct ticket_key *ret)
{
    do {
        if (getrandom(ret, sizeof *ret, 0) != (ssize_t)sizeof *ret)
            return false;
    } while (is_zero(ret));
    return true;
}

/* Each at its place in time, whatever has happened to the clock. */
static void settle_times(struct ticket_store *t, int64_t now_unix_s)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (t->own[i].made_unix_s > now_unix_s)
            t->own[i].made_unix_s = now_unix_s;
    }
    /* The last ticket of a key is made when the next key is, and lives for two rotations. */
    while (t->n > 0 && now_unix_s - t->own[t->n - 1].made_unix_s >= (int64_t)(3 * t->rotation_s))
        explicit_bzero(&t->own[--t->n], sizeof t->own[0]);
}

static void rotate(struct ticket_store *t, int64_t now_unix_s)
{
    struct ticket_key key;
    if (!make_key(&key)) {
        LOG(LOG_ERROR, "tls_ticket_key_not_made", "error=\"%s\"", strerror(errno));
        return;
    }
    if (t->n < TICKET_STORE_KEYS)
        t->n++;
    memmove(&t->own[1], &t->own[0], (t->n - 1) * sizeof t->own[0]);
    t->own[0].made_unix_s = now_unix_s;
    t->own[0].key = key;
    explicit_bzero(&key, sizeof key);
    LOG(LOG_INFO, "tls_ticket_key_changed", "keys=%u", t->n);
}

static void begin_own(struct ticket_store *t, int64_t now_unix_s)
{
    t->from = TICKETS_OWN;
    t->n = 0;
    load_kept(t);
    settle_times(t, now_unix_s);
    if (t->n == 0 || ticket_store_due_unix_s(t) <= now_unix_s)
        rotate(t, now_unix_s);
    save(t);
    share(t);
}

void ticket_store_turn(struct ticket_store *t, int64_t now_unix_s)
{
    if (t->from != TICKETS_OWN)
        return;
    if (t->n > 0 && now_unix_s >= t->own[0].made_unix_s && now_unix_s < ticket_store_due_unix_s(t))
        return;
    settle_times(t, now_unix_s);
    if (t->n == 0 || ticket_store_due_unix_s(t) <= now_unix_s)
        rotate(t, now_unix_s);
    save(t);
    share(t);
}

int64_t ticket_store_due_unix_s(const struct ticket_store *t)
{
    if (t->from != TICKETS_OWN)
        return INT64_MAX;
    return t->n > 0 ? t->own[0].made_unix_s + (int64_t)t->rotation_s : 0;
}

/* ---- on and off */

static bool has_tls(const struct config *cfg)
{
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (cfg->listen[i].tls_certificate[0] != '\0')
            return true;
    }
    return false;
}

static void switch_off(struct ticket_store *t)
{
    static const struct ticket_keys none;
    explicit_bzero(t->own, sizeof t->own);
    t->n = 0;
    if (t->from != TICKETS_OFF)
        ticket_keys_write(t->shared, &none);
    t->from = TICKETS_OFF;
}

void ticket_store_update(struct ticket_store *t, const struct config *cfg, const struct files *files,
                         int64_t now_unix_s)
{
    if (!has_tls(cfg)) {
        switch_off(t);
    } else if (cfg->gateway.tls_ticket_file[0] != '\0') {
        t->from = TICKETS_OF_FILE;
        take_file(t, cfg, files);
    } else if (t->from != TICKETS_OWN) {
        begin_own(t, now_unix_s);
    }
}
