// SPDX-License-Identifier: MIT
/* Connections per address and per subnet over all shards of a node, in shared memory: a table for each shard,
 * written by that shard only, read by all. A check adds up what all tables say.
 *
 *   guard_shm | table of shard 0: head, slots | table of shard 1 | ...
 *
 * - A slot is the keyed hash of an address or a subnet, 64 bits (base/hash.h; all processes of a node have
 *   the key of the one that forked them), and a count. Two addresses with the same hash would be counted
 *   together; nobody without the key can look for such.
 * - The memory is a mapping without a file, shared, made before the shards are forked. What is not touched
 *   costs nothing; at most guard_shm_bytes, 48 bytes for each client that a shard may have.
 * - Check and entry are two steps, and others do the same at the same time: a limit may be passed by at most
 *   n_shards - 1, when all shards let the last one in at the same moment (and by those that a shard has
 *   checked, but not entered yet). */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct guard_shm;

size_t guard_shm_bytes(unsigned n_shards, uint32_t max_clients);
/* In memory that is zero, shared, and at a multiple of GUARD_SHM_ALIGN (as mmap gives it, nearly always of
 * the page size, which is all that is needed). max_clients: of one shard, as in guard_options. */
#define GUARD_SHM_ALIGN 4096
struct guard_shm *guard_shm_init(void *memory, unsigned n_shards, uint32_t max_clients);
/* The process of that shard is dead: its clients count no more (supervisor, before it starts the next). */
void guard_shm_bury(struct guard_shm *shm, unsigned shard);
