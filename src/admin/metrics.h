// SPDX-License-Identifier: MIT
/* What /metrics answers: Prometheus text format 0.0.4. Which families there are: metrics_table.h,
 * docs/METRICS.md.
 *
 * Reads shared memory and /proc; asks nobody and does not block. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "common/config.h"
#include "common/node_shared.h"
#include "common/node_shm.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct metrics_input {
    const struct node_shm *shm;
    const struct node *node; /* shared is used */
    const struct config *cfg;
    bool ready; /* what /readyz says */
    /* Answers to CONTROL_WORKERS, by shard: rows as docs/ADMIN-API.md says, commas between them. data NULL:
     * that shard did not answer; data not NULL and len 0: it has no workers. */
    struct slice worker_rows[NODE_SHARDS_MAX];
    /* Of the admin process since its start: scrapes of /metrics, requests (those included), and those of them
     * that were refused (token, method, parameters). */
    uint64_t scrapes, requests, requests_refused;
};

/* Appended to out. false: no memory (out->failed; what is there is cut off). Rows that are no JSON count as
 * those of a shard that did not answer. */
bool metrics_write(const struct metrics_input *in, struct bytes *out);
