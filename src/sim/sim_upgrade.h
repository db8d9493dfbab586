// SPDX-License-Identifier: MIT
/* Another crew of shards takes over from the one that runs (shard/transfer.h), as two supervisors have it
 * done (common/upgrade.h):
 *
 *   hold ── turns until nothing is under way ── stop ── links ── turns of the new ones ── clients ──┬──
 * commit └── given up
 *
 * At any step it may be given up, and shards of either crew may die: then the old ones go on. */
#pragma once

struct world;

/* One upgrade, if one is left; steps are taken in it. meanwhile: what else happens, now and then. */
void sim_upgrade(struct world *w, void (*meanwhile)(struct world *w));
