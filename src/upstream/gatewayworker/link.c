// SPDX-License-Identifier: MIT
/* One internal connection: bytes in, packets executed in order; packets and replies out, one write a turn. */
#include "upstream/gatewayworker/gatewayworker_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/assert.h"
#include "base/log.h"

/* Memory of an empty input buffer that is worth keeping between packets. */
#define LINK_INPUT_KEEP 65536
/* How long a peer gets to close after we have. */
#define LINK_END_MS 5000
/* Turns for which comings and goings of clients may be held back. */
#define HELD_TURNS_MAX 8
/* Elements that a table of links begins with. */
#define TABLE_FIRST 64
/* Packets executed between two looks at the clock. */
#define SLICE 64
/* Questions of one link that may wait for their answers. */
#define GATHERS_MAX 1000
/* Commands that a stand-in keeps before its original is told to wait. */
#define STAND_IN_INPUT_MAX (1u << 20)

static const struct net_conn_ops link_conn_ops;

const char *link_peer_text(const struct link *l)
{
    static char text[NET_ADDR_STRLEN];
    if (!l->is_stand_in)
        return net_addr_format(&l->peer, text, sizeof text);
    snprintf(text, sizeof text, "shard %u", l->shard);
    return text;
}

const char *link_sender(const struct link *l)
{
    return l->worker != NULL ? l->worker->key : link_peer_text(l);
}

const char *link_label(const struct link *l)
{
    return l->worker != NULL ? l->worker->label : "\"\"";
}

static void on_auth_timeout(struct timer *t)
{
    struct link *l = CONTAINER_OF(t, struct link, timer);
    if (l->gw->held) { /* it may have shown it, and not been read */
        link_set_auth_timer(l, GW_HELD_MS);
        return;
    }
    gw_count(l->gw, COUNTER_link_unauthorized, 1);
    LOG(LOG_WARN, "link_auth_timeout", "peer=%s", link_peer_text(l));
    link_close(l, false);
}

void link_set_auth_timer(struct link *l, uint64_t ms)
{
    timer_set(l->gw->up.host->loop, &l->timer, ms, on_auth_timeout);
}

static void on_end_timeout(struct timer *t)
{
    /* What the kernel still holds for a slow reader goes on without us. */
    link_close(CONTAINER_OF(t, struct link, timer), false);
}

static void on_failed(struct timer *t)
{
    struct link *l = CONTAINER_OF(t, struct link, timer);
    LOG(LOG_ERROR, "link_no_memory", "peer=%s", link_peer_text(l));
    link_close(l, true);
}

void link_publish_count(struct gatewayworker *gw)
{
    NODE_STORE(gw->shared->shards[gw->me].links, gw->n_here + gw->n_undecided);
}

void link_decided(struct link *l)
{
    if (l->decided)
        return;
    l->decided = true;
    l->gw->n_undecided--;
    link_publish_count(l->gw);
}

/* A number of its own. False without memory. */
static bool enter_table(struct link *l)
{
    struct gatewayworker *gw = l->gw;
    if (gw->n_links >= gw->cap_link_table) {
        gw->next_link_number = gw->cap_link_table;
        if (!array_reserve_at(&gw->link_table, gw->cap_link_table, &gw->cap_link_table, TABLE_FIRST))
            return false;
    }
    uint32_t at = gw->next_link_number;
    while (gw->link_table[at % gw->cap_link_table] != NULL)
        at++;
    l->number = at % gw->cap_link_table;
    gw->link_table[l->number] = l;
    gw->next_link_number = l->number + 1;
    return true;
}

/* NULL without memory. */
static struct link *link_new(struct gatewayworker *gw, const struct net_addr *peer)
{
    struct link *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->gw = gw;
    if (!enter_table(l)) {
        free(l);
        return NULL;
    }
    l->peer = *peer;
    list_init(&l->gathers);
    link_queue_init(&l->queue, gw->up.host->estate);
    gw->n_undecided++;
    link_publish_count(gw);
    l->conn.ops = &link_conn_ops;
    l->since_ms = l->read_ms = loop_now_ms(gw->up.host->loop);
    list_append(&gw->links, &l->node);
    if (++gw->n_links > gw->links_peak)
        gw->links_peak = gw->n_links;
    counter_set(gw->up.host->counters, COUNTER_links, gw->n_links);
    return l;
}

static struct net_conn *on_accepted(struct net_listener *listener, const struct net_addr *peer,
                                    const struct net_addr *local)
{
    struct gatewayworker *gw = CONTAINER_OF(listener, struct gatewayworker, listener);
    struct link *l = gw->n_links < gw_config(gw)->max_links ? link_new(gw, peer) : NULL;
    if (l == NULL) {
        gw_count(gw, COUNTER_link_refused, 1);
        LOG(LOG_WARN, "link_refused", "links=%u hint=\"raise max_links, or look who opens so many\"",
            gw->n_links);
        return NULL;
    }
    gw_count(gw, COUNTER_link_accepted, 1);
    l->authorized = gw_config(gw)->secret_key[0] == '\0';
    if (!l->authorized)
        link_set_auth_timer(l, gw_config(gw)->worker_auth_timeout * 1000);
    return &l->conn;
}

static void on_accept_failed(struct net_listener *listener, int err)
{
    struct gatewayworker *gw = CONTAINER_OF(listener, struct gatewayworker, listener);
    gw_count(gw, COUNTER_link_refused, 1);
    LOG(LOG_ERROR, "link_accept_failed", "error=\"%s\"", strerror(err));
}

static const struct net_listener_ops link_listener_ops = {on_accepted, on_accept_failed};

int link_listen(struct gatewayworker *gw, int internal_fd)
{
    struct net *net = gw->up.host->net;
    gw->listener.ops = &link_listener_ops;
    if (internal_fd >= 0)
        return net_listen_fd(net, &gw->listener, internal_fd);
    struct net_addr addr = {.family = AF_INET, .port = (uint16_t)gw_config(gw)->start_port};
    uint32_t ip = htonl(gw_config(gw)->lan_ip);
    memcpy(addr.ip, &ip, sizeof ip);
    return net_listen(net, &gw->listener, &addr, 1024);
}

static void leave_tables(struct link *l)
{
    struct gatewayworker *gw = l->gw;
    if (l->is_stand_in) {
        gw->peers[l->shard].stand_ins[l->number] = NULL;
        return;
    }
    link_decided(l);
    link_publish_count(gw);
    gw->link_table[l->number] = NULL;
    peer_link_gone(l);
    list_remove(&l->node);
    gw->n_links--;
    counter_set(gw->up.host->counters, COUNTER_links, gw->n_links);
}

/* The connection is released already: everything else of the link. */
static void link_release(struct link *l)
{
    struct gatewayworker *gw = l->gw;
    if (l->worker != NULL)
        worker_detach(l);
    gathers_free(l);
    if (l->job != NULL)
        job_free(l->job);
    timer_cancel(gw->up.host->loop, &l->timer);
    leave_tables(l);
    list_remove(&l->dirty);
    list_remove(&l->waiting);
    bytes_fini(&l->in);
    link_queue_fini(&l->queue);
    free(l->binds);
    free(l);
}

/* Its connection is closed. */
static void link_gone(struct link *l)
{
    gw_count(l->gw, COUNTER_link_closed, !l->is_stand_in);
    link_release(l);
}

void link_close(struct link *l, bool hard)
{
    if (!hard)
        link_flush(l);
    if (net_conn_is_open(&l->conn))
        net_close(l->gw->up.host->net, &l->conn, hard);
    link_gone(l);
}

void link_end(struct link *l)
{
    if (l->worker != NULL)
        worker_detach(l);
    link_publish_count(l->gw);
    link_flush(l);
    if (!net_conn_is_open(&l->conn))
        return; /* its work goes on without it, on_closed */
    l->ending = true;
    if (l->read_paused)
        net_read_resume(l->gw->up.host->net, &l->conn);
    net_shutdown(l->gw->up.host->net, &l->conn);
    timer_set(l->gw->up.host->loop, &l->timer, LINK_END_MS, on_end_timeout);
}

/* ---- out */

/* Where its queue has been written up to, on the scale of bytes_out. */
static uint64_t written_to(const struct link *l)
{
    return l->bytes_out - l->queue.bytes;
}

/* What is queued now is not written at once. */
static void waits(struct link *l)
{
    if (l->worker != NULL && l->queue.bytes > 0)
        meter_waits(&l->worker->meter, written_to(l), l->bytes_out, loop_now_ns(l->gw->up.host->loop));
}

/* Some of what was queued may be with the kernel now. By the turn's time: the clock itself is not read where
 * a message of another shard may be in our queue and in its ring too. */
static void written(struct link *l)
{
    struct meter *m = &l->worker->meter;
    if (m->n > 0)
        meter_written(m, written_to(l), l->bytes_out, loop_now_ns(l->gw->up.host->loop),
                      &l->gw->histograms->h[HISTOGRAM_worker_queue]);
    waits(l);
    steer_written(l->worker, written_to(l));
}

void link_touch(struct link *l)
{
    if (__builtin_expect(l->write_blocked, 0))
        waits(l);
    /* At the limit it is found out at once whether the peer reads, lest a single turn queue without bound. */
    if (l->queue.bytes >= gw_config(l->gw)->send_to_worker_buffer_size && !l->write_blocked)
        link_flush(l);
    else if (!list_is_linked(&l->dirty) && !l->write_blocked)
        list_append(&l->gw->dirty, &l->dirty);
    if (l->worker != NULL)
        worker_queue_changed(l->worker);
}

bool link_put_event(struct link *l, const struct gw_packet *p)
{
    size_t len = GW_HEAD_LEN + p->ext.len + p->body.len;
    uint8_t *at = link_queue_reserve(&l->queue, LINK_CHUNK_EVENTS, len);
    if (at == NULL)
        return false;
    gw_packet_encode_head(at, p);
    at += GW_HEAD_LEN;
    if (p->ext.len > 0)
        memcpy(at, p->ext.data, p->ext.len);
    if (p->body.len > 0)
        memcpy(at + p->ext.len, p->body.data, p->body.len);
    link_queue_commit(&l->queue);
    gw_count(l->gw, COUNTER_link_bytes_out, len);
    l->bytes_out += len;
    l->events_out++;
    l->grew = true;
    l->urgent |= p->cmd == GW_CMD_ON_MESSAGE;
    link_touch(l);
    return true;
}

bool link_put_packet(struct link *l, const uint8_t *packet, size_t len)
{
    uint8_t *at = link_queue_reserve(&l->queue, LINK_CHUNK_EVENTS, len);
    if (at == NULL)
        return false;
    memcpy(at, packet, len);
    link_queue_commit(&l->queue);
    gw_count(l->gw, COUNTER_link_bytes_out, len);
    l->bytes_out += len;
    l->events_out++;
    l->grew = true;
    l->urgent |= packet[4] == GW_CMD_ON_MESSAGE;
    link_touch(l);
    return true;
}

void link_put_reply(struct link *l, const struct slice *parts, unsigned n)
{
    size_t len = 0;
    for (unsigned i = 0; i < n; i++)
        len += parts[i].len;
    if (!net_conn_is_open(&l->conn))
        return; /* nobody is there to hear it */
    uint8_t *at = link_queue_reserve(&l->queue, LINK_CHUNK_REPLY, 4 + len);
    if (at == NULL) {
        timer_set(l->gw->up.host->loop, &l->timer, 0, on_failed);
        return;
    }
    gw_put_u32(at, (uint32_t)len);
    at += 4;
    for (unsigned i = 0; i < n; at += parts[i++].len)
        if (parts[i].len > 0)
            memcpy(at, parts[i].data, parts[i].len);
    link_queue_commit(&l->queue);
    gw_count(l->gw, COUNTER_link_bytes_out, 4 + len);
    l->bytes_out += 4 + len;
    gw_count(l->gw, COUNTER_link_replies, 1);
    l->urgent = true;
    link_touch(l);
}

/* Executes again what was read, as soon as the loop has time for it. */
static void wait_for_turn(struct link *l)
{
    if (!list_is_linked(&l->waiting))
        list_append(&l->gw->waiting, &l->waiting);
    loop_task_add(l->gw->up.host->loop, &l->gw->waiting_task);
}

/* Who asks faster than it reads the replies is not read; a worker's queue also holds events, which must not
 * stop its commands, so it gets twice as much. */
static bool replies_pile_up(const struct link *l)
{
    uint64_t limit = gw_config(l->gw)->send_to_worker_buffer_size;
    return l->queue.bytes > (l->worker != NULL ? 2 * limit : limit) && net_conn_is_open(&l->conn);
}

/* Writes until there is no room. An error is left to the read side: net tells it as closed(). */
void link_flush(struct link *l)
{
    bool some = l->queue.bytes > 0;
    list_remove(&l->dirty);
    l->urgent = l->grew = false;
    l->held_turns = 0;
    while (l->queue.bytes > 0 && !l->write_blocked && net_conn_is_open(&l->conn)) {
        struct iovec iov[NET_IOV_MAX];
        int n_iov = link_queue_iov(&l->queue, iov, NET_IOV_MAX);
        size_t asked = 0;
        for (int i = 0; i < n_iov; i++)
            asked += iov[i].iov_len;
        link_queue_expect(&l->queue);
        ssize_t n = net_writev(l->gw->up.host->net, &l->conn, iov, n_iov);
        link_queue_written(&l->queue, n > 0 ? (size_t)n : 0);
        if (n < 0)
            break;
        l->write_blocked = (size_t)n < asked;
    }
    if (l->read_paused && l->job == NULL && !replies_pile_up(l))
        wait_for_turn(l);
    if (l->worker == NULL)
        return;
    if (some)
        written(l);
    worker_queue_changed(l->worker);
}

static void on_writable(struct net_conn *c)
{
    struct link *l = CONTAINER_OF(c, struct link, conn);
    l->write_blocked = false;
    link_flush(l);
}

/* A write to a worker costs several times what an event does. In a storm of connects (or closes), where each
 * turn brings a few, they are held back while there are more to read, for HELD_TURNS_MAX turns; the loop does
 * not sleep meanwhile. */
static bool may_wait(struct link *l)
{
    bool wait = !l->urgent && l->grew && l->held_turns < HELD_TURNS_MAX;
    l->grew = false;
    l->held_turns++;
    return wait;
}

/* At the end of the turn. What was queued in it has waited since its begin, or less. */
static void flush_and_sample(struct link *l)
{
    struct loop *loop = l->gw->up.host->loop;
    struct meter *m = l->worker != NULL ? &l->worker->meter : NULL;
    bool is_new = m != NULL && m->n == 0;
    link_flush(l);
    if (is_new && l->queue.bytes == 0 && meter_samples(m))
        meter_sample(m, loop_clock_ns(loop) - loop_now_ns(loop),
                     &l->gw->histograms->h[HISTOGRAM_worker_queue]);
}

bool link_flush_all(struct loop_hook *hook)
{
    struct gatewayworker *gw = CONTAINER_OF(hook, struct gatewayworker, flush_hook);
    for (struct list *node = gw->dirty.next; node != &gw->dirty;) {
        struct link *l = CONTAINER_OF(node, struct link, dirty);
        node = node->next;
        if (!may_wait(l))
            flush_and_sample(l);
        else
            waits(l);
    }
    return !list_is_empty(&gw->dirty);
}

/* ---- in */

static bool no_room(const struct link *l)
{
    struct upstream_host *host = l->gw->up.host;
    return host->ops->room(host, false) == 0;
}

/* Other shards have to take, or to answer, something first. */
static bool waits_for_peers(const struct link *l)
{
    if (l->is_stand_in)
        return peer_is_crowded(l->gw, l->shard);
    return l->n_gathers >= GATHERS_MAX || (l->stopped_by | l->crowded_by) != 0;
}

static void pause_reading(struct link *l)
{
    if (!l->read_paused && net_conn_is_open(&l->conn))
        net_read_pause(l->gw->up.host->net, &l->conn);
    l->read_paused = true;
}

/* What it says is kept. One whose peer is gone finishes what it had asked for, and a stand-in what has been
 * sent. */
static bool is_held(const struct link *l)
{
    return __builtin_expect(l->gw->held, 0) && !l->is_stand_in && net_conn_is_open(&l->conn);
}

/* May the next packet run? If not, reading stops; whoever is waited for calls link_continue. */
static bool may_execute(struct link *l)
{
    if (!is_held(l) && l->job == NULL && !replies_pile_up(l) && !waits_for_peers(l)) {
        if (!no_room(l))
            return true;
        wait_for_turn(l); /* deliveries of this turn are used up */
    }
    pause_reading(l);
    return false;
}

static void bad_packet(struct link *l, ssize_t err, const uint8_t *data, size_t len)
{
    gw_count(l->gw, COUNTER_link_bad_packet, 1);
    LOG(LOG_WARN, "link_bad_packet", "peer=%s worker=%s error=\"%s\" begins=%s", link_peer_text(l),
        link_label(l),
        err == -EMSGSIZE ? "packet larger than worker_packet_size_max" : "lengths that do not fit the packet",
        log_quote(data, len < 28 ? len : 28));
}

/* Executes whole packets at the front of data. Bytes used; -1: the link was closed. */
static ssize_t execute_all(struct link *l, const uint8_t *data, size_t len)
{
    size_t used = 0;
    for (unsigned n_packets = 1; used < len && may_execute(l); n_packets++) {
        struct gw_packet p;
        ssize_t n = gw_packet_decode(data + used, len - used, gw_config(l->gw)->worker_packet_size_max, &p);
        if (n == 0)
            break;
        if (n < 0) {
            bad_packet(l, n, data + used, len - used);
            link_close(l, true);
            return -1;
        }
        if (__builtin_expect(l->binds != NULL, 0) && replace_must_wait(l, &p)) {
            pause_reading(l);
            break;
        }
        used += (size_t)n;
        l->packets_in++;
        gw_count(l->gw, COUNTER_link_packets_in, 1);
        if (!command_execute(l, &p))
            return -1;
        if (l->ending)
            return (ssize_t)len;
        if (n_packets % SLICE == 0 && loop_turn_left_ns(l->gw->up.host->loop) == 0) {
            wait_for_turn(l);
            pause_reading(l);
            break;
        }
    }
    return (ssize_t)used;
}

static void drop_executed(struct link *l)
{
    if (l->in_done == l->in.len) {
        l->in_done = 0;
        if (l->in.cap > LINK_INPUT_KEEP)
            bytes_fini(&l->in);
        else
            bytes_clear(&l->in);
    } else if (l->in_done > l->in.len / 2) {
        bytes_consume(&l->in, l->in_done);
        l->in_done = 0;
    }
}

/* Executes what is kept. False: the link was closed. */
static bool execute_kept(struct link *l)
{
    ssize_t used = execute_all(l, l->in.data + l->in_done, l->in.len - l->in_done);
    if (used < 0)
        return false;
    l->in_done += (size_t)used;
    drop_executed(l);
    return true;
}

static bool keep(struct link *l, const uint8_t *data, size_t len)
{
    if (len == 0 || bytes_append(&l->in, data, len))
        return true;
    LOG(LOG_ERROR, "link_no_memory", "peer=%s bytes=%zu", link_peer_text(l), len);
    link_close(l, true);
    return false;
}

static void on_data(struct net_conn *c, uint8_t *data, size_t len)
{
    struct link *l = CONTAINER_OF(c, struct link, conn);
    if (l->ending)
        return;
    gw_count(l->gw, COUNTER_link_bytes_in, len);
    l->bytes_in += len;
    l->read_ms = loop_now_ms(l->gw->up.host->loop);
    if (l->in.len > l->in_done) {
        if (keep(l, data, len))
            execute_kept(l);
        return;
    }
    ssize_t used = execute_all(l, data, len);
    if (used >= 0)
        keep(l, data + used, len - (size_t)used);
}

/* ---- stand-ins: l->in holds the number of the question before each packet */

struct link *link_stand_in(struct gatewayworker *gw, unsigned shard, uint32_t number)
{
    struct peer *peer = &gw->peers[shard];
    if (number < peer->cap_stand_ins && peer->stand_ins[number] != NULL)
        return peer->stand_ins[number];
    if (!array_reserve_at(&peer->stand_ins, number, &peer->cap_stand_ins, TABLE_FIRST))
        return NULL;
    struct link *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->gw = gw;
    l->is_stand_in = l->authorized = l->decided = true;
    l->shard = (uint8_t)shard;
    l->number = number;
    list_init(&l->gathers);
    peer->stand_ins[number] = l;
    return l;
}

static void stand_in_execute(struct link *l, uint32_t question, const uint8_t *packet, size_t len)
{
    struct gatewayworker *gw = l->gw;
    struct gw_packet p;
    if (gw_packet_decode(packet, len, len, &p) <= 0) {
        gw_count(gw, COUNTER_peer_bad_message, 1);
        return;
    }
    l->question = question;
    command_execute(l, &p);
    /* What its original has added is in our summary: it need not ask us for it any more. */
    if (p.cmd == GW_CMD_BIND_UID || p.cmd == GW_CMD_JOIN_GROUP) {
        uint64_t *done = &gw->shared->shards[gw->me].adds_done[l->shard];
        NODE_STORE(*done, *done + 1);
    }
}

void link_stand_in_command(struct link *l, uint32_t question, const uint8_t *packet, size_t len)
{
    if (l->in.len == l->in_done && may_execute(l)) {
        stand_in_execute(l, question, packet, len);
        return;
    }
    if (!bytes_append(&l->in, &question, sizeof question) || !bytes_append(&l->in, packet, len)) {
        counter_drop(l->gw->up.host->counters, DROP_no_memory);
        LOG(LOG_ERROR, "link_no_memory", "peer=%s bytes=%zu", link_peer_text(l), len);
        return;
    }
    if (!l->stopped && !l->forgotten && l->in.len - l->in_done > STAND_IN_INPUT_MAX) {
        l->stopped = true;
        peer_link_flow(l, true);
    }
}

static void stand_in_continue(struct link *l)
{
    for (unsigned n = 1; l->in_done < l->in.len && may_execute(l); n++) {
        uint32_t question;
        memcpy(&question, l->in.data + l->in_done, sizeof question);
        const uint8_t *packet = l->in.data + l->in_done + sizeof question;
        size_t len = gw_get_u32(packet);
        l->in_done += sizeof question + len;
        stand_in_execute(l, question, packet, len);
        if (n % SLICE == 0 && l->in_done < l->in.len && l->job == NULL &&
            loop_turn_left_ns(l->gw->up.host->loop) == 0) {
            wait_for_turn(l);
            return;
        }
    }
    if (l->in_done < l->in.len)
        return;
    drop_executed(l);
    if (l->forgotten && l->job == NULL) {
        link_release(l);
    } else if (l->stopped) {
        l->stopped = false;
        peer_link_flow(l, false);
    }
}

void link_stand_in_forget(struct link *l)
{
    l->forgotten = true;
    if (l->stopped) /* its number may be another link's already, which must not wait for us */
        peer_link_flow(l, false);
    l->stopped = false;
    if (l->job == NULL && l->in_done == l->in.len)
        link_release(l);
}

/* ---- going on */

void link_gathered(struct link *l)
{
    if (l->read_paused && l->job == NULL && !l->ending)
        wait_for_turn(l);
}

void link_continue(struct link *l)
{
    list_remove(&l->waiting);
    l->read_paused = false;
    if (l->is_stand_in) {
        stand_in_continue(l);
        return;
    }
    if (l->ending || !execute_kept(l))
        return;
    /* execute_kept pauses again only before a packet that it may not run; with nothing left to run, ask
     * again. */
    if (l->read_paused || !may_execute(l))
        return;
    if (net_conn_is_open(&l->conn))
        net_read_resume(l->gw->up.host->net, &l->conn);
    else
        link_gone(l); /* all that it had asked for is done */
}

/* ---- held, and handed over */

const char *link_unrest(const struct link *l)
{
    if (l->job != NULL)
        return "a command in slices";
    if (l->n_gathers > 0)
        return "a question to other shards";
    if (replace_is_under_way(l))
        return "a uid that another shard binds";
    if (timer_is_set(&l->timer) && l->timer.fn == on_failed)
        return "a link that had no memory";
    if (l->is_stand_in)
        return l->in_done < l->in.len ? "commands of another shard's link" : NULL;
    return net_conn_is_open(&l->conn) ? NULL : "commands of a link that has closed";
}

void link_go_on(struct link *l)
{
    if (l->ending)
        return;
    link_gathered(l);
    l->urgent = true; /* what another process had left to be written is old enough */
    if (l->queue.bytes > 0)
        link_touch(l);
}

struct link *link_take_over(struct gatewayworker *gw, int handle, const struct net_addr *peer, int *ret_err)
{
    struct net *net = gw->up.host->net;
    struct net_conn none = {.ops = &link_conn_ops};
    struct link *l = link_new(gw, peer);
    int err = net_take(net, l != NULL ? &l->conn : &none, handle);
    if (l != NULL && err == 0) {
        gw_count(gw, COUNTER_links_taken_over, 1);
        return l;
    }
    if (l != NULL)
        link_release(l);
    else if (err == 0)
        net_forget(net, &none);
    *ret_err = err != 0 ? err : -ENOMEM;
    return NULL;
}

bool link_put_input(struct link *l, struct slice in)
{
    if (in.len == 0)
        return true;
    pause_reading(l); /* link_continue first executes this */
    return bytes_append(&l->in, in.data, in.len);
}

void link_forget(struct link *l)
{
    ASSERT(l->worker == NULL && !l->is_stand_in);
    if (net_conn_is_open(&l->conn))
        net_forget(l->gw->up.host->net, &l->conn);
    l->visited = 0; /* nobody is told */
    link_release(l);
}

void link_moved(struct link *l)
{
    if (l->worker != NULL)
        worker_moved(l);
    peer_link_gone(l);
    link_forget(l);
}

bool link_run_waiting(struct loop_task *task)
{
    struct gatewayworker *gw = CONTAINER_OF(task, struct gatewayworker, waiting_task);
    /* Each once, in turn: those that must wait again join the end of the list. */
    struct list *last = gw->waiting.prev;
    while (!list_is_empty(&gw->waiting) && !no_room(CONTAINER_OF(gw->waiting.next, struct link, waiting))) {
        struct list *node = gw->waiting.next;
        link_continue(CONTAINER_OF(node, struct link, waiting));
        if (node == last)
            break;
    }
    return list_is_empty(&gw->waiting);
}

static void on_closed(struct net_conn *c, int err)
{
    struct link *l = CONTAINER_OF(c, struct link, conn);
    LOG(LOG_INFO, "link_closed", "peer=%s worker=%s error=\"%s\"", link_peer_text(l), link_label(l),
        err != 0 ? strerror(err) : "");
    /* What it sent before its end is done before it is forgotten: a GatewayClient sends and closes. */
    if (l->ending || (l->job == NULL && !l->read_paused)) {
        link_gone(l);
        return;
    }
    if (l->worker != NULL)
        worker_detach(l);
    timer_cancel(l->gw->up.host->loop, &l->timer);
    if (l->job == NULL)
        wait_for_turn(l);
}

static const struct net_conn_ops link_conn_ops = {
    .data = on_data, .writable = on_writable, .closed = on_closed};
