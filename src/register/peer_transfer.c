// SPDX-License-Identifier: MIT
#include "register/register_priv.h"

#include <errno.h>
#include <unistd.h>

#include "base/pool.h"
#include "common/fault.h"

/* ---- to another process */

static struct slice all_of(const struct bytes *b)
{
    return (struct slice){b->data, b->len};
}

static int peer_put(const struct peer *p, struct transfer_sink *sink)
{
    uint64_t now_ms = loop_now_ms(p->server->loop);
    struct bytes addr = {0}, record = {0};
    struct transfer_register_peer r = {
        .address = all_of(&p->address),
        .worker = list_is_linked(&p->worker_link),
        .in = all_of(&p->in),
        .out = all_of(&p->out),
        .auth_left_ms = p->auth_until_ms > now_ms ? p->auth_until_ms - now_ms : 0,
    };
    int err = -ENOMEM;

    if (transfer_put_address(&addr, &p->addr)) {
        r.peer = all_of(&addr);
        if (transfer_put_register_peer(&record, &r))
            err = sink->put(sink, 0, all_of(&record), net_conn_handle(p->server->net, &p->conn));
    }
    bytes_fini(&addr);
    bytes_fini(&record);
    return err < 0 ? err : fault_at("old_register.export");
}

/* Each once: those of a gateway are in other lists, too. */
int register__peers_put(const struct register_server *s, struct transfer_sink *sink)
{
    int r = 0;

    for (struct list *l = s->gateways.next; r == 0 && l != &s->gateways; l = l->next)
        r = peer_put(CONTAINER_OF(l, struct peer, gateway_link), sink);
    for (struct list *l = s->workers.next; r == 0 && l != &s->workers; l = l->next) {
        const struct peer *p = CONTAINER_OF(l, struct peer, worker_link);
        if (!list_is_linked(&p->gateway_link))
            r = peer_put(p, sink);
    }
    for (struct list *l = s->others.next; r == 0 && l != &s->others; l = l->next)
        r = peer_put(CONTAINER_OF(l, struct peer, other_link), sink);
    return r;
}

/* ---- from another process */

static bool fill(struct peer *p, const struct transfer_register_peer *r)
{
    return bytes_append(&p->address, r->address.data, r->address.len) &&
           bytes_append(&p->in, r->in.data, r->in.len) && bytes_append(&p->out, r->out.data, r->out.len);
}

static void take_its_place(struct peer *p, const struct transfer_register_peer *r)
{
    struct register_server *s = p->server;

    if (r->address.len == 0 && r->worker == 0) {
        register__peer_set_auth(p, r->auth_left_ms);
        return;
    }
    register__peer_authenticated(p);
    if (r->address.len > 0)
        list_append(&s->gateways, &p->gateway_link);
    if (r->worker != 0)
        list_append(&s->workers, &p->worker_link);
}

static bool is_sound(const struct transfer_register_peer *r)
{
    return (r->address.len == 0 || register__address_ok(r->address)) && r->in.len <= REGISTER_LINE_MAX &&
           r->out.len <= REGISTER_OUT_MAX && r->auth_left_ms <= UINT32_MAX;
}

int register__peer_take(struct register_server *s, const struct transfer_record *record)
{
    struct transfer_register_peer r;
    struct net_addr addr;
    int err = transfer_get_register_peer(record->fields, &r);

    if (err == 0)
        err = transfer_get_address(r.peer, &addr);
    if (err == 0 && (record->handle < 0 || !is_sound(&r)))
        err = -EBADMSG;
    struct peer *p = err == 0 ? register__peer_new(s, &addr) : NULL;
    if (p == NULL) {
        if (record->handle >= 0)
            close(record->handle);
        return err < 0 ? err : -EUSERS;
    }
    err = net_take(s->net, &p->conn, record->handle);
    if (err == 0 && !fill(p, &r))
        err = -ENOMEM;
    if (err == 0)
        take_its_place(p, &r);
    return err < 0 ? err : fault_at("new_register.import");
}
