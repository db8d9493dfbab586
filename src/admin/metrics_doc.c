// SPDX-License-Identifier: MIT
/* A tool of the build, not installed: docs/METRICS.md on stdout, from metrics.def, counters.def and
 * histograms.def. */
#include <stdio.h>
#include <string.h>

#include "admin/metrics_table.h"

static const struct section {
    const char *name; /* in metrics.def */
    const char *title, *text;
} sections[] = {
    {"node", "Node", ""},
    {"process", "Processes",
     "`process` is supervisor, announcer, admin or shard; only shards have the label `shard`. Memory is "
     "missing where "
     "/proc does not show it.\n\n"},
    {"shard", "Shards", ""},
    {"limit", "Limits", "As configured, to be compared with the gauges of the same shard.\n\n"},
    {"worker", "Workers",
     "Reported by the shard that has the worker's link; `worker` is its key (`ip:key`). A worker that leaves "
     "takes its "
     "series with it, and one that comes again under its key begins at 0.\n\n"},
    {"admin", "The admin process", ""},
};

static void put_cell(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|' || *text == '<')
            putchar('\\');
        putchar(*text);
    }
}

static void table_head(void)
{
    printf("| name | type | labels | meaning |\n|---|---|---|---|\n");
}

static void row(const struct metric_family *f)
{
    printf("| `%s` | %s | %s | ", f->name, metric_type_name(f->type), f->labels);
    put_cell(f->help);
    printf(" |\n");
}

static void put_section(const struct section *s)
{
    printf("\n## %s\n\n%s", s->title, s->text);
    table_head();
    for (unsigned i = 0; i < METRIC_N; i++) {
        if (strcmp(metric_sections[i], s->name) == 0)
            row(&metric_families[i]);
    }
}

static void put_counters(enum metric_type type)
{
    struct metric_family f = {.help = ""};

    table_head();
    for (unsigned id = 0; id < COUNTER_N; id++) {
        if (metric_of_counter((enum counter_id)id, &f) && f.type == type)
            row(&f);
    }
}

static void put_group(const struct metric_group *g)
{
    printf("\n### `%s`\n\n", g->family.name);
    put_cell(g->family.help);
    printf(". Labels: %s.\n\n| %s | meaning |\n|---|---|\n", g->family.labels, g->label);
    for (unsigned id = 0; id < COUNTER_N; id++) {
        if (!metric_group_has(g, (enum counter_id)id))
            continue;
        printf("| `%s` | ", counter_infos[id].name + strlen(g->prefix));
        put_cell(counter_infos[id].help);
        printf(" |\n");
    }
}

static void put_histograms(void)
{
    struct metric_family f = {.help = ""};

    printf("\n## Histograms\n\n"
           "Buckets double in width. `le` of bytes is one less than a power of two: a message of exactly "
           "1024 bytes\n"
           "stands in the bucket `le=\"2047\"`.\n\n");
    table_head();
    for (unsigned id = 0; id < HISTOGRAM_N; id++) {
        metric_of_histogram((enum histogram_id)id, &f);
        row(&f);
    }
}

static const char intro[] =
    "<!-- Generated from src/admin/metrics.def, src/common/counters.def and src/common/histograms.def by "
    "make docs: change it "
    "there. -->\n"
    "# Metrics\n\n"
    "`/metrics` of the admin process ([ADMIN-API.md](ADMIN-API.md)) answers in Prometheus text format 0.0.4. "
    "Set `[admin] port`, "
    "and\n"
    "have Prometheus send the token (`runtime_dir/admin.token`), or set `metrics_open = yes`:\n\n"
    "    scrape_configs:\n"
    "      - job_name: tgg\n"
    "        authorization: {credentials_file: /etc/prometheus/tgg.token}\n"
    "        static_configs: [{targets: [\"127.0.0.1:8400\"]}]\n"
    "    rule_files: [/usr/local/share/tgg/prometheus/tgg_alerts.yml]\n\n"
    "`etc/prometheus/tgg_alerts.yml` has alerts, `etc/grafana/tgg_dashboard.json` a dashboard to import; "
    "both are installed in\n"
    "`share/tgg`. Figures of counters and gauges come from shared memory, also those of a shard that is dead "
    "or stuck; only "
    "the\n"
    "figures of workers are asked for, and a shard that does not answer in `query_timeout` is left out "
    "(`tgg_shard_answered`).\n"
    "Counters of a shard go on when the shard is replaced; they begin anew with the gateway.\n\n"
    "## Queries\n\n"
    "| what | query |\n|---|---|\n"
    "| clients | `sum(tgg_clients)` |\n"
    "| part of the places that is taken, by shard | `tgg_clients / tgg_clients_max` |\n"
    "| messages from clients, a second | `sum(rate(tgg_client_messages_in_total[1m]))` |\n"
    "| deliveries to clients, a second | `sum(rate(tgg_client_messages_out_total[1m]))` |\n"
    "| CPU of each process, in cores | `rate(tgg_process_cpu_seconds_total[1m])` |\n"
    "| how late a turn of the loop can make others, p99 | `histogram_quantile(0.99, sum by (shard, le) "
    "(rate(tgg_turn_seconds_bucket[5m])))` |\n"
    "| time in the queue to each worker, p99 | `histogram_quantile(0.99, sum by (worker, le) "
    "(rate(tgg_worker_queue_time_seconds_bucket[5m])))` |\n"
    "| workers that are not well | `tgg_worker_health{state!=\"ok\"} == 1` |\n"
    "| worker with the longest queue | `topk(1, tgg_worker_queue_bytes)` |\n"
    "| why connections end, a second | `sum by (reason) (rate(tgg_client_closed_total[5m])) > 0` |\n"
    "| who is refused, a second | `sum by (check) (rate(tgg_refused_total[5m])) > 0` |\n"
    "| whom a new limit would refuse | `sum by (check) (increase(tgg_dry_run_refused_total[1d]))` |\n"
    "| messages that were dropped | `sum by (reason) (increase(tgg_dropped_total[1h])) > 0` |\n"
    "| TLS handshakes that resumed a session | `rate(tgg_tls_resumed_total[5m]) / "
    "rate(tgg_tls_handshakes_total[5m])` |\n"
    "| what compression saves | `sum(rate(tgg_deflate_bytes_deflated_total[5m])) / "
    "sum(rate(tgg_deflate_bytes_out_total[5m]))` |\n"
    "| memory of the node | `sum(tgg_process_resident_memory_bytes - "
    "tgg_process_resident_shared_memory_bytes)` and about once what "
    "is shared: `max(tgg_process_resident_shared_memory_bytes)` |\n";

static void put_counter_sections(void)
{
    printf("\n## Gauges\n\n");
    put_counters(METRIC_GAUGE);
    put_histograms();
    printf("\n## Counters\n\n\"Of these\" means the row before.\n\n");
    put_counters(METRIC_COUNTER);
    for (unsigned i = 0; i < metric_groups_n; i++)
        put_group(&metric_groups[i]);
}

int main(int argc, char **argv)
{
    if (argc != 1) {
        fprintf(stderr, "usage: metrics_doc\n");
        return 2;
    }
    fputs(intro, stdout);
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++)
        put_section(&sections[i]);
    put_counter_sections();
    return fflush(stdout) == 0 ? 0 : 1;
}
