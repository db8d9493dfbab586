// SPDX-License-Identifier: MIT
/* Queries over sets: each shard collects its part, which gather.c makes an answer of. */
#include "upstream/gatewayworker/job.h"

#include <errno.h>
#include <string.h>

#include "proto/php/php_write.h"

/* Fields that a SELECT may name; PHP's clients ask for three. */
#define SELECT_FIELDS_MAX 64

/* ---- our part of the answer (gather.c says what it looks like) */

static void put_u32(struct bytes *out, uint32_t v)
{
    bytes_append(out, &v, sizeof v);
}

static void finish_part(struct job *j)
{
    gather_own_part(j->link, &j->p, false, &j->reply);
}

/* The number of elements stands before them: room is kept for it, and filled in when it is known. */
static void finish_elements(struct job *j)
{
    if (j->reply.len == 0)
        put_u32(&j->reply, 0);
    if (!j->reply.failed)
        memcpy(j->reply.data, &j->n_reply, sizeof j->n_reply);
    finish_part(j);
}

static void begin_elements(struct job *j)
{
    if (j->reply.len == 0)
        put_u32(&j->reply, 0);
}

static uint64_t shards_of_targets(const struct job *j)
{
    return targets_shards(j->gw, &j->targets);
}

static int read_nothing(struct job *j, struct gw_args *args)
{
    return 0;
}

static size_t estimate_targets(const struct job *j)
{
    return targets_count(j->gw, &j->targets);
}

/* ---- sessions: GET_ALL_CLIENT_SESSIONS, GET_CLIENT_SESSIONS_BY_GROUP */

static int sessions_read(struct job *j, struct gw_args *args)
{
    j->targets.all = j->p.cmd == GW_CMD_GET_ALL_CLIENT_SESSIONS;
    if (!j->targets.all)
        j->targets.groups = (struct gw_names){&j->p.ext, 1};
    return 0;
}

static bool sessions_step(struct job *j)
{
    struct upstream_client *c;
    begin_elements(j);
    while ((c = targets_next(j->gw, &j->targets)) != NULL) {
        php_write_key_int(&j->reply, c->member.id);
        php_write_string(&j->reply, gw_session_of(c));
        j->n_reply++;
        if (job_slice_over(j))
            return false;
    }
    return true;
}

static const struct job_kind sessions_kind = {sessions_read,   estimate_targets,  sessions_step,
                                              finish_elements, shards_of_targets, COUNTER_queries_sliced};

/* ---- ids: GET_CLIENT_ID_BY_UID, BATCH_GET_CLIENT_ID_BY_UID */

static int ids_read(struct job *j, struct gw_args *args)
{
    j->targets.uids = (struct gw_names){&j->p.ext, 1};
    return 0;
}

static bool ids_step(struct job *j)
{
    struct upstream_client *c;
    while ((c = targets_next(j->gw, &j->targets)) != NULL) {
        put_u32(&j->reply, c->member.id);
        if (job_slice_over(j))
            return false;
    }
    return true;
}

static const struct job_kind ids_kind = {ids_read,    estimate_targets,  ids_step,
                                         finish_part, shards_of_targets, COUNTER_queries_sliced};

static int names_read(struct job *j, struct gw_args *args)
{
    return gw_read_names(args, j->p.ext, &j->names);
}

static void write_ids_of_uid(struct job *j, struct slice uid)
{
    struct directory *d = j->gw->up.host->directory;
    struct member_cursor cursor;
    struct member *m;
    put_u32(&j->reply, directory_uid_count(d, uid.data, uid.len));
    directory_uid_begin(d, uid.data, uid.len, &cursor);
    while ((m = member_cursor_next(&cursor)) != NULL)
        put_u32(&j->reply, m->id);
    member_cursor_end(d, &cursor);
}

static size_t names_estimate(const struct job *j)
{
    const struct targets uids = {.uids = j->names};
    return j->p.cmd == GW_CMD_BATCH_GET_CLIENT_ID_BY_UID ? targets_count(j->gw, &uids) : j->names.n;
}

static bool names_step(struct job *j)
{
    const struct directory *d = j->gw->up.host->directory;
    while (j->next_name < j->names.n) {
        struct slice name = j->names.items[j->next_name++];
        if (!job_is_new_name(&j->seen, name))
            continue;
        if (j->p.cmd == GW_CMD_BATCH_GET_CLIENT_ID_BY_UID)
            write_ids_of_uid(j, name);
        else
            put_u32(&j->reply, directory_group_count(d, name.data, name.len));
        if (job_slice_over(j))
            return false;
    }
    return true;
}

static uint64_t shards_of_names(const struct job *j)
{
    uint64_t found = 0;
    for (size_t i = 0; i < j->names.n; i++)
        found |= j->p.cmd == GW_CMD_BATCH_GET_CLIENT_ID_BY_UID ? peers_with_uid(j->gw, j->names.items[i])
                                                               : peers_with_group(j->gw, j->names.items[i]);
    return found;
}

static const struct job_kind names_kind = {names_read,  names_estimate,  names_step,
                                           finish_part, shards_of_names, COUNTER_queries_sliced};

/* ---- GET_GROUP_ID_LIST */

static size_t groups_estimate(const struct job *j)
{
    return directory_groups(j->gw->up.host->directory);
}

static bool groups_step(struct job *j)
{
    const struct group *g;
    if (!j->in_groups)
        directory_groups_begin(j->gw->up.host->directory, &j->groups);
    j->in_groups = true;
    while ((g = group_cursor_next(&j->groups)) != NULL) {
        struct slice name;
        name.data = group_name(g, &name.len);
        put_u32(&j->reply, (uint32_t)name.len);
        bytes_append(&j->reply, name.data, name.len);
        if (job_slice_over(j))
            return false;
    }
    return true;
}

static uint64_t shards_with_members(const struct job *j)
{
    return peers_with_members(j->gw);
}

static const struct job_kind groups_kind = {read_nothing, groups_estimate,     groups_step,
                                            finish_part,  shards_with_members, COUNTER_queries_sliced};

/* ---- SELECT */

static int select_read(struct job *j, struct gw_args *args)
{
    struct gw_select *s = &j->select;
    int err = gw_read_select(args, j->p.ext, s);
    if (err != 0)
        return err;
    if (s->fields.n > SELECT_FIELDS_MAX)
        return -EPROTO;
    if (s->nothing || (!s->has_where && s->fields.n == 0))
        return 0;
    j->targets.all = !s->has_where;
    if (!s->has_where)
        return 0;
    j->targets.groups = s->groups;
    j->targets.uids = s->uids;
    j->targets.ids = s->connections;
    j->targets.n_ids = s->n_connections;
    return 0;
}

static void write_groups(struct bytes *out, const struct upstream_client *c)
{
    if (!c->has_joined) {
        php_write_null(out);
        return;
    }
    php_write_array(out, c->member.n_memberships);
    for (uint32_t i = 0; i < c->member.n_memberships; i++) {
        struct slice name;
        name.data = group_name(c->member.memberships[i].group, &name.len);
        php_write_key(out, name);
        php_write_string(out, name);
    }
    php_write_array_end(out);
}

static void write_field(struct bytes *out, const struct upstream_client *c, struct slice field)
{
    php_write_key(out, field);
    if (slice_eq_str(field, "session")) {
        php_write_string(out, gw_session_of(c));
    } else if (slice_eq_str(field, "uid") && c->member.uid != NULL) {
        struct slice uid;
        uid.data = uid_entry_name(c->member.uid, &uid.len);
        php_write_string(out, uid);
    } else if (slice_eq_str(field, "groups")) {
        write_groups(out, c);
    } else {
        php_write_null(out);
    }
}

/* A field named twice is one key of each answer. */
static bool is_first_field(const struct gw_names *fields, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (slice_eq(fields->items[k], fields->items[i]))
            return false;
    return true;
}

static void write_fields(struct job *j, const struct upstream_client *c)
{
    const struct gw_names *fields = &j->select.fields;
    size_t n = 0;
    for (size_t i = 0; i < fields->n; i++)
        n += is_first_field(fields, i);
    php_write_array(&j->reply, n);
    for (size_t i = 0; i < fields->n; i++)
        if (is_first_field(fields, i))
            write_field(&j->reply, c, fields->items[i]);
    php_write_array_end(&j->reply);
}

static bool select_step(struct job *j)
{
    struct upstream_client *c;
    begin_elements(j);
    while ((c = targets_next(j->gw, &j->targets)) != NULL) {
        /* Over all, nobody comes twice. */
        if (!j->select.has_where || seen_set_add(&j->seen, c->member.id)) {
            php_write_key_int(&j->reply, c->member.id);
            write_fields(j, c);
            j->n_reply++;
        }
        if (job_slice_over(j))
            return false;
    }
    return true;
}

static const struct job_kind select_kind = {select_read,     estimate_targets,  select_step,
                                            finish_elements, shards_of_targets, COUNTER_queries_sliced};

/* ---- one number: GET_CLIENT_COUNT_BY_GROUP */

static bool count_step(struct job *j)
{
    const struct directory *d = j->gw->up.host->directory;
    struct slice group = j->p.ext;
    uint64_t n = group.len == 0 ? directory_count(d) : directory_group_count(d, group.data, group.len);
    bytes_append(&j->reply, &n, sizeof n);
    return true;
}

static size_t count_estimate(const struct job *j)
{
    return 1;
}

static uint64_t count_shards(const struct job *j)
{
    return j->p.ext.len == 0 ? peers_with_members(j->gw) : peers_with_group(j->gw, j->p.ext);
}

static const struct job_kind count_kind = {read_nothing, count_estimate, count_step,
                                           finish_part,  count_shards,   COUNTER_queries_sliced};

void job_query(struct link *l, const struct gw_packet *p)
{
    switch (p->cmd) {
    case GW_CMD_GET_CLIENT_COUNT_BY_GROUP: job_start(l, p, &count_kind); break;
    case GW_CMD_GET_ALL_CLIENT_SESSIONS:
    case GW_CMD_GET_CLIENT_SESSIONS_BY_GROUP: job_start(l, p, &sessions_kind); break;
    case GW_CMD_GET_CLIENT_ID_BY_UID: job_start(l, p, &ids_kind); break;
    case GW_CMD_BATCH_GET_CLIENT_ID_BY_UID:
    case GW_CMD_BATCH_GET_CLIENT_COUNT_BY_GROUP: job_start(l, p, &names_kind); break;
    case GW_CMD_GET_GROUP_ID_LIST: job_start(l, p, &groups_kind); break;
    default: job_start(l, p, &select_kind);
    }
}
