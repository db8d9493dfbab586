// SPDX-License-Identifier: MIT
#include "load/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json_writer.h"

static const struct quantile {
    const char *name;
    const char *key;
    double share;
} quantiles[] = {
    {"p50", "p50_ns", 0.5},      {"p90", "p90_ns", 0.9}, {"p99", "p99_ns", 0.99},
    {"p99.9", "p999_ns", 0.999}, {"max", "max_ns", 1.0},
};
#define N_QUANTILES (sizeof(quantiles) / sizeof(quantiles[0]))

const char *report_close_name(unsigned code)
{
    static const struct {
        unsigned code;
        const char *name;
    } names[] = {
        {1000, "normal"},           {1001, "going away"},     {1002, "protocol error"},
        {1003, "unsupported data"}, {1005, "without a code"}, {1006, "abnormal"},
        {1007, "not UTF-8"},        {1008, "policy"},         {1009, "too large"},
        {1011, "internal error"},   {1012, "restart"},        {1013, "try again later"},
        {1014, "bad gateway"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].code == code)
            return names[i].name;
    }
    return "";
}

const char *report_time(uint64_t ns, char buf[REPORT_TIME_MAX])
{
    if (ns < 1000000)
        snprintf(buf, REPORT_TIME_MAX, "%.0f us", (double)ns / 1e3);
    else if (ns < UINT64_C(1000000000))
        snprintf(buf, REPORT_TIME_MAX, "%.2f ms", (double)ns / 1e6);
    else
        snprintf(buf, REPORT_TIME_MAX, "%.2f s", (double)ns / 1e9);
    return buf;
}

/* ---- what was done */

static const char *expect_name(const struct bench_options *o)
{
    static const char *const names[] = {[EXPECT_ECHO] = "echo",
                                        [EXPECT_ANSWER] = "answer",
                                        [EXPECT_FANOUT] = "fanout",
                                        [EXPECT_NONE] = "none"};
    return o->idle ? "idle" : names[o->expect];
}

/* Their text is that of the run, not of the options: a size that a template does not use says nothing. */
static void what_is_sent(const struct bench_options *o, struct bytes *out)
{
    uint32_t senders = bench_senders(o, 0, o->connections);
    if (o->message_text != NULL && !template_has(&o->message, PIECE_FILL))
        bytes_append_str(out, ", messages from a template");
    else if (o->mix.n > 1)
        bytes_printf(out, ", messages of %.1f bytes on average", (double)mix_mean_milli(&o->mix) / 1000);
    else
        bytes_printf(out, ", messages of %u bytes", o->mix.parts[0].size);
    if (senders != o->connections)
        bytes_printf(out, ", %u sender%s", senders, senders == 1 ? "" : "s");
    if (bench_sender_rate(o) > 0)
        bytes_printf(out, ", %.6g/s due", bench_sender_rate(o) * senders);
    else
        bytes_printf(out, ", closed loop, %u unanswered at a time each", o->outstanding);
}

void report_what(const struct bench_result *r, struct bytes *out)
{
    const struct bench_options *o = r->opt;
    bytes_printf(out, "%u connection%s from %u process%s", o->connections, o->connections == 1 ? "" : "s",
                 o->processes, o->processes == 1 ? "" : "es");
    if (o->sources.n > 0)
        bytes_printf(out, ", %zu source address%s", o->sources.n, o->sources.n == 1 ? "" : "es");
    bytes_printf(out, ", %s", expect_name(o));
    if (!o->idle)
        what_is_sent(o, out);
    bytes_printf(out, ", %.1f s%s", r->run_s, r->interrupted ? " (interrupted)" : "");
}

static const char *note_cpu(const struct bench_result *r, char *buf, size_t cap)
{
    snprintf(buf, cap,
             "A load process used %.0f %% of a CPU: the figures may be those of the load client. Use more "
             "--processes "
             "or another machine.",
             r->cpu_share_max * 100);
    return buf;
}

static const char *note_tls(const struct bench_result *r, char *buf, size_t cap)
{
    snprintf(buf, cap, "TLS said: %s%s", r->sum.tls_error,
             strstr(r->sum.tls_error, "certificate") != NULL
                 ? " (--insecure takes any certificate, --ca names authorities)"
                 : "");
    return buf;
}

static const char *note_connect(const struct bench_result *r, char *buf, size_t cap)
{
    snprintf(buf, cap, "The first of the connects that failed otherwise: %s", strerror(r->sum.connect_errno));
    return buf;
}

static const char *note_nobody(const struct bench_result *r, char *buf, size_t cap)
{
    const struct bench_options *o = r->opt;
    size_t most = 0;
    for (size_t i = 1; i < BENCH_ERRORS; i++)
        most = r->sum.errors[i] > r->sum.errors[most] ? i : most;
    snprintf(buf, cap, "Nothing connected to %s%.300s: %s", o->target.is_unix ? "unix:" : "", o->target.host,
             r->sum.errors[most] > 0 ? bench_error_texts[most] : "it was interrupted");
    return buf;
}

static const char *note_died(const struct bench_result *r, char *buf, size_t cap)
{
    snprintf(buf, cap, "%u load process(es) ended by a fault; what they did is missing in part.", r->n_died);
    return buf;
}

void report_notes(const struct bench_result *r, const char *notes[REPORT_NOTES_MAX])
{
    static char texts[REPORT_NOTES_MAX][512];
    size_t n = 0;
    bool has_rate = bench_sender_rate(r->opt) > 0;
    if (r->sum.counts[BENCH_opened] == 0) {
        notes[n] = note_nobody(r, texts[n], sizeof(texts[n]));
        n++;
    }
    if (r->sum.tls_error[0] != '\0') {
        notes[n] = note_tls(r, texts[n], sizeof(texts[n]));
        n++;
    }
    if (r->sum.connect_errno != 0) {
        notes[n] = note_connect(r, texts[n], sizeof(texts[n]));
        n++;
    }
    if (r->n_died > 0) {
        notes[n] = note_died(r, texts[n], sizeof(texts[n]));
        n++;
    }
    if (r->cpu_share_max > 0.85) {
        notes[n] = note_cpu(r, texts[n], sizeof(texts[n]));
        n++;
    }
    if (!r->opt->idle && r->sum.latency.count > 0)
        notes[n++] =
            has_rate
                ? "Latency counts from when a message was due, so a stall counts for every message that it "
                  "held up (no coordinated omission)."
                : "Latency counts from the send, in a closed loop: while nothing is answered nothing is "
                  "sent, "
                  "so stalls show less than they would with --rate.";
    notes[n] = NULL;
}

/* ---- for people */

static void text_times(struct bytes *out, const char *name, const struct hist *h)
{
    char buf[REPORT_TIME_MAX];
    if (h->count == 0)
        return;
    bytes_printf(out, "%-14s", name);
    for (size_t i = 0; i < N_QUANTILES; i++)
        bytes_printf(out, "%11s", report_time(hist_quantile(h, quantiles[i].share), buf));
    bytes_printf(out, "%12" PRIu64 "\n", h->count);
}

static void text_latencies(const struct bench_result *r, struct bytes *out)
{
    if (r->sum.connect.count == 0)
        return;
    bytes_printf(out, "\n%-14s", "");
    for (size_t i = 0; i < N_QUANTILES; i++)
        bytes_printf(out, "%11s", quantiles[i].name);
    bytes_printf(out, "%12s\n", "count");
    text_times(out, "connect", &r->sum.connect);
    text_times(out, "handshake", &r->sum.handshake);
    text_times(out, "latency", &r->sum.latency);
    text_times(out, "ping", &r->sum.ping);
}

static double per_s(const struct bench_result *r, uint64_t n)
{
    return r->run_s > 0 ? (double)n / r->run_s : 0;
}

static void text_messages(const struct bench_result *r, struct bytes *out)
{
    const uint64_t *c = r->sum.counts;
    bytes_printf(out, "\nmessages out  %12" PRIu64 "  %.1f/s  %.2f MB\n", c[BENCH_messages_out],
                 per_s(r, c[BENCH_messages_out]), (double)c[BENCH_bytes_out] / 1e6);
    bytes_printf(out, "messages in   %12" PRIu64 "  %.1f/s  %.2f MB\n", c[BENCH_messages_in],
                 per_s(r, c[BENCH_messages_in]), (double)c[BENCH_bytes_in] / 1e6);
    if (r->opt->expect == EXPECT_FANOUT && c[BENCH_messages_out] > 0)
        bytes_printf(out, "deliveries    %12" PRIu64 "  %.1f of each message; %u clients were there\n",
                     c[BENCH_deliveries], (double)c[BENCH_deliveries] / (double)c[BENCH_messages_out],
                     (unsigned)(c[BENCH_opened]));
    if (r->opt->expect == EXPECT_ECHO || r->opt->expect == EXPECT_ANSWER)
        bytes_printf(
            out, "answers       %12" PRIu64 "  unanswered %" PRIu64 ", twice or out of order %" PRIu64 "\n",
            c[BENCH_answered], c[BENCH_unanswered], c[BENCH_repeated]);
    if (c[BENCH_unsent] > 0)
        bytes_printf(out, "not sent      %12" PRIu64 "  were due, and found no room or no connection\n",
                     c[BENCH_unsent]);
    if (c[BENCH_pings] > 0)
        bytes_printf(out, "pings         %12" PRIu64 "  pongs %" PRIu64 "\n", c[BENCH_pings], c[BENCH_pongs]);
}

static void text_errors(const struct bench_result *r, struct bytes *out)
{
    for (size_t i = 0; i < BENCH_ERRORS; i++) {
        if (r->sum.errors[i] > 0)
            bytes_printf(out, "  %-16s %9" PRIu64 "  %s\n", bench_error_names[i], r->sum.errors[i],
                         bench_error_texts[i]);
    }
    for (size_t i = 0; i < BENCH_HTTP_CODES; i++) {
        if (r->sum.http[i] > 0)
            bytes_printf(out, "  HTTP %-11zu %9u%s\n", i, r->sum.http[i],
                         i == 0 ? "  no HTTP, or a wrong answer" : "");
    }
    for (size_t i = 0; i < BENCH_CLOSE_CODES; i++) {
        if (r->sum.closes[i] > 0)
            bytes_printf(out, "  close code %-5zu %9u  %s\n", i, r->sum.closes[i],
                         report_close_name((unsigned)i));
    }
}

#define TIME_ROWS_MAX 20u

/* The whole in at most 20 rows: rates are means, percentiles the worst of their seconds. */
static void text_over_time(const struct bench_result *r, struct bytes *out)
{
    size_t step = (r->n_samples + TIME_ROWS_MAX - 1) / TIME_ROWS_MAX;
    char p50[REPORT_TIME_MAX], p99[REPORT_TIME_MAX];
    if (r->n_samples < 2)
        return;
    bytes_printf(out, "\n%10s%12s%10s%12s%12s%12s%12s\n", "until", "connected", "failed", "out/s", "in/s",
                 step > 1 ? "worst p50" : "p50", step > 1 ? "worst p99" : "p99");
    for (size_t i = 0; i < r->n_samples; i += step) {
        struct bench_sample row = {0};
        size_t n = r->n_samples - i < step ? r->n_samples - i : step;
        for (size_t k = i; k < i + n; k++) {
            const struct bench_sample *s = &r->samples[k];
            row.out_per_s += s->out_per_s / (double)n;
            row.in_per_s += s->in_per_s / (double)n;
            row.p50_ns = s->p50_ns > row.p50_ns ? s->p50_ns : row.p50_ns;
            row.p99_ns = s->p99_ns > row.p99_ns ? s->p99_ns : row.p99_ns;
        }
        const struct bench_sample *last = &r->samples[i + n - 1];
        bytes_printf(out, "%8.1f s%12u%10" PRIu64 "%12.1f%12.1f%12s%12s\n", (double)last->end_ms / 1000,
                     last->open, last->failed, row.out_per_s, row.in_per_s,
                     row.p50_ns > 0 ? report_time(row.p50_ns, p50) : "-",
                     row.p99_ns > 0 ? report_time(row.p99_ns, p99) : "-");
    }
}

void report_text(const struct bench_result *r, struct bytes *out)
{
    const uint64_t *c = r->sum.counts;
    const char *notes[REPORT_NOTES_MAX];
    bytes_printf(out, "tgg bench %s\n", r->opt->url);
    report_what(r, out);
    bytes_printf(out,
                 "\n\nconnected     %12" PRIu64 "  of %" PRIu64 " begun, in %.2f s; failed %" PRIu64
                 ", lost later %" PRIu64 "\n",
                 c[BENCH_opened], c[BENCH_begun], r->connect_s, c[BENCH_failed], c[BENCH_dropped]);
    text_errors(r, out);
    text_latencies(r, out);
    if (!r->opt->idle && c[BENCH_opened] > 0)
        text_messages(r, out);
    else if (c[BENCH_pings] > 0)
        bytes_printf(out, "\npings         %12" PRIu64 "  pongs %" PRIu64 "\n", c[BENCH_pings],
                     c[BENCH_pongs]);
    text_over_time(r, out);
    bytes_printf(out, "\nerrors %.3f %%, allowed %.6g %%\n", bench_errors_percent(r), r->opt->max_errors);
    report_notes(r, notes);
    for (size_t i = 0; notes[i] != NULL; i++)
        bytes_printf(out, "%s\n", notes[i]);
}

/* ---- for programs */

static void json_real(struct json_writer *w, const char *key, double value)
{
    char text[40];
    int n = snprintf(text, sizeof(text), "%.3f", value);
    json_key(w, key);
    json_raw(w, text, (size_t)n);
}

static void json_times(struct json_writer *w, const char *key, const struct hist *h)
{
    json_key(w, key);
    json_begin(w, '{');
    json_member_uint(w, "count", h->count);
    json_member_uint(w, "mean_ns", hist_mean(h));
    for (size_t i = 0; i < N_QUANTILES; i++)
        json_member_uint(w, quantiles[i].key, hist_quantile(h, quantiles[i].share));
    json_end(w, '}');
}

static void json_options(const struct bench_options *o, struct json_writer *w)
{
    json_key(w, "options");
    json_begin(w, '{');
    json_member_uint(w, "connections", o->connections);
    json_member_uint(w, "processes", o->processes);
    json_member_uint(w, "sources", o->sources.n);
    json_member_uint(w, "senders", bench_senders(o, 0, o->connections));
    json_member_str(w, "expect", expect_name(o));
    json_member_str(w, "message", o->message_text);
    json_real(w, "size_mean", (double)mix_mean_milli(&o->mix) / 1000);
    json_real(w, "rate_per_sender", o->idle ? 0 : bench_sender_rate(o));
    json_member_uint(w, "outstanding", o->outstanding);
    json_real(w, "time_s", o->time_s);
    json_real(w, "ramp_per_s", o->ramp);
    json_real(w, "max_errors_percent", o->max_errors);
    json_end(w, '}');
}

static void json_code_table(struct json_writer *w, const char *key, const uint32_t *table, size_t n)
{
    json_key(w, key);
    json_begin(w, '{');
    for (size_t i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%zu", i);
        if (table[i] > 0)
            json_member_uint(w, name, table[i]);
    }
    json_end(w, '}');
}

static void json_counts(const struct bench_result *r, struct json_writer *w)
{
    json_key(w, "counts");
    json_begin(w, '{');
    for (size_t i = 0; i < BENCH_COUNTS; i++)
        json_member_uint(w, bench_count_names[i], r->sum.counts[i]);
    json_end(w, '}');
    json_key(w, "errors");
    json_begin(w, '{');
    for (size_t i = 0; i < BENCH_ERRORS; i++)
        json_member_uint(w, bench_error_names[i], r->sum.errors[i]);
    json_end(w, '}');
    json_code_table(w, "closes", r->sum.closes, BENCH_CLOSE_CODES);
    json_code_table(w, "http_answers", r->sum.http, BENCH_HTTP_CODES);
    json_member_str(w, "tls_error", r->sum.tls_error[0] != '\0' ? r->sum.tls_error : NULL);
}

static void json_samples(const struct bench_result *r, struct json_writer *w)
{
    json_key(w, "samples");
    json_begin(w, '[');
    for (size_t i = 0; i < r->n_samples; i++) {
        const struct bench_sample *s = &r->samples[i];
        json_begin(w, '{');
        json_member_uint(w, "end_ms", s->end_ms);
        json_member_uint(w, "open", s->open);
        json_member_uint(w, "failed", s->failed);
        json_real(w, "out_per_s", s->out_per_s);
        json_real(w, "in_per_s", s->in_per_s);
        json_real(w, "latencies_per_s", s->latencies_per_s);
        json_member_uint(w, "p50_ns", s->p50_ns);
        json_member_uint(w, "p90_ns", s->p90_ns);
        json_member_uint(w, "p99_ns", s->p99_ns);
        json_member_uint(w, "max_ns", s->max_ns);
        json_end(w, '}');
    }
    json_end(w, ']');
}

/* [first, last, count] of each bucket that holds any, ns. */
static void json_histogram(const struct hist *h, struct json_writer *w)
{
    json_key(w, "latency_histogram");
    json_begin(w, '[');
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        if (h->bucket[i] == 0)
            continue;
        json_begin(w, '[');
        json_uint(w, hist_bucket_first(i));
        json_uint(w, hist_bucket_last(i));
        json_uint(w, h->bucket[i]);
        json_end(w, ']');
    }
    json_end(w, ']');
}

void report_json(const struct bench_result *r, struct bytes *out)
{
    struct json_writer w = {.out = out};
    const char *notes[REPORT_NOTES_MAX];
    json_begin(&w, '{');
    json_member_str(&w, "tgg_bench", TGG_VERSION);
    json_member_str(&w, "url", r->opt->url);
    json_real(&w, "begin_unix_s", r->begin_unix_s);
    json_options(r->opt, &w);
    json_member_bool(&w, "good", bench_is_good(r));
    json_member_bool(&w, "interrupted", r->interrupted);
    json_real(&w, "connect_s", r->connect_s);
    json_real(&w, "run_s", r->run_s);
    json_real(&w, "errors_percent", bench_errors_percent(r));
    json_real(&w, "out_per_s", per_s(r, r->sum.counts[BENCH_messages_out]));
    json_real(&w, "in_per_s", per_s(r, r->sum.counts[BENCH_messages_in]));
    json_real(&w, "load_cpu_share_max", r->cpu_share_max);
    json_counts(r, &w);
    json_times(&w, "connect", &r->sum.connect);
    json_times(&w, "handshake", &r->sum.handshake);
    json_times(&w, "latency", &r->sum.latency);
    json_times(&w, "ping", &r->sum.ping);
    json_samples(r, &w);
    json_histogram(&r->sum.latency, &w);
    json_key(&w, "notes");
    json_begin(&w, '[');
    report_notes(r, notes);
    for (size_t i = 0; notes[i] != NULL; i++)
        json_str(&w, notes[i]);
    json_end(&w, ']');
    json_end(&w, '}');
    bytes_append_byte(out, '\n');
}
