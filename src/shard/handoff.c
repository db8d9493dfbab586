// SPDX-License-Identifier: MIT
#include "shard/handoff.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/log.h"
#include "loop/loop.h"
#include "net/net.h"
#include "net/net_epoll.h"

/* Taken over in one turn. */
#define TAKE_MAX 64
/* After so many accepts, or so much time, the figures of the others are read again. */
#define VIEW_ACCEPTS 16
#define VIEW_NS      UINT64_C(1000000)
/* How often it is looked who leads, and how often while a leader waits for shards that start. */
#define LOOK_MS      100
#define LOOK_SOON_MS 16
/* How long a leader accepts nothing because a link shard starts, for the first time or after its death: what
 * comes meanwhile would all go to the others, and stay there. */
#define HOLD_MS 500

/* How many more clients than the emptiest shard are no reason to give any away. In a burst each shard is
 * ahead of the others whenever it is its turn: of 10,000 clients in four bursts over four shards 5,000 were
 * handed over at 1 percent, 2,500 at 3, with all shards within 1 percent of the mean either way (and
 * within 2.5 when shards got several turns in a row). */
#define SLACK_MIN     2
#define SLACK_PERCENT 3

#define INTERNAL NODE_HAND_INTERNAL
#define NONE     UINT64_MAX

enum kind { CLIENT, LINK, N_KINDS };

static inline enum kind kind_of(unsigned listener)
{
    return listener == INTERNAL ? LINK : CLIENT;
}

union control {
    struct cmsghdr head;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
};

/* How full the shards of one role are, as last seen. */
struct view {
    uint64_t keys[NODE_SHARDS_MAX]; /* by member: see key_of; NONE: it takes nothing now */
    unsigned best;                  /* the member with the smallest */
    unsigned accepts;               /* since it was read */
    uint64_t read_ns;
    uint32_t to_me; /* on their way to this shard then */
};

struct handoff {
    struct handoff_options opt;
    struct {
        unsigned n;
        uint8_t shards[NODE_SHARDS_MAX];
    } members[N_KINDS];
    struct view views[N_KINDS];
    struct net_watch watch;
    struct timer timer;
    bool leads;
    uint32_t deaths; /* as last seen */
    uint64_t hold_until_ms;
    struct mmsghdr msgs[TAKE_MAX];
    struct iovec iovs[TAKE_MAX];
    struct node_hand received[TAKE_MAX];
    union control controls[TAKE_MAX];
};

/* ---- how full a shard is */

static struct node_shard *shard_at(const struct handoff *h, unsigned i)
{
    return &h->opt.node->shared->shards[i];
}

static bool is_leaving(const struct handoff *h)
{
    return NODE_LOAD(shard_at(h, h->opt.me)->phase) >= NODE_LEAVES;
}

/* It has been told to take no more of them. Clients that nobody else takes it refuses itself, in words; links
 * it takes then. */
static bool is_drained(const struct handoff *h, enum kind kind, unsigned i)
{
    uint32_t drained = NODE_LOAD(shard_at(h, i)->drained);
    return kind == CLIENT ? drained != NODE_NOT_DRAINED : drained == NODE_EVACUATED;
}

static struct node_handed *numbers_of(struct node_shard *s, enum kind kind)
{
    return kind == CLIENT ? &s->client_handoff : &s->link_handoff;
}

/* On their way from one shard to another. Acquire: what `to` took before is among its connections (partner:
 * take). A giver that died between sending and counting is one behind what was taken: that is none. */
static uint32_t on_way(const struct handoff *h, enum kind kind, unsigned from, unsigned to)
{
    uint32_t taken = __atomic_load_n(&numbers_of(shard_at(h, to), kind)->taken[from], __ATOMIC_ACQUIRE);
    uint32_t handed = NODE_LOAD(numbers_of(shard_at(h, from), kind)->handed[to]);
    return (int32_t)(handed - taken) > 0 ? handed - taken : 0;
}

static uint32_t on_way_from_all(const struct handoff *h, enum kind kind, unsigned to)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < h->members[kind].n; i++)
        n += on_way(h, kind, h->members[kind].shards[i], to);
    return n;
}

/* By which shards are compared. A connection counts twice for a moment while it is taken over (accepted() has
 * counted it, taken not yet): so of two links shards that look even, the one with some on their way may have
 * one less in truth, and never has one more. It comes first, and links differ by one at most. */
static uint64_t key_of(const struct handoff *h, enum kind kind, unsigned i, uint32_t coming)
{
    const struct node_shard *s = shard_at(h, i);
    uint64_t here = kind == CLIENT ? NODE_LOAD(s->clients) : NODE_LOAD(s->links);
    return (here + coming) * 2 + (coming == 0);
}

static void view_choose(struct handoff *h, enum kind kind)
{
    struct view *v = &h->views[kind];
    v->best = 0;
    for (unsigned i = 1; i < h->members[kind].n; i++)
        if (v->keys[i] < v->keys[v->best])
            v->best = i;
}

/* Only what this shard itself has sent is looked for on the way: the sum over all shards, n reads for each,
 * is made for one that is about to get a connection (view_correct). */
static void view_read(struct handoff *h, enum kind kind)
{
    struct view *v = &h->views[kind];
    for (unsigned i = 0; i < h->members[kind].n; i++) {
        unsigned shard = h->members[kind].shards[i];
        bool takes = shard != h->opt.me && NODE_LOAD(shard_at(h, shard)->phase) == NODE_UP &&
                     !is_drained(h, kind, shard);
        v->keys[i] = takes ? key_of(h, kind, shard, on_way(h, kind, h->opt.me, shard)) : NONE;
    }
    view_choose(h, kind);
    v->to_me = on_way_from_all(h, kind, h->opt.me);
    v->accepts = 0;
    v->read_ns = loop_now_ns(h->opt.loop);
}

/* False: the best one is fuller than it looked. */
static bool view_correct(struct handoff *h, enum kind kind)
{
    struct view *v = &h->views[kind];
    unsigned shard = h->members[kind].shards[v->best];
    uint64_t key = key_of(h, kind, shard, on_way_from_all(h, kind, shard));
    bool right = key <= v->keys[v->best];
    v->keys[v->best] = key;
    view_choose(h, kind);
    return right;
}

/* A key that is below this one is worth a hand-over. */
static uint64_t my_key(const struct handoff *h, enum kind kind)
{
    uint64_t key = key_of(h, kind, h->opt.me, h->views[kind].to_me);
    if (kind == LINK)
        return key | 1; /* even with another: stay */
    uint64_t mine = key / 2, slack = SLACK_MIN + mine * SLACK_PERCENT / 100;
    return mine > slack ? (mine - slack) * 2 : 0;
}

/* ---- giving */

static bool give(struct handoff *h, unsigned listener, unsigned to, int fd)
{
    uint32_t *handed = &numbers_of(shard_at(h, h->opt.me), kind_of(listener))->handed[to];
    struct node_hand m = {.listener = (uint8_t)listener,
                          .from = (uint8_t)h->opt.me,
                          .made = listener != INTERNAL ? h->opt.clients[listener].made : 0,
                          .number = *handed + 1};
    if (node_hand_give(h->opt.node->hand_fds[to][1], &m, fd) < 0) {
        counter_add(h->opt.counters, COUNTER_hand_over_failed, 1);
        return false;
    }
    NODE_STORE(*handed, m.number);
    counter_add(h->opt.counters, COUNTER_handed_over, 1);
    return true;
}

static bool knows(const struct handoff *h, unsigned shard, unsigned listener)
{
    return listener == INTERNAL ||
           node_shard_has_settings(shard_at(h, shard), h->opt.clients[listener].since);
}

enum placed { PLACED_HERE, PLACED_THERE, PLACED_NOWHERE };

/* The emptiest shard that takes it, if it is worth it. */
static enum placed place(struct handoff *h, unsigned listener, int fd)
{
    enum kind kind = kind_of(listener);
    struct view *v = &h->views[kind];
    bool leaving = is_leaving(h);
    if (kind == LINK || ++v->accepts >= VIEW_ACCEPTS || loop_now_ns(h->opt.loop) - v->read_ns >= VIEW_NS)
        view_read(h, kind);
    uint64_t mine = leaving || is_drained(h, kind, h->opt.me) ? NONE : my_key(h, kind);
    /* Each step gives it away, or learns that a shard has more than was thought, or takes none. */
    for (unsigned tries = 0; tries < 2 * NODE_SHARDS_MAX && v->keys[v->best] < mine; tries++) {
        unsigned best = v->best;
        if (!view_correct(h, kind))
            continue;
        unsigned to = h->members[kind].shards[best];
        if (knows(h, to, listener) && give(h, listener, to, fd)) {
            v->keys[best] += 2;
            view_choose(h, kind);
            return PLACED_THERE;
        }
        v->keys[best] = NONE;
        view_choose(h, kind);
    }
    return leaving ? PLACED_NOWHERE : PLACED_HERE;
}

/* Whoever closes the last descriptor of it resets it. */
static void make_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* True: it is for this shard. Else the caller closes its copy. */
static bool keep(struct handoff *h, unsigned listener, int fd)
{
    enum placed placed = place(h, listener, fd);
    if (placed == PLACED_NOWHERE)
        make_reset(fd);
    return placed == PLACED_HERE;
}

static bool on_accept(void *ctx, struct net_listener *l, int fd)
{
    struct handoff *h = ctx;
    if (l == h->opt.internal)
        return keep(h, INTERNAL, fd);
    for (unsigned i = 0; h->opt.clients != NULL && i < CONFIG_LISTEN_MAX; i++)
        if (l == h->opt.clients[i].listener)
            return keep(h, i, fd);
    return true;
}

/* ---- taking */

static int descriptor_of(struct msghdr *msg)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    int fd = -1;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

/* NULL: we have none, or another one in its place. */
static struct net_listener *listener_at(const struct handoff *h, const struct node_hand *m)
{
    if (m->listener == INTERNAL)
        return h->opt.internal;
    if (h->opt.clients == NULL || m->listener >= CONFIG_LISTEN_MAX)
        return NULL;
    const struct handoff_listener *l = &h->opt.clients[m->listener];
    return l->made == m->made ? l->listener : NULL;
}

static void take_descriptor(struct handoff *h, const struct node_hand *m, int fd)
{
    struct net_listener *l = listener_at(h, m);
    bool goes_on = is_leaving(h) || is_drained(h, kind_of(m->listener), h->opt.me);
    if (l != NULL && goes_on && !keep(h, m->listener, fd)) {
        close(fd);
    } else if (l == NULL) {
        make_reset(fd);
        close(fd);
    } else {
        counter_add(h->opt.counters, COUNTER_taken_over, 1);
        net_epoll_adopt(h->opt.net, l, fd);
    }
}

static void take(struct handoff *h, struct msghdr *msg, size_t len, const struct node_hand *m)
{
    int fd = descriptor_of(msg);
    bool valid = len == sizeof *m && m->from < h->opt.node->n_shards;
    if (fd >= 0 && valid) {
        take_descriptor(h, m, fd);
    } else {
        /* No room for another descriptor: the kernel has closed it. */
        counter_add(h->opt.counters, COUNTER_hand_over_failed, 1);
        LOG(LOG_ERROR, "hand_over_lost", "from=%u hint=\"see the file limit (ulimit -n)\"",
            valid ? (unsigned)m->from : 0);
        if (fd >= 0)
            close(fd);
    }
    /* Not counted up but set: right again by itself after the death of either side. Release: behind what
     * accepted() has counted (partner: on_way). */
    if (valid)
        __atomic_store_n(&numbers_of(shard_at(h, h->opt.me), kind_of(m->listener))->taken[m->from], m->number,
                         __ATOMIC_RELEASE);
}

static int take_some(struct handoff *h)
{
    for (unsigned i = 0; i < TAKE_MAX; i++) {
        h->iovs[i] = (struct iovec){&h->received[i], sizeof h->received[i]};
        h->msgs[i].msg_hdr = (struct msghdr){.msg_iov = &h->iovs[i],
                                             .msg_iovlen = 1,
                                             .msg_control = h->controls[i].bytes,
                                             .msg_controllen = sizeof h->controls[i].bytes};
    }
    int n = recvmmsg(h->opt.node->hand_fds[h->opt.me][0], h->msgs, TAKE_MAX, MSG_DONTWAIT | MSG_CMSG_CLOEXEC,
                     NULL);
    for (int i = 0; i < n; i++)
        take(h, &h->msgs[i].msg_hdr, h->msgs[i].msg_len, &h->received[i]);
    return n;
}

static void on_given(struct net_watch *w)
{
    take_some(CONTAINER_OF(w, struct handoff, watch));
}

bool handoff_is_quiet(const struct handoff *h)
{
    return on_way_from_all(h, CLIENT, h->opt.me) + on_way_from_all(h, LINK, h->opt.me) == 0;
}

void handoff_take(struct handoff *h)
{
    while (take_some(h) == TAKE_MAX)
        ;
}

/* ---- who leads */

static void set_leads(struct handoff *h, bool leads)
{
    if (h->leads == leads)
        return;
    h->leads = leads;
    LOG(LOG_INFO, leads ? "handoff_leads" : "handoff_follows", "shard=%u", h->opt.me);
    if (leads)
        net_listener_resume(h->opt.net, h->opt.internal);
    else
        net_listener_pause(h->opt.net, h->opt.internal);
}

static void on_timer(struct timer *t)
{
    handoff_look(CONTAINER_OF(t, struct handoff, timer));
}

void handoff_look(struct handoff *h)
{
    if (h->opt.internal == NULL || h->opt.internal->handle == 0)
        return;
    uint64_t now_ms = loop_now_ms(h->opt.loop);
    /* Acquire: the phase of whoever died (partner: node_shared_bury). */
    uint32_t deaths = __atomic_load_n(&h->opt.node->shared->deaths, __ATOMIC_ACQUIRE);
    if (deaths != h->deaths)
        h->hold_until_ms = now_ms + HOLD_MS;
    h->deaths = deaths;

    unsigned leader = NODE_SHARDS_MAX, last_choice = NODE_SHARDS_MAX;
    bool hold = false;
    for (unsigned i = h->members[LINK].n; i-- > 0;) {
        unsigned shard = h->members[LINK].shards[i];
        uint32_t phase = NODE_LOAD(shard_at(h, shard)->phase);
        if (phase == NODE_UP)
            *(is_drained(h, LINK, shard) ? &last_choice : &leader) = shard;
        hold |= phase == NODE_DOWN && now_ms < h->hold_until_ms;
    }
    if (leader == NODE_SHARDS_MAX)
        leader = last_choice;
    set_leads(h, leader == h->opt.me && !hold);
    timer_set(h->opt.loop, &h->timer, hold ? LOOK_SOON_MS : LOOK_MS, on_timer);
}

/* ---- beginning and end */

static void find_members(struct handoff *h, enum kind kind, uint64_t mask)
{
    for (unsigned i = 0; i < h->opt.node->n_shards; i++)
        if ((mask >> i & 1) != 0)
            h->members[kind].shards[h->members[kind].n++] = (uint8_t)i;
}

struct handoff *handoff_new(const struct handoff_options *opt, int *ret_err)
{
    ASSERT(opt->node->n_shards >= 1 && opt->node->n_shards <= NODE_SHARDS_MAX);
    ASSERT(opt->me < opt->node->n_shards);
    ASSERT(opt->clients == NULL || (opt->edges >> opt->me & 1) != 0);
    ASSERT(opt->internal == NULL || (opt->links >> opt->me & 1) != 0);
    struct handoff *h = calloc(1, sizeof *h);
    if (h == NULL) {
        *ret_err = -ENOMEM;
        return NULL;
    }
    h->opt = *opt;
    find_members(h, CLIENT, opt->edges);
    find_members(h, LINK, opt->links);
    view_read(h, CLIENT);
    h->watch.readable = on_given;
    int err = net_epoll_watch_add(opt->net, &h->watch, opt->node->hand_fds[opt->me][0]);
    if (err != 0) {
        free(h);
        *ret_err = err;
        return NULL;
    }
    net_epoll_set_keeper(opt->net, on_accept, h);
    h->deaths = __atomic_load_n(&opt->node->shared->deaths, __ATOMIC_ACQUIRE);
    h->hold_until_ms = loop_now_ms(opt->loop) + HOLD_MS;
    if (opt->internal != NULL)
        net_listener_pause(opt->net, opt->internal);
    handoff_look(h);
    return h;
}

void handoff_free(struct handoff *h)
{
    if (h == NULL)
        return;
    net_epoll_set_keeper(h->opt.net, NULL, NULL);
    net_epoll_watch_remove(h->opt.net, &h->watch);
    timer_cancel(h->opt.loop, &h->timer);
    free(h);
}
