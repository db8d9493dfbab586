// SPDX-License-Identifier: MIT
/* What a shard takes over: records become clients. The shard is held meanwhile: nothing is read or written,
 * no worker is told. */
#include "shard/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/array.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/pool.h"
#include "shard/shard_priv.h"
#include "tls/tls.h"

/* Clients that go on between two looks at the clock. */
#define GO_ON_SLICE 64

struct shard_import {
    struct {
        uint64_t records[2];
        bool ended[2];
    } from[NODE_SHARDS_MAX];
    unsigned n_ended[2];
    uint64_t workers;                /* of the whole node */
    struct shard_listener *listener; /* of the last client: mostly that of the next one, too */
    /* Clients with something to do that no event will tell of: bytes that were kept, ciphertext that waits.
     */
    struct client **waiting;
    uint32_t n_waiting, cap_waiting;
    struct loop_task go_on;
    struct shard *shard;
    enum node_drained drained; /* what the shard of this one's number was */
    uint64_t takers;           /* shards that were not drained, a bit each */
    bool within;               /* its givers are of its own node, and live on */
    struct client **taken;     /* within: who has come */
    uint32_t n_taken, cap_taken;
};

static struct shard_import *need_import(struct shard *s)
{
    if (s->import == NULL)
        s->import = calloc(1, sizeof *s->import);
    if (s->import != NULL)
        s->import->shard = s;
    return s->import;
}

static void import_free(struct shard *s)
{
    if (s->import == NULL)
        return;
    loop_task_remove(s->host.loop, &s->import->go_on);
    free(s->import->waiting);
    free(s->import->taken);
    free(s->import);
    s->import = NULL;
}

static uint64_t get_u64(const uint8_t *le)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)le[i] << 8 * i;
    return v;
}

/* ---- the shard that hands over */

static void add_counter(struct shard *s, struct slice name, uint64_t value)
{
    for (unsigned i = 0; i < COUNTER_N; i++)
        if (counter_infos[i].kind != COUNTER_KIND_GAUGE && slice_eq_str(name, counter_infos[i].name))
            counter_add(s->host.counters, (enum counter_id)i, value);
}

static int add_counters(struct shard *s, struct slice list)
{
    struct slice name, value;
    int r;
    while ((r = transfer_list_next(&list, &name)) == 1) {
        if (transfer_list_next(&list, &value) != 1 || value.len != 8)
            return -EBADMSG;
        add_counter(s, name, get_u64(value.data));
    }
    return r;
}

static void restore_ages(struct age_log *a, const struct transfer_shard *t, uint32_t second,
                         int64_t now_unix_s)
{
    age_init(a, (uint32_t)t->next_seq, second);
    uint64_t now = a->seq + CONNECTION_SEQ_MASK; /* running numbers are only compared with each other */
    a->seq = now;
    a->n = 0;
    for (size_t at = 0; at + 16 <= t->ages.len && a->n < AGE_MARKS; at += 16) {
        uint64_t back = get_u64(t->ages.data + at);
        int64_t ago_s = now_unix_s - (int64_t)(get_u64(t->ages.data + at + 8) / 1000);
        ago_s = ago_s < 0 ? 0 : ago_s < (int64_t)second ? ago_s : (int64_t)second;
        a->marks[a->n++] = (struct age_mark){now - (back < now ? back : now), second - (uint32_t)ago_s};
    }
    if (a->n == 0)
        a->marks[a->n++] = (struct age_mark){now, second};
}

/* Ids go on where they stopped, also those of shards that are no more. */
static void take_ids(struct shard *s, const struct transfer_shard *t)
{
    unsigned row = (unsigned)t->shard;
    struct shard_shm *shm = row == s->number    ? s->shm
                            : s->shm_of != NULL ? s->shm_of(s->wake_ctx, row)
                                                : NULL;
    if (shm == NULL)
        return;
    __atomic_store_n(&shm->next_seq, (uint32_t)t->next_seq, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < SHARD_ID_BLOCKS && 8 * i + 8 <= t->left_unix_s.len; i++)
        __atomic_store_n(&shm->id_block_left_unix_s[i], (int64_t)get_u64(t->left_unix_s.data + 8 * i),
                         __ATOMIC_RELAXED);
    if (row == s->number)
        directory_set_next_seq(s->host.directory, (uint32_t)t->next_seq);
}

static int import_shard(struct shard *s, const struct transfer_shard *t)
{
    uint32_t second = (uint32_t)(loop_now_ms(s->host.loop) / 1000);
    if (t->shard >= NODE_SHARDS_MAX || t->next_seq == 0 || t->next_seq > CONNECTION_SEQ_MASK)
        return -EBADMSG;
    bool is_heir = t->shard % s->host.node->n_shards == s->number;
    struct age_log *ages = t->shard == s->number ? &s->ages : malloc(sizeof *ages);
    if (ages == NULL)
        return -ENOMEM;
    restore_ages(ages, t, second, s->now_unix_s);
    if (ages != &s->ages) {
        free(s->ages_of[t->shard]);
        s->ages_of[t->shard] = ages;
    }
    if (s->import->within)
        return 0;
    if (t->uid_binds > NODE_LOAD(s->shared->uid_binds))
        NODE_STORE(s->shared->uid_binds, t->uid_binds); /* of all that say so it is the same number */
    if (t->drained == NODE_NOT_DRAINED)
        s->import->takers |= UINT64_C(1) << t->shard;
    else if (t->shard == s->number)
        s->import->drained = t->drained == NODE_EVACUATED ? NODE_EVACUATED : NODE_DRAINED;
    if (!is_heir)
        return 0;
    take_ids(s, t);
    return add_counters(s, t->counters);
}

uint32_t shard_age_of(const struct shard *s, uint32_t id)
{
    uint32_t second = (uint32_t)(loop_now_ms(s->host.loop) / 1000);
    unsigned row = id >> CONNECTION_SEQ_BITS;
    const struct age_log *a = row != s->number ? s->ages_of[row] : NULL;
    return a != NULL ? age_of(a, id, a->next_seq, second)
                     : age_of(&s->ages, id, directory_next_seq(s->host.directory), second);
}

/* ---- parts of a client */

static struct shard_listener *find_listener(struct shard *s, struct slice name)
{
    struct shard_import *in = s->import;
    if (in->listener != NULL && slice_eq_str(name, in->listener->config->name))
        return in->listener;
    for (unsigned i = 0; i < s->n_listeners; i++) {
        struct shard_listener *l = &s->listeners[i];
        if (l->config != NULL && slice_eq_str(name, l->config->name))
            return in->listener = l;
    }
    return NULL;
}

static void set_flags(struct client *c, uint64_t f)
{
    c->got_byte = (f & TRANSFER_GOT_BYTE) != 0;
    c->deaf = (f & TRANSFER_DEAF) != 0;
    c->close_sent = (f & TRANSFER_CLOSE_SENT) != 0;
    c->close_received = (f & TRANSFER_CLOSE_RECEIVED) != 0;
    c->fin_sent = (f & TRANSFER_FIN_SENT) != 0;
    c->address_open = (f & TRANSFER_ADDRESS_OPEN) != 0;
    c->broken = (f & TRANSFER_BROKEN) != 0;
}

static bool get_ws(struct slice fields, struct ws_decoder *d)
{
    struct transfer_ws_decoder t;
    if (transfer_get_ws_decoder(fields, &t) < 0 || t.header.len > sizeof d->header ||
        t.control.len > sizeof d->control || (t.key.len != 0 && t.key.len != sizeof d->key))
        return false;
    ws_decoder_init(d);
    d->opcode = (uint8_t)t.opcode;
    d->frame = (uint8_t)t.frame;
    d->first = (uint8_t)t.first;
    d->text_state = (uint8_t)t.text_state;
    d->compressed = t.compressed != 0;
    d->fragments = (uint32_t)t.fragments;
    d->left = t.left;
    d->message_len = t.message_len;
    d->header_len = (uint8_t)t.header.len;
    d->control_len = (uint8_t)t.control.len;
    if (t.header.len > 0)
        memcpy(d->header, t.header.data, t.header.len);
    if (t.control.len > 0)
        memcpy(d->control, t.control.data, t.control.len);
    if (t.key.len > 0)
        memcpy(&d->key, t.key.data, t.key.len);
    return true;
}

static int import_input(struct client *c, const struct transfer_client *t, uint32_t now)
{
    if (t->raw.len == 0 && t->message.len == 0 && t->ws_decoder.len == 0)
        return 0;
    struct client_in *in = c->in = calloc(1, sizeof *in);
    if (in == NULL)
        return -ENOMEM;
    in->since_ms = now - (uint32_t)t->message_ago_ms;
    in->scanned = t->raw_scanned <= t->raw.len ? t->raw_scanned : 0;
    in->compressed = t->message_compressed != 0;
    if ((t->raw.len > 0 && !bytes_append(&in->raw, t->raw.data, t->raw.len)) ||
        (t->message.len > 0 && !bytes_append(&in->message, t->message.data, t->message.len)))
        return -ENOMEM;
    in->held = in->raw.cap + in->message.cap;
    client_shard(c)->input_bytes += in->held;
    return t->ws_decoder.len == 0 || get_ws(t->ws_decoder, &in->ws) ? 0 : -EBADMSG;
}

static int import_out(struct client *c, const struct transfer_client *t)
{
    struct slice list = t->out, one;
    int r;
    while ((r = transfer_list_next(&list, &one)) == 1) {
        if (one.len < 2 || one.len - 1 > BUF_CAP_MAX)
            return -EBADMSG;
        struct buf *b = buf_new(one.len - 1);
        if (b == NULL)
            return -ENOMEM;
        b->flags = one.data[0] & (OUT_CONTROL | OUT_STREAM);
        b->len = (uint32_t)(one.len - 1);
        memcpy(b->data, one.data + 1, b->len);
        if (!client_queue_restore(c, b))
            return -ENOMEM;
    }
    if (r == 0 && t->out_written > 0 && !client_queue_skip(c, t->out_written))
        return -EBADMSG;
    return r;
}

static int import_deflate(struct client *c, struct slice fields)
{
    struct transfer_deflate t;
    if (transfer_get_deflate(fields, &t) < 0 || t.window_bits < WINDOW_BITS_MIN || t.window_bits > 15 ||
        t.client_window_bits < WINDOW_BITS_MIN || t.client_window_bits > 15 || t.window.len > WS_WINDOW_MAX)
        return -EBADMSG;
    struct ws_deflate_params params = {.takeover = t.takeover != 0,
                                       .client_takeover = t.client_takeover != 0,
                                       .window_bits = (uint8_t)t.window_bits,
                                       .client_window_bits = (uint8_t)t.client_window_bits};
    return client_deflate_restore(c, &params, t.window);
}

static int import_edge(struct client *c, const struct transfer_client *t, uint32_t now)
{
    int err = t->deflate.len > 0 ? import_deflate(c, t->deflate) : 0;
    if (err == 0 && t->rate_left_ms > 0)
        err = client_rate_restore(c, now + (uint32_t)t->rate_left_ms);
    if (err == 0 && (t->tls.len > 0 || t->tls_in.len > 0))
        err = client_tls_restore(c, t->tls, t->tls_in, now - (uint32_t)t->record_ago_ms);
    return err;
}

static int import_names(struct client *c, const struct transfer_client *t)
{
    struct directory *d = client_shard(c)->host.directory;
    struct member *m = &c->up.member;
    struct slice list = t->groups, name;
    int r = t->has_uid ? directory_uid_bind(d, m, t->uid.data, t->uid.len) : 0;
    if (r == 0 && t->session.len > 0)
        r = directory_session_set(d, m, t->session.data, t->session.len);
    while (r == 0 && (r = transfer_list_next(&list, &name)) == 1)
        r = directory_group_join(d, m, name.data, name.len);
    return r;
}

static int import_member(struct client *c, unsigned from, const struct transfer_client *t)
{
    struct shard *s = client_shard(c);
    int err = directory_add_as(s->host.directory, &c->up.member, (uint32_t)t->id);
    if (err != 0)
        return err;
    client_restore_announced(c);
    err = import_names(c, t);
    return err == 0 ? upstream_import_client(s->upstream, from, &c->up, t) : err;
}

/* ---- a client */

static bool makes_sense(const struct shard_listener *l, const struct transfer_client *t)
{
    bool has_tls = l->tls != NULL, is_websocket = l->config->protocol == PROTOCOL_WEBSOCKET;
    return t->state <= CLIENT_CLOSING && t->id <= UINT32_MAX && has_tls == ((t->flags & TRANSFER_TLS) != 0) &&
           (t->state != CLIENT_TLS || has_tls) && (t->state != CLIENT_HANDSHAKE || is_websocket) &&
           (t->id != 0) == ((t->flags & TRANSFER_ANNOUNCED) != 0);
}

/* What no event of the net will bring about once the shard is not held any more. */
static bool has_to_go_on(const struct client *c, const struct transfer_client *t)
{
    bool was_paused = (t->flags & TRANSFER_READ_PAUSED) != 0 && !client_is_paused(c);
    return (was_paused && c->state != CLIENT_CLOSING) || !client_tls_is_flushed(c) || t->tls_in.len > 0;
}

static int fill(struct client *c, unsigned from, const struct transfer_client *t, const struct net_addr *peer)
{
    struct shard *s = client_shard(c);
    uint32_t now = shard_now_ms(s);
    c->state = (uint8_t)t->state;
    c->up.peer = *peer;
    c->up.gateway_port = (uint16_t)t->gateway_port;
    set_flags(c, t->flags);
    c->since_ms = now - (uint32_t)t->state_ago_ms;
    c->last_read_ms = now - (uint32_t)t->read_ago_ms;
    c->silent_beats = (int16_t)(t->silent_beats - 1);
    c->control_second = s->second;
    c->control_count = (uint16_t)t->control_frames;
    client_restore_begun(c, (t->flags & TRANSFER_REFUSAL) != 0);
    int err = import_input(c, t, now);
    if (err == 0)
        err = import_out(c, t);
    if (err == 0)
        err = import_edge(c, t, now);
    if (err == 0 && t->id != 0)
        err = import_member(c, from, t);
    return err;
}

/* Not read until its turn has come: what it sends now comes behind what was kept. */
static bool wait_to_go_on(struct client *c)
{
    struct shard_import *in = client_shard(c)->import;
    if (!array_reserve_one(&in->waiting, in->n_waiting, &in->cap_waiting, 64))
        return false;
    in->waiting[in->n_waiting++] = c;
    net_read_pause(client_shard(c)->host.net, &c->conn);
    return true;
}

static bool remember_taken(struct shard_import *in, struct client *c)
{
    if (!array_reserve_one(&in->taken, in->n_taken, &in->cap_taken, 64))
        return false;
    in->taken[in->n_taken++] = c;
    return true;
}

static int import_client(struct shard *s, unsigned from, const struct transfer_client *t, int handle,
                         const char **ret_why)
{
    struct shard_listener *l = find_listener(s, t->listener);
    struct net_addr peer;
    struct client *c = NULL;
    int err = -EBADMSG;
    if (l == NULL)
        *ret_why = "there is no listener of that name any more";
    else if (!makes_sense(l, t))
        *ret_why = "the listener of that name is another one now: protocol or TLS";
    else if (!(t->flags & TRANSFER_REFUSAL) && s->n_clients - s->n_refusals >= s->max_clients)
        *ret_why = "there are more clients than it may have (max_connections)";
    else if (handle >= 0 && (err = transfer_get_address(t->peer, &peer)) == 0)
        c = client_new(l, &peer);
    if (c == NULL) {
        if (handle >= 0)
            net_drop(s->host.net, handle);
        return err != 0 ? err : -ENOMEM;
    }
    err = net_take(s->host.net, &c->conn, handle);
    if (err != 0) {
        client_free(c);
        return err;
    }
    if (s->import->within && !remember_taken(s->import, c))
        return -ENOMEM;
    err = fill(c, from, t, &peer);
    if (err != 0)
        return err; /* it goes with all others: shard_forget */
    if (client_is_paused(c))
        net_read_pause(s->host.net, &c->conn);
    if (has_to_go_on(c, t) && !wait_to_go_on(c))
        return -ENOMEM;
    if (c->out_first != NULL || c->state == CLIENT_CLOSING)
        client_mark_dirty(c);
    client_arm(c);
    shard_count(s, COUNTER_clients_taken_over, 1);
    return 0;
}

/* ---- records */

static int import_end(struct shard *s, unsigned from, const struct transfer_end *t)
{
    struct shard_import *in = s->import;
    unsigned i = (unsigned)t->phase - 1;
    if (t->phase < 1 || t->phase > 2 || in->from[from].ended[i] || in->from[from].records[i] != t->records)
        return -EBADMSG;
    in->from[from].ended[i] = true;
    in->n_ended[i]++;
    if (i == 0)
        in->workers += t->workers;
    return 0;
}

static int import_one(struct shard *s, unsigned from, const struct transfer_record *r, const char **ret_why)
{
    struct shard_import *in = s->import;
    struct transfer_shard shard;
    struct transfer_client client;
    struct transfer_end end;
    int err;
    if (r->type == TRANSFER_TYPE_end)
        return (err = transfer_get_end(r->fields, &end)) == 0 ? import_end(s, from, &end) : err;
    in->from[from].records[in->from[from].ended[0] ? 1 : 0]++;
    switch (r->type) {
    case TRANSFER_TYPE_shard:
        return (err = transfer_get_shard(r->fields, &shard)) == 0 ? import_shard(s, &shard) : err;
    case TRANSFER_TYPE_client:
        err = transfer_get_client(r->fields, &client);
        return err == 0 ? import_client(s, from, &client, r->handle, ret_why) : err;
    case TRANSFER_TYPE_worker:
    case TRANSFER_TYPE_link:
    case TRANSFER_TYPE_homeless: return upstream_import(s->upstream, from, r);
    default: *ret_why = "a record of a kind that is not known here"; return -EPROTO;
    }
}

int shard_import(struct shard *s, unsigned from, const struct transfer_record *r, const char **ret_why)
{
    *ret_why = NULL;
    int err = need_import(s) == NULL    ? -ENOMEM
              : from >= NODE_SHARDS_MAX ? -EBADMSG
                                        : import_one(s, from, r, ret_why);
    if (err != 0 && *ret_why == NULL)
        *ret_why = strerror(-err);
    return err;
}

int shard_import_begin(struct shard *s)
{
    ASSERT(s->import == NULL); /* shard_unrest */
    if (need_import(s) == NULL)
        return -ENOMEM;
    s->import->within = true;
    return 0;
}

void shard_forget_taken(struct shard *s)
{
    struct shard_import *in = s->import;
    s->import = NULL; /* nobody of them is looked for in its lists */
    while (in != NULL && in->n_taken > 0)
        client_forget(in->taken[--in->n_taken]);
    upstream_forget_taken(s->upstream);
    s->import = in;
    import_free(s);
}

bool shard_has_imported(const struct shard *s, unsigned phase, unsigned n_senders)
{
    const struct shard_import *in = s->import;
    if (in == NULL || in->n_ended[phase - 1] < n_senders)
        return n_senders == 0;
    return phase == 2 || in->within || upstream_workers(s->upstream) >= in->workers;
}

/* ---- the end of it */

/* Reads, or writes, where it stopped. Somebody who left meanwhile has taken himself off the list. */
static void client_goes_on(struct client *c)
{
    if (!client_is_paused(c))
        net_read_resume(client_shard(c)->host.net, &c->conn);
    if (c->state == CLIENT_TLS) {
        client_tls_go_on(c);
        return;
    }
    if (!client_tls_is_flushed(c))
        client_on_writable(&c->conn);
    if (c->state != CLIENT_CLOSING && !client_is_paused(c))
        client_resume(&c->up);
}

static bool go_on_slice(struct loop_task *task)
{
    struct shard_import *in = CONTAINER_OF(task, struct shard_import, go_on);
    for (unsigned n = 1; in->n_waiting > 0; n++) {
        struct client *c = in->waiting[--in->n_waiting];
        if (c != NULL)
            client_goes_on(c);
        if (n % GO_ON_SLICE == 0 && loop_turn_left_ns(in->shard->host.loop) == 0)
            return false;
    }
    import_free(in->shard);
    return true;
}

void shard_import_forget_client(struct client *c)
{
    struct shard_import *in = client_shard(c)->import;
    for (uint32_t i = 0; i < in->n_waiting; i++)
        if (in->waiting[i] == c)
            in->waiting[i] = NULL;
}

/* Of this shard from now on. With fewer shards than before, those that took clients may all be gone: then who
 * was drained takes them. Were all of them drained (tgg ctl drain node), new ones are, too. One that was
 * evacuated is no more when other shards or roles have given it ids. */
static enum node_drained drained_now(const struct shard_import *in)
{
    const struct node_home *home = &in->shard->shared->home;
    if (in->drained == NODE_EVACUATED &&
        memchr(home->shard, (int)in->shard->number, sizeof home->shard) != NULL)
        return NODE_NOT_DRAINED;
    uint64_t left = in->takers & (UINT64_MAX >> (NODE_SHARDS_MAX - in->shard->host.node->n_shards));
    if (in->takers == 0)
        return in->drained != NODE_NOT_DRAINED ? in->drained : NODE_DRAINED;
    return left != 0 ? in->drained : NODE_NOT_DRAINED;
}

void shard_import_done(struct shard *s)
{
    upstream_import_done(s->upstream);
    if (s->import == NULL)
        return;
    if (!s->import->within)
        shard_set_drained(s, drained_now(s->import));
    s->import->go_on.run = go_on_slice;
    loop_task_add(s->host.loop, &s->import->go_on);
}

void shard_import_fini(struct shard *s)
{
    import_free(s);
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++)
        free(s->ages_of[i]);
    memset(s->ages_of, 0, sizeof s->ages_of);
}
