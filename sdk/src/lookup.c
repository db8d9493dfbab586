// SPDX-License-Identifier: MIT
// The GatewayClient calls that ask: each puts its question, and adds up what the gateways say.
#include "worker_priv.h"

#include <errno.h>
#include <stdlib.h>

// ---- lists of strings
// -------------------------------------------------------------------------------------------

// Strings one after another, each with its NUL, until they are made a list.
struct collector {
    struct tggw__bytes text;
    size_t count;
};

static int collect(struct collector *c, const char *text, size_t len)
{
    int e = tggw__bytes_append(&c->text, text, len);
    if (e == 0)
        e = tggw__bytes_append(&c->text, "", 1);
    c->count += e == 0;
    return e;
}

static int collect_value(struct collector *c, const struct tggw_value *v)
{
    char digits[24];
    if (v->type == TGGW_STRING)
        return memchr(v->s, '\0', v->len) != NULL ? 0 : collect(c, v->s, v->len);
    if (v->type != TGGW_INT)
        return 0;
    int len = snprintf(digits, sizeof digits, "%lld", (long long)v->i);
    return collect(c, digits, (size_t)len);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort_unique(struct tggw_strings *list)
{
    size_t n = 0;
    if (list->count > 1)
        qsort(list->str, list->count, sizeof list->str[0], compare);
    for (size_t i = 0; i < list->count; i++) {
        if (n == 0 || strcmp(list->str[n - 1], list->str[i]) != 0)
            list->str[n++] = list->str[i];
    }
    list->count = n;
}

// Pointers and text in one allocation. The collector is emptied in any case.
static int finish(struct collector *c, int error, bool unique, struct tggw_strings *ret)
{
    size_t bytes = tggw__bytes_len(&c->text);
    struct tggw_strings list = {c->count, NULL};
    if (error == 0) {
        list.str = malloc((c->count + 1) * sizeof list.str[0] + bytes);
        error = list.str == NULL ? -ENOMEM : 0;
    }
    if (error == 0) {
        char *text = (char *)(list.str + c->count + 1);
        if (bytes > 0)
            memcpy(text, c->text.data + c->text.head, bytes);
        for (size_t i = 0; i < c->count; i++, text += strlen(text) + 1)
            list.str[i] = text;
        if (unique)
            sort_unique(&list);
        *ret = list;
    }
    tggw__bytes_fini(&c->text);
    *c = (struct collector){0};
    return error;
}

void tggw_strings_free(struct tggw_strings *list)
{
    free(list->str);
    *list = (struct tggw_strings){0};
}

// ---- one client
// -------------------------------------------------------------------------------------------------

int tggw_is_online(struct tggw *w, const char *client_id)
{
    struct tggw_result *r;
    struct tggw_value v;
    int e = tggw_query(w, TGGW__IS_ONLINE, client_id, NULL, 0, &r);
    if (client_id == NULL || e == -ENOTCONN)
        return client_id == NULL ? -EINVAL : 0;
    if (e < 0)
        return e;
    e = tggw_result_get(r, 0, &v, NULL, NULL);
    if (e == 0)
        e = v.type == TGGW_INT ? v.i != 0 : -EBADMSG;
    tggw_result_free(r);
    return e;
}

int tggw_get_session(struct tggw *w, const char *client_id, void **ret_session, size_t *ret_len)
{
    struct tggw_result *r;
    if (client_id == NULL)
        return -EINVAL;
    int e = tggw_query(w, TGGW__GET_SESSION_BY_CLIENT_ID, client_id, NULL, 0, &r);
    if (e < 0)
        return e;
    // Handed out as it came: what somebody set as a session need not be serialize() data.
    struct tggw__part *part = &r->parts[0];
    if (part->len == 2 && memcmp(part->data, "N;", 2) == 0) {
        e = -ENOENT;
    } else {
        *ret_session = part->data;
        *ret_len = part->len;
        part->data = NULL;
    }
    tggw_result_free(r);
    return e;
}

// ---- uids
// -------------------------------------------------------------------------------------------------------

// A list of connection ids of one gateway.
static int collect_ids(struct collector *c, const struct tggw_value *array, uint32_t ip, uint16_t port)
{
    struct tggw_iter it;
    struct tggw_value key, v;
    char id[TGGW_CLIENT_ID_SIZE];
    int e;
    tggw_iter_init(&it, array);
    while ((e = tggw_iter_next(&it, &key, &v)) > 0) {
        if (v.type != TGGW_INT || v.i < 0 || v.i > UINT32_MAX)
            return -EBADMSG;
        tggw_client_id_format(ip, port, (uint32_t)v.i, id);
        e = collect(c, id, TGGW_CLIENT_ID_LEN);
        if (e < 0)
            return e;
    }
    return e;
}

int tggw_get_client_id_by_uid(struct tggw *w, const char *uid, struct tggw_strings *ret_client_ids)
{
    struct tggw_result *r;
    struct tggw_value v;
    struct collector c = {0};
    uint32_t ip;
    uint16_t port;
    if (tggw__is_empty(uid))
        return -EINVAL;
    int e = tggw_query(w, TGGW__GET_CLIENT_ID_BY_UID, NULL, uid, strlen(uid), &r);
    if (e < 0)
        return e;
    for (size_t i = 0; e == 0 && i < r->count; i++) {
        e = tggw_result_get(r, i, &v, &ip, &port);
        if (e == 0)
            e = collect_ids(&c, &v, ip, port);
    }
    tggw_result_free(r);
    return finish(&c, e, false, ret_client_ids);
}

int tggw_is_uid_online(struct tggw *w, const char *uid)
{
    struct tggw_strings list;
    int e = tggw_get_client_id_by_uid(w, uid, &list);
    if (e < 0)
        return e;
    e = list.count > 0;
    tggw_strings_free(&list);
    return e;
}

static int ask_with_list(struct tggw *w, int cmd, const char *const *names, size_t count,
                         struct tggw_result **ret)
{
    struct tggw__bytes b = {0};
    int e = 0;
    tggw__json_list(&b, names, count, &e);
    if (e == 0)
        e = tggw_query(w, cmd, NULL, b.data, tggw__bytes_len(&b), ret);
    tggw__bytes_fini(&b);
    return e;
}

static int ids_of_uid(const struct tggw_result *r, const char *uid, struct tggw_strings *ret)
{
    struct collector c = {0};
    struct tggw_value v, ids;
    uint32_t ip;
    uint16_t port;
    int e = 0;
    for (size_t i = 0; e == 0 && i < r->count; i++) {
        e = tggw_result_get(r, i, &v, &ip, &port);
        if (e == 0)
            e = tggw_value_find(&v, uid, &ids);
        e = e == -ENOENT ? 0 : e < 0 ? e : collect_ids(&c, &ids, ip, port);
    }
    return finish(&c, e, false, ret);
}

int tggw_batch_get_client_id_by_uid(struct tggw *w, const char *const *uids, size_t count,
                                    struct tggw_strings *ret_client_ids)
{
    struct tggw_result *r;
    size_t done = 0;
    int e = ask_with_list(w, TGGW__BATCH_GET_CLIENT_ID_BY_UID, uids, count, &r);
    if (e < 0)
        return e;
    while (e == 0 && done < count) {
        e = ids_of_uid(r, uids[done], &ret_client_ids[done]);
        done += e == 0;
    }
    tggw_result_free(r);
    while (e < 0 && done > 0)
        tggw_strings_free(&ret_client_ids[--done]);
    return e;
}

// ---- counts
// -----------------------------------------------------------------------------------------------------

static int64_t count_by_group(struct tggw *w, const char *group)
{
    struct tggw_result *r;
    struct tggw_value v;
    int64_t sum = 0;
    int e = tggw_query(w, TGGW__GET_CLIENT_COUNT_BY_GROUP, NULL, group, strlen(group), &r);
    if (e < 0)
        return e;
    for (size_t i = 0; e == 0 && i < r->count; i++) {
        e = tggw_result_get(r, i, &v, NULL, NULL);
        if (e == 0 && v.type != TGGW_INT)
            e = -EBADMSG;
        sum += e == 0 ? v.i : 0;
    }
    tggw_result_free(r);
    return e < 0 ? e : sum;
}

int64_t tggw_get_client_count(struct tggw *w)
{
    return count_by_group(w, "");
}

int64_t tggw_get_client_count_by_group(struct tggw *w, const char *group)
{
    return tggw__is_empty(group) ? -EINVAL : count_by_group(w, group);
}

static int add_counts(const struct tggw_result *r, const char *group, int64_t *sum)
{
    struct tggw_value v, n;
    for (size_t i = 0; i < r->count; i++) {
        int e = tggw_result_get(r, i, &v, NULL, NULL);
        if (e == 0)
            e = tggw_value_find(&v, group, &n);
        if (e < 0 && e != -ENOENT)
            return e;
        *sum += e == 0 && n.type == TGGW_INT ? n.i : 0;
    }
    return 0;
}

int tggw_batch_get_client_count_by_group(struct tggw *w, const char *const *groups, size_t count,
                                         int64_t *ret_counts)
{
    struct tggw_result *r;
    int e = ask_with_list(w, TGGW__BATCH_GET_CLIENT_COUNT_BY_GROUP, groups, count, &r);
    if (e < 0)
        return e;
    for (size_t i = 0; e == 0 && i < count; i++) {
        ret_counts[i] = 0;
        e = add_counts(r, groups[i], &ret_counts[i]);
    }
    tggw_result_free(r);
    return e;
}

static int collect_values(struct collector *c, const struct tggw_value *array)
{
    struct tggw_iter it;
    struct tggw_value key, v;
    int e;
    tggw_iter_init(&it, array);
    while ((e = tggw_iter_next(&it, &key, &v)) > 0) {
        e = collect_value(c, &v);
        if (e < 0)
            return e;
    }
    return e;
}

int tggw_get_group_id_list(struct tggw *w, struct tggw_strings *ret_groups)
{
    struct tggw_result *r;
    struct tggw_value v;
    struct collector c = {0};
    int e = tggw_query(w, TGGW__GET_GROUP_ID_LIST, NULL, NULL, 0, &r);
    if (e < 0)
        return e;
    for (size_t i = 0; e == 0 && i < r->count; i++) {
        e = tggw_result_get(r, i, &v, NULL, NULL);
        if (e == 0)
            e = collect_values(&c, &v);
    }
    tggw_result_free(r);
    return finish(&c, e, true, ret_groups);
}

int tggw_get_client_sessions(struct tggw *w, const char *group_or_null, struct tggw_result **ret_result)
{
    if (group_or_null == NULL)
        return tggw_query(w, TGGW__GET_ALL_CLIENT_SESSIONS, NULL, NULL, 0, ret_result);
    if (tggw__is_empty(group_or_null))
        return -EINVAL;
    return tggw_query(w, TGGW__GET_CLIENT_SESSIONS_BY_GROUP, NULL, group_or_null, strlen(group_or_null),
                      ret_result);
}

// ---- select
// -----------------------------------------------------------------------------------------------------

static void json_fields(struct tggw__bytes *b, unsigned fields, int *e)
{
    static const struct {
        unsigned bit;
        const char *name;
    } table[] = {{TGGW_FIELD_SESSION, "session"}, {TGGW_FIELD_UID, "uid"}, {TGGW_FIELD_GROUPS, "groups"}};
    const char *names[3];
    size_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        if (fields & table[i].bit)
            names[n++] = table[i].name;
    }
    tggw__json_list(b, names, n, e);
}

static void json_where_lists(struct tggw__bytes *b, const struct tggw_where *where, bool comma, int *e)
{
    const struct {
        const char *name;
        const char *const *list;
        size_t count;
    } table[] = {{"\"groups\":", where->groups, where->group_count},
                 {"\"uid\":", where->uids, where->uid_count}};
    for (size_t i = 0; i < 2; i++) {
        if (table[i].count == 0)
            continue;
        if (comma)
            tggw__json_raw(b, ",", e);
        comma = true;
        tggw__json_raw(b, table[i].name, e);
        tggw__json_list(b, table[i].list, table[i].count, e);
    }
}

struct select {
    unsigned fields;
    const struct tggw_where *where;
};

// connection_id is given whenever clients are named, even if none is this gateway's: an empty `where` means
// all. A gateway that none of the named clients lives on is left out when there is no other condition.
static int select_ext(void *arg, const struct tggw__gateway *g, struct tggw__bytes *b)
{
    const struct select *s = arg;
    const struct tggw_where *where = s->where;
    size_t own = 1;
    int e = 0;
    tggw__json_raw(b, "{\"fields\":", &e);
    json_fields(b, s->fields, &e);
    tggw__json_raw(b, ",\"where\":{", &e);
    if (where->client_id_count > 0) {
        tggw__json_raw(b, "\"connection_id\":", &e);
        own = tggw__json_own_ids(b, g, where->client_ids, where->client_id_count, &e);
    }
    json_where_lists(b, where, where->client_id_count > 0, &e);
    tggw__json_raw(b, "}}", &e);
    bool others = where->group_count + where->uid_count > 0;
    return e == 0 && own == 0 && !others ? -ENOENT : e;
}

int tggw_select(struct tggw *w, unsigned fields, const struct tggw_where *where,
                struct tggw_result **ret_result)
{
    static const struct tggw_where all = {0};
    struct select s = {fields, where != NULL ? where : &all};
    if ((fields & ~(TGGW_FIELD_UID | TGGW_FIELD_GROUPS | TGGW_FIELD_SESSION)) != 0 || fields == 0)
        return -EINVAL;
    return tggw__query_each(w, TGGW__SELECT, select_ext, &s, ret_result);
}

static int select_group(struct tggw *w, const char *group_or_null, struct tggw_result **ret)
{
    struct tggw_where where = {.groups = &group_or_null, .group_count = 1};
    if (group_or_null == NULL)
        return tggw_select(w, TGGW_FIELD_UID, NULL, ret);
    return tggw__is_empty(group_or_null) ? -EINVAL : tggw_select(w, TGGW_FIELD_UID, &where, ret);
}

static int collect_rows(const struct tggw_result *r, bool uids, struct collector *c)
{
    struct tggw_result_iter it;
    struct tggw_value row, uid;
    char id[TGGW_CLIENT_ID_SIZE];
    int e;
    tggw_result_iter_init(&it, r);
    while ((e = tggw_result_next(&it, id, &row)) > 0) {
        if (!uids)
            e = collect(c, id, TGGW_CLIENT_ID_LEN);
        else if (tggw_value_find(&row, "uid", &uid) == 0)
            e = collect_value(c, &uid);
        if (e < 0)
            return e;
    }
    return e;
}

static int select_list(struct tggw *w, const char *group_or_null, bool uids, struct tggw_strings *ret)
{
    struct tggw_result *r;
    struct collector c = {0};
    int e = select_group(w, group_or_null, &r);
    if (e < 0)
        return e;
    e = collect_rows(r, uids, &c);
    tggw_result_free(r);
    return finish(&c, e, true, ret);
}

int tggw_get_client_ids(struct tggw *w, const char *group_or_null, struct tggw_strings *ret_client_ids)
{
    return select_list(w, group_or_null, false, ret_client_ids);
}

int tggw_get_uids(struct tggw *w, const char *group_or_null, struct tggw_strings *ret_uids)
{
    return select_list(w, group_or_null, true, ret_uids);
}

int tggw_get_uid_by_client_id(struct tggw *w, const char *client_id, char **ret_uid)
{
    struct tggw_where where = {.client_ids = &client_id, .client_id_count = 1};
    struct tggw_result *r;
    struct tggw_strings list;
    struct collector c = {0};
    uint32_t ip, id;
    uint16_t port;
    int e = tggw_client_id_parse(client_id, &ip, &port, &id);
    if (e == 0)
        e = tggw_select(w, TGGW_FIELD_UID, &where, &r);
    if (e < 0)
        return e;
    e = collect_rows(r, true, &c);
    tggw_result_free(r);
    e = finish(&c, e, false, &list);
    if (e < 0)
        return e;
    char *uid = list.count > 0 ? strdup(list.str[0]) : NULL;
    e = uid != NULL ? 0 : list.count > 0 ? -ENOMEM : -ENOENT;
    if (e == 0)
        *ret_uid = uid;
    tggw_strings_free(&list);
    return e;
}
