// SPDX-License-Identifier: MIT
#include "main/commands.h"

#include <stdlib.h>
#include <unistd.h>

#include "register/register.h"

static int run(const struct config *cfg)
{
    struct config_error *err = calloc(1, sizeof *err);
    int status = EXIT_RUNTIME;

    if (err == NULL)
        return status;
    register_block_signals();
    int fd = register_listen(cfg, err);
    if (fd < 0)
        config_error_print(stderr, err);
    else
        status = register_run(cfg, fd);
    if (fd >= 0)
        close(fd);
    free(err);
    return status;
}

int cmd_register(int argc, char **argv)
{
    struct options opt;
    struct config cfg;

    int status = options_parse_and_load(argc, argv, "ct", &opt, &cfg);
    if (status >= 0)
        return status;
    status = EXIT_OK;
    if (opt.test)
        config_print(stdout, &cfg);
    else
        status = run(&cfg);
    config_fini(&cfg);
    return status;
}
