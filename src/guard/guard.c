// SPDX-License-Identifier: MIT
#include "guard/guard.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "guard/guard_priv.h"

/* ---- its life */

static struct guard_shm *own_memory(uint32_t max_clients)
{
    void *p = mmap(NULL, guard_shm_bytes(1, max_clients), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : guard_shm_init(p, 1, max_clients);
}

static int counts_open(struct guard *g)
{
    g->shm = g->opt.shm;
    g->shard = g->opt.shard;
    if (g->shm == NULL) {
        g->shm = own_memory(g->opt.max_clients);
        g->shm_is_mine = g->shm != NULL;
        g->shard = 0;
    }
    if (g->shm == NULL)
        return -ENOMEM;
    guard_shm_bury(g->shm, g->shard); /* no client is here yet, whatever a predecessor had */
    return 0;
}

static void tell_clashes(const struct guard *g)
{
    const struct cidr_clashes *both = &g->lists.both;
    char prefix[CIDR_STRLEN];

    if (both->n > 0 && g->opt.shard == 0) /* one of all shards is enough */
        LOG(LOG_WARN, "lists_disagree",
            "prefix=%s prefixes=%zu note=\"on allow_list and on deny_list: deny counts\"",
            cidr_format(&both->first, prefix, sizeof prefix), both->n);
}

struct guard *guard_new(const struct guard_options *opt, int *ret_err, struct config_error *err)
{
    struct guard *g = calloc(1, sizeof *g);
    int r = -ENOMEM;

    ASSERT(opt->shard < opt->n_shards || opt->shm == NULL);
    if (g == NULL)
        goto fail;
    g->opt = *opt;
    g->opt.files = NULL;
    g->now_unix_s = opt->now_unix_s;
    r = guard__lists_load(opt->config, opt->files, g->now_unix_s, &g->lists, err);
    if (r == 0)
        r = counts_open(g);
    if (r < 0)
        goto fail;
    tell_clashes(g);
    return g;
fail:
    guard_free(g);
    *ret_err = r;
    return NULL;
}

void guard_free(struct guard *g)
{
    if (g == NULL)
        return;
    guard__lists_fini(&g->lists);
    if (g->shm_is_mine)
        munmap(g->shm, guard_shm_bytes(1, g->opt.max_clients));
    free(g);
}

int guard_reload(struct guard *g, const struct files *files, struct config_error *err)
{
    struct guard_lists lists;
    int r = guard__lists_load(g->opt.config, files, g->now_unix_s, &lists, err);

    if (r < 0)
        return r;
    guard__lists_fini(&g->lists);
    g->lists = lists;
    tell_clashes(g);
    return 0;
}

/* ---- verdicts */

static const enum counter_id refused_counters[GUARD_N] = {
#define REFUSED_COUNTER(constant, name) [constant] = COUNTER_refused_##name,
    GUARD_CHECKS(REFUSED_COUNTER)
#undef REFUSED_COUNTER
};
static const enum counter_id dry_run_counters[GUARD_N] = {
#define DRY_RUN_COUNTER(constant, name) [constant] = COUNTER_dry_run_##name,
    GUARD_CHECKS(DRY_RUN_COUNTER)
#undef DRY_RUN_COUNTER
};

/* A site for each check, so that a flood of one kind does not hide the others from the log. Clients that are
 * slowed down (message_rate, byte_rate) are daily business: no more than info. */
static void tell(enum guard_verdict v, bool dry_run, const struct net_addr *addr)
{
    static struct log_site sites[GUARD_N];
    enum log_level level = v == GUARD_MESSAGE_RATE || v == GUARD_BYTE_RATE ? LOG_INFO : LOG_NOTICE;
    char ip[NET_ADDR_STRLEN];

    if (level > log_level_now)
        return;
    log_write(&sites[v], level, "refused", "check=%s address=%s dry_run=%s", guard_check_name(v),
              addr != NULL ? net_addr_format_ip(addr, ip, sizeof ip) : "-", dry_run ? "yes" : "no");
}

static enum guard_verdict refuse(struct guard *g, enum guard_verdict v, bool dry_run,
                                 const struct net_addr *addr)
{
    counter_add(g->opt.counters, dry_run ? dry_run_counters[v] : refused_counters[v], 1);
    tell(v, dry_run, addr);
    return dry_run ? GUARD_PASS : v;
}

enum guard_verdict guard__refuse(struct guard *g, enum guard_verdict v, const struct net_addr *addr)
{
    return refuse(g, v, g->lists.dry_run >> v & 1, addr);
}

/* ---- the checks */

static bool is_denied(const struct guard *g, const struct net_addr *addr)
{
    int64_t access;
    if (!g->lists.access_set || addr->family == AF_UNIX)
        return false;
    if (!cidr_table_find(g->lists.access, addr, INT64_MIN, &access))
        return !g->lists.strangers_pass;
    return access == ACCESS_DENY;
}

static bool is_banned(const struct guard *g, const struct net_addr *addr, int64_t now_unix_s)
{
    int64_t until;
    return cidr_table_find(g->lists.bans, addr, now_unix_s, &until);
}

enum guard_verdict guard_check_lists(struct guard *g, const struct net_addr *addr, int64_t now_unix_s)
{
    enum guard_verdict v = GUARD_PASS;

    g->now_unix_s = now_unix_s;
    if (is_denied(g, addr))
        v = guard__refuse(g, GUARD_DENY, addr);
    if (v == GUARD_PASS && is_banned(g, addr, now_unix_s))
        v = guard__refuse(g, GUARD_BAN, addr);
    return v;
}

static enum guard_verdict check_total(struct guard *g, const struct net_addr *addr, uint32_t clients,
                                      uint32_t max_clients)
{
    uint64_t reserve = g->opt.config->gateway.connection_reserve;

    if (clients >= max_clients) /* there is no room: not even a dry run makes some */
        return refuse(g, GUARD_TOTAL, false, addr);
    if (clients + reserve < max_clients || cidr_list_has(g->lists.reserve, addr))
        return GUARD_PASS;
    return guard__refuse(g, GUARD_TOTAL, addr);
}

/* The subnet of an address, as configured. */
static void subnet_of(const struct config *cfg, const struct cidr *address, struct cidr *ret)
{
    uint64_t bits =
        address->family == AF_INET ? cfg->gateway.subnet_bits_ipv4 : cfg->gateway.subnet_bits_ipv6;
    *ret = *address;
    cidr_cut(ret, bits < address->bits ? (unsigned)bits : address->bits);
}

struct address_hashes {
    uint64_t itself, subnet;
};

static struct address_hashes hashes_of(const struct guard *g, const struct net_addr *addr)
{
    struct cidr address, subnet;
    cidr_from_addr(addr, &address);
    subnet_of(g->opt.config, &address, &subnet);
    return (struct address_hashes){address_hash(&address, ADDRESS_ITSELF),
                                   address_hash(&subnet, ADDRESS_SUBNET)};
}

static bool counts_addresses(const struct guard *g)
{
    const struct config_gateway *gw = &g->opt.config->gateway;
    return gw->connections_per_address > 0 || gw->connections_per_subnet > 0;
}

static bool is_at(const struct guard *g, uint64_t limit, uint64_t hash)
{
    return limit > 0 && address_count_sum(g->shm, hash) >= limit;
}

static enum guard_verdict check_addresses(struct guard *g, const struct net_addr *addr)
{
    const struct config_gateway *gw = &g->opt.config->gateway;
    enum guard_verdict v = GUARD_PASS;

    if (!counts_addresses(g) || addr->family == AF_UNIX)
        return GUARD_PASS;
    struct address_hashes h = hashes_of(g, addr);
    if (is_at(g, gw->connections_per_address, h.itself))
        v = guard__refuse(g, GUARD_PER_ADDRESS, addr);
    if (v == GUARD_PASS && is_at(g, gw->connections_per_subnet, h.subnet))
        v = guard__refuse(g, GUARD_PER_SUBNET, addr);
    return v;
}

static enum guard_verdict check_rate(struct guard *g, enum guard_verdict v, struct bucket *b, uint64_t rate,
                                     uint64_t now_ms, const struct net_addr *addr)
{
    if (rate == 0 || guard__bucket_take(b, rate, g->opt.n_edges, now_ms))
        return GUARD_PASS;
    return guard__refuse(g, v, addr);
}

bool guard_is_on(const struct guard *g)
{
    const struct config_gateway *gw = &g->opt.config->gateway;
    return g->lists.access_set || cidr_table_prefixes(g->lists.bans) > 0 || counts_addresses(g) ||
           gw->accept_rate > 0 || gw->connection_reserve > 0;
}

enum guard_verdict guard_check(struct guard *g, const struct net_addr *addr, uint32_t clients,
                               uint32_t max_clients, uint64_t now_ms, int64_t now_unix_s)
{
    enum guard_verdict v = guard_check_lists(g, addr, now_unix_s);

    if (v == GUARD_PASS)
        v = check_total(g, addr, clients, max_clients);
    if (v == GUARD_PASS)
        v = check_addresses(g, addr);
    if (v == GUARD_PASS) /* last: who is refused for something else uses up none of it */
        v = check_rate(g, GUARD_ACCEPT_RATE, &g->accepts, g->opt.config->gateway.accept_rate, now_ms, addr);
    return v;
}

enum guard_verdict guard_check_handshake(struct guard *g, uint64_t now_ms)
{
    return check_rate(g, GUARD_HANDSHAKE_RATE, &g->handshakes, g->opt.config->gateway.handshake_rate, now_ms,
                      NULL);
}

/* ---- who is here */

bool guard_enter(struct guard *g, const struct net_addr *addr)
{
    if (!counts_addresses(g) || addr->family == AF_UNIX)
        return false;
    struct address_hashes h = hashes_of(g, addr);
    if (address_count_add(g->shm, g->shard, h.itself)) {
        if (address_count_add(g->shm, g->shard, h.subnet))
            return true;
        address_count_remove(g->shm, g->shard, h.itself);
    }
    LOG(LOG_WARN, "addresses_full", "addresses=%u note=\"passed uncounted\"",
        address_count_used(g->shm, g->shard));
    return false;
}

void guard_leave(struct guard *g, const struct net_addr *addr)
{
    struct address_hashes h = hashes_of(g, addr);
    bool itself = address_count_remove(g->shm, g->shard, h.itself);
    bool subnet = address_count_remove(g->shm, g->shard, h.subnet);

    /* Not an assert: what stands in shared memory is not ours alone. */
    if (!itself || !subnet)
        LOG(LOG_ERROR, "address_not_counted", "note=\"a connection ended that its table does not have\"");
}
