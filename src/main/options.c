// SPDX-License-Identifier: MIT
#include "main/commands.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

struct option_text {
    char letter;
    const char *text;
};
static const struct option_text option_texts[] = {
    {'c', "  -c, --config FILE  the configuration; default " CONFIG_PATH_DEFAULT},
    {'t', "  -t, --test         check the configuration, print the effective values, start nothing"},
    {'j', "  --json             as one JSON object"},
    {'p', "  --http PORT        port of the demo page; default 8080"},
    {'n', "  --connections N    client connections at the same time; default: max_connections of all shards, "
          "or 100000"},
    {'f', "  --for TIME         how long: a number of s, m, h or d, such as 30m; default 1h"},
};

#define CONNECTIONS_MAX 4000000000 /* some more than 64 shards have ids for */
#define TIME_MAX_S      INT64_C(3650 * 86400)

static void print_usage(FILE *out, const char *command, const char *allowed)
{
    fprintf(out, "usage: tgg %s [options]%s\n", command, strchr(allowed, 'a') != NULL ? " ADDRESS|CIDR" : "");
    for (size_t i = 0; i < sizeof option_texts / sizeof option_texts[0]; i++) {
        if (strchr(allowed, option_texts[i].letter) != NULL)
            fprintf(out, "%s\n", option_texts[i].text);
    }
    fprintf(out, "  -h, --help         this text\n");
}

static bool parse_port(const char *text, unsigned *ret)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (*text == '\0' || *end != '\0' || v < 1 || v > 65535)
        return false;
    *ret = (unsigned)v;
    return true;
}

bool options_parse_time(const char *text, int64_t *ret_s)
{
    static const char units[] = "smhd";
    static const int64_t unit_s[] = {1, 60, 3600, 86400};
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    unsigned long v = strtoul(text, &end, 10);
    const char *unit = *end != '\0' ? strchr(units, *end) : units;
    if (unit == NULL || (*end != '\0' && end[1] != '\0'))
        return false;
    int64_t one_s = unit_s[unit - units];
    if (v > (unsigned long)(TIME_MAX_S / one_s))
        return false;
    *ret_s = (int64_t)v * one_s;
    return true;
}

static bool parse_connections(const char *text, uint64_t *ret)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || v < 1 || v > CONNECTIONS_MAX)
        return false;
    *ret = v;
    return true;
}

static bool take(struct options *opt, int letter)
{
    switch (letter) {
    case 'c':
        opt->config_path = optarg;
        opt->config_given = true;
        return true;
    case 't': opt->test = true; return true;
    case 'j': opt->json = true; return true;
    case 'p':
        if (parse_port(optarg, &opt->http_port))
            return true;
        fprintf(stderr, "tgg: --http %s is not a port; expected 1 to 65535\n", optarg);
        return false;
    case 'n':
        if (parse_connections(optarg, &opt->connections))
            return true;
        fprintf(stderr, "tgg: --connections %s is not a number of connections; expected 1 to %lu\n", optarg,
                (unsigned long)CONNECTIONS_MAX);
        return false;
    case 'r': opt->root = optarg; return true;
    case 'f':
        if (options_parse_time(optarg, &opt->for_s) && opt->for_s > 0)
            return true;
        fprintf(stderr, "tgg: --for %s is not a time; expected a number of s, m, h or d, up to 3650d\n",
                optarg);
        return false;
    default: return false;
    }
}

int options_parse(int argc, char **argv, const char *allowed, struct options *ret)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'}, {"test", no_argument, NULL, 't'},
        {"json", no_argument, NULL, 'j'},         {"http", required_argument, NULL, 'p'},
        {"for", required_argument, NULL, 'f'},    {"connections", required_argument, NULL, 'n'},
        {"root", required_argument, NULL, 'r'}, /* for tests: not in the usage */
        {"help", no_argument, NULL, 'h'},         {0},
    };

    *ret = (struct options){.config_path = CONFIG_PATH_DEFAULT, .http_port = 8080, .for_s = 3600, .root = ""};
    for (int c; (c = getopt_long(argc, argv, "c:th", longs, NULL)) != -1;) {
        if (c == 'h') {
            print_usage(stdout, argv[0], allowed);
            return EXIT_OK;
        }
        if (c != '?' && strchr(allowed, c) == NULL)
            fprintf(stderr, "tgg %s: it has no such option\n", argv[0]);
        else if (take(ret, c))
            continue;
        print_usage(stderr, argv[0], allowed);
        return EXIT_USAGE;
    }
    if (strchr(allowed, 'a') != NULL && optind == argc) {
        fprintf(stderr, "tgg %s: which address?\n", argv[0]);
        print_usage(stderr, argv[0], allowed);
        return EXIT_USAGE;
    }
    if (strchr(allowed, 'a') != NULL)
        ret->address = argv[optind++];
    if (optind < argc) {
        fprintf(stderr, "tgg %s: %s was not expected\n", argv[0], argv[optind]);
        print_usage(stderr, argv[0], allowed);
        return EXIT_USAGE;
    }
    return -1;
}

int options_load(const struct options *opt, struct config *ret)
{
    struct config_error *err = calloc(1, sizeof *err);
    if (err == NULL)
        return EXIT_RUNTIME;
    int r = config_load(opt->config_path, ret, err);
    if (r < 0)
        config_error_print(stderr, err);
    free(err);
    return r < 0 ? EXIT_CONFIG : EXIT_OK;
}

int options_parse_and_load(int argc, char **argv, const char *allowed, struct options *ret,
                           struct config *ret_cfg)
{
    int status = options_parse(argc, argv, allowed, ret);
    if (status >= 0)
        return status;
    status = options_load(ret, ret_cfg);
    return status == EXIT_OK ? -1 : status;
}
