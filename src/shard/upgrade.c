// SPDX-License-Identifier: MIT
#include "shard/upgrade.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "common/fault.h"
#include "common/upgrade.h"
#include "loop/loop.h"
#include "net/net_epoll.h"
#include "shard/handoff.h"
#include "shard/transfer.h"

enum state {
    SERVES,
    HANDSHAKES, /* they are waited for */
    HELD,
    QUIET,  /* held, and it has been told */
    STOPS,  /* at the end of this turn */
    TAKES,  /* takes over */
    FAILED, /* could not: waits for its end */
};

struct shard_upgrade {
    struct shard_upgrade_options opt;
    enum state state;
    int fd;
    struct net_watch watch;
    struct timer timer;
    uint64_t handshakes_until_ms, alone_at_ms, deadline_ns;
    struct upgrade_page *page; /* NULL: not known yet */
    bool gives, gets;          /* within the node */
    struct transfer_sender *sender;
    int receivers[NODE_SHARDS_MAX]; /* descriptors of the sender */
    unsigned n_receivers;
    /* Takes over. */
    struct net_watch import_watch;
    struct transfer_receiver *receiver;
    unsigned n_givers;
    unsigned told; /* the phase that is complete, and was told */
    uint64_t clients, links, records;
    struct upgrade_message message;
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static unsigned number(const struct shard_upgrade *u)
{
    return u->opt.start->shard;
}

/* ---- what is said */

static void say(struct shard_upgrade *u, struct upgrade_message m)
{
    int r = upgrade_send(u->fd, &m);
    if (r < 0) /* the supervisor is gone, which is found out where it is waited for */
        LOG(LOG_WARN, "upgrade_not_told", "what=%s error=\"%s\"", upgrade_op_name(m.op), strerror(-r));
}

static void say_failed(struct shard_upgrade *u, const char *what, const char *why)
{
    struct upgrade_message m = {.op = UPGRADE_FAILED};
    snprintf(m.text, sizeof m.text, "shard %u: %s: %s", number(u), what, why);
    LOG(LOG_ERROR, "upgrade_failed", "step=\"%s\" why=\"%s\"", what, why);
    say(u, m);
}

/* ---- the outcome */

static void forget_plan(struct shard_upgrade *u)
{
    transfer_sender_free(u->sender);
    u->sender = NULL;
    while (u->n_receivers > 0)
        close(u->receivers[--u->n_receivers]);
    upgrade_page_close(u->page);
    u->page = NULL;
}

/* Links of the shards before this one: so all of them together are spread evenly. */
static unsigned links_before(const struct shard_upgrade *u)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < number(u); i++)
        n += NODE_LOAD(u->opt.start->node->shared->shards[i].links);
    return n;
}

static struct transfer_plan plan_of(const struct shard_upgrade *u)
{
    return (struct transfer_plan){
        .n_shards = u->page->n_shards,
        .edges = u->page->edges,
        .links = u->page->links,
        .home = u->page->home.shard,
        .me = number(u),
        .first_link = links_before(u),
        .takers = u->page->within ? u->page->takers : 0,
        .same = u->page->same != 0,
    };
}

/* Its connections live on in another process: nothing is closed in order, since that would be seen by peers.
 */
static _Noreturn void leave(int status, const char *event)
{
    LOG(LOG_NOTICE, event, "status=%d", status);
    log_flush();
    _exit(status);
}

/* Within a node: what was given is gone, what was taken stays; or the other way round. */
static void settle_within(struct shard_upgrade *u)
{
    bool done = upgrade_page_decide(u->page, UPGRADE_ABANDONED) == UPGRADE_COMMITTED;
    struct transfer_plan plan = plan_of(u);
    if (u->gives || u->gets)
        fault_at(u->gives ? "old_shard.evacuate_settle" : "new_shard.evacuate_settle");
    if (done) /* by each of them, the same */
        u->opt.start->node->shared->home = u->page->home;
    if (done &&
        ((u->gives && u->page->within == 1) || (u->gets && u->page->within == 2))) /* that it is about */
        shard_set_drained(u->opt.shard, u->gives ? NODE_EVACUATED : NODE_NOT_DRAINED);
    if (u->gives && done)
        shard_forget_given(u->opt.shard, &plan);
    if (u->gets && done)
        shard_import_done(u->opt.shard);
    else if (u->gets)
        shard_forget_taken(u->opt.shard);
    transfer_receiver_free(u->receiver);
    u->receiver = NULL;
    u->gives = u->gets = false;
    u->told = 0;
    u->clients = u->links = u->records = 0;
}

static void thaw(struct shard_upgrade *u)
{
    if (u->page != NULL && u->page->within)
        settle_within(u);
    forget_plan(u);
    timer_cancel(u->opt.loop, &u->timer);
    if (u->state > HANDSHAKES)
        shard_hold(u->opt.shard, false);
    if (u->state != SERVES) {
        shard_pause_accept(u->opt.shard, false);
        LOG(LOG_NOTICE, "shard_thawed", "clients=%u", shard_connections(u->opt.shard));
    }
    u->state = SERVES;
}

/* Nobody tells it any more. */
static void decide_alone(struct shard_upgrade *u)
{
    bool within = u->page != NULL && u->page->within;
    if (u->page != NULL && !within && upgrade_page_decide(u->page, UPGRADE_ABANDONED) == UPGRADE_COMMITTED)
        leave(0, "shard_handed_over");
    thaw(u);
}

/* ---- handing over: until it stops */

static const char *unrest(const struct shard_upgrade *u)
{
    const char *why = shard_unrest(u->opt.shard);
    if (why == NULL && u->opt.handoff != NULL && !handoff_is_quiet(u->opt.handoff))
        why = "connections are on their way to this shard";
    return why;
}

/* The supervisor hangs: clients are not to wait for it. */
static void on_alone(struct timer *t)
{
    struct shard_upgrade *u = CONTAINER_OF(t, struct shard_upgrade, timer);
    LOG(LOG_WARN, "upgrade_alone", "error=\"nobody has said stop\"");
    decide_alone(u);
}

static void hold(struct shard_upgrade *u)
{
    uint64_t now_ms = loop_now_ms(u->opt.loop);
    timer_cancel(u->opt.loop, &u->timer);
    shard_hold(u->opt.shard, true);
    u->state = HELD;
    if (u->alone_at_ms != 0)
        timer_set(u->opt.loop, &u->timer, u->alone_at_ms > now_ms ? u->alone_at_ms - now_ms : 0, on_alone);
}

static void on_timer(struct timer *t);

static void look_at_handshakes(struct shard_upgrade *u)
{
    if (shard_handshakes(u->opt.shard) == 0 || loop_now_ms(u->opt.loop) >= u->handshakes_until_ms)
        hold(u);
    else
        timer_set(u->opt.loop, &u->timer, LOOP_TICK_MS, on_timer);
}

static void on_timer(struct timer *t)
{
    look_at_handshakes(CONTAINER_OF(t, struct shard_upgrade, timer));
}

static void begin_to_hold(struct shard_upgrade *u, uint64_t wait_ms, uint64_t alone_ms)
{
    if (u->state != SERVES)
        return;
    if (fault_at("old_shard.hold") < 0) {
        say_failed(u, "hold", "a fault on purpose");
        return;
    }
    shard_pause_accept(u->opt.shard, true);
    u->state = HANDSHAKES;
    u->handshakes_until_ms = loop_now_ms(u->opt.loop) + wait_ms;
    u->alone_at_ms = alone_ms > 0 ? loop_now_ms(u->opt.loop) + alone_ms : 0;
    look_at_handshakes(u);
}

/* ---- handing over: while it is stopped */

static void take_plan(struct shard_upgrade *u, struct upgrade_message *m)
{
    forget_plan(u);
    int r = m->n_fds > 0 ? upgrade_page_open(m->fds[0], &u->page) : -EBADMSG;
    if (r == 0 && u->page->n_shards != m->n_fds - 1)
        r = -EBADMSG;
    if (r == 0) {
        u->n_receivers = u->page->n_shards;
        memcpy(u->receivers, m->fds + 1, u->n_receivers * sizeof(int));
        m->n_fds = 1;
        u->sender = transfer_sender_new(number(u), u->receivers, u->n_receivers, u->deadline_ns);
        r = u->sender == NULL ? -ENOMEM : fault_at("old_shard.plan");
    }
    if (r < 0)
        say_failed(u, "plan", strerror(-r));
}

static void export_phase(struct shard_upgrade *u, unsigned phase)
{
    struct shard_exported done;
    u->gives = true;
    if (u->sender == NULL || phase < 1 || phase > 2) {
        say_failed(u, "export", "there is no plan");
        return;
    }
    struct transfer_plan plan = plan_of(u);
    int r = fault_at(phase == 1 ? "old_shard.export_links" : "old_shard.export_clients");
    if (r == 0)
        r = shard_export(u->opt.shard, phase, &plan, transfer_sender_sink(u->sender), &done);
    if (r == 0)
        r = transfer_sender_flush(u->sender);
    if (r < 0) {
        say_failed(u, phase == 1 ? "hand over links" : "hand over clients",
                   r == -EOPNOTSUPP
                       ? "there are TLS clients with a cipher that cannot be handed over (docs/UPGRADE.md)"
                       : strerror(-r));
        return;
    }
    say(u, (struct upgrade_message){.op = UPGRADE_EXPORTED,
                                    .phase = phase,
                                    .n = done.records,
                                    .clients = done.clients,
                                    .links = done.links});
}

/* ---- taking over */

static void fail(struct shard_upgrade *u, const char *what, const char *why)
{
    say_failed(u, what, why);
    if (u->state != TAKES) /* within the node: THAW follows */
        return;
    u->state = FAILED;
    net_epoll_watch_remove(u->opt.net, &u->import_watch);
}

/* Connections that it has taken are still another process's: nothing of them may be closed in order. */
static void go(struct shard_upgrade *u)
{
    if (u->state != TAKES)
        return;
    fault_at("new_shard.go");
    u->state = SERVES;
    net_epoll_watch_remove(u->opt.net, &u->import_watch);
    transfer_receiver_free(u->receiver);
    u->receiver = NULL;
    timer_cancel(u->opt.loop, &u->timer);
    forget_plan(u);
    shard_import_done(u->opt.shard);
    shard_hold(u->opt.shard, false);
    LOG(LOG_NOTICE, "shard_took_over", "clients=%" PRIu64 " links=%" PRIu64, u->clients, u->links);
    u->told = 0; /* connections may come again, within the node */
    u->clients = u->links = u->records = 0;
    u->opt.serves(u->opt.ctx);
}

static void go_or_end(struct shard_upgrade *u)
{
    if (u->page != NULL && u->state == TAKES &&
        upgrade_page_decide(u->page, UPGRADE_ABANDONED) == UPGRADE_COMMITTED)
        go(u);
    else
        leave(1, "shard_did_not_take_over");
}

static void on_take_deadline(struct timer *t)
{
    go_or_end(CONTAINER_OF(t, struct shard_upgrade, timer));
}

static void take_page(struct shard_upgrade *u, const struct upgrade_message *m)
{
    uint64_t now = now_ns();
    int r = m->n_fds == 1 && u->page == NULL ? upgrade_page_open(m->fds[0], &u->page) : -EBADMSG;
    if (r < 0)
        fail(u, "take over", strerror(-r));
    else
        timer_set(u->opt.loop, &u->timer, m->n > now ? (m->n - now) / 1000000 + 1 : 0, on_take_deadline);
}

static void count(struct shard_upgrade *u, const struct transfer_record *r)
{
    u->records++;
    u->clients += r->type == TRANSFER_TYPE_client;
    u->links += r->type == TRANSFER_TYPE_link;
}

static void look_at_phase(struct shard_upgrade *u)
{
    unsigned phase = u->told + 1;
    if (phase > 2 || !shard_has_imported(u->opt.shard, phase, u->n_givers))
        return;
    if (fault_at(phase == 1 ? "new_shard.imported_links" : "new_shard.imported_clients") < 0) {
        fail(u, "take over", "a fault on purpose");
        return;
    }
    u->told = phase;
    say(u, (struct upgrade_message){.op = UPGRADE_IMPORTED,
                                    .phase = phase,
                                    .n = u->records,
                                    .clients = u->clients,
                                    .links = u->links});
}

/* All that has come by now: nobody else is served meanwhile, and what a message had more than was taken would
 * not make its descriptor readable again. False: it failed. */
static bool take_records(struct shard_upgrade *u)
{
    struct transfer_record record;
    const char *why = NULL;
    unsigned from;
    int r;
    while (why == NULL && (r = transfer_receiver_next(u->receiver, &from, &record)) != 0) {
        if (r < 0)
            why = r == -EBADMSG ? "records that make no sense came" : strerror(-r);
        else if (shard_import(u->opt.shard, from, &record, &why) == 0)
            count(u, &record);
    }
    if (why != NULL)
        fail(u, "take over", why);
    return why == NULL;
}

static void on_records(struct net_watch *w)
{
    take_records(CONTAINER_OF(w, struct shard_upgrade, import_watch));
}

/* ---- while it is stopped */

static void take_within(struct shard_upgrade *u, const struct upgrade_message *m)
{
    int r = m->n_fds == 1 && u->page == NULL ? upgrade_page_open(m->fds[0], &u->page) : -EBADMSG;
    if (r == 0)
        r = u->page->within ? shard_import_begin(u->opt.shard) : -EBADMSG;
    if (r == 0) {
        u->gets = true;
        u->n_givers = m->phase;
        u->receiver = transfer_receiver_new(u->opt.start->import_fd);
        r = u->receiver == NULL ? -ENOMEM : 0;
    }
    if (r < 0)
        say_failed(u, "take over", strerror(-r));
}

/* False: the loop turns again. */
static bool obey_stopped(struct shard_upgrade *u, struct upgrade_message *m)
{
    switch (m->op) {
    case UPGRADE_PLAN: take_plan(u, m); break;
    case UPGRADE_EXPORT: export_phase(u, m->phase); break;
    case UPGRADE_TAKE: take_within(u, m); break;
    case UPGRADE_RESUME: u->state = HELD; return false;
    case UPGRADE_LEAVE: leave(fault_at("old_shard.leave") < 0 ? 1 : 0, "shard_handed_over");
    case UPGRADE_THAW:
        thaw(u);
        say(u, (struct upgrade_message){.op = UPGRADE_THAWED});
        return false;
    default: break;
    }
    return true;
}

static void close_rest(struct upgrade_message *m)
{
    for (unsigned i = 0; i < m->n_fds; i++)
        close(m->fds[i]);
}

static void take_in_stop(struct shard_upgrade *u)
{
    if (take_records(u)) {
        look_at_phase(u);
        return;
    }
    transfer_receiver_free(u->receiver);
    u->receiver = NULL;
}

/* The next message, waited for until the deadline; meanwhile, what others of the node give is taken. 0 or
 * -errno. */
static int await_message(struct shard_upgrade *u)
{
    for (;;) {
        int r = upgrade_receive(u->fd, &u->message);
        if (r != -EAGAIN)
            return r;
        uint64_t now = now_ns();
        if (now >= u->deadline_ns)
            return -ETIMEDOUT;
        struct pollfd fds[] = {{.fd = u->fd, .events = POLLIN},
                               {.fd = u->receiver != NULL ? u->opt.start->import_fd : -1, .events = POLLIN}};
        poll(fds, 2, (int)((u->deadline_ns - now) / 1000000 + 1));
        if ((fds[1].revents & POLLIN) != 0)
            take_in_stop(u);
    }
}

/* The end of a turn that is the last one, maybe. */
static void stop(struct shard_upgrade *u)
{
    const char *why = unrest(u);
    struct upgrade_message m = {.op = UPGRADE_STOPPED, .n = why == NULL};
    if (why != NULL)
        snprintf(m.text, sizeof m.text, "shard %u: %s", number(u), why);
    if (fault_at("old_shard.stop") < 0)
        say_failed(u, "stop", "a fault on purpose");
    log_flush();
    say(u, m);
    for (bool go_on = true; go_on;) {
        int r = await_message(u);
        if (r < 0) {
            LOG(LOG_WARN, "upgrade_alone", "error=\"%s\"", strerror(-r));
            decide_alone(u);
            return;
        }
        go_on = obey_stopped(u, &u->message);
        close_rest(&u->message);
    }
}

/* ---- both */

static void obey(struct shard_upgrade *u, const struct upgrade_message *m)
{
    switch (m->op) {
    case UPGRADE_HOLD: begin_to_hold(u, m->n, m->phase); break;
    case UPGRADE_STOP:
        u->deadline_ns = m->n;
        if (u->state == HELD || u->state == QUIET)
            u->state = STOPS;
        break;
    case UPGRADE_THAW:
        thaw(u);
        say(u, (struct upgrade_message){.op = UPGRADE_THAWED});
        break;
    case UPGRADE_TAKE: take_page(u, m); break;
    case UPGRADE_GO: go(u); break;
    default: break;
    }
}

static void on_message(struct net_watch *w)
{
    struct shard_upgrade *u = CONTAINER_OF(w, struct shard_upgrade, watch);
    int r = -EAGAIN;
    while (u->state != STOPS && (r = upgrade_receive(u->fd, &u->message)) == 0) {
        obey(u, &u->message);
        close_rest(&u->message);
    }
    if (r == -EAGAIN)
        return;
    if (r < 0) { /* the supervisor is gone */
        net_epoll_watch_remove(u->opt.net, w);
        shard_upgrade_settle(u);
    }
}

void shard_upgrade_settle(struct shard_upgrade *u)
{
    if (u->state == TAKES || u->state == FAILED)
        go_or_end(u);
    else if (u->state != SERVES)
        decide_alone(u);
}

void shard_upgrade_turn(struct shard_upgrade *u)
{
    if (__builtin_expect(u->state == SERVES, 1))
        return;
    if (u->state == STOPS)
        stop(u);
    if (u->state == TAKES)
        look_at_phase(u);
    if (u->state == HELD && unrest(u) == NULL) {
        u->state = QUIET;
        if (fault_at("old_shard.quiet") < 0)
            say_failed(u, "come to rest", "a fault on purpose");
        else
            say(u, (struct upgrade_message){.op = UPGRADE_QUIET});
    }
}

static int begin_to_take(struct shard_upgrade *u)
{
    u->state = TAKES;
    u->n_givers = u->opt.start->n_predecessors;
    u->receiver = transfer_receiver_new(u->opt.start->import_fd);
    if (u->receiver == NULL)
        return -ENOMEM;
    u->import_watch.readable = on_records;
    int r = net_epoll_watch_add(u->opt.net, &u->import_watch, u->opt.start->import_fd);
    if (r == 0 && (r = fault_at("new_shard.start")) == 0)
        say(u, (struct upgrade_message){.op = UPGRADE_READY});
    return r;
}

struct shard_upgrade *shard_upgrade_new(const struct shard_upgrade_options *opt, int *ret_err)
{
    struct shard_upgrade *u = calloc(1, sizeof *u);
    *ret_err = -ENOMEM;
    if (u == NULL)
        return NULL;
    u->opt = *opt;
    u->fd = opt->start->upgrade_fd;
    u->watch.readable = on_message;
    *ret_err = net_epoll_watch_add(opt->net, &u->watch, u->fd);
    if (*ret_err == 0 && opt->start->n_predecessors > 0)
        *ret_err = begin_to_take(u);
    if (*ret_err == 0)
        return u;
    shard_upgrade_free(u);
    return NULL;
}

void shard_upgrade_free(struct shard_upgrade *u)
{
    if (u == NULL)
        return;
    timer_cancel(u->opt.loop, &u->timer);
    net_epoll_watch_remove(u->opt.net, &u->watch);
    net_epoll_watch_remove(u->opt.net, &u->import_watch);
    transfer_receiver_free(u->receiver);
    forget_plan(u);
    free(u);
}
