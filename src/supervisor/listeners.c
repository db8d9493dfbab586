// SPDX-License-Identifier: MIT
#include "supervisor/listeners_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/keepalive.h"

#define INTERNAL_BACKLOG 4096
/* What shards get to take over the last reload, when the next one needs what they still have. */
#define WAIT_STEP_MS 1
#define WAIT_STEPS   1000

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

/* ---- sockets */

static bool is_of_unix(const struct listeners_socket *s)
{
    return listen_socket_is_unix(s->address);
}

struct listeners_socket *listeners__socket(const struct listeners *l, uint32_t number)
{
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        if (number != 0 && l->sockets[i].number == number)
            return (struct listeners_socket *)&l->sockets[i];
    }
    return NULL;
}

static struct listeners_socket *socket_at(struct listeners *l, const struct config_listen *at)
{
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        struct listeners_socket *s = &l->sockets[i];
        if (s->number != 0 && config_listen_is_at(at, s->address, s->port))
            return s;
    }
    return NULL;
}

/* There is always one: see LISTENERS_SOCKETS_MAX. */
struct listeners_socket *listeners__place(struct listeners *l)
{
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        if (l->sockets[i].number == 0)
            return &l->sockets[i];
    }
    UNREACHABLE();
}

static bool is_stood_on(const struct listeners *l, uint32_t number)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (l->list[i].socket == number)
            return true;
    }
    return false;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void forget_socket(struct listeners_socket *s)
{
    *s = (struct listeners_socket){.number = 0};
    memset(s->fds, 0xff, sizeof s->fds); /* -1 */
}

static void close_socket(struct listeners_socket *s)
{
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++)
        close_fd(&s->fds[i]);
    forget_socket(s);
}

/* Before it is closed: whoever connects then is refused. */
void listeners__remove_file(const struct listeners_socket *s)
{
    if (is_of_unix(s) && !s->inherited)
        listen_socket_remove_file(s->address, &s->file);
}

/* ---- opening */

/* A descriptor for each edge shard, of one socket: copies, as a shard closes those of the others. */
static int open_unix(struct listeners_socket *s, unsigned n_edges, int *ret_fds)
{
    unsigned opened = 0;
    int r = listen_socket_open_unix(s->address, (int)s->backlog, s->mode, &s->file);

    if (r < 0)
        return r;
    ret_fds[opened++] = r;
    while (opened < n_edges && (r = fcntl(ret_fds[0], F_DUPFD_CLOEXEC, 0)) >= 0)
        ret_fds[opened++] = r;
    if (opened == n_edges)
        return 0;
    r = -errno;
    listeners__remove_file(s);
    while (opened > 0)
        close(ret_fds[--opened]);
    return r;
}

/* Until all shards have closed what was removed before: a moment after a reload they have. Only once. */
static void wait_for_shards(struct listeners *l, uint64_t generation)
{
    const struct timespec pause = {.tv_nsec = WAIT_STEP_MS * 1000000};
    unsigned steps = 0;

    for (unsigned i = 0; l->shared != NULL && !l->waited && i < l->plan->n; i++) {
        while (!node_shard_has_settings(&l->shared->shards[i], generation) && steps < WAIT_STEPS) {
            nanosleep(&pause, NULL);
            steps++;
        }
    }
    l->waited |= steps > 0;
}

/* Sockets of ours on that port, of other addresses, that are about to go. False: there are none. */
static bool share_port_of_leavers(struct listeners *next, uint64_t port)
{
    bool shared = false;
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        struct listeners_socket *s = &next->sockets[i];
        if (s->number == 0 || is_of_unix(s) || s->port != port || is_stood_on(next, s->number))
            continue;
        for (unsigned shard = 0; shard < NODE_SHARDS_MAX; shard++)
            shared |= s->fds[shard] >= 0 && listen_socket_share(s->fds[shard]) == 0;
    }
    return shared;
}

static int open_tcp(struct listeners *next, const struct config *cfg, const struct listeners_socket *s,
                    uint64_t generation, unsigned n_edges, int *ret_fds)
{
    struct net_keepalive k = keepalive_of_clients(cfg);
    uint16_t port = (uint16_t)s->port;
    int backlog = (int)s->backlog;
    int r = listen_socket_open_several(s->address, port, backlog, &k, n_edges, ret_fds);

    if (r == -EADDRINUSE && generation > 0) {
        wait_for_shards(next, generation - 1);
        /* Also when there was nothing to wait for any more: they may have closed it since. */
        r = listen_socket_open_several(s->address, port, backlog, &k, n_edges, ret_fds);
    }
    if (r == -EADDRINUSE && share_port_of_leavers(next, s->port))
        r = listen_socket_open_beside(s->address, port, backlog, &k, n_edges, ret_fds);
    return r;
}

static unsigned count_edges(const struct shard_plan *plan)
{
    unsigned n = 0;
    for (unsigned i = 0; i < plan->n; i++)
        n += plan->shards[i].edge;
    return n;
}

/* To the edge shards, in the order of their numbers. */
static void hand_out(struct listeners_socket *s, const struct shard_plan *plan, const int *fds)
{
    for (unsigned shard = 0; shard < plan->n; shard++) {
        if (plan->shards[shard].edge)
            s->fds[shard] = *fds++;
    }
}

int listeners__give_file(const struct listeners *l, const struct listeners_socket *s)
{
    return is_of_unix(s) && lchown(s->address + strlen("unix:"), l->uid, l->gid) < 0 ? -errno : 0;
}

static mode_t mode_of(const struct config_listen *l)
{
    return (mode_t)strtoul(l->socket_mode, NULL, 8) & 0777; /* config_check has looked at it */
}

static void describe_socket(struct listeners_socket *s, const struct config_listen *l)
{
    snprintf(s->address, sizeof s->address, "%s", l->address);
    s->port = l->port;
    s->backlog = l->backlog;
    s->mode = mode_of(l);
}

/* 0 or -errno. */
static int open_socket(struct listeners *next, const struct config *cfg, const struct config_listen *l,
                       uint64_t generation, struct listeners_socket *s)
{
    int fds[NODE_SHARDS_MAX];
    unsigned n_edges = count_edges(next->plan);

    forget_socket(s);
    describe_socket(s, l);
    int r = is_of_unix(s) ? open_unix(s, n_edges, fds) : open_tcp(next, cfg, s, generation, n_edges, fds);
    if (r < 0)
        return r;
    hand_out(s, next->plan, fds);
    r = next->give_files ? listeners__give_file(next, s) : 0;
    if (r == 0) {
        s->number = ++next->last_socket;
    } else {
        listeners__remove_file(s);
        close_socket(s);
    }
    return r;
}

static void blame_listener(const struct config_listen *l, int r, struct config_error *err)
{
    char why[512], label[64];
    const char *key = "address";
    unsigned line = listen_socket_is_unix(l->address)
                        ? l->line.address
                        : blame(r, l->line.address, l->line.port, "address", "port", &key);

    snprintf(label, sizeof label, "listen %s", l->name);
    config_error_add(err, line, label, key, "%s",
                     listen_socket_explain(r, l->address, (uint16_t)l->port, why, sizeof why));
}

/* What is there already on its address is taken as it is. */
static void take_sockets(struct listeners *next, const struct config *cfg)
{
    for (unsigned i = 0; i < next->n; i++) {
        struct listeners_socket *s =
            config_listen_socket_of(cfg, i) == i ? socket_at(next, &cfg->listen[i]) : NULL;
        next->list[i].socket = s != NULL ? s->number : 0;
        if (s != NULL)
            describe_socket(s, &cfg->listen[i]);
    }
}

static bool open_sockets(struct listeners *next, const struct config *cfg, uint64_t generation,
                         struct config_error *err)
{
    bool good = true;
    for (unsigned i = 0; i < next->n; i++) {
        struct settings_listener *l = &next->list[i];
        unsigned at = config_listen_socket_of(cfg, i);
        if (at != i) {
            l->socket = next->list[at].socket;
        } else if (l->socket == 0) {
            struct listeners_socket *place = listeners__place(next);
            int r = open_socket(next, cfg, &cfg->listen[i], generation, place);
            l->socket = place->number;
            good &= r == 0;
            if (r < 0)
                blame_listener(&cfg->listen[i], r, err);
        }
    }
    return good;
}

/* ---- slots */

uint64_t listeners_slots(const struct listeners *l)
{
    uint64_t slots = 0;
    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++)
        slots |= (uint64_t)l->slots[i].present << i;
    return slots;
}

/* Nobody has it, or had it until now, and no shard a client of the last one who had it. */
static bool slot_is_free(const struct listeners *l, const struct listeners *next, unsigned slot)
{
    const struct listeners_slot *s = &next->slots[slot];
    if (s->present || l->slots[slot].present)
        return false;
    for (unsigned i = 0; next->shared != NULL && s->identity[0] != '\0' && i < next->plan->n; i++) {
        if ((node_shard_slots(&next->shared->shards[i], s->removed) >> slot & 1) != 0)
            return false;
    }
    return true;
}

/* -1: there is none. */
static int find_free_slot(const struct listeners *l, const struct listeners *next)
{
    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++) {
        if (slot_is_free(l, next, i))
            return (int)i;
    }
    return -1;
}

/* Of the listener with that name and those START keys: it has it, or has had it, and may have clients yet. */
static int find_slot_of(const struct listeners *l, const char *identity)
{
    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++) {
        if (strcmp(l->slots[i].identity, identity) == 0)
            return (int)i;
    }
    return -1;
}

static int take_slot(const struct listeners *l, struct listeners *next, const struct config_listen *cfg,
                     uint64_t generation)
{
    char identity[CONFIG_LISTEN_IDENTITY_MAX];
    int slot = find_slot_of(next, config_listen_identity(cfg, identity, sizeof identity));
    bool is_new = slot < 0;

    if (is_new)
        slot = find_free_slot(l, next);
    if (slot < 0 && generation > 0) {
        wait_for_shards(next, generation - 1);
        slot = find_free_slot(l, next);
    }
    if (slot < 0)
        return slot;
    struct listeners_slot *s = &next->slots[slot];
    if (is_new) {
        s->made++;
        snprintf(s->name, sizeof s->name, "%s", cfg->name);
        memcpy(s->identity, identity, sizeof identity);
    }
    if (is_new || !l->slots[slot].present)
        s->since = generation;
    s->present = true;
    return slot;
}

/* First those that stay: nobody is to get their slots. */
static bool take_slots(const struct listeners *l, struct listeners *next, const struct config *cfg,
                       uint64_t generation, struct config_error *err)
{
    bool good = true;
    char identity[CONFIG_LISTEN_IDENTITY_MAX], label[64];

    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++) {
        next->slots[i].present = false;
        if (l->slots[i].present)
            next->slots[i].removed = generation;
    }
    for (unsigned i = 0; i < next->n; i++) {
        int slot = find_slot_of(next, config_listen_identity(&cfg->listen[i], identity, sizeof identity));
        if (slot >= 0)
            next->slots[slot].present = true;
    }
    for (unsigned i = 0; i < next->n; i++) {
        int slot = take_slot(l, next, &cfg->listen[i], generation);
        if (slot < 0) {
            good = false;
            snprintf(label, sizeof label, "listen %s", cfg->listen[i].name);
            config_error_add(err, cfg->listen[i].section_line, label, "",
                             "no room for another listener: %d are there, or were removed and still have "
                             "clients; expected some of those clients to leave first, or a restart",
                             CONFIG_LISTEN_MAX);
            continue;
        }
        next->list[i].slot = (uint16_t)slot;
        next->list[i].made = next->slots[slot].made;
        next->list[i].since = next->slots[slot].since;
        next->list[i].fd = -1;
    }
    return good;
}

/* ---- a reload */

int listeners_prepare(const struct listeners *l, const struct config *cfg, uint64_t generation,
                      struct listeners **ret, struct config_error *err)
{
    struct listeners *next = malloc(sizeof *next);
    if (next == NULL) {
        config_error_add(err, 0, "", "", "no memory for listeners");
        return -ENOMEM;
    }
    *next = *l;
    next->n = cfg->n_listeners;
    next->waited = false;
    take_sockets(next, cfg);
    bool good = open_sockets(next, cfg, generation, err);
    good &= take_slots(l, next, cfg, generation, err);
    if (!good) {
        listeners_abandon(l, next);
        return -EINVAL;
    }
    *ret = next;
    return 0;
}

void listeners_abandon(const struct listeners *l, struct listeners *next)
{
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        struct listeners_socket *s = &next->sockets[i];
        if (s->number == 0 || listeners__socket(l, s->number) != NULL)
            continue;
        listeners__remove_file(s);
        close_socket(s);
    }
    free(next);
}

static bool is_our_file(const struct listeners_socket *s)
{
    struct stat st;
    return lstat(s->address + strlen("unix:"), &st) == 0 && st.st_dev == s->file.dev &&
           st.st_ino == s->file.ino;
}

/* It was there before, with these. */
void listeners__adjust(uint64_t backlog, mode_t mode, const struct listeners_socket *s)
{
    bool bad = false;
    for (unsigned i = 0; backlog != s->backlog && i < NODE_SHARDS_MAX; i++)
        bad |= s->fds[i] >= 0 && listen(s->fds[i], (int)s->backlog) < 0;
    if (is_of_unix(s) && mode != s->mode)
        bad |= !is_our_file(s) || chmod(s->address + strlen("unix:"), s->mode) < 0;
    if (bad)
        LOG(LOG_ERROR, "listener_not_adjusted", "address=%s port=%" PRIu64 " error=\"%s\"", s->address,
            s->port, strerror(errno));
}

void listeners_commit(struct listeners *l, struct listeners *next)
{
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        struct listeners_socket *s = &next->sockets[i];
        const struct listeners_socket *was = listeners__socket(l, s->number);
        if (s->number == 0)
            continue;
        if (!is_stood_on(next, s->number)) {
            listeners__remove_file(s);
            close_socket(s);
        } else if (was != NULL && !s->inherited) {
            listeners__adjust(was->backlog, was->mode, s);
        }
    }
    *l = *next;
    free(next);
}

/* ---- the internal port */

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

/* ---- beginning and end */

void listeners_init(struct listeners *l)
{
    *l = (struct listeners){.internal_fd = -1};
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++)
        forget_socket(&l->sockets[i]);
}

static int open_or_inherit_internal(const struct config *cfg, struct listeners_inherited *inherited,
                                    struct config_error *err)
{
    char address[80];
    if (inherited == NULL || inherited->internal_fd < 0 ||
        inherited->internal_port != cfg->gateway.start_port ||
        strcmp(inherited->internal_address, listeners_internal_address(cfg, address, sizeof address)) != 0)
        return open_internal(cfg, err);
    return inherited->internal_fd;
}

int listeners_open(const struct config *cfg, const struct shard_plan *plan,
                   struct listeners_inherited *inherited, struct listeners *ret, struct config_error *err)
{
    struct listeners *none = malloc(sizeof *none), *l = NULL;
    int r = -ENOMEM;

    if (none == NULL)
        return r;
    listeners_init(none);
    none->plan = plan;
    none->opener = getpid();
    r = inherited != NULL ? listeners__inherit(none, cfg, inherited) : 0;
    if (r == 0)
        r = listeners_prepare(none, cfg, 0, &l, err);
    int internal_fd = open_or_inherit_internal(cfg, inherited, err);
    if (r == 0 && internal_fd >= 0) {
        listeners_commit(none, l);
        *ret = *none;
        ret->internal_fd = internal_fd;
        ret->internal_inherited = inherited != NULL && internal_fd == inherited->internal_fd;
        if (ret->internal_inherited)
            inherited->internal_fd = -1;
        free(none);
        return 0;
    }
    if (r == 0)
        listeners_abandon(none, l);
    if (inherited == NULL || internal_fd != inherited->internal_fd)
        close_fd(&internal_fd);
    listeners_close(none); /* what was inherited */
    free(none);
    return -EINVAL;
}

int listeners_give_files(struct listeners *l, uid_t uid, gid_t gid)
{
    int r = 0;
    l->give_files = true;
    l->uid = uid;
    l->gid = gid;
    for (unsigned i = 0; r == 0 && i < LISTENERS_SOCKETS_MAX; i++) {
        if (l->sockets[i].number != 0 && !l->sockets[i].inherited)
            r = listeners__give_file(l, &l->sockets[i]);
    }
    return r;
}

void listeners_set_shared(struct listeners *l, const struct node_shared *shared)
{
    l->shared = shared;
}

void listeners_disown(struct listeners *l)
{
    l->opener = 0;
}

void listeners_close(struct listeners *l)
{
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        struct listeners_socket *s = &l->sockets[i];
        if (s->number == 0)
            continue;
        if (l->opener == getpid())
            listeners__remove_file(s);
        close_socket(s);
    }
    close_fd(&l->internal_fd);
    listeners__free_inherited(l);
    listeners_init(l);
}

/* ---- to shards */

void listeners_keep(struct listeners *l, unsigned shard)
{
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        for (unsigned other = 0; other < NODE_SHARDS_MAX; other++) {
            if (other != shard)
                close_fd(&l->sockets[i].fds[other]);
        }
    }
    listeners__free_inherited(l);
}

/* Of listeners on one socket the first one has it. */
static int fd_of(const struct listeners *l, unsigned i, unsigned shard)
{
    const struct listeners_socket *s = listeners__socket(l, l->list[i].socket);
    for (unsigned j = 0; j < i; j++) {
        if (l->list[j].socket == l->list[i].socket)
            return -1;
    }
    return s != NULL && shard < NODE_SHARDS_MAX ? s->fds[shard] : -1;
}

const struct settings_listener *listeners_of(struct listeners *l, unsigned shard)
{
    for (unsigned i = 0; i < l->n; i++)
        l->list[i].fd = fd_of(l, i, shard);
    return l->n > 0 && l->plan->shards[shard].edge ? l->list : NULL;
}

void listeners_tell(const struct listeners *l, unsigned shard, struct settings *ret)
{
    ret->n_listeners = l->n;
    for (unsigned i = 0; i < l->n; i++) {
        ret->listeners[i] = l->list[i];
        ret->listeners[i].fd = fd_of(l, i, shard);
    }
}
