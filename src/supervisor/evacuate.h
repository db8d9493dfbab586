// SPDX-License-Identifier: MIT
/* All connections off a shard, for maintenance of its core, or the clients back whose ids are its own
 * (CONTROL_EVACUATE): as an upgrade (common/upgrade.h), within one node.
 *
 *   idle ─ holds ─ stops ─ links ─ clients ─ thaws ─ idle
 *            └───────┘ somebody was not quiet
 *
 * Homes of ids in the memory of the node are changed while all shards stand still, and are as before when it
 * is given up. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/node_shared.h"
#include "common/upgrade.h"

struct control_request;
struct supervisor;

enum evacuate_state {
    EVACUATE_IDLE,
    EVACUATE_HOLDS,
    EVACUATE_STOPS,
    EVACUATE_LINKS,
    EVACUATE_CLIENTS,
    EVACUATE_THAWS,
    EVACUATE_STATE_N
};

struct evacuate {
    enum evacuate_state state;
    unsigned shard;
    bool off;    /* else: back */
    uint32_t id; /* of the order */
    uint64_t held_ms, decided_ms, deadline_ms;
    uint64_t givers, takers;     /* a bit each */
    uint64_t waits, imports;     /* shards from which a word, or IMPORTED, is awaited */
    bool quiet;                  /* all that have answered */
    char loud[UPGRADE_TEXT_MAX]; /* why one of them was not, at last */
    bool again;
    struct upgrade_page *page;
    int page_fd;
    bool changed; /* homes: */
    struct node_home before;
    uint64_t clients, links, clients_taken, links_taken;
    int stop_signal;
    char why[256]; /* it was given up; "": not */
};

void evacuate_init(struct evacuate *e);
void evacuate_close(struct supervisor *s); /* also in a child */

/* The order: answered when it is over. */
void evacuate_request(struct supervisor *s, const struct control_request *req);
void evacuate_turn(struct supervisor *s, uint64_t now_ms);
uint64_t evacuate_due_ms(const struct supervisor *s);
const char *evacuate_busy(const struct supervisor *s); /* NULL: not */
void evacuate_shard_ended(struct supervisor *s, unsigned shard);
/* TERM or INT. True: it is seen to later. */
bool evacuate_stops(struct supervisor *s, int sig);
