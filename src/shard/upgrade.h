// SPDX-License-Identifier: MIT
/* Of a shard process: what it does when connections move to other processes (common/upgrade.h has the whole
 * course).
 *
 *   it hands over   HOLD ─ handshakes end ─ held ─ at rest: QUIET ─ STOP ─ the process waits within a turn,
 * and does what it is told ─ LEAVE: exit, or THAW it takes over   from its start: READY ─ records come ─
 * IMPORTED ─ GO
 *
 * Whoever hears nothing until the deadline, or whose supervisor is gone, looks at the page. */
#pragma once

#include "common/shard_start.h"

struct handoff;
struct loop;
struct net;
struct shard;
struct shard_upgrade;

struct shard_upgrade_options {
    const struct shard_start *start;
    struct shard *shard;
    struct loop *loop;
    struct net *net;
    struct handoff *handoff; /* NULL: one shard */
    /* It has taken over, and serves from now on. */
    void (*serves)(void *ctx);
    void *ctx;
};

/* NULL and *ret_err = -errno. */
struct shard_upgrade *shard_upgrade_new(const struct shard_upgrade_options *opt, int *ret_err);
void shard_upgrade_free(struct shard_upgrade *u);
/* At the end of each turn, after everything else. May end the process, or wait long. */
void shard_upgrade_turn(struct shard_upgrade *u);
/* The process is to end (a signal): if it was about to take over or to hand over, that is settled first: it
 * goes on, or leaves at once (then this does not return). */
void shard_upgrade_settle(struct shard_upgrade *u);
