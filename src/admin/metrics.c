// SPDX-License-Identifier: MIT
#include "admin/metrics.h"

#include <string.h>

#include "admin/metrics_priv.h"

#define LABELS_MAX 512

static const char *begin(struct bytes *out, enum metric_id id)
{
    metrics__head(out, &metric_families[id]);
    return metric_families[id].name;
}

static void write_one(struct bytes *out, enum metric_id id, uint64_t value)
{
    metrics__uint(out, begin(out, id), "", value);
}

static const char *shard_label(char buf[LABELS_MAX], unsigned shard)
{
    snprintf(buf, LABELS_MAX, "shard=\"%u\"", shard);
    return buf;
}

static const struct shard_shm *shard_of(const struct metrics_input *in, unsigned shard)
{
    return &in->shm->blocks[shard].shm;
}

/* ---- node */

static void write_registers(const struct metrics_input *in, struct bytes *out)
{
    char labels[2][NODE_REGISTERS_MAX][LABELS_MAX / 2];
    const struct node_register *list = in->shm->announcer.registers;
    unsigned n = 0;

    for (; n < NODE_REGISTERS_MAX && list[n].address[0] != '\0'; n++) {
        metrics__label(labels[1][n], LABELS_MAX / 2 - 16, list[n].address,
                       strnlen(list[n].address, sizeof list[n].address));
        snprintf(labels[0][n], LABELS_MAX / 2, "register=\"%s\"", labels[1][n]);
    }
    const char *name = begin(out, METRIC_register_up);
    for (unsigned i = 0; i < n; i++)
        metrics__uint(out, name, labels[0][i], NODE_LOAD(list[i].connected) != 0);
    name = begin(out, METRIC_register_change_time_seconds);
    for (unsigned i = 0; i < n; i++)
        metrics__ms(out, name, labels[0][i], NODE_LOAD(list[i].since_unix_ms));
}

static void write_node(const struct metrics_input *in, struct bytes *out)
{
    metrics__uint(out, begin(out, METRIC_build_info), "version=\"" TGG_VERSION "\"", 1);
    write_one(out, METRIC_ready, in->ready);
    write_one(out, METRIC_draining, NODE_LOAD(in->node->shared->draining) != 0);
    metrics__ms(out, begin(out, METRIC_start_time_seconds), "", in->shm->supervisor_start_unix_ms);
    write_one(out, METRIC_shards, in->shm->n_shards);
    write_registers(in, out);
}

/* ---- shards */

static bool is_up(const struct metrics_input *in, unsigned shard)
{
    return in->shm->processes[NODE_PROCESS_SHARDS + shard].state == PROCESS_ALIVE &&
           NODE_LOAD(in->node->shared->shards[shard].phase) == NODE_UP;
}

static void write_phases(const struct metrics_input *in, struct bytes *out)
{
    static const char *const phases[] = {"down", "up", "leaves", "quiet"}; /* enum node_phase */
    char labels[LABELS_MAX];

    const char *name = begin(out, METRIC_shard_up);
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__uint(out, name, shard_label(labels, i), is_up(in, i));
    name = begin(out, METRIC_shard_phase);
    for (unsigned i = 0; i < in->shm->n_shards; i++) {
        for (uint32_t phase = 0; phase < sizeof phases / sizeof phases[0]; phase++) {
            snprintf(labels, sizeof labels, "shard=\"%u\",phase=\"%s\"", i, phases[phase]);
            metrics__uint(out, name, labels, NODE_LOAD(in->node->shared->shards[i].phase) == phase);
        }
    }
    name = begin(out, METRIC_shard_drained);
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__uint(out, name, shard_label(labels, i), NODE_LOAD(in->node->shared->shards[i].drained) != 0);
}

static void write_turns(const struct metrics_input *in, struct bytes *out)
{
    char labels[LABELS_MAX];

    const char *name = begin(out, METRIC_shard_turns_total);
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__uint(out, name, shard_label(labels, i), NODE_LOAD(shard_of(in, i)->turns));
    name = begin(out, METRIC_shard_turn_longest_seconds);
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__ns(out, name, shard_label(labels, i), NODE_LOAD(shard_of(in, i)->turn_longest_ns));
    name = begin(out, METRIC_shard_turn_cpu_longest_seconds);
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__ns(out, name, shard_label(labels, i), NODE_LOAD(shard_of(in, i)->turn_cpu_longest_ns));
    name = begin(out, METRIC_shard_stack_dumps_total);
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__uint(out, name, shard_label(labels, i), NODE_LOAD(shard_of(in, i)->stacks));
}

/* ---- limits */

static void write_limits(const struct metrics_input *in, struct bytes *out)
{
    const struct config_gateway *g = &in->cfg->gateway;
    const struct {
        enum metric_id id;
        uint64_t value;
    } of_shards[] = {
        {METRIC_clients_max, in->shm->max_clients},
        {METRIC_links_max, g->max_links},
        {METRIC_workers_max, NODE_WORKERS_MAX / in->shm->n_shards},
        {METRIC_client_input_max_bytes, g->client_input_total_bytes},
        {METRIC_parked_max_bytes, g->no_worker_total_bytes},
        {METRIC_deflate_max_bytes, g->deflate_memory},
        {METRIC_tls_handshakes_waiting_max, g->tls_handshakes_max},
        {METRIC_tls_handshakes_begun_max, g->tls_handshakes_begun_max},
    };
    char labels[LABELS_MAX];

    for (size_t m = 0; m < sizeof of_shards / sizeof of_shards[0]; m++) {
        const char *name = begin(out, of_shards[m].id);
        for (unsigned i = 0; i < in->shm->n_shards; i++)
            metrics__uint(out, name, shard_label(labels, i), of_shards[m].value);
    }
    write_one(out, METRIC_one_client_queue_max_bytes, g->send_to_client_buffer_size);
    write_one(out, METRIC_one_worker_queue_max_bytes, g->send_to_worker_buffer_size);
}

/* ---- counters.def, histograms.def */

static void write_counter(const struct metrics_input *in, struct bytes *out, enum counter_id id)
{
    struct metric_family f = {.help = ""};
    char labels[LABELS_MAX];

    if (!metric_of_counter(id, &f))
        return;
    metrics__head(out, &f);
    if (metric_is_announcers(id)) {
        metrics__uint(out, f.name, "", counter_get(&in->shm->announcer.counters, id));
        return;
    }
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__uint(out, f.name, shard_label(labels, i), counter_get(&shard_of(in, i)->counters, id));
}

static void write_group(const struct metrics_input *in, struct bytes *out, const struct metric_group *g)
{
    char labels[LABELS_MAX];

    metrics__head(out, &g->family);
    for (unsigned i = 0; i < in->shm->n_shards; i++) {
        for (unsigned id = 0; id < COUNTER_N; id++) {
            if (!metric_group_has(g, (enum counter_id)id))
                continue;
            snprintf(labels, sizeof labels, "shard=\"%u\",%s=\"%s\"", i, g->label,
                     counter_infos[id].name + strlen(g->prefix));
            metrics__uint(out, g->family.name, labels,
                          counter_get(&shard_of(in, i)->counters, (enum counter_id)id));
        }
    }
}

static void write_histogram(const struct metrics_input *in, struct bytes *out, enum histogram_id id)
{
    const struct histogram_info *info = &histogram_infos[id];
    struct metric_family f = {.help = ""};
    char labels[LABELS_MAX];

    metric_of_histogram(id, &f);
    metrics__head(out, &f);
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__histogram(out, f.name, shard_label(labels, i), &shard_of(in, i)->histograms.h[id],
                           info->shift, info->unit, 1);
}

static void write_answered(const struct metrics_input *in, struct bytes *out, uint64_t answered)
{
    char labels[LABELS_MAX];
    const char *name = begin(out, METRIC_shard_answered);

    for (unsigned i = 0; i < in->shm->n_shards; i++)
        metrics__uint(out, name, shard_label(labels, i), answered >> i & 1);
}

bool metrics_write(const struct metrics_input *in, struct bytes *out)
{
    uint64_t answered;

    write_node(in, out);
    metrics__processes(in, out);
    write_phases(in, out);
    write_turns(in, out);
    write_limits(in, out);
    for (unsigned id = 0; id < COUNTER_N; id++)
        write_counter(in, out, (enum counter_id)id);
    for (unsigned i = 0; i < metric_groups_n; i++)
        write_group(in, out, &metric_groups[i]);
    for (unsigned id = 0; id < HISTOGRAM_N; id++)
        write_histogram(in, out, (enum histogram_id)id);
    metrics__workers(in, out, &answered);
    write_answered(in, out, answered);
    write_one(out, METRIC_admin_scrapes_total, in->scrapes);
    write_one(out, METRIC_admin_requests_total, in->requests);
    write_one(out, METRIC_admin_requests_refused_total, in->requests_refused);
    return !out->failed;
}
