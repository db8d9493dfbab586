// SPDX-License-Identifier: MIT
/* One shard: client listeners, their clients, the directory and the upstream, on one loop and one net.
 * Everything hangs on struct shard, so that several run in one process under simulation. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/counters.h"
#include "common/shard_start.h"

struct directory;
struct loop;
struct net;
struct shard;

struct shard_options {
    const struct config *config;
    struct loop *loop;
    struct net *net;
    struct shard_shm *shm; /* counters, sequence of ids, state */
    const int *listen_fds; /* one per config->listen; NULL: listen through the net itself */
    int internal_fd;       /* -1: likewise */
    uint32_t max_clients;  /* client connections at the same time */
    uint64_t seed;
};

/* NULL and *ret_err = -errno: a listener could not be had, or no memory. */
struct shard *shard_new(const struct shard_options *opt, int *ret_err);
/* Ends every connection at once and frees all. */
void shard_free(struct shard *s);

/* Take no new clients, close those that are there (1001) in slices, tell their workers. */
void shard_drain(struct shard *s);
/* After shard_drain: nothing is left to do (no client, nothing waiting for a worker that is there). */
bool shard_is_drained(const struct shard *s);

struct directory *shard_directory(struct shard *s);
uint32_t shard_connections(const struct shard *s); /* client connections open, being closed included */
/* Looks whether the tables agree with each other; NULL, or what does not add up. For tests. */
const char *shard_check(const struct shard *s);

/* A whole shard process (common/shard_start.h). */
int shard_main(const struct shard_start *start);
