// SPDX-License-Identifier: MIT
#include "load/plot_priv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "load/report.h"

#define LEFT   62.0
#define RIGHT  14.0
#define TOP    40.0
#define BOTTOM 30.0

const char plot__style[] =
    ":root{--bg:#fff;--ink:#1c1e21;--soft:#666d75;--line:#dde1e6;--card:#f6f7f9;"
    "--c0:#2563c9;--c1:#c2410c;--c2:#0f8a5f;--c3:#a21caf;color-scheme:light dark}"
    "@media(prefers-color-scheme:dark){:root{--bg:#16181b;--ink:#e6e8ea;--soft:#9aa2ab;--line:#33383e;--card:"
    "#1e2125;"
    "--c0:#6ea8ff;--c1:#ff9d5c;--c2:#4cd6a0;--c3:#e58af0}}"
    "svg{font:12px system-ui,sans-serif}svg text{fill:var(--soft)}svg "
    ".t{fill:var(--ink);font-weight:600;font-size:14px}"
    "svg .g{stroke:var(--line);stroke-width:1}svg .m{stroke:var(--soft);stroke-dasharray:3 3}"
    "svg polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}svg .d{stroke-dasharray:6 5}"
    "svg .s0{stroke:var(--c0)}svg .s1{stroke:var(--c1)}svg .s2{stroke:var(--c2)}svg .s3{stroke:var(--c3)}"
    "svg rect.s0{fill:var(--c0);stroke:none}"
    "svg circle{stroke-width:0}svg circle.s0{fill:var(--c0)}svg circle.s1{fill:var(--c1)}svg "
    "circle.s2{fill:var(--c2)}"
    "svg circle.s3{fill:var(--c3)}";

/* ---- text */

/* How many bytes a character takes that is whole and well-formed at p, 0 when it is not. */
static size_t utf8_len(const unsigned char *p)
{
    static const struct {
        unsigned char mask, lead, len;
        uint32_t min;
    } forms[] = {{0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};
    for (size_t i = 0; i < 3; i++) {
        if ((p[0] & forms[i].mask) != forms[i].lead)
            continue;
        uint32_t c = p[0] & (uint8_t)~forms[i].mask;
        for (size_t k = 1; k < forms[i].len; k++) {
            if ((p[k] & 0xc0) != 0x80)
                return 0;
            c = c << 6 | (p[k] & 0x3f);
        }
        bool good =
            c >= forms[i].min && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) && c != 0xfffe && c != 0xffff;
        return good ? forms[i].len : 0;
    }
    return 0;
}

void plot_escape(struct bytes *out, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0';) {
        size_t len = *p < 0x80 ? 1 : utf8_len(p);
        switch (*p) {
        case '&': bytes_append_str(out, "&amp;"); break;
        case '<': bytes_append_str(out, "&lt;"); break;
        case '>': bytes_append_str(out, "&gt;"); break;
        case '"': bytes_append_str(out, "&quot;"); break;
        case '\'': bytes_append_str(out, "&#39;"); break;
        default:
            if (len == 0 || (len == 1 && (*p < ' ' || *p == 127)))
                bytes_append_byte(out, '?');
            else
                bytes_append(out, p, len);
        }
        p += len > 0 ? len : 1;
    }
}

static const char *number_text(double v, enum chart_unit unit, char buf[REPORT_TIME_MAX])
{
    static const struct {
        double of;
        const char *unit;
    } times[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}}, counts[] = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
    if (unit == UNIT_SECONDS) {
        snprintf(buf, REPORT_TIME_MAX, "%.6g s", v);
        return buf;
    }
    if (unit == UNIT_NINES) { /* v nines: 1 is 90 %, 2 is 99 %; 0 is 0 % */
        snprintf(buf, REPORT_TIME_MAX, "%.8g %%", 100 * (1 - pow(10, -v)));
        return buf;
    }
    for (size_t i = 0; i < 3; i++) {
        bool is_time = unit == UNIT_TIME_NS;
        double of = is_time ? times[i].of : counts[i].of;
        if (v >= of) {
            snprintf(buf, REPORT_TIME_MAX, "%.4g%s%s", v / of, is_time ? " " : "",
                     is_time ? times[i].unit : counts[i].unit);
            return buf;
        }
    }
    snprintf(buf, REPORT_TIME_MAX, "%.4g%s", v, unit == UNIT_TIME_NS && v > 0 ? " ns" : "");
    return buf;
}

/* ---- scales */

/* 1, 2 or 5 times a power of ten, at least v. */
static double round_up(double v)
{
    double power = pow(10, floor(log10(v)));
    double lead = v / power;
    return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

static double step_of(const struct chart_axis *a)
{
    return round_up((a->max - a->min) / 6);
}

struct chart_axis plot__axis(double min, double max, bool log, enum chart_unit unit)
{
    struct chart_axis a = {min, max, log, unit};
    if (log) {
        a.min = pow(10, floor(log10(min > 0 ? min : 1)));
        a.max = pow(10, ceil(log10(max > a.min ? max : a.min * 10)));
        if (max <= a.max / 5) /* half a decade is enough above */
            a.max /= 5;
        if (a.max <= a.min)
            a.max = a.min * 10;
        return a;
    }
    if (max <= min)
        a.max = max = min + 1;
    if (unit != UNIT_SECONDS && unit != UNIT_NINES) {
        double step = step_of(&a);
        a.max = ceil(max / step) * step;
    }
    return a;
}

static double place(const struct chart_axis *a, double v)
{
    double p = a->log ? (log10(v > a->min ? v : a->min) - log10(a->min)) / (log10(a->max) - log10(a->min))
                      : (v - a->min) / (a->max - a->min);
    return p < 0 ? 0 : p > 1 ? 1 : p;
}

static double x_at(const struct chart *c, double v)
{
    return LEFT + place(&c->x, v) * (CHART_WIDTH - LEFT - RIGHT);
}

static double y_at(const struct chart *c, double v)
{
    return c->top + CHART_HEIGHT - BOTTOM - place(&c->y, v) * (CHART_HEIGHT - TOP - BOTTOM);
}

/* ---- the frame */

static void x_tick(struct bytes *out, const struct chart *c, double v)
{
    char text[REPORT_TIME_MAX];
    double x = x_at(c, v);
    bytes_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x,
                 c->top + CHART_HEIGHT - 10, x > CHART_WIDTH - 40 ? "end" : "middle",
                 number_text(v, c->x.unit, text));
}

static void y_tick(struct bytes *out, const struct chart *c, double v)
{
    char text[REPORT_TIME_MAX];
    double y = y_at(c, v);
    bytes_printf(out, "<line class=\"g\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", LEFT, y,
                 CHART_WIDTH - RIGHT, y);
    bytes_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", LEFT - 6, y + 4,
                 number_text(v, c->y.unit, text));
}

static void ticks(struct bytes *out, const struct chart *c, const struct chart_axis *a,
                  void (*draw)(struct bytes *, const struct chart *, double))
{
    if (a->log) {
        for (double decade = a->min; decade <= a->max * 1.001; decade *= 10)
            draw(out, c, decade);
        return;
    }
    double step = a->unit == UNIT_NINES ? 1 : step_of(a);
    for (unsigned i = 0; a->min + step * i <= a->max + step * 1e-6; i++)
        draw(out, c, a->min + step * i);
}

static void legend(struct bytes *out, const struct chart *c, const struct chart_series *series, size_t n)
{
    double x = CHART_WIDTH - RIGHT;
    for (size_t i = n; i-- > 0;) {
        x -= 7.0 * (double)strlen(series[i].name) + 24;
        bytes_printf(out, "<circle class=\"s%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>", series[i].color, x,
                     c->top + 18);
        bytes_printf(out, "<text x=\"%.1f\" y=\"%.1f\">", x + 8, c->top + 22);
        plot_escape(out, series[i].name);
        bytes_append_str(out, "</text>\n");
    }
}

void plot__frame(struct bytes *out, const struct chart *c, const struct chart_series *series, size_t n)
{
    bytes_printf(out, "<text class=\"t\" x=\"8\" y=\"%.1f\">", c->top + 22);
    plot_escape(out, c->title);
    bytes_append_str(out, "</text>\n");
    ticks(out, c, &c->y, y_tick);
    ticks(out, c, &c->x, x_tick);
    legend(out, c, series, n);
}

/* ---- what stands in it */

/* A lone point would be no line. */
static void dot(struct bytes *out, const struct chart *c, const struct chart_series *s, double x, double y)
{
    bytes_printf(out, "<circle class=\"s%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>\n", s->color, x_at(c, x),
                 y_at(c, y));
}

void plot__line(struct bytes *out, const struct chart *c, const double *x, const struct chart_series *s,
                size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t begin = i;
        while (i < n && s->y[i] >= 0)
            i++;
        if (i - begin == 1)
            dot(out, c, s, x[begin], s->y[begin]);
        if (i - begin > 1) {
            bytes_printf(out, "<polyline class=\"s%u%s\" points=\"", s->color, s->dashed ? " d" : "");
            for (size_t k = begin; k < i; k++)
                bytes_printf(out, "%s%.1f,%.1f", k == begin ? "" : " ", x_at(c, x[k]), y_at(c, s->y[k]));
            bytes_append_str(out, "\"/>\n");
        }
        i = i == begin ? i + 1 : i;
    }
}

void plot__bar(struct bytes *out, const struct chart *c, double x0, double x1, double y, unsigned color,
               const char *tip)
{
    double left = x_at(c, x0), right = x_at(c, x1), top = y_at(c, y), bottom = c->top + CHART_HEIGHT - BOTTOM;
    double width = right - left - 0.6;
    bytes_printf(out, "<rect class=\"s%u\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>",
                 color, left, top, width > 0.5 ? width : 0.5, bottom - top);
    plot_escape(out, tip);
    bytes_append_str(out, "</title></rect>\n");
}

void plot__mark(struct bytes *out, const struct chart *c, double x, const char *word, unsigned row)
{
    double at = x_at(c, x), top = c->top + TOP;
    bytes_printf(out, "<line class=\"m\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", at, top, at,
                 c->top + CHART_HEIGHT - BOTTOM);
    bool at_end = at > CHART_WIDTH - 110;
    bytes_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", at + (at_end ? -4 : 4),
                 top + 10 + 14.0 * row, at_end ? "end" : "start");
    plot_escape(out, word);
    bytes_append_str(out, "</text>\n");
}
