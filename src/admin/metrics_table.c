// SPDX-License-Identifier: MIT
#include "admin/metrics_table.h"

#include <stdio.h>
#include <string.h>

const struct metric_family metric_families[METRIC_N] = {
#define METRIC(section, name, type, labels, help) {"tgg_" #name, METRIC_##type, labels, help},
#include "admin/metrics.def"
#undef METRIC
};

const char *const metric_sections[METRIC_N] = {
#define METRIC(section, name, type, labels, help) #section,
#include "admin/metrics.def"
#undef METRIC
};

const struct metric_group metric_groups[] = {
    {"refused_",
     "check",
     {"tgg_refused_total", METRIC_COUNTER, "shard, check",
      "connections or messages refused or held back, by the check"}},
    {"dry_run_",
     "check",
     {"tgg_dry_run_refused_total", METRIC_COUNTER, "shard, check",
      "what would have been refused or held back, by the check (key dry_run)"}},
    {"dropped_",
     "reason",
     {"tgg_dropped_total", METRIC_COUNTER, "shard, reason",
      "messages that did not reach whom they were for, by the reason"}},
    {"client_closed_",
     "reason",
     {"tgg_client_closed_total", METRIC_COUNTER, "shard, reason",
      "client connections that ended, by the reason"}},
};
const unsigned metric_groups_n = sizeof metric_groups / sizeof metric_groups[0];

const char *metric_type_name(enum metric_type type)
{
    static const char *const names[] = {"counter", "gauge", "histogram"};
    return names[type];
}

bool metric_group_has(const struct metric_group *g, enum counter_id id)
{
    return strncmp(counter_infos[id].name, g->prefix, strlen(g->prefix)) == 0;
}

bool metric_is_announcers(enum counter_id id)
{
    return strncmp(counter_infos[id].name, "register_", sizeof "register_" - 1) == 0;
}

bool metric_of_counter(enum counter_id id, struct metric_family *ret)
{
    const struct counter_info *info = &counter_infos[id];
    bool gauge = info->kind == COUNTER_KIND_GAUGE;

    for (unsigned i = 0; i < metric_groups_n; i++) {
        if (metric_group_has(&metric_groups[i], id))
            return false;
    }
    snprintf(ret->name, sizeof ret->name, "tgg_%s%s", info->name, gauge ? "" : "_total");
    ret->type = gauge ? METRIC_GAUGE : METRIC_COUNTER;
    ret->labels = metric_is_announcers(id) ? "" : "shard";
    ret->help = info->help;
    return true;
}

void metric_of_histogram(enum histogram_id id, struct metric_family *ret)
{
    const struct histogram_info *info = &histogram_infos[id];

    snprintf(ret->name, sizeof ret->name, "tgg_%s_%s", info->name,
             info->unit == HISTOGRAM_UNIT_seconds ? "seconds" : "bytes");
    ret->type = METRIC_HISTOGRAM;
    ret->labels = "shard";
    ret->help = info->help;
}
