// SPDX-License-Identifier: MIT
#include "supervisor/upgrade_offer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/shard_plan.h"
#include "supervisor/supervisor_priv.h"
#include "supervisor/upgrade_wire.h"

#define PATIENCE_MS 30000

static struct slice text_of(const char *text)
{
    return (struct slice){(const uint8_t *)text, strlen(text)};
}

static int send_record(int fd, struct bytes *record, const int *fds, unsigned n_fds)
{
    int r = upgrade_wire_send(fd, record, fds, n_fds);
    bytes_fini(record);
    return r;
}

/* ---- the node */

static void count(const struct supervisor *s, struct transfer_offer *ret)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        ret->edges |= (uint64_t)s->plan.shards[i].edge << i;
        ret->links |= (uint64_t)s->plan.shards[i].link << i;
        ret->clients += NODE_LOAD(s->node.shared->shards[i].clients);
        ret->connections += NODE_LOAD(s->node.shared->shards[i].links);
    }
}

static int send_node(const struct supervisor *s, int fd)
{
    const struct node_home *home = &s->node.shared->home;
    struct bytes record = {0};
    struct transfer_offer offer = {
        .n_shards = s->plan.n,
        .home = {home->shard, sizeof home->shard},
        .deadline_ns = (s->upgrade_old.deadline_ms + 500) * 1000000, /* this one gives up first */
        .version = text_of(TGG_VERSION),
        .runtime_dir = text_of(s->cfg->gateway.runtime_dir),
        .lan_ip = s->cfg->gateway.lan_ip,
        .start_port = s->cfg->gateway.start_port,
    };
    count(s, &offer);
    transfer_put_offer(&record, &offer);
    return send_record(fd, &record, NULL, 0);
}

/* ---- ids */

static int send_ids(const struct supervisor *s, int fd, unsigned shard)
{
    uint8_t left[8 * SHARD_ID_BLOCKS];
    struct node_shm_ids ids;
    struct bytes record = {0};

    if (!node_shm_get_ids(&s->shm, shard, &ids))
        return 0;
    for (unsigned i = 0; i < SHARD_ID_BLOCKS; i++) {
        for (unsigned byte = 0; byte < 8; byte++)
            left[8 * i + byte] = (uint8_t)((uint64_t)ids.left_unix_s[i] >> 8 * byte);
    }
    struct transfer_offer_ids r = {
        .shard = shard, .next_seq = ids.next_seq, .left_unix_s = {left, sizeof left}};
    transfer_put_offer_ids(&record, &r);
    return send_record(fd, &record, NULL, 0);
}

int upgrade_offer_send_ids(struct supervisor *s, int fd)
{
    int r = 0;
    for (unsigned i = 0; i < NODE_SHARDS_MAX && r == 0; i++)
        r = send_ids(s, fd, i);
    return r;
}

/* ---- sockets */

static int send_socket(int fd, const struct transfer_offer_socket *socket, const int *fds, unsigned n_fds)
{
    struct bytes record = {0};
    if (n_fds == 0)
        return 0;
    transfer_put_offer_socket(&record, socket);
    return send_record(fd, &record, fds, n_fds);
}

static int send_listening(const struct listeners_socket *socket, int fd)
{
    int fds[NODE_SHARDS_MAX];
    unsigned n = 0;
    struct transfer_offer_socket r = {
        .kind = UPGRADE_SOCKET_LISTENER,
        .address = text_of(socket->address),
        .port = socket->port,
        .backlog = socket->backlog,
        .mode = socket->mode,
        .device = socket->file.dev,
        .inode = socket->file.ino,
    };

    if (socket->number == 0)
        return 0;
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        if (socket->fds[i] >= 0)
            fds[n++] = socket->fds[i];
    }
    return send_socket(fd, &r, fds, listen_socket_is_unix(socket->address) && n > 1 ? 1 : n);
}

static int send_internal(const struct supervisor *s, int fd)
{
    char address[80];
    struct transfer_offer_socket r = {
        .kind = UPGRADE_SOCKET_INTERNAL,
        .address = text_of(listeners_internal_address(s->cfg, address, sizeof address)),
        .port = s->cfg->gateway.start_port,
    };
    return send_socket(fd, &r, &s->listeners.internal_fd, s->listeners.internal_fd >= 0);
}

static int send_admin(const struct supervisor *s, int fd)
{
    const struct admin_ports *p = &s->admin_ports;
    struct transfer_offer_socket r = {
        .kind = UPGRADE_SOCKET_ADMIN,
        .address = text_of(p->address),
        .device = p->file.dev,
        .inode = p->file.ino,
    };
    return send_socket(fd, &r, &p->socket_fd, p->socket_fd >= 0);
}

static int send_admin_port(const struct supervisor *s, int fd)
{
    struct transfer_offer_socket r = {
        .kind = UPGRADE_SOCKET_ADMIN_PORT,
        .address = text_of(s->cfg->admin.address),
        .port = s->cfg->admin.port,
    };
    return send_socket(fd, &r, &s->admin_ports.http_fd, s->admin_ports.http_fd >= 0);
}

static int send_upgrade_socket(const struct supervisor *s, int fd)
{
    struct transfer_offer_socket r = {.kind = UPGRADE_SOCKET_UPGRADE};
    return send_socket(fd, &r, &s->upgrade_socket.listen_fd, s->upgrade_socket.listen_fd >= 0);
}

/* ---- listeners */

static bool has_clients(const struct supervisor *s)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < s->plan.n; i++)
        n += NODE_LOAD(s->node.shared->shards[i].clients);
    return n > 0;
}

/* Of those that listen nobody counts the clients of each: where there are any they may be anybody's. */
static int send_listener(const struct supervisor *s, int fd, const struct config_listen *l)
{
    struct bytes record = {0};
    struct transfer_offer_listener r = {
        .name = text_of(l->name),
        .protocol = text_of(config_protocol_name(l->protocol)),
        .address = text_of(l->address),
        .port = l->port,
        .clients = has_clients(s),
    };
    transfer_put_offer_listener(&record, &r);
    return send_record(fd, &record, NULL, 0);
}

/* ---- all of it, in parts */

static int (*const single_parts[])(const struct supervisor *s, int fd) = {
    send_node, send_internal, send_admin, send_admin_port, send_upgrade_socket};
#define SINGLE_N (sizeof single_parts / sizeof single_parts[0])

int upgrade_offer_send(struct supervisor *s, int fd, unsigned part)
{
    int r;

    if (part < SINGLE_N)
        r = single_parts[part](s, fd);
    else if ((part -= SINGLE_N) < NODE_SHARDS_MAX)
        r = send_ids(s, fd, part);
    else if ((part -= NODE_SHARDS_MAX) < LISTENERS_SOCKETS_MAX)
        r = send_listening(&s->listeners.sockets[part], fd);
    else if ((part -= LISTENERS_SOCKETS_MAX) < s->cfg->n_listeners)
        r = send_listener(s, fd, &s->cfg->listen[part]);
    else
        return upgrade_wire_step(fd, UPGRADE_STEP_OFFERED, NULL, NULL, NULL, 0);
    return r < 0 ? r : 1;
}

/* ---- receiving it */

static int take_node(struct upgrade_offer *o, struct upgrade_wire *w)
{
    struct transfer_offer r;

    if (transfer_get_offer(w->fields, &r) < 0 || r.n_shards == 0 || r.n_shards > NODE_SHARDS_MAX ||
        r.edges == 0 || r.links == 0 ||
        ((r.edges | r.links) & ~(UINT64_MAX >> (NODE_SHARDS_MAX - r.n_shards))) != 0 ||
        r.home.len != sizeof o->home.shard)
        return -EBADMSG;
    o->n_shards = (unsigned)r.n_shards;
    o->edges = r.edges;
    o->links = r.links;
    memcpy(o->home.shard, r.home.data, r.home.len);
    o->clients = r.clients;
    o->connections = r.connections;
    o->deadline_ns = r.deadline_ns;
    o->lan_ip = (uint32_t)r.lan_ip;
    o->start_port = r.start_port;
    upgrade_wire_text(r.version, o->version, sizeof o->version);
    upgrade_wire_text(r.runtime_dir, o->runtime_dir, sizeof o->runtime_dir);
    for (unsigned i = 0; i < sizeof o->home.shard; i++) {
        if (o->home.shard[i] >= NODE_SHARDS_MAX)
            return -EBADMSG;
    }
    return 0;
}

int upgrade_offer_take_ids(struct upgrade_offer *o, struct slice fields)
{
    struct transfer_offer_ids r;

    if (transfer_get_offer_ids(fields, &r) < 0 || r.shard >= NODE_SHARDS_MAX || r.next_seq == 0 ||
        r.next_seq > CONNECTION_SEQ_MASK || r.left_unix_s.len != 8 * SHARD_ID_BLOCKS)
        return -EBADMSG;
    struct node_shm_ids *ids = &o->ids[r.shard].ids;
    o->ids[r.shard].known = true;
    ids->next_seq = (uint32_t)r.next_seq;
    for (unsigned i = 0; i < SHARD_ID_BLOCKS; i++) {
        uint64_t v = 0;
        for (unsigned byte = 0; byte < 8; byte++)
            v |= (uint64_t)r.left_unix_s.data[8 * i + byte] << 8 * byte;
        ids->left_unix_s[i] = (int64_t)v;
    }
    return 0;
}

static int take_descriptor(struct upgrade_wire *w)
{
    int fd = w->fds[0];
    w->fds[0] = -1;
    return fd;
}

static int take_listening(struct upgrade_offer *o, const struct transfer_offer_socket *r,
                          struct upgrade_wire *w)
{
    if (o->sockets.n == CONFIG_LISTEN_MAX || w->n_fds > NODE_SHARDS_MAX)
        return -EBADMSG;
    struct listeners_inheritance *s = &o->sockets.sockets[o->sockets.n++];
    upgrade_wire_text(r->address, s->address, sizeof s->address);
    s->port = r->port;
    s->backlog = r->backlog;
    s->mode = (mode_t)r->mode;
    s->file = (struct listen_socket_file){.dev = (dev_t)r->device, .ino = (ino_t)r->inode};
    s->n_fds = w->n_fds;
    memcpy(s->fds, w->fds, w->n_fds * sizeof(int));
    w->n_fds = 0;
    return 0;
}

/* Each once. */
static int take_socket(struct upgrade_offer *o, struct upgrade_wire *w)
{
    struct transfer_offer_socket r;
    struct admin_ports_inherited *a = &o->admin;

    if (transfer_get_offer_socket(w->fields, &r) < 0 || w->n_fds == 0)
        return -EBADMSG;
    if (r.kind == UPGRADE_SOCKET_LISTENER)
        return take_listening(o, &r, w);
    if (r.kind == UPGRADE_SOCKET_INTERNAL && o->sockets.internal_fd < 0) {
        o->sockets.internal_fd = take_descriptor(w);
        o->sockets.internal_port = r.port;
        upgrade_wire_text(r.address, o->sockets.internal_address, sizeof o->sockets.internal_address);
    } else if (r.kind == UPGRADE_SOCKET_ADMIN && a->socket_fd < 0) {
        a->socket_fd = take_descriptor(w);
        a->file = (struct listen_socket_file){.dev = (dev_t)r.device, .ino = (ino_t)r.inode};
        upgrade_wire_text(r.address, a->socket_address, sizeof a->socket_address);
    } else if (r.kind == UPGRADE_SOCKET_ADMIN_PORT && a->http_fd < 0) {
        a->http_fd = take_descriptor(w);
        a->http_port = r.port;
        upgrade_wire_text(r.address, a->http_address, sizeof a->http_address);
    } else if (r.kind == UPGRADE_SOCKET_UPGRADE && o->upgrade_fd < 0) {
        o->upgrade_fd = take_descriptor(w);
    } else {
        return r.kind < UPGRADE_SOCKET_KIND_N ? -EBADMSG : -EPROTO;
    }
    return 0;
}

static int take_listener(struct upgrade_offer *o, struct upgrade_wire *w)
{
    struct transfer_offer_listener r;

    if (transfer_get_offer_listener(w->fields, &r) < 0 || o->n_listeners == CONFIG_LISTEN_MAX)
        return -EBADMSG;
    struct upgrade_offer_listener *l = &o->listeners[o->n_listeners++];
    upgrade_wire_text(r.name, l->name, sizeof l->name);
    upgrade_wire_text(r.protocol, l->protocol, sizeof l->protocol);
    upgrade_wire_text(r.address, l->address, sizeof l->address);
    l->port = r.port;
    l->clients = r.clients != 0;
    return 0;
}

/* 1: it was the last. */
static int take_step(struct upgrade_wire *w)
{
    struct transfer_course r;
    if (transfer_get_course(w->fields, &r) < 0)
        return -EBADMSG;
    return r.step == UPGRADE_STEP_OFFERED ? 1 : -EPROTO;
}

static int take_part(struct upgrade_offer *o, struct upgrade_wire *w)
{
    switch (w->type) {
    case TRANSFER_TYPE_offer: return take_node(o, w);
    case TRANSFER_TYPE_offer_ids: return upgrade_offer_take_ids(o, w->fields);
    case TRANSFER_TYPE_offer_socket: return take_socket(o, w);
    case TRANSFER_TYPE_offer_listener: return take_listener(o, w);
    case TRANSFER_TYPE_course: return take_step(w);
    default: return -EPROTO;
    }
}

static const char *explain(int err)
{
    switch (err) {
    case -EPIPE: return "the running supervisor is gone";
    case -ETIMEDOUT: return "the running supervisor does not say what it has";
    case -EPROTO:
        return "made by another version, which says something that this one does not know: go by a version "
               "between the two, or stop and start";
    case -EBADMSG: return "what the running supervisor says makes no sense";
    default: return strerror(-err);
    }
}

static int receive_part(int fd, struct upgrade_wire *w, struct upgrade_offer *o)
{
    int r = upgrade_wire_receive(fd, w);
    if (r < 0)
        return r;
    r = take_part(o, w);
    upgrade_wire_close(w);
    return r;
}

/* As long as nothing has been set up there is nobody else to serve. */
static int receive(int fd, struct upgrade_wire *w, struct upgrade_offer *o)
{
    uint64_t until_ms = child_now_ms() + PATIENCE_MS;
    for (;;) {
        int r = receive_part(fd, w, o);
        if (r == 1)
            return o->n_shards > 0 ? 0 : -EBADMSG;
        if (r < 0 && r != -EAGAIN)
            return r;
        uint64_t now_ms = child_now_ms();
        if (now_ms >= until_ms)
            return -ETIMEDOUT;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (r == -EAGAIN)
            poll(&p, 1, (int)(until_ms - now_ms));
    }
}

int upgrade_offer_receive(int fd, struct upgrade_offer *ret, const char **ret_why)
{
    struct upgrade_wire *w = malloc(sizeof *w);

    *ret = (struct upgrade_offer){.upgrade_fd = -1};
    listeners_inherited_init(&ret->sockets);
    admin_ports_inherited_init(&ret->admin);
    int r = w != NULL ? receive(fd, w, ret) : -ENOMEM;
    free(w);
    if (r < 0) {
        *ret_why = explain(r);
        upgrade_offer_close(ret);
    }
    return r;
}

void upgrade_offer_close(struct upgrade_offer *o)
{
    listeners_inherited_close(&o->sockets);
    admin_ports_inherited_close(&o->admin);
    if (o->upgrade_fd >= 0)
        close(o->upgrade_fd);
    o->upgrade_fd = -1;
}

/* ---- whether it fits */

static const struct config_listen *listener_called(const struct config *cfg, const char *name)
{
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (strcmp(cfg->listen[i].name, name) == 0)
            return &cfg->listen[i];
    }
    return NULL;
}

static void check_listener(const struct upgrade_offer_listener *l, const struct config *cfg,
                           struct config_error *err)
{
    const struct config_listen *now = listener_called(cfg, l->name);
    char label[96];

    snprintf(label, sizeof label, "listen %s", l->name);
    if (!l->clients)
        return;
    if (now == NULL)
        config_error_add(err, 0, label, "",
                         "it is missing, and the running gateway may have clients of it; expected it as long "
                         "as they are there: take it out with tgg reload first, and upgrade when they have "
                         "left");
    else if (strcmp(config_protocol_name(now->protocol), l->protocol) != 0)
        config_error_add(err, now->line.protocol, label, "protocol",
                         "%s, but the running gateway may have clients of it that speak %s; expected that, "
                         "or a listener with another name",
                         config_protocol_name(now->protocol), l->protocol);
    else if (!config_listen_is_at(now, l->address, l->port))
        config_error_add(err, now->line.address, label, "address",
                         "it has moved, and the running gateway may have clients that came to %s port %u; "
                         "expected that address, or a listener with another name",
                         l->address, (unsigned)l->port);
}

static void check_internal(const struct upgrade_offer *o, const struct config *cfg, struct config_error *err)
{
    const struct config_gateway *g = &cfg->gateway;

    if (o->clients + o->connections == 0)
        return;
    if (g->start_port != o->start_port)
        config_error_add(
            err, g->line.start_port, "gateway", "start_port",
            "%u, but the running gateway has %u, which is in the ids of its clients and known to "
            "its workers; expected that, or a stop and a start",
            (unsigned)g->start_port, (unsigned)o->start_port);
    if (g->lan_ip != o->lan_ip)
        config_error_add(err, g->line.lan_ip, "gateway", "lan_ip",
                         "changed, but the one of the running gateway is in the ids of its clients and known "
                         "to its workers; expected that, or a stop and a start");
}

int upgrade_offer_check(const struct upgrade_offer *o, const struct config *cfg, struct config_error *err)
{
    unsigned before = err->n + err->left_out;

    if (strcmp(cfg->gateway.runtime_dir, o->runtime_dir) != 0)
        config_error_add(err, cfg->gateway.line.runtime_dir, "gateway", "runtime_dir",
                         "%s, but the running gateway has %s; expected that, or a stop and a start",
                         cfg->gateway.runtime_dir, o->runtime_dir);
    check_internal(o, cfg, err);
    for (unsigned i = 0; i < o->n_listeners; i++)
        check_listener(&o->listeners[i], cfg, err);
    return err->n + err->left_out == before ? 0 : -EINVAL;
}
