// SPDX-License-Identifier: MIT
/* After an upgrade to fewer edge shards: what waits in the queues of sockets that no shard has. */
#pragma once

struct supervisor;

/* Takes what is there and gives it to the emptiest edge shards (node->hand_fds, shard/handoff.h). */
void upgrade_spares_turn(struct supervisor *s);
