// SPDX-License-Identifier: MIT
/* tgg ctl: its options, once (CTL_OPTIONS); parser, help and the parameters of requests come from there. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* X(constant, "name", kind, "argument as help shows it", parameter of the API or NULL, "help") */
#define CTL_OPTIONS(X)                                                                                       \
    X(CONFIG, "config", TEXT, "FILE", NULL, "the configuration; default " CONFIG_PATH_DEFAULT)               \
    X(SOCKET, "socket", TEXT, "PATH", NULL,                                                                  \
      "the admin socket; default: [admin] socket of the configuration, or admin.sock in runtime_dir")        \
    X(JSON, "json", FLAG, NULL, NULL, "the answer of the gateway as it is; lists of --all as one array")     \
    X(WATCH, "watch", WATCH, "[=SECONDS]", NULL, "again every SECONDS (2), with changes per second")         \
    X(ALL, "all", FLAG, NULL, NULL, "every one")                                                             \
    X(YES, "yes", FLAG, NULL, NULL, "do not ask whether it is meant")                                        \
    X(NONZERO, "nonzero", FLAG, NULL, NULL, "only those that are not 0")                                     \
    X(ADDRESS, "address", CIDR, "CIDR", "address", "clients of that address or prefix")                      \
    X(UID, "uid", TEXT, "UID", "uid", "clients bound to that uid")                                           \
    X(GROUP, "group", TEXT, "GROUP", "group", "clients in that group")                                       \
    X(WORKER, "worker", TEXT, "KEY", "worker", "clients bound to that worker")                               \
    X(LISTENER, "listener", TEXT, "NAME", "listener", "clients of [listen NAME]")                            \
    X(SHARD, "shard", NUMBER, "N", "shard", "of that shard")                                                 \
    X(AGE_MIN, "age-min", TIME, "TIME", "age_min", "clients that have been there for so long")               \
    X(AGE_MAX, "age-max", TIME, "TIME", "age_max", "clients that came within that time")                     \
    X(IDLE_MIN, "idle-min", TIME, "TIME", "idle_min", "clients that have sent nothing for so long")          \
    X(QUEUE_MIN, "queue-min", SIZE, "BYTES", "queue_min", "clients for whom so much waits to be sent")       \
    X(CLIENT, "client", TEXT, "ID", "client", "that client: its connection_id or client_id")                 \
    X(PREFIX, "prefix", TEXT, "TEXT", "prefix", "names that begin so")                                       \
    X(LIMIT, "limit", NUMBER, "N", "limit", "at most so many")                                               \
    X(FOR, "for", TIME, "TIME", "seconds", "for so long")                                                    \
    X(OVER, "over", TIME, "TIME", "seconds", "spread over that time")                                        \
    X(CODE, "code", NUMBER, "CODE", "code", "close code that the clients get")                               \
    X(REASON, "reason", TEXT, "TEXT", "reason", "reason that stands in the close frame")                     \
    X(JITTER, "jitter", NUMBER, "PERCENT", "jitter", "how much of the time between two is left to chance")   \
    X(BACK, "back", FLAG, NULL, NULL, "the other way: what belongs there comes back")                        \
    X(HELP, "help", FLAG, NULL, NULL, "this text, or that of the command")

enum ctl_option_id {
#define CTL_OPTION_CONSTANT(constant, ...) CTL_OPTION_##constant,
    CTL_OPTIONS(CTL_OPTION_CONSTANT)
#undef CTL_OPTION_CONSTANT
        CTL_OPTION_N
};
#define CTL_BIT(constant) (UINT64_C(1) << CTL_OPTION_##constant)
#define CTL_FILTERS                                                                                          \
    (CTL_BIT(ADDRESS) | CTL_BIT(UID) | CTL_BIT(GROUP) | CTL_BIT(WORKER) | CTL_BIT(LISTENER) |                \
     CTL_BIT(SHARD) | CTL_BIT(AGE_MIN) | CTL_BIT(AGE_MAX) | CTL_BIT(IDLE_MIN) | CTL_BIT(QUEUE_MIN) |         \
     CTL_BIT(CLIENT))
/* Of every command. */
#define CTL_COMMON (CTL_BIT(CONFIG) | CTL_BIT(SOCKET) | CTL_BIT(JSON) | CTL_BIT(HELP))

struct ctl_args {
    uint64_t given; /* CTL_BIT of those that are there */
    const char *text[CTL_OPTION_N];
    int64_t number[CTL_OPTION_N]; /* TIME: seconds; SIZE: bytes */
    int64_t watch_ms;
    char **words; /* that are no options: the command first */
    int n_words;
};

static inline bool ctl_given(const struct ctl_args *args, uint64_t bits)
{
    return (args->given & bits) != 0;
}

/* Whether they make sense each by itself; false: what is wrong has been printed. */
bool ctl_args_parse(int argc, char **argv, struct ctl_args *ret);

const char *ctl_option_name(enum ctl_option_id id);
/* NULL: it is no parameter. */
const char *ctl_option_parameter(enum ctl_option_id id);
/* Whether number[id] is what was given, else text[id]. */
bool ctl_option_is_number(enum ctl_option_id id);

/* A line of help for each of these. */
void ctl_options_print(FILE *out, uint64_t bits);
