// SPDX-License-Identifier: MIT
#include "load/bench_options.h"

#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How the text of an option becomes a value. */
enum kind { KIND_FLAG, KIND_COUNT, KIND_NUMBER, KIND_TIME, KIND_TEXT, KIND_SOURCE, KIND_RANGE, KIND_HEADER };

struct option_row {
    const char *name;
    enum kind kind;
    size_t offset;
    double min, max;
    const char *argument;
    const char *help;
};
#define AT(member) offsetof(struct bench_options, member)
static const struct option_row rows[] = {
    {"connections", KIND_COUNT, AT(connections), 1, BENCH_CONNECTIONS_MAX, "N", "clients; default 1"},
    {"ramp", KIND_NUMBER, AT(ramp), 0.001, 1e6, "RATE", "connects a second; default: as fast as it goes"},
    {"ramp-time", KIND_TIME, AT(ramp_s), 0.001, 86400, "TIME", "connect all of them in this time"},
    {"connecting", KIND_COUNT, AT(connecting), 1, 1e6, "N",
     "connections of a process that are being made at a time; default 256"},
    {"time", KIND_TIME, AT(time_s), 0.1, 7 * 86400, "TIME", "how long messages are sent; default 10s"},
    {"rate", KIND_NUMBER, AT(rate), 1e-6, 1e7, "R", "messages a second of each client that sends"},
    {"total-rate", KIND_NUMBER, AT(total_rate), 1e-6, 1e8, "R", "messages a second of all together"},
    {"outstanding", KIND_COUNT, AT(outstanding), 1, 10000, "N",
     "without a rate: unanswered messages of each client; default 1"},
    {"one-in", KIND_COUNT, AT(one_in), 1, BENCH_CONNECTIONS_MAX, "K",
     "one client in K sends; default 1, with --expect fanout only the first client"},
    {"size", KIND_TEXT, AT(size_text), 0, 0, "BYTES", "of a message; default 64"},
    {"mix", KIND_TEXT, AT(mix_text), 0, 0, "SIZE:WEIGHT,...", "several sizes: 64:80,1024:15,16384:5"},
    {"message", KIND_TEXT, AT(message_text), 0, 0, "TEMPLATE",
     "what is sent: text with {mark}, {id}, {seq}, {time}, {fill}"},
    {"expect", KIND_TEXT, AT(expect_text), 0, 0, "echo|fanout|none|answer:TEXT",
     "what comes back; default echo"},
    {"subscribe", KIND_TEXT, AT(subscribe_text), 0, 0, "TEMPLATE",
     "sent once by every client when it is open"},
    {"binary", KIND_FLAG, AT(binary), 0, 0, NULL, "WebSocket: binary messages"},
    {"idle", KIND_FLAG, AT(idle), 0, 0, NULL, "connect, say nothing"},
    {"pings", KIND_TIME, AT(pings_s), 0.01, 86400, "TIME", "WebSocket: every client sends a ping so often"},
    {"processes", KIND_COUNT, AT(processes), 1, BENCH_PROCESSES_MAX, "P", "share the clients; default 1"},
    {"source", KIND_SOURCE, 0, 0, 0, "ADDRESS,...", "connect from these addresses, in turn"},
    {"source-range", KIND_RANGE, 0, 0, 0, "FIRST-LAST", "the same, for a range of IPv4 addresses"},
    {"tls", KIND_FLAG, AT(tls), 0, 0, NULL, "TLS for text://, frame:// and tcp:// too"},
    {"insecure", KIND_FLAG, AT(insecure), 0, 0, NULL, "TLS: take any certificate"},
    {"ca", KIND_TEXT, AT(ca), 0, 0, "FILE", "TLS: authorities (PEM) instead of the machine's"},
    {"server-name", KIND_TEXT, AT(server_name), 0, 0, "NAME",
     "TLS: the name asked for; default: the URL's host"},
    {"header", KIND_HEADER, 0, 0, 0, "'NAME: VALUE'", "WebSocket: one more line of the request"},
    {"subprotocol", KIND_TEXT, AT(subprotocol), 0, 0, "NAME", "WebSocket: Sec-WebSocket-Protocol"},
    {"timeout", KIND_TIME, AT(timeout_s), 0.01, 3600, "TIME", "until a connection is open; default 10s"},
    {"answer-timeout", KIND_TIME, AT(answer_timeout_s), 0.01, 3600, "TIME",
     "without a rate: give an answer up and go on; default 10s"},
    {"drain", KIND_TIME, AT(drain_s), 0, 3600, "TIME", "wait for answers at the end; default 2s"},
    {"max-errors", KIND_NUMBER, AT(max_errors), 0, 100, "PERCENT",
     "more failed, lost or unanswered: exit status 1; default 1"},
    {"json", KIND_TEXT, AT(json), 0, 0, "FILE|-", "the result as JSON"},
    {"html", KIND_TEXT, AT(html), 0, 0, "FILE", "the result as a page with charts"},
    {"svg", KIND_TEXT, AT(svg), 0, 0, "FILE", "the charts of the latency alone"},
    {"quiet", KIND_FLAG, AT(quiet), 0, 0, NULL, "no line of progress"},
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static void print_usage(FILE *out)
{
    fprintf(out,
            "usage: tgg bench [options] URL\n"
            "URL: ws://HOST[:PORT][/PATH], wss://..., text://HOST:PORT, frame://HOST:PORT, tcp://HOST:PORT;\n"
            "     unix:PATH in place of HOST:PORT, ws://unix:PATH:/PATH\n");
    for (size_t i = 0; i < N_ROWS; i++) {
        char left[64];
        snprintf(left, sizeof(left), "--%s%s%s", rows[i].name, rows[i].argument != NULL ? " " : "",
                 rows[i].argument != NULL ? rows[i].argument : "");
        fprintf(out, "  %-28s%s%s\n", left, strlen(left) > 27 ? "\n                              " : "",
                rows[i].help);
    }
    fprintf(out, "TIME: seconds, or a number with ms, s, m or h. More in docs/BENCH-TOOL.md.\n");
}

static bool wrong(const char *fmt, const char *a, const char *b)
{
    fputs("tgg bench: ", stderr);
    fprintf(stderr, fmt, a, b);
    fputc('\n', stderr);
    return false;
}

static bool parse_number(const char *text, const char **ret_end, double *ret)
{
    char *end;
    if (!((*text >= '0' && *text <= '9') || *text == '.'))
        return false;
    *ret = strtod(text, &end);
    *ret_end = end;
    return end != text && isfinite(*ret);
}

static bool parse_time(const char *text, double *ret)
{
    static const struct {
        const char *name;
        double s;
    } units[] = {{"", 1}, {"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}};
    const char *end;
    if (!parse_number(text, &end, ret))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].name) == 0) {
            *ret *= units[i].s;
            return true;
        }
    }
    return false;
}

static bool take_value(const struct option_row *row, const char *text, struct bench_options *o)
{
    const char *end = "";
    double value;
    bool good = row->kind == KIND_TIME ? parse_time(text, &value) : parse_number(text, &end, &value);
    if (!good || *end != '\0' || value < row->min || value > row->max ||
        (row->kind == KIND_COUNT && value != floor(value))) {
        fprintf(stderr, "tgg bench: --%s %s is not %s from %.15g to %.15g%s\n", row->name, text,
                row->kind == KIND_COUNT  ? "a whole number"
                : row->kind == KIND_TIME ? "a time"
                                         : "a number",
                row->min, row->max, row->kind == KIND_TIME ? " s" : "");
        return false;
    }
    uint32_t count = (uint32_t)value;
    if (row->kind == KIND_COUNT)
        memcpy((char *)o + row->offset, &count, sizeof count);
    else
        memcpy((char *)o + row->offset, &value, sizeof value);
    return true;
}

static bool take_header(const char *text, struct bench_options *o)
{
    if (o->n_headers == BENCH_HEADERS_MAX)
        return wrong("--header: too many of them%s%s", "", "");
    if (strpbrk(text, "\r\n") != NULL || strchr(text, ':') == NULL || *text == ':')
        return wrong("--header %s is not 'NAME: VALUE'%s", text, "");
    o->headers[o->n_headers++] = text;
    return true;
}

static bool take(const struct option_row *row, const char *text, struct bench_options *o)
{
    char error[TARGET_ERROR_MAX];
    switch (row->kind) {
    case KIND_FLAG: *(bool *)((char *)o + row->offset) = true; return true;
    case KIND_TEXT: *(const char **)((char *)o + row->offset) = text; return true;
    case KIND_SOURCE: return load_sources_add(&o->sources, text, error) || wrong("--source: %s%s", error, "");
    case KIND_RANGE:
        return load_sources_add_range(&o->sources, text, error) || wrong("--source-range: %s%s", error, "");
    case KIND_HEADER: return take_header(text, o);
    case KIND_COUNT:
    case KIND_NUMBER:
    case KIND_TIME: break;
    }
    return take_value(row, text, o);
}

static bool expect_parse(struct bench_options *o)
{
    static const char *const names[] = {
        [EXPECT_ECHO] = "echo", [EXPECT_FANOUT] = "fanout", [EXPECT_NONE] = "none"};
    const char *text = o->expect_text;
    if (text == NULL)
        return true;
    if (strncmp(text, "answer:", 7) == 0) {
        o->expect = EXPECT_ANSWER;
        o->answer = text + 7;
        size_t len = strlen(o->answer);
        return (len >= 1 && len <= BENCH_ANSWER_MAX) ||
               wrong("--expect answer: needs 1 to 64 bytes of text%s%s", "", "");
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i] != NULL && strcmp(text, names[i]) == 0) {
            o->expect = (enum bench_expect)i;
            return true;
        }
    }
    return wrong("--expect %s is none of echo, fanout, none, answer:TEXT%s", text, "");
}

/* Default: the mark, where it is needed or there is room for it, then letters. */
static bool message_parse(struct bench_options *o)
{
    bool needs_mark = o->expect == EXPECT_ECHO || o->expect == EXPECT_FANOUT;
    const char *text = o->message_text;
    if (o->size_text != NULL && o->mix_text != NULL)
        return wrong("--size and --mix: one of them%s%s", "", "");
    if (o->size_text != NULL && strpbrk(o->size_text, ":,") != NULL)
        return wrong("--size %s is not a number (--mix takes several)%s", o->size_text, "");
    const char *sizes = o->mix_text != NULL ? o->mix_text : o->size_text != NULL ? o->size_text : "64";
    if (!mix_parse(sizes, &o->mix))
        return wrong("%s is not a size from 1 to 16777216, nor SIZE:WEIGHT,SIZE:WEIGHT,...%s", sizes, "");
    if (text == NULL)
        text = needs_mark || mix_size_min(&o->mix) >= MARK_BYTES ? "{mark}{fill}" : "{fill}";
    if (!template_parse(text, &o->message) || o->message.n == 0)
        return wrong("--message: empty, or more than 64 pieces%s%s", "", "");
    if (needs_mark && !o->idle && !template_has(&o->message, PIECE_MARK))
        return wrong(
            "--message needs {mark}, by which it is known when it comes back; or use --expect none, or "
            "--expect answer:TEXT%s%s",
            "", "");
    if (needs_mark && !o->idle && o->message_text == NULL && mix_size_min(&o->mix) < MARK_BYTES)
        return wrong("a message that is expected back needs at least 24 bytes%s%s", "", "");
    if (o->subscribe_text != NULL &&
        (!template_parse(o->subscribe_text, &o->subscribe) || o->subscribe.n == 0))
        return wrong("--subscribe: empty, or more than 64 pieces%s%s", "", "");
    return true;
}

static bool protocol_check(const struct bench_options *o)
{
    bool ws = o->target.protocol == LOAD_WEBSOCKET;
    if (!ws && (o->n_headers > 0 || o->subprotocol != NULL || o->pings_s > 0 || o->binary))
        return wrong("--header, --subprotocol, --pings and --binary are for ws:// and wss://%s%s", "", "");
    if (o->subprotocol != NULL && strpbrk(o->subprotocol, "\r\n") != NULL)
        return wrong("--subprotocol: no such name%s%s", "", "");
    if (o->target.protocol == LOAD_TEXT &&
        ((o->message_text != NULL && strchr(o->message_text, '\n') != NULL) ||
         (o->subscribe_text != NULL && strchr(o->subscribe_text, '\n') != NULL)))
        return wrong("text:// ends a message at a line's end: there can be none in it%s%s", "", "");
    if (!o->target.tls && (o->insecure || o->ca != NULL || o->server_name != NULL))
        return wrong("--insecure, --ca and --server-name are for TLS (wss://, --tls)%s%s", "", "");
    if (o->insecure && o->ca != NULL)
        return wrong("--insecure and --ca: one of them%s%s", "", "");
    return true;
}

static bool pace_check(const struct bench_options *o)
{
    bool has_rate = o->rate > 0 || o->total_rate > 0;
    if (o->rate > 0 && o->total_rate > 0)
        return wrong("--rate and --total-rate: one of them%s%s", "", "");
    if (o->ramp > 0 && o->ramp_s > 0)
        return wrong("--ramp and --ramp-time: one of them%s%s", "", "");
    if (o->outstanding > 0 && (has_rate || (o->expect != EXPECT_ECHO && o->expect != EXPECT_ANSWER)))
        return wrong("--outstanding is for answers without a rate%s%s", "", "");
    if (o->idle && (has_rate || o->message_text != NULL || o->expect_text != NULL))
        return wrong("--idle sends nothing: no --rate, --message, --expect%s%s", "", "");
    if (o->processes > o->connections)
        return wrong("more --processes than --connections%s%s", "", "");
    return true;
}

static void fill_in(struct bench_options *o)
{
    bool waits = o->expect == EXPECT_ECHO || o->expect == EXPECT_ANSWER;
    if (o->idle)
        o->expect = EXPECT_NONE;
    if (o->ramp_s > 0)
        o->ramp = o->connections / o->ramp_s;
    if (o->outstanding == 0)
        o->outstanding = 1;
    if (o->one_in == 0)
        o->one_in = o->expect == EXPECT_FANOUT ? o->connections : 1;
    if (!waits && o->rate == 0 && o->total_rate == 0)
        o->rate = 1;
}

static bool check(struct bench_options *o)
{
    char error[TARGET_ERROR_MAX];
    if (!load_target_parse(o->url, &o->target, error))
        return wrong("%s%s", error, "");
    o->target.tls |= o->tls;
    if (!expect_parse(o) || !pace_check(o))
        return false;
    fill_in(o);
    return message_parse(o) && protocol_check(o);
}

static void long_options(struct option *longs)
{
    for (size_t i = 0; i < N_ROWS; i++)
        longs[i] = (struct option){rows[i].name, rows[i].kind == KIND_FLAG ? no_argument : required_argument,
                                   NULL, 256 + (int)i};
    longs[N_ROWS] = (struct option){"help", no_argument, NULL, 'h'};
    longs[N_ROWS + 1] = (struct option){0};
}

int bench_options_parse(int argc, char **argv, struct bench_options *ret)
{
    struct option longs[N_ROWS + 2];
    *ret = (struct bench_options){.connections = 1,
                                  .processes = 1,
                                  .connecting = 256,
                                  .time_s = 10,
                                  .timeout_s = 10,
                                  .answer_timeout_s = 10,
                                  .drain_s = 2,
                                  .max_errors = 1};
    long_options(longs);
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", longs, NULL)) != -1;) {
        if (c == 'h') {
            print_usage(stdout);
            return 0;
        }
        if (c == '?') {
            fprintf(stderr, "tgg bench --help tells the options\n");
            return 2;
        }
        if (!take(&rows[c - 256], optarg, ret))
            return 2;
    }
    if (optind + 1 != argc) {
        wrong(optind == argc ? "which URL?%s%s" : "one URL; %s was not expected%s",
              optind == argc ? "" : argv[optind + 1], "");
        print_usage(stderr);
        return 2;
    }
    ret->url = argv[optind];
    return check(ret) ? -1 : 2;
}

void bench_options_fini(struct bench_options *o)
{
    load_sources_fini(&o->sources);
}

uint32_t bench_senders(const struct bench_options *o, uint32_t first, uint32_t n)
{
    if (o->idle || n == 0)
        return 0;
    uint32_t k = o->one_in;
    return (uint32_t)(((uint64_t)first + n - 1) / k + 1 - ((uint64_t)first + k - 1) / k);
}

double bench_sender_rate(const struct bench_options *o)
{
    return o->total_rate > 0 ? o->total_rate / bench_senders(o, 0, o->connections) : o->rate;
}
