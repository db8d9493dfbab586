// SPDX-License-Identifier: MIT
/* tgg ctl: its commands, one table, from which requests, help and the checks of the documents come. */
#pragma once

#include "base/bytes.h"
#include "main/ctl_show.h"

#define CTL_PAGED     1u  /* pages with a cursor; section says which rows */
#define CTL_WATCHABLE 2u  /* --watch */
#define CTL_STREAM    4u  /* lines of JSON as things happen (trace) */
#define CTL_PLAIN     8u  /* text, as it is (metrics) */
#define CTL_WAITS     16u /* answers when the time of --over or --for is over */

/* What is asked: path and query, encoded. */
struct ctl_target {
    struct bytes text;
    bool has_query;
};

struct ctl_command {
    const char *name;
    const char *arguments; /* as help shows them; "": none */
    const char *help;
    const char *method, *path;
    uint64_t options; /* beside CTL_COMMON */
    unsigned flags;
    unsigned
        wait_s; /* CTL_WAITS: that time when it is not given; else what an answer may take beyond the usual */
    int words_min, words_max;
    /* Makes parameters of them, whose number is right. False: what is wrong has been printed. */
    bool (*words)(struct ctl_target *t, char **words, int n);
    const struct ctl_section *section; /* shown when there is no view, and of pages */
    void (*view)(struct ctl_view *v);
};

/* NULL: there is none of that name (and that has been printed). */
const struct ctl_command *ctl_command_find(const char *name);

/* Whether the command may be called so; false: what is wrong has been printed. */
bool ctl_command_check(const struct ctl_command *command, const struct ctl_args *args);

/* What to ask, without cursor and limit of paged ones. False: what is wrong has been printed. */
bool ctl_target_make(const struct ctl_command *command, const struct ctl_args *args, struct ctl_target *ret);
void ctl_target_parameter(struct ctl_target *t, const char *name, const char *value);
void ctl_target_number(struct ctl_target *t, const char *name, int64_t value);
void ctl_target_fini(struct ctl_target *t);

/* How long the answer may take beyond CTL_HTTP_PATIENCE_S. */
unsigned ctl_command_wait_s(const struct ctl_command *command, const struct ctl_args *args);

/* The question to be answered before a dangerous order; NULL: it is not dangerous. */
const char *ctl_command_question(const struct ctl_command *command, const struct ctl_args *args);

/* All commands; one with its options (NULL: all). */
void ctl_usage(FILE *out, const struct ctl_command *command);
