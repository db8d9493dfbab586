// SPDX-License-Identifier: MIT
/* Any bytes as the target of a request to the admin port: what is taken is bounded and decodes the same when
 * it is encoded again; getters give values within their bounds; problems end with a NUL. Any bytes as rows of
 * a shard: what jansson takes we take, and each row is one object for jansson. */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/json_rows.h"
#include "admin/query.h"
#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct node_home home = {
    .shard = {[NODE_HOME_PARTS] = 1, [2 * NODE_HOME_PARTS] = 2, [3 * NODE_HOME_PARTS] = 3}};
static const struct query_gateway gw = {
    .lan_ip = 0x7f000001, .start_port = 2900, .n_shards = 3, .home = &home};

static void check_getters(struct query *q)
{
    static const char *const names[] = {"one", "two", NULL};
    struct slice text;
    struct net_addr address;
    uint64_t number;
    unsigned which, shard;
    uint32_t client;
    uint8_t bits;
    char cursor[CURSOR_STRLEN];

    if (query_text(q, "uid", 10, &text))
        ASSERT(text.len > 0 && text.len <= 10);
    if (query_uint(q, "limit", 1, 1000, &number))
        ASSERT(number >= 1 && number <= 1000);
    if (query_choice(q, "by", names, &which))
        ASSERT(which < 2);
    if (query_cidr(q, "address", &address, &bits))
        ASSERT(bits <= (address.family == AF_INET ? 32 : 128));
    if (query_client(q, "client", &gw, &client))
        ASSERT(node_home_of(&home, client) < 3 && (client & 0x3ffffff) != 0);
    if (query_cursor(q, "cursor", 3, &shard, &number)) {
        ASSERT(shard < 3);
        ASSERT(strlen(cursor_format(shard, number, cursor, sizeof cursor)) < sizeof cursor);
    }
    (void)query_yes(q, "all");
    query_need(q, "by", "one");
    ASSERT(query_end(q) == (q->why[0] == '\0'));
    ASSERT(memchr(q->why, '\0', sizeof q->why) != NULL);
}

static void encode(struct bytes *out, struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        bytes_printf(out, "%%%02x", s.data[i]);
}

/* The same again from what was understood. */
static void check_again(const struct query *q)
{
    struct bytes target = {0};
    struct query again;

    encode(&target, (struct slice){(const uint8_t *)q->path, strlen(q->path)});
    for (unsigned i = 0; i < q->n; i++) {
        bytes_append_byte(&target, i == 0 ? '?' : '&');
        encode(&target, q->params[i].name);
        bytes_append_byte(&target, '=');
        encode(&target, q->params[i].value);
    }
    bytes_append_byte(&target, 0);
    ASSERT(query_parse((const char *)target.data, &again) == 0);
    ASSERT(strcmp(again.path, q->path) == 0 && again.n == q->n);
    for (unsigned i = 0; i < q->n; i++) {
        ASSERT(slice_eq(again.params[i].name, q->params[i].name));
        ASSERT(slice_eq(again.params[i].value, q->params[i].value));
    }
    query_fini(&again);
    bytes_fini(&target);
}

static void check_target(const uint8_t *data, size_t len)
{
    struct query q;
    char *target = strndup((const char *)data, len);
    ASSERT(target != NULL);
    int r = query_parse(target, &q);
    ASSERT(r == 0 || q.why[0] != '\0');
    if (r == 0) {
        ASSERT(q.path[0] == '/' && q.n <= QUERY_PARAMS_MAX);
        check_again(&q);
        check_getters(&q);
    }
    query_fini(&q);
    free(target);
}

/* At most: brackets in strings count too. */
static unsigned depth_of(struct slice text)
{
    unsigned n = 0;
    for (size_t i = 0; i < text.len; i++)
        n += text.data[i] == '{' || text.data[i] == '[';
    return n;
}

/* Both say the same but where jansson has bounds of its own: numbers, depth, halves of surrogate pairs. */
static void check_rows(struct slice text)
{
    struct slice row;
    size_t pos = 0;
    struct bytes array = {0};

    bytes_append_byte(&array, '[');
    bytes_append(&array, text.data, text.len);
    bytes_append_byte(&array, ']');
    json_t *all = json_loadb((const char *)array.data, array.len, JSON_ALLOW_NUL, NULL);
    bool objects = json_is_array(all);
    size_t i;
    json_t *item;
    json_array_foreach(all, i, item) objects = objects && json_is_object(item);
    int n = json_rows_count(text);
    /* jansson lets a NUL pass between tokens; we do not. */
    if (objects && memchr(text.data, '\0', text.len) == NULL && depth_of(text) <= JSON_ROWS_DEPTH_MAX)
        ASSERT(n == (int)json_array_size(all));
    json_decref(all);
    bytes_fini(&array);
    while (n > 0 && json_rows_next(text, &pos, &row) > 0) {
        ASSERT(row.len >= 2 && row.data[0] == '{' && row.data[row.len - 1] == '}');
        ASSERT(json_rows_count(row) == 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    check_target(data, len);
    check_rows((struct slice){data, len});
    return 0;
}
