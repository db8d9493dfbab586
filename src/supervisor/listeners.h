// SPDX-License-Identifier: MIT
/* Every listening socket of a gateway. The supervisor keeps them for as long as it lives: what waits in the
 * queue of a dead shard's socket is served by its successor. */
#pragma once

#include <sys/types.h>

#include "common/config.h"
#include "common/listen_socket.h"
#include "common/node_shared.h"
#include "common/shard_plan.h"

struct listeners {
    const struct config *cfg; /* outlives it */
    unsigned n;               /* of one shard: cfg->n_listeners */
    int fds[NODE_SHARDS_MAX]
           [CONFIG_LISTEN_MAX]; /* in the order of cfg->listen, see struct shard_start; -1: not an
                                 * edge shard, or a listener without a socket of its own */
    struct listen_socket_file files[CONFIG_LISTEN_MAX]; /* of those on Unix sockets */
    int internal_fd;
    pid_t opener;
};

void listeners_init(struct listeners *l); /* none */
/* All or none: 0, or -EINVAL with every one that failed in err. A Unix socket is one for all shards, each
 * with a descriptor of it. */
int listeners_open(const struct config *cfg, const struct shard_plan *plan, struct listeners *ret,
                   struct config_error *err);
/* The files of Unix sockets to that user, who the shards run as. 0 or -errno. */
int listeners_give_files(const struct config *cfg, uid_t uid, gid_t gid);
/* In the process that opened them the files of Unix sockets go, too; others only close. */
void listeners_close(struct listeners *l);

/* In a shard's process: close those of the others. The others' dead queues would else live as long as it
 * does, and its descriptors are for clients. */
void listeners_keep(struct listeners *l, unsigned shard);
/* As struct shard_start wants them; NULL: not an edge shard. */
const int *listeners_of(const struct listeners *l, unsigned shard);

/* Where the internal port listens: inner_listen, else lan_ip, or all addresses when lan_ip is a public one
 * (on many rented machines that is the router's). Returns buf; cap >= 64. */
char *listeners_internal_address(const struct config *cfg, char *buf, size_t cap);
