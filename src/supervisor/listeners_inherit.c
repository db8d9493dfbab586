// SPDX-License-Identifier: MIT
/* Sockets of the supervisor before: what becomes of them at an upgrade. */
#include "supervisor/listeners_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/keepalive.h"

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void listeners_inherited_init(struct listeners_inherited *i)
{
    *i = (struct listeners_inherited){.internal_fd = -1};
}

static void close_inheritance(struct listeners_inheritance *s)
{
    for (unsigned i = 0; i < s->n_fds; i++)
        close_fd(&s->fds[i]);
    s->n_fds = 0;
}

void listeners_inherited_close(struct listeners_inherited *i)
{
    for (unsigned s = 0; s < i->n; s++)
        close_inheritance(&i->sockets[s]);
    close_fd(&i->internal_fd);
    listeners_inherited_init(i);
}

/* ---- taking over */

static bool is_wanted(const struct config *cfg, const struct listeners_inheritance *from)
{
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (config_listen_is_at(&cfg->listen[i], from->address, from->port))
            return true;
    }
    return false;
}

/* Those beyond have none, until listeners_widen: one that listens before it is sure that it stays would take
 * connections that nobody serves when the upgrade is given up. */
static int hand_out_tcp(const struct listeners *l, struct listeners_inheritance *from,
                        struct listeners_socket *s)
{
    unsigned used = 0;
    for (unsigned shard = 0; shard < l->plan->n; shard++) {
        if (!l->plan->shards[shard].edge || used == from->n_fds)
            continue;
        s->fds[shard] = from->fds[used];
        from->fds[used++] = -1;
    }
    return 0;
}

/* Of a Unix socket any descriptor is as good as another. */
static int hand_out_unix(const struct listeners *l, const struct listeners_inheritance *from,
                         struct listeners_socket *s)
{
    for (unsigned shard = 0; shard < l->plan->n; shard++) {
        if (!l->plan->shards[shard].edge)
            continue;
        s->fds[shard] = fcntl(from->fds[0], F_DUPFD_CLOEXEC, 0);
        if (s->fds[shard] < 0)
            return -errno;
    }
    return 0;
}

static void keep_spares(struct listeners *l, struct listeners_inheritance *from, uint32_t number)
{
    for (unsigned i = 0; i < from->n_fds && l->n_spares < LISTENERS_SPARES_MAX; i++) {
        if (from->fds[i] < 0)
            continue;
        l->spares[l->n_spares++] = (struct listeners_spare){.fd = from->fds[i], .socket = number};
        from->fds[i] = -1;
    }
}

static int take_over(struct listeners *l, struct listeners_inheritance *from)
{
    struct listeners_socket *s = listeners__place(l);
    bool is_unix = listen_socket_is_unix(from->address);

    snprintf(s->address, sizeof s->address, "%s", from->address);
    s->number = ++l->last_socket;
    s->port = from->port;
    s->backlog = s->backlog_before = from->backlog;
    s->mode = s->mode_before = from->mode;
    s->file = from->file;
    s->inherited = true;
    int r = is_unix ? hand_out_unix(l, from, s) : hand_out_tcp(l, from, s);
    if (r == 0 && !is_unix)
        keep_spares(l, from, s->number);
    close_inheritance(from);
    return r;
}

int listeners__inherit(struct listeners *l, const struct config *cfg, struct listeners_inherited *inherited)
{
    int r = 0;

    l->leavers = malloc(sizeof *l->leavers);
    if (l->leavers == NULL)
        return -ENOMEM;
    listeners_inherited_init(l->leavers);
    for (unsigned i = 0; i < inherited->n; i++) {
        struct listeners_inheritance *from = &inherited->sockets[i];
        if (from->n_fds > 0 && is_wanted(cfg, from)) {
            int r_one = take_over(l, from);
            r = r_one < 0 ? r_one : r;
        } else {
            l->leavers->sockets[l->leavers->n++] = *from;
        }
    }
    inherited->n = 0;
    return r;
}

static void close_spares(struct listeners *l)
{
    for (unsigned i = 0; i < l->n_spares; i++)
        close_fd(&l->spares[i].fd);
    l->n_spares = 0;
}

void listeners__free_inherited(struct listeners *l)
{
    close_spares(l); /* not as below: this may be a child */
    if (l->leavers != NULL)
        listeners_inherited_close(l->leavers);
    free(l->leavers);
    l->leavers = NULL;
}

/* ---- it is sure */

static void settle(struct listeners *l, struct listeners_socket *s)
{
    s->inherited = false;
    listeners__adjust(s->backlog_before, s->mode_before, s);
    int r = l->give_files ? listeners__give_file(l, s) : 0;
    if (r < 0)
        LOG(LOG_ERROR, "socket_file_not_given", "address=%s error=\"%s\"", s->address, strerror(-r));
}

void listeners_settle(struct listeners *l)
{
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        if (l->sockets[i].number != 0 && l->sockets[i].inherited)
            settle(l, &l->sockets[i]);
    }
    l->internal_inherited = false;
    for (unsigned i = 0; l->leavers != NULL && i < l->leavers->n; i++) {
        const struct listeners_inheritance *s = &l->leavers->sockets[i];
        LOG(LOG_NOTICE, "listener_not_kept", "address=%s port=%" PRIu64, s->address, s->port);
        listen_socket_remove_file(s->address, &s->file);
    }
    if (l->leavers != NULL)
        listeners_inherited_close(l->leavers);
}

/* ---- more edge shards than before */

static unsigned count_missing(const struct listeners *l, const struct listeners_socket *s, int *ret_one)
{
    unsigned n = 0;
    *ret_one = -1;
    for (unsigned shard = 0; shard < l->plan->n; shard++) {
        if (s->fds[shard] >= 0)
            *ret_one = s->fds[shard];
        else
            n += l->plan->shards[shard].edge;
    }
    return n;
}

/* One that was alone does not share its port yet. */
static int widen(struct listeners *l, const struct config *cfg, struct listeners_socket *s)
{
    struct net_keepalive k = keepalive_of_clients(cfg);
    int fds[NODE_SHARDS_MAX], one;
    unsigned n = count_missing(l, s, &one), used = 0;

    if (n == 0 || one < 0)
        return 0;
    int r = listen_socket_share(one);
    if (r == 0)
        r = listen_socket_open_beside(s->address, (uint16_t)s->port, (int)s->backlog, &k, n, fds);
    if (r < 0)
        return r;
    for (unsigned shard = 0; shard < l->plan->n; shard++) {
        if (l->plan->shards[shard].edge && s->fds[shard] < 0)
            s->fds[shard] = fds[used++];
    }
    return 1;
}

bool listeners_widen(struct listeners *l, const struct config *cfg)
{
    bool any = false;
    for (unsigned i = 0; i < LISTENERS_SOCKETS_MAX; i++) {
        struct listeners_socket *s = &l->sockets[i];
        int r = s->number != 0 && !listen_socket_is_unix(s->address) ? widen(l, cfg, s) : 0;
        any |= r > 0;
        if (r < 0)
            LOG(LOG_WARN, "listener_not_widened",
                "address=%s port=%" PRIu64
                " error=\"%s\" note=\"new shards get their clients from the others\"",
                s->address, s->port, strerror(-r));
    }
    return any;
}

/* ---- fewer edge shards than before */

/* The kernel numbers the sockets of a group in the order in which they began to listen: spares are the last
 * of them. When something has been taken out of the middle this chooses others, and a spare still gets some:
 * then what comes in the moment of its end is lost, as without this. */
static int choose_first(int fd, unsigned n)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RXHASH)),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, n),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0 ? -errno : 0;
}

static unsigned count_used(const struct listeners_socket *s, int *ret_one)
{
    unsigned n = 0;
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        if (s->fds[i] < 0)
            continue;
        *ret_one = s->fds[i];
        n++;
    }
    return n;
}

void listeners_spares_rest(struct listeners *l)
{
    for (unsigned i = 0; i < l->n_spares; i++) {
        const struct listeners_socket *s = listeners__socket(l, l->spares[i].socket);
        int one = -1;
        unsigned n = s != NULL ? count_used(s, &one) : 0;
        int r = n > 0 ? choose_first(one, n) : 0;
        if (r < 0)
            LOG(LOG_NOTICE, "spare_still_listens", "error=\"%s\"", strerror(-r));
    }
}

static bool listener_on(const struct listeners *l, uint32_t number, uint16_t *ret_slot, uint16_t *ret_made)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (l->list[i].socket != number)
            continue;
        *ret_slot = l->list[i].slot;
        *ret_made = l->list[i].made;
        return true;
    }
    return false;
}

int listeners_spares_accept(struct listeners *l, uint16_t *ret_slot, uint16_t *ret_made)
{
    for (unsigned i = 0; i < l->n_spares; i++) {
        if (!listener_on(l, l->spares[i].socket, ret_slot, ret_made))
            continue;
        int fd = accept4(l->spares[i].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            return fd;
    }
    return -EAGAIN;
}

void listeners_spares_close(struct listeners *l)
{
    int off = 0;
    for (unsigned i = 0; i < l->n_spares; i++) {
        const struct listeners_socket *s = listeners__socket(l, l->spares[i].socket);
        int one = -1;
        close_fd(&l->spares[i].fd);
        if (s != NULL && count_used(s, &one) > 0)
            setsockopt(one, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &off, sizeof off);
    }
    close_spares(l);
}
