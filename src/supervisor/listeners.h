// SPDX-License-Identifier: MIT
/* Every listening socket of a gateway. The supervisor keeps them for as long as it lives, or until a reload
 * removes them: what waits in the queue of a dead shard's socket is served by its successor.
 *
 *   listener ──> slot      who it is: name and START keys; its number in the shards (common/settings.h)
 *            └─> socket    an address; one descriptor for each edge shard. Listeners with a `path` may share
 * one, and a listener that takes the place of another on its address takes its socket
 *
 * Of TCP the shards have sockets of their own, in a group (SO_REUSEPORT); a Unix socket is one for all. */
#pragma once

#include <sys/types.h>

#include "common/config.h"
#include "common/listen_socket.h"
#include "common/node_shared.h"
#include "common/settings.h"
#include "common/shard_plan.h"

struct listeners_slot {
    char name[40];
    char identity[CONFIG_LISTEN_IDENTITY_MAX]; /* of the last one that had it; "": nobody yet */
    uint16_t made;
    bool present;
    uint64_t since;   /* generation */
    uint64_t removed; /* likewise, when it is not present */
};

struct listeners_socket {
    uint32_t number; /* running; 0: free place */
    char address[128];
    uint64_t port, backlog;
    mode_t mode;                    /* of the file of a Unix socket */
    struct listen_socket_file file; /* likewise */
    int fds[NODE_SHARDS_MAX];       /* -1: not an edge shard */
};

/* While a reload is under way there are those of before and those to be. */
#define LISTENERS_SOCKETS_MAX (2 * CONFIG_LISTEN_MAX)

struct listeners {
    unsigned n;
    struct settings_listener list[CONFIG_LISTEN_MAX]; /* in the order of the configuration; fd: as
                                                       * listeners_of has left it */
    struct listeners_slot slots[CONFIG_LISTEN_MAX];
    struct listeners_socket sockets[LISTENERS_SOCKETS_MAX];
    uint32_t last_socket;
    int internal_fd;
    pid_t opener;
    const struct shard_plan *plan;
    bool give_files; /* those of Unix sockets, to: */
    uid_t uid;
    gid_t gid;
    bool waited;                      /* in this reload */
    const struct node_shared *shared; /* who uses which slot; NULL: nobody yet */
};

void listeners_init(struct listeners *l); /* none */
/* All or none: 0, or -EINVAL with every one that failed in err. A Unix socket is one for all shards, each
 * with a descriptor of it. plan stays valid. */
int listeners_open(const struct config *cfg, const struct shard_plan *plan, struct listeners *ret,
                   struct config_error *err);
/* The files of Unix sockets to that user, who the shards run as; also those that come later. 0 or -errno. */
int listeners_give_files(struct listeners *l, uid_t uid, gid_t gid);
/* Once the shards' figures are there: from then on a slot is given to another listener only when no shard
 * uses it any more. */
void listeners_set_shared(struct listeners *l, const struct node_shared *shared);
/* In the process that opened them the files of Unix sockets go, too; others only close. */
void listeners_close(struct listeners *l);

/* ---- a reload */

/* What is to be, of a changed configuration, in two steps. First all that can fail: sockets that are not
 * there yet are made. *ret (to be given to one of the two below) or -errno with every problem in err, and
 * nothing has changed. May wait for a second for shards that have not taken over the last generation and so
 * still have a socket of that address. */
int listeners_prepare(const struct listeners *l, const struct config *cfg, uint64_t generation,
                      struct listeners **ret, struct config_error *err);
/* It counts: sockets (and files) that are not needed any more are closed here; shards serve what waits in
 * theirs before they do the same. */
void listeners_commit(struct listeners *l, struct listeners *next);
void listeners_abandon(const struct listeners *l, struct listeners *next);
/* ---- to shards */

/* In a shard's process: close those of the others. The others' dead queues would else live as long as it
 * does, and its descriptors are for clients. */
void listeners_keep(struct listeners *l, unsigned shard);
/* As struct shard_start wants them, valid until the next call; NULL: not an edge shard. */
const struct settings_listener *listeners_of(struct listeners *l, unsigned shard);
/* The same into a message. LISTENERS_NO_SHARD: for somebody without sockets. */
#define LISTENERS_NO_SHARD NODE_SHARDS_MAX
void listeners_tell(const struct listeners *l, unsigned shard, struct settings *ret);
/* The slots that are present. */
uint64_t listeners_slots(const struct listeners *l);

/* Where the internal port listens: inner_listen, else lan_ip, or all addresses when lan_ip is a public one
 * (on many rented machines that is the router's). Returns buf; cap >= 64. */
char *listeners_internal_address(const struct config *cfg, char *buf, size_t cap);
