// SPDX-License-Identifier: MIT
#include "supervisor/upgrade_new.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "common/fault.h"
#include "supervisor/supervisor_priv.h"
#include "supervisor/upgrade_offer.h"
#include "supervisor/upgrade_shards.h"
#include "supervisor/upgrade_spares.h"
#include "supervisor/upgrade_wire.h"

#define SETTLE_MS 5000 /* what registers get to know us before the old one leaves them anyway */
#define LOOK_MS   10
#define SPARES_MS 2000 /* a handshake that has begun is over by then, or begins anew at another socket */

static const struct {
    const char *name, *place;
} states[UPGRADE_NEW_STATE_N] = {
    [UPGRADE_NEW_NONE] = {"none", "new_supervisor.none"},
    [UPGRADE_NEW_SETS_UP] = {"sets_up", "new_supervisor.sets_up"},
    [UPGRADE_NEW_STARTS] = {"starts", "new_supervisor.starts"},
    [UPGRADE_NEW_WAITS] = {"waits", "new_supervisor.waits"},
    [UPGRADE_NEW_TAKES] = {"takes", "new_supervisor.takes"},
    [UPGRADE_NEW_LINKS] = {"links", "new_supervisor.links"},
    [UPGRADE_NEW_SETTLES] = {"settles", "new_supervisor.settles"},
    [UPGRADE_NEW_ENDS] = {"ends", "new_supervisor.ends"},
};

static void abandon(struct supervisor *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool is_under_way(const struct upgrade_new *u)
{
    return u->state >= UPGRADE_NEW_SETS_UP && u->state <= UPGRADE_NEW_LINKS;
}

/* False: it has been given up. */
static bool enter(struct supervisor *s, enum upgrade_new_state state)
{
    struct upgrade_new *u = &s->upgrade_new;

    u->state = state;
    LOG(LOG_NOTICE, "upgrade", "side=new state=%s since_begin_ms=%" PRIu64, states[state].name,
        child_now_ms() - u->begun_ms);
    if (fault_at(states[state].place) < 0)
        abandon(s, "a fault on purpose at %s", states[state].place);
    return u->state == state;
}

static void say(struct supervisor *s, enum upgrade_step what, const struct transfer_course *more,
                const char *text)
{
    struct upgrade_new *u = &s->upgrade_new;
    int r = u->fd >= 0 ? upgrade_wire_step(u->fd, what, more, text, NULL, 0) : 0;
    if (r < 0)
        abandon(s, "the old supervisor does not listen: %s", strerror(-r));
}

/* ---- beginning and end */

void upgrade_new_init(struct upgrade_new *u, int fd)
{
    *u = (struct upgrade_new){.fd = fd, .page_fd = -1};
    if (fd >= 0)
        u->state = UPGRADE_NEW_SETS_UP;
    u->begun_ms = child_now_ms();
    u->spares_until_ms = CHILD_NEVER;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void upgrade_new_close(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;

    close_fd(&u->fd);
    close_fd(&u->page_fd);
    upgrade_page_close(u->page);
    u->page = NULL;
    if (u->offer != NULL)
        upgrade_offer_close(u->offer);
    free(u->offer);
    u->offer = NULL;
}

void upgrade_new_fini(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;
    while (u->n_registers > 0)
        free(u->registers[--u->n_registers]);
    if (u->state == UPGRADE_NEW_SETS_UP || u->state == UPGRADE_NEW_ENDS)
        node_shm_remove_next(s->cfg->gateway.runtime_dir);
    upgrade_new_close(s);
}

/* All of it in one line. */
void upgrade_new_refuse(int fd, const struct config_error *err)
{
    struct bytes text = {0};
    char line[1024];

    for (unsigned i = 0; i < err->n; i++) {
        if (i > 0)
            bytes_append_str(&text, "; ");
        bytes_append_str(&text, config_problem_format(err, i, line, sizeof line));
    }
    bytes_append_byte(&text, '\0');
    upgrade_wire_step(fd, UPGRADE_STEP_FAILED, NULL, text.failed ? "no memory" : (const char *)text.data,
                      NULL, 0);
    bytes_fini(&text);
}

/* ---- set up */

bool upgrade_new_takes_over(const struct supervisor *s)
{
    return s->upgrade_new.state == UPGRADE_NEW_SETS_UP;
}

static int fault(const char *place, struct config_error *err)
{
    int r = fault_at(place);
    if (r < 0)
        config_error_add(err, 0, "", "", "a fault on purpose at %s", place);
    return r;
}

int upgrade_new_receive(struct supervisor *s, struct config_error *err)
{
    struct upgrade_new *u = &s->upgrade_new;
    const char *why = "no memory";

    if (!upgrade_new_takes_over(s))
        return 0;
    int r = fault("new_supervisor.offer", err);
    if (r < 0)
        return r;
    u->offer = malloc(sizeof *u->offer);
    r = u->offer != NULL ? upgrade_offer_receive(u->fd, u->offer, &why) : -ENOMEM;
    if (r < 0) {
        config_error_add(err, 0, "", "", "%s", why);
        free(u->offer);
        u->offer = NULL;
        return r;
    }
    u->n_predecessors = u->offer->n_shards;
    u->deadline_ms = u->offer->deadline_ns / 1000000;
    return 0;
}

int upgrade_new_check(struct supervisor *s, struct config_error *err)
{
    if (!upgrade_new_takes_over(s))
        return 0;
    int r = fault("new_supervisor.check", err);
    return r < 0 ? r : upgrade_offer_check(s->upgrade_new.offer, s->cfg, err);
}

static void count_roles(const struct supervisor *s, struct upgrade_page *page)
{
    page->n_shards = s->plan.n;
    for (unsigned i = 0; i < s->plan.n; i++) {
        page->edges |= (uint64_t)s->plan.shards[i].edge << i;
        page->links |= (uint64_t)s->plan.shards[i].link << i;
    }
}

/* Shards that have ids to give. */
static uint64_t with_ids(const struct node_home *h)
{
    uint64_t shards = 0;
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        if (memchr(h->shard + i * NODE_HOME_PARTS, (int)i, NODE_HOME_PARTS) != NULL)
            shards |= UINT64_C(1) << i;
    }
    return shards;
}

static int make_page(struct supervisor *s, struct config_error *err)
{
    struct upgrade_new *u = &s->upgrade_new;
    const struct upgrade_offer *o = u->offer;

    u->page_fd = upgrade_page_make(&u->page);
    if (u->page_fd < 0) {
        config_error_add(err, 0, "", "", "no memory for the upgrade: %s", strerror(-u->page_fd));
        return u->page_fd;
    }
    count_roles(s, u->page);
    u->page->same = o->n_shards == s->plan.n && o->edges == u->page->edges && o->links == u->page->links;
    if (u->page->same) { /* who was evacuated stays so */
        u->page->home = o->home;
        u->page->edges &= with_ids(&o->home);
    } else {
        node_home_plan(&o->home, o->edges, u->page->edges, &u->page->home);
    }
    s->node.shared->home = u->page->home;
    return 0;
}

/* From this shard number on: also those that there are not in this node, which a later one may have. */
static void take_ids(struct supervisor *s, unsigned first)
{
    const struct upgrade_offer *o = s->upgrade_new.offer;
    for (unsigned i = first; i < NODE_SHARDS_MAX; i++) {
        int r = o->ids[i].known ? node_shm_set_ids(&s->shm, i, &o->ids[i].ids) : 0;
        if (r < 0)
            LOG(LOG_WARN, "ids_not_taken", "shard=%u error=\"%s\"", i, strerror(-r));
    }
}

int upgrade_new_prepare(struct supervisor *s, struct config_error *err)
{
    if (!upgrade_new_takes_over(s))
        return 0;
    int r = fault("new_supervisor.prepare", err);
    if (r == 0)
        r = make_page(s, err);
    if (r == 0)
        take_ids(s, 0);
    return r;
}

/* ---- given up */

/* Its shards are not asked: what they have is another process's. */
static void abandon(struct supervisor *s, const char *fmt, ...)
{
    struct upgrade_new *u = &s->upgrade_new;
    char why[1024];
    va_list ap;

    if (!is_under_way(u))
        return;
    if (u->page != NULL)
        upgrade_page_decide(u->page, UPGRADE_ABANDONED); /* COMMITTED is ours alone to set */
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    LOG(LOG_ERROR, "upgrade_given_up", "side=new state=%s why=\"%s\"", states[u->state].name, why);
    u->state = UPGRADE_NEW_ENDS;
    if (u->fd >= 0)
        upgrade_wire_step(u->fd, UPGRADE_STEP_FAILED, NULL, why, NULL, 0);
    s->status = 1;
    s->stopping = STOPPING_AT_ONCE;
    for (unsigned i = 0; i < s->plan.n; i++)
        child_kill(&s->shards[i], SIGKILL);
}

void upgrade_new_shard_ended(struct supervisor *s, unsigned shard)
{
    abandon(s, "shard %u of the new ones died", shard);
}

bool upgrade_new_stops(struct supervisor *s)
{
    bool was = is_under_way(&s->upgrade_new);
    abandon(s, "the new supervisor was told to end");
    return was;
}

/* ---- its shards are there */

void upgrade_new_begin(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;
    char text[128];

    if (!upgrade_new_takes_over(s))
        return;
    snprintf(text, sizeof text, "version %s: the configuration is good, %u shard%s", TGG_VERSION, s->plan.n,
             s->plan.n == 1 ? " starts" : "s start");
    if (!enter(s, UPGRADE_NEW_STARTS))
        return;
    u->waits = upgrade_shards_all(s);
    say(s, UPGRADE_STEP_PROGRESS, NULL, text);
}

static void say_ready(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;
    int fds[UPGRADE_FDS_MAX];

    if (!enter(s, UPGRADE_NEW_WAITS))
        return;
    u->waits = upgrade_shards_all(s); /* for the links: a shard may have them before we hear that they come */
    fds[0] = u->page_fd;
    for (unsigned i = 0; i < s->plan.n; i++)
        fds[1 + i] = s->node.import_fds[i][1];
    int r = upgrade_wire_step(u->fd, UPGRADE_STEP_READY, NULL, NULL, fds, 1 + s->plan.n);
    if (r < 0)
        abandon(s, "the old supervisor cannot be told that this one is ready: %s", strerror(-r));
}

/* ---- connections come */

static void take_links(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;
    struct transfer_course more = {.phase = 1, .links = u->links};

    if (!enter(s, UPGRADE_NEW_LINKS))
        return;
    u->waits = upgrade_shards_all(s);
    say(s, UPGRADE_STEP_IMPORTED, &more, NULL);
}

static void take(struct supervisor *s, uint64_t pause_deadline_ns)
{
    struct upgrade_new *u = &s->upgrade_new;
    struct upgrade_message m = {.op = UPGRADE_TAKE, .n = pause_deadline_ns, .n_fds = 1, .fds = {u->page_fd}};
    unsigned shard = 0;

    if (!enter(s, UPGRADE_NEW_TAKES))
        return;
    int r = upgrade_shards_tell(s, upgrade_shards_all(s), &m, &shard);
    if (r < 0)
        abandon(s, "shard %u of the new ones does not listen: %s", shard, strerror(-r));
    else if (pause_deadline_ns / 1000000 < u->deadline_ms)
        u->deadline_ms = pause_deadline_ns / 1000000;
    if (r == 0 && u->waits == 0)
        take_links(s);
}

/* ---- it is sure */

static void widen(struct supervisor *s)
{
    if (!listeners_widen(&s->listeners, s->cfg))
        return;
    int fd = files_to_fd(s->files);
    if (fd < 0)
        LOG(LOG_WARN, "listener_not_widened",
            "error=\"%s\" note=\"new shards get their clients from the others\"", strerror(-fd));
    else
        distribution_begin(&s->distribution, &s->node, &s->listeners, fd);
}

/* What the shards do not wait for. */
static void take_the_rest(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;
    gid_t gid = s->privileges.change ? s->privileges.gid : (gid_t)-1;
    int r = s->shm.fd >= 0 ? node_shm_commit_next(s->cfg->gateway.runtime_dir) : 0;

    if (r < 0)
        LOG(LOG_ERROR, "node_shm_not_renamed", "error=\"%s\" note=\"tgg status does not see this gateway\"",
            strerror(-r));
    listeners_settle(&s->listeners);
    admin_ports_settle(s->cfg, gid, &u->offer->admin, &s->admin_ports);
    supervisor__open_upgrade_socket(s, u->offer->upgrade_fd);
    u->offer->upgrade_fd = -1;
    widen(s);
    listeners_spares_rest(&s->listeners);
    u->spares_until_ms = s->listeners.n_spares > 0 ? u->committed_ms + SPARES_MS : CHILD_NEVER;
    if (s->cfg->admin.enabled)
        supervisor__start(s, &s->admin);
}

static void commit(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;

    if (fault_at("new_supervisor.commit") < 0) {
        abandon(s, "a fault on purpose at new_supervisor.commit");
        return;
    }
    if (upgrade_page_decide(u->page, UPGRADE_COMMITTED) != UPGRADE_COMMITTED) {
        abandon(s, "the other side has given it up");
        return;
    }
    u->committed_ms = child_now_ms();
    (void)fault_at("new_supervisor.committed");
    upgrade_shards_tell_all(s, UPGRADE_GO);
    enter(s, UPGRADE_NEW_SETTLES);
    if (u->fd >= 0)
        upgrade_wire_step(u->fd, UPGRADE_STEP_COMMITTED, NULL, NULL, NULL, 0);
    LOG(LOG_NOTICE, "upgrade_committed", "clients=%" PRIu64 " links=%" PRIu64 " took_ms=%" PRIu64, u->clients,
        u->links, u->committed_ms - u->begun_ms);
    /* So does the one before, whom the manager believes in any case; but it may die just now. */
    notify_send(&s->notify, "MAINPID=%d", (int)s->pid);
    take_the_rest(s);
}

static void commit_if_complete(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;

    if (u->state != UPGRADE_NEW_LINKS || u->waits != 0 || !u->exported)
        return;
    if (u->clients != u->clients_exported || u->links != u->links_exported)
        abandon(
            s, "%" PRIu64 " clients and %" PRIu64 " links were handed over, %" PRIu64 " and %" PRIu64 " came",
            u->clients_exported, u->links_exported, u->clients, u->links);
    else
        commit(s);
}

/* ---- what the shards say */

static void hear_imported(struct supervisor *s, unsigned shard, const struct upgrade_message *m)
{
    struct upgrade_new *u = &s->upgrade_new;
    uint64_t bit = UINT64_C(1) << shard;
    bool is_early = u->state == UPGRADE_NEW_WAITS;
    unsigned phase = is_early || u->state == UPGRADE_NEW_TAKES ? 1 : u->state == UPGRADE_NEW_LINKS ? 2 : 0;

    if (phase == 0 || m->phase != phase || (u->waits & bit) == 0)
        return;
    u->waits &= ~bit;
    if (phase == 1)
        u->links += m->links;
    else
        u->clients += m->clients;
    if (u->waits == 0 && phase == 1 && !is_early)
        take_links(s);
}

static void hear_shard(struct supervisor *s, unsigned shard, const struct upgrade_message *m)
{
    struct upgrade_new *u = &s->upgrade_new;

    if (m->op == UPGRADE_FAILED) {
        abandon(s, "new %s", m->text);
    } else if (m->op == UPGRADE_READY && u->state == UPGRADE_NEW_STARTS) {
        u->waits &= ~(UINT64_C(1) << shard);
        if (u->waits == 0)
            say_ready(s);
    } else if (m->op == UPGRADE_IMPORTED) {
        hear_imported(s, shard, m);
    }
}

static void hear_shards(struct supervisor *s)
{
    struct upgrade_message m;
    unsigned shard;
    for (unsigned n = 0; n < UPGRADE_SHARDS_HEAR_MAX && is_under_way(&s->upgrade_new); n++) {
        if (!upgrade_shards_hear(s, &shard, &m))
            return;
        hear_shard(s, shard, &m);
    }
}

/* ---- what the old supervisor says */

static void take_registers(struct upgrade_new *u, struct slice list)
{
    struct slice address;
    while (u->n_registers < NODE_REGISTERS_MAX && transfer_list_next(&list, &address) == 1) {
        char *copy = strndup((const char *)address.data, address.len);
        if (copy != NULL)
            u->registers[u->n_registers++] = copy;
    }
    u->left = true;
}

static void hear_step(struct supervisor *s, const struct transfer_course *c)
{
    struct upgrade_new *u = &s->upgrade_new;

    if (c->step == UPGRADE_STEP_HOLD && u->state == UPGRADE_NEW_WAITS) {
        take(s, c->n);
    } else if (c->step == UPGRADE_STEP_EXPORTED && u->state == UPGRADE_NEW_LINKS) {
        u->exported = true;
        u->clients_exported = c->clients;
        u->links_exported = c->links;
    } else if (c->step == UPGRADE_STEP_LEAVING && u->state == UPGRADE_NEW_SETTLES) {
        take_registers(u, c->registers);
    } else {
        abandon(s, "the old supervisor says %s while this one %s", upgrade_step_name(c->step),
                states[u->state].name);
    }
}

static int hear_record(struct supervisor *s, const struct upgrade_wire *w)
{
    struct transfer_course c;

    if (w->type == TRANSFER_TYPE_offer_ids) {
        int r = upgrade_offer_take_ids(s->upgrade_new.offer, w->fields);
        if (r == 0 && is_under_way(&s->upgrade_new))
            take_ids(s, s->plan.n); /* the others come with the shards' records */
        return r;
    }
    if (w->type != TRANSFER_TYPE_course || transfer_get_course(w->fields, &c) < 0)
        return -EBADMSG;
    hear_step(s, &c);
    return 0;
}

static void hear_old(struct supervisor *s)
{
    struct upgrade_new *u = &s->upgrade_new;
    static struct upgrade_wire w;

    while (u->fd >= 0 && u->state != UPGRADE_NEW_ENDS) {
        int r = upgrade_wire_receive(u->fd, &w);
        if (r == -EAGAIN)
            return;
        if (r == -EPIPE) {
            close_fd(&u->fd);
            u->left = true;
            abandon(s, "the old supervisor is gone");
            return;
        }
        if (r == 0)
            r = hear_record(s, &w);
        upgrade_wire_close(&w);
        if (r < 0)
            abandon(s, "made by another version: what the old supervisor says is not understood (%s)",
                    strerror(-r));
    }
}

/* ---- until it is over */

static bool knows(const struct node_register *registers, const char *address)
{
    bool has = false;
    for (unsigned i = 0; i < NODE_REGISTERS_MAX; i++) {
        if (strcmp(registers[i].address, address) != 0)
            continue;
        has = true;
        if (NODE_LOAD(registers[i].connected) != 0)
            return true;
    }
    return !has; /* a register of the old configuration */
}

/* Wherever the old one was known, as far as it is to be. */
static bool is_known(const struct supervisor *s)
{
    const struct upgrade_new *u = &s->upgrade_new;
    for (unsigned i = 0; i < u->n_registers; i++) {
        if (!knows(s->shm.shm->announcer.registers, u->registers[i]))
            return false;
    }
    return u->left;
}

static void settle(struct supervisor *s, uint64_t now_ms)
{
    struct upgrade_new *u = &s->upgrade_new;
    bool in_time = now_ms < u->committed_ms + SETTLE_MS;

    upgrade_spares_turn(s);
    if (now_ms >= u->spares_until_ms) {
        listeners_spares_close(&s->listeners);
        u->spares_until_ms = CHILD_NEVER;
    }
    if (u->spares_until_ms != CHILD_NEVER || (in_time && !(s->ready && is_known(s))))
        return;
    if (u->fd >= 0)
        upgrade_wire_step(u->fd, UPGRADE_STEP_SETTLED, NULL, NULL, NULL, 0);
    upgrade_new_fini(s);
    u->state = UPGRADE_NEW_NONE;
    LOG(LOG_NOTICE, "upgrade_over", "side=new settled=%s since_commit_ms=%" PRIu64, in_time ? "yes" : "no",
        now_ms - u->committed_ms);
}

void upgrade_new_turn(struct supervisor *s, uint64_t now_ms)
{
    struct upgrade_new *u = &s->upgrade_new;

    if (u->state == UPGRADE_NEW_NONE || u->state == UPGRADE_NEW_ENDS)
        return;
    hear_old(s);
    hear_shards(s);
    commit_if_complete(s);
    if (is_under_way(u) && now_ms >= u->deadline_ms)
        abandon(s, "it took too long, in state %s", states[u->state].name);
    if (u->state == UPGRADE_NEW_SETTLES)
        settle(s, now_ms);
}

uint64_t upgrade_new_due_ms(const struct supervisor *s, uint64_t now_ms)
{
    const struct upgrade_new *u = &s->upgrade_new;
    return is_under_way(u)                   ? u->deadline_ms
           : u->state == UPGRADE_NEW_SETTLES ? now_ms + LOOK_MS
                                             : CHILD_NEVER;
}

bool upgrade_new_is_sure(const struct supervisor *s)
{
    return s->upgrade_new.state == UPGRADE_NEW_NONE || s->upgrade_new.state == UPGRADE_NEW_SETTLES;
}

bool upgrade_new_may_tell(const struct supervisor *s)
{
    return s->upgrade_new.state == UPGRADE_NEW_NONE ||
           (s->upgrade_new.state == UPGRADE_NEW_SETTLES && s->upgrade_new.left);
}

const char *upgrade_new_busy(const struct supervisor *s)
{
    return s->upgrade_new.state != UPGRADE_NEW_NONE ? "the upgrade that brought this gateway is not over yet"
                                                    : NULL;
}

unsigned upgrade_new_predecessors(const struct supervisor *s)
{
    return is_under_way(&s->upgrade_new) ? s->upgrade_new.n_predecessors : 0;
}
