// SPDX-License-Identifier: MIT
/* What a predecessor of this shard left behind when it was killed (estate/): packets that were not written,
 * and clients that workers have heard of, whose connections ended with it.
 *
 *   packets of other shards' clients   go back to them (peer.c), which wait for that
 *   packets of its own clients         are homeless, in their order, and an ON_CLOSE behind the last
 *   its other clients                  their ON_CLOSE, with the last session, to their own worker, as soon as
 *                                      the other shards have told us theirs; one whose link was here gets
 *                                      RETURN_MS to come back, then any other will do
 *
 * Paced: close_rate clients a second, and no more than the worker reads. */
#include "upstream/gatewayworker/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"

/* How long a worker gets to connect again, and how long other shards get to tell theirs. */
#define RETURN_MS 3000
#define TOLD_MS   10000
#define TICK_MS   10
/* After a look at all of them without result. */
#define IDLE_TICK_MS 100
#define LEGACIES_MAX ESTATE_PLOTS
/* Clients between two looks at the clock. */
#define SLICE 64

struct succession {
    struct gatewayworker *gw;
    struct legacy *legacies[LEGACIES_MAX];
    unsigned n_legacies;
    unsigned at;      /* legacies below it are done */
    bool for_anybody; /* RETURN_MS is over */
    bool skipped;     /* in this pass: some wait for their worker */
    bool telling;     /* the other shards have told us their workers, and sent back what there was */
    /* Packets of our predecessor's clients: in its estate, and those that came back meanwhile. */
    struct link_queue inherited, inherited_last, returned;
    uint64_t n_packets;
    uint64_t closes;
    uint64_t since_ms;
    uint32_t first_seq; /* of the ids that we have given ourselves */
    struct timer timer;
};

/* ---- packets */

/* Ids of our predecessor's clients: with packets, and those with an ON_CLOSE among them. */
struct heirs {
    struct seen_set spoken, closed;
};

/* It died while connections moved within the node, and another shard has that packet. */
static bool is_void(const struct gatewayworker *gw, struct slice packet)
{
    uint32_t what = NODE_LOAD(gw->shared->shards[gw->me].void_estate);
    return what == NODE_VOID_ALL ||
           (what == NODE_VOID_TAKEN && (packet.data[PACKET_FLAG_AT] & PACKET_TAKEN) != 0);
}

/* From the estate of the dead into ours. */
static void inherit_packets(struct succession *s, struct legacy *l)
{
    struct gatewayworker *gw = s->gw;
    struct slice packet;
    while (legacy_packet(l, &packet)) {
        if (packet.len >= GW_HEAD_LEN && packet.data[4] != GW_CMD_PING && !is_void(gw, packet)) {
            packet_mark_taken(packet, false);
            bool is_ours = packet_shard(gw, packet) == gw->me;
            bool is_last = (packet_marks(packet) & PACKET_LAST) != 0;
            if (!(is_ours ? link_queue_append(is_last ? &s->inherited_last : &s->inherited, packet)
                          : peer_return_orphan(gw, packet)))
                event_lost(gw, packet.data[4]);
            s->n_packets++;
        }
        legacy_packet_done(l);
    }
}

static void make_homeless(struct succession *s, struct link_queue *from, struct heirs *heirs)
{
    struct slice packet;
    while (link_queue_take_packet(from, &packet)) {
        uint32_t id = gw_get_u32(packet.data + 17);
        seen_set_add(&heirs->spoken, id);
        if (packet.data[4] == GW_CMD_ON_CLOSE)
            seen_set_add(&heirs->closed, id);
        bool counted = packet_marks(packet) != PACKET_LAST;
        packet_unmark(packet);
        if (!park_homeless(s->gw, packet, counted))
            event_lost(s->gw, packet.data[4]);
    }
}

/* ---- clients */

static struct gw_packet close_packet(const struct gatewayworker *gw, const struct estate_client *c,
                                     struct slice session)
{
    struct gw_packet p = gw->head;
    p.cmd = GW_CMD_ON_CLOSE;
    p.flag = GW_FLAG_BODY_IS_SCALAR;
    p.connection_id = c->id;
    p.client_ip = c->ip;
    p.client_port = c->port;
    p.gateway_port = c->gateway_port;
    p.ext = session;
    return p;
}

static void close_is_homeless(struct gatewayworker *gw, const struct estate_client *c, struct slice session)
{
    struct bytes packet = {0};
    struct gw_packet p = close_packet(gw, c, session);
    if (!park_append_packet(&packet, &p) ||
        !park_homeless(gw, (struct slice){packet.data, packet.len}, false))
        event_lost(gw, GW_CMD_ON_CLOSE);
    bytes_fini(&packet);
}

/* Clients of which packets are homeless follow these; a client whose ON_CLOSE is among them is done. */
static void inherit_speakers(struct gatewayworker *gw, struct legacy *l, const struct heirs *heirs)
{
    struct estate_client c;
    struct slice session;
    while (legacy_client(l, &c, &session)) {
        if (!seen_set_has(&heirs->spoken, c.id))
            continue;
        if (!seen_set_has(&heirs->closed, c.id))
            close_is_homeless(gw, &c, session);
        legacy_client_done(l);
    }
    legacy_rewind(l);
}

/* Whom to tell; NULL: wait. */
static struct worker *worker_for(const struct succession *s, const struct estate_client *c)
{
    struct worker *w = c->worker != 0 ? worker_of_mark(s->gw, c->worker) : NULL;
    return w != NULL || !s->for_anybody ? w : worker_any(s->gw);
}

static bool told(struct worker *w, const struct estate_client *c, struct slice session)
{
    struct gw_packet p = close_packet(w->gw, c, session);
    struct bytes packet = {0};
    bool ok =
        park_append_packet(&packet, &p) && worker_try_packet(w, (struct slice){packet.data, packet.len}) == 0;
    bytes_fini(&packet);
    return ok;
}

/* One pass over a legacy, at most n clients. False: n is used up, or somebody cannot take more. */
static bool tell_some(struct succession *s, struct legacy *l, uint64_t *n)
{
    struct estate_client c;
    struct slice session;
    while (legacy_client(l, &c, &session)) {
        struct worker *w = worker_for(s, &c);
        if (w == NULL || w->full) {
            s->skipped = true;
            continue;
        }
        if (!told(w, &c, session)) {
            s->skipped = true;
            return false;
        }
        event_count(s->gw, GW_CMD_ON_CLOSE);
        gw_count(s->gw, COUNTER_clients_inherited, 1);
        legacy_client_done(l);
        s->closes++;
        if (--*n == 0)
            return false;
    }
    return true;
}

/* A shard that is dead too will tell when it has a successor: what is in its ring comes back to us first. */
static bool all_have_told(const struct gatewayworker *gw)
{
    for (unsigned i = 0; i < gw->n_shards; i++)
        if (i != gw->me && !gw->peers[i].has_told)
            return false;
    return true;
}

/* What our predecessor had got back (among what we found) is older than what comes back now, and both are
 * than what it held meanwhile (inherited_last). The ON_CLOSE of their clients goes where they go: all of it
 * is homeless from now on. */
static void begin_to_tell(struct succession *s)
{
    struct heirs heirs = {0};
    make_homeless(s, &s->inherited, &heirs);
    make_homeless(s, &s->returned, &heirs);
    make_homeless(s, &s->inherited_last, &heirs);
    for (unsigned i = s->at; i < s->n_legacies; i++)
        inherit_speakers(s->gw, s->legacies[i], &heirs);
    seen_set_fini(&heirs.spoken);
    seen_set_fini(&heirs.closed);
    s->telling = true;
}

/* That client, gone too, came to us and not to a predecessor. */
static bool is_our_own(const struct succession *s, uint32_t id)
{
    uint32_t given = directory_next_seq(s->gw->up.host->directory) - s->first_seq;
    return id >> CONNECTION_SEQ_BITS == s->gw->me &&
           ((id - s->first_seq) & CONNECTION_SEQ_MASK) < (given & CONNECTION_SEQ_MASK);
}

bool succession_returned(struct gatewayworker *gw, struct slice packet)
{
    struct succession *s = gw->succession;
    return s != NULL && !s->telling && !is_our_own(s, gw_get_u32(packet.data + 17)) &&
           link_queue_append(&s->returned, packet);
}

/* We are held: all of them at once, to their workers (behind what these have not read yet, and be they full);
 * whoever serves next tells of the others, to any worker. False: not all yet. */
static bool leave_homeless(struct succession *s)
{
    struct gatewayworker *gw = s->gw;
    unsigned n = 0;
    for (; s->at < s->n_legacies; legacy_free(s->legacies[s->at++])) {
        struct estate_client c;
        struct slice session;
        while (legacy_client(s->legacies[s->at], &c, &session)) {
            struct worker *w = c.worker != 0 ? worker_of_mark(gw, c.worker) : NULL;
            if (w == NULL) {
                close_is_homeless(gw, &c, session);
            } else if (told(w, &c, session)) {
                event_count(gw, GW_CMD_ON_CLOSE);
            } else {
                legacy_rewind(s->legacies[s->at]);
                return false;
            }
            gw_count(gw, COUNTER_clients_inherited, 1);
            legacy_client_done(s->legacies[s->at]);
            s->closes++;
            if (++n % SLICE == 0 && loop_turn_left_ns(gw->up.host->loop) == 0)
                return false;
        }
    }
    return true;
}

static void free_succession(struct succession *s)
{
    s->gw->succession = NULL;
    link_queue_fini(&s->inherited);
    link_queue_fini(&s->inherited_last);
    link_queue_fini(&s->returned);
    free(s);
}

static void on_tick(struct timer *t)
{
    struct succession *s = CONTAINER_OF(t, struct succession, timer);
    struct gatewayworker *gw = s->gw;
    uint64_t age_ms = loop_now_ms(gw->up.host->loop) - s->since_ms;
    s->for_anybody = age_ms >= RETURN_MS;
    if (!s->telling && (all_have_told(gw) || age_ms >= TOLD_MS))
        begin_to_tell(s);
    /* What their workers had not read may come back, and goes first: a worker may have come again meanwhile.
     */
    bool settled = gw->n_unsettled == 0 || s->for_anybody;
    bool leave = gw->held && s->telling && settled && leave_homeless(s);
    /* Homeless packets of theirs go first, to whoever takes them. */
    if (!leave && (gw->homeless.n_events > 0 || gw->held || !s->telling || !settled)) {
        timer_set(gw->up.host->loop, t, TICK_MS, on_tick);
        return;
    }
    uint64_t before = s->closes;
    uint64_t n = gw_config(gw)->close_rate * TICK_MS / 1000 + 1;
    while (s->at < s->n_legacies && tell_some(s, s->legacies[s->at], &n)) {
        if (s->skipped)
            break;
        legacy_free(s->legacies[s->at++]);
    }
    if (s->at < s->n_legacies) {
        legacy_rewind(s->legacies[s->at]);
        timer_set(gw->up.host->loop, t, s->closes > before ? TICK_MS : IDLE_TICK_MS, on_tick);
        s->skipped = false;
        return;
    }
    LOG(LOG_NOTICE, "succession_done", "closes=%llu ms=%llu", (unsigned long long)s->closes,
        (unsigned long long)age_ms);
    free_succession(s);
}

/* ---- */

static struct succession *succession_new(struct gatewayworker *gw)
{
    struct succession *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->gw = gw;
    s->since_ms = loop_now_ms(gw->up.host->loop);
    s->first_seq = directory_next_seq(gw->up.host->directory);
    link_queue_init(&s->inherited, gw->up.host->estate);
    link_queue_init(&s->inherited_last, gw->up.host->estate);
    link_queue_init(&s->returned, gw->up.host->estate);
    gw->succession = s;
    return s;
}

/* Ids of clients that are not told of yet are not given again. Who is at home elsewhere has moved there, or
 * has never come from there. */
static void note_ids(struct gatewayworker *gw, struct legacy *l)
{
    struct estate_client c;
    struct slice session;
    while (legacy_client(l, &c, &session)) {
        if (gw_shard_of(gw, c.id) == gw->me)
            directory_id_gone(gw->up.host->directory, c.id);
        else
            legacy_client_done(l);
    }
    legacy_rewind(l);
}

int succession_begin(struct gatewayworker *gw)
{
    struct upstream_host *host = gw->up.host;
    struct succession *s = NULL;
    struct legacy *l = NULL, *next;
    uint64_t clients = 0, damaged = 0;
    if (host->estate_mem == NULL)
        return 0;
    while ((next = estate_inherit_next(host->estate_mem, host->node->estate_bytes, l)) != NULL) {
        if (s == NULL && (s = succession_new(gw)) == NULL)
            return -ENOMEM;
        ASSERT(s->n_legacies < LEGACIES_MAX);
        l = s->legacies[s->n_legacies++] = next;
        inherit_packets(s, l);
        note_ids(gw, l);
        clients += legacy_clients_left(l);
        damaged += legacy_damaged(l);
    }
    NODE_STORE(gw->shared->shards[gw->me].void_estate, NODE_VOID_NOTHING);
    if (s == NULL)
        return 0;
    unsigned n = 0;
    for (unsigned i = 0; i < s->n_legacies; i++)
        if (legacy_clients_left(s->legacies[i]) > 0)
            s->legacies[n++] = s->legacies[i];
        else
            legacy_free(s->legacies[i]);
    s->n_legacies = n;
    gw_count(gw, COUNTER_events_inherited, s->n_packets);
    LOG(LOG_NOTICE, "succession", "clients=%llu events=%llu damaged_records=%llu",
        (unsigned long long)clients, (unsigned long long)s->n_packets, (unsigned long long)damaged);
    timer_set(host->loop, &s->timer, TICK_MS, on_tick);
    return 0;
}

void succession_look(struct gatewayworker *gw)
{
    if (gw->succession != NULL)
        timer_set(gw->up.host->loop, &gw->succession->timer, 0, on_tick);
}

void succession_free(struct gatewayworker *gw)
{
    struct succession *s = gw->succession;
    if (s == NULL)
        return;
    timer_cancel(gw->up.host->loop, &s->timer);
    for (; s->at < s->n_legacies; s->at++) {
        LOG(LOG_WARN, "succession_left", "clients=%u", legacy_clients_left(s->legacies[s->at]));
        legacy_keep(s->legacies[s->at]);
    }
    free_succession(s);
}
