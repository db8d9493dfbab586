// SPDX-License-Identifier: MIT
/* permessage-deflate (RFC 7692) in the way of messages.
 *
 * What several clients get is compressed once for each window size, as if nothing had been compressed before:
 * that fits every peer, whatever was agreed. Only with context take-over, and only a message that goes to one
 * client alone, is compressed by a compressor of that client's own; after a message of the first kind it
 * begins anew, as its distances count from a history that the peer has seen grow meanwhile.
 *
 * Memory is set aside in the budget when it is agreed on; without room the client is not agreed with. */
#include "shard/shard_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"

/* zlib's default is 8; with 5 a compressor takes an eighth of the memory for its hash table and symbols (151
 * KB in all instead of 262 with the largest window, 30 instead of 142 with 2^11), and a message that begins
 * anew is cheaper. */
#define MEM_LEVEL_OWN    5
#define MEM_LEVEL_SHARED 8
/* What a decompressed message may be of in any case. */
#define INFLATED_FREE ((size_t)1024 * 1024)
/* A decompressed message larger than that does not keep its memory. */
#define INFLATED_KEEP ((size_t)1024 * 1024)

static void budget_changed(struct shard *s)
{
    counter_set(s->host.counters, COUNTER_deflate_bytes, s->deflate_bytes);
}

/* ---- agreeing */

static size_t memory_of(const struct ws_deflate_params *p)
{
    size_t n = sizeof(struct client_edge);
    if (p->takeover)
        n += ws_deflater_memory(p->window_bits, MEM_LEVEL_OWN);
    if (p->client_takeover)
        n += ws_inflater_memory(p->client_window_bits);
    return n;
}

/* Set aside, whether there is room or not. NULL: no memory, the client is closing. */
static struct client_edge *agree(struct client *c, const struct ws_deflate_params *params)
{
    struct shard *s = client_shard(c);
    struct client_edge *e = client_need_edge(c);
    if (e == NULL)
        return NULL;
    e->deflate = *params;
    e->deflate_bytes = memory_of(params);
    s->deflate_bytes += e->deflate_bytes;
    budget_changed(s);
    c->has_deflate = true;
    return e;
}

int client_deflate_restore(struct client *c, const struct ws_deflate_params *params, struct slice window)
{
    struct client_edge *e = agree(c, params);
    if (e == NULL)
        return -ENOMEM;
    if (window.len == 0)
        return 0;
    e->inflater = ws_inflater_new(params->client_window_bits);
    return e->inflater != NULL && ws_inflater_set_window(e->inflater, window.data, window.len) ? 0 : -ENOMEM;
}

void client_deflate_agree(struct client *c, const struct http_request *req, char *header, size_t cap)
{
    const struct config_listen *l = c->listener->config;
    struct shard *s = client_shard(c);
    struct ws_deflate_params params;
    const struct ws_deflate_wish wish = {
        .takeover = l->deflate_takeover,
        .client_takeover = l->deflate_client_takeover,
        .window_bits = (uint8_t)l->deflate_window_bits,
        .client_window_bits = (uint8_t)l->deflate_client_window_bits,
    };
    header[0] = '\0';
    if (!l->deflate || !ws_deflate_negotiate(req, &wish, &params, header, cap))
        return;
    if (s->deflate_bytes + memory_of(&params) > shard_config(s)->deflate_memory) {
        shard_count(s, COUNTER_deflate_declined_memory, 1);
        header[0] = '\0';
        return;
    }
    if (agree(c, &params) != NULL)
        shard_count(s, COUNTER_deflate_negotiated, 1);
}

/* ---- messages from a client */

static struct ws_inflater *inflater_of(struct client *c)
{
    struct shard *s = client_shard(c);
    struct ws_inflater **at = c->edge->deflate.client_takeover ? &c->edge->inflater : &s->inflater;
    if (*at == NULL) /* the shard's own takes whatever window */
        *at = ws_inflater_new(c->edge->deflate.client_takeover ? c->edge->deflate.client_window_bits : 15);
    return *at;
}

/* The most that a message of so many bytes may become. */
static size_t inflated_max(const struct config_listen *l, size_t len)
{
    uint64_t by_ratio = l->deflate_ratio_max > 0 ? len * l->deflate_ratio_max + INFLATED_FREE : UINT64_MAX;
    return by_ratio < l->package_size_max ? (size_t)by_ratio : (size_t)l->package_size_max;
}

bool client_inflate(struct client *c, const uint8_t *data, size_t len, bool is_text, struct slice *ret)
{
    struct shard *s = client_shard(c);
    struct ws_inflater *z = inflater_of(c);
    if (s->inflated.cap > INFLATED_KEEP)
        bytes_fini(&s->inflated);
    bytes_clear(&s->inflated);
    s->inflated.failed = false;
    int r = z == NULL ? -ENOMEM
                      : ws_inflate(z, !c->edge->deflate.client_takeover, data, len,
                                   inflated_max(c->listener->config, len), &s->inflated);
    if (r == 0 && is_text && !utf8_valid(s->inflated.data, s->inflated.len))
        r = -EILSEQ;
    shard_count(s, COUNTER_deflate_messages_in, 1);
    shard_count(s, COUNTER_deflate_bytes_in, len);
    shard_count(s, COUNTER_deflate_inflated_bytes, s->inflated.len);
    *ret = (struct slice){s->inflated.data, s->inflated.len};
    if (r == 0)
        return true;
    c->deaf = true;
    if (r == -EMSGSIZE)
        client_close(c, CLOSE_bad_deflate, WS_CLOSE_TOO_BIG, "message too big");
    else if (r == -EILSEQ)
        client_close(c, CLOSE_bad_utf8, WS_CLOSE_BAD_DATA, "text is not UTF-8");
    else if (r == -EBADMSG)
        client_close(c, CLOSE_bad_deflate, WS_CLOSE_BAD_DATA, "not deflate data");
    else
        client_no_memory(c);
    return false;
}

/* ---- messages to a client */

/* The frame around what d makes of the payload; NULL: it would not be smaller, or no memory. */
static struct buf *compress(struct shard *s, struct ws_deflater *d, bool fresh, struct slice payload,
                            unsigned opcode)
{
    static struct bytes out; /* one thread */
    bytes_clear(&out);
    out.failed = false;
    if (!ws_deflate(d, fresh, payload.data, payload.len, &out))
        return NULL;
    shard_count(s, COUNTER_deflate_compressions, 1);
    shard_count(s, COUNTER_deflate_bytes_deflated, payload.len);
    shard_count(s, COUNTER_deflate_bytes_out, out.len);
    struct buf *b = out.len < payload.len ? buf_new(out.len + WS_OUT_HEADER_MAX) : NULL;
    if (b != NULL) {
        size_t head = ws_frame_header(b->data, opcode | WS_OP_COMPRESSED, out.len);
        memcpy(b->data + head, out.data, out.len);
        b->len = (uint32_t)(head + out.len);
    }
    if (out.cap > INFLATED_KEEP)
        bytes_fini(&out);
    return b;
}

/* Compressed alone, for all with that window: kept with the message. NULL: it goes as it is. */
static struct buf *shared_form(struct client *c, struct upstream_message *m, struct buf *plain)
{
    struct shard_listener *l = c->listener;
    unsigned i = c->edge->deflate.window_bits - WINDOW_BITS_MIN, opcode = plain->data[0] & 0x0f;
    if (m->rare == NULL && (m->rare = calloc(1, sizeof *m->rare)) == NULL)
        return NULL;
    struct buf **at = &m->rare->forms[i + (opcode == WS_OP_BINARY ? WINDOW_BITS_N : 0)];
    if (*at != NULL)
        return *at;
    if (l->deflaters[i] == NULL)
        l->deflaters[i] = ws_deflater_new(c->edge->deflate.window_bits, (unsigned)l->config->deflate_level,
                                          MEM_LEVEL_SHARED);
    if (l->deflaters[i] != NULL)
        *at = compress(l->shard, l->deflaters[i], true, m->payload, opcode);
    if (*at == NULL)
        *at = buf_ref(plain); /* not tried again for the next one */
    return *at;
}

/* By the client's own compressor. NULL: it goes as it is. */
static struct buf *own_form(struct client *c, const struct upstream_message *m, unsigned opcode)
{
    struct client_edge *e = c->edge;
    if (e->deflater == NULL) {
        e->deflater = ws_deflater_new(e->deflate.window_bits, (unsigned)c->listener->config->deflate_level,
                                      MEM_LEVEL_OWN);
        e->deflater_fresh = true;
    }
    if (e->deflater == NULL)
        return NULL;
    struct buf *b = compress(client_shard(c), e->deflater, e->deflater_fresh, m->payload, opcode);
    e->deflater_fresh = b == NULL; /* what it remembers now the peer has not seen */
    if (b != NULL)
        b->flags = OUT_STREAM;
    return b;
}

struct buf *client_message_form(struct client *c, struct upstream_message *m, bool *ret_owned)
{
    struct buf *plain = out_message_form(m, c->listener);
    *ret_owned = false;
    if (plain == NULL || m->framed || m->payload.len < c->listener->config->deflate_size_min ||
        m->payload.len == 0)
        return plain;
    if (c->edge->deflate.takeover && !m->to_many) {
        struct buf *own = own_form(c, m, plain->data[0] & 0x0f);
        *ret_owned = own != NULL;
        if (own == NULL)
            return plain;
        shard_count(client_shard(c), COUNTER_deflate_messages_out, 1);
        return own;
    }
    struct buf *b = shared_form(c, m, plain);
    if (b == NULL || b == plain)
        return plain;
    c->edge->deflater_fresh = true;
    shard_count(client_shard(c), COUNTER_deflate_messages_out, 1);
    return b;
}
