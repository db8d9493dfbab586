// SPDX-License-Identifier: MIT
#include "admin/gather.h"

#include <errno.h>

#include "admin/json_rows.h"
#include "base/log.h"

static void on_reply(struct ask *a, unsigned peer, const struct control_reply *reply, struct slice json)
{
    struct gather *g = CONTAINER_OF(a, struct gather, ask);
    struct gathered *of = &g->of[peer];

    of->status = reply->status;
    of->cursor = reply->cursor;
    if (json.len > 0 && of->json.len > 0 && g->form == GATHER_ROWS)
        bytes_append_byte(&of->json, ',');
    if (of->json.len + json.len > GATHER_BYTES_MAX)
        of->json.failed = true;
    bytes_append(&of->json, json.data, json.len);
    of->answered = (reply->flags & CONTROL_MORE) == 0;
}

static bool is_good(const struct gather *g, const struct gathered *of)
{
    int n = json_rows_count((struct slice){of->json.data, of->json.len});
    if (of->json.failed || n < 0)
        return false;
    return g->form == GATHER_ROWS || n <= 1; /* some orders have nothing to say */
}

static void on_done(struct ask *a)
{
    struct gather *g = CONTAINER_OF(a, struct gather, ask);
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct gathered *of = &g->of[i];
        if (!of->answered || is_good(g, of))
            continue;
        LOG(LOG_ERROR, "control_garbage", "peer=%u op=%u bytes=%zu", i, a->req.head.op, of->json.len);
        of->answered = false;
    }
    g->done(g);
}

static void forget(struct gather *g)
{
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct gathered *of = &g->of[i];
        bytes_clear(&of->json);
        of->answered = false;
        of->status = 0;
        of->cursor = 0;
    }
    g->ask.reply = on_reply;
    g->ask.done = on_done;
}

int gather_ask(struct shards *s, struct gather *g, uint64_t mask, uint64_t now_ms, uint64_t timeout_ms)
{
    forget(g);
    return shards_ask(s, &g->ask, mask, now_ms, timeout_ms);
}

int gather_ask_supervisor(struct shards *s, struct gather *g, uint64_t now_ms, uint64_t timeout_ms)
{
    forget(g);
    return shards_ask_supervisor(s, &g->ask, now_ms, timeout_ms);
}

void gather_fini(struct gather *g)
{
    for (unsigned i = 0; i < PEERS_MAX; i++)
        bytes_fini(&g->of[i].json);
}

bool gather_has(const struct gather *g, unsigned peer)
{
    return g->of[peer].answered && g->of[peer].status == 0;
}

struct slice gather_json(const struct gather *g, unsigned peer)
{
    return (struct slice){g->of[peer].json.data, g->of[peer].json.len};
}

uint64_t gather_missing(const struct gather *g)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        bool asked = g->ask.state[i] != ASK_NONE;
        if (asked && (!g->of[i].answered || g->of[i].status == -EBUSY))
            mask |= UINT64_C(1) << i;
    }
    return mask;
}

int gather_error(const struct gather *g)
{
    int error = 0;
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        if (gather_has(g, i))
            return 0;
        if (g->of[i].answered && g->of[i].status != -EBUSY)
            error = g->of[i].status;
    }
    return error;
}
