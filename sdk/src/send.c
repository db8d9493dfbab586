// SPDX-License-Identifier: MIT
#include "worker_priv.h"

#include <errno.h>

bool tggw__is_empty(const char *text)
{
    return text == NULL || text[0] == '\0' || (text[0] == '0' && text[1] == '\0');
}

int tggw__send(struct tggw__gateway *g, const struct tggw__packet *p)
{
    struct tggw *w = g->worker;
    struct tggw__bytes *out = &g->link.out;
    size_t size = tggw__packet_size(p), max = w->config.out_bytes_max;
    if (g->link.state != TGGW__UP || g->link.error < 0)
        return -ENOTCONN;
    if (size > max || p->body_len > max || p->ext_len > max)
        return -EMSGSIZE;
    if (tggw__bytes_len(out) + size > max) {
        w->stats.no_buffer++;
        return -ENOBUFS;
    }
    int r = tggw__packet_append(out, p);
    if (r < 0)
        return r;
    w->stats.packets_out++;
    if (tggw__bytes_len(out) >= TGGW__EARLY_BYTES && !g->link.wants_write) {
        w->stats.bytes_out += tggw__conn_flush(w, &g->link);
        w->stats.writes++;
    }
    return 0;
}

static bool is_up(const struct tggw__gateway *g)
{
    return g->link.state == TGGW__UP && g->link.error == 0;
}

int tggw__send_all(struct tggw *w, const struct tggw__packet *p)
{
    int first = 0;
    size_t tried = 0;
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next) {
        if (!is_up(g))
            continue;
        int r = tggw__send(g, p);
        first = first < 0 ? first : r;
        tried++;
    }
    return tried == 0 ? -ENOTCONN : first;
}

static struct tggw__packet packet(uint8_t cmd, const void *body, size_t len, unsigned flags)
{
    return (struct tggw__packet){.cmd = cmd,
                                 .flag = (uint8_t)(TGGW__FLAG_SCALAR | (flags & TGGW__FLAG_NO_ENCODE)),
                                 .body = body,
                                 .body_len = len};
}

// To the gateway that the client_id names.
static int send_to(struct tggw *w, const char *client_id, struct tggw__packet *p)
{
    uint32_t ip;
    uint16_t port;
    int r = tggw_client_id_parse(client_id, &ip, &port, &p->connection_id);
    if (r < 0)
        return r;
    struct tggw__gateway *g = tggw__gateway_find(w, ip, port);
    return g == NULL ? -ENOTCONN : tggw__send(g, p);
}

int tggw_send_to_current(struct tggw *w, const struct tggw_client *c, const void *data, size_t len,
                         unsigned flags)
{
    struct tggw__packet p = packet(TGGW__SEND_TO_ONE, data, len, flags);
    p.connection_id = c->connection_id;
    return tggw__send(c->link, &p);
}

int tggw_send_to_client(struct tggw *w, const char *client_id, const void *data, size_t len, unsigned flags)
{
    struct tggw__packet p = packet(TGGW__SEND_TO_ONE, data, len, flags);
    return send_to(w, client_id, &p);
}

int tggw_send_to_all(struct tggw *w, const void *data, size_t len, unsigned flags)
{
    struct tggw__packet p = packet(TGGW__SEND_TO_ALL, data, len, flags);
    return tggw__send_all(w, &p);
}

// ---- ext_data
// ---------------------------------------------------------------------------------------------------

static struct tggw__bytes *scratch(struct tggw *w)
{
    tggw__bytes_reset(&w->scratch, TGGW__KEEP_BYTES);
    return &w->scratch;
}

static void set_ext(struct tggw__packet *p, const struct tggw__bytes *b)
{
    p->ext = b->data + b->head;
    p->ext_len = tggw__bytes_len(b);
}

size_t tggw__json_own_ids(struct tggw__bytes *b, const struct tggw__gateway *g, const char *const *ids,
                          size_t count, int *err)
{
    size_t n = 0;
    uint32_t ip, connection_id;
    uint16_t port;
    tggw__json_raw(b, "{", err);
    for (size_t i = 0; i < count; i++) {
        if (tggw_client_id_parse(ids[i], &ip, &port, &connection_id) < 0 || ip != g->ip || port != g->port)
            continue;
        tggw__json_raw(b, n++ > 0 ? ",\"" : "\"", err);
        tggw__json_u32(b, connection_id, err);
        tggw__json_raw(b, "\":", err);
        tggw__json_u32(b, connection_id, err);
    }
    tggw__json_raw(b, "}", err);
    return n;
}

// {"<field>":{own ids}} to each gateway. Which of them get a message when none of the ids is theirs differs.
static int send_with_ids(struct tggw *w, const char *field, bool also_without, const char *const *ids,
                         size_t count, struct tggw__packet *p)
{
    int first = 0;
    size_t tried = 0;
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next) {
        struct tggw__bytes *b = scratch(w);
        int err = 0;
        if (!is_up(g))
            continue;
        tried++;
        tggw__json_raw(b, field, &err);
        size_t own = tggw__json_own_ids(b, g, ids, count, &err);
        tggw__json_raw(b, "}", &err);
        if (own == 0 && !also_without)
            continue;
        set_ext(p, b);
        if (own == 0)
            p->ext_len = 0;
        if (err == 0)
            err = tggw__send(g, p);
        first = first < 0 ? first : err;
    }
    return tried == 0 ? -ENOTCONN : first;
}

int tggw_send_to_clients(struct tggw *w, const char *const *client_ids, size_t count, const void *data,
                         size_t len, unsigned flags)
{
    struct tggw__packet p = packet(TGGW__SEND_TO_ALL, data, len, flags);
    return count == 0 ? 0 : send_with_ids(w, "{\"connections\":", false, client_ids, count, &p);
}

int tggw_send_to_all_except(struct tggw *w, const char *const *client_ids, size_t count, const void *data,
                            size_t len, unsigned flags)
{
    struct tggw__packet p = packet(TGGW__SEND_TO_ALL, data, len, flags);
    return send_with_ids(w, "{\"exclude\":", true, client_ids, count, &p);
}

int tggw_send_to_uids(struct tggw *w, const char *const *uids, size_t count, const void *data, size_t len,
                      unsigned flags)
{
    struct tggw__packet p = packet(TGGW__SEND_TO_UID, data, len, flags);
    struct tggw__bytes *b = scratch(w);
    int err = 0;
    if (count == 0)
        return 0;
    tggw__json_list(b, uids, count, &err);
    if (err < 0)
        return err;
    set_ext(&p, b);
    return tggw__send_all(w, &p);
}

int tggw_send_to_uid(struct tggw *w, const char *uid, const void *data, size_t len, unsigned flags)
{
    if (tggw__is_empty(uid))
        return -EINVAL;
    return tggw_send_to_uids(w, &uid, 1, data, len, flags);
}

static int groups_ext(struct tggw *w, const struct tggw__gateway *g, const char *const *groups, size_t count,
                      const char *const *exclude, size_t exclude_count, struct tggw__packet *p)
{
    struct tggw__bytes *b = scratch(w);
    int err = 0;
    tggw__json_raw(b, "{\"group\":", &err);
    tggw__json_list(b, groups, count, &err);
    tggw__json_raw(b, ",\"exclude\":", &err);
    if (exclude_count == 0)
        tggw__json_raw(b, "null", &err);
    else
        tggw__json_own_ids(b, g, exclude, exclude_count, &err);
    tggw__json_raw(b, "}", &err);
    set_ext(p, b);
    return err;
}

int tggw_send_to_groups(struct tggw *w, const char *const *groups, size_t count, const char *const *exclude,
                        size_t exclude_count, const void *data, size_t len, unsigned flags)
{
    struct tggw__packet p = packet(TGGW__SEND_TO_GROUP, data, len, flags);
    int first = 0;
    size_t tried = 0;
    if (count == 0)
        return 0;
    for (struct tggw__gateway *g = w->gateways; g != NULL; g = g->next) {
        if (!is_up(g))
            continue;
        tried++;
        int r = groups_ext(w, g, groups, count, exclude, exclude_count, &p);
        if (r == 0)
            r = tggw__send(g, &p);
        first = first < 0 ? first : r;
    }
    return tried == 0 ? -ENOTCONN : first;
}

int tggw_send_to_group(struct tggw *w, const char *group, const void *data, size_t len, unsigned flags)
{
    if (tggw__is_empty(group))
        return -EINVAL;
    return tggw_send_to_groups(w, &group, 1, NULL, 0, data, len, flags);
}

// ---- one client
// -------------------------------------------------------------------------------------------------

int tggw_close_client(struct tggw *w, const char *client_id, const void *data, size_t len)
{
    struct tggw__packet p = packet(TGGW__KICK, data, len, 0);
    if (data == NULL) { // serialize(null)
        p.flag = 0;
        p.body = (const uint8_t *)"N;";
        p.body_len = 2;
    }
    return send_to(w, client_id, &p);
}

int tggw_destroy_client(struct tggw *w, const char *client_id)
{
    struct tggw__packet p = packet(TGGW__DESTROY, NULL, 0, 0);
    return send_to(w, client_id, &p);
}

static int send_ext(struct tggw *w, uint8_t cmd, const char *client_id, const void *ext, size_t len)
{
    struct tggw__packet p = packet(cmd, NULL, 0, 0);
    p.ext = ext;
    p.ext_len = len;
    return send_to(w, client_id, &p);
}

static int send_name(struct tggw *w, uint8_t cmd, const char *client_id, const char *name)
{
    return tggw__is_empty(name) ? -EINVAL : send_ext(w, cmd, client_id, name, strlen(name));
}

int tggw_bind_uid(struct tggw *w, const char *client_id, const char *uid)
{
    return send_name(w, TGGW__BIND_UID, client_id, uid);
}

int tggw_unbind_uid(struct tggw *w, const char *client_id, const char *uid)
{
    return send_name(w, TGGW__UNBIND_UID, client_id, uid);
}

int tggw_join_group(struct tggw *w, const char *client_id, const char *group)
{
    return send_name(w, TGGW__JOIN_GROUP, client_id, group);
}

int tggw_leave_group(struct tggw *w, const char *client_id, const char *group)
{
    return send_name(w, TGGW__LEAVE_GROUP, client_id, group);
}

int tggw_ungroup(struct tggw *w, const char *group)
{
    struct tggw__packet p = packet(TGGW__UNGROUP, NULL, 0, 0);
    if (tggw__is_empty(group))
        return -EINVAL;
    p.ext = (const uint8_t *)group;
    p.ext_len = strlen(group);
    return tggw__send_all(w, &p);
}

int tggw_set_session(struct tggw *w, const char *client_id, const void *session, size_t len)
{
    return send_ext(w, TGGW__SET_SESSION, client_id, session, len);
}

int tggw_update_session(struct tggw *w, const char *client_id, const void *session, size_t len)
{
    return send_ext(w, TGGW__UPDATE_SESSION, client_id, session, len);
}
