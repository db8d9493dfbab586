// SPDX-License-Identifier: MIT
/* tgg COMMAND: see man/tgg.8. */
#include <stdio.h>
#include <string.h>

#include "common/upgrade_exec.h"
#include "main/commands.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *text;
};
static const struct command commands[] = {
    {"gateway", cmd_gateway,
     "serve clients: the supervisor and its shards (-t: only check the configuration)"},
    {"register", cmd_register, "where gateways and business workers find each other"},
    {"run", cmd_run, "register, gateway, demo worker and demo page in one, nothing to configure"},
    {"status", cmd_status, "the state and the counters of a running gateway"},
    {"ctl", cmd_ctl, "see and steer a running gateway: clients, workers, traffic; close, drain, trace"},
    {"reload", cmd_reload, "check the configuration, then have the running gateway read it again"},
    {"upgrade", cmd_upgrade,
     "have a new process take over a running gateway or register, and nobody notices"},
    {"bench", cmd_bench, "put load on a gateway, from outside, and say how it bears it"},
    {"ban", cmd_ban, "let no client of an address or prefix in for a while"},
    {"unban", cmd_unban, "lift a ban"},
    {"bans", cmd_bans, "the bans that hold"},
    {"doctor", cmd_doctor,
     "look at the machine: what does not fit the number of connections, and what mends it"},
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void print_help(FILE *out)
{
    fprintf(out, "usage: tgg COMMAND [options]\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].text);
    fprintf(out, "\ntgg COMMAND --help tells the options; tgg --version the version; more in tgg(8) and "
                 "tgg_conf.ini(5).\n");
}

static int run(const struct command *c, int argc, char **argv)
{
    if (c->run == cmd_gateway || c->run == cmd_register)
        upgrade_exec_remember(argv);
    return c->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("tgg %s\n", TGG_VERSION);
        return EXIT_OK;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return run(&commands[i], argc, argv);
    }
    fprintf(stderr, "tgg: %s is not a command\n", argv[1]);
    print_help(stderr);
    return EXIT_USAGE;
}
