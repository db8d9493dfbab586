// SPDX-License-Identifier: MIT
/* Every family of /metrics, from metrics.def, counters.def and histograms.def: what metrics.c writes and
 * metrics_doc.c documents. */
#pragma once

#include <stdbool.h>

#include "common/counters.h"
#include "common/histograms.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

/* METRIC_build_info ... */
enum metric_id {
#define METRIC(section, name, type, labels, help) METRIC_##name,
#include "admin/metrics.def"
#undef METRIC
    METRIC_N
};

#define METRIC_NAME_MAX 96

struct metric_family {
    char name[METRIC_NAME_MAX]; /* with tgg_ */
    enum metric_type type;
    const char *labels; /* "worker, shard"; "": none */
    const char *help;
};

extern const struct metric_family metric_families[METRIC_N];
extern const char *const metric_sections[METRIC_N]; /* "node", ... */
const char *metric_type_name(enum metric_type type);

/* Counters whose names have a prefix are one family with a label: what is behind the prefix is its value. */
struct metric_group {
    const char *prefix; /* of names of counters */
    const char *label;
    struct metric_family family;
};
extern const struct metric_group metric_groups[];
extern const unsigned metric_groups_n;
bool metric_group_has(const struct metric_group *g, enum counter_id id);

/* The family of a counter or gauge that stands alone; false: it is in a group. */
bool metric_of_counter(enum counter_id id, struct metric_family *ret);
/* Counted by the announcer, not by shards: without the label shard. */
bool metric_is_announcers(enum counter_id id);
void metric_of_histogram(enum histogram_id id, struct metric_family *ret);
