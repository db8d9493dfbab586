// SPDX-License-Identifier: MIT
#include "supervisor/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/keepalive.h"

#define INTERNAL_BACKLOG 4096

struct range {
    uint32_t net;
    unsigned bits;
};

/* What filter_var(FILTER_FLAG_NO_PRIV_RANGE | FILTER_FLAG_NO_RES_RANGE) refuses, and so listens on as it
 * stands. */
static const struct range not_public[] = {
    {0x0a000000, 8}, {0xac100000, 12}, {0xc0a80000, 16}, {0x00000000, 8},
    {0x7f000000, 8}, {0xa9fe0000, 16}, {0xf0000000, 4},
};

static bool is_public(uint32_t ip)
{
    for (size_t i = 0; i < sizeof not_public / sizeof not_public[0]; i++) {
        if ((ip ^ not_public[i].net) >> (32 - not_public[i].bits) == 0)
            return false;
    }
    return true;
}

char *listeners_internal_address(const struct config *cfg, char *buf, size_t cap)
{
    uint32_t ip = cfg->gateway.lan_ip;
    if (cfg->gateway.inner_listen[0] != '\0')
        snprintf(buf, cap, "%s", cfg->gateway.inner_listen);
    else if (is_public(ip))
        snprintf(buf, cap, "0.0.0.0");
    else
        snprintf(buf, cap, "%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
    return buf;
}

/* The key to blame: the address when that is wrong, else the port. */
static unsigned blame(int err, uint32_t address_line, uint32_t port_line, const char *address_key,
                      const char *port_key, const char **ret_key)
{
    bool address = err == -EADDRNOTAVAIL || err == -EINVAL || err == -EAFNOSUPPORT;
    *ret_key = address ? address_key : port_key;
    return address ? address_line : port_line;
}

/* A descriptor for each edge shard, of one socket: copies, as a shard closes those of the others. */
static int open_unix(const struct config_listen *l, unsigned n_edges, int *ret_fds,
                     struct listen_socket_file *ret_file)
{
    mode_t mode = (mode_t)strtoul(l->socket_mode, NULL, 8) & 0777; /* config_check has looked at it */
    unsigned opened = 0;
    int r = listen_socket_open_unix(l->address, (int)l->backlog, mode, ret_file);

    if (r < 0)
        return r;
    ret_fds[opened++] = r;
    while (opened < n_edges && (r = fcntl(ret_fds[0], F_DUPFD_CLOEXEC, 0)) >= 0)
        ret_fds[opened++] = r;
    if (opened == n_edges)
        return 0;
    r = -errno;
    listen_socket_remove_file(l->address, ret_file);
    while (opened > 0)
        close(ret_fds[--opened]);
    return r;
}

static int open_sockets(const struct config *cfg, const struct config_listen *l, unsigned n_edges,
                        int *ret_fds, struct listen_socket_file *ret_file)
{
    struct net_keepalive k = keepalive_of_clients(cfg);
    if (listen_socket_is_unix(l->address))
        return open_unix(l, n_edges, ret_fds, ret_file);
    return listen_socket_open_several(l->address, (uint16_t)l->port, (int)l->backlog, &k, n_edges, ret_fds);
}

/* One for each edge shard, in the order of their numbers. 0 or -errno. */
static int open_client(const struct config *cfg, unsigned i, unsigned n_edges, int *ret_fds,
                       struct listen_socket_file *ret_file, struct config_error *err)
{
    const struct config_listen *l = &cfg->listen[i];
    char why[512], label[64];
    const char *key = "address";
    int r = open_sockets(cfg, l, n_edges, ret_fds, ret_file);

    if (r == 0)
        return 0;
    unsigned line = listen_socket_is_unix(l->address)
                        ? l->line.address
                        : blame(r, l->line.address, l->line.port, "address", "port", &key);
    snprintf(label, sizeof label, "listen %s", l->name);
    config_error_add(err, line, label, key, "%s",
                     listen_socket_explain(r, l->address, (uint16_t)l->port, why, sizeof why));
    return r;
}

static int open_internal(const struct config *cfg, struct config_error *err)
{
    const struct config_gateway *g = &cfg->gateway;
    char why[320], address[80];
    const char *key;
    bool inner = g->inner_listen[0] != '\0';
    struct net_keepalive k = keepalive_of_links(cfg);
    int fd;

    listeners_internal_address(cfg, address, sizeof address);
    int r = listen_socket_open_several(address, (uint16_t)g->start_port, INTERNAL_BACKLOG, &k, 1, &fd);
    if (r == 0)
        return fd;
    unsigned line = blame(r, inner ? g->line.inner_listen : g->line.lan_ip, g->line.start_port,
                          inner ? "inner_listen" : "lan_ip", "start_port", &key);
    config_error_add(err, line, "gateway", key, "%s",
                     listen_socket_explain(r, address, (uint16_t)g->start_port, why, sizeof why));
    return r;
}

void listeners_init(struct listeners *l)
{
    *l = (struct listeners){.internal_fd = -1};
    memset(l->fds, 0xff, sizeof l->fds); /* -1 */
}

static unsigned count_edges(const struct shard_plan *plan)
{
    unsigned n = 0;
    for (unsigned i = 0; i < plan->n; i++)
        n += plan->shards[i].edge;
    return n;
}

/* The sockets of listener i to the edge shards. */
static void hand_out(struct listeners *l, unsigned i, const struct shard_plan *plan, const int *fds)
{
    for (unsigned shard = 0; shard < plan->n; shard++) {
        if (plan->shards[shard].edge)
            l->fds[shard][i] = *fds++;
    }
}

int listeners_open(const struct config *cfg, const struct shard_plan *plan, struct listeners *ret,
                   struct config_error *err)
{
    struct listeners l;
    int fds[NODE_SHARDS_MAX];
    bool failed = false;

    listeners_init(&l);
    l.cfg = cfg;
    l.n = cfg->n_listeners;
    l.opener = getpid();
    for (unsigned i = 0; i < l.n; i++) {
        if (config_listen_socket_of(cfg, i) != i)
            continue;
        if (open_client(cfg, i, count_edges(plan), fds, &l.files[i], err) == 0)
            hand_out(&l, i, plan, fds);
        else
            failed = true;
    }
    l.internal_fd = open_internal(cfg, err);
    if (failed || l.internal_fd < 0) {
        listeners_close(&l);
        return -EINVAL;
    }
    *ret = l;
    return 0;
}

int listeners_give_files(const struct config *cfg, uid_t uid, gid_t gid)
{
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        const char *address = cfg->listen[i].address;
        if (listen_socket_is_unix(address) && config_listen_socket_of(cfg, i) == i &&
            lchown(address + strlen("unix:"), uid, gid) < 0)
            return -errno;
    }
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_shard(struct listeners *l, unsigned shard)
{
    for (unsigned i = 0; i < l->n; i++)
        close_fd(&l->fds[shard][i]);
}

static bool is_open(const struct listeners *l, unsigned i)
{
    for (unsigned shard = 0; shard < NODE_SHARDS_MAX; shard++) {
        if (l->fds[shard][i] >= 0)
            return true;
    }
    return false;
}

/* Of those that are open: a second call must not take away what a successor has made since. */
static void remove_files(const struct listeners *l)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (listen_socket_is_unix(l->cfg->listen[i].address) && is_open(l, i))
            listen_socket_remove_file(l->cfg->listen[i].address, &l->files[i]);
    }
}

void listeners_close(struct listeners *l)
{
    if (l->opener == getpid())
        remove_files(l);
    for (unsigned shard = 0; shard < NODE_SHARDS_MAX; shard++)
        close_shard(l, shard);
    close_fd(&l->internal_fd);
    listeners_init(l);
}

void listeners_keep(struct listeners *l, unsigned shard)
{
    for (unsigned other = 0; other < NODE_SHARDS_MAX; other++) {
        if (other != shard)
            close_shard(l, other);
    }
}

const int *listeners_of(const struct listeners *l, unsigned shard)
{
    return l->n > 0 && l->fds[shard][0] >= 0 ? l->fds[shard] : NULL;
}
