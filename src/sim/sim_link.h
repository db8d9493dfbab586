// SPDX-License-Identifier: MIT
/* One internal connection on the simulated network: a worker, or a GatewayClient. It sends commands (those
 * that reach clients numbered), asks pipelined questions (sim_query.h), and gives every packet and reply to
 * the checker. */
#pragma once

#include "base/bytes.h"
#include "net/net.h"
#include "proto/gw/packet.h"
#include "sim/world.h"

#define SIM_SECRET      "open sesame"
#define SIM_NAMES       5 /* uids, and groups, of each link's own */
#define SIM_WORKER_KEYS 4
#define SIM_NAME_SIZE   32

struct sim_query;

/* A command that reaches clients: whom it may reach, must reach (if they stay), and reached. */
struct sim_send {
    struct sim_set may, must, twice; /* twice: in two of its groups */
    struct sim_set got, got_twice;
    struct sim_set
        of_uid[SIM_NAMES]; /* those who have or had that uid; one_connection_per_uid: one gets it */
    bool framed;           /* by the worker itself */
};

enum sim_link_state { SIM_LINK_CONNECTING, SIM_LINK_OPEN, SIM_LINK_GONE };

struct sim_link {
    struct net_conn conn;
    struct world *w;
    unsigned index;
    bool is_worker;
    unsigned key; /* of a worker: w0, w1, ... */
    enum sim_link_state state;
    bool fin_wanted, fin_sent; /* leaves in order: reads to the end */
    bool hard;                 /* died otherwise: what was on its way is lost */
    bool bereft;               /* its shard died */
    bool succeeded;            /* the worker has connected again since */
    bool replaced;             /* there are two of its key: the gateway lets go of one */
    bool paused;
    bool wrong; /* does not know the secret, or talks nonsense: expected to be thrown out */
    bool echoes;
    struct bytes in, out;
    struct sim_send *sends;
    uint32_t n_sends, cap_sends;
    struct sim_query *first, *last; /* asked and not answered */
};

struct sim_link *sim_worker_new(struct world *w, unsigned key);
struct sim_link *sim_gateway_client_new(struct world *w);
/* One that has no business here: a wrong secret, none, or nonsense. */
struct sim_link *sim_intruder_new(struct world *w);
void sim_link_free(struct sim_link *l);

/* Can take commands. */
bool sim_link_is_usable(const struct sim_link *l);
/* Has died, or may have, without all of its commands being run. */
static inline bool sim_link_is_sure(const struct sim_link *l)
{
    return !l->hard && !l->wrong && !l->replaced && !l->bereft;
}

void sim_link_command(struct sim_link *l, const struct gw_packet *p);
void sim_link_leave(struct sim_link *l); /* FIN after everything, then reads to the end */
void sim_link_reset(struct sim_link *l);
void sim_link_pause(struct sim_link *l);
void sim_link_resume(struct sim_link *l);

/* ---- commands: the world of the checker changes with them */
struct sim_client;
void sim_link_send_to_one(struct sim_link *l, struct sim_client *c, uint32_t len);
void sim_link_send_to_all(struct sim_link *l, uint32_t len);
void sim_link_send_to_groups(struct sim_link *l, uint32_t len);
void sim_link_send_to_uids(struct sim_link *l, uint32_t len);
void sim_link_kick(struct sim_link *l, struct sim_client *c);
void sim_link_destroy(struct sim_link *l, struct sim_client *c);
/* Change something that only the owner changes; nothing when c is another's. */
void sim_link_change(struct sim_link *l, struct sim_client *c);
/* one_connection_per_uid: bind it to that uid of the link's; nothing when c is another's. */
void sim_link_bind(struct sim_link *l, struct sim_client *c, unsigned k);
/* To one of SIM_CONTESTED uids that all links use; nothing when it has an owner. */
#define SIM_CONTESTED 2
void sim_link_contest(struct sim_link *l, struct sim_client *c);
const char *sim_contested_name(unsigned k, char buf[SIM_NAME_SIZE]);
void sim_link_ungroup(struct sim_link *l);
/* Text that makes no sense; the link stays. */
void sim_link_nonsense(struct sim_link *l);

/* Name of its k-th uid ('u') or group ('g'). */
const char *sim_link_name(const struct sim_link *l, char kind, unsigned k, char buf[SIM_NAME_SIZE]);
