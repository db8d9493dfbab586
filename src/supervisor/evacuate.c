// SPDX-License-Identifier: MIT
#include "supervisor/evacuate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/json_writer.h"
#include "base/log.h"
#include "common/fault.h"
#include "supervisor/supervisor_priv.h"
#include "supervisor/upgrade_shards.h"

#define THAW_MS  5000
#define GRACE_MS 300 /* shards give up by themselves only when nobody leads */

static const struct {
    const char *name, *place;
} states[EVACUATE_STATE_N] = {
    [EVACUATE_IDLE] = {"idle", "old_supervisor.evacuate_idle"},
    [EVACUATE_HOLDS] = {"holds", "old_supervisor.evacuate_holds"},
    [EVACUATE_STOPS] = {"stops", "old_supervisor.evacuate_stops"},
    [EVACUATE_LINKS] = {"links", "old_supervisor.evacuate_links"},
    [EVACUATE_CLIENTS] = {"clients", "old_supervisor.evacuate_clients"},
    [EVACUATE_THAWS] = {"thaws", "old_supervisor.evacuate_thaws"},
};

static void give_up(struct supervisor *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool is_under_way(const struct evacuate *e)
{
    return e->state >= EVACUATE_HOLDS && e->state <= EVACUATE_CLIENTS;
}

/* False: it has been given up. */
static bool enter(struct supervisor *s, enum evacuate_state state)
{
    struct evacuate *e = &s->evacuate;

    e->state = state;
    LOG(e->again ? LOG_INFO : LOG_NOTICE, "evacuate", "shard=%u how=%s state=%s", e->shard,
        e->off ? "off" : "back", states[state].name);
    if (fault_at(states[state].place) < 0)
        give_up(s, "a fault on purpose at %s", states[state].place);
    return e->state == state;
}

static bool tell(struct supervisor *s, uint64_t which, const struct upgrade_message *m)
{
    unsigned shard = 0;
    int r = upgrade_shards_tell(s, which, m, &shard);
    if (r < 0)
        give_up(s, "shard %u cannot be told to %s: %s", shard, upgrade_op_name(m->op), strerror(-r));
    return r == 0;
}

void evacuate_init(struct evacuate *e)
{
    *e = (struct evacuate){.page_fd = -1};
}

void evacuate_close(struct supervisor *s)
{
    struct evacuate *e = &s->evacuate;
    upgrade_page_close(e->page);
    e->page = NULL;
    if (e->page_fd >= 0)
        close(e->page_fd);
    e->page_fd = -1;
}

/* ---- who has which role */

static uint64_t shards_with(const struct supervisor *s, bool edge)
{
    uint64_t shards = 0;
    for (unsigned i = 0; i < s->plan.n; i++)
        shards |= (uint64_t)(edge ? s->plan.shards[i].edge : s->plan.shards[i].link) << i;
    return shards;
}

static bool is_in(uint64_t shards, unsigned i)
{
    return (shards >> i & 1) != 0;
}

/* Edges that may take clients besides this shard. */
static uint64_t other_edges(const struct supervisor *s, unsigned shard)
{
    uint64_t others = shards_with(s, true) & ~(UINT64_C(1) << shard);
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (NODE_LOAD(s->node.shared->shards[i].drained) != 0)
            others &= ~(UINT64_C(1) << i);
    }
    return others;
}

/* Links that may take workers besides this shard; one that drains takes them, too. */
static uint64_t other_links(const struct supervisor *s, unsigned shard)
{
    uint64_t others = shards_with(s, false) & ~(UINT64_C(1) << shard);
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (NODE_LOAD(s->node.shared->shards[i].drained) == NODE_EVACUATED)
            others &= ~(UINT64_C(1) << i);
    }
    return others;
}

/* ---- homes */

/* Evenly, in turns. */
static void move_off(struct node_home *h, unsigned shard, uint64_t others)
{
    unsigned to = shard;
    for (unsigned i = 0; i < sizeof h->shard; i++) {
        if (h->shard[i] != shard)
            continue;
        do
            to = (to + 1) % NODE_SHARDS_MAX;
        while (!is_in(others, to));
        h->shard[i] = (uint8_t)to;
    }
}

static void bring_back(struct node_home *h, unsigned shard)
{
    memset(h->shard + shard * NODE_HOME_PARTS, (int)shard, NODE_HOME_PARTS);
}

/* Edges that have ids to give: those that were evacuated have none. */
static uint64_t givers_of_ids(const struct supervisor *s, const struct node_home *h)
{
    uint64_t shards = 0;
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (memchr(h->shard + i * NODE_HOME_PARTS, (int)i, NODE_HOME_PARTS) != NULL)
            shards |= UINT64_C(1) << i;
    }
    return shards & shards_with(s, true);
}

static int make_page(struct supervisor *s)
{
    struct evacuate *e = &s->evacuate;

    e->page_fd = upgrade_page_make(&e->page);
    if (e->page_fd < 0)
        return e->page_fd;
    e->page->n_shards = s->plan.n;
    e->page->within = e->off ? 1 : 2;
    e->page->takers = e->takers;
    e->page->home = s->node.shared->home;
    if (s->plan.shards[e->shard].edge && e->off)
        move_off(&e->page->home, e->shard, other_edges(s, e->shard));
    else if (s->plan.shards[e->shard].edge)
        bring_back(&e->page->home, e->shard);
    e->page->edges = givers_of_ids(s, &e->page->home);
    /* Links of a shard that is none of these move; they do not come back. */
    e->page->links = e->off ? other_links(s, e->shard) : shards_with(s, false);
    return 0;
}

/* ---- the order */

static const char *why_not(const struct supervisor *s, unsigned shard, bool off, char *buf, size_t cap)
{
    const char *why = s->stopping != STOPPING_NO ? "the gateway ends" : supervisor__busy(s);

    if (why == NULL && shard >= s->plan.n)
        why = "there is no such shard";
    if (why == NULL)
        why = supervisor__not_ready(s, buf, cap);
    if (why == NULL && off && s->plan.shards[shard].edge && other_edges(s, shard) == 0)
        why = "no other shard takes clients";
    if (why == NULL && off && s->plan.shards[shard].link && other_links(s, shard) == 0)
        why = "no other shard takes workers";
    return why;
}

static void hold(struct supervisor *s)
{
    struct evacuate *e = &s->evacuate;
    const struct config_gateway *g = &s->cfg->gateway;

    e->held_ms = child_now_ms();
    e->deadline_ms = e->held_ms + g->upgrade_handshake_wait + g->upgrade_pause_max;
    struct upgrade_message m = {.op = UPGRADE_HOLD,
                                .n = g->upgrade_handshake_wait,
                                .phase = (uint32_t)(e->deadline_ms - e->held_ms + GRACE_MS)};
    e->waits = upgrade_shards_all(s);
    if (enter(s, EVACUATE_HOLDS))
        tell(s, e->waits, &m);
}

void evacuate_request(struct supervisor *s, const struct control_request *req)
{
    struct evacuate *e = &s->evacuate;
    bool off = (req->head.flags & CONTROL_ON) != 0;
    unsigned shard = req->head.cursor < NODE_SHARDS_MAX ? (unsigned)req->head.cursor : NODE_SHARDS_MAX - 1;
    char buf[512];
    const char *why = why_not(s, shard, off, buf, sizeof buf);

    if (why != NULL) {
        int err = shard >= s->plan.n ? -ENOENT : supervisor__busy(s) != NULL ? -EBUSY : -EPERM;
        supervisor__refuse(s, req->head.id, err, "%s", why);
        return;
    }
    evacuate_init(e);
    e->shard = shard;
    e->off = off;
    e->id = req->head.id;
    e->givers = off ? UINT64_C(1) << shard : upgrade_shards_all(s) & ~(UINT64_C(1) << shard);
    e->takers = upgrade_shards_all(s) & ~e->givers;
    int r = make_page(s);
    if (r < 0) {
        supervisor__refuse(s, e->id, r, "no memory for it: %s", strerror(-r));
        return;
    }
    upgrade_shards_hush(s);
    upgrade_socket_set_busy(&s->upgrade_socket, true);
    hold(s);
}

/* ---- the course */

static void stop_shards(struct supervisor *s)
{
    struct evacuate *e = &s->evacuate;
    uint64_t latest_ms = child_now_ms() + s->cfg->gateway.upgrade_pause_max;

    if (!e->again && latest_ms < e->deadline_ms)
        e->deadline_ms = latest_ms;
    e->quiet = true;
    e->waits = upgrade_shards_all(s);
    struct upgrade_message m = {.op = UPGRADE_STOP, .n = (e->deadline_ms + GRACE_MS) * 1000000};
    if (enter(s, EVACUATE_STOPS))
        tell(s, e->waits, &m);
}

static void resume(struct supervisor *s)
{
    const struct upgrade_message m = {.op = UPGRADE_RESUME};
    s->evacuate.again = true;
    s->evacuate.waits = upgrade_shards_all(s);
    if (enter(s, EVACUATE_HOLDS))
        tell(s, s->evacuate.waits, &m);
}

static unsigned count(uint64_t shards)
{
    return (unsigned)__builtin_popcountll(shards);
}

static void export_phase(struct supervisor *s, unsigned phase)
{
    struct evacuate *e = &s->evacuate;
    const struct upgrade_message m = {.op = UPGRADE_EXPORT, .phase = phase, .n = phase};

    e->waits = e->givers;
    e->imports = e->takers;
    if (enter(s, phase == 1 ? EVACUATE_LINKS : EVACUATE_CLIENTS))
        tell(s, e->givers, &m);
}

/* Before the outcome is known: whoever then dies has a successor that knows it. */
static void set_void(struct supervisor *s, uint64_t shards, enum node_void what)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (is_in(shards, i))
            NODE_STORE(s->node.shared->shards[i].void_estate, what);
    }
}

/* All stand still. */
static void change_homes(struct supervisor *s)
{
    struct evacuate *e = &s->evacuate;
    struct upgrade_message take = {.op = UPGRADE_TAKE,
                                   .phase = count(e->givers),
                                   .n = (e->deadline_ms + GRACE_MS) * 1000000,
                                   .n_fds = 1,
                                   .fds = {e->page_fd}};
    struct upgrade_message plan = {.op = UPGRADE_PLAN, .n_fds = 1 + s->plan.n, .fds = {e->page_fd}};

    for (unsigned i = 0; i < s->plan.n; i++)
        plan.fds[1 + i] = s->node.import_fds[i][1];
    e->before = s->node.shared->home;
    e->changed = true;
    s->node.shared->home = e->page->home;
    set_void(s, e->takers, NODE_VOID_TAKEN);
    if (tell(s, e->takers, &take) && tell(s, e->givers, &plan))
        export_phase(s, 1);
}

static void thaw(struct supervisor *s)
{
    struct evacuate *e = &s->evacuate;

    e->decided_ms = child_now_ms();
    e->deadline_ms = e->decided_ms + THAW_MS;
    e->waits = 0;
    for (unsigned i = 0; i < s->plan.n; i++) {
        e->waits |= (uint64_t)(s->shards[i].pid != 0) << i;
        watchdog_reset(&s->shards[i].watchdog);
    }
    upgrade_shards_tell_all(s, UPGRADE_THAW);
    enter(s, EVACUATE_THAWS);
}

static void commit(struct supervisor *s)
{
    struct evacuate *e = &s->evacuate;

    if (e->clients != e->clients_taken || e->links != e->links_taken) {
        give_up(
            s, "%" PRIu64 " clients and %" PRIu64 " links were handed over, %" PRIu64 " and %" PRIu64 " came",
            e->clients, e->links, e->clients_taken, e->links_taken);
        return;
    }
    if (e->off)
        set_void(s, e->givers, NODE_VOID_ALL);
    if (upgrade_page_decide(e->page, UPGRADE_COMMITTED) != UPGRADE_COMMITTED) {
        set_void(s, e->givers, NODE_VOID_NOTHING);
        give_up(s, "a shard has given it up");
        return;
    }
    set_void(s, e->takers, NODE_VOID_NOTHING);
    NODE_STORE(s->node.shared->shards[e->shard].drained, e->off ? NODE_EVACUATED : NODE_NOT_DRAINED);
    thaw(s);
}

static void give_up(struct supervisor *s, const char *fmt, ...)
{
    struct evacuate *e = &s->evacuate;
    va_list ap;

    /* COMMITTED is set by `commit` alone. */
    if (!is_under_way(e))
        return;
    upgrade_page_decide(e->page, UPGRADE_ABANDONED);
    va_start(ap, fmt);
    vsnprintf(e->why, sizeof e->why, fmt, ap);
    va_end(ap);
    LOG(LOG_ERROR, "evacuate_given_up", "shard=%u state=%s why=\"%s\" note=\"all is as before\"", e->shard,
        states[e->state].name, e->why);
    if (e->changed)
        s->node.shared->home = e->before;
    thaw(s);
}

static void go_on(struct supervisor *s)
{
    const struct evacuate *e = &s->evacuate;

    if (e->waits != 0)
        return;
    if (e->state == EVACUATE_HOLDS)
        stop_shards(s);
    else if (e->state == EVACUATE_STOPS && !e->quiet)
        resume(s);
    else if (e->state == EVACUATE_STOPS)
        change_homes(s);
    else if (e->state == EVACUATE_LINKS && e->imports == 0)
        export_phase(s, 2);
    else if (e->state == EVACUATE_CLIENTS && e->imports == 0)
        commit(s);
}

/* ---- what the shards say */

static void hear_exported(struct evacuate *e, unsigned shard, const struct upgrade_message *m)
{
    e->waits &= ~(UINT64_C(1) << shard);
    e->clients += m->clients;
    e->links += m->links;
}

/* What it has so far. */
static void hear_imported(struct evacuate *e, unsigned shard, const struct upgrade_message *m)
{
    e->imports &= ~(UINT64_C(1) << shard);
    if (e->state == EVACUATE_LINKS)
        e->links_taken += m->links;
    else
        e->clients_taken += m->clients;
}

static void hear_shard(struct supervisor *s, unsigned shard, const struct upgrade_message *m)
{
    struct evacuate *e = &s->evacuate;
    uint64_t bit = UINT64_C(1) << shard;
    unsigned phase = e->state == EVACUATE_LINKS ? 1 : e->state == EVACUATE_CLIENTS ? 2 : 0;

    if (m->op == UPGRADE_FAILED) {
        give_up(s, "%s", m->text);
        return;
    }
    if (m->op == UPGRADE_STOPPED && e->state == EVACUATE_STOPS && m->n == 0) {
        e->quiet = false;
        snprintf(e->loud, sizeof e->loud, "%s", m->text[0] != '\0' ? m->text : "?");
    }
    if ((m->op == UPGRADE_QUIET && e->state == EVACUATE_HOLDS) ||
        (m->op == UPGRADE_STOPPED && e->state == EVACUATE_STOPS) ||
        (m->op == UPGRADE_THAWED && e->state == EVACUATE_THAWS))
        e->waits &= ~bit;
    else if (m->op == UPGRADE_EXPORTED && phase != 0 && m->phase == phase && (e->waits & bit) != 0)
        hear_exported(e, shard, m);
    else if (m->op == UPGRADE_IMPORTED && phase != 0 && m->phase == phase && (e->imports & bit) != 0)
        hear_imported(e, shard, m);
    else
        return;
    go_on(s);
}

void evacuate_shard_ended(struct supervisor *s, unsigned shard)
{
    s->evacuate.waits &= ~(UINT64_C(1) << shard);
    give_up(s, "shard %u died", shard);
}

bool evacuate_stops(struct supervisor *s, int sig)
{
    give_up(s, "the gateway was told to end");
    if (s->evacuate.state == EVACUATE_IDLE)
        return false;
    s->evacuate.stop_signal = sig;
    return true;
}

/* ---- its end */

static void answer(struct supervisor *s)
{
    const struct evacuate *e = &s->evacuate;
    struct bytes out = {0};
    struct json_writer w = {.out = &out};

    if (e->why[0] != '\0') {
        supervisor__refuse(s, e->id, -ECANCELED, "%s; all is as before", e->why);
        return;
    }
    LOG(LOG_NOTICE, e->off ? "shard_evacuated" : "shard_is_back",
        "shard=%u clients=%" PRIu64 " links=%" PRIu64 " paused_ms=%" PRIu64, e->shard, e->clients, e->links,
        e->decided_ms - e->held_ms);
    json_begin(&w, '{');
    json_member_uint(&w, "shard", e->shard);
    json_member_uint(&w, "clients", e->clients);
    json_member_uint(&w, "links", e->links);
    json_member_uint(&w, "pause_ms", e->decided_ms - e->held_ms);
    json_end(&w, '}');
    supervisor__answer(s, e->id, 0, &out);
    bytes_fini(&out);
}

static void back_to_idle(struct supervisor *s)
{
    struct evacuate *e = &s->evacuate;
    int sig = e->stop_signal;

    if (e->waits != 0)
        LOG(LOG_ERROR, "evacuate_not_thawed", "shards=0x%" PRIx64 " note=\"the watchdog looks after them\"",
            e->waits);
    answer(s);
    evacuate_close(s);
    evacuate_init(e);
    upgrade_socket_set_busy(&s->upgrade_socket, false);
    if (sig != 0)
        supervisor__stop(s, sig);
}

void evacuate_turn(struct supervisor *s, uint64_t now_ms)
{
    struct evacuate *e = &s->evacuate;
    struct upgrade_message m;
    unsigned shard;

    for (unsigned n = 0; n < UPGRADE_SHARDS_HEAR_MAX && e->state != EVACUATE_IDLE; n++) {
        if (!upgrade_shards_hear(s, &shard, &m))
            break;
        hear_shard(s, shard, &m);
    }
    if (is_under_way(e) && now_ms >= e->deadline_ms)
        give_up(s, "the pause took longer than upgrade_pause_max (%" PRIu64 " ms), in state %s%s%s",
                s->cfg->gateway.upgrade_pause_max, states[e->state].name, e->loud[0] != '\0' ? ": " : "",
                e->loud);
    if (e->state == EVACUATE_THAWS && (e->waits == 0 || now_ms >= e->deadline_ms))
        back_to_idle(s);
}

uint64_t evacuate_due_ms(const struct supervisor *s)
{
    return s->evacuate.state != EVACUATE_IDLE ? s->evacuate.deadline_ms : CHILD_NEVER;
}

const char *evacuate_busy(const struct supervisor *s)
{
    return s->evacuate.state != EVACUATE_IDLE ? "connections are being moved between shards" : NULL;
}
