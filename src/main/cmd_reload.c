// SPDX-License-Identifier: MIT
#include "main/commands.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "common/node_shm.h"

/* The pid in the file may be that of a supervisor that was killed while its shards go on, and may have been
 * given to another program since: not one that calls itself tgg. */
static bool is_tgg(int pid)
{
    char path[64], name[32] = "";

    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    bool found = fgets(name, sizeof name, f) != NULL && strncmp(name, "tgg", 3) == 0;
    fclose(f);
    return found;
}

int gateway_hup(const struct config *cfg)
{
    const struct node_shm *shm;
    bool running = false;

    int r = node_shm_map(cfg->gateway.runtime_dir, &shm, &running);
    if (r < 0)
        return r == -ENOENT ? -ESRCH : r;
    int pid = shm->supervisor_pid;
    node_shm_unmap(shm);
    if (!running || pid <= 1 || !is_tgg(pid))
        return -ESRCH;
    return kill(pid, SIGHUP) < 0 ? -errno : 0;
}

static int explain(int err, const struct config *cfg)
{
    const char *why = err == -ESRCH    ? "no gateway runs with this runtime_dir"
                      : err == -EPROTO ? "written by another version of tgg"
                      : err == -EPERM  ? "it runs as another user: use that one, or root"
                                       : strerror(-err);
    fprintf(stderr, "tgg reload: %s: %s\n", cfg->gateway.runtime_dir, why);
    return EXIT_RUNTIME;
}

int cmd_reload(int argc, char **argv)
{
    struct options opt;
    struct config cfg;

    int status = options_parse_and_load(argc, argv, "c", &opt, &cfg);
    if (status >= 0)
        return status;
    status = gateway_check(&cfg, true);
    if (status == EXIT_OK) {
        int r = gateway_hup(&cfg);
        if (r < 0)
            status = explain(r, &cfg);
        else
            printf("%s: good; the gateway was told to read it again (its log says what changed)\n",
                   cfg.source_path);
    }
    config_fini(&cfg);
    return status;
}
