// SPDX-License-Identifier: MIT
/* Lines of the Prometheus text format. Labels are texts as they stand between { and }, without these; "":
 * none. */
#pragma once

#include <inttypes.h>

#include "admin/metrics.h"
#include "admin/metrics_table.h"

void metrics__head(struct bytes *out, const struct metric_family *family);
void metrics__uint(struct bytes *out, const char *name, const char *labels, uint64_t value);
void metrics__int(struct bytes *out, const char *name, const char *labels, int64_t value);
/* Nanoseconds, shown as seconds. */
void metrics__ns(struct bytes *out, const char *name, const char *labels, uint64_t ns);
void metrics__ms(struct bytes *out, const char *name, const char *labels, int64_t ms);
/* One histogram; `every`: so many of its buckets become one. */
void metrics__histogram(struct bytes *out, const char *name, const char *labels, const struct histogram *h,
                        unsigned shift, enum histogram_unit unit, unsigned every);
/* A value of a label with what must be escaped escaped; more than buf has room for is cut off at a
 * character's end. Returns buf. */
char *metrics__label(char *buf, size_t cap, const char *value, size_t len);

/* metrics_process.c: processes and shards. */
void metrics__processes(const struct metrics_input *in, struct bytes *out);
/* metrics_worker.c. *ret_answered: bit i, shard i told of its workers. */
void metrics__workers(const struct metrics_input *in, struct bytes *out, uint64_t *ret_answered);
