// SPDX-License-Identifier: MIT
/* One line per event, text or JSON, to stderr or a file; rate-limited per call site, with what was left out
 * counted and said. One thread per process. Before log_open everything goes to stderr as text. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_NOTICE, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_options {
    enum log_level level;
    enum log_format format;
    const char *path;    /* NULL: stderr */
    unsigned rate_max;   /* lines per second and call site, 0: no limit */
    const char *process; /* "supervisor", "shard 0", "register": a field of each line */
};

/* 0 or -errno (the file could not be opened; the old target stays). */
int log_open(const struct log_options *opt);
/* After USR1: open the path again (logrotate). */
int log_reopen(void);
/* Back to stderr as text, without a limit. */
void log_close(void);

/* Where lines go, for a signal handler that writes its own (a stack): read at once, log_reopen changes it. */
int log_fd(void);

/* Say what was left out at sites that have been quiet since (any other line does that too). Call about once a
 * second. */
void log_flush(void);

struct log_site {
    uint64_t window_start_ns;
    uint32_t lines, left_out;
};

void log_write(struct log_site *site, enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

extern enum log_level log_level_now;

/* event: a short fixed name ("worker_connected"); the rest as key=value words:
 *   LOG(LOG_WARN, "register_lost", "address=%s retry_ms=%u error=\"%s\"", ...)
 * In JSON format each key=value becomes a member (bare whole numbers as numbers). Peers' bytes go through
 * log_quote first. A line: `2026-11-22T06:44:11.123Z notice shard-0 worker_connected key="..."` or
 * {"time":"2026-11-22T06:44:11.123Z","level":"notice","process":"shard-0","event":"worker_connected","key":"..."}
 * What a site leaves out of a second is said afterwards: event log_left_out, of=<event> lines=<how many>. */
#define LOG(level, event, ...)                                                                               \
    do {                                                                                                     \
        static struct log_site log_site_;                                                                    \
        if ((level) <= log_level_now)                                                                        \
            log_write(&log_site_, (level), (event), __VA_ARGS__);                                            \
    } while (0)

/* Printable, shortened copy of foreign bytes in a static ring of buffers (valid for the next 8 calls),
 * quotes included; never more than 128 characters. */
const char *log_quote(const void *data, unsigned long len);
