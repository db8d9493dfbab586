// SPDX-License-Identifier: MIT
#include "admin/query.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/shard_shm.h"
#include "guard/cidr.h"

#define SHOWN_MAX 64 /* bytes of a value that a message quotes */

static int shown(struct slice s)
{
    return (int)(s.len < SHOWN_MAX ? s.len : SHOWN_MAX);
}

void query_wrong(struct query *q, const char *fmt, ...)
{
    va_list ap;
    if (q->why[0] != '\0')
        return;
    va_start(ap, fmt);
    vsnprintf(q->why, sizeof q->why, fmt, ap);
    va_end(ap);
}

/* ---- taking the target apart */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* text of len bytes, decoded to out, which has room for as many; the length, or -EINVAL. */
static ptrdiff_t decode(const char *text, size_t len, bool plus, uint8_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '%') {
            if (len - i < 3 || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0)
                return -EINVAL;
            out[n++] = (uint8_t)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
            i += 2;
        } else {
            out[n++] = plus && text[i] == '+' ? ' ' : (uint8_t)text[i];
        }
    }
    return (ptrdiff_t)n;
}

static bool decode_part(struct query *q, uint8_t **at, const char *text, size_t len, bool plus,
                        struct slice *ret)
{
    ptrdiff_t n = decode(text, len, plus, *at);
    if (n < 0) {
        query_wrong(q, "\"%.*s\": expected two hexadecimal digits behind each %%",
                    shown((struct slice){(const uint8_t *)text, len}), text);
        return false;
    }
    *ret = (struct slice){*at, (size_t)n};
    *at += n + 1; /* a NUL behind each */
    return true;
}

static const struct query_param *find(const struct query *q, struct slice name)
{
    for (unsigned i = 0; i < q->n; i++) {
        if (slice_eq(q->params[i].name, name))
            return &q->params[i];
    }
    return NULL;
}

static bool add_param(struct query *q, uint8_t **at, const char *text, size_t len)
{
    const char *equals = memchr(text, '=', len);
    size_t name_len = equals != NULL ? (size_t)(equals - text) : len;
    struct query_param p = {.used = false};

    if (!decode_part(q, at, text, name_len, true, &p.name))
        return false;
    if (equals == NULL) {
        query_wrong(q, "parameter %.*s has no value; expected %.*s=VALUE", shown(p.name), p.name.data,
                    shown(p.name), p.name.data);
        return false;
    }
    if (!decode_part(q, at, equals + 1, len - name_len - 1, true, &p.value))
        return false;
    if (find(q, p.name) != NULL)
        query_wrong(q, "parameter %.*s is there twice; expected it once", shown(p.name), p.name.data);
    else if (q->n == QUERY_PARAMS_MAX)
        query_wrong(q, "more than %d parameters", QUERY_PARAMS_MAX);
    else
        q->params[q->n++] = p;
    return q->why[0] == '\0';
}

static bool parse_params(struct query *q, uint8_t **at, const char *text)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "&");
        if (len > 0 && !add_param(q, at, text, len))
            return false;
        text += len + (text[len] == '&');
    }
    return true;
}

int query_parse(const char *target, struct query *ret)
{
    size_t len = strlen(target), path_len = strcspn(target, "?#");
    struct slice path;

    memset(ret, 0, sizeof *ret);
    /* Each piece is not longer than it was and gets a NUL, for which a ?, = or & has stood or the end. */
    ret->mem = calloc(1, len + 2);
    if (ret->mem == NULL)
        return -ENOMEM;
    uint8_t *at = ret->mem;
    if (!decode_part(ret, &at, target, path_len, false, &path))
        return -EINVAL;
    ret->path = (char *)ret->mem;
    if (path.len == 0 || path.data[0] != '/' || memchr(path.data, '\0', path.len) != NULL) {
        query_wrong(ret, "expected a path that begins with /");
        return -EINVAL;
    }
    if (target[path_len] != '?')
        return 0;
    return parse_params(ret, &at, target + path_len + 1) ? 0 : -EINVAL;
}

void query_fini(struct query *q)
{
    free(q->mem);
    q->mem = NULL;
    q->path = NULL;
    q->n = 0;
}

/* ---- one parameter */

bool query_has(const struct query *q, const char *name)
{
    return find(q, (struct slice){(const uint8_t *)name, strlen(name)}) != NULL;
}

/* Its value; false: it is not there, or something was wrong before. */
static bool get(struct query *q, const char *name, struct slice *ret)
{
    for (unsigned i = 0; i < q->n; i++) {
        if (!slice_eq_str(q->params[i].name, name))
            continue;
        q->params[i].used = true;
        *ret = q->params[i].value;
        return q->why[0] == '\0';
    }
    return false;
}

bool query_text(struct query *q, const char *name, size_t len_max, struct slice *ret)
{
    struct slice value;
    if (!get(q, name, &value))
        return false;
    if (value.len == 0)
        query_wrong(q, "parameter %s is empty; expected 1 to %zu bytes, or no such parameter", name, len_max);
    else if (value.len > len_max)
        query_wrong(q, "parameter %s has %zu bytes; expected at most %zu", name, value.len, len_max);
    else
        *ret = value;
    return q->why[0] == '\0';
}

/* Decimal digits and nothing else. */
static bool parse_uint(struct slice s, uint64_t *ret)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = s.data[i] - (unsigned)'0';
        if (digit > 9 || v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *ret = v;
    return s.len > 0;
}

bool query_uint(struct query *q, const char *name, uint64_t min, uint64_t max, uint64_t *ret)
{
    struct slice value;
    uint64_t number;
    if (!get(q, name, &value))
        return false;
    if (!parse_uint(value, &number) || number < min || number > max) {
        query_wrong(q, "parameter %s is \"%.*s\"; expected a whole number from %" PRIu64 " to %" PRIu64, name,
                    shown(value), value.data, min, max);
        return false;
    }
    *ret = number;
    return true;
}

bool query_choice(struct query *q, const char *name, const char *const *names, unsigned *ret)
{
    struct slice value;
    char list[QUERY_WHY_MAX / 2] = "";

    if (!get(q, name, &value))
        return false;
    for (unsigned i = 0; names[i] != NULL; i++) {
        if (slice_eq_str(value, names[i])) {
            *ret = i;
            return true;
        }
        size_t len = strlen(list);
        snprintf(list + len, sizeof list - len, "%s%s", i == 0 ? "" : ", ", names[i]);
    }
    query_wrong(q, "parameter %s is \"%.*s\"; expected one of: %s", name, shown(value), value.data, list);
    return false;
}

bool query_yes(struct query *q, const char *name)
{
    static const char *const names[] = {"no", "yes", NULL};
    unsigned which = 0;
    return query_choice(q, name, names, &which) && which == 1;
}

bool query_cidr(struct query *q, const char *name, struct net_addr *ret, uint8_t *ret_bits)
{
    struct slice value;
    struct cidr c;
    char why[CIDR_WHY_MAX];

    if (!get(q, name, &value))
        return false;
    enum cidr_problem problem = cidr_parse((const char *)value.data, value.len, &c);
    if (problem != CIDR_OK) {
        query_wrong(q, "parameter %s: %s", name,
                    cidr_explain(problem, (const char *)value.data, value.len, why, sizeof why));
        return false;
    }
    memset(ret, 0, sizeof *ret);
    ret->family = c.family;
    for (unsigned i = 0; i < 8; i++) {
        ret->ip[i] = (uint8_t)(c.hi >> (56 - 8 * i));
        ret->ip[8 + i] = (uint8_t)(c.lo >> (56 - 8 * i));
    }
    *ret_bits = c.bits;
    return true;
}

void query_need(struct query *q, const char *name, const char *expected)
{
    if (!query_has(q, name))
        query_wrong(q, "parameter %s is missing; expected %s=%s", name, name, expected);
}

bool query_end(struct query *q)
{
    for (unsigned i = 0; i < q->n; i++) {
        struct slice name = q->params[i].name;
        if (!q->params[i].used)
            query_wrong(q, "parameter \"%.*s\" means nothing here (docs/ADMIN-API.md)", shown(name),
                        name.data);
    }
    return q->why[0] == '\0';
}

/* ---- clients and cursors */

static bool parse_hex(struct slice s, uint64_t *ret)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        int digit = hex_digit((char)s.data[i]);
        if (digit < 0)
            return false;
        v = v << 4 | (uint64_t)digit;
    }
    *ret = v;
    return true;
}

static int check_connection_id(uint64_t id, const struct query_gateway *gw, uint32_t *ret, char *why,
                               size_t cap)
{
    if (id > UINT32_MAX || (id & CONNECTION_SEQ_MASK) == 0) {
        snprintf(why, cap, "%" PRIu64 " is no connection_id", id);
        return -EINVAL;
    }
    unsigned shard = node_home_of(gw->home, (uint32_t)id);
    if (shard >= gw->n_shards) {
        snprintf(why, cap, "connection_id %" PRIu64 " is of shard %u; this gateway has the shards 0 to %u",
                 id, shard, gw->n_shards - 1);
        return -ENOENT;
    }
    *ret = (uint32_t)id;
    return 0;
}

static int check_client_id(struct slice text, const struct query_gateway *gw, uint32_t *ret, char *why,
                           size_t cap)
{
    uint64_t ip, port, id;
    if (!parse_hex((struct slice){text.data, 8}, &ip) ||
        !parse_hex((struct slice){text.data + 8, 4}, &port) ||
        !parse_hex((struct slice){text.data + 12, 8}, &id)) {
        snprintf(why, cap, "\"%.*s\" is no client_id; expected 20 hexadecimal digits", (int)text.len,
                 text.data);
        return -EINVAL;
    }
    if (ip != gw->lan_ip || port != gw->start_port) {
        snprintf(why, cap,
                 "client_id %.*s is of the gateway %u.%u.%u.%u:%u; this one is %u.%u.%u.%u:%u (lan_ip, "
                 "start_port)",
                 (int)text.len, text.data, (unsigned)(ip >> 24), (unsigned)(ip >> 16 & 255),
                 (unsigned)(ip >> 8 & 255), (unsigned)(ip & 255), (unsigned)port, gw->lan_ip >> 24,
                 gw->lan_ip >> 16 & 255, gw->lan_ip >> 8 & 255, gw->lan_ip & 255, gw->start_port);
        return -ENOENT;
    }
    return check_connection_id(id, gw, ret, why, cap);
}

int client_id_parse(struct slice text, const struct query_gateway *gw, uint32_t *ret, char *why, size_t cap)
{
    uint64_t id;
    if (text.len == CLIENT_ID_STRLEN - 1)
        return check_client_id(text, gw, ret, why, cap);
    if (text.len > 10 || !parse_uint(text, &id)) {
        snprintf(why, cap,
                 "\"%.*s\" is no client; expected a connection_id (a number) or a client_id (20 hexadecimal "
                 "digits)",
                 shown(text), text.data);
        return -EINVAL;
    }
    return check_connection_id(id, gw, ret, why, cap);
}

char *client_id_format(const struct query_gateway *gw, uint32_t connection_id, char *buf, size_t cap)
{
    snprintf(buf, cap, "%08" PRIx32 "%04x%08" PRIx32, gw->lan_ip, (unsigned)gw->start_port, connection_id);
    return buf;
}

bool query_client(struct query *q, const char *name, const struct query_gateway *gw, uint32_t *ret)
{
    struct slice value;
    char why[QUERY_WHY_MAX - 64];

    if (!get(q, name, &value))
        return false;
    if (client_id_parse(value, gw, ret, why, sizeof why) == 0)
        return true;
    query_wrong(q, "parameter %s: %s", name, why);
    return false;
}

char *cursor_format(unsigned shard, uint64_t cursor, char *buf, size_t cap)
{
    snprintf(buf, cap, "%u:%" PRIu64, shard, cursor);
    return buf;
}

bool query_cursor(struct query *q, const char *name, unsigned n_shards, unsigned *ret_shard,
                  uint64_t *ret_cursor)
{
    struct slice value;
    uint64_t shard, cursor;

    if (!get(q, name, &value))
        return false;
    const uint8_t *colon = memchr(value.data, ':', value.len);
    size_t len = colon != NULL ? (size_t)(colon - value.data) : 0;
    if (colon == NULL || !parse_uint((struct slice){value.data, len}, &shard) || shard >= n_shards ||
        !parse_uint((struct slice){colon + 1, value.len - len - 1}, &cursor)) {
        query_wrong(q, "parameter %s is \"%.*s\"; expected the \"cursor\" of the page before", name,
                    shown(value), value.data);
        return false;
    }
    *ret_shard = (unsigned)shard;
    *ret_cursor = cursor;
    return true;
}
