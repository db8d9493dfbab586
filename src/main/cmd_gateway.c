// SPDX-License-Identifier: MIT
#include "main/commands.h"

#include <errno.h>
#include <stdlib.h>

#include "admin/admin.h"
#include "common/upgrade_exec.h"
#include "main/assets.h"
#include "register/announce.h"
#include "shard/shard.h"
#include "supervisor/check.h"
#include "supervisor/privileges.h"
#include "supervisor/supervisor.h"

/* What else the supervisor looks at before it starts anything. */
static int check_named(const struct config *cfg, struct config_error *err)
{
    struct privileges privileges;
    struct files *files = NULL;
    int r_user = privileges_resolve(cfg, &privileges, err);
    int r = check_files(cfg, (struct slice){NULL, 0}, &files, err);
    files_free(files);
    return r_user < 0 ? r_user : r;
}

int gateway_check(const struct config *cfg, bool all)
{
    struct config_error *err = calloc(1, sizeof *err);
    if (err == NULL)
        return EXIT_RUNTIME;
    int r = config_check_gateway(cfg, err);
    if (all && check_named(cfg, err) < 0)
        r = -EINVAL;
    if (r < 0)
        config_error_print(stderr, err);
    free(err);
    return r < 0 ? EXIT_CONFIG : EXIT_OK;
}

static int run(struct config *cfg, int upgrade_fd)
{
    admin_set_page_dir(assets_admin_page_dir());
    return supervisor_run(cfg, upgrade_fd, shard_main, announce_main, admin_main);
}

int gateway_run(struct config *cfg)
{
    return run(cfg, -1);
}

/* ---- in the place of a running one */

static int load(const char *path, struct config *ret, struct config_error *err)
{
    int r = config_load(path, ret, err);
    if (r < 0)
        return r;
    r = config_check_gateway(ret, err);
    if (r < 0)
        config_fini(ret);
    return r;
}

/* Whoever asked for the upgrade hears of what is wrong from the one that runs. */
static int take_over(const struct options *opt, int upgrade_fd)
{
    struct config_error *err = calloc(1, sizeof *err);
    struct config cfg;
    int status = EXIT_CONFIG;

    if (err == NULL)
        return EXIT_RUNTIME;
    int r = load(opt->config_path, &cfg, err);
    if (r < 0) {
        config_error_print(stderr, err);
        supervisor_refuse_upgrade(upgrade_fd, err);
    } else {
        status = run(&cfg, upgrade_fd);
        config_fini(&cfg);
    }
    free(err);
    return status;
}

int cmd_gateway(int argc, char **argv)
{
    struct options opt;
    struct config cfg;
    int upgrade_fd = upgrade_exec_fd();

    int status = options_parse(argc, argv, "ct", &opt);
    if (status >= 0)
        return status;
    if (upgrade_fd >= 0)
        return take_over(&opt, upgrade_fd);
    if (upgrade_fd != -1) {
        fprintf(stderr, "tgg gateway: %s is set, and is no descriptor of another gateway\n",
                UPGRADE_FD_VARIABLE);
        return EXIT_USAGE;
    }
    status = options_load(&opt, &cfg);
    if (status != EXIT_OK)
        return status;
    status = gateway_check(&cfg, opt.test);
    if (status == EXIT_OK && opt.test) {
        config_print(stdout, &cfg);
        fprintf(stderr, "%s: the configuration is good\n", cfg.source_path);
    } else if (status == EXIT_OK) {
        status = run(&cfg, -1);
    }
    config_fini(&cfg);
    return status;
}
