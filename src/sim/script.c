// SPDX-License-Identifier: MIT
#include "sim/script.h"

#include <errno.h>
#include <stdio.h>

#include "shard/shard.h"
#include "sim/checker.h"
#include "sim/sim_client.h"
#include "sim/sim_link.h"
#include "sim/sim_message.h"
#include "sim/sim_query.h"
#include "sim/sim_upgrade.h"
#include "upstream/upstream.h"

/* ---- picking */

static struct sim_client *pick_client(struct world *w)
{
    return w->n_clients > 0 ? w->clients[world_draw(w, w->n_clients)] : NULL;
}

/* One that a worker has heard of, as a rule. */
static struct sim_client *pick_known(struct world *w)
{
    struct sim_client *c = NULL;
    for (unsigned i = 0; i < 8; i++) {
        c = pick_client(w);
        if (c != NULL && c->id != 0 && (checker_is_online(c) || i > 5))
            return c;
    }
    return c != NULL && c->id != 0 ? c : NULL;
}

static struct sim_link *pick_link(struct world *w, bool worker)
{
    for (unsigned i = 0; i < 8 && w->n_links > 0; i++) {
        struct sim_link *l = w->links[world_draw(w, w->n_links)];
        if (sim_link_is_usable(l) && (!worker || l->is_worker))
            return l;
    }
    return NULL;
}

static bool has_worker(const struct world *w, unsigned key)
{
    for (unsigned i = 0; i < w->n_links; i++)
        if (w->links[i]->is_worker && w->links[i]->key == key && w->links[i]->state != SIM_LINK_GONE)
            return true;
    return false;
}

static struct sim_shard *pick_shard(struct world *w)
{
    struct sim_shard *s = &w->node.crew->shards[world_draw(w, w->node.crew->n_shards)];
    return s->shard != NULL ? s : NULL;
}

static uint32_t draw_len(struct world *w)
{
    uint32_t least = SIM_MESSAGE_HEAD + 1;
    if (world_chance(w, 3))
        return (uint32_t)world_between(w, 10000, 100000);
    if (world_chance(w, 20))
        return (uint32_t)world_between(w, 100, 5000);
    return (uint32_t)world_between(w, least, 120);
}

/* ---- actions */

static void act_connect(struct world *w)
{
    if (w->n_clients == WORLD_CLIENTS_MAX)
        return;
    struct sim_client_plan plan = {
        .protocol = (enum config_protocol)world_draw(w, SIM_PROTOCOLS),
        .bad_handshake = world_chance(w, 5),
        .silent = world_chance(w, 5),
        .waits_for_101 = world_chance(w, 60),
    };
    sim_client_new(w, &plan);
}

static void act_send(struct world *w)
{
    struct sim_client *c = pick_client(w);
    for (uint64_t n = 1 + world_draw(w, 4); c != NULL && n > 0; n--)
        sim_client_send(c, draw_len(w));
}

static void act_ping(struct world *w)
{
    struct sim_client *c = pick_client(w);
    if (c != NULL)
        sim_client_ping(c);
}

static void act_slow_reader(struct world *w)
{
    struct sim_client *c = pick_client(w);
    if (c == NULL)
        return;
    if (c->paused)
        sim_client_resume(c);
    else
        sim_client_pause(c);
}

static void act_client_end(struct world *w)
{
    struct sim_client *c = pick_client(w);
    if (c == NULL)
        return;
    switch (world_draw(w, 8)) {
    case 0: sim_client_reset(c); break;
    case 1: sim_client_garbage(c); break;
    case 2:
    case 3: sim_client_end(c, false); break;
    default: sim_client_end(c, true);
    }
}

static void act_worker(struct world *w)
{
    unsigned key = (unsigned)world_draw(w, SIM_WORKER_KEYS);
    if (w->n_links >= WORLD_LINKS_MAX - 4 || (w->strict && has_worker(w, key)))
        return; /* two of one key: the older is replaced, hard */
    sim_worker_new(w, key);
}

static void act_worker_leave(struct world *w)
{
    struct sim_link *l = pick_link(w, true);
    if (l == NULL)
        return;
    if (!w->strict && world_chance(w, 50))
        sim_link_reset(l);
    else
        sim_link_leave(l);
}

static void act_slow_worker(struct world *w)
{
    struct sim_link *l = pick_link(w, true);
    if (l == NULL)
        return;
    if (l->paused)
        sim_link_resume(l);
    else
        sim_link_pause(l);
}

static void act_command(struct world *w)
{
    struct sim_link *l = pick_link(w, false);
    struct sim_client *c = pick_known(w);
    if (l == NULL)
        return;
    switch (world_draw(w, 24)) {
    case 0: sim_link_nonsense(l); break;
    case 1: sim_link_ungroup(l); break;
    case 2:
        if (c != NULL && world_chance(w, 40))
            sim_link_kick(l, c);
        break;
    case 3:
        if (c != NULL && world_chance(w, 30))
            sim_link_destroy(l, c);
        break;
    case 4:
    case 5: sim_link_send_to_all(l, draw_len(w)); break;
    case 6:
    case 7:
    case 8: sim_link_send_to_groups(l, draw_len(w)); break;
    case 9:
    case 10: sim_link_send_to_uids(l, draw_len(w)); break;
    case 11:
    case 12:
    case 13:
    case 14:
        if (c != NULL)
            sim_link_send_to_one(l, c, draw_len(w));
        break;
    default:
        if (c != NULL)
            sim_link_change(l, c);
    }
}

static void act_commands(struct world *w)
{
    for (uint64_t n = 1 + world_draw(w, 6); n > 0; n--)
        act_command(w);
}

/* One after the other gets the same uid, between messages to it, and behind long work. */
static void act_replace(struct world *w)
{
    struct sim_link *l = pick_link(w, false);
    unsigned k = (unsigned)world_draw(w, SIM_NAMES);
    if (l != NULL && world_chance(w, 50))
        sim_link_send_to_all(l, draw_len(w));
    for (uint64_t n = 2 + world_draw(w, 4); l != NULL && n > 0; n--) {
        struct sim_client *c = pick_known(w);
        if (c != NULL)
            sim_link_bind(l, c, k);
        if (world_chance(w, 60))
            sim_link_send_to_uids(l, draw_len(w));
        if (world_chance(w, 20))
            sim_query_ask(l);
    }
}

/* Some come at the same time, and get the same uid from several links. */
static void act_contest(struct world *w)
{
    struct sim_client_plan plan = {.protocol = PROTOCOL_WEBSOCKET};
    unsigned first = w->n_clients;
    for (uint64_t n = 2 + world_draw(w, 5); n > 0 && w->n_clients < WORLD_CLIENTS_MAX; n--)
        sim_client_new(w, &plan);
    world_run(w, world_draw(w, 500) * WORLD_MS);
    for (unsigned i = first; i < w->n_clients; i++) {
        struct sim_link *l = pick_link(w, false);
        if (l != NULL && w->clients[i]->id != 0)
            sim_link_contest(l, w->clients[i]);
    }
}

static void act_ask(struct world *w)
{
    struct sim_link *l = pick_link(w, false);
    for (uint64_t n = 1 + world_draw(w, 5); l != NULL && n > 0; n--)
        sim_query_ask(l);
}

static void act_gateway_client(struct world *w)
{
    if (w->n_links < WORLD_LINKS_MAX - 4)
        sim_gateway_client_new(w);
}

/* As a PHP script does: connect, say it, go. */
static void act_short_client(struct world *w)
{
    if (w->n_links >= WORLD_LINKS_MAX - 4)
        return;
    struct sim_link *l = sim_gateway_client_new(w);
    for (uint64_t n = 1 + world_draw(w, 3); n > 0; n--)
        sim_link_send_to_all(l, draw_len(w));
    sim_link_leave(l);
}

static void act_intruder(struct world *w)
{
    if (w->n_links < WORLD_LINKS_MAX - 4)
        sim_intruder_new(w);
}

static void act_freeze(struct world *w)
{
    struct sim_shard *s = pick_shard(w);
    struct net *of[] = {w->client_host.net, w->link_host.net, s != NULL ? s->host.net : NULL};
    unsigned who = (unsigned)world_draw(w, s != NULL ? 3 : 2);
    uint64_t ms = world_between(w, 1, 500);
    world_trace(w, "host %u stands still for %llu ms", who, (unsigned long long)ms);
    sim_net_node_freeze(of[who], ms * WORLD_MS);
}

static void act_no_descriptors(struct world *w)
{
    struct sim_shard *s = pick_shard(w);
    if (s == NULL)
        return;
    world_trace(w, "accept fails on shard %u", s->index);
    sim_net_node_fail_accepts(s->host.net, 1 + (unsigned)world_draw(w, 3), EMFILE);
}

static void kill_some(struct world *w, unsigned shard)
{
    if (w->node.deaths_left == 0 || (sim_node_has_enough(w, shard) && !world_chance(w, 5)))
        return;
    if (world_chance(w, 50))
        sim_node_kill(w, shard);
    else
        sim_node_kill_within(w, shard, 1 + (unsigned)world_draw(w, world_chance(w, 50) ? 20 : 500));
}

/* While an upgrade is under way. */
static void act_meanwhile(struct world *w)
{
    static void (*const acts[])(struct world * w) = {
        act_connect,     act_send,   act_send,     act_ping, act_slow_reader, act_client_end,
        act_slow_worker, act_worker, act_commands, act_ask,  act_contest,     act_worker_leave};
    acts[world_draw(w, sizeof acts / sizeof acts[0])](w);
}

/* Much is under way, and does not get on. (Large messages on their way between shards may come twice, or not
 * at all, when one of these dies: the more of them, the more often; so seldom where shards die.) */
static void act_crush(struct world *w)
{
    for (unsigned i = 0; i < w->n_links; i++)
        if (w->links[i]->is_worker && sim_link_is_usable(w->links[i]) && world_chance(w, 40))
            sim_link_pause(w->links[i]);
    for (unsigned i = 0; i < 4; i++)
        act_slow_reader(w);
    for (uint64_t n = world_between(w, 10, 80); n > 0; n--)
        (world_chance(w, 80) ? act_send : act_commands)(w);
    world_run(w, world_draw(w, 8) * WORLD_MS);
}

/* Sometimes one right behind the other. */
static void act_upgrade(struct world *w)
{
    if (w->node.upgrades_left > 0 && world_chance(w, w->node.deaths_left > 0 ? 4 : 40))
        act_crush(w);
    do
        sim_upgrade(w, act_meanwhile);
    while (w->node.upgrades_left > 0 && !w->failed && world_chance(w, 25));
}

static void act_death(struct world *w)
{
    struct sim_shard *s = pick_shard(w);
    if (s == NULL || w->node.deaths_left == 0)
        return;
    w->node.dies_on_start = world_chance(w, 15);
    kill_some(w, s->index);
    bool several = world_chance(w, 20);
    for (unsigned i = 0; i < w->node.crew->n_shards && several; i++)
        if (world_chance(w, 40))
            kill_some(w, i);
    if (world_chance(w, 20))
        act_upgrade(w); /* others have still to do with it */
}

/* As tgg ctl says it to all shards, one a little later than the other. */
static void drain_worker(struct world *w, unsigned key, bool on, uint32_t over_ms)
{
    char name[32];
    int len = snprintf(name, sizeof name, "127.0.0.1:w%u", key);
    world_trace(w, "worker w%u: %s over %u ms", key, on ? "drain" : "undrain", over_ms);
    for (unsigned i = 0; i < w->node.crew->n_shards; i++) {
        if (w->node.crew->shards[i].shard != NULL)
            upstream_drain_worker(shard_upstream(w->node.crew->shards[i].shard),
                                  (struct slice){(const uint8_t *)name, (size_t)len}, on, over_ms);
        if (world_chance(w, 50))
            world_run(w, world_draw(w, 5) * WORLD_MS);
    }
}

static void rebalance(struct world *w, uint32_t over_ms)
{
    world_trace(w, "rebalance over %u ms", over_ms);
    for (unsigned i = 0; i < w->node.crew->n_shards; i++) {
        if (w->node.crew->shards[i].shard != NULL)
            upstream_rebalance(shard_upstream(w->node.crew->shards[i].shard), over_ms);
        if (world_chance(w, 50))
            world_run(w, world_draw(w, 5) * WORLD_MS);
    }
}

static void act_steer(struct world *w)
{
    static const uint32_t times_ms[] = {0, 20, 500, 5000};
    uint32_t over_ms = times_ms[world_draw(w, 4)];
    if (!w->steers)
        return;
    if (world_chance(w, 40))
        rebalance(w, over_ms);
    else
        drain_worker(w, (unsigned)world_draw(w, SIM_WORKER_KEYS), world_chance(w, 60), over_ms);
}

static void act_wait(struct world *w)
{
    world_run(w, world_between(w, 200, 4000) * WORLD_MS);
}

static const struct {
    void (*act)(struct world *w);
    unsigned weight;
} actions[] = {
    {act_connect, 14},   {act_send, 30},  {act_ping, 4},           {act_slow_reader, 4},
    {act_client_end, 8}, {act_worker, 5}, {act_worker_leave, 2},   {act_slow_worker, 3},
    {act_commands, 22},  {act_ask, 10},   {act_gateway_client, 2}, {act_short_client, 2},
    {act_intruder, 1},   {act_freeze, 1}, {act_no_descriptors, 1}, {act_wait, 3},
    {act_death, 4},      {act_steer, 6},  {act_upgrade, 4},
};

static void act(struct world *w)
{
    unsigned total = 0;
    for (unsigned i = 0; i < sizeof actions / sizeof actions[0]; i++)
        total += actions[i].weight;
    if (w->config.gateway.one_connection_per_uid && world_chance(w, 15)) {
        (world_chance(w, 70) ? act_replace : act_contest)(w);
        return;
    }
    unsigned at = (unsigned)world_draw(w, total);
    unsigned i = 0;
    while (at >= actions[i].weight)
        at -= actions[i++].weight;
    actions[i].act(w);
}

/* ---- a run */

static void begin(struct world *w)
{
    w->steers = world_chance(w, 40);
    for (uint64_t n = world_draw(w, 4); n > 0; n--)
        act_worker(w);
    /* A crowd makes fan-outs and queries long enough for slices. */
    uint64_t crowd = world_chance(w, w->config.gateway.one_connection_per_uid ? 30 : 10)
                         ? world_between(w, 80, 180)
                         : world_draw(w, 10);
    for (; crowd > 0; crowd--)
        act_connect(w);
    world_run(w, world_draw(w, 100) * WORLD_MS);
}

/* Workers whose shard died connect again. */
static void come_back(struct world *w)
{
    for (unsigned i = 0; i < w->n_links && w->n_links < WORLD_LINKS_MAX - 4; i++) {
        struct sim_link *l = w->links[i];
        if (!l->bereft || l->succeeded || !l->is_worker || l->wrong || l->state != SIM_LINK_GONE ||
            l->fin_wanted || !world_chance(w, 20))
            continue;
        l->succeeded = true;
        if (!has_worker(w, l->key))
            sim_worker_new(w, l->key);
    }
}

static void play(struct world *w)
{
    uint64_t n = world_between(w, 50, 300);
    uint64_t pace_ms = 1 + world_draw(w, 60);
    for (uint64_t i = 0; i < n && !w->failed; i++) {
        act(w);
        come_back(w);
        if (world_chance(w, 60))
            world_run(w, world_draw(w, pace_ms * WORLD_MS));
        if (i % 16 == 0)
            checker_running(w);
    }
}

static void everybody_reads(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++)
        sim_client_resume(w->clients[i]);
    for (unsigned i = 0; i < w->n_links; i++)
        sim_link_resume(w->links[i]);
}

/* By clients and workers, so far. */
static uint64_t bytes_read(struct world *w)
{
    struct net_stats clients, links;
    net_stats_get(w->client_host.net, &clients);
    net_stats_get(w->link_host.net, &links);
    return clients.read_bytes + links.read_bytes;
}

/* Clients that come one after another go to the worker with the least. */
static void try_the_choice(struct world *w)
{
    struct sim_client_plan plan = {.protocol = PROTOCOL_TEXT};
    for (unsigned i = 0; i < 3 && !w->failed && w->n_clients < WORLD_CLIENTS_MAX; i++) {
        struct sim_load before;
        checker_load(w, &before);
        struct sim_client *c = sim_client_new(w, &plan);
        world_run(w, WORLD_S);
        checker_chosen(w, c, &before);
    }
}

/* Shards that move clients at the same moment can leave one too many somewhere: then once more. */
static void try_to_rebalance(struct world *w)
{
    struct sim_load load;
    for (unsigned tries = 0; tries < 2; tries++) {
        unsigned most = 0;
        checker_load(w, &load);
        uint64_t before_sum = load.sum;
        rebalance(w, 500);
        world_run(w, 5 * WORLD_S);
        checker_load(w, &load);
        for (unsigned k = 0; k < w->n_links; k++)
            if (load.of[k] != UINT32_MAX && load.of[k] > most)
                most = load.of[k];
        if (most <= load.least + 1 || load.sum != before_sum) /* or somebody has left since */
            return;
        world_trace(w, "rebalanced, and one worker has %u clients, another one %u", most, load.least);
    }
    world_fail(w, "rebalanced twice, and not all workers have the same");
}

/* Everybody goes to others when one drains; then all have the same. */
static void try_to_steer(struct world *w)
{
    struct sim_load load;
    unsigned n = 0, one = WORLD_LINKS_MAX;
    for (unsigned k = 0; k <= SIM_WORKER_KEYS; k++)
        drain_worker(w, k, false, 0);
    checker_load(w, &load);
    for (unsigned k = 0; k < w->n_links; k++) {
        n += load.of[k] != UINT32_MAX;
        if (load.of[k] != UINT32_MAX && (one == WORLD_LINKS_MAX || world_chance(w, 50)))
            one = k;
    }
    if (n < 2)
        return;
    drain_worker(w, w->links[one]->key, true, 500);
    world_run(w, 5 * WORLD_S);
    checker_load(w, &load);
    if (load.of[one] != 0)
        world_fail(w, "link %u drains and has still %u clients", one, load.of[one]);
    checker_running(w);
    drain_worker(w, w->links[one]->key, false, 0);
    if (w->config.gateway.router != ROUTER_CLIENT_HASH)
        try_to_rebalance(w);
    checker_running(w);
}

static void act_nothing(struct world *w)
{
}

static void settle(struct world *w)
{
    everybody_reads(w);
    sim_node_calm(w);
    if (w->node.deaths > 0)
        world_run(w, 2 * WORLD_S); /* until all have heard of the last death */
    sim_upgrade(w, act_nothing);
    bool some = false;
    for (unsigned i = 0; i < w->n_links; i++)
        some = some || (w->links[i]->is_worker && sim_link_is_usable(w->links[i]));
    if (!some || !w->strict)
        sim_worker_new(w, SIM_WORKER_KEYS); /* a key of its own: it replaces nobody */
    uint64_t before;
    unsigned rounds = 0;
    do { /* slow wires may need long for what is queued */
        before = bytes_read(w);
        world_run(w, 20 * WORLD_S);
    } while (bytes_read(w) - before > 20000 && ++rounds < 20);
    checker_running(w);
    checker_settled(w);
    if (w->steers && w->strict)
        try_to_steer(w);
    if (w->config.gateway.router == ROUTER_LEAST_CONNECTIONS && w->strict)
        try_the_choice(w);
}

static bool is_empty(struct world *w)
{
    return sim_node_connections(w) == 0;
}

static bool is_drained(struct world *w)
{
    bool all = true;
    for (unsigned i = 0; i < w->node.crew->n_shards; i++) {
        if (w->node.crew->shards[i].shard == NULL)
            continue;
        if (shard_is_drained(w->node.crew->shards[i].shard))
            sim_node_stop(w, i); /* as its process does */
        else
            all = false;
    }
    return all;
}

static void end_clients(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++)
        sim_client_end(w->clients[i], world_chance(w, 50));
    world_run_until(w, is_empty, 100 * WORLD_S);
}

static void drain(struct world *w)
{
    world_trace(w, "drain");
    w->draining = true;
    NODE_STORE(w->node.crew->node.shared->draining, 1); /* the supervisor: all of them together */
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        shard_drain(w->node.crew->shards[i].shard);
    if (!world_run_until(w, is_drained, 100 * WORLD_S))
        world_fail(w, "not drained: %u connections", sim_node_connections(w));
}

static void end(struct world *w)
{
    uint64_t how = world_draw(w, 4);
    if (w->failed || how == 0) {
        sim_node_stop_all(w);
        world_run(w, 2 * WORLD_S);
        return;
    }
    if (how != 1)
        end_clients(w);
    if (!w->failed && (how == 1 || sim_node_connections(w) > 0)) {
        if (how != 1 && w->strict)
            world_fail(w, "%u connections are left when all clients ended", sim_node_connections(w));
        drain(w);
    }
    world_run(w, 10 * WORLD_S);
    checker_running(w);
    checker_ended(w);
    sim_node_stop_all(w);
    world_run(w, 2 * WORLD_S);
}

void script_run(struct world *w)
{
    begin(w);
    if (!w->failed)
        play(w);
    if (!w->failed)
        settle(w);
    end(w);
}
