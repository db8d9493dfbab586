// SPDX-License-Identifier: MIT
/* The command line of `tgg bench` (docs/BENCH-TOOL.md). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "load/message.h"
#include "load/target.h"

#define BENCH_HEADERS_MAX     16u
#define BENCH_PROCESSES_MAX   256u
#define BENCH_CONNECTIONS_MAX (1u << 24) /* a mark has room for so many */
#define BENCH_ANSWER_MAX      64u        /* bytes of TEXT in --expect answer:TEXT */

enum bench_expect {
    EXPECT_ECHO,   /* the mark comes back to its sender */
    EXPECT_ANSWER, /* a message with a certain text answers the oldest one that is not answered */
    EXPECT_FANOUT, /* marks come to everybody */
    EXPECT_NONE,   /* only counted */
};

struct bench_options {
    const char *url;
    struct load_target target;
    struct load_sources sources;
    uint32_t connections, processes, connecting;
    double ramp, ramp_s; /* connects a second, or seconds for all; 0: as fast as it goes */
    double time_s;
    double rate, total_rate; /* messages a second of each sender, of all; both 0: closed loop */
    uint32_t outstanding;    /* closed loop: messages on the way, of each sender */
    uint32_t one_in;         /* one client in so many sends */
    struct mix mix;
    struct template message;
    struct template subscribe; /* n = 0: none */
    enum bench_expect expect;
    const char *answer; /* EXPECT_ANSWER */
    bool idle, binary, insecure, tls, quiet;
    const char *ca, *server_name;
    const char *headers[BENCH_HEADERS_MAX];
    uint32_t n_headers;
    const char *subprotocol;
    double pings_s; /* 0: none */
    double timeout_s, answer_timeout_s, drain_s;
    double max_errors; /* percent */
    const char *json, *html, *svg;

    /* as they were given */
    const char *size_text, *mix_text, *message_text, *subscribe_text, *expect_text;
};

/* -1: go on; else the exit status: 0 after --help, 2 when something is wrong, which has been said on the
 * standard error output. What is parsed points into argv. bench_options_fini in any case. */
int bench_options_parse(int argc, char **argv, struct bench_options *ret);
void bench_options_fini(struct bench_options *o);

/* Messages a second of one sender when it has a rate, else 0; how many of clients first..first+n-1 are
 * senders. */
double bench_sender_rate(const struct bench_options *o);
uint32_t bench_senders(const struct bench_options *o, uint32_t first, uint32_t n);
static inline bool bench_is_sender(const struct bench_options *o, uint32_t client)
{
    return !o->idle && client % o->one_in == 0;
}
