// SPDX-License-Identifier: MIT
#include "supervisor/upgrade_old.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "common/fault.h"
#include "common/upgrade_exec.h"
#include "supervisor/supervisor_priv.h"
#include "supervisor/upgrade_offer.h"
#include "supervisor/upgrade_shards.h"
#include "supervisor/upgrade_wire.h"

#define KILL_AFTER_MS  2000 /* a new supervisor that has been told to end, shards of ours that were */
#define THAW_MS        5000 /* a shard that does not go on by then is the watchdog's */
#define SETTLE_MS      5000 /* the new one has to be known where we are */
#define OFFER_AGAIN_MS 5
#define GRACE_MS       300

static const struct {
    const char *name, *place, *text;
    bool paused; /* messages do not move */
} states[UPGRADE_OLD_STATE_N] = {
    [UPGRADE_OLD_IDLE] = {"idle", "old_supervisor.idle", "", false},
    [UPGRADE_OLD_OFFERS] = {"offers", "old_supervisor.offers", "the new supervisor has started", false},
    [UPGRADE_OLD_PREPARES] = {"prepares", "old_supervisor.prepares", "it sets up", false},
    [UPGRADE_OLD_HOLDS] = {"holds", "old_supervisor.holds",
                           "it is ready: no new messages, what is under way ends", true},
    [UPGRADE_OLD_STOPS] = {"stops", "old_supervisor.stops", "all shards are quiet: they stop", true},
    [UPGRADE_OLD_LINKS] = {"links", "old_supervisor.links", "workers are handed over", true},
    [UPGRADE_OLD_CLIENTS] = {"clients", "old_supervisor.clients", "clients are handed over", true},
    [UPGRADE_OLD_COMMITS] = {"commits", "old_supervisor.commits", "all is handed over", true},
    [UPGRADE_OLD_GIVES_UP] = {"gives_up", "old_supervisor.gives_up", "it is given up, all goes on as before",
                              false},
    [UPGRADE_OLD_LEAVES] = {"leaves", "old_supervisor.leaves", "the new processes serve; the old ones leave",
                            false},
};

static void give_up(struct supervisor *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void hear_new(struct supervisor *s);
static void leave(struct supervisor *s);

static bool is_under_way(const struct upgrade_old *u)
{
    return u->state >= UPGRADE_OLD_OFFERS && u->state <= UPGRADE_OLD_COMMITS;
}

/* False: it has been given up. */
static bool enter(struct supervisor *s, enum upgrade_old_state state)
{
    struct upgrade_old *u = &s->upgrade_old;

    bool again = u->tries > 0 && (state == UPGRADE_OLD_HOLDS || state == UPGRADE_OLD_STOPS);

    u->state = state;
    LOG(again ? LOG_INFO : LOG_NOTICE, "upgrade", "side=old state=%s since_begin_ms=%" PRIu64,
        states[state].name, child_now_ms() - u->begun_ms);
    if (!again)
        upgrade_socket_progress(&s->upgrade_socket, "%s", states[state].text);
    if (fault_at(states[state].place) == 0)
        return true;
    give_up(s, "a fault on purpose at %s", states[state].place);
    return u->state == state;
}

/* To all shards, and each of them has to answer. */
static bool tell(struct supervisor *s, const struct upgrade_message *m)
{
    unsigned shard = 0;
    s->upgrade_old.waits = upgrade_shards_all(s);
    int r = upgrade_shards_tell(s, s->upgrade_old.waits, m, &shard);
    if (r < 0)
        give_up(s, "shard %u cannot be told to %s: %s", shard, upgrade_op_name(m->op), strerror(-r));
    return r == 0;
}

/* One that has ended may have said why. */
static void not_heard(struct supervisor *s, int err)
{
    if (err == -EPIPE)
        hear_new(s);
    else
        give_up(s, "the new supervisor does not listen: %s", strerror(-err));
}

static bool step(struct supervisor *s, enum upgrade_step what, const struct transfer_course *more)
{
    int r = upgrade_wire_step(s->upgrade_old.fd, what, more, NULL, NULL, 0);
    if (r < 0)
        not_heard(s, r);
    return r == 0;
}

/* ---- beginning and end */

void upgrade_old_init(struct upgrade_old *u)
{
    *u = (struct upgrade_old){.fd = -1, .page_fd = -1};
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_plan(struct upgrade_old *u)
{
    while (u->n_new > 0)
        close_fd(&u->import_fds[--u->n_new]);
    upgrade_page_close(u->page);
    u->page = NULL;
    close_fd(&u->page_fd);
}

void upgrade_old_close(struct supervisor *s)
{
    close_fd(&s->upgrade_old.fd);
    close_plan(&s->upgrade_old);
}

void upgrade_old_fini(struct supervisor *s)
{
    upgrade_old_close(s);
    if (s->upgrade_old.state != UPGRADE_OLD_LEAVES && s->upgrade_old.pid != 0)
        kill(s->upgrade_old.pid, SIGKILL);
}

/* ---- whether it can be */

static const char *wrong_binary(const char *binary, char *buf, size_t cap)
{
    struct stat st;
    const char *path = binary[0] != '\0' ? binary : upgrade_exec_binary();

    if (stat(path, &st) < 0)
        snprintf(buf, cap, "%s: %s; expected a program", path, strerror(errno));
    else if (!S_ISREG(st.st_mode) || access(path, X_OK) < 0)
        snprintf(buf, cap, "%s is no file that can be executed", path);
    else
        return NULL;
    return buf;
}

static const char *why_not(const struct supervisor *s, const char *binary, char *buf, size_t cap)
{
    const char *why = upgrade_exec_why_not();
    if (why == NULL && s->stopping != STOPPING_NO)
        why = "the gateway ends";
    if (why == NULL)
        why = supervisor__busy(s);
    if (why == NULL)
        why = supervisor__not_ready(s, buf, cap);
    if (why == NULL)
        why = wrong_binary(binary, buf, cap);
    return why;
}

/* ---- the new supervisor */

static int start_new(struct supervisor *s, const char *binary)
{
    struct upgrade_old *u = &s->upgrade_old;
    const char *env[NOTIFY_VARIABLES_MAX];
    int fds[2];

    int r = upgrade_wire_open(fds);
    if (r < 0)
        return r;
    notify_environment(&s->notify, env);
    pid_t pid = upgrade_exec(binary, env, fds[1]);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return (int)pid;
    }
    u->fd = fds[0];
    u->pid = pid;
    return 0;
}

static void refuse(struct supervisor *s, const char *why)
{
    LOG(LOG_ERROR, "upgrade_refused", "why=\"%s\"", why);
    upgrade_socket_failed(&s->upgrade_socket, "%s", why);
}

void upgrade_old_request(struct supervisor *s, const char *binary)
{
    struct upgrade_old *u = &s->upgrade_old;
    char buf[512];
    const char *why = why_not(s, binary, buf, sizeof buf);

    if (why != NULL) {
        refuse(s, why);
        return;
    }
    upgrade_old_init(u);
    u->begun_ms = child_now_ms();
    u->deadline_ms = u->begun_ms + s->cfg->gateway.upgrade_timeout * 1000;
    u->kill_at_ms = u->pause_deadline_ms = u->state_deadline_ms = u->lost_at_ms = CHILD_NEVER;
    int r = start_new(s, binary);
    if (r < 0) {
        snprintf(buf, sizeof buf, "%s cannot be started: %s",
                 binary[0] != '\0' ? binary : upgrade_exec_binary(), strerror(-r));
        refuse(s, buf);
        return;
    }
    upgrade_shards_hush(s);
    LOG(LOG_NOTICE, "upgrade_begins", "binary=\"%s\" pid=%d",
        binary[0] != '\0' ? binary : upgrade_exec_binary(), (int)u->pid);
    upgrade_socket_set_busy(&s->upgrade_socket, true);
    notify_reloading(&s->notify);
    enter(s, UPGRADE_OLD_OFFERS);
}

void upgrade_old_listen(struct supervisor *s)
{
    const char *binary;
    if (upgrade_socket_turn(&s->upgrade_socket, &binary) > 0)
        upgrade_old_request(s, binary);
}

static void offer(struct supervisor *s)
{
    struct upgrade_old *u = &s->upgrade_old;
    int r;

    if (u->fd < 0)
        return;
    while ((r = upgrade_offer_send(s, u->fd, u->offered)) == 1)
        u->offered++;
    u->offer_waits = r == -EAGAIN;
    if (r < 0 && r != -EAGAIN)
        not_heard(s, r);
    else if (r == 0)
        enter(s, UPGRADE_OLD_PREPARES);
}

/* ---- the pause */

/* Who is led gives up by itself only when nobody leads. */
static uint64_t deadline_of_others_ns(const struct upgrade_old *u)
{
    return (u->pause_deadline_ms + GRACE_MS) * 1000000;
}

/* Handshakes are waited for while everybody is served: that is no pause yet. */
static void hold(struct supervisor *s)
{
    struct upgrade_old *u = &s->upgrade_old;
    const struct config_gateway *g = &s->cfg->gateway;

    u->held_ms = child_now_ms();
    u->pause_deadline_ms = u->held_ms + g->upgrade_handshake_wait + g->upgrade_pause_max;
    struct transfer_course more = {.n = deadline_of_others_ns(u)};
    struct upgrade_message m = {.op = UPGRADE_HOLD,
                                .n = g->upgrade_handshake_wait,
                                .phase = (uint32_t)(u->pause_deadline_ms - u->held_ms + GRACE_MS)};
    if (enter(s, UPGRADE_OLD_HOLDS) && step(s, UPGRADE_STEP_HOLD, &more))
        tell(s, &m);
}

static void stop_shards(struct supervisor *s)
{
    struct upgrade_old *u = &s->upgrade_old;
    uint64_t latest_ms = child_now_ms() + s->cfg->gateway.upgrade_pause_max;

    if (u->tries == 0 && latest_ms < u->pause_deadline_ms)
        u->pause_deadline_ms = latest_ms;
    u->quiet = true;
    struct upgrade_message m = {.op = UPGRADE_STOP, .n = deadline_of_others_ns(u)};
    if (enter(s, UPGRADE_OLD_STOPS))
        tell(s, &m);
    u->tries++;
}

static void resume(struct supervisor *s)
{
    const struct upgrade_message m = {.op = UPGRADE_RESUME};
    LOG(LOG_NOTICE, "upgrade_not_quiet", "why=\"%s\"", s->upgrade_old.loud);
    if (enter(s, UPGRADE_OLD_HOLDS))
        tell(s, &m);
}

static bool tell_plan(struct supervisor *s)
{
    const struct upgrade_old *u = &s->upgrade_old;
    struct upgrade_message m = {.op = UPGRADE_PLAN, .n_fds = 1 + u->n_new};

    m.fds[0] = u->page_fd;
    memcpy(m.fds + 1, u->import_fds, u->n_new * sizeof(int));
    return tell(s, &m);
}

static void export_links(struct supervisor *s)
{
    const struct upgrade_message m = {.op = UPGRADE_EXPORT, .phase = 1, .n = 1};
    if (!enter(s, UPGRADE_OLD_LINKS))
        return;
    int r = upgrade_offer_send_ids(s, s->upgrade_old.fd);
    if (r < 0)
        not_heard(s, r);
    else if (tell_plan(s))
        tell(s, &m);
}

static void export_clients(struct supervisor *s)
{
    const struct upgrade_message m = {.op = UPGRADE_EXPORT, .phase = 2, .n = 2};
    if (enter(s, UPGRADE_OLD_CLIENTS))
        tell(s, &m);
}

static void await_outcome(struct supervisor *s)
{
    const struct upgrade_old *u = &s->upgrade_old;
    struct transfer_course more = {.clients = u->clients, .links = u->links};
    if (enter(s, UPGRADE_OLD_COMMITS))
        step(s, UPGRADE_STEP_EXPORTED, &more);
}

/* Everybody has answered. */
static void go_on(struct supervisor *s)
{
    struct upgrade_old *u = &s->upgrade_old;

    if (u->waits != 0)
        return;
    if (u->state == UPGRADE_OLD_HOLDS)
        stop_shards(s);
    else if (u->state == UPGRADE_OLD_STOPS && !u->quiet)
        resume(s);
    else if (u->state == UPGRADE_OLD_STOPS)
        export_links(s);
    else if (u->state == UPGRADE_OLD_LINKS && u->imported_links)
        export_clients(s);
    else if (u->state == UPGRADE_OLD_CLIENTS)
        await_outcome(s);
}

/* ---- what the shards say */

static void answered(struct upgrade_old *u, unsigned shard)
{
    u->waits &= ~(UINT64_C(1) << shard);
}

static void on_stopped(struct upgrade_old *u, const struct upgrade_message *m)
{
    if (m->n != 0)
        return;
    u->quiet = false;
    snprintf(u->loud, sizeof u->loud, "%s", m->text[0] != '\0' ? m->text : "?");
}

/* Which word is awaited in which state; what belongs to an earlier one is passed over. */
static bool is_awaited(const struct upgrade_old *u, const struct upgrade_message *m)
{
    switch (m->op) {
    case UPGRADE_QUIET: return u->state == UPGRADE_OLD_HOLDS;
    case UPGRADE_STOPPED: return u->state == UPGRADE_OLD_STOPS;
    case UPGRADE_EXPORTED: return u->state == (m->phase == 1 ? UPGRADE_OLD_LINKS : UPGRADE_OLD_CLIENTS);
    case UPGRADE_THAWED: return u->state == UPGRADE_OLD_GIVES_UP;
    default: return false;
    }
}

static void hear_shard(struct supervisor *s, unsigned shard, const struct upgrade_message *m)
{
    struct upgrade_old *u = &s->upgrade_old;

    if (m->op == UPGRADE_FAILED && is_under_way(u)) {
        give_up(s, "%s", m->text);
        return;
    }
    if (!is_awaited(u, m) || (u->waits >> shard & 1) == 0)
        return;
    if (m->op == UPGRADE_STOPPED)
        on_stopped(u, m);
    if (m->op == UPGRADE_EXPORTED) {
        u->clients += m->clients;
        u->links += m->links;
    }
    answered(u, shard);
    go_on(s);
}

static void hear_shards(struct supervisor *s)
{
    struct upgrade_message m;
    unsigned shard;
    for (unsigned n = 0;
         n < UPGRADE_SHARDS_HEAR_MAX && upgrade_old_busy(s) != NULL && s->stopping == STOPPING_NO; n++) {
        if (!upgrade_shards_hear(s, &shard, &m))
            return;
        hear_shard(s, shard, &m);
    }
}

void upgrade_old_shard_ended(struct supervisor *s, unsigned shard)
{
    answered(&s->upgrade_old, shard);
    if (is_under_way(&s->upgrade_old))
        give_up(s, "shard %u died", shard);
}

/* ---- what the new supervisor says */

/* The page, and behind it the import ends of its shards. */
static void take_plan(struct supervisor *s, struct upgrade_wire *w)
{
    struct upgrade_old *u = &s->upgrade_old;
    int r = w->n_fds >= 2 && u->page == NULL ? upgrade_page_open(w->fds[0], &u->page) : -EBADMSG;

    if (r == 0) {
        u->n_new = w->n_fds - 1;
        u->page_fd = w->fds[0];
        memcpy(u->import_fds, w->fds + 1, u->n_new * sizeof(int));
        w->n_fds = 0;
    }
    if (r == 0 && u->n_new != u->page->n_shards)
        r = -EBADMSG;
    if (r < 0)
        give_up(s, "made by another version: the page of the new supervisor is not understood (%s)",
                strerror(-r));
    else
        hold(s);
}

static void hear_step(struct supervisor *s, struct upgrade_wire *w, const struct transfer_course *c)
{
    struct upgrade_old *u = &s->upgrade_old;
    char text[1024];

    upgrade_wire_text(c->text, text, sizeof text);
    if (c->step == UPGRADE_STEP_PROGRESS) {
        LOG(LOG_NOTICE, "upgrade_progress", "text=\"%s\"", text);
        upgrade_socket_progress(&s->upgrade_socket, "%s", text);
    } else if (c->step == UPGRADE_STEP_FAILED) {
        give_up(s, "%s", text);
    } else if (c->step == UPGRADE_STEP_READY && u->state == UPGRADE_OLD_PREPARES) {
        take_plan(s, w);
    } else if (c->step == UPGRADE_STEP_IMPORTED && u->state == UPGRADE_OLD_LINKS && c->phase == 1) {
        u->imported_links = true;
        go_on(s);
    } else if (c->step == UPGRADE_STEP_COMMITTED && u->state == UPGRADE_OLD_COMMITS) {
        leave(s);
    } else if (c->step == UPGRADE_STEP_SETTLED && u->state == UPGRADE_OLD_LEAVES) {
        u->settled = true;
    } else {
        give_up(s, "the new supervisor says %s while this one %s", upgrade_step_name(c->step),
                states[u->state].name);
    }
}

/* Before the page says that it has taken over, that is the end of it. */
static void lost_new(struct supervisor *s, const char *how)
{
    struct upgrade_old *u = &s->upgrade_old;

    close_fd(&u->fd);
    u->lost_at_ms = CHILD_NEVER;
    give_up(s, "the new supervisor %s", how);
    if (u->state == UPGRADE_OLD_LEAVES && !u->settled) {
        LOG(LOG_ERROR, "upgrade_new_lost", "how=\"%s\" note=\"it had taken over: its shards drain\"", how);
        snprintf(u->why, sizeof u->why, "the new supervisor %s after it had taken over", how);
        u->settled = true;
    }
}

static void hear_new(struct supervisor *s)
{
    struct upgrade_old *u = &s->upgrade_old;
    static struct upgrade_wire w;

    while (u->fd >= 0) {
        struct transfer_course c;
        int r = upgrade_wire_receive(u->fd, &w);
        if (r == -EAGAIN)
            return;
        if (r == -EPIPE) {
            close_fd(&u->fd);
            u->lost_at_ms = child_now_ms() + GRACE_MS; /* in a moment it is known how it ended */
            return;
        }
        if (r == 0 && (w.type != TRANSFER_TYPE_course || transfer_get_course(w.fields, &c) < 0))
            r = -EBADMSG;
        if (r == 0)
            hear_step(s, &w, &c);
        else
            give_up(s, "made by another version: what the new supervisor says is not understood (%s)",
                    strerror(-r));
        upgrade_wire_close(&w);
    }
}

bool upgrade_old_reaped(struct supervisor *s, pid_t pid, int wstatus)
{
    struct upgrade_old *u = &s->upgrade_old;
    char how[64];

    if (pid != u->pid || pid == 0)
        return false;
    hear_new(s); /* what it has said before */
    u->pid = 0;
    if (WIFSIGNALED(wstatus))
        snprintf(how, sizeof how, "died by signal %d", WTERMSIG(wstatus));
    else
        snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(wstatus));
    LOG(LOG_NOTICE, "upgrade_new_ended", "pid=%d how=\"%s\"", (int)pid, how);
    lost_new(s, how);
    if (u->state == UPGRADE_OLD_GIVES_UP || u->state == UPGRADE_OLD_IDLE)
        node_shm_remove_next(s->cfg->gateway.runtime_dir);
    return true;
}

/* ---- given up */

static void thaw(struct supervisor *s, bool held)
{
    struct upgrade_old *u = &s->upgrade_old;

    u->state_deadline_ms = child_now_ms() + THAW_MS;
    u->waits = held ? upgrade_shards_all(s) : 0;
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (s->shards[i].pid == 0)
            answered(u, i);
    }
    if (held)
        upgrade_shards_tell_all(s, UPGRADE_THAW);
    for (unsigned i = 0; i < s->plan.n; i++)
        watchdog_reset(&s->shards[i].watchdog);
}

static void give_up(struct supervisor *s, const char *fmt, ...)
{
    struct upgrade_old *u = &s->upgrade_old;
    bool held = states[u->state].paused;
    va_list ap;

    if (!is_under_way(u))
        return;
    /* Only one of the two words can be set: when it was the other one, this gateway is not ours any more. */
    if (u->page != NULL && upgrade_page_decide(u->page, UPGRADE_ABANDONED) == UPGRADE_COMMITTED) {
        leave(s);
        return;
    }
    va_start(ap, fmt);
    vsnprintf(u->why, sizeof u->why, fmt, ap);
    va_end(ap);
    LOG(LOG_ERROR, "upgrade_given_up", "state=%s why=\"%s\" note=\"everything goes on as before\"",
        states[u->state].name, u->why);
    u->decided_ms = child_now_ms();
    thaw(s, held);
    close_fd(&u->fd); /* the new one ends by that */
    u->kill_at_ms = u->decided_ms + KILL_AFTER_MS;
    enter(s, UPGRADE_OLD_GIVES_UP);
}

static void back_to_idle(struct supervisor *s)
{
    struct upgrade_old *u = &s->upgrade_old;
    int sig = u->stop_signal;

    if (u->waits != 0)
        LOG(LOG_ERROR, "upgrade_not_thawed", "shards=0x%" PRIx64 " note=\"the watchdog looks after them\"",
            u->waits);
    close_plan(u);
    LOG(LOG_NOTICE, "upgrade_over", "done=no paused_ms=%" PRIu64,
        u->held_ms != 0 ? u->decided_ms - u->held_ms : 0);
    upgrade_socket_failed(&s->upgrade_socket, "%s; everything goes on as before", u->why);
    upgrade_socket_set_busy(&s->upgrade_socket, false);
    notify_send(&s->notify, "READY=1");
    upgrade_old_init(u);
    if (sig != 0)
        supervisor__stop(s, sig);
}

static void turn_gives_up(struct supervisor *s, uint64_t now_ms)
{
    struct upgrade_old *u = &s->upgrade_old;
    bool thawed = u->waits == 0 || now_ms >= u->state_deadline_ms;

    if (u->pid != 0 && (now_ms >= u->kill_at_ms || u->stop_signal != 0)) {
        kill(u->pid, SIGKILL);
        u->kill_at_ms = CHILD_NEVER;
    }
    if (thawed && u->pid == 0)
        back_to_idle(s);
}

bool upgrade_old_stops(struct supervisor *s, int sig)
{
    struct upgrade_old *u = &s->upgrade_old;

    if (is_under_way(u))
        give_up(s, "the gateway was told to end");
    if (u->state == UPGRADE_OLD_IDLE)
        return false;
    if (u->state == UPGRADE_OLD_GIVES_UP)
        u->stop_signal = sig;
    else if (u->pid != 0) /* it was meant for the gateway, which is the new one's */
        kill(u->pid, sig);
    return true;
}

/* ---- done */

static void send_leaving(struct supervisor *s)
{
    const struct node_register *registers = s->shm.shm->announcer.registers;
    struct transfer_course more = {.step = 0};
    struct bytes list = {0};

    for (unsigned i = 0; i < NODE_REGISTERS_MAX; i++) {
        if (NODE_LOAD(registers[i].connected) != 0)
            transfer_list_add(&list, registers[i].address, strlen(registers[i].address));
    }
    more.registers = (struct slice){list.data, list.len};
    int r = list.failed ? -ENOMEM
                        : upgrade_wire_step(s->upgrade_old.fd, UPGRADE_STEP_LEAVING, &more, NULL, NULL, 0);
    if (r < 0)
        LOG(LOG_WARN, "upgrade_leaving_not_told", "error=\"%s\"", strerror(-r));
    bytes_fini(&list);
}

/* The page says COMMITTED: nothing here is ours any more but processes that end. */
static void leave(struct supervisor *s)
{
    struct upgrade_old *u = &s->upgrade_old;

    u->decided_ms = child_now_ms();
    upgrade_shards_tell_all(s, UPGRADE_LEAVE);
    s->stopping = STOPPING_LEAVES;
    for (unsigned i = 0; i < s->plan.n; i++) {
        s->shards[i].restart_at_ms = CHILD_NEVER;
        child_plan_kill(&s->shards[i], KILL_AFTER_MS);
    }
    /* The manager believes its main process, which is us until this. */
    notify_send(&s->notify, "MAINPID=%d", (int)u->pid);
    notify_close(&s->notify);
    enter(s, UPGRADE_OLD_LEAVES);
    send_leaving(s);
    upgrade_socket_leave(&s->upgrade_socket);
    listeners_disown(&s->listeners);
    listeners_close(&s->listeners);
    admin_ports_disown(&s->admin_ports);
    u->state_deadline_ms = u->decided_ms + SETTLE_MS;
    child_kill(&s->admin, SIGTERM);
    child_plan_kill(&s->admin, KILL_AFTER_MS);
    s->admin.restart_at_ms = s->announcer.restart_at_ms = CHILD_NEVER;
}

/* The address stays with the registers until they have it from the new one, too. */
static void turn_leaves(struct supervisor *s, uint64_t now_ms)
{
    struct upgrade_old *u = &s->upgrade_old;

    if ((!u->settled && now_ms < u->state_deadline_ms) || s->announcer.pid == 0 ||
        s->announcer.kill_at_ms != CHILD_NEVER)
        return;
    child_kill(&s->announcer, SIGTERM);
    child_plan_kill(&s->announcer, KILL_AFTER_MS);
}

bool upgrade_old_has_left(const struct supervisor *s, uint64_t now_ms)
{
    const struct upgrade_old *u = &s->upgrade_old;
    return u->settled || now_ms >= u->state_deadline_ms;
}

void upgrade_old_farewell(struct supervisor *s)
{
    const struct upgrade_old *u = &s->upgrade_old;

    if (u->why[0] != '\0') {
        upgrade_socket_failed(&s->upgrade_socket, "%s: see its log, and start the gateway again", u->why);
        s->status = 1;
        return;
    }
    LOG(LOG_NOTICE, "upgrade_over",
        "done=yes pid=%d clients=%" PRIu64 " links=%" PRIu64 " paused_ms=%" PRIu64
        " tries=%u took_ms=%" PRIu64,
        (int)u->pid, u->clients, u->links, u->decided_ms - u->held_ms, u->tries,
        child_now_ms() - u->begun_ms);
    upgrade_socket_done(&s->upgrade_socket,
                        "pid=%d clients=%" PRIu64 " links=%" PRIu64 " pause_ms=%" PRIu64 " took_ms=%" PRIu64,
                        (int)u->pid, u->clients, u->links, u->decided_ms - u->held_ms,
                        child_now_ms() - u->begun_ms);
    s->status = 0;
}

/* ---- in the loop */

static void look_at_deadlines(struct supervisor *s, uint64_t now_ms)
{
    const struct upgrade_old *u = &s->upgrade_old;

    if (now_ms >= u->deadline_ms)
        give_up(s, "it took longer than upgrade_timeout (%" PRIu64 " s), in state %s",
                s->cfg->gateway.upgrade_timeout, states[u->state].name);
    else if (now_ms >= u->pause_deadline_ms)
        give_up(s, "the pause took longer than upgrade_pause_max (%" PRIu64 " ms), in state %s%s%s",
                s->cfg->gateway.upgrade_pause_max, states[u->state].name, u->loud[0] != '\0' ? ": " : "",
                u->loud);
}

void upgrade_old_turn(struct supervisor *s, uint64_t now_ms)
{
    struct upgrade_old *u = &s->upgrade_old;

    if (u->state == UPGRADE_OLD_IDLE)
        return;
    hear_new(s);
    hear_shards(s);
    if (now_ms >= u->lost_at_ms)
        lost_new(s, "is gone");
    if (u->state == UPGRADE_OLD_OFFERS)
        offer(s);
    if (is_under_way(u))
        look_at_deadlines(s, now_ms);
    if (u->state == UPGRADE_OLD_GIVES_UP)
        turn_gives_up(s, now_ms);
    else if (u->state == UPGRADE_OLD_LEAVES)
        turn_leaves(s, now_ms);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t upgrade_old_due_ms(const struct supervisor *s)
{
    const struct upgrade_old *u = &s->upgrade_old;

    if (u->state == UPGRADE_OLD_IDLE)
        return CHILD_NEVER;
    if (u->state == UPGRADE_OLD_OFFERS && u->fd >= 0)
        return child_now_ms() + (u->offer_waits ? OFFER_AGAIN_MS : 0);
    if (u->state == UPGRADE_OLD_LEAVES)
        return u->settled ? CHILD_NEVER : earlier(u->state_deadline_ms, u->lost_at_ms);
    if (u->state == UPGRADE_OLD_GIVES_UP)
        return u->waits == 0 && u->pid == 0
                   ? 0
                   : earlier(u->kill_at_ms, u->waits != 0 ? u->state_deadline_ms : CHILD_NEVER);
    return earlier(earlier(u->deadline_ms, u->pause_deadline_ms), u->lost_at_ms);
}

const char *upgrade_old_busy(const struct supervisor *s)
{
    return s->upgrade_old.state != UPGRADE_OLD_IDLE ? "an upgrade is under way" : NULL;
}

bool upgrade_old_holds(const struct supervisor *s)
{
    return states[s->upgrade_old.state].paused || s->upgrade_old.state == UPGRADE_OLD_GIVES_UP;
}
