// SPDX-License-Identifier: MIT
#include "load/plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "load/plot_priv.h"
#include "load/report.h"

#define POINTS_MAX  601u /* of a line: more seconds are drawn together */
#define BARS_MAX    90u
#define NINES_STEPS 20u /* points of the curve per nine */

/* ---- over time */

struct timeline {
    size_t n;
    double x[POINTS_MAX];
    double open[POINTS_MAX], failed[POINTS_MAX], out[POINTS_MAX], in[POINTS_MAX];
    double p50[POINTS_MAX], p90[POINTS_MAX], p99[POINTS_MAX], max[POINTS_MAX];
};

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Nothing there is -1. */
static double time_or_none(uint64_t ns)
{
    return ns > 0 ? (double)ns : -1;
}

/* Seconds i..i+n-1 as one point: rates are means, percentiles the worst. */
static void point_add(struct timeline *t, const struct bench_sample *s, size_t n)
{
    size_t k = t->n++;
    t->out[k] = t->in[k] = 0;
    t->p50[k] = t->p90[k] = t->p99[k] = t->max[k] = -1;
    for (size_t i = 0; i < n; i++) {
        t->out[k] += s[i].out_per_s / (double)n;
        t->in[k] += s[i].in_per_s / (double)n;
        t->p50[k] = larger(t->p50[k], time_or_none(s[i].p50_ns));
        t->p90[k] = larger(t->p90[k], time_or_none(s[i].p90_ns));
        t->p99[k] = larger(t->p99[k], time_or_none(s[i].p99_ns));
        t->max[k] = larger(t->max[k], time_or_none(s[i].max_ns));
    }
    t->x[k] = (double)s[n - 1].end_ms / 1000;
    t->open[k] = s[n - 1].open;
    t->failed[k] = (double)s[n - 1].failed;
}

static void timeline_make(const struct bench_result *r, struct timeline *t)
{
    static const struct bench_sample begin = {0};
    size_t step = (r->n_samples + POINTS_MAX - 2) / (POINTS_MAX - 1);
    t->n = 0;
    point_add(t, &begin, 1);
    for (size_t i = 0; i < r->n_samples; i += step)
        point_add(t, &r->samples[i], r->n_samples - i < step ? r->n_samples - i : step);
}

static double largest(const double *y, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++)
        max = larger(max, y[i]);
    return max;
}

static double smallest_positive(const double *y, size_t n)
{
    double min = INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (y[i] > 0 && y[i] < min)
            min = y[i];
    }
    return min;
}

static struct chart_axis time_axis(const struct timeline *t)
{
    return plot__axis(0, t->n > 0 ? t->x[t->n - 1] : 1, false, UNIT_SECONDS);
}

static void lines(struct bytes *out, const struct chart *c, const struct timeline *t,
                  const struct chart_series *s, size_t n)
{
    plot__frame(out, c, s, n);
    for (size_t i = 0; i < n; i++)
        plot__line(out, c, t->x, &s[i], t->n);
}

static void chart_connections(struct bytes *out, const struct timeline *t, double top)
{
    const struct chart_series series[] = {{"connected", 0, t->open}, {"failed or lost", 1, t->failed}};
    double max = larger(largest(t->open, t->n), largest(t->failed, t->n));
    struct chart c = {"Connections", time_axis(t), plot__axis(0, larger(max, 1), false, UNIT_COUNT), top};
    lines(out, &c, t, series, 2);
}

static void chart_rates(struct bytes *out, const struct timeline *t, double top)
{
    const struct chart_series series[] = {{"received", 2, t->in, false}, {"sent", 0, t->out, true}};
    double max = larger(largest(t->out, t->n), largest(t->in, t->n));
    struct chart c = {"Messages a second", time_axis(t), plot__axis(0, larger(max, 1), false, UNIT_COUNT),
                      top};
    lines(out, &c, t, series, 2);
}

static void chart_latency(struct bytes *out, const struct timeline *t, double top)
{
    const struct chart_series series[] = {
        {"p50", 0, t->p50}, {"p90", 2, t->p90}, {"p99", 1, t->p99}, {"max", 3, t->max}};
    double min = smallest_positive(t->p50, t->n), max = largest(t->max, t->n);
    struct chart c = {"Latency over time", time_axis(t),
                      plot__axis(isinf(min) ? 1e3 : min, max, true, UNIT_TIME_NS), top};
    lines(out, &c, t, series, 4);
}

/* ---- distribution */

struct bars {
    uint32_t n;
    double first, ratio; /* bar i is from first * ratio^i */
    uint64_t count[BARS_MAX];
};

static uint32_t bucket_used(const struct hist *h, bool last)
{
    for (uint32_t k = 0; k < HIST_BUCKETS; k++) {
        uint32_t i = last ? HIST_BUCKETS - 1 - k : k;
        if (h->bucket[i] > 0)
            return i;
    }
    return 0;
}

/* Bars of equal width on a log scale; none narrower than a bucket of the histogram (0.8 %). */
static void bars_make(const struct hist *h, struct bars *b)
{
    double first = larger((double)hist_bucket_first(bucket_used(h, false)), 1);
    double last = (double)hist_bucket_last(bucket_used(h, true)) + 1;
    double width = larger(log(last / first) / BARS_MAX, 0.02);
    *b = (struct bars){.first = first, .ratio = exp(width)};
    b->n = (uint32_t)ceil(log(last / first) / width - 1e-9);
    b->n = b->n < 1 ? 1 : b->n > BARS_MAX ? BARS_MAX : b->n;
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        if (h->bucket[i] == 0)
            continue;
        double middle = ((double)hist_bucket_first(i) + (double)hist_bucket_last(i)) / 2;
        double at = middle > first ? log(middle / first) / width : 0;
        b->count[at < b->n ? (uint32_t)at : b->n - 1] += h->bucket[i];
    }
}

static void chart_distribution(struct bytes *out, const struct hist *h, double top)
{
    struct bars *b = calloc(1, sizeof(*b));
    uint64_t most = 1;
    if (b == NULL) {
        out->failed = true;
        return;
    }
    bars_make(h, b);
    for (uint32_t i = 0; i < b->n; i++)
        most = b->count[i] > most ? b->count[i] : most;
    struct chart c = {"Distribution of the latency (messages)",
                      plot__axis(b->first, (double)h->max, true, UNIT_TIME_NS),
                      plot__axis(0, (double)most, false, UNIT_COUNT), top};
    plot__frame(out, &c, NULL, 0);
    for (uint32_t i = 0; i < b->n; i++) {
        char from[REPORT_TIME_MAX], to[REPORT_TIME_MAX], tip[96];
        double x0 = b->first * pow(b->ratio, i), x1 = x0 * b->ratio;
        if (b->count[i] == 0)
            continue;
        snprintf(tip, sizeof(tip), "%s to %s: %" PRIu64, report_time((uint64_t)x0, from),
                 report_time((uint64_t)x1, to), b->count[i]);
        plot__bar(out, &c, x0, x1, (double)b->count[i], 0, tip);
    }
    static const double shares[] = {0.5, 0.99, 0.999};
    static const char *const names[] = {"p50", "p99", "p99.9"};
    for (unsigned i = 0; i < 3; i++) {
        char time[REPORT_TIME_MAX], word[48];
        uint64_t v = hist_quantile(h, shares[i]);
        snprintf(word, sizeof(word), "%s %s", names[i], report_time(v, time));
        plot__mark(out, &c, (double)v, word, i);
    }
    free(b);
}

/* Latency against the share that is not slower, each nine as wide as the one before: where the tail begins.
 */
static void chart_nines(struct bytes *out, const struct hist *h, double top)
{
    double x[8 * NINES_STEPS + 2], y[8 * NINES_STEPS + 2];
    double nines = log10((double)h->count) + 0.01;
    size_t n = 0;
    nines = nines < 1 ? 1 : nines > 7 ? 7 : nines;
    for (; n <= (size_t)(nines * NINES_STEPS); n++) {
        x[n] = (double)n / NINES_STEPS;
        y[n] = (double)hist_quantile(h, 1 - pow(10, -x[n]));
    }
    const struct chart_series series = {"latency", 0, y};
    struct chart c = {"Latency by percentile",
                      {0, nines, false, UNIT_NINES},
                      plot__axis(y[0], (double)h->max, true, UNIT_TIME_NS),
                      top};
    plot__frame(out, &c, NULL, 0);
    plot__line(out, &c, x, &series, n);
}

/* ---- files */

static void svg_begin(struct bytes *out, double height, bool alone)
{
    bytes_printf(out, "<svg %sviewBox=\"0 0 %.0f %.0f\" role=\"img\"",
                 alone ? "xmlns=\"http://www.w3.org/2000/svg\" " : "", CHART_WIDTH, height);
    if (alone)
        bytes_printf(out, " width=\"%.0f\" height=\"%.0f\"", CHART_WIDTH, height);
    bytes_append_str(out, ">\n");
}

void plot_svg(const struct bench_result *r, struct bytes *out)
{
    struct timeline *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        out->failed = true;
        return;
    }
    timeline_make(r, t);
    bool has = r->sum.latency.count > 0;
    double height = (has ? 3 : 1) * CHART_HEIGHT + 24;
    bytes_append_str(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    svg_begin(out, height, true);
    bytes_printf(out, "<style>%s</style>\n<rect style=\"fill:var(--bg)\" width=\"%.0f\" height=\"%.0f\"/>\n",
                 plot__style, CHART_WIDTH, height);
    bytes_append_str(out, "<text x=\"8\" y=\"18\">tgg bench ");
    plot_escape(out, r->opt->url);
    bytes_append_str(out, "</text>\n");
    if (has) {
        chart_latency(out, t, 24);
        chart_distribution(out, &r->sum.latency, 24 + CHART_HEIGHT);
        chart_nines(out, &r->sum.latency, 24 + 2 * CHART_HEIGHT);
    } else {
        chart_connections(out, t, 24);
    }
    bytes_append_str(out, "</svg>\n");
    free(t);
}

static void html_svg(struct bytes *out, const struct timeline *t,
                     void (*draw)(struct bytes *, const struct timeline *, double))
{
    bytes_append_str(out, "<figure>");
    svg_begin(out, CHART_HEIGHT, false);
    draw(out, t, 0);
    bytes_append_str(out, "</svg></figure>\n");
}

static void html_hist_svg(struct bytes *out, const struct hist *h,
                          void (*draw)(struct bytes *, const struct hist *, double))
{
    bytes_append_str(out, "<figure>");
    svg_begin(out, CHART_HEIGHT, false);
    draw(out, h, 0);
    bytes_append_str(out, "</svg></figure>\n");
}

static void tile(struct bytes *out, const char *name, const char *value)
{
    bytes_append_str(out, "<div><span>");
    plot_escape(out, name);
    bytes_append_str(out, "</span><b>");
    plot_escape(out, value);
    bytes_append_str(out, "</b></div>\n");
}

static void html_tiles(const struct bench_result *r, struct bytes *out)
{
    const uint64_t *c = r->sum.counts;
    char text[64], time[REPORT_TIME_MAX];
    double seconds = r->run_s > 0 ? r->run_s : 1;
    bytes_append_str(out, "<div class=\"tiles\">\n");
    snprintf(text, sizeof(text), "%" PRIu64 " of %" PRIu64, c[BENCH_opened], c[BENCH_begun]);
    tile(out, "connected", text);
    snprintf(text, sizeof(text), "%.0f/s", (double)c[BENCH_messages_out] / seconds);
    tile(out, "sent", text);
    snprintf(text, sizeof(text), "%.0f/s", (double)c[BENCH_messages_in] / seconds);
    tile(out, "received", text);
    if (r->sum.latency.count > 0) {
        tile(out, "latency p50", report_time(hist_quantile(&r->sum.latency, 0.5), time));
        tile(out, "latency p99", report_time(hist_quantile(&r->sum.latency, 0.99), time));
    }
    snprintf(text, sizeof(text), "%.3g %%", bench_errors_percent(r));
    tile(out, "errors", text);
    bytes_append_str(out, "</div>\n");
}

static const char page_style[] =
    "body{margin:0 auto;max-width:1500px;padding:16px;background:var(--bg);color:var(--ink);font:15px/1.45 "
    "system-ui,sans-serif}"
    "h1{font-size:20px;margin:4px 0;overflow-wrap:anywhere}p{color:var(--soft);margin:4px 0 16px}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin:12px 0}"
    ".tiles div,figure,pre{background:var(--card);border:1px solid var(--line);border-radius:8px}"
    ".tiles div{padding:10px 14px}.tiles span{display:block;color:var(--soft);font-size:13px}.tiles "
    "b{font-size:20px}"
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,560px),1fr));gap:12px}"
    "figure{margin:0;padding:6px}figure svg{display:block;width:100%;height:auto}"
    "pre{padding:14px;overflow-x:auto;font-size:13px}";

static void html_head(const struct bench_result *r, struct bytes *out)
{
    struct bytes what = {0};
    bytes_append_str(
        out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>tgg bench ");
    plot_escape(out, r->opt->url);
    bytes_printf(out, "</title>\n<style>%s%s</style>\n</head>\n<body>\n<h1>tgg bench ", plot__style,
                 page_style);
    plot_escape(out, r->opt->url);
    bytes_append_str(out, "</h1>\n<p>");
    report_what(r, &what);
    bytes_append_byte(&what, '\0');
    plot_escape(out, what.failed ? "" : (const char *)what.data);
    bytes_append_str(out, "</p>\n");
    bytes_fini(&what);
}

void plot_html(const struct bench_result *r, struct bytes *out)
{
    struct timeline *t = calloc(1, sizeof(*t));
    struct bytes text = {0};
    if (t == NULL) {
        out->failed = true;
        return;
    }
    timeline_make(r, t);
    html_head(r, out);
    html_tiles(r, out);
    bytes_append_str(out, "<div class=\"charts\">\n");
    html_svg(out, t, chart_connections);
    if (!r->opt->idle)
        html_svg(out, t, chart_rates);
    if (r->sum.latency.count > 0) {
        html_svg(out, t, chart_latency);
        html_hist_svg(out, &r->sum.latency, chart_distribution);
        html_hist_svg(out, &r->sum.latency, chart_nines);
    }
    bytes_append_str(out, "</div>\n<pre>");
    report_text(r, &text);
    bytes_append_byte(&text, '\0');
    for (char *line = (char *)text.data, *end; !text.failed && line != NULL && *line != '\0';
         line = end + 1) {
        for (end = line; *end != '\n' && *end != '\0'; end++)
            ;
        bool last = *end == '\0';
        *end = '\0';
        plot_escape(out, line);
        bytes_append_byte(out, '\n');
        if (last)
            break;
    }
    bytes_append_str(out, "</pre>\n</body>\n</html>\n");
    bytes_fini(&text);
    free(t);
}
