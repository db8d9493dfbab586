// SPDX-License-Identifier: MIT
#include "admin/metrics_priv.h"

#include <string.h>

#include "base/utf8_char.h"

static void put_help(struct bytes *out, const char *help)
{
    for (; *help != '\0'; help++) {
        if (*help == '\\')
            bytes_append_str(out, "\\\\");
        else if (*help == '\n')
            bytes_append_str(out, "\\n");
        else
            bytes_append_byte(out, (uint8_t)*help);
    }
}

void metrics__head(struct bytes *out, const struct metric_family *family)
{
    bytes_printf(out, "# HELP %s ", family->name);
    put_help(out, family->help);
    bytes_printf(out, "\n# TYPE %s %s\n", family->name, metric_type_name(family->type));
}

static void put_name(struct bytes *out, const char *name, const char *labels)
{
    bytes_append_str(out, name);
    if (labels[0] != '\0') {
        bytes_append_byte(out, '{');
        bytes_append_str(out, labels);
        bytes_append_byte(out, '}');
    }
}

void metrics__uint(struct bytes *out, const char *name, const char *labels, uint64_t value)
{
    put_name(out, name, labels);
    bytes_printf(out, " %" PRIu64 "\n", value);
}

void metrics__int(struct bytes *out, const char *name, const char *labels, int64_t value)
{
    put_name(out, name, labels);
    bytes_printf(out, " %" PRId64 "\n", value);
}

/* In whole numbers: a double would lose nanoseconds after some months. */
void metrics__ns(struct bytes *out, const char *name, const char *labels, uint64_t ns)
{
    put_name(out, name, labels);
    bytes_printf(out, " %" PRIu64 ".%09" PRIu64 "\n", ns / 1000000000, ns % 1000000000);
}

void metrics__ms(struct bytes *out, const char *name, const char *labels, int64_t ms)
{
    if (ms < 0)
        ms = 0;
    put_name(out, name, labels);
    bytes_printf(out, " %" PRId64 ".%03" PRId64 "\n", ms / 1000, ms % 1000);
}

/* Buckets hold what is below their bound, `le` means up to it: exact for whole bytes with the bound less 1. A
 * nanosecond more or less is no matter. */
static void put_bucket(struct bytes *out, const char *name, const char *labels, uint64_t bound,
                       enum histogram_unit unit, uint64_t count)
{
    const char *comma = labels[0] != '\0' ? "," : "";

    if (bound == UINT64_MAX)
        bytes_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, comma, count);
    else if (unit == HISTOGRAM_UNIT_bytes)
        bytes_printf(out, "%s_bucket{%s%sle=\"%" PRIu64 "\"} %" PRIu64 "\n", name, labels, comma, bound - 1,
                     count);
    else
        bytes_printf(out, "%s_bucket{%s%sle=\"%.9g\"} %" PRIu64 "\n", name, labels, comma,
                     (double)bound / 1e9, count);
}

void metrics__histogram(struct bytes *out, const char *name, const char *labels, const struct histogram *h,
                        unsigned shift, enum histogram_unit unit, unsigned every)
{
    char sum[METRIC_NAME_MAX + 8], n[METRIC_NAME_MAX + 8];
    uint64_t count = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        count += __atomic_load_n(&h->buckets[i], __ATOMIC_RELAXED);
        if (i % every == 0 || i + 1 == HISTOGRAM_BUCKETS)
            put_bucket(out, name, labels, histogram_bound(shift, i), unit, count);
    }
    snprintf(sum, sizeof sum, "%s_sum", name);
    snprintf(n, sizeof n, "%s_count", name);
    uint64_t total = __atomic_load_n(&h->sum, __ATOMIC_RELAXED);
    if (unit == HISTOGRAM_UNIT_seconds)
        metrics__ns(out, sum, labels, total);
    else
        metrics__uint(out, sum, labels, total);
    /* The sum of what was written above, whatever has been observed since. */
    metrics__uint(out, n, labels, count);
}

/* One character at p becomes up to 4 bytes at `at`; *ret_len: how many of p it was. */
static size_t escape(char at[4], const char *p, size_t len, size_t *ret_len)
{
    size_t n = utf8_char_len((const uint8_t *)p, len);

    *ret_len = n > 0 ? n : 1;
    if (n == 0 || p[0] == '\0') {      /* the parser wants UTF-8, and stops at a NUL */
        memcpy(at, "\xef\xbf\xbd", 3); /* U+FFFD */
        return 3;
    }
    if (p[0] == '\\' || p[0] == '"' || p[0] == '\n') {
        at[0] = '\\';
        at[1] = p[0] == '\n' ? 'n' : p[0];
        return 2;
    }
    memcpy(at, p, n);
    return n;
}

char *metrics__label(char *buf, size_t cap, const char *value, size_t len)
{
    size_t at = 0;
    char one[4];

    for (size_t i = 0, used; i < len; i += used) {
        size_t n = escape(one, value + i, len - i, &used);
        if (at + n >= cap)
            break;
        memcpy(buf + at, one, n);
        at += n;
    }
    buf[at] = '\0';
    return buf;
}
