// SPDX-License-Identifier: MIT
/* One client on the simulated network, of any of the protocols: it connects, sends numbered messages, reads
 * (or not), ends in one of several ways, and looks hard at every byte that it gets. */
#pragma once

#include "base/bytes.h"
#include "net/net.h"
#include "sim/world.h"

#define SIM_PROTOCOLS   4
#define SIM_CLIENT_PORT 8001 /* of the first protocol; the others follow in their order */
#define SIM_PACKAGE_MAX 200000

/* What one link was told of one client, in its order. */
struct sim_told {
    bool connect, ws_connect, close;
    bool any_message;
    uint32_t last;       /* number of the last message */
    struct bytes stream; /* tcp: all that came */
};

struct sim_session {
    int64_t v, u; /* -1: not set */
};
/* As PHP writes it. */
#define SIM_SESSION_SIZE 96
void sim_session_text(struct sim_session s, char text[SIM_SESSION_SIZE]);

enum sim_client_state { SIM_CLIENT_CONNECTING, SIM_CLIENT_OPEN, SIM_CLIENT_GONE };

struct sim_client {
    struct net_conn conn;
    struct world *w;
    unsigned index; /* its address is SIM_CLIENT_NET + index */
    enum config_protocol protocol;
    enum sim_client_state state;

    /* What it does. */
    bool waits_for_101; /* websocket: says nothing before the answer to its handshake */
    bool bad_handshake, silent;
    bool fin_wanted; /* after what is in out */
    bool fin_sent;
    bool hard; /* garbage, RST: what it sent need not all arrive */
    bool close_frame_sent;
    bool paused, was_slow;
    struct bytes out, held; /* held: until the handshake is answered */
    struct bytes sent;      /* tcp: the whole stream */
    uint32_t n_sent;
    uint64_t pings, pongs;

    /* What it got. */
    struct bytes in;
    bool upgraded, refused, close_frame_seen;
    uint16_t close_code;
    int err;              /* of closed() */
    bool other_left;      /* the gateway ended the connection */
    bool left;            /* it ended, or spoiled, the connection itself */
    bool bereft;          /* its shard died */
    bool lost_shard;      /* the shard of its id did, before an upgrade */
    uint32_t deaths_seen; /* a bit for each shard of this crew that has died since it came */
    uint64_t since_ns;    /* of its connection */

    /* The checker's. */
    uint32_t id; /* connection_id; 0: no worker has heard of it */
    struct sim_told *told[WORLD_LINKS_MAX];
    uint32_t next_from[WORLD_LINKS_MAX]; /* number of what it got last of each link, plus 1 */
    uint8_t *got;                        /* bit per message */
    uint32_t got_cap, n_got;
    unsigned n_connect, n_ws_connect, n_close;
    bool ended_by_command;        /* KICK or DESTROY */
    int owner;                    /* index of the only link that changes what follows; -1: nobody yet */
    int uid;                      /* of the owner's; -1: none */
    uint32_t groups;              /* of the owner's, a bit each */
    int64_t session_v, session_u; /* -1: not set */
    /* All sessions that it was to have, in their order; the first is the empty one. From `seen` on: one of
     * those is what it has, or had at its end. */
    struct sim_session *sessions;
    uint32_t n_sessions, cap_sessions, sessions_seen;
    /* one_connection_per_uid */
    bool may_be_replaced; /* another was bound to its uid after it */
    uint32_t replaced_at; /* sends of its owner before the first time */
};

/* owner: many links bind it to a uid that all know, and change nothing else. */
#define SIM_OWNER_ALL (-2)

#define SIM_CLIENT_NET UINT32_C(0x0a010000)

struct sim_client_plan {
    enum config_protocol protocol;
    bool bad_handshake, silent, waits_for_101;
};
/* Connects; it says hello by itself. */
struct sim_client *sim_client_new(struct world *w, const struct sim_client_plan *plan);
void sim_client_free(struct sim_client *c);

/* All of them do nothing to a client that has gone or is ending. */
bool sim_client_can_send(const struct sim_client *c);
void sim_client_send(struct sim_client *c, uint32_t len);
void sim_client_ping(struct sim_client *c);
void sim_client_garbage(struct sim_client *c);
void sim_client_pause(struct sim_client *c);
void sim_client_resume(struct sim_client *c);
void sim_client_end(struct sim_client *c,
                    bool close_frame);       /* in order: close frame or FIN, after what was sent */
void sim_client_reset(struct sim_client *c); /* RST */

/* session_v and session_u have changed. */
void sim_client_session_changed(struct sim_client *c);
