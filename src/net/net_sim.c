// SPDX-License-Identifier: MIT
#include "net/net_sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "net/net_sim_priv.h"

#define START_NS UINT64_C(1000000000000)

void *sim__alloc(size_t size)
{
    void *p = calloc(1, size);
    ASSERT(p != NULL);
    return p;
}

/* ---- chance (splitmix64) ---- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t draw(uint64_t *state, uint64_t n)
{
    ASSERT(n > 0);
    *state += UINT64_C(0x9E3779B97F4A7C15);
    return mix(*state) % n;
}

uint64_t sim__random(struct sim_net *w, uint64_t n)
{
    return draw(&w->random, n);
}

bool sim__chance(struct sim_net *w, uint32_t percent)
{
    return percent > 0 && draw(&w->random, 100) < percent;
}

uint64_t sim_net_draw(struct sim_net *w, uint64_t n)
{
    return draw(&w->script_random, n);
}

void sim__note(struct sim_net *w, uint64_t a, uint64_t b, uint64_t c)
{
    w->digest = mix(w->digest + mix(a + 1) + mix(b + 2) * 3 + mix(c + 3) * 5 + w->now_ns);
}

uint64_t sim_net_digest(const struct sim_net *w)
{
    return w->digest;
}

/* ---- events, a binary heap by time and then by order ---- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

void sim__schedule(struct sim_net *w, struct sim_event ev)
{
    if (w->n_events == w->heap_cap) {
        w->heap_cap = w->heap_cap == 0 ? 256 : w->heap_cap * 2;
        w->heap = realloc(w->heap, w->heap_cap * sizeof(*w->heap));
        ASSERT(w->heap != NULL);
    }
    ev.seq = w->next_seq++;
    ev.pair->refs++;
    uint32_t i = w->n_events++;
    for (; i > 0 && earlier(&ev, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = ev;
}

static struct sim_event heap_pop(struct sim_net *w)
{
    struct sim_event top = w->heap[0], last = w->heap[--w->n_events];
    uint32_t i = 0;

    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= w->n_events)
            break;
        if (child + 1 < w->n_events && earlier(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!earlier(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* ---- time ---- */

static uint64_t clock_now_ns(void *ctx)
{
    struct sim_net *w = ctx;
    if (w->turning != NULL)
        sim__node_call(w->turning);
    w->now_ns += w->options.clock_read_ns;
    return w->now_ns;
}

struct loop_clock sim_net_clock(struct sim_net *w)
{
    return (struct loop_clock){.now_ns = clock_now_ns, .ctx = w};
}

uint64_t sim_net_now_ns(const struct sim_net *w)
{
    return w->now_ns;
}

/* When this node wants a turn; 0: as soon as it may. */
static uint64_t node_due_ns(const struct sim_node *node)
{
    if (node->dead || node->stopped)
        return UINT64_MAX;
    uint64_t due_ns = sim__node_has_work(node) ? 0 : loop_next_ns(node->net.loop);
    if (node->poked_ns < due_ns)
        due_ns = node->poked_ns;
    return due_ns < node->frozen_until_ns ? node->frozen_until_ns : due_ns;
}

static uint64_t world_due_ns(const struct sim_net *w)
{
    uint64_t due_ns = w->n_events > 0 ? w->heap[0].at_ns : UINT64_MAX;

    for (uint32_t i = 0; i < w->n_nodes; i++) {
        uint64_t node_ns = node_due_ns(w->nodes[i]);
        if (node_ns < due_ns)
            due_ns = node_ns;
    }
    return due_ns;
}

static void node_turn(struct sim_net *w, struct sim_node *node)
{
    w->turning = node;
    if (setjmp(node->stop) == 0)
        loop_turn(node->net.loop, 0);
    w->turning = NULL;
    if (node->stopped)
        sim__node_stopped(node);
}

static void nodes_turn(struct sim_net *w)
{
    uint32_t n = w->n_nodes;
    uint32_t first = n > 0 ? (uint32_t)sim__random(w, n) : 0;
    bool backwards = sim__random(w, 2) == 0;

    for (uint32_t i = 0; i < n; i++) {
        struct sim_node *node = w->nodes[(first + (backwards ? n - i : i)) % n];
        if (node_due_ns(node) <= w->now_ns)
            node_turn(w, node);
    }
}

bool sim_net_step(struct sim_net *w, uint64_t until_ns)
{
    uint64_t due_ns = world_due_ns(w);

    ASSERT(!w->stepping);
    if (due_ns > until_ns || due_ns == UINT64_MAX || w->now_ns > until_ns) {
        if (until_ns != UINT64_MAX && until_ns > w->now_ns)
            w->now_ns = until_ns;
        return false;
    }
    if (due_ns > w->now_ns)
        w->now_ns = due_ns;
    w->stepping = true;
    while (w->n_events > 0 && w->heap[0].at_ns <= w->now_ns) {
        struct sim_event ev = heap_pop(w);
        sim__event_apply(w, &ev);
        sim__pair_unref(ev.pair);
    }
    nodes_turn(w);
    w->stepping = false;
    return true;
}

void sim_net_run(struct sim_net *w, uint64_t ns)
{
    uint64_t until_ns = w->now_ns + ns;
    while (sim_net_step(w, until_ns))
        continue;
}

bool sim_net_run_until(struct sim_net *w, bool (*done)(void *ctx), void *ctx, uint64_t ns)
{
    uint64_t until_ns = w->now_ns + ns;

    while (!done(ctx)) {
        if (!sim_net_step(w, until_ns))
            return done(ctx);
    }
    return true;
}

/* ---- life ---- */

struct sim_net *sim_net_new(uint64_t seed)
{
    struct sim_net *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return NULL;
    w->now_ns = START_NS;
    w->random = mix(seed);
    w->script_random = mix(seed + UINT64_C(0x5851F42D4C957F2D));
    w->next_port = 32768;
    w->next_fd = 1000;
    w->options = (struct sim_net_options){
        .latency_ns_min = 10000,
        .latency_ns_max = 2000000,
        .buffer_bytes_min = 1024,
        .buffer_bytes_max = 256 * 1024,
        .tiny_read_percent = 10,
        .part_read_percent = 30,
        .short_write_percent = 10,
        .skip_percent = 10,
        .timeout_ns = UINT64_C(60000000000),
        .clock_read_ns = 200,
    };
    return w;
}

struct sim_net_options *sim_net_options(struct sim_net *w)
{
    return &w->options;
}

void sim_net_free(struct sim_net *w)
{
    if (w == NULL)
        return;
    ASSERT(w->n_nodes == 0);
    while (w->sockets != NULL)
        sim__socket_unref(w->sockets); /* bound, never closed, and no listener on it any more */
    while (w->n_events > 0)
        sim__pair_unref(heap_pop(w).pair);
    free(w->heap);
    free(w->nodes);
    free(w);
}

void sim__node_forget(struct sim_net *w, struct sim_node *node)
{
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        if (w->nodes[i] == node) {
            memmove(w->nodes + i, w->nodes + i + 1, (w->n_nodes - i - 1) * sizeof(*w->nodes));
            w->n_nodes--;
            return;
        }
    }
    UNREACHABLE();
}

/* ---- descriptors that outlive nodes ---- */

int sim_net_bind(struct sim_net *w, const struct net_addr *addr, int backlog)
{
    int err = 0;
    struct sim_socket *s = sim__socket_new(w, addr, backlog, &err);
    if (s == NULL)
        return err;
    s->fd = w->next_fd++;
    return s->fd;
}

int sim_net_bound(const struct sim_net *w, int fd, struct net_addr *ret)
{
    const struct sim_socket *s = sim__socket_by_fd(w, fd);
    if (s == NULL)
        return -EBADF;
    *ret = s->addr;
    return 0;
}

void sim_net_unbind(struct sim_net *w, int fd)
{
    struct sim_socket *s = sim__socket_by_fd(w, fd);
    ASSERT(s != NULL);
    s->fd = 0;
    sim__socket_unref(s);
}
