// SPDX-License-Identifier: MIT
/* A shard hands its connections over, or takes others' over: what the process does with it is in upgrade.h;
 * simulation does it in one process.
 *
 *   old: shard_hold ─ turns ─ shard_unrest == NULL ─ shard_export 1, 2 ─┬─ shard_forget, shard_free
 *                                                                       └─ shard_hold(off): as if nothing had
 * been new: shard_options.takes_over ─ shard_import ... ─ shard_import_done ─ shard_hold(off) └─
 * shard_forget, shard_free: given up */
#pragma once

#include "shard/shard.h"
#include "transfer/transfer.h"

/* On: nobody is accepted, read or closed for a deadline; what is under way goes on (turns must be taken). */
void shard_hold(struct shard *s, bool on);
/* Held: NULL: all that it has can be handed over now, before another turn. Else what is under way. */
const char *shard_unrest(const struct shard *s);
/* Before that: no new connections, but everybody who is there is served. Not taken back by shard_hold. */
void shard_pause_accept(struct shard *s, bool on);
/* TLS handshakes that can be waited for, of all shards of the node: while one waits, the others need not be
 * held. */
uint32_t shard_handshakes(const struct shard *s);
/* Held, at rest; nothing changes here. Phase 1: shard, workers, links, end; phase 2: clients and all the
 * rest, end. Who cannot be handed over (half a TLS handshake) is left out, and counted as closed in what is
 * handed over. *ret: counts; may be NULL. 0 or -errno. */
struct shard_exported {
    uint64_t records, clients, links, left_out;
};
int shard_export(struct shard *s, unsigned phase, const struct transfer_plan *plan,
                 struct transfer_sink *sink, struct shard_exported *ret);
/* Every connection is somebody else's now (or, of a shard that took over: again): all is forgotten, and
 * nobody told. shard_free follows. */
void shard_forget(struct shard *s);

/* Within one node: those that shard_export has handed over are somebody else's now, the others stay. */
void shard_forget_given(struct shard *s, const struct transfer_plan *plan);

/* Before the first record, of a shard that has clients already: others of its node give it theirs. */
int shard_import_begin(struct shard *s); /* 0 or -ENOMEM */
/* These stay with those who gave them after all. */
void shard_forget_taken(struct shard *s);
/* One record; the handle is taken. 0, or -errno with *ret_why (static): the transfer is given up. */
int shard_import(struct shard *s, unsigned from, const struct transfer_record *r, const char **ret_why);
/* All senders have ended that phase; phase 1: and all workers are known (turns must be taken meanwhile). */
bool shard_has_imported(const struct shard *s, unsigned phase, unsigned n_senders);
/* After phase 2: what only the import needed is freed. shard_hold(off) begins to serve. */
void shard_import_done(struct shard *s);
