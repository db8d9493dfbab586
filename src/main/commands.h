// SPDX-License-Identifier: MIT
/* The subcommands of tgg. Each gets argv from its own name on and returns the exit status. */
#pragma once

#include "common/config.h"

#define EXIT_OK      0
#define EXIT_RUNTIME 1
#define EXIT_USAGE   2
#define EXIT_CONFIG  78 /* EX_CONFIG of sysexits.h */

#define CONFIG_PATH_DEFAULT "/etc/tgg_gw/tgg_conf.ini"

int cmd_ban(int argc, char **argv);
int cmd_bans(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_ctl(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_gateway(int argc, char **argv);
int cmd_register(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_unban(int argc, char **argv);
int cmd_upgrade(int argc, char **argv);

/* ---- options that several have */
struct options {
    const char *config_path; /* -c FILE, else CONFIG_PATH_DEFAULT */
    bool config_given;
    bool test;            /* -t */
    bool json;            /* --json */
    unsigned http_port;   /* --http PORT */
    int64_t for_s;        /* --for TIME */
    uint64_t connections; /* --connections N; 0: not given */
    const char *root;     /* --root DIR, for tests; "" */
    const char *address;
};

/* `allowed` holds the letters that this command takes: c, t, j (--json), p (--http), f (--for), n
 * (--connections), r (--root), a (one word that is no option, as `address`; it must be there). -1 when it can
 * go on, else the exit status (usage has been printed, as asked for or to stderr). */
int options_parse(int argc, char **argv, const char *allowed, struct options *ret);

/* "90", "90s", "30m", "12h", "7d", in seconds; up to ten years. */
bool options_parse_time(const char *text, int64_t *ret_s);

/* Load the configuration or print what is wrong with it. EXIT_OK, else the exit status. */
int options_load(const struct options *opt, struct config *ret);

/* Both, as most commands want it. -1 when the command can go on (and ends with config_fini()), else the exit
 * status. */
int options_parse_and_load(int argc, char **argv, const char *allowed, struct options *ret,
                           struct config *ret_cfg);

/* What `tgg gateway -t` looks at besides the configuration itself; `all`: also what it names (files, users).
 * EXIT_OK, else what is wrong has been printed. */
int gateway_check(const struct config *cfg, bool all);

/* The supervisor over shards, announcer and admin process; cfg has been checked. Returns the exit status. */
int gateway_run(struct config *cfg);

/* Send HUP to the supervisor of the gateway that runs with this runtime_dir. 0; -ESRCH: none runs; other
 * -errno. */
int gateway_hup(const struct config *cfg);
