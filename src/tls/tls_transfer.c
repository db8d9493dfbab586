// SPDX-License-Identifier: MIT
/* A connection as a record, for another process that goes on with it. */
#include "tls/tls_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>

#include "base/assert.h"
#include "transfer/transfer.h"

/* transfer_tls.flags */
enum {
    FLAG_ENDED = 1 << 0,
    FLAG_SHUT = 1 << 1,
    FLAG_STOPPED = 1 << 2,
    FLAG_RESUMED = 1 << 3,
    FLAG_OWES_UPDATE = 1 << 4,
    FLAG_OWES_WARNING = 1 << 5,
};

/* What one direction's keys follow from: TLS 1.3: its secret; TLS 1.2: key and IV. */
#define SECRET_MAX TLS_SECRET_MAX
_Static_assert(TLS_KEY_MAX + TLS_NONCE_BYTES <= SECRET_MAX, "key and IV fit");

static size_t iv_len(const struct tls_record *r)
{
    return tls__record_has_explicit_nonce(r) ? 4 : TLS_NONCE_BYTES;
}

static size_t secret_len(const struct tls_record *r)
{
    return r->suite->version == TLS1_3_VERSION ? r->suite->secret_len : r->suite->key_len + iv_len(r);
}

static struct slice get_secret(const struct tls_record *r, const struct tls_keys *k, uint8_t *buf)
{
    if (r->suite->version == TLS1_3_VERSION)
        return (struct slice){k->secret, secret_len(r)};
    memcpy(buf, k->key, r->suite->key_len);
    memcpy(buf + r->suite->key_len, k->iv, iv_len(r));
    return (struct slice){buf, secret_len(r)};
}

static bool set_secret(const struct tls_record *r, struct tls_keys *k, struct slice secret)
{
    if (secret.len != secret_len(r))
        return false;
    if (r->suite->version == TLS1_3_VERSION) {
        memcpy(k->secret, secret.data, secret.len);
    } else {
        memcpy(k->key, secret.data, r->suite->key_len);
        memcpy(k->iv, secret.data + r->suite->key_len, iv_len(r));
    }
    return true;
}

/* ---- out */

bool tls_conn_can_export(const struct tls_conn *t)
{
    return t->open && t->ssl == NULL && !t->failed && !t->broken && !t->freed;
}

static uint64_t get_flags(const struct tls_conn *t)
{
    return (t->ended ? FLAG_ENDED : 0) | (t->shut ? FLAG_SHUT : 0) | (t->stopped ? FLAG_STOPPED : 0) |
           (t->resumed ? FLAG_RESUMED : 0) | (t->rec->owes_update ? FLAG_OWES_UPDATE : 0) |
           (t->rec->owes_warning ? FLAG_OWES_WARNING : 0);
}

static struct slice slice_of_piece(const struct piece *p)
{
    return (struct slice){p->data != NULL ? p->data + p->at : NULL, tls__piece_left(p)};
}

static struct slice slice_of_text(const char *s)
{
    return (struct slice){(const uint8_t *)s, strlen(s)};
}

int tls_conn_export(const struct tls_conn *t, struct bytes *out)
{
    ASSERT(t->busy == 0);
    if (!tls_conn_can_export(t))
        return -EOPNOTSUPP;
    const struct tls_record *r = t->rec;
    uint8_t read_secret[SECRET_MAX], write_secret[SECRET_MAX];
    struct transfer_tls x = {
        .version = r->suite->version,
        .suite = r->suite->id,
        .read_secret = get_secret(r, &r->read, read_secret),
        .write_secret = get_secret(r, &r->write, write_secret),
        .read_seq = r->read.seq,
        .write_seq = r->write.seq,
        .nonce_base = tls__record_has_explicit_nonce(r) ? r->nonce_base : 0,
        .fragment_max = r->fragment_max < TLS_RECORD_MAX ? r->fragment_max : 0,
        .flags = get_flags(t),
        .idle_records = r->idle,
        .message = {r->message, r->message_len},
        .message_left = r->message_left,
        .in = slice_of_piece(&t->in),
        .out = slice_of_piece(&t->out),
        .server_name = slice_of_text(tls__conn_server_name(t)),
        .client_subject = slice_of_text(tls__conn_subject(t)),
    };
    /* At once: no copies of keys are left behind where the bytes grow. */
    bool ok = bytes_reserve(out, 1024 + x.in.len + x.out.len) && transfer_put_tls_fields(out, &x);
    OPENSSL_cleanse(read_secret, sizeof read_secret);
    OPENSSL_cleanse(write_secret, sizeof write_secret);
    return ok ? 0 : -ENOMEM;
}

/* ---- in */

static bool is_name(struct slice s, size_t max)
{
    return s.len <= max && (s.len == 0 || memchr(s.data, '\0', s.len) == NULL);
}

/* What an export never has would be a way for it to break what is asserted or bounded elsewhere. */
static bool is_sane(const struct transfer_tls *x)
{
    bool in_hello = x->version == TLS1_2_VERSION && x->message.len == 4;
    return x->message.len <= 4 && (x->message_left == 0 || (in_hello && x->message_left <= UINT32_MAX)) &&
           x->in.len <= TLS_HOLD_MAX && x->out.len <= TLS_OUT_HANDSHAKE_MAX && is_name(x->server_name, 255) &&
           is_name(x->client_subject, sizeof((struct tls_info *)0)->client_subject - 1) &&
           (x->fragment_max == 0 || (x->fragment_max >= 512 && x->fragment_max <= TLS_RECORD_MAX)) &&
           x->idle_records < UINT8_MAX;
}

static bool restore_record(struct tls_record *r, const struct transfer_tls *x)
{
    r->suite = x->version <= UINT16_MAX && x->suite <= UINT16_MAX
                   ? tls__suite_find((unsigned)x->version, (unsigned)x->suite)
                   : NULL;
    if (r->suite == NULL || !set_secret(r, &r->read, x->read_secret) ||
        !set_secret(r, &r->write, x->write_secret))
        return false;
    r->read.seq = x->read_seq;
    r->write.seq = x->write_seq;
    r->nonce_base = x->nonce_base;
    r->has_nonce = true;
    r->fragment_max = x->fragment_max != 0 ? (uint16_t)x->fragment_max : TLS_RECORD_MAX;
    r->idle = (uint8_t)x->idle_records;
    if (x->message.len > 0)
        memcpy(r->message, x->message.data, x->message.len);
    r->message_len = (uint8_t)x->message.len;
    r->message_left = (uint32_t)x->message_left;
    r->owes_update = r->suite->version == TLS1_3_VERSION && (x->flags & FLAG_OWES_UPDATE) != 0;
    r->owes_warning = r->suite->version == TLS1_2_VERSION && (x->flags & FLAG_OWES_WARNING) != 0;
    return true;
}

static bool restore_rest(struct tls_conn *t, const struct transfer_tls *x)
{
    t->open = true;
    t->ended = (x->flags & FLAG_ENDED) != 0;
    t->shut = (x->flags & FLAG_SHUT) != 0;
    t->stopped = (x->flags & FLAG_STOPPED) != 0;
    t->resumed = (x->flags & FLAG_RESUMED) != 0;
    return (x->in.len == 0 || tls__piece_append(&t->in, x->in.data, x->in.len)) &&
           (x->out.len == 0 || tls__piece_append(&t->out, x->out.data, x->out.len)) &&
           tls__conn_set_names(t, x->server_name, x->client_subject) &&
           (t->rec->suite->version != TLS1_3_VERSION || tls__record_derive(t->rec, &t->ctx->aead));
}

struct tls_conn *tls_conn_import(struct tls_context *ctx, const struct tls_conn_ops *ops, void *owner,
                                 struct slice record, int *ret_err)
{
    struct transfer_tls x;
    if (transfer_get_tls(record, &x) != 0 || !is_sane(&x)) {
        *ret_err = -EBADMSG;
        return NULL;
    }
    *ret_err = -ENOMEM;
    struct tls_conn *t = tls_conn_new(ctx, ops, owner);
    if (t == NULL)
        return NULL;
    t->rec = calloc(1, sizeof *t->rec);
    if (t->rec != NULL && !restore_record(t->rec, &x))
        *ret_err = -EBADMSG;
    else if (t->rec != NULL && restore_rest(t, &x))
        return t;
    tls_conn_free(t);
    return NULL;
}
