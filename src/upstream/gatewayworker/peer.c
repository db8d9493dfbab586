// SPDX-License-Identifier: MIT
/* The other shards of the node: what is said between them, and what holds when one of them dies.
 *
 * Everything between two shards is in order, so that what follows from each other on one link, or for one
 * client, does so across shards too:
 *
 *   commands and questions of a link     COMMAND, answered by ANSWER; a stand-in executes them there
 *   a bind of a uid took effect          BOUND to the link's shard, REPLACE from there (replace.c)
 *   events of a client                   EVENT to the shard that has its worker's link
 *   a worker comes                       CAME to all; TAKEN: with its link, from another process, or from
 *                                        another shard, whose LEFT follows
 *   a worker goes                        LEFT to all; each holds what its clients say from then on, and
 *                                        answers LEFT_ACK, behind the last event; what did not reach the
 *                                        worker comes back as RETURNED, then LEFT_DONE; held events follow
 *   a client is to be moved              FENCE to the shard that has its worker's link, which says FENCED
 * when all that came before it is written (steer.c) a shard begins in the place of       HELLO to all; each
 * takes the workers that it had for gone (as one that died                        above), tells its own by
 * CAME, and TOLD once nothing of the dead one's clients is on its way back
 *
 * A successor knows nothing of its predecessor's workers: events for them go back, and so does what it finds
 * unwritten in the estate (orphans). */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"

enum peer_message {
    PEER_HELLO = 1,
    PEER_ADDS,
    PEER_TELL, /* HELLO was for a predecessor that died of it: TOLD is still wanted */
    PEER_TOLD,
    PEER_CAME,
    PEER_TAKEN, /* as CAME: it was a worker of another node (or shard), and is ours from now on */
    PEER_FULL,
    PEER_LEFT,
    PEER_LEFT_ACK,
    PEER_LEFT_DONE,
    PEER_FENCE,
    PEER_FENCED,
    PEER_EVENT,
    PEER_RETURNED,
    PEER_COMMAND,
    PEER_ANSWER,
    PEER_BOUND,
    PEER_REPLACE,
    PEER_LINK_FLOW,
    PEER_LINK_GONE,
};

/* Heads of the messages: both ends are one program. */
struct peer_adds { /* HELLO, ADDS */
    uint64_t base; /* of the sender's adds_sent */
};
struct peer_worker { /* CAME, TAKEN (then the key), FULL, LEFT*, FENCE*; EVENT, RETURNED (then the packet) */
    uint64_t since;
    uint32_t number;
    uint32_t fullness; /* CAME, TAKEN, FULL; FENCE*: number of the fence; LEFT: 1: its link has moved */
};
struct peer_link { /* COMMAND, REPLACE (then the packet), LINK_FLOW, LINK_GONE, ANSWER (then the part), BOUND
                    * (then u64 number of the bind, uid) */
    uint32_t number, question;
    uint32_t flag; /* LINK_FLOW: stop; ANSWER: it failed */
    uint32_t reserved;
};

/* CMD_NOTE between packets that go back: LEFT_DONE is to follow. */
#define NOTE_LEN (GW_HEAD_LEN + sizeof(struct peer_worker))

static struct slice head_of(const void *head, size_t len)
{
    return (struct slice){head, len};
}
#define HEAD(h) head_of(&(h), sizeof(h))

/* ---- sending */

static bool send_to(struct gatewayworker *gw, unsigned to, enum peer_message type, const struct slice *parts,
                    unsigned n, struct mesh_note *note)
{
    return mesh_send(gw->mesh, to, type, parts, n, note);
}

static void send_parts(struct gatewayworker *gw, unsigned to, enum peer_message type,
                       const struct slice *parts, unsigned n)
{
    if (send_to(gw, to, type, parts, n, NULL))
        return;
    counter_drop(gw->up.host->counters, DROP_no_memory);
    LOG(LOG_ERROR, "peer_no_memory", "shard=%u type=%d bytes=%zu", to, type, parts[n - 1].len);
}

static void send_head(struct gatewayworker *gw, unsigned to, enum peer_message type, struct slice head,
                      struct slice rest)
{
    struct slice parts[] = {head, rest};
    send_parts(gw, to, type, parts, 2);
}

static void send_all(struct gatewayworker *gw, enum peer_message type, struct slice head, struct slice rest)
{
    for (unsigned i = 0; i < gw->n_shards; i++)
        if (i != gw->me)
            send_head(gw, i, type, head, rest);
}

#define EVENT_PARTS_MAX 4
static unsigned event_parts(struct slice *parts, const struct peer_worker *head, const struct slice *packet,
                            unsigned n)
{
    ASSERT(n < EVENT_PARTS_MAX);
    parts[0] = HEAD(*head);
    memcpy(parts + 1, packet, n * sizeof *packet);
    return n + 1;
}

bool peer_send_event_noted(struct worker *w, const struct slice *packet, unsigned n, struct mesh_note *note)
{
    struct peer_worker head = {.since = w->since, .number = w->number};
    struct slice parts[EVENT_PARTS_MAX];
    bool ok = mesh_send(w->gw->mesh, w->shard, PEER_EVENT, parts, event_parts(parts, &head, packet, n), note);
    /* Its clients wait, not the links. */
    if (mesh_waiting(w->gw->mesh, w->shard) > 0)
        worker_look_at_full(w);
    return ok;
}

bool peer_send_event(struct worker *w, const struct slice *packet, unsigned n)
{
    return peer_send_event_noted(w, packet, n, NULL);
}

int peer_try_event(struct worker *w, const struct slice *packet, unsigned n)
{
    struct peer_worker head = {.since = w->since, .number = w->number};
    struct slice parts[EVENT_PARTS_MAX];
    size_t len = sizeof head;
    for (unsigned i = 0; i < n; i++)
        len += packet[i].len;
    if (len > mesh_try_max(w->gw->mesh))
        return -EAGAIN;
    return mesh_try(w->gw->mesh, w->shard, PEER_EVENT, parts, event_parts(parts, &head, packet, n));
}

static bool adds_names(uint8_t cmd)
{
    return cmd == GW_CMD_BIND_UID || cmd == GW_CMD_JOIN_GROUP;
}

void peer_send_command(struct link *l, unsigned shard, uint32_t question, const struct gw_packet *p)
{
    struct gatewayworker *gw = l->gw;
    struct peer_link head = {.number = l->number, .question = question};
    l->visited |= UINT64_C(1) << shard;
    if (adds_names(p->cmd))
        gw->peers[shard].adds_sent++;
    gw_count(gw, COUNTER_commands_forwarded, 1);
    send_head(gw, shard, PEER_COMMAND, HEAD(head), (struct slice){p->ext.data - GW_HEAD_LEN, p->pack_len});
    if (__builtin_expect(peer_is_crowded(gw, shard), 0))
        l->crowded_by |= UINT64_C(1) << shard;
}

void peers_send_command(struct link *l, uint64_t shards, uint32_t question, const struct gw_packet *p)
{
    for (unsigned i = 0; shards != 0; i++, shards >>= 1)
        if ((shards & 1) != 0)
            peer_send_command(l, i, question, p);
}

void peer_answer(struct link *l, bool failed, const struct slice *parts, unsigned n)
{
    struct peer_link head = {.number = l->number, .question = l->question, .flag = failed};
    struct slice all[4] = {HEAD(head)};
    ASSERT(n < 4);
    memcpy(all + 1, parts, n * sizeof *parts);
    if (!send_to(l->gw, l->shard, PEER_ANSWER, all, n + 1, NULL)) {
        head.flag = true; /* so that nobody waits for it */
        send_head(l->gw, l->shard, PEER_ANSWER, HEAD(head), (struct slice){0});
    }
}

void peer_link_flow(struct link *l, bool stop)
{
    struct peer_link head = {.number = l->number, .flag = stop};
    send_head(l->gw, l->shard, PEER_LINK_FLOW, HEAD(head), (struct slice){0});
}

void peer_bound(struct link *l, struct slice uid, uint64_t bind)
{
    struct peer_link head = {.number = l->number, .question = l->question};
    struct slice parts[] = {HEAD(head), HEAD(bind), uid};
    send_parts(l->gw, l->shard, PEER_BOUND, parts, 3);
}

void peer_replace(struct gatewayworker *gw, unsigned shard, uint32_t link, struct slice uid, uint64_t bind)
{
    uint8_t packet[GW_HEAD_LEN];
    struct peer_link head = {.number = link};
    struct gw_packet p = {.cmd = CMD_REPLACE, .ext = uid, .body = HEAD(bind)};
    struct slice parts[] = {HEAD(head), {packet, sizeof packet}, p.ext, p.body};
    gw_packet_encode_head(packet, &p);
    /* At once, if there is room: what it answers may be in our ring no more if we die. */
    if (sizeof head + sizeof packet + uid.len + sizeof bind > mesh_try_max(gw->mesh) ||
        mesh_try(gw->mesh, shard, PEER_REPLACE, parts, 4) != 0)
        send_parts(gw, shard, PEER_REPLACE, parts, 4);
    if (link < gw->cap_link_table && gw->link_table[link] != NULL && peer_is_crowded(gw, shard))
        gw->link_table[link]->crowded_by |= UINT64_C(1) << shard;
}

void peer_link_gone(struct link *l)
{
    struct peer_link head = {.number = l->number};
    for (unsigned i = 0; l->visited != 0; i++, l->visited >>= 1)
        if ((l->visited & 1) != 0)
            send_head(l->gw, i, PEER_LINK_GONE, HEAD(head), (struct slice){0});
}

/* ---- workers */

static struct peer_worker worker_head(const struct worker *w)
{
    return (struct peer_worker){.since = w->since, .number = w->number, .fullness = w->fullness};
}

void peer_worker_came(struct worker *w, bool taken_over)
{
    struct peer_worker head = worker_head(w);
    send_all(w->gw, taken_over ? PEER_TAKEN : PEER_CAME, HEAD(head),
             (struct slice){(const uint8_t *)w->key, w->key_len});
    if (taken_over)
        mesh_flush(w->gw->mesh); /* now: all shards are to know it before the one that had it says LEFT */
}

void peer_worker_full(struct worker *w)
{
    struct peer_worker head = worker_head(w);
    send_all(w->gw, PEER_FULL, HEAD(head), (struct slice){0});
    mesh_flush(w->gw->mesh); /* now: in the rest of this turn they could send many times the limit */
}

void peer_fence(struct worker *w, uint32_t number)
{
    struct peer_worker head = {.since = w->since, .number = w->number, .fullness = number};
    send_head(w->gw, w->shard, PEER_FENCE, HEAD(head), (struct slice){0});
}

void peer_fenced(struct worker *w, unsigned shard, uint32_t number)
{
    struct peer_worker head = {.since = w->since, .number = w->number, .fullness = number};
    send_head(w->gw, shard, PEER_FENCED, HEAD(head), (struct slice){0});
}

static uint64_t other_shards(const struct gatewayworker *gw)
{
    uint64_t all = gw->n_shards == 64 ? UINT64_MAX : (UINT64_C(1) << gw->n_shards) - 1;
    return all & ~(UINT64_C(1) << gw->me);
}

struct leaving *peer_worker_left(struct worker *w, bool moved)
{
    struct gatewayworker *gw = w->gw;
    struct peer_worker head = worker_head(w);
    head.fullness = moved;
    if (gw_is_alone(gw))
        return NULL;
    struct leaving *v = calloc(1, sizeof *v);
    if (v == NULL) {
        LOG(LOG_ERROR, "peer_no_memory", "worker=%s", w->label);
        v = &gw->orphans; /* serves as well; only when all acks are in is not known */
    } else {
        v->number = w->number;
        v->since = w->since;
        v->acks_missing = other_shards(gw);
        link_queue_init(&v->returning, gw->up.host->estate);
        list_append(&gw->leaving, &v->node);
    }
    send_all(gw, PEER_LEFT, HEAD(head), (struct slice){0});
    return v;
}

void peer_ack_left(struct gatewayworker *gw, const struct worker *w)
{
    struct peer_worker head = worker_head(w);
    send_head(gw, w->shard, PEER_LEFT_ACK, HEAD(head), (struct slice){0});
}

/* Where what comes for that worker, which is not here any more, is put to go back. */
static struct leaving *leaving_of(struct gatewayworker *gw, const struct peer_worker *head)
{
    for (struct list *node = gw->leaving.next; node != &gw->leaving; node = node->next) {
        struct leaving *v = CONTAINER_OF(node, struct leaving, node);
        if (v->number == head->number && v->since == head->since)
            return v;
    }
    return &gw->orphans;
}

/* Behind everything that goes back to that shard by now. */
static void note_done(struct leaving *v, struct gatewayworker *gw, unsigned shard,
                      const struct peer_worker *head)
{
    uint8_t *at = link_queue_reserve(&v->returning, LINK_CHUNK_EVENTS, NOTE_LEN);
    if (at == NULL) {
        /* Better out of order than never. */
        send_head(gw, shard, PEER_LEFT_DONE, HEAD(*head), (struct slice){0});
        return;
    }
    struct gw_packet note = {.cmd = CMD_NOTE, .connection_id = (uint32_t)shard << CONNECTION_SEQ_BITS};
    note.body.len = sizeof *head;
    gw_packet_encode_head(at, &note);
    memcpy(at + GW_HEAD_LEN, head, sizeof *head);
    link_queue_commit(&v->returning);
}

/* One packet on its way back. 0 or -EAGAIN. */
static int send_back(struct gatewayworker *gw, const struct leaving *v, struct slice packet)
{
    struct peer_worker head = {.since = v->since, .number = v->number};
    unsigned to = packet_shard(gw, packet);
    struct slice parts[] = {HEAD(head), packet};
    if (packet.data[4] == CMD_NOTE) {
        parts[0] = (struct slice){packet.data + GW_HEAD_LEN, sizeof head};
        return mesh_try(gw->mesh, to, PEER_LEFT_DONE, parts, 1);
    }
    if (to >= gw->n_shards || to == gw->me)
        return 0;
    gw_count(gw, COUNTER_events_returned, 1);
    if (sizeof head + packet.len <= mesh_try_max(gw->mesh)) {
        int err = mesh_try(gw->mesh, to, PEER_RETURNED, parts, 2);
        if (err != 0)
            counter_sub(gw->up.host->counters, COUNTER_events_returned, 1);
        return err;
    }
    if (!send_to(gw, to, PEER_RETURNED, parts, 2, NULL))
        event_lost(gw, packet.data[4]);
    return 0;
}

/* False: no room to some shard. */
static bool drain_leaving(struct gatewayworker *gw, struct leaving *v)
{
    /* One that has been taken stays in the estate until the next is. */
    while (v->next.data != NULL || link_queue_take_packet(&v->returning, &v->next)) {
        if (send_back(gw, v, v->next) != 0)
            return false;
        v->next = (struct slice){0};
    }
    return true;
}

static bool is_drained(const struct leaving *v)
{
    return v->next.data == NULL && v->returning.bytes == 0;
}

static void tell_those_who_wait(struct gatewayworker *gw)
{
    for (unsigned i = 0; i < gw->n_shards; i++) {
        if (gw->peers[i].wants_to_be_told)
            send_head(gw, i, PEER_TOLD, (struct slice){0}, (struct slice){0});
        gw->peers[i].wants_to_be_told = false;
    }
}

bool peer_return_slice(struct loop_task *task)
{
    struct gatewayworker *gw = CONTAINER_OF(task, struct gatewayworker, return_task);
    bool all = drain_leaving(gw, &gw->orphans);
    for (struct list *node = gw->leaving.next; node != &gw->leaving;) {
        struct leaving *v = CONTAINER_OF(node, struct leaving, node);
        node = node->next;
        bool empty = drain_leaving(gw, v);
        all &= empty;
        if (!empty || v->acks_missing != 0)
            continue;
        list_remove(&v->node);
        link_queue_fini(&v->returning);
        free(v);
    }
    if (all)
        tell_those_who_wait(gw);
    return true; /* without room: on_room comes */
}

/* ---- a shard has died, or begins anew */

static void lose_workers_of(struct gatewayworker *gw, unsigned shard)
{
    for (uint32_t i = gw->n_workers; i-- > 0;)
        if (gw->workers[i]->link == NULL && gw->workers[i]->shard == shard)
            worker_lost(gw->workers[i], false);
    loop_task_add(gw->up.host->loop, &gw->resume_task);
}

/* Nothing of that shard keeps links any more: what it had told them (stops), what waits for it. */
static void lets_links_go_on(struct gatewayworker *gw, unsigned shard, bool stops)
{
    uint64_t bit = UINT64_C(1) << shard;
    for (uint32_t i = 0; i < gw->cap_link_table; i++) {
        struct link *l = gw->link_table[i];
        if (l == NULL || ((l->stopped_by | l->crowded_by) & bit) == 0)
            continue;
        l->crowded_by &= ~bit;
        if (stops)
            l->stopped_by &= ~bit;
        link_gathered(l);
    }
}

static void peer_died(struct gatewayworker *gw, unsigned shard)
{
    LOG(LOG_WARN, "peer_died", "shard=%u", shard);
    mesh_peer_died(gw->mesh, shard);
    lose_workers_of(gw, shard);
    gather_shard_died(gw, shard);
    replace_shard_died(gw, shard);
    lets_links_go_on(gw, shard, true);
}

static bool look_at_deaths(struct loop_hook *hook)
{
    struct gatewayworker *gw = CONTAINER_OF(hook, struct gatewayworker, deaths_hook);
    if (__builtin_expect(gw->n_awaiting > 0, 0))
        worker_look_at_awaiting(gw);
    /* Acquire: with the count, what the supervisor did before it. */
    uint32_t deaths = __atomic_load_n(&gw->shared->deaths, __ATOMIC_ACQUIRE);
    if (__builtin_expect(deaths == gw->deaths, 1))
        return false;
    gw->deaths = deaths;
    for (unsigned i = 0; i < gw->n_shards; i++) {
        uint32_t n = NODE_LOAD(gw->shared->deaths_of[i]);
        if (i == gw->me || n == gw->peers[i].deaths)
            continue;
        gw->peers[i].deaths = n;
        peer_died(gw, i);
    }
    return false;
}

/* A scale that no count on an older one can meet: by the deaths, of which more than one may have been seen
 * together. */
static uint64_t new_base(struct gatewayworker *gw)
{
    uint64_t deaths = __atomic_load_n(&gw->shared->deaths, __ATOMIC_ACQUIRE);
    return deaths << 40 | (uint64_t)(uint8_t)++gw->n_bases << 32;
}

static void want_to_be_told(struct gatewayworker *gw, unsigned from)
{
    gw->peers[from].wants_to_be_told = true;
    loop_task_add(gw->up.host->loop, &gw->return_task);
}

static void on_hello(struct gatewayworker *gw, unsigned from, uint64_t base)
{
    struct peer *peer = &gw->peers[from];
    /* It may have died and come back within one turn of ours: noticed later, its new workers would go too. */
    look_at_deaths(&gw->deaths_hook);
    lose_workers_of(gw, from);
    gather_shard_died(gw, from); /* a question that its predecessor took and did not answer */
    replace_shard_died(gw, from);
    lets_links_go_on(gw, from, true);
    for (uint32_t i = 0; i < peer->cap_stand_ins; i++)
        if (peer->stand_ins[i] != NULL)
            link_stand_in_forget(peer->stand_ins[i]);
    for (struct list *node = gw->leaving.next; node != &gw->leaving; node = node->next)
        CONTAINER_OF(node, struct leaving, node)->acks_missing &= ~(UINT64_C(1) << from);
    NODE_STORE(gw->shared->shards[gw->me].adds_done[from], base);
    struct peer_adds adds = {.base = new_base(gw)};
    peer->adds_sent = adds.base;
    send_head(gw, from, PEER_ADDS, HEAD(adds), (struct slice){0});
    for (uint32_t i = 0; i < gw->n_workers; i++) {
        struct worker *w = gw->workers[i];
        struct peer_worker head = worker_head(w);
        if (w->link != NULL)
            send_head(gw, from, PEER_CAME, HEAD(head), (struct slice){(const uint8_t *)w->key, w->key_len});
    }
    if (!peer->has_told && gw->peers[gw->me].deaths > 0)
        send_head(gw, from, PEER_TELL, (struct slice){0}, (struct slice){0});
    want_to_be_told(gw, from);
}

/* ---- receiving */

static bool is_packet(struct slice s)
{
    return s.len >= GW_HEAD_LEN && gw_get_u32(s.data) == s.len;
}

bool peer_return_orphan(struct gatewayworker *gw, struct slice packet)
{
    loop_task_add(gw->up.host->loop, &gw->return_task);
    return link_queue_append(&gw->orphans.returning, packet);
}

static void on_event(struct gatewayworker *gw, const struct peer_worker *head, struct slice packet)
{
    struct worker *w = worker_here(gw, head->number, head->since);
    bool ok;
    if (__builtin_expect(w != NULL, 1)) {
        ok = link_put_packet(w->link, packet.data, packet.len);
    } else {
        ok = link_queue_append(&leaving_of(gw, head)->returning, packet);
        loop_task_add(gw->up.host->loop, &gw->return_task);
    }
    if (!ok)
        event_lost(gw, packet.data[4]);
}

/* Whose it was. The successor of a shard that died does not know its workers, but a client that is here is
 * still bound. */
static struct worker *returned_of(struct gatewayworker *gw, unsigned from, const struct peer_worker *head,
                                  const struct upstream_client *c)
{
    struct worker *w = worker_elsewhere(gw, head->number, head->since);
    if (w == NULL && c != NULL)
        w = c->worker;
    return w != NULL && w->unsettled && w->shard == from ? w : NULL;
}

/* The shard died while it gave back: of a client that is gone, its successor gives back the later ones. */
static struct worker *with_earlier(const struct gatewayworker *gw, unsigned from, uint32_t id)
{
    for (const struct list *node = gw->gone.next; node != &gw->gone; node = node->next) {
        struct worker *w = CONTAINER_OF(node, struct worker, gone);
        if (w->unsettled && w->shard == from && seen_set_has(&w->returned_of, id))
            return w;
    }
    return NULL;
}

static bool has_unsettled(const struct gatewayworker *gw, unsigned shard)
{
    for (const struct list *node = gw->gone.next; node != &gw->gone; node = node->next) {
        const struct worker *w = CONTAINER_OF(node, struct worker, gone);
        if (w->unsettled && w->shard == shard)
            return true;
    }
    return false;
}

static bool keep_returned(struct gatewayworker *gw, unsigned from, const struct peer_worker *head,
                          struct slice packet)
{
    uint32_t id = gw_get_u32(packet.data + 17);
    struct member *m = directory_find(gw->up.host->directory, id);
    struct upstream_client *c = m != NULL ? CONTAINER_OF(m, struct upstream_client, member) : NULL;
    struct worker *w = returned_of(gw, from, head, c);
    if (w == NULL && c == NULL)
        w = with_earlier(gw, from, id);
    if (w != NULL) {
        if (id != 0)
            seen_set_add(&w->returned_of, id);
        return link_queue_append(&w->returned, packet);
    }
    if (c == NULL && succession_returned(gw, packet))
        return true;
    /* Its later events may be held for a worker of that shard; all comes back before any LEFT_DONE. */
    if (c == NULL && has_unsettled(gw, from))
        return link_queue_append(&gw->peers[from].returned, packet);
    struct link_queue one;
    link_queue_init(&one, gw->up.host->estate);
    bool ok = link_queue_append(&one, packet);
    worker_move_events(gw, &one, NULL, NULL, c == NULL);
    link_queue_fini(&one);
    return ok;
}

static void on_returned(struct gatewayworker *gw, unsigned from, const struct peer_worker *head,
                        struct slice packet)
{
    if (!keep_returned(gw, from, head, packet))
        event_lost(gw, packet.data[4]);
}

static void on_left(struct gatewayworker *gw, unsigned from, const struct peer_worker *head)
{
    struct worker *w = worker_elsewhere(gw, head->number, head->since);
    if (w != NULL && !w->is_gone) {
        if (head->fullness != 0)
            worker_left_for_another(w);
        else
            worker_lost(w, false);
        loop_task_add(gw->up.host->loop, &gw->resume_task);
    } else {
        send_head(gw, from, PEER_LEFT_ACK, HEAD(*head), (struct slice){0});
    }
}

static void on_left_ack(struct gatewayworker *gw, unsigned from, const struct peer_worker *head)
{
    struct leaving *v = leaving_of(gw, head);
    v->acks_missing &= ~(UINT64_C(1) << from);
    note_done(v, gw, from, head);
    loop_task_add(gw->up.host->loop, &gw->return_task);
}

static void on_worker(struct gatewayworker *gw, unsigned from, uint32_t type, const struct peer_worker *head,
                      struct slice rest)
{
    struct worker *w;
    switch (type) {
    case PEER_CAME:
    case PEER_TAKEN:
        worker_came(gw, from, head->number, head->since, (enum fullness)head->fullness, rest,
                    type == PEER_TAKEN);
        return;
    case PEER_LEFT: on_left(gw, from, head); return;
    case PEER_LEFT_ACK: on_left_ack(gw, from, head); return;
    case PEER_FENCE:
        w = worker_here(gw, head->number, head->since);
        if (w != NULL) /* else it will hear that it has left */
            steer_on_fence(gw, from, w, head->fullness);
        return;
    default: break;
    }
    w = worker_elsewhere(gw, head->number, head->since);
    if (w == NULL)
        return;
    if (type == PEER_LEFT_DONE) {
        worker_settled(w, &gw->peers[from].returned);
    } else if (type == PEER_FENCED) {
        if (!w->is_gone)
            steer_on_fenced(w, head->fullness);
    } else if (!w->is_gone) {
        w->fullness = (uint8_t)head->fullness;
        worker_look_at_full(w);
    }
}

static void bad_message(struct gatewayworker *gw, unsigned from, uint32_t type, size_t len)
{
    gw_count(gw, COUNTER_peer_bad_message, 1);
    LOG(LOG_ERROR, "peer_bad_message", "shard=%u type=%u bytes=%zu", from, type, len);
}

static void on_bound(struct gatewayworker *gw, unsigned from, const struct peer_link *head, struct slice rest)
{
    uint64_t bind;
    if (rest.len < sizeof bind) {
        bad_message(gw, from, PEER_BOUND, rest.len);
        return;
    }
    memcpy(&bind, rest.data, sizeof bind);
    struct slice uid = {rest.data + sizeof bind, rest.len - sizeof bind};
    replace_on_bound(gw, from, head->number, head->question, uid, bind);
}

/* l: the link's stand-in, NULL: nothing else of it has come here. */
static void on_replace(struct gatewayworker *gw, struct link *l, struct slice packet)
{
    struct gw_packet p;
    if (l != NULL)
        link_stand_in_command(l, 0, packet.data, packet.len);
    else if (gw_packet_decode(packet.data, packet.len, packet.len, &p) > 0)
        replace_execute(gw, &p);
}

static void on_link(struct gatewayworker *gw, unsigned from, uint32_t type, const struct peer_link *head,
                    struct slice rest)
{
    struct peer *peer = &gw->peers[from];
    struct link *l;
    if (type == PEER_COMMAND) {
        l = link_stand_in(gw, from, head->number);
        if (l != NULL)
            link_stand_in_command(l, head->question, rest.data, rest.len);
        else
            counter_drop(gw->up.host->counters, DROP_no_memory);
        return;
    }
    if (type == PEER_LINK_GONE || type == PEER_REPLACE) {
        l = head->number < peer->cap_stand_ins ? peer->stand_ins[head->number] : NULL;
        if (type == PEER_REPLACE)
            on_replace(gw, l, rest);
        else if (l != NULL)
            link_stand_in_forget(l);
        return;
    }
    if (type == PEER_BOUND) {
        on_bound(gw, from, head, rest);
        return;
    }
    l = head->number < gw->cap_link_table ? gw->link_table[head->number] : NULL;
    if (type == PEER_ANSWER) {
        gather_answer(l, head->question, from, head->flag, rest.data, rest.len);
    } else if (l != NULL && (l->visited >> from & 1) != 0) {
        uint64_t bit = UINT64_C(1) << from;
        l->stopped_by = head->flag ? l->stopped_by | bit : l->stopped_by & ~bit;
        if (l->stopped_by == 0)
            link_gathered(l);
    }
}

static void on_message(void *ctx, unsigned from, uint32_t type, const uint8_t *data, size_t len)
{
    struct gatewayworker *gw = ctx;
    struct slice rest = {data, len};
    struct peer_worker worker;
    struct peer_link link;
    struct peer_adds adds;
    size_t head = type == PEER_HELLO || type == PEER_ADDS          ? sizeof adds
                  : type >= PEER_CAME && type <= PEER_RETURNED     ? sizeof worker
                  : type >= PEER_COMMAND && type <= PEER_LINK_GONE ? sizeof link
                                                                   : 0;
    if (len < head) {
        bad_message(gw, from, type, len);
        return;
    }
    rest = (struct slice){data + head, len - head};
    if ((type == PEER_EVENT || type == PEER_RETURNED || type == PEER_COMMAND || type == PEER_REPLACE) &&
        !is_packet(rest)) {
        bad_message(gw, from, type, len);
        return;
    }
    switch (type) {
    case PEER_HELLO:
        memcpy(&adds, data, sizeof adds);
        on_hello(gw, from, adds.base);
        break;
    case PEER_ADDS:
        memcpy(&adds, data, sizeof adds);
        NODE_STORE(gw->shared->shards[gw->me].adds_done[from], adds.base);
        break;
    case PEER_TELL: want_to_be_told(gw, from); break;
    case PEER_TOLD:
        gw->peers[from].has_told = true;
        succession_look(gw);
        break;
    case PEER_EVENT:
        memcpy(&worker, data, sizeof worker);
        on_event(gw, &worker, rest);
        break;
    case PEER_RETURNED:
        memcpy(&worker, data, sizeof worker);
        on_returned(gw, from, &worker, rest);
        break;
    case PEER_CAME:
    case PEER_TAKEN:
    case PEER_FULL:
    case PEER_LEFT:
    case PEER_LEFT_ACK:
    case PEER_LEFT_DONE:
    case PEER_FENCE:
    case PEER_FENCED:
        memcpy(&worker, data, sizeof worker);
        on_worker(gw, from, type, &worker, rest);
        break;
    case PEER_COMMAND:
    case PEER_ANSWER:
    case PEER_BOUND:
    case PEER_REPLACE:
    case PEER_LINK_FLOW:
    case PEER_LINK_GONE:
        memcpy(&link, data, sizeof link);
        on_link(gw, from, type, &link, rest);
        break;
    default: bad_message(gw, from, type, len);
    }
}

static void on_room(void *ctx, unsigned to)
{
    struct gatewayworker *gw = ctx;
    for (uint32_t i = 0; i < gw->n_workers; i++)
        if (gw->workers[i]->link == NULL && gw->workers[i]->shard == to)
            worker_look_at_full(gw->workers[i]);
    loop_task_add(gw->up.host->loop, &gw->return_task);
    if (gw->homeless.n_events > 0)
        loop_task_add(gw->up.host->loop, &gw->unpark_task);
    lets_links_go_on(gw, to, false);
    for (uint32_t i = 0; i < gw->peers[to].cap_stand_ins; i++)
        if (gw->peers[to].stand_ins[i] != NULL)
            link_gathered(gw->peers[to].stand_ins[i]);
}

static void on_wake(void *ctx, unsigned to)
{
    struct gatewayworker *gw = ctx;
    struct upstream_host *host = gw->up.host;
    host->ops->wake(host, to);
}

static const struct mesh_ops mesh_ops = {.message = on_message, .room = on_room, .wake = on_wake};

/* ---- beginning and end */

/* The largest message: an answer over everything, past its limit by one element; or a packet. */
#define MESSAGE_MAX ((size_t)300 << 20)

int peers_open(struct gatewayworker *gw)
{
    struct upstream_host *host = gw->up.host;
    int err = 0;
    gw->me = host->shard;
    gw->n_shards = host->node->n_shards;
    gw->shared = host->node->shared;
    gw->peers = calloc(gw->n_shards, sizeof *gw->peers);
    if (gw->peers == NULL)
        return -ENOMEM;
    /* Not where a predecessor of ours began, which may still get answers. */
    gw->last_question = NODE_LOAD(gw->shared->deaths_of[gw->me]) << 24;
    gw->deaths = __atomic_load_n(&gw->shared->deaths, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < gw->n_shards; i++) {
        gw->peers[i].deaths = NODE_LOAD(gw->shared->deaths_of[i]);
        link_queue_init(&gw->peers[i].returned, host->estate);
        gw->peers[i].adds_sent = NODE_LOAD(gw->shared->shards[i].adds_done[gw->me]);
    }
    /* Numbers that a predecessor gave out. */
    for (uint32_t number = gw->me; number < NODE_WORKERS_MAX; number += gw->n_shards)
        if (gw->shared->workers[number].hash != 0)
            __atomic_store_n(&gw->shared->workers[number].hash, 0, __ATOMIC_RELAXED);
    link_queue_init(&gw->orphans.returning, host->estate);
    gw->deaths_hook.run = look_at_deaths;
    gw->return_task.run = peer_return_slice;
    loop_hook_add(host->loop, &gw->deaths_hook);
    struct mesh_options opt = {
        .me = gw->me,
        .n_shards = gw->n_shards,
        .mem = host->node->mesh,
        .ring_bytes = host->node->ring_bytes,
        .loop = host->loop,
        .counters = host->counters,
        .ops = &mesh_ops,
        .ctx = gw,
        .wake_always = host->wake_always,
        .message_max = MESSAGE_MAX + gw_config(gw)->worker_packet_size_max,
    };
    gw->mesh = mesh_new(&opt, &err);
    return err;
}

void peers_start(struct gatewayworker *gw)
{
    /* The first of its kind has nothing to ask: whatever happens is told in the rings. */
    if (!gw_is_alone(gw) && gw->peers[gw->me].deaths > 0) {
        struct peer_adds adds = {.base = new_base(gw)};
        for (unsigned i = 0; i < gw->n_shards; i++)
            gw->peers[i].adds_sent = adds.base;
        send_all(gw, PEER_HELLO, HEAD(adds), (struct slice){0});
    }
    mesh_start(gw->mesh);
    loop_task_add(gw->up.host->loop, &gw->return_task);
}

bool peers_have_all_back(const struct gatewayworker *gw)
{
    uint64_t missing = 0;
    for (struct list *node = gw->leaving.next; node != &gw->leaving; node = node->next)
        missing |= CONTAINER_OF(node, struct leaving, node)->acks_missing;
    for (unsigned i = 0; missing != 0; i++, missing >>= 1)
        if ((missing & 1) != 0 && peer_is_there(gw, i))
            return false;
    return true;
}

static const char *stand_ins_unrest(const struct peer *peer)
{
    for (uint32_t i = 0; i < peer->cap_stand_ins; i++) {
        const char *what = peer->stand_ins[i] != NULL ? link_unrest(peer->stand_ins[i]) : NULL;
        if (what != NULL)
            return what;
    }
    return NULL;
}

const char *peers_unrest(const struct gatewayworker *gw)
{
    if (!list_is_empty(&gw->leaving) || !is_drained(&gw->orphans))
        return "events for a worker that has left";
    for (unsigned i = 0; i < gw->n_shards; i++) {
        const char *what = stand_ins_unrest(&gw->peers[i]);
        if (what != NULL)
            return what;
        if (gw->peers[i].returned.bytes > 0)
            return "events that came back from another shard";
        if (gw->peers[i].wants_to_be_told)
            return "a shard that has begun anew";
    }
    return mesh_is_at_rest(gw->mesh) ? NULL : "messages between shards";
}

bool peers_are_flushed(const struct gatewayworker *gw)
{
    if (!is_drained(&gw->orphans) || mesh_has_unread(gw->mesh))
        return false;
    for (struct list *node = gw->leaving.next; node != &gw->leaving; node = node->next)
        if (!is_drained(CONTAINER_OF(node, struct leaving, node)))
            return false;
    for (unsigned i = 0; i < gw->n_shards; i++)
        if (i != gw->me && (mesh_waiting(gw->mesh, i) > 0 || gw->peers[i].returned.bytes > 0))
            return false;
    return true;
}

void peers_close(struct gatewayworker *gw)
{
    struct loop *loop = gw->up.host->loop;
    for (unsigned i = 0; gw->peers != NULL && i < gw->n_shards; i++) {
        for (uint32_t k = 0; k < gw->peers[i].cap_stand_ins; k++)
            if (gw->peers[i].stand_ins[k] != NULL)
                link_close(gw->peers[i].stand_ins[k], true);
        free(gw->peers[i].stand_ins);
        link_queue_fini(&gw->peers[i].returned);
    }
    while (!list_is_empty(&gw->leaving)) {
        struct leaving *v = CONTAINER_OF(gw->leaving.next, struct leaving, node);
        list_remove(&v->node);
        link_queue_fini(&v->returning);
        free(v);
    }
    link_queue_fini(&gw->orphans.returning);
    mesh_free(gw->mesh);
    handover_forget_late_closes(gw);
    free(gw->peers);
    loop_task_remove(loop, &gw->return_task);
    if (gw->deaths_hook.run != NULL)
        loop_hook_remove(loop, &gw->deaths_hook);
}
