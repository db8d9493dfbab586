// SPDX-License-Identifier: MIT
/* Clients, names, workers, listeners, tables: as JSON. */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/pool.h"
#include "estate/estate.h"
#include "guard/cidr.h"
#include "shard/control_priv.h"
#include "tls/tls.h"

#define GROUPS_SHOWN 100
/* Clients looked at between two looks at the clock. */
#define STEPS 32

/* ---- which clients */

static uint32_t idle_s(const struct shard *s, const struct client *c)
{
    return (shard_now_ms(s) - c->last_read_ms) / 1000;
}

bool control_is_within(const struct net_addr *a, const struct net_addr *prefix, unsigned bits)
{
    struct cidr is, of;
    if (a->family != prefix->family)
        return false;
    cidr_from_addr(a, &is);
    cidr_from_addr(prefix, &of);
    cidr_cut(&is, bits);
    cidr_cut(&of, bits);
    return is.hi == of.hi && is.lo == of.lo;
}

static bool has_uid(const struct client *c, struct slice uid)
{
    struct slice own;
    if (c->up.member.uid == NULL)
        return false;
    own.data = uid_entry_name(c->up.member.uid, &own.len);
    return slice_eq(own, uid);
}

static bool numbers_match(const struct control_head *h, const struct shard *s, const struct client *c)
{
    if (h->client != 0 && h->client != c->up.member.id)
        return false;
    if ((h->age_min_s != 0 || h->age_max_s != 0) && !c->announced)
        return false;
    if (h->age_min_s != 0 && shard_age_of(s, c->up.member.id) < h->age_min_s)
        return false;
    if (h->age_max_s != 0 && shard_age_of(s, c->up.member.id) > h->age_max_s)
        return false;
    if (h->idle_min_s != 0 && idle_s(s, c) < h->idle_min_s)
        return false;
    return c->out_bytes >= h->queue_min;
}

bool control_matches(const struct control_job *job, const struct client *c)
{
    struct shard *s = job_shard(job);
    const struct control_head *h = &job->req.head;
    const struct slice *text = job->req.text;
    if (!numbers_match(h, s, c))
        return false;
    if (h->address.family != 0 && !control_is_within(&c->up.peer, &h->address, h->address_bits))
        return false;
    if (job_has_text(job, CONTROL_TEXT_LISTENER) &&
        !slice_eq_str(text[CONTROL_TEXT_LISTENER], c->listener->config->name))
        return false;
    if (job_has_text(job, CONTROL_TEXT_UID) && !has_uid(c, text[CONTROL_TEXT_UID]))
        return false;
    if (job_has_text(job, CONTROL_TEXT_GROUP) &&
        !directory_is_in_group(s->host.directory, &c->up.member, text[CONTROL_TEXT_GROUP].data,
                               text[CONTROL_TEXT_GROUP].len))
        return false;
    return !job_has_text(job, CONTROL_TEXT_WORKER) || upstream_is_bound_to(&c->up, text[CONTROL_TEXT_WORKER]);
}

/* ---- one client */

static const char *state_name(uint8_t state)
{
    static const char *const names[] = {"preamble", "tls", "handshake", "open", "closing"};
    return names[state];
}

static void write_uid(const struct client *c, struct json_writer *w)
{
    size_t len;
    json_key(w, "uid");
    if (c->up.member.uid == NULL) {
        json_write_null(w);
        return;
    }
    const uint8_t *uid = uid_entry_name(c->up.member.uid, &len);
    json_write_text(w, uid, len, CONTROL_NAME_MAX);
}

static void write_tls(const struct client *c, struct json_writer *w)
{
    struct tls_info info;
    json_key(w, "tls_info");
    if (c->edge == NULL || c->edge->tls == NULL) {
        json_write_null(w);
        return;
    }
    tls_conn_info(c->edge->tls, &info);
    json_begin(w, '{');
    json_member_str(w, "version", info.version);
    json_member_str(w, "cipher", info.cipher);
    json_member_string(w, "server_name", info.server_name, strlen(info.server_name), CONTROL_NAME_MAX);
    json_member_string(w, "client_subject", info.client_subject, strlen(info.client_subject),
                       CONTROL_NAME_MAX);
    json_member_bool(w, "resumed", info.reused);
    json_end(w, '}');
}

static void write_deflate(const struct client *c, struct json_writer *w)
{
    json_key(w, "deflate_info");
    if (!c->has_deflate || c->edge == NULL) {
        json_write_null(w);
        return;
    }
    const struct ws_deflate_params *p = &c->edge->deflate;
    json_begin(w, '{');
    json_member_uint(w, "client_bits", p->client_window_bits);
    json_member_uint(w, "server_bits", p->window_bits);
    json_member_bool(w, "client_takeover", p->client_takeover);
    json_member_bool(w, "server_takeover", p->takeover);
    json_member_uint(w, "bytes", c->edge->deflate_bytes);
    json_end(w, '}');
}

static void write_groups(const struct client *c, struct json_writer *w)
{
    json_key(w, "groups");
    json_begin(w, '[');
    /* As many as fit, whatever their names. */
    size_t room = w->out->len + CONTROL_JSON_MAX / 2;
    for (uint32_t i = 0; i < c->up.member.n_memberships && i < GROUPS_SHOWN && w->out->len < room; i++) {
        size_t len;
        const uint8_t *name = group_name(c->up.member.memberships[i].group, &len);
        json_write_text(w, name, len, CONTROL_NAME_MAX);
    }
    json_end(w, ']');
}

static void write_rest(struct shard *s, const struct client *c, struct json_writer *w)
{
    uint32_t uid_clients = 0;
    if (c->up.member.uid != NULL) {
        size_t len;
        const uint8_t *uid = uid_entry_name(c->up.member.uid, &len);
        uid_clients = directory_uid_count(s->host.directory, uid, len);
    }
    json_member_uint(w, "gateway_port", c->up.gateway_port);
    write_groups(c, w);
    json_member_uint(w, "uid_clients", uid_clients);
    json_member_uint(w, "input_bytes",
                     (c->in != NULL ? c->in->held : 0) + (c->edge != NULL ? c->edge->record_held : 0));
    json_member_uint(w, "unanswered_heartbeats", c->silent_beats > 0 ? (unsigned)c->silent_beats : 0);
    json_member_bool(w, "rate_paused", c->rate_paused);
    json_member_bool(w, "write_blocked", c->write_blocked);
    json_member_bool(w, "traced", c->up.traced && s->traces != NULL);
    write_tls(c, w);
    write_deflate(c, w);
}

void control_write_client_members(struct shard *s, const struct client *c, struct json_writer *w, bool full)
{
    char text[NET_ADDR_STRLEN];
    const struct config_gateway *g = shard_config(s);
    json_member_uint(w, "shard", s->number);
    json_member_uint(w, "connection_id", c->up.member.id);
    snprintf(text, sizeof text, "%08x%04x%08x", g->lan_ip, (unsigned)g->start_port, c->up.member.id);
    json_member_str(w, "client_id", c->announced ? text : NULL);
    json_member_str(w, "state", state_name(c->state));
    json_member_str(w, "listener", c->listener->config->name);
    json_member_str(w, "address", net_addr_format(&c->up.peer, text, sizeof text));
    write_uid(c, w);
    json_member_uint(w, "groups_n", c->up.member.n_memberships);
    json_key(w, "age_s");
    if (c->announced)
        json_uint(w, shard_age_of(s, c->up.member.id));
    else
        json_write_null(w);
    json_member_uint(w, "idle_s", idle_s(s, c));
    json_member_uint(w, "queue_bytes", c->out_bytes);
    json_member_uint(w, "session_bytes", c->up.member.session != NULL ? c->up.member.session->len : 0);
    json_member_bool(w, "tls", c->has_tls);
    json_member_bool(w, "deflate", c->has_deflate);
    json_member_bool(w, "paused", client_is_paused(c));
    if (full)
        write_rest(s, c, w);
    upstream_describe_client(s->upstream, &c->up, w, full);
}

void control_write_client(struct shard *s, const struct client *c, struct json_writer *w, bool full)
{
    json_begin(w, '{');
    control_write_client_members(s, c, w, full);
    json_end(w, '}');
}

enum job_state control_show_client(struct control_job *job)
{
    struct shard *s = job_shard(job);
    struct member *m = directory_find(s->host.directory, job->req.head.client);
    if (m == NULL)
        return job_fails(job, -ENOENT, "no such client");
    control_write_client(s, client_of(CONTAINER_OF(m, struct upstream_client, member)), &job->w, true);
    return JOB_DONE;
}

/* ---- many */

/* The cursor is what is left to look at, plus 1. */
enum job_state control_list_clients(struct control_job *job)
{
    struct shard *s = job_shard(job);
    uint64_t cursor = job->req.head.cursor;
    if (!job->begun) {
        job->begun = true;
        job->position = cursor == 0 ? s->n_clients : cursor - 1;
    }
    for (unsigned steps = 1; job->rows < job_limit(job) && job_has_room(job, CONTROL_ROW_MAX); steps++) {
        const struct client *c = job_next_client(job);
        if (c == NULL)
            break;
        if (control_matches(job, c)) {
            control_write_client(s, c, &job->w, false);
            job->rows++;
        }
        if (steps % STEPS == 0 && job_slice_is_over(job))
            return JOB_AGAIN;
    }
    job->reply.cursor = job->position == 0 ? 0 : job->position + 1;
    return JOB_DONE;
}

static bool has_prefix(const uint8_t *name, size_t len, struct slice prefix)
{
    return prefix.len == 0 || (len >= prefix.len && memcmp(name, prefix.data, prefix.len) == 0);
}

static void write_name(struct control_job *job, const uint8_t *name, size_t len, uint32_t clients)
{
    json_begin(&job->w, '{');
    json_member_string(&job->w, "name", name, len, CONTROL_NAME_MAX);
    json_member_uint(&job->w, "clients", clients);
    json_member_uint(&job->w, "shard", job_shard(job)->number);
    json_end(&job->w, '}');
    job->rows++;
}

static enum job_state show_name(struct control_job *job, enum directory_names which)
{
    struct directory *d = job_shard(job)->host.directory;
    struct slice name = job->req.text[CONTROL_TEXT_NAME];
    uint32_t n = which == DIRECTORY_UIDS ? directory_uid_count(d, name.data, name.len)
                                         : directory_group_count(d, name.data, name.len);
    if (n > 0)
        write_name(job, name.data, name.len, n);
    return JOB_DONE;
}

enum job_state control_list_names(struct control_job *job)
{
    enum directory_names which = job->req.head.op == CONTROL_UIDS ? DIRECTORY_UIDS : DIRECTORY_GROUPS;
    const uint8_t *name;
    size_t len;
    uint32_t clients;
    if (job_has_text(job, CONTROL_TEXT_NAME))
        return show_name(job, which);
    uint32_t position = (uint32_t)(job->begun ? job->position : job->req.head.cursor);
    job->begun = true;
    for (unsigned steps = 1;; steps++) {
        if (job->rows >= job_limit(job) || !job_has_room(job, CONTROL_ROW_MAX)) {
            job->reply.cursor = position;
            return JOB_DONE;
        }
        if (!directory_next_name(job_shard(job)->host.directory, which, &position, &name, &len, &clients))
            return JOB_DONE;
        if (name != NULL && has_prefix(name, len, job->req.text[CONTROL_TEXT_PREFIX]))
            write_name(job, name, len, clients);
        if ((name == NULL || steps % STEPS == 0) && job_slice_is_over(job)) {
            job->position = position;
            return JOB_AGAIN;
        }
    }
}

enum job_state control_list_workers(struct control_job *job)
{
    job->reply.cursor = upstream_list_workers(job_shard(job)->upstream, &job->w, job->req.head.cursor,
                                              job_limit(job), CONTROL_JSON_MAX);
    return JOB_DONE;
}

static void write_listener(const struct shard_listener *l, struct json_writer *w)
{
    json_begin(w, '{');
    json_member_str(w, "name", l->config->name);
    json_member_str(w, "address", l->config->address);
    json_member_uint(w, "port", l->config->port);
    json_member_str(w, "protocol", config_protocol_name(l->config->protocol));
    json_member_bool(w, "tls", l->tls != NULL);
    json_member_uint(w, "clients", l->n_clients);
    json_member_bool(w, "removed", l->removed);
    json_end(w, '}');
}

enum job_state control_list_listeners(struct control_job *job)
{
    struct shard *s = job_shard(job);
    for (unsigned i = 0; i < s->n_listeners; i++)
        if (s->listeners[i].config != NULL)
            write_listener(&s->listeners[i], &job->w);
    return JOB_DONE;
}

/* ---- tables */

#define NOT_KNOWN UINT64_MAX

static void write_table(struct control_job *job, const char *name, uint64_t used, uint64_t peak,
                        uint64_t capacity, uint64_t bytes)
{
    json_table(&job->w, job_shard(job)->number, name, used, peak, capacity, bytes);
}

static void write_pool(struct control_job *job, const char *name, const struct pool *p, uint64_t capacity)
{
    write_table(job, name, pool_used(p), pool_peak(p), capacity, pool_bytes(p));
}

enum job_state control_list_tables(struct control_job *job)
{
    struct shard *s = job_shard(job);
    struct directory *d = s->host.directory;
    struct buf_stats buffers;
    buf_stats_get(&buffers);
    write_pool(job, "clients", s->client_pool, s->max_clients + SHARD_REFUSALS_MAX);
    write_table(job, "client_table", s->n_clients, NOT_KNOWN, s->cap_clients,
                s->cap_clients * sizeof(struct client *));
    write_pool(job, "queued_messages", s->ref_pool, NOT_KNOWN);
    write_table(job, "to_be_written", s->n_dirty, NOT_KNOWN, s->cap_dirty,
                s->cap_dirty * sizeof(struct client *));
    write_table(job, "buffers", buffers.used_count, NOT_KNOWN, NOT_KNOWN,
                buffers.used_bytes + buffers.idle_bytes);
    write_table(job, "ids", directory_count(d), NOT_KNOWN, NOT_KNOWN, directory_bytes(d));
    write_table(job, "uids", directory_uids(d), NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
    write_table(job, "groups", directory_groups(d), NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
    write_table(job, "estate_clients", estate_clients(s->host.estate), NOT_KNOWN, s->host.node->max_clients,
                NOT_KNOWN);
    write_table(job, "estate_heap", estate_heap_used(s->host.estate), NOT_KNOWN,
                s->host.node->estate_heap_bytes,
                estate_heap_used(s->host.estate) + estate_heap_idle(s->host.estate));
    write_table(job, "client_input", s->input_bytes, NOT_KNOWN, shard_config(s)->client_input_total_bytes,
                s->input_bytes);
    write_table(job, "deflate", s->deflate_bytes, NOT_KNOWN, shard_config(s)->deflate_memory,
                s->deflate_bytes);
    write_table(job, "tls_connections", s->n_tls, NOT_KNOWN, NOT_KNOWN, NOT_KNOWN);
    upstream_list_tables(s->upstream, &job->w);
    return JOB_DONE;
}
