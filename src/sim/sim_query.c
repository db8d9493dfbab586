// SPDX-License-Identifier: MIT
#include "sim/sim_query.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/checker.h"
#include "sim/php_reader.h"
#include "sim/sim_client.h"
#include "sim/sim_link.h"

struct sim_query {
    struct sim_query *next;
    uint8_t cmd;
    struct sim_client *client; /* IS_ONLINE, GET_SESSION_BY_CLIENT_ID */
    unsigned name;             /* of the link's uids or groups */
    unsigned strangers;        /* names asked for that nobody has: they make the question long */
    bool all;                  /* everybody: also those that come meanwhile */
    uint64_t partial;          /* answers that had to do without a shard, so far */
    /* When it was asked: */
    struct sim_set online;
    unsigned n;
    struct {
        int uid, owner;
        uint32_t groups;
        uint32_t n_sessions;
        char session[SIM_SESSION_SIZE];
    } of[];
};

/* ---- asking */

static struct sim_query *query_new(struct sim_link *l, uint8_t cmd)
{
    struct world *w = l->w;
    struct sim_query *q = calloc(1, sizeof *q + w->n_clients * sizeof q->of[0]);
    ASSERT(q != NULL);
    q->cmd = cmd;
    q->n = w->n_clients;
    q->partial = checker_partial_answers(w);
    for (unsigned i = 0; i < q->n; i++) {
        const struct sim_client *c = w->clients[i];
        q->of[i].uid = c->uid;
        q->of[i].owner = c->owner;
        q->of[i].groups = c->groups;
        q->of[i].n_sessions = c->n_sessions;
        sim_session_text(c->sessions[c->n_sessions - 1], q->of[i].session);
        if (checker_is_online(c))
            sim_set_add(&q->online, i);
    }
    if (l->last != NULL)
        l->last->next = q;
    else
        l->first = q;
    l->last = q;
    return q;
}

static struct sim_client *known_client(struct world *w)
{
    unsigned start = w->n_clients > 0 ? (unsigned)world_draw(w, w->n_clients) : 0;
    for (unsigned i = 0; i < w->n_clients; i++) {
        struct sim_client *c = w->clients[(start + i) % w->n_clients];
        if (c->id != 0)
            return c;
    }
    return NULL;
}

static const uint8_t questions[] = {
    GW_CMD_IS_ONLINE,
    GW_CMD_GET_SESSION_BY_CLIENT_ID,
    GW_CMD_GET_CLIENT_ID_BY_UID,
    GW_CMD_BATCH_GET_CLIENT_ID_BY_UID,
    GW_CMD_GET_ALL_CLIENT_SESSIONS,
    GW_CMD_GET_CLIENT_SESSIONS_BY_GROUP,
    GW_CMD_GET_CLIENT_COUNT_BY_GROUP,
    GW_CMD_BATCH_GET_CLIENT_COUNT_BY_GROUP,
    GW_CMD_GET_GROUP_ID_LIST,
    GW_CMD_SELECT,
};

static void put_all_names(struct sim_link *l, struct sim_query *q, char kind, struct bytes *ext)
{
    char name[SIM_NAME_SIZE];
    q->strangers = world_chance(l->w, 10) ? (unsigned)world_between(l->w, 900, 2000) : 0;
    for (unsigned k = 0; k < SIM_NAMES; k++)
        bytes_printf(ext, "%s\"%s\"", k == 0 ? "[" : ",", sim_link_name(l, kind, k, name));
    for (unsigned k = 0; k < q->strangers; k++)
        bytes_printf(ext, ",\"stranger%u\"", k);
    bytes_append_str(ext, "]");
}

static void put_ext(struct sim_link *l, struct sim_query *q, struct bytes *ext)
{
    char name[SIM_NAME_SIZE];
    switch (q->cmd) {
    case GW_CMD_GET_CLIENT_ID_BY_UID: bytes_append_str(ext, sim_link_name(l, 'u', q->name, name)); break;
    case GW_CMD_BATCH_GET_CLIENT_ID_BY_UID: put_all_names(l, q, 'u', ext); break;
    case GW_CMD_BATCH_GET_CLIENT_COUNT_BY_GROUP: put_all_names(l, q, 'g', ext); break;
    case GW_CMD_GET_CLIENT_SESSIONS_BY_GROUP:
        bytes_append_str(ext, sim_link_name(l, 'g', q->name, name));
        break;
    case GW_CMD_GET_CLIENT_COUNT_BY_GROUP:
        if (!q->all)
            bytes_append_str(ext, sim_link_name(l, 'g', q->name, name));
        break;
    case GW_CMD_SELECT:
        bytes_printf(ext, "{\"fields\":[\"session\",\"uid\",\"groups\"],\"where\":{\"groups\":[\"%s\"]}}",
                     sim_link_name(l, 'g', q->name, name));
        break;
    default: break;
    }
}

void sim_query_ask(struct sim_link *l)
{
    uint8_t cmd = questions[world_draw(l->w, sizeof questions)];
    struct sim_client *c = known_client(l->w);
    if (c == NULL)
        return;
    struct sim_query *q = query_new(l, cmd);
    struct bytes ext = {0};
    q->client = c;
    q->name = (unsigned)world_draw(l->w, SIM_NAMES);
    q->all = cmd == GW_CMD_GET_ALL_CLIENT_SESSIONS ||
             (cmd == GW_CMD_GET_CLIENT_COUNT_BY_GROUP && world_chance(l->w, 30));
    put_ext(l, q, &ext);
    world_trace(l->w, "link %u: asks %s", l->index, gw_cmd_name(cmd));
    struct gw_packet p = {.cmd = cmd, .flag = GW_FLAG_BODY_IS_SCALAR, .connection_id = c->id};
    p.ext = (struct slice){ext.data, ext.len};
    sim_link_command(l, &p);
    bytes_fini(&ext);
}

/* ---- answers */

struct answer {
    struct sim_link *l;
    struct sim_query *q;
    struct php_reader r;
};

static void wrong(struct answer *a, const char *why, long long number)
{
    world_fail(a->l->w, "link %u: the answer to %s: %s (%lld)", a->l->index, gw_cmd_name(a->q->cmd), why,
               number);
}

static bool has_uid(const struct answer *a, unsigned i, unsigned k)
{
    return a->q->of[i].owner == (int)a->l->index && a->q->of[i].uid == (int)k;
}

static bool has_group(const struct answer *a, unsigned i, unsigned k)
{
    return a->q->of[i].owner == (int)a->l->index && (a->q->of[i].groups >> k & 1) != 0;
}

/* The client of that connection id, told as one that fits; NULL: it does not. */
static struct sim_client *told_id(struct answer *a, int64_t id,
                                  bool (*fits)(const struct answer *, unsigned, unsigned), unsigned k,
                                  struct sim_set *seen)
{
    struct sim_client *c = checker_client_by_id(a->l->w, (uint32_t)id);
    if (c == NULL && a->q->all)
        return NULL; /* its ON_CONNECT is on its way */
    if (c == NULL) {
        wrong(a, "an id that nobody has", id);
        return NULL;
    }
    if (sim_set_has(seen, c->index))
        wrong(a, "one id twice", id);
    sim_set_add(seen, c->index);
    if (c->index >= a->q->n && a->q->all)
        return NULL;
    if (!a->q->all && (c->index >= a->q->n || !sim_set_has(&a->q->online, c->index) || !fits(a, c->index, k)))
        wrong(a, "an id that does not belong there", id);
    return c->index < a->q->n ? c : NULL;
}

/* A shard that was dead or late may be missing in others, which are counted. */
static bool is_whole(const struct answer *a)
{
    return checker_partial_answers(a->l->w) == a->q->partial;
}

/* Everybody who fits and was online all the time must have been told. */
static void check_complete(struct answer *a, bool (*fits)(const struct answer *, unsigned, unsigned),
                           unsigned k, const struct sim_set *seen)
{
    if (!is_whole(a))
        return;
    for (unsigned i = 0; i < a->q->n; i++) {
        const struct sim_client *c = a->l->w->clients[i];
        if (sim_set_has(&a->q->online, i) && checker_is_online(c) && (a->q->all || fits(a, i, k)) &&
            !sim_set_has(seen, i))
            wrong(a, "a client is missing", c->id);
    }
}

/* The answer speaks of that client: what this link had changed before it asked has come to pass for it. */
static void note_seen(struct answer *a, unsigned i)
{
    struct sim_client *c = a->l->w->clients[i];
    if (a->q->of[i].owner == (int)a->l->index && c->sessions_seen + 1 < a->q->of[i].n_sessions)
        c->sessions_seen = a->q->of[i].n_sessions - 1;
}

static void check_session(struct answer *a, unsigned i, struct slice session)
{
    note_seen(a, i);
    if (a->q->of[i].owner == (int)a->l->index && !slice_eq_str(session, a->q->of[i].session))
        wrong(a, "not the session that was set", a->l->w->clients[i]->id);
}

static void check_sessions(struct answer *a)
{
    struct sim_set seen = {0};
    uint32_t n = php_read_array(&a->r);
    for (uint32_t i = 0; i < n && !a->r.bad; i++) {
        int64_t id = php_read_int(&a->r);
        struct slice session = php_read_string(&a->r);
        struct sim_client *c = a->r.bad ? NULL : told_id(a, id, has_group, a->q->name, &seen);
        if (c != NULL)
            check_session(a, c->index, session);
    }
    php_read_array_end(&a->r);
    check_complete(a, has_group, a->q->name, &seen);
}

static void check_ids(struct answer *a, unsigned uid)
{
    struct sim_set seen = {0};
    uint32_t n = php_read_array(&a->r);
    for (uint32_t i = 0; i < n && !a->r.bad; i++) {
        if (php_read_int(&a->r) != i)
            wrong(a, "not a list", i);
        told_id(a, php_read_int(&a->r), has_uid, uid, &seen);
    }
    php_read_array_end(&a->r);
    if (n > 1 && a->l->w->config.gateway.one_connection_per_uid && a->l->w->node.deaths == 0)
        wrong(a, "more than one with that uid", n);
    check_complete(a, has_uid, uid, &seen);
}

/* A count: between those who were there all the time and those who were there at first. */
static void check_count(struct answer *a, unsigned group)
{
    int64_t n = php_read_int(&a->r), min = 0, max = 0;
    bool whole = is_whole(a);
    for (unsigned i = 0; i < a->q->n; i++) {
        if (!sim_set_has(&a->q->online, i) || !(a->q->all || has_group(a, i, group)))
            continue;
        max++;
        min += whole && checker_is_online(a->l->w->clients[i]);
    }
    if (n < min || (n > max && !a->q->all))
        wrong(a, "not the number that it must be", n);
}

static void check_key(struct answer *a, char kind, unsigned k)
{
    char name[SIM_NAME_SIZE];
    struct slice key = php_read_key(&a->r);
    if (!a->r.bad && !slice_eq_str(key, sim_link_name(a->l, kind, k, name)))
        wrong(a, "not the name that was asked for", k);
}

static void check_batch(struct answer *a)
{
    bool ids = a->q->cmd == GW_CMD_BATCH_GET_CLIENT_ID_BY_UID;
    if (php_read_array(&a->r) != SIM_NAMES + a->q->strangers)
        wrong(a, "not as many names as were asked for", SIM_NAMES);
    for (unsigned k = 0; k < SIM_NAMES && !a->r.bad; k++) {
        check_key(a, ids ? 'u' : 'g', k);
        if (ids)
            check_ids(a, k);
        else
            check_count(a, k);
    }
    for (unsigned k = 0; k < a->q->strangers && !a->r.bad; k++) {
        php_read_key(&a->r);
        if (ids ? php_read_array(&a->r) != 0 : php_read_int(&a->r) != 0)
            wrong(a, "somebody is a stranger", k);
        if (ids)
            php_read_array_end(&a->r);
    }
    php_read_array_end(&a->r);
}

static bool group_has_stayed(const struct answer *a, unsigned k)
{
    for (unsigned i = 0; i < a->q->n; i++)
        if (has_group(a, i, k) && sim_set_has(&a->q->online, i) && checker_is_online(a->l->w->clients[i]))
            return true;
    return false;
}

static void check_group_list(struct answer *a)
{
    char name[SIM_NAME_SIZE];
    uint32_t seen = 0, n = php_read_array(&a->r);
    for (uint32_t i = 0; i < n && !a->r.bad; i++) {
        if (php_read_int(&a->r) != i)
            wrong(a, "not a list", i);
        struct slice group = php_read_key(&a->r);
        for (unsigned k = 0; k < SIM_NAMES; k++)
            if (slice_eq_str(group, sim_link_name(a->l, 'g', k, name)))
                seen |= 1u << k;
    }
    php_read_array_end(&a->r);
    for (unsigned k = 0; k < SIM_NAMES; k++)
        if (is_whole(a) && group_has_stayed(a, k) && (seen >> k & 1) == 0)
            wrong(a, "a group is missing", k);
}

static void check_groups_field(struct answer *a, unsigned i)
{
    char name[SIM_NAME_SIZE];
    uint32_t seen = 0, n = php_read_array(&a->r);
    for (uint32_t g = 0; g < n && !a->r.bad; g++) {
        struct slice key = php_read_key(&a->r), value = php_read_string(&a->r);
        if (!a->r.bad && !slice_eq(key, value))
            wrong(a, "a group whose key is another", i);
        for (unsigned k = 0; k < SIM_NAMES; k++)
            if (slice_eq_str(value, sim_link_name(a->l, 'g', k, name)))
                seen |= 1u << k;
    }
    php_read_array_end(&a->r);
    if (!a->r.bad && seen != a->q->of[i].groups)
        wrong(a, "not the groups that were joined", i);
}

static void check_fields(struct answer *a, unsigned i)
{
    char name[SIM_NAME_SIZE];
    if (php_read_array(&a->r) != 3 || !slice_eq_str(php_read_key(&a->r), "session"))
        wrong(a, "not the fields asked for", i);
    check_session(a, i, php_read_string(&a->r));
    php_read_key(&a->r);
    int uid = a->q->of[i].uid;
    if (uid < 0)
        php_read_null(&a->r);
    else if (!slice_eq_str(php_read_string(&a->r), sim_link_name(a->l, 'u', (unsigned)uid, name)))
        wrong(a, "not the uid that was bound", i);
    php_read_key(&a->r);
    check_groups_field(a, i);
    php_read_array_end(&a->r);
}

static void check_select(struct answer *a)
{
    struct sim_set seen = {0};
    uint32_t n = php_read_array(&a->r);
    for (uint32_t i = 0; i < n && !a->r.bad && !a->l->w->failed; i++) {
        int64_t id = php_read_int(&a->r);
        struct sim_client *c = a->r.bad ? NULL : told_id(a, id, has_group, a->q->name, &seen);
        if (c != NULL)
            check_fields(a, c->index);
    }
    php_read_array_end(&a->r);
    check_complete(a, has_group, a->q->name, &seen);
}

static void check_is_online(struct answer *a)
{
    int64_t is = php_read_int(&a->r);
    bool was = sim_set_has(&a->q->online, a->q->client->index);
    if ((is != 0 && is != 1) || (is == 1 && !was) ||
        (is == 0 && was && is_whole(a) && checker_is_online(a->q->client)))
        wrong(a, "online or not: the other way", is);
    if (is == 1)
        note_seen(a, a->q->client->index);
}

static void check_one_session(struct answer *a)
{
    struct slice reply = a->r.rest;
    unsigned i = a->q->client->index;
    const char *set = a->q->of[i].session;
    bool was = sim_set_has(&a->q->online, i), is = checker_is_online(a->q->client);
    bool null = slice_eq_str(reply, "N;");
    a->r.rest.len = 0;
    if ((null && was && is && is_whole(a)) || (!null && !was))
        wrong(a, "a session of one who is gone, or none of one who is there", a->q->client->id);
    if (!null)
        note_seen(a, i);
    if (!null && a->q->of[i].owner == (int)a->l->index &&
        !slice_eq_str(reply, set[0] != '\0' ? set : "a:0:{}"))
        wrong(a, "not the session that was set", a->q->client->id);
}

static void check_answer(struct answer *a)
{
    switch (a->q->cmd) {
    case GW_CMD_IS_ONLINE: check_is_online(a); break;
    case GW_CMD_GET_SESSION_BY_CLIENT_ID: check_one_session(a); break;
    case GW_CMD_GET_CLIENT_ID_BY_UID: check_ids(a, a->q->name); break;
    case GW_CMD_BATCH_GET_CLIENT_ID_BY_UID:
    case GW_CMD_BATCH_GET_CLIENT_COUNT_BY_GROUP: check_batch(a); break;
    case GW_CMD_GET_ALL_CLIENT_SESSIONS:
    case GW_CMD_GET_CLIENT_SESSIONS_BY_GROUP: check_sessions(a); break;
    case GW_CMD_GET_CLIENT_COUNT_BY_GROUP: check_count(a, a->q->name); break;
    case GW_CMD_GET_GROUP_ID_LIST: check_group_list(a); break;
    default: check_select(a);
    }
    if (a->r.bad || a->r.rest.len != 0)
        world_fail(a->l->w, "link %u: the answer to %s is not of its form", a->l->index,
                   gw_cmd_name(a->q->cmd));
}

static void drop_first(struct sim_link *l)
{
    struct sim_query *q = l->first;
    l->first = q->next;
    if (l->first == NULL)
        l->last = NULL;
    free(q);
}

void sim_query_answered(struct sim_link *l, struct slice reply)
{
    if (l->first == NULL) {
        world_fail(l->w, "link %u: an answer to nothing", l->index);
        return;
    }
    struct answer a = {.l = l, .q = l->first, .r = {.rest = reply}};
    check_answer(&a);
    drop_first(l);
}

void sim_query_free_all(struct sim_link *l)
{
    while (l->first != NULL)
        drop_first(l);
}
