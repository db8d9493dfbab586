// SPDX-License-Identifier: MIT
#include "main/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/notify.h"
#include "common/upgrade_exec.h"
#include "register/register.h"

static int bind_and_run(const struct config *cfg, struct notify *notify)
{
    struct config_error *err = calloc(1, sizeof *err);
    int status = EXIT_RUNTIME;

    if (err == NULL)
        return status;
    int fd = register_listen(cfg, err);
    if (fd < 0)
        config_error_print(stderr, err);
    else
        status = register_run(cfg, fd, notify);
    if (fd >= 0)
        close(fd);
    free(err);
    return status;
}

static int run(const struct config *cfg)
{
    struct notify notify;
    int status, upgrade_fd = upgrade_exec_fd();

    register_block_signals();
    notify_open(&notify);
    if (upgrade_fd >= 0) {
        status = register_take_over(cfg, upgrade_fd, &notify);
    } else if (upgrade_fd == -1) {
        status = bind_and_run(cfg, &notify);
    } else {
        fprintf(stderr, "tgg register: %s is set, and is no descriptor of another register\n",
                UPGRADE_FD_VARIABLE);
        status = EXIT_RUNTIME;
    }
    notify_close(&notify);
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
