// SPDX-License-Identifier: MIT
/* One connection per uid (one_connection_per_uid): whoever was bound to it before is closed.
 *
 *   shard of the worker's link       shard of the client          another shard that shows the uid
 *     BIND_UID ────── COMMAND ──────►  binds it, as number n,
 *                                      closes its own others
 *     closes its own      ◄── BOUND ──
 *     older ones ───────────── REPLACE(n) ───────────────────────►  closes its own older ones
 *
 * Which of two binds is the older, all shards say alike: a bind is numbered where it takes effect, by a count
 * of the node, and each uid keeps the number of its last bind here (uid_entry_mark). Of two at the same time
 * the later one finds the earlier: a name is in its shard's filter before its number is taken, and the number
 * is taken before the other filters are read. A REPLACE that comes late finds a larger number and does
 * nothing. So the last one stays, and nobody else.
 *
 * The way back to the link's shard is for the order of what that link says. REPLACE goes where its commands
 * go and waits behind them: what was sent to the older one before the bind still reaches it. What is said of
 * the uid after the bind waits here for BOUND, if it would go anywhere else than to the new client's shard
 * (replace_must_wait); so does another bind of the same uid, lest it be numbered first. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

/* Binds of one link that may be on their way to other shards. */
#define BINDS_MAX 512
#define NO_LINK   UINT32_MAX

/* Those that BOUND has not come for, in no order. */
struct uid_binds {
    uint32_t n;
    uint64_t hashes[BINDS_MAX]; /* of their uids; apart, because all of them are looked at */
    struct {
        uint32_t question, shard;
    } of[BINDS_MAX];
};

static uint64_t hash_of(struct slice uid)
{
    return hash_bytes(uid.data, uid.len);
}

/* ---- closing */

/* Members of that uid that were bound before that bind, but for its own. */
static void close_older(struct gatewayworker *gw, struct slice uid, uint64_t bind, const struct member *own)
{
    struct upstream_host *host = gw->up.host;
    struct member_cursor cursor;
    struct member *m;
    directory_uid_begin(host->directory, uid.data, uid.len, &cursor);
    while ((m = member_cursor_next(&cursor)) != NULL) {
        if (m == own || uid_entry_mark(m->uid) >= bind)
            continue;
        gw_count(gw, COUNTER_uid_replaced, 1);
        host->ops->close(CONTAINER_OF(m, struct upstream_client, member), CLOSE_uid_replaced);
    }
    member_cursor_end(host->directory, &cursor);
}

/* The same on all shards but that of the new client. link: number of ours that said so, or NO_LINK. */
static void close_elsewhere(struct gatewayworker *gw, uint32_t link, unsigned shard, struct slice uid,
                            uint64_t bind)
{
    uint64_t others = peers_showing_uid(gw, hash_of(uid)) & ~(UINT64_C(1) << shard);
    for (unsigned i = 0; others != 0; i++, others >>= 1)
        if ((others & 1) != 0)
            peer_replace(gw, i, link, uid, bind);
    if (shard != gw->me)
        close_older(gw, uid, bind, NULL);
}

void replace_execute(struct gatewayworker *gw, const struct gw_packet *p)
{
    uint64_t bind;
    if (p->cmd != CMD_REPLACE || p->body.len != sizeof bind)
        return;
    memcpy(&bind, p->body.data, sizeof bind);
    close_older(gw, p->ext, bind, NULL);
}

/* ---- binding */

bool replace_is_bound(const struct upstream_client *c, struct slice uid)
{
    struct slice now;
    if (c->member.uid == NULL)
        return false;
    now.data = uid_entry_name(c->member.uid, &now.len);
    return slice_eq(now, uid);
}

void replace_bound(struct link *l, struct upstream_client *c, struct slice uid)
{
    struct gatewayworker *gw = l->gw;
    uint64_t bind = 0;
    if (c != NULL && gw_config(gw)->one_connection_per_uid) {
        /* Release: the name in our filter, for all whose binds are numbered later; acquire: those of all
         * whose binds were numbered before. Its partner is itself, in the other shards. */
        bind = __atomic_add_fetch(&gw->shared->uid_binds, 1, __ATOMIC_ACQ_REL);
        close_older(gw, uid, bind, &c->member);
        uid_entry_set_mark(c->member.uid, bind);
    }
    if (l->is_stand_in && peer_is_there(gw, l->shard)) {
        if (bind != 0 || l->question != 0)
            peer_bound(l, uid, bind);
    } else if (bind != 0) {
        close_elsewhere(gw, l->is_stand_in ? NO_LINK : l->number, gw->me, uid, bind);
    }
}

/* ---- binds under way to other shards */

uint32_t replace_begin(struct link *l, unsigned shard, struct slice uid)
{
    struct gatewayworker *gw = l->gw;
    if (!gw_config(gw)->one_connection_per_uid)
        return 0;
    if (l->binds == NULL)
        l->binds = calloc(1, sizeof *l->binds);
    struct uid_binds *b = l->binds;
    if (b == NULL)
        return 0; /* without memory only the order is lost */
    ASSERT(b->n < BINDS_MAX);
    b->hashes[b->n] = hash_of(uid);
    b->of[b->n].question = gather_next_question(gw);
    b->of[b->n].shard = shard;
    return b->of[b->n++].question;
}

static void forget(struct uid_binds *b, uint32_t i)
{
    b->hashes[i] = b->hashes[--b->n];
    b->of[i] = b->of[b->n];
}

void replace_on_bound(struct gatewayworker *gw, unsigned from, uint32_t link, uint32_t question,
                      struct slice uid, uint64_t bind)
{
    /* Also when the link is gone, or was a predecessor's. */
    if (bind != 0)
        close_elsewhere(gw, link, from, uid, bind);
    struct link *l = link < gw->cap_link_table ? gw->link_table[link] : NULL;
    struct uid_binds *b = l != NULL ? l->binds : NULL;
    for (uint32_t i = 0; b != NULL && i < b->n; i++) {
        if (b->of[i].question != question)
            continue;
        forget(b, i);
        link_gathered(l);
        return;
    }
}

void replace_shard_died(struct gatewayworker *gw, unsigned shard)
{
    for (uint32_t k = 0; k < gw->cap_link_table; k++) {
        struct link *l = gw->link_table[k];
        if (l == NULL || l->binds == NULL)
            continue;
        for (uint32_t i = l->binds->n; i-- > 0;)
            if (l->binds->of[i].shard == shard)
                forget(l->binds, i);
        link_gathered(l);
    }
}

bool replace_is_under_way(const struct link *l)
{
    return l->binds != NULL && l->binds->n > 0;
}

static bool is_under_way(const struct uid_binds *b, uint64_t hash)
{
    for (uint32_t i = 0; i < b->n; i++)
        if (b->hashes[i] == hash)
            return true;
    return false;
}

/* What is said of it now would come to others than the client that is being bound, before they are closed. */
static bool is_contested(const struct link *l, struct slice uid)
{
    const struct gatewayworker *gw = l->gw;
    const struct uid_binds *b = l->binds;
    uint64_t hash = hash_of(uid), shown = 0;
    bool looked = false;
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->hashes[i] != hash)
            continue;
        if (!looked)
            shown = peers_showing_uid(gw, hash);
        looked = true;
        if ((shown & ~(UINT64_C(1) << b->of[i].shard)) != 0)
            return true;
    }
    return looked && directory_uid_count(gw->up.host->directory, uid.data, uid.len) > 0;
}

static bool are_contested(struct link *l, struct slice ext)
{
    struct gw_names uids;
    if (gw_read_names(&l->gw->args, ext, &uids) != 0)
        return false; /* it will be refused */
    for (size_t i = 0; i < uids.n; i++)
        if (is_contested(l, uids.items[i]))
            return true;
    return false;
}

bool replace_must_wait(struct link *l, const struct gw_packet *p)
{
    const struct uid_binds *b = l->binds;
    if (b == NULL || b->n == 0)
        return false;
    switch (p->cmd) {
    case GW_CMD_BIND_UID: return b->n == BINDS_MAX || is_under_way(b, hash_of(p->ext));
    case GW_CMD_GET_CLIENT_ID_BY_UID: return is_contested(l, p->ext);
    case GW_CMD_SEND_TO_UID:
    case GW_CMD_BATCH_GET_CLIENT_ID_BY_UID: return are_contested(l, p->ext);
    case GW_CMD_SELECT: return true; /* rare: whom it names is not looked at */
    default: return false;
    }
}
