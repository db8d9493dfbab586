// SPDX-License-Identifier: MIT
#include "sim/sim_node.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sanitizer/asan_interface.h> /* its macros do nothing without it */

#include "base/assert.h"
#include "estate/estate.h"
#include "mesh/mesh.h"
#include "shard/shard.h"
#include "sim/sim_client.h"
#include "sim/sim_link.h"
#include "sim/world.h"

#define ESTATE_HEAP ((size_t)2 << 20)

/* ---- processes */

void sim_host_open(struct world *w, struct sim_host *h, uint64_t turn_ns_max)
{
    struct loop_clock clock = sim_net_clock(w->net);
    h->loop = loop_new(&clock, turn_ns_max);
    ASSERT(h->loop != NULL);
    h->net = sim_net_node(w->net, h->loop);
    ASSERT(h->net != NULL);
}

void sim_host_close(struct sim_host *h)
{
    if (h->net == NULL)
        return;
    net_free(h->net);
    loop_free(h->loop);
    *h = (struct sim_host){0};
}

/* What belonged to processes that were killed. */
static struct grave {
    struct grave *next;
    struct shard *shard;
    struct loop *loop;
} * graves;

static void entomb(struct sim_shard *s)
{
    struct grave *g = malloc(sizeof *g);
    ASSERT(g != NULL);
    *g = (struct grave){graves, s->shard, s->host.loop};
    graves = g;
    s->w->node.has_entombed = true;
}

/* ---- memory that outlives them */

static void *map_shared(size_t len)
{
    void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(mem != MAP_FAILED);
    ASAN_UNPOISON_MEMORY_REGION(mem, len); /* as another mapping may have left it */
    return mem;
}

static void map_node(struct world *w, struct node *n, unsigned n_shards)
{
    n->n_shards = n_shards;
    n->max_clients = world_chance(w, 10) ? 20 : WORLD_CLIENTS_MAX + 44;
    n->shared = node_shared_new();
    ASSERT(n->shared != NULL);
    n->ring_bytes = (size_t)(world_chance(w, 50) ? 64 : 1024) << 10;
    n->mesh = map_shared(mesh_bytes(n->n_shards, n->ring_bytes));
    n->estate_heap_bytes = ESTATE_HEAP;
    n->estate_bytes = estate_bytes(n->max_clients, n->estate_heap_bytes);
    for (unsigned i = 0; i < n->n_shards; i++)
        n->estates[i] = map_shared(n->estate_bytes);
}

static void unmap_node(struct node *n)
{
    munmap(n->mesh, mesh_bytes(n->n_shards, n->ring_bytes));
    for (unsigned i = 0; i < n->n_shards; i++)
        munmap(n->estates[i], n->estate_bytes);
    node_shared_free(n->shared);
}

static void bind_listeners(struct world *w)
{
    struct sim_node *n = &w->node;
    struct net_addr addr = {.family = AF_INET};
    for (unsigned i = 0; i < w->config.n_listeners; i++) {
        addr.port = (uint16_t)w->config.listen[i].port;
        n->listeners[i] = (struct settings_listener){
            .slot = (uint16_t)i, .socket = i + 1, .fd = sim_net_bind(w->net, &addr, 1024)};
        ASSERT(n->listeners[i].fd >= 0);
    }
    addr.port = (uint16_t)w->config.gateway.start_port;
    n->internal_fd = sim_net_bind(w->net, &addr, 1024);
    ASSERT(n->internal_fd >= 0);
}

/* ---- start */

/* A shard shows something to another one: if it dies now, the other has it already. */
static void wake(void *ctx, unsigned shard)
{
    struct sim_shard *s = ctx;
    struct sim_shard *other = &s->crew->shards[shard];
    if (other->host.net != NULL)
        sim_net_node_poke(other->host.net);
    sim_net_node_call(s->host.net);
}

/* Also of shards that there were only before: their ids are to be kept. */
static struct shard_shm *shm_of(void *ctx, unsigned shard)
{
    struct sim_shard *s = ctx;
    return shard < SIM_SHARDS_MAX ? &s->crew->shards[shard].shm : NULL;
}

void sim_crew_start(struct sim_shard *s, bool takes_over)
{
    struct world *w = s->w;
    struct sim_node *n = &w->node;
    int err = 0;
    s->start_at_ns = 0;
    s->held = takes_over;
    counters_clear_gauges(&s->shm.counters);
    sim_host_open(w, &s->host, w->config.gateway.turn_max * WORLD_MS);
    struct shard_options opt = {
        .config = &w->config,
        .node = &s->crew->node,
        .loop = s->host.loop,
        .net = s->host.net,
        .shm = &s->shm,
        .is_edge = (s->crew->edges >> s->index & 1) != 0,
        .is_link = (s->crew->links >> s->index & 1) != 0,
        .listeners = n->bound ? n->listeners : NULL,
        .internal_fd = n->bound ? n->internal_fd : -1,
        .seed = w->seed + s->index + 100 * s->deaths,
        .wake = wake,
        .wake_ctx = s,
        .shm_of = shm_of,
        .takes_over = takes_over,
        .wake_always = true,
    };
    s->shard = shard_new(&opt, &err);
    if (s->shard == NULL)
        world_fail(w, "shard_new of shard %u: %s", s->index, strerror(-err));
}

static void start_successor(struct sim_shard *s)
{
    struct sim_node *n = &s->w->node;
    world_trace(s->w, "shard %u starts again", s->index);
    sim_crew_start(s, false);
    if (n->deaths_left == 0 || s->shard == NULL || sim_node_has_enough(s->w, s->index))
        return;
    /* In the middle of what its predecessors have left to be done. */
    if (n->dies_on_start || world_chance(s->w, 20)) {
        if (world_chance(s->w, 70))
            sim_node_kill_within(s->w, s->index, 1 + (unsigned)world_draw(s->w, 60));
        else
            s->kill_at_ns = sim_net_now_ns(s->w->net) + world_draw(s->w, 30 * WORLD_MS);
    }
}

/* What the developer wants to see. */
static unsigned from_env(const char *name, unsigned otherwise, unsigned min, unsigned max)
{
    const char *text = getenv(name);
    unsigned long n = text != NULL ? strtoul(text, NULL, 10) : otherwise;
    return n < min ? min : n > max ? max : (unsigned)n;
}

/* Ids of shards that are no more go on where they stopped, should there be such shards again. */
static void keep_ids(struct sim_crew *crew, const struct sim_crew *before)
{
    for (unsigned i = before->n_shards; i < SIM_SHARDS_MAX; i++)
        crew->shards[i].shm = before->shards[i].shm;
}

/* Mostly everybody does everything. */
static uint64_t draw_role(struct world *w, unsigned n_shards, uint64_t needed)
{
    uint64_t all = (UINT64_C(1) << n_shards) - 1, some = world_draw(w, all + 1) | needed;
    return some != 0 ? some : UINT64_C(1) << world_draw(w, n_shards);
}

static void draw_roles(struct world *w, struct sim_crew *crew)
{
    crew->edges = crew->links = (UINT64_C(1) << crew->n_shards) - 1;
    if (crew->n_shards == 1 || !world_chance(w, 25))
        return;
    uint64_t all = crew->edges;
    crew->edges = draw_role(w, crew->n_shards, 0);
    crew->links = draw_role(w, crew->n_shards, all & ~crew->edges); /* nobody does nothing */
}

struct sim_crew *sim_crew_new(struct world *w, unsigned n_shards, const struct sim_crew *before)
{
    struct sim_crew *crew = calloc(1, sizeof *crew);
    ASSERT(crew != NULL);
    crew->n_shards = n_shards;
    map_node(w, &crew->node, n_shards);
    for (unsigned i = 0; i < SIM_SHARDS_MAX; i++) {
        crew->shards[i].w = w;
        crew->shards[i].crew = crew;
        crew->shards[i].index = i;
        shard_shm_init(&crew->shards[i].shm, i, world_chance(w, 50) ? 1 : CONNECTION_SEQ_MASK - 10);
    }
    draw_roles(w, crew);
    if (before == NULL)
        return crew;
    keep_ids(crew, before);
    node_home_plan(&before->node.shared->home, before->edges, crew->edges, &crew->node.shared->home);
    return crew;
}

void sim_crew_free(struct sim_crew *crew)
{
    unmap_node(&crew->node);
    free(crew);
}

void sim_node_open(struct world *w)
{
    struct sim_node *n = &w->node;
    unsigned n_shards = world_chance(w, 30) ? 1 : (unsigned)world_between(w, 2, SIM_SHARDS_MAX);
    n->deaths_left = world_chance(w, 50) ? (unsigned)world_between(w, 1, 6) : 0;
    n->upgrades_left = world_chance(w, 50) ? (unsigned)world_between(w, 1, 4) : 0;
    n_shards = from_env("TGG_SIM_SHARDS", n_shards, 1, SIM_SHARDS_MAX);
    n->deaths_left = from_env("TGG_SIM_DEATHS", n->deaths_left, 0, 100);
    n->upgrades_left = from_env("TGG_SIM_UPGRADES", n->upgrades_left, 0, 100);
    n->bound = n_shards > 1 || n->deaths_left > 0 || n->upgrades_left > 0 || world_chance(w, 50);
    n->crew = sim_crew_new(w, n_shards, NULL);
    if (n->bound)
        bind_listeners(w);
    world_trace(w, "a node of %u shards (edges %llx, links %llx), up to %u deaths, %u upgrades", n_shards,
                (unsigned long long)n->crew->edges, (unsigned long long)n->crew->links, n->deaths_left,
                n->upgrades_left);
    for (unsigned i = 0; i < n_shards; i++)
        sim_crew_start(&n->crew->shards[i], false);
}

/* ---- death */

static uint64_t closes_of(const struct sim_shard *s)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < CLOSE_REASON_N; i++)
        n += counter_close_get(&s->shm.counters, (enum close_reason)i);
    return n;
}

/* Those whose connection ends with it. */
static void mark_bereft(struct sim_shard *s)
{
    struct world *w = s->w;
    for (unsigned i = 0; i < w->n_clients; i++) {
        struct sim_client *c = w->clients[i];
        if (net_conn_is_open(&c->conn) && sim_net_conn_peer(w->client_host.net, &c->conn) == s->host.net)
            c->bereft = true;
    }
    for (unsigned i = 0; i < w->n_links; i++) {
        struct sim_link *l = w->links[i];
        if (net_conn_is_open(&l->conn) && sim_net_conn_peer(w->link_host.net, &l->conn) == s->host.net)
            l->bereft = true;
    }
}

/* Clients of which it may have known more than others got to know. */
static void mark_unsure(struct sim_shard *s)
{
    struct world *w = s->w;
    uint64_t now = sim_net_now_ns(w->net);
    for (unsigned i = 0; i < w->n_clients; i++) {
        struct sim_client *c = w->clients[i];
        if (c->since_ns < now)
            c->deaths_seen |= 1u << s->index;
    }
}

void sim_shard_vanish(struct sim_shard *s, enum sim_net_death how)
{
    sim_net_node_kill(s->host.net, how);
    entomb(s);
    net_free(s->host.net);
    s->host = (struct sim_host){0};
    s->shard = NULL;
    s->held = false;
    s->kill_at_ns = 0;
    /* What it had freed is not marked as such for its successor, which would be another process. */
    ASAN_UNPOISON_MEMORY_REGION(s->crew->node.estates[s->index], s->crew->node.estate_bytes);
}

static void die(struct sim_shard *s)
{
    struct world *w = s->w;
    struct sim_node *n = &w->node;
    uint64_t now = sim_net_now_ns(w->net);
    bool within = sim_net_node_has_stopped(s->host.net);
    world_trace(w, "shard %u is killed%s", s->index, within ? " within its turn" : "");
    mark_bereft(s);
    mark_unsure(s);
    s->lost = counter_get(&s->shm.counters, COUNTER_client_accepted) - closes_of(s);
    struct loop_stats stats;
    loop_stats_get(s->host.loop, &stats);
    n->stats.turns += stats.turns;
    n->stats.turns_over_budget += stats.turns_over_budget;
    sim_shard_vanish(s, w->strict || world_chance(w, 50) ? SIM_NET_DEATH_LUCKY : SIM_NET_DEATH_PROCESS);
    s->deaths++;
    memmove(s->died_ns + 1, s->died_ns, sizeof s->died_ns - sizeof s->died_ns[0]);
    s->died_ns[0] = now;
    s->bury_at_ns = now + (world_chance(w, 60) ? 0 : world_draw(w, 20 * WORLD_MS));
    n->deaths++;
    n->deaths_within += within;
    if (n->deaths_left > 0)
        n->deaths_left--;
}

/* After that time its successor waits for nobody. */
#define SUCCESSION_NS (8 * WORLD_S)

bool sim_node_has_enough(const struct world *w, unsigned shard)
{
    uint64_t third = w->node.crew->shards[shard].died_ns[ESTATE_PLOTS - 2];
    return third != 0 && sim_net_now_ns(w->net) < third + SUCCESSION_NS;
}

void sim_node_kill(struct world *w, unsigned shard)
{
    if (w->node.crew->shards[shard].shard != NULL)
        die(&w->node.crew->shards[shard]);
}

void sim_node_kill_within(struct world *w, unsigned shard, unsigned calls)
{
    struct sim_shard *s = &w->node.crew->shards[shard];
    if (s->shard == NULL)
        return;
    world_trace(w, "shard %u is to die within %u calls", shard, calls);
    sim_net_node_stop_within(s->host.net, calls);
}

static void bury(struct sim_shard *s)
{
    struct world *w = s->w;
    struct sim_crew *crew = s->crew;
    uint64_t to_it = 0;
    s->bury_at_ns = 0;
    uint64_t left = mesh_bury(crew->node.mesh, crew->n_shards, crew->node.ring_bytes, s->index, &to_it);
    node_shared_bury(crew->node.shared, s->index);
    for (unsigned i = 0; i < crew->n_shards; i++)
        if (crew->shards[i].host.net != NULL)
            sim_net_node_poke(crew->shards[i].host.net);
    s->start_at_ns = sim_net_now_ns(w->net) + (world_chance(w, 30) ? 1 : 1 + world_draw(w, 500 * WORLD_MS));
    world_trace(w, "shard %u is buried: %llu messages from it and %llu to it are left", s->index,
                (unsigned long long)left, (unsigned long long)to_it);
}

void sim_node_calm(struct world *w)
{
    struct sim_node *n = &w->node;
    n->deaths_left = 0;
    for (unsigned i = 0; i < n->crew->n_shards; i++) {
        n->crew->shards[i].kill_at_ns = 0;
        if (n->crew->shards[i].host.net != NULL)
            sim_net_node_stop_within(n->crew->shards[i].host.net, 0);
    }
}

void sim_node_work(struct world *w)
{
    uint64_t now = sim_net_now_ns(w->net);
    struct sim_crew *crew = w->node.crew;
    for (unsigned i = 0; i < crew->n_shards && !w->failed && !w->node.in_transfer; i++) {
        struct sim_shard *s = &crew->shards[i];
        if (s->shard != NULL &&
            (sim_net_node_has_stopped(s->host.net) || (s->kill_at_ns != 0 && s->kill_at_ns <= now)))
            die(s);
        if (s->bury_at_ns != 0 && s->bury_at_ns <= now)
            bury(s);
        if (s->start_at_ns != 0 && s->start_at_ns <= now)
            start_successor(s);
    }
}

static uint64_t sooner(uint64_t planned, uint64_t than)
{
    return planned != 0 && planned < than ? planned : than;
}

uint64_t sim_node_next_ns(const struct world *w)
{
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < w->node.crew->n_shards && !w->node.in_transfer; i++) {
        const struct sim_shard *s = &w->node.crew->shards[i];
        next = sooner(s->bury_at_ns, sooner(s->start_at_ns, sooner(s->kill_at_ns, next)));
    }
    return next;
}

/* ---- the orderly end */

void sim_node_stop(struct world *w, unsigned shard)
{
    struct sim_shard *s = &w->node.crew->shards[shard];
    s->ended = true;
    s->bury_at_ns = s->start_at_ns = s->kill_at_ns = 0;
    if (s->host.net != NULL && sim_net_node_has_stopped(s->host.net))
        return; /* sim_node_close */
    shard_free(s->shard);
    s->shard = NULL;
}

void sim_node_stop_all(struct world *w)
{
    unsigned n = w->node.crew->n_shards, first = (unsigned)world_draw(w, n);
    for (unsigned i = 0; i < n; i++)
        sim_node_stop(w, (first + i) % n);
}

void sim_node_close(struct world *w)
{
    struct sim_node *n = &w->node;
    struct sim_crew *crew = n->crew;
    sim_node_stop_all(w);
    for (unsigned i = 0; i < crew->n_shards; i++) {
        if (crew->shards[i].shard != NULL)
            die(&crew->shards[i]);
        sim_host_close(&crew->shards[i].host);
    }
    for (unsigned i = 0; n->bound && i < w->config.n_listeners; i++)
        sim_net_unbind(w->net, n->listeners[i].fd);
    if (n->bound)
        sim_net_unbind(w->net, n->internal_fd);
    sim_crew_free(crew);
}

/* ---- over all */

uint32_t sim_node_connections(const struct world *w)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        if (w->node.crew->shards[i].shard != NULL)
            n += shard_connections(w->node.crew->shards[i].shard);
    return n;
}

bool sim_node_is_running(const struct world *w)
{
    for (unsigned i = 0; i < w->node.crew->n_shards; i++)
        if (w->node.crew->shards[i].shard != NULL)
            return true;
    return false;
}

void sim_node_stats_add(const struct world *w, struct loop_stats *to)
{
    to->turns += w->node.stats.turns;
    to->turns_over_budget += w->node.stats.turns_over_budget;
    for (unsigned i = 0; i < w->node.crew->n_shards; i++) {
        struct loop_stats stats;
        if (w->node.crew->shards[i].host.loop == NULL)
            continue;
        loop_stats_get(w->node.crew->shards[i].host.loop, &stats);
        to->turns += stats.turns;
        to->turns_over_budget += stats.turns_over_budget;
        if (stats.turn_ns_longest > to->turn_ns_longest)
            to->turn_ns_longest = stats.turn_ns_longest;
    }
}

struct sim_shard *sim_node_shard_of(struct world *w, uint32_t connection_id)
{
    struct sim_crew *crew = w->node.crew;
    unsigned i = node_home_of(&crew->node.shared->home, connection_id);
    return connection_id != 0 && i < crew->n_shards ? &crew->shards[i] : NULL;
}
