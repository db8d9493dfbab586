// SPDX-License-Identifier: MIT
/* The readers of ext_data: all on the same text, with memory reused from one input to the next. */
#include <errno.h>

#include "base/assert.h"
#include "proto/gw/command.h"
#include "proto/gw/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct gw_args args;
static volatile size_t read_bytes; /* so that every byte is read */

static size_t touch(struct gw_names names)
{
    size_t sum = 0;
    for (size_t i = 0; i < names.n; i++) {
        for (size_t j = 0; j < names.items[i].len; j++)
            sum += names.items[i].data[j];
    }
    return sum;
}

static void check_set(const struct gw_id_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        ASSERT(gw_id_set_has(set, set->ids[i]));
        ASSERT(i == 0 || set->ids[i - 1] < set->ids[i]);
        uint32_t next = set->ids[i] + 1;
        ASSERT(gw_id_set_has(set, next) == (i + 1 < set->n && set->ids[i + 1] == next) || next == 0);
    }
}

static bool is_json(struct slice text)
{
    struct json_reader r;
    struct json_value v;
    int token;
    json_init(&r, text);
    while ((token = json_next(&r, &v)) > 0)
        ;
    return token == JSON_TOK_DONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct slice ext = {data, len};
    struct gw_send_to_all all;
    struct gw_send_to_group group;
    struct gw_names names;
    struct gw_select select;
    struct gw_connect keys;
    bool json = is_json(ext);
    if (gw_read_send_to_all(&args, ext, &all) == 0) {
        ASSERT(json || len == 0);
        check_set(all.exclude);
        for (size_t i = 0; i < all.n_connections; i++)
            read_bytes += all.connections[i];
    }
    if (gw_read_send_to_group(&args, ext, &group) == 0) {
        ASSERT(json);
        check_set(group.exclude);
        read_bytes += touch(group.groups);
    }
    if (gw_read_names(&args, ext, &names) == 0) {
        ASSERT(json && names.n <= len);
        read_bytes += touch(names);
    }
    if (gw_read_select(&args, ext, &select) == 0) {
        ASSERT(json && !(select.nothing && select.has_where));
        read_bytes += touch(select.fields) + touch(select.groups) + touch(select.uids);
    }
    if (gw_read_connect(&args, ext, &keys) == 0) {
        ASSERT(json);
        read_bytes +=
            touch((struct gw_names){&keys.secret_key, 1}) + touch((struct gw_names){&keys.worker_key, 1});
    }
    return 0;
}
