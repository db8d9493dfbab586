// SPDX-License-Identifier: MIT
#include "admin/shards.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"

#define RETRY_MS 5   /* a socket that was full is tried again */
#define LOOK_MS  100 /* who waits is looked at: is the shard still there? */

#define MESSAGES_MAX 64 /* of one peer before others get their turn */

struct shards {
    struct shards_options opt;
    struct list asks;
    unsigned n_asks; /* that count */
    uint32_t next_id;
    int32_t greeted[NODE_SHARDS_MAX]; /* pid that had its hello */
    uint64_t looked_ms;
    bool full; /* a socket was, the last time */
    struct shards_stats stats;
    uint8_t buf[CONTROL_MESSAGE_MAX];
};

struct shards *shards_new(const struct shards_options *opt)
{
    ASSERT(opt->n >= 1 && opt->n <= NODE_SHARDS_MAX);
    struct shards *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->opt = *opt;
    s->next_id = opt->id_first;
    list_init(&s->asks);
    return s;
}

void shards_free(struct shards *s)
{
    if (s == NULL)
        return;
    while (!list_is_empty(&s->asks))
        shards_cancel(s, CONTAINER_OF(s->asks.next, struct ask, link));
    free(s);
}

struct shards_stats shards_stats(const struct shards *s)
{
    return s->stats;
}

/* ---- states */

static bool is_open(uint8_t state)
{
    return state == ASK_TO_SEND || state == ASK_WAITS;
}

static void set_state(struct ask *a, unsigned peer, enum ask_state state)
{
    a->left -= is_open(a->state[peer]);
    a->state[peer] = (uint8_t)state;
    a->left += is_open(a->state[peer]);
}

static int32_t pid_of(const struct shards *s, unsigned peer)
{
    return peer == PEER_SUPERVISOR ? 1 : s->opt.pid(s->opt.ctx, peer);
}

bool shards_is_asked(const struct ask *a)
{
    return list_is_linked(&a->link);
}

void shards_cancel(struct shards *s, struct ask *a)
{
    if (!shards_is_asked(a))
        return;
    list_remove(&a->link);
    s->n_asks -= a->kind == ASK_ONCE;
}

/* ---- sending */

/* Whoever is new there forgets what its predecessor was asked. */
static int greet(struct shards *s, unsigned peer, int32_t pid)
{
    struct control_request hello = {.head = {.id = s->next_id, .op = CONTROL_HELLO}};
    if (peer == PEER_SUPERVISOR || s->greeted[peer] == pid)
        return 0;
    int r = control_send(s->opt.fds[peer], &hello);
    if (r == 0) {
        s->next_id++;
        s->greeted[peer] = pid;
    }
    return r;
}

static int send_to(struct shards *s, struct ask *a, unsigned peer, uint64_t now_ms)
{
    int32_t pid = pid_of(s, peer);
    if (pid == 0 || s->opt.fds[peer] < 0)
        return -ESRCH;
    int r = greet(s, peer, pid);
    if (r != 0)
        return r;
    if (a->kind == ASK_FOLLOW && a->pid[peer] != 0 && a->pid[peer] != pid)
        a->req.head.seconds = (uint32_t)((a->deadline_ms - now_ms) / 1000 + 1);
    r = control_send(s->opt.fds[peer], &a->req);
    if (r == 0)
        a->pid[peer] = pid;
    return r;
}

static void try_to_send(struct shards *s, struct ask *a, unsigned peer, uint64_t now_ms)
{
    int r = send_to(s, a, peer, now_ms);
    if (r == -EAGAIN) {
        s->full = true;
        return;
    }
    set_state(a, peer, r == 0 ? ASK_WAITS : ASK_MISSING);
}

/* ---- asking */

static int begin(struct shards *s, struct ask *a, uint64_t now_ms, uint64_t timeout_ms)
{
    ASSERT(!shards_is_asked(a));
    if (a->kind == ASK_ONCE && s->n_asks >= ASKS_MAX)
        return -EBUSY;
    s->n_asks += a->kind == ASK_ONCE;
    a->req.head.id = s->next_id++;
    a->deadline_ms = now_ms + timeout_ms;
    a->left = 0;
    memset(a->state, 0, sizeof a->state);
    memset(a->pid, 0, sizeof a->pid);
    list_append(&s->asks, &a->link);
    return 0;
}

int shards_ask(struct shards *s, struct ask *a, uint64_t mask, uint64_t now_ms, uint64_t timeout_ms)
{
    ASSERT(mask != 0 && (s->opt.n == 64 || mask >> s->opt.n == 0));
    int r = begin(s, a, now_ms, timeout_ms);
    for (unsigned i = 0; r == 0 && i < s->opt.n; i++) {
        if ((mask >> i & 1) == 0)
            continue;
        set_state(a, i, ASK_TO_SEND);
        try_to_send(s, a, i, now_ms);
    }
    return r;
}

int shards_ask_supervisor(struct shards *s, struct ask *a, uint64_t now_ms, uint64_t timeout_ms)
{
    int r = begin(s, a, now_ms, timeout_ms);
    if (r == 0) {
        set_state(a, PEER_SUPERVISOR, ASK_TO_SEND);
        try_to_send(s, a, PEER_SUPERVISOR, now_ms);
    }
    return r;
}

/* ---- answers */

static struct ask *find(struct shards *s, uint32_t id, unsigned peer)
{
    for (struct list *l = s->asks.next; l != &s->asks; l = l->next) {
        struct ask *a = CONTAINER_OF(l, struct ask, link);
        if (a->req.head.id == id && a->state[peer] == ASK_WAITS)
            return a;
    }
    return NULL;
}

static void take_reply(struct shards *s, unsigned peer, const struct control_reply *reply, struct slice json)
{
    struct ask *a = find(s, reply->id, peer);
    if (a == NULL) {
        s->stats.unknown++;
        return;
    }
    if ((reply->flags & CONTROL_MORE) == 0)
        set_state(a, peer, ASK_DONE);
    if (a->reply != NULL)
        a->reply(a, peer, reply, json);
}

bool shards_readable(struct shards *s, unsigned peer)
{
    struct control_reply reply;
    struct slice json;
    for (unsigned i = 0; i < MESSAGES_MAX; i++) {
        int r = control_receive_reply(s->opt.fds[peer], s->buf, &reply, &json);
        if (r == -EAGAIN)
            break;
        if (r == 0) {
            take_reply(s, peer, &reply, json);
        } else if (r == -EBADMSG || r == -EINTR) {
            s->stats.garbage += r == -EBADMSG;
        } else {
            LOG(LOG_ERROR, "control_lost", "peer=%u error=\"%s\"", peer, strerror(-r));
            return false;
        }
    }
    return true;
}

/* ---- the time */

static bool may_be_followed(const struct ask *a, uint64_t now_ms)
{
    return a->kind == ASK_FOLLOW && now_ms < a->deadline_ms;
}

/* A shard that was asked and is not there any more, or is there again. */
static void look_at_peer(struct shards *s, struct ask *a, unsigned peer, uint64_t now_ms)
{
    if (peer == PEER_SUPERVISOR)
        return;
    int32_t pid = pid_of(s, peer);
    if (a->state[peer] == ASK_WAITS && pid != a->pid[peer])
        set_state(a, peer, may_be_followed(a, now_ms) && pid != 0 ? ASK_TO_SEND : ASK_MISSING);
    else if (a->state[peer] == ASK_MISSING && pid != 0 && may_be_followed(a, now_ms))
        set_state(a, peer, ASK_TO_SEND);
}

static void work_on(struct shards *s, struct ask *a, bool look, uint64_t now_ms)
{
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        if (a->state[i] == ASK_NONE || a->state[i] == ASK_DONE)
            continue;
        if (look)
            look_at_peer(s, a, i, now_ms);
        if (a->state[i] == ASK_TO_SEND)
            try_to_send(s, a, i, now_ms);
        if (is_open(a->state[i]) && now_ms >= a->deadline_ms)
            set_state(a, i, ASK_MISSING);
    }
}

/* One that is followed also waits for shards that are not there. */
static bool is_over(const struct ask *a, uint64_t now_ms)
{
    if (a->left > 0)
        return false;
    for (unsigned i = 0; i < PEERS_MAX && may_be_followed(a, now_ms); i++) {
        if (a->state[i] == ASK_MISSING)
            return false;
    }
    return true;
}

static struct ask *find_over(struct shards *s, uint64_t now_ms)
{
    for (struct list *l = s->asks.next; l != &s->asks; l = l->next) {
        struct ask *a = CONTAINER_OF(l, struct ask, link);
        if (is_over(a, now_ms))
            return a;
    }
    return NULL;
}

static void greet_all(struct shards *s)
{
    for (unsigned i = 0; i < s->opt.n; i++) {
        int32_t pid = pid_of(s, i);
        if (pid != 0 && s->opt.fds[i] >= 0)
            (void)greet(s, i, pid); /* one that has no room for it gets it the next time */
    }
}

void shards_work(struct shards *s, uint64_t now_ms)
{
    struct ask *a;
    bool look = now_ms >= s->looked_ms + LOOK_MS;
    if (look) {
        s->looked_ms = now_ms;
        greet_all(s);
    }
    s->full = false;
    for (struct list *l = s->asks.next; l != &s->asks; l = l->next)
        work_on(s, CONTAINER_OF(l, struct ask, link), look, now_ms);
    /* Anew each time: what is called may cancel others and ask more. */
    while ((a = find_over(s, now_ms)) != NULL) {
        shards_cancel(s, a);
        if (a->done != NULL)
            a->done(a);
    }
}

int shards_timeout_ms(const struct shards *s, uint64_t now_ms)
{
    uint64_t wait = UINT64_MAX;
    for (const struct list *l = s->asks.next; l != &s->asks; l = l->next) {
        const struct ask *a = CONTAINER_OF(l, struct ask, link);
        uint64_t left = a->deadline_ms > now_ms ? a->deadline_ms - now_ms : 0;
        if (is_over(a, now_ms))
            return 0;
        wait = left < wait ? left : wait;
        wait = wait > LOOK_MS ? LOOK_MS : wait;
    }
    if (s->full && wait > RETRY_MS)
        wait = RETRY_MS;
    return wait == UINT64_MAX ? -1 : (int)wait;
}
