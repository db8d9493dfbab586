// SPDX-License-Identifier: MIT
#include "sim/sim_upgrade.h"

#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/assert.h"
#include "base/list.h"
#include "session/directory.h"
#include "shard/shard.h"
#include "shard/transfer.h"
#include "sim/checker.h"
#include "sim/sim_client.h"
#include "sim/world.h"
#include "transfer/transfer.h"
#include "upstream/upstream.h"

/* The supervisor's patience, with what was begun and with a shard that was quiet and is not any more. */
#define REST_NS    (2 * WORLD_S)
#define REST_TRIES 5
#define IMPORT_NS  (10 * WORLD_S)
#define STOPPED_NS (3600 * WORLD_S)
/* transfer_client.state of one that was counted as closed. */
#define STATE_CLOSING 4

/* What one shard hands over to one other, in one phase. */
struct run {
    struct bytes records;
    struct slice left; /* of records, to be imported */
    int *handles;      /* of each record */
    uint32_t n, cap, at;
};

/* Where it may be given up. */
enum step {
    STEP_AT_REST,
    STEP_STARTED,
    STEP_LINKS_COMING,
    STEP_LINKS,
    STEP_CLIENTS_COMING,
    STEP_CLIENTS,
    STEP_NEVER,
};

struct upgrade {
    struct transfer_sink sink; /* first; of the shard plan.me */
    struct world *w;
    void (*meanwhile)(struct world *w);
    struct sim_crew *old, *new; /* new: NULL before there is one */
    struct transfer_plan plan;
    enum step give_up_at;
    struct run runs[SIM_SHARDS_MAX][SIM_SHARDS_MAX]; /* from, to */
    uint64_t open[SIM_SHARDS_MAX]; /* clients that come to each new shard, and are not counted as closed */
};

/* ---- other things happen */

static bool has_stopped(const struct sim_shard *s)
{
    return s->host.net != NULL && sim_net_node_has_stopped(s->host.net);
}

static void others_act(struct upgrade *u)
{
    struct world *w = u->w;
    if (world_chance(w, 50))
        return;
    if (world_chance(w, 40))
        u->meanwhile(w);
    world_run(w, world_draw(w, 3 * WORLD_MS));
}

/* False: that is enough, the old ones go on. */
static bool goes_on(struct upgrade *u, enum step at)
{
    if (u->w->failed)
        return false;
    if (at == u->give_up_at) {
        world_trace(u->w, "upgrade: given up at step %u", at);
        return false;
    }
    others_act(u);
    for (unsigned i = 0; u->new != NULL &&i < u->new->n_shards; i++) {
        if (has_stopped(&u->new->shards[i])) {
            world_trace(u->w, "upgrade: new shard %u has died", i);
            return false;
        }
    }
    return !u->w->failed;
}

/* In some order. */
static struct sim_shard *shard_in_turn(struct world *w, struct sim_crew *crew, unsigned i, unsigned first)
{
    return &crew->shards[(first + i) % crew->n_shards];
}

static unsigned draw_first(struct world *w, const struct sim_crew *crew)
{
    return (unsigned)world_draw(w, crew->n_shards);
}

/* ---- hold, and rest */

static void hold(struct upgrade *u)
{
    struct world *w = u->w;
    unsigned first = draw_first(w, u->old);
    for (unsigned i = 0; i < u->old->n_shards && !w->failed; i++) {
        struct sim_shard *s = shard_in_turn(w, u->old, i, first);
        if (s->shard == NULL || has_stopped(s))
            continue;
        shard_hold(s->shard, true);
        s->held = true;
        others_act(u);
    }
}

static void thaw(struct upgrade *u)
{
    struct world *w = u->w;
    unsigned first = draw_first(w, u->old);
    w->node.in_transfer = false;
    for (unsigned i = 0; i < u->old->n_shards; i++)
        if (u->old->shards[i].host.net != NULL)
            sim_net_node_freeze(u->old->shards[i].host.net, 0);
    for (unsigned i = 0; i < u->old->n_shards && !w->failed; i++) {
        struct sim_shard *s = shard_in_turn(w, u->old, i, first);
        if (s->shard == NULL || has_stopped(s) || !s->held)
            continue; /* its successor was never held */
        shard_hold(s->shard, false);
        s->held = false;
        others_act(u);
    }
}

/* Nobody has died, or begun anew, since. */
static bool all_held(const struct world *w)
{
    for (unsigned i = 0; i < w->node.crew->n_shards; i++) {
        const struct sim_shard *s = &w->node.crew->shards[i];
        if (s->shard == NULL || !s->held || has_stopped(s))
            return false;
    }
    return true;
}

static const char *unrest(const struct world *w)
{
    const char *what = NULL;
    for (unsigned i = 0; i < w->node.crew->n_shards && what == NULL; i++)
        what = shard_unrest(w->node.crew->shards[i].shard);
    return what;
}

static bool rests_or_never_will(struct world *w)
{
    return !all_held(w) || unrest(w) == NULL;
}

/* One after the other: what one has still sent may reach another that was quiet. */
static void stop_turns(struct upgrade *u, bool on)
{
    unsigned first = draw_first(u->w, u->old);
    for (unsigned i = 0; i < u->old->n_shards; i++) {
        struct sim_shard *s = shard_in_turn(u->w, u->old, i, first);
        if (s->host.net != NULL)
            sim_net_node_freeze(s->host.net, on ? STOPPED_NS : 0);
        if (on)
            others_act(u);
    }
}

static bool come_to_rest(struct upgrade *u)
{
    struct world *w = u->w;
    for (unsigned i = 0; i < REST_TRIES && !w->failed; i++) {
        world_run_until(w, rests_or_never_will, REST_NS);
        if (!all_held(w))
            break;
        stop_turns(u, true);
        if (!all_held(w))
            break;
        if (unrest(w) == NULL)
            return !w->failed;
        stop_turns(u, false);
    }
    world_trace(w, "upgrade: no rest: %s", all_held(w) ? unrest(w) : "a shard has died");
    return false;
}

/* ---- records */

static int sink_put(struct transfer_sink *sink, unsigned to, struct slice record, int handle)
{
    struct upgrade *u = CONTAINER_OF(sink, struct upgrade, sink);
    ASSERT(to < u->new->n_shards);
    struct run *r = &u->runs[u->plan.me][to];
    if (!bytes_append(&r->records, record.data, record.len) ||
        !array_reserve_one(&r->handles, r->n, &r->cap, 16))
        return -1;
    r->handles[r->n++] = handle;
    return 0;
}

static void runs_clear(struct upgrade *u)
{
    for (unsigned from = 0; from < SIM_SHARDS_MAX; from++)
        for (unsigned to = 0; to < SIM_SHARDS_MAX; to++) {
            struct run *r = &u->runs[from][to];
            bytes_fini(&r->records);
            free(r->handles);
            *r = (struct run){0};
        }
}

static bool export_all(struct upgrade *u, unsigned phase)
{
    struct world *w = u->w;
    runs_clear(u);
    u->plan.first_link = 0;
    for (unsigned i = 0; i < u->old->n_shards; i++) {
        struct shard_exported count = {0};
        u->plan.me = i;
        int err = shard_export(u->old->shards[i].shard, phase, &u->plan, &u->sink, &count);
        if (err != 0 || count.left_out != 0) {
            world_fail(w, "shard %u, export %u: %s, %llu left out", i, phase, strerror(-err),
                       (unsigned long long)count.left_out);
            return false;
        }
        u->plan.first_link += (unsigned)count.links;
    }
    for (unsigned from = 0; from < SIM_SHARDS_MAX; from++)
        for (unsigned to = 0; to < SIM_SHARDS_MAX; to++)
            u->runs[from][to].left =
                (struct slice){u->runs[from][to].records.data, u->runs[from][to].records.len};
    return true;
}

static void note_client(struct upgrade *u, unsigned to, const struct transfer_client *t)
{
    struct sim_carried *n = &u->w->node.carried;
    u->open[to] += t->state != STATE_CLOSING;
    n->clients++;
    n->client_out += t->out.len > 0;
    n->client_in += t->raw.len > 0;
    n->ws_decoder += t->ws_decoder.len > 0;
    n->message += t->message.len > 0;
    n->paused += (t->flags & TRANSFER_READ_PAUSED) != 0;
    n->parked += t->parked.len > 0;
    n->closing += t->state == STATE_CLOSING;
    n->young += t->id == 0;
}

static void note(struct upgrade *u, unsigned to, const struct transfer_record *r)
{
    struct sim_carried *n = &u->w->node.carried;
    struct transfer_client client;
    struct transfer_link link;
    struct transfer_worker worker;
    if (r->type == TRANSFER_TYPE_client && transfer_get_client(r->fields, &client) == 0)
        note_client(u, to, &client);
    if (r->type == TRANSFER_TYPE_link && transfer_get_link(r->fields, &link) == 0) {
        n->links++;
        n->link_in += link.in.len > 0;
        n->link_out += link.out.len > 0;
    }
    if (r->type == TRANSFER_TYPE_worker && transfer_get_worker(r->fields, &worker) == 0)
        n->gone_workers += worker.gone != 0;
    n->homeless += r->type == TRANSFER_TYPE_homeless;
}

/* A record in memory of its own, which is gone when it was taken. */
static bool import_one(struct upgrade *u, unsigned from, unsigned to)
{
    struct run *run = &u->runs[from][to];
    struct transfer_record r;
    const char *why = NULL;
    int err = transfer_next(&run->left, &r);
    ASSERT(err == 1 && run->at < run->n);
    uint8_t *copy = malloc(r.fields.len + 1);
    ASSERT(copy != NULL);
    memcpy(copy, r.fields.data, r.fields.len);
    r.fields.data = copy;
    r.handle = run->handles[run->at++];
    note(u, to, &r);
    err = shard_import(u->new->shards[to].shard, from, &r, &why);
    free(copy);
    if (err == 0)
        return true;
    world_trace(u->w, "upgrade: shard %u refuses a record of type %u: %s", to, r.type, why);
    if (u->new->node.max_clients >= WORLD_CLIENTS_MAX)
        world_fail(u->w, "shard %u refuses a record of type %u of shard %u: %s", to, r.type, from, why);
    return false; /* there may be more clients than it may have */
}

/* Records of different senders come as it happens, those of one in order. */
static bool import_all(struct upgrade *u, enum step at)
{
    struct world *w = u->w;
    unsigned n = u->old->n_shards * u->new->n_shards, done = 0;
    unsigned give_up_after = (unsigned)world_draw(w, 2 * n + 1);
    for (unsigned rounds = 0; done < n; rounds++) {
        unsigned k = (unsigned)world_draw(w, n);
        unsigned from = k % u->old->n_shards, to = k / u->old->n_shards;
        while (u->runs[from][to].left.len == 0) { /* the next that has some */
            k = (k + 1) % n;
            from = k % u->old->n_shards;
            to = k / u->old->n_shards;
        }
        for (uint64_t some = 1 + world_draw(w, 20); some > 0 && u->runs[from][to].left.len > 0; some--)
            if (!import_one(u, from, to))
                return false;
        done += u->runs[from][to].left.len == 0;
        if (!goes_on(u, rounds >= give_up_after ? at : STEP_NEVER + 1))
            return false;
    }
    return goes_on(u, at);
}

/* ---- what was taken over is what was there */

static uint64_t count_of(const struct sim_crew *crew, unsigned id)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < crew->n_shards; i++)
        n += counter_get(&crew->shards[i].shm.counters, (enum counter_id)id);
    return n;
}

static uint64_t closes_of(const struct sim_shard *s)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < CLOSE_REASON_N; i++)
        n += counter_close_get(&s->shm.counters, (enum close_reason)i);
    return n;
}

/* What taking over itself counts, and what the new shards have said to each other. */
static bool counts_by_itself(unsigned id)
{
    return id == COUNTER_clients_taken_over || id == COUNTER_links_taken_over ||
           strncmp(counter_infos[id].name, "mesh_", 5) == 0;
}

static void check_counters(struct upgrade *u)
{
    for (unsigned id = 0; id < COUNTER_N; id++) {
        uint64_t before = count_of(u->old, id), now = count_of(u->new, id);
        if (counter_infos[id].kind != COUNTER_KIND_GAUGE &&
            (now < before || (now != before && !counts_by_itself(id))))
            world_fail(u->w, "upgrade: %s was %llu and is %llu", counter_infos[id].name,
                       (unsigned long long)before, (unsigned long long)now);
    }
}

/* A shard that took over has not counted the beginning of those whose end it counts, and the other way
 * round. */
static void check_open(struct upgrade *u)
{
    uint64_t lost_before = 0, lost = 0;
    for (unsigned i = 0; i < u->old->n_shards; i++)
        lost_before += u->old->shards[i].lost;
    for (unsigned i = 0; i < u->new->n_shards; i++) {
        struct sim_shard *s = &u->new->shards[i];
        s->lost = counter_get(&s->shm.counters, COUNTER_client_accepted) - closes_of(s) - u->open[i];
        lost += s->lost;
    }
    if (lost != lost_before)
        world_fail(u->w, "upgrade: %lld clients more have no end", (long long)(lost_before - lost));
}

static void check_members(struct upgrade *u)
{
    uint64_t before = 0, now = 0, clients_before = 0, clients = 0;
    for (unsigned i = 0; i < u->old->n_shards; i++) {
        before += directory_count(shard_directory(u->old->shards[i].shard));
        clients_before += shard_connections(u->old->shards[i].shard);
    }
    for (unsigned i = 0; i < u->new->n_shards; i++) {
        now += directory_count(shard_directory(u->new->shards[i].shard));
        clients += shard_connections(u->new->shards[i].shard);
    }
    if (now != before || clients != clients_before)
        world_fail(u->w, "upgrade: of %llu members and %llu clients came %llu and %llu",
                   (unsigned long long)before, (unsigned long long)clients_before, (unsigned long long)now,
                   (unsigned long long)clients);
    for (unsigned i = 0; i < u->w->n_clients; i++) {
        const struct sim_client *c = u->w->clients[i];
        unsigned home = node_home_of(&u->new->node.shared->home, c->id);
        if (checker_is_online(c) &&
            (home >= u->new->n_shards ||
             directory_find(shard_directory(u->new->shards[home].shard), c->id) == NULL))
            world_fail(u->w, "upgrade: client %u (%u) is not in shard %u", i, c->id, home);
    }
}

static void check_taken_over(struct upgrade *u)
{
    check_counters(u);
    check_open(u);
    check_members(u);
    for (unsigned i = 0; i < u->new->n_shards; i++)
        checker_shard(u->w, &u->new->shards[i]);
}

/* ---- the new crew */

static bool start_new(struct upgrade *u)
{
    struct world *w = u->w;
    unsigned n = world_chance(w, 40) ? u->old->n_shards : (unsigned)world_between(w, 1, SIM_SHARDS_MAX);
    u->new = w->node.new_crew = sim_crew_new(w, n, u->old);
    u->plan = (struct transfer_plan){.n_shards = n,
                                     .edges = u->new->edges,
                                     .links = u->new->links,
                                     .home = u->new->node.shared->home.shard,
                                     .same = n == u->old->n_shards && u->new->edges == u->old->edges &&
                                             u->new->links == u->old->links};
    world_trace(w, "upgrade: %u shards (edges %llx, links %llx) follow %u", n,
                (unsigned long long)u->new->edges, (unsigned long long)u->new->links, u->old->n_shards);
    unsigned first = draw_first(w, u->new);
    for (unsigned i = 0; i < n; i++) {
        sim_crew_start(shard_in_turn(w, u->new, i, first), true);
        if (!goes_on(u, STEP_NEVER + 1))
            return false;
    }
    if (world_chance(w, 15))
        sim_net_node_stop_within(u->new->shards[world_draw(w, n)].host.net, 1 + (unsigned)world_draw(w, 300));
    return goes_on(u, STEP_STARTED);
}

static bool links_are_known(struct world *w)
{
    const struct sim_crew *new = w->node.new_crew;
    bool all = true;
    for (unsigned i = 0; i < new->n_shards; i++) {
        if (has_stopped(&new->shards[i]))
            return true; /* it never will */
        all = all && shard_has_imported(new->shards[i].shard, 1, w->node.crew->n_shards);
    }
    return all;
}

static bool clients_are_there(struct upgrade *u)
{
    for (unsigned i = 0; i < u->new->n_shards; i++)
        if (!shard_has_imported(u->new->shards[i].shard, 2, u->old->n_shards)) {
            world_fail(u->w, "upgrade: shard %u does not know that it has all clients", i);
            return false;
        }
    return true;
}

static bool transfer(struct upgrade *u)
{
    struct world *w = u->w;
    if (!goes_on(u, STEP_AT_REST) || !start_new(u))
        return false;
    if (!export_all(u, 1) || !import_all(u, STEP_LINKS_COMING))
        return false;
    if (!world_run_until(w, links_are_known, IMPORT_NS)) {
        world_fail(w, "upgrade: the new shards do not get to know all workers");
        return false;
    }
    if (!goes_on(u, STEP_LINKS) || !export_all(u, 2) || !import_all(u, STEP_CLIENTS_COMING))
        return false;
    if (!clients_are_there(u) || !goes_on(u, STEP_CLIENTS))
        return false;
    check_taken_over(u);
    return !w->failed;
}

/* ---- the end: one way or the other */

static void end_in_order(struct sim_shard *s)
{
    shard_forget(s->shard);
    shard_free(s->shard);
    s->shard = NULL;
    s->held = false;
    sim_host_close(&s->host);
}

static void stats_add(struct world *w, const struct sim_shard *s)
{
    struct loop_stats stats;
    loop_stats_get(s->host.loop, &stats);
    w->node.stats.turns += stats.turns;
    w->node.stats.turns_over_budget += stats.turns_over_budget;
}

/* What their processes do is _exit; in order, so that it is seen whether anything is left of what they had.
 */
static void old_ones_leave(struct upgrade *u)
{
    struct world *w = u->w;
    bool in_order = world_chance(w, 50);
    unsigned first = draw_first(w, u->old);
    for (unsigned i = 0; i < u->old->n_shards; i++) {
        struct sim_shard *s = shard_in_turn(w, u->old, i, first);
        stats_add(w, s);
        if (in_order)
            end_in_order(s);
        else
            sim_shard_vanish(s, SIM_NET_DEATH_PROCESS);
    }
    sim_crew_free(u->old);
    u->old = NULL;
}

static void new_one_serves(struct upgrade *u, struct sim_shard *s)
{
    if (s->shard == NULL || has_stopped(s) || !s->held)
        return; /* it has died already: its successor was never held */
    shard_import_done(s->shard);
    shard_hold(s->shard, false);
    s->held = false;
    others_act(u);
}

/* With what it has just got. */
static void kill_soon(struct world *w)
{
    unsigned shard = (unsigned)world_draw(w, w->node.crew->n_shards);
    if (w->node.deaths_left == 0 || !world_chance(w, 40))
        return;
    if (world_chance(w, 50))
        sim_node_kill_within(w, shard, 1 + (unsigned)world_draw(w, 100));
    else
        w->node.crew->shards[shard].kill_at_ns = sim_net_now_ns(w->net) + world_draw(w, 20 * WORLD_MS);
}

static void commit(struct upgrade *u)
{
    struct world *w = u->w;
    world_trace(w, "upgrade: committed");
    checker_crew_leaves(w);
    old_ones_leave(u);
    w->node.crew = u->new;
    w->node.new_crew = NULL;
    w->node.in_transfer = false;
    w->node.upgrades++;
    for (unsigned i = 0; i < u->new->n_shards && w->node.deaths_left == 0; i++)
        sim_net_node_stop_within(u->new->shards[i].host.net, 0);
    kill_soon(w);
    unsigned first = draw_first(w, u->new);
    for (unsigned i = 0; i < u->new->n_shards && !w->failed; i++)
        new_one_serves(u, shard_in_turn(w, u->new, i, first));
}

static void new_ones_end(struct upgrade *u)
{
    struct world *w = u->w;
    for (unsigned i = 0; u->new != NULL &&i < u->new->n_shards; i++) {
        struct sim_shard *s = &u->new->shards[i];
        if (s->shard == NULL)
            sim_host_close(&s->host);
        else if (has_stopped(s) || !w->node.in_transfer || world_chance(w, 50))
            sim_shard_vanish(s,
                             SIM_NET_DEATH_LUCKY); /* an old one that has died meanwhile leaves it the last */
        else
            end_in_order(s);
        others_act(u);
    }
    if (u->new != NULL)
        sim_crew_free(u->new);
    u->new = w->node.new_crew = NULL;
}

static void give_up(struct upgrade *u)
{
    u->w->node.upgrades_given_up++;
    if (world_chance(u->w, 50)) {
        thaw(u);
        new_ones_end(u);
    } else {
        new_ones_end(u);
        thaw(u);
    }
    u->w->node.in_transfer = false;
}

/* ---- all of it */

static bool all_run(struct world *w)
{
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        if (w->node.crew->shards[i].shard == NULL)
            return false;
    return true;
}

void sim_upgrade(struct world *w, void (*meanwhile)(struct world *w))
{
    if (w->node.upgrades_left == 0 || w->failed)
        return;
    if (!all_run(w) && world_chance(w, 80) && !world_run_until(w, all_run, WORLD_S))
        return;
    struct upgrade *u = calloc(1, sizeof *u);
    ASSERT(u != NULL);
    *u = (struct upgrade){.sink.put = sink_put, .w = w, .meanwhile = meanwhile, .old = w->node.crew};
    u->give_up_at = world_chance(w, 35) ? (enum step)world_draw(w, STEP_NEVER) : STEP_NEVER;
    world_trace(w, "upgrade: hold");
    hold(u);
    if (come_to_rest(u)) {
        w->node.upgrades_left--;
        w->node.in_transfer = true;
        if (transfer(u))
            commit(u);
        else
            give_up(u);
    } else {
        w->node.upgrades_unrest++;
        thaw(u);
    }
    runs_clear(u);
    free(u);
}
