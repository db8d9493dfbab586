// SPDX-License-Identifier: MIT
/* The commands of a link, and what the model takes them to mean. */
#include "sim/sim_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "proto/line/frame.h"
#include "proto/ws/frame.h"
#include "sim/checker.h"
#include "sim/sim_client.h"
#include "sim/sim_message.h"

static struct gw_packet packet_to(const struct sim_client *c, uint8_t cmd)
{
    return (struct gw_packet){
        .cmd = cmd, .flag = GW_FLAG_BODY_IS_SCALAR, .connection_id = c != NULL ? c->id : 0};
}

static void command_with(struct sim_link *l, struct gw_packet p, const struct bytes *ext,
                         const struct bytes *body)
{
    if (ext != NULL)
        p.ext = (struct slice){ext->data, ext->len};
    if (body != NULL)
        p.body = (struct slice){body->data, body->len};
    sim_link_command(l, &p);
}

/* ---- sends */

static struct sim_send *send_new(struct sim_link *l)
{
    if (l->n_sends == l->cap_sends) {
        l->cap_sends = l->cap_sends == 0 ? 64 : l->cap_sends * 2;
        l->sends = realloc(l->sends, l->cap_sends * sizeof *l->sends);
        ASSERT(l->sends != NULL);
    }
    l->sends[l->n_sends] = (struct sim_send){0};
    return &l->sends[l->n_sends++];
}

/* The text of the send that was last begun. */
static void put_text(struct sim_link *l, struct bytes *body, uint32_t len)
{
    enum sim_message_kind kind = world_chance(l->w, 20) ? SIM_OF_LINK_BINARY : SIM_OF_LINK;
    sim_message_append(body, &(struct sim_message){(char)kind, l->index, l->n_sends - 1, len});
}

static void aim(struct sim_send *s, const struct sim_client *c)
{
    if (sim_set_has(&s->may, c->index))
        sim_set_add(&s->twice, c->index);
    sim_set_add(&s->may, c->index);
    if (checker_is_online(c))
        sim_set_add(&s->must, c->index);
}

/* As a worker does that frames by itself. */
static void frame_text(const struct sim_client *c, struct bytes *body)
{
    struct bytes framed = {0};
    uint8_t head[WS_OUT_HEADER_MAX];
    if (c->protocol == PROTOCOL_WEBSOCKET)
        bytes_append(&framed, head, ws_frame_header(head, WS_OP_BINARY, body->len));
    if (c->protocol == PROTOCOL_FRAME)
        bytes_append(&framed, head, frame_header(head, body->len));
    bytes_append(&framed, body->data, body->len);
    if (c->protocol == PROTOCOL_TEXT)
        bytes_append_byte(&framed, '\n');
    bytes_fini(body);
    *body = framed;
}

void sim_link_send_to_one(struct sim_link *l, struct sim_client *c, uint32_t len)
{
    struct bytes body = {0};
    struct sim_send *s = send_new(l);
    struct gw_packet p = packet_to(c, GW_CMD_SEND_TO_ONE);
    aim(s, c);
    put_text(l, &body, len);
    s->framed = world_chance(l->w, 10);
    if (s->framed) {
        p.flag |= GW_FLAG_NOT_CALL_ENCODE;
        frame_text(c, &body);
    }
    world_trace(l->w, "link %u: %u, to client %u (%u), %u bytes", l->index, l->n_sends - 1, c->index, c->id,
                len);
    command_with(l, p, NULL, &body);
    bytes_fini(&body);
}

/* Some ids in a JSON list, as numbers or strings; every client of the set is one of them. */
static void put_ids(struct sim_link *l, struct bytes *ext, struct sim_set *ret)
{
    const char *comma = "";
    bytes_append_str(ext, "[");
    for (unsigned i = 0; i < l->w->n_clients; i++) {
        const struct sim_client *c = l->w->clients[i];
        if (c->id == 0 || !world_chance(l->w, 30))
            continue;
        bytes_printf(ext, world_chance(l->w, 50) ? "%s%u" : "%s\"%u\"", comma, c->id);
        sim_set_add(ret, i);
        comma = ",";
    }
    bytes_append_str(ext, "]");
}

void sim_link_send_to_all(struct sim_link *l, uint32_t len)
{
    struct bytes ext = {0}, body = {0};
    struct sim_set ids = {0};
    struct sim_send *s = send_new(l);
    unsigned how =
        (unsigned)world_draw(l->w, 4); /* 0: to those listed, 1: but for those listed, else: to all */
    if (how < 2) {
        bytes_append_str(&ext, how == 0 ? "{\"connections\":" : "{\"exclude\":");
        put_ids(l, &ext, &ids);
        bytes_append_str(&ext, "}");
    }
    for (unsigned i = 0; i < l->w->n_clients; i++)
        if (how >= 2 || sim_set_has(&ids, i) == (how == 0))
            aim(s, l->w->clients[i]);
    /* Those that connect while it is on its way. */
    for (unsigned i = l->w->n_clients; i < WORLD_CLIENTS_MAX && how > 0; i++)
        sim_set_add(&s->may, i);
    put_text(l, &body, len);
    world_trace(l->w, "link %u: %u, to all (%u), %u bytes", l->index, l->n_sends - 1, how, len);
    command_with(l, packet_to(NULL, GW_CMD_SEND_TO_ALL), &ext, &body);
    bytes_fini(&ext);
    bytes_fini(&body);
}

static void put_names(struct sim_link *l, struct bytes *ext, char kind, unsigned mask)
{
    char name[SIM_NAME_SIZE];
    const char *comma = "";
    bytes_append_str(ext, "[");
    for (unsigned k = 0; k < SIM_NAMES; k++) {
        if ((mask >> k & 1) == 0)
            continue;
        sim_link_name(l, kind, k, name);
        bool bare = name[0] != 'L' && world_chance(l->w, 50);
        bytes_printf(ext, bare ? "%s%s" : "%s\"%s\"", comma, name);
        comma = ",";
    }
    bytes_append_str(ext, "]");
}

void sim_link_send_to_groups(struct sim_link *l, uint32_t len)
{
    struct bytes ext = {0}, body = {0};
    struct sim_set exclude = {0};
    struct sim_send *s = send_new(l);
    unsigned a = (unsigned)world_draw(l->w, SIM_NAMES), b = (unsigned)world_draw(l->w, SIM_NAMES);
    unsigned mask = 1u << a | (world_chance(l->w, 50) ? 1u << b : 0);
    bytes_append_str(&ext, "{\"group\":");
    put_names(l, &ext, 'g', mask);
    bytes_append_str(&ext, ",\"exclude\":");
    if (world_chance(l->w, 30))
        put_ids(l, &ext, &exclude);
    else
        bytes_append_str(&ext, "null");
    bytes_append_str(&ext, "}");
    for (unsigned i = 0; i < l->w->n_clients; i++) {
        struct sim_client *c = l->w->clients[i];
        if (c->owner != (int)l->index || sim_set_has(&exclude, i))
            continue;
        for (unsigned k = 0; k < SIM_NAMES; k++)
            if ((c->groups & mask & 1u << k) != 0)
                aim(s, c);
    }
    put_text(l, &body, len);
    world_trace(l->w, "link %u: %u, to groups %x, %u bytes", l->index, l->n_sends - 1, mask, len);
    command_with(l, packet_to(NULL, GW_CMD_SEND_TO_GROUP), &ext, &body);
    bytes_fini(&ext);
    bytes_fini(&body);
}

void sim_link_send_to_uids(struct sim_link *l, uint32_t len)
{
    struct bytes ext = {0}, body = {0};
    struct sim_send *s = send_new(l);
    unsigned mask = 1 + (unsigned)world_draw(l->w, (1u << SIM_NAMES) - 1);
    put_names(l, &ext, 'u', mask);
    for (unsigned i = 0; i < l->w->n_clients; i++) {
        struct sim_client *c = l->w->clients[i];
        if (c->owner != (int)l->index || c->uid < 0 || (mask >> c->uid & 1) == 0)
            continue;
        aim(s, c);
        sim_set_add(&s->of_uid[c->uid], i);
    }
    put_text(l, &body, len);
    world_trace(l->w, "link %u: %u, to uids %x, %u bytes", l->index, l->n_sends - 1, mask, len);
    command_with(l, packet_to(NULL, GW_CMD_SEND_TO_UID), &ext, &body);
    bytes_fini(&ext);
    bytes_fini(&body);
}

/* ---- ends */

void sim_link_kick(struct sim_link *l, struct sim_client *c)
{
    struct bytes body = {0};
    struct gw_packet p = packet_to(c, GW_CMD_KICK);
    if (world_chance(l->w, 50)) {
        sim_set_add(&send_new(l)->may, c->index);
        put_text(l, &body, 30);
    } else {
        p.flag = 0;
        bytes_append_str(&body, "N;");
    }
    c->ended_by_command = true;
    world_trace(l->w, "link %u: kicks client %u", l->index, c->index);
    command_with(l, p, NULL, &body);
    bytes_fini(&body);
}

void sim_link_destroy(struct sim_link *l, struct sim_client *c)
{
    c->ended_by_command = true;
    world_trace(l->w, "link %u: destroys client %u", l->index, c->index);
    command_with(l, packet_to(c, GW_CMD_DESTROY), NULL, NULL);
}

/* ---- what belongs to a client */

/* Those that have that uid now are to be closed, if the bind finds its client there. */
static void replace_others(struct sim_link *l, const struct sim_client *c, unsigned k)
{
    for (unsigned i = 0; i < l->w->n_clients; i++) {
        struct sim_client *other = l->w->clients[i];
        if (other == c || other->owner != (int)l->index || other->uid != (int)k)
            continue;
        if (!other->may_be_replaced)
            other->replaced_at = l->n_sends;
        other->may_be_replaced = true;
    }
}

static void bind_to(struct sim_link *l, struct sim_client *c, unsigned k)
{
    char name[SIM_NAME_SIZE];
    struct bytes ext = {0};
    if (l->w->config.gateway.one_connection_per_uid)
        replace_others(l, c, k);
    c->uid = (int)k;
    bytes_append_str(&ext, sim_link_name(l, 'u', k, name));
    command_with(l, packet_to(c, GW_CMD_BIND_UID), &ext, NULL);
    bytes_fini(&ext);
}

void sim_link_bind(struct sim_link *l, struct sim_client *c, unsigned k)
{
    if (c->owner != -1 && c->owner != (int)l->index)
        return;
    c->owner = (int)l->index;
    bind_to(l, c, k);
    world_trace(l->w, "link %u: client %u (%u) has uid %u, alone", l->index, c->index, c->id, k);
}

const char *sim_contested_name(unsigned k, char buf[SIM_NAME_SIZE])
{
    snprintf(buf, SIM_NAME_SIZE, "everybody's %u", k);
    return buf;
}

void sim_link_contest(struct sim_link *l, struct sim_client *c)
{
    char name[SIM_NAME_SIZE];
    struct bytes ext = {0};
    if (c->owner != -1 && c->owner != SIM_OWNER_ALL)
        return;
    c->owner = SIM_OWNER_ALL;
    c->may_be_replaced = true;
    bytes_append_str(&ext, sim_contested_name(c->index % SIM_CONTESTED, name));
    world_trace(l->w, "link %u: client %u (%u) has uid %s", l->index, c->index, c->id, name);
    command_with(l, packet_to(c, GW_CMD_BIND_UID), &ext, NULL);
    bytes_fini(&ext);
}

static void change_uid(struct sim_link *l, struct sim_client *c)
{
    if (c->uid >= 0 && world_chance(l->w, 40)) {
        c->uid = -1;
        command_with(l, packet_to(c, GW_CMD_UNBIND_UID), NULL, NULL);
        return;
    }
    bind_to(l, c, (unsigned)world_draw(l->w, SIM_NAMES));
}

static void change_groups(struct sim_link *l, struct sim_client *c)
{
    char name[SIM_NAME_SIZE];
    struct bytes ext = {0};
    unsigned k = (unsigned)world_draw(l->w, SIM_NAMES);
    bool join = world_chance(l->w, 70);
    c->groups = join ? c->groups | 1u << k : c->groups & ~(1u << k);
    bytes_append_str(&ext, sim_link_name(l, 'g', k, name));
    command_with(l, packet_to(c, join ? GW_CMD_JOIN_GROUP : GW_CMD_LEAVE_GROUP), &ext, NULL);
    bytes_fini(&ext);
}

static void change_session(struct sim_link *l, struct sim_client *c)
{
    struct bytes ext = {0};
    int64_t value = (int64_t)world_draw(l->w, 1000000);
    bool update = world_chance(l->w, 50);
    char key = update && world_chance(l->w, 70) ? 'u' : 'v';
    bytes_printf(&ext, "a:1:{s:1:\"%c\";i:%lld;}", key, (long long)value);
    if (!update)
        c->session_v = c->session_u = -1;
    /* v stands before u in the model's text: an update that would bring v behind u is a new session instead.
     */
    if (update && key == 'v' && c->session_v < 0 && c->session_u >= 0) {
        update = false;
        c->session_u = -1;
    }
    *(key == 'v' ? &c->session_v : &c->session_u) = value;
    sim_client_session_changed(c);
    command_with(l, packet_to(c, update ? GW_CMD_UPDATE_SESSION : GW_CMD_SET_SESSION), &ext, NULL);
    bytes_fini(&ext);
}

void sim_link_change(struct sim_link *l, struct sim_client *c)
{
    if (c->owner != -1 && c->owner != (int)l->index)
        return;
    c->owner = (int)l->index;
    switch (world_draw(l->w, 3)) {
    case 0: change_uid(l, c); break;
    case 1: change_groups(l, c); break;
    default: change_session(l, c);
    }
    world_trace(l->w, "link %u: client %u has uid %d, groups %x, session %lld %lld", l->index, c->index,
                c->uid, c->groups, (long long)c->session_v, (long long)c->session_u);
}

void sim_link_ungroup(struct sim_link *l)
{
    char name[SIM_NAME_SIZE];
    struct bytes ext = {0};
    unsigned k = (unsigned)world_draw(l->w, SIM_NAMES);
    for (unsigned i = 0; i < l->w->n_clients; i++)
        if (l->w->clients[i]->owner == (int)l->index)
            l->w->clients[i]->groups &= ~(1u << k);
    bytes_append_str(&ext, sim_link_name(l, 'g', k, name));
    world_trace(l->w, "link %u: dissolves group %u", l->index, k);
    command_with(l, packet_to(NULL, GW_CMD_UNGROUP), &ext, NULL);
    bytes_fini(&ext);
}

void sim_link_nonsense(struct sim_link *l)
{
    static const struct {
        uint8_t cmd;
        const char *ext;
    } of[] = {
        {GW_CMD_SEND_TO_ALL, "{\"exclude\":"},
        {GW_CMD_SEND_TO_GROUP, "not json"},
        {GW_CMD_SEND_TO_UID, ""},
        {GW_CMD_BIND_UID, ""},
        {GW_CMD_JOIN_GROUP, "0"},
        {GW_CMD_UNGROUP, ""},
        {77, "unknown command"},
        {GW_CMD_PING, ""},
    };
    struct bytes ext = {0};
    unsigned i = (unsigned)world_draw(l->w, sizeof of / sizeof of[0]);
    bytes_append_str(&ext, of[i].ext);
    world_trace(l->w, "link %u: nonsense, command %u", l->index, of[i].cmd);
    command_with(l, packet_to(NULL, of[i].cmd), &ext, NULL);
    bytes_fini(&ext);
}
