// SPDX-License-Identifier: MIT
#include "common/shard_plan.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/number_list.h"

#define CPUS_MAX CPU_SETSIZE

/* ---- shards */

static bool is_auto(const char *text)
{
    return strcmp(text, "auto") == 0;
}

/* In the order of their numbers; 0 when the kernel does not say. */
static unsigned allowed_cpus(uint16_t *ret)
{
    cpu_set_t set;
    unsigned n = 0;

    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return 0;
    for (unsigned i = 0; i < CPUS_MAX; i++) {
        if (CPU_ISSET(i, &set))
            ret[n++] = (uint16_t)i;
    }
    return n;
}

/* 0: neither a number nor auto. */
static unsigned shards_of(const char *text)
{
    uint16_t list[CPUS_MAX];
    if (is_auto(text)) {
        unsigned n = allowed_cpus(list);
        return n == 0 ? 1 : n < NODE_SHARDS_MAX ? n : NODE_SHARDS_MAX;
    }
    /* A list of one number. */
    return number_list_parse(text, NODE_SHARDS_MAX, list, 1) == 1 ? list[0] : 0;
}

unsigned config_shards(const struct config *cfg)
{
    unsigned n = shards_of(cfg->gateway.shards);
    ASSERT(n > 0);
    return n;
}

/* ---- roles */

/* A set with a bit for each shard, 0 when it is not such a list. */
static uint64_t role_set(const char *text)
{
    uint16_t list[NODE_SHARDS_MAX];
    uint64_t set = 0;

    if (strcmp(text, "all") == 0)
        return UINT64_MAX;
    int n = number_list_parse(text, NODE_SHARDS_MAX - 1, list, NODE_SHARDS_MAX);
    for (int i = 0; i < n; i++)
        set |= UINT64_C(1) << list[i];
    return set;
}

bool config_shard_is_edge(const struct config *cfg, unsigned shard)
{
    return role_set(cfg->gateway.edge_shards) >> shard & 1;
}

bool config_shard_is_link(const struct config *cfg, unsigned shard)
{
    return role_set(cfg->gateway.link_shards) >> shard & 1;
}

static void check_role(const char *text, unsigned line, const char *key, unsigned n_shards,
                       struct config_error *err)
{
    uint64_t set = role_set(text);
    if (set == 0)
        config_error_add(err, line, "gateway", key,
                         "%s is not a list of shards; expected all, or numbers and ranges such as 0-3,6",
                         log_quote(text, strlen(text)));
    else if (set != UINT64_MAX && n_shards < NODE_SHARDS_MAX && set >> n_shards != 0)
        config_error_add(err, line, "gateway", key,
                         "%s names a shard that is not there; expected numbers from 0 to %u (shards = %u)",
                         log_quote(text, strlen(text)), n_shards - 1, n_shards);
}

static void check_roles(const struct config *cfg, unsigned n_shards, struct config_error *err)
{
    const struct config_gateway *g = &cfg->gateway;
    unsigned before = err->n + err->left_out;

    check_role(g->edge_shards, g->line.edge_shards, "edge_shards", n_shards, err);
    check_role(g->link_shards, g->line.link_shards, "link_shards", n_shards, err);
    if (err->n + err->left_out != before)
        return;
    for (unsigned i = 0; i < n_shards; i++) {
        if (!config_shard_is_edge(cfg, i) && !config_shard_is_link(cfg, i))
            config_error_add(err, g->line.edge_shards, "gateway", "edge_shards",
                             "shard %u stands neither here nor in link_shards; expected each in one of them",
                             i);
    }
}

/* ---- CPUs */

/* The list that the key says; 0: none is to be pinned; -EINVAL: not such a list. */
static int cpu_list(const char *text, uint16_t *ret)
{
    if (strcmp(text, "none") == 0)
        return 0;
    if (is_auto(text))
        return (int)allowed_cpus(ret);
    int n = number_list_parse(text, CPUS_MAX - 1, ret, CPUS_MAX);
    return n > 0 ? n : -EINVAL;
}

static void check_cpu_syntax(const struct config_gateway *g, struct config_error *err)
{
    uint16_t list[CPUS_MAX];
    if (cpu_list(g->cpus, list) < 0)
        config_error_add(err, g->line.cpus, "gateway", "cpus",
                         "%s is not a list of CPUs; expected auto, none, or numbers and ranges such as 0-3,8",
                         log_quote(g->cpus, strlen(g->cpus)));
}

/* Whether this process may run on all of them. */
static void check_cpus_allowed(const struct config_gateway *g, const uint16_t *list, int n,
                               struct config_error *err)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return;
    for (int i = 0; i < n; i++) {
        if (CPU_ISSET(list[i], &set))
            continue;
        config_error_add(err, g->line.cpus, "gateway", "cpus",
                         "CPU %u is not one that this process may run on; expected some of those that "
                         "taskset -cp $$ shows",
                         list[i]);
        return;
    }
}

/* ---- all together */

void shard_plan_check(const struct config *cfg, struct config_error *err)
{
    const struct config_gateway *g = &cfg->gateway;
    unsigned n = shards_of(g->shards);

    if (n == 0)
        config_error_add(err, g->line.shards, "gateway", "shards",
                         "%s is neither a number nor auto; expected 1 to %d, or auto",
                         log_quote(g->shards, strlen(g->shards)), NODE_SHARDS_MAX);
    check_cpu_syntax(g, err);
    /* With `auto` it is for shard_plan_make: this machine need not be the gateway's, nor this process as
     * free. */
    if (n > 0 && !is_auto(g->shards)) {
        check_roles(cfg, n, err);
    } else {
        check_role(g->edge_shards, g->line.edge_shards, "edge_shards", NODE_SHARDS_MAX, err);
        check_role(g->link_shards, g->line.link_shards, "link_shards", NODE_SHARDS_MAX, err);
    }
}

int shard_plan_make(const struct config *cfg, struct shard_plan *ret, struct config_error *err)
{
    const struct config_gateway *g = &cfg->gateway;
    struct shard_plan plan = {.n = config_shards(cfg)};
    uint16_t cpus[CPUS_MAX];
    unsigned before = err->n + err->left_out;

    int n_cpus = cpu_list(g->cpus, cpus);
    ASSERT(n_cpus >= 0);
    /* Several gateways of one shard on a machine would else all be on its first CPU. */
    if (is_auto(g->cpus) && plan.n == 1)
        n_cpus = 0;
    check_roles(cfg, plan.n, err);
    check_cpus_allowed(g, cpus, n_cpus, err);
    if (err->n + err->left_out != before)
        return -EINVAL;
    plan.cpus_short = n_cpus > 0 && (unsigned)n_cpus < plan.n;
    for (unsigned i = 0; i < plan.n; i++) {
        plan.shards[i].cpu = n_cpus > 0 ? cpus[i % (unsigned)n_cpus] : SHARD_CPU_NONE;
        plan.shards[i].edge = config_shard_is_edge(cfg, i);
        plan.shards[i].link = config_shard_is_link(cfg, i);
    }
    *ret = plan;
    return 0;
}
