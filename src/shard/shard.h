// SPDX-License-Identifier: MIT
/* One shard: client listeners, their clients, the directory and the upstream, on one loop and one net.
 * Everything hangs on struct shard, so that several run in one process under simulation. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/counters.h"
#include "common/node_shared.h"
#include "common/shard_start.h"

struct directory;
struct upstream;
struct files;
struct guard_shm;
struct ticket_keys;
struct loop;
struct net;
struct net_listener;
struct shard;

struct shard_options {
    const struct config *config;
    const struct node *node; /* the shards that it is one of; its number is shm->shard */
    struct loop *loop;
    struct net *net;
    struct shard_shm *shm; /* counters, sequence of ids, state */
    bool is_edge, is_link; /* roles: takes clients, takes internal connections */
    const struct settings_listener
        *listeners;  /* one per config->listen; NULL: listen through the net itself */
    int internal_fd; /* -1: likewise */
    uint64_t seed;
    /* The edge: NULL where nothing of it is configured (simulation). */
    const struct files *files; /* only during shard_new */
    struct guard_shm *guard_shm;
    const struct ticket_keys *tickets;
    bool takes_over;           /* it is held from the beginning: shard_import follows (transfer.h) */
    struct shard_crash *crash; /* its last commands go there; NULL: nowhere */
    unsigned n_edges;          /* shards of the node that take clients */
    /* Another shard sleeps and has something to read. */
    void (*wake)(void *ctx, unsigned shard);
    void *wake_ctx;
    /* The block of another shard, also of one that there was before: whose ids are to be kept (a transfer).
     * NULL: none. */
    struct shard_shm *(*shm_of)(void *wake_ctx, unsigned shard);
    bool wake_always; /* mesh_options.wake_always: for simulation */
};

/* NULL and *ret_err = -errno: a listener could not be had, or no memory. */
struct shard *shard_new(const struct shard_options *opt, int *ret_err);
/* Ends every connection at once and frees all. */
void shard_free(struct shard *s);
/* The listener in slot i (common/settings.h), also one that was removed and may have clients yet;
 * SHARD_INTERNAL: of internal connections. NULL: it has none. */
#define SHARD_INTERNAL 0xff
struct net_listener *shard_listener(struct shard *s, unsigned i);

/* The configuration has changed: LIVE keys take effect, lists and certificates come from files, listeners
 * come and go as settings says. Its descriptors are listened on where that socket is not listened on yet;
 * they, and those of listeners that are gone, stay the caller's. `changed` is then only good for config_fini.
 * 0; else -errno and nothing has changed, but that a listener may rest whose socket was to be another one:
 * try again. */
int shard_reload(struct shard *s, struct config *changed, const struct files *files,
                 const struct settings *settings);
/* They are in force, and every socket that is not theirs is closed: the supervisor and the other shards see
 * it, and may open such a port again. */
void shard_took_settings(struct shard *s, uint64_t generation);
/* Whether slot i listens on that socket. */
bool shard_listens_on(const struct shard *s, unsigned i, uint32_t socket);

/* Take no new clients, close those that are there (1001) in slices, tell their workers. */
void shard_drain(struct shard *s);
/* What it takes no more, or takes again (common/node_shared.h); the other shards see it. */
void shard_set_drained(struct shard *s, enum node_drained drained);
/* After shard_drain: nothing is left to do (no client, nothing waiting for a worker that is there; when the
 * whole node drains, the other shards' workers have been served too). */
bool shard_is_drained(const struct shard *s);

/* The drain has taken too long: the connections that are left end now. */
void shard_cut(struct shard *s);

struct directory *shard_directory(struct shard *s);
struct upstream *shard_upstream(struct shard *s);
uint32_t shard_connections(const struct shard *s); /* client connections open, being closed included */
/* Looks whether the tables agree with each other; NULL, or what does not add up. For tests. */
const char *shard_check(const struct shard *s);

/* A whole shard process (common/shard_start.h). */
int shard_main(const struct shard_start *start);
