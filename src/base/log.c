// SPDX-License-Identifier: MIT
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log_json.h"

#define LINE_MAX_BYTES 4096
#define WINDOW_NS      UINT64_C(1000000000)

enum log_level log_level_now = LOG_NOTICE;

static struct {
    int fd;
    enum log_format format;
    unsigned rate_max;
    char *path;
    char process[32];
} out = {.fd = STDERR_FILENO, .process = "-"};

static const char *const level_names[] = {"error", "warn", "notice", "info", "debug"};

/* Sites that left lines out and have not said so yet. When more sites than these are over their rate at once,
 * the others say it with their next line. */
static struct pending {
    struct log_site *site;
    enum log_level level;
    const char *event;
} pending[64];
static unsigned n_pending;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- one line ---- */

static void add_str(struct log_line *l, const char *s)
{
    log_line_add(l, s, strlen(s));
}

static void add_time(struct log_line *l)
{
    char text[64];
    uint64_t now_ms = clock_ns(CLOCK_REALTIME) / 1000000;
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm tm;

    gmtime_r(&seconds, &tm);
    size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof(text) - n, ".%03uZ", (unsigned)(now_ms % 1000));
    add_str(l, text);
}

static void add_text(struct log_line *l, enum log_level level, const char *event, const char *words,
                     size_t len)
{
    add_time(l);
    add_str(l, " ");
    add_str(l, level_names[level]);
    add_str(l, " ");
    add_str(l, out.process);
    add_str(l, " ");
    add_str(l, event);
    if (len > 0)
        add_str(l, " ");
    size_t start = l->len;
    log_line_add(l, words, len);
    for (size_t i = start; i < l->len; i++) { /* one event, one line, whatever the caller let through */
        if ((unsigned char)l->data[i] < 0x20 || l->data[i] == 0x7f)
            l->data[i] = '?';
    }
}

static void add_json(struct log_line *l, enum log_level level, const char *event, const char *words,
                     size_t len)
{
    add_str(l, "{\"time\":\"");
    add_time(l);
    add_str(l, "\",\"level\":\"");
    add_str(l, level_names[level]);
    add_str(l, "\",\"process\":");
    log_json_string(l, out.process, strlen(out.process));
    add_str(l, ",\"event\":");
    log_json_string(l, event, strlen(event));
    log_json_members(l, words, len);
    l->full = false; /* a member that did not fit is left out; the end has its place */
    l->cap += 1;
    add_str(l, "}");
}

static void emit(enum log_level level, const char *event, const char *words, size_t len)
{
    char text[2 * LINE_MAX_BYTES];
    struct log_line l = {.data = text, .cap = sizeof(text) - 2};

    if (out.format == LOG_JSON)
        add_json(&l, level, event, words, len);
    else
        add_text(&l, level, event, words, len);
    text[l.len++] = '\n';
    /* One write: lines of several processes do not mix. When it fails there is nobody left to tell. */
    ssize_t n = write(out.fd, text, l.len);
    (void)n;
}

/* ---- the limit of lines per site ---- */

static void say_left_out(const char *event, enum log_level level, struct log_site *site)
{
    char words[128];
    int n = snprintf(words, sizeof(words), "of=%s lines=%u", event, (unsigned)site->left_out);

    site->left_out = 0;
    emit(level, "log_left_out", words, (size_t)n < sizeof(words) ? (size_t)n : sizeof(words) - 1);
}

static void pending_add(struct log_site *site, enum log_level level, const char *event)
{
    if (n_pending < sizeof(pending) / sizeof(pending[0]))
        pending[n_pending++] = (struct pending){site, level, event};
}

static void pending_flush(uint64_t now_ns, bool all)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < n_pending; i++) {
        struct pending *p = &pending[i];
        if (!all && now_ns - p->site->window_start_ns < WINDOW_NS)
            pending[kept++] = *p;
        else if (p->site->left_out > 0)
            say_left_out(p->event, p->level, p->site);
    }
    n_pending = kept;
}

static bool site_admits(struct log_site *site, enum log_level level, const char *event, uint64_t now_ns)
{
    if (site->window_start_ns == 0 || now_ns - site->window_start_ns >= WINDOW_NS) {
        if (site->left_out > 0)
            say_left_out(event, level, site);
        site->window_start_ns = now_ns;
        site->lines = 0;
    }
    if (out.rate_max == 0 || site->lines < out.rate_max) {
        site->lines++;
        return true;
    }
    if (site->left_out++ == 0)
        pending_add(site, level, event);
    return false;
}

void log_flush(void)
{
    if (n_pending > 0)
        pending_flush(clock_ns(CLOCK_MONOTONIC), false);
}

void log_write(struct log_site *site, enum log_level level, const char *event, const char *fmt, ...)
{
    char words[LINE_MAX_BYTES];
    int saved_errno = errno;
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    va_list ap;

    if (n_pending > 0)
        pending_flush(now_ns, false);
    if (site_admits(site, level, event, now_ns)) {
        va_start(ap, fmt);
        int n = vsnprintf(words, sizeof(words), fmt, ap);
        va_end(ap);
        if (n < 0)
            n = 0;
        emit(level, event, words, (size_t)n < sizeof(words) ? (size_t)n : sizeof(words) - 1);
    }
    errno = saved_errno;
}

/* ---- where it goes ---- */

static int open_path(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    return fd < 0 ? -errno : fd;
}

static void target_set(int fd, char *path)
{
    int old = out.fd;
    out.fd = fd; /* first: a signal handler may look (log_fd) */
    if (old != STDERR_FILENO)
        close(old);
    if (out.path != path)
        free(out.path);
    out.path = path;
}

static void process_set(const char *process)
{
    size_t n = 0;

    if (process == NULL || process[0] == '\0')
        process = "-";
    for (; process[n] != '\0' && n < sizeof(out.process) - 1;
         n++) /* one word, so that a line splits at spaces */
        out.process[n] = process[n] == ' ' ? '-' : process[n];
    out.process[n] = '\0';
}

int log_open(const struct log_options *opt)
{
    int fd = STDERR_FILENO;
    char *path = NULL;

    if (opt->path != NULL) {
        path = strdup(opt->path);
        if (path == NULL)
            return -ENOMEM;
        fd = open_path(path);
        if (fd < 0) {
            free(path);
            return fd;
        }
    }
    pending_flush(0, true);
    target_set(fd, path);
    process_set(opt->process);
    out.format = opt->format;
    out.rate_max = opt->rate_max;
    log_level_now = opt->level;
    return 0;
}

int log_reopen(void)
{
    if (out.path == NULL)
        return 0;
    int fd = open_path(out.path);
    if (fd < 0)
        return fd;
    target_set(fd, out.path);
    return 0;
}

int log_fd(void)
{
    return out.fd;
}

void log_close(void)
{
    pending_flush(0, true);
    target_set(STDERR_FILENO, NULL);
    out.format = LOG_TEXT;
    out.rate_max = 0;
}

/* ---- foreign bytes ---- */

#define QUOTE_MAX 128

/* How `c` is written: as itself, with a backslash, or as \xHH. */
static size_t quote_byte(uint8_t c, char ret[4])
{
    static const char hex[] = "0123456789abcdef";

    if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
        ret[0] = (char)c;
        return 1;
    }
    ret[0] = '\\';
    ret[1] = (char)c;
    if (c == '"' || c == '\\')
        return 2;
    ret[1] = 'x';
    ret[2] = hex[c >> 4];
    ret[3] = hex[c & 15];
    return 4;
}

const char *log_quote(const void *data, unsigned long len)
{
    static char ring[8][QUOTE_MAX + 1];
    static unsigned turn;
    char *text = ring[turn++ % 8];
    const uint8_t *p = data;
    size_t n = 0, cut = 1; /* cut: where `..."` still fits */

    text[n++] = '"';
    for (unsigned long i = 0; i < len; i++) {
        char escaped[4];
        size_t k = quote_byte(p[i], escaped);
        if (n + k > QUOTE_MAX - 1) {
            memcpy(text + cut, "...\"", 5);
            return text;
        }
        memcpy(text + n, escaped, k);
        n += k;
        if (n + 4 <= QUOTE_MAX)
            cut = n;
    }
    text[n++] = '"';
    text[n] = '\0';
    return text;
}
