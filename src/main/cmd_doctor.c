// SPDX-License-Identifier: MIT
/* tgg doctor: looks, prints, changes nothing. */
#include "main/commands.h"

#include <stdlib.h>
#include <unistd.h>

#include "doctor/doctor.h"

/* Before there is a configuration the defaults will do. */
static int load(const struct options *opt, struct config *ret)
{
    if (opt->config_given || access(opt->config_path, F_OK) == 0)
        return options_load(opt, ret);
    fprintf(stderr, "tgg doctor: there is no %s; looking with the defaults\n", opt->config_path);
    config_defaults(ret);
    return EXIT_OK;
}

static int look(const struct options *opt, const struct config *cfg)
{
    struct doctor_report *report = calloc(1, sizeof *report);

    if (report == NULL) {
        fprintf(stderr, "tgg doctor: no memory\n");
        return EXIT_RUNTIME;
    }
    doctor_look(cfg, opt->connections, opt->root, report);
    if (opt->json)
        doctor_print_json(stdout, report);
    else
        doctor_print_text(stdout, report);
    int status = report->count[DOCTOR_BAD] == 0 ? EXIT_OK : EXIT_RUNTIME;
    free(report);
    return status;
}

int cmd_doctor(int argc, char **argv)
{
    struct options opt;
    struct config cfg;

    int status = options_parse(argc, argv, "cjnr", &opt);
    if (status >= 0)
        return status;
    if ((status = load(&opt, &cfg)) != EXIT_OK)
        return status;
    status = look(&opt, &cfg);
    config_fini(&cfg);
    return status;
}
