// SPDX-License-Identifier: MIT
#include "admin/collect.h"

#include <stdlib.h>

#define BYTES_MAX ((size_t)8 << 20) /* of a shard */

struct collection {
    void (*then)(struct request *r);
    uint64_t until_ms;
    unsigned shard;   /* whose next page is asked for */
    uint64_t waiting; /* shards that have more */
    uint64_t cursor[NODE_SHARDS_MAX];
    struct bytes rows[NODE_SHARDS_MAX];
};

static void collection_free(struct request *r)
{
    struct collection *c = r->job;
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++)
        bytes_fini(&c->rows[i]);
    free(c);
}

/* A cursor that does not move would lead round in circles. */
static void take(struct request *r, unsigned i)
{
    struct collection *c = r->job;
    struct slice rows = gather_json(&r->gather, i);
    uint64_t bit = UINT64_C(1) << i, cursor = r->gather.of[i].cursor;

    c->waiting &= ~bit;
    if (rows.len > 0 && c->rows[i].len > 0)
        bytes_append_byte(&c->rows[i], ',');
    bytes_append(&c->rows[i], rows.data, rows.len);
    if (cursor == 0)
        return;
    if (cursor == c->cursor[i] || c->rows[i].len > BYTES_MAX) {
        r->missing |= bit;
        return;
    }
    c->cursor[i] = cursor;
    c->waiting |= bit;
}

static void on_rows(struct request *r)
{
    struct collection *c = r->job;
    uint64_t now_ms = admin_now_ms();

    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        if (gather_has(&r->gather, i))
            take(r, i);
        else if (r->gather.ask.state[i] != ASK_NONE) {
            c->waiting &= ~(UINT64_C(1) << i);
            r->missing |= UINT64_C(1) << i; /* also one that says it cannot */
        }
    }
    if (c->waiting == 0 || now_ms >= c->until_ms) {
        r->missing |= c->waiting;
        c->then(r);
        return;
    }
    unsigned next = (unsigned)__builtin_ctzll(c->waiting);
    r->gather.ask.req.head.cursor = c->cursor[next];
    request_ask(r, UINT64_C(1) << next, c->until_ms - now_ms, GATHER_ROWS, on_rows);
}

void collect(struct request *r, enum control_op op, uint64_t timeout_ms, void (*then)(struct request *r))
{
    struct collection *c = calloc(1, sizeof *c);
    if (c == NULL) {
        request_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
        return;
    }
    r->job = c;
    r->job_free = collection_free;
    c->then = then;
    c->until_ms = admin_now_ms() + 2 * timeout_ms;
    request_head(r, op)->limit = CONTROL_ROWS_MAX;
    request_ask(r, admin_all_shards(r->admin), timeout_ms, GATHER_ROWS, on_rows);
}

struct slice collected(const struct request *r, unsigned shard)
{
    const struct collection *c = r->job;
    return (struct slice){c->rows[shard].data, c->rows[shard].len};
}
