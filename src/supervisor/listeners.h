// SPDX-License-Identifier: MIT
/* Every listening socket of a gateway. The supervisor keeps them for as long as it lives, or until a reload
 * removes them: what waits in the queue of a dead shard's socket is served by its successor.
 *
 *   listener ──> slot      who it is: name and START keys; its number in the shards (common/settings.h)
 *            └─> socket    an address; one descriptor for each edge shard. Listeners with a `path` may share
 * one, and a listener that takes the place of another on its address takes its socket
 *
 * Of TCP the shards have sockets of their own, in a group (SO_REUSEPORT); a Unix socket is one for all.
 *
 * At an upgrade (upgrade_new.c) sockets that the supervisor before has bound are taken over, at first without
 * a change to any of them; listeners_settle makes of them what the configuration says. */
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
    int fds[NODE_SHARDS_MAX];       /* -1: not an edge shard, or one that has none yet (listeners_widen) */
    bool inherited;                 /* another supervisor's, until it is settled; then, as it was: */
    uint64_t backlog_before;
    mode_t mode_before;
};

/* What one supervisor hands to the next. */
struct listeners_inherited {
    unsigned n;
    struct listeners_inheritance {
        char address[128];
        uint64_t port, backlog;
        mode_t mode;
        struct listen_socket_file file;
        unsigned n_fds;
        int fds[NODE_SHARDS_MAX];
    } sockets[CONFIG_LISTEN_MAX];
    int internal_fd; /* -1: none; it is taken when it stands where the internal port is to be: */
    char internal_address[128];
    uint64_t internal_port;
};
void listeners_inherited_init(struct listeners_inherited *i);
void listeners_inherited_close(struct listeners_inherited *i); /* descriptors that nobody has taken */

/* Inherited sockets of TCP that no shard has: there were more of them than there are edge shards now, and
 * connections wait in them. */
#define LISTENERS_SPARES_MAX (2 * NODE_SHARDS_MAX)
struct listeners_spare {
    int fd;
    uint32_t socket; /* number of the one beside it */
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
    bool waited; /* in this reload */
    bool internal_inherited;
    unsigned n_spares;
    struct listeners_spare spares[LISTENERS_SPARES_MAX];
    struct listeners_inherited *leavers; /* sockets that the configuration has no use for; NULL: none */
    const struct node_shared *shared;    /* who uses which slot; NULL: nobody yet */
};

void listeners_init(struct listeners *l); /* none */
/* All or none: 0, or -EINVAL with every one that failed in err. A Unix socket is one for all shards, each
 * with a descriptor of it. plan stays valid. Of what is inherited (NULL: nothing) all descriptors are taken
 * when it succeeds. */
int listeners_open(const struct config *cfg, const struct shard_plan *plan,
                   struct listeners_inherited *inherited, struct listeners *ret, struct config_error *err);
/* The files of Unix sockets to that user, who the shards run as; also those that come later. 0 or -errno. */
int listeners_give_files(struct listeners *l, uid_t uid, gid_t gid);
/* Once the shards' figures are there: from then on a slot is given to another listener only when no shard
 * uses it any more. */
void listeners_set_shared(struct listeners *l, const struct node_shared *shared);
/* In the process that opened them the files of Unix sockets go, too, but for inherited ones that are not
 * settled; others only close. */
void listeners_close(struct listeners *l);
/* They are another process's now: listeners_close leaves the files alone. */
void listeners_disown(struct listeners *l);

/* ---- an upgrade, once it is sure */

/* Inherited sockets are ours now, with what the configuration says of them; those it says nothing of are
 * closed. Spares stay. */
void listeners_settle(struct listeners *l);
/* Edge shards that have no socket because there were fewer of them before get one, beside the others. Returns
 * whether there are any: the shards are to be told (listeners_tell). */
bool listeners_widen(struct listeners *l, const struct config *cfg);
/* No more connections come to spares (as far as the kernel can be told). */
void listeners_spares_rest(struct listeners *l);
/* One that waits in a spare: a descriptor, and the slot (and its `made`) that it came for. -EAGAIN: none. */
int listeners_spares_accept(struct listeners *l, uint16_t *ret_slot, uint16_t *ret_made);
void listeners_spares_close(struct listeners *l);

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
