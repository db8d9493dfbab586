// SPDX-License-Identifier: MIT
#include "main/commands.h"

#include <errno.h>
#include <stdlib.h>

#include "admin/admin.h"
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

int gateway_run(struct config *cfg)
{
    admin_set_page_dir(assets_admin_page_dir());
    return supervisor_run(cfg, shard_main, announce_main, admin_main);
}

int cmd_gateway(int argc, char **argv)
{
    struct options opt;
    struct config cfg;

    int status = options_parse_and_load(argc, argv, "ct", &opt, &cfg);
    if (status >= 0)
        return status;
    status = gateway_check(&cfg, opt.test);
    if (status == EXIT_OK && opt.test) {
        config_print(stdout, &cfg);
        fprintf(stderr, "%s: the configuration is good\n", cfg.source_path);
    } else if (status == EXIT_OK) {
        status = gateway_run(&cfg);
    }
    config_fini(&cfg);
    return status;
}
