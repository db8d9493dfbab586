// SPDX-License-Identifier: MIT
/* Between the supervisor and its shards when connections move to other processes, over a socket pair for each
 * shard (SOCK_SEQPACKET; both ends are one program), and the page by which all processes of an upgrade agree
 * on its outcome.
 *
 *   old supervisor          old shards                      new shards              new supervisor
 *                                                           take over <──────────── starts them
 *   HOLD ─────────────────> no accept, no read; what is
 *                           under way goes on to its end
 *        <──────── QUIET ───
 *   STOP ─────────────────> the loop turns no more
 *        <────── STOPPED ───
 *   EXPORT 1 ─────────────> links ────────────────────────> IMPORTED 1 ───────────>
 *   EXPORT 2 ─────────────> clients ──────────────────────> IMPORTED 2 ───────────> page: COMMITTED
 *   LEAVE ────────────────> gone                            go on <──────────── GO
 *
 * or, at any time before COMMITTED: page: ABANDONED, THAW to the old ones, which go on as if nothing had
 * been; the new ones end, their copies of descriptors with them. Whoever waits for a word of another process
 * looks at the page when its deadline is over or the other is gone: only one of the two words is ever set, by
 * compare and exchange. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/node_shared.h"

/* ---- the page: in a memfd of its own. Its layout is never changed: another one has another magic */

enum upgrade_outcome { UPGRADE_OPEN, UPGRADE_COMMITTED, UPGRADE_ABANDONED };

#define UPGRADE_PAGE_MAGIC UINT64_C(0x3130504747544755) /* "UGTGGP01" in memory */
struct upgrade_page {
    uint64_t magic;
    uint32_t outcome;
    uint32_t n_shards; /* of the new node */
    uint64_t edges, links;
    uint32_t same;   /* 1: number and roles are those of the old one */
    uint32_t within; /* connections move within a node (tgg ctl evacuate), to takers; 1: off one that then
                      * takes no new ones; 2: back to one, which then does */
    uint64_t takers; /* a bit each; the others give those whose home is not with them any more, and those that
                      * are not among `links` their links */
    uint32_t reserved[20];
    struct node_home home; /* of the new node */
};

/* Made by the new supervisor, of fixed size (sealed), UPGRADE_OPEN, all but magic 0. A descriptor or -errno;
 * *ret is mapped. */
int upgrade_page_make(struct upgrade_page **ret);
/* Mapped and checked (sealed size, magic, numbers, homes as node_home_plan makes them): 0, -EPROTO, other
 * -errno. fd stays the caller's. */
int upgrade_page_open(int fd, struct upgrade_page **ret);
void upgrade_page_close(struct upgrade_page *p); /* NULL is fine */
/* Sets it if it is open, and says what it is. */
enum upgrade_outcome upgrade_page_decide(struct upgrade_page *p, enum upgrade_outcome wish);
enum upgrade_outcome upgrade_page_outcome(const struct upgrade_page *p);

/* ---- messages */

enum upgrade_op {
    /* To a shard that hands over. */
    UPGRADE_HOLD,   /* n: ms for which handshakes are waited for; phase: ms after which the shard goes on by
                       itself when it has not been told to stop (0: never) */
    UPGRADE_STOP,   /* n: deadline of the whole pause, CLOCK_MONOTONIC in ns: after it the shard gives up by
                       itself (page) */
    UPGRADE_RESUME, /* the loop turns again, still held: somebody was not quiet */
    UPGRADE_PLAN,   /* with the page (fds[0]) and the sending ends of the new shards' import_fds behind it */
    UPGRADE_EXPORT, /* n: phase */
    UPGRADE_LEAVE,  /* COMMITTED: exit at once, with nothing closed, said or written */
    UPGRADE_THAW, /* go on; in any state, also when it never was held. Within a node: as the page says how it
                     ended */
    /* Its answers. */
    UPGRADE_QUIET,    /* to HOLD and RESUME, once nothing is under way */
    UPGRADE_STOPPED,  /* to STOP; n 1: it is quiet; 0: it is not, text says what is under way */
    UPGRADE_EXPORTED, /* n: records of that phase, over all receivers */
    UPGRADE_THAWED,
    /* From a shard that takes over. */
    UPGRADE_READY,    /* its loop turns */
    UPGRADE_IMPORTED, /* a phase; n: records. Phase 1: it knows all workers of the node */
    /* To it. */
    /* With the page (fds[0]): for its looks at the outcome; n: deadline as in STOP. To a stopped shard
     * (within a node): it takes over from as many as `phase` says, and answers IMPORTED. */
    UPGRADE_TAKE,
    UPGRADE_GO, /* COMMITTED: serve */
    /* From either: it cannot; text says why. One that takes over then waits for its end. */
    UPGRADE_FAILED,
    UPGRADE_OP_N
};

#define UPGRADE_TEXT_MAX 200
#define UPGRADE_FDS_MAX  (1 + NODE_SHARDS_MAX)
struct upgrade_message {
    uint32_t op;    /* enum upgrade_op */
    uint32_t phase; /* EXPORT, EXPORTED, IMPORTED: 1 or 2; see HOLD, TAKE */
    uint64_t n;
    uint64_t clients, links;     /* EXPORTED, IMPORTED: how many in this phase */
    char text[UPGRADE_TEXT_MAX]; /* NUL-terminated */
    uint32_t n_fds;
    int fds[UPGRADE_FDS_MAX]; /* not part of the message: by SCM_RIGHTS. Of one that was received: the
                                 caller's */
};

/* Both ends alike, non-blocking, closed on exec. 0 or -errno. */
int upgrade_open(int ret[2]);
/* fds stay the caller's. 0; -EAGAIN; -EPIPE; other -errno. */
int upgrade_send(int fd, const struct upgrade_message *m);
/* 0; -EAGAIN: none is there; -EPIPE: the other side is gone; -EBADMSG; -EMFILE: its descriptors have no room
 * in this process; other -errno. */
int upgrade_receive(int fd, struct upgrade_message *ret);
const char *upgrade_op_name(unsigned op); /* for logs */
