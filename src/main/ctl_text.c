// SPDX-License-Identifier: MIT
#include "main/ctl_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/utf8_char.h"

/* ---- numbers */

char *ctl_format_count(double n, char *buf)
{
    bool whole = n == (double)(int64_t)n || n >= 99.95;
    snprintf(buf, CTL_FORMAT_MAX, whole ? "%.0f" : "%.1f", n);
    return buf;
}

/* With a unit, stepped up before rounding would show a full one ("1024 KB"). */
static char *format_scaled(double v, double step, const char *const *units, unsigned n_units, char *buf)
{
    unsigned i = 0;
    while (i + 1 < n_units && v >= step - 0.5) {
        v /= step;
        i++;
    }
    bool whole = i == 0 ? v == (double)(int64_t)v : v >= 99.95;
    snprintf(buf, CTL_FORMAT_MAX, whole ? "%.0f %s" : "%.1f %s", v, units[i]);
    return buf;
}

char *ctl_format_bytes(double n, char *buf)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    return format_scaled(n < 0 ? 0 : n, 1024, units, sizeof units / sizeof units[0], buf);
}

char *ctl_format_seconds(double seconds, char *buf)
{
    int64_t s = seconds < 0 ? 0 : seconds > 1e15 ? INT64_C(1000000000000000) : (int64_t)seconds;

    if (s < 60)
        snprintf(buf, CTL_FORMAT_MAX, "%" PRId64 "s", s);
    else if (s < 3600)
        snprintf(buf, CTL_FORMAT_MAX, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(buf, CTL_FORMAT_MAX, "%" PRId64 "h%02" PRId64 "m", s / 3600, s % 3600 / 60);
    else
        snprintf(buf, CTL_FORMAT_MAX, "%" PRId64 "d%02" PRId64 "h", s / 86400, s % 86400 / 3600);
    return buf;
}

char *ctl_format_ns(double ns, char *buf)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    if (ns == 0)
        return ctl_format_count(0, buf);
    if (ns >= 100e9)
        return ctl_format_seconds(ns / 1e9, buf);
    return format_scaled(ns < 0 ? 0 : ns, 1000, units, sizeof units / sizeof units[0], buf);
}

char *ctl_format_unix(int64_t unix_s, char *buf)
{
    time_t t = (time_t)unix_s;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(buf, CTL_FORMAT_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(buf, CTL_FORMAT_MAX, "@%" PRId64, unix_s);
    return buf;
}

/* ---- characters */

struct range {
    uint32_t first, last;
};

static bool in_ranges(uint32_t c, const struct range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    }
    return false;
}
#define IN(c, ranges) in_ranges(c, ranges, sizeof(ranges) / sizeof(ranges)[0])

/* What text of others must not do to a screen: controls (Cc), line separators, characters that only change
 * the order of others or cannot be seen, and those for private use of the terminal's fonts stay. */
static bool is_harmful(uint32_t c)
{
    static const struct range ranges[] = {
        {0x00, 0x1F},     {0x7F, 0x9F},     {0xAD, 0xAD},     {0x061C, 0x061C},
        {0x180E, 0x180E}, {0x200B, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x206F},
        {0xFEFF, 0xFEFF}, {0xFFF9, 0xFFFB}, {0xFFFE, 0xFFFF}, {0xE0000, 0xE0FFF},
    };
    return IN(c, ranges);
}

/* Columns of a terminal: the ranges of Unicode's EastAsianWidth.txt (W, F), rounded to whole blocks, and the
 * common combining marks. wcwidth() would need a UTF-8 locale, which services often do not have. */
static unsigned char_width(uint32_t c)
{
    static const struct range wide[] = {
        {0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0x4DBF},   {0x4E00, 0xA4CF},
        {0xA960, 0xA97F},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},
        {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},   {0x16FE0, 0x18DFF}, {0x1B000, 0x1B2FF},
        {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1FAFF}, {0x20000, 0x3FFFD},
    };
    static const struct range none[] = {
        {0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x064B, 0x065F}, {0x1AB0, 0x1AFF},
        {0x1DC0, 0x1DFF}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F},
    };
    if (c < 0x300)
        return 1;
    return IN(c, none) ? 0 : IN(c, wide) ? 2 : 1;
}

/* The character at p, n bytes long as utf8_char_len() said. */
static uint32_t decode(const uint8_t *p, size_t n)
{
    if (n == 1)
        return p[0];
    uint32_t c = p[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (p[i] & 0x3F);
    return c;
}

size_t ctl_text_append(struct bytes *out, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t columns = 0;

    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_char_len(p + i, len - i);
        uint32_t c = n > 0 ? decode(p + i, n) : p[i];
        if (n > 0 && !is_harmful(c)) {
            bytes_append(out, p + i, n);
            columns += char_width(c);
            continue;
        }
        bytes_printf(out, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
        columns += c < 0x100 ? 4 : c < 0x10000 ? 6 : 7;
        n = n > 0 ? n : 1;
    }
    return columns;
}

size_t ctl_text_width(const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t columns = 0;
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_char_len(p + i, len - i);
        columns += n > 0 ? char_width(decode(p + i, n)) : 1;
        n = n > 0 ? n : 1;
    }
    return columns;
}

size_t ctl_text_fit(const void *data, size_t len, size_t columns)
{
    const uint8_t *p = data;
    size_t i = 0;
    for (size_t n; i < len; i += n) {
        n = utf8_char_len(p + i, len - i);
        unsigned width = n > 0 ? char_width(decode(p + i, n)) : 1;
        if (width > columns)
            break;
        columns -= width;
        n = n > 0 ? n : 1;
    }
    return i;
}

void ctl_json_append(struct bytes *out, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t done = 0;
    for (size_t i = 0; i < len; i++) {
        bool c1 = p[i] == 0xC2 && i + 1 < len && p[i + 1] >= 0x80 && p[i + 1] <= 0x9F;
        if (p[i] != 0x7F && !c1)
            continue;
        bytes_append(out, p + done, i - done);
        bytes_printf(out, "\\u%04x", p[i + c1]);
        i += c1;
        done = i + 1;
    }
    bytes_append(out, p + done, len - done);
}

void ctl_url_append(struct bytes *out, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++) {
        uint8_t c = p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
                     c == '.' || c == '_' || c == '~';
        if (plain)
            bytes_append_byte(out, c);
        else
            bytes_printf(out, "%%%02X", c);
    }
}
