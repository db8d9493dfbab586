// SPDX-License-Identifier: MIT
#include "main/ctl_options.h"

#include <assert.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "guard/cidr.h"
#include "main/commands.h"

#define WATCH_DEFAULT_MS 2000
#define WATCH_MIN_S      0.1
#define WATCH_MAX_S      3600.0

enum kind { KIND_FLAG, KIND_TEXT, KIND_NUMBER, KIND_TIME, KIND_SIZE, KIND_CIDR, KIND_WATCH };

struct ctl_option {
    const char *name;
    enum kind kind;
    const char *argument, *parameter, *help;
};
static const struct ctl_option options[CTL_OPTION_N] = {
#define CTL_OPTION_ROW(constant, name, kind, argument, parameter, help)                                      \
    [CTL_OPTION_##constant] = {name, KIND_##kind, argument, parameter, help},
    CTL_OPTIONS(CTL_OPTION_ROW)
#undef CTL_OPTION_ROW
};
static_assert(CTL_OPTION_N < 64, "the bits of struct ctl_args");

const char *ctl_option_name(enum ctl_option_id id)
{
    return options[id].name;
}

const char *ctl_option_parameter(enum ctl_option_id id)
{
    return options[id].parameter;
}

bool ctl_option_is_number(enum ctl_option_id id)
{
    enum kind kind = options[id].kind;
    return kind == KIND_NUMBER || kind == KIND_TIME || kind == KIND_SIZE;
}

void ctl_options_print(FILE *out, uint64_t bits)
{
    for (unsigned i = 0; i < CTL_OPTION_N; i++) {
        const struct ctl_option *o = &options[i];
        char left[48];
        if ((bits >> i & 1) == 0)
            continue;
        snprintf(left, sizeof left, "%s--%s%s%s",
                 i == CTL_OPTION_CONFIG ? "-c, "
                 : i == CTL_OPTION_HELP ? "-h, "
                                        : "",
                 o->name, o->argument == NULL || o->kind == KIND_WATCH ? "" : " ",
                 o->argument != NULL ? o->argument : "");
        fprintf(out, "  %-22s %s\n", left, o->help);
    }
}

/* ---- values */

static bool parse_number(const char *text, const char *units, int64_t *ret)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    unsigned long v = strtoul(text, &end, 10);
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    unsigned shift = unit != NULL ? 10 * (unsigned)(unit - units + 1) : 0;
    if ((*end != '\0' && (unit == NULL || end[1] != '\0')) || v > (UINT64_C(1) << 53) >> shift)
        return false;
    *ret = (int64_t)(v << shift);
    return true;
}

static bool parse_watch(const char *text, int64_t *ret_ms)
{
    char *end;

    *ret_ms = WATCH_DEFAULT_MS;
    if (text == NULL)
        return true;
    double s = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(s >= WATCH_MIN_S && s <= WATCH_MAX_S))
        return false;
    *ret_ms = (int64_t)(s * 1000 + 0.5);
    return true;
}

static bool wrong(const struct ctl_option *o, const char *value, const char *expected)
{
    fprintf(stderr, "tgg ctl: --%s %s: expected %s\n", o->name, value != NULL ? value : "", expected);
    return false;
}

static bool check_cidr(const struct ctl_option *o, const char *text)
{
    struct cidr cidr;
    char why[CIDR_WHY_MAX];
    enum cidr_problem problem = cidr_parse(text, strlen(text), &cidr);
    if (problem == CIDR_OK)
        return true;
    fprintf(stderr, "tgg ctl: --%s: %s\n", o->name,
            cidr_explain(problem, text, strlen(text), why, sizeof why));
    return false;
}

static bool take(struct ctl_args *args, unsigned id, const char *value)
{
    const struct ctl_option *o = &options[id];

    args->given |= UINT64_C(1) << id;
    args->text[id] = value;
    switch (o->kind) {
    case KIND_FLAG:
    case KIND_TEXT: return true;
    case KIND_CIDR: return check_cidr(o, value);
    case KIND_NUMBER: return parse_number(value, "", &args->number[id]) || wrong(o, value, "a whole number");
    case KIND_SIZE:
        return parse_number(value, "kmg", &args->number[id]) ||
               wrong(o, value, "a number of bytes, or of k, m or g such as 64k");
    case KIND_TIME:
        return options_parse_time(value, &args->number[id]) ||
               wrong(o, value, "a number of s, m, h or d such as 30m");
    case KIND_WATCH: return parse_watch(value, &args->watch_ms) || wrong(o, value, "0.1 to 3600 seconds");
    }
    return false;
}

/* ---- all of them */

static int id_of(int c)
{
    return c == 'c' ? CTL_OPTION_CONFIG : c == 'h' ? CTL_OPTION_HELP : c - 256;
}

bool ctl_args_parse(int argc, char **argv, struct ctl_args *ret)
{
    struct option longs[CTL_OPTION_N + 1] = {0};

    for (int i = 0; i < CTL_OPTION_N; i++) {
        enum kind kind = options[i].kind;
        longs[i] = (struct option){.name = options[i].name, .val = 256 + i};
        longs[i].has_arg = kind == KIND_FLAG    ? no_argument
                           : kind == KIND_WATCH ? optional_argument
                                                : required_argument;
    }
    *ret = (struct ctl_args){.watch_ms = WATCH_DEFAULT_MS};
    for (int c; (c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1;) {
        if (c == '?' || !take(ret, (unsigned)id_of(c), optarg))
            return false;
    }
    ret->words = argv + optind;
    ret->n_words = argc - optind;
    return true;
}
