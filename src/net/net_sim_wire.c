// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "net/net_sim_priv.h"

#define SYN_RETRY_NS  UINT64_C(1000000000)
#define SYN_TRIES_MAX 6

/* ---- pairs ---- */

struct sim_pair *sim__pair_new(struct sim_net *w)
{
    const struct sim_net_options *o = &w->options;
    struct sim_pair *p = sim__alloc(sizeof(*p));

    p->w = w;
    p->number = w->next_pair;
    w->next_pair += 2;
    p->cap = o->buffer_bytes_min + (uint32_t)sim__random(w, o->buffer_bytes_max - o->buffer_bytes_min + 1);
    for (uint8_t side = 0; side < 2; side++) {
        p->end[side].pair = p;
        p->end[side].side = side;
    }
    p->end[0].state = SIM_END_CONNECTING;
    p->end[1].state = SIM_END_QUEUED;
    return p;
}

void sim__pair_unref(struct sim_pair *p)
{
    ASSERT(p->refs > 0);
    if (--p->refs > 0)
        return;
    bytes_fini(&p->end[0].in);
    bytes_fini(&p->end[1].in);
    free(p);
}

static uint64_t latency_ns(struct sim_net *w)
{
    const struct sim_net_options *o = &w->options;
    return o->latency_ns_min + sim__random(w, o->latency_ns_max - o->latency_ns_min + 1);
}

void sim__send(struct sim_end *end, enum sim_event_kind kind, uint32_t len)
{
    struct sim_net *w = end->pair->w;
    uint64_t at_ns = w->now_ns + latency_ns(w);

    if (at_ns < end->last_arrival_ns)
        at_ns = end->last_arrival_ns;
    end->last_arrival_ns = at_ns;
    sim__schedule(w, (struct sim_event){.at_ns = at_ns,
                                        .pair = end->pair,
                                        .kind = (uint8_t)kind,
                                        .side = (uint8_t)(1 - end->side),
                                        .len = len});
}

/* What is on the way to this end never comes. */
static void drop_in_flight(struct sim_end *end)
{
    end->in.len = end->arrived;
}

static void end_fail(struct sim_end *end, int err)
{
    if (end->state == SIM_END_CLOSED || end->state == SIM_END_DEAD || end->err != 0)
        return;
    drop_in_flight(end);
    end->err = err;
    sim__end_update(end);
}

/* ---- writing and reading ---- */

size_t sim__end_room(const struct sim_end *end)
{
    return end->unacked < end->pair->cap ? end->pair->cap - end->unacked : 0;
}

static void gather(struct bytes *to, const struct iovec *iov, int n_iov, size_t len)
{
    for (int i = 0; i < n_iov && len > 0; i++) {
        size_t n = iov[i].iov_len < len ? iov[i].iov_len : len;
        bool ok = bytes_append(to, iov[i].iov_base, n);
        ASSERT(ok);
        len -= n;
    }
}

/* In up to four segments of random lengths. */
static void send_segments(struct sim_end *end, uint32_t len)
{
    struct sim_net *w = end->pair->w;

    for (unsigned i = 0; len > 0; i++) {
        uint32_t n = i < 3 && sim__chance(w, 30) ? 1 + (uint32_t)sim__random(w, len) : len;
        sim__send(end, SIM_SEGMENT, n);
        len -= n;
        if (w->options.reset_per_million > 0 && sim__random(w, 1000000) < w->options.reset_per_million) {
            sim__send(end, SIM_RST, 0);
            sim__send(sim__end_other(end), SIM_RST, 0);
        }
    }
}

ssize_t sim__end_write(struct sim_end *end, const struct iovec *iov, int n_iov, size_t len)
{
    struct sim_net *w = end->pair->w;
    struct sim_end *other = sim__end_other(end);
    size_t room = sim__end_room(end), taken = len < room ? len : room;

    if (end->err != 0)
        return -end->err;
    if (end->fin_sent)
        return -EPIPE;
    if (end->state == SIM_END_CONNECTING)
        taken = 0;
    if (taken > 0 && sim__chance(w, w->options.short_write_percent)) {
        taken = sim__random(w, taken + 1);
        sim__send(other, SIM_ACK, 0); /* there is room: so writable must come without anybody reading */
    }
    if (other->state != SIM_END_CLOSED && other->state != SIM_END_DEAD && other->err == 0)
        gather(&other->in, iov, n_iov, taken);
    end->unacked += (uint32_t)taken;
    send_segments(end, (uint32_t)taken);
    end->want_write = taken < len;
    return (ssize_t)taken;
}

void sim__end_consume(struct sim_end *end, size_t len)
{
    ASSERT(len <= end->arrived);
    bytes_consume(&end->in, len);
    end->arrived -= len;
    if (end->in.len == 0)
        bytes_fini(&end->in);
    /* Not in order with what this end sends, and nothing is lost if it comes late. */
    sim__schedule(end->pair->w, (struct sim_event){.at_ns = end->pair->w->now_ns + latency_ns(end->pair->w),
                                                   .pair = end->pair,
                                                   .kind = SIM_ACK,
                                                   .side = (uint8_t)(1 - end->side),
                                                   .len = (uint32_t)len});
}

/* ---- ending ---- */

/* What this end sent found nobody, and it waits for an answer. */
static void start_timeout(struct sim_end *writer)
{
    struct sim_net *w = writer->pair->w;

    if (writer->timing_out)
        return;
    writer->timing_out = true;
    uint64_t timeout_ns = w->options.timeout_ns;
    if (writer->node != NULL && writer->node->net.keepalive.user_timeout_ms > 0)
        timeout_ns = tcp_options_user_timeout_ms(&writer->node->net.keepalive) * UINT64_C(1000000);
    sim__schedule(w, (struct sim_event){.at_ns = w->now_ns + timeout_ns,
                                        .pair = writer->pair,
                                        .kind = SIM_TIMEOUT,
                                        .side = writer->side});
}

/* The questions themselves are not sent. The last of them that was answered was asked some time within idle_s
 * before now. */
void sim__end_ask(struct sim_end *end)
{
    const struct net_keepalive *k = end->node != NULL ? &end->node->net.keepalive : NULL;
    struct sim_net *w = end->pair->w;

    if (k == NULL || k->idle_s == 0 || end->state != SIM_END_OPEN || end->asked)
        return;
    if (sim__end_other(end)->state != SIM_END_DEAD && !end->pair->cut)
        return;
    end->asked = true;
    uint64_t s = (uint64_t)k->interval_s * k->count + sim__random(w, k->idle_s + UINT64_C(1));
    sim__schedule(w, (struct sim_event){.at_ns = w->now_ns + s * UINT64_C(1000000000),
                                        .pair = end->pair,
                                        .kind = SIM_TIMEOUT,
                                        .side = end->side});
}

static void end_gone(struct sim_end *end, enum sim_end_state state)
{
    end->state = (uint8_t)state;
    end->arrived = 0;
    end->want_write = false;
    bytes_fini(&end->in);
}

void sim__end_die(struct sim_end *end)
{
    struct sim_end *other = sim__end_other(end);

    end_gone(end, SIM_END_DEAD);
    if (other->unacked > 0 &&
        other->state == SIM_END_OPEN) /* no room any more: it may have nothing to send */
        start_timeout(other);
    sim__end_ask(other);
}

void sim__end_close(struct sim_end *end, bool hard)
{
    struct sim_net *w = end->pair->w;
    bool reset = hard || end->arrived > 0; /* closing with bytes unread is a reset, too (RFC 2525, 2.17) */
    bool told = end->err != 0;

    if (end->state == SIM_END_CLOSED || end->state == SIM_END_DEAD)
        return;
    if (!told && sim__chance(w, w->options.lost_end_percent)) {
        sim__end_die(end);
        return;
    }
    end_gone(end, SIM_END_CLOSED);
    if (told)
        return;
    if (reset) {
        if (sim__chance(w, 50))
            drop_in_flight(sim__end_other(end));
        sim__send(end, SIM_RST, 0);
    } else if (!end->fin_sent) {
        sim__send(end, SIM_FIN, 0);
    }
}

void sim__end_close_lucky(struct sim_end *end)
{
    end->arrived = 0; /* as if it had been read just before */
    sim__end_close(end, false);
}

void sim__pair_cut(struct sim_pair *p)
{
    p->cut = true;
    for (unsigned side = 0; side < 2; side++) {
        if (p->end[side].unacked > 0 && p->end[side].state == SIM_END_OPEN)
            start_timeout(&p->end[side]);
        sim__end_ask(&p->end[side]);
    }
}

/* ---- listening sockets ---- */

static bool is_wildcard(const struct net_addr *a)
{
    static const uint8_t zero[16];
    return memcmp(a->ip, zero, sizeof(zero)) == 0;
}

static bool same_ip(const struct net_addr *a, const struct net_addr *b)
{
    return a->family == b->family && memcmp(a->ip, b->ip, a->family == AF_INET ? 4 : 16) == 0;
}

static struct sim_socket *socket_find(struct sim_net *w, const struct net_addr *to)
{
    struct sim_socket *wildcard = NULL;

    for (struct sim_socket *s = w->sockets; s != NULL; s = s->next) {
        if (s->addr.port != to->port)
            continue;
        if (same_ip(&s->addr, to))
            return s;
        if (is_wildcard(&s->addr))
            wildcard = s;
    }
    return wildcard;
}

static bool is_taken(const struct sim_net *w, const struct net_addr *addr)
{
    for (const struct sim_socket *s = w->sockets; s != NULL; s = s->next) {
        if (s->addr.port == addr->port &&
            (same_ip(&s->addr, addr) || is_wildcard(&s->addr) || is_wildcard(addr)))
            return true;
    }
    return false;
}

struct sim_socket *sim__socket_new(struct sim_net *w, const struct net_addr *addr, int backlog, int *ret_err)
{
    struct net_addr a = *addr;

    while (a.port == 0 || (addr->port == 0 && is_taken(w, &a)))
        a.port = w->next_port++;
    if (is_taken(w, &a)) {
        *ret_err = -EADDRINUSE;
        return NULL;
    }
    struct sim_socket *s = sim__alloc(sizeof(*s));
    s->w = w;
    s->addr = a;
    s->backlog = backlog > 0 ? (uint32_t)backlog : 1;
    s->refs = 1;
    s->next = w->sockets;
    w->sockets = s;
    return s;
}

struct sim_socket *sim__socket_by_fd(const struct sim_net *w, int fd)
{
    for (struct sim_socket *s = w->sockets; s != NULL; s = s->next) {
        if (s->fd == fd && fd != 0)
            return s;
    }
    return NULL;
}

static void socket_enqueue(struct sim_socket *s, struct sim_pair *p)
{
    p->refs++;
    p->queue_next = NULL;
    if (s->first == NULL)
        s->first = p;
    else
        s->last->queue_next = p;
    s->last = p;
    s->queued++;
}

struct sim_pair *sim__socket_accept(struct sim_socket *s)
{
    struct sim_pair *p = s->first;
    if (p == NULL)
        return NULL;
    s->first = p->queue_next;
    s->queued--;
    return p;
}

void sim__socket_unref(struct sim_socket *s)
{
    if (--s->refs > 0)
        return;
    for (struct sim_pair *p = sim__socket_accept(s); p != NULL; p = sim__socket_accept(s)) {
        sim__end_close(&p->end[1], true);
        sim__pair_unref(p);
    }
    for (struct sim_socket **at = &s->w->sockets; *at != NULL; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    free(s);
}

/* ---- what arrives ---- */

static void arrive_syn(struct sim_net *w, struct sim_pair *p, uint32_t tries)
{
    struct sim_end *client = &p->end[0], *server = &p->end[1];
    struct sim_socket *s = socket_find(w, &p->to);

    if (client->state != SIM_END_CONNECTING) {
        end_gone(server, SIM_END_CLOSED);
    } else if (s == NULL) {
        end_gone(server, SIM_END_CLOSED);
        sim__send(server, SIM_REFUSED, 0);
    } else if (s->queued >= s->backlog && tries < SYN_TRIES_MAX) {
        sim__schedule(
            w,
            (struct sim_event){
                .at_ns = w->now_ns + SYN_RETRY_NS, .pair = p, .kind = SIM_SYN, .side = 1, .len = tries + 1});
    } else if (s->queued >= s->backlog) {
        end_gone(server, SIM_END_CLOSED);
        end_fail(client, ETIMEDOUT);
    } else {
        sim__send(server, SIM_ESTABLISHED, 0);
        socket_enqueue(s, p);
    }
}

static void arrive_segment(struct sim_end *end, uint32_t len)
{
    size_t on_the_way = end->in.len - end->arrived;

    if (end->state == SIM_END_DEAD || end->pair->cut) {
        start_timeout(sim__end_other(end));
    } else if (end->state == SIM_END_CLOSED) {
        sim__send(end, SIM_RST, 0);
    } else {
        end->arrived += len < on_the_way ? len : on_the_way; /* less when a reset overtook it */
        sim__end_update(end);
    }
}

static void arrive_fin(struct sim_end *end)
{
    if (end->state == SIM_END_DEAD || end->pair->cut) {
        start_timeout(sim__end_other(end)); /* FIN wants an answer as bytes do */
        return;
    }
    end->fin_arrived = true;
    sim__end_update(end);
}

static void arrive_ack(struct sim_end *end, uint32_t len)
{
    ASSERT(len <= end->unacked);
    end->unacked -= len;
    sim__end_update(end);
}

void sim__event_apply(struct sim_net *w, const struct sim_event *ev)
{
    struct sim_end *end = &ev->pair->end[ev->side];

    sim__note(w, ev->kind, ev->seq, ev->len);
    bool is_handshake = ev->kind == SIM_SYN || ev->kind == SIM_ESTABLISHED || ev->kind == SIM_REFUSED;
    bool is_local = ev->kind == SIM_TIMEOUT || (ev->kind == SIM_ACK && ev->len == 0);
    if (ev->pair->cut && is_handshake)
        start_timeout(&ev->pair->end[0]);
    if (ev->pair->cut && ev->kind != SIM_SEGMENT && ev->kind != SIM_FIN && !is_local)
        return;
    switch ((enum sim_event_kind)ev->kind) {
    case SIM_SYN: arrive_syn(w, ev->pair, ev->len); break;
    case SIM_ESTABLISHED:
        end->established = true;
        sim__end_update(end);
        break;
    case SIM_REFUSED: end_fail(end, ECONNREFUSED); break;
    case SIM_SEGMENT: arrive_segment(end, ev->len); break;
    case SIM_ACK: arrive_ack(end, ev->len); break;
    case SIM_FIN: arrive_fin(end); break;
    case SIM_RST: end_fail(end, ECONNRESET); break;
    case SIM_TIMEOUT: end_fail(end, ETIMEDOUT); break;
    }
}
