// SPDX-License-Identifier: MIT
/* Reads what the node keeps in the runtime folder; talks to nobody, so that it works with a stuck or dead
 * shard. */
#include "main/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/node_shm.h"

struct view {
    const struct node_shm *shm;
    bool running;
    struct counters sum;
    uint64_t turns, turn_longest_ns;
    uint32_t restarts; /* of all shards */
};

static const struct node_process *process_of(const struct view *v, unsigned shard)
{
    return &v->shm->processes[NODE_PROCESS_SHARDS + shard];
}

static const struct shard_shm *shard_of(const struct view *v, unsigned shard)
{
    return &v->shm->blocks[shard].shm;
}

static const char *state_of(const struct view *v, unsigned shard)
{
    return shard_state_name(shard_shm_state(shard_of(v, shard)));
}

static int64_t uptime_s(const struct node_process *p)
{
    struct timespec ts;
    if (p->pid == 0)
        return 0;
    clock_gettime(CLOCK_REALTIME, &ts);
    int64_t s = (int64_t)ts.tv_sec - p->start_unix_ms / 1000;
    return s > 0 ? s : 0;
}

static const char *roles_name(uint32_t roles)
{
    static const char *const names[] = {"none", "edge", "link", "edge+link"};
    return names[roles & (NODE_ROLE_EDGE | NODE_ROLE_LINK)];
}

/* The state of all: that of every shard, else "mixed". */
static const char *state_of_all(const struct view *v)
{
    for (unsigned i = 1; i < v->shm->n_shards; i++) {
        if (shard_shm_state(shard_of(v, i)) != shard_shm_state(shard_of(v, 0)))
            return "mixed";
    }
    return state_of(v, 0);
}

static void sum_up(struct view *v)
{
    node_shm_sum(v->shm, &v->sum);
    for (unsigned i = 0; i < v->shm->n_shards; i++) {
        const struct shard_shm *shm = shard_of(v, i);
        v->turns += shm->turns;
        if (shm->turn_longest_ns > v->turn_longest_ns)
            v->turn_longest_ns = shm->turn_longest_ns;
        v->restarts += process_of(v, i)->restarts;
    }
}

/* ---- text */

static void print_shard_row(const struct view *v, unsigned i)
{
    const struct shard_shm *shm = shard_of(v, i);
    const struct node_process *p = process_of(v, i);
    char cpu[12] = "-";

    if (v->shm->shards[i].cpu >= 0)
        snprintf(cpu, sizeof cpu, "%d", v->shm->shards[i].cpu);
    printf("shard_%-4u %-9s %-8s %8d %5s %-9s %8" PRId64 " %8u %10" PRIu64 " %8" PRIu64 " %9u %12" PRIu64
           "\n",
           i, state_of(v, i), process_state_name(p->state), p->pid, cpu, roles_name(v->shm->shards[i].roles),
           uptime_s(p), p->restarts, counter_get(&shm->counters, COUNTER_clients),
           counter_get(&shm->counters, COUNTER_workers), shm->next_seq, shm->turn_longest_ns);
}

static void print_process_row(const char *name, const struct node_process *p)
{
    printf("%-10s %-9s %-8s %8d %5s %-9s %8" PRId64 " %8u\n", name, "-", process_state_name(p->state), p->pid,
           "-", "-", uptime_s(p), p->restarts);
}

static void print_table(const struct view *v)
{
    printf("%-10s %-9s %-8s %8s %5s %-9s %8s %8s %10s %8s %9s %12s\n", "process", "state", "seen", "pid",
           "cpu", "roles", "uptime_s", "restarts", "clients", "workers", "next_seq", "longest_ns");
    print_process_row("supervisor", &v->shm->processes[NODE_PROCESS_SUPERVISOR]);
    print_process_row("announcer", &v->shm->processes[NODE_PROCESS_ANNOUNCER]);
    print_process_row("admin", &v->shm->processes[NODE_PROCESS_ADMIN]);
    for (unsigned i = 0; i < v->shm->n_shards; i++)
        print_shard_row(v, i);
}

/* `name value` lines for the node, of which those named as in the days of one shard are the sum of all (pid,
 * uptime_s: of shard 0), then a table with a line per process. */
static void print_text(const struct view *v)
{
    const struct node_process *first = process_of(v, 0);

    printf("gateway_running %s\n", v->running ? "yes" : "no");
    printf("config %s\n", v->shm->config_path);
    printf("shards %u\n", v->shm->n_shards);
    printf("state %s\n", state_of_all(v));
    printf("pid %d\n", first->pid);
    printf("supervisor_pid %d\n", v->shm->supervisor_pid);
    printf("uptime_s %" PRId64 "\n", uptime_s(first));
    printf("restarts %u\n", v->restarts);
    printf("turns %" PRIu64 "\n", v->turns);
    printf("turn_longest_ns %" PRIu64 "\n", v->turn_longest_ns);
    counters_write_text(stdout, &v->sum);
    print_table(v);
}

/* ---- JSON */

static void print_json_text(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned char)*text);
        else
            putchar(*text);
    }
    putchar('"');
}

static void print_json_shard(const struct view *v, unsigned i)
{
    const struct shard_shm *shm = shard_of(v, i);
    const struct node_process *p = process_of(v, i);

    printf("%s{\"shard\":%u,\"state\":\"%s\",\"pid\":%d,\"uptime_s\":%" PRId64
           ",\"restarts\":%u,\"next_seq\":%u,",
           i > 0 ? "," : "", i, state_of(v, i), p->pid, uptime_s(p), p->restarts, shm->next_seq);
    printf("\"cpu\":%d,\"edge\":%s,\"link\":%s,\"stacks\":%u,", v->shm->shards[i].cpu,
           v->shm->shards[i].roles & NODE_ROLE_EDGE ? "true" : "false",
           v->shm->shards[i].roles & NODE_ROLE_LINK ? "true" : "false", shm->stacks);
    printf("\"turns\":%" PRIu64 ",\"turn_longest_ns\":%" PRIu64 ",\"turn_cpu_longest_ns\":%" PRIu64
           ",\"counters\":{",
           shm->turns, shm->turn_longest_ns, shm->turn_cpu_longest_ns);
    counters_write_json(stdout, &shm->counters);
    printf("}}");
}

static void print_json_process(const struct node_process *p)
{
    printf("{\"kind\":\"%s\",\"number\":%u,\"pid\":%d,\"state\":\"%s\",\"uptime_s\":%" PRId64
           ",\"restarts\":%u,\"deaths_young\":%u}",
           p->kind < PROCESS_KIND_N ? process_kind_name((enum process_kind)p->kind) : "?", p->number, p->pid,
           process_state_name(p->state), uptime_s(p), p->restarts, p->deaths_young);
}

static void print_json(const struct view *v)
{
    printf("{\"version\":\"%s\",\"gateway_running\":%s,\"supervisor_pid\":%d,\"config\":", TGG_VERSION,
           v->running ? "true" : "false", v->shm->supervisor_pid);
    print_json_text(v->shm->config_path);
    printf(",\"n_shards\":%u,\"max_clients_per_shard\":%u,\"ring_size\":%" PRIu64 ",\"state\":\"%s\"",
           v->shm->n_shards, v->shm->max_clients, v->shm->ring_bytes, state_of_all(v));
    printf(",\"restarts\":%u,\"turns\":%" PRIu64 ",\"turn_longest_ns\":%" PRIu64 ",\"counters\":{",
           v->restarts, v->turns, v->turn_longest_ns);
    counters_write_json(stdout, &v->sum);
    printf("},\"shards\":[");
    for (unsigned i = 0; i < v->shm->n_shards; i++)
        print_json_shard(v, i);
    printf("],\"processes\":[");
    for (unsigned i = 0; i < NODE_PROCESS_SHARDS + v->shm->n_shards; i++) {
        print_json_process(&v->shm->processes[i]);
        putchar(',');
    }
    print_json_process(&v->shm->processes[NODE_PROCESS_ADMIN]);
    printf("]}\n");
}

/* ---- the command */

static int explain(int err, const char *dir)
{
    const char *hint = err == -ENOENT   ? "no gateway has run with this runtime_dir"
                       : err == -EPROTO ? "written by another version of tgg"
                                        : strerror(-err);
    fprintf(stderr, "tgg status: %s/node.shm: %s\n", dir, hint);
    return EXIT_RUNTIME;
}

static int show(const struct config *cfg, bool json)
{
    struct view v = {.running = false};
    int r = node_shm_map(cfg->gateway.runtime_dir, &v.shm, &v.running);

    if (r < 0)
        return explain(r, cfg->gateway.runtime_dir);
    sum_up(&v);
    if (json)
        print_json(&v);
    else
        print_text(&v);
    node_shm_unmap(v.shm);
    return v.running ? EXIT_OK : EXIT_RUNTIME;
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
