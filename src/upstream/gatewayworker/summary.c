// SPDX-License-Identifier: MIT
/* Which other shards are to be told or asked: what their summaries in shared memory say
 * (common/node_shared.h). */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include "base/hash.h"

/* Names that our links have added there may not be in its summary yet. */
static bool adds_under_way(const struct gatewayworker *gw, unsigned shard)
{
    return gw->peers[shard].adds_sent != NODE_LOAD(gw->shared->shards[shard].adds_done[gw->me]);
}

uint64_t peers_with_members(const struct gatewayworker *gw)
{
    uint64_t found = 0;
    for (unsigned i = 0; i < gw->n_shards; i++)
        if (peer_is_there(gw, i) && NODE_LOAD(gw->shared->shards[i].members) > 0)
            found |= UINT64_C(1) << i;
    return found;
}

static uint64_t peers_with(const struct gatewayworker *gw, struct slice name, bool is_uid)
{
    uint64_t found = 0, hash = hash_bytes(name.data, name.len);
    for (unsigned i = 0; i < gw->n_shards; i++) {
        const struct name_filter *f = is_uid ? &gw->shared->names[i].uids : &gw->shared->names[i].groups;
        if (peer_is_there(gw, i) && (name_filter_may_have(f, hash) || adds_under_way(gw, i)))
            found |= UINT64_C(1) << i;
    }
    return found;
}

uint64_t peers_with_uid(const struct gatewayworker *gw, struct slice name)
{
    return peers_with(gw, name, true);
}

uint64_t peers_showing_uid(const struct gatewayworker *gw, uint64_t hash)
{
    uint64_t found = 0;
    for (unsigned i = 0; i < gw->n_shards; i++)
        if (peer_is_there(gw, i) && name_filter_may_have(&gw->shared->names[i].uids, hash))
            found |= UINT64_C(1) << i;
    return found;
}

uint64_t peers_with_group(const struct gatewayworker *gw, struct slice name)
{
    return peers_with(gw, name, false);
}
