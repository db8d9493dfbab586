// SPDX-License-Identifier: MIT
/* The side of a live upgrade that is taken over: it starts the new supervisor, has its shards hold, stop and
 * hand over, and leaves, or goes on as before. Driven from the supervisor's loop; nothing here waits.
 *
 *   idle ─ offers ─ prepares ─ holds ─ stops ─ links ─ clients ─ commits ─ leaves
 *                                 └───────┘ somebody was not quiet
 *   offers ... commits ─ gives up ─ idle      at any time before the page says COMMITTED
 *
 * Until `leaves` nothing of this gateway is changed but that its shards stand still for a moment. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/node_shared.h"
#include "common/upgrade.h"

struct supervisor;

enum upgrade_old_state {
    UPGRADE_OLD_IDLE,
    UPGRADE_OLD_OFFERS,   /* the new supervisor is told what there is */
    UPGRADE_OLD_PREPARES, /* it sets up and starts its shards */
    UPGRADE_OLD_HOLDS,    /* the shards bring to an end what is under way */
    UPGRADE_OLD_STOPS,    /* their loops end */
    UPGRADE_OLD_LINKS,    /* workers are handed over */
    UPGRADE_OLD_CLIENTS,
    UPGRADE_OLD_COMMITS,  /* all is handed over: the new one decides */
    UPGRADE_OLD_GIVES_UP, /* the shards go on, the new one ends */
    UPGRADE_OLD_LEAVES,   /* it is done: the processes of this gateway end */
    UPGRADE_OLD_STATE_N
};

struct upgrade_old {
    enum upgrade_old_state state;
    int fd;    /* to the new supervisor (upgrade_wire.h) */
    pid_t pid; /* of it */
    uint64_t begun_ms, held_ms, decided_ms;
    uint64_t deadline_ms;       /* of all of it */
    uint64_t pause_deadline_ms; /* from the hold on */
    uint64_t state_deadline_ms; /* of giving up, of leaving */
    uint64_t kill_at_ms;        /* the new one, if it is still there */
    uint64_t lost_at_ms;        /* it has closed its end, and is taken for dead then */
    unsigned offered;           /* parts */
    bool offer_waits;           /* the other side does not read */
    struct upgrade_page *page;  /* NULL: not known yet */
    int page_fd;
    unsigned n_new; /* shards of the new node, and where they take connections: */
    int import_fds[NODE_SHARDS_MAX];
    uint64_t waits;              /* shards from which a word is awaited, a bit each */
    bool quiet;                  /* all that have answered */
    char loud[UPGRADE_TEXT_MAX]; /* why one of them was not, at last; "": nothing yet */
    unsigned tries;
    bool imported_links;
    uint64_t clients, links; /* handed over */
    bool settled;            /* the new one is known wherever this one is */
    int stop_signal;         /* came meanwhile; 0: none */
    char why[512];           /* it is given up */
};

void upgrade_old_init(struct upgrade_old *u);
void upgrade_old_fini(struct supervisor *s);
/* In a child: what it must not have. */
void upgrade_old_close(struct supervisor *s);

/* Somebody asks for it; binary: absolute, or "". Refused in words, to who asked and to the log. */
void upgrade_old_request(struct supervisor *s, const char *binary);
/* By upgrade.sock, if somebody does. */
void upgrade_old_listen(struct supervisor *s);
void upgrade_old_turn(struct supervisor *s, uint64_t now_ms);
uint64_t upgrade_old_due_ms(const struct supervisor *s); /* UINT64_MAX: never */
/* What another part of the supervisor has to wait for: a text, NULL: nothing. */
const char *upgrade_old_busy(const struct supervisor *s);
/* Shards stand still, or may. */
bool upgrade_old_holds(const struct supervisor *s);

/* The process that has ended was the new supervisor: true. */
bool upgrade_old_reaped(struct supervisor *s, pid_t pid, int wstatus);
void upgrade_old_shard_ended(struct supervisor *s, unsigned shard);
/* TERM or INT. True: it is seen to later, or is somebody else's. */
bool upgrade_old_stops(struct supervisor *s, int sig);
/* While it leaves: the new one is known wherever this one was, or had its time. */
bool upgrade_old_has_left(const struct supervisor *s, uint64_t now_ms);
/* It has left: what it has to say at its very end. */
void upgrade_old_farewell(struct supervisor *s);
