// SPDX-License-Identifier: MIT
/* Everything comes to rest before it is handed over to another process (upstream.h).
 *
 *   goes on, as it ends by itself                     rests, as it would begin something
 *     jobs, questions, binds of uids                    what links say (kept in their input)
 *     what other shards have sent: stand-ins, events    clients that are bound anew or moved, paused ones
 *     events on their way back from lost workers        what is parked, and its time
 *     homeless events, if there is a worker
 *     links whose peer is gone, with what they asked    pings, time limits of links
 *     ON_CLOSEs that wait for room to another shard
 *     a predecessor's clients: become homeless
 *
 * Tasks that rest are done when they run; afterwards all of them run once. A worker that does not read keeps
 * nothing going: what waits for it is handed over with its link, and fences that stand behind it are given
 * up: who takes over begins with new epochs (steer.c). */
#include "upstream/gatewayworker/gatewayworker_priv.h"

static void go_on(struct gatewayworker *gw)
{
    struct loop *loop = gw->up.host->loop;
    for (struct list *node = gw->links.next; node != &gw->links;) {
        struct link *l = CONTAINER_OF(node, struct link, node);
        node = node->next;
        link_go_on(l);
    }
    worker_rebind_soon(gw);
    steer_go_on(gw);
    loop_task_add(loop, &gw->resume_task);
    loop_task_add(loop, &gw->unpark_task);
}

void hold_all(struct upstream *u, bool on)
{
    struct gatewayworker *gw = gatewayworker_of(u);
    if (gw->held == on)
        return;
    gw->held = on;
    if (on)
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    else
        go_on(gw);
    succession_look(gw);
}

static const char *links_unrest(const struct gatewayworker *gw)
{
    for (const struct list *node = gw->links.next; node != &gw->links; node = node->next) {
        const char *what = link_unrest(CONTAINER_OF(node, struct link, node));
        if (what != NULL)
            return what;
    }
    return NULL;
}

const char *hold_unrest(const struct upstream *u)
{
    const struct gatewayworker *gw = CONTAINER_OF(u, const struct gatewayworker, up);
    const char *what = links_unrest(gw);
    if (what != NULL)
        return what;
    if (gw->succession != NULL)
        return "clients of a predecessor";
    if (gw->n_unsettled + gw->n_awaiting > 0)
        return "events that another shard had for a worker";
    if (gw->homeless.n_events > 0 && gw->n_workers > 0)
        return "events of clients that are gone";
    if (!list_is_empty(&gw->dirty))
        return "packets that have not been tried to be written"; /* a turn does it: after this, none does
                                                                    anything */
    if (!list_is_empty(&gw->late_closes))
        return "clients that have gone, and no room to say so to another shard";
    return peers_unrest(gw);
}
