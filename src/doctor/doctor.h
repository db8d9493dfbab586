// SPDX-License-Identifier: MIT
/* Looks at the machine and says what of it does not fit so many client connections. Reads files below a root
 * folder
 * ("" or a tree made by a test); changes nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/config.h"

enum doctor_level {
    DOCTOR_OK,
    DOCTOR_UNKNOWN, /* not to be seen: a container, another kernel */
    DOCTOR_WARN,
    DOCTOR_BAD, /* it will not hold, or not start */
    DOCTOR_LEVEL_N
};

struct doctor_finding {
    char name[48]; /* "nofile", "net.core.somaxconn" */
    enum doctor_level level;
    char found[256];
    char wanted[256]; /* "": nothing else */
    char why[384];
    char now[384];  /* command that mends it until the next boot; "": there is none */
    char keep[384]; /* line that keeps it, and where it stands */
};
#define DOCTOR_FINDINGS_MAX 80

struct doctor_report {
    uint64_t connections, per_shard; /* per_shard: of one that takes clients, with what evenness leaves */
    unsigned shards, edge_shards;
    unsigned n;
    unsigned count[DOCTOR_LEVEL_N];
    struct doctor_finding list[DOCTOR_FINDINGS_MAX];
};

#define DOCTOR_CONNECTIONS_DEFAULT 100000

/* connections 0: max_connections for each shard that takes clients, else DOCTOR_CONNECTIONS_DEFAULT. */
void doctor_look(const struct config *cfg, uint64_t connections, const char *root, struct doctor_report *ret);

/* For people: a line each, more for what is not good. */
void doctor_print_text(FILE *out, const struct doctor_report *r);
void doctor_print_json(FILE *out, const struct doctor_report *r);
const char *doctor_level_name(enum doctor_level level);
