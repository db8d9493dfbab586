// SPDX-License-Identifier: MIT
/* Commands of workers and GatewayClients that concern one client, and the way in for all others (job.c,
 * query.c). What PHP's Gateway does with each: its onWorkerMessage; the table is in
 * docs/PROTOCOL-gatewayworker.md. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/secret.h"
#include "proto/php/php_json.h"
#include "proto/php/php_value.h"

void command_refused(struct link *l, const struct gw_packet *p, const char *why)
{
    gw_count(l->gw, COUNTER_command_refused, 1);
    LOG(LOG_WARN, "command_refused", "command=%s peer=%s worker=%s connection_id=%u why=\"%s\" ext=%s",
        gw_cmd_name(p->cmd), link_peer_text(l), link_label(l), p->connection_id, why,
        log_quote(p->ext.data, p->ext.len));
}

/* What PHP's empty() says of a string. */
static bool is_empty(struct slice s)
{
    return s.len == 0 || (s.len == 1 && s.data[0] == '0');
}

static struct upstream_client *client_by_id(struct gatewayworker *gw, uint32_t id)
{
    struct member *m = directory_find(gw->up.host->directory, id);
    return m != NULL ? CONTAINER_OF(m, struct upstream_client, member) : NULL;
}

void command_traced(struct link *l, const struct gw_packet *p, struct upstream_client *c)
{
    l->gw->up.host->ops->traced(c, gw_cmd_name(p->cmd), p->pack_len, link_sender(l));
}

/* As client_by_id; a trace of it is told. */
static struct upstream_client *asked_for(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = client_by_id(l->gw, p->connection_id);
    if (c != NULL && gw_is_traced(l->gw, c))
        command_traced(l, p, c);
    return c;
}

/* The client that a command is about, or NULL: it is gone. */
static struct upstream_client *addressee(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = asked_for(l, p);
    if (c == NULL)
        counter_drop(l->gw->up.host->counters, DROP_client_gone);
    return c;
}

bool command_payload(struct gatewayworker *gw, const struct gw_packet *p, struct bytes *scratch,
                     struct slice *ret)
{
    if (__builtin_expect((p->flag & GW_FLAG_BODY_IS_SCALAR) != 0, 1)) {
        *ret = p->body;
        return true;
    }
    bytes_clear(scratch);
    if (php_to_json(scratch, p->body) != 0) {
        counter_drop(gw->up.host->counters, DROP_not_a_string);
        LOG(LOG_WARN, "body_not_a_string", "command=%s body=%s", gw_cmd_name(p->cmd),
            log_quote(p->body.data, p->body.len));
        return false;
    }
    *ret = (struct slice){scratch->data, scratch->len};
    return true;
}

/* ---- the link says who it is */

/* False: it is not who it says, the link is ending. */
static bool authorize(struct link *l, const struct gw_packet *p, struct gw_connect *ret)
{
    struct gatewayworker *gw = l->gw;
    const char *key = gw_config(gw)->secret_key;
    int err = gw_read_connect(&gw->args, p->body, ret);
    if (err == 0 && ret->has_secret_key &&
        secret_equal(ret->secret_key.data, ret->secret_key.len, key, strlen(key))) {
        if (!l->authorized)
            timer_cancel(gw->up.host->loop, &l->timer);
        l->authorized = true;
        return true;
    }
    gw_count(gw, COUNTER_link_unauthorized, 1);
    LOG(LOG_WARN, "link_unauthorized", "peer=%s command=%s why=\"%s\"", link_peer_text(l),
        gw_cmd_name(p->cmd), err != 0 ? "the body is not JSON" : "secret_key is not ours");
    link_end(l);
    return false;
}

static bool worker_connect(struct link *l, const struct gw_packet *p)
{
    struct gw_connect connect;
    if (!authorize(l, p, &connect))
        return true;
    if (l->worker != NULL || !net_conn_is_open(&l->conn)) {
        command_refused(l, p, "this link is a worker already, or gone");
        return true;
    }
    int err = worker_attach(l, connect.worker_key);
    if (err == 0)
        return true;
    if (err == -ENOMEM)
        LOG(LOG_ERROR, "worker_no_memory", "workers=%u", l->gw->n_workers);
    link_close(l, true);
    return false;
}

static void unauthorized(struct link *l, const struct gw_packet *p)
{
    gw_count(l->gw, COUNTER_link_unauthorized, 1);
    LOG(LOG_WARN, "link_unauthorized", "peer=%s command=%s why=\"it has not shown the secret key\"",
        link_peer_text(l), gw_cmd_name(p->cmd));
    link_end(l);
}

/* ---- one client */

static void send_to_one(struct link *l, const struct gw_packet *p)
{
    struct gatewayworker *gw = l->gw;
    struct upstream_client *c = addressee(l, p);
    struct bytes scratch = {0};
    struct slice payload;
    if (c != NULL && command_payload(gw, p, &scratch, &payload)) {
        struct upstream_message m;
        upstream_message_init(&m, payload, (p->flag & GW_FLAG_NOT_CALL_ENCODE) != 0);
        gw->up.host->ops->send(c, &m);
        upstream_message_fini(&m);
    }
    bytes_fini(&scratch);
}

static void kick(struct link *l, const struct gw_packet *p)
{
    struct gatewayworker *gw = l->gw;
    struct upstream_client *c = addressee(l, p);
    struct bytes scratch = {0};
    struct upstream_message m = {0};
    struct slice payload;
    if (c == NULL)
        return;
    bool is_null = (p->flag & GW_FLAG_BODY_IS_SCALAR) == 0 && slice_eq_str(p->body, "N;");
    bool send = !is_null && command_payload(gw, p, &scratch, &payload);
    if (send)
        upstream_message_init(&m, payload, false);
    gw->up.host->ops->kick(c, send ? &m : NULL);
    upstream_message_fini(&m);
    bytes_fini(&scratch);
}

static void destroy(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = addressee(l, p);
    if (c != NULL)
        l->gw->up.host->ops->destroy(c);
}

static void session_put(struct link *l, const struct gw_packet *p, struct upstream_client *c,
                        struct slice session)
{
    if (GW_HEAD_LEN + session.len > gw_config(l->gw)->worker_packet_size_max)
        command_refused(l, p, "the session is larger than a packet to a worker may be");
    else if (directory_session_set(l->gw->up.host->directory, &c->member, session.data, session.len) != 0)
        command_refused(l, p, "no memory");
}

static void set_session(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = addressee(l, p);
    if (c != NULL)
        session_put(l, p, c, p->ext);
}

static void update_session(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = addressee(l, p);
    if (c == NULL)
        return;
    if (is_empty(gw_session_of(c))) {
        session_put(l, p, c, p->ext);
        return;
    }
    struct bytes merged = {0};
    if (php_session_merge(&merged, gw_session_of(c), p->ext) == 0)
        session_put(l, p, c, (struct slice){merged.data, merged.len});
    else
        command_refused(l, p, "the session or its update is not a serialized array");
    bytes_fini(&merged);
}

static void get_session(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = asked_for(l, p);
    struct slice reply = SLICE_STR("N;");
    if (c != NULL)
        reply = is_empty(gw_session_of(c)) ? SLICE_STR("a:0:{}") : gw_session_of(c);
    gather_reply(l, reply);
}

static void is_online(struct link *l, const struct gw_packet *p)
{
    struct slice reply = asked_for(l, p) != NULL ? SLICE_STR("i:1;") : SLICE_STR("i:0;");
    gather_reply(l, reply);
}

static bool is_uid(struct link *l, const struct gw_packet *p)
{
    if (!is_empty(p->ext) && p->ext.len <= DIRECTORY_NAME_LEN_MAX)
        return true;
    command_refused(l, p, "a uid is 1 to 65535 bytes and not \\\"0\\\"");
    return false;
}

static void bind_uid(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = is_uid(l, p) ? addressee(l, p) : NULL;
    bool is_new = c != NULL && !replace_is_bound(c, p->ext);
    directory_set_uid_marks(l->gw->up.host->directory, gw_config(l->gw)->one_connection_per_uid);
    if (is_new && directory_uid_bind(l->gw->up.host->directory, &c->member, p->ext.data, p->ext.len) != 0) {
        command_refused(l, p, "no memory");
        is_new = false;
    }
    if (is_new && l->gw->up.host->ops->uid_bound != NULL)
        l->gw->up.host->ops->uid_bound(c, p->ext.data, p->ext.len);
    replace_bound(l, is_new ? c : NULL, p->ext);
}

static void unbind_uid(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = addressee(l, p);
    if (c != NULL)
        directory_uid_unbind(l->gw->up.host->directory, &c->member);
}

static bool is_group_name(struct link *l, const struct gw_packet *p)
{
    if (!is_empty(p->ext) && p->ext.len <= DIRECTORY_NAME_LEN_MAX)
        return true;
    command_refused(l, p, "a group is 1 to 65535 bytes and not \\\"0\\\"");
    return false;
}

static void join_group(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = is_group_name(l, p) ? addressee(l, p) : NULL;
    if (c == NULL)
        return;
    if (directory_group_join(l->gw->up.host->directory, &c->member, p->ext.data, p->ext.len) != 0)
        command_refused(l, p, "no memory");
    else
        c->has_joined = true;
}

static void leave_group(struct link *l, const struct gw_packet *p)
{
    struct upstream_client *c = is_group_name(l, p) ? addressee(l, p) : NULL;
    if (c != NULL)
        directory_group_leave(l->gw->up.host->directory, &c->member, p->ext.data, p->ext.len);
}

static void trace_group(struct link *l, const struct gw_packet *p)
{
    struct directory *d = l->gw->up.host->directory;
    struct member_cursor cursor;
    struct member *m;
    directory_group_begin(d, p->ext.data, p->ext.len, &cursor);
    while ((m = member_cursor_next(&cursor)) != NULL) {
        struct upstream_client *c = CONTAINER_OF(m, struct upstream_client, member);
        if (c->traced)
            command_traced(l, p, c);
    }
    member_cursor_end(d, &cursor);
}

static void ungroup(struct link *l, const struct gw_packet *p)
{
    if (!is_group_name(l, p))
        return;
    if (__builtin_expect(l->gw->up.host->tracing, 0))
        trace_group(l, p);
    if (!l->is_stand_in)
        peers_send_command(l, peers_with_group(l->gw, p->ext), 0, p);
    directory_group_dissolve(l->gw->up.host->directory, p->ext.data, p->ext.len);
}

static void unknown(struct link *l, const struct gw_packet *p)
{
    gw_count(l->gw, COUNTER_command_unknown, 1);
    LOG(LOG_WARN, "command_unknown", "command=%u peer=%s bytes=%u", p->cmd, link_peer_text(l), p->pack_len);
}

/* ---- clients of other shards */

static bool is_about_one(uint8_t cmd)
{
    switch (cmd) {
    case GW_CMD_SEND_TO_ONE:
    case GW_CMD_KICK:
    case GW_CMD_DESTROY:
    case GW_CMD_SET_SESSION:
    case GW_CMD_UPDATE_SESSION:
    case GW_CMD_GET_SESSION_BY_CLIENT_ID:
    case GW_CMD_IS_ONLINE:
    case GW_CMD_BIND_UID:
    case GW_CMD_UNBIND_UID:
    case GW_CMD_JOIN_GROUP:
    case GW_CMD_LEAVE_GROUP: return true;
    default: return false;
    }
}

/* True: its client is another shard's, which has been told. */
static bool forwarded(struct link *l, const struct gw_packet *p)
{
    struct gatewayworker *gw = l->gw;
    unsigned shard = gw_shard_of(gw, p->connection_id);
    if (shard == gw->me || shard >= gw->n_shards || l->is_stand_in || !is_about_one(p->cmd) ||
        NODE_LOAD(gw->shared->shards[shard].phase) == NODE_DOWN)
        return false;
    uint32_t question = 0;
    if (p->cmd == GW_CMD_GET_SESSION_BY_CLIENT_ID || p->cmd == GW_CMD_IS_ONLINE) {
        struct gather *g = gather_new(l, p, UINT64_C(1) << shard);
        if (g == NULL)
            return false; /* answered as if it were gone */
        question = gather_question(g);
    }
    if (p->cmd == GW_CMD_BIND_UID)
        question = replace_begin(l, shard, p->ext);
    peer_send_command(l, shard, question, p);
    return true;
}

/* Should we die of it, it can be seen what it was. */
static void note(const struct link *l, const struct gw_packet *p)
{
    const struct crash_command command = {
        .loop_ns = loop_now_ns(l->gw->up.host->loop),
        .link = l->number,
        .connection_id = p->connection_id,
        .len = p->pack_len,
        .cmd = p->cmd,
        .shard = l->is_stand_in ? l->shard : (uint8_t)l->gw->me,
    };
    shard_crash_command(l->gw->crash, &command);
}

bool command_execute(struct link *l, const struct gw_packet *p)
{
    note(l, p);
    if (__builtin_expect(!l->authorized, 0) && p->cmd != GW_CMD_WORKER_CONNECT &&
        p->cmd != GW_CMD_GATEWAY_CLIENT_CONNECT) {
        unauthorized(l, p);
        return true;
    }
    if (__builtin_expect(!l->decided, 0))
        link_decided(l);
    if (gw_shard_of(l->gw, p->connection_id) != l->gw->me && forwarded(l, p))
        return true;
    struct gw_connect connect;
    switch (p->cmd) {
    case GW_CMD_SEND_TO_ONE: send_to_one(l, p); break;
    case GW_CMD_SEND_TO_ALL:
    case GW_CMD_SEND_TO_GROUP:
    case GW_CMD_SEND_TO_UID: job_fanout(l, p); break;
    case GW_CMD_KICK: kick(l, p); break;
    case GW_CMD_DESTROY: destroy(l, p); break;
    case GW_CMD_SET_SESSION: set_session(l, p); break;
    case GW_CMD_UPDATE_SESSION: update_session(l, p); break;
    case GW_CMD_GET_SESSION_BY_CLIENT_ID: get_session(l, p); break;
    case GW_CMD_IS_ONLINE: is_online(l, p); break;
    case GW_CMD_BIND_UID: bind_uid(l, p); break;
    case GW_CMD_UNBIND_UID: unbind_uid(l, p); break;
    case GW_CMD_JOIN_GROUP: join_group(l, p); break;
    case GW_CMD_LEAVE_GROUP: leave_group(l, p); break;
    case GW_CMD_UNGROUP: ungroup(l, p); break;
    case GW_CMD_GET_ALL_CLIENT_SESSIONS:
    case GW_CMD_GET_CLIENT_SESSIONS_BY_GROUP:
    case GW_CMD_GET_CLIENT_COUNT_BY_GROUP:
    case GW_CMD_BATCH_GET_CLIENT_COUNT_BY_GROUP:
    case GW_CMD_GET_CLIENT_ID_BY_UID:
    case GW_CMD_BATCH_GET_CLIENT_ID_BY_UID:
    case GW_CMD_GET_GROUP_ID_LIST:
    case GW_CMD_SELECT: job_query(l, p); break;
    case GW_CMD_WORKER_CONNECT: return worker_connect(l, p);
    case GW_CMD_GATEWAY_CLIENT_CONNECT: authorize(l, p, &connect); break;
    default:
        if (l->is_stand_in && p->cmd == CMD_REPLACE)
            replace_execute(l->gw, p);
        else
            unknown(l, p);
    }
    return true;
}
