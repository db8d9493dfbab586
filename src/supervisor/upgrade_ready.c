// SPDX-License-Identifier: MIT
/* Whether connections can be moved at all: to another node, or between shards. */
#include "supervisor/supervisor_priv.h"

#include <stdio.h>

static const char *shard_not_ready(const struct supervisor *s, char *buf, size_t cap)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        enum shard_state state = shard_shm_state(supervisor__shm_of(s, i));
        if (s->shards[i].pid != 0 && state == SHARD_STATE_RUNNING)
            continue;
        snprintf(buf, cap, "shard %u is not running (%s): again when all of them are", i,
                 s->shards[i].pid == 0 ? "dead" : shard_state_name(state));
        return buf;
    }
    return NULL;
}

/* Clients of a listener that is gone from the configuration would have none in the new processes. */
static const char *removed_listener(const struct supervisor *s, char *buf, size_t cap)
{
    for (unsigned slot = 0; slot < CONFIG_LISTEN_MAX; slot++) {
        const struct listeners_slot *l = &s->listeners.slots[slot];
        uint64_t used = 0;
        for (unsigned i = 0; i < s->plan.n; i++)
            used |= node_shard_slots(&s->node.shared->shards[i], s->distribution.generation);
        if (l->present || l->identity[0] == '\0' || (used >> slot & 1) == 0)
            continue;
        snprintf(buf, cap,
                 "the listener %s was removed by a reload and still has clients: again when they have left, "
                 "or close them (tgg ctl close --listener %s)",
                 l->name, l->name);
        return buf;
    }
    return NULL;
}

static bool settings_are_taken(const struct supervisor *s)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (!node_shard_has_settings(&s->node.shared->shards[i], s->distribution.generation))
            return false;
    }
    return !distribution_waits(&s->distribution);
}

const char *supervisor__not_ready(const struct supervisor *s, char *buf, size_t cap)
{
    const char *why =
        s->ready ? shard_not_ready(s, buf, cap) : "the gateway is still starting: again when it is ready";
    if (why == NULL && !settings_are_taken(s))
        why = "shards have not taken over the last reload yet: again in a moment";
    return why != NULL ? why : removed_listener(s, buf, cap);
}
