// SPDX-License-Identifier: MIT
/* The tables of guard_shm.h: what shards write and read. One writer for each table; readers may be in other
 * processes. No locks: an entry that is there is counted by one store; when one is removed, others move into
 * its place, and a version that is odd meanwhile makes readers look again (a few times, then the highest they
 * saw counts: a writer that died halfway stops nobody). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "guard/cidr.h"
#include "guard/guard_shm.h"

/* The hash under which the first bits of an address are counted: the address itself and its subnet are
 * different things even when the subnet has all bits. */
enum address_kind { ADDRESS_ITSELF, ADDRESS_SUBNET };
uint64_t address_hash(const struct cidr *c, enum address_kind kind);

/* One more in the table of that shard. False: the table is full (it has room for two for each of
 * max_clients), not counted. */
bool address_count_add(struct guard_shm *shm, unsigned shard, uint64_t hash);
/* One less. False: it was not there. */
bool address_count_remove(struct guard_shm *shm, unsigned shard, uint64_t hash);

/* In the table of one shard, and in all. */
uint32_t address_count_of(const struct guard_shm *shm, unsigned shard, uint64_t hash);
uint32_t address_count_sum(const struct guard_shm *shm, uint64_t hash);
/* Addresses and subnets that a shard has. */
uint32_t address_count_used(const struct guard_shm *shm, unsigned shard);
