// SPDX-License-Identifier: MIT
/* A ring to each other shard and one from each, the bell of this one, and what waits.
 *
 *   mesh_send ── backlog empty, ring has room ──> ring: reserved ── mesh_flush ──> visible, bell
 *        └────── else ──> backlog ── told of room: drain ──────────^
 *
 * Bits of `look`: rings that may have something to read (the bell said so, and it was not found empty since).
 * Bits of `serve`: peers of which to see again whether there is room. The bell has one bit for both, as it
 * only costs a look.
 *
 * A sender that waits has asked for room in the ring itself (ring_want_room); the receiver, told so by
 * ring_release, rings the sender's bell. So there is nothing that would have to be polled, in either
 * direction.
 *
 * A message larger than a record (a large one) goes through the ring in fragments, and stays the head of the
 * backlog until the receiver has said that it has taken it whole (ring_message.h):
 *
 *     begun ── room, again and again ──> sent ── all released, taken ──> done: the next one
 *       ^                                 │ all released, not taken
 *       └──────────── again ──────────────┘ (who had its beginning is dead)
 *
 * So nothing is behind it in the ring, and "all released" is "the ring is empty" (ring_want_empty). */
#include "mesh/mesh.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/log.h"
#include "mesh/mesh_priv.h"
#include "ring/ring_message.h"

#define RING_SIZE_LEAST ((size_t)64 * 1024)
#define RING_SIZE_MOST  ((size_t)64 * 1024 * 1024)
/* Messages between two looks at the clock; and at least so many in a turn, if it is over or not: tasks may
 * use up all of every turn. */
#define READ_BATCH 16
#define READ_MIN   64
#define RETRY_MS   20 /* after there was no memory for a message */

struct peer {
    /* out */
    struct ring_writer w;
    struct mesh_backlog backlog;
    struct ring_sending sending; /* the head of the backlog, if it is large and some of it was sent */
    uint32_t try_len;            /* the longest message for which there was no room in mesh_try */
    bool out;                    /* w is attached */
    bool out_broken;
    bool owed; /* ops->room */
    bool draining;
    /* in */
    bool in; /* r is attached */
    bool in_broken;
    bool reattach; /* its other side was mended: see what it looks like now */
    uint64_t lost; /* of rv: counted so far */
    struct ring_reader r;
    struct ring_receiver rv;
};

struct mesh {
    struct mesh_options opt;
    struct mesh_shard_shm *self;
    struct ring_params ring;
    uint32_t record_max;
    uint64_t others; /* a bit for each */
    uint64_t look, serve;
    uint64_t starved; /* look at them again when `retry` fires */
    uint64_t dirty;   /* reserved or shown, and the bell not rung */
    uint64_t breaks;  /* ops->broken is owed */
    uint64_t broken;  /* its turn has come, or will: not again until the peer is replaced */
    unsigned next;    /* whose turn it is to be read */
    bool started, reading, leaving;
    struct mesh_spare spare;
    struct loop_hook read_hook, flush_hook;
    struct loop_sleeper sleeper;
    struct timer retry;
    struct peer peers[];
};

static inline uint64_t bit(unsigned i)
{
    return UINT64_C(1) << i;
}

static inline struct peer *peer_of(struct mesh *m, unsigned i)
{
    ASSERT(i < m->opt.n_shards && i != m->opt.me);
    return &m->peers[i];
}

/* ---- waking */

static void wake(struct mesh *m, unsigned to)
{
    counter_add(m->opt.counters, COUNTER_mesh_wakes, 1);
    m->opt.ops->wake(m->opt.ctx, to);
}

/* All that is reserved is visible from now on, and `to` knows. */
static void publish(struct mesh *m, unsigned to)
{
    struct ring_writer *w = &m->peers[to].w;
    bool something = w->next != w->tail || w->shown;
    m->dirty &= ~bit(to);
    if (ring_publish(w) || (something && m->opt.wake_always))
        wake(m, to);
}

static void tell_of_room(struct mesh *m, unsigned to)
{
    if (bell_ring(&mesh__shard(m->opt.mem, to)->bell, m->opt.me) || m->opt.wake_always)
        wake(m, to);
}

void mesh_flush(struct mesh *m)
{
    while (m->dirty != 0)
        publish(m, (unsigned)__builtin_ctzll(m->dirty));
}

/* ---- damage */

static void owe_broken(struct mesh *m, unsigned peer)
{
    m->breaks |= bit(peer) & ~m->broken;
    m->broken |= bit(peer);
}

static void tell_broken(struct mesh *m)
{
    while (m->breaks != 0) {
        unsigned peer = (unsigned)__builtin_ctzll(m->breaks);
        m->breaks &= ~bit(peer);
        if (m->opt.ops->broken != NULL)
            m->opt.ops->broken(m->opt.ctx, peer);
    }
}

/* ---- sending */

static void out_break(struct mesh *m, unsigned to)
{
    struct peer *p = &m->peers[to];
    uint64_t messages = p->backlog.messages;
    if (!p->out_broken) {
        counter_add(m->opt.counters, COUNTER_mesh_broken, 1);
        LOG(LOG_ERROR, "mesh_broken", "from=%u to=%u side=sender dropped=%" PRIu64, m->opt.me, to, messages);
        owe_broken(m, to);
    }
    p->out_broken = true;
    for (; messages > 0; messages--)
        counter_drop(m->opt.counters, DROP_mesh_broken);
    counter_sub(m->opt.counters, COUNTER_mesh_backlog_bytes, p->backlog.bytes);
    mesh__backlog_clear(&p->backlog, &m->spare);
    p->sending = (struct ring_sending){0};
}

/* 0 or -errno: what is there is no ring of ours. */
static int attach_out(struct mesh *m, unsigned to)
{
    struct peer *p = &m->peers[to];
    void *mem = mesh__ring(m->opt.mem, m->opt.n_shards, m->opt.ring_bytes, m->opt.me, to);
    size_t bytes = ring_bytes(m->opt.ring_bytes);
    bool made = mesh__is_made(m->opt.mem, m->opt.me, to);
    int r = made ? 0 : ring_format(mem, bytes, &m->ring);
    if (r == 0)
        r = ring_writer_attach(&p->w, mem, bytes, &mesh__shard(m->opt.mem, to)->bell, m->opt.me);
    if (r < 0 || p->w.record_max != m->record_max)
        return -EPROTO;
    /* Release: the ring (partner: mesh__is_made). Whoever dies before it leaves a ring that nobody has looked
     * at, and that is made anew. */
    if (!made)
        atomic_fetch_or_explicit(&m->self->made, bit(to), memory_order_release);
    p->out = true;
    return 0;
}

/* Into the ring at once. 0; -EAGAIN: full; -EPROTO: broken. */
static int put(struct mesh *m, unsigned to, enum ring_class class, uint32_t type, const struct slice *parts,
               unsigned n_parts, size_t len)
{
    struct peer *p = &m->peers[to];
    uint8_t *data;
    if (p->out_broken || (!p->out && attach_out(m, to) < 0))
        return -EPROTO;
    int r = ring_reserve(&p->w, class, type, (uint32_t)len, &data);
    ASSERT(r == 0 || r == -EAGAIN || r == -EPROTO);
    if (r == 0)
        mesh__gather(data, parts, n_parts);
    return r;
}

/* A message is in the ring, whole. */
static void sent(struct mesh *m, unsigned to, size_t len, bool show)
{
    struct ring_writer *w = &m->peers[to].w;
    counter_add(m->opt.counters, COUNTER_mesh_messages_out, 1);
    counter_add(m->opt.counters, COUNTER_mesh_bytes_out, len);
    m->dirty |= bit(to);
    if (w->next - w->tail >= w->size / 2)
        publish(m, to);
    else if (show)
        ring_show(w);
}

/* True: there is no room, and we will hear of it. */
static bool wait_for_room(struct mesh *m, unsigned to, enum ring_class class, uint32_t len)
{
    struct peer *p = &m->peers[to];
    publish(m, to);
    if (!ring_want_room(&p->w, class, len))
        return false;
    p->owed = true;
    return true;
}

/* Large ones go as bulk: each would take all of the reserve. */
static enum ring_class class_of(const struct mesh *m, const struct mesh_note *note, size_t len)
{
    return note != NULL && len <= m->record_max ? RING_LIFECYCLE : RING_BULK;
}

/* A large message is in the ring, or has been there, all of it. */
static bool is_sent(const struct ring_sending *s)
{
    return s->sent > 0 && s->sent == s->len;
}

/* What is left of the head of the backlog. 0: it is in the ring; -EAGAIN; -EPROTO. */
static int send_head(struct mesh *m, unsigned to)
{
    struct peer *p = &m->peers[to];
    const struct mesh_queued *q = mesh__backlog_head(&p->backlog);
    if (is_sent(&p->sending))
        return 0;
    if (p->sending.sent == 0)
        p->sending = (struct ring_sending){
            .data = q->data, .len = q->len, .type = q->type, .class = class_of(m, q->note, q->len)};
    int r = ring_send(&p->w, &p->sending);
    if (r == 0)
        sent(m, to, q->len, q->note != NULL);
    return r;
}

/* 0: the head of the backlog is safe, and may be forgotten here; -EAGAIN; -EPROTO. */
static int pass_head(struct mesh *m, unsigned to)
{
    struct peer *p = &m->peers[to];
    for (;;) {
        int r = send_head(m, to);
        if (r < 0 || !ring_send_is_large(&p->w, &p->sending))
            return r;
        r = ring_send_state(&p->w, &p->sending);
        if (r != -ESTALE)
            return r;
        p->sending = (struct ring_sending){0}; /* again */
    }
}

/* As wait_for_room, for the head of the backlog. */
static bool wait_for_head(struct mesh *m, unsigned to)
{
    struct peer *p = &m->peers[to];
    if (!is_sent(&p->sending))
        return wait_for_room(m, to, p->sending.class, ring_send_room(&p->w, &p->sending));
    publish(m, to);
    if (!ring_want_empty(&p->w))
        return false;
    p->owed = true;
    return true;
}

/* The head of the backlog is gone from here. */
static void head_done(struct mesh *m, unsigned to, bool safe)
{
    struct peer *p = &m->peers[to];
    struct mesh_note *note = mesh__backlog_head(&p->backlog)->note;
    size_t bytes = p->backlog.bytes;
    p->sending = (struct ring_sending){0};
    mesh__backlog_pop(&p->backlog, &m->spare);
    counter_sub(m->opt.counters, COUNTER_mesh_backlog_bytes, bytes - p->backlog.bytes);
    if (safe && note != NULL)
        note->done(note); /* may send */
}

/* As much of the backlog as there is room for. */
static void drain(struct mesh *m, unsigned to)
{
    struct peer *p = &m->peers[to];
    if (p->draining || p->out_broken || (p->backlog.messages == 0 && !p->owed))
        return;
    if (!p->out && attach_out(m, to) < 0) {
        out_break(m, to);
        return;
    }
    p->draining = true;
    while (p->backlog.messages > 0) {
        int r = pass_head(m, to);
        if (r == 0)
            head_done(m, to, true);
        else if (r != -EAGAIN)
            out_break(m, to);
        else if (m->leaving && is_sent(&p->sending)) /* nobody is here to wait */
            head_done(m, to, false);
        else if (wait_for_head(m, to))
            break;
    }
    p->draining = false;
    if (p->backlog.messages == 0 && p->owed)
        m->serve |= bit(to);
}

static bool enqueue(struct mesh *m, unsigned to, uint32_t type, const struct slice *parts, unsigned n_parts,
                    size_t len, struct mesh_note *note)
{
    struct peer *p = &m->peers[to];
    size_t before = p->backlog.bytes;
    if (!p->out && attach_out(m, to) < 0)
        out_break(m, to);
    if (p->out_broken) {
        counter_drop(m->opt.counters, DROP_mesh_broken);
        return true;
    }
    if (!mesh__backlog_push(&p->backlog, &m->spare, type, parts, n_parts, len, note))
        return false;
    counter_add(m->opt.counters, COUNTER_mesh_backlog_bytes, p->backlog.bytes - before);
    if (before == 0)
        drain(m, to);
    if (p->backlog.messages > 0) /* it is the last, so it waits if any does */
        counter_add(m->opt.counters, COUNTER_mesh_waited, 1);
    return true;
}

static size_t parts_len(const struct slice *parts, unsigned n_parts)
{
    size_t len = 0;
    for (unsigned i = 0; i < n_parts; i++)
        len += parts[i].len;
    return len;
}

bool mesh_send(struct mesh *m, unsigned to, uint32_t type, const struct slice *parts, unsigned n_parts,
               struct mesh_note *note)
{
    struct peer *p = peer_of(m, to);
    size_t len = parts_len(parts, n_parts);
    ASSERT(len <= m->opt.message_max);
    if (p->backlog.messages > 0 || len > m->record_max)
        return enqueue(m, to, type, parts, n_parts, len, note);
    int r = put(m, to, class_of(m, note, len), type, parts, n_parts, len);
    if (r == -EAGAIN)
        return enqueue(m, to, type, parts, n_parts, len, note);
    if (r < 0) {
        out_break(m, to);
        counter_drop(m->opt.counters, DROP_mesh_broken);
        return true;
    }
    sent(m, to, len, note != NULL);
    if (note != NULL)
        note->done(note);
    return true;
}

int mesh_try(struct mesh *m, unsigned to, uint32_t type, const struct slice *parts, unsigned n_parts)
{
    struct peer *p = peer_of(m, to);
    size_t len = parts_len(parts, n_parts);
    ASSERT(len <= m->record_max);
    while (p->backlog.messages == 0) {
        int r = put(m, to, RING_BULK, type, parts, n_parts, len);
        if (r == 0) {
            sent(m, to, len, true);
            return 0;
        }
        if (r != -EAGAIN) {
            out_break(m, to);
            break;
        }
        if (wait_for_room(m, to, RING_BULK, (uint32_t)len))
            break;
    }
    p->owed = true;
    if (p->try_len < len)
        p->try_len = (uint32_t)len;
    return -EAGAIN;
}

size_t mesh_try_max(const struct mesh *m)
{
    return m->record_max;
}

size_t mesh_waiting(const struct mesh *m, unsigned to)
{
    ASSERT(to < m->opt.n_shards);
    return m->peers[to].backlog.bytes;
}

size_t mesh_ring_used(const struct mesh *m, unsigned to)
{
    ASSERT(to < m->opt.n_shards);
    const struct peer *p = &m->peers[to];
    return p->out && !p->out_broken ? (size_t)ring_in_use(&p->w) : 0;
}

/* Asked for more room than one message needs: or room is told, and refused to the second message, for every
 * message that the other reads. */
static void serve(struct mesh *m, unsigned to)
{
    struct peer *p = &m->peers[to];
    uint32_t len = (uint32_t)(m->ring.size / 8);
    if (p->owed && !p->draining)
        drain(m, to);
    m->serve &= ~bit(to); /* drain sets it when the backlog is empty; which is when it gets here */
    if (!p->owed || p->draining || p->backlog.messages > 0 || p->out_broken ||
        wait_for_room(m, to, RING_BULK, p->try_len > len ? p->try_len : len))
        return;
    if (p->w.broken) {
        out_break(m, to);
        return;
    }
    p->owed = false;
    p->try_len = 0;
    m->opt.ops->room(m->opt.ctx, to);
}

/* ---- receiving */

static void in_break(struct mesh *m, unsigned from)
{
    counter_add(m->opt.counters, COUNTER_mesh_broken, 1);
    LOG(LOG_ERROR, "mesh_broken", "from=%u to=%u side=receiver", from, m->opt.me);
    owe_broken(m, from);
    m->peers[from].in_broken = true;
    m->look &= ~bit(from);
}

static bool attach_in(struct mesh *m, unsigned from)
{
    struct peer *p = &m->peers[from];
    void *mem = mesh__ring(m->opt.mem, m->opt.n_shards, m->opt.ring_bytes, from, m->opt.me);
    if (p->reattach) {
        /* All that was read is released, but a message of which some fragments came goes on, if it does. */
        if (p->in_broken) {
            ring_receiver_fini(&p->rv);
            p->rv = (struct ring_receiver){0};
            p->lost = 0;
        }
        p->in = p->in_broken = p->reattach = false;
    }
    if (p->in || p->in_broken)
        return p->in && !p->in_broken;
    if (!mesh__is_made(m->opt.mem, from, m->opt.me))
        return false;
    if (ring_reader_attach(&p->r, mem, ring_bytes(m->opt.ring_bytes), false) < 0) {
        in_break(m, from);
        return false;
    }
    if (p->rv.reader == NULL)
        ring_receiver_init(&p->rv, &p->r, m->opt.message_max);
    p->in = true;
    return true;
}

static void release(struct mesh *m, unsigned from)
{
    if (ring_release(&m->peers[from].r))
        tell_of_room(m, from);
}

static void count_lost(struct mesh *m, unsigned from)
{
    struct peer *p = &m->peers[from];
    uint64_t lost = p->rv.cut + p->rv.headless;
    if (lost == p->lost)
        return;
    counter_add(m->opt.counters, COUNTER_mesh_cut, lost - p->lost);
    LOG(LOG_WARN, "mesh_cut", "from=%u to=%u messages=%" PRIu64, from, m->opt.me, lost - p->lost);
    p->lost = lost;
}

static void retry(struct timer *t)
{
    struct mesh *m = CONTAINER_OF(t, struct mesh, retry);
    m->look |= m->starved;
    m->starved = 0;
}

/* There was no message: why. */
static void read_nothing(struct mesh *m, unsigned from, int r)
{
    if (r == -EPROTO) {
        in_break(m, from);
        return;
    }
    release(m, from); /* fragments, of which the receiver has a copy */
    m->look &= ~bit(from);
    if (r == -ENOMEM) {
        m->starved |= bit(from);
        timer_set(m->opt.loop, &m->retry, RETRY_MS, retry);
    }
}

/* Some messages of one ring; how many. */
static unsigned read_batch(struct mesh *m, unsigned from)
{
    struct peer *p = &m->peers[from];
    struct ring_record got;
    unsigned n = 0;
    if (!attach_in(m, from)) {
        m->look &= ~bit(from);
        return 0;
    }
    while (n < READ_BATCH && !p->reattach) {
        int r = ring_receive(&p->rv, &got);
        if (r != 1) {
            read_nothing(m, from, r);
            break;
        }
        n++;
        counter_add(m->opt.counters, COUNTER_mesh_messages_in, 1);
        m->opt.ops->message(m->opt.ctx, from, got.type, got.data, got.len);
        if (got.continues)
            ring_taken(&p->rv, &got);
        release(m, from);
    }
    count_lost(m, from);
    return n;
}

static unsigned next_ring(struct mesh *m)
{
    uint64_t bits = m->look | m->serve;
    uint64_t behind = bits & ~(bit(m->next) - 1);
    unsigned i = (unsigned)__builtin_ctzll(behind != 0 ? behind : bits);
    m->next = (i + 1) % MESH_SHARDS_MAX;
    return i;
}

void mesh_read(struct mesh *m)
{
    unsigned n = 0;
    if (!m->started || m->reading || m->others == 0)
        return;
    uint64_t rung = bell_take(&m->self->bell) & m->others;
    m->look |= rung;
    m->serve |= rung;
    m->reading = true;
    while ((m->look | m->serve) != 0 && (n < READ_MIN || loop_turn_left_ns(m->opt.loop) > 0)) {
        unsigned from = next_ring(m);
        if ((m->serve & bit(from)) != 0)
            serve(m, from);
        if ((m->look & bit(from)) != 0)
            n += read_batch(m, from);
    }
    m->reading = false;
    tell_broken(m);
}

bool mesh_has_unread(const struct mesh *m)
{
    if (m->others == 0)
        return false;
    /* Acquire: what is seen here is not older than what the caller has seen before. */
    uint64_t rung = atomic_load_explicit(&m->self->bell.rung, memory_order_acquire);
    return ((m->look | m->starved | rung) & m->others) != 0;
}

bool mesh_is_at_rest(const struct mesh *m)
{
    if (mesh_has_unread(m) || m->dirty != 0)
        return false;
    for (unsigned i = 0; i < m->opt.n_shards; i++)
        if ((m->others & bit(i)) != 0 && (m->peers[i].backlog.messages > 0 || mesh_ring_used(m, i) > 0))
            return false;
    return true;
}

/* ---- in the loop */

static bool run_read(struct loop_hook *h)
{
    struct mesh *m = CONTAINER_OF(h, struct mesh, read_hook);
    mesh_read(m);
    return false; /* run_flush says whether something is left, also if it came meanwhile */
}

static bool run_flush(struct loop_hook *h)
{
    struct mesh *m = CONTAINER_OF(h, struct mesh, flush_hook);
    mesh_flush(m);
    return (m->look | m->serve | m->breaks) != 0;
}

static bool may_sleep(struct loop_sleeper *s)
{
    struct mesh *m = CONTAINER_OF(s, struct mesh, sleeper);
    mesh_flush(m); /* what was sent behind the last hook, or outside of a turn */
    return (m->look | m->serve | m->breaks) == 0 && bell_prepare_sleep(&m->self->bell);
}

static void awake(struct loop_sleeper *s)
{
    bell_cancel_sleep(&CONTAINER_OF(s, struct mesh, sleeper)->self->bell);
}

void mesh_start(struct mesh *m)
{
    ASSERT(!m->started);
    m->started = true;
    if (m->others == 0)
        return;
    loop_hook_add(m->opt.loop, &m->flush_hook);
    if (m->look != 0) /* a turn, whoever drives the loop */
        timer_set(m->opt.loop, &m->retry, 0, retry);
    if (!m->opt.wake_always)
        loop_set_sleeper(m->opt.loop, &m->sleeper);
}

/* ---- life */

static bool options_are_good(const struct mesh_options *o)
{
    if (o->n_shards < 1 || o->n_shards > MESH_SHARDS_MAX || o->me >= o->n_shards ||
        o->message_max > UINT32_MAX)
        return false;
    return o->n_shards == 1 ||
           ((uintptr_t)o->mem % 64 == 0 && o->ring_bytes >= RING_SIZE_LEAST &&
            o->ring_bytes <= RING_SIZE_MOST && (o->ring_bytes & (o->ring_bytes - 1)) == 0);
}

/* The memory is for this mesh; the first one says so. */
static bool take_shape(const struct mesh_options *o)
{
    uint64_t none = 0, shape = mesh__shape(o->n_shards, o->ring_bytes);
    /* Acquire and release: partners are each other, and mesh_bury. */
    return atomic_compare_exchange_strong_explicit(&((struct mesh_shm *)o->mem)->shape, &none, shape,
                                                   memory_order_acq_rel, memory_order_acquire) ||
           none == shape;
}

/* In the place of a shard that may have been another process before. */
static void take_place(struct mesh *m)
{
    m->self = mesh__shard(m->opt.mem, m->opt.me);
    bell_cancel_sleep(&m->self->bell);
    for (unsigned i = 0; i < m->opt.n_shards; i++) {
        if (i == m->opt.me)
            continue;
        m->others |= bit(i);
        if (mesh__is_made(m->opt.mem, i, m->opt.me))
            m->look |= bit(i);
    }
}

struct mesh *mesh_new(const struct mesh_options *opt, int *ret_err)
{
    struct mesh *m = NULL;
    int err = options_are_good(opt) ? 0 : -EINVAL;
    if (err == 0 && opt->n_shards > 1 && !take_shape(opt))
        err = -EPROTO;
    if (err == 0) {
        m = calloc(1, sizeof *m + opt->n_shards * sizeof(struct peer));
        err = m == NULL ? -ENOMEM : 0;
    }
    if (err < 0) {
        *ret_err = err;
        return NULL;
    }
    m->opt = *opt;
    m->read_hook.run = run_read;
    m->flush_hook.run = run_flush;
    m->sleeper = (struct loop_sleeper){.may_sleep = may_sleep, .awake = awake};
    if (opt->n_shards == 1)
        return m;
    m->ring = (struct ring_params){.size = opt->ring_bytes, .reserve = opt->ring_bytes / 16};
    m->record_max = ring_params_record_max(&m->ring);
    take_place(m);
    loop_hook_add(opt->loop, &m->read_hook);
    return m;
}

static void leave_loop(struct mesh *m)
{
    if (m->others == 0)
        return;
    loop_hook_remove(m->opt.loop, &m->read_hook);
    if (m->started)
        loop_hook_remove(m->opt.loop, &m->flush_hook);
    if (m->started && !m->opt.wake_always)
        loop_set_sleeper(m->opt.loop, NULL);
    timer_cancel(m->opt.loop, &m->retry);
}

void mesh_abandon(struct mesh *m)
{
    if (m == NULL)
        return;
    leave_loop(m);
    for (unsigned i = 0; i < m->opt.n_shards; i++) {
        mesh__backlog_clear(&m->peers[i].backlog, &m->spare);
        ring_receiver_fini(&m->peers[i].rv);
    }
    mesh__spare_fini(&m->spare);
    free(m);
}

/* The last that can be done for what waits. */
static void leave_peer(struct mesh *m, unsigned to)
{
    struct peer *p = &m->peers[to];
    drain(m, to);
    if (p->backlog.messages == 0)
        return;
    LOG(LOG_WARN, "mesh_left", "from=%u to=%u messages=%" PRIu64 " bytes=%zu", m->opt.me, to,
        p->backlog.messages, p->backlog.bytes);
    for (uint64_t n = p->backlog.messages; n > 0; n--)
        counter_drop(m->opt.counters, DROP_mesh_left);
    counter_sub(m->opt.counters, COUNTER_mesh_backlog_bytes, p->backlog.bytes);
}

void mesh_free(struct mesh *m)
{
    if (m == NULL)
        return;
    ASSERT(!m->reading);
    m->leaving = true;
    for (unsigned i = 0; i < m->opt.n_shards; i++)
        leave_peer(m, i);
    mesh_flush(m);
    mesh_abandon(m);
}

/* ---- deaths of others */

/* A large message of which a part was sent, and read by somebody: nobody can have got it whole, so it begins
 * anew, and does not first send the rest for nothing. One that is sent shows by itself what becomes of it,
 * and so would this one. */
static void begin_anew(struct peer *p)
{
    if (!p->out || p->sending.sent == 0 || is_sent(&p->sending) || ring_send_is_untouched(&p->w, &p->sending))
        return;
    ring_send_give_up(&p->w, &p->sending);
    p->sending = (struct ring_sending){0};
}

void mesh_peer_died(struct mesh *m, unsigned shard)
{
    struct peer *p = peer_of(m, shard);
    begin_anew(p);
    if (p->out && (p->w.broken || p->out_broken)) {
        publish(m, shard); /* all that is reserved is whole; attaching begins behind what is published */
        p->out = false;
    }
    p->out_broken = false;
    m->breaks &= ~bit(shard);
    m->broken &= ~bit(shard);
    p->reattach = p->in || p->in_broken;
    m->look |= bit(shard);
    m->serve |= bit(shard);
}
