// SPDX-License-Identifier: MIT
/* The side of a live upgrade that takes over: a supervisor that begins with the sockets of another one, whose
 * shards take the connections of that one's shards.
 *
 *   (offer, set up) ─ starts ─ waits ─ takes ─ links ─┬─ settles ─ none: a supervisor like any other
 *                        └───────┴───────┴───────┴────┴─ ends: given up
 *
 * Nothing of the old one is changed before the page says COMMITTED, which only this side can set. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/node_shared.h"
#include "common/upgrade.h"

struct supervisor;
struct upgrade_offer;

enum upgrade_new_state {
    UPGRADE_NEW_NONE,    /* no upgrade, or it is over */
    UPGRADE_NEW_SETS_UP, /* the run has not begun */
    UPGRADE_NEW_STARTS,  /* its shards come up */
    UPGRADE_NEW_WAITS,   /* for the old one to hold */
    UPGRADE_NEW_TAKES,   /* links come */
    UPGRADE_NEW_LINKS,   /* they are there; clients come */
    UPGRADE_NEW_SETTLES, /* it serves: only what nobody waits for is still to be done */
    UPGRADE_NEW_ENDS,    /* given up */
    UPGRADE_NEW_STATE_N
};

struct upgrade_new {
    enum upgrade_new_state state;
    int fd;                      /* to the old supervisor (upgrade_wire.h); -1: it is gone */
    struct upgrade_offer *offer; /* until it is over */
    unsigned n_predecessors;
    struct upgrade_page *page;
    int page_fd;
    uint64_t begun_ms, deadline_ms, committed_ms;
    uint64_t waits; /* shards from which a word is awaited */
    uint64_t clients, links;
    bool exported; /* the old shards have handed over all: */
    uint64_t clients_exported, links_exported;
    bool left; /* the old one has said where it is known, or is gone */
    char *registers[NODE_SHARDS_MAX];
    unsigned n_registers;
    uint64_t spares_until_ms;
};

/* fd: of UPGRADE_FD_VARIABLE; -1: it takes nothing over. */
void upgrade_new_init(struct upgrade_new *u, int fd);
void upgrade_new_fini(struct supervisor *s);
void upgrade_new_close(struct supervisor *s); /* in a child */

/* It cannot start: the old one is told why. */
void upgrade_new_refuse(int fd, const struct config_error *err);

/* ---- while it sets up; all are fine when it takes nothing over */
bool upgrade_new_takes_over(const struct supervisor *s);
/* 0 or -errno with err added to. */
int upgrade_new_receive(struct supervisor *s, struct config_error *err);
int upgrade_new_check(struct supervisor *s, struct config_error *err);
/* The shards' memory is there: homes of ids, ids. */
int upgrade_new_prepare(struct supervisor *s, struct config_error *err);

/* ---- in the run */
void upgrade_new_begin(struct supervisor *s); /* before its shards are started */
void upgrade_new_turn(struct supervisor *s, uint64_t now_ms);
uint64_t upgrade_new_due_ms(const struct supervisor *s, uint64_t now_ms);
/* Not before it is sure: nobody but shards is started, nobody told. */
bool upgrade_new_is_sure(const struct supervisor *s);
/* The service manager hears of it from the old one first. */
bool upgrade_new_may_tell(const struct supervisor *s);
const char *upgrade_new_busy(const struct supervisor *s);
/* For a shard that is about to be started: how many hand over to it. */
unsigned upgrade_new_predecessors(const struct supervisor *s);
void upgrade_new_shard_ended(struct supervisor *s, unsigned shard);
/* TERM or INT. True: it was given up by that. */
bool upgrade_new_stops(struct supervisor *s);
