// SPDX-License-Identifier: MIT
/* What a shard hands over: its clients as records. Nothing changes here until shard_forget. */
#include "shard/transfer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/pool.h"
#include "shard/shard_priv.h"
#include "tls/tls.h"

static_assert(CLIENT_PREAMBLE == 0 && CLIENT_TLS == 1 && CLIENT_HANDSHAKE == 2 && CLIENT_OPEN == 3 &&
                  CLIENT_CLOSING == 4,
              "states are numbered as in transfer_records.h");

/* Counts what goes to each shard: the end of a phase says how many records there were. */
struct counted_sink {
    struct transfer_sink sink;
    struct transfer_sink *next;
    uint64_t takers; /* who else is there gets nothing */
    uint64_t records[NODE_SHARDS_MAX];
};

static int counted_put(struct transfer_sink *s, unsigned to, struct slice record, int handle)
{
    struct counted_sink *c = CONTAINER_OF(s, struct counted_sink, sink);
    if ((c->takers >> to & 1) == 0)
        return 0;
    c->records[to]++;
    return c->next->put(c->next, to, record, handle);
}

/* Memory of the parts of one record, kept from client to client. */
struct scratch {
    struct bytes record, peer, groups, out, ws, deflate, tls;
};

static void scratch_fini(struct scratch *x)
{
    bytes_wipe(&x->record);
    bytes_fini(&x->peer);
    bytes_fini(&x->groups);
    bytes_fini(&x->out);
    bytes_fini(&x->ws);
    bytes_fini(&x->deflate);
    bytes_wipe(&x->tls); /* keys, as in the record */
}

static bool put_u64(struct bytes *b, uint64_t v)
{
    uint8_t le[8];
    for (unsigned i = 0; i < 8; i++)
        le[i] = (uint8_t)(v >> 8 * i);
    return bytes_append(b, le, sizeof le);
}

static struct slice slice_of(const struct bytes *b)
{
    return (struct slice){b->data, b->len};
}

/* ---- who can be handed over */

/* The server has spoken in its TLS handshake, and the client has not finished it: only the process that began
 * it can end it. Nor one whose TLS has failed: it is about to be closed. */
static bool must_stay(const struct client *c)
{
    const struct tls_conn *t = c->edge != NULL ? c->edge->tls : NULL;
    if (!c->has_tls || t == NULL)
        return false;
    return tls_conn_has_begun(t) && !tls_conn_can_export(t);
}

uint32_t shard_handshakes(const struct shard *s)
{
    uint64_t n = s->n_tls_begun + s->n_tls_waiting;
    for (unsigned i = 0; s->shm_of != NULL && i < s->host.node->n_shards; i++) {
        const struct shard_shm *shm = i != s->number ? s->shm_of(s->wake_ctx, i) : NULL;
        if (shm != NULL)
            n += counter_get(&shm->counters, COUNTER_tls_handshakes_begun) +
                 counter_get(&shm->counters, COUNTER_tls_handshakes_waiting);
    }
    return (uint32_t)n;
}

/* Of those who must stay, those whose end nobody has counted yet. */
static uint64_t count_left_out(const struct shard *s)
{
    uint64_t n = 0;
    for (uint32_t i = 0; s->n_tls > 0 && i < s->n_clients; i++)
        n += s->clients[i]->state != CLIENT_CLOSING && must_stay(s->clients[i]);
    return n;
}

/* ---- the shard */

static void put_ages(struct bytes *b, const struct shard *s, int64_t now_unix_ms)
{
    const struct age_log *a = &s->ages;
    uint32_t second = (uint32_t)(loop_now_ms(s->host.loop) / 1000);
    uint64_t now = a->seq + ((directory_next_seq(s->host.directory) - a->next_seq) & CONNECTION_SEQ_MASK);
    for (uint32_t i = 0; i < a->n; i++) {
        put_u64(b, now - a->marks[i].seq);
        put_u64(b, (uint64_t)(now_unix_ms - (int64_t)(second - a->marks[i].second) * 1000));
    }
}

static void put_counters(struct bytes *b, const struct shard *s)
{
    uint64_t left_out = count_left_out(s);
    for (unsigned i = 0; i < COUNTER_N; i++) {
        uint64_t v = counter_get(s->host.counters, (enum counter_id)i);
        struct bytes value = {0};
        if (i == COUNTER_CLOSE_FIRST + CLOSE_upgrade)
            v += left_out;
        if (v == 0 || counter_infos[i].kind == COUNTER_KIND_GAUGE)
            continue;
        put_u64(&value, v);
        transfer_list_add(b, counter_infos[i].name, strlen(counter_infos[i].name));
        transfer_list_add(b, value.data, value.len);
        b->failed |= value.failed;
        bytes_fini(&value);
    }
}

static int export_shard(struct shard *s, const struct transfer_plan *plan, struct transfer_sink *sink)
{
    struct bytes left = {0}, ages = {0}, counters = {0}, record = {0};
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    for (unsigned i = 0; i < SHARD_ID_BLOCKS; i++)
        put_u64(&left, (uint64_t)s->shm->id_block_left_unix_s[i]);
    put_ages(&ages, s, (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
    put_counters(&counters, s);
    struct transfer_shard t = {
        .shard = s->number,
        .next_seq = directory_next_seq(s->host.directory),
        .left_unix_s = slice_of(&left),
        .ages = slice_of(&ages),
        .counters = slice_of(&counters),
        .drained = s->drained,
        .uid_binds = NODE_LOAD(s->shared->uid_binds),
    };
    bool ok = !left.failed && !ages.failed && !counters.failed && transfer_put_shard(&record, &t);
    int err = ok ? transfer_put_all(sink, plan, slice_of(&record)) : -ENOMEM;
    bytes_fini(&left);
    bytes_fini(&ages);
    bytes_fini(&counters);
    bytes_fini(&record);
    return err;
}

static int export_end(unsigned phase, uint64_t workers, const struct transfer_plan *plan,
                      struct counted_sink *sink)
{
    struct bytes record = {0};
    int err = 0;
    for (unsigned to = 0; to < plan->n_shards && err == 0; to++) {
        if ((sink->takers >> to & 1) == 0)
            continue;
        struct transfer_end t = {.phase = phase, .records = sink->records[to], .workers = workers};
        bytes_clear(&record);
        err =
            transfer_put_end(&record, &t) ? sink->next->put(sink->next, to, slice_of(&record), -1) : -ENOMEM;
    }
    bytes_fini(&record);
    return err;
}

/* ---- a client */

static uint64_t flags_of(const struct client *c)
{
    uint64_t f = 0;
    f |= c->announced ? TRANSFER_ANNOUNCED : 0;
    f |= c->got_byte ? TRANSFER_GOT_BYTE : 0;
    f |= c->deaf ? TRANSFER_DEAF : 0;
    f |= c->close_sent ? TRANSFER_CLOSE_SENT : 0;
    f |= c->close_received ? TRANSFER_CLOSE_RECEIVED : 0;
    f |= c->fin_sent ? TRANSFER_FIN_SENT : 0;
    f |= c->counted ? TRANSFER_COUNTED : 0;
    f |= c->address_open ? TRANSFER_ADDRESS_OPEN : 0;
    f |= c->is_refusal ? TRANSFER_REFUSAL : 0;
    f |= c->has_tls ? TRANSFER_TLS : 0;
    f |= c->broken ? TRANSFER_BROKEN : 0;
    return f;
}

static void put_ws(struct bytes *b, const struct ws_decoder *d)
{
    struct transfer_ws_decoder t = {
        .opcode = d->opcode,
        .frame = d->frame,
        .first = d->first,
        .text_state = d->text_state,
        .compressed = d->compressed,
        .header = {d->header, d->header_len},
        .key = {(const uint8_t *)&d->key, sizeof d->key},
        .fragments = d->fragments,
        .left = d->left,
        .message_len = d->message_len,
        .control = {d->control, d->control_len},
    };
    transfer_put_ws_decoder_fields(b, &t);
}

static void put_deflate(struct bytes *b, const struct client_edge *e)
{
    uint8_t window[WS_WINDOW_MAX];
    struct transfer_deflate t = {
        .takeover = e->deflate.takeover,
        .client_takeover = e->deflate.client_takeover,
        .window_bits = e->deflate.window_bits,
        .client_window_bits = e->deflate.client_window_bits,
    };
    if (e->inflater != NULL)
        t.window = (struct slice){window, ws_inflater_window(e->inflater, window)};
    transfer_put_deflate_fields(b, &t);
}

static void put_out(struct bytes *b, const struct client *c)
{
    for (const struct out_ref *ref = c->out_first; ref != NULL; ref = ref->next) {
        uint8_t flags = (uint8_t)ref->buf->flags;
        struct slice parts[] = {{&flags, 1}, {ref->buf->data, ref->buf->len}};
        transfer_list_add_parts(b, parts, 2);
    }
}

static void put_groups(struct bytes *b, const struct member *m)
{
    for (uint32_t i = 0; i < m->n_memberships; i++) {
        size_t len;
        const uint8_t *name = group_name(m->memberships[i].group, &len);
        transfer_list_add(b, name, len);
    }
}

static void fill_input(const struct client *c, struct scratch *x, struct transfer_client *t, uint32_t now)
{
    const struct client_in *in = c->in;
    if (in == NULL)
        return;
    t->raw = slice_of(&in->raw);
    t->raw_scanned = in->scanned;
    t->message = slice_of(&in->message);
    t->message_compressed = in->compressed;
    t->message_ago_ms = now - in->since_ms;
    if (!ws_decoder_idle(&in->ws)) {
        put_ws(&x->ws, &in->ws);
        t->ws_decoder = slice_of(&x->ws);
    }
}

static int fill_edge(const struct client *c, struct scratch *x, struct transfer_client *t, uint32_t now)
{
    const struct client_edge *e = c->edge;
    if (e == NULL)
        return 0;
    if (c->has_deflate) {
        put_deflate(&x->deflate, e);
        t->deflate = slice_of(&x->deflate);
    }
    if (c->rate_paused)
        t->rate_left_ms = (int32_t)(e->rate_until_ms - now) > 0 ? e->rate_until_ms - now : 1;
    if (e->record_held > 0)
        t->record_ago_ms = now - e->record_since_ms;
    if (e->tls == NULL)
        return 0;
    if (!tls_conn_has_begun(e->tls)) {
        t->tls_in = tls_conn_kept_bytes(e->tls);
        return 0;
    }
    int err = tls_conn_export(e->tls, &x->tls);
    t->tls = slice_of(&x->tls);
    return err;
}

static void fill_names(const struct client *c, struct scratch *x, struct transfer_client *t)
{
    const struct member *m = &c->up.member;
    if (m->uid != NULL) {
        t->uid.data = uid_entry_name(m->uid, &t->uid.len);
        t->has_uid = 1;
    }
    put_groups(&x->groups, m);
    t->groups = slice_of(&x->groups);
    if (m->session != NULL)
        t->session = (struct slice){m->session->data, m->session->len};
}

/* 0, or -errno: then it must not be handed over without what is missing. */
static int fill(struct client *c, struct scratch *x, struct transfer_client *t)
{
    struct shard *s = client_shard(c);
    uint32_t now = shard_now_ms(s);
    transfer_put_address(&x->peer, &c->up.peer);
    put_out(&x->out, c);
    *t = (struct transfer_client){
        .id = c->announced ? c->up.member.id : 0,
        .state = c->state,
        .listener = {(const uint8_t *)c->listener->config->name, strlen(c->listener->config->name)},
        .peer = slice_of(&x->peer),
        .gateway_port = c->up.gateway_port,
        .flags = flags_of(c),
        .state_ago_ms = now - c->since_ms,
        .read_ago_ms = now - c->last_read_ms,
        .silent_beats = (uint64_t)(c->silent_beats + 1),
        .control_frames = c->control_second == s->second ? c->control_count : 0,
        .out = slice_of(&x->out),
        .out_written = c->out_skip,
    };
    fill_input(c, x, t, now);
    if (c->announced) {
        fill_names(c, x, t);
        upstream_export_client(s->upstream, &c->up, t);
    }
    int err = fill_edge(c, x, t, now);
    bool failed = x->peer.failed | x->out.failed | x->ws.failed | x->deflate.failed | x->groups.failed;
    return failed ? -ENOMEM : err;
}

static void clear(struct scratch *x)
{
    bytes_clear(&x->record);
    bytes_clear(&x->peer);
    bytes_clear(&x->groups);
    bytes_clear(&x->out);
    bytes_clear(&x->ws);
    bytes_clear(&x->deflate);
    bytes_clear(&x->tls);
}

static unsigned nth_edge(uint64_t edges, unsigned n)
{
    for (n %= (unsigned)__builtin_popcountll(edges); n > 0; n--)
        edges &= edges - 1;
    return (unsigned)__builtin_ctzll(edges);
}

/* Of these, who takes new clients: whoever has no id yet comes in there. */
static uint64_t not_drained(const struct client *c, uint64_t edges)
{
    const struct node_shared *n = client_shard(c)->shared;
    uint64_t some = edges;
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++)
        if (NODE_LOAD(n->shards[i].drained) != NODE_NOT_DRAINED)
            some &= ~(UINT64_C(1) << i);
    return some != 0 ? some : edges;
}

/* Those without an id stay where they are, if they can, else go in turn to those who take clients. */
static unsigned destination(const struct client *c, const struct transfer_plan *plan, uint32_t index)
{
    bool can_stay = plan->same || (plan->takers != 0 && (plan->edges >> plan->me & 1) != 0);
    if (c->announced)
        return node_home_of((const struct node_home *)plan->home, c->up.member.id);
    if (can_stay)
        return plan->me;
    return nth_edge(plan->takers != 0 ? not_drained(c, plan->edges) : plan->edges, index);
}

/* Within a node those go who are not at home here any more. */
static bool stays(const struct client *c, const struct transfer_plan *plan, uint32_t index)
{
    return must_stay(c) || (plan->takers != 0 && destination(c, plan, index) == plan->me);
}

/* At an upgrade its connection ends. Within a node it would live on where nobody looks for its id. */
static int export_who_stays(const struct client *c, const struct transfer_plan *plan,
                            struct transfer_sink *sink)
{
    if (!c->announced || !must_stay(c))
        return 0;
    if (plan->takers == 0)
        return upstream_export_ended(client_shard(c)->upstream, &c->up, plan, sink);
    return node_home_of((const struct node_home *)plan->home, c->up.member.id) == plan->me ? 0 : -EOPNOTSUPP;
}

static int export_clients(struct shard *s, const struct transfer_plan *plan, struct transfer_sink *sink,
                          struct shard_exported *count)
{
    struct scratch x = {0};
    int err = 0;
    for (uint32_t i = 0; i < s->n_clients && err == 0; i++) {
        struct client *c = s->clients[i];
        struct transfer_client t;
        if (stays(c, plan, i)) {
            count->left_out++;
            err = export_who_stays(c, plan, sink);
            continue;
        }
        clear(&x);
        err = fill(c, &x, &t);
        if (err == 0 && !transfer_put_client(&x.record, &t))
            err = -ENOMEM;
        if (err == 0)
            err = sink->put(sink, destination(c, plan, i), slice_of(&x.record),
                            net_conn_handle(s->host.net, &c->conn));
        count->clients++;
    }
    scratch_fini(&x);
    return err;
}

/* A shard of a node that lives on gives them only when it is to have none. */
static bool gives_links(const struct transfer_plan *plan)
{
    return plan->takers == 0 || (plan->links >> plan->me & 1) == 0;
}

int shard_export(struct shard *s, unsigned phase, const struct transfer_plan *plan,
                 struct transfer_sink *sink, struct shard_exported *ret)
{
    struct counted_sink counted = {
        .sink.put = counted_put, .next = sink, .takers = plan->takers != 0 ? plan->takers : UINT64_MAX};
    struct shard_exported count = {0};
    uint64_t workers = 0, rest = 0;
    int err;
    if (phase == 1) {
        err = export_shard(s, plan, &counted.sink);
        if (err == 0 && gives_links(plan))
            err = upstream_export_links(s->upstream, plan, &counted.sink, &count.links, &workers);
    } else {
        err = export_clients(s, plan, &counted.sink, &count);
        if (err == 0 && gives_links(plan))
            err = upstream_export_rest(s->upstream, plan, &counted.sink, &rest);
    }
    if (err == 0)
        err = export_end(phase, workers, plan, &counted);
    for (unsigned i = 0; i < plan->n_shards; i++)
        count.records += counted.records[i];
    if (ret != NULL)
        *ret = count;
    return err;
}

void shard_forget_given(struct shard *s, const struct transfer_plan *plan)
{
    /* Downwards: whoever goes is replaced by the last, who was looked at already. */
    for (uint32_t i = s->n_clients; i-- > 0;)
        if (!stays(s->clients[i], plan, i))
            client_forget(s->clients[i]);
    if (gives_links(plan))
        upstream_forget_given(s->upstream);
}
