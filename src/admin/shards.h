// SPDX-License-Identifier: MIT
/* Asking the shards and the supervisor (common/control.h): one question to several of them at once, their
 * answers, and who of them did not give one in time. Never blocks: the owner polls the descriptors and calls
 * shards_readable and shards_work. Callbacks come from these two only, never from within shards_ask.
 *
 *   ask ----------> peer 0   to send -> waits -> done
 *      `----------> peer 1   to send (the socket is full) -> ... the deadline -> missing
 *       `---------> peer 2   not running -> missing
 *
 * A shard that is new (another pid) is sent CONTROL_HELLO before anything else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "common/control.h"
#include "common/node_shared.h"

#define PEER_SUPERVISOR NODE_SHARDS_MAX
#define PEERS_MAX       (NODE_SHARDS_MAX + 1)

/* Questions under way at once, less than CONTROL_PENDING_MAX with those of ASK_FOLLOW and those to spare. */
#define ASKS_MAX 20

struct shards;

struct shards_options {
    unsigned n;                                /* shards */
    int fds[PEERS_MAX];                        /* of each, and of PEER_SUPERVISOR; -1: none */
    int32_t (*pid)(void *ctx, unsigned shard); /* of the process that runs there; 0: none does */
    void *ctx;
    uint32_t
        id_first; /* of the first question; by chance, so that answers to a predecessor are known as such */
};

enum ask_state { ASK_NONE, ASK_TO_SEND, ASK_WAITS, ASK_DONE, ASK_MISSING };

enum ask_kind {
    ASK_ONCE,   /* counts towards ASKS_MAX */
    ASK_FOLLOW, /* asked again of a shard that is new, until the deadline, with the time that is left in
                 * head.seconds */
    ASK_FREE,   /* does not count: orders of our own */
};

/* A question; embedded, zeroed to begin with. What req.text points to must live as long. */
struct ask {
    struct control_request req;
    enum ask_kind kind;
    /* A message from a peer; json only for the call. The last one of a peer has no CONTROL_MORE. May cancel
     * it. NULL: nobody cares. */
    void (*reply)(struct ask *a, unsigned peer, const struct control_reply *reply, struct slice json);
    /* Every peer has answered or is missing; it is not under way any more and may be asked anew, or freed. */
    void (*done)(struct ask *a);
    /* Of shards.c. */
    struct list link;
    uint64_t deadline_ms;
    unsigned left;            /* peers in ASK_TO_SEND or ASK_WAITS */
    uint8_t state[PEERS_MAX]; /* enum ask_state; may be read */
    int32_t pid[PEERS_MAX];
};

/* NULL without memory. */
struct shards *shards_new(const struct shards_options *opt);
/* Every question is cancelled. */
void shards_free(struct shards *s);

/* Ask the shards of the mask, or with shards_ask_supervisor that one. 0; -EBUSY: too many are under way. */
int shards_ask(struct shards *s, struct ask *a, uint64_t mask, uint64_t now_ms, uint64_t timeout_ms);
int shards_ask_supervisor(struct shards *s, struct ask *a, uint64_t now_ms, uint64_t timeout_ms);
bool shards_is_asked(const struct ask *a);
/* No callback comes any more. Fine for one that is not under way. */
void shards_cancel(struct shards *s, struct ask *a);

/* Takes what that peer has sent, or a part of it: call again while it is readable. false: its socket is
 * closed for good. */
bool shards_readable(struct shards *s, unsigned peer);
/* Sends what waits, says hello, ends what is over. */
void shards_work(struct shards *s, uint64_t now_ms);
/* When shards_work wants to be called next: ms from now, -1: when something happens. */
int shards_timeout_ms(const struct shards *s, uint64_t now_ms);

struct shards_stats {
    uint64_t unknown; /* answers to no question: late ones, those to a predecessor */
    uint64_t garbage; /* messages that were none */
};
struct shards_stats shards_stats(const struct shards *s);
