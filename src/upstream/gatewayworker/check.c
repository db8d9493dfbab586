// SPDX-License-Identifier: MIT
/* The tables of the upstream against each other, in slices: each element with what it points to and what
 * points to it. Sums over what can be long (clients that wait) only while it is short: between two slices it
 * changes. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

/* Waiting clients that are added up. */
#define SUM_MAX 2000
/* Workers among which a pointer is looked for before it is followed. */
#define KNOWN_MAX 256

#define TRY(check)                                                                                           \
    do {                                                                                                     \
        const char *wrong_ = (check);                                                                        \
        if (wrong_ != NULL)                                                                                  \
            return wrong_;                                                                                   \
    } while (0)

enum phase { PHASE_LINKS, PHASE_WORKERS, PHASE_WAITING, PHASE_SHARED, PHASE_MEMBERS, PHASE_BOUND, PHASE_N };

/* *position: phase, worker (PHASE_BOUND), element. */
#define POSITION(phase, worker, at) ((uint64_t)(phase) << 56 | (uint64_t)(worker) << 32 | (at))
#define WORKER_MASK                 0xffffffu

/* ---- links */

static const char *check_job(const struct link *l)
{
    uint32_t n = 0;
    for (const struct list *node = l->gathers.next; node != &l->gathers; node = node->next)
        n++;
    return n == l->n_gathers ? NULL : "the questions of a link are miscounted";
}

static const char *check_link(const struct gatewayworker *gw, const struct link *l)
{
    if (l->number >= gw->cap_link_table || gw->link_table[l->number] != l)
        return "a link is not in the table at its number";
    if (l->worker != NULL && l->worker->link != l)
        return "a link's worker has another link";
    if (l->in_done > l->in.len)
        return "a link has executed more than it has read";
    TRY(link_queue_check(&l->queue));
    return check_job(l);
}

static const char *check_stand_ins(const struct gatewayworker *gw)
{
    for (unsigned i = 0; i < gw->n_shards; i++) {
        const struct peer *p = &gw->peers[i];
        for (uint32_t k = 0; k < p->cap_stand_ins; k++) {
            const struct link *l = p->stand_ins[k];
            if (l != NULL && (!l->is_stand_in || l->shard != i || l->number != k || l->worker != NULL))
                return "a stand-in is not in its place";
        }
    }
    return NULL;
}

static const char *check_links(const struct gatewayworker *gw)
{
    uint32_t n = 0, undecided = 0, in_table = 0;
    for (const struct list *node = gw->links.next; node != &gw->links; node = node->next) {
        const struct link *l = CONTAINER_OF(node, struct link, node);
        n++;
        undecided += !l->decided;
        TRY(check_link(gw, l));
    }
    for (uint32_t i = 0; i < gw->cap_link_table; i++)
        in_table += gw->link_table[i] != NULL;
    if (n != gw->n_links || n != in_table)
        return "not as many links in the list as in the table";
    if (undecided != gw->n_undecided)
        return "links that have not said what they are are miscounted";
    if (NODE_LOAD(gw->shared->shards[gw->me].links) != gw->n_here + gw->n_undecided)
        return "the other shards see another number of links";
    return check_stand_ins(gw);
}

/* ---- workers */

static const char *check_figures(const struct gatewayworker *gw, const struct worker *w)
{
    if (w->n_paused > w->n_clients || w->n_clients > w->cap_clients)
        return "the clients of a worker are miscounted";
    if (!gw_is_alone(gw) && NODE_LOAD(gw->shared->workers[w->number].clients[gw->me]) != w->n_clients)
        return "the other shards see another number of clients of a worker";
    if (w->link == NULL)
        return w->shard != gw->me ? NULL : "a worker of this shard has no link";
    if (gw->numbers[w->number / gw->n_shards] != w || w->link->worker != w)
        return "a worker is not found by its number, or its link has another one";
    return NODE_LOAD(gw->shared->workers[w->number].hash) == (w->hash != 0 ? w->hash : 1)
               ? NULL
               : "the number of a worker is another's";
}

static const char *check_meter(const struct worker *w)
{
    const struct meter *m = &w->meter;
    if (w->link == NULL)
        return NULL;
    if (m->n > METER_MARKS || (m->n > 0 && w->link->queue.bytes == 0))
        return "a worker for which nothing waits has something that waits";
    for (uint32_t i = 1; i < m->n; i++)
        if (m->marks[i].position <= m->marks[i - 1].position || m->marks[i].ns < m->marks[i - 1].ns)
            return "marks of a queue are not in order";
    return NULL;
}

static const char *check_gone(const struct gatewayworker *gw)
{
    uint32_t unsettled = 0;
    for (const struct list *node = gw->gone.next; node != &gw->gone; node = node->next) {
        const struct worker *w = CONTAINER_OF(node, struct worker, gone);
        unsettled += w->unsettled;
        if (!w->is_gone || w->link != NULL || w->n_paused > w->n_clients)
            return "a worker that is gone is not";
        if (w->n_clients == 0 && !w->unsettled)
            return "a worker that is gone is kept for nobody";
    }
    return unsettled == gw->n_unsettled ? NULL : "workers that are gone and not settled are miscounted";
}

static const char *check_workers(const struct gatewayworker *gw)
{
    uint32_t here = 0, numbered = 0;
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        const struct worker *w = gw->workers[i];
        here += w->link != NULL;
        if (w->position != i || w->is_gone || w->gw != gw || w->number >= NODE_WORKERS_MAX)
            return "a worker is not where it should be";
        TRY(check_figures(gw, w));
        TRY(check_meter(w));
    }
    for (uint32_t i = 0; i < gw->cap_numbers; i++)
        numbered += gw->numbers[i] != NULL;
    if (here != gw->n_here || here != numbered)
        return "workers of this shard are miscounted";
    return check_gone(gw);
}

/* ---- what waits for a worker */

static const char *check_parked(const struct parked *p)
{
    uint32_t events = 0, messages = 0;
    for (size_t at = 0; at < p->packets.len; events++) {
        size_t left = p->packets.len - at;
        uint32_t len = left >= GW_HEAD_LEN ? gw_get_u32(p->packets.data + at) : 0;
        if (len < GW_HEAD_LEN || len > left)
            return "what waits for a worker is no packet";
        messages += p->packets.data[at + 4] == GW_CMD_ON_MESSAGE;
        at += len;
    }
    if (events != p->n_events || messages != p->n_messages || p->n_moved > p->n_events)
        return "events that wait for a worker are miscounted";
    return list_is_linked(&p->timed) == (messages > 0) ? NULL : "a client that waits has no time limit";
}

static const char *check_waiting(const struct gatewayworker *gw)
{
    uint64_t bytes = link_queue_sum(&gw->homeless.queue);
    uint32_t clients = 0;
    bytes += gw->homeless.next.data != NULL ? gw->homeless.next.len : 0;
    if (gw->parked_clients > SUM_MAX)
        return NULL;
    for (const struct list *node = gw->parked.next; node != &gw->parked; node = node->next) {
        const struct parked *p = CONTAINER_OF(node, struct parked, node);
        if (p->client->parked != p)
            return "what waits belongs to a client that does not know of it";
        bytes += p->packets.len;
        clients++;
    }
    if (clients != gw->parked_clients)
        return "clients that wait for a worker are miscounted";
    return bytes == gw->parked_bytes ? NULL : "bytes that wait for a worker do not add up";
}

/* ---- what the other shards see */

static bool is_known(const struct gatewayworker *gw, uint32_t number)
{
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->number == number)
            return true;
    return false;
}

static const char *check_number(const struct gatewayworker *gw, uint32_t number)
{
    const struct node_worker *slot = &gw->shared->workers[number];
    if (NODE_LOAD(slot->clients[gw->me]) != 0 && !is_known(gw, number))
        return "the other shards see clients of a worker that is not there";
    bool is_ours = number % gw->n_shards == gw->me;
    uint32_t at = number / gw->n_shards;
    bool is_here = at < gw->cap_numbers && gw->numbers[at] != NULL;
    return is_ours && (NODE_LOAD(slot->hash) != 0) != is_here ? "a number of a worker is taken by nobody"
                                                              : NULL;
}

/* ---- clients */

static bool may_follow(const struct gatewayworker *gw, const struct worker *w)
{
    if (gw->n_workers > KNOWN_MAX)
        return true;
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i] == w)
            return true;
    for (const struct list *node = gw->gone.next; node != &gw->gone; node = node->next)
        if (CONTAINER_OF(node, struct worker, gone) == w)
            return true;
    return false;
}

static const char *check_binding(const struct upstream_client *c)
{
    const struct worker *w = c->worker;
    if (c->worker_position >= w->n_clients || w->clients[c->worker_position] != c)
        return "a client is not where it should be among those of its worker";
    return c->paused == (c->worker_position < w->n_paused)
               ? NULL
               : "a client is paused and its worker does not know";
}

static const char *check_record(const struct upstream_client *c)
{
    const struct estate_client *r = c->member.record;
    const struct worker *w = c->worker;
    if (r == NULL) {
        bool told = c->heard_of && w != NULL && (c->parked == NULL || !c->parked->has_connect);
        return told ? "a client that a worker has heard of has no record in the estate" : NULL;
    }
    if (r->id != c->member.id)
        return "a client's record in the estate is another's";
    return w == NULL || r->worker == worker_mark(w) ? NULL
                                                    : "a client's record in the estate names another worker";
}

static const char *check_member(const struct gatewayworker *gw, const struct member *m)
{
    const struct upstream_client *c = CONTAINER_OF(m, const struct upstream_client, member);
    if (c->worker != NULL && !may_follow(gw, c->worker))
        return "a client's worker is none that is known";
    if (c->worker == NULL && c->paused)
        return "a client without a worker is paused";
    if (c->parked != NULL && c->parked->client != c)
        return "what waits for a client is another's";
    if (c->worker != NULL)
        TRY(check_binding(c));
    if (c->parked != NULL)
        TRY(check_parked(c->parked));
    return check_record(c);
}

/* The same from the worker's side. */
static const char *check_bound(const struct gatewayworker *gw, const struct worker *w, uint32_t at)
{
    const struct upstream_client *c = w->clients[at];
    if (c->worker != w || c->worker_position != at)
        return "a worker has a client that is bound to another one";
    return directory_find(gw->up.host->directory, c->member.id) == &c->member
               ? NULL
               : "a worker has a client that is not in the directory";
}

/* ---- slices */

static const struct worker *worker_at(const struct gatewayworker *gw, uint32_t i)
{
    if (i < gw->n_workers)
        return gw->workers[i];
    i -= gw->n_workers;
    for (const struct list *node = gw->gone.next; node != &gw->gone; node = node->next)
        if (i-- == 0)
            return CONTAINER_OF(node, struct worker, gone);
    return NULL;
}

/* One element; *next is where it goes on. */
static const char *check_next_bound(const struct gatewayworker *gw, uint64_t position, uint64_t *next)
{
    uint32_t at = (uint32_t)position, i = (uint32_t)(position >> 32) & WORKER_MASK;
    const struct worker *w = worker_at(gw, i);
    if (w == NULL)
        *next = POSITION(PHASE_N, 0, 0);
    else if (at >= w->n_clients)
        *next = POSITION(PHASE_BOUND, i + 1, 0);
    else
        return check_bound(gw, w, at);
    return NULL;
}

static const char *check_next(const struct gatewayworker *gw, uint64_t position, uint64_t *next)
{
    enum phase phase = (enum phase)(position >> 56);
    uint32_t at = (uint32_t)position;
    struct member *m = NULL;
    *next = POSITION(phase + 1, 0, 0);
    switch (phase) {
    case PHASE_LINKS: return check_links(gw);
    case PHASE_WORKERS: return check_workers(gw);
    case PHASE_WAITING: return check_waiting(gw);
    case PHASE_SHARED:
        if (at < NODE_WORKERS_MAX)
            *next = position + 1;
        return at < NODE_WORKERS_MAX ? check_number(gw, at) : NULL;
    case PHASE_MEMBERS:
        if (!directory_at(gw->up.host->directory, at, &m))
            return NULL;
        *next = position + 1;
        return m != NULL ? check_member(gw, m) : NULL;
    case PHASE_BOUND: *next = position + 1; return check_next_bound(gw, position, next);
    default: return NULL;
    }
}

const char *check_slice(struct upstream *u, uint64_t *position, unsigned steps)
{
    const struct gatewayworker *gw = gatewayworker_of(u);
    const char *wrong = NULL;
    for (; steps > 0 && wrong == NULL && *position >> 56 < PHASE_N; steps--)
        wrong = check_next(gw, *position, position);
    if (*position >> 56 >= PHASE_N)
        *position = 0;
    return wrong;
}
