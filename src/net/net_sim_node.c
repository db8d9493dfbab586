// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "net/net_sim_priv.h"

static const struct net_ops ops;

static struct sim_node *from_net(struct net *n)
{
    ASSERT(n->ops == &ops);
    return (struct sim_node *)n;
}

/* Also of a node that has only a claim. */
static struct sim_end *end_with(const struct sim_node *node, const struct net_conn *c)
{
    uint32_t index = (uint32_t)c->handle - 1;

    ASSERT(index < node->n_ends && node->ends[index] != NULL);
    return node->ends[index];
}

static struct sim_end *end_of(struct net *n, const struct net_conn *c)
{
    struct sim_end *end = end_with(from_net(n), c);

    ASSERT(end->node == from_net(n) && end->c == c); /* else it is another node's as yet */
    return end;
}

/* ---- which ends have something to tell ---- */

static bool can_tell_writable(const struct sim_end *end)
{
    /* As a kernel does: not for every byte that gets free, but from a third on. */
    return end->state == SIM_END_OPEN && end->want_write && sim__end_room(end) >= (end->pair->cap + 2) / 3;
}

static bool is_ready(const struct sim_end *end)
{
    if (end->node == NULL || end->node->dead)
        return false;
    if (end->state == SIM_END_CONNECTING)
        return end->established || end->err != 0;
    if (end->err != 0 && (end->paused || end->arrived == 0))
        return true;
    if (!end->paused && (end->arrived > 0 || end->fin_arrived))
        return true;
    return can_tell_writable(end);
}

void sim__end_update(struct sim_end *end)
{
    bool ready = is_ready(end);

    if (ready == end->ready)
        return;
    end->ready = ready;
    if (ready) {
        struct sim_end *head = &end->node->ready;
        end->ready_next = head;
        end->ready_prev = head->ready_prev;
        head->ready_prev->ready_next = end;
        head->ready_prev = end;
        end->node->n_ready++;
    } else {
        end->ready_next->ready_prev = end->ready_prev;
        end->ready_prev->ready_next = end->ready_next;
        end->node->n_ready--;
    }
}

/* A place among the node's ends, and a reference. */
static uint32_t place_take(struct sim_node *node, struct sim_end *end, struct net_conn *c)
{
    uint32_t i = node->ends_lowest;

    while (i < node->n_ends && node->ends[i] != NULL)
        i++;
    if (i == node->n_ends) {
        node->n_ends = node->n_ends == 0 ? 16 : node->n_ends * 2;
        node->ends = realloc(node->ends, node->n_ends * sizeof(struct sim_end *));
        ASSERT(node->ends != NULL);
        memset(node->ends + i, 0, (node->n_ends - i) * sizeof(struct sim_end *));
    }
    node->ends[i] = end;
    node->ends_lowest = i + 1;
    node->net.stats.open++;
    end->pair->refs++;
    c->handle = (int32_t)i + 1;
    c->flags = 0;
    return i;
}

static void place_leave(struct sim_node *node, uint32_t index, struct net_conn *c)
{
    c->handle = 0;
    node->ends[index] = NULL;
    if (index < node->ends_lowest)
        node->ends_lowest = index;
    node->net.stats.open--;
}

static void owner_set(struct sim_end *end, struct sim_node *node, struct net_conn *c, uint32_t index)
{
    end->node = node;
    end->c = c;
    end->index = index;
    sim__end_ask(end);
    sim__end_update(end);
}

void sim__end_attach(struct sim_end *end, struct sim_node *node, struct net_conn *c)
{
    owner_set(end, node, c, place_take(node, end, c));
}

/* What the one before wanted to know is nothing to the next. */
static void owner_next(struct sim_end *end)
{
    struct sim_claim *first = end->claims;

    if (first == NULL)
        return;
    end->claims = first->next;
    end->paused = first->paused;
    end->want_write = false;
    owner_set(end, first->node, first->c, first->index);
    free(first);
}

void sim__end_detach(struct sim_end *end)
{
    struct sim_node *node = end->node;

    place_leave(node, end->index, end->c);
    end->c = NULL;
    if (end->ready) {
        end->ready = false;
        end->ready_next->ready_prev = end->ready_prev;
        end->ready_prev->ready_next = end->ready_next;
        node->n_ready--;
    }
    end->node = NULL;
    owner_next(end);
    sim__pair_unref(end->pair);
}

/* ---- claims ---- */

static struct sim_claim **claim_of(struct sim_end *end, const struct sim_node *node, const struct net_conn *c)
{
    struct sim_claim **at = &end->claims;

    while (*at != NULL && ((*at)->node != node || (*at)->c != c))
        at = &(*at)->next;
    ASSERT(*at != NULL);
    return at;
}

static void claim_add(struct sim_end *end, struct sim_node *node, struct net_conn *c)
{
    struct sim_claim *claim = sim__alloc(sizeof(*claim)), **last = &end->claims;

    *claim = (struct sim_claim){.node = node, .c = c, .index = place_take(node, end, c)};
    while (*last != NULL)
        last = &(*last)->next;
    *last = claim;
}

static void claim_drop(struct sim_end *end, struct sim_node *node, struct net_conn *c)
{
    struct sim_claim **at = claim_of(end, node, c), *claim = *at;

    place_leave(node, claim->index, c);
    *at = claim->next;
    free(claim);
    sim__pair_unref(end->pair);
}

/* The kernel closes a connection with the last descriptor of it. */
static void owner_leaves(struct sim_end *end)
{
    if (end->claims == NULL)
        sim__end_close(end, false);
    sim__end_detach(end);
}

static struct sim_end *end_numbered(const struct sim_net *w, int number)
{
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        const struct sim_node *node = w->nodes[i];
        for (uint32_t k = 0; k < node->n_ends; k++) {
            struct sim_end *end = node->ends[k];
            if (end != NULL && end->pair->number + end->side == number)
                return end;
        }
    }
    return NULL;
}

/* ---- telling ---- */

static void tell_closed(struct sim_node *node, struct sim_end *end, int err)
{
    struct net_conn *c = end->c;

    sim__note(node->w, node->id, end->index, 1000 + (unsigned)err);
    sim__end_close(end, false); /* after an orderly end of the peer ours follows */
    sim__end_detach(end);
    c->ops->closed(c, err);
}

static void tell_connected(struct sim_node *node, struct sim_end *end)
{
    struct net_conn *c = end->c;

    if (end->err != 0) {
        tell_closed(node, end, end->err);
        return;
    }
    sim__note(node->w, node->id, end->index, 2000);
    end->state = SIM_END_OPEN;
    sim__end_ask(end);
    if (c->ops->connected != NULL)
        c->ops->connected(c);
}

static size_t piece_of(struct sim_net *w, size_t arrived)
{
    size_t max = arrived < NET_READ_SIZE ? arrived : NET_READ_SIZE;

    if (sim__chance(w, w->options.tiny_read_percent))
        max = max < 8 ? max : 8;
    else if (!sim__chance(w, w->options.part_read_percent))
        return max;
    return 1 + sim__random(w, max);
}

static void tell_data(struct sim_node *node, struct sim_end *end)
{
    struct net_conn *c = end->c;
    size_t len = piece_of(node->w, end->arrived);

    memcpy(node->read_buf, end->in.data, len);
    sim__end_consume(end, len);
    node->net.stats.reads++;
    node->net.stats.read_bytes += len;
    sim__note(node->w, node->id, end->index, 3000 + len);
    c->ops->data(c, node->read_buf, len);
}

/* `end` stays valid (its pair is held), but may be nobody's after any callback. */
static void end_tell(struct sim_node *node, struct sim_end *end)
{
    if (end->state == SIM_END_CONNECTING) {
        tell_connected(node, end);
        return;
    }
    if (end->err != 0 && (end->paused || end->arrived == 0)) {
        tell_closed(node, end, end->err);
        return;
    }
    if (!end->paused && end->arrived > 0) {
        tell_data(node, end);
    } else if (!end->paused && end->fin_arrived) {
        tell_closed(node, end, 0);
    }
    if (end->node == node && !node->held && can_tell_writable(end)) {
        end->want_write = false;
        sim__note(node->w, node->id, end->index, 4000);
        end->c->ops->writable(end->c);
    }
}

static int tell_ready(struct sim_node *node)
{
    struct sim_net *w = node->w;
    uint32_t n = 0, told = 0, count = node->n_ready;
    struct sim_end **batch = sim__alloc((count + 1) * sizeof(struct sim_end *));
    node->batch = batch;

    for (struct sim_end *end = node->ready.ready_next; end != &node->ready; end = end->ready_next) {
        end->pair->refs++;
        uint32_t at = (uint32_t)sim__random(w, n + 1); /* shuffled */
        batch[n++] = batch[at];
        batch[at] = end;
    }
    node->batch_n = n;
    for (uint32_t i = 0; i < n; i++) {
        struct sim_end *end = batch[i];
        node->batch_at = i;
        if (end->ready && end->node == node && !node->held && !sim__chance(w, w->options.skip_percent)) {
            end_tell(node, end);
            told++;
        }
        sim__end_update(end);
        sim__pair_unref(end->pair);
    }
    free(batch);
    node->batch = NULL;
    return (int)told;
}

/* ---- accepting ---- */

static bool can_accept(const struct sim_listener *k)
{
    return !k->paused && !k->node->held && !timer_is_set(&k->rest) && k->socket->first != NULL;
}

bool sim__node_has_work(const struct sim_node *node)
{
    if (node->held)
        return false;
    if (node->n_ready > 0)
        return true;
    for (uint32_t i = 0; i < node->n_listeners; i++) {
        if (node->listeners[i] != NULL && can_accept(node->listeners[i]))
            return true;
    }
    return false;
}

static void listener_rested(struct timer *t)
{
}

static void accept_fail(struct sim_node *node, struct sim_listener *k)
{
    node->accepts_to_fail--;
    timer_set(node->net.loop, &k->rest, NET_ACCEPT_PAUSE_MS, listener_rested);
    sim__note(node->w, node->id, 0, 5000);
    k->l->ops->accept_failed(k->l, node->accept_err);
}

static void accept_one(struct sim_node *node, struct sim_listener *k)
{
    struct sim_pair *p = sim__socket_accept(k->socket);
    struct sim_end *end = &p->end[1];

    sim__note(node->w, node->id, p->from.port, 6000);
    node->net.stats.accepts++;
    end->state = SIM_END_OPEN;
    node->accepting = p;
    struct net_conn *c = k->l->ops->accepted(k->l, &p->from, &k->socket->addr);
    node->accepting = NULL;
    if (c == NULL) {
        sim__end_close(end, true);
    } else {
        ASSERT(c->handle == 0 && c->ops != NULL);
        sim__end_attach(end, node, c);
    }
    sim__pair_unref(p); /* its place in the queue */
}

/* The listener may go, or pause, in any of the callbacks. */
static int accept_some(struct sim_node *node, uint32_t index)
{
    unsigned max = 1 + (unsigned)sim__random(node->w, 64), n = 0;

    while (n < max && node->listeners[index] != NULL && can_accept(node->listeners[index])) {
        n++;
        if (node->accepts_to_fail > 0)
            accept_fail(node, node->listeners[index]);
        else
            accept_one(node, node->listeners[index]);
    }
    return (int)n;
}

void sim__node_call(struct sim_node *node)
{
    if (node->calls_left == 0 || node->w->turning != node || --node->calls_left > 0)
        return;
    node->stopped = true;
    sim__note(node->w, node->id, 0, 8000);
    longjmp(node->stop, 1);
}

void sim__node_stopped(struct sim_node *node)
{
    for (uint32_t i = node->batch_at; node->batch != NULL && i < node->batch_n; i++)
        sim__pair_unref(node->batch[i]->pair);
    free(node->batch);
    node->batch = NULL;
}

static int node_poll(void *ctx, uint64_t timeout_ns)
{
    struct sim_node *node = ctx;
    int n = 0;

    loop_poll_returned(node->net.loop);
    node->poked_ns = UINT64_MAX; /* whatever it was poked for is to be seen in this turn, be it early */
    if (node->dead)
        return 0;
    for (uint32_t i = 0; i < node->n_listeners; i++)
        n += accept_some(node, i);
    return node->held ? n : n + tell_ready(node);
}

/* ---- net_ops: listeners ---- */

static struct sim_listener *listener_of(struct net *n, const struct net_listener *l)
{
    struct sim_node *node = from_net(n);
    ASSERT((uint32_t)l->handle <= node->n_listeners && node->listeners[l->handle - 1]->l == l);
    return node->listeners[l->handle - 1];
}

static void listener_attach(struct sim_node *node, struct net_listener *l, struct sim_socket *s)
{
    struct sim_listener *k = sim__alloc(sizeof(*k));
    uint32_t i = 0;

    while (i < node->n_listeners && node->listeners[i] != NULL)
        i++;
    if (i == node->n_listeners) {
        node->listeners = realloc(node->listeners, ++node->n_listeners * sizeof(struct sim_listener *));
        ASSERT(node->listeners != NULL);
    }
    *k = (struct sim_listener){.l = l, .node = node, .socket = s};
    node->listeners[i] = k;
    l->handle = (int32_t)i + 1;
}

static int sim_back_listen(struct net *n, struct net_listener *l, const struct net_addr *addr, int backlog)
{
    struct sim_node *node = from_net(n);
    int err = 0;

    if (node->dead)
        return -ENETDOWN;
    struct sim_socket *s = sim__socket_new(node->w, addr, backlog, &err);
    if (s == NULL)
        return err;
    listener_attach(node, l, s);
    return 0;
}

static int sim_back_listen_fd(struct net *n, struct net_listener *l, int fd)
{
    struct sim_node *node = from_net(n);

    if (node->dead)
        return -ENETDOWN;
    struct sim_socket *s = sim__socket_by_fd(node->w, fd);
    if (s == NULL)
        return -EBADF;
    s->refs++;
    listener_attach(node, l, s);
    return 0;
}

static int sim_back_listener_addr(struct net *n, const struct net_listener *l, struct net_addr *ret)
{
    if (from_net(n)->dead)
        return -EBADF;
    *ret = listener_of(n, l)->socket->addr;
    return 0;
}

static void listener_detach(struct sim_node *node, uint32_t index)
{
    struct sim_listener *k = node->listeners[index];

    timer_cancel(node->net.loop, &k->rest);
    sim__socket_unref(k->socket);
    node->listeners[index] = NULL;
    free(k);
}

static void sim_back_listener_close(struct net *n, struct net_listener *l)
{
    if (!from_net(n)->dead) {
        ASSERT(listener_of(n, l) != NULL);
        listener_detach(from_net(n), (uint32_t)l->handle - 1);
    }
    l->handle = 0;
}

static void sim_back_listener_pause(struct net *n, struct net_listener *l)
{
    if (!from_net(n)->dead)
        listener_of(n, l)->paused = true;
}

static void sim_back_listener_resume(struct net *n, struct net_listener *l)
{
    if (!from_net(n)->dead)
        listener_of(n, l)->paused = false;
}

/* ---- net_ops: connections ---- */

static int sim_back_connect(struct net *n, struct net_conn *c, const struct net_addr *addr)
{
    struct sim_node *node = from_net(n);
    struct sim_net *w = node->w;

    if (node->dead)
        return -ENETDOWN;
    sim__node_call(node);
    struct sim_pair *p = sim__pair_new(w);
    p->to = *addr;
    p->from = node->source;
    p->from.port = w->next_port++;
    if (w->next_port < 32768)
        w->next_port = 32768;
    sim__end_attach(&p->end[0], node, c);
    sim__send(&p->end[0], SIM_SYN, 0);
    return 0;
}

static ssize_t sim_back_writev(struct net *n, struct net_conn *c, const struct iovec *iov, int n_iov)
{
    size_t len = 0;

    if (from_net(n)->dead)
        return -EPIPE;
    for (int i = 0; i < n_iov; i++)
        len += iov[i].iov_len;
    struct sim_end *end = end_of(n, c);
    ssize_t taken = sim__end_write(end, iov, n_iov, len);
    if (taken >= 0) {
        n->stats.writes++;
        n->stats.written_bytes += (size_t)taken;
    }
    sim__end_update(end);
    /* A signal that kills comes when the system call is over. (One that took a part only is not the last:
     * what a process that is killed then can know of it is too little for a simulation that loses nothing.)
     */
    if (taken == (ssize_t)len)
        sim__node_call(from_net(n));
    return taken;
}

static void read_pause_set(struct net *n, struct net_conn *c, bool paused)
{
    struct sim_node *node = from_net(n);

    if (node->dead)
        return;
    struct sim_end *end = end_with(node, c);
    if (end->node != node) {
        (*claim_of(end, node, c))->paused = paused;
        return;
    }
    end->paused = paused;
    sim__end_update(end);
}

static void sim_back_read_pause(struct net *n, struct net_conn *c)
{
    read_pause_set(n, c, true);
}

static void sim_back_read_resume(struct net *n, struct net_conn *c)
{
    read_pause_set(n, c, false);
}

static void sim_back_shutdown(struct net *n, struct net_conn *c)
{
    if (from_net(n)->dead)
        return;
    sim__node_call(from_net(n));
    struct sim_end *end = end_of(n, c);
    if (end->fin_sent || end->err != 0)
        return;
    end->fin_sent = true;
    end->want_write = false;
    sim__send(end, SIM_FIN, 0);
    sim__end_update(end);
}

static void sim_back_close(struct net *n, struct net_conn *c, bool hard)
{
    if (from_net(n)->dead) {
        c->handle = 0;
        return;
    }
    sim__node_call(from_net(n));
    struct sim_end *end = end_of(n, c);
    sim__note(from_net(n)->w, from_net(n)->id, end->index, 7000 + hard);
    sim__end_close(end, hard);
    sim__end_detach(end);
}

/* ---- net_ops: another process takes over ---- */

static void sim_back_hold(struct net *n, bool on)
{
    from_net(n)->held = on;
}

static int sim_back_conn_handle(const struct net *n, const struct net_conn *c)
{
    const struct sim_node *node = (const struct sim_node *)n;

    ASSERT(n->ops == &ops && !node->dead);
    const struct sim_end *end = end_with(node, c);
    return end->pair->number + end->side;
}

static int sim_back_take(struct net *n, struct net_conn *c, int handle)
{
    struct sim_node *node = from_net(n);

    if (node->dead)
        return -ENETDOWN;
    struct sim_end *end = end_numbered(node->w, handle);
    if (end == NULL)
        return -EBADF;
    sim__note(node->w, node->id, (uint64_t)handle, 9000);
    claim_add(end, node, c);
    return 0;
}

/* Only a number. */
static void sim_back_drop(struct net *n, int handle)
{
}

static void sim_back_forget(struct net *n, struct net_conn *c)
{
    struct sim_node *node = from_net(n);

    if (node->dead) {
        c->handle = 0;
        return;
    }
    struct sim_end *end = end_with(node, c);
    sim__note(node->w, node->id, end->index, 9001);
    if (end->node == node)
        owner_leaves(end);
    else
        claim_drop(end, node, c);
}

/* ---- life and death ---- */

static void sim_back_free(struct net *n)
{
    struct sim_node *node = from_net(n);

    ASSERT(n->stats.open == 0);
    for (uint32_t i = 0; i < node->n_listeners; i++)
        ASSERT(node->listeners[i] == NULL);
    if (!node->dead)
        loop_set_poller(n->loop, NULL);
    sim__node_forget(node->w, node);
    free(node->ends);
    free(node->listeners);
    free(node->read_buf);
    free(node);
}

static const struct net_ops ops = {
    .free = sim_back_free,
    .listen_fd = sim_back_listen_fd,
    .listen = sim_back_listen,
    .listener_addr = sim_back_listener_addr,
    .listener_close = sim_back_listener_close,
    .listener_pause = sim_back_listener_pause,
    .listener_resume = sim_back_listener_resume,
    .connect = sim_back_connect,
    .writev = sim_back_writev,
    .read_pause = sim_back_read_pause,
    .read_resume = sim_back_read_resume,
    .shutdown = sim_back_shutdown,
    .close = sim_back_close,
    .hold = sim_back_hold,
    .conn_handle = sim_back_conn_handle,
    .take = sim_back_take,
    .drop = sim_back_drop,
    .forget = sim_back_forget,
};

struct net *sim_net_node(struct sim_net *w, struct loop *l)
{
    struct sim_node *node = sim__alloc(sizeof(*node));

    node->net.ops = &ops;
    node->net.loop = l;
    node->w = w;
    node->id = w->next_node_id++;
    node->source = (struct net_addr){.family = AF_INET, .ip = {127, 0, 0, 1}};
    node->poked_ns = UINT64_MAX;
    node->ready.ready_next = &node->ready;
    node->ready.ready_prev = &node->ready;
    node->read_buf = sim__alloc(NET_READ_SIZE);
    w->nodes = realloc(w->nodes, (w->n_nodes + 1) * sizeof(struct sim_node *));
    ASSERT(w->nodes != NULL);
    w->nodes[w->n_nodes++] = node;
    loop_set_poller(l, &(struct loop_poller){.poll = node_poll, .ctx = node});
    return &node->net;
}

void sim_net_node_source(struct net *n, const struct net_addr *addr)
{
    from_net(n)->source = *addr;
}

/* What the kernel does with an end of a node that dies; c keeps its handle: its owner tears it down later. */
static void end_orphan(struct sim_end *end, struct sim_node *node, uint32_t index, enum sim_net_death how)
{
    struct net_conn *c;

    if (end->node != node) {
        const struct sim_claim *claim = end->claims;
        while (claim->node != node)
            claim = claim->next;
        c = claim->c;
        claim_drop(end, node, c);
    } else {
        c = end->c;
        if (how == SIM_NET_DEATH_HOST)
            sim__end_die(end);
        else if (how == SIM_NET_DEATH_LUCKY && end->claims == NULL)
            sim__end_close_lucky(end);
        else if (end->claims == NULL)
            sim__end_close(end, false);
        sim__end_detach(end);
    }
    c->handle = (int32_t)index + 1;
}

void sim_net_node_kill(struct net *n, enum sim_net_death how)
{
    struct sim_node *node = from_net(n);

    ASSERT(!node->w->stepping && !node->dead);
    if (node->accepting != NULL) {
        sim__end_close(&node->accepting->end[1], false);
        sim__pair_unref(node->accepting);
        node->accepting = NULL;
    }
    for (uint32_t i = 0; i < node->n_ends; i++) {
        if (node->ends[i] != NULL)
            end_orphan(node->ends[i], node, i, how);
    }
    for (uint32_t i = 0; i < node->n_listeners; i++) {
        if (node->listeners[i] == NULL)
            continue;
        struct sim_socket *s = node->listeners[i]->socket;
        for (struct sim_pair *p = s->first; how == SIM_NET_DEATH_HOST && s->refs == 1 && p != NULL;
             p = p->queue_next)
            sim__end_die(&p->end[1]);
        listener_detach(node, i);
    }
    node->dead = true;
    loop_set_poller(n->loop, NULL);
}

void sim_net_node_poke(struct net *n)
{
    struct sim_node *node = from_net(n);
    struct sim_net *w = node->w;

    if (node->dead)
        return;
    uint64_t at_ns = w->now_ns + (sim__chance(w, 50) ? 0 : sim__random(w, SIM_NET_POKE_NS_MAX + 1));
    if (at_ns < node->poked_ns)
        node->poked_ns = at_ns;
    sim__note(w, node->id, 0, 7000);
}

void sim_net_node_stop_within(struct net *n, unsigned calls)
{
    from_net(n)->calls_left = calls;
}

bool sim_net_node_has_stopped(const struct net *n)
{
    return ((const struct sim_node *)n)->stopped;
}

void sim_net_node_call(struct net *n)
{
    if (!from_net(n)->dead)
        sim__node_call(from_net(n));
}

void sim_net_node_freeze(struct net *n, uint64_t ns)
{
    from_net(n)->frozen_until_ns = from_net(n)->w->now_ns + ns;
}

void sim_net_node_fail_accepts(struct net *n, unsigned count, int err)
{
    from_net(n)->accepts_to_fail = count;
    from_net(n)->accept_err = err;
}

void sim_net_conn_reset(struct net *n, struct net_conn *c)
{
    struct sim_end *end = end_of(n, c);

    /* Both at once: what is scheduled before now keeps its place, and finds a connection that has failed. */
    for (unsigned side = 0; side < 2; side++)
        sim__schedule(end->pair->w, (struct sim_event){.at_ns = end->pair->w->now_ns,
                                                       .pair = end->pair,
                                                       .kind = SIM_RST,
                                                       .side = (uint8_t)side});
}

struct net *sim_net_conn_peer(struct net *n, const struct net_conn *c)
{
    struct sim_end *end = end_with(from_net(n), c);
    struct sim_node *peer = sim__end_other(end)->node;
    for (uint32_t i = 0; peer == NULL && i < end->pair->w->n_nodes; i++)
        if (end->pair->w->nodes[i]->accepting == end->pair)
            peer = end->pair->w->nodes[i];
    return peer != NULL ? &peer->net : NULL;
}

void sim_net_conn_cut(struct net *n, struct net_conn *c)
{
    sim__pair_cut(end_of(n, c)->pair);
}
