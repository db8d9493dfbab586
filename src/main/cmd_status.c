// SPDX-License-Identifier: MIT
/* Reads what the shards keep in the runtime folder; talks to nobody, so that it works with a stuck or dead
 * shard. */
#include "main/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/shard_shm.h"

static int64_t uptime_s(const struct shard_shm *shm)
{
    struct timespec ts;
    if (shm->pid == 0)
        return 0;
    clock_gettime(CLOCK_REALTIME, &ts);
    int64_t s = (int64_t)ts.tv_sec - shm->start_unix_ms / 1000;
    return s > 0 ? s : 0;
}

static void print_text(const struct shard_shm *shm, bool running)
{
    printf("shard %u\n", shm->shard);
    printf("gateway_running %s\n", running ? "yes" : "no");
    printf("state %s\n", shard_state_name(shard_shm_state(shm)));
    printf("pid %d\n", shm->pid);
    printf("supervisor_pid %d\n", shm->supervisor_pid);
    printf("uptime_s %" PRId64 "\n", uptime_s(shm));
    printf("restarts %u\n", shm->restarts);
    printf("next_seq %u\n", shm->next_seq);
    printf("turns %" PRIu64 "\n", shm->turns);
    printf("turn_longest_ns %" PRIu64 "\n", shm->turn_longest_ns);
    counters_write_text(stdout, &shm->counters);
}

static void print_json(const struct shard_shm *shm, bool running)
{
    printf("{\"version\":\"%s\",\"gateway_running\":%s,\"supervisor_pid\":%d,\"shards\":[", TGG_VERSION,
           running ? "true" : "false", shm->supervisor_pid);
    printf("{\"shard\":%u,\"state\":\"%s\",\"pid\":%d,\"uptime_s\":%" PRId64
           ",\"restarts\":%u,\"next_seq\":%u,",
           shm->shard, shard_state_name(shard_shm_state(shm)), shm->pid, uptime_s(shm), shm->restarts,
           shm->next_seq);
    printf("\"turns\":%" PRIu64 ",\"turn_longest_ns\":%" PRIu64 ",\"counters\":{", shm->turns,
           shm->turn_longest_ns);
    counters_write_json(stdout, &shm->counters);
    printf("}}]}\n");
}

static int explain(int err, const char *dir)
{
    const char *hint = err == -ENOENT   ? "no gateway has run with this runtime_dir"
                       : err == -EPROTO ? "written by another version of tgg"
                                        : strerror(-err);
    fprintf(stderr, "tgg status: %s/shard-0.shm: %s\n", dir, hint);
    return EXIT_RUNTIME;
}

static int show(const struct config *cfg, bool json)
{
    const struct shard_shm *shm;
    bool running;
    int r = shard_shm_map(cfg->gateway.runtime_dir, 0, &shm, &running);

    if (r < 0)
        return explain(r, cfg->gateway.runtime_dir);
    if (json)
        print_json(shm, running);
    else
        print_text(shm, running);
    shard_shm_unmap(shm);
    return running ? EXIT_OK : EXIT_RUNTIME;
}

int cmd_status(int argc, char **argv)
{
    struct options opt;
    struct config cfg;

    int status = options_parse_and_load(argc, argv, "cj", &opt, &cfg);
    if (status >= 0)
        return status;
    status = show(&cfg, opt.json);
    config_fini(&cfg);
    return status;
}
